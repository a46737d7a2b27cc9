/* py_select.h: waiting for several channels; see py_select.c. */
#ifndef PY_SELECT_H
#define PY_SELECT_H

#include "py_core.h"

/* The state of a merge (py_merge.c), which is a select again and again; in its critical section. */
typedef struct Merge {
    PyObject_HEAD
    PyObject *open;               /* tuple of the receivers that have not ended; strong, as is the next */
    PyObject *claim;              /* of bytes: the ReadClaim that was handed out last; or NULL */
    bool biased;
} Merge;

/* What ails these arms for select()?  True if nothing does, else false with that exception set. */
bool select_check(PyObject *module, PyObject *const *arms, Py_ssize_t n);
/* What is open of it: a tuple, a new reference. */
static inline PyObject *merge_open(Merge *merge)
{
    PyObject *open;
    Py_BEGIN_CRITICAL_SECTION(merge);
    open = Py_NewRef(merge->open);
    Py_END_CRITICAL_SECTION();
    return open;
}
/* One select over what was open of it, at least one receiver.  It gives (receiver, value), leaves out what has ended,
 * and ends by StopAsyncIteration: an awaitable; or in this thread, where the end is NULL without an exception. */
PyObject *select_anext(PyObject *module, Merge *merge, PyObject *open);
PyObject *select_next(PyObject *module, Merge *merge, PyObject *open);

/* Functions of the module: select(*arms, timeout=None, biased=False), the same for threads, and without waiting. */
PyObject *select_await(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *select_blocking(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *select_try(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);

#endif
