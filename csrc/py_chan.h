/* py_chan.h: opening a channel, and what its endpoints may do; see py_chan.c. */
#ifndef PY_CHAN_H
#define PY_CHAN_H

#include "py_types.h"

PyObject *chan_open(PyObject *module, PyObject *const *args, Py_ssize_t n);
/* The receiver of a channel of bytes of its own, for a call that has no endpoint any more; a new reference. */
Endpoint *chan_lone_receiver(PyObject *module);
/* A new endpoint of a channel. */
Endpoint *endpoint_new(Chan *c, int side);
/* Close it, holding the endpoint or with the last reference to it.  Whom it calls is chained to `kicks`. */
void endpoint_close_held(Endpoint *ep, nc_box **kicks);
/* Does the channel belong to another thread?  Then WrongThread is set. */
bool chan_off_thread(Chan *c);
/* Can the endpoint be used at all?  STEP_READY, or STEP_ERROR with an exception set. */
step endpoint_check(Endpoint *ep);

#endif
