package workers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// starts is a ledger of when handlers were started, in order. Safe for concurrent use.
type starts struct {
	mu   sync.Mutex
	at   []time.Time
	what []int
}

func (s *starts) add(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.what = append(s.at, time.Now()), append(s.what, n)
}

func (s *starts) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

// most is the most starts in any time as long as window: sliding, not by the clock's own seconds.
func (s *starts) most(window time.Duration) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.SortedFunc(slices.Values(s.at), time.Time.Compare)
	most, first := 0, 0
	for i := range at {
		for at[i].Sub(at[first]) >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// fill creates n intents with arguments 0 to n-1, in that order.
func (b *bench) fill(k intent.Kind[args], n int) {
	b.t.Helper()
	b.db.Run(b.t, `INSERT INTO writ.intents (kind, args) SELECT $1, jsonb_build_object('n', n) FROM generate_series(0, $2 - 1) n ORDER BY n`, k.Name, n)
}

func (b *bench) sent(k intent.Kind[args], n int, within time.Duration) {
	b.t.Helper()
	testkit.Until(b.t, within, fmt.Sprintf("%d sent", n), func() (bool, string) {
		got := testkit.Value[int](b.t, b.db, "SELECT count(*) FROM writ.intents WHERE kind = $1 AND state = 'sent'", k.Name)
		return got >= n, fmt.Sprint(got)
	})
}

// steady is work with a TTL that a busy machine does not use up.
func (b *bench) steady(url string, h workers.Handler[args], kind intent.Kind[args]) *workers.Pool {
	b.t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(pool.Close)
	mux := workers.NewMux()
	workers.Handle(mux, kind, h)
	w, err := workers.New(pool, testkit.AMQPURL(b.t), mux, workers.Config{Slots: 10, Heartbeat: 200 * time.Millisecond, TTL: 10 * time.Second, Log: testkit.Log(b.t)})
	if err != nil {
		b.t.Fatal(err)
	}
	b.run(w.Run)
	return w
}

// ready waits until workers take jobs: before their queues exist hints are refused, and come in any order.
func ready(t *testing.T, all ...*workers.Pool) {
	t.Helper()
	for _, w := range all {
		testkit.Until(t, time.Minute, "ready", func() (bool, string) { err := w.Ready(); return err == nil, fmt.Sprint(err) })
	}
}

// astray is how many are more than 20 places from where they would be in order: hints may overtake each other on their way.
func astray(what []int) (n int) {
	for i, want := range slices.Sorted(slices.Values(what)) {
		at := slices.Index(what, want)
		if at-i > 20 || i-at > 20 {
			n++
		}
	}
	return n
}

var word = intent.Word{Actor: "ann", Why: "a test of limits"}

// TestLimit_rate: four processes together keep to the limit, in any second; and each begins in the order of coming.
func TestLimit_rate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind := job
	kind.Name, kind.Limits = "test.limit.rate", []intent.Limit{{Starts: 100}}
	var all starts
	var each [4]starts
	for i := range each {
		w := b.steady(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
			all.add(j.Args.N)
			each[i].add(j.Args.N)
			return nil
		}}, kind)
		ready(t, w)
	}
	b.fill(kind, 500)
	testkit.Until(t, 20*time.Second, "the first starts", func() (bool, string) { return all.count() > 0, "none" })
	began := time.Now()
	b.sent(kind, 500, time.Minute)
	took := time.Since(began)
	if most := all.most(time.Second); most > 120 { // the drill is stricter; here other tests have the processors
		t.Errorf("%d starts within a second; want about 100", most)
	}
	if took < 4*time.Second {
		t.Errorf("500 at 100 a second took %v; want about 5s", took)
	}
	for i := range each {
		each[i].mu.Lock()
		if far := astray(each[i].what); far > len(each[i].what)/10 {
			t.Errorf("process %d began %d out of turn: %v", i, far, each[i].what)
		}
		each[i].mu.Unlock()
	}
}

// TestLimit_changed: a person's word counts while work goes on, and is taken back.
func TestLimit_changed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.Background()
	kind := job
	kind.Name = "test.limit.change"
	if err := intent.SetLimit(ctx, b.db, kind.Name, intent.Limit{Starts: 1, Per: time.Hour}, word); err != nil {
		t.Fatal(err)
	}
	var all starts
	b.fill(kind, 300)
	b.steady(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error { all.add(j.Args.N); return nil }}, kind)
	b.sent(kind, 1, 20*time.Second)
	id := testkit.Value[intent.ID](t, b.db, "SELECT id FROM writ.intents WHERE kind = $1 AND args ->> 'n' = '7'", kind.Name)
	testkit.Until(t, 10*time.Second, "why says so", func() (bool, string) {
		why := testkit.Value[string](t, b.db, "SELECT writ.why($1)", id)
		return strings.Contains(why, "rate-limited: at most 1 in 1 h 0 m, next token in 59 m"), why
	})
	uses, err := intent.Limits(ctx, b.db)
	if err != nil || len(uses) != 1 || uses[0].SetBy != "ann" || uses[0].NextToken < 59*time.Minute {
		t.Errorf("limits: %+v, %v", uses, err)
	}
	if err := intent.SetLimit(ctx, b.db, kind.Name, intent.Limit{Starts: 50}, word); err != nil {
		t.Fatal(err)
	}
	b.sent(kind, 101, time.Minute)
	if most := all.most(time.Second); most > 65 {
		t.Errorf("%d starts within a second; want about 50", most)
	}
	if err := intent.ClearLimit(ctx, b.db, kind.Name, intent.PerKind, word); err != nil {
		t.Fatal(err)
	}
	b.sent(kind, 300, time.Minute)
	if n := all.count(); n != 300 {
		t.Errorf("%d starts; want 300", n)
	}
}

