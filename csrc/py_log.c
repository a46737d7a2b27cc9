/* py_log.c: the endpoints that carry bytes, and the claims on them, on nc_log.h.
 *
 * A claim is an object that exports the record's memory as a buffer.  While a buffer is exported the record
 * cannot be committed, aborted or released, so no view ever outlives what it shows:
 *
 *             commit, abort, release                      getbuffer
 *     OPEN ---------------------------> DONE              exports + 1, then: DONE? exports - 1, refuse
 *      ^            exports > 0          |
 *      '---------------------------------'   BufferError, nothing changed
 *
 * An open claim has borrowed its endpoint: another claim or receive raises BusyError; who waits in line for it
 * already is put off until the claim ends.  A claim that is dropped is aborted, or released.
 *
 * As in py_ring.c each operation is one `look`.  Senders first, receivers second, claims third, types last.
 */
#include "py_log.h"

typedef struct Claim {
    PyObject_HEAD
    Endpoint *ep;                 /* strong: it keeps the channel and its memory */
    nc_record record;
    _Atomic int state;            /* CLAIM_OPEN or CLAIM_DONE; E1 */
    _Atomic Py_ssize_t exports;   /* buffers given out and not yet returned; E1 */
    PyObject *view;               /* the memoryview of a `with` block; in the endpoint's critical section */
} Claim;

/* What `for claim in rx` runs on: the claim handed out last is released when the next is asked for. */
typedef struct ClaimIterator {
    PyObject_HEAD
    Endpoint *ep;
    Claim *last;                  /* strong; in the endpoint's critical section */
} ClaimIterator;

enum { CLAIM_OPEN, CLAIM_DONE };
enum { FINISH_ABORT, FINISH_COMMIT }; /* of a read claim both are release */

static bool claim_finish_held(Claim *claim, int how, uint64_t n, nc_box **kicks);
static bool claim_is_open(Claim *claim);

static bool lent(Endpoint *ep) { return ep->claim != NULL || (ep->lent != NULL && native_holds(ep)); }

/* At the call a lent endpoint is an error; who has begun to wait, waits for the claim to end as well.  Native
 * code takes no turns with those in line: where it has the endpoint, nobody waits. */
static step busy(Endpoint *ep, bool patient)
{
    if (patient && ep->claim != NULL)
        return STEP_BUSY;
    core_raise(ep->chan->st, E_BUSY, NULL, "this %s is lent to %s that is still open",
               ep->side == TX ? "sender" : "receiver", ep->claim != NULL ? "a claim" : "a native end");
    return STEP_ERROR;
}

/* Memory for a claim.  Most live shortly, so with a GIL a few dead ones are kept to be used again. */
#if NC_FREE_THREADED
static Claim *claim_alloc(core_state *Py_UNUSED(st), PyTypeObject *type) { return (Claim *)core_new(type); }

static void claim_recycle(core_state *Py_UNUSED(st), Claim *claim) { PyObject_GC_Del(claim); }
#else
enum { SPARE_CLAIMS = 16 };

static Claim *claim_alloc(core_state *st, PyTypeObject *type)
{
    Claim *claim = st->spare_claim;
    if (claim == NULL)
        return (Claim *)core_new(type);
    st->spare_claim = claim->view;
    st->spare_claims--;
    claim->view = NULL;
    claim->ep = NULL; /* the collector may look at once */
    PyObject_Init((PyObject *)claim, type);
    PyObject_GC_Track(claim);
    return claim;
}

static void claim_recycle(core_state *st, Claim *claim)
{
    if (st->spare_claims == SPARE_CLAIMS) {
        PyObject_GC_Del(claim);
        return;
    }
    claim->view = st->spare_claim; /* any pointer of a dead claim will do for a link */
    st->spare_claim = claim;
    st->spare_claims++;
}
#endif

void log_free_spares(core_state *st)
{
    for (; st->spare_claims > 0; st->spare_claims--) {
        Claim *claim = st->spare_claim;
        st->spare_claim = claim->view;
        PyObject_GC_Del(claim);
    }
}

static Claim *claim_new(Endpoint *ep, const nc_record *record)
{
    core_state *st = ep->chan->st;
    Claim *claim = claim_alloc(st, st->claim_type[ep->side]);
    if (claim == NULL)
        return NULL;
    claim->ep = (Endpoint *)Py_NewRef(ep);
    claim->record = *record;
    atomic_store_explicit(&claim->state, CLAIM_OPEN, memory_order_relaxed); /* nobody else knows it yet */
    atomic_store_explicit(&claim->exports, 0, memory_order_relaxed);
    ep->claim = claim;
    return claim;
}

/* ---- senders: look ---------------------------------------------------------------------------------- */

/* Room for n bytes: STEP_READY, STEP_BLOCKED, STEP_BUSY, or STEP_ERROR, without an exception if the receiver is gone.
 */
static step reserve(Call *call, uint64_t n, bool called, nc_record *record)
{
    Endpoint *ep = call->ep;
    Chan *c = ep->chan;
    if (ep->closed)
        return endpoint_check(ep);
    if (nc_gate_crowd(&c->gate[TX]) & NC_OVER)
        return STEP_ERROR;
    if (lent(ep))
        return busy(ep, called || call->late);
    return log_reserve(c->block, n, called, record);
}

/* What waits for n bytes needs all of them. */
static void call_needs(Call *call, uint64_t n) { call->least = call->share = nc_log_extent(n); }

static step claim_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    Endpoint *ep = call->ep;
    nc_record record;
    step s = reserve(call, (uint64_t)call->n, called, &record);
    if (s == STEP_READY && (*out = (PyObject *)claim_new(ep, &record)) == NULL) {
        log_abort(ep->chan->block, &record);
        block_tell(ep->chan->block, log_freed_by_abort(ep->chan->block), kicks);
        return STEP_ERROR;
    }
    if (s == STEP_BLOCKED)
        block_tell(ep->chan->block, RX, kicks); /* who reads may wait for a wake-up that could not be given */
    if (s == STEP_ERROR && !PyErr_Occurred())
        core_raise(ep->chan->st, E_CLAIM_DISCONNECTED, NULL, "the receiver is gone");
    return s;
}

static void claim_timed_out(Call *call)
{
    core_raise(call->ep->chan->st, E_CLAIM_TIMEOUT, NULL, "no room for %zd bytes within the timeout (capacity %llu)",
               call->n, (unsigned long long)call->ep->chan->log->capacity);
}

/* The bytes of something that was checked: a bytes object, or a pair of what was passed and a view of it. */
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

static PyObject *original(PyObject *data) { return PyTuple_CheckExact(data) ? PyTuple_GET_ITEM(data, 0) : data; }

/* Copy a message into the ring. */
static inline step put_bytes(Call *call, const char *bytes, uint64_t n, bool called)
{
    nc_record record;
    step s = reserve(call, n, called, &record);
    if (s == STEP_READY) {
        memcpy(record.data, bytes, n);
        log_commit(call->ep->chan->block, &record, n);
    }
    return s;
}

/* `value` is what was passed. */
static inline step send_one(Call *call, PyObject *value, const char *bytes, uint64_t n, bool called, nc_box **kicks)
{
    step s = put_bytes(call, bytes, n, called);
    if (s == STEP_READY || s == STEP_BLOCKED) /* see claim_look */
        block_tell(call->ep->chan->block, RX, kicks);
    else if (s == STEP_ERROR && !PyErr_Occurred())
        core_raise(call->ep->chan->st, E_SEND, value, "the receiver is gone");
    return s;
}

