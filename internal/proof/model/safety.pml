/* Safety of one intent: what may happen, however unlucky the order.
 *
 * The environment is over-approximated, so that what holds here holds for anything milder:
 *   - Hints. While the row is pending, a hint of its epoch may reach any slot at any time, early, twice, or after it was
 *     lost and written again (dispatch, workers: putBack, reconciler: Requeue, which moves no epoch). So the outbox, the
 *     relay and the broker need no state of their own here; liveness.pml has them.
 *   - Death. Any holder may be presumed dead at any time (reconciler: SettleOrphan), so heartbeats need no state either:
 *     a frozen process, a lapsed heartbeat and a pruned worker row are all «presumed dead and at it again later».
 *   - The network. An answer may be lost after the commit. A claim that was not answered may be executed by the server
 *     later, or never.
 *   - Postgres is what the isolation level promises: each atomic block that touches the row is one transaction with its
 *     row lock held.
 * Assumed of the outside world: an effect lands before its attempt's deadline + settle, or never (docs/protocol.md,
 * residual risks). With DEAF=1 a handler may also ignore that its context is cancelled, and have its effect at any time while
 * its process is heard of; one that was silent past deadline + settle lands nothing any more. Handlers, probe and person
 * tell the truth.
 *
 * With RESTORES=1 the database goes back once, at any time, to what it was at any earlier time, though the outside world and
 * the workers do not; it is closed then, put into quarantine, and opened. The point is not one at which the row stood in
 * error: what becomes of that is a person's to find out (docs/operations.md, After a restore).
 *
 * KIND=PROBED has a probe, which may be asked at any time while the row is flagged, by any number of workers.
 */

/* The class of the kind. */
#define MANUAL     0
#define PROBED     1
#define IDEMPOTENT 2
#ifndef KIND
#define KIND MANUAL
#endif

/* Bounds. */
#ifndef MAX_ATTEMPTS
#define MAX_ATTEMPTS 2
#endif
#ifndef MAX_EPOCH
#define MAX_EPOCH 3      /* no claim or verdict beyond it: keeps the model finite */
#endif
#ifndef CRASHES
#define CRASHES 1        /* deaths of worker processes */
#endif
#ifndef LOST
#define LOST 2           /* answers lost after their commit */
#endif
#ifndef GHOSTS
#define GHOSTS 1         /* claims that the server executes later, or never */
#endif
#ifndef VERDICTS
#define VERDICTS 2       /* acts of a person */
#endif
#ifndef UNKNOWNS
#define UNKNOWNS 1       /* outcomes that nobody knows, or whose hook failed */
#endif
#ifndef SNOOZES
#define SNOOZES 1        /* snoozed, or not begun because the heartbeat was not fresh: no attempt spent */
#endif
#ifndef ONE_PROCESS
#define ONE_PROCESS 0    /* 1: the two slots are of one worker process, with one worker id */
#endif
#ifndef DEAF
#define DEAF 0           /* 1: handlers may go on after their deadline */
#endif
#ifndef RESTORES
#define RESTORES 0       /* 1: the database goes back once */
#endif
#define LEAP (MAX_EPOCH + 1) /* by how much a quarantine raises the epoch: beyond any that was used */

/* Rules that are switched off or bent to see that they matter; the table of runs is in model.go.
 *   CLAIM_WITHOUT_EPOCH  the claim's guard does not look at the epoch
 *   FINISH_WITHOUT_EPOCH the outcome's guard does not look at the epoch
 *   FINISH_UNGUARDED     the outcome's guard looks at the state only
 *   NO_REGISTRY          a process does not know what it is claiming or has started
 *   RETRY_UNKNOWN        an unknown outcome is tried again
 *   UNGUARDED_VERDICT    a verdict does not compare state and epoch with what was seen
 *   VERDICT_KEEPS_EPOCH  a verdict does not move the epoch
 *   NO_SETTLE            a retry does not wait for deadline + settle
 *   EARLY_LOOK           a person looks outside before deadline + settle, and decides by that after it
 *   DEADLINE_FROM_START  the local deadline counts from the handler's start, not from before the claim was sent
 *   ASYNC_CLAIM          a claim may be answered before it is durable, and be lost by a crash of Postgres
 *   RESUME_FLAGGED       a worker that finds out what an unanswered claim did takes a flagged row for its own
 *   NO_HOLDER            a retry, and a probe's «not done», do not look whether the holder may still be at it
 *   HOLDER_AT_ANSWER     a probe looks for that when it answers, and not when it asks
 *   LATE_OVERWRITES      a late outcome that says done makes the row sent
 *   REPORT_TWICE         a late report is not looked for before it is written
 *   NO_QUARANTINE        a restored database is opened as it is
 *   HOLD_NO_PENDING      a quarantine holds only what is being sent
 *   HOLD_NO_TOUCHED      a quarantine lets go on what a worker of before has just handed back, as it is due later
 *   NO_WAIT              an error is tried again at once after a restore
 *   HOLD_NO_DEADLINE     a quarantine gives no deadline to what it holds
 *   NO_FENCE             a quarantine does not raise the epoch of what it lets go on
 *   REFUSED_IS_FINAL     an unanswered claim is forgotten when it is sent again and refused, though its row still stands
 *                        pending at the hint's epoch (not due, or the worker's heartbeat looked stale) */

