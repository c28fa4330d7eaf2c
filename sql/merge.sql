-- Changing the arguments of many intents at once: one JSON merge patch (RFC 7396) for all of them.

-- The target with the patch merged in: members of the patch replace those of the target, null takes one away, objects are
-- merged in depth.
CREATE OR REPLACE FUNCTION writ.merge_patch(target jsonb, patch jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    member record;
BEGIN
    IF jsonb_typeof(patch) <> 'object' THEN
        RETURN patch;
    END IF;
    IF jsonb_typeof(target) IS DISTINCT FROM 'object' THEN
        target := '{}';
    END IF;
    FOR member IN SELECT * FROM jsonb_each(patch) LOOP
        target := CASE WHEN jsonb_typeof(member.value) = 'null' THEN target - member.key
            ELSE target || jsonb_build_object(member.key, writ.merge_patch(target -> member.key, member.value)) END;
    END LOOP;
    RETURN target;
END $$;

-- Why a patch does not fit the arguments of a kind, as its code declares them (kinds.schema); null if it does, or nobody
-- declared any. It speaks of names and types only: what a patch holds may be nobody's business.
CREATE OR REPLACE FUNCTION writ.patch_problem(kind text, patch jsonb) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(CASE
        WHEN declared IS NULL THEN format('%s has no argument "%s", but %s', kind, key, names)
        ELSE format('argument "%s" of %s is declared %s, not %s', key, kind, concat_ws(' of format ', declared ->> 'type', declared ->> 'format'), jsonb_typeof(value)) END,
        '; ' ORDER BY key)
    FROM (
        SELECT p.key, p.value, k.schema -> 'properties' -> p.key AS declared,
            (SELECT string_agg(o.key, ', ' ORDER BY o.key) FROM jsonb_object_keys(k.schema -> 'properties') AS o (key)) AS names
        FROM writ.kinds k, jsonb_each(patch) p
        WHERE k.name = patch_problem.kind AND jsonb_typeof(k.schema -> 'properties') = 'object') x
    WHERE declared IS NULL OR jsonb_typeof(value) <> 'null' AND CASE declared ->> 'type'
        WHEN 'integer' THEN writ.json_bigint(value) IS NULL
        WHEN 'number' THEN jsonb_typeof(value) <> 'number'
        WHEN 'boolean' THEN jsonb_typeof(value) <> 'boolean'
        WHEN 'array' THEN jsonb_typeof(value) <> 'array'
        WHEN 'object' THEN jsonb_typeof(value) <> 'object'
        WHEN 'string' THEN jsonb_typeof(value) <> 'string' OR CASE declared ->> 'format'
            WHEN 'uuid' THEN writ.json_uuid(value) IS NULL WHEN 'date-time' THEN writ.json_timestamptz(value) IS NULL ELSE false END
        ELSE false END
$$;

-- The arguments of an intent with a patch merged in. WR005 if that does not fit its kind.
CREATE OR REPLACE FUNCTION writ.merged_args(id uuid, patch jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    i record;
    problem text;
BEGIN
    SELECT t.kind, t.args INTO i FROM writ.intents t WHERE t.id = merged_args.id;
    IF NOT FOUND THEN
        RETURN NULL; -- which the verb will say
    END IF;
    problem := CASE WHEN jsonb_typeof(i.args) <> 'object' THEN format('its arguments are a JSON %s, which nothing is merged into', jsonb_typeof(i.args))
        ELSE writ.patch_problem(i.kind, patch) END;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'writ: the arguments are not changed: %', problem USING ERRCODE = 'WR005';
    END IF;
    RETURN writ.merge_patch(i.args, patch);
END $$;
