/* py_select.h: waiting for several channels; see py_select.c. */
#ifndef PY_SELECT_H
#define PY_SELECT_H

#include "py_core.h"

/* The state of a merge (py_merge.c), which is a select again and again; in its critical section. */
typedef struct Merge {
    PyObject_HEAD
    PyObject *open;               /* list of the receivers that have not ended; strong, as is the next */
    PyObject *claim;              /* of bytes: the ReadClaim that was handed out last; or NULL */
    bool biased;
} Merge;

/* What ails these arms for select()?  True if nothing does, else false with that exception set. */
bool select_check(PyObject *module, PyObject *const *arms, Py_ssize_t n);
/* One select over what is open of it, which gives (receiver, value), leaves out what has ended, and ends by
 * StopAsyncIteration: an awaitable; or in this thread, where the end is NULL without an exception.  Something is open.
 */
PyObject *select_anext(PyObject *module, Merge *merge);
PyObject *select_next(PyObject *module, Merge *merge);

/* Functions of the module: select(*arms, timeout=None, biased=False), the same for threads, and without waiting. */
PyObject *select_await(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *select_blocking(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *select_try(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);

#endif
