package workload

import (
	"context"
	"fmt"
)

// profiled is how many statements a profile lists.
const profiled = 8

// profile prints the statements on which Postgres spent most time in this run's database, its set-up included.
func (f *field) profile(ctx context.Context) error {
	rows, err := f.env.admin.Query(ctx, `
		SELECT calls, mean_exec_time, total_exec_time, (shared_blks_hit + shared_blks_read)::float8 / calls, wal_bytes::float8 / calls,
			rows::float8 / calls, left(regexp_replace(regexp_replace(query, '--[^\n]*\n', '', 'g'), '\s+', ' ', 'g'), 110)
		FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid AND d.datname = $1
		WHERE query !~ '^(VACUUM|CREATE|ALTER)' ORDER BY total_exec_time DESC LIMIT $2`, f.name, profiled)
	if err != nil {
		return fmt.Errorf("read the profile: %w", err)
	}
	defer rows.Close()
	fmt.Fprintf(f.env.Progress, "  %s: %9s %9s %10s %9s %9s %7s\n", f.c.Name(), "calls", "mean ms", "total ms", "buffers", "WAL", "rows")
	for rows.Next() {
		var calls int64
		var mean, total, buffers, wal, n float64
		var sql string
		if err := rows.Scan(&calls, &mean, &total, &buffers, &wal, &n, &sql); err != nil {
			return fmt.Errorf("read the profile: %w", err)
		}
		fmt.Fprintf(f.env.Progress, "  %*s  %9d %9.3f %10.1f %9.1f %9.0f %7.1f  %s\n", len(f.c.Name()), "", calls, mean, total, buffers, wal, n, sql)
	}
	return rows.Err()
}
