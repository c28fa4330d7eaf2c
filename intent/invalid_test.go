package intent_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

type inner struct{ Name string }

type outer struct {
	inner         // its exported fields are written
	*deep         // also through a pointer
	List  []inner `json:"list,omitempty"`
	Map   map[string]inner
	Any   any
	Bytes []byte
	Skip  string `json:"-"`
	own   string //nolint:unused // not written
}

type deep struct{ Deep string }

// loop is what a careless caller makes of a graph: two ways round, so that a naive walk never ends.
type loop struct{ Left, Right *loop }

const bad = "a\xffb"

// tryAny creates with arguments of any type, whose name is a good one.
func tryAny(args any, opts intent.Opts) func(intent.Tx) error {
	return tryKind(intent.Kind[any]{Name: "blog.comment.notify"}, args, opts)
}

func tryKind(k intent.Kind[any], args any, opts intent.Opts) func(intent.Tx) error {
	return func(tx intent.Tx) error {
		_, err := k.Create(ctx, tx, args, opts)
		return err
	}
}

func invalids() map[string]struct {
	field string
	try   func(intent.Tx) error
} {
	type invalid = struct {
		field string
		try   func(intent.Tx) error
	}
	l := &loop{}
	l.Left, l.Right = l, l
	out := map[string]invalid{
		"kind of two parts":      {"kind", tryKind(intent.Kind[any]{Name: "blog.notify"}, 1, intent.Opts{})},
		"kind without a name":    {"kind", tryKind(intent.Kind[any]{}, 1, intent.Opts{})},
		"kind with no attempts":  {"MaxAttempts", tryKind(intent.Kind[any]{Name: "a.b.c", MaxAttempts: -1}, 1, intent.Opts{})},
		"run_at in year 10000":   {"run_at", tryAny(1, intent.Opts{RunAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})},
		"run_at on its last eve": {"run_at", tryAny(1, intent.Opts{RunAt: time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -12*3600))})},
		"run_at long ago":        {"run_at", tryAny(1, intent.Opts{RunAt: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)})},
		"key too long":           {"key", tryAny(1, intent.Opts{Key: strings.Repeat("k", 256)})},
		"NUL in the key":         {"key", tryAny(1, intent.Opts{Key: "a\x00"})},
		"key not UTF-8":          {"key", tryAny(1, intent.Opts{Key: bad})},
		"NUL in the trace":       {"trace", tryAny(1, intent.Opts{Trace: "a\x00"})},
		"NUL in a subject":       {"subjects[1]", tryAny(1, intent.Opts{Subjects: []string{"a", "a\x00"}})},
		"subject not UTF-8":      {"subjects[0]", tryAny(1, intent.Opts{Subjects: []string{bad}})},
		"empty subject":          {"subjects[0]", tryAny(1, intent.Opts{Subjects: []string{""}})},
		"subject too long":       {"subjects[0]", tryAny(1, intent.Opts{Subjects: []string{strings.Repeat("s", 201)}})},
		"too many subjects":      {"subjects", tryAny(1, intent.Opts{Subjects: strings.Split(strings.Repeat("s,", 20)+"s", ",")})},
		"NUL in the meta":        {"meta", tryAny(1, intent.Opts{Meta: map[string]any{"a": "\x00"}})},
		"meta not UTF-8":         {"meta", tryAny(1, intent.Opts{Meta: map[string]any{"a": bad}})},
		"meta no JSON":           {"meta", tryAny(1, intent.Opts{Meta: map[string]any{"a": make(chan int)}})},
	}
	for name, args := range map[string]any{
		"over the limit": strings.Repeat("x", 64<<10), "NUL": "a\x00b", "NUL in a map's key": map[string]int{"\x00": 1},
		"string not UTF-8": bad, "field not UTF-8": inner{bad}, "embedded field not UTF-8": outer{inner: inner{bad}},
		"embedded pointer's field not UTF-8": outer{deep: &deep{bad}}, "list not UTF-8": outer{List: []inner{{"a"}, {bad}}},
		"map's value not UTF-8": outer{Map: map[string]inner{"a": {bad}}}, "map's key not UTF-8": outer{Map: map[string]inner{bad: {}}},
		"any not UTF-8": outer{Any: []any{&inner{bad}}}, "channel": make(chan int), "function": func() {}, "not a number": math.NaN(), "cycle": l,
		"no JSON": json.RawMessage(`{"a":`), "nothing": json.RawMessage(nil), "raw not UTF-8": json.RawMessage(`"` + bad + `"`),
		"raw NUL": json.RawMessage(`"\\\u0000"`), "half a surrogate pair": json.RawMessage(`"\ud83d"`), "its other half": json.RawMessage(`"a\ude00"`),
		"surrogates in disorder": json.RawMessage(`"\ud83d\u0041"`), "two high surrogates": json.RawMessage(`"\ud83d\ud83d\ude00"`), "surrogate, then text": json.RawMessage(`"\ud83d\n"`),
		"number too large": json.RawMessage(`[1e200000]`), "number too small": json.RawMessage(`{"a":1e-20000}`), "exponent too large": json.Number("1e99999999999999999999"),
		"nested too deep": json.RawMessage(strings.Repeat("[", 1001) + strings.Repeat("]", 1001)), "marshaler not UTF-8": marshaler{},
	} {
		out["args: "+name] = invalid{"args", tryAny(args, intent.Opts{})}
	}
	return out
}

