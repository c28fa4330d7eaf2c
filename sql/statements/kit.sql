-- For package intent/intenttest, on test databases only.

-- name: KitCreated
-- What was created of a kind ($1), and, where $2 is true, in this very transaction: now() is when that began. Their
-- arguments are compared with $3 by the server, as jsonb. As text, which every driver reads.
SELECT jsonb_build_object('id', i.id, 'args', i.args, 'same', i.args = $3::text::jsonb, 'key', (SELECT k.key FROM writ.keys k WHERE k.intent_id = i.id),
    'subjects', i.subjects, 'run_at', i.run_at, 'tid', i.tid, 'parent', i.parent_id, 'trace', i.trace, 'meta', i.meta)::text
FROM writ.intents i WHERE i.kind = $1::text AND ($2::boolean IS NOT TRUE OR i.requested_at = now()) ORDER BY i.id;

-- name: KitElapse
-- Lets time pass ($1) for all that is open, by moving its times back.
WITH pending AS (
    UPDATE writ.intents SET run_at = run_at - $1::interval WHERE state = 'pending' AND run_at > now()
), sending AS (
    UPDATE writ.intents SET started_at = started_at - $1::interval, deadline_at = deadline_at - $1::interval,
        flagged_at = flagged_at - $1::interval, probe_at = probe_at - $1::interval
    WHERE state = 'sending'
), owed AS (
    UPDATE writ.intents SET probe_at = probe_at - $1::interval WHERE state IN ('error', 'sent') AND probe_at IS NOT NULL
)
-- Hints of rows that are moved come with them, by their trigger; any others, moot ones among them, are moved here.
UPDATE writ.outbox o SET due_at = due_at - $1::interval
WHERE due_at > now() AND op IS NOT NULL AND NOT EXISTS (SELECT FROM writ.intents i WHERE i.id = o.intent_id AND i.state = 'pending' AND i.run_at > now());

-- name: KitNext
-- How long until the next hint of these kinds ($1) is due; null: there is none.
SELECT CASE WHEN count(*) > 0 THEN greatest(min(due_at) - clock_timestamp(), '0') END FROM writ.outbox WHERE op IS NOT NULL AND kind = ANY ($1::text[]);

-- name: KitTake
-- Takes the due hints of these kinds ($1), as the relay does.
WITH due AS (
    DELETE FROM writ.outbox WHERE due_at <= clock_timestamp() AND op IS NOT NULL AND kind = ANY ($1::text[])
    RETURNING due_at, oid, intent_id, epoch, kind, op
)
SELECT intent_id, epoch, kind, op FROM due ORDER BY due_at, oid;
