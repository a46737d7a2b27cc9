/* py_await.h: the awaitable that async calls return.  py_await.c steps it, py_await_life.c makes and frees it,
 * py_coroutine.c makes a coroutine of it. */
#ifndef PY_AWAIT_H
#define PY_AWAIT_H

#include "py_trio.h"

enum { CREATED, PAUSED, BEGUN, PARKED, DONE };

typedef struct Awaitable Awaitable;
struct Awaitable {
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
};

/* How an awaitable waits that stands in several lines at once, a select: one waiter in each line, all with the same box
 * and the same future.  As for one line, but for all of them; the caller holds the awaitable, and these functions hold
 * each endpoint while they use it. */
typedef struct many_lines {
    nc_waiter_state (*place)(Awaitable *); /* NC_CALLED: in one of the lines at least, and not deferred there */
    nc_place (*line_up)(Awaitable *, nc_box **kicks); /* in each line; NC_TURN: look again */
    void (*leave)(Awaitable *, nc_box **kicks);       /* all of them, for good */
    /* Make a sleeper for each line, and see to it that native code can wake the loop; false with an exception set. Runs
     * Python code, and holds nothing. */
    bool (*prepare)(Awaitable *, PyObject *loop, nc_box *box);
    void (*set_future)(Awaitable *, PyObject *future);
    void (*post)(Awaitable *, nc_box **kicks); /* one of the waiters, if there are any, as if it had been called */
    bool (*reap)(Awaitable *, nc_box **kicks); /* line_reap() of each */
    void (*reap_ahead)(Awaitable *, nc_box **kicks);
    void (*release)(Awaitable *); /* let go of what the ended call need not keep; runs Python code */
} many_lines;

/* What its steps hold beside it: the endpoint.  A select holds the endpoint of each arm while it uses it; to hold one
 * already would have it wait for itself. */
static inline PyObject *awaitable_lock(Awaitable *aw, Endpoint *ep)
{
    return aw->call.op->lines != NULL ? (PyObject *)aw : (PyObject *)ep;
}

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

/* Raise that it waits on another loop already. */
void awaitable_raise_other_loop(Awaitable *aw);
/* Raise that it cannot be awaited again. */
void awaitable_raise_reused(Awaitable *aw);

#endif
