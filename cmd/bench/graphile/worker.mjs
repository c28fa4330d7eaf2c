// A worker process of graphile-worker for the benchmarks. It speaks the protocol of package contender: a line of JSON when
// it is ready, how many jobs were begun whenever there are more, and at last the latencies of timed jobs.
//
//   node worker.mjs migrate
//   node worker.mjs work LOCAL_QUEUE_SIZE CONCURRENT_JOBS KINDS
import { createInterface } from "node:readline";
import { Logger, WorkerPreset, run, runMigrations } from "graphile-worker";

const [verb, queueSize, slots, kinds] = process.argv.slice(2);

// Standard output is the protocol's.
const logger = new Logger(() => (level, message) => {
  if (level === "error" || level === "warning") console.error(level, message);
});

// The settings under which its own documentation gives its peak: batched completion without delay, a pool with one
// connection more than jobs at once.
const preset = {
  extends: [WorkerPreset],
  worker: {
    connectionString: process.env.DATABASE_URL,
    concurrentJobs: Number(slots ?? 24),
    maxPoolSize: Number(slots ?? 24) + 1,
    localQueue: { size: Number(queueSize ?? 500) },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger,
  },
};

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

async function work() {
  let handled = 0;
  const latencies = [];
  const task = async (payload) => {
    if (payload.at) latencies.push(Math.round((performance.timeOrigin + performance.now()) * 1000 - payload.at));
    handled++;
    if (payload.wait) await new Promise((resolve) => setTimeout(resolve, payload.wait));
  };
  const taskList = {};
  for (let i = 0; i < Number(kinds); i++) taskList[`noop_${String(i).padStart(3, "0")}`] = task;

  const input = createInterface({ input: process.stdin });
  const told = new Promise((resolve) => input.once("line", () => resolve(true)));
  const ended = new Promise((resolve) => input.once("close", () => resolve(false)));
  say({ ready: true });
  if (!(await Promise.race([told, ended]))) return;

  let said = 0;
  const report = setInterval(() => {
    if (handled !== said) say({ handled: (said = handled) });
  }, 5);
  const runner = await run({ preset, taskList, noHandleSignals: true });
  await ended;
  await runner.stop();
  clearInterval(report);
  say({ last: true, handled, latencies_us: latencies });
}

if (verb === "migrate") await runMigrations({ preset });
else await work();
