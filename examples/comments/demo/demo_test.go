package demo

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	t.Parallel()
	all, err := parse([]byte("{\"post\":1,\"author\":\"Ann\",\"text\":\"hi\"}\n{\"post\":2}\n"))
	if err != nil || len(all) != 2 || all[0] != (comment{1, "Ann", "hi"}) {
		t.Errorf("got %v, %v", all, err)
	}
	if _, err := parse([]byte("{\"post\":1}\nnonsense")); err == nil || !strings.Contains(err.Error(), "comment 2") {
		t.Errorf("got %v; want an error that names the second comment", err)
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1)*100*time.Millisecond)
	}
	tests := []struct {
		sorted []time.Duration
		p      int
		want   string
	}{
		{nil, 50, "-"},
		{hundred[:1], 50, "100 ms"},
		{hundred[:2], 50, "100 ms"},
		{hundred, 50, "5.0 s"},
		{hundred, 95, "9.5 s"},
		{hundred, 100, "10.0 s"},
	}
	for _, tt := range tests {
		if got := percentile(tt.sorted, tt.p); got != tt.want {
			t.Errorf("p%d of %d: got %s; want %s", tt.p, len(tt.sorted), got, tt.want)
		}
	}
}

func TestPrinter(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newPrinter(&out)
	p.live("waiting: %d", 1)
	p.act(1, "an act")
	p.quote("writ why", strings.Repeat("word ", 40))
	c := &checker{say: p}
	c.that(true, "so")
	c.that(false, "not so")
	got := out.String()
	if strings.Contains(got, "\x1b") || strings.Contains(got, "waiting") {
		t.Errorf("off a terminal there is neither color nor a live line:\n%s", got)
	}
	if c.failed != 1 || !strings.Contains(got, "✗ FALSE: not so") {
		t.Errorf("%d failed:\n%s", c.failed, got)
	}
	for line := range strings.Lines(got) {
		if len(line) > width+1 {
			t.Errorf("longer than %d: %q", width, line)
		}
	}
}
