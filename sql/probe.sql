-- Probes: what the answer of a kind's probe does to a flagged row. The worker that has the kind's code asks the outside
-- world outside any transaction (package workers) and comes here with what was found.

-- Kinds that may be asked about: those that have a probe by what was declared last, or in a worker that lives. While a deployment
-- rolls, these differ.
CREATE OR REPLACE VIEW writ.askable AS
SELECT k.name FROM writ.kinds k WHERE k.class = 'probed'
UNION
SELECT h.kind FROM writ.workers w CROSS JOIN unnest(w.kinds, w.classes) AS h (kind, class)
WHERE h.class = 'probed' AND w.heartbeat_at + w.ttl > now();

-- One answer, under the row's lock: a compare-and-set on the state, epoch and flag as they were when the probe was asked.
--   asking    probe_at as the taking statement set it: names this asking. Only the newest asking of a row may say that it
--             found nothing, or an answer that was sent twice would be counted twice. A verdict needs no such guard.
--   asked_at  the database's clock just before the probe began
--   rest      how long, by the worker's own clock, deadline + settle were still to come when the probe began; a jump of the
--             database's clock alone must not make «not there» mean that it was not done
--   delay     before the next attempt, if there is to be one
--   pause     before the probe is asked again, if it found nothing, or somebody else is to ask
--   seen_danger  why, when it was asked, the attempt might still be run by its worker: what was not there then may be now
-- Returns the verdict (happened, retry, give-up), or why there is none: early (before deadline + settle only done counts),
-- held (not done, but its worker may still be at it), again (unknown), person (unknown for the last time), returned (the
-- worker shuts down, or is too old for the arguments), stale (another asking came first), moved (a person, or the attempt's own worker, came first), or
-- confirms or contradicts if what came first is in the log, and so is now this.
CREATE OR REPLACE FUNCTION writ.probed(
    id uuid, seen_epoch int, seen_flag timestamptz, asking timestamptz, finding text, asked_at timestamptz, rest interval,
    delay interval, pause interval, worker uuid, why text, evidence jsonb, seen_danger text)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    i        writ.intents;
    k        writ.kinds;
    settled  timestamptz;
    danger   text;
    verdict  text;
    next_at  timestamptz;
    said     jsonb;
BEGIN
    PERFORM writ.check_adopted();
    -- The row lock closes the race with a finish, a person and another probe: they have ended, or wait.
    SELECT t.* INTO i FROM writ.intents t WHERE t.id = probed.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'moved';
    END IF;
    SELECT t.* INTO k FROM writ.kinds t WHERE t.name = i.kind;
    -- Only what has a probe is settled by one, be it in the asking worker alone; and not what is known, but for the application's share, which a person must see to.
    IF i.flag_reason = 'hook-failed' OR k.class IS DISTINCT FROM 'probed' AND NOT EXISTS (SELECT FROM writ.workers w
            WHERE w.id = probed.worker AND w.classes[array_position(w.kinds, i.kind)] = 'probed') THEN
        RETURN 'moved';
    END IF;
    settled := coalesce(i.deadline_at, i.flagged_at) + coalesce(k.settle, interval '30 s');
    said := writ.as_object(evidence) || jsonb_build_object('finding', finding, 'asked_at', asked_at, 'asked_by', worker, 'asking', asking);
    IF i.state <> 'sending' OR i.epoch <> seen_epoch OR i.flagged_at IS DISTINCT FROM seen_flag THEN
        -- What is not there too early says nothing.
        RETURN writ.probed_late(i, seen_epoch, asking,
            CASE WHEN finding = 'done' THEN 'succeeded' WHEN finding = 'not-done' AND rest <= interval '0' THEN 'retried' END, why, said);
    END IF;

    IF finding = 'done' THEN
        verdict := 'happened';
    ELSIF finding = 'cancelled' THEN
        verdict := 'returned';
        next_at := clock_timestamp() + pause;
    ELSIF asked_at <= settled OR rest > interval '0' THEN
        verdict := 'early';
        next_at := clock_timestamp() + greatest(settled - clock_timestamp(), rest, interval '0') + interval '10 ms';
    ELSIF finding = 'not-done' THEN
        danger := coalesce(nullif(seen_danger, ''), writ.probe_danger(i));
        IF danger IS NOT NULL THEN
            verdict := 'held';
            said := said || jsonb_build_object('danger', danger);
            next_at := clock_timestamp() + greatest(pause, (clock_timestamp() - i.flagged_at) / 2);
        ELSE
            verdict := CASE WHEN i.attempt < coalesce(k.max_attempts, 10) THEN 'retry' ELSE 'give-up' END;
        END IF;
    ELSE
        verdict := CASE WHEN i.probes + 1 < coalesce(k.max_probes, 5) THEN 'again' ELSE 'person' END;
        next_at := CASE WHEN verdict = 'again' THEN clock_timestamp() + pause END;
    END IF;

    IF verdict IN ('happened', 'retry', 'give-up') THEN
        -- By its log entry writ.by_hand knows it; that does the rest, as for all verdicts.
        PERFORM writ.log_verdict(i, verdict, CASE verdict WHEN 'happened' THEN 'sent' WHEN 'retry' THEN 'pending' ELSE 'error' END, 'probe', why, said);
        PERFORM set_config('writ.override', '', true);
        UPDATE writ.intents t SET
            state = CASE verdict WHEN 'happened' THEN 'sent' WHEN 'retry' THEN 'pending' ELSE 'error' END,
            run_at = CASE WHEN verdict = 'retry' THEN now() + delay ELSE t.run_at END,
            error = CASE WHEN verdict = 'happened' THEN t.error ELSE 'not done, says its probe: ' || why END
        WHERE t.id = probed.id;
        RETURN verdict;
    END IF;

    IF i.probe_at IS DISTINCT FROM asking THEN
        RETURN 'stale';
    END IF;
    UPDATE writ.intents t SET probe_at = next_at, requeues = 0, probes = t.probes + (verdict IN ('again', 'person'))::int WHERE t.id = probed.id;
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT next_at, i.kind, i.id, i.epoch, 'probe' WHERE next_at IS NOT NULL;
    IF verdict <> 'returned' THEN
        INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
        VALUES (i.id, i.epoch, 'probed', 'probe', worker, why,
            said || jsonb_build_object('result', verdict, 'probes', i.probes + (verdict IN ('again', 'person'))::int));
    END IF;
    RETURN verdict;
END $$;

-- Why a «not done» says nothing: writ.retry_danger, and more carefully than there, where a person decides who can see more:
-- a worker is out only when the reconciler has found it dead and looked at all that it held, or itself said that the handler
-- returned. After a pause of the database every heartbeat looks old.
CREATE OR REPLACE FUNCTION writ.probe_danger(i writ.intents) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(writ.retry_danger(i), (SELECT 'its worker has not been found dead' FROM writ.workers w
        WHERE w.id = i.worker_id AND w.swept_at IS NULL AND NOT writ.has_returned(i)))
$$;

-- An answer that came after the row had moved. If it is this very answer that moved it, its commit's answer was lost, and
-- the verdict is returned again. Anything else that was found is a late report: it changes nothing, and a person sees it
-- beside the verdict.
CREATE OR REPLACE FUNCTION writ.probed_late(i writ.intents, seen_epoch int, asking timestamptz, outcome text, why text, said jsonb)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    verdict text;
    meaning text := writ.late_meaning(i.id, seen_epoch, outcome);
BEGIN
    SELECT l.event INTO verdict FROM writ.log l
    WHERE l.intent_id = i.id AND l.epoch = seen_epoch AND l.actor = 'probe' AND l.event IN ('happened', 'retry', 'give-up')
      AND l.evidence -> 'asking' = to_jsonb(asking);
    IF FOUND THEN
        RETURN verdict;
    END IF;
    IF outcome IS NULL OR meaning = 'neither' THEN
        RETURN 'moved';
    END IF;
    IF NOT EXISTS (SELECT FROM writ.log l WHERE l.intent_id = i.id AND l.epoch = seen_epoch
            AND l.actor = 'probe' AND l.event = 'late-report' AND l.why = outcome) THEN
        INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why, evidence)
        VALUES (i.id, seen_epoch, 'late-report', 'probe', (said ->> 'asked_by')::uuid, outcome,
            said || jsonb_build_object('outcome', outcome, 'error', why, 'state', i.state, 'epoch', i.epoch, 'meaning', meaning));
    END IF;
    RETURN meaning;
