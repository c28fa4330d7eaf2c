-- The table of legal transitions (package fsm), enforced for every writer. There are few WHEN conditions, they run in C, and
-- they are short, because the server reads them from their stored text in every statement that writes. They let the two
-- transitions of the happy path pass, never flagged; the functions run for everything else.

-- SECURITY DEFINER, so that whoever is refused also reads the ways out.
CREATE OR REPLACE FUNCTION writ.intents_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NOT (
        NEW.id <> OLD.id OR NEW.kind <> OLD.kind OR NEW.epoch < OLD.epoch
        OR (NEW.state = OLD.state AND (NEW.epoch <> OLD.epoch OR NEW.event IS DISTINCT FROM OLD.event))
        OR (NEW.state = 'sending' AND OLD.state = 'sending' AND NEW.run_at <> OLD.run_at)
        OR (OLD.flagged_at IS NOT NULL AND NEW.flagged_at IS NULL AND NEW.state = OLD.state)
        OR (NEW.state <> OLD.state AND NEW.event IS DISTINCT FROM OLD.event
            AND (OLD.state, coalesce(NEW.event, ''), NEW.state) NOT IN (
                ('pending', 'attempted', 'sending'),
                ('sending', 'succeeded', 'sent'),
                ('sending', 'retried', 'pending'),
                ('sending', 'failed', 'error'))))
    THEN
        IF NEW.state <> OLD.state AND NEW.event IS NOT DISTINCT FROM OLD.event THEN
            NEW := writ.by_hand(OLD, NEW);
        ELSIF NEW.state = 'pending' AND OLD.state = 'pending' AND NEW.waiting_on = 0 AND (NEW.run_at <> OLD.run_at OR OLD.waiting_on > 0) THEN
            NEW := writ.moved(OLD, NEW);
        END IF;
        IF (NEW.finished_at IS NULL) <> (NEW.state IN ('pending', 'sending')) OR (NEW.failed_at IS NULL) <> (NEW.state <> 'error')
            OR NEW.flagged_at IS NOT NULL AND NEW.state <> 'sending' THEN
            RAISE EXCEPTION 'writ: intent % is %: it cannot have finished_at %, failed_at %, flagged_at %', OLD.id, NEW.state,
                coalesce(NEW.finished_at::text, 'null'), coalesce(NEW.failed_at::text, 'null'), coalesce(NEW.flagged_at::text, 'null')
                USING ERRCODE = 'WR003', HINT = 'Leave the times alone; the database fills them in when the state changes.';
        END IF;
        -- The only success that the log tells of: a flag goes away, and a probe that says otherwise must find the worker's word.
        IF OLD.flagged_at IS NOT NULL AND NEW.state = 'sent' AND NEW.event = 'succeeded' THEN
            INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
            VALUES (NEW.id, NEW.epoch, 'succeeded', 'worker', NEW.worker_id, 'after its flag: ' || coalesce(OLD.flag_reason, 'by hand'),
                jsonb_build_object('attempt', NEW.attempt, 'flag', OLD.flag_reason, 'started_at', NEW.started_at, 'begun', NEW.attempt));
        END IF;
        -- The engine's own flags come with their log, which is written first; one that is set by hand gets its row here.
        IF OLD.flagged_at IS NULL AND NEW.flagged_at IS NOT NULL AND NEW.state = OLD.state AND NOT EXISTS (SELECT FROM writ.log l
            WHERE l.intent_id = NEW.id AND l.epoch = NEW.epoch AND l.event = 'flagged' AND l.actor IN ('worker', 'reconciler')) THEN
            INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
            VALUES (NEW.id, NEW.epoch, 'flagged', writ.hand(), NEW.worker_id,
                coalesce(nullif(current_setting('writ.why', true), ''), NEW.flag_reason, 'written by hand'),
                jsonb_build_object('attempt', NEW.attempt, 'reason', NEW.flag_reason, 'started_at', NEW.started_at, 'begun', NEW.attempt));
        END IF;
        RETURN NEW;
    ELSIF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'writ: intent % is %, an open intent is not deleted', OLD.id, OLD.state
            USING ERRCODE = 'WR003', HINT = 'Cancel it (writ.cancel), or settle it first.';
    -- The one door, for writ.quarantine: only it can set quarantining, and nobody else ever sees it set. It lets through just
    -- what that does to an open row, which stays at its state or is flagged, and to an error's epoch.
    ELSIF NEW.id = OLD.id AND NEW.kind = OLD.kind AND OLD.state IN ('pending', 'sending') AND NEW.epoch = OLD.epoch + 1000
        AND NEW.worker_id IS NULL AND NEW.run_at = OLD.run_at AND (OLD.flagged_at IS NULL OR NEW.flagged_at IS NOT NULL)
        AND (NEW.state = OLD.state AND NEW.event IS NOT DISTINCT FROM OLD.event
            OR NEW.state = 'sending' AND NEW.event = 'quarantined' AND NEW.flagged_at IS NOT NULL)
        AND (SELECT quarantining FROM writ.settings) THEN
        RETURN NEW;
    ELSIF NEW.id = OLD.id AND NEW.kind = OLD.kind AND OLD.state = 'error' AND NEW.state = OLD.state AND NEW.epoch = OLD.epoch + 1000
        AND NEW.event IS NOT DISTINCT FROM OLD.event AND NEW.worker_id IS NOT DISTINCT FROM OLD.worker_id
        AND (SELECT quarantining FROM writ.settings) THEN
        RETURN NEW;
    ELSIF NEW.id <> OLD.id OR NEW.kind <> OLD.kind THEN
        RAISE EXCEPTION 'writ: id and kind of intent % are fixed at creation', OLD.id
            USING ERRCODE = 'WR003', HINT = 'Cancel it and create another.';
    ELSIF NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'writ: epoch of intent % never goes back (% to %)', OLD.id, OLD.epoch, NEW.epoch USING ERRCODE = 'WR003';
    ELSIF NEW.state = OLD.state AND (NEW.epoch <> OLD.epoch OR NEW.event IS DISTINCT FROM OLD.event) THEN
        RAISE EXCEPTION 'writ: epoch and event of intent % change only with its state', OLD.id USING ERRCODE = 'WR003';
    ELSIF NEW.state = OLD.state AND NEW.run_at <> OLD.run_at THEN
        RAISE EXCEPTION 'writ: run_at of intent % is not moved while it is being sent', OLD.id
            USING ERRCODE = 'WR003', HINT = 'Move only pending ones: add state = ''pending'' to the condition.';
    ELSIF NEW.state = OLD.state THEN
        RAISE EXCEPTION 'writ: the flag of intent % is not taken away: nobody knows yet whether it happened', OLD.id
            USING ERRCODE = 'WR003', HINT = 'Decide it: writ.happened, writ.retry or writ.give_up.';
    END IF;
    RAISE EXCEPTION 'writ: intent % cannot go from % to % with event %', OLD.id, OLD.state, NEW.state, NEW.event
        USING ERRCODE = 'WR003', HINT = 'By hand, leave the event column alone; the database fills it in. Legal by hand from here: '
            || writ.ways_out(OLD.state, OLD.flagged_at IS NOT NULL) || '.';
