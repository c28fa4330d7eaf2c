package sql_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

const limitedKind = "test.limit.run"

// beat writes a worker's row, as old as said.
func beat(t *testing.T, db *testkit.DB, age time.Duration) uuid.UUID {
	t.Helper()
	return testkit.Value[uuid.UUID](t, db, `INSERT INTO writ.workers (id, host, pid, version, kinds, slots, ttl, heartbeat_at)
		VALUES (gen_random_uuid(), 'h', 1, '', ARRAY[$1], 10, '10 s', clock_timestamp() - $2::interval) RETURNING id`, limitedKind, age)
}

func setLimit(t *testing.T, db *testkit.DB, starts, burst, running any, key any) {
	t.Helper()
	db.Run(t, "SELECT writ.set_limit($1, 'ann', 'a test of limits', $2, '1 s', $3, $4, $5)", limitedKind, starts, burst, running, key)
}

// TestTokens: the moments of all tokens, whoever leases them, are one after the other, and no more are ahead than 300 ms' worth.
func TestTokens(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	s := store.New(db.Pool)
	setLimit(t, db, 100, 3, nil, nil)
	var mu sync.Mutex
	var moments []time.Time
	began := testkit.Value[time.Time](t, db, "SELECT clock_timestamp()")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 25 {
				got, err := s.LeaseTokens(context.Background(), limitedKind, 10*time.Millisecond, []string{store.WholeKind}, []int{1000})
				if err != nil {
					t.Error(err)
					return
				}
				lease := got[0]
				if lease.Granted > 10 {
					t.Errorf("%d tokens in one block; want at most a tenth of a second's", lease.Granted)
				}
				if lease.Granted > 0 && lease.StartsIn+time.Duration(lease.Granted-1)*lease.Step > 300*time.Millisecond {
					t.Errorf("the last of %d tokens is %v ahead", lease.Granted, lease.StartsIn+time.Duration(lease.Granted-1)*lease.Step)
				}
				if lease.Granted == 0 && lease.Wait <= 0 {
					t.Errorf("no token, and asked to come back in %v", lease.Wait)
				}
				mu.Lock()
				for i := range lease.Granted {
					moments = append(moments, lease.Tail.Add(-time.Duration(lease.Granted-i)*lease.Step))
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	took := testkit.Value[time.Time](t, db, "SELECT clock_timestamp()").Sub(began)
	slices.SortFunc(moments, time.Time.Compare)
	for i := 1; i < len(moments); i++ {
		if step := moments[i].Sub(moments[i-1]); step < 10*time.Millisecond {
			t.Errorf("tokens %d and %d are %v apart", i-1, i, step)
		}
	}
	if most := int((took+320*time.Millisecond)/(10*time.Millisecond)) + 3; len(moments) > most {
		t.Errorf("%d tokens in %v; want at most %d", len(moments), took, most)
	}
	if len(moments) < 30 {
		t.Errorf("only %d tokens", len(moments))
	}
}

// TestReturnTokens: what is not spent is free again, unless somebody has leased later ones.
func TestReturnTokens(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	ctx := context.Background()
	s := store.New(db.Pool)
	setLimit(t, db, 2, 2, nil, nil)
	lease := func() store.Tokens {
		t.Helper()
		got, err := s.LeaseTokens(ctx, limitedKind, time.Second, []string{store.WholeKind}, []int{2})
		if err != nil {
			t.Fatal(err)
		}
		return got[0]
	}
	first := lease()
	if first.Granted != 2 {
		t.Fatalf("%d tokens; want the burst of 2", first.Granted)
	}
	if free, err := s.ReturnTokens(ctx, limitedKind, store.WholeKind, 1, *first.Tail); err != nil || !free {
		t.Fatalf("given back: %v, %v", free, err)
	}
	second := lease()
	if second.Granted != 1 {
		t.Fatalf("%d tokens; want the one that was given back", second.Granted)
	}
	if free, err := s.ReturnTokens(ctx, limitedKind, store.WholeKind, 1, first.Tail.Add(-time.Millisecond)); err != nil || free {
		t.Fatalf("tokens of a block that is not the last one were given back: %v, %v", free, err)
	}
	if third := lease(); third.Granted != 0 || third.Wait <= 0 {
		t.Fatalf("%d tokens, wait %v", third.Granted, third.Wait)
	}
	// Of another key nothing was taken.
	setLimit(t, db, 2, 2, nil, "args.a")
	got, err := s.LeaseTokens(ctx, limitedKind, time.Second, []string{"=x", "=y"}, []int{1, 5})
	if err != nil || len(got) != 2 || got[0].Granted != 1 || got[1].Granted != 2 {
		t.Fatalf("of two keys: %+v, %v", got, err)
	}
}

// TestPlaces: never more than there are, first come first served, and those of the dead come free, but only to who can tell.
func TestPlaces(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	ctx := context.Background()
	s := store.New(db.Pool)
	setLimit(t, db, nil, nil, 3, nil)
	ann, bob, cyn := beat(t, db, 0), beat(t, db, 0), beat(t, db, 0)
	turn := int64(0)
	ask := func(worker uuid.UUID, used, wants int, watched time.Duration) int {
		t.Helper()
		turn++
		got, err := s.LeasePlaces(ctx, worker, limitedKind, []store.Use{{Key: store.WholeKind, Used: used, Wants: wants}}, turn, watched)
		if err != nil {
			t.Fatal(err)
		}
		return got[0].Held
	}
	want := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Fatalf("%s: holds %d; want %d", what, got, want)
		}
	}
	want("ann takes two", ask(ann, 0, 2, 0), 2)
	want("bob wants two", ask(bob, 0, 2, 0), 1)
	want("cyn wants one", ask(cyn, 0, 1, 0), 0)
	want("ann has one back, and wants it again, but bob was first", ask(ann, 1, 1, 0), 1)
	want("bob", ask(bob, 1, 1, 0), 2)
	want("ann is done", ask(ann, 0, 0, 0), 0)
	want("cyn", ask(cyn, 0, 1, 0), 1)

	// An answer was lost, and the statement comes later than the next one.
	late := turn
	want("bob is done with one", ask(bob, 1, 0, 0), 1)
	if got, err := s.LeasePlaces(ctx, bob, limitedKind, []store.Use{{Key: store.WholeKind, Used: 2, Wants: 5}}, late, 0); err != nil || len(got) > 0 {
		t.Fatalf("an old word was heard: %v, %v", got, err)
	}

	db.Run(t, "UPDATE writ.workers SET heartbeat_at = clock_timestamp() - interval '11 s' WHERE id = ANY ($1)", []uuid.UUID{bob, cyn})
	want("ann has just come to the database herself", ask(ann, 0, 3, 9*time.Second), 1)
	want("bob is silent, and asks", ask(bob, 1, 1, time.Hour), 1)
	want("ann has watched", ask(ann, 1, 2, 11*time.Second), 3)
	db.Run(t, "UPDATE writ.workers SET heartbeat_at = clock_timestamp() WHERE id = $1", bob)
	want("bob comes back, still at work", ask(bob, 1, 1, time.Hour), 1)
	want("ann ends one", ask(ann, 2, 1, time.Hour), 2)
	if n := testkit.Value[int](t, db, "SELECT sum(held) FROM writ.places"); n != 3 {
		t.Errorf("%d places are held in the end; want 3", n)
	}
}

