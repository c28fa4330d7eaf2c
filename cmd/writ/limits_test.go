package main

import (
	"strings"
	"testing"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	if r := s.writ("limits", "list").want(t, exitOK); !strings.Contains(r.stderr, "no kind has a limit") {
		t.Errorf("without limits: %+v", r)
	}
	s.writ("limits", "set", kindName, "--starts", "100", "--per", "1m", "--running", "5", "--why", "the bank is slow (INC-431)", "--actor", "ann").golden(t, "limits_set")
	s.writ("limits", "set", kindName, "--key", "args.customer_id", "--running", "1", "--why", "one after the other", "--actor", "ann").want(t, exitOK)
	s.writ("limits", "list").golden(t, "limits_list")
	if r := s.writ("limits", "list", "-o", "json").want(t, exitOK); !strings.Contains(r.stdout, `"key": "args.customer_id"`) || !strings.Contains(r.stdout, `"taken": 0`) {
		t.Errorf("as JSON: %s", r.stdout)
	}
	s.writ("limits", "clear", kindName, "--per", "key", "--why", "that is over now").want(t, exitOK)
	s.writ("limits", "clear", kindName, "--per", "key", "--why", "that is over now").want(t, exitNotAllowed, "nobody set a limit per key")
	s.writ("limits", "set", kindName, "--none", "--why", "the code declares too little").want(t, exitOK)
	for _, c := range []struct{ args, says string }{
		{"limits set " + kindName, "--starts or --running"},
		{"limits set " + kindName + " --starts 5 --none", "--none"},
		{"limits set " + kindName + " --starts 5", "--why is missing"},
		{"limits clear " + kindName + " --per week", "kind or key"},
	} {
		s.writ(strings.Fields(c.args)...).want(t, exitUsage, c.says)
	}
}
