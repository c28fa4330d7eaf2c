package workers

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/intent"
)

// property is what JSON Schema says of one argument; only what a column's type follows from.
type property struct {
	Type   string `json:"type,omitempty"`
	Format string `json:"format,omitempty"`
}

// declaredSchema is what is written down of a kind's arguments: what their type says, for its typed view, and as contract the
// schema that they are held to, if there is one.
func declaredSchema(t reflect.Type, contract intent.Schema) json.RawMessage {
	raw := argsSchema(t)
	if contract == nil {
		return raw
	}
	both := map[string]any{"contract": contract}
	if raw != nil {
		if err := json.Unmarshal(raw, &both); err != nil {
			panic(err) // made here
		}
	}
	out, err := json.Marshal(both)
	if err != nil {
		panic(fmt.Sprintf("workers: the schema of the arguments %v: %v", t, err)) // the schema's own fault
	}
	return out
}

// argsSchema is the JSON Schema of the arguments, as encoding/json writes them, or nothing where they are no struct. The typed
// view of the kind has its columns from it, in the order of the fields.
func argsSchema(t reflect.Type) json.RawMessage {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || propertyOf(t) != (property{Type: "object"}) {
		return nil
	}
	s := struct {
		Type       string              `json:"type"`
		Properties map[string]property `json:"properties"`
		Order      []string            `json:"propertyOrder"`
	}{"object", map[string]property{}, []string{}}
	depths := map[string]int{}
	for _, a := range argumentsOf(t, nil) {
		depth, twice := depths[a.name]
		if !twice {
			s.Order = append(s.Order, a.name)
		}
		if !twice || a.depth < depth { // the outermost of a name is the one that is written
			s.Properties[a.name], depths[a.name] = a.property, a.depth
		}
	}
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings only
	}
	return raw
}

// argument is a field by its name in JSON, and how deep it is embedded.
type argument struct {
	name  string
	depth int
	property
}

// argumentsOf are the fields of a struct by the rules of encoding/json, those of embedded structs among them. within are the
// structs that it is embedded in.
func argumentsOf(t reflect.Type, within []reflect.Type) (out []argument) {
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		embedded := f.Anonymous && name == "" && inner.Kind() == reflect.Struct && propertyOf(inner) == (property{Type: "object"})
		switch {
		case tag == "-" || slices.Contains(within, t):
		case embedded:
			out = append(out, argumentsOf(inner, append(slices.Clone(within), t))...)
		case f.IsExported():
			a := argument{cmp.Or(name, f.Name), len(within), propertyOf(f.Type)}
			if slices.Contains(strings.Split(options, ","), "string") && slices.Contains([]string{"integer", "number", "boolean"}, a.Type) {
				a.property = property{Type: "string"}
			}
			out = append(out, a)
		}
	}
	return out
}

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// propertyOf is the JSON type of a Go type. No type: nobody can tell what it writes.
func propertyOf(t reflect.Type) property {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[time.Time]():
		return property{"string", "date-time"}
	case reflect.TypeFor[uuid.UUID]():
		return property{"string", "uuid"}
	case reflect.TypeFor[json.Number]():
		return property{Type: "number"}
	}
	switch {
	case t.Implements(marshaler), reflect.PointerTo(t).Implements(marshaler):
		return property{}
	case t.Implements(textMarshaler), reflect.PointerTo(t).Implements(textMarshaler):
		return property{Type: "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return property{Type: "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return property{Type: "integer"}
	case reflect.Uint64, reflect.Float32, reflect.Float64:
		return property{Type: "number"} // a uint64 may be more than a bigint
	case reflect.String:
		return property{Type: "string"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return property{Type: "string"} // base64
		}
		return property{Type: "array"}
	case reflect.Array:
		return property{Type: "array"}
	case reflect.Map, reflect.Struct:
		return property{Type: "object"}
	}
	return property{}
}