static void raise_send_timeout(Call *call, PyObject *value, uint64_t n)
{
    core_raise(call->ep->chan->st, E_SEND_TIMEOUT, value, "no room for %llu bytes within the timeout (capacity %llu)",
               (unsigned long long)n, (unsigned long long)call->ep->chan->log->capacity);
}

static step send_look(Call *call, bool called, PyObject **Py_UNUSED(out), nc_box **kicks)
{
    uint64_t n;
    const char *bytes = payload(call->value, &n);
    return send_one(call, original(call->value), bytes, n, called, kicks);
}

static void send_timed_out(Call *call)
{
    uint64_t n;
    payload(call->value, &n);
    raise_send_timeout(call, original(call->value), n);
}

/* A send that lives on the stack, and so can hold what was passed without an object for it.  call.value is what
 * was passed. */
typedef struct HeldSend {
    Call call;
    const char *bytes;
    uint64_t n;
    Py_buffer view;               /* .obj is NULL for bytes, which cannot change */
} HeldSend;

static step held_send_look(Call *call, bool called, PyObject **Py_UNUSED(out), nc_box **kicks)
{
    HeldSend *send = container_of(call, HeldSend, call);
    return send_one(call, call->value, send->bytes, send->n, called, kicks);
}

static void held_send_timed_out(Call *call)
{
    raise_send_timeout(call, call->value, container_of(call, HeldSend, call)->n);
}

/* The list of what was not sent, as it was passed; a new reference. */
static PyObject *unsent_of(Call *call)
{
    PyObject *list = PyList_GetSlice(call->value, call->n, PY_SSIZE_T_MAX);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++)
        PyList_SetItem(list, i, Py_NewRef(original(PyList_GET_ITEM(list, i))));
    return list;
}

/* call->value is a private list of checked messages, of which `n` went already. */
static step send_many_look(Call *call, bool called, PyObject **Py_UNUSED(out), nc_box **kicks)
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
    if (call->n > before || s == STEP_BLOCKED) /* see claim_look */
        block_tell(c->block, RX, kicks);
    if (s == STEP_ERROR && !PyErr_Occurred()) {
        PyObject *unsent = unsent_of(call);
        if (unsent != NULL)
            core_raise(c->st, E_SEND, unsent, "the receiver is gone; %zd of %zd not sent", all - call->n, all);
        Py_XDECREF(unsent);
    }
    if (s == STEP_BLOCKED) {
        uint64_t n;
        payload(PyList_GET_ITEM(call->value, call->n), &n);
        call_needs(call, n);
    }
    return s == STEP_BLOCKED && call->n > before ? STEP_PARTIAL : s;
}

static void send_many_timed_out(Call *call)
{
    PyObject *unsent = unsent_of(call);
    if (unsent != NULL)
        core_raise(call->ep->chan->st, E_SEND_TIMEOUT, unsent, "no room within the timeout; %zd of %zd not sent",
                   PyList_GET_SIZE(unsent), PyList_GET_SIZE(call->value));
    Py_XDECREF(unsent);
}

static const call_op claim_op = {"claim", "Sender.claim", claim_look, claim_timed_out, true};
static const call_op claim_blocking_op = {"claim_blocking", "Sender.claim_blocking", claim_look, claim_timed_out,
                                          false};
static const call_op send_op = {"send", "Sender.send", send_look, send_timed_out, false};
static const call_op send_blocking_op = {"send_blocking", "Sender.send_blocking", held_send_look, held_send_timed_out,
                                         false};
static const call_op send_many_op = {"send_many", "Sender.send_many", send_many_look, send_many_timed_out, false};
static const call_op send_many_blocking_op = {"send_many_blocking", "Sender.send_many_blocking", send_many_look,
                                              send_many_timed_out, false};

/* ---- senders: arguments and methods ----------------------------------------------------------------- */

static bool check_size(Chan *c, uint64_t n)
{
    if (n == 0)
        core_raise(c->st, E_ZERO_LENGTH, NULL, "a message has at least 1 byte, not 0");
    else if (n > nc_log_largest(c->log))
        core_raise(c->st, E_CLAIM_TOO_LARGE, NULL, "%llu bytes are more than max_message_size, %llu",
                   (unsigned long long)n, (unsigned long long)nc_log_largest(c->log));
    else
        return true;
    return false;
}

/* A size to claim, 0 with an exception set. */
static Py_ssize_t parse_size(Chan *c, PyObject *arg)
{
    if (PyBool_Check(arg) || !PyIndex_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "the size of a claim must be an int, not %.200s", Py_TYPE(arg)->tp_name);
        return 0;
    }
    Py_ssize_t n = PyNumber_AsSsize_t(arg, NULL); /* clips: what is huge stays huge */
    if (n == -1 && PyErr_Occurred())
        return 0;
    if (n < 0)
        PyErr_Format(PyExc_ValueError, "the size of a claim must be at least 1, not %S", arg);
    else if (n == PY_SSIZE_T_MAX)
        core_raise(c->st, E_CLAIM_TOO_LARGE, NULL, "%S bytes are more than max_message_size, %llu", arg,
                   (unsigned long long)nc_log_largest(c->log));
    else if (check_size(c, (uint64_t)n))
        return n;
    return 0;
}

static bool check_contiguous(PyObject *data, const Py_buffer *view)
{
    if (PyBuffer_IsContiguous(view, 'C'))
        return true;
    PyErr_Format(PyExc_BufferError, "a message must be C-contiguous, and this %.200s is not", Py_TYPE(data)->tp_name);
    return false;
}

/* What payload() takes, a new reference, checked; or NULL with an exception set. */
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
    if (!check_size(c, n))
        Py_CLEAR(held);
    return held;
}

static inline void let_go(HeldSend *send)
{
    if (send->view.obj != NULL)
        PyBuffer_Release(&send->view);
}

/* Hold what is to be sent, checked: then let_go() is due; false with an exception set. */
static inline bool hold_message(HeldSend *send, PyObject *data)
{
    Chan *c = send->call.ep->chan;
    send->call.value = data;
    if (PyBytes_CheckExact(data)) {
        send->view.obj = NULL;
        send->bytes = PyBytes_AS_STRING(data);
        send->n = (uint64_t)PyBytes_GET_SIZE(data);
        return check_size(c, send->n);
    }
    if (PyObject_GetBuffer(data, &send->view, PyBUF_FULL_RO) < 0)
        return false;
    send->bytes = send->view.buf;
    send->n = (uint64_t)send->view.len;
    if (check_contiguous(data, &send->view) && check_size(c, send->n))
        return true;
    PyBuffer_Release(&send->view);
    return false;
}

static bool check_idle(Endpoint *ep)
{
    bool idle;
    Py_BEGIN_CRITICAL_SECTION(ep);
    idle = ep->closed || !lent(ep) || busy(ep, false) != STEP_ERROR;
    Py_END_CRITICAL_SECTION();
    return idle;
}

static PyObject *sender_claim(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "claim", args, n, kwnames, &timeout))
        return NULL;
    Call call = {.op = &claim_op, .n = parse_size(ep->chan, args[0])};
    if (call.n == 0 || !check_idle(ep))
        return NULL;
    call_needs(&call, (uint64_t)call.n);
    call.ep = (Endpoint *)Py_NewRef(self);
    return wait_new(&call, timeout);
}

static PyObject *sender_claim_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "claim_blocking", args, n, kwnames, &timeout))
        return NULL;
    Call call = {.op = &claim_blocking_op, .ep = ep, .n = parse_size(ep->chan, args[0])};
    if (call.n == 0)
        return NULL;
    call_needs(&call, (uint64_t)call.n);
    return wait_blocking(&call, timeout);
}

