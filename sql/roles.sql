-- Least privilege. Six roles without login, shared by all databases of the cluster; grant them to login roles:
--   writ_owner     owns the objects, and with it the SECURITY DEFINER functions
--   writ_creator   an application that creates intents
--   writ_worker    a worker process
--   writ_relay     relay and reconciler (writ run)
--   writ_viewer    reads all but settles nothing
--   writ_operator  a viewer who may use the four verbs
-- Where the migrating user may not create roles, this says so and leaves all to that user.
DO $$
DECLARE
    r text;
    o record;
BEGIN
    FOREACH r IN ARRAY ARRAY['writ_owner', 'writ_creator', 'writ_worker', 'writ_relay', 'writ_viewer', 'writ_operator'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', r);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL; -- another database's migration was faster
                WHEN insufficient_privilege THEN
                    RAISE NOTICE 'writ: % may not create roles; create %, grant it writ_owner, and run writ migrate up again', current_user, r;
                    RETURN;
            END;
        END IF;
    END LOOP;

    -- USAGE, not MEMBER: since Postgres 16 who creates a role is a member without its rights until he grants them to himself.
    IF NOT pg_has_role(current_user, 'writ_owner', 'USAGE') THEN
        BEGIN
            EXECUTE format('GRANT writ_owner TO %I', current_user);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'writ: % is no member of writ_owner; grant it and run writ migrate up again', current_user;
            RETURN;
        END;
    END IF;
    ALTER SCHEMA writ OWNER TO writ_owner;
    FOR o IN SELECT format('%s writ.%I', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relname) AS what
             FROM pg_class c WHERE relnamespace = 'writ'::regnamespace AND relkind IN ('r', 'v', 'S')
               AND relowner <> 'writ_owner'::regrole
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('i', 'a') AND relkind = 'S') LOOP
        EXECUTE format('ALTER %s OWNER TO writ_owner', o.what);
    END LOOP;
    FOR o IN SELECT oid::regprocedure AS what FROM pg_proc
             WHERE pronamespace = 'writ'::regnamespace AND proowner <> 'writ_owner'::regrole LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO writ_owner', o.what);
    END LOOP;

    IF (SELECT typowner FROM pg_type WHERE oid = 'writ.task'::regtype) <> 'writ_owner'::regrole THEN
        ALTER DOMAIN writ.task OWNER TO writ_owner; -- writ.own alters it
    END IF;

    REVOKE ALL ON ALL TABLES IN SCHEMA writ FROM PUBLIC, writ_creator, writ_worker, writ_relay, writ_viewer, writ_operator;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA writ FROM PUBLIC, writ_creator, writ_worker, writ_relay, writ_viewer, writ_operator;
    GRANT USAGE ON SCHEMA writ TO writ_creator, writ_worker, writ_relay, writ_viewer, writ_operator;

    -- Creating reads back by id and key; columns that only the engine writes are not the creator's.
    GRANT INSERT (id, kind, state, event, args, args_version, subjects, tid, parent_id, trace, meta, requested_at, run_at)
        ON writ.intents TO writ_creator, writ_worker;
    GRANT INSERT (due_at, kind, intent_id, epoch, op) ON writ.outbox TO writ_creator, writ_worker;
    GRANT INSERT (failures, last_error) ON writ.outbox TO writ_worker;
    GRANT SELECT, INSERT ON writ.keys TO writ_creator, writ_worker;
    GRANT SELECT ON writ.intents, writ.kinds TO writ_creator;
    GRANT EXECUTE ON FUNCTION writ.uuid_v7(), writ.is_kind_name(text), writ.ring() TO writ_creator, writ_worker, writ_relay;
    GRANT EXECUTE ON FUNCTION writ.same_args(writ.intents, jsonb) TO writ_creator, writ_worker;
    -- The application may take back what it asked for.
    GRANT EXECUTE ON FUNCTION writ.cancel(uuid, text, int, text, text, jsonb) TO writ_creator, writ_worker;

    GRANT EXECUTE ON FUNCTION writ.publish(text, jsonb, text, uuid, uuid, uuid, text), writ.inherit(uuid), writ.cause(uuid), writ.is_event_name(text)
        TO writ_creator, writ_worker;

    GRANT EXECUTE ON FUNCTION writ.own(text) TO writ_worker;
    GRANT SELECT ON writ.limits, writ.limits_in_force TO writ_worker, writ_relay;
    GRANT SELECT ON writ.tokens TO writ_worker;
    GRANT EXECUTE ON FUNCTION writ.lease_tokens(text, text[], int[]), writ.return_tokens(text, text, int, timestamptz),
        writ.lease_places(uuid, text, text[], int[], int[], bigint, interval), writ.line_up(text, text, int, int, interval, timestamptz, uuid), writ.prune_limits(),
        writ.declare_limits(text, text[], int[], interval[], int[], int[]), writ.limit_key(jsonb, text[], text) TO writ_worker;
    GRANT SELECT, INSERT, UPDATE ON writ.inbox, writ.subscriptions TO writ_worker;
    GRANT SELECT, UPDATE, DELETE ON writ.inbox TO writ_relay;
    GRANT SELECT, UPDATE ON writ.intents TO writ_worker;
    GRANT SELECT, INSERT, UPDATE, DELETE ON writ.workers TO writ_worker;
    GRANT SELECT ON writ.kinds TO writ_worker; -- and all that code declares, but not what people say of a kind
    EXECUTE (SELECT format('GRANT INSERT (%1$s), UPDATE (%1$s) ON writ.kinds TO writ_worker', string_agg(quote_ident(attname), ', '))
        FROM pg_attribute WHERE attrelid = 'writ.kinds'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT LIKE 'paused%');
    GRANT SELECT ON writ.settings, writ.outbox, writ.flow TO writ_worker;
    GRANT EXECUTE ON FUNCTION writ.breaker_report(text, uuid, int, int, int, text, boolean, interval) TO writ_worker;
    GRANT SELECT, INSERT (intent_id, epoch, event, actor, worker_id, why, evidence) ON writ.log TO writ_worker;
    GRANT EXECUTE ON FUNCTION writ.probed(uuid, int, timestamptz, timestamptz, text, timestamptz, interval, interval, interval, uuid, text, jsonb, text),
        writ.late_meaning(uuid, int, text), writ.probe_danger(writ.intents) TO writ_worker;

    GRANT SELECT, INSERT, UPDATE, DELETE ON writ.outbox, writ.relay, writ.leader, writ.duties TO writ_relay;
    GRANT SELECT ON writ.kinds, writ.settings, writ.flow, writ.askable, writ.subscriptions TO writ_relay;
    GRANT SELECT, UPDATE, DELETE ON writ.workers, writ.intents TO writ_relay;
    GRANT SELECT, INSERT (intent_id, epoch, event, actor, worker_id, why, evidence), DELETE ON writ.log TO writ_relay;
    GRANT SELECT, DELETE ON writ.keys TO writ_relay;
    GRANT EXECUTE ON FUNCTION writ.check_adopted() TO writ_worker;
    GRANT EXECUTE ON FUNCTION writ.is_open(), writ.fingerprint() TO writ_worker, writ_relay, writ_viewer, writ_operator;

    GRANT SELECT ON ALL TABLES IN SCHEMA writ TO writ_viewer, writ_operator;
    GRANT EXECUTE ON FUNCTION writ.why(uuid), writ.span(interval), writ.retry_danger(writ.intents), writ.said_done(writ.intents), writ.has_returned(writ.intents), writ.ways_out(text, boolean),
        writ.why_missing(uuid), writ.why_pending(writ.intents), writ.why_ambiguous(writ.intents), writ.why_stopped(), writ.why_breaker(text), writ.why_held(writ.intents), writ.why_owed(writ.intents), writ.has_relay(), writ.why_requeued(writ.intents, text), writ.times(int), writ.why_limited(writ.intents), writ.limit_key(jsonb, text[], text),
        writ.status_of(writ.intents), writ.late_truth(uuid), writ.merge_patch(jsonb, jsonb), writ.fingerprint(text), writ.uuid_at(timestamptz),
        writ.known_kinds(), writ.json_bigint(jsonb), writ.json_numeric(jsonb), writ.json_boolean(jsonb), writ.json_text(jsonb), writ.json_uuid(jsonb),
        writ.json_timestamptz(jsonb), writ.is_utf8(bytea)
        TO writ_viewer, writ_operator;
    GRANT EXECUTE ON FUNCTION writ.happened(uuid, text, int, text, text, jsonb), writ.give_up(uuid, text, int, text, text, jsonb),
        writ.cancel(uuid, text, int, text, text, jsonb),
        writ.retry(uuid, text, int, text, text, jsonb, text, jsonb, boolean), writ.adopt(text, text),
        writ.note(uuid, text, text), writ.sync_kind(text),
        writ.bulk_plan(text, uuid[], text[], int[], text, text, jsonb, text, boolean, jsonb, jsonb), writ.bulk_start(uuid, text, double precision),
        writ.bulk_step(uuid, int), writ.bulk_abort(uuid, text, text),
        writ.decide_event(text, text, text, text, text, text), writ.own(text), writ.own(text, text, text),
        writ.set_limit(text, text, text, int, interval, int, int, text), writ.clear_limit(text, text, text, text),
        writ.pause(text, text, text, text), writ.resume(text, text, text, text), writ.open_breaker(text, text, text, interval), writ.close_breaker(text, text, text), writ.quarantine(timestamptz, text, text, jsonb) TO writ_operator;
END $$;