// TestLimit_failsClosed: without the database no token, and so no start; when it is back it goes on, and nothing comes at once.
func TestLimit_failsClosed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind := job
	kind.Name, kind.Limits = "test.limit.closed", []intent.Limit{{Starts: 20}}
	var all starts
	b.fill(kind, 100)
	proxy, url := testkit.ProxyTo(t, b.db.URL)
	b.steady(url, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error { all.add(j.Args.N); return nil }}, kind)
	testkit.Until(t, 20*time.Second, "some starts", func() (bool, string) { return all.count() >= 10, fmt.Sprint(all.count()) })
	proxy.Refuse()
	proxy.CutAll()
	cut := time.Now()
	before := all.count()
	testkit.Until(t, 10*time.Second, "three seconds without the database", func() (bool, string) { return time.Since(cut) > 3*time.Second, "" })
	if n := all.count() - before; n > 3 {
		t.Errorf("%d starts without the database", n)
	}
	proxy.Accept()
	b.sent(kind, 100, time.Minute)
	if most := all.most(time.Second); most > 30 {
		t.Errorf("%d starts within a second; want about 20", most)
	}
}

// TestLimit_key: a key that has to wait does not hold up others, its hints beyond some go back and come again in order, and
// idle keys are forgotten.
func TestLimit_key(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type order struct {
		Customer string `json:"customer"`
		N        int    `json:"n"`
	}
	kind := intent.Kind[order]{Name: "test.limit.key", Limits: []intent.Limit{{Key: "args.customer", Starts: 20}}}
	var hot, others starts
	mux := workers.NewMux()
	workers.Handle(mux, kind, workers.Handler[order]{Do: func(_ context.Context, j *workers.Job[order]) error {
		if j.Args.Customer == "hot" {
			hot.add(j.Args.N)
		} else {
			others.add(j.Args.N)
		}
		return nil
	}})
	w, err := workers.New(b.db.Pool, testkit.AMQPURL(t), mux, workers.Config{Slots: 10, Heartbeat: 200 * time.Millisecond, TTL: 10 * time.Second, Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	b.run(w.Run)
	ready(t, w)
	// One in ten is another's, behind nine of the hot one's.
	b.db.Run(t, `INSERT INTO writ.intents (kind, args) SELECT $1, jsonb_build_object('n', n, 'customer', CASE WHEN n % 10 = 9 THEN 'c' || n ELSE 'hot' END)
		FROM generate_series(0, 399) n ORDER BY n`, kind.Name)
	began := time.Now()
	testkit.Until(t, time.Minute, "the others' are through", func() (bool, string) { return others.count() == 40, fmt.Sprint(others.count()) })
	took, during := time.Since(began), hot.count()
	if during > 200 {
		t.Errorf("%d of the hot key's 360 were begun in the %v until the others' 40 were through", during, took)
	}
	testkit.Until(t, 2*time.Minute, "all are through", func() (bool, string) { return hot.count() == 360, fmt.Sprint(hot.count()) })
	if most := hot.most(time.Second); most > 30 {
		t.Errorf("%d starts of the hot key within a second; want about 20", most)
	}
	far := astray(hot.what)
	if far > 36 {
		t.Errorf("of the hot key's 360 %d were begun out of turn: %v", far, hot.what)
	}
	requeues := testkit.Value[int](t, b.db, "SELECT sum(requeues) FROM writ.intents")
	t.Logf("others' 40 in %v, beside %d of the hot key's; all in %v; requeues %d; %d out of turn", took, during, time.Since(began), requeues, far)
}

// TestLimit_running: never more at once than there are places, in all processes together, and all of them are used.
func TestLimit_running(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind := job
	kind.Name, kind.Limits = "test.limit.places", []intent.Limit{{Running: 3}}
	var mu sync.Mutex
	now, most := 0, 0
	var shares [4]int
	step := func(d int) {
		mu.Lock()
		defer mu.Unlock()
		now += d
		most = max(most, now)
	}
	for i := range shares {
		b.steady(b.db.URL, workers.Handler[args]{Do: func(ctx context.Context, _ *workers.Job[args]) error {
			step(1)
			defer step(-1)
			mu.Lock()
			shares[i]++
			mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			return nil
		}}, kind)
	}
	b.fill(kind, 120)
	began := time.Now()
	b.sent(kind, 120, 2*time.Minute)
	if most != 3 {
		t.Errorf("%d at once; want 3", most)
	}
	t.Logf("shares: %v, in %v; all at once would take 2s", shares, time.Since(began))
}
