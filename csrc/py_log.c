/* py_log.c: the endpoints that carry bytes, on nc_log.h: the senders' claim and send, and the types of both sides.
 *
 * Each operation is one `look`, as in py_ring.c: it tries once, and notifies the other side.  Claims, and how they
 * borrow the endpoint, are in py_claim.c.  Receivers are in py_log_recv.c.
 */
#include "py_log.h"
#include "py_arm.h"
#include "py_await_life.h"
#include "py_bytes.h"
#include "py_call.h"
#include "py_chan.h"
#include "py_claim.h"
#include "py_doc.h"
#include "py_endpoint.h"
#include "py_log_recv.h"
#include "py_module.h"
#include "py_park.h"
#include "py_tell.h"

/* ---- the plain case --------------------------------------------------------------------------------- */

/* The bytes of a message, if nobody can change or move them before they are copied; else NULL, and *n is 0. */
static inline const char *plain_bytes(PyObject *data, uint64_t *n)
{
    if (PyBytes_CheckExact(data)) {
        *n = (uint64_t)PyBytes_GET_SIZE(data);
        return PyBytes_AS_STRING(data);
    }
    if (!NC_FREE_THREADED && PyByteArray_CheckExact(data)) {
        *n = (uint64_t)PyByteArray_GET_SIZE(data);
        return PyByteArray_AS_STRING(data);
    }
    *n = 0;
    return NULL;
}

/* Copy a message into the ring, and notify nobody. */
static inline bool log_put_plainly(Endpoint *ep, PyObject *data)
{
    nc_chan *b = ep->chan->block;
    nc_record record;
    uint64_t n;
    const char *bytes = plain_bytes(data, &n);
    bool put = false;
    if (n == 0 || n > nc_log_largest(b->log))
        return false;
    Py_BEGIN_CRITICAL_SECTION(ep);
    if (log_is_plain(ep, 1) && nc_chan_reserve(b, n, &record) == NC_OK) {
        memcpy(record.data, bytes, n);
        bytes_commit(b, &record, n);
        put = true;
    }
    Py_END_CRITICAL_SECTION();
    return put;
}

/* Send the plain way: a new reference to None, or NULL without an exception if the plain way is not open. */
static inline PyObject *log_send_plainly(Endpoint *ep, PyObject *data)
{
    if (!log_put_plainly(ep, data))
        return NULL;
    if (nc_gate_flag(&ep->chan->gate[RX], memory_order_seq_cst) == 0) /* W2 */
        Py_RETURN_NONE;
    return call_notify(ep, RX, Py_NewRef(Py_None));
}

/* ---- senders: look ---------------------------------------------------------------------------------- */

/* Claim room for n bytes: STEP_READY, STEP_BLOCKED, STEP_BUSY or STEP_ERROR.  No exception is set if the error is that
 * the receiver is gone. */
static step reserve(Call *call, uint64_t n, bool called, nc_record *record)
{
    Endpoint *ep = call->ep;
    Chan *c = ep->chan;
    if (ep->closed)
        return endpoint_check(ep);
    if (nc_gate_crowd(&c->gate[TX]) & NC_OVER)
        return STEP_ERROR;
    if (claim_lent(ep))
        return claim_busy(ep, called || call->waiting);
    step s = bytes_claim(c->block, n, called, record);
    if (s == STEP_BLOCKED)
        ep->refused = nc_log_extent(n);
    else if (call->waiting) /* it was refused, and has come by what it needed */
        ep->refused = 0;
    return s;
}

/* A call that waits for n bytes needs room for all of them at once. */
static void call_needs(Call *call, uint64_t n) { call->least = call->share = nc_log_extent(n); }

step log_claim_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    Endpoint *ep = call->ep;
    nc_record record;
    Claim *claim = claim_make(ep); /* first: the Python code that it may run can use the channel */
    if (claim == NULL)
        return STEP_ERROR;
    step s = reserve(call, (uint64_t)call->n, called, &record);
    if (s == STEP_READY) {
        *out = claim_start(claim, &record);
        return s;
    }
    Py_DECREF(claim);
    if (s == STEP_BLOCKED)
        bytes_notify(ep->chan->block, RX, kicks); /* a receiver may have missed its wake-up */
    if (s == STEP_ERROR && !PyErr_Occurred()) {
        core_raise(ep->chan->st, E_CLAIM_DISCONNECTED, NULL, "the receiver is gone");
        tell_how(ep->chan);
    }
    return s;
}

