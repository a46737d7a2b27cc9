/* py_log_recv.c: what receivers of bytes do: recv, recv_bytes, recv_into and recv_many, on nc_log.h.
 *
 * Each operation is one `look`, as in py_log.c.  The types and their tables of methods are there, too.
 */
#include "py_log_recv.h"
#include "py_await_life.h"
#include "py_bytes.h"
#include "py_chan.h"
#include "py_line.h"
#include "py_park.h"
#include "py_tell.h"

/* ---- the plain case --------------------------------------------------------------------------------- */

/* Copy a message out of the ring, and notify nobody: a new reference, or NULL without an exception.  *freed: it
 * has stepped over skips. */
static inline PyObject *log_take_plainly(Endpoint *ep, bool *freed)
{
    nc_chan *b = ep->chan->block;
    nc_record record;
    PyObject *bytes = NULL;
    *freed = false;
    Py_BEGIN_CRITICAL_SECTION(ep);
    if (log_is_plain(ep, NC_WAITER) && nc_chan_glance(b, &record, freed, memory_order_seq_cst) == NC_OK) {
        bytes = PyBytes_FromStringAndSize((const char *)record.data, (Py_ssize_t)record.size);
        if (bytes != NULL)
            bytes_take(b, &record);
        else
            PyErr_Clear(); /* the slow way runs into it again */
    }
    Py_END_CRITICAL_SECTION();
    return bytes;
}

/* Something was given back the plain way, and there is somebody to be called for it.  Returns `result`.  Runs Python
 * code. */
__attribute__((noinline)) static PyObject *log_given_back(Endpoint *ep, PyObject *result)
{
    nc_box *kicks = NULL;
    Py_BEGIN_CRITICAL_SECTION(ep);
    bytes_given_back(ep->chan->block, &kicks);
    Py_END_CRITICAL_SECTION();
    line_deliver_any(ep->chan, kicks);
    return result;
}

/* Receive a copy the plain way: a new reference, or NULL without an exception if the plain way is not open. */
static inline PyObject *log_recv_plainly(Endpoint *ep)
{
    nc_chan *b = ep->chan->block;
    bool freed;
    PyObject *bytes = log_take_plainly(ep, &freed);
    if ((bytes == NULL && !freed) ||
        (nc_gate_flag(&b->gate[TX], memory_order_seq_cst) == 0 && !nc_chan_observed(b))) /* W2 */
        return bytes;
    return log_given_back(ep, bytes);
}

/* The largest initial size of a list of messages: it bounds the waste if fewer come. */
enum { LIST_MOST = 1024 };

/* ---- look ------------------------------------------------------------------------------------------- */

step log_look_first(Call *call, bool called, nc_record *record, nc_box **kicks)
{
    Endpoint *ep = call->ep;
    if (ep->closed)
        return endpoint_check(ep);
    if (claim_lent(ep))
        return claim_busy(ep, called || call->waiting);
    bool hear = !call->waiting && !call->sleeps;
    step s = (step)nc_chan_show(ep->chan->block, called, hear, core_generation(), record, kicks);
    if (s == STEP_ERROR && ep->chan->block->lanes != NULL)
        tell_fault(ep->chan); /* the end is no exception here, a fault is */
    return s;
}

/* The same, and the end of the stream is an exception. */
static step show_or_raise(Call *call, bool called, nc_record *record, nc_box **kicks)
{
    step s = log_look_first(call, called, record, kicks);
    if (s == STEP_ERROR)
        call_raise_end(call);
    return s;
}

static step log_recv_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    nc_record record;
    Claim *claim = claim_make(call->ep); /* first, as in log_claim_look */
    if (claim == NULL)
        return STEP_ERROR;
    step s = show_or_raise(call, called, &record, kicks);
    if (s == STEP_READY) {
        *out = claim_start(claim, &record);
        call->ep->chan->block->reading = true;
    } else {
        Py_DECREF(claim);
    }
    return s;
}

static PyObject *log_recv_at_once(Call *call)
{
    Endpoint *ep = call->ep;
    nc_chan *b = ep->chan->block;
    nc_record record;
    bool freed;
    Claim *claim = nobody_asks(ep, TX) && log_is_plain(ep, NC_WAITER) ? claim_spare(ep) : NULL;
    if (claim == NULL)
        return NULL;
    if (nc_chan_glance(b, &record, &freed, memory_order_seq_cst) == NC_OK) {
        b->reading = true;
        return claim_start(claim, &record);
    }
    Py_DECREF(claim);
    return freed ? log_given_back(ep, NULL) : NULL;
}

static step log_recv_bytes_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    nc_record record;
    step s = show_or_raise(call, called, &record, kicks);
    if (s != STEP_READY)
        return s;
    *out = PyBytes_FromStringAndSize((const char *)record.data, (Py_ssize_t)record.size);
    if (*out == NULL) {
        bytes_left(call->ep->chan->block, kicks);
        return STEP_ERROR;
    }
    bytes_take(call->ep->chan->block, &record);
    bytes_given_back(call->ep->chan->block, kicks);
    return STEP_READY;
}

