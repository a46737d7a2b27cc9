/* py_ring.c: the endpoints that carry objects: send and recv, one and many, on nc_ring.h.
 *
 * Each operation is one `look`: it tries once, and notifies the other side.  Waiting, timeouts and cancellation are the
 * same for all, in py_await.c and py_park.c.  Senders first, receivers second, types last.
 */
#include "py_arm.h"
#include "py_await_life.h"
#include "py_call.h"
#include "py_chan.h"
#include "py_doc.h"
#include "py_endpoint.h"
#include "py_line.h"
#include "py_module.h"
#include "py_park.h"

/* ---- the plain case ---------------------------------------------------------------------------------- */

/* In the plain case every instruction counts: one item, nobody in line or this call's turn (`called`), nobody to
 * notify.  A case that is not plain goes the slow way, which finds out why.
 *
 * Is the endpoint open, and used in the right thread? */
static inline bool ring_is_plain(Endpoint *ep)
{
    Chan *c = ep->chan;
    return !ep->closed && (c->thread == 0 || c->thread == this_thread());
}

static inline bool ring_put_plainly(Endpoint *ep, bool called, PyObject *value)
{
    Chan *c = ep->chan;
    uint32_t crowd = nc_gate_crowd(&c->gate[TX]);
    if (!ring_is_plain(ep) || (called ? crowd & NC_OVER : crowd))
        return false;
#if NC_FREE_THREADED
    if (c->kind != LOCAL)
        return nc_ring_push_one_mp(c->ring, value);
#endif
    return nc_ring_push_one_sp(c->ring, value, NC_PUBLISH);
}

static inline PyObject *ring_take_plainly(Endpoint *ep, bool called)
{
    Chan *c = ep->chan;
    if (!ring_is_plain(ep) || (!called && nc_gate_crowd(&c->gate[RX]) >= NC_WAITER))
        return NULL;
#if NC_FREE_THREADED
    if (c->kind != LOCAL)
        return nc_ring_pop_one_mpsc(c->ring, NC_PUBLISH);
#endif
    return nc_ring_pop_one_spsc(c->ring, NC_PUBLISH);
}

/* Send the plain way: a new reference to None, or NULL without an exception if the plain way is not open. */
static inline PyObject *ring_send_plainly(Endpoint *ep, PyObject *value)
{
    bool put;
    Py_INCREF(value);
    Py_BEGIN_CRITICAL_SECTION(ep);
    put = ring_put_plainly(ep, false, value);
    Py_END_CRITICAL_SECTION();
    if (!put) {
        Py_DECREF(value); /* not the last: the caller has one */
        return NULL;
    }
    if (nc_gate_flag(&ep->chan->gate[RX], NC_GLANCE) == 0) /* W2 */
        Py_RETURN_NONE;
    return call_notify(ep, RX, Py_NewRef(Py_None));
}

/* Receive the plain way: a new reference, or NULL without an exception if the plain way is not open. */
static inline PyObject *ring_recv_plainly(Endpoint *ep)
{
    PyObject *value;
    Py_BEGIN_CRITICAL_SECTION(ep);
    value = ring_take_plainly(ep, false);
    Py_END_CRITICAL_SECTION();
    if (value == NULL || nc_gate_flag(&ep->chan->gate[TX], NC_GLANCE) == 0) /* W2 */
        return value;
    return call_notify(ep, TX, value);
}

/* ---- senders: look ---------------------------------------------------------------------------------- */

/* Put up to `n` values; *put counts them, and the ring owns them from then on.  STEP_READY if any were put. */
static inline step put_some(Endpoint *ep, PyObject *const *values, uint64_t n, uint64_t *put, bool called,
                            PyObject *unsent, nc_box **kicks)
{
    Chan *c = ep->chan;
    *put = 0;
    if (ep->closed || c->thread != 0) {
        step s = endpoint_check(ep);
        if (s != STEP_READY)
            return s;
    }
    step s =
        (step)nc_chan_put(c->block, (void *const *)values, n, called, core_way(c->kind), core_generation(), put, kicks);
    if (s == STEP_ERROR && unsent != NULL)
        core_raise(c->st, E_SEND, unsent, "the receiver is gone");
    return s;
}