void log_claim_timed_out(Call *call)
{
    core_raise(call->ep->chan->st, E_CLAIM_TIMEOUT, NULL, "no room for %zd bytes within the timeout (capacity %llu)",
               call->n, (unsigned long long)call->ep->chan->log->capacity);
}

/* The bytes of a checked message: a bytes object, or a pair of the object that was passed and a view of it. */
static const char *payload(PyObject *data, uint64_t *n)
{
    if (PyBytes_CheckExact(data)) {
        *n = (uint64_t)PyBytes_GET_SIZE(data);
        return PyBytes_AS_STRING(data);
    }
    Py_buffer *buffer = PyMemoryView_GET_BUFFER(PyTuple_GET_ITEM(data, 1));
    *n = (uint64_t)buffer->len;
    return buffer->buf;
}

/* The object that was passed for a checked message; borrowed. */
static PyObject *original(PyObject *data) { return PyTuple_CheckExact(data) ? PyTuple_GET_ITEM(data, 0) : data; }

/* Copy a message into the ring. */
static inline step put_bytes(Call *call, const char *bytes, uint64_t n, bool called)
{
    nc_record record = {0}; /* set only for the compiler, which cannot see that READY fills it */
    step s = reserve(call, n, called, &record);
    if (s == STEP_READY) {
        memcpy(record.data, bytes, n);
        bytes_commit(call->ep->chan->block, &record, n);
    }
    return s;
}

/* `value` is the object that was passed. */
static inline step send_payload(Call *call, PyObject *value, const char *bytes, uint64_t n, bool called, nc_box **kicks)
{
    step s = put_bytes(call, bytes, n, called);
    if (s == STEP_READY || s == STEP_BLOCKED) /* see log_claim_look */
        bytes_notify(call->ep->chan->block, RX, kicks);
    else if (s == STEP_ERROR && !PyErr_Occurred()) {
        core_raise(call->ep->chan->st, E_SEND, value, "the receiver is gone");
        tell_how(call->ep->chan);
    }
    return s;
}

static void raise_send_timeout(Call *call, PyObject *value, uint64_t n)
{
    core_raise(call->ep->chan->st, E_SEND_TIMEOUT, value, "no room for %llu bytes within the timeout (capacity %llu)",
               (unsigned long long)n, (unsigned long long)call->ep->chan->log->capacity);
}

static step log_send_look(Call *call, bool called, PyObject **Py_UNUSED(out), nc_box **kicks)
{
    uint64_t n;
    const char *bytes = payload(call->value, &n);
    step s = send_payload(call, original(call->value), bytes, n, called, kicks);
    if (s == STEP_BLOCKED)
        call_needs(call, n);
    return s;
}

static PyObject *log_send_at_once(Call *call)
{
    if (!nobody_asks(call->ep, RX) || !log_put_plainly(call->ep, call->value)) /* false also for a pair */
        return NULL;
    Py_CLEAR(call->value);
    return Py_NewRef(Py_None);
}

static void log_send_timed_out(Call *call)
{
    uint64_t n;
    payload(call->value, &n);
    raise_send_timeout(call, original(call->value), n);
}

/* A send that lives on the stack: it holds the buffer of the object that was passed without a memoryview of it.
 * call.value is that object. */
typedef struct HeldSend {
    Call call;
    const char *bytes;
    uint64_t n;
    Py_buffer view;               /* .obj is NULL for bytes, which cannot change */
} HeldSend;

static step held_send_look(Call *call, bool called, PyObject **Py_UNUSED(out), nc_box **kicks)
{
    HeldSend *send = container_of(call, HeldSend, call);
    return send_payload(call, call->value, send->bytes, send->n, called, kicks);
}

static void held_send_timed_out(Call *call)
{
    raise_send_timeout(call, call->value, container_of(call, HeldSend, call)->n);
}

/* call->value is a private list of checked messages; the first call->n of them are sent already. */
static step log_send_many_look(Call *call, bool called, PyObject **Py_UNUSED(out), nc_box **kicks)
{
    Chan *c = call->ep->chan;
    Py_ssize_t before = call->n, all = PyList_GET_SIZE(call->value);
    step s = STEP_READY;
    if (before == all && (call->ep->closed || nc_gate_crowd(&c->gate[TX]) & NC_OVER))
        s = call->ep->closed ? endpoint_check(call->ep) : STEP_ERROR;
    while (s == STEP_READY && call->n < all) {
        uint64_t n;
        const char *bytes = payload(PyList_GET_ITEM(call->value, call->n), &n);
        if ((s = put_bytes(call, bytes, n, called)) == STEP_READY)
            call->n++;
    }
    if (call->n > before || s == STEP_BLOCKED) /* see log_claim_look */
        bytes_notify(c->block, RX, kicks);
    if (s == STEP_ERROR && !PyErr_Occurred())
        call_raise_unsent(call, E_SEND, "the receiver is gone");
    if (s == STEP_BLOCKED) {
        uint64_t n;
        payload(PyList_GET_ITEM(call->value, call->n), &n);
        call_needs(call, n);
    }
    return s == STEP_BLOCKED && call->n > before ? STEP_PARTIAL : s;
}