END $$;

CREATE OR REPLACE TRIGGER intents_guard BEFORE UPDATE OF state, event, epoch, run_at, waiting_on, finished_at, failed_at, flagged_at
    ON writ.intents FOR EACH ROW
    WHEN ((CASE NEW.state WHEN 'sending' THEN OLD.state = 'pending' AND NEW.event = 'attempted' AND NEW.finished_at IS NULL
            WHEN 'sent' THEN OLD.state = 'sending' AND NEW.event = 'succeeded' AND NEW.finished_at IS NOT NULL END
        AND NEW.epoch >= OLD.epoch AND coalesce(OLD.flagged_at, NEW.flagged_at, NEW.failed_at) IS NULL) IS NOT TRUE)
    EXECUTE FUNCTION writ.intents_guard();

CREATE OR REPLACE TRIGGER intents_fixed BEFORE UPDATE OF id, kind ON writ.intents FOR EACH ROW
    WHEN (NEW.id <> OLD.id OR NEW.kind <> OLD.kind) -- else a statement that names all columns would be judged twice
    EXECUTE FUNCTION writ.intents_guard();

CREATE OR REPLACE TRIGGER intents_guard_delete BEFORE DELETE ON writ.intents FOR EACH ROW
    WHEN (OLD.finished_at IS NULL)
    EXECUTE FUNCTION writ.intents_guard();

