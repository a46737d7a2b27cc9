/* py_chan.c: a channel's shared part and what all its endpoints have: opening, inspecting, closing.
 *
 * Chan is a garbage-collected object of its own, hidden from Python: it owns the ring's memory, the values
 * in it and the awaitables that wait in its lines.  Endpoints refer to it; it never refers to them.
 */
#include "py_line.h"

/* ---- opening ---------------------------------------------------------------------------------------- */

static bool has_bytes(chan_kind kind) { return kind == SPSC_BYTES || kind == MPSC_BYTES; }

/* Lay out [block][gates][ring][slots], or [block][gates][log], in one allocation, aligned by hand: an object's
 * memory is not. */
static bool chan_allocate(Chan *c, uint64_t capacity)
{
    size_t top = nc_align_up(sizeof(nc_chan), NC_CACHE_LINE);
    size_t gates = nc_align_up(SIDES * sizeof(nc_gate), NC_CACHE_LINE);
    size_t fixed = top + gates + sizeof(nc_ring) + NC_CACHE_LINE;
    if (has_bytes(c->kind) && (capacity = nc_log_round(capacity)) == 0)
        return false;
    if (capacity > (PY_SSIZE_T_MAX - fixed) / sizeof(void *))
        return false;
    size_t body = has_bytes(c->kind) ? nc_log_block_size(capacity, c->kind == MPSC_BYTES)
                                     : sizeof(nc_ring) + capacity * sizeof(void *);
    void *memory = PyMem_RawCalloc(1, top + gates + body + NC_CACHE_LINE);
    if (memory == NULL)
        return false;
    char *base = (char *)nc_align_up((uintptr_t)memory, NC_CACHE_LINE);
    nc_chan *b = c->block = (nc_chan *)base;
    b->memory = memory;
    b->gate = c->gate = (nc_gate *)(base + top);
    nc_chan_init(b, core_generation(), !NC_FREE_THREADED && !has_bytes(c->kind)); /* native code takes no GIL */
    if (has_bytes(c->kind)) {
        b->log = c->log = (nc_log *)(base + top + gates);
        nc_log_init(c->log, capacity, c->kind == MPSC_BYTES, 0);
    } else {
        b->ring = c->ring = (nc_ring *)(base + top + gates);
        nc_ring_init(c->ring, (void *_Atomic *)(base + top + gates + sizeof(nc_ring)), capacity, 0);
    }
    return true;
}

static Chan *chan_new(PyObject *module, chan_kind kind, uint64_t capacity)
{
    core_state *st = PyModule_GetState(module);
    Chan *c = (Chan *)st->chan_type->tp_alloc(st->chan_type, 0);
    if (c == NULL)
        return NULL;
    c->module = Py_NewRef(module);
    c->st = st;
    c->kind = kind;
    c->payload = st->payload[kind];
    c->thread = kind == LOCAL ? PyThread_get_thread_ident() : 0;
    if (!chan_allocate(c, capacity)) {
        PyErr_Format(PyExc_MemoryError, "no memory for a channel of %llu %s", (unsigned long long)capacity,
                     has_bytes(kind) ? "bytes" : "items");
        Py_DECREF(c);
        return NULL;
    }
    return c;
}

static Endpoint *endpoint_new(Chan *c, int side)
{
    PyTypeObject *type = c->st->endpoint_type[c->kind][side];
    Endpoint *ep = (Endpoint *)core_new(type);
    if (ep == NULL)
        return NULL;
    ep->chan = (Chan *)Py_NewRef(c);
    ep->side = (uint8_t)side;
    nc_chan_join(c->block, side);
    if (debug_ends(c->st) && (ep->birth = birth_note(c, side, NULL)) == NULL)
        Py_CLEAR(ep);
    return ep;
}

Endpoint *chan_lone_receiver(PyObject *module)
{
    Chan *c = chan_new(module, SPSC_BYTES, 1);
    Endpoint *ep = c != NULL ? endpoint_new(c, RX) : NULL;
    Py_XDECREF(c);
    return ep;
}

/* An exact capacity in items, or 0 with an exception set. */
static uint64_t parse_capacity(PyObject *arg)
{
    if (PyBool_Check(arg) || !PyIndex_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "capacity must be an int, not %.200s", Py_TYPE(arg)->tp_name);
        return 0;
    }
    Py_ssize_t capacity = PyNumber_AsSsize_t(arg, NULL); /* clips: what is huge stays huge */
    if (capacity == -1 && PyErr_Occurred())
        return 0;
    if (capacity < 1)
        PyErr_Format(PyExc_ValueError, "capacity must be at least 1, not %S", arg);
    return capacity < 1 ? 0 : (uint64_t)capacity;
}

/* open(kind, capacity) -> (sender, receiver) */
PyObject *chan_open(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    long kind = n == 2 ? PyLong_AsLong(args[0]) : -1;
    if (kind < 0 || kind >= KINDS) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "open(kind, capacity)");
        return NULL;
    }
    uint64_t capacity = parse_capacity(args[1]);
    Chan *c = capacity ? chan_new(module, (chan_kind)kind, capacity) : NULL;
    if (c == NULL)
        return NULL;
    PyObject *tx = (PyObject *)endpoint_new(c, TX), *rx = (PyObject *)endpoint_new(c, RX);
    PyObject *pair = tx != NULL && rx != NULL ? PyTuple_Pack(2, tx, rx) : NULL;
    Py_XDECREF(tx);
    Py_XDECREF(rx);
    Py_DECREF(c);
    return pair;
}

