/* py_watch.h: event loops that hear the lanes of channels; see py_watch.c. */
#ifndef PY_WATCH_H
#define PY_WATCH_H

#include "py_reach.h"

/* A task is about to wait on the channel, in this loop, of which that is the box: see to it that the loop hears the
 * channel's lanes.  On the loop's thread; false with an exception set, which names `who` has to wait.  Runs Python
 * code. */
bool watch_begin(Chan *c, PyObject *loop, nc_box *box, const char *who);
/* The same, and see to it that native code can kick the box, if it may come to the channel. */
bool loop_serves(Chan *c, PyObject *loop, nc_box *box, const char *who);
/* An end was closed: let go of what loops that have ended were to hear.  Runs Python code. */
void watch_prune(Chan *c);
int watch_add_types(PyObject *module, core_state *st);

#endif