static PyObject *sender_try_claim(PyObject *self, PyObject *arg)
{
    Endpoint *ep = (Endpoint *)self;
    Call call = {.op = &claim_op, .ep = ep, .n = parse_size(ep->chan, arg)};
    PyObject *claim = NULL;
    if (call.n == 0)
        return NULL;
    if (try_call(&call, &claim) == STEP_BLOCKED)
        core_raise(ep->chan->st, E_CLAIM_FULL, NULL, "no room for %zd bytes now (capacity %llu)", call.n,
                   (unsigned long long)ep->chan->log->capacity);
    return claim;
}

static PyObject *sender_send(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    uint64_t size;
    if (!core_parse_one(ep->chan->st, "send", args, n, kwnames, &timeout))
        return NULL;
    Call call = {.op = &send_op, .value = checked_payload(ep->chan, args[0])};
    if (call.value == NULL)
        return NULL;
    if (!check_idle(ep)) {
        Py_DECREF(call.value);
        return NULL;
    }
    payload(call.value, &size);
    call_needs(&call, size);
    call.ep = (Endpoint *)Py_NewRef(self);
    return wait_new(&call, timeout);
}

static PyObject *sender_send_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    HeldSend send; /* the view is left alone where it is not needed */
    double timeout;
    send.call = (Call){.op = &send_blocking_op, .ep = (Endpoint *)self};
    if (!core_parse_one(send.call.ep->chan->st, "send_blocking", args, n, kwnames, &timeout) ||
        !hold_message(&send, args[0]))
        return NULL;
    call_needs(&send.call, send.n);
    PyObject *result = wait_blocking(&send.call, timeout);
    let_go(&send);
    return result;
}

static PyObject *sender_try_send(PyObject *self, PyObject *data)
{
    HeldSend send;
    send.call = (Call){.op = &send_blocking_op, .ep = (Endpoint *)self};
    if (!hold_message(&send, data))
        return NULL;
    step s = try_call(&send.call, NULL);
    let_go(&send);
    if (s == STEP_BLOCKED)
        core_raise(send.call.ep->chan->st, E_FULL, data, "no room for this message now (capacity %llu)",
                   (unsigned long long)send.call.ep->chan->log->capacity);
    return s == STEP_READY ? Py_NewRef(Py_None) : NULL;
}

/* A private list of checked messages, or NULL with an exception set. */
static PyObject *checked_payloads(Chan *c, PyObject *iterable)
{
    PyObject *list = PySequence_List(iterable);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *held = checked_payload(c, PyList_GET_ITEM(list, i));
        if (held == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, held);
    }
    return list;
}

static PyObject *sender_send_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "send_many", args, n, kwnames, &timeout))
        return NULL;
    Call call = {.op = &send_many_op, .value = checked_payloads(ep->chan, args[0]), .least = 8, .share = 8};
    if (call.value == NULL)
        return NULL;
    if (!check_idle(ep)) {
        Py_DECREF(call.value);
        return NULL;
    }
    call.ep = (Endpoint *)Py_NewRef(self);
    return wait_new(&call, timeout);
}

static PyObject *sender_send_many_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "send_many_blocking", args, n, kwnames, &timeout))
        return NULL;
    Call call = {.op = &send_many_blocking_op, .ep = ep, .value = checked_payloads(ep->chan, args[0])};
    if (call.value == NULL)
        return NULL;
    PyObject *result = wait_blocking(&call, timeout);
    Py_DECREF(call.value);
    return result;
}

static PyObject *sender_try_send_many(PyObject *self, PyObject *sequence)
{
    Endpoint *ep = (Endpoint *)self;
    Call call = {.op = &send_many_op, .ep = ep, .value = checked_payloads(ep->chan, sequence)};
    if (call.value == NULL)
        return NULL;
    step s = try_call(&call, NULL);
    Py_DECREF(call.value);
    return s == STEP_ERROR ? NULL : PyLong_FromSsize_t(call.n);
}

/* ---- receivers: look -------------------------------------------------------------------------------- */

/* The first record: STEP_READY, STEP_BLOCKED, STEP_BUSY, or STEP_ERROR, without an exception at the end. */
static step show(Call *call, bool called, nc_record *record, nc_box **kicks)
{
    Endpoint *ep = call->ep;
    if (ep->closed)
        return endpoint_check(ep);
    if (lent(ep))
        return busy(ep, called || call->late);
    return log_show(ep->chan->block, called, record, kicks);
}

static void raise_end(Call *call)
{
    if (!PyErr_Occurred())
        core_raise(call->ep->chan->st, E_RECV, NULL, "every sender is gone and everything was received");
}

/* For those to whom the end is an error. */
static step show_or_raise(Call *call, bool called, nc_record *record, nc_box **kicks)
{
    step s = show(call, called, record, kicks);
    if (s == STEP_ERROR)
        raise_end(call);
    return s;
}

static void recv_timed_out(Call *call)
{
    core_raise(call->ep->chan->st, E_RECV_TIMEOUT, NULL, "no message within the timeout");
}

static step recv_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    nc_record record;
    step s = show_or_raise(call, called, &record, kicks);
    if (s != STEP_READY)
        return s;
    *out = (PyObject *)claim_new(call->ep, &record);
    if (*out == NULL)
        return STEP_ERROR; /* the record stays: it was only looked at */
    call->ep->chan->block->reading = true;
    return STEP_READY;
}

static step recv_bytes_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    nc_record record;
    step s = show_or_raise(call, called, &record, kicks);
    if (s != STEP_READY)
        return s;
    *out = PyBytes_FromStringAndSize((const char *)record.data, (Py_ssize_t)record.size);
    if (*out == NULL)
        return STEP_ERROR; /* the record stays */
    log_take(call->ep->chan->block, &record);
    block_tell(call->ep->chan->block, TX, kicks);
    return STEP_READY;
}

/* call->value is a memoryview of the target. */
static step recv_into_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    Py_buffer *target = PyMemoryView_GET_BUFFER(call->value);
    nc_record record;
    step s = show_or_raise(call, called, &record, kicks);
    if (s != STEP_READY)
        return s;
    if (record.size > (uint64_t)target->len) {
        PyErr_Format(PyExc_ValueError, "the message has %llu bytes and the buffer only %zd; the message stays",
                     (unsigned long long)record.size, target->len);
        return STEP_ERROR;
    }
    *out = PyLong_FromUnsignedLongLong(record.size);
    if (*out == NULL)
        return STEP_ERROR;
    memcpy(target->buf, record.data, record.size);
    log_take(call->ep->chan->block, &record);
    block_tell(call->ep->chan->block, TX, kicks);
    return STEP_READY;
}

/* Take up to n messages, of which `record` is the first, into a list of bytes; NULL with an exception set if not
 * even that one.  What there is no memory for stays in the ring. */
static PyObject *take_many(Endpoint *ep, nc_record *record, Py_ssize_t n, nc_box **kicks)
{
    chan_block *b = ep->chan->block;
    bool freed = false, freed_any = false;
    PyObject *list = PyList_New(0);
    nc_result r = list != NULL ? NC_OK : NC_EMPTY;
    while (r == NC_OK) {
        PyObject *bytes = PyBytes_FromStringAndSize((const char *)record->data, (Py_ssize_t)record->size);
        bool kept = bytes != NULL && PyList_Append(list, bytes) == 0;
        Py_XDECREF(bytes);
        if (!kept)
            break;
        nc_log_release_sc(b->log, record, b->many, LOG_BATCH);
        freed_any = true;
        r = PyList_GET_SIZE(list) < n ? nc_log_peek_sc(b->log, record, &freed, b->many, LOG_BATCH) : NC_EMPTY;
    }
    if (freed_any) {
        PyErr_Clear();
        nc_log_settle_head(b->log);
        block_tell(b, TX, kicks);
        return list;
    }
    Py_XDECREF(list);
    return NULL;
}

