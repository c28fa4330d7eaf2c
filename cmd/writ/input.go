package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

// inputLimit bounds what is read from a file or a pipe; far more than any intent may carry.
const inputLimit = 8 << 20

// parseID takes a full id in its usual form and nothing else: a cut or mistyped one must not name another intent.
func parseID(s string) (intent.ID, error) {
	id, err := uuid.Parse(s)
	if err != nil || len(s) != 36 {
		return intent.ID{}, usage("%q is not an id; an id is a full UUID, like 019a3c5e-8f5c-7a10-9d54-0b6f9e3d2c11", short(clean(s), 60))
	}
	return id, nil
}

// readJSON reads the value of a flag: JSON itself, @file, or - for standard input.
func (a *app) readJSON(flag, value string) (json.RawMessage, error) {
	raw := []byte(value)
	var err error
	switch {
	case value == "-":
		raw, err = io.ReadAll(io.LimitReader(a.stdin, inputLimit+1))
	case strings.HasPrefix(value, "@"):
		raw, err = readFile(value[1:])
	}
	if err != nil {
		return nil, usage("%s %s: %v", flag, value, err)
	}
	if len(raw) > inputLimit {
		return nil, usage("%s %s: more than %d bytes; keep large data in a table of your own and pass its id", flag, value, inputLimit)
	}
	if err := json.Unmarshal(raw, new(any)); err != nil {
		at := ""
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			at = " at byte " + strconv.FormatInt(syntax.Offset, 10)
		}
		return nil, usage("%s is not valid JSON%s: %v; give JSON, @FILE, or - for standard input", flag, at, err)
	}
	return raw, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return io.ReadAll(io.LimitReader(f, inputLimit+1))
}

// parseAt reads --at: a time, or a span from the database's now.
func parseAt(s string, now func() time.Time) (time.Time, error) {
	if rest, relative := strings.CutPrefix(s, "+"); relative {
		if d, ok := parseSpan(rest); ok {
			return now().Add(d), nil
		}
	} else if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	return time.Time{}, usage("--at %s: give a time like 2026-03-01T08:00:00+01:00, or a span from now like +10m, +36h or +3d", clean(s))
}

// parseSpan reads a length of time: what Go reads, or days.
func parseSpan(s string) (time.Duration, bool) {
	d, err := time.ParseDuration(s)
	if days, isDays := strings.CutSuffix(s, "d"); isDays {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(n) * 24 * time.Hour
	}
	return d, err == nil && d >= 0 && d < 100*365*24*time.Hour
}

// reasonFlags are the flags of everything that overrules the engine.
type reasonFlags struct{ why, actor string }

// bind adds them to a verb.
func (f *reasonFlags) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.why, "why", "", "the reason, at least 10 characters; recorded (required)")
	flags.StringVar(&f.actor, "actor", "", "who decides; recorded (default: the OS user and host)")
	flags.Bool("yes", false, "accepted by all writes; this one never asks")
}

// reason checks them. The database does too; here the message can name the flags.
func (f reasonFlags) reason() (actor, why string, err error) {
	why = strings.TrimSpace(f.why)
	switch n := utf8.RuneCountInString(why); {
	case why == "":
		return "", "", usage("--why is missing: say in at least 10 characters why; it is recorded and read by others")
	case n < 10:
		return "", "", usage("--why has %d characters and needs at least 10: it is what the next person reads at night", n)
	}
	actor = strings.TrimSpace(f.actor)
	if actor == "" {
		actor = whoami()
	}
	return actor, why, nil
}

// whoami is the operating system's user and host.
func whoami() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil || name == "" {
		return name // empty: refused, so that --actor has to be given
	}
	return name + "@" + host
}
