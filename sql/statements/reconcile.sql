-- The reconciler. Every write is a compare-and-set, so two of them are harmless.

-- name: Lead
-- Takes or renews the lease; one row if the caller leads now.
INSERT INTO writ.leader AS l (name, holder, renewed_at, ttl) VALUES ($1, $2, clock_timestamp(), $3)
ON CONFLICT (name) DO UPDATE SET holder = $2, renewed_at = clock_timestamp(), ttl = $3
WHERE l.holder = $2 OR l.renewed_at + l.ttl < clock_timestamp()
RETURNING true;

-- name: DutiesDone
-- How long ago; not in the future, where a clock that was far ahead may have left it.
SELECT name, greatest(clock_timestamp() - done_at, '0') FROM writ.duties;

-- name: DutyDone
INSERT INTO writ.duties (name, done_at) VALUES ($1, clock_timestamp() - $2::interval)
ON CONFLICT (name) DO UPDATE SET done_at = excluded.done_at;

-- name: Resign
DELETE FROM writ.leader WHERE name = $1 AND holder = $2;

-- name: Observe
-- The database's clock and when it was started.
SELECT clock_timestamp(), pg_postmaster_start_time(), writ.is_open();

-- name: StalePending
-- Of a window of $4 open rows in the order of run_at, from after ($1, $2) on, due for longer than the threshold $3, those that
-- need a new hint: pending, not waiting, not requeued too recently (spacing doubled per requeue and stretched by a deep
-- queue), of a kind that is not shut, nor was until lately (its messages wait in the broker), and with no hint of this epoch in the outbox that is due within a minute: a
-- refused one, or one put back, comes again by then, and one that was left to a newer worker within 11 minutes. And the window's last row, if the window is full. Where so many hints
-- are overdue that the relay is behind, nothing is looked at, and a row without an id says so: what is lost cannot be
-- told from what is late, and the hints would have to queue up behind the others. What is the same for all rows is
-- asked once; scalar sub-selects keep the plan to index look-ups. Of a kind with a limit a hint in the outbox counts whenever it
-- is due, for it stands in a line there, and a queue counts for as deep as its limit makes it long.
WITH late AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM writ.outbox WHERE due_at <= now() + interval '11 min') OR EXISTS (SELECT FROM writ.limits) AS hints,
        (SELECT count(*) FROM (
            SELECT FROM writ.outbox WHERE due_at <= now() - $3::interval AND failures = 0 ORDER BY due_at LIMIT 10000) o) < 10000 AS published
), deep AS MATERIALIZED (
    SELECT jsonb_object_agg(k.name, ceil(r.ready * greatest(1, (
            SELECT extract(epoch FROM l.period) / l.starts / extract(epoch FROM $3::interval) * 10000 * CASE WHEN k.run_ms <= 50 THEN 32 ELSE 1 END
            FROM writ.limits_in_force l WHERE l.kind = k.name AND l.per = 'kind')))) AS ready,
        (SELECT jsonb_object_agg(kind, true) FROM writ.limits) AS limited,
        (SELECT jsonb_object_agg(kind, true) FROM writ.flow WHERE paused OR breaker <> 'closed' OR opened_at > now() - $3::interval) AS shut
    FROM writ.kinds k JOIN writ.relay r ON r.queue = k.queue
)
SELECT run_at, id, kind, epoch, stale, n = $4::int FROM (
    SELECT w.run_at, w.id, w.kind, w.epoch, w.n,
        w.state = 'pending' AND w.waiting_on = 0
        AND (NOT (SELECT hints FROM late) OR (SELECT o.oid FROM writ.outbox o
            WHERE o.intent_id = w.id AND o.op = 'run' AND o.epoch = w.epoch
                AND (o.due_at <= now() + CASE WHEN o.failures > 0 THEN interval '11 min' ELSE interval '1 min' END OR (SELECT limited FROM deep) ? w.kind) LIMIT 1) IS NULL)
        -- Only of the few that are left: the arithmetic costs as much as the look-up.
        AND (SELECT shut FROM deep) -> w.kind IS NULL
        AND now() - w.run_at > $3::interval * (2 ^ least(w.requeues, 20)) * (1 + coalesce(((SELECT ready FROM deep) ->> w.kind)::bigint, 0) / 10000) AS stale
    FROM (
        SELECT run_at, id, kind, epoch, state, waiting_on, requeues, row_number() OVER (ORDER BY run_at, id) AS n FROM writ.intents
        WHERE finished_at IS NULL AND (run_at, id) > ($1::timestamptz, $2::uuid) AND run_at < now() - $3::interval AND (SELECT published FROM late)
        ORDER BY run_at, id LIMIT $4::int) w OFFSET 0) s
