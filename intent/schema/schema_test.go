package schema_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/intent/schema"
)

// level writes itself as text.
type level int

func (l level) MarshalText() ([]byte, error) { return []byte("level"), nil }

// blob writes itself as it likes.
type blob struct{ Secret int }

func (blob) MarshalJSON() ([]byte, error) { return []byte(`[1, "two"]`), nil }

type inner struct {
	Street string `json:"street"`
}

type embedded struct {
	Shared int `json:"shared"`
}

type all struct {
	embedded
	Text     string            `json:"text" jsonschema:"what to say"`
	Number   int64             `json:"number"`
	Small    uint8             `json:"small"`
	Fraction float64           `json:"fraction"`
	Yes      bool              `json:"yes"`
	At       time.Time         `json:"at"`
	ID       uuid.UUID         `json:"id"`
	Bytes    []byte            `json:"bytes"`
	Raw      json.RawMessage   `json:"raw"`
	Level    level             `json:"level"`
	Blob     blob              `json:"blob"`
	List     []inner           `json:"list"`
	Map      map[string]int    `json:"map"`
	Any      any               `json:"any"`
	Pointer  *inner            `json:"pointer"`
	Maybe    string            `json:"maybe,omitempty"`
	When     time.Time         `json:"when,omitzero"`
	Deep     map[string]*inner `json:"deep,omitempty"`
	Hidden   string            `json:"-"`
	NoTag    int
}

// TestOf: what a value is written as fits what is inferred from its type, empty and full.
func TestOf(t *testing.T) {
	t.Parallel()
	s := schema.Of[all]()
	full := all{
		embedded{1},
		"t", math.MaxInt64, 255, 0.5, true, time.Now(), uuid.New(),
		[]byte{0, 1},
		json.RawMessage(`{"a": [1]}`), 3,
		blob{},
		[]inner{{"s"}},
		map[string]int{"a": 1},
		[]int{1},
		&inner{"s"}, "m", time.Now(),
		map[string]*inner{"x": {"s"}, "y": nil},
		"h", 7,
	}
	for _, value := range []all{{}, full} {
		raw, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Check(raw); err != nil {
			t.Errorf("%s does not fit: %v", raw, err)
		}
	}
	raw, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		field string
		value any // absent: take the field away
		fits  bool
	}{
		"another type":               {"text", 7, false},
		"no integer":                 {"number", 1.5, false},
		"too large":                  {"small", 256, false},
		"not of its type":            {"yes", "true", false},
		"a number for a text's type": {"level", 3, false},
		"null for a value":           {"text", nil, false},
		"null for a pointer":         {"pointer", nil, true},
		"missing":                    {"text", absent{}, false},
		"optional and missing":       {"maybe", absent{}, true},
		"missing within":             {"list", []any{map[string]any{}}, false},
		"null in a map of pointers":  {"deep", map[string]any{"x": nil}, true},
		"another value in a map":     {"map", map[string]any{"x": "y"}, false},
		"more than it knows":         {"newer", 1, true},
		"more than it knows, within": {"list", []any{map[string]any{"street": "s", "newer": 1}}, true},
		"by an embedded struct":      {"shared", "x", false},
		"what writes itself":         {"blob", 7, true},
	}
	for name, tt := range tests {
		var v map[string]any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		v[tt.field] = tt.value
		if tt.value == (absent{}) {
			delete(v, tt.field)
		}
		changed, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Check(changed)
		if (err == nil) != tt.fits || err != nil && !strings.Contains(err.Error(), tt.field) {
			t.Errorf("%s: %v; want it to fit: %v, and the fault to name %s", name, err, tt.fits, tt.field)
		}
	}
	if err := s.Check(json.RawMessage(`{`)); err == nil {
		t.Error("what is no JSON fits")
	}
}

type absent struct{}

type recursive struct {
	Next *recursive `json:"next"`
}

type quoted struct {
	N int `json:"n,string"`
}

// TestOf_Panics: a type that its contract cannot be inferred from says so at once, and not at night.
func TestOf_Panics(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]func(){
		"recursive": func() { schema.Of[recursive]() }, "a number in quotes": func() { schema.Of[quoted]() },
		"a function": func() { schema.Of[struct{ F func() }]() }, "a map by numbers": func() { schema.Of[map[int]string]() },
	} {
		func() {
			defer func() {
				if p, ok := recover().(error); !ok || !strings.Contains(p.Error(), "schema.Parse") {
					t.Errorf("%s: %v; want a panic that says what to do", name, p)
				}
			}()
			of()
		}()
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	s, err := schema.Parse(`{"type": "object", "properties": {"amount": {"type": "integer", "minimum": 1}, "currency": {"enum": ["EUR", "CHF"]}}, "required": ["amount"]}`)
	if err != nil {
		t.Fatal(err)
	}
	for args, fits := range map[string]bool{
		`{"amount": 1}`: true, `{"amount": 1, "currency": "CHF"}`: true, `{"amount": 0}`: false, `{"currency": "CHF"}`: false,
		`{"amount": 1, "currency": "USD"}`: false, `[]`: false, `null`: false,
	} {
		if err := s.Check(json.RawMessage(args)); (err == nil) != fits {
			t.Errorf("%s: %v; want it to fit: %v", args, err, fits)
		}
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := schema.Parse(string(text)); err != nil || again.Check(json.RawMessage(`{"amount": 0}`)) == nil {
		t.Errorf("written and read again: %v, %s", err, text)
	}
	for _, bad := range []string{``, `7`, `{"type": 7}`, `{"pattern": "("}`, `{"$ref": "https://example.com/other.json"}`, `{"$ref": "#/$defs/none"}`} {
		if _, err := schema.Parse(bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("MustParse took what is no schema")
		}
	}()
	schema.MustParse(`{"type": 7}`)
}