END $$;

-- What a late outcome of an attempt means beside the word that came first, a verdict's or its own worker's: it confirms or
-- contradicts it. Neither: it knows no more, or a kind was idempotent and was simply run again, or the intent is gone. After a
-- quarantine that word is found at the epoch that the attempt's was raised to; an attempt that is lost may have had a later
-- epoch than the row was at when it was held.
CREATE OR REPLACE FUNCTION writ.late_meaning(id uuid, seen_epoch int, outcome text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE epochs (epoch) AS (
        SELECT seen_epoch UNION SELECT (q.evidence ->> 'new_epoch')::int FROM epochs e JOIN writ.log q ON q.intent_id = late_meaning.id
            AND q.event IN ('quarantined', 'fenced') AND q.epoch <= e.epoch AND (q.evidence ->> 'new_epoch')::int > e.epoch)
    SELECT coalesce((SELECT CASE
            WHEN outcome IS NULL OR outcome = 'flagged' THEN 'neither'
            WHEN (outcome = 'succeeded') = (l.event IN ('happened', 'succeeded')) THEN 'confirms'
            ELSE 'contradicts' END
        FROM writ.log l
        WHERE l.intent_id = late_meaning.id AND l.epoch IN (SELECT epoch FROM epochs)
          AND (l.event IN ('happened', 'retry', 'give-up') OR (l.event IN ('succeeded', 'retried', 'failed') AND l.actor = 'worker'))
        ORDER BY l.id DESC LIMIT 1), 'neither')
$$;

-- For writ.why: what came after the verdict on this row, and whether it agrees with it; empty if nothing came.
CREATE OR REPLACE FUNCTION writ.late_truth(id uuid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT format('. %s, a late report of its %s %s: %s',
            writ.span(now() - l.at) || ' ago', l.actor,
            CASE l.evidence ->> 'meaning' WHEN 'confirms' THEN 'confirmed the verdict' WHEN 'contradicts' THEN 'CONTRADICTED the verdict' ELSE 'came' END,
            CASE l.why WHEN 'succeeded' THEN 'it was done' WHEN 'flagged' THEN 'nobody knows' ELSE 'it was not done' END
                || coalesce(' (' || (l.evidence ->> 'error') || ')', ''))
        FROM writ.log l WHERE l.intent_id = late_truth.id AND l.event = 'late-report'
          AND l.id > coalesce((SELECT max(v.id) FROM writ.log v WHERE v.intent_id = late_truth.id
              AND v.event IN ('failed', 'happened', 'retry', 'give-up', 'cancel')), 0)
        ORDER BY (l.evidence ->> 'meaning' = 'contradicts') DESC NULLS LAST, l.id DESC LIMIT 1), '')
$$;
