package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

func (a *app) getCommand() *cobra.Command {
	return a.lookCommand("get", "Show one intent: where it stands, why, and its arguments", a.get)
}

func (a *app) get(ctx context.Context, pool *pgxpool.Pool, id intent.ID) error {
	i, err := intent.Get(ctx, pool, id)
	if err != nil {
		return err
	}
	why, err := intent.Why(ctx, pool, id)
	if err != nil {
		return err
	}
	notes, err := notesOf(ctx, pool, id)
	if err != nil {
		return err
	}
	if a.isJSON() {
		return a.emit(struct {
			intent.Intent
			Why   string         `json:"why"`
			Notes []intent.Entry `json:"notes"`
		}{i, why, notes})
	}
	return a.columns(append(a.card(i, why, now(ctx, pool)), noteLines(notes)...))
}

// notesOf are the notes that people left on an intent, in order.
func notesOf(ctx context.Context, pool *pgxpool.Pool, id intent.ID) ([]intent.Entry, error) {
	entries, err := intent.Timeline(ctx, pool, id)
	if err != nil {
		return nil, err
	}
	notes := []intent.Entry{}
	for _, e := range entries {
		if e.Event == "note" {
			notes = append(notes, e)
		}
	}
	return notes, nil
}

func noteLines(notes []intent.Entry) [][2]string {
	var lines [][2]string
	for _, n := range notes {
		lines = append(lines, [2]string{"note", fmt.Sprintf("%s, %s: %s", clock(n.At), clean(n.Actor), clean(n.Why))})
	}
	return lines
}

// card is an intent as a list of labels and values, the most telling first.
func (a *app) card(i intent.Intent, why string, at time.Time) [][2]string {
	moment := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return when(*t, at)
	}
	flagged, parent, worker := "", "", workerOf(i)
	if i.FlaggedAt != nil {
		flagged = joined(when(*i.FlaggedAt, at), said(i.FlagReason))
	}
	if i.ParentID != nil {
		parent = i.ParentID.String()
	}
	if i.HeartbeatAt != nil {
		alive := "dead"
		if i.WorkerAlive {
			alive = "alive"
		}
		worker += fmt.Sprintf(" (%s, last heartbeat %s ago)", alive, span(at.Sub(*i.HeartbeatAt)))
	}
	return [][2]string{
		{"id", i.ID.String()},
		{"kind", clean(i.Kind) + " (" + i.Class + ")"},
		{"status", a.paint(i.Status)},
		{"why", clean(why)},
		{"state", fmt.Sprintf("%s, epoch %d", i.State, i.Epoch)},
		{"attempt", fmt.Sprintf("%d of %d", i.Attempt, i.MaxAttempts)},
		{"key", i.IdempotencyKey},
		{"requested", when(i.RequestedAt, at)},
		{"run at", when(i.RunAt, at)},
		{"started", moment(i.StartedAt)},
		{"deadline", moment(i.DeadlineAt)},
		{"flagged", flagged},
		{"finished", moment(i.FinishedAt)},
		{"worker", worker},
		{"subjects", subjectsOf(i)},
		{"tid", i.TID.String()},
		{"parent", parent},
		{"error", said(i.Error)},
		{"args", indented(i.Args)},
		{"meta", indented(i.Meta)},
		{"progress", indented(i.Progress)},
		{"result", indented(i.Result)},
	}
}

// indented is JSON from outside as a person reads it.
func indented(raw json.RawMessage) string {
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return clean(string(raw))
	}
	return strings.ReplaceAll(string(escapeControls(b.Bytes())), "\t", " ")
}
