-- Stale: due for over a minute, waiting for nothing, and not begun. The reconciler sends their hints again; many of them mean no workers, a
-- stopped relay or a deep queue. writ why ID says which.
SELECT id, kind, status, attempt, now() - run_at AS overdue, writ.why(id) AS why
FROM writ.status
WHERE finished_at IS NULL AND status = 'ready' AND run_at < now() - interval '1 min'
ORDER BY run_at
LIMIT 100;