WHERE stale OR n = $4::int
UNION ALL
SELECT now(), NULL, '', 0, false, false FROM late WHERE NOT published;

-- name: Requeue
-- Writes hints again for rows that are still as read. SKIP LOCKED: a row in somebody's hands is not stale.
WITH stale AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::int[]) AS t (id, epoch)
), u AS (
    UPDATE writ.intents i SET requeues = i.requeues + 1
    WHERE i.ctid = ANY (ARRAY(
        SELECT c.ctid FROM writ.intents c
        WHERE c.id = ANY ($1::uuid[]) AND c.state = 'pending' AND EXISTS (SELECT FROM stale s WHERE s.id = c.id AND s.epoch = c.epoch)
        FOR NO KEY UPDATE OF c SKIP LOCKED))
    RETURNING i.id, i.kind, i.epoch, i.requeues
), l AS (
    INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence)
    SELECT id, epoch, 'requeued', 'reconciler', 'its hint seems lost', jsonb_build_object('requeues', requeues) FROM u
), o AS (
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT clock_timestamp(), kind, id, epoch, 'run' FROM u
)
SELECT id, kind, epoch, requeues FROM u;

-- name: LongestTTL
-- Of the workers that seem to have died.
SELECT coalesce(max(ttl), '0') FROM writ.workers WHERE heartbeat_at + ttl < now() AND swept_at IS NULL;

-- name: DeadWorkers
-- Workers whose heartbeat is too old and whose rows were not looked at since.
SELECT id FROM writ.workers WHERE heartbeat_at + ttl < now() AND swept_at IS NULL;

-- name: Orphans
-- Sending rows without a living worker. $1: only of these workers; null: all, the slow full sweep. The open index leads
-- to them; sent rows cost nothing.
SELECT i.id, i.epoch FROM writ.intents i
WHERE i.finished_at IS NULL AND i.run_at <= now() AND i.state = 'sending' AND i.flagged_at IS NULL
  AND ($1::uuid[] IS NULL OR i.worker_id = ANY ($1::uuid[]))
  AND NOT EXISTS (SELECT FROM writ.workers w WHERE w.id = i.worker_id AND w.heartbeat_at + w.ttl > now())
LIMIT $2::int;

-- name: OrphanWindow
-- The same of a window of $2 open rows in the order of run_at, from after ($3, $4) on: however many rows are open, one look
-- costs the same. And the window's last row, if the window is full.
SELECT run_at, id, epoch, orphan, n = $2::int FROM (
    SELECT w.run_at, w.id, w.epoch, w.n,
        w.state = 'sending' AND w.flagged_at IS NULL AND ($1::uuid[] IS NULL OR w.worker_id = ANY ($1::uuid[]))
        AND (SELECT l.id FROM writ.workers l WHERE l.id = w.worker_id AND l.heartbeat_at + l.ttl > now()) IS NULL AS orphan
    FROM (
        SELECT run_at, id, epoch, state, flagged_at, worker_id, row_number() OVER (ORDER BY run_at, id) AS n FROM writ.intents
        WHERE finished_at IS NULL AND (run_at, id) > ($3::timestamptz, $4::uuid) AND run_at <= now()
        ORDER BY run_at, id LIMIT $2::int) w OFFSET 0) s
WHERE orphan OR n = $2::int;

