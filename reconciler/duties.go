package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/writhq/writ/internal/store"
)

// Duty is one of the things that a reconciler does, each on a schedule of its own.
type Duty string

// The duties.
const (
	Requeue Duty = "requeue" // hints that seem lost are written again
	Recover Duty = "recover" // so are those of recoveries that are owed
	Flag    Duty = "flag"    // what workers that have just died held is flagged, or retried if idempotent
	Ask     Duty = "ask"     // probes whose hint, or whose worker, was lost are asked again
	Unasked Duty = "unasked" // probes that nobody planned to ask are: of rows flagged by hand, or before their kind had one
	Sweep   Duty = "sweep"   // the same for all that is being sent: workers that no longer have a row, late claims
	Prune   Duty = "prune"   // rows past their retention are deleted
)

// duty says when and how. To add one, add a constant above and a row below. do acts until it has done all, or the look's
// time is up, and reports whether there is more to be done at once.
type duty struct {
	name     Duty
	schedule string // if Config.Schedules has none; empty: Config.Schedule
	do       func(*Reconciler, context.Context, *look) (more bool, err error)
}

func duties() []duty {
	return []duty{
		{Requeue, "", (*Reconciler).requeue},
		{Recover, "", (*Reconciler).recoverOwed},
		{Flag, "", (*Reconciler).flagDead},
		{Ask, "", (*Reconciler).askAgain},
		{Unasked, "@every 1m", (*Reconciler).askUnasked},
		{Sweep, "@every 1m", (*Reconciler).sweep},
		{Prune, "@every 1m", (*Reconciler).prune},
	}
}

// look is one turn of the reconciler, of one duty or several.
type look struct {
	store  *store.Store
	until  time.Time // a duty leaves the rest to its next turn then; zero: it does all
	most   int       // rows of one duty, about, after which a rehearsal ends it; 0: no bound
	before int       // acts when this duty began
	act    func(Act)
	report Report

	again bool          // something was left that is to be gone on with in a while
	pause time.Duration // until what is more is gone on with
}

// late reports whether the time is up.
func (l *look) late() bool { return !l.until.IsZero() && time.Now().After(l.until) }

// enough reports whether a rehearsal has told enough of a duty.
func (l *look) enough() bool { return l.most > 0 && l.report.acts()-l.before >= l.most }

// note tells of an act.
func (l *look) note(a Act) {
	if l.act != nil {
		l.act(a)
	}
}

// requeue writes hints again for pending rows whose hint seems lost: of one window of open rows.
func (r *Reconciler) requeue(ctx context.Context, l *look) (more bool, err error) {
	seen, err := l.store.StalePending(ctx, r.place, r.cfg.RequeueAfter, window)
	if err != nil {
		return false, err
	}
	if seen.Suspended {
		l.report.Suspended = true
		return false, nil // and go on from the same place
	}
	r.place = seen.Last // the beginning again, unless there is more
	stale := seen.Stale[:min(len(seen.Stale), r.cfg.RequeueMost)]
	if len(stale) < len(seen.Stale) {
		r.place = stale[len(stale)-1].Place // the rest at the next look
	}
	// Windows in which little is written follow each other soon: what is written at most in a look is so in that time.
	l.pause = max(soon, goOn*time.Duration(len(stale))/time.Duration(r.cfg.RequeueMost))
	if len(stale) > 0 {
		done, err := l.store.Requeue(ctx, stale)
		if err != nil {
			return false, err
		}
		l.report.Requeued += len(done)
		for _, h := range done {
			l.note(Act{Requeue, "requeued", h.ID, h.Kind, h.Epoch, fmt.Sprintf("its hint seems lost: due for longer than %v, and none is on its way (%d written again so far)", r.cfg.RequeueAfter, h.Requeues)})
		}
	}
	return r.place != store.Place{}, nil
}

// recoverOwed writes hints again for recoveries.
func (r *Reconciler) recoverOwed(ctx context.Context, l *look) (more bool, err error) {
	done, err := l.store.RequeueOwed(ctx)
	if err != nil {
		return false, err
	}
	l.report.Requeued += len(done)
	for _, h := range done {
		l.note(Act{Recover, "requeued", h.ID, h.Kind, h.Epoch, "its recovery function has still to run, and the hint for that seems lost"})
	}
	return len(done) > 0, nil
}

