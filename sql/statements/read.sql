-- What people and programs read.

-- name: Get
SELECT to_jsonb(s) FROM writ.status s WHERE s.id = $1;

-- name: Workers
SELECT to_jsonb(w) || jsonb_build_object('status', CASE WHEN heartbeat_at + ttl <= clock_timestamp() THEN 'dead' WHEN draining THEN 'draining' ELSE 'alive' END)
FROM writ.workers w ORDER BY host COLLATE "C", pid, id;

-- name: Why
SELECT writ.why($1);

-- name: WhyMissing
SELECT writ.why_missing($1);

-- name: Timeline
-- All that is recorded of an intent, in order: the row's own times, and the log. When an attempt was begun stands in the row,
-- and of earlier ones in the log, with what became of them; a start that both tell is told once.
WITH l AS MATERIALIZED (
    SELECT * FROM writ.log WHERE intent_id = $1
), begun AS (
    SELECT started_at, max(epoch) AS epoch, max(attempt) AS attempt, max(worker_id::text) AS worker FROM (
        SELECT started_at, CASE WHEN event IN ('attempted', 'succeeded') THEN epoch END AS epoch,
            CASE WHEN event IN ('attempted', 'succeeded') THEN attempt END AS attempt, worker_id
        -- A quarantine notes the earliest start of an attempt that nobody knows of, if there was one.
        FROM writ.intents WHERE id = $1 AND started_at IS NOT NULL AND (event <> 'quarantined' OR attempt > 0)
        UNION ALL
        SELECT (evidence ->> 'started_at')::timestamptz, CASE WHEN actor IN ('worker', 'reconciler') OR event = 'flagged' OR evidence ->> 'from' = 'sending' THEN epoch END,
            CASE WHEN actor IN ('worker', 'reconciler') OR event = 'flagged' THEN (evidence ->> 'begun')::int END, worker_id
        FROM l WHERE event IN ('retried', 'failed', 'flagged', 'happened', 'retry', 'give-up', 'cancel') AND evidence ->> 'started_at' IS NOT NULL) s
    GROUP BY started_at
)
SELECT at, event, actor, coalesce(epoch, 0), coalesce(why, ''), coalesce(evidence, '{}'::jsonb), coalesce(db_user, '') FROM (
    SELECT requested_at AS at, 0 AS n, 0::bigint AS entry, 'requested' AS event, 'application' AS actor, 0 AS epoch, NULL AS why, NULL::jsonb AS evidence, NULL AS db_user
    FROM writ.intents WHERE id = $1
    UNION ALL
    SELECT started_at, 1, 0, 'attempted', coalesce('worker ' || worker, 'worker'), epoch, coalesce('attempt ' || attempt, 'an attempt'), NULL, NULL FROM begun
    UNION ALL
    SELECT at, 2, id, event, CASE WHEN actor = 'worker' THEN coalesce('worker ' || worker_id, actor) ELSE actor END, epoch, why, evidence - '{begun,started_at}'::text[], db_user FROM l
    UNION ALL
    SELECT finished_at, 3, 0, event, coalesce('worker ' || worker_id, 'worker'), epoch, NULL, NULL, NULL
    FROM writ.intents WHERE id = $1 AND state = 'sent' AND event = 'succeeded' AND NOT EXISTS (SELECT FROM l WHERE event = 'succeeded')) t
ORDER BY at, n, entry;

-- name: Counts
-- Open rows and errors by kind and state, with the age of the oldest in seconds. Finished rows are not counted: they
-- grow for ever.
SELECT kind, state, count(*), greatest(0, coalesce(extract(epoch FROM now() - min(since)), 0))::float8 FROM (
    SELECT kind, CASE WHEN flagged_at IS NULL THEN state ELSE 'ambiguous' END AS state, coalesce(flagged_at, run_at) AS since
    FROM writ.intents WHERE finished_at IS NULL
    UNION ALL SELECT kind, 'error', failed_at FROM writ.intents WHERE failed_at IS NOT NULL) t
GROUP BY kind, state;

-- name: Happened
SELECT state, epoch FROM writ.happened($1::uuid, $2::text, $3::int, $4::text, $5::text, $6::jsonb);

-- name: Retry
SELECT state, epoch FROM writ.retry($1::uuid, $2::text, $3::int, $4::text, $5::text, $6::jsonb, $7::text, $8::jsonb, $9::boolean);

-- name: GiveUp
SELECT state, epoch FROM writ.give_up($1::uuid, $2::text, $3::int, $4::text, $5::text, $6::jsonb);

-- name: Cancel
SELECT state, epoch FROM writ.cancel($1::uuid, $2::text, $3::int, $4::text, $5::text, $6::jsonb);

-- name: Adopt
SELECT writ.adopt($1, $2);
