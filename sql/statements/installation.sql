-- The installation as a whole: stopping it, and what is done after the database lost a part of its past.

-- name: Pause
SELECT writ.pause($1, $2, $3, $4);

-- name: Resume
SELECT writ.resume($1, $2, $3, $4);

-- name: OpenBreaker
SELECT writ.open_breaker($1, $2, $3, $4);

-- name: CloseBreaker
SELECT writ.close_breaker($1, $2, $3);

-- name: Kinds
-- All declared kinds with what holds them back, the live workers that take them, and what waits in their queue.
SELECT f.kind, f.queue, k.class, f.paused, coalesce(f.pause, ''), f.has_breaker, f.breaker, f.until, coalesce(f.why, ''),
    (SELECT count(*) FROM writ.workers w WHERE w.heartbeat_at + w.ttl > now() AND NOT w.draining AND f.kind = ANY (w.kinds)),
    (SELECT r.ready FROM writ.relay r WHERE r.queue = f.queue)
FROM writ.flow f JOIN writ.kinds k ON k.name = f.kind ORDER BY f.kind;

-- name: Quarantine
SELECT flagged, fenced, errors FROM writ.quarantine($1::timestamptz, $2::text, $3::text, $4::jsonb);

-- name: QuarantinedHere
-- Whether a quarantine was made in this very database, since it became the one that it is; and the time from then on.
SELECT (q).id IS NOT NULL, coalesce(extract(epoch FROM clock_timestamp() - (q).at), 0)::float8, coalesce((q).actor, '')
FROM (SELECT (SELECT l FROM writ.log l WHERE l.intent_id = '00000000-0000-0000-0000-000000000000' AND l.event = 'quarantined'
    AND l.evidence ->> 'fingerprint' = writ.fingerprint() ORDER BY l.id DESC LIMIT 1) AS q) t;
