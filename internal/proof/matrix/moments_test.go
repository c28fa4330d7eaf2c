package matrix

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof/wire"
	"github.com/writhq/writ/internal/testkit"
)

// What a transaction of the engine is known by, in one of its statements: the events of the protocol, for the most part.
const (
	creates  = "INTO writ.intents"
	relayed  = "DELETE FROM writ.outbox"
	claims   = "'attempted'"
	sends    = "'sent', event = 'succeeded'"
	fails    = "'failed'"
	retries  = "'retried'"
	flags    = "'flagged'"
	orphans  = "'worker-died'"
	requeues = "'requeued'"
	beats    = "INTO writ.workers"
	putsBack = "INSERT INTO writ.outbox" // by itself, on a worker's connection
	recovers = "'recovered'"
	takes    = "SET probe_at = now() + $4" // a worker takes an asking
	verdicts = "writ.probed"
	reports  = "'late-report'" // a worker's outcome that came too late
	settles  = "INSERT INTO writ.inbox"
	points   = "SET progress"            // a safe point
	extends  = "SET deadline_at = great" // a handler gets more time
	tokens   = "writ.lease_tokens"
	places   = "writ.lease_places"
)

// moment is where a transaction is broken, and how.
type moment struct {
	at      func(text string) wire.Matcher
	kills   bool // the process, with SIGKILL; else only the connection is cut
	applied bool // the transaction is committed when it breaks

	nth       int    // of several such transactions; zero: the first
	meanwhile func() // what others do before it breaks; may be nil
}

// rule breaks the transaction that is known by text; end is what ends a process that is to be killed.
func (m moment) rule(text string, end func()) wire.Rule {
	return wire.Rule{At: m.at(text), Nth: m.nth, Do: wire.Call(func() {
		if m.meanwhile != nil {
			m.meanwhile()
		}
		if m.kills {
			end()
		}
	}, wire.Cut)}
}

// The moments of the columns that speak of Postgres.
var (
	cut          = moment{at: wire.Commits}
	answerLost   = moment{at: wire.Committed, applied: true}
	killedBefore = moment{at: wire.Commits, kills: true}
	killedAfter  = moment{at: wire.Committed, kills: true, applied: true}
)

// strike starts a part whose Postgres connection breaks at the first transaction that is known by text.
func (w *world) strike(role string, m moment, text string) (fired <-chan struct{}) {
	w.t.Helper()
	return w.strikeAt(role, w.pg, wire.Rule{At: m.at(text), Do: wire.Cut}, m.kills)
}

// strikeAt is strike for any rule. Where the process is to be killed that comes before what the rule does.
func (w *world) strikeAt(role string, proxy *testkit.Proxy, rule wire.Rule, kills bool) (fired <-chan struct{}) {
	w.t.Helper()
	if !kills {
		w.start(role, w.faulty)
		return proxy.On(rule)
	}
	p := w.spawn(role, w.faulty, order{})
	rule.Do = wire.Call(p.kill, rule.Do)
	return proxy.On(rule)
}

// strikeRule breaks the next transaction that is known by text, of whatever runs on faulty.
func (w *world) strikeRule(m moment, text string) (fired <-chan struct{}) {
	return w.pg.On(m.rule(text, nil))
}

// strikeOnce has a creator or a decider carry out an order, and breaks it at the moment.
func (w *world) strikeOnce(role string, m moment, text string, o order) {
	w.t.Helper()
	if !m.kills {
		fired := w.pg.On(m.rule(text, nil))
		if _, err := carryOut(context.Background(), role, w.faulty.Database, o); err == nil || errors.Is(err, intent.ErrConflict) {
			w.t.Errorf("the %s was told %v, though its connection broke", role, err)
		}
		w.met(fired)
		return
	}
	v := newVictim()
	fired := w.pg.On(m.rule(text, v.kill))
	v.is(w.spawn(role, w.faulty, o))
	w.met(fired)
}

// again starts the victim's next life, out of the fault's way, if it was killed.
func (w *world) again(role string, m moment) {
	w.t.Helper()
	if m.kills {
		w.start(role, w.straight)
	}
}

// strikeWork creates an intent, and returns it when the transaction that is known by text has broken under the worker that
// carries it out. Then a worker is at work again, and a reconciler, for what a dead one left; how it ends is for the caller to check.
func (w *world) strikeWork(m moment, text string, kind intent.Kind[task], script ...string) intent.ID {
	w.t.Helper()
	w.start(relay, w.straight)
	fired := w.strike(worker, m, text)
	id := w.create(kind, script...)
	w.met(fired)
	w.again(worker, m)
	w.start(reconciles, w.straight)
	return id
}

// scenario is what a cell does in its world.
type scenario func(t *testing.T, w *world)

// overtake has somebody else act while a transaction is held at the moment, and returns when they wait for its locks, or, if it is
// committed, when they are done. Both are known by a text in their statements. It is called by the proxy's goroutine.
func (w *world) overtake(m moment, held, waiting string, act func()) {
	if m.applied {
		act()
		return
	}
	// Its statements are on their way to the server, which may not have carried them out yet.
	w.awaitBackend(held, "state <> 'idle' AND wait_event = 'ClientRead'")
	go act()
	w.awaitBackend(waiting, "wait_event_type = 'Lock'")
}

// awaitBackend waits for a session whose statement holds text, and that is as the condition says.
func (w *world) awaitBackend(text, condition string) {
	late := time.Now().Add(soon)
	for tick := time.NewTicker(5 * time.Millisecond); time.Now().Before(late); <-tick.C {
		var yes bool
		err := w.db.QueryRow(context.Background(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
			AND position($1 IN query) > 0 AND pid <> pg_backend_pid() AND `+condition+")", text).Scan(&yes)
		if err != nil {
			w.t.Error(err)
		}
		if err != nil || yes {
			return
		}
	}
	w.t.Errorf("no session with %s came within %v to where %s", text, soon, condition)
}
