package intent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/writhq/writ/internal/store"
)

// Limit bounds how often intents of a kind are begun and how many run at once, over all worker processes of the database. It
// fails closed: a worker that cannot ask the database begins nothing. Zero fields mean no bound, or the default.
type Limit struct {
	// Key says where the key stands that each has the limit for itself: args.customer_id, or args.customer.id, in the arguments
	// as they were created; subject:customer for the first subject that begins with customer:. Rows without one share the empty
	// key. Empty: the limit is the kind's as a whole.
	Key string `json:"key,omitempty"`

	// Starts in any time as long as Per, evenly spaced, in about the order of their coming. In one such time there are at most
	// Starts, Burst more after a rest, and a tenth that comes late. Default 0: any number.
	Starts int `json:"starts,omitempty"`
	// Per is the period, 1 s to 31 days. Default 1 s.
	Per time.Duration `json:"per,omitempty"`
	// Burst is how many may start at once after a rest. Default 1: none more than the others.
	Burst int `json:"burst,omitempty"`

	// Running is how many run at once. A process that dies keeps its places until it is known to be dead, for its TTL. Default
	// 0: any number.
	Running int `json:"running,omitempty"`
}

// longestPer is the longest period of a limit.
const longestPer = 31 * day

var keyPlace = regexp.MustCompile(`^(args(\.[A-Za-z0-9_-]+)+|subject:[A-Za-z0-9._/-]+)$`)

// settle fills in the defaults, and tells all faults.
func (l Limit) settle() (Limit, error) {
	l.Per = cmp.Or(l.Per, time.Second)
	if l.Starts > 0 {
		l.Burst = cmp.Or(l.Burst, 1)
	}
	var errs []error
	say := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	say(l.Starts >= 0 && l.Running >= 0, "Starts %d and Running %d must not be negative", l.Starts, l.Running)
	say(l.Per >= time.Second && l.Per <= longestPer, "Per is %v; it must be 1s to 31 days", l.Per)
	say(float64(l.Starts) <= 1e6*l.Per.Seconds(), "Starts %d in %v are more than a million a second", l.Starts, l.Per)
	say(l.Burst >= 0 && l.Burst <= l.Starts, "Burst is %d; it must be 1 to Starts", l.Burst)
	say(l.Key == "" || keyPlace.MatchString(l.Key) && len(l.Key) <= 200, "Key %q is no place of a key: use args.customer_id or subject:customer", l.Key)
	return l, errors.Join(errs...)
}

// settleLimits does so for those that a kind declares.
func settleLimits(limits []Limit) ([]Limit, error) {
	if len(limits) == 0 {
		return nil, nil
	}
	var out []Limit
	var errs []error
	seen := map[bool]bool{}
	for _, l := range limits {
		settled, err := l.settle()
		if l.Starts == 0 && l.Running == 0 {
			err = errors.Join(err, errors.New("one has neither Starts nor Running"))
		}
		if seen[l.Key == ""] {
			err = errors.Join(err, errors.New("there is more than one of the kind as a whole, or of its keys"))
		}
		seen[l.Key == ""] = true
		out, errs = append(out, settled), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// SetLimit sets a limit of a kind, of it as a whole or of its keys, by a person's word, which counts before what the code
// declares; one without Starts and Running says that there is none. Workers that lease by it follow at once, others within
// their heartbeat (2 s by default). It is recorded with who and why. Errors: ErrInvalid, or the database's.
func SetLimit(ctx context.Context, db DB, kind string, l Limit, w Word) error {
	settled, err := l.settle()
	if err != nil {
		return &InvalidError{Field: "limit", Problem: err.Error(), Fix: "see intent.Limit"}
	}
	if err := errors.Join(checkName(kind), w.check()); err != nil {
		return err
	}
	row := store.Limit{Kind: kind, Key: settled.Key, Starts: settled.Starts, Period: settled.Per, Burst: settled.Burst, Running: settled.Running}
	if err := store.SetLimit(ctx, db, row, w.Actor, w.Why); err != nil {
		return fmt.Errorf("set limit: %w", explain(err, nil))
	}
	return nil
}

// LimitPer says which of a kind's limits is meant.
type LimitPer string

// The limits of a kind.
const (
	PerKind LimitPer = "kind" // of the kind as a whole
	PerKey  LimitPer = "key"  // of each of its keys
)

// ClearLimit takes a limit back that a person set: what the code declares counts again. Errors: ErrInvalid, ErrIllegal (nobody
// set one), or the database's.
func ClearLimit(ctx context.Context, db DB, kind string, per LimitPer, w Word) error {
	if err := errors.Join(checkName(kind), w.check()); err != nil {
		return err
	}
	if err := store.ClearLimit(ctx, db, kind, string(per), w.Actor, w.Why); err != nil {
		return fmt.Errorf("clear limit: %w", explain(err, nil))
	}
	return nil
}

// LimitUse is a limit in force with its use at this moment.
type LimitUse struct {
	Kind string   `json:"kind"`
	Per  LimitPer `json:"per"`
	Limit
	Source string    `json:"source"` // code or person
	SetAt  time.Time `json:"set_at"`
	SetBy  string    `json:"set_by,omitempty"`
	SetWhy string    `json:"set_why,omitempty"`

	NextToken time.Duration `json:"next_token"`        // until a token comes that nobody has; of keys: the longest
	Line      time.Duration `json:"line"`              // until the last hint comes that was put back to wait; of keys: the longest
	Taken     int           `json:"taken"`             // places that processes hold
	Waiting   int           `json:"waiting"`           // and that they wait for
	Keys      int           `json:"keys,omitempty"`    // so many keys are in use
	Hottest   string        `json:"hottest,omitempty"` // and this one waits longest
}

// Limits returns all limits that are set or declared, by kind. One without Starts and Running was set to say that there is
// none.
func Limits(ctx context.Context, db DB) ([]LimitUse, error) {
	rows, err := store.LimitsInUse(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	out := make([]LimitUse, 0, len(rows))
	for _, r := range rows {
		u := LimitUse{
			Kind: r.Kind, Per: LimitPer(r.Per), Source: r.Source, SetAt: r.SetAt, SetBy: r.SetBy, SetWhy: r.SetWhy,
			Limit:     Limit{Key: r.Key, Starts: r.Starts, Per: r.Period, Burst: r.Burst, Running: r.Running},
			NextToken: r.NextToken, Line: r.Line, Taken: r.Taken, Waiting: r.Waiting,
		}
		if u.Per == PerKey {
			u.Keys, u.Hottest = r.Keys, r.Hottest
		}
		out = append(out, u)
	}
	return out, nil
}