__attribute__((noinline)) static step ring_send_look_slowly(Call *call, bool called, nc_box **kicks)
{
    uint64_t put;
    step s = put_some(call->ep, &call->value, 1, &put, called, call->value, kicks);
    if (s == STEP_READY)
        call->value = NULL;
    return s;
}

static step ring_send_look(Call *call, bool called, PyObject **Py_UNUSED(out), nc_box **kicks)
{
    if (!ring_put_plainly(call->ep, called, call->value))
        return ring_send_look_slowly(call, called, kicks);
    call->value = NULL;
    chan_notify(call->ep->chan, RX, kicks);
    return STEP_READY;
}

/* Relaxed: the GIL orders both sides, so nobody enrols between the look at the flag and the put. */
static PyObject *ring_send_at_once(Call *call)
{
    if (nc_gate_flag(&call->ep->chan->gate[RX], memory_order_relaxed) != 0 ||
        !ring_put_plainly(call->ep, false, call->value))
        return NULL;
    call->value = NULL;
    return Py_NewRef(Py_None);
}

static void ring_send_timed_out(Call *call)
{
    core_raise(call->ep->chan->st, E_SEND_TIMEOUT, call->value, "no room within the timeout (capacity %llu)",
               (unsigned long long)call->ep->chan->ring->capacity);
}

static const call_op send_op = {.name = "send",
                                .qualname = "Sender.send",
                                .look = ring_send_look,
                                .timed_out = ring_send_timed_out,
                                .paced = true,
                                .at_once = ring_send_at_once};
static const call_op send_blocking_op = {.name = "send_blocking",
                                         .qualname = "Sender.send_blocking",
                                         .look = ring_send_look,
                                         .timed_out = ring_send_timed_out};

/* call->value is a private list; the first call->n values are sent already.  The list keeps its references. */
static step ring_send_many_look(Call *call, bool called, PyObject **Py_UNUSED(out), nc_box **kicks)
{
    Chan *c = call->ep->chan;
    PyObject **values = PySequence_Fast_ITEMS(call->value) + call->n;
    uint64_t left = (uint64_t)(PyList_GET_SIZE(call->value) - call->n), put = 0;
    uint64_t capacity = c->ring->capacity, want = left < capacity ? left : capacity;
    for (uint64_t i = 0; i < want; i++)
        Py_INCREF(values[i]); /* for the ring, before a receiver can take it */
    step s = put_some(call->ep, values, want, &put, called, NULL, kicks);
    for (uint64_t i = put; i < want; i++)
        Py_DECREF(values[i]); /* never the last: the list has one */
    call->n += (Py_ssize_t)put;
    left -= put;
    call->share = left < capacity ? left : capacity;
    if (s == STEP_ERROR && !PyErr_Occurred())
        call_raise_unsent(call, E_SEND, "the receiver is gone");
    if (s == STEP_ERROR || left == 0)
        return s == STEP_ERROR ? s : STEP_READY;
    return put > 0 ? STEP_PARTIAL : STEP_BLOCKED;
}

/* ---- senders: methods ------------------------------------------------------------------------------- */

__attribute__((noinline)) static PyObject *ring_send_within(Endpoint *ep, PyObject *const *args, Py_ssize_t n,
                                                            PyObject *kwnames)
{
    double timeout;
    if (!core_parse_one(ep->chan->st, "send", args, n, kwnames, &timeout))
        return NULL;
    return wait_within(wait_new_give(&send_op, ep, args[0]), timeout);
}

static PyObject *ring_send(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    if (n == 1 && kwnames == NULL)
        return wait_new_give(&send_op, (Endpoint *)self, args[0]);
    return ring_send_within((Endpoint *)self, args, n, kwnames);
}

__attribute__((noinline)) static PyObject *ring_send_blocking_slowly(Endpoint *ep, PyObject *value, double timeout)
{
    Call call = {.op = &send_blocking_op, .ep = ep, .value = Py_NewRef(value), .least = 1, .share = 1};
    PyObject *result = wait_blocking(&call, timeout);
    Py_XDECREF(call.value);
    return result;
}

