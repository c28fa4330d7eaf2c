-- Creating an intent: row, outbox row and doorbell in one statement of the caller's own transaction.

-- name: CreateFresh
-- One whose id was made here, this moment, so that nobody can have used it; one that is there all the same is an error. It
-- saves the server's search for a conflict and its insertion in two steps. The lock test is the doorbell: see writ.ring in
-- create.sql; written out here because this is the hottest statement of an application. It rings with the hint itself, for
-- workers that live in the relay's process; only once a transaction, for rings that say different things are not taken for one.
WITH o AS (
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
    VALUES (greatest($8::timestamptz, clock_timestamp()), $4::text, $1::uuid, 0, 'run')
)
INSERT INTO writ.intents (id, tid, parent_id, kind, event, args, args_version, subjects, run_at, trace, meta)
VALUES ($1::uuid, $2::uuid, $3::uuid, $4::text, 'requested', $5::jsonb, $6::int, $7::text[], coalesce($8::timestamptz, now()), $9::text, $10::jsonb)
RETURNING id::text, CASE WHEN run_at > now() OR pg_try_advisory_xact_lock_shared(1465010516, 1) THEN ''
    WHEN current_setting('writ.rung', true) = 'once' THEN pg_notify('writ_outbox', '')::text
    ELSE pg_notify('writ_outbox', id::text || ' ' || kind)::text || left(set_config('writ.rung', 'once', true), 0) END;

-- name: Create
-- The same for an id that may exist: one row if it was created, none if it was there.
WITH i AS (
    INSERT INTO writ.intents (id, tid, parent_id, kind, event, args, args_version, subjects, run_at, trace, meta)
    VALUES ($1::uuid, $2::uuid, $3::uuid, $4::text, 'requested', $5::jsonb, $6::int, $7::text[], coalesce($8::timestamptz, now()), $9::text, $10::jsonb)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, kind, run_at
), o AS (
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
    SELECT greatest(run_at, clock_timestamp()), kind, id, 0, 'run' FROM i
)
SELECT id::text, CASE WHEN run_at > now() OR pg_try_advisory_xact_lock_shared(1465010516, 1) THEN ''
    WHEN current_setting('writ.rung', true) = 'once' THEN pg_notify('writ_outbox', '')::text
    ELSE pg_notify('writ_outbox', id::text || ' ' || kind)::text || left(set_config('writ.rung', 'once', true), 0) END
FROM i;

-- name: CreateMany
-- The same for arrays, with creation keys (null: none). Returns the ids that were created. A key that another
-- transaction is inserting right now is waited for.
WITH new AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::int[], $7::text[], $8::timestamptz[], $9::text[], $10::text[], $11::text[])
        WITH ORDINALITY AS t (id, tid, parent_id, kind, args, args_version, subjects, run_at, trace, meta, key, n)
), k AS (
    INSERT INTO writ.keys (kind, key, intent_id) SELECT kind, key, id FROM new WHERE key IS NOT NULL
    ORDER BY kind, key, n -- creators with the same keys wait for each other in one order
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING intent_id
), i AS (
    INSERT INTO writ.intents (id, tid, parent_id, kind, event, args, args_version, subjects, run_at, trace, meta)
    SELECT id, tid, parent_id, kind, 'requested', args::jsonb, args_version, subjects::text[], coalesce(run_at, now()), trace, meta::jsonb
    FROM new WHERE key IS NULL OR id IN (SELECT intent_id FROM k)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, kind, run_at
), o AS (
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
    SELECT greatest(run_at, clock_timestamp()), kind, id, 0, 'run' FROM i
), bell AS MATERIALIZED (
    SELECT CASE WHEN pg_try_advisory_xact_lock_shared(1465010516, 1) THEN '' ELSE pg_notify('writ_outbox', '')::text END AS rung
    WHERE EXISTS (SELECT FROM i WHERE run_at <= now())
)
SELECT id::text, coalesce((SELECT rung FROM bell), '') FROM i;

-- name: CreateManyFresh
-- For ids that were made here, this moment, and have no creation keys: all of them, or an error. Nothing is looked for and
-- nothing told back, but for the bell.
WITH i AS (
    INSERT INTO writ.intents (id, tid, parent_id, kind, event, args, args_version, subjects, run_at, trace, meta)
    SELECT id, tid, parent_id, kind, 'requested', args::jsonb, args_version, subjects::text[], coalesce(run_at, now()), trace, meta::jsonb
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::int[], $7::text[], $8::timestamptz[], $9::text[], $10::text[])
        AS t (id, tid, parent_id, kind, args, args_version, subjects, run_at, trace, meta)
), o AS (
    INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
    SELECT greatest(run_at, clock_timestamp()), kind, id, 0, 'run' FROM unnest($1::uuid[], $4::text[], $8::timestamptz[]) AS t (id, kind, run_at)
)
SELECT CASE WHEN pg_try_advisory_xact_lock_shared(1465010516, 1) THEN '' ELSE pg_notify('writ_outbox', '')::text END
WHERE EXISTS (SELECT FROM unnest($8::timestamptz[]) AS t (run_at) WHERE run_at IS NULL OR run_at <= now());

-- name: FindByID
-- Whether an id that exists is the same request: a creation repeated after an unknown commit.
SELECT i.id::text, i.kind = $2::text AND writ.same_args(i, $3::jsonb) FROM writ.intents i WHERE i.id = $1::uuid;

-- name: FindByKey
SELECT i.id::text, writ.same_args(i, $3::jsonb) FROM writ.keys k JOIN writ.intents i ON i.id = k.intent_id
WHERE k.key = $1::text AND k.kind = $2::text;
