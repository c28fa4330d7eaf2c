package main

import (
	"strings"
	"testing"

	"github.com/writhq/writ/internal/testkit"
)

func TestPause(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	id := s.create(nil).String()
	s.writ("pause", "--why", "the bank is down", "--actor", "ann").golden(t, "pause")
	if why := s.writ("why", id).want(t, exitOK).stdout; !strings.Contains(why, "everything is paused by ann (the bank is down)") {
		t.Errorf("why = %s", why)
	}
	s.writ("resume", "--why", "the bank is back", "-o", "json", "--actor", "ann").golden(t, "resume_json")
	s.writ("resume", "--why", "the bank is back").want(t, exitNotAllowed, "is not paused")
	s.writ("pause", kindName, "--why", "the bank is down").want(t, exitNotFound, "no worker ever declared kind "+kindName)
	s.db.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, $1, 'manual')", kindName)
	s.writ("pause", kindName, "--why", "the bank is down", "--actor", "ann").golden(t, "pause_kind")
	if why := s.writ("why", id).want(t, exitOK).stdout; !strings.Contains(why, "is paused by ann") {
		t.Errorf("why = %s", why)
	}
	s.writ("resume", kindName, "--why", "the bank is back").want(t, exitOK)
	s.writ("resume", kindName, "--why", "the bank is back").want(t, exitNotAllowed, "is not paused")
	s.writ("pause").want(t, exitUsage, "--why is missing")
	s.writ("pause", "--queue", "mails", "--why", "the bank is down").want(t, exitNotFound, "no declared kind has queue mails")
	s.writ("pause", kindName, "--queue", kindName, "--why", "the bank is down").want(t, exitUsage, "not both")
	s.writ("pause", "--queue", kindName, "--why", "the bank is down", "--actor", "ann").golden(t, "pause_queue")
	if why := s.writ("why", id).want(t, exitOK).stdout; !strings.Contains(why, "queue "+kindName+" is paused by ann (the bank is down)") {
		t.Errorf("why = %s", why)
	}
	s.writ("kinds", "list").golden(t, "kinds_list_paused")
	s.writ("resume", "--queue", kindName, "--why", "the bank is back", "-o", "json", "--actor", "ann").golden(t, "resume_queue_json")
	s.writ("resume", "--queue", kindName, "--why", "the bank is back").want(t, exitNotAllowed, "queue "+kindName+" is not paused")
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.writ("kinds", "list").want(t, exitOK, "no worker ever declared a kind")
	id := s.create(nil).String()
	s.writ("breaker", "open", kindName, "--why", "the bank asks for a break").want(t, exitNotFound, "no worker ever declared kind "+kindName)
	s.db.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, $1, 'manual')", kindName)
	s.writ("breaker", "open", kindName, "--why", "the bank asks for a break").want(t, exitNotAllowed, "has no circuit breaker", "writ pause")
	s.db.Run(t, `UPDATE writ.kinds SET breaker = '{"ratio": 0.5, "least": 20, "window": 30, "open": 30, "most": 600}'`)
	s.writ("breaker", "close", kindName, "--why", "the bank is back").want(t, exitNotAllowed, "closed already")
	s.writ("breaker", "open", kindName, "--for", "-1s", "--why", "the bank asks for a break").want(t, exitUsage, "cannot be open for")
	s.writ("breaker", "open", kindName, "--for", "10m", "--why", "the bank asks for a break", "--actor", "ann").golden(t, "breaker_open")
	if why := s.writ("why", id).want(t, exitOK).stdout; !strings.Contains(why, "the breaker of kind "+kindName+" is open until ") || !strings.Contains(why, "by ann (the bank asks for a break)") {
		t.Errorf("why = %s", why)
	}
	if list := s.writ("kinds", "list").want(t, exitOK).stdout; !strings.Contains(list, "breaker open until ") || !strings.Contains(list, "the bank asks for a break") {
		t.Errorf("kinds list = %s", list)
	}
	if f := findings(t, s.writ("doctor", "-o", "json", "--amqp", testkit.AMQPURL(t)).want(t, exitFindings))["breakers"]; f.Result != checkWarn || !strings.Contains(f.Detail, kindName) {
		t.Errorf("the doctor says %+v", f)
	}
	s.writ("breaker", "close", kindName, "--why", "the bank is back", "--actor", "ann", "-o", "json").golden(t, "breaker_close_json")
	if acts := s.writ("audit", "--format", "csv").want(t, exitOK).stdout; !strings.Contains(acts, "breaker-opened") || !strings.Contains(acts, "breaker-closed") {
		t.Errorf("the audit has\n%s", acts)
	}
}

// TestQuarantine walks the way of an operator whose database was restored: the doctor tells each next step.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	because := "db1 restored to 02:55"
	id := s.create(nil).String()
	s.failed()
	identity := func(says string) {
		t.Helper()
		f := findings(t, s.writ("doctor", "-o", "json", "--amqp", testkit.AMQPURL(t)).want(t, exitFindings))["identity"]
		if f.Result != checkFail || !strings.Contains(f.Detail+f.Advice, says) {
			t.Errorf("the doctor says %+v; want %s", f, says)
		}
	}
	s.writ("quarantine", "--since", "1h", "--why", because).want(t, exitNotAllowed, "work goes on here", "writ pause")
	s.db.Run(t, "UPDATE writ.settings SET fingerprint = 'elsewhere'")
	identity("writ quarantine --since")
	s.writ("adopt", "--why", because).want(t, exitNotAllowed, "--nothing-lost", "writ quarantine")
	s.writ("quarantine", "--why", because).want(t, exitUsage, "--since is missing")
	s.writ("quarantine", "--since", "yesterday", "--why", because).want(t, exitUsage, "--since yesterday")
	s.writ("quarantine", "--since", "2999-01-01T00:00:00Z", "--why", because).want(t, exitUsage, "not a moment in the past")
	s.writ("quarantine", "--since", "1h", "--why", because, "--actor", "ann", "--dry-run").golden(t, "quarantine_dry_run")
	if got := s.position(s.create(nil)); got != "pending 0" {
		t.Errorf("a dry run left %s", got)
	}
	identity("writ quarantine --since")
	s.writ("quarantine", "--since", "1h", "--why", because, "--actor", "ann").golden(t, "quarantine")
	identity("by ann")
	s.writ("timeline", id).golden(t, "timeline_quarantined")
	s.writ("quarantine", "--since", "1h", "--why", because, "--actor", "ann", "-o", "json").golden(t, "quarantine_json")
	s.writ("pause", "--why", because, "--actor", "ann").want(t, exitOK)
	s.writ("adopt", "--why", because, "--actor", "ann").golden(t, "adopt_paused")
	s.writ("resume", "--why", because).want(t, exitOK)
	s.writ("quarantine", "--since", "1h", "--why", because).want(t, exitNotAllowed, "work goes on here")
	s.db.Run(t, "UPDATE writ.settings SET fingerprint = 'elsewhere'")
	s.writ("adopt", "--nothing-lost", "--why", because, "--actor", "ann").golden(t, "adopt")
}
