-- What writ doctor looks at. All of these only read.

-- name: DoctorServer
SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('fsync'),
    current_setting('full_page_writes'), current_setting('synchronous_commit'), pg_is_in_recovery();

-- name: DoctorRoles
-- Roles of sql/roles.sql that the cluster lacks.
SELECT name FROM unnest(ARRAY['writ_owner', 'writ_creator', 'writ_worker', 'writ_relay', 'writ_viewer', 'writ_operator']) AS name
WHERE to_regrole(name) IS NULL;

-- name: DoctorRunning
-- Whether a reconciler leads, and whether a relay sits at the door (see RelaySeat). A relay takes that seat when it first
-- has nothing to do; the queue depths that it notes tell of a busy one.
SELECT EXISTS (SELECT FROM writ.leader WHERE name = 'reconciler' AND renewed_at + ttl > clock_timestamp()),
    EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 1465010516 AND objid = 3 AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    OR EXISTS (SELECT FROM writ.relay WHERE seen_at > clock_timestamp() - interval '1 min');

-- name: DoctorWorkers
SELECT count(*) FILTER (WHERE alive), count(*) FILTER (WHERE NOT alive AND swept_at IS NULL), coalesce(sum(slots) FILTER (WHERE alive), 0)::bigint,
    coalesce(sum(running) FILTER (WHERE alive), 0)::bigint, coalesce(sum(stuck) FILTER (WHERE alive), 0)::bigint
FROM (SELECT *, heartbeat_at + ttl > clock_timestamp() AS alive FROM writ.workers) w;

-- name: DoctorStranded
-- Kinds with rows that are due and no live worker that handles them, among the 100,000 that have been due longest.
SELECT i.kind, count(*), extract(epoch FROM clock_timestamp() - min(i.run_at))::float8
FROM (SELECT kind, run_at FROM writ.intents
      WHERE finished_at IS NULL AND state = 'pending' AND waiting_on = 0 AND run_at <= now() ORDER BY run_at LIMIT 100000) i
WHERE NOT EXISTS (SELECT FROM writ.workers w WHERE i.kind = ANY (w.kinds) AND w.heartbeat_at + w.ttl > clock_timestamp())
GROUP BY i.kind ORDER BY min(i.run_at);

-- name: DoctorPausedKinds
SELECT name, coalesce(paused_by, 'nobody named'), coalesce(paused_why, 'no reason') FROM writ.kinds WHERE paused_at IS NOT NULL
UNION ALL SELECT 'queue ' || name, coalesce(paused_by, 'nobody named'), coalesce(paused_why, 'no reason') FROM writ.queues WHERE paused_at IS NOT NULL
ORDER BY 1;

-- name: DoctorBreakers
SELECT writ.why_breaker(kind) FROM writ.flow WHERE breaker <> 'closed' ORDER BY kind;

-- name: DoctorAmbiguous
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(flagged_at)), 0)::float8 FROM writ.intents WHERE flagged_at IS NOT NULL;

-- name: DoctorSnapshots
-- The oldest transaction that keeps dead rows of this database from being removed, and whether the caller may see the
-- sessions of others. No query text: it may hold anything.
SELECT who, seconds, coalesce(pg_has_role(to_regrole('pg_read_all_stats'), 'USAGE'), false) FROM (
    SELECT 'pid ' || pid || coalesce(', user ' || usename, '') || coalesce(', ' || nullif(application_name, ''), '') || coalesce(', ' || state, '') AS who,
        extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
      AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND backend_type <> 'autovacuum worker'
    UNION ALL SELECT 'prepared transaction ' || gid, extract(epoch FROM clock_timestamp() - prepared)::float8
    FROM pg_prepared_xacts WHERE database = current_database()
    UNION ALL SELECT 'none', 0) t
ORDER BY seconds DESC LIMIT 1;
