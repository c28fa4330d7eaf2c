-- What holds work back, at run time and for all workers: pauses, and circuit breakers. Workers read writ.flow with each
-- heartbeat, and stop consuming what is shut: messages wait in the broker. See package workers, valve.go.

-- Each declared kind with what holds it back.
DROP VIEW IF EXISTS writ.flow CASCADE;
CREATE VIEW writ.flow AS
SELECT k.name AS kind, k.queue, k.breaker IS NOT NULL AS has_breaker,
    coalesce(s.paused_at, q.paused_at, k.paused_at) IS NOT NULL AS paused,
    CASE WHEN s.paused_at IS NOT NULL THEN concat('everything is paused', ' by ' || s.paused_by, ' (' || s.paused_why || ')')
        WHEN q.paused_at IS NOT NULL THEN concat('queue ', k.queue, ' is paused', ' by ' || q.paused_by, ' (' || q.paused_why || ')')
        WHEN k.paused_at IS NOT NULL THEN concat('kind ', k.name, ' is paused', ' by ' || k.paused_by, ' (' || k.paused_why || ')') END AS pause,
    CASE WHEN k.breaker IS NULL THEN 'closed' ELSE coalesce(b.state, 'closed') END AS breaker, -- one that is declared no more stops nothing
    coalesce(b.generation, 0) AS generation, b.until, b.holder, b.lease_until,
    -- Time to try one: nobody has, or who did is not heard of any more.
    coalesce(b.until <= clock_timestamp() OR b.lease_until < clock_timestamp(), false) AS due, b.changed_at, b.changed_by, b.why,
    k.opened_at
FROM writ.kinds k CROSS JOIN writ.settings s LEFT JOIN writ.queues q ON q.name = k.queue LEFT JOIN writ.breakers b ON b.kind = k.name;

-- The log's entry of a change that concerns no intent, but what is named in its evidence.
CREATE OR REPLACE FUNCTION writ.log_flow(event text, actor text, why text, evidence jsonb) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence)
    VALUES ('00000000-0000-0000-0000-000000000000', 0, event, actor, why, jsonb_strip_nulls(evidence))
$$;

