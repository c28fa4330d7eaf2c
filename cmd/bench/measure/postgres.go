package measure

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Counters are Postgres' own, of one database (WAL: of the cluster) since they were last reset.
type Counters struct {
	Statements float64 // round trips that ran one, BEGIN and COMMIT included
	Buffers    float64 // shared blocks touched, hit or read
	Dirtied    float64 // shared blocks dirtied
	WAL        float64 // bytes, of the whole cluster: autovacuum counts
	FPI        float64 // full page images among them
}

// Sub is what was counted since an earlier reading.
func (c Counters) Sub(before Counters) Counters {
	return Counters{
		c.Statements - before.Statements, c.Buffers - before.Buffers, c.Dirtied - before.Dirtied,
		c.WAL - before.WAL, c.FPI - before.FPI,
	}
}

// Add sums two phases.
func (c Counters) Add(o Counters) Counters {
	return Counters{c.Statements + o.Statements, c.Buffers + o.Buffers, c.Dirtied + o.Dirtied, c.WAL + o.WAL, c.FPI + o.FPI}
}

// ReadCounters reads them for a database, on a connection to another one, so that reading does not count itself.
// Statements and buffers need pg_stat_statements there.
func ReadCounters(ctx context.Context, admin *pgx.Conn, database string) (Counters, error) {
	var c Counters
	err := admin.QueryRow(ctx, `
		SELECT coalesce(sum(s.calls), 0)::float8, coalesce(sum(s.shared_blks_hit + s.shared_blks_read), 0)::float8,
			coalesce(sum(s.shared_blks_dirtied), 0)::float8, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8,
			(SELECT wal_fpi FROM pg_stat_wal)::float8
		FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid AND d.datname = $1`, database).
		Scan(&c.Statements, &c.Buffers, &c.Dirtied, &c.WAL, &c.FPI)
	if err != nil {
		return c, fmt.Errorf("read Postgres' counters: %w", err)
	}
	return c, nil
}
