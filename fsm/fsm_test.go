package fsm_test

import (
	"context"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writhq/writ/fsm"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestFinal(t *testing.T) {
	t.Parallel()
	var final []fsm.State
	for _, s := range fsm.States() {
		if fsm.Final(s) {
			final = append(final, s)
		}
	}
	if diff := cmp.Diff([]fsm.State{fsm.Sent, fsm.Cancelled}, final); diff != "" {
		t.Errorf("final states (-want +got):\n%s", diff)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		from    fsm.State
		flagged bool
		to      fsm.State
		by      fsm.Author
		want    fsm.Event // empty: refused
	}{
		"worker finishes":                      {fsm.Sending, false, fsm.Sent, fsm.Engine, fsm.Succeeded},
		"worker finishes late, flagged":        {fsm.Sending, true, fsm.Sent, fsm.Engine, fsm.Succeeded},
		"person moves an unflagged sending":    {fsm.Sending, false, fsm.Pending, fsm.Hand, ""},
		"person moves a flagged sending":       {fsm.Sending, true, fsm.Pending, fsm.Hand, fsm.Retry},
		"engine leaves error":                  {fsm.Error, false, fsm.Pending, fsm.Engine, ""},
		"person claims":                        {fsm.Pending, false, fsm.Sending, fsm.Hand, ""},
		"nobody leaves sent":                   {fsm.Sent, false, fsm.Pending, fsm.Hand, ""},
		"no way from pending to error":         {fsm.Pending, false, fsm.Error, fsm.Engine, ""},
		"person cancels what waits":            {fsm.Pending, false, fsm.Cancelled, fsm.Hand, fsm.Cancel},
		"person does not cancel what may run":  {fsm.Sending, false, fsm.Cancelled, fsm.Hand, ""},
		"person says an error happened anyway": {fsm.Error, false, fsm.Sent, fsm.Hand, fsm.Happened},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok := fsm.Find(tt.from, tt.flagged, tt.to, tt.by)
			if ok != (tt.want != "") || got.Event != tt.want {
				t.Errorf("Find = %q, %v; want %q", got.Event, ok, tt.want)
			}
		})
	}
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	if got := fsm.Verbs(fsm.Sending, false); got != nil {
		t.Errorf("verbs of an unflagged sending = %v; want none", got)
	}
	want := []fsm.Event{fsm.Happened, fsm.Retry, fsm.GiveUp}
	if diff := cmp.Diff(want, fsm.Verbs(fsm.Sending, true)); diff != "" {
		t.Errorf("verbs of a flagged sending (-want +got):\n%s", diff)
	}
}

// TestMachine walks looplab's machine beside the table, so that what is drawn is what is enforced.
func TestMachine(t *testing.T) {
	t.Parallel()
	events := []fsm.Event{
		fsm.Attempted, fsm.Succeeded, fsm.Retried, fsm.Failed,
		fsm.Happened, fsm.Retry, fsm.GiveUp, fsm.Cancel,
	}
	for _, s := range fsm.States() {
		for _, e := range events {
			m := fsm.Machine()
			m.SetState(string(s))
			i := slices.IndexFunc(fsm.Transitions(), func(t fsm.Transition) bool {
				return t.From == s && t.Event == e && t.Flagged == fsm.AnyFlag
			})
			err := m.Event(context.Background(), string(e))
			if (err == nil) != (i >= 0) {
				t.Errorf("%s --%s-->: machine says %v, the table has it: %v", s, e, err, i >= 0)
			}
			if i >= 0 && m.Current() != string(fsm.Transitions()[i].To) {
				t.Errorf("%s --%s--> %s; want %s", s, e, m.Current(), fsm.Transitions()[i].To)
			}
		}
	}
}

// TestDiagram keeps docs/states.md true: it holds the diagram as drawn from the table.
func TestDiagram(t *testing.T) {
	t.Parallel()
	const file = "../docs/states.md"
	diagram, err := fsm.Diagram()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(doc), "```mermaid\n")
	_, tail, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatalf("%s has no mermaid block", file)
	}
	want := head + "```mermaid\n" + diagram + "```" + tail
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(doc)); diff != "" {
		t.Errorf("%s is not what fsm draws; run go test ./fsm -update (-want +got):\n%s", file, diff)
	}
}
