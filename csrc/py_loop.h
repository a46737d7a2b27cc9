/* py_loop.h: what a wait wants of an event loop. */
#ifndef PY_LOOP_H
#define PY_LOOP_H

#include "py_mailbox.h"

/* The running loop and its mailbox, new references; NULL with an exception set, which names `who` has to wait.  This
 * and the next two run Python code. */
PyObject *loop_here(core_state *st, const char *who, PyObject **mailbox);
nc_box *mailbox_box(PyObject *mailbox);
/* A future of the loop that a task may wait on, a new reference: our own, unless the loop has one of another kind. */
PyObject *loop_future(core_state *st, PyObject *loop, PyObject *mailbox);
/* A timer that calls what->_expire() in `seconds`, a new reference. */
PyObject *loop_timer(core_state *st, PyObject *loop, double seconds, PyObject *what);
/* The timer of a wait went off: have its task look once more.  False if that cannot be done now: then post its waiter,
 * so that it is tried again with the mail.  On the loop's thread; runs Python code. */
bool loop_wake(core_state *st, PyObject *future);
/* Which task this thread runs: an address to be compared, or NULL. */
void *loop_task(core_state *st);
/* Does the loop that runs here know of anybody who waits for a turn of it?  It does not know yet which descriptors are
 * ready.  True if a loop of another make does not say.  Runs Python code. */
bool loop_wanted(core_state *st);
/* See to it that native code can kick the loop's box, on the loop's thread; false with an exception set.
 * Runs Python code. */
bool loop_reach(core_state *st, PyObject *loop, nc_box *box, const char *who);
/* Native code may call a task of the loop that owns the box from now on: true if it can kick the box.  Later the loop
 * sees to it.  In any thread of its interpreter; runs no Python code. */
bool loop_share(nc_box *box);
/* If it cannot: have the loop that owns the box open its wake fd, on the loop's thread.  If that fails, the tasks that
 * wait on this channel there are called, and raise.  Those of a closed loop are taken out of its lines.  False with an
 * exception set; runs Python code. */
bool loop_summon(Chan *c, nc_box *box, nc_box **kicks);

#endif
