package sql_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// sync makes or updates a kind's view and returns its name.
func (b *bench) sync(t *testing.T, kind, want string) string {
	t.Helper()
	got, err := store.SyncKind(ctx, b.Pool, kind)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.Did, want) {
		t.Fatalf("sync of %s: %q; want %q", kind, got.Did, want)
	}
	return got.View
}

// arguments are a view's columns for the arguments, with their types.
func (b *bench) arguments(t *testing.T, view string) []string {
	t.Helper()
	all := testkit.Value[[]string](t, b.DB, `SELECT array_agg(attname || ' ' || format_type(atttypid, NULL) ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = ('writ.' || quote_ident($1))::regclass AND attnum > 0`, view)
	const fixed = 10 // those that follow: requested_at to args
	return all[2 : len(all)-fixed]
}

const declared = `{"type": "object", "propertyOrder": ["order_id", "customerRef", "due", "price", "paid", "token", "lines"], "properties": {
	"order_id": {"type": "integer"}, "customerRef": {"type": "string"}, "due": {"type": "string", "format": "date-time"}, "price": {"type": "number"},
	"paid": {"type": "boolean"}, "token": {"type": "string", "format": "uuid"}, "lines": {"type": "array"}}}`

func TestSyncKind_fromTheDeclaration(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const kind = "shop.order.charge"
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class, schema) VALUES ($1, 'q', 'manual', $2)", kind, declared)
	view := b.sync(t, kind, "made")
	if view != "kind_shop_order_charge" {
		t.Errorf("view = %s", view)
	}
	want := []string{
		"order_id bigint", "customer_ref text", "due timestamp with time zone", "price numeric", "paid boolean", "token uuid", "lines jsonb",
	}
	if diff := cmp.Diff(want, b.arguments(t, view)); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	// A row that does not fit makes no query fail; its value is null, and args shows it.
	for _, args := range []string{
		`{"order_id": 7, "customerRef": "c1", "due": "2026-03-01T08:00:00+01:00", "price": 1.5, "paid": true, "token": "01890000-0000-7000-8000-000000000001", "lines": [1]}`,
		`{"order_id": "seven", "customerRef": 5, "due": "2026-02-31T08:00:00Z", "price": "much", "paid": "yes", "token": "t", "lines": null}`,
		`{"order_id": 1e300, "due": 7, "price": null}`, `{"order_id": 1.5, "due": "tomorrow"}`, `[]`, `"text"`, `null`, `{}`,
	} {
		b.Run(t, "INSERT INTO writ.intents (kind, args) VALUES ($1, $2)", kind, args)
	}
	b.insert(t, "another.kind.here")
	rows, err := b.Query(ctx, "SELECT concat_ws('|', status, order_id, customer_ref, due AT TIME ZONE 'UTC', price, paid, token, lines) FROM writ.kind_shop_order_charge ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	wantRows := []string{"ready|7|c1|2026-03-01 07:00:00|1.5|t|01890000-0000-7000-8000-000000000001|[1]", "ready|5|null", "ready", "ready", "ready", "ready", "ready", "ready"}
	if diff := cmp.Diff(wantRows, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	b.sync(t, kind, "as it was")
	for _, role := range []string{"writ_viewer", "writ_operator"} {
		if n := len(scan(t, login(t, b.DB, role), "SELECT order_id::text FROM writ."+view+" WHERE order_id = 7")); n != 1 {
			t.Errorf("%s reads %d rows; want 1", role, n)
		}
	}
	refused(t, login(t, b.DB, "writ_creator"), denied, "SELECT * FROM writ."+view)
	refused(t, login(t, b.DB, "writ_viewer"), denied, "SELECT * FROM writ.sync_kind('shop.order.charge')")
}

func scan(t *testing.T, q querier, sql string) []string {
	t.Helper()
	rows, err := q.Query(ctx, sql)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Without a declaration a sample of the rows tells; both together where arguments were renamed.
func TestSyncKind_followsTheRows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const kind = "shop.order.ship"
	insert := func(args string) { b.Run(t, "INSERT INTO writ.intents (kind, args) VALUES ($1, $2)", kind, args) }
	insert(`{"order": 7, "weight": 1, "at": "2026-03-01T08:00:00Z", "ref": "01890000-0000-7000-8000-000000000001", "express": true, "to": {"city": "Ulm"}, "mixed": 1, "none": null}`)
	insert(`{"order": 8, "weight": 2.5, "at": "2026-03-01T08:00:00.5+01:00", "ref": "01890000-0000-7000-8000-000000000002", "express": false, "to": [], "mixed": "x", "carrier": "dhl"}`)
	view := b.sync(t, kind, "made")
	first := []string{
		"at timestamp with time zone", "carrier text", "express boolean", "mixed jsonb", `"order" bigint`, "ref uuid", `"to" jsonb`, "weight numeric",
	}
	for i := range first {
		first[i] = strings.ReplaceAll(first[i], `"`, "")
	}
	if diff := cmp.Diff(first, b.arguments(t, view)); diff != "" {
		t.Errorf("from rows (-want +got):\n%s", diff)
	}
	// The code comes, and has renamed order to order_id: both stay, as long as rows have both.
	b.Run(t, `INSERT INTO writ.kinds (name, queue, class, schema) VALUES ($1, 'q', 'manual', '{"properties": {"order_id": {"type": "integer"}, "carrier": {"type": "string"}}, "propertyOrder": ["order_id", "carrier"]}')`, kind)
	b.sync(t, kind, "changed")
	got := b.arguments(t, view)
	if want := []string{"order_id bigint", "carrier text"}; !cmp.Equal(got[:2], want) || len(got) != 9 {
		t.Errorf("after the rename: %v; want %v first, then what the rows have", got, want)
	}
	// Keys of a map, of which each row has its own, are no arguments.
	b.Run(t, "INSERT INTO writ.intents (kind, args) SELECT $1, jsonb_build_object('order_id', g, 'key' || g, 1) FROM generate_series(1, 500) g", kind)
	b.sync(t, kind, "changed")
	if got := b.arguments(t, view); !cmp.Equal(got, []string{"order_id bigint", "carrier text"}) {
		t.Errorf("with a map in the args: %v", got)
	}
	// The rows are gone: what the code declares is left, and what was only learned from rows stays where nothing is declared.
	b.Run(t, "INSERT INTO writ.intents (kind, args) VALUES ('only.by.rows', '{\"a\": 1}')")
	other := b.sync(t, "only.by.rows", "made")
	b.Run(t, "UPDATE writ.intents SET state = 'cancelled'")
	b.Run(t, "DELETE FROM writ.intents")
	b.sync(t, kind, "as it was")
	b.sync(t, "only.by.rows", "kept")
	if got := b.arguments(t, other); !cmp.Equal(got, []string{"a bigint"}) {
		t.Errorf("kept: %v", got)
	}
}

// Names from outside become safe columns, and none takes the place of another.
func TestSyncKind_hostileNames(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const kind = "shop.order.charge"
	args := map[string]any{
		"id": 1, "status": "x", "Status": "y", "arg_status": "z", `x"; DROP TABLE writ.intents; --`: 1, "it's": 1, "": 1, "1st": 1, "orderID": 1, "order_id": 2,
		"straße": 1, strings.Repeat("long", 40): 1, strings.Repeat("long", 40) + "er": 2, "select": 1, "%I %L %s": 1, "i.args": 1,
	}
	b.Run(t, "INSERT INTO writ.intents (kind, args) VALUES ($1, $2)", kind, args)
	view := b.sync(t, kind, "made")
	got := b.arguments(t, view)
	if len(got) != len(args) {
		t.Errorf("%d columns for %d arguments: %v", len(got), len(args), got)
	}
	for _, want := range []string{"arg_id bigint", "arg_status text", "order_id bigint", "arg_order_id bigint", "arg_1st bigint", "select bigint"} {
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("columns %v lack %s", got, want)
		}
	}
	if n := testkit.Value[int](t, b.DB, "SELECT count(*) FROM writ."+view); n != 1 {
		t.Errorf("the view has %d rows; want 1", n)
	}
	refused(t, b.Pool, store.CodeInvalid, "SELECT * FROM writ.sync_kind($1)", `x"; DROP TABLE writ.intents; --`)
	refused(t, b.Pool, store.CodeInvalid, "SELECT * FROM writ.sync_kind(NULL)")
}