// TestPlacesAtOnce: many processes at the same moment.
func TestPlacesAtOnce(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	s := store.New(db.Pool)
	setLimit(t, db, nil, nil, 5, "args.a")
	var all sync.WaitGroup
	for range 8 {
		worker := beat(t, db, 0)
		all.Go(func() {
			for turn := range int64(20) {
				uses := []store.Use{{Key: "=x", Wants: 2}, {Key: "=y", Wants: 3}}
				if _, err := s.LeasePlaces(context.Background(), worker, limitedKind, uses, turn+1, 0); err != nil {
					t.Error(err)
					return
				}
				var most int
				if err := db.QueryRow(context.Background(), "SELECT max(n) FROM (SELECT sum(held) AS n FROM writ.places GROUP BY kind, key) x").Scan(&most); err != nil || most > 5 {
					t.Errorf("%d are held, %v", most, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestSetLimit: a person's word counts before the code's, is recorded, and hints that wait in a line come at once.
func TestSetLimit(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	declare := func(starts int) {
		t.Helper()
		db.Run(t, "SELECT writ.declare_limits($1, '{NULL,args.customer}', ARRAY[$2::int,7], '{1 s,1 min}', '{NULL,NULL}', '{NULL,2}')", limitedKind, starts)
	}
	inForce := func() string {
		t.Helper()
		return testkit.Value[string](t, db, `SELECT string_agg(concat_ws(' ', per, source, key, starts, period, burst, running), '; ' ORDER BY per DESC) FROM writ.limits_in_force`)
	}
	declare(200)
	if diff := cmp.Diff("kind code 200 00:00:01 1; key code args.customer 7 00:01:00 1 2", inForce()); diff != "" {
		t.Error(diff)
	}
	db.Run(t, "INSERT INTO writ.intents (kind) SELECT $1 FROM generate_series(1, 3)", limitedKind)
	db.Run(t, "UPDATE writ.outbox SET due_at = now() + oid * interval '1 h'")
	setLimit(t, db, 50, 10, nil, nil)
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.outbox WHERE due_at <= clock_timestamp() AND oid = (SELECT count(*) FROM writ.outbox o WHERE o.due_at <= outbox.due_at)"); n != 3 {
		t.Errorf("%d hints came forward in their order; want 3", n)
	}
	declare(300)
	if diff := cmp.Diff("kind person 50 00:00:01 10; key code args.customer 7 00:01:00 1 2", inForce()); diff != "" {
		t.Error(diff)
	}
	db.Run(t, "SELECT writ.clear_limit($1, 'kind', 'bob', 'the provider is well again')", limitedKind)
	if diff := cmp.Diff("kind code 300 00:00:01 1; key code args.customer 7 00:01:00 1 2", inForce()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("ann limited, bob unlimited", testkit.Value[string](t, db, "SELECT string_agg(actor || ' ' || event, ', ' ORDER BY id) FROM writ.log")); diff != "" {
		t.Error(diff)
	}
	db.Run(t, "SELECT writ.declare_limits($1, '{}', '{}', '{}', '{}', '{}')", limitedKind)
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.limits"); n != 0 {
		t.Errorf("%d limits are left that the code does not declare any more", n)
	}
	for name, call := range map[string]string{
		"nobody set one":          "writ.clear_limit('%s', 'kind', 'ann', 'there is none at all')",
		"no reason":               "writ.set_limit('%s', 'ann', 'short', 1)",
		"no place of a key":       "writ.set_limit('%s', 'ann', 'a test of limits', 1, key => 'arguments.a')",
		"a burst above starts":    "writ.set_limit('%s', 'ann', 'a test of limits', 1, burst => 2)",
		"a period under a second": "writ.set_limit('%s', 'ann', 'a test of limits', 1, '10 ms')",
		"none at all":             "writ.set_limit('%s', 'ann', 'a test of limits', 0)",
		"a malformed kind":        "writ.set_limit('%s.x', 'ann', 'a test of limits', 5)",
	} {
		if _, err := db.Exec(context.Background(), "SELECT "+fmt.Sprintf(call, limitedKind)); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}

// TestLimitKey: where a key stands, by the function and by the workers' statement, which knows a faster way.
func TestLimitKey(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, `INSERT INTO writ.intents (id, kind, args, subjects) VALUES ('00000000-0000-7000-8000-000000000001', 'test.limit.key',
		jsonb_build_object('customer', jsonb_build_object('id', 'c-7'), 'n', 5, 'long', repeat('x', 300)), '{user:1,order:9,order:8}')`)
	id := uuid.MustParse("00000000-0000-7000-8000-000000000001")
	for place, want := range map[string]string{
		"args.customer.id": "=c-7", "args.n": "=5", "args.none": "=", "subject:order": "=order:9", "subject:cart": "=", "args.long": "",
	} {
		got := testkit.Value[string](t, db, "SELECT writ.limit_key(args, subjects, $1) FROM writ.intents", place)
		if place == "args.long" {
			want = testkit.Value[string](t, db, "SELECT '=md5 ' || md5(repeat('x', 300))")
		}
		if got != want {
			t.Errorf("%s: %q; want %q", place, got, want)
		}
		keys, err := store.New(db.Pool).LimitKeys(context.Background(), "test.limit.key", []uuid.UUID{id}, place)
		if err != nil || keys[id].Key != want {
			t.Errorf("%s: the workers read %q, %v; want %q", place, keys[id].Key, err, want)
		}
	}
}

// TestLine: who is put back gets a moment behind all that were before.
func TestLine(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	ctx := context.Background()
	s := store.New(db.Pool)
	beat(t, db, 0)
	began := testkit.Value[time.Time](t, db, "SELECT clock_timestamp()")
	first, err := s.LineUp(ctx, limitedKind, "=x", 10, 5, time.Second, store.Place{RunAt: began})
	if err != nil {
		t.Fatal(err)
	}
	if in := first.Sub(began); in < 5*time.Second || in > 7*time.Second {
		t.Errorf("the first comes in %v; want behind the 5 that are parked", in)
	}
	second, err := s.LineUp(ctx, limitedKind, "=x", 1, 5, time.Second, store.Place{RunAt: began})
	if err != nil {
		t.Fatal(err)
	}
	if behind := second.Sub(first); behind != 10*time.Second {
		t.Errorf("the next comes %v after the first of 10; want 10s", behind)
	}
}

// TestPruneLimits: keys that nobody uses are forgotten, others are not.
func TestPruneLimits(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	s := store.New(db.Pool)
	setLimit(t, db, 1, 1, nil, "args.a")
	db.Run(t, `INSERT INTO writ.tokens (kind, key, next_at, line_at) SELECT $1, '=' || n, now() - n % 2 * interval '1 h', CASE n WHEN 1 THEN now() + interval '1 min' END
		FROM generate_series(1, 40) n`, limitedKind)
	db.Run(t, `INSERT INTO writ.places SELECT $1, '=' || n, gen_random_uuid(), n % 2, 0, now(), now() - n / 6 * interval '1 h', 1 FROM generate_series(1, 10) n`, limitedKind)
	n, err := s.PruneLimits(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	tokens, places := testkit.Value[int](t, db, "SELECT count(*) FROM writ.tokens"), testkit.Value[int](t, db, "SELECT count(*) FROM writ.places")
	if tokens != 21 || places != 7 || n != 22 {
		t.Errorf("pruned %d; %d tokens and %d places are left; want 22 pruned, 21 and 7 left", n, tokens, places)
	}
}
