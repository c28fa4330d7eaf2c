-- Stuck: what should have moved by itself and has not. Attempts past their deadline that nobody flagged, attempts without a living
-- worker, rows that are due for over 5 minutes, ambiguous ones over 15 minutes old. In a sound installation this is empty.
SELECT id, kind, status, CASE
        WHEN flagged_at IS NOT NULL THEN 'ambiguous for over 15 minutes'
        WHEN state = 'pending' THEN 'due for over 5 minutes'
        WHEN NOT worker_alive THEN 'its worker is dead'
        ELSE 'past its deadline' END AS stuck,
    now() - coalesce(flagged_at, CASE WHEN state = 'pending' THEN run_at ELSE least(deadline_at, heartbeat_at) END) AS since, writ.why(id) AS why
FROM writ.status
WHERE finished_at IS NULL AND CASE
    WHEN flagged_at IS NOT NULL THEN flagged_at < now() - interval '15 min'
    WHEN state = 'pending' THEN status = 'ready' AND run_at < now() - interval '5 min'
    ELSE deadline_at < now() - interval '10 s' OR NOT worker_alive END
ORDER BY since DESC NULLS FIRST
LIMIT 100;
