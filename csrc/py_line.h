/* py_line.h: a waiter's place in line; see py_line.c. */
#ifndef PY_LINE_H
#define PY_LINE_H

#include "py_wake.h"

/* Leave the line for good, and hand on what the waiter was called for but did not take: to the next in line,
 * and to the next waiter that was deferred for a claim.  Idempotent; holding the endpoint. */
void line_leave(Chan *c, int side, nc_waiter *w, nc_box **kicks);
/* nc_chan_line_up() for a call. */
nc_place line_up(Call *call, nc_waiter *w, bool requeue, nc_box **kicks);
/* It is w's turn, but its endpoint is lent to a claim: w sleeps on until the claim ends.  Holding the endpoint. */
void line_defer(Call *call, nc_waiter *w);
/* Was w deferred, and not called again since?  Holding the endpoint.  Looks under the gate's lock, as reaping may call
 * w without holding the endpoint. */
bool line_deferred(Call *call, nc_waiter *w);
/* Before sleeping: reap the line if others stand in it, as they may never run.  Runs Python code. */
void line_reap_ahead(Chan *c, int side, nc_box **kicks);
/* Take called waiters whose loop is closed out of a line, as they will never run, and call the next ones
 * instead; true if there were any.  Runs Python code. */
bool line_reap(Chan *c, int side, nc_box **kicks);
/* Native code comes to this channel: see to it that it can wake the loops whose tasks wait here.  False with an
 * exception set; runs Python code. */
bool line_reach_all(Chan *c);
/* The receiver is gone: drop what is buffered.  Runs Python code. */
void discard_orphans(Chan *c);
/* After a step, with no gate and no endpoint held: kick every box of the chain, and drop what nobody can receive any
 * more.  Runs Python code; keeps the current exception. */
void line_deliver(Chan *c, nc_box *kicks);
/* The same, for callers that mostly have nothing to deliver. */
static inline void line_deliver_any(Chan *c, nc_box *kicks)
{
    if (kicks != NULL || nc_chan_orphaned(c->block))
        line_deliver(c, kicks);
}
/* For tp_traverse of whoever owns the sleeper: visit its channel, and the future that line_traverse() does not visit.
 */
int line_traverse_sleeper(sleeper *sl, visitproc visit, void *arg);
/* For tp_traverse: visit the futures of the tasks that stand in line by this Chan; the line may have others. */
int line_traverse(Chan *c, int side, visitproc visit, void *arg);

#endif
