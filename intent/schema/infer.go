package schema

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
)

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

func infer[T any]() (*Schema, error) {
	t := reflect.TypeFor[T]()
	known := map[reflect.Type]*jsonschema.Schema{}
	special(t, known, map[reflect.Type]bool{})
	inferred, err := jsonschema.For[T](&jsonschema.ForOptions{TypeSchemas: known})
	if err != nil {
		return nil, fmt.Errorf("schema: nothing can be inferred from %v, give its schema with schema.Parse: %w", t, err)
	}
	openUp(inferred)
	s, err := compile(inferred)
	if err != nil {
		return nil, err
	}
	// What was inferred must let through what it was inferred from.
	var zero T
	example, err := json.Marshal(zero)
	if err == nil {
		err = s.Check(example)
	}
	if err != nil {
		return nil, fmt.Errorf("schema: what was inferred from %v does not fit its own zero value, give its schema with schema.Parse: %w", t, err)
	}
	return s, nil
}

// special notes what the types write of themselves that look different from inside.
func special(t reflect.Type, known map[reflect.Type]*jsonschema.Schema, seen map[reflect.Type]bool) {
	if seen[t] {
		return
	}
	seen[t] = true
	implements := func(i reflect.Type) bool { return t.Implements(i) || reflect.PointerTo(t).Implements(i) }
	switch {
	case t == reflect.TypeFor[time.Time]():
		known[t] = &jsonschema.Schema{Type: "string", Format: "date-time"}
		return
	case t.Kind() == reflect.Pointer:
		special(t.Elem(), known, seen)
		return
	case implements(marshaler):
		known[t] = &jsonschema.Schema{} // anything
		return
	case implements(textMarshaler):
		known[t] = &jsonschema.Schema{Type: "string"}
		return
	}
	switch t.Kind() {
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			known[t] = &jsonschema.Schema{Types: []string{"null", "string"}} // base64
			return
		}
		special(t.Elem(), known, seen)
	case reflect.Array, reflect.Map:
		special(t.Elem(), known, seen)
	case reflect.Struct:
		for f := range t.Fields() {
			special(f.Type, known, seen)
		}
	}
}

// openUp lets objects have more fields than their structs, and maps be nil.
func openUp(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	switch {
	case len(s.Properties) > 0 || s.AdditionalProperties != nil && s.AdditionalProperties.Not != nil:
		s.AdditionalProperties = nil
	case s.Type == "object" && s.AdditionalProperties != nil:
		s.Type, s.Types = "", []string{"null", "object"}
	}
	for _, p := range s.Properties {
		openUp(p)
	}
	openUp(s.AdditionalProperties)
	openUp(s.Items)
}