/* At least one, at most call->n. */
static step recv_many_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    nc_record record;
    step s = show_or_raise(call, called, &record, kicks);
    if (s != STEP_READY)
        return s;
    *out = take_many(call->ep, &record, call->n, kicks);
    return *out != NULL ? STEP_READY : STEP_ERROR;
}

/* Iteration (call->value): the claim handed out last goes first.  The end is no error. */
static step next_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    ClaimIterator *it = (ClaimIterator *)call->value;
    nc_record record;
    if (it->last != NULL && claim_is_open(it->last) && !claim_finish_held(it->last, FINISH_COMMIT, 0, kicks))
        return STEP_ERROR;
    Py_CLEAR(it->last);
    step s = show(call, called, &record, kicks);
    if (s != STEP_READY)
        return s;
    it->last = claim_new(call->ep, &record);
    if (it->last == NULL)
        return STEP_ERROR;
    call->ep->chan->block->reading = true;
    *out = Py_NewRef(it->last);
    return STEP_READY;
}

static step anext_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    step s = next_look(call, called, out, kicks);
    if (s == STEP_ERROR && !PyErr_Occurred())
        PyErr_SetNone(PyExc_StopAsyncIteration);
    return s;
}

static const call_op recv_op = {"recv", "Receiver.recv", recv_look, recv_timed_out, false};
static const call_op recv_blocking_op = {"recv_blocking", "Receiver.recv_blocking", recv_look, recv_timed_out, false};
static const call_op recv_bytes_op = {"recv_bytes", "Receiver.recv_bytes", recv_bytes_look, recv_timed_out, false};
static const call_op recv_bytes_blocking_op = {"recv_bytes_blocking", "Receiver.recv_bytes_blocking", recv_bytes_look,
                                               recv_timed_out, false};
static const call_op recv_into_op = {"recv_into", "Receiver.recv_into", recv_into_look, recv_timed_out, false};
static const call_op recv_into_blocking_op = {"recv_into_blocking", "Receiver.recv_into_blocking", recv_into_look,
                                              recv_timed_out, false};
static const call_op recv_many_op = {"recv_many", "Receiver.recv_many", recv_many_look, recv_timed_out, false};
static const call_op recv_many_blocking_op = {"recv_many_blocking", "Receiver.recv_many_blocking", recv_many_look,
                                              recv_timed_out, false};
static const call_op next_op = {"__next__", "Receiver.__next__", next_look, recv_timed_out, false};
static const call_op anext_op = {"__anext__", "Receiver.__anext__", anext_look, recv_timed_out, false};

void log_discard_held(chan_block *b)
{
    nc_record record;
    bool freed;
    if (b->reading) /* the claim's end comes back here */
        return;
    uint64_t before = atomic_load_explicit(&b->log->head, memory_order_relaxed); /* under the lock */
    while (block_have(b, RX) > 0 && /* W3, after C2 */
           nc_log_peek_sc(b->log, &record, &freed, b->many, LOG_PUBLISH) == NC_OK)
        nc_log_release_sc(b->log, &record, b->many, LOG_PUBLISH);
    b->discarded += atomic_load_explicit(&b->log->head, memory_order_relaxed) - before;
}

/* ---- receivers: methods ----------------------------------------------------------------------------- */

/* recv and recv_bytes differ in their look only. */
static PyObject *receive(PyObject *self, const call_op *op, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_none(ep->chan->st, op->name, args, n, kwnames, &timeout) || !check_idle(ep))
        return NULL;
    return wait_new(&(Call){op, (Endpoint *)Py_NewRef(self), NULL, 1, 1, 1, NULL, false}, timeout);
}

static PyObject *receive_blocking(PyObject *self, const call_op *op, PyObject *const *args, Py_ssize_t n,
                                  PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_none(ep->chan->st, op->name, args, n, kwnames, &timeout))
        return NULL;
    return wait_blocking(&(Call){op, ep, NULL, 1, 1, 1, NULL, false}, timeout);
}

static PyObject *try_receive(PyObject *self, const call_op *op)
{
    Call call = {.op = op, .ep = (Endpoint *)self, .n = 1};
    PyObject *out = NULL;
    if (try_call(&call, &out) == STEP_BLOCKED)
        core_raise(call.ep->chan->st, E_EMPTY, NULL, "the channel is empty");
    return out;
}

static PyObject *receiver_recv(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return receive(self, &recv_op, args, n, kwnames);
}

static PyObject *receiver_recv_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return receive_blocking(self, &recv_blocking_op, args, n, kwnames);
}

static PyObject *receiver_try_recv(PyObject *self, PyObject *Py_UNUSED(ignored)) { return try_receive(self, &recv_op); }

static PyObject *receiver_recv_bytes(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return receive(self, &recv_bytes_op, args, n, kwnames);
}

static PyObject *receiver_recv_bytes_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return receive_blocking(self, &recv_bytes_blocking_op, args, n, kwnames);
}

static PyObject *receiver_try_recv_bytes(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return try_receive(self, &recv_bytes_op);
}

/* A memoryview of where to put a message, or NULL with an exception set. */
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

static PyObject *receiver_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "recv_into", args, n, kwnames, &timeout) || !check_idle(ep))
        return NULL;
    PyObject *view = checked_target(args[0]);
    if (view == NULL)
        return NULL;
    return wait_new(&(Call){&recv_into_op, (Endpoint *)Py_NewRef(self), view, 1, 1, 1, NULL, false}, timeout);
}

static PyObject *receiver_recv_into_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "recv_into_blocking", args, n, kwnames, &timeout))
        return NULL;
    PyObject *view = checked_target(args[0]);
    if (view == NULL)
        return NULL;
    PyObject *result = wait_blocking(&(Call){&recv_into_blocking_op, ep, view, 1, 1, 1, NULL, false}, timeout);
    Py_DECREF(view);
    return result;
}

static PyObject *receiver_try_recv_into(PyObject *self, PyObject *target)
{
    Call call = {.op = &recv_into_op, .ep = (Endpoint *)self, .value = checked_target(target)};
    PyObject *out = NULL;
    if (call.value == NULL)
        return NULL;
    if (try_call(&call, &out) == STEP_BLOCKED)
        core_raise(call.ep->chan->st, E_EMPTY, NULL, "the channel is empty");
    Py_DECREF(call.value);
    return out;
}

static PyObject *receiver_recv_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "recv_many", args, n, kwnames, &timeout))
        return NULL;
    Py_ssize_t count = core_parse_count(args[0]);
    if (count == 0 || !check_idle(ep))
        return NULL;
    return wait_new(&(Call){&recv_many_op, (Endpoint *)Py_NewRef(self), NULL, count, 1, 1, NULL, false}, timeout);
}

static PyObject *receiver_recv_many_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "recv_many_blocking", args, n, kwnames, &timeout))
        return NULL;
    Py_ssize_t count = core_parse_count(args[0]);
    if (count == 0)
        return NULL;
    return wait_blocking(&(Call){&recv_many_blocking_op, ep, NULL, count, 1, 1, NULL, false}, timeout);
}

static PyObject *receiver_try_recv_many(PyObject *self, PyObject *arg)
{
    Call call = {.op = &recv_many_op, .ep = (Endpoint *)self, .n = core_parse_count(arg)};
    PyObject *list = NULL;
    if (call.n == 0)
        return NULL;
    return try_call(&call, &list) == STEP_BLOCKED ? PyList_New(0) : list;
}