// What one row holds, or one creator writes past the check of names, is no obstacle for the others; and who was let read a view
// may read it when it has changed.
func TestSyncKind_hostileRows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const kind, evil = "shop.order.charge", `Evil"; DROP TABLE writ.intents; --`
	creator, reader := login(t, b.DB, "writ_creator"), login(t, b.DB, "writ_creator")
	_, err := creator.Exec(ctx, `INSERT INTO writ.intents (id, tid, kind, state, event) VALUES (gen_random_uuid(), gen_random_uuid(), $1, 'pending', 'requested')`, evil)
	must(t, "a malformed kind", err)
	b.Run(t, `INSERT INTO writ.intents (kind, args) VALUES ($1, '{"at": "2026-01-01T00:00:00+01:00"}'), ($1, '{"at": "2026-01-01T00:00:00+23:00"}')`, kind)
	b.sync(t, evil, "kept: malformed")
	view := b.sync(t, kind, "made")
	if got := testkit.Value[string](t, b.DB, "SELECT coalesce(writ.json_timestamptz('\"2026-01-01T00:00:00+23:00\"')::text, 'null')"); got != "null" {
		t.Errorf("a zone of 23 hours is read as %s", got)
	}
	user := reader.Config().ConnConfig.User
	b.Run(t, "GRANT SELECT ON writ."+view+" TO "+user)
	b.Run(t, `INSERT INTO writ.intents (kind, args) VALUES ($1, '{"at": "2026-01-01T00:00:00+01:00", "more": 1}')`, kind)
	b.sync(t, kind, "changed")
	if !testkit.Value[bool](t, b.DB, "SELECT has_column_privilege($1, 'writ.'||$2, 'more', 'SELECT')", user, view) {
		t.Error("who was let read the view may not read the new one")
	}
	b.Run(t, "REVOKE SELECT ON writ."+view+" FROM "+user)
}