-- Deleting a finished row by hand, as the reconciler does after its retention, frees its creation keys: a key without an
-- intent would refuse all creations under it for ever.
CREATE OR REPLACE FUNCTION writ.intents_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM writ.keys WHERE intent_id = ANY (ARRAY(SELECT id FROM gone));
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER intents_deleted AFTER DELETE ON writ.intents REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
    EXECUTE FUNCTION writ.intents_deleted();

-- Arguments changed by hand, without a verdict, are another job from there on: it has another key, as after a retry that changes
-- them, and the log has both. While an attempt is out they are what its outcome, and its probe, are about.
CREATE OR REPLACE FUNCTION writ.intents_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.state = 'sending' THEN
        RAISE EXCEPTION 'writ: args of intent % are not changed while it is being sent', OLD.id USING ERRCODE = 'WR003',
            HINT = 'Once it is flagged, change them with the verdict: writ.retry with new_args, or SET state = ''pending'', args = ….';
    END IF;
    NEW.generation := greatest(NEW.generation, OLD.generation + 1);
    INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence)
    VALUES (NEW.id, NEW.epoch, 'changed', writ.hand(), coalesce(nullif(current_setting('writ.why', true), ''), 'written by hand'),
        jsonb_build_object('old_args', OLD.args, 'new_args', NEW.args));
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER intents_changed BEFORE UPDATE OF args ON writ.intents FOR EACH ROW
    WHEN (NEW.args <> OLD.args AND NEW.state = OLD.state AND OLD.state IN ('pending', 'sending', 'error'))
    EXECUTE FUNCTION writ.intents_changed();

-- The legal ways out of a position, for messages.
CREATE OR REPLACE FUNCTION writ.ways_out(state text, flagged boolean) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN state = 'pending' THEN 'cancelled (cancel)'
        WHEN state = 'sending' AND flagged THEN 'sent (happened), pending (retry), error (give-up)'
        WHEN state = 'sending' THEN 'none by hand until it is flagged: its worker may still be at it'
        WHEN state = 'error' THEN 'sent (happened), pending (retry), cancelled (cancel)'
        ELSE 'none: ' || state || ' is final' END
$$;

-- A verdict: a person's verb, a probe's answer, or a plain UPDATE … SET state by hand. The event column is untouched, so
-- the database does here what the engine does itself elsewhere: event, epoch, times, flag, outbox and log. This is the
-- one home of what a verdict does; the verbs only check and then update the state.
-- Who and why come from the settings writ.actor, writ.why, writ.evidence and writ.override of the transaction, if set.
CREATE OR REPLACE FUNCTION writ.by_hand(old writ.intents, new writ.intents) RETURNS writ.intents
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
-- One statement may decide ten thousand: the log is read along its index, however small it was when that was planned.
SET enable_seqscan = off AS $$
DECLARE
    verb text := CASE
        WHEN OLD.state IN ('pending', 'error') AND NEW.state = 'cancelled' THEN 'cancel'
        WHEN OLD.state = 'error' OR (OLD.state = 'sending' AND OLD.flagged_at IS NOT NULL) THEN
            CASE NEW.state WHEN 'sent' THEN 'happened' WHEN 'pending' THEN 'retry'
                           WHEN 'error' THEN 'give-up' END END;
    probe    boolean;
    why      text  := coalesce(nullif(current_setting('writ.why', true), ''), 'written by hand');
    evidence jsonb := writ.as_object(nullif(current_setting('writ.evidence', true), '')::jsonb);
    override text  := nullif(current_setting('writ.override', true), '');
    danger   text;
