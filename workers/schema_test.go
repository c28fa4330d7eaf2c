package workers

import (
	"encoding/json"
	"math/big"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

type base struct {
	Tenant string `json:"tenant"`
	Amount int    // hidden by the outer one
}

type everything struct {
	base
	*Inner
	OrderID   int64             `json:"order_id"`
	Amount    float64           `json:"amount,omitempty"`
	Paid      *bool             `json:"paid"`
	Due       time.Time         `json:"due"`
	Ref       *uuid.UUID        `json:"ref,omitzero"`
	Big       uint64            `json:"big"`
	Quoted    int               `json:"quoted,string"`
	Raw       json.RawMessage   `json:"raw"`
	Number    json.Number       `json:"number"`
	Cents     big.Int           `json:"cents"`
	From      netip.Addr        `json:"from"`
	Bytes     []byte            `json:"bytes"`
	Lines     []string          `json:"lines"`
	Labels    map[string]string `json:"labels"`
	Named     base              `json:"named"`
	Any       any               `json:"any"`
	CommentID int
	Left      string `json:"-"`
	hidden    int
}

// Inner is exported, as an embedded pointer must be.
type Inner struct {
	Note string `json:"note"`
}

// The schema has the names that encoding/json writes, in the order of the fields.
func TestArgsSchema(t *testing.T) {
	t.Parallel()
	var got struct {
		Properties map[string]property
		Order      []string `json:"propertyOrder"`
	}
	if err := json.Unmarshal(argsSchema(reflect.TypeFor[*everything]()), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]property{
		"tenant": {Type: "string"}, "note": {Type: "string"}, "order_id": {Type: "integer"}, "amount": {Type: "number"}, "Amount": {Type: "integer"},
		"paid": {Type: "boolean"}, "due": {"string", "date-time"}, "ref": {"string", "uuid"}, "big": {Type: "number"}, "quoted": {Type: "string"},
		"raw": {}, "number": {Type: "number"}, "cents": {}, "from": {Type: "string"}, "bytes": {Type: "string"}, "lines": {Type: "array"},
		"labels": {Type: "object"}, "named": {Type: "object"}, "any": {}, "CommentID": {Type: "integer"},
	}
	if diff := cmp.Diff(want, got.Properties); diff != "" {
		t.Errorf("properties (-want +got):\n%s", diff)
	}
	if len(got.Order) != len(want) || got.Order[0] != "tenant" || got.Order[len(got.Order)-1] != "CommentID" {
		t.Errorf("order = %v", got.Order)
	}
	// What encoding/json writes has no name that the schema lacks.
	raw, err := json.Marshal(everything{Inner: &Inner{}, Paid: new(bool), Ref: &uuid.UUID{1}, Amount: 1, hidden: 1})
	if err != nil {
		t.Fatal(err)
	}
	var written map[string]any
	if err := json.Unmarshal(raw, &written); err != nil {
		t.Fatal(err)
	}
	for name := range written {
		if _, ok := got.Properties[name]; !ok {
			t.Errorf("encoding/json writes %q, which the schema lacks", name)
		}
	}
}

func TestArgsSchema_ofNoStruct(t *testing.T) {
	t.Parallel()
	for _, typ := range []reflect.Type{
		reflect.TypeFor[json.RawMessage](), reflect.TypeFor[map[string]any](), reflect.TypeFor[[]int](), reflect.TypeFor[string](),
		reflect.TypeFor[any](), reflect.TypeFor[time.Time](), reflect.TypeFor[big.Int](),
	} {
		if got := argsSchema(typ); got != nil {
			t.Errorf("%v: %s; want none", typ, got)
		}
	}
}