mtype = { PENDING, SENDING, SENT, ERROR, CANCELLED };
mtype = { DONE, NOT_DONE, STOP, FREE, UNKNOWN, HOOK_FAILED };

/* The row: writ.intents. */
mtype state = PENDING;
byte epoch = 0, attempt = 0;
byte holder = 0;          /* worker_id; read only in SENDING and SENT */
bit flagged = 0, due = 1; /* due: run_at has come */
bit settled = 0;          /* deadline_at + settle has passed, by the database's clock */
bit gave_up = 0;          /* in ERROR: by give-up, which settles nothing */
bit returned = 0;         /* flag_reason: the holder itself has said that its handler returned */

/* The outside world, and what the checks need to remember. */
byte effects = 0;
byte started = 0;         /* bit e: a handler was started at epoch e */
byte verdict_epoch = 0;   /* the epoch that the last verdict made */
/* LATE_TRUTH looks whether a late report contradicts a verdict. Bit e: that on the attempt of epoch e was happened, or retry. */
#ifdef LATE_TRUTH
byte said_done = 0, said_not = 0;
#define SAID_DONE said_done = said_done | (1 << epoch)
#define SAID_NOT said_not = said_not | (1 << epoch)
#else
#define SAID_DONE skip
#define SAID_NOT skip
#endif
bit back = 0;             /* RESTORES: the database has gone back */
bit closed = 0;           /* and nobody has adopted it yet: nothing is claimed, and no probe is asked */
bit touched = 0;          /* between the two a worker of before has written an outcome, and what is due is as it says */
bit unfenced = 0;         /* an error's epoch was not raised */
bit waited = 0;           /* and all that was begun before is over */
bit held_back = 0;        /* the row is in quarantine: what it was may be any attempt, also one that is lost */
bit undoable = 0;         /* ASYNC_CLAIM: the last commit was a claim that is not durable yet */

/* The two slots. Index 0 is not used. */
byte identity[3];         /* worker id of the process that the slot belongs to */
byte timer[3];            /* the epoch whose deadline the slot's clock counts to; 0: none */
bit over[3];              /* that attempt's deadline + settle has passed: its effect lands no more */
byte resolving[3];        /* 1 + the hint's epoch, while the answer to a claim is being found out */
byte ghost[3], ghost_of[3]; /* an unanswered claim at the server: 1 + the hint's epoch, and the worker id in it */
bit silent[3];            /* DEAF: the process has not been heard of since, nor will be before this attempt is over */
byte held = 0;            /* ONE_PROCESS: the registry; bit h: the claim of hint epoch h is held */

byte crashes = CRASHES, lost = LOST, ghosts = GHOSTS, verdicts = VERDICTS, unknowns = UNKNOWNS, snoozes = SNOOZES;

#define SPENT (attempt >= MAX_ATTEMPTS)

/* No claim or verdict beyond it, which keeps the model finite. */
#define LAST (MAX_EPOCH + back * LEAP)

/* guard.sql: retry_danger; probe.sql: probe_danger. The holder is dead, or itself has said that its handler returned. */
#if DEAF && !defined(NO_HOLDER)
#define HEARD(n) (identity[n] == holder && !silent[n])
#define OUT (returned || !(HEARD(1) || HEARD(2)))
#else
#define OUT 1
#endif