static const call_op claim_op = {.name = "claim",
                                 .qualname = "Sender.claim",
                                 .look = log_claim_look,
                                 .timed_out = log_claim_timed_out,
                                 .claims = true,
                                 .paced = true};
static const call_op claim_blocking_op = {.name = "claim_blocking",
                                          .qualname = "Sender.claim_blocking",
                                          .look = log_claim_look,
                                          .timed_out = log_claim_timed_out};
static const call_op send_op = {.name = "send",
                                .qualname = "Sender.send",
                                .look = log_send_look,
                                .timed_out = log_send_timed_out,
                                .paced = true,
                                .at_once = log_send_at_once};
static const call_op send_blocking_op = {.name = "send_blocking",
                                         .qualname = "Sender.send_blocking",
                                         .look = held_send_look,
                                         .timed_out = held_send_timed_out};

/* ---- senders: arguments and methods ----------------------------------------------------------------- */

static bool check_contiguous(PyObject *data, const Py_buffer *view)
{
    bool dense = view->ndim == 1 && view->suboffsets == NULL && /* nearly all are; the function takes longer */
                 (view->strides == NULL || view->strides[0] == view->itemsize);
    if (dense || PyBuffer_IsContiguous(view, 'C'))
        return true;
    PyErr_Format(PyExc_BufferError, "a message must be C-contiguous, and this %.200s is not", Py_TYPE(data)->tp_name);
    return false;
}

/* A checked message as payload() takes it, a new reference; or NULL with an exception set. */
static PyObject *checked_payload(Chan *c, PyObject *data)
{
    uint64_t n;
    PyObject *held = NULL;
    if (PyBytes_CheckExact(data))
        held = Py_NewRef(data);
    else {
        PyObject *view = PyMemoryView_FromObject(data);
        if (view == NULL)
            return NULL;
        if (check_contiguous(data, PyMemoryView_GET_BUFFER(view)))
            held = PyTuple_Pack(2, data, view);
        Py_DECREF(view);
    }
    if (held == NULL)
        return NULL;
    payload(held, &n);
    if (!claim_check_size(c, n))
        Py_CLEAR(held);
    return held;
}

static inline void let_go(HeldSend *send)
{
    if (send->view.obj != NULL)
        PyBuffer_Release(&send->view);
}

/* Check the object that is to be sent, and hold its buffer until let_go(); false with an exception set. */
static inline bool hold_message(HeldSend *send, PyObject *data)
{
    Chan *c = send->call.ep->chan;
    send->call.value = data;
    if (PyBytes_CheckExact(data)) {
        send->view.obj = NULL;
        send->bytes = PyBytes_AS_STRING(data);
        send->n = (uint64_t)PyBytes_GET_SIZE(data);
        return claim_check_size(c, send->n);
    }
    if (PyObject_GetBuffer(data, &send->view, PyBUF_FULL_RO) < 0)
        return false;
    send->bytes = send->view.buf;
    send->n = (uint64_t)send->view.len;
    if (check_contiguous(data, &send->view) && claim_check_size(c, send->n))
        return true;
    PyBuffer_Release(&send->view);
    return false;
}

static PyObject *log_claim(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "claim", args, n, kwnames, &timeout))
        return NULL;
    Call call = {.op = &claim_op, .n = claim_parse_size(ep->chan, args[0])};
    if (call.n == 0 || !endpoint_idle(ep))
        return NULL;
    call_needs(&call, (uint64_t)call.n);
    call.ep = (Endpoint *)Py_NewRef(self);
    return wait_new(&call, timeout);
}

static PyObject *log_claim_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "claim_blocking", args, n, kwnames, &timeout))
        return NULL;
    Call call = {.op = &claim_blocking_op, .ep = ep, .n = claim_parse_size(ep->chan, args[0])};
    if (call.n == 0)
        return NULL;
    call_needs(&call, (uint64_t)call.n);
    return wait_blocking(&call, timeout);
}

