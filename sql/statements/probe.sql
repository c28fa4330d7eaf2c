-- Probes. What an answer does is in probe.sql; here is how a worker takes an asking, and how lost hints come again.

-- name: TakeProbe
-- Takes the asking of a flagged row whose time has come, for as long as the probe may take ($4); a doubled hint finds it
-- taken. If the worker dies the asking is due again when that time is over. The conditions on flag and time are written so
-- that only the primary key leads to the row: by the index of the flagged ones it would be read among all that wait.
UPDATE writ.intents i SET probe_at = now() + $4::interval, requeues = 0
WHERE i.id = $1 AND i.epoch = $2 AND i.kind = $3 AND i.state = 'sending' AND coalesce(i.flagged_at, 'infinity') < 'infinity'
  AND coalesce(i.probe_at, 'infinity') <= now() AND i.flag_reason IS DISTINCT FROM 'hook-failed' AND (SELECT writ.is_open())
RETURNING i.id, i.kind, i.epoch, i.attempt, i.generation, i.args, i.args_version, i.tid, i.parent_id, i.subjects, i.requested_at, i.trace, i.meta,
    coalesce(i.started_at, i.flagged_at), coalesce(i.deadline_at, i.flagged_at), i.flagged_at, coalesce(i.flag_reason, ''), coalesce(i.error, ''),
    i.probe_at, i.probes, clock_timestamp(), coalesce(writ.probe_danger(i), '');

-- name: AnswerProbe
SELECT writ.probed($1::uuid, $2::int, $3::timestamptz, $4::timestamptz, $5::text, $6::timestamptz, $7::interval, $8::interval, $9::interval,
    $10::uuid, $11::text, $12::jsonb, $13::text);

-- name: ProbesDue
-- Flagged rows whose asking is overdue: the hint was lost, or the worker that took it. They get another hint; the spacing
-- doubles up to 43 min (2,560 s), so that hints do not pile up while no worker of the kind lives. probe_at stays: any of the hints will do.
WITH u AS (
    UPDATE writ.intents i SET requeues = greatest(i.requeues, CASE WHEN now() - i.probe_at < interval '2560 s'
            THEN floor(log(2, (extract(epoch FROM now() - i.probe_at) / 10)::numeric)) ELSE 7 + floor(extract(epoch FROM now() - i.probe_at) / 2560) END)::int + 1
    WHERE i.ctid = ANY (ARRAY(
        SELECT c.ctid FROM writ.intents c
        WHERE c.probe_at < now() - interval '10 s' AND c.state = 'sending' AND c.flagged_at IS NOT NULL
          AND now() - c.probe_at > interval '10 s' * (2 ^ least(c.requeues, 8)) + interval '2560 s' * greatest(c.requeues - 8, 0) AND c.flag_reason IS DISTINCT FROM 'hook-failed'
          AND c.kind IN (SELECT a.name FROM writ.askable a) AND c.kind NOT IN (SELECT f.kind FROM writ.flow f WHERE f.paused OR f.breaker <> 'closed')
        ORDER BY c.probe_at LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED))
    RETURNING i.id, i.kind, i.epoch
), o AS (
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT clock_timestamp(), kind, id, epoch, 'probe' FROM u
)
SELECT id, kind, epoch FROM u;

-- name: ProbesMissing
-- Flagged rows of probed kinds that no asking is planned for, and that may still be asked about: flagged by hand, or before
-- their kind had a probe. Not those whose handler said done, and only its hook failed: that is known.
WITH u AS (
    UPDATE writ.intents i SET probe_at = now(), requeues = 0
    WHERE i.ctid = ANY (ARRAY(
        SELECT c.ctid FROM writ.intents c
        WHERE c.flagged_at IS NOT NULL AND c.state = 'sending' AND c.probe_at IS NULL AND c.flag_reason IS DISTINCT FROM 'hook-failed'
          AND (c.flag_reason IS DISTINCT FROM 'unwritten' OR NOT EXISTS (SELECT FROM writ.workers w WHERE w.id = c.worker_id AND w.swept_at IS NULL))
          AND c.kind IN (SELECT a.name FROM writ.askable a) AND EXISTS (SELECT FROM writ.kinds k WHERE k.name = c.kind AND c.probes < k.max_probes)
          AND c.kind NOT IN (SELECT f.kind FROM writ.flow f WHERE f.paused OR f.breaker <> 'closed')
        ORDER BY c.flagged_at LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED))
    RETURNING i.id, i.kind, i.epoch
), o AS (
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT now(), kind, id, epoch, 'probe' FROM u
)
SELECT id, kind, epoch FROM u;
