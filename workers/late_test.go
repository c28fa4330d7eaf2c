package workers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// TestLateTruth: what a worker says after the flag and before a verdict counts. After a verdict it changes nothing: it stands
// beside it as a late report, which confirms or contradicts it, is counted, and told by why and the timeline.
func TestLateTruth(t *testing.T) {
	t.Parallel()
	type decision func(context.Context, intent.DB, intent.Verdict) (intent.Position, error)
	tests := map[string]struct {
		says    error
		verdict decision // nil: none
		status  string
		meaning string
	}{
		"done, before any verdict":         {nil, nil, "sent", ""},
		"not done, before any verdict":     {workers.Stop(errors.New("no such customer")), nil, "error", ""},
		"done, after happened":             {nil, intent.Happened, "sent", "confirms"},
		"done, after give-up":              {nil, intent.GiveUp, "error", "contradicts"},
		"not done, after happened":         {workers.NotDone(errors.New("refused")), intent.Happened, "sent", "contradicts"},
		"not done, after give-up":          {workers.Stop(errors.New("refused")), intent.GiveUp, "error", "confirms"},
		"nobody knows, even after a while": {errors.New("reset"), intent.Happened, "sent", "neither"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			late := job
			late.Name, late.Timeout = "test.job.late", 100*time.Millisecond
			release := make(chan struct{})
			registry := prometheus.NewRegistry()
			mux := workers.NewMux()
			workers.Handle(mux, late, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { <-release; return tt.says }})
			w, err := workers.New(b.db.Pool, testkit.AMQPURL(t), mux, workers.Config{
				Heartbeat: 50 * time.Millisecond, TTL: time.Second, Log: testkit.Log(t), Metrics: registry,
			})
			if err != nil {
				t.Fatal(err)
			}
			stop := b.run(w.Run)
			id := b.create(late, 1)
			seen := b.await(id, "ambiguous") // overdue
			if tt.verdict != nil {
				if _, err := tt.verdict(context.Background(), b.db, intent.Verdict{ID: id, Seen: seen.Position(), Actor: "ann", Why: "she has looked outside"}); err != nil {
					t.Fatal(err)
				}
			}
			close(release)
			if tt.meaning != "" {
				testkit.Until(t, 10*time.Second, "a late report", func() (bool, string) {
					e := b.events(id)
					return e[len(e)-1] == "late-report", fmt.Sprint(e)
				})
			}
			row := b.await(id, tt.status)
			stop()
			if want := seen.Epoch; tt.verdict != nil && row.Epoch != want+1 || tt.verdict == nil && row.Epoch != want {
				t.Errorf("epoch %d after %d", row.Epoch, want)
			}
			if got := testkit.Value[string](t, b.db, "SELECT coalesce(string_agg(evidence ->> 'meaning', ' '), '') FROM writ.log WHERE event = 'late-report'"); got != tt.meaning {
				t.Errorf("late reports %q; want %q", got, tt.meaning)
			}
			line := b.why(id)
			told := map[string]string{"": "", "neither": "a late report of its worker came", "confirms": "a late report of its worker confirmed the verdict", "contradicts": "a late report of its worker CONTRADICTED the verdict"}[tt.meaning]
			if !strings.Contains(line, told) {
				t.Errorf("why says %q; want %q in it", line, told)
			}
			if tt.meaning == "" {
				return
			}
			if n := counted(t, registry, "writ_late_reports_total", tt.meaning); n != 1 {
				t.Errorf("%v late reports are counted that mean %s", n, tt.meaning)
			}
		})
	}
}

// counted is the value of a counter's series with a label's value.
func counted(t *testing.T, registry *prometheus.Registry, name, value string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == value {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
