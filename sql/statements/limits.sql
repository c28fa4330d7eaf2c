-- Limits: what workers ask before they claim. See ../limits.sql.

-- name: LimitsInForce
-- Of these kinds.
SELECT kind, per, coalesce(key, ''), coalesce(starts, 0), period, burst, coalesce(running, 0) FROM writ.limits_in_force WHERE kind = ANY ($1::text[]) ORDER BY kind, per;

-- name: DeclareLimits
SELECT writ.declare_limits($1, $2::text[], $3::int[], $4::interval[], $5::int[], $6::int[])
WHERE cardinality($2::text[]) > 0 OR EXISTS (SELECT FROM writ.limits WHERE kind = $1 AND source = 'code');

-- name: LimitRelaxed
-- Of tokens that follow each other closely a crash of the server may forget the last: those are over when it is back.
SELECT set_config('synchronous_commit', 'off', true);

-- name: LeaseTokens
SELECT key, granted, starts_in, step, life, wait, tail FROM writ.lease_tokens($1, $2::text[], $3::int[]);

-- name: ReturnTokens
SELECT writ.return_tokens($1, $2, $3, $4);

-- name: LeasePlaces
SELECT key, held, others FROM writ.lease_places($1, $2, $3::text[], $4::int[], $5::int[], $6, $7);

-- name: LineUp
SELECT writ.line_up($1, $2, $3, $4, $5, $6, $7);

-- name: LimitKeys
-- The keys of hinted rows ($2: where they stand), when each was due first, which is the order among them, and whether its
-- key has a line: then it has been in that, or is younger than all in it. $4: of a key in the arguments its path, by which most
-- are found without the function, which takes longer than all the rest.
SELECT i.id, k.key, i.run_at, coalesce(t.line_at > now() AND (i.run_at, i.id) <= (t.lined_at, t.lined_id), false),
    coalesce(t.line_at > now() AND (i.run_at, i.id) > (t.lined_at, t.lined_id), false)
FROM writ.intents i, LATERAL (SELECT CASE WHEN $4::text[] IS NOT NULL AND coalesce(octet_length(i.args #>> $4::text[]), 0) <= 200 THEN '=' || coalesce(i.args #>> $4::text[], '')
    ELSE writ.limit_key(i.args, i.subjects, $2::text) END AS key OFFSET 0) k
LEFT JOIN writ.tokens t ON t.kind = $3 AND t.key = k.key
WHERE i.id = ANY ($1::uuid[]);

-- name: PruneLimits
SELECT writ.prune_limits();

-- name: SetLimit
SELECT writ.set_limit($1, $2, $3, $4, $5, $6, $7, $8);

-- name: ClearLimit
SELECT writ.clear_limit($1, $2, $3, $4);

-- name: LimitUse
SELECT kind, per, source, coalesce(key, ''), coalesce(starts, 0), period, burst, coalesce(running, 0), set_at, coalesce(set_by, ''), coalesce(set_why, ''),
    keys, coalesce(hottest, ''), coalesce(next_token, '0'), coalesce(line, '0'), taken, waiting
FROM writ.limit_use ORDER BY kind, per DESC;
