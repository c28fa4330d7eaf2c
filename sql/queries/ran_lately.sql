-- What ran about one subject in the last 24 hours, the last first: an attempt was begun then, however it ended.
-- psql -v subject=account:7 -f sql/queries/ran_lately.sql
SELECT started_at, id, kind, status, attempt, finished_at - started_at AS took, error, idempotency_key
FROM writ.status
WHERE subjects @> ARRAY[:'subject'] AND started_at > now() - interval '24 h'
ORDER BY started_at DESC;
