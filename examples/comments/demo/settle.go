package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/writhq/writ/examples/comments/mailserver"
	"github.com/writhq/writ/intent"
)

// verdict is a decision that the demo took on an ambiguous intent.
type verdict struct {
	id    intent.ID
	verb  string
	found string // the mail log's line
}

// settle does what a person on call would: look at each ambiguous intent, look into the mail server's log, decide. The
// one that the story is about comes first, and with all the words.
func (d *director) settle(ctx context.Context) error {
	found, err := intent.List(ctx, d.db, intent.Filter{Kind: d.Kind, Status: "ambiguous"})
	if err != nil {
		return err
	}
	for _, i := range found {
		if i.ID == d.last {
			return d.tell(ctx, i)
		}
	}
	if d.last != (intent.ID{}) && !d.isSettled(d.last) {
		return nil // it will be flagged too
	}
	for _, i := range found {
		verb, err := d.decide(ctx, i)
		if err != nil {
			return err
		}
		switch verb {
		case "happened":
			d.say.step("also in flight: %s is in the mail log  → writ happened", short(i.ID))
		case "retry":
			d.say.step("also in flight: %s is not in it, and deadline + settle have passed → writ retry", short(i.ID))
		}
	}
	return nil
}

// tell settles an intent and shows how.
func (d *director) tell(ctx context.Context, i intent.Intent) error {
	d.say.step("flagged ambiguous by the reconciler (%s): nobody on this side can know", *i.FlagReason)
	why, err := d.cli(ctx, "why", i.ID.String())
	if err != nil {
		return err
	}
	d.say.quote("writ why "+short(i.ID), why)
	verb, err := d.decide(ctx, i)
	if err != nil {
		return err
	}
	switch verb {
	case "happened":
		d.say.quote("grep "+short(i.ID)+" mails/log.jsonl", strings.ReplaceAll(d.settled[len(d.settled)-1].found, `","`, `", "`)) // may be wrapped
		why, err := d.cli(ctx, "why", i.ID.String())
		if err != nil {
			return err
		}
		d.say.quote("writ happened "+short(i.ID)+" --why … --evidence …", why)
		d.say.step("settled on that evidence: not mailed again")
	case "retry":
		d.say.quote("grep "+short(i.ID)+" mails/log.jsonl", "nothing: it is tried again")
	}
	return nil
}

// decide takes the decision on one intent, if it can be taken yet, and returns the verb. Nothing is decided on a guess:
// it happened if the mail log has its key, and it did not if the log has no such key after the last moment at which the
// attempt could have landed.
func (d *director) decide(ctx context.Context, i intent.Intent) (verb string, err error) {
	var over bool // asked before the log is read: what lands in between must not be missed
	if i.DeadlineAt != nil {
		err = d.db.QueryRow(ctx, `SELECT clock_timestamp() > $1`, i.DeadlineAt.Add(d.Settle)).Scan(&over)
		if err != nil {
			return "", err
		}
	}
	entries, err := mailserver.ReadLog(d.mails())
	if err != nil {
		return "", err
	}
	n := slices.IndexFunc(entries, func(e mailserver.Entry) bool { return e.Key == i.IdempotencyKey })
	var evidence any
	var why, line string
	switch {
	case n >= 0:
		verb, why = "happened", fmt.Sprintf("the mail server's log has its Message-ID, stored at %s", entries[n].At.Format(time.TimeOnly))
		evidence, line = map[string]any{"mail_log": entries[n]}, entries[n].String()
	case over:
		verb, why = "retry", "the mail server's log has no such Message-ID after deadline and settle time"
		evidence = map[string]any{"mail_log": nil, "mail_log_entries": len(entries)}
	default:
		return "", nil
	}
	raw, err := json.Marshal(evidence)
	if err != nil {
		return "", err
	}
	_, err = d.cli(ctx, verb, i.ID.String(), "--why", why, "--evidence", string(raw))
	var exit *exec.ExitError
	if errors.As(err, &exit) && (exit.ExitCode() == exitConflict || exit.ExitCode() == exitNotAllowed) {
		return "", nil // looked at again in a moment
	} else if err != nil {
		return "", err
	}
	d.settled = append(d.settled, verdict{i.ID, verb, line})
	return verb, nil
}

// Exit codes of the CLI that are no failure here.
const (
	exitNotAllowed = 4 // a retry that might do it twice: the worker is alive after all, and its handler still at it
	exitConflict   = 5 // the row has moved since it was looked at: its worker has told after all
)

func (d *director) isSettled(id intent.ID) bool {
	return slices.ContainsFunc(d.settled, func(v verdict) bool { return v.id == id })
}

// cli runs the writ program, as a person would, and returns what it says.
func (d *director) cli(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.writ, args...)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+d.url, "NO_COLOR=1")
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("writ %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return strings.TrimSpace(out.String()), nil
}
