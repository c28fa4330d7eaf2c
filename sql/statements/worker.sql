-- The worker: its own row, claims, and what to do with a hint that cannot be claimed.

-- name: Settings
SELECT installation, paused_at IS NULL AND fingerprint = writ.fingerprint(), paused_at IS NOT NULL, coalesce(paused_why, ''), fingerprint = writ.fingerprint() FROM writ.settings;

-- name: Beat
INSERT INTO writ.workers AS w (id, host, pid, version, kinds, slots, running, stuck, ttl, draining, classes)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (id) DO UPDATE SET heartbeat_at = clock_timestamp(), swept_at = NULL, running = $7, stuck = $8, draining = $10
RETURNING clock_timestamp();

-- name: Depart
DELETE FROM writ.workers WHERE id = $1;

-- name: Declare
-- What a worker's code says of a kind. What people set (pause) stays. What stands there already is not even locked: workers that
-- start together would wait for each other.
INSERT INTO writ.kinds AS k (name, queue, class, timeout, settle, max_attempts, backoff_min, backoff_max, backoff_factor,
    retention_sent, retention_error, retention_cancelled, max_args, args_version, recovers, max_probes, completes)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17
WHERE NOT EXISTS (SELECT FROM writ.kinds k WHERE k.name = $1 AND (k.queue, k.class, k.timeout, k.settle, k.max_attempts, k.backoff_min,
    k.backoff_max, k.backoff_factor, k.retention_sent, k.retention_error, k.retention_cancelled, k.max_args, k.args_version, k.recovers, k.max_probes, k.completes)
    IS NOT DISTINCT FROM ($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17))
ON CONFLICT (name) DO UPDATE SET queue = $2, class = $3, timeout = $4, settle = $5, max_attempts = $6, backoff_min = $7, backoff_max = $8,
    backoff_factor = $9, retention_sent = $10, retention_error = $11, retention_cancelled = $12, max_args = $13, args_version = $14,
    recovers = $15, max_probes = $16, completes = $17, declared_at = clock_timestamp();

-- name: NoteRun
-- The typical run of a kind in milliseconds, as this worker measured it.
UPDATE writ.kinds SET run_ms = $2 WHERE name = $1;

-- name: DeclareBreaker
-- The circuit breaker that a worker's code declares for a kind.
UPDATE writ.kinds SET breaker = $2::jsonb WHERE name = $1 AND breaker IS DISTINCT FROM $2::jsonb;

-- name: PausedKinds
SELECT kind FROM writ.flow WHERE paused;

-- name: Flow
-- Kinds that something holds back, or may: paused ones, and those whose breaker was ever used.
SELECT kind, paused, breaker, generation, due, coalesce(holder = $1::uuid, false) FROM writ.flow WHERE paused OR generation > 0;

-- name: BreakerReport
SELECT state, generation, mine FROM writ.breaker_report($1, $2, $3, $4, $5, $6, $7, $8);

-- name: Claim
-- One epoch, and kinds ($5) of one timeout; $1 is sorted. SKIP LOCKED: another's open transaction on one row must not hold up the
-- batch. Closes the races with another worker (the row lock and state), an old hint (epoch), a cancel (state), a
-- moved time (run_at), and this worker having been found dead meanwhile (its own row). The ids and the lock come from a
-- sub-select by primary key, so that the plan is the same with and without statistics.
UPDATE writ.intents i SET state = 'sending', event = 'attempted', epoch = i.epoch + 1, attempt = i.attempt + 1, worker_id = $3,
    started_at = now(), deadline_at = now() + $4::interval, flagged_at = NULL, flag_reason = NULL
WHERE i.ctid = ANY (ARRAY(
    SELECT c.ctid FROM writ.intents c
    WHERE c.id = ANY ($1::uuid[]) AND c.epoch = $2::int AND ($5::text[] IS NULL OR c.kind = ANY ($5::text[])) AND c.state = 'pending' AND c.run_at <= now() AND c.waiting_on = 0
      AND (SELECT writ.is_open()) AND EXISTS (SELECT FROM writ.workers w WHERE w.id = $3 AND w.heartbeat_at + w.ttl > now())
    FOR NO KEY UPDATE SKIP LOCKED))
