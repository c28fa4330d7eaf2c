-- The four verbs. Each is a compare-and-set on the state and epoch that the person saw: if the row has moved meanwhile
-- nothing changes and the error (WR001) says in its DETAIL what it is now. SECURITY DEFINER: an operator needs no right
-- to update the table itself.
--   WR001 moved meanwhile · WR002 no such intent · WR003 not a legal transition · WR004 needs an override · WR005 bad input

CREATE OR REPLACE FUNCTION writ.decide(
    id uuid, target text, seen_state text, seen_epoch int, actor text, why text, evidence jsonb,
    override text DEFAULT NULL, new_args jsonb DEFAULT NULL, new_key boolean DEFAULT false)
RETURNS writ.intents
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    i writ.intents;
    most int;
    before text[] := ARRAY[coalesce(current_setting('writ.actor', true), ''), coalesce(current_setting('writ.why', true), ''),
        coalesce(current_setting('writ.evidence', true), ''), coalesce(current_setting('writ.override', true), '')];
BEGIN
    PERFORM writ.check_reason(actor, why);
    IF new_args IS NOT NULL THEN
        most := coalesce((SELECT k.max_args FROM writ.kinds k JOIN writ.intents t ON t.kind = k.name WHERE t.id = decide.id), 65536);
        IF octet_length(new_args::text) > most THEN
            RAISE EXCEPTION 'writ: the new args have % bytes, the limit is %', octet_length(new_args::text), most USING ERRCODE = 'WR005';
        END IF;
    END IF;
    -- The row lock closes the race with a claim, a finish, a probe and another person: they have ended, or wait.
    SELECT t.* INTO i FROM writ.intents t WHERE t.id = decide.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'writ: there is no intent %', decide.id USING ERRCODE = 'WR002';
    END IF;
    -- IS DISTINCT: a null is nobody's view of the row, and must not pass for one.
    IF i.state IS DISTINCT FROM seen_state OR i.epoch IS DISTINCT FROM seen_epoch THEN
        RAISE EXCEPTION 'writ: intent % has moved: you saw % at epoch %, it is % at epoch %; last: %',
            decide.id, seen_state, seen_epoch, i.state, i.epoch, coalesce((SELECT format('%s by %s (%s)', l.event, l.actor, l.why)
                FROM writ.log l WHERE l.intent_id = decide.id AND l.event = i.event ORDER BY l.id DESC LIMIT 1), i.event, 'requested')
            USING ERRCODE = 'WR001', DETAIL = jsonb_build_object('state', i.state, 'epoch', i.epoch, 'event', i.event,
                'flagged', i.flagged_at IS NOT NULL, 'error', i.error)::text,
            HINT = 'Look again (writ why), then decide.';
    END IF;
    IF i.state = target THEN
        RAISE EXCEPTION 'writ: intent % is % already', decide.id, target USING ERRCODE = 'WR003',
            HINT = 'Legal from here: ' || writ.ways_out(i.state, i.flagged_at IS NOT NULL) || '.';
    END IF;
    PERFORM set_config('writ.actor', actor, true), set_config('writ.why', why, true),
            set_config('writ.evidence', coalesce(evidence::text, ''), true), set_config('writ.override', coalesce(override, ''), true);
    UPDATE writ.intents t SET state = target, args = coalesce(new_args, t.args), generation = t.generation + new_key::int
    WHERE t.id = decide.id RETURNING t.* INTO i;
    -- What the caller had set for hand-written statements of his transaction holds on.
    PERFORM set_config('writ.actor', before[1], true), set_config('writ.why', before[2], true),
            set_config('writ.evidence', before[3], true), set_config('writ.override', before[4], true);
    RETURN i;
END $$;

-- It was done, whatever the row says: flagged sending or error → sent.
CREATE OR REPLACE FUNCTION writ.happened(id uuid, seen_state text, seen_epoch int, actor text, why text, evidence jsonb DEFAULT NULL)
RETURNS writ.intents LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM writ.decide(id, 'sent', seen_state, seen_epoch, actor, why, evidence)
$$;

-- It was not done, run it again: flagged sending or error → pending, attempts from 0. The idempotency key stays, so that
-- an outside system that keeps keys still guards a wrong verdict, unless the arguments change or a new key is asked for.
-- override: why it cannot land any more, needed before deadline + settle and while its worker lives.
CREATE OR REPLACE FUNCTION writ.retry(id uuid, seen_state text, seen_epoch int, actor text, why text, evidence jsonb DEFAULT NULL,
    override text DEFAULT NULL, new_args jsonb DEFAULT NULL, new_key boolean DEFAULT false)
RETURNS writ.intents LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM writ.decide(id, 'pending', seen_state, seen_epoch, actor, why, evidence, override, new_args, new_key)
$$;

-- Stop here: flagged sending → error. Nobody says that it was done or not.
CREATE OR REPLACE FUNCTION writ.give_up(id uuid, seen_state text, seen_epoch int, actor text, why text, evidence jsonb DEFAULT NULL)
RETURNS writ.intents LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM writ.decide(id, 'error', seen_state, seen_epoch, actor, why, evidence)
$$;

-- Never run it: pending or error → cancelled.
CREATE OR REPLACE FUNCTION writ.cancel(id uuid, seen_state text, seen_epoch int, actor text, why text, evidence jsonb DEFAULT NULL)
RETURNS writ.intents LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM writ.decide(id, 'cancelled', seen_state, seen_epoch, actor, why, evidence)
$$;

-- Whether an intent was requested with these args: as they are, or as they were before a person changed them. A creator who asks
-- again under the same id or key after that is no stranger.
CREATE OR REPLACE FUNCTION writ.same_args(i writ.intents, args jsonb) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT i.args = same_args.args OR (i.generation > 0 AND EXISTS (
        SELECT FROM writ.log l WHERE l.intent_id = i.id AND l.event IN ('retry', 'changed') AND l.evidence -> 'old_args' = same_args.args))
$$;
