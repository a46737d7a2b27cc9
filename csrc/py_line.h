/* py_line.h: a waiter's place in line; see py_line.c. */
#ifndef PY_LINE_H
#define PY_LINE_H

#include "py_wake.h"

/* Leave the line for good, and hand on what the waiter was called for but did not take: to the next in line,
 * and to the next who was put off for a claim.  Idempotent; holding the endpoint. */
void line_leave(Chan *c, int side, nc_waiter *w, nc_box **kicks);
/* nc_chan_line_up() for a call. */
nc_place line_up(Call *call, nc_waiter *w, bool requeue, nc_box **kicks);
/* It is w's turn, but its endpoint is lent to a claim: sleep on until that ends.  Holding the endpoint. */
void line_defer(Call *call, nc_waiter *w);
/* Was w put off, and not called again since?  Also under the gate's lock, as those who take others out of the line
 * may call it without the endpoint.  Holding that. */
bool line_deferred(Call *call, nc_waiter *w);
/* About to sleep: not behind somebody who will never come.  Runs Python code. */
void line_look_ahead(Chan *c, int side, nc_box **kicks);
/* Take those out of a line who were called and will never run, as their loop is closed, and call the next
 * instead; true if there were any.  Runs Python code. */
bool line_reap(Chan *c, int side, nc_box **kicks);
/* Native code comes to this channel: bring the loops on which somebody waits here within its reach.  False with an
 * exception set; runs Python code. */
bool line_reach_all(Chan *c);
/* Drop what is buffered, now that the receiver is gone.  Runs Python code. */
void discard_orphans(Chan *c);
/* After a step, with no gate and no endpoint held: give every box of the chain its kick, and drop what nobody can
 * receive any more.  Runs Python code; keeps the current exception. */
void line_deliver(Chan *c, nc_box *kicks);
/* The same where there is mostly nothing to do. */
static inline void line_deliver_any(Chan *c, nc_box *kicks)
{
    if (kicks != NULL || nc_chan_orphaned(c->block))
        line_deliver(c, kicks);
}
/* For tp_traverse: what the tasks in line wait on. */
int line_traverse(nc_gate *g, visitproc visit, void *arg);

#endif
