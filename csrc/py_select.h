/* py_select.h: waiting for several channels; see py_select.c. */
#ifndef PY_SELECT_H
#define PY_SELECT_H

#include "py_core.h"

/* Functions of the module: select(*arms, timeout=None, biased=False), the same for threads, and without waiting. */
PyObject *select_await(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *select_blocking(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *select_try(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);

#endif
