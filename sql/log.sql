-- The log: append-only, everything off the happy path. A row goes only together with its intent, and only by a login that
-- may prune (writ_relay); at and db_user of a row are the server's, for no role may write these columns (roles.sql).

CREATE OR REPLACE FUNCTION writ.log_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.intent_id <> '00000000-0000-0000-0000-000000000000'
           AND NOT EXISTS (SELECT FROM writ.intents WHERE id = OLD.intent_id)
           AND (to_regrole('writ_relay') IS NULL OR pg_has_role(session_user, to_regrole('writ_relay'), 'MEMBER')) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'writ: the log is append-only' USING ERRCODE = 'WR003',
        HINT = 'Rows go with their intent, after its retention, by a login with role writ_relay. To correct one, add a note: writ.note.';
END $$;

CREATE OR REPLACE TRIGGER log_guard BEFORE UPDATE OR DELETE ON writ.log FOR EACH ROW EXECUTE FUNCTION writ.log_guard();
CREATE OR REPLACE TRIGGER log_truncate BEFORE TRUNCATE ON writ.log EXECUTE FUNCTION writ.refuse_truncate();

-- Nobody but the owner, and so its functions, writes in another's name: a worker, a relay or a reconciler puts down what the engine
-- does, as the engine. A person's act goes through the verbs, and a probe's through writ.probed. Not SECURITY DEFINER: the question
-- is who writes.
CREATE OR REPLACE FUNCTION writ.log_signed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (NEW.actor = 'worker' AND NEW.event IN ('flagged', 'retried', 'failed', 'recovered', 'recovery-failed', 'late-report')
            OR NEW.actor = 'reconciler' AND NEW.event IN ('flagged', 'retried', 'failed', 'requeued')) IS NOT TRUE
       AND NOT pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RAISE EXCEPTION 'writ: % does not write «%» by «%» into the log', current_user, NEW.event, NEW.actor USING ERRCODE = '42501',
            HINT = 'What people do comes from the verbs (writ.happened, writ.retry, …) and writ.note, with their name and reason.';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER log_signed BEFORE INSERT ON writ.log FOR EACH ROW EXECUTE FUNCTION writ.log_signed();

-- The actors that the engine writes; no person may go by such a name.
CREATE OR REPLACE FUNCTION writ.is_engine(actor text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT btrim(actor) IN ('worker', 'reconciler', 'application', 'relay', 'probe')
$$;

-- Who writes by hand: as the transaction says (SET LOCAL writ.actor), else the database user.
CREATE OR REPLACE FUNCTION writ.hand() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN writ.is_engine(who) THEN 'database user ' || session_user ELSE who END
    FROM (SELECT coalesce(nullif(btrim(current_setting('writ.actor', true)), ''), session_user) AS who) x
$$;

-- A note on an intent, wherever it stands. It is kept as long as the intent, and changes nothing.
CREATE OR REPLACE FUNCTION writ.note(id uuid, actor text, note text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at_epoch int;
    entry bigint;
BEGIN
    IF coalesce(btrim(note.note), '') = '' THEN
        RAISE EXCEPTION 'writ: the note is empty' USING ERRCODE = 'WR005';
    ELSIF octet_length(note.note) > 8192 THEN
        RAISE EXCEPTION 'writ: the note has % bytes, the limit is 8192', octet_length(note.note) USING ERRCODE = 'WR005';
    END IF;
    PERFORM writ.check_reason(actor, 'no reason is asked of a note');
    -- KEY SHARE: it cannot be pruned in this moment, which would leave the note without its intent; a claim is not held up.
    SELECT t.epoch INTO at_epoch FROM writ.intents t WHERE t.id = note.id FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'writ: there is no intent %', note.id USING ERRCODE = 'WR002';
    END IF;
    INSERT INTO writ.log (intent_id, epoch, event, actor, why) VALUES (note.id, at_epoch, 'note', btrim(note.actor), btrim(note.note))
    RETURNING log.id INTO entry;
    RETURN entry;
END $$;
