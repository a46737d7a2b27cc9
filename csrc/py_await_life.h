/* py_await_life.h: how calls are made awaitable; see py_await_life.c. */
#ifndef PY_AWAIT_LIFE_H
#define PY_AWAIT_LIFE_H

#include "py_await.h"

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
/* The call of an awaitable that has ended, and of one that has nothing to do. */
extern const call_op nothing_op;

/* A new object of a type that begins with an Awaitable: it has ended, and holds nothing. */
void awaitable_init(Awaitable *aw, core_state *st);
/* Hand out one that was just made, with its origin if that is asked for.  Takes over the reference; NULL with an
 * exception set. */
PyObject *awaitable_hand_out(Awaitable *aw);

/* Slots of an awaitable's type. */
int awaitable_traverse(PyObject *, visitproc, void *);
int awaitable_clear(PyObject *);
void awaitable_finalize(PyObject *);
void awaitable_dealloc(PyObject *);

#endif
