package reconciler

import (
	"context"

	"github.com/writhq/writ/internal/store"
)

// askAgain has probes asked again whose hint, or whose worker, was lost. The first hint comes with the flag, and each further
// one with the answer before it.
func (r *Reconciler) askAgain(ctx context.Context, l *look) (more bool, err error) {
	return hintProbes(ctx, l, Ask, l.store.HintProbesDue, "its probe should have answered by now; the hint for that seems lost, or its worker")
}

// askUnasked has probes asked that nobody planned to ask.
func (r *Reconciler) askUnasked(ctx context.Context, l *look) (more bool, err error) {
	return hintProbes(ctx, l, Unasked, l.store.HintProbesMissing, "it is flagged, its kind has a probe, and no asking was planned")
}

func hintProbes(ctx context.Context, l *look, as Duty, hint func(context.Context) ([]store.Requeued, error), why string) (more bool, err error) {
	done, err := hint(ctx)
	if err != nil {
		return false, err
	}
	l.report.Probed += len(done)
	for _, h := range done {
		l.note(Act{as, "probed", h.ID, h.Kind, h.Epoch, why})
	}
	return len(done) > 0, nil
}
