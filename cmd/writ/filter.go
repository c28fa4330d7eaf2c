package main

import (
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/writhq/writ/intent"
)

// filterFlags are the flags that choose intents, the same for all verbs that look at many.
type filterFlags struct {
	intent.Filter
	tid, since, until string
}

func (f *filterFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.Kind, "kind", "", "only this kind")
	flags.StringVar(&f.Status, "status", "", "only this status or state: "+strings.Join(intent.Statuses(), ", "))
	flags.StringVar(&f.FlagReason, "flag-reason", "", "only ambiguous ones flagged for this reason, like worker-died")
	flags.StringVar(&f.Error, "error", "", "only those with this error, give or take numbers, ids, addresses and quoted strings")
	flags.StringVar(&f.Worker, "worker", "", "only what this worker, or this host, claimed last")
	flags.StringVar(&f.Subject, "subject", "", "only what is about this, like customer:7")
	flags.StringVar(&f.tid, "tid", "", "only what one root caused, by its transaction id")
	flags.StringVar(&f.since, "since", "", "only what got where it stands (flagged, finished, else requested) since: a time like 2026-03-01T08:00:00Z, or 2h, 3d ago")
	flags.StringVar(&f.until, "until", "", "the same, before this time")
}

// filter reads them. now is the database's clock.
func (f *filterFlags) filter(now func() time.Time) (out intent.Filter, err error) {
	out = f.Filter
	if f.tid != "" {
		if out.TID, err = parseID(f.tid); err != nil {
			return out, err
		}
	}
	if out.Since, err = parseAgo("--since", f.since, now); err != nil {
		return out, err
	}
	out.Until, err = parseAgo("--until", f.until, now)
	return out, err
}

// parseAgo reads a time, or a span back from now; nothing is the zero time.
func parseAgo(flag, s string, now func() time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if d, ok := parseSpan(strings.TrimPrefix(s, "-")); ok {
		return now().Add(-d), nil
	}
	return time.Time{}, usage("%s %s: give a time like 2026-03-01T08:00:00+01:00, or how long ago, like 10m, 36h or 3d", flag, clean(s))
}
