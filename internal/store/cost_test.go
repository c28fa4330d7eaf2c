package store_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// cost is what a step costs the database per intent. Counts, not times: they are the same on any machine.
type cost struct {
	Statements float64 // of the step as a whole, BEGIN and COMMIT not counted
	Buffers    float64 // pages looked at
	WALRecords float64
	WALBytes   float64 // without images of whole pages, which depend on when the last checkpoint was
}

// plus adds a share of another cost.
func (c cost) plus(d cost, share float64) cost {
	return cost{
		c.Statements + share*d.Statements, c.Buffers + share*d.Buffers, c.WALRecords + share*d.WALRecords, c.WALBytes + share*d.WALBytes,
	}
}

// meter collects, through the auto_explain module, what each statement of its connections used.
type meter struct {
	mu    sync.Mutex
	plans []plan
}

type plan struct {
	Query string `json:"Query Text"`
	Plan  node
}

type node struct {
	Type    string  `json:"Node Type"`
	Subplan string  `json:"Subplan Name"`
	CTE     string  `json:"CTE Name"`
	Hit     float64 `json:"Shared Hit Blocks"`
	Read    float64 `json:"Shared Read Blocks"`
	Records float64 `json:"WAL Records"`
	Images  float64 `json:"WAL FPI"`
	Bytes   float64 `json:"WAL Bytes"`
	Plans   []node
}

// each calls visit for a node and all below it.
func (n *node) each(visit func(*node)) {
	visit(n)
	for i := range n.Plans {
		n.Plans[i].each(visit)
	}
}

// parts are the nodes that together hold what the statement used: its root, which counts all that it asked for rows, and
// the writing WITH queries that nothing asks, which the server runs by themselves at the end.
func (p *plan) parts() []*node {
	asked := map[string]bool{}
	p.Plan.each(func(n *node) { asked["CTE "+n.CTE] = true })
	out := []*node{&p.Plan}
	p.Plan.each(func(n *node) {
		if n.Type == "ModifyTable" && strings.HasPrefix(n.Subplan, "CTE ") && !asked[n.Subplan] {
			out = append(out, n)
		}
	})
	return out
}

func (m *meter) config(t *testing.T, url string) *pgxpool.Config {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 1 // each would remember other pages
	config.ConnConfig.OnNotice = m.note
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		for _, sql := range []string{
			"LOAD 'auto_explain'", "SET auto_explain.log_level = notice", "SET auto_explain.log_analyze = on", "SET auto_explain.log_buffers = on",
			"SET auto_explain.log_wal = on", "SET auto_explain.log_timing = off", "SET auto_explain.log_format = json", "SET auto_explain.log_min_duration = 0",
		} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s (this test needs a superuser and Postgres' contrib modules): %w", sql, err)
			}
		}
		return nil
	}
	return config
}

func (m *meter) note(_ *pgconn.PgConn, n *pgconn.Notice) {
	_, text, found := strings.Cut(n.Message, "plan:")
	if !found {
		return
	}
	var p plan
	if json.Unmarshal([]byte(text), &p) == nil && !strings.Contains(p.Query, "pg_catalog") {
		m.mu.Lock()
		m.plans = append(m.plans, p)
		m.mu.Unlock()
	}
}

// take returns what was collected for n intents, and whether an image of a whole page was among it.
func (m *meter) take(n int) (c cost, images bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.plans {
		c.Statements++
		for _, n := range p.parts() {
			c.Buffers += n.Hit + n.Read
			c.WALRecords += n.Records
			c.WALBytes += n.Bytes
			images = images || n.Images > 0
		}
	}
	m.plans = nil
	for _, sum := range []*float64{&c.Buffers, &c.WALRecords, &c.WALBytes} {
		*sum /= float64(n)
	}
	return c, images
}

