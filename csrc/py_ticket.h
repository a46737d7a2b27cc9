/* py_ticket.h: ends of channels of bytes that move to another interpreter; see py_ticket.c. */
#ifndef PY_TICKET_H
#define PY_TICKET_H

#include "py_types.h"

/* attach(ticket) */
PyObject *ticket_attach(PyObject *module, PyObject *arg);
/* For multiprocessing: what a ticket of a channel between processes holds, and a ticket of that. */
PyObject *ticket_parts(PyObject *module, PyObject *arg);
PyObject *ticket_of_parts(PyObject *module, PyObject *args);
/* What the pickle of a ticket calls: _ticket(bytes, who wrote it). */
PyObject *ticket_read(PyObject *module, PyObject *const *args, Py_ssize_t n);
/* The module goes: the pickles that it wrote are void. */
void ticket_forget(core_state *st);

#endif
