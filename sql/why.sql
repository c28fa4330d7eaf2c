-- Why is it not done? One line for the person who is called at night. writ.why is made of the parts below, one for each position
-- in which something may stand in the way.

-- «once», «twice», «3 times».
CREATE OR REPLACE FUNCTION writ.times(n int) RETURNS text
LANGUAGE sql IMMUTABLE AS $$ SELECT CASE n WHEN 1 THEN 'once' WHEN 2 THEN 'twice' ELSE n || ' times' END $$;

-- Why nothing at all runs here; null: it does.
CREATE OR REPLACE FUNCTION writ.why_stopped() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN pg_is_in_recovery() THEN 'this server is a standby, where nothing runs'
        WHEN paused_at IS NOT NULL THEN concat('everything is paused', ' by ' || paused_by, ' (' || paused_why || ')')
        WHEN fingerprint <> writ.fingerprint() THEN 'nothing runs here: this database is a copy that nobody adopted (writ adopt)' END
    FROM writ.settings
$$;

-- Whether a relay runs: it was seen lately, or sleeps with the doorbell's lock in hand.
CREATE OR REPLACE FUNCTION writ.has_relay() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM writ.relay t WHERE t.seen_at > now() - interval '1 min')
        OR EXISTS (SELECT FROM pg_locks t WHERE t.locktype = 'advisory' AND t.granted AND t.classid = 1465010516 AND t.objid = 3 AND t.objsubid = 2
            AND t.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
$$;

-- Who holds an attempt, or held it last.
CREATE OR REPLACE FUNCTION writ.why_held(i writ.intents) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT host || ' pid ' || pid FROM writ.workers WHERE id = i.worker_id), 'worker ' || i.worker_id, 'no worker')
$$;

-- Pending: what stands between it and a worker?
CREATE OR REPLACE FUNCTION writ.why_pending(i writ.intents) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    k writ.kinds;
    o writ.outbox;
    r writ.relay;
    w record;
    last writ.log;
    stopped text := writ.why_stopped();
    ready boolean := i.waiting_on = 0 AND i.run_at <= now();
    late interval := now() - i.run_at;
    relays boolean := writ.has_relay();
    before bigint;
    hint text;
