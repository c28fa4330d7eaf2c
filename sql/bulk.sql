-- A decision on many intents at once. Planning freezes the set: each id with the position that was seen. Carrying it out goes
-- step by step, each of them one transaction that decides a few rows and writes down what became of each: whoever is
-- killed in the middle leaves nothing half done, and anybody may go on. Each row is a verdict like any other, with the
-- actor and the reason of the plan, a compare-and-set on the position that was seen.

-- From SQL: SELECT writ.bulk_plan('retry', array_agg(id), array_agg(state), array_agg(epoch), 'ann', 'the provider is back')
-- FROM writ.intents WHERE …
CREATE OR REPLACE FUNCTION writ.bulk_plan(verb text, ids uuid[], states text[], epochs int[], actor text, why text,
    evidence jsonb DEFAULT NULL, override text DEFAULT NULL, new_key boolean DEFAULT false, filter jsonb DEFAULT NULL,
    merge jsonb DEFAULT NULL)
RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bulk uuid := writ.uuid_v7();
    n int;
    unfit record;
BEGIN
    PERFORM writ.check_reason(actor, why);
    IF bulk_plan.verb IS NULL OR bulk_plan.verb NOT IN ('happened', 'retry', 'give-up', 'cancel') THEN
        RAISE EXCEPTION 'writ: "%" is no verb', bulk_plan.verb USING ERRCODE = 'WR005', HINT = 'One of happened, retry, give-up, cancel.';
    ELSIF bulk_plan.verb <> 'retry' AND (override IS NOT NULL OR new_key OR bulk_plan.merge IS NOT NULL) THEN
        RAISE EXCEPTION 'writ: only a retry has an override, a new key or changed arguments' USING ERRCODE = 'WR005';
    ELSIF jsonb_typeof(bulk_plan.merge) <> 'object' OR bulk_plan.merge = '{}' THEN
        RAISE EXCEPTION 'writ: the arguments are changed by a JSON object with at least one member, not by %',
            CASE WHEN bulk_plan.merge = '{}' THEN 'an empty one' ELSE 'a JSON ' || jsonb_typeof(bulk_plan.merge) END
            USING ERRCODE = 'WR005', HINT = 'A merge patch (RFC 7396): what it names is replaced, null takes it away.';
    ELSIF coalesce(cardinality(ids), 0) = 0 THEN
        RAISE EXCEPTION 'writ: no intent matches of which % would be legal', bulk_plan.verb USING ERRCODE = 'WR002';
    ELSIF (cardinality(ids), cardinality(ids)) IS DISTINCT FROM (cardinality(states), cardinality(epochs))
          OR array_position(ids, NULL) IS NOT NULL OR array_position(states, NULL) IS NOT NULL OR array_position(epochs, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'writ: each id needs the state and the epoch that were seen' USING ERRCODE = 'WR005';
    END IF;
    -- What ended long ago, or was never carried out, is not kept for ever; the log has every verdict.
    DELETE FROM writ.bulks b WHERE b.id IN (SELECT o.id FROM writ.bulks o
        WHERE greatest(o.planned_at, o.stepped_at) < now() - interval '90 days'
          AND (o.started_at IS NULL OR o.ended_at IS NOT NULL OR o.aborted_at IS NOT NULL) LIMIT 10);
    INSERT INTO writ.bulks (id, verb, actor, why, evidence, override, new_key, merge, filter, total)
    VALUES (bulk, bulk_plan.verb, btrim(bulk_plan.actor), btrim(bulk_plan.why), bulk_plan.evidence, bulk_plan.override, bulk_plan.new_key, bulk_plan.merge,
        bulk_plan.filter, 0);
    INSERT INTO writ.bulk_rows (bulk_id, n, intent_id, state, epoch)
    SELECT bulk, row_number() OVER (ORDER BY s.id), s.id, s.state, s.epoch
    FROM (SELECT DISTINCT ON (u.id) u.id, u.state, u.epoch FROM unnest(ids, states, epochs) AS u (id, state, epoch) ORDER BY u.id) s;
    GET DIAGNOSTICS n = ROW_COUNT;
    -- Rather now than row by row: a patch that a kind's code cannot read would only fail again.
    IF bulk_plan.merge IS NOT NULL THEN
        SELECT count(*) AS n, min(k.problem) AS problem, min(i.id::text) AS example INTO unfit
        FROM (SELECT d.kind, writ.patch_problem(d.kind, bulk_plan.merge) AS problem
              FROM (SELECT DISTINCT i.kind FROM writ.bulk_rows r JOIN writ.intents i ON i.id = r.intent_id WHERE r.bulk_id = bulk) d) k
        JOIN writ.intents i ON i.kind = k.kind JOIN writ.bulk_rows r ON r.intent_id = i.id AND r.bulk_id = bulk
        WHERE k.problem IS NOT NULL;
        IF unfit.n > 0 THEN
            RAISE EXCEPTION 'writ: the changed arguments do not fit % of % intents, such as %: %', unfit.n, n, unfit.example, unfit.problem
                USING ERRCODE = 'WR005', HINT = 'Mend the patch, or choose one kind.';
        END IF;
    END IF;
    UPDATE writ.bulks b SET total = n WHERE b.id = bulk;
    RETURN bulk;
END $$;

-- The row of a bulk, locked: a step, a start and an abort of one bulk come one after the other.
CREATE OR REPLACE FUNCTION writ.bulk_lock(id uuid) RETURNS writ.bulks
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    b writ.bulks;
BEGIN
    SELECT t.* INTO b FROM writ.bulks t WHERE t.id = bulk_lock.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'writ: there is no bulk %', bulk_lock.id USING ERRCODE = 'WR002';
    END IF;
    RETURN b;
END $$;

-- Begins, or goes on. rate: rows a second over all who carry it out; null: as it was, at first no limit. What a person began another
-- may go on with.
CREATE OR REPLACE FUNCTION writ.bulk_start(id uuid, actor text, rate double precision DEFAULT NULL) RETURNS writ.bulks
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    b writ.bulks := writ.bulk_lock(id);
BEGIN
    PERFORM writ.check_reason(actor, b.why);
    IF b.aborted_at IS NOT NULL THEN
        RAISE EXCEPTION 'writ: bulk % was aborted by % (%)', b.id, b.aborted_by, b.aborted_why USING ERRCODE = 'WR003', HINT = 'Plan another.';
    ELSIF rate NOT BETWEEN 0.0001 AND 1000000 THEN -- NaN is above all numbers
        RAISE EXCEPTION 'writ: a rate of % rows a second', rate USING ERRCODE = 'WR005', HINT = 'From 0.0001 to 1,000,000.';
    ELSIF b.ended_at IS NULL THEN
        INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence)
        VALUES ('00000000-0000-0000-0000-000000000000', 0, 'bulk-run', btrim(bulk_start.actor), b.why,
            jsonb_build_object('bulk', b.id, 'verb', b.verb, 'planned_by', b.actor, 'total', b.total, 'done', b.done, 'refused', b.refused, 'filter', b.filter)
                || jsonb_strip_nulls(jsonb_build_object('merge', b.merge)));
        UPDATE writ.bulks t SET started_at = coalesce(t.started_at, clock_timestamp()), rate = coalesce(bulk_start.rate, t.rate),
            -- What was taken at the old rate counts, but no longer than a step takes at the new one.
            next_at = CASE WHEN bulk_start.rate IS NULL THEN t.next_at WHEN t.next_at IS NOT NULL
                THEN least(t.next_at, clock_timestamp() + least(50, ceil(bulk_start.rate / 5)) / bulk_start.rate * interval '1 s') END
        WHERE t.id = b.id RETURNING t.* INTO b;
    END IF;
    RETURN b;