static PyObject *log_try_claim(PyObject *self, PyObject *arg)
{
    Endpoint *ep = (Endpoint *)self;
    Call call = {.op = &claim_op, .ep = ep, .n = claim_parse_size(ep->chan, arg)};
    PyObject *claim = NULL;
    if (call.n == 0)
        return NULL;
    if (try_call(&call, &claim) == STEP_BLOCKED)
        core_raise(ep->chan->st, E_CLAIM_FULL, NULL, "no room for %zd bytes now (capacity %llu)", call.n,
                   (unsigned long long)ep->chan->log->capacity);
    return claim;
}

static PyObject *log_send(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "send", args, n, kwnames, &timeout))
        return NULL;
    PyObject *held = checked_payload(ep->chan, args[0]);
    if (held == NULL)
        return NULL;
    PyObject *awaitable = endpoint_idle(ep) ? wait_within(wait_new_give(&send_op, ep, held), timeout) : NULL;
    Py_DECREF(held);
    return awaitable;
}

__attribute__((noinline)) static PyObject *log_send_blocking_slowly(Endpoint *ep, PyObject *data, double timeout)
{
    HeldSend send; /* not cleared: bytes need no view */
    send.call = (Call){.op = &send_blocking_op, .ep = ep};
    if (!hold_message(&send, data))
        return NULL;
    call_needs(&send.call, send.n);
    PyObject *result = wait_blocking(&send.call, timeout);
    let_go(&send);
    return result;
}

static PyObject *log_send_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "send_blocking", args, n, kwnames, &timeout))
        return NULL;
    PyObject *sent = log_send_plainly(ep, args[0]);
    return sent != NULL ? sent : log_send_blocking_slowly(ep, args[0], timeout);
}

__attribute__((noinline)) static PyObject *log_try_send_slowly(Endpoint *ep, PyObject *data)
{
    HeldSend send;
    send.call = (Call){.op = &send_blocking_op, .ep = ep};
    if (!hold_message(&send, data))
        return NULL;
    step s = try_call(&send.call, NULL);
    let_go(&send);
    if (s == STEP_BLOCKED)
        core_raise(send.call.ep->chan->st, E_FULL, data, "no room for this message now (capacity %llu)",
                   (unsigned long long)send.call.ep->chan->log->capacity);
    return s == STEP_READY ? Py_NewRef(Py_None) : NULL;
}

static PyObject *log_try_send(PyObject *self, PyObject *data)
{
    PyObject *sent = log_send_plainly((Endpoint *)self, data);
    return sent != NULL ? sent : log_try_send_slowly((Endpoint *)self, data);
}

/* How much of the ring a checked message takes. */
static uint64_t room_for(PyObject *held)
{
    uint64_t n;
    payload(held, &n);
    return nc_log_extent(n);
}

/* ---- both sides ------------------------------------------------------------------------------------- */

static PyObject *get_max_message_size(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(nc_log_largest(((Endpoint *)self)->chan->log));
}

static PyObject *get_used(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(nc_chan_used(((Endpoint *)self)->chan->block));
}

