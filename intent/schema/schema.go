// Package schema makes a contract of a kind's arguments: a JSON Schema, inferred from their Go type or given. It is checked
// where an intent is created, and before its handler is run, for creators in SQL. Only who uses it links the library for
// JSON Schema; the kinds that have none pay nothing.
package schema

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/writhq/writ/intent"
)

// Schema is a contract, for the field Schema of an intent.Kind. It is immutable, and safe for concurrent use.
type Schema struct {
	resolved *jsonschema.Resolved
	text     json.RawMessage
}

var _ intent.Schema = (*Schema)(nil)

// Parse reads a JSON Schema, of draft 2020-12 or draft-07. References to other documents are refused.
func Parse(text string) (*Schema, error) {
	var s jsonschema.Schema
	d := json.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("schema: it is no JSON Schema: %w", err)
	}
	return compile(&s)
}

// MustParse is Parse for kinds that are declared as variables: it panics if text is no JSON Schema.
func MustParse(text string) *Schema {
	s, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}

// Of infers the contract of a type, as encoding/json writes it: the fields' names and types, and that those without
// omitempty or omitzero are there. More fields than these are let through, so that creators may be newer than workers. A
// field's tag jsonschema:"…" is its description. It panics for a type that it cannot infer the contract of, such as a
// recursive one: give it by [Parse].
func Of[T any]() *Schema {
	s, err := infer[T]()
	if err != nil {
		panic(err)
	}
	return s
}

func compile(s *jsonschema.Schema) (*Schema, error) {
	resolved, err := s.Resolve(nil)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	return &Schema{resolved, text}, nil
}

// Check returns nil, or what of args does not fit, and where.
func (s *Schema) Check(args json.RawMessage) error {
	var v any
	if err := json.Unmarshal(args, &v); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	return s.resolved.Validate(v)
}

// MarshalJSON returns the contract as a JSON Schema.
func (s *Schema) MarshalJSON() ([]byte, error) { return s.text, nil }
