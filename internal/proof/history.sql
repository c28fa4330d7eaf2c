-- The history of intents, for proofs only: never part of a product's database. Applied again, it changes nothing.
--
-- The trigger is a deferred constraint trigger: it fires at COMMIT, so that at is the time of the commit and not of the
-- statement, and synchronous_commit is the setting that this commit is made under. The lock on the intent's row is still
-- held, so the order of seq is the order of commits for one intent. What a crash of the server loses is lost here too:
-- an effect whose claim was lost so stands in the ledger without a claim.
CREATE SCHEMA IF NOT EXISTS proof;

CREATE TABLE IF NOT EXISTS proof.history (
    seq          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    began_at     timestamptz NOT NULL DEFAULT now(),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    application  text        NOT NULL DEFAULT current_setting('application_name'),
    synchronous  text        NOT NULL DEFAULT current_setting('synchronous_commit'),
    op           text        NOT NULL,
    id           uuid        NOT NULL,
    kind         text        NOT NULL,
    old_state    text,
    new_state    text,
    event        text,
    event_set    boolean     NOT NULL,  -- the statement changed the event, or the state
    old_epoch    int,
    new_epoch    int,
    old_attempt  int,
    new_attempt  int,
    generation   int,
    worker_id    uuid,
    old_run_at   timestamptz,
    new_run_at   timestamptz,
    started_at   timestamptz,
    deadline_at  timestamptz,
    old_flag     text,
    new_flag     text,
    waiting_on   int
);

-- SECURITY DEFINER: whatever role the product's process has, it has no say here.
CREATE OR REPLACE FUNCTION proof.record() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO proof.history (op, id, kind, new_state, event, event_set, new_epoch, new_attempt, generation, worker_id, new_run_at,
            started_at, deadline_at, new_flag, waiting_on)
        VALUES (TG_OP, NEW.id, NEW.kind, NEW.state, NEW.event, true, NEW.epoch, NEW.attempt, NEW.generation, NEW.worker_id, NEW.run_at,
            NEW.started_at, NEW.deadline_at, CASE WHEN NEW.flagged_at IS NOT NULL THEN coalesce(NEW.flag_reason, '?') END, NEW.waiting_on);
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO proof.history (op, id, kind, old_state, event, event_set, old_epoch, old_attempt, generation, worker_id, old_run_at,
            started_at, deadline_at, old_flag, waiting_on)
        VALUES (TG_OP, OLD.id, OLD.kind, OLD.state, OLD.event, false, OLD.epoch, OLD.attempt, OLD.generation, OLD.worker_id, OLD.run_at,
            OLD.started_at, OLD.deadline_at, CASE WHEN OLD.flagged_at IS NOT NULL THEN coalesce(OLD.flag_reason, '?') END, OLD.waiting_on);
    ELSE
        INSERT INTO proof.history (op, id, kind, old_state, new_state, event, event_set, old_epoch, new_epoch, old_attempt, new_attempt,
            generation, worker_id, old_run_at, new_run_at, started_at, deadline_at, old_flag, new_flag, waiting_on)
        VALUES (TG_OP, NEW.id, NEW.kind, OLD.state, NEW.state, NEW.event, NEW.state <> OLD.state OR NEW.event IS DISTINCT FROM OLD.event,
            OLD.epoch, NEW.epoch, OLD.attempt, NEW.attempt, NEW.generation, NEW.worker_id, OLD.run_at, NEW.run_at, NEW.started_at,
            NEW.deadline_at, CASE WHEN OLD.flagged_at IS NOT NULL THEN coalesce(OLD.flag_reason, '?') END,
            CASE WHEN NEW.flagged_at IS NOT NULL THEN coalesce(NEW.flag_reason, '?') END, NEW.waiting_on);
    END IF;
    RETURN NULL;
END $$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'proof_record' AND tgrelid = 'writ.intents'::regclass) THEN
        CREATE CONSTRAINT TRIGGER proof_record AFTER INSERT OR UPDATE OR DELETE ON writ.intents
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION proof.record();
        -- What the engine's own statements are trusted with: that times and flag fit the state.
        ALTER TABLE writ.intents ADD CONSTRAINT proof_times CHECK ((finished_at IS NULL) = (state IN ('pending', 'sending'))
            AND (failed_at IS NOT NULL) = (state = 'error') AND (flagged_at IS NULL OR state = 'sending'));
    END IF;
END $$;