RETURNING i.id, i.kind, i.epoch, i.attempt, i.generation, i.args, i.args_version, i.tid, i.parent_id, i.subjects, i.requested_at, i.trace, i.meta;

-- name: ClaimWaiting
-- The same for one row, waiting for its lock: sent again after a commit whose answer was lost. Either the lost claim has
-- been applied and this guard fails, or this one wins and the lost one's guard fails whenever the server gets to it.
UPDATE writ.intents i SET state = 'sending', event = 'attempted', epoch = i.epoch + 1, attempt = i.attempt + 1, worker_id = $3,
    started_at = now(), deadline_at = now() + $4::interval, flagged_at = NULL, flag_reason = NULL
WHERE i.id = $1 AND i.epoch = $2 AND ($5::text[] IS NULL OR i.kind = ANY ($5::text[])) AND i.state = 'pending' AND i.run_at <= now() AND i.waiting_on = 0
  AND (SELECT writ.is_open()) AND EXISTS (SELECT FROM writ.workers w WHERE w.id = $3 AND w.heartbeat_at + w.ttl > now())
RETURNING i.id, i.kind, i.epoch, i.attempt, i.generation, i.args, i.args_version, i.tid, i.parent_id, i.subjects, i.requested_at, i.trace, i.meta;

-- name: ReadMine
-- What a claim returned whose answer was lost. Not if it is flagged: then its handler may have been run already by this very
-- worker, have said unknown, and be forgotten here, and this hint be a doubled one.
SELECT i.id, i.kind, i.epoch, i.attempt, i.generation, i.args, i.args_version, i.tid, i.parent_id, i.subjects, i.requested_at, i.trace, i.meta
FROM writ.intents i WHERE i.id = $1 AND i.epoch = $2 AND i.state = 'sending' AND i.worker_id = $3 AND i.flagged_at IS NULL;

-- name: ReadHinted
-- Rows that a claim left out, to tell what their hints are worth.
SELECT i.id, i.kind, i.state, i.epoch, i.run_at, i.run_at <= now(), i.waiting_on FROM writ.intents i WHERE i.id = ANY ($1::uuid[]);

-- name: PutBack
-- What nobody here could do anything with counts as refused, with the reason: the relay sends it at once when its kind is declared.
INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op, failures, last_error)
SELECT greatest(clock_timestamp() + delay, run_at), kind, id, epoch, op, (why <> '')::int, nullif(why, '')
FROM unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::interval[], $6::timestamptz[], $7::text[]) AS t (id, kind, epoch, op, delay, run_at, why);

-- name: ReadRecovery
-- A row that a verdict ended, and whose kind's share in that is still owed, locked for the transaction that runs it. $4: the
-- states that this worker's code has a function for.
SELECT i.id, i.kind, i.epoch, i.attempt, i.generation, i.args, i.args_version, i.tid, i.parent_id, i.subjects, i.requested_at, i.trace, i.meta,
    coalesce(i.error, ''), i.state
FROM writ.intents i WHERE i.id = $1 AND i.epoch = $2 AND i.kind = $3 AND i.state = ANY ($4::text[]) AND i.state IN ('error', 'sent') AND i.probe_at IS NOT NULL
  AND (SELECT writ.check_adopted()) FOR NO KEY UPDATE;

-- name: Recovered
WITH u AS (UPDATE writ.intents SET probe_at = NULL WHERE id = $1 RETURNING id, epoch)
INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id) SELECT id, epoch, 'recovered', 'worker', $2 FROM u;

-- name: RecoveryFailed
-- What is still owed, and why; told again after an hour.
INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why)
SELECT i.id, i.epoch, 'recovery-failed', 'worker', $3, $4::text FROM writ.intents i
WHERE i.id = $1 AND i.epoch = $2 AND i.state IN ('error', 'sent') AND i.probe_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM writ.log l WHERE l.intent_id = i.id AND l.epoch = i.epoch AND l.event = 'recovery-failed'
        AND l.at > clock_timestamp() - interval '1 h');
