-- What was requested, and what ended how, in each minute of the last hour. Requests are found by their ids' time: those
-- created under ids of another form are not counted.
WITH requested AS (
    SELECT date_trunc('minute', requested_at) AS minute, count(*) AS requested
    FROM writ.intents
    WHERE id >= writ.uuid_at(now() - interval '70 min') AND requested_at >= date_trunc('minute', now()) - interval '59 min'
    GROUP BY 1
), ended AS (
    SELECT date_trunc('minute', i.finished_at) AS minute, count(*) FILTER (WHERE i.state = 'sent') AS sent,
        count(*) FILTER (WHERE i.state = 'error') AS error, count(*) FILTER (WHERE i.state = 'cancelled') AS cancelled
    FROM writ.kinds k JOIN writ.intents i ON i.kind = k.name
    WHERE i.finished_at IS NOT NULL AND i.finished_at >= date_trunc('minute', now()) - interval '59 min'
    GROUP BY 1
)
SELECT minute, coalesce(requested, 0) AS requested, coalesce(sent, 0) AS sent, coalesce(error, 0) AS error, coalesce(cancelled, 0) AS cancelled
FROM generate_series(date_trunc('minute', now()) - interval '59 min', now(), '1 min') AS minute
LEFT JOIN requested USING (minute) LEFT JOIN ended USING (minute)
ORDER BY minute;
