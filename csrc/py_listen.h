/* py_listen.h: channels of bytes that other processes find by a path; see py_listen.c. */
#ifndef PY_LISTEN_H
#define PY_LISTEN_H

#include "py_types.h"

/* listen_at(kind, path, capacity) -> Listener */
PyObject *listen_open(PyObject *module, PyObject *const *args, Py_ssize_t n);
/* connect_to(kind, path, timeout) -> sender */
PyObject *listen_connect(PyObject *module, PyObject *const *args, Py_ssize_t n);
int listen_add_types(PyObject *module, core_state *st);

#endif
