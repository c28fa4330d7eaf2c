-- Errors by kind and text, the most frequent first. Numbers and ids in the text are folded, so that like meets like.
SELECT kind, regexp_replace(left(error, 200), '[0-9a-f]{8}-[0-9a-f-]{27}|[0-9]+', '#', 'g') AS error,
    count(*), min(failed_at) AS first, max(failed_at) AS last, (array_agg(id ORDER BY failed_at DESC))[1] AS example
FROM writ.intents
WHERE failed_at IS NOT NULL
GROUP BY 1, 2
ORDER BY count(*) DESC;
