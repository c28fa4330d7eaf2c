// Package mutants keeps the checks honest: a table of small wrongs done to the product's code, each of which some test
// must catch. «make mutants» builds each with an overlay, so that no file is touched, and demands that its test fails.
package mutants

// Mutant is one wrong.
type Mutant struct {
	Name  string
	Edits []Edit
	Catch Catch // what must fail with it, and passes without
}

// Edit replaces a text that stands exactly once in a file, Go or embedded SQL. Keep the texts short: they have to follow
// the code.
type Edit struct {
	File     string // from the module's root
	Old, New string
}

// Catch is a test.
type Catch struct {
	Package string // from the module's root
	Test    string // its name, with subtests as for -run
}

// The packages that catch.
const (
	here     = "./internal/proof/mutants"
	cells    = "./internal/proof/matrix"
	dispatch = "./dispatch"
	pool     = "./workers"
	broker   = "./internal/rabbit"

	statements = "./sql"
)

// Mutants is the table.
var Mutants = []Mutant{
	{
		Name: "publish before commit", // the hint is written by a transaction of its own, so it is seen before the creation commits
		Edits: []Edit{{
			File: "internal/store/create.go", Old: "	return len(created) == 1, err",
			New: `	if tx, ok := q.(interface{ Conn() *pgx.Conn }); ok && err == nil {
		aside, err := pgx.ConnectConfig(ctx, tx.Conn().Config())
		if err != nil {
			return false, err
		}
		defer aside.Close(ctx)
		const hint = "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, 0, 'run')"
		if _, err := aside.Exec(ctx, hint, r.Kind, r.ID); err != nil {
			return false, err
		}
	}
	return len(created) == 1, err`,
		}},
		Catch: Catch{here, "TestUncommitted"},
	},
	{
		Name: "delete before confirm", // a relay that dies in between loses the hint, and a refused one is gone
		Edits: []Edit{{
			File: "dispatch/publish.go", Old: "	sending, cancel := context.WithTimeout(ctx, holding)",
			New: "	var all []pgtype.TID\n	for _, row := range taken.Rows {\n		all = append(all, row.Ref)\n	}\n" +
				"	if err := taken.Finish(ctx, all, nil); err != nil {\n		return 0, err\n	}\n" +
				"	sending, cancel := context.WithTimeout(ctx, holding)",
		}},
		Catch: Catch{dispatch, "TestLostAnswer/before"},
	},
	{
		Name: "nack taken for ack",
		Edits: []Edit{{
			File: "internal/rabbit/publish.go", Old: "		if c.Acked() {",
			New: "		answered := false\n		select {\n		case <-c.Done():\n			answered = true\n		default:\n		}\n		if answered {",
		}},
		Catch: Catch{broker, "TestPublish_UnknownWhenRefused"},
	},
	{
		Name: "last-id relay", // never looks behind the newest row seen
		Edits: []Edit{
			{File: "dispatch/relay.go", Old: "	behind, err := s.take(ctx, distantPast, s.low)", New: "	behind, err := 0, error(nil)"},
			{File: "dispatch/relay.go", Old: "	s.low = distantPast //", New: "	//"},
		},
		Catch: Catch{dispatch, "TestOpenTransaction"},
	},
	{
		Name: "ack before claim",
		Edits: []Edit{
			{File: "workers/hints.go", Old: "	f := &frame{delivery: d, came: time.Now()}", New: "	_ = d.Ack()\n	f := &frame{delivery: d, came: time.Now()}"},
			{File: "workers/hints.go", Old: "		_ = h.frame.delivery.Ack()", New: ""},
		},
		Catch: Catch{here, "TestUnclaimedHint"},
	},
	{
		Name: "claim without epoch",
		Edits: []Edit{{
			File: "sql/statements/worker.sql", Old: "AND c.epoch = $2::int AND", New: "AND $2::int IS NOT NULL AND",
		}},
		Catch: Catch{here, "TestOldHint"},
	},
	{
		Name: "asynchronous claim",
		Edits: []Edit{{
			File: "sql/statements/session.sql", Old: "set_config('synchronous_commit', 'on', true)", New: "current_setting('synchronous_commit')",
		}},
		Catch: Catch{here, "TestClaim_isDurable"},
	},
	{
		Name: "safe points in any order", // progress goes back when an old statement comes late: a step is done twice
		Edits: []Edit{{
			File: "sql/statements/hold.sql",
			Old:  "\n      AND coalesce(i.progress -> 'epoch' <> to_jsonb(i.epoch) OR i.progress -> 'step' <= to_jsonb($4::int), true)", New: "",
		}},
		Catch: Catch{"./internal/store", "TestSafePointOrder"},
	},
	{
		Name: "no registry",
		Edits: []Edit{{
			File: "workers/slots.go", Old: "	if a, held := r.held[c]; held {", New: "	if a, held := r.held[c]; held && c.epoch < 0 {",
		}},
		Catch: Catch{here, "TestDoubledHint"},
	},
	{
		Name: "flagged row resumed",
		Edits: []Edit{{
			File: "sql/statements/worker.sql", Old: "AND i.worker_id = $3 AND i.flagged_at IS NULL;", New: "AND i.worker_id = $3;",
		}},
		Catch: Catch{here, "TestDoubledHint_afterUnknown"},
	},
	{
		Name: "refused is final", // the lost claim may still be executed when the reason of the refusal has passed
		Edits: []Edit{{
			File: "internal/store/claim.go", Old: "	if !got && open {", New: "	if !got && open && h.Epoch < 0 {",
		}},
		Catch: Catch{here, "TestClaimAgain_refused"},
	},
	{
		Name: "deadline from start",
		Edits: []Edit{{
			File: "workers/run.go", Old: "deadline: sent.Add(kind.Timeout)", New: "deadline: time.Now().Add(kind.Timeout)",
		}},
		Catch: Catch{here, "TestLateClaim"},
	},
	{
		Name: "retry on unknown",
		Edits: []Edit{{
			File: "workers/outcome.go", Old: "	case Idempotent:", New: "	case Idempotent, Manual:",
		}},
		Catch: Catch{pool, "TestJudge"},
	},
	{
		Name: "finish without epoch", // seen only where one worker holds two attempts of an intent
		Edits: []Edit{
			{File: "sql/statements/finish.sql", Old: "AND c.epoch = $2::int AND c.worker_id", New: "AND $2::int IS NOT NULL AND c.worker_id"},
			{
				File: "sql/statements/finish.sql", Old: "result)\nWHERE i.id = $1 AND (SELECT writ.check_adopted()) AND i.epoch = $2 AND i.worker_id = $3 AND i.state = 'sending'\nRETURNING i.id;",
				New: "result)\nWHERE i.id = $1 AND (SELECT writ.check_adopted()) AND $2::int IS NOT NULL AND i.worker_id = $3 AND i.state = 'sending'\nRETURNING i.id;",
			},
		},
		Catch: Catch{here, "TestTwoSlots"},
	},
	{
		Name: "late finish overwrites a verdict",
		Edits: []Edit{
			{
				File: "sql/statements/finish.sql", Old: "AND c.epoch = $2::int AND c.worker_id = $3 AND c.state = 'sending'",
				New: "AND $2::int IS NOT NULL AND $3::uuid IS NOT NULL",
			},
			{
				File: "sql/statements/finish.sql", Old: "result)\nWHERE i.id = $1 AND (SELECT writ.check_adopted()) AND i.epoch = $2 AND i.worker_id = $3 AND i.state = 'sending'\nRETURNING i.id;",
				New: "result)\nWHERE i.id = $1 AND (SELECT writ.check_adopted()) AND $2::int IS NOT NULL AND $3::uuid IS NOT NULL\nRETURNING i.id;",
			},
		},
		Catch: Catch{pool, "TestVerdictFirst"},
	},
	{
		Name: "another attempt's success taken for one's own",
		Edits: []Edit{{
			File: "sql/statements/finish.sql", Old: "AND epoch = $2::int AND worker_id = $3 AND state = 'sent'",
			New: "AND $2::int IS NOT NULL AND $3::uuid IS NOT NULL AND state = 'sent'",
		}},
		Catch: Catch{"./internal/store", "TestFinishBatch_again"},
	},
	{
		Name: "unguarded flag: worker",
		Edits: []Edit{{
			File: "sql/statements/reconcile.sql", Old: "      AND (w.id IS NULL OR greatest(", New: "      AND (true OR greatest(",
		}},
		Catch: Catch{here, "TestSettleOrphan_guard"},
	},
	{
		Name: "unguarded flag: epoch",
		Edits: []Edit{{
			File: "sql/statements/reconcile.sql", Old: "    WHERE i.id = $1 AND i.epoch = $2 AND i.state = 'sending' AND i.flagged_at",
			New: "    WHERE i.id = $1 AND $2::int IS NOT NULL AND i.state = 'sending' AND i.flagged_at",
		}},
		Catch: Catch{here, "TestSettleOrphan_guard"},
	},
	{
		Name: "probe believed too early", // what is not there yet may land until deadline + settle
		Edits: []Edit{{
			File: "sql/probe.sql", Old: "    ELSIF asked_at <= settled OR rest > interval '0' THEN", New: "    ELSIF false THEN",
		}},
		Catch: Catch{pool, "TestProbe_notDone"},
	},
	{
		Name: "probe's answer counted twice", // after the answer of its commit was lost
		Edits: []Edit{{
			File: "sql/probe.sql", Old: "    IF i.probe_at IS DISTINCT FROM asking THEN", New: "    IF false THEN",
		}},
		Catch: Catch{pool, "TestProbe_lostAnswers/answer/unknown"},
	},
	{
		Name: "probe against a person", // its verdict is not held to the epoch that it was asked about
		Edits: []Edit{{
			File: "sql/probe.sql", Old: "    IF i.state <> 'sending' OR i.epoch <> seen_epoch OR", New: "    IF i.state IS NULL AND i.epoch <> seen_epoch AND",
		}},
		Catch: Catch{pool, "TestProbe_person"},
	},
	{
		Name: "late report overwrites a verdict", // it was done, so it is sent, whatever a person has decided
		Edits: []Edit{{
			File: "sql/statements/finish.sql", Old: "), report AS (",
			New: "), word AS (\n    UPDATE writ.intents SET state = 'sent' WHERE id = $1 AND state = 'error' AND $4::text = 'succeeded'\n), report AS (",
		}},
		Catch: Catch{cells, "TestMatrix/late-report/commit-cut/it-contradicts"},
	},
	{
		Name: "late report not kept",
		Edits: []Edit{{
			File: "sql/statements/finish.sql", Old: "    WHERE NOT EXISTS (SELECT FROM applied) AND NOT EXISTS (", New: "    WHERE false AND NOT EXISTS (",
		}},
		Catch: Catch{cells, "TestMatrix/late-report/commit-cut/it-confirms"},
	},
	{
		Name: "late report told twice", // after the answer of its commit was lost
		Edits: []Edit{{
			File: "sql/statements/finish.sql", Old: "AND l.worker_id = $3 AND l.event = 'late-report'", New: "AND l.worker_id = $3 AND false",
		}},
		Catch: Catch{cells, "TestMatrix/late-report/commit-answer-lost/it-confirms"},
	},
	{
		Name: "bulk beyond its plan",
		Edits: []Edit{{
			File: "sql/bulk.sql", Old: "WHERE t.bulk_id = b.id AND t.at IS NULL", New: "WHERE t.at IS NULL",
		}},
		Catch: Catch{cells, "TestMatrix/bulk/commit-cut/in-the-middle"},
	},
	{
		Name: "bulk on what stands now", // not on what was seen when it was planned
		Edits: []Edit{{
			File: "sql/bulk.sql", Old: "target, r.state, r.epoch,",
			New: "target, (SELECT i.state FROM writ.intents i WHERE i.id = r.intent_id), (SELECT i.epoch FROM writ.intents i WHERE i.id = r.intent_id),",
		}},
		Catch: Catch{cells, "TestMatrix/bulk/commit-answer-lost/in-the-middle"},
	},
	{
		Name: "bulk ignores its abort", // a runner that has not heard of it decides on
		Edits: []Edit{{
			File: "sql/bulk.sql", Old: "OR b.aborted_at IS NOT NULL OR b.next_at", New: "OR b.next_at",
		}},
		Catch: Catch{cells, "TestMatrix/bulk/commit-cut/the-abort"},
	},
	{
		Name: "quarantine leaves pending rows", // though they may have been run in what is lost
		Edits: []Edit{{
			File: "sql/quarantine.sql", Old: "            i.state = 'sending' OR i.run_at <= now() OR EXISTS (", New: "            i.state = 'sending' OR EXISTS (",
		}},
		Catch: Catch{cells, "TestMatrix/quarantine/commit-cut/its-end"},
	},
	{
		Name: "quarantine leaves what was handed back", // by a worker of before, since the restore
		Edits: []Edit{{
			File: "sql/quarantine.sql", Old: " AND l.at >= since) AS doubtful", New: " AND false) AS doubtful",
		}},
		Catch: Catch{cells, "TestMatrix/quarantine/commit-answer-lost/handed-back-before-it"},
	},
	{
		Name: "quarantine leaves epochs", // what is run again gets an epoch that was used in what is lost
		Edits: []Edit{{
			File: "sql/quarantine.sql", Old: "SET epoch = i.epoch + 1000, worker_id = NULL, requeues = 0", New: "SET worker_id = NULL, requeues = 0",
		}},
		Catch: Catch{cells, "TestMatrix/quarantine/commit-cut/after-a-restore"},
	},
	{
		Name: "quarantine leaves deadlines", // so nobody waits for an attempt that was begun in what is lost
		Edits: []Edit{{
			File: "sql/quarantine.sql", Old: "deadline_at = greatest(i.deadline_at, now() + w.timeout)", New: "deadline_at = i.deadline_at",
		}},
		Catch: Catch{cells, "TestMatrix/quarantine/commit-cut/a-verdict-in-it"},
	},
	{
		Name: "copy taken for the original", // within a cluster, as when a backup is put in the place of a database
		Edits: []Edit{
			{File: "sql/identity.sql", Old: "(SELECT oid FROM pg_database WHERE datname = current_database()))", New: "'0')"},
			{
				File: "sql/identity.sql", Old: "split_part(fingerprint, '/', 3) = split_part(pg_relation_filepath('writ.settings'), '/', -2)\n    FROM",
				New: "split_part(fingerprint, '/', 3) = '0'\n    FROM",
			},
			{
				File: "sql/identity.sql", Old: "split_part(fingerprint, '/', 3) = split_part(pg_relation_filepath('writ.settings'), '/', -2)) THEN",
				New: "split_part(fingerprint, '/', 3) = '0') THEN",
			},
		},
		Catch: Catch{cells, "TestMatrix/quarantine/commit-cut/after-a-restore"},
	},
	{
		Name: "event without a note", // what the broker repeats is taken again
		Edits: []Edit{{
			File: "sql/statements/events.sql", Old: "ON CONFLICT DO NOTHING\nRETURNING subscription, source, event_id;",
			New: "ON CONFLICT (subscription, source, event_id) DO UPDATE SET settled_at = clock_timestamp()\nRETURNING subscription, source, event_id;",
		}},
		Catch: Catch{pool, "TestSubscribe_repeats"},
	},
	{
		Name: "event acked before it is taken",
		Edits: []Edit{{
			File: "workers/subscriber.go", Old: "			s.lines[d.Queue].put(", New: "			_ = d.Ack()\n			s.lines[d.Queue].put(",
		}},
		Catch: Catch{cells, "TestMatrix/subscribe/sigkill/before-COMMIT"},
	},
	{
		Name: "failed event taken twice", // by two workers, or after the answer of a commit was lost
		Edits: []Edit{{
			File: "sql/statements/events.sql", Old: "AND failures = $4 AND due_at IS NOT NULL", New: "AND failures >= $4",
		}},
		Catch: Catch{statements, "TestRole_worker"},
	},
	{
		Name: "event before commit", // what is rolled back is told all the same
		Edits: []Edit{{
			File: "internal/store/events.go", Old: "	rows, err := q.Query(ctx, writsql.Statement(\"Publish\"),",
			New: `	if tx, ok := q.(interface{ Conn() *pgx.Conn }); ok {
		aside, err := pgx.ConnectConfig(ctx, tx.Conn().Config())
		if err != nil {
			return id, err
		}
		defer aside.Close(ctx)
		q = aside
	}
	rows, err := q.Query(ctx, writsql.Statement("Publish"),`,
		}},
		Catch: Catch{pool, "TestSubscribe"},
	},
	{
		Name: "unknown kind dropped", // and not left to a newer worker
		Edits: []Edit{{
			File: "workers/claim.go", Old: "newer = append(newer, h)", New: "c.settle(h, \"moot\")",
		}},
		Catch: Catch{pool, "TestRolling_unknownKind"},
	},
	{
		Name: "all that is left comes at once", // so that a backlog of it spins
		Edits: []Edit{{
			File: "workers/newer.go", Old: "	return l.next.Sub(now) + backoff.Jitter(leaveFor)", New: "	return backoff.Jitter(leaveFor)",
		}},
		Catch: Catch{pool, "TestRolling_newerArgs"},
	},
	{
		Name: "probe of newer arguments counted", // as one that cannot tell
		Edits: []Edit{{
			File: "workers/prober.go", Old: "ok && left.newer {", New: "ok && left == nil {",
		}},
		Catch: Catch{pool, "TestRolling_probe"},
	},
	{
		Name: "many tried at once", // a breaker that is half-open lets all through
		Edits: []Edit{{
			File: "workers/breaker.go", Old: "		b.tried = true\n", New: "",
		}},
		Catch: Catch{pool, "TestBreaker_cut"},
	},
	{
		Name: "tried by everybody", // whoever asks has the lease
		Edits: []Edit{{
			File: "sql/flow.sql", Old: "b.state = 'half-open' AND b.lease_until < clock_timestamp()) THEN", New: "b.state = 'half-open') THEN",
		}},
		Catch: Catch{statements, "TestBreaker_many"},
	},
	{
		Name: "tokens given out twice", // what one process has leased is there for the next
		Edits: []Edit{{
			File: "sql/limits.sql", Old: "UPDATE writ.tokens t SET next_at = tail WHERE", New: "UPDATE writ.tokens t SET next_at = t.next_at WHERE",
		}},
		Catch: Catch{statements, "TestTokens"},
	},
	{
		Name: "others' places not counted",
		Edits: []Edit{{
			File: "sql/limits.sql", Old: "l.running - theirs.held - uses[n]", New: "l.running - uses[n]",
		}},
		Catch: Catch{statements, "TestPlacesAtOnce"},
	},
	{
		Name: "limit fails open", // claims do not wait for tokens
		Edits: []Edit{{
			File: "workers/share.go", Old: "	got = min(got, n)\n", New: "	got = n\n",
		}},
		Catch: Catch{pool, "TestLimit_failsClosed"},
	},
	{
		Name: "class as declared now", // an attempt of a worker to whom its kind was not idempotent is repeated by itself
		Edits: []Edit{{
			File: "sql/statements/reconcile.sql", Old: "CASE WHEN k.class = 'idempotent' THEN coalesce(w.classes[array_position(w.kinds, i.kind)], k.class)", New: "CASE WHEN k.class = 'idempotent' THEN k.class",
		}},
		Catch: Catch{pool, "TestRolling_redeclaredIdempotent"},
	},
	{
		Name: "what happened is not told", // to the code that has a share in it
		Edits: []Edit{{
			File: "sql/guard.sql", Old: "        OR verb = 'happened' AND EXISTS (SELECT FROM writ.kinds WHERE name = NEW.kind AND completes) THEN", New: "        THEN",
		}},
		Catch: Catch{pool, "TestOnHappened"},
	},
}
