/* py_park.h: a thread that waits; see py_park.c. */
#ifndef PY_PARK_H
#define PY_PARK_H

#include "py_wake.h"

typedef struct parker {
    wake_box base;
    nc_waiter waiter;
    PyThread_type_lock lock; /* taken; a kick releases it */
} parker;

/* For the process: called when the module is made. */
void park_init(void);
parker *parker_new(void *owner);
/* Empty the box, so that the next post kicks it.  Called on every round: a post may arrive after the thread has seen
 * the waiter's new state, and acted on it. */
static inline void parker_receive(parker *p)
{
    if (nc_box_take(&p->base.box) != NULL)
        nc_post_receive(&p->waiter);
}
/* Look once, and again if waiters that will never run were in the way.  Returns as a look does.  Runs
 * Python code, and so does the next. */
step try_call(Call *call, PyObject **out);
/* Run the call to its end in this thread, which sleeps without the GIL.  The result, or NULL with an exception set. */
PyObject *wait_blocking(Call *call, double timeout);

#endif
