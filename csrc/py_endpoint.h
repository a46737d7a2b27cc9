/* py_endpoint.h: what all endpoints have, as rows for the slots and methods of a type; the docstrings are in py_doc.h.
 */
#ifndef PY_ENDPOINT_H
#define PY_ENDPOINT_H

#include "py_types.h"

#define ENDPOINT_METHODS                                                                      \
    {"close", endpoint_close, METH_NOARGS, endpoint_close_doc},                               \
        {"statistics", endpoint_statistics, METH_NOARGS, endpoint_statistics_doc},            \
        {"open_ends", endpoint_open_ends, METH_NOARGS, endpoint_open_ends_doc},               \
        {"notifier", endpoint_notifier, METH_NOARGS, endpoint_notifier_doc},                  \
        {"share", endpoint_share, METH_NOARGS, endpoint_share_doc},                           \
        {"same_channel", endpoint_same_channel, METH_O, endpoint_same_channel_doc},           \
        {"__enter__", endpoint_enter, METH_NOARGS, enter_doc},                                \
        {"__exit__", (PyCFunction)(void (*)(void))endpoint_exit, METH_FASTCALL, exit_doc},    \
        {"__aenter__", endpoint_aenter, METH_NOARGS, aenter_doc},                             \
        {"__aexit__", (PyCFunction)(void (*)(void))endpoint_aexit, METH_FASTCALL, aexit_doc}, \
    {                                                                                         \
        "__reduce_ex__", endpoint_reduce, METH_O, reduce_doc                                  \
    }
#define ENDPOINT_GENERIC {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL}
#define ENDPOINT_CLONE {"clone", endpoint_clone, METH_NOARGS, endpoint_clone_doc}
#define ENDPOINT_SLOTS                                                                                     \
    {Py_tp_dealloc, endpoint_dealloc}, {Py_tp_traverse, endpoint_traverse}, {Py_tp_clear, endpoint_clear}, \
        {Py_tp_repr, endpoint_repr}, {Py_nb_bool, endpoint_bool}, {Py_sq_length, endpoint_length},         \
    {                                                                                                      \
        Py_tp_members, endpoint_members                                                                    \
    }
#define ENDPOINT_GETSET                                                              \
    {"capacity", endpoint_capacity, NULL, DOC_CAPACITY, NULL},                       \
        {"is_closed", endpoint_is_closed, NULL, DOC_IS_CLOSED, NULL},                \
    {                                                                                \
        "is_disconnected", endpoint_is_disconnected, NULL, DOC_IS_DISCONNECTED, NULL \
    }
#define ENDPOINT_SPEC(module, cls, its_slots)  \
    {.name = "nexus_channels." module "." cls, \
     .basicsize = sizeof(Endpoint),            \
     .flags = CORE_TYPE_FLAGS,                 \
     .slots = its_slots}
PyObject *endpoint_capacity(PyObject *, void *);
PyObject *endpoint_is_closed(PyObject *, void *);
PyObject *endpoint_is_disconnected(PyObject *, void *);
extern PyMemberDef endpoint_members[];
PyObject *endpoint_close(PyObject *, PyObject *);
PyObject *endpoint_clone(PyObject *, PyObject *);
PyObject *endpoint_statistics(PyObject *, PyObject *);
PyObject *endpoint_open_ends(PyObject *, PyObject *);
PyObject *endpoint_same_channel(PyObject *, PyObject *);
PyObject *endpoint_enter(PyObject *, PyObject *);
PyObject *endpoint_exit(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *endpoint_aenter(PyObject *, PyObject *);
PyObject *endpoint_aexit(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *endpoint_reduce(PyObject *, PyObject *);
PyObject *endpoint_repr(PyObject *);
int endpoint_bool(PyObject *);
Py_ssize_t endpoint_length(PyObject *);
int endpoint_traverse(PyObject *, visitproc, void *);
int endpoint_clear(PyObject *);
void endpoint_dealloc(PyObject *);

/* py_batch.c */
PyObject *endpoint_send_many(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *endpoint_send_many_blocking(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *endpoint_try_send_many(PyObject *, PyObject *);
PyObject *endpoint_recv_many(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *endpoint_recv_many_blocking(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *endpoint_try_recv_many(PyObject *, PyObject *);

/* py_lend.c */
PyObject *endpoint_native(PyObject *, PyObject *);

/* py_notifier.c */
PyObject *endpoint_notifier(PyObject *, PyObject *);

/* py_ticket.c */
PyObject *endpoint_share(PyObject *, PyObject *);

#endif