static PyObject *receiver_iter(PyObject *self)
{
    PyTypeObject *type = ((Endpoint *)self)->chan->st->claim_iterator_type;
    ClaimIterator *it = (ClaimIterator *)type->tp_alloc(type, 0);
    if (it != NULL)
        it->ep = (Endpoint *)Py_NewRef(self);
    return (PyObject *)it;
}

/* Blocks; NULL without an exception is the end. */
static PyObject *iterator_next(PyObject *self)
{
    return wait_blocking(&(Call){&next_op, ((ClaimIterator *)self)->ep, self, 1, 1, 1, NULL, false}, -1);
}

static PyObject *iterator_anext(PyObject *self)
{
    Endpoint *ep = ((ClaimIterator *)self)->ep;
    return wait_new(&(Call){&anext_op, (Endpoint *)Py_NewRef(ep), Py_NewRef(self), 1, 1, 1, NULL, false}, -1);
}

static int iterator_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((ClaimIterator *)self)->ep);
    Py_VISIT(((ClaimIterator *)self)->last);
    return 0;
}

static int iterator_clear(PyObject *self)
{
    Py_CLEAR(((ClaimIterator *)self)->last);
    return 0;
}

static void iterator_dealloc(PyObject *self)
{
    ClaimIterator *it = (ClaimIterator *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(it->last);
    Py_XDECREF(it->ep);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *get_max_message_size(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(nc_log_largest(((Endpoint *)self)->chan->log));
}

static PyObject *get_used(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(nc_log_used(((Endpoint *)self)->chan->log));
}

/* _dump() -> [(position, kind, size), ...]: what lies in the ring, for debugging and tests. */
static PyObject *endpoint_dump(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    nc_log *log = ((Endpoint *)self)->chan->log;
    PyObject *list = PyList_New(0);
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

/* ---- claims: their state ------------------------------------------------------------------------------ */

static bool claim_is_open(Claim *claim)
{
    return atomic_load_explicit(&claim->state, memory_order_seq_cst) == CLAIM_OPEN; /* E1 */
}

/* Buffers are given out and returned, and claims ended, with the GIL held; where there is one it orders them, and
 * the locked instructions are not needed. */
#if NC_FREE_THREADED
static void claim_count_export(Claim *claim, Py_ssize_t by)
{
    atomic_fetch_add_explicit(&claim->exports, by, memory_order_seq_cst); /* E1: counted first, looked at after */
}

/* OPEN becomes DONE; false if it was DONE. */
static bool claim_shut(Claim *claim)
{
    int open = CLAIM_OPEN;
    return atomic_compare_exchange_strong_explicit(&claim->state, &open, CLAIM_DONE, memory_order_seq_cst,
                                                   memory_order_seq_cst); /* E1 */
}
#else
static void claim_count_export(Claim *claim, Py_ssize_t by)
{
    Py_ssize_t exports = atomic_load_explicit(&claim->exports, memory_order_relaxed); /* under the GIL */
    atomic_store_explicit(&claim->exports, exports + by, memory_order_relaxed);
}

static bool claim_shut(Claim *claim)
{
    if (atomic_load_explicit(&claim->state, memory_order_relaxed) == CLAIM_DONE) /* under the GIL */
        return false;
    atomic_store_explicit(&claim->state, CLAIM_DONE, memory_order_relaxed);
    return true;
}
#endif

/* ---- claims: ending them ---------------------------------------------------------------------------- */

/* The record's fate, once the claim is DONE and nothing is exported. */
static void claim_settle_record(Claim *claim, int how, uint64_t n, nc_box **kicks)
{
    Endpoint *ep = claim->ep;
    Chan *c = ep->chan;
    if (ep->side == RX) {
        nc_gate *g = &c->gate[RX];
        if (ep->closed) /* then whoever holds the gate is the consumer */
            nc_gate_enter(g, core_generation());
        log_take(c->block, &claim->record);
        c->block->reading = false;
        if (ep->closed) {
            c->block->discarded += nc_log_extent(claim->record.size);
            log_discard_held(c->block);
            nc_gate_exit(g);
        }
        block_tell(c->block, TX, kicks);
        return;
    }
    if (how == FINISH_COMMIT)
        log_commit(c->block, &claim->record, n);
    else
        log_abort(c->block, &claim->record);
    block_tell(c->block, how == FINISH_COMMIT ? RX : log_freed_by_abort(c->block), kicks);
}

static void raise_released(Claim *claim)
{
    core_raise(claim->ep->chan->st, E_CLAIM_RELEASED, NULL, "this claim was already %s",
               claim->ep->side == TX ? "committed or aborted" : "released");
}

/* End a claim: commit its first n bytes, abort or release it.  False with ClaimReleased or BufferError set,
 * and nothing changed.  Holding the endpoint. */
static bool claim_finish_held(Claim *claim, int how, uint64_t n, nc_box **kicks)
{
    Endpoint *ep = claim->ep;
    Chan *c = ep->chan;
    if (!claim_shut(claim)) {
        raise_released(claim);
        return false;
    }
    Py_ssize_t exports = atomic_load_explicit(&claim->exports, memory_order_seq_cst); /* E1 */
    if (exports > 0) {
        atomic_store_explicit(&claim->state, CLAIM_OPEN, memory_order_seq_cst); /* E1 */
        PyErr_Format(PyExc_BufferError, "%zd view%s of this claim still exist%s; release them first", exports,
                     exports == 1 ? "" : "s", exports == 1 ? "s" : "");
        return false;
    }
    bool gone = ep->side == TX && how == FINISH_COMMIT && nc_gate_over_seen(&c->gate[TX]);
    claim_settle_record(claim, gone ? FINISH_ABORT : how, n, kicks);
    ep->claim = NULL;
    if (ep->deferred) {
        nc_gate *g = &c->gate[ep->side];
        nc_gate_enter(g, core_generation());
        ep->deferred = nc_gate_resume(g, ep, kicks);
        nc_gate_exit(g);
    }
    if (ep->closed && ep->side == TX)
        block_leave(c->block, TX, kicks);
    if (gone)
        core_raise(c->st, E_CLAIM_DISCONNECTED, NULL, "the receiver is gone");
    return !gone;
}

/* Let go of the view that the `with` block was given; false with BufferError set if it is exported further.
 * Then the block has it still, if `keep`; else it goes with what it was exported to.  Runs Python code. */
static bool claim_drop_view(Claim *claim, bool keep)
{
    PyObject *view;
    Py_BEGIN_CRITICAL_SECTION(claim->ep);
    view = claim->view;
    claim->view = NULL;
    Py_END_CRITICAL_SECTION();
    if (view == NULL)
        return true;
    PyObject *done = PyObject_CallMethodNoArgs(view, claim->ep->chan->st->s_release);
    if (done == NULL && keep) {
        Py_BEGIN_CRITICAL_SECTION(claim->ep);
        if (claim->view == NULL) {
            claim->view = view;
            view = NULL;
        }
        Py_END_CRITICAL_SECTION();
    }
    Py_XDECREF(view);
    Py_XDECREF(done);
    return done != NULL;
}

static bool claim_finish(Claim *claim, int how, uint64_t n, bool keep_view)
{
    Endpoint *ep = claim->ep;
    nc_box *kicks = NULL;
    bool ok;
    if (!claim_drop_view(claim, keep_view))
        return false;
    Py_BEGIN_CRITICAL_SECTION(ep);
    ok = claim_finish_held(claim, how, n, &kicks);
    Py_END_CRITICAL_SECTION();
    settle_soon(ep->chan, kicks);
    return ok;
}

/* commit(n=None) */
static PyObject *claim_commit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    Claim *claim = (Claim *)self;
    Chan *c = claim->ep->chan;
    Py_ssize_t n = (Py_ssize_t)claim->record.size;
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "commit() takes at most one argument");
        return NULL;
    }
    if (nargs == 1 && args[0] != Py_None) {
        n = parse_size(c, args[0]);
        if (n == 0)
            return NULL;
        if ((uint64_t)n > claim->record.size) {
            core_raise(c->st, E_CLAIM_TOO_LARGE, NULL, "commit of %zd bytes in a claim of %llu", n,
                       (unsigned long long)claim->record.size);
            return NULL;
        }
    }
    return claim_finish(claim, FINISH_COMMIT, (uint64_t)n, true) ? Py_NewRef(Py_None) : NULL;
}