-- name: SettleOrphan
-- The worker of this attempt died. Manual and probed kinds: flagged, and the probe is asked. Idempotent ones: a not-done verdict at once, so
-- epoch + 1; but only if the worker that claimed it held it as idempotent, too: while a deployment rolls, who started last may have declared
-- it otherwise, of other code than that which was run. The guard holds the row as read and the worker dead now; $3 and $4 close the race with a pause of the
-- database or of this process, after which every heartbeat looks old: the last observation must be fresh, and the worker
-- silent for its whole TTL since the last pause ($6).
WITH dead AS MATERIALIZED (
    SELECT i.id, i.kind, i.epoch, i.attempt, i.worker_id, i.started_at,
        CASE WHEN k.class = 'idempotent' THEN coalesce(w.classes[array_position(w.kinds, i.kind)], k.class) ELSE coalesce(k.class, 'manual') END AS class,
        i.kind IN (SELECT a.name FROM writ.askable a) AS askable, coalesce(k.max_attempts, 10) AS max_attempts,
        coalesce(k.recovers, false) AS recovers,
        least(extract(epoch FROM coalesce(k.backoff_max, '1 h')), extract(epoch FROM coalesce(k.backoff_min, '1 s'))
            * least(coalesce(k.backoff_factor, 2), 1000) ^ least(i.attempt - 1, 30)) * random() * interval '1 s' AS backoff,
        w.heartbeat_at
    FROM writ.intents i LEFT JOIN writ.kinds k ON k.name = i.kind LEFT JOIN writ.workers w ON w.id = i.worker_id
    WHERE i.id = $1 AND i.epoch = $2 AND i.state = 'sending' AND i.flagged_at IS NULL
      AND (w.id IS NULL OR greatest(w.heartbeat_at, $6::timestamptz) + greatest(w.ttl, $5::interval) < now())
      AND clock_timestamp() - $3::timestamptz < $4::interval
    FOR NO KEY UPDATE OF i
), l AS (
    -- First: by it the trigger knows that no hand sets this flag.
    INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
    SELECT d.id, d.epoch, CASE WHEN d.class <> 'idempotent' THEN 'flagged' WHEN d.attempt < d.max_attempts THEN 'retried' ELSE 'failed' END,
        'reconciler', d.worker_id, 'worker-died', jsonb_build_object('attempt', d.attempt, 'class', d.class, 'heartbeat_at', d.heartbeat_at, 'started_at', d.started_at, 'begun', d.attempt)
    FROM dead d RETURNING 1
), flagged AS (
    UPDATE writ.intents i SET flagged_at = now(), flag_reason = 'worker-died', probe_at = CASE WHEN d.askable THEN now() END,
        probes = 0, requeues = 0
    FROM dead d WHERE i.id = d.id AND d.class <> 'idempotent' AND (SELECT count(*) FROM l) > 0 RETURNING i.id
), retried AS (
    UPDATE writ.intents i SET state = 'pending', event = 'retried', epoch = i.epoch + 1, run_at = now() + d.backoff, requeues = 0,
        error = 'the worker died; idempotent, so it is run again'
    FROM dead d WHERE i.id = d.id AND d.class = 'idempotent' AND d.attempt < d.max_attempts
    RETURNING i.id, i.kind, i.epoch, i.run_at
), failed AS (
    UPDATE writ.intents i SET state = 'error', event = 'failed', epoch = i.epoch + 1, finished_at = now(), failed_at = now(),
        error = 'the worker died at the last attempt; whether that one happened is not known', probe_at = CASE WHEN d.recovers THEN now() END
    FROM dead d WHERE i.id = d.id AND d.class = 'idempotent' AND d.attempt >= d.max_attempts
    RETURNING i.id, i.kind, i.epoch, i.probe_at
), o AS (
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
    SELECT run_at, kind, id, epoch, 'run' FROM retried
    UNION ALL SELECT probe_at, kind, id, epoch, 'recover' FROM failed WHERE probe_at IS NOT NULL
    UNION ALL SELECT now(), kind, id, epoch, 'probe' FROM dead WHERE class <> 'idempotent' AND askable
)
SELECT class, kind, CASE WHEN class <> 'idempotent' THEN 'flagged' WHEN attempt < max_attempts THEN 'retried' ELSE 'failed' END,
    worker_id, extract(epoch FROM now() - heartbeat_at)::float8 FROM dead;

