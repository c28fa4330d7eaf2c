-- A typed view per kind: writ.kind_blog_comment_notify reads like a table of the application, with the arguments as columns.
-- Made, and brought up to date, by writ.sync_kinds (writ kinds sync).

-- The value of a column: null where the JSON value is of another type, so that no row, however old, makes a view fail.
CREATE OR REPLACE FUNCTION writ.json_bigint(v jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(v) = 'number' THEN
        CASE WHEN v::numeric = trunc(v::numeric) AND v::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN v::numeric::bigint END END
$$;

CREATE OR REPLACE FUNCTION writ.json_numeric(v jsonb) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT CASE WHEN jsonb_typeof(v) = 'number' THEN v::numeric END $$;

CREATE OR REPLACE FUNCTION writ.json_boolean(v jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT CASE WHEN jsonb_typeof(v) = 'boolean' THEN v::boolean END $$;

-- Text shows whatever there is, JSON null aside.
CREATE OR REPLACE FUNCTION writ.json_text(v jsonb) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT v #>> '{}' $$;

CREATE OR REPLACE FUNCTION writ.json_uuid(v jsonb) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN (v #>> '{}') ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' THEN (v #>> '{}')::uuid END
$$;

CREATE OR REPLACE FUNCTION writ.json_timestamptz(v jsonb) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL UNSAFE AS $$
BEGIN
    IF (v #>> '{}') ~ '^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$' THEN
        RETURN (v #>> '{}')::timestamptz; -- with its zone, so it means the same in every session
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN -- all of class 22
    RETURN NULL; -- the 31st of February, or a zone of 23 hours
END $$;

-- The arguments of a kind that become columns, in order: what its code declares (kinds.schema), then what else a sample of the
-- newest rows has, such as arguments that were renamed while rows with the old name are kept. At most 100.
CREATE OR REPLACE FUNCTION writ.kind_arguments(kind text) RETURNS TABLE (name text, type text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH declared AS (
        SELECT p.key, array_position(ARRAY(SELECT jsonb_array_elements_text(CASE WHEN jsonb_typeof(k.schema -> 'propertyOrder') = 'array' THEN k.schema -> 'propertyOrder' ELSE '[]' END)), p.key) AS place,
            CASE WHEN p.value ->> 'type' = 'integer' THEN 'bigint' WHEN p.value ->> 'type' = 'number' THEN 'numeric'
                WHEN p.value ->> 'type' = 'boolean' THEN 'boolean'
                WHEN p.value ->> 'type' = 'string' THEN CASE p.value ->> 'format' WHEN 'date-time' THEN 'timestamptz' WHEN 'uuid' THEN 'uuid' ELSE 'text' END
                ELSE 'jsonb' END AS type
        FROM writ.kinds k, jsonb_each(CASE WHEN jsonb_typeof(k.schema -> 'properties') = 'object' THEN k.schema -> 'properties' ELSE '{}' END) p
        WHERE k.name = kind_arguments.kind
    ), sample AS MATERIALIZED (
        -- Along the primary key, bounded: a kind that is not among the newest 100,000 rows has no sample.
        SELECT w.args FROM (SELECT i.kind, i.args FROM writ.intents i ORDER BY i.id DESC LIMIT 100000) w
        WHERE w.kind = kind_arguments.kind AND jsonb_typeof(w.args) = 'object' LIMIT 1000
    ), seen AS (
        SELECT e.key, count(*) AS n, CASE
                WHEN bool_and(jsonb_typeof(e.value) = 'number') THEN CASE WHEN bool_and(writ.json_bigint(e.value) IS NOT NULL) THEN 'bigint' ELSE 'numeric' END
                WHEN bool_and(jsonb_typeof(e.value) = 'boolean') THEN 'boolean'
                WHEN bool_and(jsonb_typeof(e.value) = 'string') THEN CASE WHEN bool_and(writ.json_uuid(e.value) IS NOT NULL) THEN 'uuid'
                    WHEN bool_and(writ.json_timestamptz(e.value) IS NOT NULL) THEN 'timestamptz' ELSE 'text' END
                ELSE 'jsonb' END AS type
        FROM sample s, jsonb_each(s.args) e WHERE jsonb_typeof(e.value) <> 'null'
        GROUP BY e.key
    ), undeclared AS (
        -- What only single rows have are keys of a map, not arguments.
        SELECT s.key, s.type FROM seen s WHERE s.key NOT IN (SELECT key FROM declared) AND s.n >= (SELECT count(*) FROM sample) / 50.0
        ORDER BY s.n DESC, s.key LIMIT 100
    )
    SELECT key, type FROM (
        SELECT 1 AS part, place, key, type FROM declared UNION ALL SELECT 2, NULL, key, type FROM undeclared) a
    ORDER BY part, place, key LIMIT 100
$$;

-- A column's name for an argument: lower case with underscores, and none of those in taken.
CREATE OR REPLACE FUNCTION writ.column_name(argument text, taken text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base text := left(regexp_replace(lower(regexp_replace(argument, '([a-z0-9])([A-Z])', '\1_\2', 'g')), '[^a-z0-9_]', '_', 'g'), 50);
    found text;
BEGIN
    base := CASE WHEN base ~ '^[a-z_]' THEN base ELSE 'arg_' || base END;
    found := CASE WHEN base = ANY (taken) THEN 'arg_' || base ELSE base END;
    FOR n IN 2..1000 LOOP
        EXIT WHEN found <> ALL (taken);
        found := base || '_' || n;
    END LOOP;
    RETURN found;
END $$;

-- The definition of a kind's view.
CREATE OR REPLACE FUNCTION writ.kind_definition(kind text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken text[] := '{id,status,requested_at,run_at,started_at,finished_at,flagged_at,attempt,error,subjects,tid,args}';
    columns text := '';
    a record;
BEGIN
    FOR a IN SELECT * FROM writ.kind_arguments(kind) LOOP
        taken := taken || writ.column_name(a.name, taken);
        columns := columns || format(', %s AS %I',
            CASE a.type WHEN 'jsonb' THEN format('i.args -> %L', a.name) ELSE format('writ.json_%s(i.args -> %L)', a.type, a.name) END,
            taken[cardinality(taken)]);
    END LOOP;
    RETURN format('SELECT i.id, writ.status_of(i) AS status%s, i.requested_at, i.run_at, i.started_at, i.finished_at, i.flagged_at, i.attempt, '
        'i.error, i.subjects, i.tid, i.args FROM writ.intents i WHERE i.kind = %L', columns, kind);
END $$;

-- What others than its owner may do with a view, as the statements that grant it.
CREATE OR REPLACE FUNCTION writ.grants_on(view regclass) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(format('GRANT %s ON writ.%I TO %s', a.privilege_type, c.relname,
        CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)), '{}')
    FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = view AND a.grantee <> c.relowner
$$;

-- Makes the view of a kind, or brings it up to date, and says which view and what was done: made, changed, as it was, or kept
-- and why. The view's comment names its kind and a digest of its definition.
CREATE OR REPLACE FUNCTION writ.sync_kind(kind text) RETURNS TABLE (view text, did text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    definition text;
    mark text := 'Intents of kind ' || kind || '; made by writ kinds sync; ';
    existing text;
    remark text;
    waits text := current_setting('lock_timeout');
    grants text[];
    again text;
    known boolean;
BEGIN
    IF kind IS NULL OR NOT writ.is_kind_name(kind) AND NOT EXISTS (SELECT FROM writ.known_kinds() AS k (name) WHERE k.name = sync_kind.kind) THEN
        RAISE EXCEPTION 'writ: kind "%" is malformed', kind USING ERRCODE = 'WR005';
    ELSIF NOT writ.is_kind_name(kind) THEN -- somebody wrote a row past the check; the other kinds are not his
        view := '';
        did := 'kept: malformed';
        RETURN NEXT;
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(1465010516, 4); -- one sync at a time: two would make one view twice
    SELECT c.relname, obj_description(c.oid, 'pg_class') INTO existing, remark FROM pg_class c
    WHERE c.relnamespace = 'writ'::regnamespace AND c.relkind = 'v' AND starts_with(obj_description(c.oid, 'pg_class'), mark);
    known := EXISTS (SELECT FROM writ.kinds k WHERE k.name = sync_kind.kind AND k.schema IS NOT NULL)
        OR EXISTS (SELECT FROM (SELECT i.kind FROM writ.intents i ORDER BY i.id DESC LIMIT 100000) w WHERE w.kind = sync_kind.kind);
    view := coalesce(existing, left('kind_' || translate(kind, '.-', '__'), 54));
    IF existing IS NULL AND (length('kind_' || kind) > 54 OR to_regclass('writ.' || quote_ident(view)) IS NOT NULL) THEN
        view := view || '_' || left(md5(kind), 8); -- too long, or another kind's already: a.b_c.d and a.b-c.d
    ELSIF existing IS NOT NULL AND NOT known THEN
        did := 'kept: no row of it is young enough to learn its arguments from';
        RETURN NEXT;
        RETURN;
    END IF;
    definition := writ.kind_definition(kind);
    IF remark = mark || md5(definition) THEN
        did := 'as it was';
        RETURN NEXT;
        RETURN;
    END IF;
    BEGIN
        PERFORM set_config('lock_timeout', '5s', true);
        grants := writ.grants_on(to_regclass('writ.' || quote_ident(coalesce(existing, view))));
        EXECUTE format('DROP VIEW IF EXISTS writ.%I', coalesce(existing, view));
        EXECUTE format('CREATE VIEW writ.%I AS %s', view, definition);
        EXECUTE format('COMMENT ON VIEW writ.%I IS %L', view, mark || md5(definition));
        IF to_regrole('writ_viewer') IS NOT NULL AND to_regrole('writ_operator') IS NOT NULL THEN
            EXECUTE format('GRANT SELECT ON writ.%I TO writ_viewer, writ_operator', view);
        END IF;
        FOREACH again IN ARRAY grants LOOP
            EXECUTE again;
        END LOOP;
        did := CASE WHEN existing IS NULL THEN 'made' ELSE 'changed' END;
    EXCEPTION
        WHEN dependent_objects_still_exist THEN did := 'kept: other objects are built on it; drop them, sync, and make them again';
        WHEN lock_not_available THEN did := 'kept: somebody is reading it; sync again';
    END;
    PERFORM set_config('lock_timeout', waits, true);
    RETURN NEXT;
END $$;

-- All kinds that are declared, or have rows among the newest.
CREATE OR REPLACE FUNCTION writ.known_kinds() RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT name FROM writ.kinds
    UNION SELECT w.kind FROM (SELECT i.kind FROM writ.intents i ORDER BY i.id DESC LIMIT 100000) w
    ORDER BY 1
$$;
