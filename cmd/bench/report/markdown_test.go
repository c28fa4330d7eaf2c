package report

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files again")

// sample has every kind of verdict in it: reached, not reached, not measured.
func sample(t *testing.T) File {
	t.Helper()
	f := File{
		Date: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC), Commit: "abc1234",
		Machine:  Machine{Cores: 2, CPU: "A CPU", Memory: "24 GiB", Kernel: "6.1"},
		Versions: map[string]string{"PostgreSQL": "15.1", "RabbitMQ": "3.10.8"},
		Settings: map[string]string{"fsync": "on"},
		About:    []string{"writ: Writ", "river: River"},
		Notes:    []string{"drain: a drain (rounds: 2)", "latency: idle (rounds: 1)"},
	}
	drain := func(contender string, round int, perSecond, ms float64) {
		f.Results = append(f.Results, Result{
			Workload: "drain", Contender: contender, Round: round, Metrics: map[string]float64{"drain_per_s": perSecond, "postgres_ms": ms},
		})
	}
	drain("writ", 1, 40_000, 0.05)
	drain("river", 1, 10_000, 0.1)
	drain("graphile-500", 1, 15_000, 0.06)
	drain("graphile-5000", 1, 20_000, 0.04)
	drain("writ", 2, 60_000, 0.05)
	drain("river", 2, 20_000, 0.1)
	drain("graphile-500", 2, 15_000, 0.06)
	drain("graphile-5000", 2, 20_000, 0.04)
	latency := func(contender string, micros ...int64) {
		h, err := NewHistogram(micros)
		if err != nil {
			t.Fatal(err)
		}
		f.Results = append(f.Results, Result{
			Workload: "latency", Contender: contender, Round: 1, Latency: h.Buckets(),
			Metrics: map[string]float64{"p50_ms": h.Percentile(50), "p99_ms": h.Percentile(99)},
		})
	}
	latency("writ-100", 4000, 5000)
	latency("river", 5000, 10_000)
	return f
}

func TestJudge(t *testing.T) {
	t.Parallel()
	type verdict struct {
		measured       string
		reached, known bool
	}
	got := map[string]verdict{}
	for _, v := range Judge(sample(t)) {
		got[v.What] = verdict{v.Measured, v.Reached, v.Known}
	}
	want := map[string]verdict{
		"drain of 100,000, against River":                        {"3.50× (3.00–4.00)", true, true},
		"drain, against graphile-worker at its best local queue": {"2.50× (2.00–3.00)", true, true},
		"Postgres CPU per intent, create to sent, against River": {"0.50× (0.50–0.50)", false, true},
		"idle latency, create to handler start, against River": {
			"p50 0.80× (0.80–0.80), 4.0 ms beside 5.0 ms of 2 and 2 samples; p99 0.50× (0.50–0.50), 5.0 ms beside 10.0 ms of 2 and 2 samples", true, true,
		},
		"idle: queries per second of a worker + relay + reconciler": {"–", false, false},
	}
	for what, w := range want {
		g := got[what]
		if g.known != w.known || g.reached != w.reached || g.measured != w.measured {
			t.Errorf("%s: %+v; want %+v", what, g, w)
		}
	}
	trial := sample(t)
	trial.Trial = true
	for _, v := range Judge(trial) {
		if v.Known {
			t.Errorf("a trial judges %q; want nothing judged", v.What)
		}
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	f := sample(t)
	golden(t, "report.md", Markdown(f))
}

func TestSVG(t *testing.T) {
	t.Parallel()
	picture := SVG(sample(t))
	for d := xml.NewDecoder(strings.NewReader(picture)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the picture is not XML: %v", err)
		}
	}
	golden(t, "report.svg", picture)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it again):\n%s", name, diff)
	}
}

func TestWriteDocs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	page := filepath.Join(dir, "benchmarks.md")
	write := func(text string) {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("# before\n" + beginMark + "old\n" + endMark + "after\n")
	if err := WriteDocs(dir, sample(t)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); strings.Contains(s, "old") || !strings.HasPrefix(s, "# before\n"+beginMark) || !strings.HasSuffix(s, endMark+"after\n") || !strings.Contains(s, "abc1234") {
		t.Errorf("page = %q; want the tables between the marks, and the rest as it was", s)
	}
	if _, err := os.Stat(filepath.Join(dir, "benchmarks.svg")); err != nil {
		t.Error(err)
	}
	trial := sample(t)
	trial.Trial = true
	if err := WriteDocs(dir, trial); err == nil {
		t.Error("a trial was drawn; want an error")
	}
	for _, bad := range []string{"no marks", beginMark, endMark + beginMark} {
		write(bad)
		if err := WriteDocs(dir, sample(t)); err == nil {
			t.Errorf("a page of %q was drawn; want an error", bad)
		}
	}
}
