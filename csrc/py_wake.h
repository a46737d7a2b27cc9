/* py_wake.h: how somebody who waits is reached; see py_wake.c. */
#ifndef PY_WAKE_H
#define PY_WAKE_H

#include "py_types.h"

/* What differs between those who are reached through a box: a loop, a blocked thread. */
struct wake_box;
typedef struct box_kind {
    bool of_tasks; /* what stands in line with it is a sleeper */
    void (*kick)(core_state *, struct wake_box *, nc_box **kicks); /* may run Python code, and find others to kick */
    void (*kick_without_gil)(struct wake_box *); /* by whatever thread */
    bool (*reached)(struct wake_box *); /* would that wake it? */
    bool (*dead)(core_state *, struct wake_box *); /* will those in line with it never run?  Runs Python code */
    void (*drop)(struct wake_box *); /* what it holds, before its memory is freed */
} box_kind;

typedef struct wake_box {
    nc_box box;
    const box_kind *kind;
    uint32_t born; /* core_generation when made; a forked child leaves it alone */
} wake_box;

/* What stands in line for an awaitable. */
typedef struct sleeper {
    nc_waiter waiter;
    Chan *chan; /* strong; NULL once it was abandoned in the mail, with a GIL */
    int side;
    PyObject *_Atomic future; /* strong; taken out by whoever resolves it.  Only its loop's thread puts one
                             in, so relaxed is enough for the rest but the hand-over: S1 */
} sleeper;

void wake_free_spares(core_state *st);
/* Give every box of the chain its kick.  Runs Python code; keeps the current exception. */
void wake_deliver(core_state *st, nc_box *kicks);
/* Give every box of the chain its kick, from a thread that need not be one of Python's. */
void wake_boxes(nc_box *kicks);
/* Could native code kick this box? */
bool wake_reached(nc_box *box);
void wake_box_unref(nc_box *box);
sleeper *sleeper_new(nc_box *box, Endpoint *owner);
void sleeper_free(sleeper *sl);
/* Its awaitable goes: the sleeper is freed, now or by whoever takes the mail that it is in.  Out of the line, holding
 * the awaitable. */
void sleeper_leave(sleeper *sl);
void sleeper_set_future(sleeper *sl, PyObject *future);
/* Put a future in, or NULL, and take out what was there; hands the references over.  With a GIL, which every caller
 * holds, this needs no atomicity. */
PyObject *sleeper_swap_future(sleeper *sl, PyObject *future);

#endif
