package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/writhq/writ/intent"
)

func TestLook(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	scheduled := s.create(map[string]string{"text": "\x1b[31mred"})
	s.db.Run(t, "UPDATE writ.intents SET run_at = now() + interval '3 h 30 s' WHERE id = $1", scheduled)
	ambiguous := s.ambiguous()
	failed := s.failed()
	s.writ("retry", ambiguous.String(), "--why", because, "--actor", "ann@desk", "--evidence", `{"ticket":"INC-7"}`).want(t, exitOK)

	s.writ("list").golden(t, "list_table")
	s.writ("list", "-o", "wide").golden(t, "list_wide")
	s.writ("list", "-o", "json").golden(t, "list_json")
	s.writ("list", "-o", "jsonl", "--status", "error").golden(t, "list_jsonl")
	s.writ("list", "--limit", "1", "--subject", "order:7").golden(t, "list_limit")
	s.writ("list", "--kind", "no.such.kind").golden(t, "list_none")
	s.writ("get", failed.String()).golden(t, "get_table")
	s.writ("get", failed.String(), "-o", "json").golden(t, "get_json")
	s.writ("get", scheduled.String()).golden(t, "get_scheduled")
	s.writ("why", failed.String()).golden(t, "why_table")
	s.writ("why", failed.String(), "-o", "json").golden(t, "why_json")
	s.writ("timeline", ambiguous.String()).golden(t, "timeline_table")
	s.writ("timeline", ambiguous.String(), "-o", "wide").golden(t, "timeline_wide")
	s.writ("timeline", ambiguous.String(), "-o", "jsonl").golden(t, "timeline_jsonl")
}

func TestList(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	id := s.ambiguous()
	s.create(nil)
	for _, filter := range [][]string{
		{"--status", "ambiguous"}, {"--status", "sending"}, {"--tid", id.String()},
	} {
		t.Run("FindsOneByFilter"+filter[0], func(t *testing.T) {
			r := s.writ(append([]string{"list", "-o", "json"}, filter...)...).want(t, exitOK)
			var found []intent.Intent
			if err := json.Unmarshal([]byte(r.stdout), &found); err != nil || len(found) != 1 || found[0].ID != id {
				t.Errorf("found %v, %v; want %s", found, err, id)
			}
		})
	}
	t.Run("IsAnEmptyArrayWhenNothingMatches", func(t *testing.T) {
		if r := s.writ("list", "-o", "json", "--status", "sent").want(t, exitOK); r.stdout != "[]\n" {
			t.Errorf("printed %q", r.stdout)
		}
	})
	t.Run("RefusesWhatIsNoFilter", func(t *testing.T) {
		s.writ("list", "--status", "done").want(t, exitUsage, `"done" is not one`, "ambiguous")
		s.writ("list", "--tid", "7").want(t, exitUsage, "not an id")
		s.writ("list", "--limit", "0").want(t, exitUsage, "--limit")
	})
}

func TestID(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	missing := intent.NewID().String()
	for _, verb := range []string{"get", "why", "timeline", "happened", "retry", "give-up", "cancel"} {
		t.Run(verb, func(t *testing.T) {
			why := []string{}
			if !strings.Contains("get why timeline", verb) {
				why = []string{"--why", because}
			}
			s.writ(append([]string{verb, missing}, why...)...).want(t, exitNotFound, "no intent "+missing)
			for _, bad := range []string{"7", missing[:35], strings.ReplaceAll(missing, "-", ""), "{" + missing + "}", "urn:uuid:" + missing} {
				s.writ(append([]string{verb, bad}, why...)...).want(t, exitUsage, "not an id")
			}
			s.writ(verb).want(t, exitUsage, "takes ID")
		})
	}
}
