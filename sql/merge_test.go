package sql_test

import (
	"context"
	"strings"
	"testing"

	"github.com/writhq/writ/internal/testkit"
)

// TestMergePatch: the examples of RFC 7396, appendix A, that have a patch which is an object, and what depth does.
func TestMergePatch(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	for _, tt := range []struct{ target, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"a":"foo"}`, `{"b":{"c":null}}`, `{"a":"foo","b":{}}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`{"a":1}`, `{}`, `{"a":1}`},
		{`{"n":12345678901234567890.5}`, `{"m":"\"\\ ü"}`, `{"n":12345678901234567890.5,"m":"\"\\ ü"}`},
	} {
		var equal bool
		var got string
		err := db.QueryRow(context.Background(), "SELECT m = $3::jsonb, m::text FROM writ.merge_patch($1::jsonb, $2::jsonb) m", tt.target, tt.patch, tt.want).Scan(&equal, &got)
		if err != nil || !equal {
			t.Errorf("%s with %s is %s, %v; want %s", tt.target, tt.patch, got, err, tt.want)
		}
	}
}

// TestPatchProblem: what does not fit the declared arguments is told by name and type, never by what it holds.
func TestPatchProblem(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, `INSERT INTO writ.kinds (name, queue, class, schema) VALUES ('test.patch.fit', 'q', 'manual', '{"type": "object", "properties": {
		"id": {"type": "integer"}, "rate": {"type": "number"}, "to": {"type": "string"}, "at": {"type": "string", "format": "date-time"},
		"key": {"type": "string", "format": "uuid"}, "flag": {"type": "boolean"}, "list": {"type": "array"}, "map": {"type": "object"}, "any": {}}}'),
		('test.patch.free', 'q', 'manual', NULL)`)
	for _, tt := range []struct{ kind, patch, want string }{
		{"test.patch.fit", `{"id":7,"rate":1.5,"to":"x","at":"2026-03-01T02:55:00Z","key":"019a3c5e-8f5c-7a10-9d54-0b6f9e3d2c11","flag":true,"list":[],"map":{"a":1},"any":[1]}`, ""},
		{"test.patch.fit", `{"id":null,"to":null,"map":null}`, ""},
		{"test.patch.fit", `{"any":{"secret":1}}`, ""},
		{"test.patch.fit", `{"id":"secret"}`, `argument "id" of test.patch.fit is declared integer, not string`},
		{"test.patch.fit", `{"id":1.5}`, `argument "id" of test.patch.fit is declared integer, not number`},
		{"test.patch.fit", `{"to":7}`, `argument "to" of test.patch.fit is declared string, not number`},
		{"test.patch.fit", `{"at":"secret"}`, `argument "at" of test.patch.fit is declared string of format date-time, not string`},
		{"test.patch.fit", `{"key":"secret"}`, `of format uuid`},
		{"test.patch.fit", `{"flag":"secret","list":{},"map":[]}`, `argument "map"`},
		{"test.patch.fit", `{"too":"secret"}`, `test.patch.fit has no argument "too", but any, at, flag, id, key, list, map, rate, to`},
		{"test.patch.fit", `{"too":null}`, `has no argument "too"`},
		{"test.patch.free", `{"id":"secret"}`, ""},
		{"test.patch.unknown", `{"id":"secret"}`, ""},
	} {
		got := testkit.Value[string](t, db, "SELECT coalesce(writ.patch_problem($1, $2::jsonb), '')", tt.kind, tt.patch)
		if !strings.Contains(got, tt.want) || (tt.want == "") != (got == "") || strings.Contains(got, "secret") {
			t.Errorf("%s with %s: %q; want %q", tt.kind, tt.patch, got, tt.want)
		}
	}
}
