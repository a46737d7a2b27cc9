/* py_await.h: the awaitable that async calls return.  py_await.c steps it, py_await_life.c makes and frees it,
 * py_coroutine.c makes a coroutine of it. */
#ifndef PY_AWAIT_H
#define PY_AWAIT_H

#include "py_call.h"
#include "py_wake.h"

enum { CREATED, PAUSED, BEGUN, PARKED, DONE };
enum { STEP_SLEEP = STEP_BUSY + 1, STEP_PREPARE, STEP_MORE, STEP_PAUSE };

typedef struct Awaitable {
    PyObject_HEAD
    core_state *st;               /* its type keeps it */
    PyObject *weakrefs;
    Call call;                    /* .ep is NULL once it has ended */
    double timeout;               /* seconds; < 0: none */
    PyObject *future;             /* what the task waits on while PARKED */
    PyObject *timer;              /* asyncio.TimerHandle */
    PyObject *origin;             /* where it was made, as a coroutine's cr_origin; NULL: nobody asked */
    sleeper *sleeper;             /* stands in line for it; from the first time that it has to wait */
    uint32_t state; /* CREATED until its first step begins: read alone there, right after it was written */
    bool expired; /* the timer went off */
    bool requeue; /* a part of it went: it goes to the end of the line */
    bool paused; /* it has yielded */
    bool worn; /* more than op, ep, value, timeout and state is not as awaitable_reset() leaves it */
    bool running; /* inside a step: Python code that it runs cannot step it again */
} Awaitable;

/* The call of an awaitable that has ended, and of one that has nothing to do. */
extern const call_op nothing_op;
/* Ended: out of the line, and the next is called.  Holding the awaitable and its endpoint. */
void awaitable_end(Awaitable *aw, nc_box **kicks);
/* It has ended: let go of all that it holds. */
void awaitable_release(Awaitable *aw);
/* Its endpoint, a new reference, or NULL without an exception once it has ended: another thread may end it at any
 * time. */
Endpoint *awaitable_endpoint(Awaitable *aw);
int awaitable_state(PyObject *self);
PySendResult awaitable_am_send(PyObject *self, PyObject *arg, PyObject **out);
PyObject *awaitable_iternext(PyObject *self);
void awaitable_dealloc(PyObject *self);
/* Raise StopIteration(value), which may be a tuple or an exception itself.  Steals value. */
void raise_stop_iteration(PyObject *value);

/* Raise that it cannot be awaited again. */
void awaitable_raise_reused(Awaitable *aw);

/* ---- py_coroutine.c --------------------------------------------------------------------------------- */

/* ---- py_await_life.c -------------------------------------------------------------------------------- */

/* The awaitable of a call (a coroutine as far as anyone can tell); takes over call->ep's and call->value's
 * references, also when it fails. */
PyObject *wait_new(const Call *call, double timeout);
/* The same for one item, sent or received; they take references of their own, and wait as long as it takes. */
PyObject *wait_new_give(const call_op *op, Endpoint *ep, PyObject *value);
PyObject *wait_new_take(const call_op *op, Endpoint *ep);
/* Give a new one its timeout in seconds (< 0: none).  Passes it, or NULL, on. */
PyObject *wait_within(PyObject *awaitable, double timeout);
void wait_free_spares(core_state *st);
int wait_traverse_spares(core_state *st, visitproc visit, void *arg);

/* What an awaitable's type has, also that of a claim: */
PyObject *awaitable_send(PyObject *, PyObject *);
PyObject *awaitable_throw(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *awaitable_close(PyObject *, PyObject *);
PyObject *awaitable_expire(PyObject *, PyObject *);
int awaitable_traverse(PyObject *, visitproc, void *);
int awaitable_clear(PyObject *);
PyObject *awaitable_repr(PyObject *);
void awaitable_finalize(PyObject *);
extern PyMemberDef awaitable_members[];
extern PyGetSetDef awaitable_getset[];
#define AWAITABLE_METHODS                                                                          \
    {"send", awaitable_send, METH_O, NULL}, {"throw", FAST(awaitable_throw), METH_FASTCALL, NULL}, \
        {"close", awaitable_close, METH_NOARGS, NULL},                                             \
    {                                                                                              \
        "_expire", awaitable_expire, METH_NOARGS, NULL                                             \
    }

/* tp_iter, so that `yield from x.__await__()` works */
#define AWAITABLE_SLOTS                                                                                              \
    {Py_tp_dealloc, awaitable_dealloc}, {Py_tp_traverse, awaitable_traverse}, {Py_tp_clear, awaitable_clear},        \
        {Py_tp_repr, awaitable_repr}, {Py_am_await, PyObject_SelfIter}, {Py_tp_iter, PyObject_SelfIter},             \
        {Py_am_send, awaitable_am_send}, {Py_tp_iternext, awaitable_iternext}, {Py_tp_finalize, awaitable_finalize}, \
        {Py_tp_members, awaitable_members},                                                                          \
    {                                                                                                                \
        Py_tp_getset, awaitable_getset                                                                               \
    }

#endif
