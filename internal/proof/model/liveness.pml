/* Liveness of one intent: once faults stop, it comes to rest, ended or flagged for a person (I8).
 *
 * Here the outbox, the relay, the broker's queue and the reconciler are explicit, and each fault has a budget that runs
 * out; then weak fairness (pan -f) gives every part its turn. A queued hint is always one of the row's epoch: hints of
 * older epochs are moot wherever they meet a worker, so leaving an epoch drops them.
 * Handlers return in the end; one that never does leaves its row flagged overdue, which is rest.
 */
#define MANUAL     0
#define IDEMPOTENT 2
#ifndef KIND
#define KIND MANUAL
#endif
#ifndef MAX_ATTEMPTS
#define MAX_ATTEMPTS 2
#endif

/* Budgets of faults. */
#ifndef CRASHES
#define CRASHES 0   /* a worker process dies */
#endif
#ifndef LOST
#define LOST 0      /* an answer is lost after its commit */
#endif
#ifndef GHOSTS
#define GHOSTS 0    /* a claim is not answered, and executed by the server later, or never */
#endif
#ifndef DROPS
#define DROPS 0     /* the broker loses what it holds, or a queue is purged */
#endif
#ifndef DOUBLES
#define DOUBLES 0   /* a relay dies between the confirm and its commit; the broker delivers again */
#endif
#ifndef ZOMBIES
#define ZOMBIES 0   /* a living worker is taken for dead */
#endif
#ifndef UNKNOWNS
#define UNKNOWNS 0  /* outcomes that nobody knows */
#endif
#ifndef SNOOZES
#define SNOOZES 0   /* snoozed, or claimed too late to begin */
#endif
#ifndef PUTBACKS
#define PUTBACKS 0  /* hints put back: no slot, a paused kind, a locked row */
#endif
#ifndef LAPSES
#define LAPSES 0    /* the worker's heartbeat looks stale to the database for a while, or the installation is paused */
#endif
#ifndef VERDICTS
#define VERDICTS 0  /* a person retries a flagged row */
#endif

/* Rules that are switched off to see that they matter.
 *   NO_REQUEUE        the reconciler writes no hint again
 *   NO_FLAG           the reconciler does not look for what dead workers held
 *   REFUSED_IS_FINAL  an unanswered claim is forgotten when it is sent again and refused for a reason that may pass */

mtype = { PENDING, SENDING, SENT, ERROR };
mtype = { DONE, NOT_DONE, STOP, FREE, UNKNOWN };
mtype state = PENDING;
byte epoch = 0, attempt = 0, holder = 0;
bit flagged = 0, due = 1;
bit holder_dead = 0;                /* the holder's heartbeat is old, and stays so */
bit in_outbox = 1, in_queue = 0;    /* a hint of the row's epoch is there */
byte ghost[3];
byte crashes = CRASHES, lost = LOST, ghosts = GHOSTS, drops = DROPS, doubles = DOUBLES, zombies = ZOMBIES,
	unknowns = UNKNOWNS, snoozes = SNOOZES, putbacks = PUTBACKS, lapses = LAPSES, verdicts = VERDICTS;

#define SPENT (attempt >= MAX_ATTEMPTS)
inline leave() { in_outbox = 0; in_queue = 0; holder_dead = 0; flagged = 0; holder = 0 }
/* Entering pending brings a hint in the same transaction (FinishRetried, SettleOrphan, by_hand). */
inline to_pending(bump, when) { leave(); state = PENDING; epoch = epoch + bump; in_outbox = 1; due = when }
inline to_end(where, bump) { leave(); state = where; epoch = epoch + bump; due = 1 }
inline claim(who) { leave(); state = SENDING; epoch++; attempt++; holder = who }
#define CAN_CLAIM(h) (state == PENDING && due && epoch == h)
#define MINE(h) (state == SENDING && holder == id && epoch == h + 1 && !holder_dead && !flagged)
#define HOLDS (state == SENDING && holder == id && epoch == e && !holder_dead)
inline die() { crashes--; if :: state == SENDING && holder == id -> holder_dead = 1 :: else fi }

proctype Slot(byte id) {
	byte h = 0, e = 0; mtype outcome = DONE;
Waiting: /* the ack comes when the hint is claimed, moot or put back; a crash before loses it here, which is worse than redelivery */
	if
	:: atomic { in_queue -> h = epoch; e = 0; outcome = DONE; if :: in_queue = 0 :: doubles > 0 -> doubles-- fi }
	fi;
	if
	:: atomic { crashes > 0 -> die(); goto Waiting }
	:: atomic { putbacks > 0 -> putbacks--;
		if :: state == PENDING && epoch == h -> in_outbox = 1 :: else fi; goto Waiting }
	:: atomic { CAN_CLAIM(h) -> claim(id); if :: e = epoch; goto Running :: lost > 0 -> lost--; goto Resolving :: crashes > 0 -> die(); goto Waiting fi }
	:: atomic { !CAN_CLAIM(h) -> if :: state == PENDING && epoch == h -> in_outbox = 1 :: else fi; goto Waiting } /* weigh */
	:: atomic { ghosts > 0 -> ghosts--; ghost[id] = h + 1; goto Resolving }
	fi;

Resolving: /* store.ClaimAgain */
	if
	:: atomic { MINE(h) -> e = epoch; goto Running }
	:: atomic { CAN_CLAIM(h) -> claim(id); if :: e = epoch; goto Running :: lost > 0 -> lost--; goto Resolving fi }
	:: atomic { !MINE(h) && (state != PENDING || epoch != h) -> goto Waiting }
	:: atomic { state == PENDING && epoch == h && lapses > 0 -> lapses-- ;
#ifdef REFUSED_IS_FINAL
		in_outbox = 1; goto Waiting }
#else
		goto Resolving }
