-- The tables of the protocol. Functions, triggers and views are not here: they live in ../sql and are applied
-- again whenever their text changes.

-- +goose Up

-- What a column may hold is said by its domain, and what ties columns together by the triggers, for all but the engine's own
-- statements: the server reads a CHECK of a table from its stored text in every statement that writes, which in a statement
-- of one row costs more than the row; a domain's it keeps in memory. Their names are what is read when they are violated.
CREATE DOMAIN writ.op      AS text        CONSTRAINT "run, probe or recover" CHECK (VALUE IN ('run', 'probe', 'recover'));
CREATE DOMAIN writ.gate    AS int         CONSTRAINT "not below 0" CHECK (VALUE >= 0);
CREATE DOMAIN writ.headers AS jsonb       CONSTRAINT "a JSON object" CHECK (jsonb_typeof(VALUE) = 'object');
-- What a worker must be able to read back: a row that it claims and cannot read would be held for ever.
CREATE DOMAIN writ.moment  AS timestamptz CONSTRAINT "a finite time, from 2000 up to the end of 9999"
    CHECK (VALUE BETWEEN '2000-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00');
CREATE DOMAIN writ.labels  AS text[]      CONSTRAINT "no null among them" CHECK (array_position(VALUE, NULL) IS NULL);

-- A kind's name. Where the database belongs to one application (writ.own), this domain refuses the tasks of others.
CREATE DOMAIN writ.task    AS text        COLLATE "C";

CREATE TABLE writ.intents (
    -- Fixed width and never null first: the server then knows where in the row they stand. Of the nullable ones those that
    -- a claim writes come first.
    id           uuid        PRIMARY KEY WITH (fillfactor = 50), -- the finished version has an entry of its own, beside the first
    tid          uuid        NOT NULL,              -- transaction id, shared by all that one root caused
    requested_at writ.moment NOT NULL DEFAULT now(),
    run_at       writ.moment NOT NULL DEFAULT now(),
    epoch        int         NOT NULL DEFAULT 0,    -- fencing token
    attempt      int         NOT NULL DEFAULT 0,
    generation   int         NOT NULL DEFAULT 0,    -- part of the idempotency key from 1 on
    args_version int         NOT NULL DEFAULT 1,
    probes       int         NOT NULL DEFAULT 0,
    requeues     int         NOT NULL DEFAULT 0,
    waiting_on   writ.gate   NOT NULL DEFAULT 0,    -- the one admission gate: 0 means it may be claimed
    state        text        NOT NULL DEFAULT 'pending', -- which there are, the triggers know
    kind         writ.task   NOT NULL,              -- "C", as all names of kinds and queues: their indexes compare bytes
    args         jsonb       NOT NULL DEFAULT '{}',
    event        text,                              -- set by every engine statement; null: written by hand
    worker_id    uuid,                              -- who claimed it last
    started_at   timestamptz,
    deadline_at  timestamptz,
    finished_at  timestamptz,
    failed_at    timestamptz,
    flagged_at   timestamptz,                       -- ambiguous since
    flag_reason  text,
    probe_at     timestamptz,                       -- a worker with the kind's code owes it a look: probe, or its share in a verdict
    parent_id    uuid,
    subjects     writ.labels,
    trace        text,
    progress     jsonb,
    result       jsonb,
    error        text,
    meta         jsonb
) WITH (
    -- Room for the claim's new version on the same page, so that pending → sending is a HOT update. A claimed row is wider
    -- than a created one: at 50 a page that is claimed at once runs over (84 to 90 % HOT), at 45 it does not.
    fillfactor = 45,
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05
);

-- No index and no index predicate names a column that a claim changes (state, event, epoch, attempt, worker_id,
-- started_at, deadline_at): a claim would otherwise touch every index.
CREATE INDEX intents_open     ON writ.intents (run_at, id)        WHERE finished_at IS NULL;
CREATE INDEX intents_failed   ON writ.intents (failed_at)         WHERE failed_at IS NOT NULL;
CREATE INDEX intents_flagged  ON writ.intents (flagged_at)        WHERE flagged_at IS NOT NULL;
CREATE INDEX intents_owed     ON writ.intents (probe_at)          WHERE probe_at IS NOT NULL;
-- Whole batches share a finishing time: merging their entries, page by page, costs more than it saves.
CREATE INDEX intents_done     ON writ.intents (kind, finished_at) WITH (deduplicate_items = off) WHERE finished_at IS NOT NULL;
CREATE INDEX intents_tid      ON writ.intents (tid)               WHERE tid <> id;
CREATE INDEX intents_subjects ON writ.intents USING gin (subjects) WHERE subjects IS NOT NULL;

