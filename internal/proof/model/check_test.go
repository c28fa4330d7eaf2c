package model

import (
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	t.Parallel()
	const ended = "State-vector 96 byte, depth reached 9, errors: 0\n    42 states, stored\n"
	failing := strings.Replace(ended, "errors: 0", "errors: 1", 1)
	for out, want := range map[string]struct {
		found string
		whole bool // the search can be relied on
	}{
		ended: {"", true},
		"pan:1: assertion violated (effects==0) (at depth 44)\n" + failing: {"(effects==0)", true},
		"pan:1: acceptance cycle (at depth 44)\n" + failing:                {Cycle, true},
		"error: max search depth too small\n" + ended:                      {"", false},
		"pan: out of memory\nWarning: Search not completed\n" + ended:      {"", false},
		"Segmentation fault": {"", false},
	} {
		got, err := read(out)
		if got.Found != want.found || (err == nil) != want.whole {
			t.Errorf("%q: got %q, %v", out, got.Found, err)
		}
	}
}

func TestFault(t *testing.T) {
	t.Parallel()
	holds, breaks := Row{}, Row{Violates: "effects==0"}
	for name, c := range map[string]struct {
		row   Row
		found string
		fault bool
	}{
		"holds":                  {holds, "", false},
		"breaks unexpectedly":    {holds, "(effects==0)", true},
		"breaks as it must":      {breaks, "((effects==0)||(0==2))", false},
		"has lost its teeth":     {breaks, "", true},
		"breaks something other": {breaks, "(epoch>=e)", true},
	} {
		if got := c.row.Fault(Result{Found: c.found}); (got != "") != c.fault {
			t.Errorf("%s: %q", name, got)
		}
	}
}
