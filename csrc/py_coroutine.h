/* py_coroutine.h: what an awaitable's type has, also that of a claim; see py_coroutine.c. */
#ifndef PY_COROUTINE_H
#define PY_COROUTINE_H

#include "py_await.h"
#include "py_await_life.h"

PyObject *awaitable_send(PyObject *, PyObject *);
PyObject *awaitable_throw(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *awaitable_close(PyObject *, PyObject *);
PyObject *awaitable_expire(PyObject *, PyObject *);
PyObject *awaitable_repr(PyObject *);
extern PyMemberDef awaitable_members[];
extern PyGetSetDef awaitable_getset[];
#define AWAITABLE_METHODS                                                                          \
    {"send", awaitable_send, METH_O, NULL}, {"throw", FAST(awaitable_throw), METH_FASTCALL, NULL}, \
        {"close", awaitable_close, METH_NOARGS, NULL},                                             \
    {                                                                                              \
        "_expire", awaitable_expire, METH_NOARGS, NULL                                             \
    }

/* tp_iter, so that `yield from x.__await__()` works */
#define AWAITABLE_SLOTS \
    {Py_tp_dealloc, awaitable_dealloc}, {Py_tp_traverse, awaitable_traverse}, AWAITABLE_SLOTS_BUT_LIFE
#define AWAITABLE_SLOTS_BUT_LIFE                                                                                \
    {Py_tp_clear, awaitable_clear}, {Py_tp_repr, awaitable_repr}, {Py_am_await, PyObject_SelfIter},             \
        {Py_tp_iter, PyObject_SelfIter}, {Py_am_send, awaitable_am_send}, {Py_tp_iternext, awaitable_iternext}, \
        {Py_tp_finalize, awaitable_finalize}, {Py_tp_members, awaitable_members},                               \
    {                                                                                                           \
        Py_tp_getset, awaitable_getset                                                                          \
    }

#endif
