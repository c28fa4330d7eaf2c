-- All about one subject, the newest first. psql -v subject=account:7 -f sql/queries/by_subject.sql
SELECT id, kind, status, attempt, requested_at, finished_at, writ.why(id) AS why
FROM writ.status
WHERE subjects @> ARRAY[:'subject']
ORDER BY id DESC
LIMIT 200;