/* _dump() -> [(position, kind, size), ...]: the records in the ring, for debugging and tests. */
static PyObject *endpoint_dump(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    nc_log *log = ((Endpoint *)self)->chan->log;
    PyObject *list = PyList_New(0);
    if (log->many == NC_LOG_LANES) /* it has no records */
        return list;
    uint64_t pos = atomic_load_explicit(&log->head, memory_order_acquire), header = 1; /* L3 */
    for (uint64_t at = pos; list != NULL && header != 0 && nc_log_dump_next(log, &pos, &header); at = pos) {
        const char *kind = header == 0 ? "claimed" : header & NC_SKIP ? "skip" : "message";
        PyObject *row = Py_BuildValue("(KsK)", (unsigned long long)at, kind, (unsigned long long)(header & ~NC_SKIP));
        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

/* ---- types ------------------------------------------------------------------------------------------ */

static const payload_kind log_payload = {
    .checked = checked_payload,
    .as_passed = original,
    .room_for = room_for,
    .least = 16, /* a header, and a word for the shortest */
    .recv = &log_recv_op,
    .send = &send_op,
    .claim = &claim_op,
    .send_many = BATCH_OPS("send_many", "Sender", log_send_many_look, call_send_many_timed_out),
    .recv_many = BATCH_OPS("recv_many", "Receiver", log_recv_many_look, call_recv_timed_out),
};

/* Rows of a table of methods: with arguments that may be named, with one argument, with none. */
#define NAMED(method, function) {#method, FAST(function), METH_FASTCALL | METH_KEYWORDS, log_##method##_doc}
#define ONE(method, function) {#method, function, METH_O, log_##method##_doc}
#define NONE(method, function) {#method, function, METH_NOARGS, log_##method##_doc}
#define EITHER_METHODS                                                                                          \
    {"native", endpoint_native, METH_NOARGS, endpoint_native_doc}, {"_dump", endpoint_dump, METH_NOARGS, NULL}, \
        ENDPOINT_METHODS
#define SENDER_METHODS                                                                                           \
    NAMED(claim, log_claim), NAMED(claim_blocking, log_claim_blocking), ONE(try_claim, log_try_claim),           \
        NAMED(send, log_send), NAMED(send_blocking, log_send_blocking), ONE(try_send, log_try_send),             \
        NAMED(send_many, endpoint_send_many), NAMED(send_many_blocking, endpoint_send_many_blocking),            \
        ONE(try_send_many, endpoint_try_send_many), {"sending", endpoint_sending, METH_O, endpoint_sending_doc}, \
        {"claiming", endpoint_claiming, METH_O, endpoint_claiming_doc}, NONE(abort, endpoint_end_claim),         \
        EITHER_METHODS
static PyMethodDef spsc_sender_methods[] = {SENDER_METHODS, END_OF_METHODS};
static PyMethodDef mpsc_sender_methods[] = {SENDER_METHODS, ENDPOINT_CLONE, END_OF_METHODS};
static PyMethodDef receiver_methods[] = {
    NAMED(recv, log_recv),
    NAMED(recv_blocking, log_recv_blocking),
    NONE(try_recv, log_try_recv),
    NAMED(recv_bytes, log_recv_bytes),
    NAMED(recv_bytes_blocking, log_recv_bytes_blocking),
    NONE(try_recv_bytes, log_try_recv_bytes),
    NAMED(recv_into, log_recv_into),
    NAMED(recv_into_blocking, log_recv_into_blocking),
    ONE(try_recv_into, log_try_recv_into),
    NAMED(recv_many, endpoint_recv_many),
    NAMED(recv_many_blocking, endpoint_recv_many_blocking),
    ONE(try_recv_many, endpoint_try_recv_many),
    NONE(release, endpoint_end_claim),
    EITHER_METHODS,
    END_OF_METHODS,
};

static PyGetSetDef log_getset[] = {
    ENDPOINT_GETSET,
    {"max_message_size", get_max_message_size, NULL, DOC_MAX_MESSAGE_SIZE, NULL},
    {"used", get_used, NULL, DOC_USED, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define SENDER_SLOTS(its_methods)                                                                                      \
    {                                                                                                                  \
        {Py_tp_methods, its_methods}, {Py_tp_doc, (void *)log_sender_doc}, {Py_tp_getset, log_getset}, ENDPOINT_SLOTS, \
        {                                                                                                              \
            0, NULL                                                                                                    \
        }                                                                                                              \
    }
static PyType_Slot spsc_sender_slots[] = SENDER_SLOTS(spsc_sender_methods);
static PyType_Slot mpsc_sender_slots[] = SENDER_SLOTS(mpsc_sender_methods);
static PyType_Slot receiver_slots[] = {{Py_tp_methods, receiver_methods},
                                       {Py_tp_doc, (void *)log_receiver_doc},
                                       {Py_tp_getset, log_getset},
                                       {Py_tp_iter, log_iter},
                                       {Py_am_aiter, log_iter},
                                       ENDPOINT_SLOTS,
                                       {0, NULL}};

static PyType_Spec specs[KINDS - SPSC_BYTES][SIDES] = {
    {ENDPOINT_SPEC("spsc_bytes", "Sender", spsc_sender_slots), ENDPOINT_SPEC("spsc_bytes", "Receiver", receiver_slots)},
    {ENDPOINT_SPEC("mpsc_bytes", "Sender", mpsc_sender_slots), ENDPOINT_SPEC("mpsc_bytes", "Receiver", receiver_slots)},
};

int log_add_types(PyObject *module, core_state *st)
{
    static const char *const names[KINDS - SPSC_BYTES][SIDES] = {{"SpscBytesSender", "SpscBytesReceiver"},
                                                                 {"MpscBytesSender", "MpscBytesReceiver"}};
    for (int kind = SPSC_BYTES; kind < KINDS; kind++) {
        st->payload[kind] = &log_payload;
        for (int side = 0; side < SIDES; side++) {
            PyType_Spec *spec = &specs[kind - SPSC_BYTES][side];
            st->endpoint_type[kind][side] = core_add_type(module, spec, names[kind - SPSC_BYTES][side]);
            if (st->endpoint_type[kind][side] == NULL)
                return -1;
        }
    }
    return 0;
}
