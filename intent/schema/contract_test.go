package schema_test

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/intent/intenttest"
	"github.com/writhq/writ/intent/schema"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

type chargeArgs struct {
	Order  int    `json:"order"`
	Amount int    `json:"amount"`
	Note   string `json:"note,omitempty"`
}

// The first version had the amount in a text, and no contract.
type chargeArgs1 struct {
	Order  int    `json:"order"`
	Amount string `json:"amount"`
}

var (
	charge1 = intent.Kind[chargeArgs1]{Name: "shop.order.charge"}
	charge2 = intent.Kind[chargeArgs]{Name: "shop.order.charge", ArgsVersion: 2, Schema: schema.Of[chargeArgs](), MaxAttempts: 3}
	given   = intent.Kind[chargeArgs]{
		Name: "shop.order.refund", Schema: schema.MustParse(`{"properties": {"amount": {"minimum": 1}}, "required": ["amount", "order"]}`), MaxAttempts: 3,
	}
)

// upgrade brings version 1 up to version 2.
func upgrade(version int, args json.RawMessage) (json.RawMessage, error) {
	var v map[string]any
	if err := json.Unmarshal(args, &v); err != nil || version != 1 {
		return nil, errors.Join(err, errors.New("not version 1"))
	}
	switch v["amount"] {
	case "nine":
		v["amount"] = 9
	case "panic":
		panic("no such number")
	case "odd":
		v["amount"] = "still odd"
	default:
		return nil, errors.New("the amount is no number")
	}
	return json.Marshal(v)
}

// TestCreate holds creators in Go to the contract: nothing is sent to the database.
func TestCreate(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	err := pgx.BeginFunc(t.Context(), db.Pool, func(tx pgx.Tx) error {
		_, err := given.Create(t.Context(), tx, chargeArgs{Order: 1, Amount: 0}, intent.Opts{})
		var invalid *intent.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != "args" || !strings.Contains(err.Error(), "amount") {
			t.Errorf("an amount of 0: %v; want an InvalidError that names it", err)
		}
		many := []intent.One[chargeArgs]{{Args: chargeArgs{Order: 1, Amount: 1}}, {Args: chargeArgs{Order: 2, Amount: -1}}}
		if _, err := given.CreateMany(t.Context(), tx, many); !errors.Is(err, intent.ErrInvalid) || !strings.Contains(err.Error(), "intent 1") {
			t.Errorf("one of two: %v; want it named", err)
		}
		_, err = given.Create(t.Context(), tx, chargeArgs{Order: 1, Amount: 1}, intent.Opts{}) // the transaction is whole
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents"); n != 1 {
		t.Errorf("%d intents; want 1", n)
	}
}

// TestClaim: what creators in SQL wrote, and creators of other versions, is judged before the handler is run.
func TestClaim(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		version int
		args    string
		status  string
		why     string // in the step
		calls   int
	}{
		{"Fits", 2, `{"order": 1, "amount": 9}`, "sent", "", 1},
		{"Misspelt", 2, `{"order": 1, "amuont": 9}`, "error", "amount", 0},
		{"OfAnotherType", 2, `{"order": 1, "amount": "9"}`, "error", "amount", 0},
		{"OfNoType", 2, `[]`, "error", "array", 0},
		{"Upgraded", 1, `{"order": 1, "amount": "nine"}`, "sent", "", 1},
		{"CannotBeUpgraded", 1, `{"order": 1, "amount": "many"}`, "error", "the amount is no number", 0},
		{"PanicsWhenUpgraded", 1, `{"order": 1, "amount": "panic"}`, "error", "the upgrade panicked: no such number", 0},
		{"DoesNotFitWhenUpgraded", 1, `{"order": 1, "amount": "odd"}`, "error", "do not fit the schema", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db := testkit.Database(t)
			calls, recovered := 0, 0
			mux := workers.NewMux()
			workers.Handle(mux, charge2, workers.Handler[chargeArgs]{
				Upgrade: upgrade,
				Do: func(_ context.Context, job *workers.Job[chargeArgs]) error {
					if calls++; job.Args.Amount != 9 || job.ArgsVersion() != tt.version {
						t.Errorf("the handler got %+v, of version %d", job.Args, job.ArgsVersion())
					}
					return nil
				},
				OnError: func(context.Context, pgx.Tx, *workers.Job[chargeArgs], error) error { recovered++; return nil },
			})
			kit := intenttest.New(t, db.Pool, mux)
			id := testkit.Value[intent.ID](t, db, `INSERT INTO writ.intents (kind, args, args_version) VALUES ('shop.order.charge', $1, $2) RETURNING id`, tt.args, tt.version)
			steps := kit.DrainAll()
			i := intenttest.RequireStatus(t, db, id, tt.status)
			if len(steps) != 1 || calls != tt.calls || recovered != 1-tt.calls {
				t.Errorf("%d calls, %d recoveries, steps %v; want one attempt, %d calls", calls, recovered, steps, tt.calls)
			}
			if tt.why != "" && (i.Error == nil || !strings.Contains(*i.Error, tt.why)) {
				t.Errorf("it says %v; want %q", steps, tt.why)
			}
		})
	}
}