// life takes n intents from creation to sent, and measures each step.
func life(t *testing.T, m *meter, pool *pgxpool.Pool, worker uuid.UUID, n int) (steps map[string]cost, images bool) {
	t.Helper()
	ctx := context.Background()
	steps = map[string]cost{}
	done := func(step string) {
		var seen bool
		steps[fmt.Sprintf("%s, %d together", step, n)], seen = m.take(n)
		images = images || seen
	}
	m.take(1)
	requests := make([]store.Request, n)
	ids := make([]uuid.UUID, n)
	for i := range requests {
		ids[i] = uuid.Must(uuid.NewV7())
		requests[i] = store.Request{ID: ids[i], TID: ids[i], Kind: "test.hot.path", Args: []byte(`{"n": 1}`), ArgsVersion: 1, Fresh: true}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if n == 1 {
		_, err := store.Create(ctx, pool, requests[0])
		must(err)
	} else {
		must(store.CreateManyFresh(ctx, pool, requests))
	}
	done("create")

	conn, err := pool.Acquire(ctx)
	must(err)
	taken, err := store.NewOutbox(conn.Conn()).Take(ctx, time.Time{}, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), n)
	must(err)
	refs := make([]pgtype.TID, len(taken.Rows))
	for i, row := range taken.Rows {
		refs[i] = row.Ref
	}
	must(taken.Finish(ctx, refs, nil))
	conn.Release()
	if len(refs) != n {
		t.Fatalf("relayed %d rows; want %d", len(refs), n)
	}
	done("relay")

	s := store.New(pool)
	store.Sort(ids)
	claimed, err := s.Claim(ctx, worker, []store.Group{{Timeout: time.Minute, Kinds: []string{"test.hot.path"}, IDs: ids}})
	must(err)
	done("claim")
	outcomes := make([]store.Outcome, len(claimed))
	for i, c := range claimed {
		outcomes[i] = store.Outcome{ID: c.ID, Epoch: c.Epoch, Event: store.Succeeded}
	}
	left, err := s.FinishBatch(ctx, worker, outcomes)
	must(err)
	if len(claimed) != n || len(left) > 0 {
		t.Fatalf("claimed %d, %d outcomes left out; want %d and none", len(claimed), len(left), n)
	}
	done("finish")
	return steps, images
}

// TestCost holds the hot path to testdata/cost.json: what each step costs per intent, alone and in batches. A change that
// makes it dearer must be meant (-update).
func TestCost(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	db := testkit.Database(t)
	db.Run(t, "ALTER TABLE writ.intents SET (autovacuum_enabled = off)")
	db.Run(t, "ALTER TABLE writ.outbox SET (autovacuum_enabled = off)")
	m := &meter{}
	pool, err := pgxpool.NewWithConfig(ctx, m.config(t, db.URL))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	worker := uuid.New()
	db.Run(t, "INSERT INTO writ.workers (id, host, pid, version, kinds, slots, ttl) VALUES ($1, 'h', 1, 'v', '{}', 1, '1 day')", worker)
	got := map[string]cost{}
	for n, times := range map[int]int{1: 20, 1000: 1} { // single ones by the mean: some begin a new page
		for range 3 {
			life(t, m, pool, worker, n) // the tables' first pages, and the plans
		}
		for {
			db.Run(t, "VACUUM writ.intents")
			db.Run(t, "VACUUM writ.outbox") // what is looked at must not hang on what is dead
			life(t, m, pool, worker, n)     // nor on where the server last found room
			steps, images := map[string]cost{}, false
			for range times {
				one, seen := life(t, m, pool, worker, n)
				images = images || seen
				for step, c := range one {
					steps[step] = steps[step].plus(c, 1/float64(times))
				}
			}
			if !images { // else there was a checkpoint just before: again
				maps.Copy(got, steps)
				break
			}
		}
	}
	const golden = "testdata/cost.json"
	if *update {
		text, err := json.MarshalIndent(got, "", "\t")
		if err == nil {
			err = os.WriteFile(golden, append(text, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]cost{}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	for _, step := range slices.Sorted(maps.Keys(got)) {
		g, w := got[step], want[step]
		t.Logf("%-24s %+v", step, g)
		if math.Round(g.Statements) != math.Round(w.Statements) || !near(g.Buffers, w.Buffers, 3) || !near(g.WALRecords, w.WALRecords, 1) || !near(g.WALBytes, w.WALBytes, 1) {
			t.Errorf("%s costs %+v per intent; %s says %+v (-update if that is meant)", step, g, golden, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d steps; %s has %d", len(got), golden, len(want))
	}
}

// near allows a tenth more, for how full the pages happen to be, and a fourth less, for whether they could be pruned, and least
// in any case: a catalogue's page more or less.
func near(got, want, least float64) bool {
	return got <= want+max(want/10, least) && got >= want-max(want/4, least)
}
