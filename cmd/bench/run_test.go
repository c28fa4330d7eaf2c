package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/writhq/writ/cmd/bench/workload"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	names := func(p plan) (chosen, turns []string, rounds []int) {
		t.Helper()
		all, err := p.choose(catalogue(""))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range all {
			chosen, rounds = append(chosen, w.Name), append(rounds, w.Rounds)
			for _, turn := range w.Turns {
				if name := turn.Contender.Name(); !slices.Contains(turns, name) {
					turns = append(turns, name)
				}
			}
		}
		return chosen, turns, rounds
	}
	short, _, _ := names(plan{})
	long, _, _ := names(plan{long: true})
	if len(short)+len(long) != len(catalogue("")) || slices.Contains(short, "tick") || !slices.Contains(long, "tick") {
		t.Errorf("short %v, long %v; want every workload in one of them", short, long)
	}
	chosen, turns, rounds := names(plan{only: "drain,tick", peers: "writ,river", rounds: 7})
	if !slices.Equal(chosen, []string{"drain", "tick"}) || !slices.Equal(turns, []string{"writ", "river"}) || !slices.Equal(rounds, []int{7, 7}) {
		t.Errorf("chosen %v of %v, rounds %v", chosen, turns, rounds)
	}
	for _, p := range []plan{{only: "nonsense"}, {peers: "nobody"}} {
		if got, err := p.choose(catalogue("")); err == nil {
			t.Errorf("%+v chose %v; want an error", p, got)
		}
	}
}

// Every workload has its name to itself, and every contender says what it is.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, w := range catalogue("") {
		if seen[w.Name] {
			t.Errorf("two workloads are called %q", w.Name)
		}
		seen[w.Name] = true
		if w.Rounds < 1 || w.Title == "" || len(w.Turns) == 0 {
			t.Errorf("%s: %d rounds, title %q, %d turns", w.Name, w.Rounds, w.Title, len(w.Turns))
		}
	}
	for _, c := range contendersOf(catalogue("")) {
		if c.About() == "" || c.Slots() < 1 {
			t.Errorf("%s: about %q, %d slots", c.Name(), c.About(), c.Slots())
		}
	}
	if len(contendersOf([]workload.Workload{})) != 0 {
		t.Error("no workloads have contenders")
	}
}

func TestRun_usage(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"nothing":           {nil, 2, "bench run"},
		"no such verb":      {[]string{"walk"}, 2, "bench run"},
		"help":              {[]string{"run", "-h"}, 2, "-only"},
		"no such workload":  {[]string{"run", "-only", "x"}, 1, "bench list"},
		"report of nothing": {[]string{"report"}, 1, "name the files"},
		"work of nobody":    {[]string{"work"}, 1, "name who works"},
		"list":              {[]string{"list"}, 0, "drain"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if code := run(context.Background(), tt.args, strings.NewReader(""), &out, &out); code != tt.code || !strings.Contains(out.String(), tt.want) {
				t.Errorf("code %d, output %q; want %d and %q in it", code, out.String(), tt.code, tt.want)
			}
		})
	}
}