#ifdef ASYNC_CLAIM
#define NOT_ON_DISK undoable = 1
#define SETTLED_ON_DISK undoable = 0
#else
#define NOT_ON_DISK skip
#define SETTLED_ON_DISK skip
#endif

/* I4: nothing leaves sent or cancelled. */
#define LEAVE assert(state != SENT && state != CANCELLED); SETTLED_ON_DISK

/* Entering pending, and ending. A worker's outcome leaves the epoch alone, a verdict adds one. */
inline to_pending(bump) { LEAVE; touched = closed; state = PENDING; epoch = epoch + bump; flagged = 0; settled = 0; gave_up = 0; holder = 0;
	returned = 0; held_back = 0 }
inline to_end(where, bump) { LEAVE; state = where; epoch = epoch + bump; flagged = 0; due = 1;
	if :: where == SENT || (where == ERROR && bump) :: else -> holder = 0; returned = 0; held_back = 0 fi }

/* worker.sql: Claim, ClaimWaiting. */
#ifdef CLAIM_WITHOUT_EPOCH
#define CAN_CLAIM(h) (state == PENDING && due && epoch < LAST && !closed)
#else
#define CAN_CLAIM(h) (state == PENDING && due && epoch == h && epoch < LAST && !closed)
#endif
/* I5 and I11 are looked at here. */
inline claim(n, who) {
	assert(due);
	LEAVE; state = SENDING; epoch++; attempt++; holder = who; flagged = 0; settled = 0; returned = 0; NOT_ON_DISK;
	assert(attempt <= MAX_ATTEMPTS);
#ifndef DEADLINE_FROM_START
	timer[n] = epoch; over[n] = 0 /* counted from before the claim was sent, so never behind the database's deadline_at */
#endif
}
/* worker.sql: ReadMine. A flagged row is nobody's to start: its handler may have been run already, and have said unknown. */
#ifdef RESUME_FLAGGED
#define MINE(h) (state == SENDING && holder == identity[n] && epoch == h + 1)
#else
#define MINE(h) (state == SENDING && holder == identity[n] && epoch == h + 1 && !flagged)
#endif

/* The guard of every statement in finish.sql. */
#if defined(FINISH_UNGUARDED)
#define HOLDS (state == SENDING)
#elif defined(FINISH_WITHOUT_EPOCH)
#define HOLDS (state == SENDING && holder == identity[n])
#else
#define HOLDS (state == SENDING && holder == identity[n] && epoch == e)
#endif

#define MAY_DIE (crashes > 0 && !ONE_PROCESS)

/* The slot is as new. Its process forgets what it held, or has died, and its successor has another worker id. */
inline fresh() { h = 0; e = 0; did = 0; applied = 0; told = 0; chosen = 0; outcome = DONE; timer[n] = 0; over[n] = 0; silent[n] = 0; resolving[n] = 0 }
inline leave_registry() { held = held & ~(1 << h) }
inline die() { printf("slot %d: worker %d dies\n", n, identity[n]); crashes--; identity[n] = identity[n] + 2; fresh() }

/* One slot of a worker process: workers/claim.go, run.go, finish.go. Each option below is one transaction, or one step of
 * the process; between any two of them the process may freeze for as long as it likes. */
