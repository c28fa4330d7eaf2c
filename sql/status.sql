-- What people read. The derived word for a row: scheduled, waiting, ready, running, retrying, ambiguous, sent, error, cancelled.
CREATE OR REPLACE FUNCTION writ.status_of(i writ.intents) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN i.state = 'sending' THEN CASE WHEN i.flagged_at IS NULL THEN 'running' ELSE 'ambiguous' END
        WHEN i.state <> 'pending' THEN i.state
        WHEN i.waiting_on > 0 THEN 'waiting'
        WHEN i.run_at > now() THEN CASE WHEN i.attempt > 0 THEN 'retrying' ELSE 'scheduled' END
        ELSE 'ready' END
$$;

DROP VIEW IF EXISTS writ.status;
CREATE VIEW writ.status AS
SELECT i.id, i.kind,
    writ.status_of(i) AS status,
    i.state, i.epoch, i.attempt, coalesce(k.max_attempts, 10) AS max_attempts, coalesce(k.class, 'undeclared') AS class,
    i.id::text || CASE WHEN i.generation > 0 THEN '-' || i.generation ELSE '' END AS idempotency_key,
    i.requested_at, i.run_at, i.started_at, i.deadline_at, i.finished_at, i.failed_at, i.flagged_at, i.flag_reason,
    coalesce(i.finished_at, now()) - i.requested_at AS age,
    i.worker_id, w.host, w.pid, w.heartbeat_at, coalesce(w.heartbeat_at + w.ttl > now(), false) AS worker_alive,
    i.subjects, i.tid, i.parent_id, i.error, i.args, i.meta, i.result, i.progress -> 'value' AS progress
FROM writ.intents i
LEFT JOIN writ.kinds k ON k.name = i.kind
LEFT JOIN writ.workers w ON w.id = i.worker_id;

-- A span of time as a person says it: 3 d 4 h, 12 m 5 s, 800 ms.
CREATE OR REPLACE FUNCTION writ.span(i interval) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN s < 1 THEN round(s * 1000) || ' ms'
        WHEN s < 60 THEN floor(s) || ' s'
        WHEN s < 3600 THEN floor(s / 60) || ' m ' || floor(mod(s, 60)) || ' s'
        WHEN s < 86400 THEN floor(s / 3600) || ' h ' || floor(mod(s, 3600) / 60) || ' m'
        ELSE floor(s / 86400) || ' d ' || floor(mod(s, 86400) / 3600) || ' h' END
    FROM (SELECT abs(extract(epoch FROM i)) AS s) x
$$;