static PyObject *log_recv_bytes_at_once(Call *call)
{
    Endpoint *ep = call->ep;
    bool freed;
    if (!nobody_asks(ep, TX))
        return NULL;
    PyObject *bytes = log_take_plainly(ep, &freed);
    return bytes == NULL && freed ? log_given_back(ep, NULL) : bytes;
}

/* call->value is a memoryview of the target. */
static step log_recv_into_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    Py_buffer *target = PyMemoryView_GET_BUFFER(call->value);
    nc_record record;
    step s = show_or_raise(call, called, &record, kicks);
    if (s != STEP_READY)
        return s;
    if (record.size > (uint64_t)target->len) {
        PyErr_Format(PyExc_ValueError, "the message has %llu bytes and the buffer only %zd; the message stays",
                     (unsigned long long)record.size, target->len);
        bytes_left(call->ep->chan->block, kicks);
        return STEP_ERROR;
    }
    *out = PyLong_FromUnsignedLongLong(record.size);
    if (*out == NULL) {
        bytes_left(call->ep->chan->block, kicks);
        return STEP_ERROR;
    }
    memcpy(target->buf, record.data, record.size);
    bytes_take(call->ep->chan->block, &record);
    bytes_given_back(call->ep->chan->block, kicks);
    return STEP_READY;
}

/* Add an item to a list that has `got` items, and memory for `room` of them; false with an exception set.  Takes the
 * reference over. */
static inline bool list_add(PyObject *list, Py_ssize_t got, Py_ssize_t room, PyObject *item)
{
    if (got < room) {
        PyList_SET_ITEM(list, got, item);
        return true;
    }
    Py_SET_SIZE((PyVarObject *)list, got);
    bool kept = PyList_Append(list, item) == 0;
    Py_DECREF(item);
    return kept;
}

/* An empty list with memory for *room items.  At most n messages will be taken, and the first is `record`.  NULL with
 * an exception set.  May begin a collection, which may take messages: so look again afterwards. */
static PyObject *list_for(nc_chan *b, const nc_record *record, Py_ssize_t n, Py_ssize_t *room)
{
    uint64_t alike = nc_chan_used(b) / nc_log_extent(record->size); /* how many, if all are as long as the first */
    *room = n < LIST_MOST ? n : LIST_MOST;
    if (alike < (uint64_t)*room)
        *room = (Py_ssize_t)alike;
    PyObject *list = PyList_New(*room);
    if (list != NULL)
        Py_SET_SIZE((PyVarObject *)list, 0); /* gc.get_objects() may show the list before its items are there */
    return list;
}

/* Take up to n messages into the list; `record` is the first.  False with an exception set if there is no memory even
 * for that one.  Messages for which there is no memory stay in the ring. */
static bool take_many(nc_chan *b, nc_record *record, PyObject *list, Py_ssize_t room, Py_ssize_t n, nc_box **kicks)
{
    Py_ssize_t got = 0;
    bool freed;
    do {
        PyObject *bytes = PyBytes_FromStringAndSize((const char *)record->data, (Py_ssize_t)record->size);
        if (bytes == NULL || !list_add(list, got, room, bytes))
            break;
        got++;
        nc_chan_touch(b, record);
        nc_chan_release(b, record, memory_order_release);
    } while (got < n && nc_chan_peek(b, record, &freed, memory_order_release) == NC_OK);
    if (got == 0)
        return false;
    Py_SET_SIZE((PyVarObject *)list, got);
    PyErr_Clear();
    nc_chan_release_batch(b);
    bytes_given_back(b, kicks);
    return true;
}

step log_recv_many_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    nc_chan *b = call->ep->chan->block;
    Py_ssize_t room;
    nc_record record;
    step s = show_or_raise(call, called, &record, kicks);
    if (s != STEP_READY)
        return s;
    PyObject *list = list_for(b, &record, call->n, &room);
    if (list == NULL) {
        bytes_left(b, kicks);
        return STEP_ERROR;
    }
    s = show_or_raise(call, called, &record, kicks); /* again: the first record may be another by now, or none */
    if (s == STEP_READY && !take_many(b, &record, list, room, call->n, kicks))
        s = STEP_ERROR;
    if (s == STEP_READY)
        *out = list;
    else
        Py_DECREF(list);
    return s;
}

const call_op log_recv_op = {.name = "recv",
                             .qualname = "Receiver.recv",
                             .look = log_recv_look,
                             .timed_out = call_recv_timed_out,
                             .paced = true,
                             .at_once = log_recv_at_once};
static const call_op recv_blocking_op = {.name = "recv_blocking",
                                         .qualname = "Receiver.recv_blocking",
                                         .look = log_recv_look,
                                         .timed_out = call_recv_timed_out};
static const call_op recv_bytes_op = {.name = "recv_bytes",
                                      .qualname = "Receiver.recv_bytes",
                                      .look = log_recv_bytes_look,
                                      .timed_out = call_recv_timed_out,
                                      .paced = true,
                                      .at_once = log_recv_bytes_at_once};
