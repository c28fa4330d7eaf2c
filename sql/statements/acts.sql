-- What people do besides the four verbs: decide many at once, leave notes, and read afterwards who did what.

-- name: Note
SELECT writ.note($1::uuid, $2::text, $3::text);

-- name: BulkStart
SELECT to_jsonb(b) FROM writ.bulk_start($1::uuid, $2::text, $3::float8) b;

-- name: BulkStep
SELECT to_jsonb(b) FROM writ.bulk_step($1::uuid, $2::int) b;

-- name: BulkAbort
SELECT to_jsonb(b) FROM writ.bulk_abort($1::uuid, $2::text, $3::text) b;

-- name: Bulk
SELECT to_jsonb(b) FROM writ.bulks b WHERE b.id = $1::uuid;

-- name: Bulks
SELECT to_jsonb(b) FROM writ.bulks b ORDER BY b.id DESC LIMIT $1::int;

-- name: BulkPreview
-- What the frozen set is made of, as it stands now: by kind, status and reason of the flag, how many have moved since, and how
-- many a retry would need an override for. Where it changes arguments: of how many, and those of the example before and after.
SELECT s.kind, s.status, coalesce(s.flag_reason, ''), count(*), count(*) FILTER (WHERE s.state <> r.state OR s.epoch <> r.epoch),
    count(*) FILTER (WHERE b.verb = 'retry' AND b.override IS NULL AND (s.flagged_at IS NOT NULL OR s.state = 'error')
        AND writ.retry_danger(i) IS NOT NULL),
    (array_agg(s.id ORDER BY s.id))[1], count(*) FILTER (WHERE b.merge IS NOT NULL AND writ.merge_patch(i.args, b.merge) <> i.args),
    (array_agg(i.args ORDER BY s.id) FILTER (WHERE b.merge IS NOT NULL))[1],
    (array_agg(writ.merge_patch(i.args, b.merge) ORDER BY s.id) FILTER (WHERE b.merge IS NOT NULL))[1]
FROM writ.bulks b
JOIN writ.bulk_rows r ON r.bulk_id = b.id
JOIN writ.intents i ON i.id = r.intent_id
JOIN writ.status s ON s.id = r.intent_id
WHERE b.id = $1::uuid
GROUP BY 1, 2, 3 ORDER BY count(*) DESC, 1, 2, 3;

-- name: BulkResults
-- What became of the rows, like refusals together.
SELECT coalesce(result, 'to do'), coalesce(code, ''), coalesce(writ.fingerprint(message), ''), count(*), (array_agg(intent_id ORDER BY n))[1]
FROM writ.bulk_rows WHERE bulk_id = $1::uuid
GROUP BY 1, 2, 3 ORDER BY 1, count(*) DESC, 2, 3;

-- name: BulkRows
SELECT intent_id, state, epoch, at, coalesce(result, ''), coalesce(code, ''), coalesce(message, ''), now_at
FROM writ.bulk_rows WHERE bulk_id = $1::uuid ORDER BY n;

-- name: Audit
-- What people did, in the order in which it was written down. The condition on actors is that of the index log_acts.
SELECT id, at, intent_id, epoch, event, actor, db_user, coalesce(why, ''), evidence
FROM writ.log
WHERE actor NOT IN ('worker', 'reconciler', 'probe', 'application', 'relay')
  AND ($1::timestamptz IS NULL OR at >= $1::timestamptz) AND ($2::timestamptz IS NULL OR at < $2::timestamptz)
  AND ($3::text[] IS NULL OR actor = ANY ($3::text[])) AND ($4::uuid IS NULL OR intent_id = $4::uuid)
ORDER BY at, id;

-- name: KnownKinds
SELECT writ.known_kinds();

-- name: SyncKind
SELECT view, did FROM writ.sync_kind($1::text);

-- name: DeclareSchema
-- What a worker's code says of the arguments of a kind.
UPDATE writ.kinds SET schema = $2::jsonb WHERE name = $1 AND schema IS DISTINCT FROM $2::jsonb;
