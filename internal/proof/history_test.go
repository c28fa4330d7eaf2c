package proof

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

type args struct{}

var job = intent.Kind[args]{Name: "proof.test.history"}

// TestHistory: what is committed is in the history, with how and when; what is rolled back is not. A person's word on a
// real row passes the check.
func TestHistory(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	SwitchOnHistory(t, db)
	SwitchOnHistory(t, db) // changes nothing
	ctx := context.Background()
	var kept, dropped intent.ID
	before := time.Now()
	var stated time.Time
	err := pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
			return err
		}
		c, err := job.Create(ctx, tx, args{}, intent.Opts{})
		kept = c.ID
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, "SELECT clock_timestamp() FROM pg_sleep(0.05)").Scan(&stated)
	})
	if err != nil {
		t.Fatal(err)
	}
	rolledBack := errors.New("rolled back")
	err = pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
		c, err := job.Create(ctx, tx, args{}, intent.Opts{})
		dropped = c.ID
		if err != nil {
			return err
		}
		return rolledBack
	})
	if !errors.Is(err, rolledBack) {
		t.Fatal(err)
	}
	if _, err := intent.Cancel(ctx, db, intent.Verdict{ID: kept, Seen: intent.Position{State: "pending"}, Actor: "ann", Why: "it is not needed"}); err != nil {
		t.Fatal(err)
	}

	e, err := Gather(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Changes) != 2 {
		t.Fatalf("changes %v; want the creation and the cancel", e.Changes)
	}
	created, cancelled := e.Changes[0], e.Changes[1]
	if created.ID != kept || created.Op != "INSERT" || created.Event != "requested" || created.Synchronous != "off" || !created.At.After(stated) || created.BeganAt.Before(before) || created.XID == 0 {
		t.Errorf("creation %+v, stated at %v", created, stated)
	}
	if cancelled.From != "pending" || cancelled.To != "cancelled" || cancelled.Event != "cancel" || cancelled.Synchronous != "on" || !cancelled.Named {
		t.Errorf("cancel %+v", cancelled)
	}
	Verify(t, db, func(e *Evidence) {
		e.Acks = []Ack{{ID: kept, Answer: Acknowledged}, {ID: dropped, Answer: Begun}, {ID: dropped, Answer: Refused}}
	})
	e.Acks = []Ack{{ID: kept, Answer: Acknowledged}, {ID: dropped, Answer: Acknowledged}}
	if r := Check(e); r.Lost != 1 || len(r.Violations) != 1 {
		t.Errorf("an acknowledged one that was rolled back: %s %v", r.Line(), r.Violations)
	}
}

// TestRest: what is left over is seen.
func TestRest(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	ctx := context.Background()
	err := pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
		_, err := job.Create(ctx, tx, args{}, intent.Opts{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, 'proof.none', 'manual')", job.Name)
	conn, err := pgx.Connect(ctx, db.URL+"&application_name=left-over")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rest, err := ReadRest(ctx, db, testkit.AMQPURL(t), "left-%")
	if err != nil {
		t.Fatal(err)
	}
	if rest.Outbox != 1 || len(rest.Queues) != 1 || len(rest.Connections) != 1 {
		t.Errorf("rest %+v; want a row in the outbox, a queue that is not there, and a connection", rest)
	}
}

func TestJournal(t *testing.T) {
	t.Parallel()
	j, path := NewJournal[Ack](t, "acks-1.jsonl")
	j.Write(Ack{Kind: "a", Answer: Begun}, Ack{Kind: "b", Answer: Begun})
	other, err := OpenJournal[Ack](path) // of another process
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.Write(Ack{Kind: "c", Answer: Begun})
	if _, err := j.file.WriteString(`{"kind": "torn`); err != nil {
		t.Fatal(err)
	}
	acks, err := ReadJournals[Ack](path)
	if err != nil || len(acks) != 3 || acks[2].Kind != "c" {
		t.Errorf("read %v, %v; want three, without the torn line", acks, err)
	}
	if _, err := j.file.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	j.Write(Ack{Kind: "d"})
	if _, err := ReadJournals[Ack](path); err == nil {
		t.Error("a torn line in the middle was taken")
	}
	if none, err := ReadJournals[Ack](path + "-none"); err != nil || none == nil || len(none) != 0 {
		t.Errorf("no journals: %v, %v; want none, and not nil", none, err)
	}
}
