-- Events: published through the outbox, received through the inbox.

-- name: Publish
SELECT writ.publish($1::text, $2::jsonb, $3::text, $4::uuid, $5::uuid, $6::uuid, $7::text)::text;

-- name: CauseOf
-- What a child of an intent inherits.
SELECT tid::text, coalesce(trace, '') FROM writ.intents WHERE id = $1::uuid;

-- name: Own
SELECT writ.own($1::text);

-- name: Owner
SELECT coalesce(application, '') FROM writ.settings;

-- name: DeclareSubscription
INSERT INTO writ.subscriptions AS s (name, event, queue) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET event = $2, queue = $3, declared_at = clock_timestamp() WHERE (s.event, s.queue) IS DISTINCT FROM ($2, $3);

-- name: InboxOpen
-- Whether anything may be settled here: in a copy that nobody adopted, or while all is paused, the messages wait.
SELECT writ.is_open();

-- name: InboxTake
-- Those that nobody has seen before, of arrays of subscription, source, event id; sorted, so that all wait in one order. Who
-- takes the same one at the same time is waited for, and finds it there if that commits.
INSERT INTO writ.inbox (subscription, source, event_id, settled_at)
SELECT subscription, source, event_id, clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::text[]) AS t (subscription, source, event_id) ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING
RETURNING subscription, source, event_id;

-- name: InboxRetake
-- The same for one that has failed so often ($4): nobody was faster, and no person has decided meanwhile.
UPDATE writ.inbox SET settled_at = clock_timestamp(), due_at = NULL, dead_at = NULL, headers = NULL, payload = NULL
WHERE subscription = $1 AND source = $2 AND event_id = $3 AND failures = $4 AND due_at IS NOT NULL
RETURNING subscription, source, event_id;

-- name: InboxFail
-- It failed for the first time ($4 = 0), or once more: kept here from now on, to be tried again after $8, or dead where $8 is null.
-- A repeat by the broker of what is kept already changes nothing.
INSERT INTO writ.inbox AS i (subscription, source, event_id, failures, last_error, headers, payload, due_at, dead_at)
SELECT $1, $2, $3, 1, $5, $6::jsonb, $7, clock_timestamp() + $8::interval, CASE WHEN $8::interval IS NULL THEN clock_timestamp() END
WHERE (SELECT writ.is_open())
ON CONFLICT (subscription, source, event_id) DO UPDATE SET failures = i.failures + 1, last_error = $5, due_at = excluded.due_at, dead_at = excluded.dead_at
WHERE i.due_at IS NOT NULL AND i.failures = $4::int AND $4::int > 0;

-- name: InboxDue
-- Those to be tried again, at most so many of each subscription; each is put off meanwhile ($3), in case its taker dies.
UPDATE writ.inbox i SET due_at = clock_timestamp() + $3::interval
WHERE i.ctid = ANY (ARRAY(
    SELECT d.ctid FROM unnest($1::text[], $2::int[]) AS s (subscription, most), LATERAL (
        SELECT b.ctid FROM writ.inbox b WHERE b.subscription = s.subscription AND b.due_at <= clock_timestamp()
        ORDER BY b.due_at LIMIT s.most FOR UPDATE SKIP LOCKED) d
    WHERE (SELECT writ.is_open())))
RETURNING i.subscription, i.source, i.event_id, i.failures, i.headers, i.payload;

-- name: InboxGiveBack
-- Those that their taker does not come to any more. Whoever has one locked has it, so it is left to them.
UPDATE writ.inbox SET due_at = clock_timestamp() WHERE ctid = ANY (ARRAY(
    SELECT i.ctid FROM unnest($1::text[], $2::text[], $3::text[], $4::int[]) AS t (subscription, source, event_id, failures)
    JOIN writ.inbox i USING (subscription, source, event_id, failures) WHERE i.due_at > clock_timestamp() FOR UPDATE OF i SKIP LOCKED));

-- name: InboxPrune
-- Settled ones are kept for as long as the broker might still repeat them.
DELETE FROM writ.inbox WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM writ.inbox WHERE settled_at < now() - $1::interval ORDER BY settled_at LIMIT $2::int FOR UPDATE SKIP LOCKED));

-- name: InboxCounts
-- Events that are not settled, by subscription and status, with the age of the oldest in seconds.
SELECT subscription, CASE WHEN dead_at IS NULL THEN 'retrying' ELSE 'dead' END, count(*), extract(epoch FROM clock_timestamp() - min(received_at))::float8
FROM writ.inbox WHERE due_at IS NOT NULL OR dead_at IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2;

-- name: Unsettled
SELECT CASE WHEN $6::boolean THEN to_jsonb(u) - '{headers,data}'::text[] ELSE to_jsonb(u) END FROM writ.unsettled u
WHERE ($1::text = '' OR subscription = $1) AND ($2::text = '' OR status = $2)
    AND ($4::text = '' OR split_part(subscription, '/', 2) = $4) AND ($5::text = '' OR writ.fingerprint(last_error) = writ.fingerprint($5))
ORDER BY received_at, subscription, event_id LIMIT $3::bigint;

-- name: DecideEvent
SELECT writ.decide_event($1, $2, $3, $4, $5, $6);

-- name: Tree
-- All intents of one transaction id, the oldest first. The root's own id is that of the transaction.
SELECT to_jsonb(s) FROM writ.status s
WHERE s.id = ANY (ARRAY(
    SELECT id FROM (
        SELECT id FROM writ.intents WHERE id = $1 AND tid = id
        UNION ALL SELECT id FROM writ.intents WHERE tid = $1 AND tid <> id) t ORDER BY id LIMIT $2))
ORDER BY s.requested_at, s.id;

-- name: TIDOf
SELECT tid FROM writ.intents WHERE id = $1;