// flagDead looks at what workers held that died since the last time.
func (r *Reconciler) flagDead(ctx context.Context, l *look) (more bool, err error) {
	if l.again = !r.watch.steady(); l.again {
		return false, nil // the database was not seen to run for long enough for anybody to be taken for dead
	}
	dead, err := l.store.DeadWorkers(ctx)
	if err != nil || len(dead) == 0 {
		return false, err
	}
	var faults []error
	for place, more := (store.Place{}), true; more; {
		place, more, err = r.settleWindow(ctx, l, Flag, dead, place)
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil || l.again {
		return false, err
	}
	r.cfg.Log.Warn("reconciler: workers died", "workers", dead, "flagged", l.report.Flagged, "retried", l.report.Retried)
	return false, l.store.Swept(ctx, dead)
}

// sweep looks at all that is being sent, window by window: at what workers held whose rows are gone, and at claims that were
// committed after their worker was looked at.
func (r *Reconciler) sweep(ctx context.Context, l *look) (more bool, err error) {
	if l.again = !r.watch.steady(); l.again {
		return false, nil // the database was not seen to run for long enough for anybody to be taken for dead
	}
	l.pause = soon
	r.swept, more, err = r.settleWindow(ctx, l, Sweep, nil, r.swept)
	if err != nil || more || l.again {
		return more, err
	}
	return false, l.store.ForgetWorkers(ctx)
}

// settleWindow settles the attempts that have no living worker, of these workers or of all, in a window of open rows after a
// place. It returns where the next one begins, and whether there is one; one that cannot be settled does not hold up the
// others. l.again: some are left, for a later turn.
func (r *Reconciler) settleWindow(ctx context.Context, l *look, as Duty, workers store.UUIDs, place store.Place) (next store.Place, more bool, err error) {
	if err := r.watchNow(ctx); err != nil { // acting needs a fresh observation
		return place, false, err
	}
	w, err := l.store.OrphanWindow(ctx, workers, place, orphans)
	if err != nil {
		return place, false, err
	}
	settled, err := r.settle(ctx, l, as, w.Found)
	switch {
	case err != nil && store.Down(err):
		return place, false, err
	case settled < len(w.Found) && l.late():
		l.again = true // from the same place
		return place, false, err
	case settled < len(w.Found) && as == Flag:
		l.again = true // locked, not silent for long enough, or the database paused; a sweep comes back to them with its next round
	}
	return w.Last, w.More, err
}

// settle settles orphaned attempts one by one and returns how many were as read.
func (r *Reconciler) settle(ctx context.Context, l *look, as Duty, found []store.Hint) (settled int, err error) {
	var faults []error
	for _, h := range found {
		if l.late() {
			break
		}
		done, err := l.store.SettleOrphan(ctx, h, r.watch.observed(), r.cfg.WorkerTTL)
		switch {
		case store.Locked(err):
			continue // somebody has its row; that must not hold up the others
		case err != nil && !store.Down(err):
			faults = append(faults, err) // nor must one that cannot be settled
			continue
		case err != nil:
			return settled, err
		case done.Class == "":
			continue
		case done.Class == "idempotent":
			l.report.Retried++
		default:
			l.report.Flagged++
		}
		settled++
		why := fmt.Sprintf("its worker %s has no row any more", done.Worker)
		if done.Silent != nil {
			why = fmt.Sprintf("its worker %s died, last heard of %v ago", done.Worker, done.Silent.Round(time.Second))
		}
		l.note(Act{as, done.Did, h.ID, done.Kind, h.Epoch, why})
	}
	return settled, errors.Join(faults...)
}

// prune deletes finished rows past their retention, in small transactions. It goes on from where the last one ended, for
// the rows of other states that are kept for longer lie in between, and may be millions; once in a while it walks all the way,
// for those that were locked.
func (r *Reconciler) prune(ctx context.Context, l *look) (more bool, err error) {
	expiries, err := l.store.Expiries(ctx)
	if err != nil {
		return false, err
	}
	marks := r.pruned
	if l.most > 0 || time.Since(r.walked) > walk {
		marks = map[string]time.Time{}
	}
	if l.most == 0 && time.Since(r.walked) > walk {
		r.pruned, r.walked = marks, time.Now()
	}
	for _, e := range expiries {
		e.From = marks[e.Kind+" "+e.State]
		for {
			done, err := l.store.Prune(ctx, e, pruneBatch)
			if err != nil {
				return false, err
			}
			l.report.Pruned += len(done)
			for _, p := range done {
				l.note(Act{Prune, "pruned", p.ID, e.Kind, p.Epoch, fmt.Sprintf("%s %v ago, which is longer than its kind keeps it", e.State, p.Age.Round(time.Second))})
			}
			if len(done) < pruneBatch {
				marks[e.Kind+" "+e.State] = e.Before
				break
			}
			if l.late() || l.enough() {
				return true, nil
			}
		}
	}
	return r.forget(ctx, l)
}

// forget prunes the inbox: events that were settled so long ago that the broker repeats them no more.
func (r *Reconciler) forget(ctx context.Context, l *look) (more bool, err error) {
	for {
		n, err := l.store.PruneInbox(ctx, r.cfg.KeepEvents, pruneBatch)
		l.report.Forgotten += n
		switch enough := l.most > 0 && l.report.Forgotten >= l.most; {
		case err != nil || n < pruneBatch:
			return false, err
		case enough:
			l.report.Unfinished = true
			return false, nil
		case l.late():
			return true, nil
		}
	}
}
