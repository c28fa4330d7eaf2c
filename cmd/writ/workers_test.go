package main

import "testing"

func TestWorkers(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.writ("workers").want(t, exitOK, "no workers")
	s.db.Run(t, `INSERT INTO writ.workers (id, host, pid, version, kinds, slots, running, stuck, ttl, draining, started_at, heartbeat_at) VALUES
		('01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c871', 'web1', 4711, 'v41', '{shop.order.charge,shop.cache.warm}', 10, 7, 1, '1 h', false, now() - interval '3 h', now() - interval '1 s'),
		('01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c872', 'web1', 4712, 'v40', '{shop.order.charge}', 10, 2, 0, '1 h', true, now() - interval '3 d', now() - interval '1 s'),
		('01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c873', E'we\x1bb2', 17, '', '{}', 5, 5, 0, '10 s', false, now() - interval '3 h', now() - interval '40 s')`)
	s.writ("workers").golden(t, "workers_table")
	s.writ("workers", "-o", "jsonl").golden(t, "workers_jsonl")
}
