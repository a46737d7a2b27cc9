/* py_doorbell.h: the thread that wakes event loops for those who cannot; see py_doorbell.c. */
#ifndef PY_DOORBELL_H
#define PY_DOORBELL_H

#include "py_wake.h"

typedef struct doorbell doorbell;

/* What a box has to ring with. */
typedef struct bell_entry {
    struct bell_entry *next; /* in the queue of those who rang; this and `rung` are under the doorbell's lock */
    wake_box *box;           /* set before it rings */
    bool rung;               /* in the queue */
} bell_entry;

/* Make the doorbell of this interpreter, once in a process, without its thread; 0, or -1 with an exception set.  Runs
 * Python code. */
int doorbell_prepare(core_state *st);
/* The doorbell, with its thread, a borrowed reference; NULL without an exception if no thread can be started, or the
 * interpreter exits.  Needs neither memory of Python's nor a stack; the caller holds the GIL. */
doorbell *doorbell_start(core_state *st);
void doorbell_ref(doorbell *bell);
void doorbell_unref(doorbell *bell);
/* May a task of this thread wait for somebody to ring?  Once the doorbell has ended, not in the thread that ended it,
 * which runs functions given to `atexit`: it would wait for ever.  All other threads are about to be stopped, and may
 * wait until then.  From any thread. */
bool doorbell_answered(doorbell *bell);
/* Is the interpreter of this module about to be taken down?  No, if it has no doorbell. */
bool doorbell_has_ended(core_state *st);
/* Have the thread kick the entry's box.  From any thread, with or without the GIL; false if nobody answers any more. */
bool doorbell_ring(doorbell *bell, bell_entry *entry);
/* The module goes: so does the thread. */
void doorbell_leave(core_state *st);

#endif
