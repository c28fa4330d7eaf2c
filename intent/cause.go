package intent

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/writhq/writ/internal/store"
)

// Cause is what intents and events inherit from what caused them. A handler's context carries its job's, a subscription's
// that of the event: whatever is created or published with it is part of the same tree. Elsewhere, as in a web server that
// was called with a traceparent, [WithCause] says it.
type Cause struct {
	TID    ID     // the transaction id of the whole tree; zero: what is created begins a tree of its own
	Parent ID     // the intent that caused it; zero: none
	Trace  string // W3C traceparent; empty: none

	// Application whose code this is; its creations of another application's tasks are refused. Empty: not checked here.
	Application string
}

type causeKey struct{}

// WithCause returns a context with which all that is created or published inherits c, in place of what ctx carried, but for the
// application, which stays unless c names one: whose code runs does not change by what caused it. As the W3C asks, a malformed
// Trace is dropped.
func WithCause(ctx context.Context, c Cause) context.Context {
	c.Application = cmp.Or(c.Application, CauseOf(ctx).Application)
	if c.Trace != "" && !traceparent.MatchString(c.Trace) {
		c.Trace = ""
	}
	return context.WithValue(ctx, causeKey{}, &c)
}

// CauseOf returns what ctx carries, or the zero value.
func CauseOf(ctx context.Context) Cause {
	if c, ok := ctx.Value(causeKey{}).(*Cause); ok {
		return *c
	}
	return Cause{}
}

// traceparent is its format, https://www.w3.org/TR/trace-context/#traceparent-header, of this version and later ones.
var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$`)

// lineage is what one creation inherits.
type lineage struct {
	tid    ID
	parent ID
	trace  string
}

// inherit fills in what is not given: from the parent that is, else from ctx. A parent that ctx does not know is looked
// up, for its transaction id; one that is not in this database has none.
func inherit(ctx context.Context, q DB, l lineage) (lineage, error) {
	c, ok := ctx.Value(causeKey{}).(*Cause)
	switch {
	case ok && (l.parent == ID{} || l.parent == c.Parent):
		if l.parent = c.Parent; l.tid == (ID{}) {
			l.tid = c.TID
		}
		if l.trace == "" {
			l.trace = c.Trace
		}
	case l.parent != ID{} && l.tid == ID{}:
		tid, trace, err := store.CauseOf(ctx, q, l.parent)
		if err != nil {
			return l, fmt.Errorf("look for the parent: %w", explain(err, nil))
		}
		if l.tid = tid; ok && tid == (ID{}) {
			l.tid = c.TID
		}
		if l.trace == "" {
			l.trace = trace
		}
	}
	return l, nil
}

// caused is opts with what it inherits. The kind must be one of the application whose code this is.
func caused(ctx context.Context, q DB, kind string, o Opts) (Opts, error) {
	if c, ok := ctx.Value(causeKey{}).(*Cause); ok && c.Application != "" {
		if err := CheckApplication(kind, c.Application); err != nil {
			return o, err
		}
	}
	l, err := inherit(ctx, q, lineage{o.TID, o.Parent, o.Trace})
	o.TID, o.Parent, o.Trace = l.tid, l.parent, l.trace
	return o, err
}

// CheckApplication holds a kind to the rule that an application creates and carries out its own tasks only. The error is
// an *InvalidError.
func CheckApplication(kind, application string) error {
	if owner, _, _ := strings.Cut(kind, "."); owner != application {
		return &InvalidError{
			Field: "kind", Problem: fmt.Sprintf("%s is a task of application %s, and this is %s", kind, owner, application),
			Fix: fmt.Sprintf("publish an event that %s subscribes to, or name the task %s.…", owner, application),
		}
	}
	return nil
}