#endif
	:: atomic { crashes > 0 -> die(); goto Waiting }
	fi;

Running:
	if
	:: atomic { true ->
		if
		:: outcome = DONE
		:: outcome = NOT_DONE
		:: outcome = STOP
		:: snoozes > 0 -> snoozes--; outcome = FREE
		:: unknowns > 0 -> unknowns--; outcome = UNKNOWN
		fi }
	:: atomic { crashes > 0 -> die(); goto Waiting }
	fi;

Finishing:
	if
	:: atomic { HOLDS ->
		if
		:: outcome == DONE -> to_end(SENT, 0)
		:: outcome == FREE -> attempt--; to_pending(0, 0)
		:: outcome == NOT_DONE && !SPENT -> to_pending(0, 0)
		:: outcome == NOT_DONE && SPENT -> to_end(ERROR, 0)
		:: outcome == STOP -> to_end(ERROR, 0)
		:: outcome == UNKNOWN && KIND == IDEMPOTENT && !SPENT -> to_pending(0, 0)
		:: outcome == UNKNOWN && KIND == IDEMPOTENT && SPENT -> to_end(ERROR, 0)
		:: outcome == UNKNOWN && KIND != IDEMPOTENT -> flagged = 1
		fi;
		if :: goto Waiting :: lost > 0 -> lost--; goto Finishing fi }
	:: atomic { !HOLDS -> goto Waiting } /* applied before, or a late report */
	:: atomic { crashes > 0 -> die(); goto Waiting }
	fi
}

proctype Ghost(byte n) { end: do
	:: atomic { ghost[n] != 0 -> if :: CAN_CLAIM(ghost[n] - 1) -> claim(n) :: else fi; ghost[n] = 0 }
	:: atomic { ghost[n] != 0 -> ghost[n] = 0 }
	od }

proctype Faults() { end: do
	:: atomic { drops > 0 && in_queue -> drops--; in_queue = 0 }
	:: atomic { zombies > 0 && state == SENDING && !flagged && KIND != IDEMPOTENT -> zombies--; flagged = 1 }
	:: atomic { zombies > 0 && state == SENDING && !flagged && KIND == IDEMPOTENT -> zombies--;
		if :: !SPENT -> to_pending(1, 0) :: SPENT -> to_end(ERROR, 1) fi }
	:: atomic { verdicts > 0 && state == SENDING && flagged -> verdicts--; attempt = 0; to_pending(1, 1) }
	od }

/* run_at comes. */
proctype Timer() { end: do :: atomic { state == PENDING && !due -> due = 1 } od }

/* dispatch: what is due is published, and deleted when it is confirmed. */
proctype Relay() { end: do
	:: atomic { in_outbox && due && state == PENDING -> in_queue = 1; if :: in_outbox = 0 :: doubles > 0 -> doubles-- fi }
	od }

/* reconciler: the threshold is taken to be long enough for a queued hint to be delivered. */
#ifndef NO_REQUEUE
proctype Requeue() { end: do :: atomic { state == PENDING && due && !in_outbox && !in_queue -> in_outbox = 1 } od }
#endif
#ifndef NO_FLAG
proctype SettleDead() { end: do
	:: atomic { KIND != IDEMPOTENT && state == SENDING && !flagged && holder_dead -> flagged = 1 }
	:: atomic { KIND == IDEMPOTENT && state == SENDING && !flagged && holder_dead ->
		if :: !SPENT -> to_pending(1, 0) :: SPENT -> to_end(ERROR, 1) fi }
	od }
#endif

/* Something always can move, so that rest is a loop and not a deadlock. */
proctype Time() { do :: state != 0 od }

init { atomic {
	run Slot(1); run Slot(2);
	if :: GHOSTS > 0 -> run Ghost(1); run Ghost(2) :: else fi;
	run Faults(); run Timer(); run Relay(); run Time();
#ifndef NO_REQUEUE
	run Requeue();
#endif
#ifndef NO_FLAG
	run SettleDead()
#endif
} }

#define ENDED (state == SENT || state == ERROR)
#define ASKS  (state == SENDING && flagged)
#if KIND == IDEMPOTENT
ltl comes_to_rest { <>[] ENDED }
#else
ltl comes_to_rest { <>[] (ENDED || ASKS) }
#endif