// Two kinds whose names are one when written with underscores have a view each, and keep it.
func TestSyncKind_namesAlike(t *testing.T) {
	t.Parallel()
	b := setup(t)
	long := "application." + strings.Repeat("m", 60) + ".verb"
	kinds := []string{"a.b-c.d", "a.b_c.d", "a_b.c.d", long, long + "s"}
	views := map[string]string{}
	for _, k := range kinds {
		b.insert(t, k)
		view := b.sync(t, k, "made")
		if len(view) > 63 || views[view] != "" {
			t.Errorf("%s has the view %s, of %q too", k, view, views[view])
		}
		views[view] = k
	}
	for view, k := range views {
		if again := b.sync(t, k, "as it was"); again != view {
			t.Errorf("%s moved from %s to %s", k, view, again)
		}
		if n := testkit.Value[int](t, b.DB, "SELECT count(*) FROM writ."+view); n != 1 {
			t.Errorf("%s has %d rows; want its own one", view, n)
		}
	}
}

// What somebody built on a view is left alone, and so is the view.
func TestSyncKind_whenUsed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const kind = "shop.order.charge"
	b.Run(t, `INSERT INTO writ.intents (kind, args) VALUES ($1, '{"order": 7}')`, kind)
	view := b.sync(t, kind, "made")
	b.Run(t, "CREATE VIEW public.mine AS SELECT \"order\" FROM writ."+view)
	b.Run(t, `INSERT INTO writ.intents (kind, args) VALUES ($1, '{"order": 7, "more": 1}')`, kind)
	b.sync(t, kind, "kept: other objects")
	if n := testkit.Value[int](t, b.DB, "SELECT count(*) FROM public.mine"); n != 2 {
		t.Errorf("the view on it has %d rows; want 2", n)
	}
	b.Run(t, "DROP VIEW public.mine")
	b.sync(t, kind, "changed")
	// Any number may sync at once.
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			if n%2 == 0 {
				_, _ = b.Exec(ctx, fmt.Sprintf(`INSERT INTO writ.intents (kind, args) VALUES ('%s', '{"n%d": 1}')`, kind, n))
			}
			if _, err := store.SyncKind(ctx, b.Pool, kind); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	b.sync(t, kind, "")
	if got := b.arguments(t, view); len(got) != 6 {
		t.Errorf("columns = %v; want those of all rows", got)
	}
}
