package intent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/internal/store"
)

// BulkPlan is a decision on many intents: on those with the given ids that match the filter, or, without ids, on all that
// match it. Of these only the ones count from which the verb is legal as they stand now.
type BulkPlan struct {
	Verb     fsm.Event // Happened, Retry, GiveUp or Cancel
	Filter   Filter    // Limit is ignored: a bulk is never capped
	IDs      []ID
	Actor    string          // who decides; required
	Why      string          // the reason, at least 10 characters; required
	Evidence json.RawMessage // anything worth keeping with each verdict; optional
	Override string          // for Retry: why none of them can land any more
	NewKey   Key             // for Retry: whether the idempotency keys change
	Merge    json.RawMessage // for Retry: a JSON merge patch (RFC 7396) for the arguments of all of them; where it changes any, the key changes
}

// Bulk is a planned decision on many intents and how far it has come. Times are the database's.
type Bulk struct {
	ID         ID              `json:"id"`
	Verb       fsm.Event       `json:"verb"`
	Actor      string          `json:"actor"`
	DBUser     string          `json:"db_user"`
	Why        string          `json:"why"`
	Evidence   json.RawMessage `json:"evidence,omitempty"`
	Override   *string         `json:"override,omitempty"`
	NewKey     bool            `json:"new_key"`
	Merge      json.RawMessage `json:"merge,omitempty"`
	Filter     json.RawMessage `json:"filter,omitempty"` // as it was asked for
	Total      int             `json:"total"`
	Done       int             `json:"done"`
	Refused    int             `json:"refused"`
	Rate       *float64        `json:"rate,omitempty"` // rows a second
	NextAt     *time.Time      `json:"next_at,omitempty"`
	PlannedAt  time.Time       `json:"planned_at"`
	StartedAt  *time.Time      `json:"started_at,omitempty"`
	SteppedAt  *time.Time      `json:"stepped_at,omitempty"`
	EndedAt    *time.Time      `json:"ended_at,omitempty"`
	AbortedAt  *time.Time      `json:"aborted_at,omitempty"`
	AbortedBy  *string         `json:"aborted_by,omitempty"`
	AbortedWhy *string         `json:"aborted_why,omitempty"`
}

// Left is how many rows have no result yet.
func (b Bulk) Left() int { return b.Total - b.Done - b.Refused }

// State says in a word where it stands: planned, running (begun, whether or not anybody goes on with it now), ended, aborted.
func (b Bulk) State() string {
	switch {
	case b.AbortedAt != nil:
		return "aborted"
	case b.EndedAt != nil:
		return "ended"
	case b.StartedAt != nil:
		return "running"
	}
	return "planned"
}

