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

-- Why is it not done? One line for the person who is called at night, null when there is no such intent.
CREATE OR REPLACE FUNCTION writ.why(id uuid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s writ.status;
    i writ.intents;
    k writ.kinds;
    o writ.outbox;
    its_queue text;
    depth bigint;
    alive int;
    danger text;
    holder text;
    ending writ.log;
    stopped text;
BEGIN
    SELECT t.* INTO s FROM writ.status t WHERE t.id = why.id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT t.* INTO i FROM writ.intents t WHERE t.id = why.id;
    SELECT t.* INTO k FROM writ.kinds t WHERE t.name = s.kind;
    SELECT t.* INTO ending FROM writ.log t WHERE t.intent_id = why.id
        AND t.event IN ('failed', 'happened', 'retry', 'give-up', 'cancel') ORDER BY t.id DESC LIMIT 1;
    holder := coalesce(s.host || ' pid ' || s.pid, 'worker ' || s.worker_id, 'no worker');

    IF s.status = 'sent' THEN
        IF ending.event = 'happened' THEN
            RETURN format('sent: %s said %s ago that it happened: %s', ending.actor, writ.span(now() - s.finished_at), ending.why)
                || writ.late_truth(id);
        END IF;
        RETURN format('sent: done %s ago at attempt %s, %s after it was requested', writ.span(now() - s.finished_at), s.attempt,
            writ.span(s.finished_at - s.requested_at)) || writ.late_truth(id);
    ELSIF s.status = 'cancelled' THEN
        RETURN format('cancelled: by %s, %s ago: %s', coalesce(ending.actor, 'somebody'), writ.span(now() - s.finished_at),
            coalesce(ending.why, 'no reason is kept'));
    ELSIF s.status = 'error' THEN
        RETURN format('error: for %s now, %s; the last error was: %s. %sDecide: retry, happened or cancel', writ.span(now() - s.failed_at),
            CASE WHEN ending.event = 'give-up' THEN format('given up by %s (%s)', ending.actor, ending.why)
                 ELSE format('after attempt %s of %s', s.attempt, s.max_attempts) || coalesce(' (' || ending.why || ')', '') END,
            coalesce(s.error, 'none given'),
            CASE WHEN i.probe_at IS NOT NULL THEN 'Its recovery function has still to run. ' ELSE '' END) || writ.late_truth(id);
    ELSIF s.status = 'ambiguous' THEN
        danger := writ.retry_danger(i);
        RETURN format('ambiguous: for %s now; attempt %s was begun %s ago by %s, and %s. Look in the outside system for key %s, then decide: '
                'happened, retry or give-up%s',
            writ.span(now() - s.flagged_at), s.attempt, writ.span(now() - s.started_at), holder,
            CASE WHEN s.flag_reason = 'hook-failed'
                THEN 'its handler says that it was done, but could not save the result: ' || coalesce(s.error, 'no error text')
                ELSE 'nobody knows whether it happened: ' || CASE s.flag_reason
                    WHEN 'worker-died' THEN CASE WHEN s.worker_alive THEN 'its worker was taken for dead, but is back'
                        ELSE 'its worker died' || coalesce(', last heard of ' || writ.span(now() - s.heartbeat_at) || ' ago', '') END
                    WHEN 'overdue' THEN 'its handler is past the deadline and has not returned'
                    WHEN 'unwritten' THEN 'its handler returned, and what it said cannot be written down'
                    WHEN 'timeout' THEN 'its handler was cut off by its timeout' || coalesce(': ' || s.error, '')
                    WHEN 'cancelled' THEN 'its worker was stopped before it ended' || coalesce(': ' || s.error, '')
                    WHEN 'panic' THEN 'its handler broke off with a ' || coalesce(s.error, 'panic')
                    WHEN 'unknown' THEN 'its handler said: ' || coalesce(s.error, 'no error text')
                    ELSE concat_ws(': ', coalesce(s.flag_reason, 'flagged by hand'), s.error) END END,
            s.idempotency_key,
            CASE WHEN danger IS NULL THEN '' ELSE '. Do not retry yet: ' || danger END) || writ.probe_standing(i);
    ELSIF s.status = 'running' THEN
        RETURN format('running: attempt %s, begun %s ago by %s%s, %s', s.attempt, writ.span(now() - s.started_at), holder,
            CASE WHEN s.worker_alive THEN '' ELSE format(' (%s; the reconciler will settle it)',
                coalesce('not heard of for ' || writ.span(now() - s.heartbeat_at), 'it is not on record any more')) END,
            CASE WHEN s.deadline_at > now() THEN 'its deadline is in ' || writ.span(s.deadline_at - now())
                 ELSE 'its deadline passed ' || writ.span(now() - s.deadline_at) || ' ago' END);
    END IF;

    -- Pending: what stands between it and a worker?
    SELECT CASE WHEN t.paused_at IS NOT NULL THEN concat('everything is paused', ' by ' || t.paused_by, ' (' || t.paused_why || ')')
                WHEN pg_is_in_recovery() THEN NULL -- a standby has no fingerprint to compare
                WHEN t.fingerprint <> writ.fingerprint() THEN 'nothing runs here: this database is a copy that nobody adopted (writ adopt)' END
        INTO stopped FROM writ.settings t;
    SELECT t.* INTO o FROM writ.outbox t WHERE t.intent_id = why.id AND t.op = 'run' ORDER BY t.due_at LIMIT 1;
    its_queue := coalesce(k.queue, s.kind);
    SELECT r.ready INTO depth FROM writ.relay r WHERE r.queue = its_queue;
    SELECT count(*) INTO alive FROM writ.workers w WHERE w.heartbeat_at + w.ttl > now() AND s.kind = ANY (w.kinds);
    RETURN s.status || ': ' || concat_ws('; ',
        CASE s.status WHEN 'scheduled' THEN 'due in ' || writ.span(s.run_at - now())
            WHEN 'retrying' THEN format('attempt %s of %s is due in %s, the last one said: %s', s.attempt + 1, s.max_attempts,
                writ.span(s.run_at - now()), coalesce(s.error, 'no error text'))
            WHEN 'ready' THEN format('due for %s', writ.span(now() - s.run_at))
                || CASE WHEN s.attempt > 0 THEN format(', attempt %s of %s', s.attempt + 1, s.max_attempts) ELSE '' END
            WHEN 'waiting' THEN format('for %s other %s', i.waiting_on, CASE i.waiting_on WHEN 1 THEN 'intent' ELSE 'intents' END) END,
        stopped,
        CASE WHEN k.paused_at IS NOT NULL THEN concat('kind ', s.kind, ' is paused', ' by ' || k.paused_by, ' (' || k.paused_why || ')') END,
        CASE WHEN k.name IS NULL THEN format('no worker ever declared kind %s', s.kind)
             WHEN alive = 0 THEN format('no live worker handles kind %s', s.kind) END,
        CASE WHEN o.failures > 0 THEN format('the broker refused its hint %s, the next try is in %s: %s',
                CASE o.failures WHEN 1 THEN 'once' ELSE o.failures || ' times' END, writ.span(greatest(o.due_at - now(), '0')), o.last_error)
             WHEN s.status <> 'ready' THEN NULL
             WHEN o.due_at <= now() THEN format('its hint has waited %s in the outbox for a relay', writ.span(now() - o.due_at))
             WHEN o.due_at > now() THEN format('its hint goes out in %s', writ.span(o.due_at - now()))
             ELSE 'its hint is with the broker' || CASE WHEN depth IS NULL THEN ''
                 ELSE format(', queue %s holds %s', its_queue, CASE depth WHEN 1 THEN '1 message' ELSE depth || ' messages' END) END END,
        CASE WHEN s.status = 'ready' AND i.requeues > 0
             THEN format('hints were sent again %s', CASE i.requeues WHEN 1 THEN 'once' ELSE i.requeues || ' times' END) END) || writ.late_truth(id);
END $$;
