-- Outcomes, written by the worker that holds the claim. The guard is the same everywhere: id, epoch, worker, sending. A flag
-- does not void it: late truth counts until a verdict has moved the epoch. A row that a statement does not write was
-- refused, or had been written before its answer was lost; LateReport tells which. A copy that nobody adopted takes none of them
-- (check_adopted raises).

-- name: FinishSent
-- One epoch; SKIP LOCKED as in Claim. $1 is sorted. By the index and not by where the claim left the rows, because only
-- that prunes the page: the version before the claim makes room for the finished one, and the table stays half as large.
UPDATE writ.intents i SET state = 'sent', event = 'succeeded', finished_at = now(), flagged_at = NULL, flag_reason = NULL, probe_at = NULL
WHERE i.ctid = ANY (ARRAY(
    SELECT c.ctid FROM writ.intents c WHERE c.id = ANY ($1::uuid[]) AND c.epoch = $2::int AND c.worker_id = $3 AND c.state = 'sending'
      AND (SELECT writ.check_adopted())
    FOR NO KEY UPDATE SKIP LOCKED));

-- name: StandSent
-- Those of $1 that stand as FinishSent leaves them, asked where it wrote fewer. Nothing but that attempt's own outcome leaves one so.
SELECT id FROM writ.intents WHERE id = ANY ($1::uuid[]) AND epoch = $2::int AND worker_id = $3 AND state = 'sent' AND event = 'succeeded';

-- name: FinishSentWaiting
UPDATE writ.intents i SET state = 'sent', event = 'succeeded', finished_at = now(), flagged_at = NULL, flag_reason = NULL, probe_at = NULL,
    result = coalesce($4::jsonb, i.result)
WHERE i.id = $1 AND (SELECT writ.check_adopted()) AND i.epoch = $2 AND i.worker_id = $3 AND i.state = 'sending'
RETURNING i.id;

-- name: FinishRetried
-- Surely not done ($6 = 1 attempt spent), or never begun or snoozed ($6 = 0).
WITH u AS (
    UPDATE writ.intents i SET state = 'pending', event = 'retried', attempt = i.attempt - 1 + $6::int, run_at = now() + $4::interval,
        error = coalesce($5::text, i.error), requeues = 0, flagged_at = NULL, flag_reason = NULL, probe_at = NULL
    WHERE i.id = $1 AND (SELECT writ.check_adopted()) AND i.epoch = $2 AND i.worker_id = $3 AND i.state = 'sending'
    RETURNING i.id, i.kind, i.epoch, i.attempt, i.run_at, i.waiting_on, i.started_at, i.attempt + 1 - $6::int AS begun
), o AS (
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT run_at, kind, id, epoch, 'run' FROM u WHERE waiting_on = 0
), l AS (
    INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
    SELECT id, epoch, 'retried', 'worker', $3, $7::text, jsonb_build_object('attempt', attempt, 'delay', $4::interval, 'error', $5::text, 'started_at', started_at, 'begun', begun) FROM u
)
SELECT id FROM u;

-- name: FinishFailed
WITH u AS (
    UPDATE writ.intents i SET state = 'error', event = 'failed', finished_at = now(), failed_at = now(), error = $4::text,
        flagged_at = NULL, flag_reason = NULL, probe_at = NULL
    WHERE i.id = $1 AND (SELECT writ.check_adopted()) AND i.epoch = $2 AND i.worker_id = $3 AND i.state = 'sending'
    RETURNING i.id, i.epoch, i.attempt, i.started_at
), l AS (
    INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
    SELECT id, epoch, 'failed', 'worker', $3, $5::text, jsonb_build_object('attempt', attempt, 'error', $4::text, 'started_at', started_at, 'begun', attempt) FROM u
)
SELECT id FROM u;