END $$;

-- Decides up to most rows and returns the bulk as it is then. While the rate allows none, nothing is done: next_at says until
-- when. Locks of others are waited for a second; such a row comes again later, and is refused after 20 times.
CREATE OR REPLACE FUNCTION writ.bulk_step(id uuid, most int) RETURNS writ.bulks
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
-- The next rows are read along the index of those without a result, whatever is known of a table that was just filled.
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
    b writ.bulks := writ.bulk_lock(id);
    r record;
    taken int := 0;
    refusal text;   -- its SQLSTATE, words and detail
    words text;
    changed text;
    target text := CASE b.verb WHEN 'happened' THEN 'sent' WHEN 'retry' THEN 'pending' WHEN 'give-up' THEN 'error' ELSE 'cancelled' END;
    evidence jsonb := writ.as_object(b.evidence) || jsonb_build_object('bulk', b.id);
BEGIN
    IF b.started_at IS NULL THEN
        RAISE EXCEPTION 'writ: bulk % was not begun', b.id USING ERRCODE = 'WR003', HINT = 'Begin it: writ.bulk_start.';
    ELSIF b.ended_at IS NOT NULL OR b.aborted_at IS NOT NULL OR b.next_at > clock_timestamp() THEN
        RETURN b;
    END IF;
    FOR r IN SELECT t.* FROM writ.bulk_rows t WHERE t.bulk_id = b.id AND t.at IS NULL ORDER BY t.tries, t.n
             LIMIT least(most, 50, ceil(b.rate / 5)::int) LOOP
        refusal := NULL;
        words := NULL;
        changed := NULL;
        BEGIN
            -- Somebody may be changing the arguments by hand, which moves no epoch: the patch is merged into what that leaves.
            IF b.merge IS NOT NULL THEN
                PERFORM FROM writ.intents t WHERE t.id = r.intent_id FOR NO KEY UPDATE;
            END IF;
            PERFORM writ.decide(r.intent_id, target, r.state, r.epoch, b.actor, b.why, evidence, b.override,
                CASE WHEN b.merge IS NOT NULL THEN writ.merged_args(r.intent_id, b.merge) END, b.new_key);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS refusal = RETURNED_SQLSTATE, words = MESSAGE_TEXT, changed = PG_EXCEPTION_DETAIL;
            -- Not about this row, but about the server: nothing of this step is kept, and it may be taken again.
            IF refusal ~ '^(53|57|58|XX|25)' THEN
                RAISE;
            END IF;
        END;
        IF refusal IN ('55P03', '40P01', '40001') AND r.tries < 20 THEN
            UPDATE writ.bulk_rows t SET tries = t.tries + 1 WHERE t.bulk_id = b.id AND t.n = r.n;
            EXIT; -- what was decided so far is not held any longer
        END IF;
        taken := taken + 1;
        UPDATE writ.bulk_rows t SET at = clock_timestamp(), result = CASE WHEN refusal IS NULL THEN 'done' ELSE 'refused' END,
            code = refusal, message = words, now_at = CASE WHEN refusal = 'WR001' THEN changed::jsonb END
        WHERE t.bulk_id = b.id AND t.n = r.n;
        b.done := b.done + (refusal IS NULL)::int;
        b.refused := b.refused + (refusal IS NOT NULL)::int;
    END LOOP;
    UPDATE writ.bulks t SET done = b.done, refused = b.refused, stepped_at = clock_timestamp(),
        next_at = greatest(t.next_at, clock_timestamp()) + taken / t.rate * interval '1 s',
        ended_at = CASE WHEN b.done + b.refused = t.total THEN clock_timestamp() END
    WHERE t.id = b.id RETURNING t.* INTO b;
    RETURN b;
