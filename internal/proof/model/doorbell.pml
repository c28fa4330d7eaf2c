/* The doorbell: NOTIFY serialises commits, so a creation rings only for a relay that sleeps, and no ring may be missed.
 *
 * A relay falls asleep by taking an advisory lock exclusively (dispatch: doze, sleep; relay.sql: RelaySleep, RelayWake) and
 * then looks once more before it trusts the bell. A creation tries the lock shared, in the statement that writes the row,
 * and holds it until its transaction ends; it rings, at its commit, only if it was refused (create.sql: Create, writ.ring).
 * A missed ring costs no intent, only the wait until the next poll; checked is that none is missed.
 *
 *   NO_SECOND_LOOK  the relay trusts the bell as soon as it has the lock
 *   FLAG_ROW        instead of the lock, a flag in a row that creations read and that the relay sets
 */
#ifndef CREATORS
#define CREATORS 3
#endif
byte due = 0;        /* committed outbox rows that nobody took */
byte shared = 0;     /* creations in flight that hold the lock shared */
bit exclusive = 0;   /* the relay sleeps, or is about to */
bit ring = 0;        /* a notification is on its way, or waits at the relay's connection */
bit listening = 0;   /* the relay waits for the bell */
byte ended = 0;

proctype Creator() {
	bit rings = 0, holds = 0;
	/* The statement. */
	atomic {
#ifdef FLAG_ROW
		rings = exclusive
#else
		if
		:: !exclusive -> shared++; holds = 1
		:: exclusive -> rings = 1
		fi
#endif
	};
	/* The end of the transaction. */
	if
	:: atomic { true -> due++; if :: rings -> ring = 1 :: else fi; shared = shared - holds; ended++ }
	:: atomic { true -> shared = shared - holds; ended++ } /* rolled back */
	fi
}

proctype Relay() {
Pumping: /* pump: one look at everything */
	if
	:: atomic { due > 0 -> due = 0; goto Pumping }
	:: atomic { due == 0 -> skip }
	fi;

Dozing: /* doze: try to fall asleep; while a creation is in flight that will not ring, look again and again */
	if
	:: atomic { shared == 0 -> exclusive = 1 }
#ifndef FLAG_ROW
	:: atomic { shared > 0 -> if :: due > 0 -> goto Pumping :: due == 0 -> goto Dozing fi }
#endif
	fi;

Asleep: /* sleep: the second look, then the bell */
#ifndef NO_SECOND_LOOK
	if
	:: atomic { due > 0 -> exclusive = 0; goto Pumping }
	:: atomic { due == 0 -> skip }
	fi;
#endif
	listening = 1;
	if
	:: atomic { ring -> ring = 0; listening = 0; exclusive = 0; goto Pumping }
	fi
}

/* Nobody is on the way, nothing rings, something is due, and the relay waits. */
proctype Monitor() { end: if :: atomic { listening && due > 0 && !ring && ended == CREATORS -> assert(!(listening && due > 0 && !ring)) } fi }

init { atomic { byte i; for (i : 1 .. CREATORS) { run Creator() }; run Relay(); run Monitor() } }