BEGIN
    SELECT t.* INTO k FROM writ.kinds t WHERE t.name = i.kind;
    SELECT t.* INTO o FROM writ.outbox t WHERE t.intent_id = i.id AND t.op = 'run' ORDER BY t.epoch <> i.epoch, t.due_at LIMIT 1;
    SELECT t.* INTO r FROM writ.relay t WHERE t.queue = coalesce(k.queue, i.kind);
    SELECT t.* INTO last FROM writ.log t WHERE t.intent_id = i.id AND t.event IN ('retried', 'retry', 'moved') ORDER BY t.id DESC LIMIT 1;
    SELECT count(*) AS alive, count(*) FILTER (WHERE NOT t.draining) AS taking, coalesce(sum(t.slots) FILTER (WHERE NOT t.draining), 0) AS slots,
        coalesce(sum(t.running) FILTER (WHERE NOT t.draining), 0) AS running, coalesce(sum(t.stuck), 0) AS stuck
        INTO w FROM writ.workers t WHERE t.heartbeat_at + t.ttl > now() AND i.kind = ANY (t.kinds);

    -- Where is its hint? A hint of another epoch is of no use to it.
    IF NOT ready THEN
        hint := NULL;
    ELSIF o.failures > 0 AND o.last_error LIKE 'a worker %' THEN
        hint := format('its hint was put back, and goes out in %s: %s', writ.span(greatest(o.due_at - now(), '0')), o.last_error);
    ELSIF o.failures > 0 THEN
        hint := format('the broker refused its hint %s, the next try is in %s: %s', writ.times(o.failures), writ.span(greatest(o.due_at - now(), '0')), o.last_error);
    ELSIF o.due_at > now() THEN
        hint := format('its hint was put back, and goes out in %s', writ.span(o.due_at - now()));
    ELSIF o.due_at IS NOT NULL THEN
        hint := format('its hint has waited %s in the outbox for a relay', writ.span(now() - o.due_at));
        IF stopped IS NULL AND NOT relays THEN
            hint := hint || ', and none runs (writ run)';
        ELSIF stopped IS NULL AND o.due_at < now() - interval '10 s' THEN
            SELECT count(*) INTO before FROM (SELECT FROM writ.outbox t WHERE t.due_at < o.due_at LIMIT 10000) x;
            hint := hint || CASE WHEN before >= 1000 THEN format(', behind %s others', CASE WHEN before = 10000 THEN 'over 10000' ELSE before::text END)
                ELSE ', and one runs: the broker may be away or blocked' END;
        END IF;
    ELSIF r.queue IS NOT NULL AND r.ready IS NULL THEN
        hint := format('its hint is lost: queue %s does not exist', r.queue) || writ.why_requeued(i, stopped);
    ELSE
        hint := 'its hint is with the broker' || coalesce(format(', queue %s holds %s', r.queue, CASE r.ready WHEN 1 THEN '1 message' ELSE r.ready || ' messages' END), '')
            || CASE WHEN late > interval '1 min' AND coalesce(r.ready, 0) = 0 THEN ', or lost' || writ.why_requeued(i, stopped) ELSE '' END;
    END IF;

    RETURN writ.status_of(i) || ': ' || concat_ws('; ',
        CASE WHEN i.waiting_on > 0 THEN format('for %s other %s', i.waiting_on, CASE i.waiting_on WHEN 1 THEN 'intent' ELSE 'intents' END)
            WHEN ready THEN format('due for %s', writ.span(late)) || CASE WHEN i.attempt > 0 THEN format(', attempt %s of %s', i.attempt + 1, coalesce(k.max_attempts, 10)) ELSE '' END
            WHEN last.event = 'retried' AND last.why IN ('snoozed', 'claimed too late to begin') THEN format('due in %s, %s', writ.span(-late),
                CASE last.why WHEN 'snoozed' THEN 'as its handler asked for (snooze)' ELSE 'for it was claimed too late to begin' END)
            WHEN last.event = 'retried' AND last.why LIKE 'args are of version %' THEN format('due in %s, for its %s', writ.span(-late), last.why)
            WHEN i.attempt > 0 THEN format('attempt %s of %s is due in %s, the last one said: %s', i.attempt + 1, coalesce(k.max_attempts, 10), writ.span(-late), coalesce(i.error, 'no error text'))
            ELSE 'due in ' || writ.span(-late) END,
        CASE last.event WHEN 'retry' THEN format('%s sent it back %s ago: %s', last.actor, writ.span(now() - last.at), last.why)
            WHEN 'moved' THEN format('%s moved its time %s ago: %s', last.actor, writ.span(now() - last.at), last.why) END,
        stopped,
        (SELECT concat('queue ', q.name, ' is paused', ' by ' || q.paused_by, ' (' || q.paused_why || ')') FROM writ.queues q
            WHERE q.name = coalesce(k.queue, i.kind) AND q.paused_at IS NOT NULL),
        CASE WHEN k.paused_at IS NOT NULL THEN concat('kind ', i.kind, ' is paused', ' by ' || k.paused_by, ' (' || k.paused_why || ')') END,
        writ.why_breaker(i.kind),
        CASE WHEN k.name IS NULL THEN format('no worker ever declared kind %s', i.kind)
            WHEN w.alive = 0 THEN format('no live worker handles kind %s', i.kind)
            WHEN w.taking = 0 THEN format('all live workers that handle kind %s are shutting down', i.kind)
            WHEN ready AND w.running >= w.slots THEN format('all slots (%s) of the workers that handle kind %s are taken', w.slots, i.kind)
                || CASE WHEN w.stuck > 0 THEN format(', %s of them by handlers past their deadline', w.stuck) ELSE '' END END,
        CASE WHEN ready THEN writ.why_limited(i) END,
        hint,
        CASE WHEN ready AND i.requeues > 0 THEN format('hints were sent again %s', writ.times(i.requeues)) END);
END $$;

