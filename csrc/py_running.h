/* py_running.h: which loop and task of asyncio this thread runs; see py_running.c. */
#ifndef PY_RUNNING_H
#define PY_RUNNING_H

#include "py_core.h"

/* The running loop, or None where none runs, a new reference; NULL with an exception set. */
PyObject *running_loop(core_state *st);
/* Does this thread run a task of `loop` right now?  No inside a bare callback, and no inside a signal handler that
 * interrupted the loop's select(): the latter has to wake the loop. */
bool running_task_of(core_state *st, PyObject *loop);
/* Which task of asyncio this thread runs: an address to be compared, or NULL. */
void *running_task(core_state *st);
/* Has a loop of asyncio's own a callback that is ready, or a timer that is due?  asyncio keeps both under private
 * names.  Where these are gone or mean something else the answer is yes.  An exception may be set. */
bool running_has_work(core_state *st, PyObject *loop);

#endif
