-- Events: notifications that leave this database through the outbox, and those of others that come in through the inbox.

-- The format of an event's name, in one place for SQL; package intent has the same rule for Go, and a test compares them.
CREATE OR REPLACE FUNCTION writ.is_event_name(name text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT length(name) <= 100 AND name ~ '^[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)+$'
$$;

-- Publishes an event in the caller's transaction: subscribers get it if that commits. Any language may call it. The same id
-- again, after a commit whose answer was lost, is the same event to all subscribers. Who caused it is taken from the
-- transaction (writ.inherit) unless it is given.
CREATE OR REPLACE FUNCTION writ.publish(event text, data jsonb DEFAULT '{}', subject text DEFAULT NULL, id uuid DEFAULT NULL,
    tid uuid DEFAULT NULL, parent uuid DEFAULT NULL, trace text DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    eid  uuid := coalesce(publish.id, writ.uuid_v7());
    body text := coalesce(publish.data, 'null')::text;
    c    record;
BEGIN
    IF publish.event IS NULL OR NOT writ.is_event_name(publish.event) THEN
        RAISE EXCEPTION 'writ: event "%" is malformed', publish.event USING ERRCODE = 'WR005',
            HINT = 'An event is model.verb in the past tense and in lower case, like user.authorized, at most 100 bytes.';
    ELSIF octet_length(body) > 65536 THEN
        RAISE EXCEPTION 'writ: data of event % has % bytes, the limit is 65536', publish.event, octet_length(body)
            USING ERRCODE = 'WR005', HINT = 'Keep large data in a table of your own and pass its id.';
    ELSIF length(publish.subject) > 255 OR length(publish.trace) > 255 THEN
        RAISE EXCEPTION 'writ: subject or trace of event % is longer than 255', publish.event USING ERRCODE = 'WR005';
    END IF;
    SELECT * INTO c FROM writ.cause(publish.parent);
    INSERT INTO writ.outbox (due_at, exchange, routing_key, headers, payload)
    SELECT clock_timestamp(), 'writ.event.' || publish.event, publish.event, jsonb_strip_nulls(jsonb_build_object(
        'content-type', 'application/json',
        'cloudEvents_specversion', '1.0',
        'cloudEvents_id', eid,
        'cloudEvents_source', coalesce(s.application, 'writ:' || s.installation),
        'cloudEvents_type', publish.event,
        'cloudEvents_subject', nullif(publish.subject, ''),
        'cloudEvents_time', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'cloudEvents_tid', coalesce(publish.tid, c.tid, eid),
        'cloudEvents_parentid', c.parent,
        'cloudEvents_traceparent', coalesce(nullif(publish.trace, ''), c.trace),
        'traceparent', coalesce(nullif(publish.trace, ''), c.trace))), convert_to(body, 'UTF8')
    FROM writ.settings s;
    PERFORM writ.ring();
    RETURN eid;
END $$;

-- Whether bytes can be shown as text.
CREATE OR REPLACE FUNCTION writ.is_utf8(b bytea) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL UNSAFE AS $$
BEGIN
    PERFORM convert_from(b, 'UTF8');
    RETURN true;
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN false;
END $$;

-- Events that this installation has received and not settled, for people: retrying, or dead.
CREATE OR REPLACE VIEW writ.unsettled AS
SELECT subscription, source, event_id, CASE WHEN dead_at IS NULL THEN 'retrying' ELSE 'dead' END AS status, failures, last_error,
    received_at, due_at, dead_at, headers, convert_from(CASE WHEN payload IS NOT NULL AND writ.is_utf8(payload) THEN payload ELSE '' END, 'UTF8') AS data
FROM writ.inbox WHERE settled_at IS NULL;

-- A person decides on an event that is not settled: retry tries it again, as if it had failed once; drop settles it without any
-- intents.
CREATE OR REPLACE FUNCTION writ.decide_event(verb text, subscription text, source text, event_id text, actor text, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was record;
BEGIN
    PERFORM writ.check_reason(actor, why);
    IF verb NOT IN ('retry', 'drop') THEN
        RAISE EXCEPTION 'writ: an event is not to be %', verb USING ERRCODE = 'WR005', HINT = 'retry, or drop.';
    END IF;
    SELECT * INTO was FROM writ.inbox i
    WHERE i.subscription = decide_event.subscription AND i.source = decide_event.source AND i.event_id = decide_event.event_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'writ: subscription % has received no event % of %', subscription, event_id, source USING ERRCODE = 'WR002';
    ELSIF was.settled_at IS NOT NULL THEN
        RAISE EXCEPTION 'writ: event % was settled at %', event_id, was.settled_at USING ERRCODE = 'WR003', HINT = 'What it created stands in the table of intents.';
    END IF;
    UPDATE writ.inbox i SET failures = CASE WHEN verb = 'retry' THEN 1 ELSE i.failures END, dead_at = NULL,
        due_at = CASE WHEN verb = 'retry' THEN clock_timestamp() END, settled_at = CASE WHEN verb = 'drop' THEN clock_timestamp() END,
        headers = CASE WHEN verb = 'retry' THEN i.headers END, payload = CASE WHEN verb = 'retry' THEN i.payload END
    WHERE i.subscription = was.subscription AND i.source = was.source AND i.event_id = was.event_id;
    INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence)
    VALUES ('00000000-0000-0000-0000-000000000000', 0, 'event-' || verb, actor, why,
        jsonb_build_object('subscription', was.subscription, 'source', was.source, 'event_id', was.event_id, 'failures', was.failures,
            'error', was.last_error, 'headers', was.headers, 'data', CASE WHEN writ.is_utf8(was.payload) THEN convert_from(was.payload, 'UTF8') END));
END $$;
