/* py_park.h: a thread that waits; see py_park.c. */
#ifndef PY_PARK_H
#define PY_PARK_H

#include "py_wake.h"

typedef struct parker {
    wake_box base;
    struct listening *lanes;      /* it hears lanes, too, and sleeps in poll(2); NULL: it sleeps on the lock */
    PyThread_type_lock lock;      /* taken; a kick releases it */
    unsigned long thread;         /* whose it is, if that is known; set before the first place in line is taken */
    Py_ssize_t places;
    nc_waiter waiter[];           /* [places]: one for each line that the thread stands in */
} parker;

/* What one wait keeps from sleep to sleep; times in seconds. */
typedef struct parking {
    double began, woken, deadline; /* woken: after the last sleep, before waiting for the GIL; deadline < 0: none */
    unsigned spin;                /* pauses worth spending before a sleep */
    bool fresh;                   /* no sleep has ended yet that signals were looked for after */
} parking;

/* For the process: called when the module is made. */
void park_init(void);
/* With so many places, at least one; NULL without memory.  Freed by wake_box_unref(). */
parker *parker_new(Py_ssize_t places);
/* Place i, for a line in which this endpoint, or native end, waits. */
nc_waiter *parker_place(parker *p, Py_ssize_t i, void *owner);
/* All places are taken, by endpoints: see to it that the thread hears their lanes, if they have any.  False with an
 * exception set. */
bool parker_listen(parker *p);
/* The same for a native end of that channel. */
bool parker_listen_natively(parker *p, Chan *c);
/* A native thread sleeps until it is kicked, or for so many microseconds (< 0: without limit).  True if other processes
 * have rung, which it then has to hear.  A signal may end it. */
bool parker_sleep_natively(parker *p, PY_TIMEOUT_T us);
/* Empty the box, so that the next post kicks it. */
void parker_receive(parker *p);
/* Before each look: receive, as a post may arrive after the thread has seen the waiter's new state, and acted on it;
 * and go on in the child if a signal handler has forked. */
void park_stay(parker *p);
/* A wait of this call begins: `timeout` < 0: none.  It ends. */
void park_begin(parking *at, Call *call, double timeout);
void park_end(parking *at, Call *call);
/* Sleep until called: STEP_BLOCKED, or STEP_ERROR if a signal handler raised or the time is up. */
step park_sleep(parking *at, Call *call, parker *p);
/* Look once, and again if waiters that will never run were in the way.  Returns as a look does.  Runs
 * Python code, and so does the next. */
step try_call(Call *call, PyObject **out);
/* Run the call to its end in this thread, which sleeps without the GIL.  The result, or NULL with an exception set. */
PyObject *wait_blocking(Call *call, double timeout);

#endif