static PyObject *ring_send_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_one(ep->chan->st, "send_blocking", args, n, kwnames, &timeout))
        return NULL;
    PyObject *sent = ring_send_plainly(ep, args[0]);
    return sent != NULL ? sent : ring_send_blocking_slowly(ep, args[0], timeout);
}

__attribute__((noinline)) static PyObject *ring_try_send_slowly(PyObject *self, PyObject *value)
{
    Endpoint *ep = (Endpoint *)self;
    nc_box *kicks = NULL;
    uint64_t put;
    step s;
    Py_INCREF(value); /* for the ring */
    do {
        Py_BEGIN_CRITICAL_SECTION(self);
        s = put_some(ep, &value, 1, &put, false, value, &kicks);
        Py_END_CRITICAL_SECTION();
    } while (s == STEP_BLOCKED && line_reap(ep->chan, TX, &kicks));
    line_deliver_any(ep->chan, kicks);
    if (s == STEP_READY)
        Py_RETURN_NONE;
    if (s == STEP_BLOCKED)
        chan_raise_full(ep->chan, value);
    Py_DECREF(value);
    return NULL;
}

static PyObject *ring_try_send(PyObject *self, PyObject *value)
{
    PyObject *sent = ring_send_plainly((Endpoint *)self, value);
    return sent != NULL ? sent : ring_try_send_slowly(self, value);
}

/* ---- receivers: look -------------------------------------------------------------------------------- */

/* Take up to `n` values.  STEP_ERROR without an exception is the end of the stream. */
static inline step take_some(Endpoint *ep, PyObject **values, uint64_t n, uint64_t *taken, bool called, nc_box **kicks)
{
    Chan *c = ep->chan;
    *taken = 0;
    if (ep->closed || c->thread != 0) {
        step s = endpoint_check(ep);
        if (s != STEP_READY)
            return s;
    }
    return (step)nc_chan_take(c->block, (void **)values, n, called, core_way(c->kind), core_generation(), taken, kicks);
}

/* The plain case of a look. */
static inline bool ring_recv_look_plainly(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    if ((*out = ring_take_plainly(call->ep, called)) == NULL)
        return false;
    chan_notify(call->ep->chan, TX, kicks);
    return true;
}

__attribute__((noinline)) static step ring_recv_look_slowly(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    uint64_t taken;
    step s = take_some(call->ep, out, 1, &taken, called, kicks);
    if (s == STEP_ERROR)
        call_raise_end(call);
    return s;
}

static step ring_recv_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    return ring_recv_look_plainly(call, called, out, kicks) ? STEP_READY
                                                            : ring_recv_look_slowly(call, called, out, kicks);
}

static PyObject *ring_recv_at_once(Call *call)
{
    if (nc_gate_flag(&call->ep->chan->gate[TX], memory_order_relaxed) != 0) /* as in ring_send_at_once */
        return NULL;
    return ring_take_plainly(call->ep, false);
}

static const call_op recv_op = {.name = "recv",
                                .qualname = "Receiver.recv",
                                .look = ring_recv_look,
                                .timed_out = call_recv_timed_out,
                                .paced = true,
                                .at_once = ring_recv_at_once};
static const call_op recv_blocking_op = {.name = "recv_blocking",
                                         .qualname = "Receiver.recv_blocking",
                                         .look = ring_recv_look,
                                         .timed_out = call_recv_timed_out};

/* For iteration, where the end of the stream is no error. */
static step ring_next_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    uint64_t taken;
    return take_some(call->ep, out, 1, &taken, called, kicks);
}

static step ring_anext_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    if (ring_recv_look_plainly(call, called, out, kicks))
        return STEP_READY;
    step s = ring_next_look(call, called, out, kicks);
    if (s == STEP_ERROR && !PyErr_Occurred())
        PyErr_SetNone(PyExc_StopAsyncIteration);
    return s;
}

static const call_op next_op = {
    .name = "__next__", .qualname = "Receiver.__next__", .look = ring_next_look, .timed_out = call_recv_timed_out};
static const call_op anext_op = {.name = "__anext__",
                                 .qualname = "Receiver.__anext__",
                                 .look = ring_anext_look,
                                 .timed_out = call_recv_timed_out,
                                 .paced = true,
                                 .at_once = ring_recv_at_once};

