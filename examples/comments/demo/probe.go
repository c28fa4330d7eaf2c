package demo

import (
	"context"
)

// tellProbe shows what the probe did while nobody was called.
func (d *director) tellProbe(ctx context.Context) error {
	happened, retried, err := d.probed(ctx)
	if err != nil {
		return err
	}
	d.say.step("flagged ambiguous by the reconciler; the kind's probe looked for the Message-IDs in the mail server's log:")
	d.say.step("%d were in it and count as sent; %d were not, after deadline + settle, and were tried again; nobody was called", happened, retried)
	why, err := d.cli(ctx, "why", d.last.String())
	if err != nil {
		return err
	}
	d.say.quote("writ why "+short(d.last), why)
	return nil
}

// probed is how many verdicts the probe gave.
func (d *director) probed(ctx context.Context) (happened, retried int, err error) {
	err = d.db.QueryRow(ctx, `SELECT count(*) FILTER (WHERE event = 'happened'), count(*) FILTER (WHERE event = 'retry')
		FROM writ.log WHERE actor = 'probe' AND evidence->'probe' ? 'message_id'`).Scan(&happened, &retried)
	return happened, retried, err
}

// checkProbe: the mail whose worker was killed was ambiguous and settled by the probe, and so was all else that was ambiguous:
// no row was left for a person.
func (d *director) checkProbe(ctx context.Context, c *checker) error {
	happened, retried, err := d.probed(ctx)
	if err != nil {
		return err
	}
	var flagged, last, persons int
	err = d.db.QueryRow(ctx, `SELECT (SELECT count(*) FROM writ.log WHERE event = 'flagged'),
		(SELECT count(*) FROM writ.log WHERE event = 'happened' AND actor = 'probe' AND intent_id = $1 AND evidence->'probe'->>'message_id' = $1::text),
		(SELECT count(*) FROM writ.log WHERE event IN ('happened', 'retry', 'give-up', 'cancel') AND actor <> 'probe')`, d.last).
		Scan(&flagged, &last, &persons)
	c.that(last == 1, "worker killed: its last mail was ambiguous, found in the log by the probe, settled, and not sent again")
	c.that(persons == 0 && flagged >= happened+retried && happened > 0, "no row for a person: %d ambiguous in all, %d had happened, %d had not and were retried; each with its evidence on record",
		happened+retried, happened, retried)
	return err
}
