-- Settings for one engine transaction. set_config with true, not SET, so that they end with it and work behind a
-- pgbouncer in transaction mode.

-- name: EngineTransaction
-- Commits are synchronous whatever the session says: an effect must not outrun its claim. Somebody's open transaction on
-- one row must not hold up a batch: after the lock timeout it is written row by row. A process that froze inside its own
-- must not hold rows for ever: the server ends it, and what it held is free.
-- The rest keeps plans from turning. Hot statements read along an index and stop at their limit; a plan that was made
-- while the table was small or had no statistics would read all of it, and sort it: measured sixty times slower. A path
-- that is switched off and must be taken all the same counts as so costly that the JIT compiler, or parallel workers, would
-- be started for it. A plan is made once for all parameters: with short arrays the server would take planning anew for a
-- bargain each time, at a tenth of all its work.
SELECT set_config('synchronous_commit', 'on', true), set_config('lock_timeout', '1s', true),
    set_config('idle_in_transaction_session_timeout', '30s', true), set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true), set_config('jit', 'off', true),
    set_config('max_parallel_workers_per_gather', '0', true), set_config('plan_cache_mode', 'force_generic_plan', true);

-- name: ApplicationSettings
-- What was before, for an application's share of the transaction.
SELECT current_setting('lock_timeout'), current_setting('enable_seqscan'), current_setting('enable_bitmapscan'),
    current_setting('enable_sort'), current_setting('jit'), current_setting('max_parallel_workers_per_gather'),
    current_setting('plan_cache_mode');

-- name: ApplicationShare
-- The application's own statements run under its own settings, and may pause for longer.
SELECT set_config('idle_in_transaction_session_timeout', '5min', true), set_config('lock_timeout', $1, true), set_config('enable_seqscan', $2, true), set_config('enable_bitmapscan', $3, true),
    set_config('enable_sort', $4, true), set_config('jit', $5, true), set_config('max_parallel_workers_per_gather', $6, true),
    set_config('plan_cache_mode', $7, true);
