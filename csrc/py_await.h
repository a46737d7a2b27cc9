/* py_await.h: the awaitable that async calls return.  py_await.c steps it, py_await_life.c makes and frees it,
 * py_coroutine.c makes a coroutine of it. */
#ifndef PY_AWAIT_H
#define PY_AWAIT_H

#include "py_trio.h"

enum { CREATED, PAUSED, BEGUN, PARKED, DONE };

typedef struct Awaitable {
    PyObject_HEAD
    core_state *st;               /* borrowed: its type keeps the module, and so the state */
    PyObject *weakrefs;
    Call call;                    /* .ep is NULL once it has ended */
    double timeout;               /* seconds; < 0: none */
    PyObject *future;             /* what the task waits on while PARKED */
    PyObject *timer;              /* asyncio.TimerHandle */
    PyObject *origin;             /* where it was made, as a coroutine's cr_origin; NULL: nobody asked */
    sleeper *sleeper;             /* its place in line, from the first time that it has to wait; or NULL */
    uint32_t state; /* CREATED .. DONE; a word of its own, as it is read right after it was written */
    bool expired; /* the timer went off */
    bool requeue; /* a part of a batch was sent or taken: it goes to the end of the line */
    bool paused; /* it has yielded */
    bool dirty; /* must be reset before it is used again: more was written than op, ep, value, timeout, state */
    bool running; /* inside a step: Python code that it runs cannot step it again */
    delegate trio; /* in a task of trio: what it waits by */
} Awaitable;

/* It has ended at its first step, and holds nothing: make a spare of it, unless there are enough. */
static inline void awaitable_keep_early(Awaitable *aw)
{
    if (!aw->dirty && aw->weakrefs == NULL && spare_keep(aw->st, SPARE_AWAITABLES, aw)) {
        Py_INCREF(aw);
        aw->timeout = -1;
    }
}

/* End it: it leaves the line, and the next is called.  Holding the awaitable and its endpoint. */
void awaitable_end(Awaitable *aw, nc_box **kicks);
/* End the call early, unless it has ended; false with an exception set if a step of it is running. */
bool awaitable_abort(Awaitable *aw, bool *was_done);
/* It has ended: let go of all that it holds. */
void awaitable_release(Awaitable *aw);
/* Its endpoint, a new reference; NULL without an exception once it has ended, which another thread may do at any
 * time. */
Endpoint *awaitable_endpoint(Awaitable *aw);
int awaitable_state(PyObject *self);
PySendResult awaitable_am_send(PyObject *self, PyObject *arg, PyObject **out);
PyObject *awaitable_iternext(PyObject *self);

/* Raise that it cannot be awaited again. */
void awaitable_raise_reused(Awaitable *aw);

#endif
