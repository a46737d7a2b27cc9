/* py_log_recv.h: the receivers of bytes, for their table of methods and for iterators, and two questions that senders
 * ask, too; see py_log_recv.c. */
#ifndef PY_LOG_RECV_H
#define PY_LOG_RECV_H

#include "py_call.h"
#include "py_claim.h"

/* Most calls find room, or a message, and nobody in line: may this one go the plain way?  If not, the slow way finds
 * out why, and says so. */
static inline bool log_is_plain(Endpoint *ep, uint32_t crowded)
{
    return !ep->closed && nc_gate_crowd(&ep->chan->gate[ep->side]) < crowded && !claim_lent(ep);
}

/* Is the flag of that side down, as far as the GIL orders it: nobody waits there, and the side has not left?  Then an
 * awaited call may end by the plain way. */
static inline bool nobody_asks(Endpoint *ep, int side)
{
    return nc_gate_flag(&ep->chan->gate[side], memory_order_relaxed) == 0;
}

/* Look for the first record: STEP_READY, STEP_BLOCKED, STEP_BUSY, or STEP_ERROR, without an exception at the end. */
step log_look_first(Call *call, bool called, nc_record *record, nc_box **kicks);
/* Take at least one message, at most call->n, as a list. */
step log_recv_many_look(Call *call, bool called, PyObject **out, nc_box **kicks);

/* recv(), also as an arm of a select. */
extern const call_op log_recv_op;

/* The methods. */
PyObject *log_recv(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *log_recv_blocking(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *log_try_recv(PyObject *, PyObject *);
PyObject *log_recv_bytes(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *log_recv_bytes_blocking(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *log_try_recv_bytes(PyObject *, PyObject *);
PyObject *log_recv_into(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *log_recv_into_blocking(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *log_try_recv_into(PyObject *, PyObject *);
PyObject *log_iter(PyObject *);

#endif