/* Append what came while the list was made, so that a batch is short only if the channel is empty. */
__attribute__((noinline)) static uint64_t take_what_came(Call *call, PyObject *list, uint64_t taken, bool called,
                                                         nc_box **kicks)
{
    uint64_t n = (uint64_t)call->n, more = 1, len, got;
    while (taken < n && more > 0 && (len = nc_ring_len(call->ep->chan->ring)) > 0) {
        for (more = 0; more < len && taken + more < n && PyList_Append(list, Py_None) == 0;)
            more++;
        PyErr_Clear(); /* values for which there is no memory stay in the ring */
        if (take_some(call->ep, PySequence_Fast_ITEMS(list) + taken, more, &got, called, kicks) != STEP_READY) {
            PyErr_Clear();
            n = 0; /* the rest is owed to others, or a collection has closed the endpoint */
        }
        for (uint64_t i = 0; i < more; i++)
            Py_DECREF(Py_None);
        taken += got;
        Py_SET_SIZE(list, (Py_ssize_t)taken);
    }
    return taken;
}

/* At least one, at most call->n, as a list. */
static step ring_recv_many_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    uint64_t len = nc_ring_len(call->ep->chan->ring), n = (uint64_t)call->n, room = n < len ? n : len, taken;
    if (room == 0)
        room = 1;
    PyObject *list = PyList_New((Py_ssize_t)room); /* first: when that fails, nothing was taken */
    if (list == NULL)
        return STEP_ERROR;
    step s = take_some(call->ep, PySequence_Fast_ITEMS(list), room, &taken, called, kicks);
    if (s == STEP_ERROR)
        call_raise_end(call);
    if (taken == room && room < n)
        taken = take_what_came(call, list, taken, called, kicks);
    Py_SET_SIZE(list, (Py_ssize_t)taken); /* fewer than there was room for if others wait in line */
    if (s == STEP_READY)
        *out = list;
    else
        Py_DECREF(list);
    return s;
}

static const payload_kind ring_payload = {
    .least = 1,
    .recv = &recv_op,
    .send = &send_op,
    .send_many = BATCH_OPS("send_many", "Sender", ring_send_many_look, call_send_many_timed_out),
    .recv_many = BATCH_OPS("recv_many", "Receiver", ring_recv_many_look, call_recv_timed_out),
};

/* ---- receivers: methods ----------------------------------------------------------------------------- */

__attribute__((noinline)) static PyObject *ring_recv_within(Endpoint *ep, PyObject *const *args, Py_ssize_t n,
                                                            PyObject *kwnames)
{
    double timeout;
    if (!core_parse_none(ep->chan->st, "recv", args, n, kwnames, &timeout))
        return NULL;
    return wait_within(wait_new_take(&recv_op, ep), timeout);
}

static PyObject *ring_recv(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    if (n == 0 && kwnames == NULL)
        return wait_new_take(&recv_op, (Endpoint *)self);
    return ring_recv_within((Endpoint *)self, args, n, kwnames);
}

__attribute__((noinline)) static PyObject *ring_recv_blocking_slowly(Endpoint *ep, const call_op *op, double timeout)
{
    return wait_blocking(&(Call){.op = op, .ep = ep, .n = 1, .least = 1, .share = 1}, timeout);
}

static PyObject *ring_recv_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    if (!core_parse_none(ep->chan->st, "recv_blocking", args, n, kwnames, &timeout))
        return NULL;
    PyObject *value = ring_recv_plainly(ep);
    return value != NULL ? value : ring_recv_blocking_slowly(ep, &recv_blocking_op, timeout);
}

__attribute__((noinline)) static PyObject *ring_try_recv_slowly(PyObject *self)
{
    Endpoint *ep = (Endpoint *)self;
    nc_box *kicks = NULL;
    PyObject *value = NULL;
    uint64_t taken;
    step s;
    do {
        Py_BEGIN_CRITICAL_SECTION(self);
        s = take_some(ep, &value, 1, &taken, false, &kicks);
        Py_END_CRITICAL_SECTION();
    } while (s == STEP_BLOCKED && line_reap(ep->chan, RX, &kicks));
    line_deliver_any(ep->chan, kicks);
    if (s == STEP_READY)
        return value;
    if (s == STEP_BLOCKED)
        chan_raise_empty(ep->chan);
    else
        call_raise_end(&(Call){.ep = ep});
    return NULL;
}

