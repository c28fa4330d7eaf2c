package schema_test

import (
	"encoding/json"
	"fmt"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/intent/schema"
)

type refundArgs struct {
	Charge string `json:"charge" jsonschema:"the provider's id"`
	Cents  int    `json:"cents"`
	Note   string `json:"note,omitempty"`
}

// A kind whose arguments are held to what their type says, and that has a field it cannot do without.
func ExampleOf() {
	refund := intent.Kind[refundArgs]{Name: "shop.charge.refund", Schema: schema.Of[refundArgs]()}
	fmt.Println(refund.Schema.Check(json.RawMessage(`{"charge": "ch_71", "cents": 900}`)))
	fmt.Println(refund.Schema.Check(json.RawMessage(`{"charge": "ch_71"}`)) != nil)
	// Output:
	// <nil>
	// true
}

// A type cannot say everything.
func ExampleParse() {
	s, err := schema.Parse(`{
		"type": "object", "required": ["charge", "cents"],
		"properties": {"cents": {"type": "integer", "minimum": 1}, "charge": {"type": "string", "pattern": "^ch_"}}
	}`)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Check(json.RawMessage(`{"charge": "ch_71", "cents": 0}`)) != nil)
	// Output: true
}
