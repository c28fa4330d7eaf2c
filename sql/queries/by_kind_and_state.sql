-- How many of each kind stand where. Counts finished rows too: on a big table that reads an index from end to end.
SELECT kind, status, count(*), min(requested_at) AS oldest, max(requested_at) AS newest
FROM writ.status
GROUP BY kind, status
ORDER BY kind, status;