proctype Slot(byte n) {
	byte h = 0, e = 0; /* the hint's epoch, the attempt's epoch */
	mtype outcome = DONE;
	bit did = 0, applied = 0, chosen = 0, told = 0; /* told: a late report stands in the log */

Waiting: /* claimer.gather, admit, claim: a hint of the row's epoch, or an older one that comes late */
	if
	:: atomic { state == PENDING || (ONE_PROCESS && epoch > 0) ->
		if
		:: state == PENDING -> h = epoch
		:: ONE_PROCESS && epoch > 0 -> h = epoch - 1
		fi;
#if ONE_PROCESS && !defined(NO_REGISTRY)
		if /* registry.enter */
		:: held & (1 << h) -> fresh(); goto Waiting /* held already: acked and forgotten */
		:: else -> held = held | (1 << h)
		fi;
#endif
		if
		:: CAN_CLAIM(h) -> claim(n, identity[n]); printf("slot %d: worker %d claims, epoch %d\n", n, identity[n], epoch);
			if
			:: e = epoch; goto Starting
			:: lost > 0 -> lost--; resolving[n] = h + 1; goto Resolving
			:: MAY_DIE -> die(); goto Waiting
			fi
		:: !CAN_CLAIM(h) -> leave_registry(); fresh(); goto Waiting /* weigh: moot, or put back, which brings another hint */
		:: ghosts > 0 -> ghosts--; ghost[n] = h + 1; ghost_of[n] = identity[n]; resolving[n] = h + 1;
			printf("slot %d: worker %d sends a claim that is not answered\n", n, identity[n]); goto Resolving
		fi }
	fi;

Resolving: /* claimer.resolve, store.ClaimAgain: ClaimWaiting and ReadMine in one transaction, until it is answered */
	if
	:: atomic { CAN_CLAIM(h) -> claim(n, identity[n]); printf("slot %d: worker %d claims again, epoch %d\n", n, identity[n], epoch);
		if
		:: e = epoch; goto Starting
		:: lost > 0 -> lost--; goto Resolving
		:: MAY_DIE -> die(); goto Waiting
		fi }
	:: atomic { MINE(h) -> e = epoch; printf("slot %d: worker %d finds epoch %d its own\n", n, identity[n], epoch); goto Starting }
	/* Not ours, and never will be: forgotten. */
	:: atomic { !MINE(h) && (state != PENDING || epoch != h) -> leave_registry(); fresh(); goto Waiting }
	:: atomic { state == PENDING && epoch == h && epoch == LAST -> leave_registry(); fresh(); goto Waiting } /* the model's bound */
	/* Pending at the hint's epoch and refused all the same, for a reason that may pass: not due, the installation closed, or
	 * the worker's heartbeat stale. When it has passed, the lost claim may still be executed; so it is asked again. */
#ifdef REFUSED_IS_FINAL
	:: atomic { state == PENDING && epoch == h -> leave_registry(); fresh();
		printf("slot %d: the claim is refused for now, and forgotten\n", n); goto Waiting }
#endif
	:: atomic { MAY_DIE -> die(); goto Waiting }
	fi;

Starting: /* Pool.start: the answer is on its way */
	if
	:: atomic { true ->
		resolving[n] = 0;
#ifdef DEADLINE_FROM_START
		timer[n] = e; over[n] = (epoch == e && settled);
#endif
		if
		:: !over[n]
		:: over[n] -> outcome = FREE; chosen = 1; goto Finishing /* claimed too late to begin */
		:: snoozes > 0 -> snoozes--; outcome = FREE; chosen = 1; goto Finishing /* heartbeat not fresh, or shutting down */
		fi;
#if ONE_PROCESS || RESTORES
		/* I3; with one slot a process it follows from the claim. An error's epoch is not raised by a quarantine, so what it is
		 * tried again under may have been used in what is lost. */
		assert(!(started & (1 << e)) || unfenced);
		started = started | (1 << e);
#endif
		printf("slot %d: handler starts, epoch %d\n", n, e) }
	fi;

	/* The handler: has its effect, or goes on without. */
	if
	:: atomic { !over[n] || (DEAF && !silent[n]) ->
		printf("slot %d: EFFECT of epoch %d; the row is at epoch %d\n", n, e, epoch);
		assert(epoch >= e || back);                 /* I2: its claim is committed; it may be lost again with what is lost */
		assert(effects == 0 || KIND == IDEMPOTENT); /* I6 */
		did = 1;
		if :: effects < 2 -> effects++ :: else fi }
	:: goto Finishing
	:: atomic { MAY_DIE -> die(); goto Waiting }
	fi;

Finishing: /* judge, then finisher.write, store.FinishOne: written again and again until it is answered */
	if
	:: atomic { true ->
		if
		:: chosen
		:: !chosen && did -> outcome = DONE
		:: !chosen && !did -> outcome = NOT_DONE
		:: !chosen && !did -> outcome = STOP
		:: !chosen && !did && snoozes > 0 -> snoozes--; outcome = FREE
		:: !chosen && unknowns > 0 -> unknowns--; outcome = UNKNOWN
		:: !chosen && did && unknowns > 0 -> unknowns--; outcome = HOOK_FAILED
		fi;
		chosen = 1;
		if
		:: HOLDS ->
			printf("slot %d: writes %e, epoch %d\n", n, outcome, e);
			assert(epoch == e);         /* an outcome is written to the attempt that it is of */
			assert(e >= verdict_epoch); /* and never over a verdict */
			applied = 1; SETTLED_ON_DISK;
			if
			:: outcome == DONE -> assert(effects > 0); to_end(SENT, 0) /* I7 */
			:: outcome == FREE -> attempt--; to_pending(0); due = 0
			:: outcome == NOT_DONE && !SPENT -> to_pending(0); due = 0
			:: outcome == NOT_DONE && SPENT -> to_end(ERROR, 0)
			:: outcome == STOP -> to_end(ERROR, 0)
			:: outcome == HOOK_FAILED -> flagged = 1; returned = 1 /* what is known stands in the log; nothing is run again */
#ifdef RETRY_UNKNOWN
			:: outcome == UNKNOWN -> to_pending(0); due = 0
#else
			:: outcome == UNKNOWN && KIND == IDEMPOTENT && !SPENT -> to_pending(0); due = 0
			:: outcome == UNKNOWN && KIND == IDEMPOTENT && SPENT -> to_end(ERROR, 0)
			:: outcome == UNKNOWN && KIND != IDEMPOTENT -> flagged = 1; returned = 1
#endif
			fi;
			if
			:: leave_registry(); fresh(); goto Waiting /* finisher.release */
			:: lost > 0 -> lost--; goto Finishing
			fi
		:: !HOLDS -> /* LateReport: applied before, or a late report. The log tells of all outcomes but sent, which writes none */
			printf("slot %d: %e of epoch %d is refused\n", n, outcome, e);
			assert(back || outcome != DONE || (state == SENT && epoch == e && holder == identity[n]) == applied); /* I10 */
			if
			:: !applied || back ->
#ifdef REPORT_TWICE
				assert(!told);
#endif
				told = 1; /* if it is not there: once, however often it is written */
				/* With truthful people, and settle, no late truth contradicts a word on the effect: only a give-up, which is none. */
#ifdef LATE_TRUTH
				assert(KIND == IDEMPOTENT || outcome != DONE || !(said_not & (1 << e)));
				assert(KIND == IDEMPOTENT || (outcome != NOT_DONE && outcome != STOP) || !(said_done & (1 << e)));
#endif
#ifdef LATE_OVERWRITES
				if :: outcome == DONE -> to_end(SENT, 0) :: else fi;
#endif
				if
				:: true
				:: lost > 0 -> lost--; goto Finishing /* written again */
				fi
			:: else
			fi;
			leave_registry(); fresh(); goto Waiting
		fi }
	:: atomic { MAY_DIE -> die(); goto Waiting }
	fi
}