static PyObject *claim_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return claim_finish((Claim *)self, FINISH_ABORT, 0, true) ? Py_NewRef(Py_None) : NULL;
}

/* ---- claims: as a context ---------------------------------------------------------------------------- */

static PyObject *claim_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Claim *claim = (Claim *)self;
    PyObject *view = PyMemoryView_FromObject(self);
    if (view == NULL)
        return NULL;
    PyObject *old;
    Py_BEGIN_CRITICAL_SECTION(claim->ep);
    old = claim->view;
    claim->view = Py_NewRef(view);
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(old);
    return view;
}

/* Leaving normally commits or releases, by an exception aborts or releases; what the block ended itself is
 * left alone.  False with an exception set. */
static bool claim_leave(Claim *claim, bool failed)
{
    if (!claim_is_open(claim) && claim->view == NULL)
        return true;
    if (claim_finish(claim, failed ? FINISH_ABORT : FINISH_COMMIT, claim->record.size, false))
        return true;
    if (!failed)
        return false;
    PyErr_Clear(); /* the block's own exception counts; the claim ends with its last view */
    return true;
}

static PyObject *claim_exit(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return claim_leave((Claim *)self, n > 0 && args[0] != Py_None) ? Py_NewRef(Py_None) : NULL;
}

/* ---- async with tx.claim(n) as view ------------------------------------------------------------------- */

static step claim_aenter_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    step s = claim_look(call, called, out, kicks);
    if (s != STEP_READY)
        return s;
    call->entered = *out;
    *out = claim_enter(call->entered, NULL);
    if (*out != NULL)
        return STEP_READY;
    claim_finish_held((Claim *)call->entered, FINISH_ABORT, 0, kicks);
    return STEP_ERROR;
}

static const call_op claim_aenter_op = {"claim", "Sender.claim", claim_aenter_look, claim_timed_out, true};

void claim_aenter(Call *call) { call->op = &claim_aenter_op; }

bool claim_aexit(PyObject *entered, bool failed) { return claim_leave((Claim *)entered, failed); }

/* ---- claims: the buffer ------------------------------------------------------------------------------ */

static int claim_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    Claim *claim = (Claim *)self;
    bool readonly = claim->ep->side == RX;
    claim_count_export(claim, 1);
    if (!claim_is_open(claim))
        raise_released(claim);
    else if (PyBuffer_FillInfo(view, self, claim->record.data, (Py_ssize_t)claim->record.size, readonly, flags) == 0)
        return 0;
    view->obj = NULL;
    claim_count_export(claim, -1);
    return -1;
}

static void claim_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view)) { claim_count_export((Claim *)self, -1); }

static Py_ssize_t claim_length(PyObject *self) { return (Py_ssize_t)((Claim *)self)->record.size; }

/* claim[i], without a view. */
static PyObject *claim_item(Claim *claim, PyObject *key)
{
    Py_ssize_t size = (Py_ssize_t)claim->record.size, i = PyNumber_AsSsize_t(key, PyExc_IndexError);
    PyObject *item = NULL;
    if (i == -1 && PyErr_Occurred())
        return NULL;
    if (i < 0)
        i += size;
    claim_count_export(claim, 1); /* as a view would */
    if (!claim_is_open(claim))
        raise_released(claim);
    else if (i < 0 || i >= size)
        PyErr_Format(PyExc_IndexError, "index out of bounds of a claim of %zd bytes", size);
    else
        item = PyLong_FromLong(claim->record.data[i]);
    claim_count_export(claim, -1);
    return item;
}

/* claim[...] is memoryview(claim)[...] */
static PyObject *claim_subscript(PyObject *self, PyObject *key)
{
    if (PyIndex_Check(key))
        return claim_item((Claim *)self, key);
    PyObject *view = PyMemoryView_FromObject(self);
    PyObject *item = view != NULL ? PyObject_GetItem(view, key) : NULL;
    Py_XDECREF(view);
    return item;
}

static int claim_ass_subscript(PyObject *self, PyObject *key, PyObject *value)
{
    PyObject *view = PyMemoryView_FromObject(self);
    int result = view == NULL ? -1 : value != NULL ? PyObject_SetItem(view, key, value) : PyObject_DelItem(view, key);
    Py_XDECREF(view);
    return result;
}

static PyObject *claim_repr(PyObject *self)
{
    Claim *claim = (Claim *)self;
    return PyUnicode_FromFormat("<%s of %zd bytes, %s, at %p>", Py_TYPE(self)->tp_name, claim_length(self),
                                claim_is_open(claim) ? "open" : "done", self);
}

static PyObject *claim_reduce(PyObject *self, PyObject *Py_UNUSED(protocol))
{
    PyErr_Format(PyExc_TypeError, "cannot copy or pickle '%.200s': copy its bytes, bytes(claim)",
                 Py_TYPE(self)->tp_name);
    return NULL;
}

static int claim_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Claim *)self)->ep);
    Py_VISIT(((Claim *)self)->view);
    return 0;
}

static int claim_clear(PyObject *self)
{
    Py_CLEAR(((Claim *)self)->view);
    return 0;
}

/* Dropped: nothing is exported any more, or it would be referred to. */
static void claim_dealloc(PyObject *self)
{
    Claim *claim = (Claim *)self;
    Endpoint *ep = claim->ep;
    PyTypeObject *type = Py_TYPE(self);
    nc_box *kicks = NULL;
    PyObject_GC_UnTrack(self);
    Py_CLEAR(claim->view);
    if (claim_is_open(claim)) {
        Py_BEGIN_CRITICAL_SECTION(ep);
        claim_finish_held(claim, FINISH_ABORT, 0, &kicks);
        Py_END_CRITICAL_SECTION();
        settle_soon(ep->chan, kicks);
    }
    claim_recycle(ep->chan->st, claim);
    Py_DECREF(ep); /* after which the state may be gone */
    Py_DECREF(type);
}

/* ---- types ------------------------------------------------------------------------------------------ */

#define CLAIM_METHODS                                                                                   \
    {"__enter__", claim_enter, METH_NOARGS, NULL}, {"__exit__", FAST(claim_exit), METH_FASTCALL, NULL}, \
    {                                                                                                   \
        "__reduce_ex__", claim_reduce, METH_O, NULL                                                     \
    }
#define CLAIM_SLOTS                                                                                 \
    {Py_tp_dealloc, claim_dealloc}, {Py_tp_traverse, claim_traverse}, {Py_tp_clear, claim_clear},   \
        {Py_tp_repr, claim_repr}, {Py_mp_length, claim_length}, {Py_mp_subscript, claim_subscript}, \
        {Py_bf_getbuffer, claim_getbuffer},                                                         \
    {                                                                                               \
        Py_bf_releasebuffer, claim_releasebuffer                                                    \
    }