-- What becomes of a lost hint.
CREATE OR REPLACE FUNCTION writ.why_requeued(i writ.intents, stopped text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN stopped IS NOT NULL THEN ''
        WHEN EXISTS (SELECT FROM writ.leader WHERE name = 'reconciler' AND renewed_at + ttl > now()) THEN ': the reconciler sends it again'
        ELSE ': no reconciler runs to send it again (writ run)' END
$$;

-- Ambiguous: what is known, and whose turn it is.
CREATE OR REPLACE FUNCTION writ.why_ambiguous(i writ.intents) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    w writ.workers;
    k writ.kinds;
    danger text := writ.retry_danger(i);
    done text := writ.said_done(i);
    what text;
    probe text;
    stopped text := writ.why_stopped();
    last writ.log;
    said text;
    before text;
    hindered text;
BEGIN
    SELECT t.* INTO w FROM writ.workers t WHERE t.id = i.worker_id;
    SELECT t.* INTO k FROM writ.kinds t WHERE t.name = i.kind;
    SELECT t.* INTO last FROM writ.log t WHERE t.intent_id = i.id AND t.epoch = i.epoch AND t.event = 'probed' ORDER BY t.id DESC LIMIT 1;
    said := '; it said: ' || last.why || CASE WHEN last.evidence ->> 'result' = 'held'
        THEN format(', which does not count while %s', coalesce(last.evidence ->> 'danger', 'it may still be run')) ELSE '' END;
    before := CASE WHEN i.probes > 0 THEN format('asked %s so far, could not tell%s', writ.times(i.probes), coalesce(said, ''))
        WHEN last.evidence ->> 'result' = 'held' THEN 'asked before' || said END;
    what := CASE
        WHEN i.flag_reason = 'hook-failed' AND done IS NULL THEN 'its handler says that it was not done, but could not save that: ' || coalesce(i.error, 'no error text')
        WHEN i.flag_reason = 'hook-failed' THEN 'its handler says that it was done, but could not save the result: ' || coalesce(i.error, 'no error text')
        ELSE 'nobody knows whether it happened: ' || CASE i.flag_reason
            WHEN 'worker-died' THEN CASE WHEN w.heartbeat_at + w.ttl > now() THEN 'its worker was taken for dead, but is back'
                ELSE 'its worker died' || coalesce(', last heard of ' || writ.span(now() - w.heartbeat_at) || ' ago', '') END
            WHEN 'overdue' THEN 'its handler is past the deadline and has not returned'
            WHEN 'unwritten' THEN 'its handler returned, and what it said cannot be written down'
            WHEN 'timeout' THEN 'its handler was cut off by its timeout' || coalesce(': ' || i.error, '')
            WHEN 'cancelled' THEN 'its worker was stopped before it ended' || coalesce(': ' || i.error, '')
            WHEN 'panic' THEN 'its handler broke off with a ' || coalesce(i.error, 'panic')
            WHEN 'unknown' THEN 'its handler said: ' || coalesce(i.error, 'no error text')
            WHEN 'quarantined' THEN coalesce((SELECT format('in quarantine by %s (%s), for it may have been run since %s, which this database has forgotten',
                    q.actor, q.why, to_char((q.evidence ->> 'since')::timestamptz, 'YYYY-MM-DD HH24:MI:SS TZ'))
                FROM writ.log q WHERE q.intent_id = i.id AND q.event = 'quarantined' ORDER BY q.id DESC LIMIT 1),
                'in quarantine: the database went back in time, and it may have been run after that moment')
            ELSE concat_ws(': ', coalesce(i.flag_reason, 'flagged by hand'), i.error) END END;
    hindered := nullif(concat_ws(', and ', stopped,
        CASE WHEN k.paused_at IS NOT NULL THEN concat('kind ', i.kind, ' is paused', ' by ' || k.paused_by, ' (' || k.paused_why || ')') END,
        CASE WHEN NOT EXISTS (SELECT FROM writ.workers t WHERE t.heartbeat_at + t.ttl > now() AND i.kind = ANY (t.kinds))
            THEN format('no live worker handles kind %s', i.kind) END,
        CASE WHEN stopped IS NULL AND NOT writ.has_relay() AND EXISTS (SELECT FROM writ.outbox t WHERE t.intent_id = i.id AND t.op = 'probe' AND t.due_at <= now())
            THEN 'no relay runs to send its hint (writ run)' END,
        CASE WHEN stopped IS NULL AND i.probe_at < now() - interval '1 min'
                AND NOT EXISTS (SELECT FROM writ.leader t WHERE t.name = 'reconciler' AND t.renewed_at + t.ttl > now())
            THEN 'no reconciler runs to send its hint again (writ run)' END), '');
    -- Outstanding only for kinds with a probe; where its answers are spent, probe_at is null and a person's turn has come.
    probe := CASE
        WHEN i.flag_reason = 'hook-failed' OR NOT EXISTS (SELECT FROM writ.askable a WHERE a.name = i.kind) THEN NULL
        WHEN i.probe_at > now() THEN format('Its probe is asked in %s%s. Or look', writ.span(i.probe_at - now()), coalesce(' (' || before || ')', ''))
        WHEN i.probe_at IS NOT NULL THEN format('Its probe has been due for %s%s%s look', writ.span(now() - i.probe_at), coalesce(', but ' || hindered, '')
            || coalesce(' (' || before || ')', ''), CASE WHEN hindered IS NULL THEN '. Or' ELSE '. Mend that, or' END)
        WHEN i.probes > 0 THEN format('Its probe was asked %s and could not tell%s. Look', writ.times(i.probes), coalesce(said, '')) END;
    RETURN format('ambiguous: for %s now; %s, and %s. %s in the outside system for key %s, then decide: happened, retry or give-up%s',
        writ.span(now() - i.flagged_at),
        CASE WHEN i.started_at IS NULL OR i.attempt = 0 THEN 'no attempt is on record' ELSE format('attempt %s was begun %s ago by %s', i.attempt, writ.span(now() - i.started_at), writ.why_held(i)) END,
        what, coalesce(probe, 'Look'),
        i.id::text || CASE WHEN i.generation > 0 THEN '-' || i.generation ELSE '' END,
        CASE WHEN done IS NOT NULL THEN '. A retry needs an override: ' || danger ELSE coalesce('. Do not retry yet: ' || danger, '') END
            || CASE WHEN probe IS NULL OR i.probe_at IS NULL OR i.probe_at > now() THEN coalesce('. Besides, ' || stopped, '') ELSE '' END);
END $$;

-- What a finished row still owes its application, with a blank behind it; null: nothing.
CREATE OR REPLACE FUNCTION writ.why_owed(i writ.intents) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE i.state WHEN 'sent' THEN 'Its OnHappened function' ELSE 'Its recovery function' END || ' has still to run'
        || CASE WHEN EXISTS (SELECT FROM writ.workers t WHERE t.heartbeat_at + t.ttl > now() AND i.kind = ANY (t.kinds)) THEN ''
            ELSE format(', and no live worker handles kind %s', i.kind) END
        || coalesce((SELECT format('; %s ago it failed: %s', writ.span(now() - l.at), l.why) FROM writ.log l
            WHERE l.intent_id = i.id AND l.epoch = i.epoch AND l.event = 'recovery-failed' ORDER BY l.id DESC LIMIT 1), '') || '. '
    WHERE i.probe_at IS NOT NULL AND i.state IN ('sent', 'error')
$$;

-- One line, or null when there is no such intent.
CREATE OR REPLACE FUNCTION writ.why(id uuid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    i writ.intents;
    k writ.kinds;
    w writ.workers;
    ending writ.log;
    alive boolean;
    line text;
BEGIN
    SELECT t.* INTO i FROM writ.intents t WHERE t.id = why.id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT t.* INTO k FROM writ.kinds t WHERE t.name = i.kind;
    SELECT t.* INTO w FROM writ.workers t WHERE t.id = i.worker_id;
    SELECT t.* INTO ending FROM writ.log t WHERE t.intent_id = why.id
        AND t.event IN ('failed', 'happened', 'retry', 'give-up', 'cancel') ORDER BY t.id DESC LIMIT 1;
    alive := coalesce(w.heartbeat_at + w.ttl > now(), false);

    line := CASE
        WHEN i.state = 'sent' AND ending.event = 'happened' THEN
            format('sent: %s said %s ago that it happened: %s', ending.actor, writ.span(now() - i.finished_at), ending.why)
                || coalesce('. ' || rtrim(writ.why_owed(i)), '')
        WHEN i.state = 'sent' THEN
            format('sent: done %s ago at attempt %s, %s after it was requested', writ.span(now() - i.finished_at), i.attempt, writ.span(i.finished_at - i.requested_at))
        WHEN i.state = 'cancelled' THEN
            format('cancelled: by %s, %s ago: %s', coalesce(ending.actor, 'somebody'), writ.span(now() - i.finished_at), coalesce(ending.why, 'no reason is kept'))
        WHEN i.state = 'error' THEN
            format('error: for %s now, %s; the last error was: %s. %sDecide: retry, happened or cancel%s', writ.span(now() - i.failed_at),
                CASE WHEN ending.event = 'give-up' THEN format('given up by %s (%s)', ending.actor, ending.why)
                    ELSE format('after attempt %s of %s', i.attempt, coalesce(k.max_attempts, 10)) || coalesce(' (' || ending.why || ')', '') END,
                coalesce(i.error, 'none given'),
                coalesce(writ.why_owed(i), ''),
                coalesce('. A retry needs an override: ' || writ.retry_danger(i), ''))
        WHEN i.flagged_at IS NOT NULL THEN writ.why_ambiguous(i)
        WHEN i.state = 'sending' THEN
            format('running: attempt %s, begun %s ago by %s%s, %s', i.attempt, writ.span(now() - i.started_at), writ.why_held(i),
                CASE WHEN alive THEN '' ELSE format(' (%s; %s)', coalesce('not heard of for ' || writ.span(now() - w.heartbeat_at), 'it is not on record any more'),
                    CASE WHEN writ.why_stopped() IS NOT NULL THEN 'nobody will settle it: ' || writ.why_stopped()
                        WHEN EXISTS (SELECT FROM writ.leader t WHERE t.name = 'reconciler' AND t.renewed_at + t.ttl > now()) THEN 'the reconciler will settle it'
                        ELSE 'no reconciler runs to settle it: writ run' END) END,
                CASE WHEN i.deadline_at > now() THEN 'its deadline is in ' || writ.span(i.deadline_at - now())
                    ELSE 'its deadline passed ' || writ.span(now() - i.deadline_at) || ' ago'
                        || CASE WHEN alive AND w.stuck > 0 THEN ', and that worker has handlers that do not return' ELSE '' END END)
        ELSE writ.why_pending(i) END;

    -- What a worker said after a verdict had moved the row: it changes nothing by itself, but a person must see it.
    RETURN line || writ.late_truth(id);
END $$;

-- What is known of an id that names no intent.
CREATE OR REPLACE FUNCTION writ.why_missing(id uuid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last writ.log;
    made timestamptz;
    shortest interval := (SELECT min(least(retention_sent, retention_error, retention_cancelled)) FROM writ.kinds);
BEGIN
    SELECT t.* INTO last FROM writ.log t WHERE t.intent_id = why_missing.id ORDER BY t.id DESC LIMIT 1;
    IF FOUND THEN
        RETURN format('there is no intent %s any more: its row was deleted by hand; its log ends %s ago with %s by %s%s',
            id, writ.span(now() - last.at), last.event, last.actor, coalesce(' (' || last.why || ')', ''));
    ELSIF substr(id::text, 15, 1) = '7' THEN
        made := to_timestamp(('x' || lpad(substr(replace(id::text, '-', ''), 1, 12), 16, '0'))::bit(64)::bigint / 1000.0);
    END IF;
    RETURN format('there is no intent %s', id) || CASE
        WHEN made IS NULL OR made > now() + interval '1 h' OR made < '2000-01-01' THEN ', and nothing can be told from the id'
        WHEN shortest IS NOT NULL AND made < now() - shortest THEN
            format('; by its id it was requested %s ago, so it may have been done and pruned with its log since', writ.span(now() - made))
        ELSE format('; by its id it was requested %s ago, and nothing so young is pruned: its creation was rolled back, is not committed yet, or went to another database',
            writ.span(now() - made)) END;
END $$;