// PlanBulk freezes the set: the ids with the position that each has now. Nothing is decided; [RunBulk] does that. It is one
// statement, so the set is one moment's. Errors: ErrInvalid (also where Merge names an argument that a kind's code does not
// declare, or gives it another type), ErrNotFound (nothing matches), ErrNoSchema, or the database's.
func PlanBulk(ctx context.Context, db DB, p BulkPlan) (ID, error) {
	if err := p.check(); err != nil {
		return ID{}, err
	}
	s, err := p.Filter.search()
	if err != nil {
		return ID{}, err
	}
	s.where = append(s.where, legal(p.Verb))
	if p.IDs != nil {
		s.and("id = ANY ($%d::uuid[])", p.IDs)
	}
	asked, err := json.Marshal(struct {
		Filter
		IDs int `json:"ids,omitempty"` // how many were given
	}{p.Filter, len(p.IDs)})
	if err != nil {
		return ID{}, fmt.Errorf("plan: %w", err)
	}
	n := len(s.args)
	query := fmt.Sprintf(`SELECT writ.bulk_plan($%d::text, coalesce(array_agg(id), '{}'), coalesce(array_agg(state), '{}'), coalesce(array_agg(epoch), '{}'),
		$%d::text, $%d::text, $%d::jsonb, nullif($%d::text, ''), $%d::boolean, $%d::jsonb, $%d::jsonb) FROM writ.status`, n+1, n+2, n+3, n+4, n+5, n+6, n+7, n+8) + s.condition()
	rows, err := db.Query(ctx, query, append(s.args, string(p.Verb), p.Actor, p.Why, jsonText(p.Evidence), p.Override, p.NewKey == FreshKey, string(asked), jsonText(p.Merge))...)
	if err != nil {
		return ID{}, fmt.Errorf("plan: %w", explain(err, nil))
	}
	defer rows.Close()
	var id ID
	for rows.Next() {
		if err := rows.Scan(&id); err != nil {
			return ID{}, fmt.Errorf("plan: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return ID{}, fmt.Errorf("plan: %w", explain(err, nil))
	}
	return id, nil
}

func (p BulkPlan) check() error {
	verbs := []fsm.Event{fsm.Happened, fsm.Retry, fsm.GiveUp, fsm.Cancel}
	errs := []error{checkText("actor", p.Actor, 255), checkText("why", p.Why, maxReason), checkText("override", p.Override, maxReason)}
	if !slices.Contains(verbs, p.Verb) {
		errs = append(errs, &InvalidError{Field: "verb", Problem: fmt.Sprintf("%q is not one", p.Verb), Fix: "happened, retry, give-up or cancel"})
	}
	if p.Verb != fsm.Retry && (p.Override != "" || p.NewKey != SameKey || p.Merge != nil) {
		errs = append(errs, &InvalidError{Field: "override, new key and merge", Problem: "belong to retry alone"})
	}
	if p.Merge != nil {
		_, err := encode("merge", p.Merge, 1<<20)
		errs = append(errs, err)
	}
	if p.Evidence != nil {
		_, err := encode("evidence", p.Evidence, 1<<20)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// legal is the condition that a verb is legal, from the table in package fsm; the partial indexes serve it.
func legal(verb fsm.Event) string {
	var from []string
	for _, t := range fsm.Transitions() {
		switch {
		case t.Event != verb:
		case t.From == fsm.Sending:
			from = append(from, "flagged_at IS NOT NULL")
		case t.From == fsm.Error:
			from = append(from, "failed_at IS NOT NULL")
		default:
			from = append(from, fmt.Sprintf("(state = '%s' AND finished_at IS NULL)", t.From))
		}
	}
	return "(" + strings.Join(from, " OR ") + ")"
}

func jsonText(raw json.RawMessage) *string {
	if raw == nil {
		return nil
	}
	s := string(raw)
	return &s
}

// BulkRun says how a planned bulk is carried out.
type BulkRun struct {
	Actor string  // who begins it, or goes on; required. The verdicts name the planner
	Rate  float64 // rows a second, over all processes that carry it out, 0.0001 to 1,000,000; 0: as it was set before, at first no limit
	Limit int     // stop after so many rows; what is left can be gone on with. 0: none. 1 makes a canary

	// Progress is called after each step, by the caller's goroutine. May be nil.
	Progress func(Bulk)
}

// stepRows bounds the rows of one step: each is a subtransaction, and a server keeps track of 64 at little cost.
const stepRows = 50

// RunBulk carries a planned bulk out, or goes on with it, until each row has its result, it is aborted, or ctx ends; it
// blocks so long. Give it a pool or a connection: each step is then a transaction of its own, so that a process that
// dies leaves nothing half done, and any other may go on. Several may work at one bulk. Rows that moved since the plan are
// refused, and the refusal says what changed ([BulkRows]). Errors: ErrNotFound, ErrIllegal (it was aborted before),
// ErrInvalid, the context's, or the database's.
func RunBulk(ctx context.Context, db DB, id ID, run BulkRun) (Bulk, error) {
	var rate *float64
	if run.Rate != 0 {
		rate = &run.Rate
	}
	b, err := bulk(store.BulkStart(ctx, db, id, run.Actor, rate))
	if err != nil {
		return b, fmt.Errorf("run bulk: %w", err)
	}
	first := b.Left()
	for {
		most := stepRows
		if run.Limit > 0 {
			most = min(most, run.Limit-(first-b.Left()))
		}
		if b.EndedAt != nil || b.AbortedAt != nil || most <= 0 {
			return b, nil
		}
		asked := time.Now()
		next, err := bulk(store.BulkStep(ctx, db, id, most))
		if store.Locked(err) {
			continue // another runner's step takes long; it waited for a second
		}
		if err != nil {
			return b, fmt.Errorf("run bulk: %w", err)
		}
		stepped := next.Left() < b.Left()
		b = next
		if run.Progress != nil {
			run.Progress(b)
		}
		if b.NextAt == nil || b.EndedAt != nil || b.AbortedAt != nil {
			continue
		}
		if err := pause(ctx, b, asked, stepped); err != nil {
			return b, fmt.Errorf("run bulk: %w", err)
		}
	}
}

// pause waits until the rate allows more. next_at is the database's clock, so it is not compared with ours: a step's rows
// at the rate are as long as it can take, and asking early does no harm.
func pause(ctx context.Context, b Bulk, asked time.Time, stepped bool) error {
	wait := 50 * time.Millisecond // somebody else's step used the time up
	if stepped && b.SteppedAt != nil {
		wait = b.NextAt.Sub(*b.SteppedAt) - time.Since(asked)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

// AbortBulk ends a bulk, from any process. It waits for a step under way; when it returns no further row is decided. What is
// decided stays so. Errors: ErrNotFound, ErrIllegal (it has ended), ErrInvalid, or the database's.
func AbortBulk(ctx context.Context, db DB, id ID, actor, why string) (Bulk, error) {
	b, err := bulk(store.BulkAbort(ctx, db, id, actor, why))
	if err != nil {
		return b, fmt.Errorf("abort bulk: %w", err)
	}
	return b, nil
}

// GetBulk reads one. Errors: ErrNotFound, ErrNoSchema, or the database's.
func GetBulk(ctx context.Context, db DB, id ID) (Bulk, error) {
	raw, err := store.ReadBulk(ctx, db, id)
	if err == nil && raw == nil {
		return Bulk{}, &refusal{ErrNotFound, fmt.Sprintf("writ: there is no bulk %s", id)}
	}
	return bulk(raw, err)
}

// Bulks lists the newest, at most limit.
func Bulks(ctx context.Context, db DB, limit int) ([]Bulk, error) {
	raws, err := store.Bulks(ctx, db, limit)
	if err != nil {
		return nil, fmt.Errorf("list bulks: %w", err)
	}
	out := make([]Bulk, len(raws))
	for i, raw := range raws {
		if out[i], err = bulk(raw, nil); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func bulk(raw json.RawMessage, err error) (b Bulk, _ error) {
	if err != nil {
		return b, explain(err, nil)
	}
	err = json.Unmarshal(raw, &b)
	if string(b.Merge) == "null" {
		b.Merge = nil
	}
	return b, err
}

// BulkGroup is a part of a bulk whose intents stand alike.
type BulkGroup struct {
	Kind         string `json:"kind"`
	Status       string `json:"status"`
	FlagReason   string `json:"flag_reason,omitempty"`
	N            int64  `json:"n"`
	Moved        int64  `json:"moved"`         // since the plan: they would be refused
	NeedOverride int64  `json:"need_override"` // may still land: a retry would be refused
	Example      ID     `json:"example"`

	// Where the bulk changes arguments: of how many, and those of the example.
	Changed int64           `json:"changed,omitempty"`
	Before  json.RawMessage `json:"before,omitempty"`
	After   json.RawMessage `json:"after,omitempty"`
}

// PreviewBulk says what a bulk is made of, as its intents stand now.
func PreviewBulk(ctx context.Context, db DB, id ID) ([]BulkGroup, error) {
	groups, err := store.BulkPreview(ctx, db, id)
	if err != nil {
		return nil, fmt.Errorf("preview bulk: %w", err)
	}
	out := make([]BulkGroup, len(groups))
	for i, g := range groups {
		out[i] = BulkGroup(g)
	}
	return out, nil
}

// BulkResult is a part of a bulk that met the same fate.
type BulkResult struct {
	Result  string `json:"result"`            // done, refused, or to do
	Code    string `json:"code,omitempty"`    // of a refusal: WR001 moved, WR002 gone, WR003 illegal, WR004 needs an override
	Message string `json:"message,omitempty"` // of a refusal, with numbers and ids folded
	N       int64  `json:"n"`
	Example ID     `json:"example"`
}

// BulkResults says what became of a bulk's intents, like fates together.
func BulkResults(ctx context.Context, db DB, id ID) ([]BulkResult, error) {
	results, err := store.BulkResults(ctx, db, id)
	if err != nil {
		return nil, fmt.Errorf("results of bulk: %w", err)
	}
	out := make([]BulkResult, len(results))
	for i, r := range results {
		out[i] = BulkResult(r)
	}
	return out, nil
}

// BulkRow is one intent of a bulk.
type BulkRow struct {
	ID      uuid.UUID  `json:"id"`
	Seen    Position   `json:"seen"`
	At      *time.Time `json:"at,omitempty"`
	Result  string     `json:"result,omitempty"` // done or refused; empty: to do
	Code    string     `json:"code,omitempty"`
	Message string     `json:"message,omitempty"`
	Now     *Position  `json:"now,omitempty"` // of one refused because it had moved: where it was then
}

// BulkRows hands over the intents of a bulk one by one, in the order in which they are decided, until each returns an error,
// which is returned. It holds one row at a time and one of db's connections.
func BulkRows(ctx context.Context, db DB, id ID, each func(BulkRow) error) error {
	return store.BulkRows(ctx, db, id, func(r store.BulkRow) error {
		row := BulkRow{ID: r.ID, Seen: Position{State: r.State, Epoch: r.Epoch}, At: r.At, Result: r.Result, Code: r.Code, Message: r.Message}
		if r.Now != nil {
			row.Now = &Position{}
			if err := json.Unmarshal(r.Now, row.Now); err != nil {
				return err
			}
		}
		return each(row)
	})
}
