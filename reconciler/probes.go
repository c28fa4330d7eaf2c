package reconciler

import (
	"context"
	"time"
)

// askProbes has probes asked again whose hint, or whose worker, was lost; and now and then those that nobody planned to ask.
// The first hint comes with the flag, and each further one with the answer before it.
func (r *Reconciler) askProbes(ctx context.Context, report *Report) error {
	n, err := r.store.HintProbesDue(ctx)
	report.Probed += int(n)
	if err != nil || time.Since(r.asked) < r.cfg.Sweep {
		return err
	}
	n, err = r.store.HintProbesMissing(ctx)
	report.Probed += int(n)
	if err == nil {
		r.asked = time.Now()
	}
	return err
}