/* What the server still does with a claim whose sender has given up waiting. */
proctype Ghost(byte n) {
end:	do
	:: atomic { ghost[n] != 0 ->
		if
		:: CAN_CLAIM(ghost[n] - 1) ->
			/* A living process holds nothing that it does not know of: such a claim would never be run, nor flagged. */
			printf("server: executes the unanswered claim of worker %d, epoch %d\n", ghost_of[n], epoch + 1);
			assert(ghost_of[n] != identity[n] || resolving[n] == ghost[n]);
			claim(n, ghost_of[n])
		:: else
		fi;
		ghost[n] = 0; ghost_of[n] = 0 }
	:: atomic { ghost[n] != 0 -> ghost[n] = 0; ghost_of[n] = 0 }
	od }

/* In a quarantine the deadline is as if the row had been claimed just then, so it lies behind those of all that is lost. */
inline note_over(n) { if :: timer[n] == the_epoch || (held_back && timer[n] != 0) -> over[n] = 1 :: else fi }

#if RESTORES
/* What the row was at the point that the database goes back to. */
bit point = 0;
mtype was_state = PENDING; byte was_epoch = 0, was_attempt = 0, was_holder = 0; bit was_flagged = 0, was_due = 0, was_settled = 0, was_returned = 0;

#ifdef HOLD_NO_PENDING
#define HOLDS_BACK (state == SENDING)
#else
#ifdef HOLD_NO_TOUCHED
#define HOLDS_BACK (state == SENDING || due)
#else
#define HOLDS_BACK (state == SENDING || due || touched)
#endif
#endif

