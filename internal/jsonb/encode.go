package jsonb

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Encode makes JSON of a value, of at most limit bytes, and holds it to what jsonb can keep. Where it cannot it says what is wrong
// with the value, and what to do instead.
func Encode(value any, limit int) (out []byte, problem, fix string) {
	if raw, ok := value.(json.RawMessage); ok && !json.Valid(raw) {
		return nil, "is not valid JSON" + fault(raw), "check it with a JSON parser"
	}
	out, err := json.Marshal(value)
	if err != nil {
		return nil, "cannot be written as JSON: " + err.Error(), "give every field a type that encoding/json knows"
	}
	// After encoding, which has found cycles; encoding has silently put U+FFFD in place of what is not UTF-8.
	if where := invalidUTF8(value); where != "" {
		return nil, where + " is not valid UTF-8", "encode binary data, for example as base64"
	}
	if len(out) > limit {
		problem, fix = TooLarge(len(out), limit)
		return nil, problem, fix
	}
	if problem := unstorable(out); problem != "" {
		return nil, problem, "Postgres cannot store it as jsonb; remove or encode it"
	}
	return out, "", ""
}

// TooLarge says of a value of n bytes that limit is the most, and what to do instead.
func TooLarge(n, limit int) (problem, fix string) {
	return fmt.Sprintf("has %d bytes, the limit is %d", n, limit), "keep large data in a table of your own and pass its id"
}

func fault(raw []byte) string {
	var syntax *json.SyntaxError
	if errors.As(json.Unmarshal(raw, new(any)), &syntax) {
		return fmt.Sprintf(" at byte %d: %s", syntax.Offset, syntax.Error())
	}
	return ""
}
