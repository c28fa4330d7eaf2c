-- Limits over all worker processes: how often intents of a kind are begun, and how many run at once; of a kind as a whole, and
-- of each key within it. A worker claims only what it holds a token and a place for, and asks for them here, in blocks.
--
-- Tokens are times (the generic cell rate algorithm): each has its moment, period / starts after the one before it, so that a
-- block leased by one process is not spent in another's second. next_at is the first moment that nobody has. None is given out
-- for more than 300 ms ahead: that is all that a process which dies takes with it, and all that a lost row can repeat.
--
-- Places are counted by process and tied to its life: see lease_places.

-- What counts: a person's word before the code's. Where that says neither starts nor running there is no limit.
CREATE OR REPLACE VIEW writ.limits_in_force AS
SELECT DISTINCT ON (l.kind, l.per) l.* FROM writ.limits l ORDER BY l.kind, l.per, l.source DESC; -- person, code

-- The key of a row, from what a limit says of where it stands. Rows without one share the empty key. PL/pgSQL, because it keeps
-- what it has prepared: a function in SQL prepares itself for each row.
CREATE OR REPLACE FUNCTION writ.limit_key(args jsonb, subjects text[], place text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    k text;
    s text;
BEGIN
    IF starts_with(place, 'args.') THEN
        k := args #>> string_to_array(substr(place, 6), '.');
    ELSIF subjects IS NOT NULL THEN
        FOREACH s IN ARRAY subjects LOOP
            IF starts_with(s, substr(place, 9) || ':') THEN
                k := s;
                EXIT;
            END IF;
        END LOOP;
    END IF;
    RETURN '=' || CASE WHEN octet_length(k) > 200 THEN 'md5 ' || md5(k) ELSE coalesce(k, '') END;
END $$;

-- Is it a place where a key can stand?
CREATE OR REPLACE FUNCTION writ.is_key_place(place text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT place ~ '^(args(\.[A-Za-z0-9_-]+)+|subject:[A-Za-z0-9._/-]+)$' AND octet_length(place) <= 200
$$;

-- The time between two tokens.
CREATE OR REPLACE FUNCTION writ.token_step(starts int, period interval) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$ SELECT period / starts $$;

-- Leases tokens to a process: for each key up to as many as it wants, and not more than a tenth of a second's, or a burst, at a
-- time, so that the others have theirs. The tokens of a key are usable from starts_in on, one each step, each for its life
-- only. Where none is granted, wait says when it is worth asking again. The keys are sorted, so that two processes do not wait
-- for each other. The clock is read when the row is locked: not before whoever had it has committed.
CREATE OR REPLACE FUNCTION writ.lease_tokens(kind text, keys text[], wants int[])
RETURNS TABLE (key text, granted int, starts_in interval, step interval, life interval, wait interval, tail timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    l writ.limits;
    free timestamptz;
    at timestamptz;
    ahead constant interval := '300 ms';
BEGIN
    FOR n IN 1..cardinality(keys) LOOP
        key := keys[n];
        IF n = 1 OR (keys[n] = '*') <> (keys[n - 1] = '*') THEN
            SELECT t.* INTO l FROM writ.limits_in_force t WHERE t.kind = lease_tokens.kind AND t.per = CASE keys[n] WHEN '*' THEN 'kind' ELSE 'key' END;
        END IF;
        granted := 0; starts_in := '0'; step := '0'; life := '1 s'; wait := '0'; tail := NULL;
        IF l.starts IS NULL THEN
            granted := wants[n]; -- no limit any more; the process will see that soon
            RETURN NEXT;
            CONTINUE;
        END IF;
        SELECT t.next_at INTO free FROM writ.tokens t WHERE t.kind = lease_tokens.kind AND t.key = keys[n] FOR UPDATE;
        IF NOT FOUND THEN
            INSERT INTO writ.tokens AS t (kind, key, next_at) VALUES (lease_tokens.kind, keys[n], '2000-01-01')
            ON CONFLICT (kind, key) DO UPDATE SET next_at = t.next_at RETURNING t.next_at INTO free;
        END IF;
        at := clock_timestamp();
        step := l.period / l.starts;
        life := greatest(l.period / 20, '50 ms');
        free := greatest(free, at - step * (l.burst - 1));
        granted := least(wants[n], greatest(l.burst, ceil(0.1 / extract(epoch FROM step))),
            1 + floor(extract(epoch FROM at + ahead - free) / extract(epoch FROM step)));
        IF granted > 0 THEN
            starts_in := free - at;
            tail := free + step * granted;
            UPDATE writ.tokens t SET next_at = tail WHERE t.kind = lease_tokens.kind AND t.key = keys[n];
        ELSE
            granted := 0;
            wait := free - at - ahead;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Gives back tokens that were not spent, if nobody has leased later ones since: then the moments are free again, else they are
-- lost.
CREATE OR REPLACE FUNCTION writ.return_tokens(kind text, key text, n int, tail timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE writ.tokens t SET next_at = t.next_at - return_tokens.n * l.period / l.starts FROM writ.limits_in_force l
    WHERE t.kind = return_tokens.kind AND t.key = return_tokens.key AND t.next_at = return_tokens.tail AND l.starts IS NOT NULL
        AND l.kind = t.kind AND l.per = CASE t.key WHEN '*' THEN 'kind' ELSE 'key' END;
    RETURN FOUND;
END $$;

-- A process says how many places of each key it uses, and how many more it wants; it then holds what it uses and what is
-- granted, and no more. So whatever answer is lost, the next one puts it right; what it said earlier (turn) and comes later is
-- ignored. Who has waited longer goes first, as long as it still asks.
--
-- A process's places come free with it: when it has signed off, or has been silent for its TTL, which ends its claims, too. As
-- after a pause of the database every heartbeat looks old, only who has itself been in touch with it for as long (watched) may
-- find another one dead. A process that is frozen or cut off for longer than that and goes on has more running than there are
-- places; nothing new begins there before it has asked again.
CREATE OR REPLACE FUNCTION writ.lease_places(worker uuid, kind text, keys text[], uses int[], wants int[], turn bigint, watched interval)
RETURNS TABLE (key text, held int, others int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    l writ.limits;
    mine writ.places;
    me writ.workers;
    theirs record;
    at timestamptz;
    granted int;
    waits timestamptz;
BEGIN
    SELECT w.* INTO me FROM writ.workers w WHERE w.id = worker;
    FOR n IN 1..cardinality(keys) LOOP
        key := keys[n];
        PERFORM pg_advisory_xact_lock(hashtextextended(lease_places.kind || ' ' || keys[n], 1465010516));
        at := clock_timestamp();
        IF n = 1 OR (keys[n] = '*') <> (keys[n - 1] = '*') THEN
            SELECT t.* INTO l FROM writ.limits_in_force t WHERE t.kind = lease_places.kind AND t.per = CASE keys[n] WHEN '*' THEN 'kind' ELSE 'key' END;
        END IF;
        DELETE FROM writ.places p WHERE p.kind = lease_places.kind AND p.key = keys[n] AND p.worker_id <> worker
            AND NOT EXISTS (SELECT FROM writ.workers w WHERE w.id = p.worker_id
                AND (w.heartbeat_at + greatest(w.ttl, me.ttl) > at OR watched <= greatest(w.ttl, me.ttl)));
        SELECT p.* INTO mine FROM writ.places p WHERE p.kind = lease_places.kind AND p.key = keys[n] AND p.worker_id = worker;
        CONTINUE WHEN mine.turn >= lease_places.turn;
        waits := CASE WHEN mine.wants > 0 THEN mine.since ELSE at END;
        SELECT coalesce(sum(p.held), 0) AS held, coalesce(sum(p.wants) FILTER (WHERE asks), 0) AS wants,
                coalesce(sum(p.wants) FILTER (WHERE asks AND (p.since, p.worker_id) < (waits, worker)), 0) AS before INTO theirs
            FROM writ.places p, LATERAL (SELECT p.seen_at > at - interval '3 s' AS asks) a
            WHERE p.kind = lease_places.kind AND p.key = keys[n] AND p.worker_id <> worker;
        -- Only a process that is believed to live gets more: others would take it away again.
        granted := CASE WHEN me.heartbeat_at + me.ttl > at IS NOT TRUE THEN 0 WHEN l.running IS NULL THEN wants[n]
            ELSE greatest(0, least(wants[n], l.running - theirs.held - uses[n] - theirs.before)) END;
        INSERT INTO writ.places AS p (kind, key, worker_id, held, wants, since, seen_at, turn)
        VALUES (lease_places.kind, keys[n], worker, uses[n] + granted, wants[n] - granted, CASE WHEN granted > 0 THEN at ELSE waits END, at, lease_places.turn)
        ON CONFLICT (kind, key, worker_id) DO UPDATE SET held = excluded.held, wants = excluded.wants, since = excluded.since,
            seen_at = excluded.seen_at, turn = excluded.turn;
        held := uses[n] + granted;
        others := theirs.wants;
        RETURN NEXT;
    END LOOP;
END $$;

-- Hints that are put back because too many wait in memory get a place in a line of their key, one step apart, so that they come
-- again in order, and when a token may be there: behind those that are parked in memory, here and, as is supposed, in each
-- other process. The youngest of them (lined_at, lined_id) tells who has been in the line when it comes: what is younger has
-- to go to its end first.
CREATE OR REPLACE FUNCTION writ.line_up(kind text, key text, n int, parked int, step interval, lined_at timestamptz, lined_id uuid) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    at constant timestamptz := clock_timestamp();
    processes constant bigint := (SELECT greatest(1, count(*)) FROM writ.workers w WHERE line_up.kind = ANY (w.kinds) AND w.heartbeat_at + w.ttl > at);
    later constant timestamptz := at + line_up.step * (line_up.parked * processes + line_up.n);
    tail timestamptz;
BEGIN
    INSERT INTO writ.tokens AS t (kind, key, next_at, line_at, lined_at, lined_id)
    VALUES (line_up.kind, line_up.key, '2000-01-01', later, line_up.lined_at, line_up.lined_id)
    ON CONFLICT (kind, key) DO UPDATE SET line_at = greatest(later, t.line_at + line_up.step * line_up.n),
        lined_at = CASE WHEN (t.lined_at, t.lined_id) > (line_up.lined_at, line_up.lined_id) THEN t.lined_at ELSE line_up.lined_at END,
        lined_id = CASE WHEN (t.lined_at, t.lined_id) > (line_up.lined_at, line_up.lined_id) THEN t.lined_id ELSE line_up.lined_id END
    RETURNING t.line_at INTO tail;
    RETURN tail - line_up.step * line_up.n;
END $$;

-- Forgets keys that nobody waits for, and whose next token is there: no row means the same. SKIP LOCKED: who has the row is
-- using it.
CREATE OR REPLACE FUNCTION writ.prune_limits() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    n bigint;
    m bigint;
BEGIN
    DELETE FROM writ.tokens WHERE ctid = ANY (ARRAY(
        SELECT t.ctid FROM writ.tokens t LEFT JOIN writ.limits_in_force l ON l.kind = t.kind AND l.per = CASE t.key WHEN '*' THEN 'kind' ELSE 'key' END
        WHERE greatest(t.next_at, t.line_at) < clock_timestamp() - greatest(interval '10 s', l.period / l.starts * l.burst)
        LIMIT 10000 FOR UPDATE OF t SKIP LOCKED));
    GET DIAGNOSTICS n = ROW_COUNT;
    -- What a process said before may still be under way: its turn is kept for a minute.
    DELETE FROM writ.places WHERE ctid = ANY (ARRAY(
        SELECT p.ctid FROM writ.places p WHERE p.held = 0 AND p.seen_at < clock_timestamp() - interval '1 min' LIMIT 10000 FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS m = ROW_COUNT;
    RETURN n + m;
END $$;

-- Hints that wait in a line come at once, in their order: the limit is another one now.
CREATE OR REPLACE FUNCTION writ.limit_changed(kind text, per text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    l writ.limits;
BEGIN
    SELECT t.* INTO l FROM writ.limits_in_force t WHERE t.kind = limit_changed.kind AND t.per = limit_changed.per;
    UPDATE writ.tokens t SET next_at = least(t.next_at, clock_timestamp() + coalesce(l.period / l.starts, '0')), line_at = NULL, lined_at = NULL, lined_id = NULL
    WHERE t.kind = limit_changed.kind AND (t.key = '*') = (limit_changed.per = 'kind');
    UPDATE writ.outbox o SET due_at = now() + w.n * interval '1 us'
    FROM (SELECT x.due_at, x.oid, row_number() OVER (ORDER BY x.due_at, x.oid) AS n FROM writ.outbox x JOIN writ.intents i ON i.id = x.intent_id
        WHERE x.kind = limit_changed.kind AND x.op = 'run' AND x.failures = 0 AND x.due_at > now() AND i.run_at <= now()) w
    WHERE o.due_at = w.due_at AND o.oid = w.oid;
END $$;

-- Sets a limit by a person's word, which counts before the code's: of the kind as a whole, or, with the place of a key, of each
-- key. Null starts and running: none, whatever the code declares. It counts from the next lease on, and for a kind that had
-- none, within the workers' heartbeat.
CREATE OR REPLACE FUNCTION writ.set_limit(kind text, actor text, why text, starts int DEFAULT NULL, period interval DEFAULT '1 s', burst int DEFAULT NULL,
    running int DEFAULT NULL, key text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    per text := CASE WHEN key IS NULL THEN 'kind' ELSE 'key' END;
BEGIN
    PERFORM writ.check_reason(actor, why);
    PERFORM writ.check_limit(kind, starts, period, burst, running, key);
    INSERT INTO writ.limits AS l (kind, per, source, key, starts, period, burst, running, set_by, set_why)
    VALUES (set_limit.kind, per, 'person', set_limit.key, set_limit.starts, set_limit.period, coalesce(set_limit.burst, 1), set_limit.running, actor, why)
    ON CONFLICT ON CONSTRAINT limits_pkey DO UPDATE SET key = excluded.key, starts = excluded.starts, period = excluded.period, burst = excluded.burst,
        running = excluded.running, set_at = clock_timestamp(), set_by = excluded.set_by, set_why = excluded.set_why;
    PERFORM writ.limit_changed(kind, per);
    INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence)
    VALUES ('00000000-0000-0000-0000-000000000000', 0, 'limited', set_limit.actor, set_limit.why, jsonb_strip_nulls(jsonb_build_object(
        'kind', set_limit.kind, 'key', set_limit.key, 'starts', set_limit.starts, 'period', set_limit.period, 'burst', set_limit.burst, 'running', set_limit.running)));
END $$;

-- Takes a person's word back: what the code declares counts again.
CREATE OR REPLACE FUNCTION writ.clear_limit(kind text, per text, actor text, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM writ.check_reason(actor, why);
    DELETE FROM writ.limits l WHERE l.kind = clear_limit.kind AND l.per = clear_limit.per AND l.source = 'person';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'writ: nobody set a limit per % of kind %', per, kind USING ERRCODE = 'WR003',
            HINT = 'writ limits list shows what is set. What the code declares is overruled by a limit that is set: writ limits set.';
    END IF;
    PERFORM writ.limit_changed(kind, per);
    INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence)
    VALUES ('00000000-0000-0000-0000-000000000000', 0, 'unlimited', clear_limit.actor, clear_limit.why, jsonb_build_object('kind', clear_limit.kind, 'per', clear_limit.per));
END $$;

CREATE OR REPLACE FUNCTION writ.check_limit(kind text, starts int, period interval, burst int, running int, key text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    problem text := CASE
        WHEN NOT writ.is_kind_name(kind) THEN format('kind "%s" is malformed', kind)
        WHEN starts < 1 OR running < 1 THEN 'starts and running are at least 1: to stop a kind, pause it'
        WHEN period NOT BETWEEN '1 s' AND '31 days' OR period IS NULL THEN 'a period is one second to 31 days'
        WHEN starts > 1000000 * extract(epoch FROM period) THEN 'a million starts a second are the most'
        WHEN burst < 1 OR burst > starts OR burst IS NOT NULL AND starts IS NULL THEN 'a burst is 1 up to starts'
        WHEN key IS NOT NULL AND NOT writ.is_key_place(key) THEN format('"%s" is no place of a key: args.customer_id or subject:customer', key) END;
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'writ: limit of kind %: %', kind, problem USING ERRCODE = 'WR005';
    END IF;
END $$;

-- What a worker's code declares of a kind: arrays with an element for each limit. Others that the code declared before are gone.
CREATE OR REPLACE FUNCTION writ.declare_limits(kind text, keys text[], starts int[], periods interval[], bursts int[], running int[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    FOR n IN 1..cardinality(keys) LOOP
        PERFORM writ.check_limit(kind, starts[n], periods[n], bursts[n], running[n], keys[n]);
    END LOOP;
    DELETE FROM writ.limits l WHERE l.kind = declare_limits.kind AND l.source = 'code'
        AND l.per <> ALL (SELECT CASE WHEN t.key IS NULL THEN 'kind' ELSE 'key' END FROM unnest(keys) AS t (key));
    INSERT INTO writ.limits AS l (kind, per, source, key, starts, period, burst, running)
    SELECT declare_limits.kind, CASE WHEN t.key IS NULL THEN 'kind' ELSE 'key' END, 'code', t.key, t.starts, t.period, coalesce(t.burst, 1), t.running
    FROM unnest(keys, starts, periods, bursts, running) AS t (key, starts, period, burst, running)
    ON CONFLICT ON CONSTRAINT limits_pkey DO UPDATE SET key = excluded.key, starts = excluded.starts, period = excluded.period, burst = excluded.burst,
        running = excluded.running, set_at = clock_timestamp()
    WHERE (l.key, l.starts, l.period, l.burst, l.running) IS DISTINCT FROM (excluded.key, excluded.starts, excluded.period, excluded.burst, excluded.running);
END $$;

-- What keeps a pending row that is due back by its limits; null: nothing.
CREATE OR REPLACE FUNCTION writ.why_limited(i writ.intents) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    l writ.limits;
    k text;
    taken bigint;
    next_at timestamptz;
    said text[] := '{}';
BEGIN
    FOR l IN SELECT t.* FROM writ.limits_in_force t WHERE t.kind = i.kind ORDER BY t.per DESC LOOP
        k := CASE l.per WHEN 'kind' THEN '*' ELSE writ.limit_key(i.args, i.subjects, l.key) END;
        SELECT t.next_at INTO next_at FROM writ.tokens t WHERE t.kind = i.kind AND t.key = k;
        IF l.starts IS NOT NULL AND next_at > now() THEN
            said := said || format('rate-limited: at most %s in %s%s, next token in %s', l.starts, writ.span(l.period),
                CASE l.per WHEN 'key' THEN format(' for each %s, here %s', l.key, quote_nullable(substr(k, 2))) ELSE '' END, writ.span(next_at - now()));
        END IF;
        SELECT sum(p.held) INTO taken FROM writ.places p JOIN writ.workers w ON w.id = p.worker_id WHERE p.kind = i.kind AND p.key = k;
        IF l.running IS NOT NULL AND taken >= l.running THEN
            said := said || format('waits for one of %s, all taken%s', CASE l.running WHEN 1 THEN '1 place' ELSE l.running || ' places' END,
                CASE l.per WHEN 'key' THEN format(', for each %s, here %s', l.key, quote_nullable(substr(k, 2))) ELSE '' END);
        END IF;
    END LOOP;
    RETURN nullif(array_to_string(said, '; '), '');
END $$;

-- Limits and their use, for people. Of a limit per key: the number of keys in use, and the key that has to wait longest.
CREATE OR REPLACE VIEW writ.limit_use AS
SELECT l.kind, l.per, l.source, l.key, l.starts, l.period, l.burst, l.running, l.set_at, l.set_by, l.set_why,
    t.keys, t.hottest, greatest(t.next_at - clock_timestamp(), '0') AS next_token, greatest(t.line_at - clock_timestamp(), '0') AS line,
    p.taken, p.waiting
FROM writ.limits_in_force l
LEFT JOIN LATERAL (SELECT count(*) AS keys, max(t.next_at) AS next_at, max(t.line_at) AS line_at,
        (array_agg(substr(t.key, 2) ORDER BY greatest(t.next_at, t.line_at) DESC))[1] AS hottest
    FROM writ.tokens t WHERE t.kind = l.kind AND (t.key = '*') = (l.per = 'kind')) t ON true
LEFT JOIN LATERAL (SELECT coalesce(sum(p.held), 0) AS taken, coalesce(sum(p.wants), 0) AS waiting
    FROM writ.places p JOIN writ.workers w ON w.id = p.worker_id WHERE p.kind = l.kind AND (p.key = '*') = (l.per = 'kind')) p ON true;