/* METH_FASTCALL: calling a bound METH_NOARGS is slower by a third. */
static PyObject *ring_try_recv(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t n)
{
    if (n != 0)
        return PyErr_Format(PyExc_TypeError, "try_recv() takes no arguments (%zd given)", n);
    PyObject *value = ring_recv_plainly((Endpoint *)self);
    return value != NULL ? value : ring_try_recv_slowly(self);
}

/* for v in rx: blocks; NULL without an exception is the end. */
static PyObject *ring_next(PyObject *self)
{
    PyObject *value = ring_recv_plainly((Endpoint *)self);
    return value != NULL ? value : ring_recv_blocking_slowly((Endpoint *)self, &next_op, -1);
}

static PyObject *ring_anext(PyObject *self) { return wait_new_take(&anext_op, (Endpoint *)self); }

/* ---- items that are done: for nexus_channels.queue ----------------------------------------------------- */

static PyObject *ring_tally(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Chan *c = ((Endpoint *)self)->chan;
    nc_chan_tally(c->block, &c->tally, core_generation());
    Py_RETURN_NONE;
}

static PyObject *ring_task_done(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t n)
{
    Chan *c = ((Endpoint *)self)->chan;
    if (n != 0)
        return PyErr_Format(PyExc_TypeError, "_task_done() takes no arguments (%zd given)", n);
    uint64_t unfinished = nc_chan_report(c->block, &c->tally, core_generation());
    if (unfinished > 0)
        return PyBool_FromLong(unfinished == 1);
    PyErr_SetString(PyExc_ValueError, "task_done() called too many times: once for each item that was put, at most");
    return NULL;
}

static PyObject *ring_tasks(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Chan *c = ((Endpoint *)self)->chan;
    uint64_t rounds, unfinished = nc_chan_unfinished(c->block, &c->tally, &rounds, core_generation());
    return Py_BuildValue("KK", (unsigned long long)unfinished, (unsigned long long)rounds);
}

/* ---- types ------------------------------------------------------------------------------------------ */

/* Rows of a table of methods: with arguments that may be named, with one argument, with none. */
#define NAMED(method, function) {#method, FAST(function), METH_FASTCALL | METH_KEYWORDS, ring_##method##_doc}
#define ONE(method, function) {#method, function, METH_O, ring_##method##_doc}
#define NONE(method, function) {#method, FAST(function), METH_FASTCALL, ring_##method##_doc}
#define SENDER_METHODS                                                                          \
    NAMED(send, ring_send), ONE(try_send, ring_try_send), NAMED(send_many, endpoint_send_many), \
        ONE(try_send_many, endpoint_try_send_many),                                             \
    {                                                                                           \
        "sending", endpoint_sending, METH_O, endpoint_sending_doc                               \
    }
#define SENDER_BLOCKING_METHODS \
    NAMED(send_blocking, ring_send_blocking), NAMED(send_many_blocking, endpoint_send_many_blocking)
#define RECEIVER_METHODS                                                                         \
    NAMED(recv, ring_recv), NONE(try_recv, ring_try_recv), NAMED(recv_many, endpoint_recv_many), \
        ONE(try_recv_many, endpoint_try_recv_many)
#define RECEIVER_BLOCKING_METHODS \
    NAMED(recv_blocking, ring_recv_blocking), NAMED(recv_many_blocking, endpoint_recv_many_blocking)
#define RECEIVER_TASK_METHODS                                                    \
    {"_tally", ring_tally, METH_NOARGS, ring_tally_doc},                         \
        {"_task_done", FAST(ring_task_done), METH_FASTCALL, ring_task_done_doc}, \
    {                                                                            \
        "_tasks", ring_tasks, METH_NOARGS, ring_tasks_doc                        \
    }

