-- Subjects about which one kind is running (or ambiguous) while another is not done yet, as when an instance is terminated while it
-- is still to be provisioned. psql -v running=cloud.instance.terminate -v pending=cloud.instance.provision -f …
SELECT r.subject, r.id AS running, r.status, now() - r.started_at AS running_for, p.id AS pending, p.status AS pending_status, p.run_at AS pending_run_at
FROM (SELECT unnest(subjects) AS subject, id, status, started_at FROM writ.status
      WHERE finished_at IS NULL AND state = 'sending' AND kind = :'running' AND subjects IS NOT NULL) r
JOIN (SELECT unnest(subjects) AS subject, id, status, run_at FROM writ.status
      WHERE finished_at IS NULL AND state = 'pending' AND kind = :'pending' AND subjects IS NOT NULL) p USING (subject)
ORDER BY r.started_at, r.subject;
