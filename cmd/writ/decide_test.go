package main

import (
	"net/url"
	"strings"
	"testing"

	"github.com/writhq/writ/internal/testkit"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	s := newSetup(t)

	for _, c := range []struct{ verb, want string }{{"happened", "sent 2"}, {"retry", "pending 2"}, {"give-up", "error 2"}} {
		t.Run("SettlesAnAmbiguousOneBy"+c.verb, func(t *testing.T) {
			id := s.ambiguous()
			s.writ(c.verb, id.String(), "--why", because, "--dry-run").golden(t, c.verb+"_dry_run")
			if got := s.position(id); got != "sending 1" {
				t.Fatalf("after the dry run it is %s; want sending 1", got)
			}
			s.writ(c.verb, id.String(), "--why", because, "--yes").golden(t, c.verb+"_table")
			if got := s.position(id); got != c.want {
				t.Errorf("it is %s; want %s", got, c.want)
			}
			actor := testkit.Value[string](t, s.db, "SELECT actor FROM writ.log WHERE intent_id = $1 AND event = $2", id, c.verb)
			if actor != whoami() || actor == "" {
				t.Errorf("actor %q; want %q", actor, whoami())
			}
		})
	}
	t.Run("CancelsAPendingOne", func(t *testing.T) {
		id := s.create(nil)
		s.writ("cancel", id.String(), "--why", because, "--actor", "ann", "-o", "json").golden(t, "cancel_json")
	})
	t.Run("ChangesTheKeyWhenAsked", func(t *testing.T) {
		s.writ("retry", s.failed().String(), "--why", because, "--new-key", "--actor", "ann", "-o", "json").golden(t, "retry_new_key")
		id := s.failed()
		s.writ("retry", id.String(), "--why", because, "--args", `{"order":8}`).want(t, exitOK, id.String()+"-1")
	})
}

func TestDecideRefuses(t *testing.T) {
	t.Parallel()
	s := newSetup(t)

	t.Run("ConflictWhenTheRowMoved", func(t *testing.T) {
		id := s.ambiguous()
		r := s.writ("cancel", id.String(), "--why", because, "--state", "pending", "--epoch", "0")
		r.want(t, exitConflict, "you saw pending at epoch 0", "it is sending at epoch 1", "nothing was changed")
		s.writ("happened", id.String(), "--why", because, "--state", "sending", "--epoch", "1").want(t, exitOK)
	})
	t.Run("NotAllowedWhenTheTableHasNoSuchTransition", func(t *testing.T) {
		s.writ("happened", s.create(nil).String(), "--why", because).want(t, exitNotAllowed, "cannot go from pending to sent")
		s.writ("retry", s.sending().String(), "--why", because).want(t, exitNotAllowed, "cannot go from sending to pending")
	})
	t.Run("NotAllowedWhenItNeedsAnOverride", func(t *testing.T) {
		id := s.sending()
		s.db.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'unknown' WHERE id = $1", id)
		s.writ("retry", id.String(), "--why", because).want(t, exitNotAllowed, "may do it twice", "--override")
		s.writ("retry", id.String(), "--why", because, "--override", "the provider rejected it before our eyes").want(t, exitOK)
	})
	t.Run("UsageWhenTheReasonIsMissing", func(t *testing.T) {
		id := s.failed().String()
		for _, verb := range []string{"happened", "retry", "give-up", "cancel"} {
			s.writ(verb, id).want(t, exitUsage, "--why is missing")
			s.writ(verb, id, "--why", "because  ").want(t, exitUsage, "7 characters", "at least 10")
		}
		s.writ("adopt").want(t, exitUsage, "--why is missing")
	})
	t.Run("UsageWhenFlagsAreWrong", func(t *testing.T) {
		id := s.failed().String()
		s.writ("retry", id, "--why", because, "--args", "{").want(t, exitUsage, "--args is not valid JSON")
		s.writ("retry", id, "--why", because, "--evidence", "x").want(t, exitUsage, "--evidence is not valid JSON")
		s.writ("retry", id, "--why", because, "--evidence", "-", "--args", "-").want(t, exitUsage, "both")
		s.writ("retry", id, "--why", because, "--state", "error").want(t, exitUsage, "--epoch go together")
		s.writ("cancel", id, "--why", because, "--override", "no").want(t, exitUsage, "unknown flag: --override")
	})
}

func TestDecide_DeniedWhenTheUserMayOnlyLook(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	id := s.failed().String()
	role := "viewer_" + strings.TrimPrefix(s.db.Name, "writ_test_")
	s.db.Run(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'only-looking' IN ROLE writ_viewer")
	t.Cleanup(func() { s.db.Run(t, "DROP ROLE "+role) })
	u, err := url.Parse(s.db.URL)
	if err != nil {
		t.Fatal("DATABASE_URL is not a URL")
	}
	u.User = url.UserPassword(role, "only-looking")
	viewer := &setup{t, &testkit.DB{URL: u.String()}}
	viewer.writ("why", id).want(t, exitOK)
	viewer.writ("get", id).want(t, exitOK)
	viewer.writ("timeline", id).want(t, exitOK)
	viewer.writ("list").want(t, exitOK)
	viewer.writ("cancel", id, "--why", because).want(t, exitNotAllowed, "permission denied", "writ_operator")
	viewer.writ("create", kindName).want(t, exitNotAllowed, "permission denied")
	viewer.writ("adopt", "--why", because).want(t, exitNotAllowed, "permission denied")
	if r := viewer.writ("doctor").want(t, exitFindings); strings.Contains(r.stdout, "could not be checked") {
		t.Errorf("a viewer may not look: %s", r.stdout)
	}
}