static const char write_claim_doc[] =
    "A place in the ring for one message of len() bytes: a writable buffer.\n\n"
    "Write through memoryview(claim), claim[...], numpy.frombuffer, readinto and the like, then commit().  As a\n"
    "context manager it gives a memoryview, commits at the end and aborts on an exception.  Dropped, it is aborted.\n"
    "While a view of it exists, commit() and abort() raise BufferError.  It borrows its sender: another claim or send\n"
    "raises BusyError.  It may be committed after its sender was closed.  Safe from any thread; its views are not.";
static const char read_claim_doc[] =
    "A message in the ring, borrowed: a read-only buffer of len() bytes.\n\n"
    "Read it through memoryview(claim), claim[...] or bytes(claim), then release() it.  As a context manager it gives "
    "a\n"
    "memoryview and releases at the end.  Dropped, it is released.  While a view of it exists, release() raises\n"
    "BufferError.  It borrows its receiver: another receive raises BusyError.  It stays readable after its receiver\n"
    "was closed.  Safe from any thread; its views are not.";
static const char commit_doc[] =
    "commit($self, n=None, /)\n--\n\n"
    "Send the message, or its first n bytes.  Raises ClaimReleased if it was ended already, BufferError while a view\n"
    "exists (nothing changes), ClaimTooLarge or ZeroLengthClaim for a bad n, ClaimDisconnected if the receiver is "
    "gone.";
static const char abort_doc[] =
    "abort($self)\n--\n\n"
    "Give the place back.  Raises ClaimReleased if it was ended already, BufferError while a view exists.";
static const char release_doc[] =
    "release($self)\n--\n\n"
    "Done with the message.  Raises ClaimReleased if it was released already, BufferError while a view exists.";

static PyMethodDef write_claim_methods[] = {{"commit", FAST(claim_commit), METH_FASTCALL, commit_doc},
                                            {"abort", claim_abort, METH_NOARGS, abort_doc},
                                            CLAIM_METHODS,
                                            END_OF_METHODS};
static PyMethodDef read_claim_methods[] = {
    {"release", claim_abort, METH_NOARGS, release_doc}, CLAIM_METHODS, END_OF_METHODS};

static PyType_Slot write_claim_slots[] = {{Py_tp_methods, write_claim_methods},
                                          {Py_tp_doc, (void *)write_claim_doc},
                                          {Py_mp_ass_subscript, claim_ass_subscript},
                                          CLAIM_SLOTS,
                                          {0, NULL}};
static PyType_Slot read_claim_slots[] = {
    {Py_tp_methods, read_claim_methods}, {Py_tp_doc, (void *)read_claim_doc}, CLAIM_SLOTS, {0, NULL}};
static PyType_Slot iterator_slots[] = {{Py_tp_dealloc, iterator_dealloc}, {Py_tp_traverse, iterator_traverse},
                                       {Py_tp_clear, iterator_clear},     {Py_tp_iter, PyObject_SelfIter},
                                       {Py_tp_iternext, iterator_next},   {Py_am_aiter, PyObject_SelfIter},
                                       {Py_am_anext, iterator_anext},     {0, NULL}};

#define BASIC(type_name, struct_name, its_slots) \
    {.name = "nexus_channels._core." type_name,  \
     .basicsize = sizeof(struct_name),           \
     .flags = ENDPOINT_FLAGS,                    \
     .slots = its_slots}
static PyType_Spec claim_specs[SIDES] = {BASIC("WriteClaim", Claim, write_claim_slots),
                                         BASIC("ReadClaim", Claim, read_claim_slots)};
static PyType_Spec iterator_spec = BASIC("ClaimIterator", ClaimIterator, iterator_slots);

#define CANCEL_SEND "Cancelled or timed out, it did not send.  Safe from any thread."
#define CANCEL_RECV "Cancelled or timed out, it took nothing.  Safe from any thread."
#define TX_ERRORS "ClaimTooLarge or ZeroLengthClaim at the call, BusyError while a claim is open"

static const char claim_doc[] =
    "claim($self, n, timeout=None)\n--\n\n"
    "Reserve a place for a message of n bytes, 1 to max_message_size, waiting for room up to `timeout` seconds; await\n"
    "the WriteClaim, or use `async with tx.claim(n) as view`, which commits at the end and aborts on an exception.\n\n"
    "Raises " TX_ERRORS
    ", ClaimTimeout,\nClaimDisconnected if the receiver is gone, EndpointClosed.  Cancelled or timed "
    "out, nothing is reserved.\nSafe from any thread.";
static const char claim_blocking_doc[] = "claim_blocking($self, n, timeout=None)\n--\n\nclaim(), blocking this thread "
                                         "without the GIL.  Safe from any thread.";
static const char try_claim_doc[] =
    "try_claim($self, n, /)\n--\n\n"
    "Reserve a place for a message of n bytes now.  Raises ClaimFull when there is no room, or no more than those in\n"
    "line will take; else as claim().  Never waits, keeps the GIL.  Safe from any thread.";
static const char send_doc[] =
    "send($self, data, timeout=None)\n--\n\n"
    "Send a copy of `data`, any C-contiguous buffer of 1 to max_message_size bytes, waiting for room up to `timeout`\n"
    "seconds; await the result.\n\n"
    "Raises " TX_ERRORS
    ", SendTimeout, SendError if\nthe receiver is gone (both with `.value`), EndpointClosed.  " CANCEL_SEND;
static const char send_blocking_doc[] =
    "send_blocking($self, data, timeout=None)\n--\n\n"
    "send(), blocking this thread without the GIL.  When it raised, it did not send.  Safe from any thread.";
static const char try_send_doc[] =
    "try_send($self, data, /)\n--\n\n"
    "Send a copy of `data` now.  Raises Full when there is no room, or no more than those in line will take; else as\n"
    "send().  Never waits, keeps the GIL.  Safe from any thread.";
static const char send_many_doc[] =
    "send_many($self, iterable, timeout=None)\n--\n\n"
    "Send copies of all buffers of `iterable`, which is read to its end and checked first, in order; await the "
    "result.\n\n"
    "Raises as send() does; `.value` is then the list of what was not sent.  Cancelled, it sent a prefix.";
static const char send_many_blocking_doc[] =
    "send_many_blocking($self, iterable, timeout=None)\n--\n\nsend_many(), blocking this thread without the GIL.";
static const char try_send_many_doc[] =
    "try_send_many($self, sequence, /)\n--\n\n"
    "Send copies of as many buffers as there is room for now, in order; returns how many.  Raises as send() does.";
static const char recv_doc[] =
    "recv($self, timeout=None)\n--\n\n"
    "Borrow the next message, waiting for it up to `timeout` seconds; await the ReadClaim.\n\n"
    "Raises BusyError at the call while a claim is open, RecvTimeout, RecvError once every sender is gone and all was\n"
    "received, EndpointClosed.  " CANCEL_RECV;
static const char recv_blocking_doc[] =
    "recv_blocking($self, timeout=None)\n--\n\nrecv(), blocking this thread without the GIL.  Safe from any thread.";
static const char try_recv_doc[] =
    "try_recv($self)\n--\n\n"
    "Borrow the next message now.  Raises Empty when there is none, or it is owed to those in line; else as recv().\n"
    "Never waits, keeps the GIL.  Safe from any thread.";
static const char recv_bytes_doc[] = "recv_bytes($self, timeout=None)\n--\n\n"
                                     "Receive the next message as bytes, waiting for it up to `timeout` seconds; await "
                                     "it.  One copy.  Raises as recv().";
static const char recv_bytes_blocking_doc[] =
    "recv_bytes_blocking($self, timeout=None)\n--\n\nrecv_bytes(), blocking this thread without the GIL.";
