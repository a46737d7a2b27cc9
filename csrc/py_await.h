/* py_await.h: the awaitable that async calls return.  py_await.c runs its steps; py_coroutine.c has what makes it
 * a coroutine. */
#ifndef PY_AWAIT_H
#define PY_AWAIT_H

#include "py_core.h"

enum { CREATED, PAUSED, BEGUN, PARKED, DONE };
enum { STEP_SLEEP = STEP_BUSY + 1, STEP_PREPARE, STEP_MORE, STEP_PAUSE };

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
    bool worn; /* must be reset before it is used again: more was written than op, ep, value, timeout, state */
    bool running; /* inside a step: Python code that it runs cannot step it again */
} Awaitable;

/* The call of an awaitable that has ended, and of one that has nothing to do. */
extern const call_op nothing_op;
/* End it: it leaves the line, and the next is called.  Holding the awaitable and its endpoint. */
void awaitable_end(Awaitable *aw, nc_box **kicks);
/* It has ended: let go of all that it holds. */
void awaitable_release(Awaitable *aw);
/* Its endpoint, a new reference; NULL without an exception once it has ended, which another thread may do at any
 * time. */
Endpoint *awaitable_endpoint(Awaitable *aw);
int awaitable_state(PyObject *self);
PySendResult awaitable_am_send(PyObject *self, PyObject *arg, PyObject **out);
PyObject *awaitable_iternext(PyObject *self);
void awaitable_dealloc(PyObject *self);
/* Raise StopIteration(value), which may be a tuple or an exception itself.  Steals value. */
void raise_stop_iteration(PyObject *value);

/* ---- spares ----------------------------------------------------------------------------------------- */

/* Most awaitables live for one step, so those that have ended are used again.  A spare is a live object that the
 * module's state owns, of its type and tracked by the collector, ended and without an endpoint.  gc.get_objects() may
 * show it to a user like any other object; then it is not used again.  Spares that gc.freeze() meets stay set aside.
 * Such a spare is not collected if it later becomes part of a cycle and never waits; there are at most NC_SPARES. */
#if NC_RECYCLES
/* A spare, or NULL. */
static inline Awaitable *awaitable_kept(core_state *st, bool claims)
{
    unsigned n = st->spare[claims].n;
    if (n == 0 || Py_REFCNT(st->spare[claims].of[n - 1]) != 1)
        return NULL;
    st->spare[claims].n = n - 1;
    return (Awaitable *)st->spare[claims].of[n - 1];
}

/* The last spare, if any, is in use by somebody: let go of it, as it must not be used again. */
static inline void awaitable_give_away(core_state *st, bool claims)
{
    if (st->spare[claims].n > 0)
        Py_DECREF(st->spare[claims].of[--st->spare[claims].n]);
}

/* Make a spare of an awaitable that has ended and is being freed.  False if there are enough spares. */
static inline bool awaitable_keep(core_state *st, Awaitable *aw, bool claims)
{
    unsigned n = st->spare[claims].n;
    if (n >= st->spares_most)
        return false;
    Py_SET_REFCNT((PyObject *)aw, 1);
    st->spare[claims].of[n] = (PyObject *)aw;
    st->spare[claims].n = n + 1;
    return true;
}
#else
static inline Awaitable *awaitable_kept(core_state *Py_UNUSED(st), bool Py_UNUSED(claims)) { return NULL; }

static inline void awaitable_give_away(core_state *Py_UNUSED(st), bool Py_UNUSED(claims)) {}

static inline bool awaitable_keep(core_state *Py_UNUSED(st), Awaitable *Py_UNUSED(aw), bool Py_UNUSED(claims))
{
    return false;
}
#endif

/* ---- py_coroutine.c --------------------------------------------------------------------------------- */

void awaitable_raise_reused(Awaitable *aw);
/* How many frames coroutines remember of where they were made; see sys.set_coroutine_origin_tracking_depth(). */
int origin_depth(core_state *st);
/* Hand out an awaitable that was just made, with its origin if that is asked for.  Takes over the reference; NULL with
 * an exception set.  Not inlined, as it is rare; and a tail call, so that its caller keeps nothing over it. */
PyObject *awaitable_with_origin(Awaitable *aw);

/* What the type of an awaitable has, also of one that is awaited for a claim: */
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