-- name: FinishFlagged
-- Nobody knows: the handler returned without a certain outcome, or (overdue) has not returned, which says less than any
-- reason given before. $6: the kind has a probe, and it is asked (again) unless an asking is due already. The log first: by it
-- the trigger knows that no hand sets this flag.
WITH d AS MATERIALIZED (
    SELECT c.id, c.epoch, c.attempt, c.started_at FROM writ.intents c
    WHERE c.id = $1 AND (SELECT writ.check_adopted()) AND c.epoch = $2 AND c.worker_id = $3 AND c.state = 'sending'
    FOR NO KEY UPDATE
), l AS (
    INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
    SELECT id, epoch, 'flagged', 'worker', $3, $4::text, jsonb_build_object('attempt', attempt, 'error', $5::text, 'started_at', started_at, 'begun', attempt) FROM d
    -- A flag does not void the guard: sent again after a lost answer, it is not to be told twice.
    WHERE NOT EXISTS (SELECT FROM writ.log l WHERE l.intent_id = d.id AND l.epoch = d.epoch AND l.worker_id = $3
        AND l.actor = 'worker' AND l.event = 'flagged' AND l.why IS NOT DISTINCT FROM $4::text)
    RETURNING 1
), u AS (
    UPDATE writ.intents i SET flagged_at = coalesce(i.flagged_at, now()), probes = CASE WHEN i.flagged_at IS NULL THEN 0 ELSE i.probes END,
        requeues = CASE WHEN i.flagged_at IS NULL THEN 0 ELSE i.requeues END, flag_reason = CASE WHEN $4::text IN ('overdue', 'unwritten') THEN coalesce(i.flag_reason, $4::text) ELSE $4::text END,
        error = coalesce($5::text, i.error),
        probe_at = CASE WHEN $4::text = 'hook-failed' THEN NULL
            WHEN $6::boolean AND $4::text <> 'overdue' AND i.flag_reason IN ('overdue', 'unwritten') THEN now() -- the handler has returned: more can be told
            WHEN $6::boolean THEN coalesce(i.probe_at, now()) ELSE i.probe_at END
    FROM d WHERE i.id = d.id AND (SELECT count(*) FROM l) >= 0
    RETURNING i.id, i.kind, i.epoch, i.probe_at
), o AS (
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT probe_at, kind, id, epoch, 'probe' FROM u WHERE probe_at = now()
)
SELECT id FROM u;

-- name: LateReport
-- After a refused finish, in the same transaction: applied is true if this very outcome of this worker was written before
-- (its answer was lost), or a flag came after the outcome; otherwise the late report is kept, once. Of a row that is gone there is
-- nothing to be kept with: its log went with it. KEY SHARE: it does not go in this moment.
WITH i AS MATERIALIZED (
    SELECT state, event, epoch, worker_id FROM writ.intents WHERE id = $1 FOR KEY SHARE
), applied AS MATERIALIZED (
    SELECT 1 FROM i WHERE i.epoch = $2 AND i.worker_id = $3 AND i.state = 'sent' AND i.event = 'succeeded' AND $4::text IN ('succeeded', 'flagged')
    UNION ALL
    SELECT 1 FROM writ.log l WHERE l.intent_id = $1 AND l.epoch = $2 AND l.worker_id = $3 AND l.actor = 'worker'
        AND (l.event = $4::text AND l.why IS NOT DISTINCT FROM $6::text -- it may have been flagged overdue before its handler said more
            OR $4::text = 'flagged' AND l.event IN ('succeeded', 'retried', 'failed'))
), report AS (
    INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
    SELECT $1, $2, 'late-report', 'worker', $3, $4::text,
        jsonb_build_object('outcome', $4::text, 'error', $5::text, 'state', i.state, 'epoch', i.epoch, 'meaning', writ.late_meaning($1, $2, $4::text))
            || CASE WHEN $7::jsonb IS NULL THEN '{}' ELSE jsonb_build_object('result', $7::jsonb) END
    FROM i
    WHERE NOT EXISTS (SELECT FROM applied) AND NOT EXISTS (
        SELECT FROM writ.log l WHERE l.intent_id = $1 AND l.epoch = $2 AND l.worker_id = $3 AND l.event = 'late-report'
            AND l.why IS NOT DISTINCT FROM $4::text)
)
SELECT EXISTS (SELECT FROM applied), coalesce((SELECT state FROM i), 'missing'), writ.late_meaning($1, $2, $4::text);