static const char try_recv_bytes_doc[] =
    "try_recv_bytes($self)\n--\n\nThe next message as bytes, now.  Raises as try_recv().";
static const char recv_into_doc[] =
    "recv_into($self, buffer, timeout=None)\n--\n\n"
    "Receive the next message into a writable C-contiguous buffer, waiting for it up to `timeout` seconds; await the\n"
    "number of bytes.  Raises ValueError if the message is larger than the buffer, and the message stays; else as "
    "recv().";
static const char recv_into_blocking_doc[] =
    "recv_into_blocking($self, buffer, timeout=None)\n--\n\nrecv_into(), blocking this thread without the GIL.";
static const char try_recv_into_doc[] = "try_recv_into($self, buffer, /)\n--\n\nThe next message into `buffer`, now; "
                                        "returns its size.  Raises as try_recv() and recv_into().";
static const char recv_many_doc[] =
    "recv_many($self, n, timeout=None)\n--\n\n"
    "Wait for one message, then take what is there, at most n, as a list of bytes; await it.  Raises as recv().";
static const char recv_many_blocking_doc[] =
    "recv_many_blocking($self, n, timeout=None)\n--\n\nrecv_many(), blocking this thread without the GIL.";
static const char try_recv_many_doc[] =
    "try_recv_many($self, n, /)\n--\n\nWhat is there now, at most n messages, as a list of bytes, which may be empty.";

#define CALL(method, function) {#method, FAST(function), METH_FASTCALL | METH_KEYWORDS, method##_doc}
#define SENDER_METHODS                                                                                               \
    CALL(claim, sender_claim), CALL(claim_blocking, sender_claim_blocking), CALL(send, sender_send),                 \
        CALL(send_blocking, sender_send_blocking), CALL(send_many, sender_send_many),                                \
        CALL(send_many_blocking, sender_send_many_blocking), {"try_claim", sender_try_claim, METH_O, try_claim_doc}, \
        {"try_send", sender_try_send, METH_O, try_send_doc},                                                         \
        {"try_send_many", sender_try_send_many, METH_O, try_send_many_doc},                                          \
    {                                                                                                                \
        "_dump", endpoint_dump, METH_NOARGS, NULL                                                                    \
    }
#define ENDPOINT_NATIVE {"native", endpoint_native, METH_NOARGS, endpoint_native_doc}
static PyMethodDef spsc_sender_methods[] = {SENDER_METHODS, ENDPOINT_NATIVE, ENDPOINT_METHODS, END_OF_METHODS};
static PyMethodDef mpsc_sender_methods[] = {SENDER_METHODS, ENDPOINT_CLONE, ENDPOINT_NATIVE, ENDPOINT_METHODS,
                                            END_OF_METHODS};
static PyMethodDef receiver_methods[] = {CALL(recv, receiver_recv),
                                         CALL(recv_blocking, receiver_recv_blocking),
                                         CALL(recv_bytes, receiver_recv_bytes),
                                         CALL(recv_bytes_blocking, receiver_recv_bytes_blocking),
                                         CALL(recv_into, receiver_recv_into),
                                         CALL(recv_into_blocking, receiver_recv_into_blocking),
                                         CALL(recv_many, receiver_recv_many),
                                         CALL(recv_many_blocking, receiver_recv_many_blocking),
                                         {"try_recv", receiver_try_recv, METH_NOARGS, try_recv_doc},
                                         {"try_recv_bytes", receiver_try_recv_bytes, METH_NOARGS, try_recv_bytes_doc},
                                         {"try_recv_into", receiver_try_recv_into, METH_O, try_recv_into_doc},
                                         {"try_recv_many", receiver_try_recv_many, METH_O, try_recv_many_doc},
                                         {"_dump", endpoint_dump, METH_NOARGS, NULL},
                                         ENDPOINT_NATIVE,
                                         ENDPOINT_METHODS,
                                         END_OF_METHODS};

static PyGetSetDef log_getset[] = {
    ENDPOINT_GETSET,
    {"max_message_size", get_max_message_size, NULL, "The largest message, in bytes: capacity - 8.", NULL},
    {"used", get_used, NULL, "Bytes of the ring in use: messages and claims, their 8-byte headers and padding.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static const char sender_doc[] =
    "The sending end of a channel of bytes; open one with channel(capacity).\n\n"
    "claim() reserves a place to write into, send() copies; both wait in a task, their _blocking forms in a thread,\n"
    "their try_ forms not at all.  One claim may be open at a time.  A context manager that closes itself; dropping "
    "the\n"
    "last reference closes it too.";
static const char receiver_doc[] =
    "The receiving end of a channel of bytes; open one with channel(capacity).\n\n"
    "recv() borrows a message, recv_bytes() and recv_into() copy it; all wait in a task, their _blocking forms in a\n"
    "thread, their try_ forms not at all.  Iteration borrows, and releases each claim when the next is asked for.  "
    "One\n"
    "claim may be open at a time.  A context manager that closes itself; dropping the last reference closes it too.";

static PyType_Slot spsc_sender_slots[] = {{Py_tp_methods, spsc_sender_methods},
                                          {Py_tp_doc, (void *)sender_doc},
                                          {Py_tp_getset, log_getset},
                                          ENDPOINT_SLOTS,
                                          {0, NULL}};
static PyType_Slot mpsc_sender_slots[] = {{Py_tp_methods, mpsc_sender_methods},
                                          {Py_tp_doc, (void *)sender_doc},
                                          {Py_tp_getset, log_getset},
                                          ENDPOINT_SLOTS,
                                          {0, NULL}};
static PyType_Slot receiver_slots[] = {{Py_tp_methods, receiver_methods},
                                       {Py_tp_doc, (void *)receiver_doc},
                                       {Py_tp_getset, log_getset},
                                       {Py_tp_iter, receiver_iter},
                                       {Py_am_aiter, receiver_iter},
                                       ENDPOINT_SLOTS,
                                       {0, NULL}};

#define SPEC(module, cls, its_slots)           \
    {.name = "nexus_channels." module "." cls, \
     .basicsize = sizeof(Endpoint),            \
     .flags = ENDPOINT_FLAGS,                  \
     .slots = its_slots}

static PyType_Spec specs[2][SIDES] = {
    {SPEC("spsc_bytes", "Sender", spsc_sender_slots), SPEC("spsc_bytes", "Receiver", receiver_slots)},
    {SPEC("mpsc_bytes", "Sender", mpsc_sender_slots), SPEC("mpsc_bytes", "Receiver", receiver_slots)},
};

/* A new type, added to the module under `name`; NULL with an exception set. */
static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec, const char *name)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddObjectRef(module, name, type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

int log_add_types(PyObject *module, core_state *st)
{
    static const char *const names[2][SIDES] = {{"SpscBytesSender", "SpscBytesReceiver"},
                                                {"MpscBytesSender", "MpscBytesReceiver"}};
    for (int kind = 0; kind < 2; kind++)
        for (int side = 0; side < SIDES; side++) {
            PyTypeObject *type = add_type(module, &specs[kind][side], names[kind][side]);
            if ((st->endpoint_type[SPSC_BYTES + kind][side] = type) == NULL)
                return -1;
        }
    st->claim_type[TX] = add_type(module, &claim_specs[TX], "WriteClaim");
    st->claim_type[RX] = add_type(module, &claim_specs[RX], "ReadClaim");
    st->claim_iterator_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &iterator_spec, NULL);
    return st->claim_type[TX] != NULL && st->claim_type[RX] != NULL && st->claim_iterator_type != NULL ? 0 : -1;
}
