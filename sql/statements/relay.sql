-- The relay. All of these run in one short transaction that holds the row locks while the broker confirms.

-- name: RelayTake
-- Due rows from the low-water mark $1 up to $2. SKIP LOCKED: any number of relays share the outbox. Never «after the last
-- id seen»: rows commit out of order.
SELECT ctid, due_at, coalesce(intent_id, '00000000-0000-0000-0000-000000000000'), coalesce(epoch, 0), coalesce(kind, ''), coalesce(op, ''),
    coalesce(exchange, ''), coalesce(routing_key, ''), headers, payload
FROM writ.outbox
WHERE due_at >= $1::timestamptz AND due_at <= least(now(), $2::timestamptz) AND (SELECT writ.is_open())
ORDER BY due_at, oid
LIMIT $3::int
FOR UPDATE SKIP LOCKED;

-- name: RelayDelete
DELETE FROM writ.outbox WHERE ctid = ANY ($1::tid[]);

-- name: RelayDelay
-- Refused by the broker: kept, and tried again after 1 s doubling to 1 min, jittered.
UPDATE writ.outbox SET failures = failures + 1, last_error = $2::text,
    due_at = now() + least(60, 2 ^ least(failures, 10)) * (0.5 + random() / 2) * interval '1 s'
WHERE ctid = ANY ($1::tid[]);

-- name: RelayRoutes
-- The kinds with their queues, and the events that this database's application subscribes to, with a subscription of each.
SELECT name, queue, coalesce(run_ms, 0), '' FROM writ.kinds UNION ALL SELECT event, '', 0, name FROM writ.subscriptions;

-- name: RelayPeek
-- Whether anything is due, without taking it: what an idle relay asks.
SELECT EXISTS (SELECT FROM writ.outbox WHERE due_at <= now()) AND (SELECT writ.is_open());

-- name: RelayGlance
-- What is due, for workers of the relay's own process: without a lock or a promise.
SELECT oid, due_at, intent_id, epoch, kind, op FROM writ.outbox
WHERE due_at >= greatest($1::timestamptz, now() - interval '1 s') AND due_at <= now() AND op = 'run' AND num_nulls(intent_id, epoch, kind) = 0 AND (SELECT writ.is_open())
ORDER BY due_at, oid LIMIT $2::int;

-- name: RelayRevive
-- Kinds that have just been declared: their refused hints need not wait any longer.
UPDATE writ.outbox SET failures = 0, last_error = NULL, due_at = now() WHERE kind = ANY ($1::text[]) AND failures > 0;

-- name: RelaySeat
-- The one relay of a database that listens at the door; the others poll at leisure when nothing is to be done.
SELECT pg_try_advisory_lock(1465010516, 3);

-- name: RelaySleep
SELECT pg_try_advisory_lock(1465010516, 1);

-- name: RelayWake
SELECT pg_advisory_unlock(1465010516, 1);

-- name: RelayDepths
INSERT INTO writ.relay (queue, ready, seen_at) SELECT q, nullif(n, -1), clock_timestamp() FROM unnest($1::text[], $2::bigint[]) AS t (q, n)
ON CONFLICT (queue) DO UPDATE SET ready = excluded.ready, seen_at = excluded.seen_at;

-- name: OutboxAge
-- Rows still to be published that are due, and the age of the oldest in seconds.
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(due_at)), 0)::float8
FROM (SELECT due_at FROM writ.outbox WHERE due_at <= now() ORDER BY due_at LIMIT 100000) o;
