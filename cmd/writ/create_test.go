package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

func TestCreate(t *testing.T) {
	t.Parallel()
	s := newSetup(t)

	t.Run("PrintsTheID", func(t *testing.T) {
		r := s.writ("create", kindName, "--args", `{"order":7}`, "--subject", "order:7", "--subject", "customer:1")
		r.golden(t, "create_table")
		got := testkit.Value[[]string](t, s.db, "SELECT subjects FROM writ.intents WHERE id = $1", strings.TrimSpace(r.stdout))
		if strings.Join(got, " ") != "order:7 customer:1" {
			t.Errorf("subjects %v", got)
		}
		s.writ("create", kindName, "-o", "json").golden(t, "create_json")
	})
	t.Run("SaysThatItExistedWhenRepeated", func(t *testing.T) {
		first := s.writ("create", kindName, "--key", "k1").want(t, exitOK)
		again := s.writ("create", kindName, "--key", "k1").want(t, exitOK, "existed already")
		if first.stdout != again.stdout {
			t.Errorf("ids %s and %s; want the same", first.stdout, again.stdout)
		}
		s.writ("create", kindName, "--key", "k1", "--args", `{"n":1}`).want(t, exitConflict, "other args")
		id := intent.NewID().String()
		s.writ("create", kindName, "--id", id).want(t, exitOK)
		s.writ("create", kindName, "--id", id).want(t, exitOK, "existed already")
		s.writ("create", kindName, "--id", id, "--args", "[1]").want(t, exitConflict, id)
	})
	t.Run("ReadsArgsFromFileAndPipe", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "args.json")
		if err := os.WriteFile(file, []byte(`{"from":"file"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{
			s.writ("create", kindName, "--args", "@"+file).want(t, exitOK).stdout,
			call(t, `{"from":"file"}`, "--database", s.db.URL, "create", kindName, "--args", "-").want(t, exitOK).stdout,
		} {
			if got := testkit.Value[string](t, s.db, "SELECT args->>'from' FROM writ.intents WHERE id = $1", strings.TrimSpace(id)); got != "file" {
				t.Errorf("args.from = %q", got)
			}
		}
	})
	t.Run("RefusesWhatCannotBeTaken", func(t *testing.T) {
		for _, c := range []struct {
			args []string
			says string
		}{
			{[]string{"Shop.Order"}, "application.model.verb"},
			{[]string{kindName, "--args", `{"a":`}, "not valid JSON"},
			{[]string{kindName, "--args", `{"a":"\u0000"}`}, "NUL"},
			{[]string{kindName, "--args", "@/no/such/file"}, "no such file"},
			{[]string{kindName, "--args", ""}, "not valid JSON"},
			{[]string{kindName, "--subject", ""}, "subjects[0]"},
			{[]string{kindName, "--id", "12"}, "not an id"},
			{[]string{kindName, "--at", "tomorrow"}, "--at tomorrow"},
			{[]string{kindName, "--at", "-10m"}, "--at -10m"},
			{[]string{}, "takes KIND"},
		} {
			s.writ(append([]string{"create"}, c.args...)...).want(t, exitUsage, c.says)
		}
	})
}

func TestParseAt(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"+10m":                      now.Add(10 * time.Minute),
		"+3d":                       now.AddDate(0, 0, 3),
		"2026-03-02T08:00:00+01:00": time.Date(2026, 3, 2, 7, 0, 0, 0, time.UTC),
	} {
		if got, err := parseAt(in, func() time.Time { return now }); err != nil || !got.Equal(want) {
			t.Errorf("parseAt(%s) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "10m", "+", "+-1m", "+x", "+9999999d", "12:00", "+1.5d"} {
		if got, err := parseAt(in, func() time.Time { return now }); err == nil {
			t.Errorf("parseAt(%q) = %v; want an error", in, got)
		}
	}
}
