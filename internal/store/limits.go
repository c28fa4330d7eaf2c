package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// WholeKind is the key of the limit of a kind as a whole.
const WholeKind = "*"

// Limit bounds how often intents of a kind are begun and how many run at once, over all worker processes.
type Limit struct {
	Kind    string
	Key     string        // where the key stands that each has the limit for itself; empty: the kind as a whole
	Starts  int           // so many in a period; 0: any number
	Period  time.Duration //
	Burst   int           // so many at once after a rest
	Running int           // so many at once; 0: any number
}

// Step is the time between two tokens; 0: there are none.
func (l Limit) Step() time.Duration {
	if l.Starts == 0 {
		return 0
	}
	return l.Period / time.Duration(l.Starts)
}

// LimitsInForce reads the limits of these kinds, a person's word before the code's. Those that limit nothing are not among
// them.
func LimitsInForce(ctx context.Context, q Querier, kinds []string) ([]Limit, error) {
	rows, err := q.Query(ctx, writsql.Statement("LimitsInForce"), kinds)
	if err != nil {
		return nil, fmt.Errorf("read limits: %w", Explain(err))
	}
	var out []Limit
	var l Limit
	var per string
	_, err = pgx.ForEachRow(rows, []any{&l.Kind, &per, &l.Key, &l.Starts, &l.Period, &l.Burst, &l.Running}, func() error {
		if l.Starts > 0 || l.Running > 0 {
			out = append(out, l)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read limits: %w", Explain(err))
	}
	return out, nil
}

// LimitsInForce reads them by the pool.
func (s *Store) LimitsInForce(ctx context.Context, kinds []string) ([]Limit, error) {
	return LimitsInForce(ctx, s.pool, kinds)
}

// limitColumns are limits as arrays.
func limitColumns(limits []Limit) []any {
	n := len(limits)
	keys, starts, periods := make([]*string, n), make([]*int, n), make([]time.Duration, n)
	bursts, running := make([]*int, n), make([]*int, n)
	for i, l := range limits {
		keys[i], starts[i], periods[i], bursts[i], running[i] = place(l.Key), number(l.Starts), l.Period, number(l.Burst), number(l.Running)
	}
	return []any{keys, starts, periods, bursts, running}
}

func place(key string) *string {
	if key == "" {
		return nil
	}
	return &key
}

func number(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

// Tokens is a block of them: the first may be spent StartsIn from the answer on, each further one a Step later, and each for
// its Life only.
type Tokens struct {
	Key      string
	Granted  int
	StartsIn time.Duration // negative: since then
	Step     time.Duration
	Life     time.Duration
	Wait     time.Duration // where none was granted: until it is worth asking again
	Tail     *time.Time    // by the database's clock: names the block when what is left of it is given back
}

// relaxedStep: tokens that follow each other as closely need not survive a crash of the server; it takes longer than that.
const relaxedStep = 100 * time.Millisecond

// LeaseTokens asks for tokens of a kind's keys, which are sorted; step is about the time between two tokens. After an error for
// which [Unknown] is true those that were wanted may be lost.
func (s *Store) LeaseTokens(ctx context.Context, kind string, step time.Duration, keys []string, wants []int) ([]Tokens, error) {
	out := make([]Tokens, 0, len(keys))
	b := begin()
	if step < relaxedStep {
		b.Queue(writsql.Statement("LimitRelaxed"))
	}
	b.Queue(writsql.Statement("LeaseTokens"), kind, keys, wants).Query(func(rows pgx.Rows) error {
		var t Tokens
		_, err := pgx.ForEachRow(rows, []any{&t.Key, &t.Granted, &t.StartsIn, &t.Step, &t.Life, &t.Wait, &t.Tail}, func() error {
			out = append(out, t)
			t.Tail = nil
			return nil
		})
		return err
	})
	b.Queue("COMMIT")
	if err := s.send(ctx, b); err != nil {
		return nil, fmt.Errorf("lease tokens: %w", err)
	}
	return out, nil
}

// ReturnTokens gives back the last n tokens of a block; it reports whether their moments are free again, or lost because
// somebody has leased later ones.
func (s *Store) ReturnTokens(ctx context.Context, kind, key string, n int, tail time.Time) (bool, error) {
	var free bool
	if err := s.pool.QueryRow(ctx, writsql.Statement("ReturnTokens"), kind, key, n, tail).Scan(&free); err != nil {
		return false, fmt.Errorf("return tokens: %w", err)
	}
	return free, nil
}

// Use is what a process says of the places of a key: how many it uses, and how many more it wants.
type Use struct {
	Key         string
	Used, Wants int
}

// Places is what it then holds, its used ones among them, and how many others want.
type Places struct {
	Key          string
	Held, Others int
}

// LeasePlaces says what a worker uses and wants of a kind's places, by key, sorted. turn rises with each call of a process;
// watched is how long it has been in touch with the database without a break.
func (s *Store) LeasePlaces(ctx context.Context, worker uuid.UUID, kind string, uses []Use, turn int64, watched time.Duration) ([]Places, error) {
	n := len(uses)
	keys, used, wants := make([]string, n), make([]int, n), make([]int, n)
	for i, u := range uses {
		keys[i], used[i], wants[i] = u.Key, u.Used, u.Wants
	}
	out := make([]Places, 0, n)
	b := begin()
	b.Queue(writsql.Statement("LeasePlaces"), worker, kind, keys, used, wants, turn, watched).Query(func(rows pgx.Rows) error {
		var p Places
		_, err := pgx.ForEachRow(rows, []any{&p.Key, &p.Held, &p.Others}, func() error {
			out = append(out, p)
			return nil
		})
		return err
	})
	b.Queue("COMMIT")
	if err := s.send(ctx, b); err != nil {
		return nil, fmt.Errorf("lease places: %w", err)
	}
	return out, nil
}

// LineUp gives n hints of a key a place in its line, one step apart, and returns the first one's time. parked others go before
// them; youngest is the last of them.
func (s *Store) LineUp(ctx context.Context, kind, key string, n, parked int, step time.Duration, youngest Place) (time.Time, error) {
	var first time.Time
	if err := s.pool.QueryRow(ctx, writsql.Statement("LineUp"), kind, key, n, parked, step, youngest.RunAt, youngest.ID).Scan(&first); err != nil {
		return first, fmt.Errorf("line up: %w", err)
	}
	return first, nil
}

// Keyed is the key of a hinted row, and when it was due: the order among those of one key.
type Keyed struct {
	Key   string
	RunAt time.Time
	Lined bool // it has been in its key's line
	New   bool // it is younger than all in that
}

// LimitKeys reads the keys of rows, which stand where place says; missing rows are missing from the answer.
func (s *Store) LimitKeys(ctx context.Context, kind string, ids []uuid.UUID, place string) (map[uuid.UUID]Keyed, error) {
	out := make(map[uuid.UUID]Keyed, len(ids))
	var path []string
	if in, found := strings.CutPrefix(place, "args."); found {
		path = strings.Split(in, ".")
	}
	b := begin()
	b.Queue(writsql.Statement("LimitKeys"), UUIDs(ids), place, kind, path).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var k Keyed
		_, err := pgx.ForEachRow(rows, []any{(*uuidTarget)(&id), &k.Key, &k.RunAt, &k.Lined, &k.New}, func() error {
			out[id] = k
			return nil
		})
		return err
	})
	b.Queue("COMMIT")
	if err := s.send(ctx, b); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	return out, nil
}

// PruneLimits forgets keys that nobody uses.
func (s *Store) PruneLimits(ctx context.Context) (n int64, err error) {
	err = s.pool.QueryRow(ctx, writsql.Statement("PruneLimits")).Scan(&n)
	return n, err
}

// SetLimit sets a limit by a person's word; one without Starts and Running says that there is none.
func SetLimit(ctx context.Context, q Querier, l Limit, actor, why string) error {
	return run(ctx, q, "SetLimit", l.Kind, actor, why, number(l.Starts), l.Period, number(l.Burst), number(l.Running), place(l.Key))
}

// ClearLimit takes it back: per is kind or key.
func ClearLimit(ctx context.Context, q Querier, kind, per, actor, why string) error {
	return run(ctx, q, "ClearLimit", kind, per, actor, why)
}

func run(ctx context.Context, q Querier, statement string, args ...any) error {
	rows, err := q.Query(ctx, writsql.Statement(statement), args...)
	if err != nil {
		return err
	}
	rows.Close()
	return rows.Err()
}

// LimitUse is a limit with who set it, and its use.
type LimitUse struct {
	Limit
	Per, Source     string
	SetAt           time.Time
	SetBy, SetWhy   string
	Keys            int           // of a limit per key: so many are in use
	Hottest         string        // and this one has to wait longest
	NextToken, Line time.Duration // until the next token; to the end of the line
	Taken, Waiting  int           // places
}

// LimitsInUse reads all limits.
func LimitsInUse(ctx context.Context, q Querier) ([]LimitUse, error) {
	rows, err := q.Query(ctx, writsql.Statement("LimitUse"))
	if err != nil {
		return nil, Explain(err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (u LimitUse, err error) {
		err = row.Scan(&u.Kind, &u.Per, &u.Source, &u.Key, &u.Starts, &u.Period, &u.Burst, &u.Running, &u.SetAt, &u.SetBy, &u.SetWhy,
			&u.Keys, &u.Hottest, &u.NextToken, &u.Line, &u.Taken, &u.Waiting)
		return u, err
	})
	return out, Explain(err)
}