/* A backup, a restore, and the person who does what docs/operations.md says: quarantine.sql, identity.sql. */
proctype Restore() {
	atomic { state == PENDING || state == SENDING -> point = 1;
		was_state = state; was_epoch = epoch; was_attempt = attempt; was_holder = holder; was_flagged = flagged; was_due = due;
		was_settled = settled; was_returned = returned; printf("postgres: a backup, %e at epoch %d\n", state, epoch) };
	atomic { back = 1; closed = 1;
		state = was_state; epoch = was_epoch; attempt = was_attempt; holder = was_holder; flagged = was_flagged; due = was_due;
		settled = was_settled; returned = was_returned; gave_up = 0; held_back = 0; verdict_epoch = 0;
		ghost[1] = 0; ghost_of[1] = 0; ghost[2] = 0; ghost_of[2] = 0; /* they went to the server that is gone */
		was_state = PENDING; was_epoch = 0; was_attempt = 0; was_holder = 0; was_flagged = 0; was_due = 0; was_settled = 0; was_returned = 0;
		printf("postgres: restored, %e at epoch %d\n", state, epoch) };
#ifndef NO_QUARANTINE
	atomic { true -> if
		:: state != PENDING && state != SENDING -> unfenced = 1
		:: (state == PENDING || state == SENDING) && !(flagged || (KIND != IDEMPOTENT && HOLDS_BACK)) ->
#ifndef NO_FENCE
			epoch = epoch + LEAP;
#endif
			holder = 0; printf("person: fenced off, epoch %d\n", epoch)
		:: (state == PENDING || state == SENDING) && (flagged || (KIND != IDEMPOTENT && HOLDS_BACK)) ->
			state = SENDING; epoch = epoch + LEAP; holder = 0; flagged = 1; returned = 0; held_back = 1;
#ifdef HOLD_NO_DEADLINE
			settled = 1;
#else
			settled = 0;
#endif
			printf("person: in quarantine, epoch %d\n", epoch)
		fi };
#endif
	atomic { closed = 0; touched = 0; printf("person: adopts it\n") };
	atomic { true -> waited = 1; over[1] = (over[1] || (timer[1] != 0 && timer[1] < LEAP)); over[2] = (over[2] || (timer[2] != 0 && timer[2] < LEAP)) }
}
#endif

/* Time, and the reconciler. */
proctype Clock() {
	byte the_epoch = 0;
end:	do
	:: atomic { !settled && (state == SENDING || (state == ERROR && gave_up)) -> settled = 1;
		the_epoch = epoch; if :: state == ERROR -> the_epoch-- :: else fi; /* give-up added one to the attempt's */
		note_over(1); note_over(2); the_epoch = 0; printf("clock: deadline + settle has passed\n") }
	:: atomic { !due && state == PENDING -> due = 1;
#if RESTORES
		if :: point && !back && was_state == PENDING && was_epoch == epoch -> was_due = 1 :: else fi /* time does not go back */
#endif
	}
#if DEAF
	:: atomic { timer[1] != 0 && !silent[1] -> silent[1] = 1; printf("slot 1: is not heard of any more\n") }
	:: atomic { timer[2] != 0 && !silent[2] -> silent[2] = 1; printf("slot 2: is not heard of any more\n") }
#endif
	/* reconcile.sql: SettleOrphan. Its guard (as read, not flagged, worker dead) is as loose as can be here. */
	:: atomic { state == SENDING && !flagged && !closed && KIND != IDEMPOTENT -> flagged = 1; SETTLED_ON_DISK;
		printf("reconciler: takes the holder for dead, flags\n") }
	:: atomic { KIND == IDEMPOTENT && state == SENDING && !flagged && !closed && epoch < LAST ->
		if :: !SPENT -> to_pending(1); due = 0 :: SPENT -> to_end(ERROR, 1) fi; verdict_epoch = epoch;
		printf("reconciler: takes the holder for dead, an idempotent kind is retried, epoch %d\n", epoch) }
#ifdef ASYNC_CLAIM
	:: atomic { undoable -> undoable = 0; state = PENDING; epoch--; attempt--; holder = 0; flagged = 0;
		printf("postgres: crashes, the claim of epoch %d was not on disk\n", epoch + 1) }
#endif
	od }

