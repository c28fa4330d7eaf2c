package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
)

// Comment is what a reader writes under a post.
type Comment struct {
	ID     int64     `json:"id,omitempty"`
	Post   int64     `json:"post"`
	Author string    `json:"author"`
	Text   string    `json:"text"`
	Intent intent.ID `json:"intent,omitzero"` // the mail to the post's author
}

// App is the web application: it stores comments. It knows neither the broker nor the mail server.
type App struct {
	db  *pgxpool.Pool
	log *slog.Logger
}

// Handler serves POST /comments and GET /comments/{id}.
func (a *App) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /comments", a.post)
	mux.HandleFunc("GET /comments/{id}", a.show)
	return http.NewCrossOriginProtection().Handler(mux)
}

// Add stores a comment and the intent to mail it in one transaction: both exist when it commits, and neither does when
// it is rolled back, for whatever reason. It returns both ids.
func (a *App) Add(ctx context.Context, c Comment) (Comment, error) {
	err := pgx.BeginFunc(ctx, a.db, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `INSERT INTO comments (post_id, author, body) VALUES ($1, $2, $3) RETURNING id`,
			c.Post, c.Author, c.Text).Scan(&c.ID)
		if err != nil {
			return err
		}
		created, err := Notify.Create(ctx, tx, NotifyArgs{CommentID: c.ID}, intent.Opts{Subjects: []string{subject(c.ID)}})
		if err != nil {
			return err
		}
		c.Intent = created.ID
		return moderate(c) // late on purpose: a refusal takes back the comment and its intent
	})
	if err != nil {
		return Comment{}, err
	}
	return c, nil
}

var errSpam = errors.New("the comment looks like spam")

func moderate(c Comment) error {
	if strings.Contains(c.Text, "casino.example") {
		return errSpam
	}
	return nil
}

// subject relates a comment's intents to it, so that they are found by it.
func subject(comment int64) string { return fmt.Sprintf("comment:%d", comment) }

func (a *App) post(w http.ResponseWriter, r *http.Request) {
	var c Comment
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&c); err != nil {
		http.Error(w, "not a comment: "+err.Error(), http.StatusBadRequest)
		return
	}
	stored, err := a.Add(r.Context(), c)
	var pgErr *pgconn.PgError
	switch {
	case errors.Is(err, errSpam):
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	case errors.As(err, &pgErr) && pgErr.Code == "23503": // foreign_key_violation
		http.Error(w, "there is no such post", http.StatusNotFound)
	case err != nil:
		a.log.Error("cannot store a comment", "error", err)
		http.Error(w, "cannot store the comment", http.StatusInternalServerError)
	default:
		a.reply(w, http.StatusCreated, stored)
	}
}

// show answers what a support person asks: was its author told, and if not, why not?
func (a *App) show(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		http.Error(w, "the id of a comment is a number", http.StatusBadRequest)
		return
	}
	mails, err := intent.List(r.Context(), a.db, intent.Filter{Kind: Notify.Name, Subject: subject(id), Limit: 1})
	if err == nil && len(mails) == 0 {
		http.Error(w, "there is no such comment", http.StatusNotFound)
		return
	}
	var why string
	if err == nil {
		why, err = intent.Why(r.Context(), a.db, mails[0].ID)
	}
	if err != nil {
		a.log.Error("cannot read a comment", "id", id, "error", err)
		http.Error(w, "cannot read the comment", http.StatusInternalServerError)
		return
	}
	a.reply(w, http.StatusOK, map[string]any{"id": id, "intent": mails[0].ID, "mail": mails[0].Status, "why": why})
}

func (a *App) reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		a.log.Info("the client went away", "error", err)
	}
}