-- name: Swept
-- All that these dead workers held was looked at. One that is back has a fresh heartbeat and is left alone.
UPDATE writ.workers SET swept_at = clock_timestamp() WHERE id = ANY ($1::uuid[]) AND heartbeat_at + ttl < now();

-- name: ForgetWorkers
-- Rows of workers that are long dead. Those that something names which a person is to decide about say which machine it was:
-- they are kept, and looked at again in an hour.
WITH old AS MATERIALIZED (
    SELECT id FROM writ.workers WHERE swept_at < now() - interval '1 h' AND heartbeat_at + ttl < now()
), named AS MATERIALIZED (
    SELECT i.worker_id AS id FROM writ.intents i
    WHERE (i.flagged_at IS NOT NULL OR i.failed_at IS NOT NULL) AND i.worker_id IN (SELECT id FROM old) AND (SELECT count(*) FROM old) > 0
), kept AS (
    UPDATE writ.workers SET swept_at = now() WHERE id IN (SELECT id FROM named)
)
DELETE FROM writ.workers w WHERE w.id IN (SELECT id FROM old EXCEPT SELECT id FROM named) AND w.heartbeat_at + w.ttl < now();

-- name: Owed
-- Rows that a verdict ended and whose recovery hint was lost: a new hint, and the next look a minute later.
WITH u AS (
    UPDATE writ.intents i SET probe_at = now() + interval '1 min'
    WHERE i.ctid = ANY (ARRAY(
        SELECT c.ctid FROM writ.intents c WHERE c.probe_at < now() - interval '30 s' AND c.state IN ('error', 'sent')
          AND EXISTS (SELECT FROM writ.kinds k WHERE k.name = c.kind AND CASE c.state WHEN 'error' THEN k.recovers ELSE k.completes END)
        ORDER BY c.probe_at LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED))
    RETURNING i.id, i.kind, i.epoch
)
INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT clock_timestamp(), kind, id, epoch, 'recover' FROM u
RETURNING intent_id, kind, epoch;

-- name: PruneKinds
-- Kinds with the oldest moment that each final state is kept from; null: for ever. Rows of kinds that
-- nobody ever declared are kept.
SELECT k.kind, state, now() - keep
FROM (SELECT DISTINCT name AS kind FROM writ.kinds) k
CROSS JOIN LATERAL (
    SELECT 'sent' AS state, retention_sent AS keep FROM writ.kinds WHERE name = k.kind
    UNION ALL SELECT 'error', retention_error FROM writ.kinds WHERE name = k.kind
    UNION ALL SELECT 'cancelled', retention_cancelled FROM writ.kinds WHERE name = k.kind) r
WHERE keep IS NOT NULL;

-- name: Prune
-- Deletes up to $4 finished rows of a kind and state that were finished before $3, with their keys and log; from $5 on, to
-- leave out those of other states that are kept for longer.
WITH d AS (
    DELETE FROM writ.intents WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM writ.intents WHERE kind = $1 AND finished_at < $3::timestamptz AND finished_at >= $5::timestamptz AND finished_at IS NOT NULL AND state = $2
          AND (probe_at IS NULL OR NOT EXISTS (SELECT FROM writ.kinds k WHERE k.name = $1 AND CASE $2 WHEN 'error' THEN k.recovers WHEN 'sent' THEN k.completes END))
        ORDER BY finished_at LIMIT $4::int FOR UPDATE SKIP LOCKED))
    RETURNING id, epoch, finished_at
), k AS (
    DELETE FROM writ.keys WHERE intent_id = ANY (ARRAY(SELECT id FROM d))
)
SELECT id, epoch, extract(epoch FROM now() - finished_at)::float8 FROM d;

-- name: PruneLog
DELETE FROM writ.log WHERE intent_id = ANY ($1::uuid[]);
