/* py_park.h: a thread that waits; see py_park.c. */
#ifndef PY_PARK_H
#define PY_PARK_H

#include "py_wake.h"

typedef struct parker {
    wake_box base;
    nc_waiter waiter;
    PyThread_type_lock lock; /* taken; a kick releases it */
} parker;

/* Of the process: once there is a module. */
void park_init(void);
parker *parker_new(void *owner);
/* Take the mail off, so that the next post finds the box empty and kicks.  On every round: a post may land after the
 * thread has seen the state that it announces, and acted on it. */
static inline void parker_receive(parker *p)
{
    if (nc_box_take(&p->base.box) != NULL)
        nc_post_receive(&p->waiter);
}
/* Look once, and again if that was in vain because of waiters who will never come.  The result as in look. */
step try_call(Call *call, PyObject **out);
/* Run the call to its end in this thread, asleep without the GIL in between. */
PyObject *wait_blocking(Call *call, double timeout);

#endif
