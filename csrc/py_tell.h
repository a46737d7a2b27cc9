/* py_tell.h: what is told of the processes at the other side of a channel; see py_tell.c. */
#ifndef PY_TELL_H
#define PY_TELL_H

#include "py_types.h"

/* Take what is to be told, once, and *why; what was left alone until then is listened to again.  Of a channel by lanes;
 * any thread, with or without the GIL. */
nc_lanes_fault tell_take_fault(nc_chan *block, int *why);
/* A fault of a lane is to be told: false if there is none; else an exception is set. */
bool tell_fault(Chan *c);
/* The current exception tells that the other side is gone: say how, if processes were to be reached. */
void tell_how(Chan *c);

#endif
