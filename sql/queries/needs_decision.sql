-- Needs a decision: attempts that nobody knows the outcome of, oldest first, then errors. End each with
-- writ happened, retry, give-up or cancel.
SELECT status, id, kind, attempt, idempotency_key, flag_reason, error,
    now() - coalesce(flagged_at, failed_at) AS since
FROM writ.status
WHERE flagged_at IS NOT NULL OR failed_at IS NOT NULL
ORDER BY (flagged_at IS NULL), coalesce(flagged_at, failed_at);
