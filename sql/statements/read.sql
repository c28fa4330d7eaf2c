-- What people and programs read.

-- name: Get
SELECT to_jsonb(s) FROM writ.status s WHERE s.id = $1;

-- name: Why
SELECT writ.why($1);

-- name: Timeline
-- The row's own times and its log, in order.
SELECT at, event, actor, coalesce(epoch, 0), coalesce(why, ''), coalesce(evidence, '{}'::jsonb) FROM (
    SELECT requested_at AS at, 0 AS n, 'requested' AS event, 'application' AS actor, 0 AS epoch, NULL AS why, NULL::jsonb AS evidence
    FROM writ.intents WHERE id = $1
    UNION ALL
    SELECT started_at, 1, 'attempted', coalesce('worker ' || worker_id, 'worker'),
        CASE WHEN event IN ('attempted', 'succeeded') THEN epoch ELSE 0 END,
        CASE WHEN event IN ('attempted', 'succeeded') THEN 'attempt ' || attempt ELSE 'the last attempt' END, NULL
    -- A quarantine notes the earliest start of an attempt that nobody knows of, if there was one.
    FROM writ.intents WHERE id = $1 AND started_at IS NOT NULL AND (event <> 'quarantined' OR attempt > 0) -- earlier attempts are in the log, by their outcomes
    UNION ALL
    SELECT finished_at, 3, event, coalesce('worker ' || worker_id, 'worker'), epoch, NULL, NULL
    FROM writ.intents WHERE id = $1 AND state = 'sent' AND event = 'succeeded'
    UNION ALL
    SELECT at, 2, event, actor, epoch, why, evidence FROM writ.log WHERE intent_id = $1) t
ORDER BY at, n;

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