-- Stops everything, one kind, or all kinds of one queue, until a person resumes it. Nothing new is begun; running handlers go on.
DROP FUNCTION IF EXISTS writ.pause(text, text, text);
CREATE OR REPLACE FUNCTION writ.pause(actor text, why text, kind text DEFAULT NULL, queue text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM writ.check_reason(actor, why);
    IF kind IS NOT NULL AND queue IS NOT NULL THEN
        RAISE EXCEPTION 'writ: pause a kind or a queue, not both at once' USING ERRCODE = 'WR005';
    ELSIF kind IS NOT NULL THEN
        UPDATE writ.kinds k SET paused_at = clock_timestamp(), paused_by = pause.actor, paused_why = pause.why WHERE k.name = pause.kind;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'writ: no worker ever declared kind %', kind USING ERRCODE = 'WR002', HINT = 'writ kinds list shows those that are.';
        END IF;
    ELSIF queue IS NOT NULL THEN
        IF NOT EXISTS (SELECT FROM writ.kinds k WHERE k.queue = pause.queue) THEN
            RAISE EXCEPTION 'writ: no declared kind has queue %', queue USING ERRCODE = 'WR002', HINT = 'writ kinds list shows the queues of all kinds.';
        END IF;
        INSERT INTO writ.queues AS q (name, paused_at, paused_by, paused_why) VALUES (pause.queue, clock_timestamp(), pause.actor, pause.why)
        ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at, paused_by = excluded.paused_by, paused_why = excluded.paused_why;
    ELSE
        UPDATE writ.settings s SET paused_at = clock_timestamp(), paused_by = pause.actor, paused_why = pause.why;
    END IF;
    PERFORM writ.log_flow('paused', actor, why, jsonb_build_object('kind', kind, 'queue', queue));
END $$;

-- Ends a pause. It adopts nothing: a copy stays closed. That they opened is noted with the kinds: what had to wait is not lost,
-- and the reconciler lets the broker deliver it first.
DROP FUNCTION IF EXISTS writ.resume(text, text, text);
CREATE OR REPLACE FUNCTION writ.resume(actor text, why text, kind text DEFAULT NULL, queue text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM writ.check_reason(actor, why);
    IF kind IS NOT NULL AND queue IS NOT NULL THEN
        RAISE EXCEPTION 'writ: resume a kind or a queue, not both at once' USING ERRCODE = 'WR005';
    ELSIF kind IS NOT NULL THEN
        UPDATE writ.kinds k SET paused_at = NULL, paused_by = NULL, paused_why = NULL WHERE k.name = resume.kind AND k.paused_at IS NOT NULL;
    ELSIF queue IS NOT NULL THEN
        DELETE FROM writ.queues q WHERE q.name = resume.queue AND q.paused_at IS NOT NULL;
    ELSE
        UPDATE writ.settings s SET paused_at = NULL, paused_by = NULL, paused_why = NULL WHERE s.paused_at IS NOT NULL;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'writ: % is not paused', coalesce('kind ' || kind, 'queue ' || queue, 'this installation') USING ERRCODE = 'WR003',
            HINT = 'writ doctor says what holds work up.';
    END IF;
    UPDATE writ.kinds k SET opened_at = clock_timestamp()
    WHERE (resume.kind IS NULL OR k.name = resume.kind) AND (resume.queue IS NULL OR k.queue = resume.queue);
    PERFORM writ.log_flow('resumed', actor, why, jsonb_build_object('kind', kind, 'queue', queue));
END $$;

-- Changes a breaker that the caller has locked, and logs it.
CREATE OR REPLACE FUNCTION writ.breaker_change(b writ.breakers, target text, actor text, why text, until timestamptz, evidence jsonb DEFAULT NULL)
RETURNS writ.breakers
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE writ.breakers t SET state = target, generation = t.generation + 1, holder = NULL, lease_until = NULL,
        until = breaker_change.until, trips = CASE target WHEN 'open' THEN t.trips + 1 ELSE 0 END,
        changed_at = clock_timestamp(), changed_by = actor, why = breaker_change.why
    WHERE t.kind = b.kind RETURNING t.* INTO b;
    DELETE FROM writ.breaker_counts c WHERE c.kind = b.kind; -- it begins anew
    IF target = 'closed' THEN
        UPDATE writ.kinds k SET opened_at = clock_timestamp() WHERE k.name = b.kind;
    END IF;
    PERFORM writ.log_flow(CASE target WHEN 'open' THEN 'breaker-opened' ELSE 'breaker-closed' END, actor, why,
        coalesce(evidence, '{}') || jsonb_build_object('kind', b.kind, 'until', b.until, 'trips', nullif(b.trips, 0)));
    RETURN b;
END $$;

-- What a worker has to say of one breaker, and what it hears of it. All under the breaker's row lock, so each change is made
-- once, whoever sees first that it is due.
--   seen               the generation that the worker counted in, and that its trial was let through in
--   calls, failures    attempts that ended since it last said so, within the window
--   verdict            of the intent that it tried: done or failed; null: none yet
--   willing            it would try one
--   lease              for how long it may, unless it says so again
CREATE OR REPLACE FUNCTION writ.breaker_report(kind text, worker uuid, seen int, calls int, failures int, verdict text, willing boolean, lease interval,
    OUT state text, OUT generation int, OUT mine boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    d   jsonb := (SELECT k.breaker FROM writ.kinds k WHERE k.name = breaker_report.kind);
    b   writ.breakers;
    sum record;
    at  bigint;
BEGIN
    INSERT INTO writ.breakers AS t (kind) VALUES (breaker_report.kind) ON CONFLICT DO NOTHING;
    SELECT t.* INTO b FROM writ.breakers t WHERE t.kind = breaker_report.kind FOR NO KEY UPDATE;
    IF b.state = 'half-open' AND b.holder = worker AND b.generation = seen AND verdict IS NOT NULL THEN
        IF verdict = 'done' THEN
            b := writ.breaker_change(b, 'closed', 'worker', 'the intent that was let through to try is done', NULL, jsonb_build_object('worker', worker));
        ELSE
            b := writ.breaker_change(b, 'open', 'worker', 'the intent that was let through to try failed', clock_timestamp() + writ.breaker_pause(d, b.trips),
                jsonb_build_object('worker', worker));
        END IF;
    ELSIF b.state = 'closed' AND b.generation = seen AND calls > 0 AND d IS NOT NULL THEN
        at := floor(extract(epoch FROM clock_timestamp()) * 10 / (d ->> 'window')::float8);
        INSERT INTO writ.breaker_counts AS c VALUES (breaker_report.kind, at, breaker_report.calls, breaker_report.failures)
        ON CONFLICT ON CONSTRAINT breaker_counts_pkey DO UPDATE SET calls = c.calls + excluded.calls, failures = c.failures + excluded.failures;
        DELETE FROM writ.breaker_counts c WHERE c.kind = breaker_report.kind AND c.slot <= at - 10;
        SELECT sum(c.calls) AS calls, sum(c.failures) AS failures INTO sum FROM writ.breaker_counts c WHERE c.kind = breaker_report.kind;
        IF sum.calls >= (d ->> 'least')::int AND sum.failures >= sum.calls * (d ->> 'ratio')::float8 THEN
            b := writ.breaker_change(b, 'open', 'worker', format('%s of %s attempts within %s failed', sum.failures, sum.calls, writ.span((d ->> 'window')::float8 * interval '1 s')),
                clock_timestamp() + writ.breaker_pause(d, b.trips), jsonb_build_object('calls', sum.calls, 'failures', sum.failures));
        END IF;
    END IF;
    -- Exactly one worker may try: the first that asks when the time is up, or when the one before is not heard of any more.
    IF willing AND b.state = 'half-open' AND b.holder = worker THEN
        UPDATE writ.breakers t SET lease_until = clock_timestamp() + lease WHERE t.kind = b.kind;
    ELSIF willing AND (b.state = 'open' AND b.until <= clock_timestamp() OR b.state = 'half-open' AND b.lease_until < clock_timestamp()) THEN
        PERFORM writ.log_flow('breaker-tried', 'worker', CASE b.state WHEN 'open' THEN 'its time is up, so one intent is let through to try'
                ELSE 'the worker that tried is not heard of any more; another tries' END,
            jsonb_build_object('kind', b.kind, 'worker', worker, 'before', b.holder));
        UPDATE writ.breakers t SET state = 'half-open', generation = t.generation + 1, until = NULL, holder = worker, lease_until = clock_timestamp() + lease,
            changed_at = clock_timestamp(), changed_by = 'worker', why = 'one intent is let through to try'
        WHERE t.kind = b.kind RETURNING t.* INTO b;
    END IF;
    state := b.state;
    generation := b.generation;
    mine := coalesce(b.holder = worker, false);
END $$;

-- How long a breaker stays open that has opened so often before without closing.
CREATE OR REPLACE FUNCTION writ.breaker_pause(declared jsonb, trips int) RETURNS interval
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT interval '1 s' * coalesce(least((declared ->> 'most')::float8, (declared ->> 'open')::float8 * 2 ^ least(trips, 30)), 30)
$$;

-- Locks the breaker of a kind that has one, for a person.
CREATE OR REPLACE FUNCTION writ.breaker_of(kind text) RETURNS writ.breakers
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    b writ.breakers;
BEGIN
    IF NOT EXISTS (SELECT FROM writ.kinds k WHERE k.name = breaker_of.kind) THEN
        RAISE EXCEPTION 'writ: no worker ever declared kind %', kind USING ERRCODE = 'WR002', HINT = 'writ kinds list shows those that are.';
    ELSIF NOT EXISTS (SELECT FROM writ.kinds k WHERE k.name = breaker_of.kind AND k.breaker IS NOT NULL) THEN
        RAISE EXCEPTION 'writ: kind % has no circuit breaker', kind USING ERRCODE = 'WR003', HINT = 'Its workers'' code declares one (Handler.Breaker). To stop it now: writ pause.';
    END IF;
    INSERT INTO writ.breakers AS t (kind) VALUES (breaker_of.kind) ON CONFLICT DO NOTHING;
    SELECT t.* INTO b FROM writ.breakers t WHERE t.kind = breaker_of.kind FOR NO KEY UPDATE;
    RETURN b;
END $$;

-- Opens the breaker of a kind by hand, for as long as said, else as it would by itself; then one intent is tried.
CREATE OR REPLACE FUNCTION writ.open_breaker(kind text, actor text, why text, pause interval DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    b writ.breakers;
BEGIN
    PERFORM writ.check_reason(actor, why);
    IF pause <= '0' OR pause > interval '30 days' THEN
        RAISE EXCEPTION 'writ: a breaker cannot be open for %', pause USING ERRCODE = 'WR005', HINT = 'Give a span of up to 30 days; or pause the kind.';
    END IF;
    b := writ.breaker_of(kind);
    PERFORM writ.breaker_change(b, 'open', actor, why,
        clock_timestamp() + coalesce(pause, writ.breaker_pause((SELECT k.breaker FROM writ.kinds k WHERE k.name = open_breaker.kind), b.trips)));
END $$;

-- Closes it by hand, without a trial.
CREATE OR REPLACE FUNCTION writ.close_breaker(kind text, actor text, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    b writ.breakers;
BEGIN
    PERFORM writ.check_reason(actor, why);
    b := writ.breaker_of(kind);
    IF b.state = 'closed' THEN
        RAISE EXCEPTION 'writ: the breaker of kind % is closed already', kind USING ERRCODE = 'WR003', HINT = 'writ why says what holds an intent up.';
    END IF;
    PERFORM writ.breaker_change(b, 'closed', actor, why, NULL);
END $$;

-- What a shut breaker says of the intents of its kind; null: it is closed.
CREATE OR REPLACE FUNCTION writ.why_breaker(kind text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE b.state
        WHEN 'open' THEN format('the breaker of kind %s is open until %s, %s by %s (%s)', b.kind, to_char(b.until, 'YYYY-MM-DD HH24:MI:SS TZ'),
            CASE WHEN b.until > now() THEN 'for another ' || writ.span(b.until - now()) || ',' ELSE 'and one is about to be tried,' END, b.changed_by, b.why)
        WHEN 'half-open' THEN format('the breaker of kind %s is half-open: one intent is tried by %s', b.kind,
            coalesce((SELECT w.host || ' pid ' || w.pid FROM writ.workers w WHERE w.id = b.holder), 'worker ' || b.holder)) END
    FROM writ.breakers b JOIN writ.kinds k ON k.name = b.kind WHERE b.kind = why_breaker.kind AND k.breaker IS NOT NULL
$$;