PyObject *endpoint_clone(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Endpoint *ep = (Endpoint *)self;
    PyObject *twin = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (endpoint_check(ep) == STEP_READY)
        twin = (PyObject *)endpoint_new(ep->chan, ep->side);
    Py_END_CRITICAL_SECTION();
    return twin;
}

/* ---- inspecting ------------------------------------------------------------------------------------- */

static bool off_thread(Chan *c)
{
    if (c->thread == 0 || c->thread == PyThread_get_thread_ident())
        return false;
    core_raise(c->st, E_WRONG_THREAD, NULL, "this local channel belongs to thread %lu, and this is thread %lu",
               c->thread, PyThread_get_thread_ident());
    return true;
}

step endpoint_check(Endpoint *ep)
{
    if (ep->closed) {
        core_raise(ep->chan->st, E_ENDPOINT_CLOSED, NULL, "this %s is closed", ep->side == TX ? "sender" : "receiver");
        return STEP_ERROR;
    }
    return off_thread(ep->chan) ? STEP_ERROR : STEP_READY;
}

PyObject *endpoint_is_closed(PyObject *self, void *Py_UNUSED(ignored))
{
    bool closed;
    Py_BEGIN_CRITICAL_SECTION(self);
    closed = ((Endpoint *)self)->closed;
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(closed);
}

PyObject *endpoint_is_disconnected(PyObject *self, void *Py_UNUSED(ignored))
{
    Endpoint *ep = (Endpoint *)self;
    return PyBool_FromLong(nc_gate_over_seen(&ep->chan->gate[ep->side]));
}

PyObject *endpoint_capacity(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(nc_chan_capacity(((Endpoint *)self)->chan->block));
}

Py_ssize_t endpoint_length(PyObject *self) { return (Py_ssize_t)nc_chan_used(((Endpoint *)self)->chan->block); }

int endpoint_bool(PyObject *Py_UNUSED(self)) { return 1; }

PyMemberDef endpoint_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Endpoint, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyObject *endpoint_statistics(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Chan *c = ((Endpoint *)self)->chan;
    unsigned waiting[SIDES];
    uint64_t discarded = 0;
    for (int side = 0; side < SIDES; side++) {
        nc_gate_enter(&c->gate[side], core_generation());
        waiting[side] = nc_gate_crowd(&c->gate[side]) / NC_HEAD;
        if (side == RX)
            discarded = c->block->discarded;
        nc_gate_exit(&c->gate[side]);
    }
    uint64_t head, tail; /* relaxed: a snapshot of counters that promise nothing about one another */
    if (c->log != NULL) {
        head = atomic_load_explicit(&c->log->head, memory_order_relaxed);
        tail = atomic_load_explicit(&c->log->tail, memory_order_relaxed);
    } else {
        head = nc_ring_ordinal(c->ring, atomic_load_explicit(&c->ring->head, memory_order_relaxed));
        tail = nc_ring_ordinal(c->ring, atomic_load_explicit(&c->ring->tail, memory_order_relaxed));
    }
    return PyObject_CallFunction(c->st->Statistics, "KKIIIIKK", (unsigned long long)nc_chan_capacity(c->block),
                                 (unsigned long long)nc_chan_used(c->block),
                                 atomic_load_explicit(&c->block->open[TX], memory_order_relaxed),
                                 atomic_load_explicit(&c->block->open[RX], memory_order_relaxed), waiting[TX],
                                 waiting[RX], (unsigned long long)tail, (unsigned long long)(head - discarded));
}

PyObject *endpoint_same_channel(PyObject *self, PyObject *other)
{
    core_state *st = ((Endpoint *)self)->chan->st;
    for (int i = 0; i < KINDS * SIDES; i++)
        if (Py_TYPE(other) == st->endpoint_type[i / SIDES][i % SIDES])
            return PyBool_FromLong(((Endpoint *)self)->chan == ((Endpoint *)other)->chan);
    PyErr_Format(PyExc_TypeError, "same_channel() takes a Sender or a Receiver, not %.200s", Py_TYPE(other)->tp_name);
    return NULL;
}

PyObject *endpoint_reduce(PyObject *self, PyObject *Py_UNUSED(protocol))
{
    PyErr_Format(PyExc_TypeError,
                 "cannot copy or pickle '%.200s': a copy would not be connected.  Pass the endpoint itself to the "
                 "other task or thread%s; between processes use multiprocessing",
                 Py_TYPE(self)->tp_name, PyObject_HasAttrString(self, "clone") ? ", or a clone()" : "");
    return NULL;
}

/* ---- closing ---------------------------------------------------------------------------------------- */

