-- What people read. The derived word for a row: scheduled, waiting, ready, running, retrying, ambiguous, sent, error, cancelled.
DROP VIEW IF EXISTS writ.status;
CREATE VIEW writ.status AS
SELECT i.id, i.kind,
    CASE
        WHEN i.state = 'sending' THEN CASE WHEN i.flagged_at IS NULL THEN 'running' ELSE 'ambiguous' END
        WHEN i.state <> 'pending' THEN i.state
        WHEN i.waiting_on > 0 THEN 'waiting'
        WHEN i.run_at > now() THEN CASE WHEN i.attempt > 0 THEN 'retrying' ELSE 'scheduled' END
        ELSE 'ready' END AS status,
    i.state, i.epoch, i.attempt, coalesce(k.max_attempts, 10) AS max_attempts, coalesce(k.class, 'undeclared') AS class,
    i.id::text || CASE WHEN i.generation > 0 THEN '-' || i.generation ELSE '' END AS idempotency_key,
    i.requested_at, i.run_at, i.started_at, i.deadline_at, i.finished_at, i.failed_at, i.flagged_at, i.flag_reason,
    coalesce(i.finished_at, now()) - i.requested_at AS age,
    i.worker_id, w.host, w.pid, w.heartbeat_at, coalesce(w.heartbeat_at + w.ttl > now(), false) AS worker_alive,
    i.subjects, i.tid, i.parent_id, i.error, i.args, i.meta
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

-- Why is it not done? One line, null when there is no such intent.
CREATE OR REPLACE FUNCTION writ.why(id uuid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s writ.status;
    k writ.kinds;
    o writ.outbox;
    depth bigint;
    alive int;
    danger text;
    verdict writ.log;
    stopped text;
BEGIN
    SELECT t.* INTO s FROM writ.status t WHERE t.id = why.id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT t.* INTO k FROM writ.kinds t WHERE t.name = s.kind;
    SELECT t.* INTO verdict FROM writ.log t WHERE t.intent_id = why.id
        AND t.event IN ('happened', 'retry', 'give-up', 'cancel') ORDER BY t.id DESC LIMIT 1;

    IF s.status = 'sent' THEN
        RETURN format('sent: done %s ago, %s after it was requested, at attempt %s', writ.span(now() - s.finished_at),
            writ.span(s.finished_at - s.requested_at), s.attempt)
            || CASE WHEN verdict.event = 'happened' THEN format(' (%s said that it happened: %s)', verdict.actor, verdict.why) ELSE '' END;
    ELSIF s.status = 'cancelled' THEN
        RETURN format('cancelled %s ago by %s: %s', writ.span(now() - s.finished_at), verdict.actor, verdict.why);
    ELSIF s.status = 'error' THEN
        RETURN format('error since %s, after %s of %s attempts: %s. Decide with happened, retry or cancel',
            writ.span(now() - s.failed_at), s.attempt, s.max_attempts,
            CASE WHEN verdict.event = 'give-up' THEN format('given up by %s (%s); last error: %s', verdict.actor, verdict.why, coalesce(s.error, 'none'))
                 ELSE coalesce(s.error, 'no error text') END);
    ELSIF s.status = 'ambiguous' THEN
        danger := (SELECT writ.retry_danger(i) FROM writ.intents i WHERE i.id = why.id);
        RETURN format('ambiguous since %s: attempt %s was claimed %s ago by %s, and nobody knows whether it happened (%s). '
                'Look in the outside system for key %s, then decide with happened, retry or give-up%s',
            writ.span(now() - s.flagged_at), s.attempt, writ.span(now() - s.started_at),
            coalesce(s.host || ' pid ' || s.pid, 'worker ' || s.worker_id, 'no worker'),
            CASE s.flag_reason
                WHEN 'worker-died' THEN 'its worker died'
                    || coalesce(', last heartbeat ' || writ.span(now() - s.heartbeat_at) || ' ago', '')
                    || CASE WHEN s.worker_alive THEN ', but it is back' ELSE '' END
                WHEN 'overdue' THEN 'past its deadline, the handler has not returned'
                WHEN 'hook-failed' THEN 'the handler says done, but its Done hook failed: ' || coalesce(s.error, '')
                ELSE s.flag_reason || ': ' || coalesce(s.error, 'no error text') END,
            s.idempotency_key,
            CASE WHEN danger IS NULL THEN '' ELSE '. Do not retry yet: ' || danger END);
    ELSIF s.status = 'running' THEN
        RETURN format('running: attempt %s, started %s ago by %s%s, %s', s.attempt, writ.span(now() - s.started_at),
            coalesce(s.host || ' pid ' || s.pid, 'worker ' || s.worker_id),
            CASE WHEN s.worker_alive THEN '' ELSE ', which is not heard of any more; the reconciler will look at it' END,
            CASE WHEN s.deadline_at > now() THEN 'deadline in ' || writ.span(s.deadline_at - now())
                 ELSE 'deadline passed ' || writ.span(now() - s.deadline_at) || ' ago' END);
    END IF;

    -- Pending: what stands between it and a worker?
    SELECT CASE WHEN t.paused_at IS NOT NULL THEN format('everything is paused by %s (%s)', t.paused_by, t.paused_why)
                WHEN t.fingerprint <> writ.fingerprint() THEN 'this database is a copy that nobody adopted (writ adopt), so nothing runs' END
        INTO stopped FROM writ.settings t;
    SELECT t.* INTO o FROM writ.outbox t WHERE t.intent_id = why.id AND t.op = 'run' ORDER BY t.due_at LIMIT 1;
    SELECT r.ready INTO depth FROM writ.relay r WHERE r.queue = coalesce(k.queue, s.kind);
    SELECT count(*) INTO alive FROM writ.workers w WHERE w.heartbeat_at + w.ttl > now() AND s.kind = ANY (w.kinds);
    RETURN s.status || ': ' || concat_ws('; ',
        CASE s.status WHEN 'scheduled' THEN 'due in ' || writ.span(s.run_at - now())
            WHEN 'retrying' THEN format('attempt %s of %s is due in %s, the last one said: %s', s.attempt + 1, s.max_attempts,
                writ.span(s.run_at - now()), coalesce(s.error, 'no error text'))
            WHEN 'ready' THEN 'due since ' || writ.span(now() - s.run_at)
            WHEN 'waiting' THEN 'waits for other intents' END,
        stopped,
        CASE WHEN k.paused_at IS NOT NULL THEN format('kind %s is paused by %s (%s)', s.kind, k.paused_by, k.paused_why) END,
        CASE WHEN k.name IS NULL THEN format('no worker ever declared kind %s', s.kind)
             WHEN alive = 0 THEN format('no live worker handles kind %s', s.kind) END,
        CASE WHEN o.failures > 0 THEN format('its hint was refused %s times by the broker, next try in %s: %s',
                o.failures, writ.span(o.due_at - now()), o.last_error)
             WHEN s.status = 'ready' AND o.intent_id IS NOT NULL AND o.due_at <= now() THEN
                format('its hint waits %s in the outbox for a relay', writ.span(now() - o.due_at))
             WHEN s.status = 'ready' AND o.intent_id IS NULL THEN
                'its hint is with the broker' || coalesce(', queue ' || coalesce(k.queue, s.kind) || ' holds ' || depth, '') END);
END $$;
