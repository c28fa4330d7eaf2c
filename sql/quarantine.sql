-- What is done after the database lost a part of its past (a restore, an unclean failover).

-- The database has lost what happened since a moment, though the effects of it stand in the outside world. Every open
-- row that may have been run by what is lost becomes sending, flagged, without a holder: pending would be claimed. All
-- of them were open at that moment, so whatever is due by now may have been run; what is due later cannot, unless
-- somebody moved its time in the lost stretch, or a worker that is left from then, a probe or a person has put it off since:
-- the log tells of that, and not of what another worker did after it. A kind declared idempotent may be run again, and is, unless a
-- worker on record held it otherwise: its code may have been the one that ran.
--
-- All open epochs are raised by 1000, beyond any that was used in the lost stretch: hints that are left in the broker and
-- outcomes of workers that are left from then name epochs that no row will have again. So are those of errors, which
-- somebody may have retried in that stretch; nothing else is done to them.
--
-- An attempt that is lost may have been begun a moment ago, by a worker that is still at it: hence the deadline, before
-- which (and settle) no retry passes without an override, and no probe's «not done» counts.
--
-- One transaction: a quarantine that stopped half-way would look like a whole one. If its answer was lost, do it again.
CREATE OR REPLACE FUNCTION writ.quarantine(since timestamptz, actor text, why text, evidence jsonb DEFAULT NULL,
    OUT flagged bigint, OUT fenced bigint, OUT errors bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM writ.check_reason(actor, why);
    IF since IS NULL OR NOT writ.is_time(since) OR since > clock_timestamp() THEN
        RAISE EXCEPTION 'writ: quarantine since when? % is not a moment in the past', coalesce(since::text, 'null')
            USING ERRCODE = 'WR005', HINT = 'Give the moment that the database went back to: the recovery target, rather too early than too late.';
    END IF;
    -- Locks the row of settings, so that nobody adopts or resumes meanwhile, and opens the door in writ.intents_guard for
    -- this transaction alone: it is never committed as true.
    UPDATE writ.settings SET quarantining = true;
    IF writ.is_open() AND (SELECT s.fingerprint = writ.fingerprint() FROM writ.settings s) THEN
        RAISE EXCEPTION 'writ: work goes on here, so nothing can be put into quarantine' USING ERRCODE = 'WR003',
            HINT = 'Pause everything first: writ pause. A quarantine flags all open intents that are due: be sure that this is the database that went back in time.';
    END IF;
    -- By itself, so that the next statement sees what those had written for whom it had to wait, in the log, too.
    PERFORM FROM writ.intents i WHERE i.finished_at IS NULL FOR NO KEY UPDATE;
    WITH was AS MATERIALIZED (
        SELECT i.id, i.kind, i.state, i.epoch, i.flagged_at IS NOT NULL AS flagged, i.flag_reason, i.worker_id,
            CASE WHEN k.class = 'idempotent' THEN coalesce(o.class, k.class) ELSE coalesce(k.class, 'manual') END AS class, coalesce(k.timeout, interval '60 s') AS timeout,
            i.state = 'sending' OR i.run_at <= now() OR EXISTS (SELECT FROM writ.log l
                WHERE l.intent_id = i.id AND l.event IN ('retried', 'retry', 'moved') AND l.at >= since) AS doubtful
        FROM writ.intents i LEFT JOIN writ.kinds k ON k.name = i.kind
            LEFT JOIN (SELECT h.kind, max(h.class) AS class FROM writ.workers t CROSS JOIN unnest(t.kinds, t.classes) AS h (kind, class)
                WHERE h.class <> 'idempotent' GROUP BY h.kind) o ON o.kind = i.kind
        WHERE i.finished_at IS NULL AND i.state IN ('pending', 'sending') FOR NO KEY UPDATE OF i
    ), held AS (
        UPDATE writ.intents i SET state = 'sending', event = 'quarantined', epoch = i.epoch + 1000, worker_id = NULL,
            started_at = coalesce(i.started_at, since), deadline_at = greatest(i.deadline_at, now() + w.timeout),
            flagged_at = coalesce(i.flagged_at, now()), flag_reason = CASE WHEN i.flag_reason = 'hook-failed' THEN i.flag_reason ELSE 'quarantined' END,
            probes = 0, requeues = 0, probe_at = CASE WHEN w.class = 'probed' AND i.flag_reason IS DISTINCT FROM 'hook-failed' THEN now() END
        FROM was w
        WHERE i.id = w.id AND (w.flagged OR w.class <> 'idempotent' AND w.doubtful)
        RETURNING i.id, i.kind, i.epoch, i.probe_at
    ), raised AS (
        -- What is being sent has no holder either, and is settled by the reconciler as a dead worker's.
        UPDATE writ.intents i SET epoch = i.epoch + 1000, worker_id = NULL, requeues = 0
        FROM was w
        WHERE i.id = w.id AND NOT (w.flagged OR w.class <> 'idempotent' AND w.doubtful)
        RETURNING i.id, i.kind, i.epoch, i.state, i.run_at, i.waiting_on
    ), old_hints AS (
        DELETE FROM writ.outbox o USING was w WHERE o.intent_id = w.id
    ), new_hints AS (
        INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
        SELECT greatest(r.run_at, clock_timestamp()), r.kind, r.id, r.epoch, 'run' FROM raised r WHERE r.state = 'pending' AND r.waiting_on = 0
        UNION ALL SELECT clock_timestamp(), h.kind, h.id, h.epoch, 'probe' FROM held h WHERE h.probe_at IS NOT NULL
    ), each AS (
        INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
        SELECT w.id, w.epoch, CASE WHEN h.id IS NOT NULL THEN 'quarantined' ELSE 'fenced' END, quarantine.actor, w.worker_id, quarantine.why,
            jsonb_strip_nulls(jsonb_build_object('since', since, 'from', w.state, 'to', CASE WHEN h.id IS NOT NULL THEN 'sending' ELSE w.state END,
                'flag', w.flag_reason, 'class', w.class, 'new_epoch', w.epoch + 1000))
        FROM was w LEFT JOIN held h ON h.id = w.id
    )
    SELECT (SELECT count(*) FROM held), (SELECT count(*) FROM raised) INTO flagged, fenced;
    WITH raised AS (
        UPDATE writ.intents i SET epoch = i.epoch + 1000 WHERE i.failed_at IS NOT NULL RETURNING i.id, i.epoch, i.worker_id
    ), each AS (
        INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
        SELECT r.id, r.epoch - 1000, 'fenced', quarantine.actor, r.worker_id, quarantine.why,
            jsonb_build_object('since', since, 'from', 'error', 'to', 'error', 'new_epoch', r.epoch) FROM raised r
    )
    SELECT count(*) FROM raised INTO errors;
    INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence)
    VALUES ('00000000-0000-0000-0000-000000000000', 0, 'quarantined', quarantine.actor, quarantine.why,
        writ.as_object(quarantine.evidence) || jsonb_build_object('since', since, 'flagged', flagged, 'fenced', fenced, 'fingerprint', writ.fingerprint()));
    UPDATE writ.settings SET quarantining = false;
END $$;
