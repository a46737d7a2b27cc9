/* py_wake.h: how waiters are woken up; see py_wake.c. */
#ifndef PY_WAKE_H
#define PY_WAKE_H

#include "py_types.h"

/* How the box of a loop and the box of a blocked thread differ.  A further way to be woken is a further kind: a
 * structure that begins with a wake_box, as `parker` does, and these functions.  Its owner lines up by
 * nc_chan_line_up(), takes its mail (nc_box_take, nc_post_receive) before each look, looks with `called` once it was
 * called, and then leaves the line or lines up again.  Native code must be able to kick it: only loops may answer
 * `reached` by no. */
struct wake_box;
typedef struct box_kind {
    void (*kick)(core_state *, struct wake_box *,
                 nc_box **kicks); /* may run Python code, and chain more boxes to `kicks` */
    void (*kick_without_gil)(struct wake_box *); /* from any thread */
    bool (*reached)(struct wake_box *); /* would kick_without_gil wake its owner? */
    bool (*dead)(core_state *, struct wake_box *); /* will its waiters never run?  Runs Python code */
    void (*drop)(struct wake_box *); /* free what it holds, before its memory is freed */
} box_kind;

typedef struct wake_box {
    nc_box box;
    const box_kind *kind;
    uint32_t born; /* core_generation when made; a forked child leaves it alone */
    uint64_t home; /* of a loop: the number of the state whose threads alone may touch its objects; else 0 */
} wake_box;

/* A sleeper stands in line for an awaitable. */
typedef struct sleeper {
    nc_waiter waiter;
    Chan *chan; /* strong; NULL once it was abandoned in the mail, with a GIL */
    int side;
    PyObject *_Atomic future; /* strong.  Whoever resolves it takes it out; only the loop's thread puts one in.  So
                                 relaxed is enough, but for the exchange that hands the reference over: S1 */
} sleeper;

void wake_free_spares(core_state *st);
/* Give every box of the chain its kick: one of another interpreter as native code would.  Runs Python code; keeps the
 * current exception. */
void wake_deliver(core_state *st, nc_box *kicks);
/* The same, from any thread, with or without a GIL: runs no Python code. */
void wake_boxes(nc_box *kicks);
/* Could native code wake the owner of this box? */
bool wake_reached(nc_box *box);
void wake_box_unref(nc_box *box);
sleeper *sleeper_new(nc_box *box, Endpoint *owner);
void sleeper_free(sleeper *sl);
/* The awaitable of the sleeper ends: the sleeper is freed, now or by whoever takes the mail that it is in.  It has left
 * the line; the caller holds the awaitable. */
void sleeper_leave(sleeper *sl);
void sleeper_set_future(sleeper *sl, PyObject *future);
/* Put a future in, or NULL, and take out the one before; hands the references over.  With a GIL, which every caller
 * holds, the swap need not be atomic. */
PyObject *sleeper_swap_future(sleeper *sl, PyObject *future);

#endif