#ifdef NO_SETTLE
#define SETTLED 1
#else
#define SETTLED settled
#endif
/* docs/operations.md, After a restore: errors. */
#ifdef NO_WAIT
#define WAITED 1
#else
#define WAITED (waited || !back)
#endif
/* retry_danger; and what a person has to heed. */
#define MAY_RETRY ((state == ERROR && !gave_up || SETTLED && OUT) && (state != ERROR || WAITED))
#ifdef EARLY_LOOK
#define LOOKED_AFTER 1
#else
#define LOOKED_AFTER looked_after
#endif
#ifdef VERDICT_KEEPS_EPOCH
#define BUMP 0
#else
#define BUMP 1
#endif
#ifdef UNGUARDED_VERDICT
#define AS_SEEN ((state == SENDING && flagged) || state == ERROR)
#else
#define AS_SEEN (state == seen && epoch == seen_epoch && (state != SENDING || flagged))
#endif

/* A person: looks at the row and at the outside world, then decides: verbs.sql, guard.sql (by_hand). A verb and a
 * hand-written UPDATE are the same trigger; whoever writes by hand without naming what he saw takes UNGUARDED_VERDICT. */
proctype Person() {
	mtype seen = PENDING; byte seen_epoch = 0; bit happened = 0, looked_after = 0;
end:	do
	:: atomic { verdicts > 0 && epoch < LAST && (state == ERROR || (state == SENDING && flagged)) ->
		verdicts--; seen = state; seen_epoch = epoch; happened = (effects > 0); looked_after = MAY_RETRY;
		printf("person: looks, sees %e, epoch %d, and %d effects outside\n", state, epoch, effects) };
		atomic {
			if
			:: AS_SEEN && happened -> assert(effects > 0); if :: state == SENDING -> SAID_DONE :: else fi;
				to_end(SENT, BUMP); verdict_epoch = epoch;
				printf("person: happened, epoch %d\n", epoch)
			:: AS_SEEN && !happened && LOOKED_AFTER && MAY_RETRY -> /* retry_danger */
				if :: state == SENDING -> SAID_NOT :: else fi;
				to_pending(BUMP); attempt = 0; verdict_epoch = epoch; printf("person: retry, epoch %d\n", epoch)
			:: AS_SEEN && state == SENDING -> to_end(ERROR, BUMP); gave_up = 1; verdict_epoch = epoch;
				printf("person: give-up, epoch %d\n", epoch)
			:: AS_SEEN && state == ERROR -> to_end(CANCELLED, 0); printf("person: cancel\n")
			:: skip /* moved meanwhile, refused, or not sure */
			fi;
			seen = PENDING; seen_epoch = 0; happened = 0; looked_after = 0 }
	:: atomic { verdicts > 0 && state == PENDING -> verdicts--; to_end(CANCELLED, 0); printf("person: cancel\n") }
	od }

#ifdef HOLDER_AT_ANSWER
#define OUT_WHEN_ASKED 1
#else
#define OUT_WHEN_ASKED OUT
#endif

/* The probe: a worker that has the kind's code asks the outside world, then compares and sets. */
proctype Probe() {
	byte asked_epoch = 0; bit asked_after = 0, happened = 0; /* asked_after: deadline + settle, and with the holder out */
end:	do
	:: atomic { state == SENDING && flagged && !closed && epoch < LAST ->
		asked_epoch = epoch; asked_after = (SETTLED && OUT_WHEN_ASKED); happened = (effects > 0); printf("probe: sees %d effects\n", effects) };
		atomic {
			if
#ifdef UNGUARDED_VERDICT
			:: state == SENDING ->
#else
			:: state == SENDING && flagged && epoch == asked_epoch ->
#endif
				if
				:: happened -> SAID_DONE; to_end(SENT, BUMP); verdict_epoch = epoch; printf("probe: happened\n")
				:: !happened && asked_after && OUT && !SPENT -> SAID_NOT; to_pending(BUMP); verdict_epoch = epoch;
					printf("probe: not done, retry\n")
				:: !happened && asked_after && OUT && SPENT -> to_end(ERROR, BUMP); verdict_epoch = epoch; printf("probe: not done, spent\n")
				:: else /* before deadline + settle a probe can only say done; unknown: asked again */
				fi
			:: else
			fi;
			asked_epoch = 0; asked_after = 0; happened = 0 }
	od }

init { atomic {
	identity[1] = 1; identity[2] = 2 - ONE_PROCESS;
	run Slot(1); run Slot(2);
	if :: GHOSTS > 0 -> run Ghost(1); run Ghost(2) :: else fi;
	run Clock();
	if :: VERDICTS > 0 -> run Person() :: else fi;
	if :: KIND == PROBED -> run Probe() :: else fi;
#if RESTORES
	run Restore()
#endif
} }