BEGIN
    -- A probe's verdict comes from writ.probed and nowhere else, which has put it into the log already: no login can write there
    -- in the name of a probe (writ.log_signed). Of this epoch: one that counted would have raised it.
    probe := EXISTS (SELECT FROM writ.log l WHERE l.intent_id = OLD.id AND l.epoch = OLD.epoch AND l.actor = 'probe' AND l.event = verb);
    IF verb IS NULL THEN
        RAISE EXCEPTION 'writ: intent % cannot go from % to % by hand', OLD.id,
            OLD.state || CASE WHEN OLD.flagged_at IS NOT NULL THEN ' (flagged)' ELSE '' END, NEW.state
            USING ERRCODE = 'WR003', HINT = 'Legal from here: ' || writ.ways_out(OLD.state, OLD.flagged_at IS NOT NULL) || '.';
    END IF;
    IF verb = 'retry' THEN
        danger := writ.retry_danger(OLD);
        IF danger IS NOT NULL AND override IS NULL THEN
            RAISE EXCEPTION 'writ: retrying intent % now may do it twice: %', OLD.id, danger
                USING ERRCODE = 'WR004', HINT = CASE WHEN writ.said_done(OLD) IS NOT NULL THEN 'If it was done: writ.happened. If you know that it was not: say so with an override (it is recorded).'
                    ELSE 'Wait, or say with an override (it is recorded) that you know it cannot land any more.' END;
        END IF;
        evidence := CASE WHEN danger IS NULL THEN evidence
            ELSE evidence || jsonb_build_object('override', override, 'danger', danger) END;
    END IF;

    NEW.event := verb;
    NEW.flagged_at := NULL;
    NEW.flag_reason := NULL;
    NEW.probe_at := NULL;
    NEW.probes := 0;
    NEW.finished_at := CASE WHEN NEW.state = 'pending' THEN NULL ELSE clock_timestamp() END;
    NEW.failed_at := CASE WHEN NEW.state = 'error' THEN NEW.finished_at END;
    IF verb <> 'cancel' THEN
        NEW.epoch := OLD.epoch + 1;
    END IF;
    DELETE FROM writ.outbox WHERE intent_id = OLD.id;
    IF verb = 'retry' THEN
        NEW.attempt := CASE WHEN probe THEN OLD.attempt ELSE 0 END; -- only a person's word begins anew
        NEW.requeues := 0;
        NEW.deadline_at := NULL;
        IF NEW.run_at = OLD.run_at THEN
            NEW.run_at := now();
        END IF;
        IF NOT writ.is_time(NEW.run_at) THEN
            RAISE EXCEPTION 'writ: run_at must be a finite time, from 2000 up to the end of 9999' USING ERRCODE = 'WR005';
        END IF;
        IF NEW.args <> OLD.args THEN
            evidence := evidence || jsonb_build_object('old_args', OLD.args, 'new_args', NEW.args);
            NEW.generation := greatest(NEW.generation, OLD.generation + 1);
        END IF;
        INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
        SELECT greatest(NEW.run_at, clock_timestamp()), NEW.kind, NEW.id, NEW.epoch, 'run' WHERE NEW.waiting_on = 0;
        PERFORM writ.ring();
    ELSIF verb = 'give-up' AND EXISTS (SELECT FROM writ.kinds WHERE name = NEW.kind AND recovers)
        OR verb = 'happened' AND EXISTS (SELECT FROM writ.kinds WHERE name = NEW.kind AND completes) THEN
        NEW.probe_at := clock_timestamp();
        INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
        VALUES (clock_timestamp(), NEW.kind, NEW.id, NEW.epoch, 'recover');
        PERFORM writ.ring();
    END IF;
    IF NOT probe THEN
        PERFORM writ.log_verdict(OLD, verb, NEW.state, writ.hand(), why, evidence);
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION writ.log_verdict(old writ.intents, verb text, state text, actor text, why text, evidence jsonb) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
    VALUES (old.id, old.epoch, verb, actor, old.worker_id, why, evidence || jsonb_build_object(
        'from', old.state, 'to', state, 'flag', old.flag_reason, 'error', old.error, 'started_at', old.started_at))
$$;

