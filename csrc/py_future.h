/* py_future.h: what a task waits on; see py_future.c. */
#ifndef PY_FUTURE_H
#define PY_FUTURE_H

#include "py_core.h"

void future_free_spares(core_state *st);
/* A future of the loop that a task may wait on, a new reference; get_loop is a function that returns the loop. */
PyObject *future_new(core_state *st, PyObject *loop, PyObject *get_loop);
/* Wake the task that waits on a future, ours or a loop's own: 0, or -1 with an exception set, that of no signal
 * handler.  On its loop's thread; runs Python code. */
int future_resolve(core_state *st, PyObject *future);

#endif
