-- Creating by hand: INSERT INTO writ.intents (kind, args) VALUES (…) from psql or any language is safe. The Go path
-- names its event, writes intent, outbox row and doorbell in one statement, and fires no trigger.

-- A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random bits.
CREATE OR REPLACE FUNCTION writ.uuid_v7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
        52, 1), 53, 1), 'hex')::uuid
$$;
ALTER TABLE writ.intents ALTER COLUMN id SET DEFAULT writ.uuid_v7();

-- Wakes a relay that is asleep, at commit. Asleep means that it holds this advisory lock exclusively; whoever gets the
-- shared lock instead knows that every relay polls again after this transaction has ended, and rings nobody, because
-- NOTIFY serialises all commits of the cluster.
CREATE OR REPLACE FUNCTION writ.ring() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared(1465010516, 1) THEN
        PERFORM pg_notify('writ_outbox', '');
    END IF;
END $$;

-- The format of a kind's name, in one place for SQL; package intent has the same rule for Go, and a test compares them.
CREATE OR REPLACE FUNCTION writ.is_kind_name(name text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT length(name) <= 100 AND name ~ '^[a-z][a-z0-9_-]*\.[a-z][a-z0-9_-]*\.[a-z][a-z0-9_-]*$'
$$;

-- A time that every reader can take: finite, and of four digits in any time zone (JSON has no others).
CREATE OR REPLACE FUNCTION writ.is_time(t timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT t >= '2000-01-01 00:00:00+00' AND t < '9999-12-31 00:00:00+00'
$$;

-- What something inherits from what caused it: the parent that it names, else the one of this transaction (writ.inherit).
CREATE OR REPLACE FUNCTION writ.cause(parent uuid DEFAULT NULL) RETURNS TABLE (tid uuid, parent uuid, trace text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(p.tid, CASE WHEN cause.parent IS NULL OR cause.parent = s.parent THEN s.tid END), coalesce(cause.parent, s.parent),
        coalesce(p.trace, CASE WHEN cause.parent IS NULL OR cause.parent = s.parent THEN s.trace END)
    FROM (SELECT nullif(current_setting('writ.tid', true), '')::uuid AS tid, nullif(current_setting('writ.parent', true), '')::uuid AS parent,
            nullif(current_setting('writ.trace', true), '') AS trace) s
    LEFT JOIN writ.intents p ON p.id = cause.parent
$$;

-- All that this transaction creates or publishes by SQL from here on is caused by an intent: it inherits its transaction id
-- and trace, and has it as its parent. Where there is no such intent, by its id alone.
CREATE OR REPLACE FUNCTION writ.inherit(parent uuid) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT set_config('writ.parent', inherit.parent::text, true), set_config('writ.tid', coalesce(i.tid, inherit.parent)::text, true),
        set_config('writ.trace', coalesce(i.trace, ''), true)
    FROM (SELECT) one LEFT JOIN writ.intents i ON i.id = inherit.parent
$$;

CREATE OR REPLACE FUNCTION writ.intents_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most int;
BEGIN
    IF NEW.state <> 'pending' OR NEW.epoch <> 0 OR NEW.attempt <> 0 OR NEW.flagged_at IS NOT NULL THEN
        RAISE EXCEPTION 'writ: an intent is created pending, unflagged, with epoch 0 and attempt 0; got state %, epoch %, attempt %',
            NEW.state, NEW.epoch, NEW.attempt USING ERRCODE = 'WR003';
    END IF;
    IF NEW.event IS NOT NULL THEN
        RAISE EXCEPTION 'writ: an intent is not created with event %', NEW.event
            USING ERRCODE = 'WR003', HINT = 'Leave the event column alone; the database fills it in.';
    END IF;
    IF NOT writ.is_kind_name(NEW.kind) THEN
        RAISE EXCEPTION 'writ: kind "%" is malformed', NEW.kind USING ERRCODE = 'WR005',
            HINT = 'A kind is application.model.verb in lower case, like blog.comment.notify, at most 100 bytes.';
    END IF;
    most := coalesce((SELECT max_args FROM writ.kinds WHERE name = NEW.kind), 65536);
    IF octet_length(NEW.args::text) > most THEN
        RAISE EXCEPTION 'writ: args of % have % bytes, the limit is %', NEW.kind, octet_length(NEW.args::text), most
            USING ERRCODE = 'WR005', HINT = 'Keep large data in a table of your own and pass its id.';
    END IF;
    IF NOT writ.is_time(NEW.run_at) OR NOT writ.is_time(NEW.requested_at) THEN
        RAISE EXCEPTION 'writ: run_at and requested_at of % must be finite times, from 2000 up to the end of 9999', NEW.kind
            USING ERRCODE = 'WR005';
    END IF;
    IF NEW.finished_at IS NOT NULL OR NEW.failed_at IS NOT NULL THEN
        RAISE EXCEPTION 'writ: an intent is not created with a time at which it ended' USING ERRCODE = 'WR003';
    END IF;
    IF NEW.tid IS NULL THEN
        SELECT tid, parent, coalesce(NEW.trace, trace) INTO NEW.tid, NEW.parent_id, NEW.trace FROM writ.cause(NEW.parent_id);
        NEW.tid := coalesce(NEW.tid, NEW.id);
    END IF;
    -- One that an ON CONFLICT DO NOTHING then leaves out has a hint too: that costs a message, and does nothing.
    IF NEW.waiting_on = 0 THEN
        INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
        VALUES (greatest(NEW.run_at, clock_timestamp()), NEW.kind, NEW.id, NEW.epoch, 'run');
        PERFORM writ.ring();
    END IF;
    RETURN NEW;
END $$;

-- One trigger, with a short condition: the server reads it from its stored text in every statement that inserts. Creators
-- may not write epoch and attempt.
CREATE OR REPLACE TRIGGER intents_inserted BEFORE INSERT ON writ.intents FOR EACH ROW
    WHEN ((NEW.event || ' ' || NEW.state = 'requested pending') IS NOT TRUE) -- the Go path
    EXECUTE FUNCTION writ.intents_inserted();