type marshaler struct{}

func (marshaler) MarshalJSON() ([]byte, error) { return []byte(`"` + bad + `"`), nil }

func TestCreate_whenInvalid(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	tx, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	for name, tt := range invalids() {
		err := tt.try(tx)
		var invalid *intent.InvalidError
		if !errors.As(err, &invalid) || !errors.Is(err, intent.ErrInvalid) {
			t.Errorf("%s: %v; want an InvalidError", name, err)
			continue
		}
		if !strings.HasSuffix(invalid.Field, tt.field) || invalid.Problem == "" {
			t.Errorf("%s: %+v; want the field %s and a problem", name, *invalid, tt.field)
		}
	}
	// Nothing was sent: the transaction goes on.
	if _, err := notify.Create(ctx, tx, comment{1}, intent.Opts{}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	check(t, db, 1)
}

func TestCreate_reportsAllFaults(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	err := pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
		return tryAny("\x00", intent.Opts{Key: "\x00", Subjects: []string{""}})(tx)
	})
	for _, field := range []string{"args", "key", "subjects[0]"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("error %v does not name %s", err, field)
		}
	}
	err = pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
		_, err := notify.CreateMany(ctx, tx, []intent.One[comment]{{}, {Opts: intent.Opts{Key: "\x00"}}, {}, {Opts: intent.Opts{Key: "\x00"}}})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "intent 1") || !strings.Contains(err.Error(), "intent 3") || !errors.Is(err, intent.ErrInvalid) {
		t.Errorf("CreateMany: %v; want both indexes", err)
	}
	check(t, db, 0)
}

// What looks like a fault and is none.
func TestCreate_takes(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	for name, tt := range map[string]struct {
		args any
		want string
	}{
		"an escaped backslash before u0000": {json.RawMessage(`"\\u0000"`), `"\\u0000"`},
		"a surrogate pair":                  {json.RawMessage(`"\ud83d\ude00"`), `"😀"`},
		"the replacement character":         {"\ufffd", "\"\ufffd\""},
		"binary data":                       {outer{Bytes: []byte(bad), Skip: bad, own: bad}.Bytes, `"Yf9i"`},
		"a large number":                    {json.RawMessage(`1e100`), "1" + strings.Repeat("0", 100)},
		"null":                              {nil, "null"},
		"exactly the limit":                 {strings.Repeat("x", 64<<10-2), `"` + strings.Repeat("x", 64<<10-2) + `"`},
	} {
		var c intent.Created
		inTx(t, db, func(tx pgx.Tx) (err error) {
			c, err = intent.Kind[any]{Name: "blog.comment.notify"}.Create(ctx, tx, tt.args, intent.Opts{})
			return err
		})
		if got := testkit.Value[string](t, db, "SELECT args::text FROM writ.intents WHERE id = $1", c.ID); got != tt.want {
			t.Errorf("%s: args = %.100s; want %.100s", name, got, tt.want)
		}
	}
}

// What Create lets through the database takes: nothing aborts the caller's transaction.
func FuzzCreateRaw(f *testing.F) {
	db := testkit.Database(f)
	for _, s := range []string{
		`{}`, `null`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00\ud83d"`, `"\u0000"`, `"\\u0000"`, `1e-16383`, `1.5e-16383`, `1e131071`, `-0.0e1`, `1E+5`, `"\u00`,
		`[[[]]]`, `{"a":{"a":1},"a":2}`, ` [1 , 2] `, "\"\xff\"", `"\/\b\f\n\r\t\""`, `"\ud83d\\ude00"`, `"\uD83D\uDE00"`, `0e999999999`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tx, err := db.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(ctx) }()
		_, err = intent.CreateRaw(ctx, tx, "blog.comment.notify", json.RawMessage(s), intent.Opts{})
		if err != nil && !errors.Is(err, intent.ErrInvalid) {
			t.Errorf("args %q: %v", s, err)
		}
	})
}