// TestClaim_Newer: a worker that is older than the arguments leaves them to a newer one, and says so.
func TestClaim_Newer(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	mux := workers.NewMux()
	workers.Handle(mux, charge1, workers.Handler[chargeArgs1]{Do: func(context.Context, *workers.Job[chargeArgs1]) error {
		t.Error("the old handler was run")
		return nil
	}})
	old := intenttest.New(t, db.Pool, mux)
	c, err := charge2.CreateAlone(t.Context(), db.Pool, chargeArgs{Order: 1, Amount: 9}, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		steps := old.Drain()
		if len(steps) != 1 || steps[0].Outcome != "retried" || !strings.Contains(steps[0].Why, "version 2") || steps[0].Attempt != 1 {
			t.Fatalf("steps %v; want it left to a newer worker, no attempt spent", steps)
		}
		if steps := old.Drain(); len(steps) != 0 {
			t.Fatalf("at once again: %v", steps)
		}
		old.Elapse(20_000_000_000)
	}
	newer := workers.NewMux()
	workers.Handle(newer, charge2, workers.Handler[chargeArgs]{Do: func(context.Context, *workers.Job[chargeArgs]) error { return nil }})
	intenttest.New(t, db.Pool, newer).DrainAll()
	intenttest.RequireStatus(t, db, c.ID, "sent")
}

// TestDeclared: the contract stands with the kind, and its typed view is as without one.
func TestDeclared(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	mux := workers.NewMux()
	workers.Handle(mux, charge2, workers.Handler[chargeArgs]{Do: func(context.Context, *workers.Job[chargeArgs]) error { return nil }})
	intenttest.New(t, db.Pool, mux)
	contract := testkit.Value[string](t, db, "SELECT schema ->> 'contract' FROM writ.kinds WHERE name = 'shop.order.charge'")
	if s, err := schema.Parse(contract); err != nil || s.Check(json.RawMessage(`{"order": 1}`)) == nil || s.Check(json.RawMessage(`{"order": 1, "amount": 2}`)) != nil {
		t.Errorf("declared %s: %v", contract, err)
	}
	columns := testkit.Value[string](t, db, "SELECT string_agg(name || ' ' || type, ', ') FROM writ.kind_arguments('shop.order.charge')")
	if columns != "order bigint, amount bigint, note text" {
		t.Errorf("the view's columns: %s", columns)
	}
}

// TestGraph: who has no contract does not link the library for it, and it brings nothing else with it.
func TestGraph(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{"github.com/writhq/writ/intent": "", "github.com/writhq/writ/workers": "", "github.com/writhq/writ/intent/schema": "github.com/google/jsonschema-go/jsonschema"} {
		out, err := exec.Command("go", "list", "-deps", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for dep := range strings.FieldsSeq(string(out)) {
			if strings.Contains(dep, "jsonschema") {
				found = append(found, dep)
			}
		}
		if got := strings.Join(found, " "); got != want {
			t.Errorf("%s links %q; want %q", path, got, want)
		}
	}
}