/* Holding the endpoint, or with the last reference to it. */
static void endpoint_close_held(Endpoint *ep, nc_box **kicks)
{
    Chan *c = ep->chan;
    if (ep->closed)
        return;
    ep->closed = true;
    nc_chan_call_owner(c->block, ep->side, ep, core_generation(), kicks);
    if (ep->side == RX || ep->claim == NULL) /* else an open write claim may still be committed: its end leaves */
        endpoint_leave(ep, kicks);
}

static void endpoint_close_now(Endpoint *ep)
{
    Chan *c = ep->chan;
    nc_box *kicks = NULL;
    Py_BEGIN_CRITICAL_SECTION(ep);
    endpoint_close_held(ep, &kicks);
    Py_END_CRITICAL_SECTION();
    line_reap(c, 1 - ep->side, &kicks);
    line_deliver(c, kicks);
}

PyObject *endpoint_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (off_thread(((Endpoint *)self)->chan))
        return NULL;
    endpoint_close_now((Endpoint *)self);
    Py_RETURN_NONE;
}

PyObject *endpoint_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

PyObject *endpoint_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n))
{
    return endpoint_close(self, NULL);
}

static step aenter_look(Call *call, bool Py_UNUSED(called), PyObject **out, nc_box **Py_UNUSED(kicks))
{
    *out = Py_NewRef(call->ep);
    return STEP_READY;
}

static step aexit_look(Call *call, bool Py_UNUSED(called), PyObject **Py_UNUSED(out), nc_box **kicks)
{
    if (off_thread(call->ep->chan))
        return STEP_ERROR;
    endpoint_close_held(call->ep, kicks);
    return STEP_READY;
}

static const call_op aenter_op = {.name = "__aenter__", .qualname = "Channel.__aenter__", .look = aenter_look};
static const call_op aexit_op = {.name = "__aexit__", .qualname = "Channel.__aexit__", .look = aexit_look};

PyObject *endpoint_aenter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return wait_new(&(Call){.op = &aenter_op, .ep = (Endpoint *)Py_NewRef(self)}, -1);
}

PyObject *endpoint_aexit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n))
{
    return wait_new(&(Call){.op = &aexit_op, .ep = (Endpoint *)Py_NewRef(self)}, -1);
}

/* ---- garbage ---------------------------------------------------------------------------------------- */

int endpoint_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Endpoint *)self)->chan);
    return 0;
}

/* Closing is all there is to clear: the cycle, if any, goes through the channel's values or lines. */
int endpoint_clear(PyObject *self)
{
    if (((Endpoint *)self)->chan != NULL)
        endpoint_close_now((Endpoint *)self);
    return 0;
}

void endpoint_dealloc(PyObject *self)
{
    Endpoint *ep = (Endpoint *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, endpoint_dealloc) /* a channel may hold an endpoint that holds a channel that ... */
    if (ep->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    Chan *c = ep->chan;
    if (c != NULL) {
        nc_box *kicks = NULL;
        endpoint_close_held(ep, &kicks);
        line_reap(c, 1 - ep->side, &kicks);
        line_deliver(c, kicks);
        if (ep->lent != NULL)
            lease_unref(ep->lent);
        if (ep->birth != NULL)
            birth_forget(c, ep->birth);
    }
    type->tp_free(self);
    Py_XDECREF(c);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static int chan_traverse(PyObject *self, visitproc visit, void *arg)
{
    Chan *c = (Chan *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(c->module);
    if (c->block == NULL)
        return 0;
    uint64_t tail = 0, pos = 0;
    if (c->ring != NULL) { /* relaxed: with the GIL, or in a stopped world, nobody moves a value */
        tail = atomic_load_explicit(&c->ring->tail, memory_order_relaxed);
        pos = atomic_load_explicit(&c->ring->head, memory_order_relaxed);
    }
    for (; pos != tail; pos = nc_ring_advance(c->ring, pos, 1))
        Py_VISIT(atomic_load_explicit(&c->ring->slots[nc_ring_index(c->ring, pos)], memory_order_relaxed));
    for (int side = 0; side < SIDES; side++) {
        int stop = line_traverse(&c->gate[side], visit, arg);
        if (stop != 0)
            return stop;
    }
    return 0;
}

static int chan_clear(PyObject *self)
{
    if (((Chan *)self)->ring != NULL)
        discard_orphans((Chan *)self);
    return 0;
}

static void chan_dealloc(PyObject *self)
{
    Chan *c = (Chan *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (c->ring != NULL)
        discard_orphans(c);
    if (c->block != NULL)
        block_unref(c->block);
    Py_XDECREF(c->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot chan_slots[] = {
    {Py_tp_dealloc, chan_dealloc},
    {Py_tp_traverse, chan_traverse},
    {Py_tp_clear, chan_clear},
    {0, NULL},
};

static PyType_Spec chan_spec = {
    .name = "nexus_channels._core.Chan",
    .basicsize = sizeof(Chan),
    .flags = ENDPOINT_FLAGS,
    .slots = chan_slots,
};

int chan_add_types(PyObject *module, core_state *st)
{
    st->chan_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &chan_spec, NULL);
    return st->chan_type != NULL ? 0 : -1;
}
