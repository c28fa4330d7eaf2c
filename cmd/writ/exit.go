package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

// What the process says to the shell.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitNotAllowed  = 4
	exitConflict    = 5
	exitPartly      = 6
	exitFindings    = 7
	exitInterrupted = 130
)

// exitError is an error that carries the process's exit code. Err is nil if there is nothing to print, as when a
// command run by `writ dev exec` failed and has said so itself.
type exitError struct {
	Code int
	Err  error
}

func (e *exitError) Error() string {
	if e.Err == nil {
		return "exit code " + strconv.Itoa(e.Code)
	}
	return e.Err.Error()
}

func (e *exitError) Unwrap() error { return e.Err }

// usage is an error in how the command was called.
func usage(format string, args ...any) error {
	return &exitError{Code: exitUsage, Err: fmt.Errorf(format, args...)}
}

func exitCode(err error) int {
	var exit *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.Code
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, intent.ErrInvalid):
		return exitUsage
	case errors.Is(err, intent.ErrNotFound):
		return exitNotFound
	case errors.Is(err, intent.ErrIllegal), errors.Is(err, intent.ErrNeedsOverride), isDenied(err):
		return exitNotAllowed
	case errors.Is(err, intent.ErrConflict):
		return exitConflict
	}
	return exitFailure
}

// isDenied reports whether the server refused for want of a privilege.
func isDenied(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "42501"
}

// isUnknown reports whether a commit may have happened although an error came back.
func isUnknown(err error) bool {
	var connect *pgconn.ConnectError
	return store.Unknown(err) && !errors.As(err, &connect) && exitCode(err) == exitFailure
}

// complain prints an error: what went wrong, and what to do about it.
func (a *app) complain(err error, code int) {
	var exit *exitError
	if err == nil || errors.As(err, &exit) && exit.Err == nil {
		return
	}
	if code == exitInterrupted {
		_, _ = fmt.Fprintln(a.stderr, "writ: interrupted")
		return
	}
	_, _ = fmt.Fprintln(a.stderr, "writ: "+a.describe(err))
	if advice := advise(err); advice != "" {
		_, _ = fmt.Fprintln(a.stderr, "      "+advice)
	}
}

// describe is an error's text as it may be shown: without secrets, without control characters, and with the package's
// name once, however many layers said it.
func (a *app) describe(err error) string {
	var lines []string
	for line := range strings.Lines(err.Error()) {
		line = clean(a.scrub(line))
		line = strings.ReplaceAll(strings.TrimPrefix(line, "writ: "), ": writ: ", ": ")
		if line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n      ")
}

func advise(err error) string {
	var conflict *intent.ConflictError
	var connect *pgconn.ConnectError
	_, refused := store.Code(err)
	switch {
	case isDenied(err):
		return "this database user may not do that; ask the owner for a role: GRANT writ_viewer (look), writ_operator (decide) or writ_relay (run)"
	case errors.As(err, &conflict):
		if conflict.Got.Flagged {
			return "it is ambiguous now; nothing was changed"
		}
		return "nothing was changed"
	case errors.Is(err, intent.ErrNeedsOverride):
		return "nothing was changed; wait, or add --override TEXT saying how you know that it cannot land any more"
	case errors.Is(err, intent.ErrNotFound):
		return "an intent past its retention is gone with its log; writ list shows the newest"
	case errors.As(err, &connect) && refused:
		return "the server is up, but refuses this user or database; correct DATABASE_URL"
	case errors.As(err, &connect):
		return "is the server up, and is DATABASE_URL right? writ dev up starts one for development"
	}
	return ""
}

// explain gives a missing schema its name, for the few statements that this command runs itself; other faults of the
// server keep theirs, and its refusals of an input are the package intent's.
func explain(err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == store.CodeInvalid {
		return &exitError{Code: exitUsage, Err: errors.New(pgErr.Message)}
	}
	return store.Explain(err)
}