END $$;

-- Ends it. A step that is under way is waited for; after this no further row is decided.
CREATE OR REPLACE FUNCTION writ.bulk_abort(id uuid, actor text, why text) RETURNS writ.bulks
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    b writ.bulks := writ.bulk_lock(id);
BEGIN
    PERFORM writ.check_reason(actor, why);
    IF b.ended_at IS NOT NULL OR b.aborted_at IS NOT NULL THEN
        RAISE EXCEPTION 'writ: bulk % % already', b.id, CASE WHEN b.ended_at IS NOT NULL THEN 'has ended' ELSE 'was aborted by ' || b.aborted_by END
            USING ERRCODE = 'WR003';
    END IF;
    INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence)
    VALUES ('00000000-0000-0000-0000-000000000000', 0, 'bulk-aborted', btrim(bulk_abort.actor), btrim(bulk_abort.why),
        jsonb_build_object('bulk', b.id, 'verb', b.verb, 'total', b.total, 'done', b.done, 'refused', b.refused));
    UPDATE writ.bulks t SET aborted_at = clock_timestamp(), aborted_by = btrim(bulk_abort.actor), aborted_why = btrim(bulk_abort.why)
    WHERE t.id = b.id RETURNING t.* INTO b;
    RETURN b;
END $$;
