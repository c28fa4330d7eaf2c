-- Which database this is. A copy (another cluster, a promoted standby's timeline, another database of the same
-- cluster) has another fingerprint than the one that was adopted, and nothing runs on it until a person adopts it:
-- a staging copy must not send production's mail. Fails on a standby on purpose: nothing is decided there.
CREATE OR REPLACE FUNCTION writ.fingerprint() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('%s/%s/%s',
        (SELECT system_identifier FROM pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8),
        (SELECT oid FROM pg_database WHERE datname = current_database()))
$$;

-- True when work may be done here: the database is the adopted one and nobody paused the installation. Called once a
-- statement by claims, by the relay and by the reconciler, so a failover to a copy, which has another timeline, stops them at
-- the very next statement. The system identifier is read once a session (writ.cluster), for a session cannot change its
-- cluster, and reading it takes a lock that the server holds while it makes a new WAL file, for a tenth of a second at times.
-- The database's oid stands in the path of its files, which costs no look into a table.
-- PL/pgSQL keeps the plan; a function in SQL would be parsed and planned in each statement.
CREATE OR REPLACE FUNCTION writ.is_open() RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF coalesce(current_setting('writ.cluster', true), '') = '' THEN
        PERFORM set_config('writ.cluster', split_part(writ.fingerprint(), '/', 1), false);
    END IF;
    RETURN (SELECT paused_at IS NULL
        AND split_part(fingerprint, '/', 1) = current_setting('writ.cluster')
        AND split_part(fingerprint, '/', 2) = left(pg_walfile_name(pg_current_wal_lsn()), 8)
        AND split_part(fingerprint, '/', 3) = split_part(pg_relation_filepath('writ.settings'), '/', -2)
    FROM writ.settings);
END $$;

-- True where this database is the adopted one, paused or not; else it raises WR006. What workers report goes through it: an outcome
-- that a copy accepted before its quarantine would look like its own past. They repeat it until somebody adopts the copy, and
-- then it counts, or is a late report where a quarantine has moved the epoch.
CREATE OR REPLACE FUNCTION writ.check_adopted() RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF coalesce(current_setting('writ.cluster', true), '') = '' THEN
        PERFORM set_config('writ.cluster', split_part(writ.fingerprint(), '/', 1), false);
    END IF;
    IF EXISTS (SELECT FROM writ.settings
        WHERE split_part(fingerprint, '/', 1) = current_setting('writ.cluster')
          AND split_part(fingerprint, '/', 2) = left(pg_walfile_name(pg_current_wal_lsn()), 8)
          AND split_part(fingerprint, '/', 3) = split_part(pg_relation_filepath('writ.settings'), '/', -2)) THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION 'writ: this database is a copy that nobody adopted, and takes no reports' USING ERRCODE = 'WR006',
        HINT = 'If it is the real one now: writ adopt --help says what to do.';
END $$;

-- Declares this database to be the real one. A pause goes on: writ.resume ends it.
CREATE OR REPLACE FUNCTION writ.adopt(actor text, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM writ.check_reason(actor, why);
    UPDATE writ.settings SET fingerprint = writ.fingerprint(), adopted_at = clock_timestamp(), adopted_by = adopt.actor;
    INSERT INTO writ.log (intent_id, epoch, event, actor, why)
    VALUES ('00000000-0000-0000-0000-000000000000', 0, 'adopted', adopt.actor, adopt.why);
END $$;

-- From now on this database is one application's: intents of other applications' kinds are refused, whoever creates them. Null
-- gives it back. The refusal is a constraint of the domain writ.task, which costs nothing where there is none; intents that
-- exist already are left alone. Not granted to anybody: see the two below.
CREATE OR REPLACE FUNCTION writ.set_owner(application text, actor text, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner text;
BEGIN
    IF set_owner.application !~ '^[a-z][a-z0-9_-]*$' OR length(set_owner.application) > 40 THEN
        RAISE EXCEPTION 'writ: application "%" is malformed', set_owner.application USING ERRCODE = 'WR005',
            HINT = 'An application is the first part of its kinds'' names: a-z, 0-9, _ and -, beginning with a letter, at most 40 bytes.';
    END IF;
    SELECT s.application INTO owner FROM writ.settings s FOR UPDATE; -- one after the other
    IF owner IS NOT DISTINCT FROM set_owner.application THEN
        RETURN;
    ELSIF owner IS NOT NULL AND set_owner.application IS NOT NULL THEN
        RAISE EXCEPTION 'writ: this database belongs to application %, so % cannot have it', owner, set_owner.application USING ERRCODE = 'WR003',
            HINT = 'Give each application a database of its own; or have an operator give this one back first: SELECT writ.own(NULL, who, why).';
    ELSIF owner IS NOT NULL THEN
        EXECUTE format('ALTER DOMAIN writ.task DROP CONSTRAINT %I', 'a task of application ' || owner);
    ELSE
        EXECUTE format('ALTER DOMAIN writ.task ADD CONSTRAINT %I CHECK (pg_catalog.starts_with(VALUE, %L)) NOT VALID',
            'a task of application ' || set_owner.application, set_owner.application || '.');
    END IF;
    UPDATE writ.settings SET application = set_owner.application;
    INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence)
    VALUES ('00000000-0000-0000-0000-000000000000', 0, CASE WHEN set_owner.application IS NULL THEN 'disowned' ELSE 'owned' END, set_owner.actor, set_owner.why,
        jsonb_strip_nulls(jsonb_build_object('application', set_owner.application, 'before', owner)));
END $$;

-- What a worker does at its start: it takes a database that nobody has, and does nothing where it is the application's already.
CREATE OR REPLACE FUNCTION writ.own(application text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF own.application IS NULL THEN
        RAISE EXCEPTION 'writ: who gives this database back, and why?' USING ERRCODE = 'WR005', HINT = 'SELECT writ.own(NULL, who, why), by an operator.';
    ELSIF own.application IS DISTINCT FROM (SELECT s.application FROM writ.settings s) THEN
        PERFORM writ.set_owner(own.application, writ.hand(), 'taken, as nobody had it');
    END IF;
END $$;

-- What a person does, on the record.
CREATE OR REPLACE FUNCTION writ.own(application text, actor text, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM writ.check_reason(actor, why);
    PERFORM writ.set_owner(application, actor, why);
END $$;

-- Who and why are required of everybody who overrules the engine.
CREATE OR REPLACE FUNCTION writ.check_reason(actor text, why text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF coalesce(btrim(actor), '') = '' THEN
        RAISE EXCEPTION 'writ: who decides? actor is empty' USING ERRCODE = 'WR005';
    END IF;
    IF writ.is_engine(actor) THEN
        RAISE EXCEPTION 'writ: actor % is a part of the engine, and its acts are not in the audit', actor
            USING ERRCODE = 'WR005', HINT = 'Give the name of a person or a program.';
    END IF;
    IF length(btrim(coalesce(why, ''))) < 10 THEN
        RAISE EXCEPTION 'writ: why? the reason needs at least 10 characters, got %', length(btrim(coalesce(why, '')))
            USING ERRCODE = 'WR005', HINT = 'It is what the next person reads at night.';
    END IF;
END $$;

-- Evidence as the object that the log keeps, to which the engine adds its own members.
CREATE OR REPLACE FUNCTION writ.as_object(evidence jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN evidence IS NULL THEN '{}' WHEN jsonb_typeof(evidence) = 'object' THEN evidence
        ELSE jsonb_build_object('evidence', evidence) END
$$;

INSERT INTO writ.settings (fingerprint) VALUES (writ.fingerprint()) ON CONFLICT DO NOTHING;