static PyMethodDef local_sender_methods[] = {SENDER_METHODS, ENDPOINT_CLONE, ENDPOINT_METHODS, ENDPOINT_GENERIC,
                                             END_OF_METHODS};
static PyMethodDef spsc_sender_methods[] = {SENDER_METHODS, SENDER_BLOCKING_METHODS, ENDPOINT_METHODS, ENDPOINT_GENERIC,
                                            END_OF_METHODS};
static PyMethodDef mpsc_sender_methods[] = {SENDER_METHODS,   SENDER_BLOCKING_METHODS, ENDPOINT_CLONE,
                                            ENDPOINT_METHODS, ENDPOINT_GENERIC,        END_OF_METHODS};
static PyMethodDef local_receiver_methods[] = {RECEIVER_METHODS, ENDPOINT_METHODS, ENDPOINT_GENERIC, END_OF_METHODS};
static PyMethodDef receiver_methods[] = {RECEIVER_METHODS, RECEIVER_BLOCKING_METHODS, RECEIVER_TASK_METHODS,
                                         ENDPOINT_METHODS, ENDPOINT_GENERIC,          END_OF_METHODS};

static PyGetSetDef ring_getset[] = {ENDPOINT_GETSET, {NULL, NULL, NULL, NULL, NULL}};

#define SENDER_SLOTS(its_methods, its_doc)                                                                       \
    {                                                                                                            \
        {Py_tp_methods, its_methods}, {Py_tp_doc, (void *)its_doc}, {Py_tp_getset, ring_getset}, ENDPOINT_SLOTS, \
        {                                                                                                        \
            0, NULL                                                                                              \
        }                                                                                                        \
    }
static PyType_Slot local_sender_slots[] = SENDER_SLOTS(local_sender_methods, local_sender_doc);
static PyType_Slot spsc_sender_slots[] = SENDER_SLOTS(spsc_sender_methods, ring_sender_doc);
static PyType_Slot mpsc_sender_slots[] = SENDER_SLOTS(mpsc_sender_methods, ring_sender_doc);
static PyType_Slot local_receiver_slots[] = {{Py_tp_methods, local_receiver_methods},
                                             {Py_tp_doc, (void *)local_receiver_doc},
                                             {Py_tp_getset, ring_getset},
                                             {Py_am_aiter, PyObject_SelfIter},
                                             {Py_am_anext, ring_anext},
                                             ENDPOINT_SLOTS,
                                             {0, NULL}};
static PyType_Slot receiver_slots[] = {{Py_tp_methods, receiver_methods},
                                       {Py_tp_doc, (void *)ring_receiver_doc},
                                       {Py_tp_getset, ring_getset},
                                       {Py_tp_iter, PyObject_SelfIter},
                                       {Py_tp_iternext, ring_next},
                                       {Py_am_aiter, PyObject_SelfIter},
                                       {Py_am_anext, ring_anext},
                                       ENDPOINT_SLOTS,
                                       {0, NULL}};

static PyType_Spec specs[SPSC_BYTES][SIDES] = {
    [LOCAL] = {ENDPOINT_SPEC("local", "Sender", local_sender_slots),
               ENDPOINT_SPEC("local", "Receiver", local_receiver_slots)},
    [SPSC] = {ENDPOINT_SPEC("spsc", "Sender", spsc_sender_slots), ENDPOINT_SPEC("spsc", "Receiver", receiver_slots)},
    [MPSC] = {ENDPOINT_SPEC("mpsc", "Sender", mpsc_sender_slots), ENDPOINT_SPEC("mpsc", "Receiver", receiver_slots)},
};

int ring_add_types(PyObject *module, core_state *st)
{
    static const char *const names[SPSC_BYTES][SIDES] = {
        {"LocalSender", "LocalReceiver"}, {"SpscSender", "SpscReceiver"}, {"MpscSender", "MpscReceiver"}};
    for (int kind = 0; kind < SPSC_BYTES; kind++) {
        st->payload[kind] = &ring_payload;
        for (int side = 0; side < SIDES; side++) {
            st->endpoint_type[kind][side] = core_add_type(module, &specs[kind][side], names[kind][side]);
            if (st->endpoint_type[kind][side] == NULL)
                return -1;
        }
    }
    return 0;
}