static const call_op recv_bytes_blocking_op = {.name = "recv_bytes_blocking",
                                               .qualname = "Receiver.recv_bytes_blocking",
                                               .look = log_recv_bytes_look,
                                               .timed_out = call_recv_timed_out};
static const call_op recv_into_op = {.name = "recv_into",
                                     .qualname = "Receiver.recv_into",
                                     .look = log_recv_into_look,
                                     .timed_out = call_recv_timed_out,
                                     .paced = true};
static const call_op recv_into_blocking_op = {.name = "recv_into_blocking",
                                              .qualname = "Receiver.recv_into_blocking",
                                              .look = log_recv_into_look,
                                              .timed_out = call_recv_timed_out};

/* ---- methods ---------------------------------------------------------------------------------------- */

/* recv and recv_bytes differ only in their look. */
static PyObject *receive(PyObject *self, const call_op *op, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_none(ep->chan->st, op->name, args, n, kwnames, &timeout) || !endpoint_idle(ep))
        return NULL;
    return wait_within(wait_new_take(op, ep), timeout);
}

__attribute__((noinline)) static PyObject *receive_blocking(Endpoint *ep, const call_op *op, double timeout)
{
    return wait_blocking(&(Call){.op = op, .ep = ep, .n = 1, .least = 1, .share = 1}, timeout);
}

__attribute__((noinline)) static PyObject *try_receive(PyObject *self, const call_op *op)
{
    Call call = {.op = op, .ep = (Endpoint *)self, .n = 1};
    PyObject *out = NULL;
    if (try_call(&call, &out) == STEP_BLOCKED)
        chan_raise_empty(call.ep->chan);
    return out;
}

PyObject *log_recv(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return receive(self, &log_recv_op, args, n, kwnames);
}

PyObject *log_recv_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    double timeout;
    if (!core_parse_none(((Endpoint *)self)->chan->st, "recv_blocking", args, n, kwnames, &timeout))
        return NULL;
    return receive_blocking((Endpoint *)self, &recv_blocking_op, timeout);
}

PyObject *log_try_recv(PyObject *self, PyObject *Py_UNUSED(ignored)) { return try_receive(self, &log_recv_op); }

PyObject *log_recv_bytes(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return receive(self, &recv_bytes_op, args, n, kwnames);
}

PyObject *log_recv_bytes_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    double timeout;
    if (!core_parse_none(((Endpoint *)self)->chan->st, "recv_bytes_blocking", args, n, kwnames, &timeout))
        return NULL;
    PyObject *bytes = log_recv_plainly((Endpoint *)self);
    return bytes != NULL ? bytes : receive_blocking((Endpoint *)self, &recv_bytes_blocking_op, timeout);
}

PyObject *log_try_recv_bytes(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *bytes = log_recv_plainly((Endpoint *)self);
    return bytes != NULL ? bytes : try_receive(self, &recv_bytes_op);
}

/* A memoryview of the buffer that a message is to be copied into, or NULL with an exception set. */
static PyObject *checked_target(PyObject *target)
{
    PyObject *view = PyMemoryView_FromObject(target);
    if (view == NULL)
        return NULL;
    Py_buffer *buffer = PyMemoryView_GET_BUFFER(view);
    if (buffer->readonly || !PyBuffer_IsContiguous(buffer, 'C')) {
        PyErr_Format(buffer->readonly ? PyExc_TypeError : PyExc_BufferError,
                     "recv_into() needs a %s buffer, and this %.200s is not",
                     buffer->readonly ? "writable" : "C-contiguous", Py_TYPE(target)->tp_name);
        Py_CLEAR(view);
    }
    return view;
}

PyObject *log_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "recv_into", args, n, kwnames, &timeout) || !endpoint_idle(ep))
        return NULL;
    PyObject *view = checked_target(args[0]);
    if (view == NULL)
        return NULL;
    return wait_new(
        &(Call){.op = &recv_into_op, .ep = (Endpoint *)Py_NewRef(self), .value = view, .n = 1, .least = 1, .share = 1},
        timeout);
}

PyObject *log_recv_into_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "recv_into_blocking", args, n, kwnames, &timeout))
        return NULL;
    PyObject *view = checked_target(args[0]);
    if (view == NULL)
        return NULL;
    PyObject *result = wait_blocking(
        &(Call){.op = &recv_into_blocking_op, .ep = ep, .value = view, .n = 1, .least = 1, .share = 1}, timeout);
    Py_DECREF(view);
    return result;
}

PyObject *log_try_recv_into(PyObject *self, PyObject *target)
{
    Call call = {.op = &recv_into_op, .ep = (Endpoint *)self, .value = checked_target(target)};
    PyObject *out = NULL;
    if (call.value == NULL)
        return NULL;
    if (try_call(&call, &out) == STEP_BLOCKED)
        chan_raise_empty(call.ep->chan);
    Py_DECREF(call.value);
    return out;
}

PyObject *log_iter(PyObject *self)
{
    ClaimIterator *it = (ClaimIterator *)core_new(((Endpoint *)self)->chan->st->claim_iterator_type);
    if (it != NULL)
        it->ep = (Endpoint *)Py_NewRef(self);
    return (PyObject *)it;
}