-- Who says that it was done, though the row does not; null: nobody. Its handler did whose hook failed, or a late report since the last
-- verdict. Such a word moves neither state nor epoch, so who decides may not have seen it. What is idempotent may be done again.
-- In PL/pgSQL, which keeps its plans: one statement by hand may decide ten thousand.
CREATE OR REPLACE FUNCTION writ.said_done(i writ.intents) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    IF i.state NOT IN ('sending', 'error') OR EXISTS (SELECT FROM writ.kinds k WHERE k.name = i.kind AND k.class = 'idempotent')
        AND NOT EXISTS (SELECT FROM writ.workers w WHERE w.id = i.worker_id AND w.classes[array_position(w.kinds, i.kind)] <> 'idempotent') THEN
        RETURN NULL;
    END IF;
    IF i.state = 'sending' AND i.flag_reason = 'hook-failed' OR i.state = 'error' AND i.event = 'give-up' AND (SELECT l.evidence ->> 'flag' FROM writ.log l
            WHERE l.intent_id = i.id AND l.event = 'give-up' ORDER BY l.intent_id DESC, l.id DESC LIMIT 1) = 'hook-failed' THEN
        RETURN CASE WHEN coalesce((SELECT l.evidence ->> 'error' FROM writ.log l WHERE l.intent_id = i.id AND l.event = 'flagged' AND l.actor = 'worker'
            AND l.why = 'hook-failed' ORDER BY l.intent_id DESC, l.id DESC LIMIT 1), '') NOT LIKE 'the handler says failed:%' THEN 'its handler said that it was done' END;
    END IF;
    RETURN CASE WHEN EXISTS (SELECT FROM writ.log l WHERE l.intent_id = i.id AND l.event = 'late-report' AND l.why = 'succeeded'
        AND NOT EXISTS (SELECT FROM writ.log v WHERE v.intent_id = i.id AND v.id > l.id AND v.event IN ('happened', 'retry', 'give-up')))
        THEN 'a late report says that it was done' END;
END $$;

-- Whether the worker of an attempt itself said that its handler returned. The flag's reason alone anybody may have set; where
-- a person gave up, it is that of the attempt.
CREATE OR REPLACE FUNCTION writ.has_returned(i writ.intents) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM writ.log l
        WHERE l.intent_id = i.id AND l.worker_id = i.worker_id AND l.actor = 'worker' AND l.event = 'flagged'
          AND l.epoch = CASE WHEN i.state = 'error' THEN (SELECT g.epoch FROM writ.log g
              WHERE g.intent_id = i.id AND g.event = 'give-up' ORDER BY g.id DESC LIMIT 1) ELSE i.epoch END
          AND l.why IN ('timeout', 'cancelled', 'panic', 'unknown', 'hook-failed'))
$$;

-- Why a retry may do it twice: it is said to have been done, or an attempt that nobody knows the outcome of might still land or
-- still be running. Null when it surely is over: its deadline and settle time have passed, and its worker is dead or has
-- itself reported that the handler returned. Giving up takes the flag away and settles nothing.
CREATE OR REPLACE FUNCTION writ.retry_danger(i writ.intents) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT nullif(concat_ws('; ',
        writ.said_done(i),
        CASE WHEN open AND i.deadline_at + k.settle > clock_timestamp()
            THEN format('its effect may land until %s (deadline + settle)', to_char(i.deadline_at + k.settle, 'YYYY-MM-DD HH24:MI:SS TZ')) END,
        CASE WHEN open AND EXISTS (SELECT FROM writ.workers w WHERE w.id = i.worker_id AND w.heartbeat_at + w.ttl > clock_timestamp()) AND NOT writ.has_returned(i)
            THEN 'its worker is alive and may still be at it' END), '')
    FROM (SELECT coalesce((SELECT settle FROM writ.kinds WHERE name = i.kind), interval '30 s') AS settle) k,
        (SELECT i.state = 'sending' OR i.state = 'error' AND i.event = 'give-up' AS open) o
$$;

-- A pending row whose time is moved, or whose last obstacle went away, needs a hint for its new time.
CREATE OR REPLACE FUNCTION writ.moved(old writ.intents, new writ.intents) RETURNS writ.intents
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT writ.is_time(NEW.run_at) THEN
        RAISE EXCEPTION 'writ: run_at must be a finite time, from 2000 up to the end of 9999' USING ERRCODE = 'WR005';
    END IF;
    NEW.requeues := 0;
    DELETE FROM writ.outbox WHERE intent_id = NEW.id;
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
    VALUES (greatest(NEW.run_at, clock_timestamp()), NEW.kind, NEW.id, NEW.epoch, 'run');
    PERFORM writ.ring();
    IF NEW.run_at <> OLD.run_at THEN
        INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence)
        VALUES (NEW.id, NEW.epoch, 'moved', writ.hand(), coalesce(nullif(current_setting('writ.why', true), ''), 'written by hand'),
            jsonb_build_object('run_at', NEW.run_at, 'was', OLD.run_at));
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION writ.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'writ: %.% is not truncated', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'WR003', HINT = 'writ migrate down removes everything, after asking.';
END $$;
CREATE OR REPLACE TRIGGER intents_truncate BEFORE TRUNCATE ON writ.intents EXECUTE FUNCTION writ.refuse_truncate();
