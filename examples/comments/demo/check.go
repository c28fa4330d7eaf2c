package demo

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/writhq/writ/examples/comments/mailserver"
	"github.com/writhq/writ/intent"
)

// checker prints each finding and counts the false ones.
type checker struct {
	say    *printer
	failed int
}

func (c *checker) that(ok bool, format string, args ...any) {
	mark := c.say.paint(text.FgGreen, "✓")
	if !ok {
		c.failed++
		mark = c.say.paint(text.FgRed, "✗ FALSE:")
	}
	c.say.line(" " + mark + " " + fmt.Sprintf(format, args...))
}

// check compares what the application promised, what Writ says and what the mail server's log has.
func (d *director) check(ctx context.Context, intents map[intent.ID]intent.Intent) (failed int, err error) {
	log, err := mailserver.ReadLog(d.mails())
	if err != nil {
		return 0, err
	}
	mails := map[string][]mailserver.Entry{}
	for _, e := range log {
		mails[e.Key] = append(mails[e.Key], e)
	}
	c := &checker{say: d.say}
	d.checkMails(c, intents, mails, len(log))
	if err := d.checkRollback(ctx, c, len(intents)); err != nil {
		return 0, err
	}
	if err := d.checkVerdicts(ctx, c); err != nil {
		return 0, err
	}
	c.that(d.purged > 0 && d.requeued > 0, "broker emptied: %d messages lost, %d hints written again, no mail lost", d.purged, d.requeued)
	c.that(d.retried > 0, "451 to everybody: %d mails tried again and again, none lost or doubled", d.retried)
	err = d.checkRest(ctx, c)
	return c.failed, err
}

// checkMails: one mail for each committed comment, to the right address, and no other mail.
func (d *director) checkMails(c *checker, intents map[intent.ID]intent.Intent, mails map[string][]mailserver.Entry, n int) {
	committed, refused, wrong := 0, 0, 0
	for _, p := range d.postings {
		if p.Status != http.StatusCreated {
			continue
		}
		committed++
		i, there := intents[p.Intent]
		got := mails[i.IdempotencyKey]
		switch {
		case p.Post == postGone:
			refused++
			reply, _, _ := strings.Cut(deref(i.Error), ", affected") // the rest repeats whose it is
			c.that(there && i.Status == "error" && len(got) == 0, "the refused one is in error and has no mail: %s", reply)
		case !there || i.Status != "sent" || len(got) != 1 || got[0].To != d.posts[p.Post]:
			wrong++
			c.that(false, "comment %d, intent %s: %q with %d mails", p.ID, p.Intent, i.Status, len(got))
		}
	}
	c.that(wrong == 0 && n == committed-refused && n == len(mails), "%d comments committed, %d refused: %d mails, exactly one for each, by Message-ID",
		committed, refused, n)
}

// checkRollback: what was rolled back does not exist, and there is nothing that was not posted.
func (d *director) checkRollback(ctx context.Context, c *checker, intents int) error {
	spam, committed := 0, 0
	for _, p := range d.postings {
		switch p.Status {
		case http.StatusUnprocessableEntity:
			spam++
		case http.StatusCreated:
			committed++
		}
	}
	var comments, there int
	err := d.db.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE body LIKE '%casino.example%') FROM comments`).Scan(&comments, &there)
	c.that(spam == 1 && there == 0 && comments == committed && intents == committed,
		"the one rolled back does not exist: %d comments and %d intents for %d posts", comments, intents, len(d.postings))
	return err
}

// checkVerdicts: the mail whose worker was killed was ambiguous and was settled by a decision on record; so was all else
// that was ambiguous. All that is sent has its receipt.
func (d *director) checkVerdicts(ctx context.Context, c *checker) error {
	if !d.NoProbe {
		if err := d.checkProbe(ctx, c); err != nil {
			return err
		}
		return d.checkReceipts(ctx, c)
	}
	var flagged, decided, last int
	err := d.db.QueryRow(ctx, `SELECT
		(SELECT count(DISTINCT intent_id) FROM writ.log WHERE event = 'flagged'),
		(SELECT count(*) FROM writ.log WHERE event IN ('happened', 'retry') AND why <> '' AND actor <> '' AND evidence ? 'mail_log'),
		(SELECT count(*) FROM writ.log WHERE event = 'happened' AND intent_id = $1 AND evidence->'mail_log'->>'key' = $1::text)`, d.last).
		Scan(&flagged, &decided, &last)
	if err != nil {
		return err
	}
	happened, retried := 0, 0
	for _, v := range d.settled {
		if v.verb == "happened" {
			happened++
		} else {
			retried++
		}
	}
	c.that(last == 1, "worker killed: its last mail was ambiguous, found in the log, settled, and not sent again")
	c.that(decided == len(d.settled) && flagged >= decided, "%d ambiguous in all, %d had happened, %d had not and were retried; who, why and evidence on record",
		decided, happened, retried)
	return d.checkReceipts(ctx, c)
}

// checkReceipts: what is sent has the application's receipt, by the worker's own word or by a verdict. The latter comes a moment later.
func (d *director) checkReceipts(ctx context.Context, c *checker) error {
	var missing, extra int
	err := d.await(ctx, "the last receipts", func() (bool, string, error) {
		err := d.db.QueryRow(ctx, `SELECT count(*) FILTER (WHERE i.state = 'sent' AND c.notified_at IS NULL),
			count(*) FILTER (WHERE i.state <> 'sent' AND c.notified_at IS NOT NULL)
			FROM comments c JOIN writ.intents i ON i.subjects = ARRAY['comment:' || c.id]`).Scan(&missing, &extra)
		return missing == 0, fmt.Sprintf("%d missing", missing), err
	})
	c.that(err == nil && missing == 0 && extra == 0, "each mail that is sent has its receipt, and no other: %d missing, %d too many", missing, extra)
	return err
}

// checkRest: nothing is left under way.
func (d *director) checkRest(ctx context.Context, c *checker) error {
	var open, outbox, queued int
	err := d.await(ctx, "the last hints", func() (bool, string, error) {
		err := d.db.QueryRow(ctx, `SELECT (SELECT count(*) FROM writ.intents WHERE finished_at IS NULL), (SELECT count(*) FROM writ.outbox)`).
			Scan(&open, &outbox)
		if err == nil {
			queued, err = d.broker.ready()
		}
		return open == 0 && outbox == 0 && queued == 0, fmt.Sprintf("%d open, %d in the outbox, %d in the queue", open, outbox, queued), err
	})
	c.that(err == nil, "at rest: %d intents open, outbox %d, queue %d", open, outbox, queued)
	return err
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