-- A row is here exactly while something is still to be published; it is also the timer.
CREATE TABLE writ.outbox (
    oid         bigint      GENERATED ALWAYS AS IDENTITY,
    due_at      writ.moment NOT NULL,
    intent_id   uuid,
    epoch       int,
    kind        text        COLLATE "C",
    op          writ.op,                            -- run, probe, recover: a hint. Null: an event
    exchange    text,
    routing_key text,
    headers     writ.headers,
    payload     bytea,
    failures    int         NOT NULL DEFAULT 0,     -- returned or refused by the broker so often
    last_error  text,
    PRIMARY KEY (due_at, oid)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX outbox_intent ON writ.outbox (intent_id);

-- One row a worker process: liveness belongs to workers, not to intents.
CREATE TABLE writ.workers (
    id           uuid        PRIMARY KEY,           -- new at each start, never used again
    host         text        NOT NULL,
    pid          int         NOT NULL,
    version      text        NOT NULL,
    kinds        text[]      NOT NULL,
    classes      text[],                            -- of which class it holds each of its kinds; null: an older release, then as declared
    slots        int         NOT NULL,
    running      int         NOT NULL DEFAULT 0,
    stuck        int         NOT NULL DEFAULT 0,    -- handlers past their deadline that have not returned
    ttl          interval    NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    swept_at     timestamptz,                       -- found dead, and all that it held was looked at
    draining     boolean     NOT NULL DEFAULT false
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- The one home of what is known about a kind. Workers write it; the relay, the reconciler and people read it.
CREATE TABLE writ.kinds (
    name                text             COLLATE "C" PRIMARY KEY,
    queue               text             COLLATE "C" NOT NULL,
    class               text             NOT NULL CHECK (class IN ('idempotent', 'probed', 'manual')),
    timeout             interval         NOT NULL DEFAULT '60 s',
    settle              interval         NOT NULL DEFAULT '30 s',
    max_attempts        int              NOT NULL DEFAULT 10 CHECK (max_attempts > 0),
    backoff_min         interval         NOT NULL DEFAULT '1 s',
    backoff_max         interval         NOT NULL DEFAULT '1 h',
    backoff_factor      double precision NOT NULL DEFAULT 2,
    retention_sent      interval         DEFAULT '7 days',   -- null: for ever
    retention_error     interval,
    retention_cancelled interval         DEFAULT '30 days',
    max_args            int              NOT NULL DEFAULT 65536,
    args_version        int              NOT NULL DEFAULT 1,
    schema              jsonb,
    recovers            boolean          NOT NULL DEFAULT false, -- has a recovery function (OnError)
    completes           boolean          NOT NULL DEFAULT false, -- has one for what a verdict says was done (OnHappened)
    max_probes          int              NOT NULL DEFAULT 5 CHECK (max_probes > 0), -- so often unknown, then a person
    run_ms              double precision,                        -- typical run, as the workers measured it
    breaker             jsonb,                                   -- what its code declares; null: none
    paused_at           timestamptz,
    paused_by           text,
    paused_why          text,
    opened_at           timestamptz,                             -- a pause or a breaker of it ended then
    declared_at         timestamptz      NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70);

-- Pauses of whole queues.
CREATE TABLE writ.queues (
    name       text        COLLATE "C" PRIMARY KEY,
    paused_at  timestamptz,
    paused_by  text,
    paused_why text
);

-- The circuit breakers of kinds, one each for all workers together. No row: closed, and never opened. See ../sql/flow.sql.
CREATE TABLE writ.breakers (
    kind        text        COLLATE "C" PRIMARY KEY,
    state       text        NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open', 'half-open')),
    generation  int         NOT NULL DEFAULT 0,     -- +1 with each change: what was begun before it is not counted
    trips       int         NOT NULL DEFAULT 0,     -- opened so often since it was last closed
    until       timestamptz,                        -- open: nothing is tried before
    holder      uuid,                               -- half-open: the worker that may try one intent,
    lease_until timestamptz,                        -- until then, unless it says so again
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by  text        NOT NULL DEFAULT 'worker',
    why         text,
    CONSTRAINT breakers_shape CHECK ((state = 'open') = (until IS NOT NULL) AND (state = 'half-open') = (num_nonnulls(holder, lease_until) = 2))
) WITH (fillfactor = 50);

-- How attempts of kinds with a closed breaker ended lately, as the workers counted them.
CREATE TABLE writ.breaker_counts (
    kind     text   COLLATE "C" NOT NULL,
    slot     bigint NOT NULL,                       -- of a tenth of the window
    calls    int    NOT NULL,
    failures int    NOT NULL,
    PRIMARY KEY (kind, slot)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Everything off the happy path. Append-only.
CREATE TABLE writ.log (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    intent_id uuid        NOT NULL,
    epoch     int         NOT NULL,
    event     text        NOT NULL,
    actor     text        NOT NULL,
    db_user   text        NOT NULL DEFAULT session_user,
    worker_id uuid,
    why       text,
    evidence  jsonb
);
CREATE INDEX log_intent ON writ.log (intent_id, id);
-- What people did, for the audit: few rows, however much the engine writes.
CREATE INDEX log_acts   ON writ.log (at, id) WHERE actor NOT IN ('worker', 'reconciler', 'probe', 'application', 'relay');

-- A decision on many intents at once: frozen when it is planned, then carried out step by step. See ../sql/bulk.sql.
CREATE TABLE writ.bulks (
    id          uuid             PRIMARY KEY,
    verb        text             NOT NULL CHECK (verb IN ('happened', 'retry', 'give-up', 'cancel')),
    actor       text             NOT NULL,
    db_user     text             NOT NULL DEFAULT session_user,
    why         text             NOT NULL,
    evidence    jsonb,
    override    text,
    new_key     boolean          NOT NULL DEFAULT false,
    merge       jsonb,                              -- a retry with changed arguments: the patch for all of them
    filter      jsonb,                              -- what was asked for, for people; the rows are what counts
    total       int              NOT NULL,
    done        int              NOT NULL DEFAULT 0,
    refused     int              NOT NULL DEFAULT 0,
    rate        double precision CHECK (rate > 0),  -- rows a second, over all who carry it out; null: no limit
    next_at     timestamptz,                        -- not before, by that rate
    planned_at  timestamptz      NOT NULL DEFAULT clock_timestamp(),
    started_at  timestamptz,
    stepped_at  timestamptz,
    ended_at    timestamptz,                        -- each row has its result
    aborted_at  timestamptz,
    aborted_by  text,
    aborted_why text
) WITH (fillfactor = 50);

-- The frozen set: each row with the position that was seen, later with its result.
CREATE TABLE writ.bulk_rows (
    bulk_id   uuid  NOT NULL REFERENCES writ.bulks ON DELETE CASCADE,
    n         int   NOT NULL,
    intent_id uuid  NOT NULL,
    state     text  NOT NULL,
    epoch     int   NOT NULL,
    tries     int   NOT NULL DEFAULT 0,             -- so often its row was locked by somebody
    at        timestamptz,
    result    text  CHECK (result IN ('done', 'refused')),
    code      text,                                 -- of a refusal: SQLSTATE
    message   text,
    now_at    jsonb,                                -- of one that had moved: where it is now
    PRIMARY KEY (bulk_id, n),
    CONSTRAINT bulk_rows_result CHECK ((at IS NULL) = (result IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX bulk_rows_open ON writ.bulk_rows (bulk_id, tries, n) WHERE at IS NULL;

-- Creation keys: the second creation under a key gets the first one's intent.
CREATE TABLE writ.keys (
    kind      text COLLATE "C" NOT NULL,
    key       text NOT NULL,
    intent_id uuid NOT NULL,
    PRIMARY KEY (kind, key)
);
CREATE INDEX keys_intent ON writ.keys (intent_id);

-- The subscriptions that workers' code declares.
CREATE TABLE writ.subscriptions (
    name        text        COLLATE "C" PRIMARY KEY, -- application/event/name
    event       text        COLLATE "C" NOT NULL,
    queue       text        COLLATE "C" NOT NULL,    -- the broker's name
    declared_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What became of each event, once per subscription however often the broker repeats it. Written in the transaction that
-- creates its intents; only what failed is kept whole, to be tried again from here.
CREATE TABLE writ.inbox (
    subscription text        COLLATE "C" NOT NULL,
    source       text        COLLATE "C" NOT NULL,  -- who published it, and its id there
    event_id     text        COLLATE "C" NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at   timestamptz,                       -- its intents are created, or a person dropped it
    due_at       timestamptz,                       -- of the next try; null: settled, or dead
    dead_at      timestamptz,                       -- no more tries: a person decides
    failures     int         NOT NULL DEFAULT 0,
    last_error   text,
    headers      jsonb,                             -- of the message, while it is not settled
    payload      bytea,
    PRIMARY KEY (subscription, source, event_id),
    CONSTRAINT inbox_shape CHECK (num_nonnulls(settled_at, due_at, dead_at) = 1)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);
CREATE INDEX inbox_due     ON writ.inbox (subscription, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX inbox_dead    ON writ.inbox (dead_at)              WHERE dead_at IS NOT NULL;
CREATE INDEX inbox_settled ON writ.inbox (settled_at)           WHERE settled_at IS NOT NULL;

-- How often, and how many at once, over all worker processes: of a kind as a whole, and of each key within it. What a
-- person says counts before what the workers' code declares. See ../sql/limits.sql.
CREATE TABLE writ.limits (
    kind    text        COLLATE "C" NOT NULL,
    per     text        NOT NULL CHECK (per IN ('kind', 'key')),
    source  text        NOT NULL CHECK (source IN ('code', 'person')),
    key     text,                                   -- where the key stands: args.customer_id, subject:customer
    starts  int         CHECK (starts > 0),         -- so many in a period; null: any number
    period  interval    NOT NULL DEFAULT '1 s',
    burst   int         NOT NULL DEFAULT 1 CHECK (burst > 0), -- so many at once after a rest
    running int         CHECK (running > 0),        -- so many at once; null: any number
    set_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    set_by  text,
    set_why text,
    PRIMARY KEY (kind, per, source),
    CONSTRAINT limits_key CHECK ((per = 'key') = (key IS NOT NULL))
);

-- When the next token of a limit comes due. No row: at once. The key is * for the kind as a whole, else = and the key.
CREATE TABLE writ.tokens (
    kind    text        COLLATE "C" NOT NULL,
    key     text        COLLATE "C" NOT NULL,
    next_at timestamptz NOT NULL,
    line_at timestamptz,                            -- the end of the line of hints that were put back to wait for it
    lined_at timestamptz,                           -- the youngest intent in it: run_at and id
    lined_id uuid,
    PRIMARY KEY (kind, key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The places that each worker process holds or waits for, where only so many may run at once.
CREATE TABLE writ.places (
    kind      text        COLLATE "C" NOT NULL,
    key       text        COLLATE "C" NOT NULL,     -- as in tokens
    worker_id uuid        NOT NULL,
    held      int         NOT NULL,
    wants     int         NOT NULL,
    since     timestamptz NOT NULL,                 -- in the line of those that want some
    seen_at   timestamptz NOT NULL,
    turn      bigint      NOT NULL,                 -- of the process: what it said earlier must not overtake what it said later
    PRIMARY KEY (kind, key, worker_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Who this installation is, and the database that it lives in. One row.
CREATE TABLE writ.settings (
    one           boolean     PRIMARY KEY DEFAULT true CHECK (one),
    installation  uuid        NOT NULL DEFAULT gen_random_uuid(),
    application   text,                             -- whose tasks are the only ones here; null: nobody said so
    fingerprint   text        NOT NULL,             -- system identifier, timeline and database when last adopted
    installed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    adopted_at    timestamptz,
    adopted_by    text,
    paused_at     timestamptz,
    paused_by     text,
    paused_why    text,
    quarantining  boolean     NOT NULL DEFAULT false, -- true only within the transaction of a quarantine
    least_schema  int         NOT NULL DEFAULT 1    -- binaries of an older schema may not work here: a migration took away what they need
);

-- Queue depths as the relay last saw them.
CREATE TABLE writ.relay (
    queue   text        COLLATE "C" PRIMARY KEY,
    ready   bigint,                                 -- null: no such queue
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- A lease elects one reconciler; that is only an optimisation.
CREATE TABLE writ.leader (
    name       text        PRIMARY KEY,
    holder     uuid        NOT NULL,
    renewed_at timestamptz NOT NULL,
    ttl        interval    NOT NULL
) WITH (fillfactor = 50);

-- When the reconciler's rarer duties were last done to their end, by the clock of who did them: whoever takes the lease
-- over knows by it what was missed.
CREATE TABLE writ.duties (
    name    text        PRIMARY KEY,
    done_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The files of ../sql as last applied.
CREATE TABLE writ.repeatable (
    name       text        PRIMARY KEY,
    hash       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- +goose Down
DROP TABLE writ.places, writ.tokens, writ.limits, writ.breaker_counts, writ.breakers, writ.queues, writ.inbox, writ.subscriptions, writ.bulk_rows, writ.bulks, writ.repeatable, writ.duties, writ.leader, writ.relay, writ.settings, writ.keys, writ.log, writ.kinds, writ.workers, writ.outbox, writ.intents;
DROP DOMAIN writ.op, writ.gate, writ.headers, writ.moment, writ.labels, writ.task;
