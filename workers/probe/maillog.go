package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/workers"
)

// MailLogConfig is a mail server's log, in which the Message-IDs of the mails stand that it took.
type MailLogConfig[T any] struct {
	// Path of the log that the server writes now. Required.
	Path string

	// Rotated is a glob of its older files, packed ones (.gz) too. Default: Path + ".*". Files numbered .1, .2, … must be there
	// without a gap to be believed.
	Rotated string

	// MessageID that the attempt's mail has, without < and >. Default: the idempotency key. Compared as a whole, or, if it has
	// no @, with the part before the @.
	MessageID func(a *workers.Attempt[T]) string

	// Line reads a line of the log. Default: Postfix(). A function is used by one probe only, and never concurrently. It must
	// recognise the lines of the server: if it does not, the probe can tell nothing.
	Line func(line string) Line

	// Wake makes the server write a line now, as most do for a connection: see Greet. It is called when nothing was found and
	// the log stands still: only a line of the server that was written after the asking began shows that what came before it is all there.
	// Default: nobody is woken, so on a quiet server the probe can tell nothing but done.
	Wake func(ctx context.Context) error

	// Patience is how long such a line is waited for. Default 3 s; it should be well below Probing.Timeout.
	Patience time.Duration

	// Skew is how far the clock of the log may be off the database's. Default 5 s; negative: none.
	Skew time.Duration

	// Keep is how far back the Message-IDs of the log are remembered, in memory. An attempt that was begun before is CannotTell
	// if its mail is not found. Default 24 h.
	Keep time.Duration
}

// Line is what a line of a mail server's log says.
type Line struct {
	At        time.Time // when it was written; zero: the line does not say
	MessageID string    // of a mail, without < and >; empty: the line is about none
	Taken     bool      // the server took that mail; else it has only seen it
	Server    bool      // the mail server wrote it, and no other program that shares the log. One with a MessageID always counts
	Lost      bool      // the logger says that it drops lines, or has lost some
}

// MailLog returns a probe that looks for the attempt's Message-ID in a mail server's log. It reads each byte once, also over
// rotations, by this process' memory. Not done it says only if the log surely covers the attempt: it goes back to before the
// attempt began, without a gap, and the server has written to it since the probe began. The handler must have handed its mail
// to this very server, and all that the server logs must get there: switch the logger's rate limits off for it (journald:
// LogRateLimitIntervalSec=0; rsyslog: ratelimit.interval of imuxsock and imjournal), for what they drop is noticed only
// if the log itself says so; and rotate by renaming. A copytruncate may lose lines: one that is seen makes the probe unable to
// tell of attempts before it, but one from before this process was started cannot be seen.
func MailLog[T any](cfg MailLogConfig[T]) (workers.Probe[T], error) {
	if cfg.Path == "" {
		return nil, errors.New("probe: MailLogConfig needs Path")
	}
	if cfg.Rotated == "" {
		cfg.Rotated = cfg.Path + ".*"
	}
	if cfg.MessageID == nil {
		cfg.MessageID = func(a *workers.Attempt[T]) string { return a.Key }
	}
	if cfg.Line == nil {
		cfg.Line = Postfix()
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 3 * time.Second
	}
	switch {
	case cfg.Skew == 0:
		cfg.Skew = 5 * time.Second
	case cfg.Skew < 0:
		cfg.Skew = 0
	}
	if cfg.Keep <= 0 {
		cfg.Keep = 24 * time.Hour
	}
	m := &mailLog[T]{cfg: cfg, log: newLogReader(cfg.Path, cfg.Rotated, cfg.Line, cfg.Keep)}
	return m.ask, nil
}

type mailLog[T any] struct {
	cfg MailLogConfig[T]
	log *logReader
}

func (m *mailLog[T]) ask(ctx context.Context, a *workers.Attempt[T]) (workers.Answer, error) {
	id := m.cfg.MessageID(a)
	if id == "" {
		return workers.Answer{}, errors.New("there is no Message-ID to look for")
	}
	seen, err := m.log.look(id)
	if err != nil {
		return workers.Answer{}, err
	}
	if answer, ok := m.found(id, seen); ok {
		return answer, nil
	}
	// Not there up to the end of the log. What happened before the asking is in it, if a line that follows is newer.
	if seen, err = m.awaitLine(ctx, id, seen.lines); err != nil {
		return workers.Answer{}, err
	}
	if answer, ok := m.found(id, seen); ok {
		return answer, nil
	}
	evidence := map[string]any{"log": m.cfg.Path, "message_id": id, "covers_from": seen.from, "lines": seen.lines}
	if seen.from.IsZero() || seen.from.Add(m.cfg.Skew).After(a.StartedAt) {
		return workers.Answer{Why: fmt.Sprintf("Message-ID %s is not in the log, but that does not surely reach back to the beginning of the attempt", id), Evidence: evidence}, nil
	}
	return workers.Answer{
		Finding: workers.WasNotDone, Why: fmt.Sprintf("Message-ID %s is not in the log, which covers all of the attempt", id), Evidence: evidence,
	}, nil
}

// found answers if the log has the Message-ID.
func (m *mailLog[T]) found(id string, seen sighting) (workers.Answer, bool) {
	if seen.hit == nil {
		return workers.Answer{}, false
	}
	evidence := map[string]any{"log": m.cfg.Path, "message_id": id, "line": seen.hit.line, "at": seen.hit.at}
	if !seen.hit.taken {
		return workers.Answer{Why: fmt.Sprintf("the log has seen Message-ID %s, and does not say that the server took that mail", id), Evidence: evidence}, true
	}
	return workers.Answer{Finding: workers.WasDone, Why: fmt.Sprintf("the log has Message-ID %s, taken at %s", id, seen.hit.at.UTC().Format(time.RFC3339)), Evidence: evidence}, true
}

// awaitLine waits until the log has more lines of the server than it had.
func (m *mailLog[T]) awaitLine(ctx context.Context, id string, lines int64) (sighting, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Patience)
	defer cancel()
	if m.cfg.Wake != nil {
		if err := m.cfg.Wake(ctx); err != nil {
			return sighting{}, fmt.Errorf("wake the mail server: %w", err)
		}
	}
	pause := backoff.New(10*time.Millisecond, 200*time.Millisecond)
	for {
		seen, err := m.log.look(id)
		if err != nil || seen.lines > lines {
			return seen, err
		}
		if !pause.Wait(ctx) {
			return seen, fmt.Errorf("the log %s stands still: its server wrote nothing since the probe began, so what is missing in it may only be late", m.cfg.Path)
		}
	}
}
