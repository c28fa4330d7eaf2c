-- The oldest open intents: what has been promised longest and is not done.
SELECT id, kind, status, attempt, now() - requested_at AS age, run_at, writ.why(id) AS why
FROM writ.status
WHERE finished_at IS NULL
ORDER BY requested_at
LIMIT 20;
