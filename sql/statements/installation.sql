-- The installation as a whole: stopping it, and what is done after the database lost a part of its past.

-- name: Pause
SELECT writ.pause($1, $2, $3);

-- name: Resume
SELECT writ.resume($1, $2, $3);

-- name: Quarantine
SELECT flagged, fenced, errors FROM writ.quarantine($1::timestamptz, $2::text, $3::text, $4::jsonb);

-- name: QuarantinedHere
-- Whether a quarantine was made in this very database, since it became the one that it is; and the time from then on.
SELECT (q).id IS NOT NULL, coalesce(extract(epoch FROM clock_timestamp() - (q).at), 0)::float8, coalesce((q).actor, '')
FROM (SELECT (SELECT l FROM writ.log l WHERE l.intent_id = '00000000-0000-0000-0000-000000000000' AND l.event = 'quarantined'
    AND l.evidence ->> 'fingerprint' = writ.fingerprint() ORDER BY l.id DESC LIMIT 1) AS q) t;
