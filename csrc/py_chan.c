/* py_chan.c: the part of a channel that its endpoints share: how it is opened, checked, closed and collected.
 *
 * Chan is a garbage-collected object of its own, hidden from Python.  It owns the memory of the ring, the values in it,
 * and the futures of the tasks in its lines.  Endpoints refer to it; it never refers to endpoints.
 */
#include "py_chan.h"
#include "py_ends.h"
#include "py_line.h"
#include "py_module.h"
#include "py_reach.h"

/* ---- opening ---------------------------------------------------------------------------------------- */

static bool has_bytes(chan_kind kind) { return kind == SPSC_BYTES || kind == MPSC_BYTES; }

/* Allocate [block][gates][body], all of it zeroed: where the body begins, or NULL.  It is aligned by hand, as the
 * memory of an object is not aligned to a cache line. */
static char *chan_lay_out(Chan *c, size_t body, bool guarded)
{
    size_t top = nc_align_up(sizeof(chan_block), NC_CACHE_LINE);
    size_t gates = nc_align_up(SIDES * sizeof(nc_gate), NC_CACHE_LINE), fixed = top + gates + NC_CACHE_LINE;
    void *memory = body <= PY_SSIZE_T_MAX - fixed ? PyMem_RawCalloc(1, fixed + body) : NULL;
    if (memory == NULL)
        return NULL;
    char *base = (char *)nc_align_up((uintptr_t)memory, NC_CACHE_LINE);
    nc_chan *b = c->block = (nc_chan *)base;
    b->memory = memory;
    b->gate = c->gate = (nc_gate *)(base + top);
    block_settle(b, 1);
    nc_chan_init(b, core_generation(), guarded);
    return base + top + gates;
}

/* The body is [ring][slots], or [log]. */
static bool chan_allocate(Chan *c, uint64_t capacity)
{
    if (has_bytes(c->kind) && (capacity = nc_log_round(capacity)) == 0)
        return false;
    if (capacity > (PY_SSIZE_T_MAX - sizeof(nc_ring)) / sizeof(void *))
        return false;
    size_t body = has_bytes(c->kind) ? nc_log_block_size(capacity, c->kind == MPSC_BYTES)
                                     : sizeof(nc_ring) + capacity * sizeof(void *);
    char *at = chan_lay_out(c, body, !NC_FREE_THREADED && !has_bytes(c->kind)); /* native code takes no GIL */
    if (at == NULL)
        return false;
    if (has_bytes(c->kind)) {
        c->block->log = c->log = (nc_log *)at;
        nc_log_init(c->log, capacity, c->kind == MPSC_BYTES, 0);
        block_list(c->block);
    } else {
        c->block->ring = c->ring = (nc_ring *)at;
        nc_ring_init(c->ring, (void *_Atomic *)(at + sizeof(nc_ring)), capacity, 0);
    }
    return true;
}

/* A Chan without a block. */
static Chan *chan_face(PyObject *module, chan_kind kind)
{
    core_state *st = PyModule_GetState(module);
    Chan *c = (Chan *)st->chan_type->tp_alloc(st->chan_type, 0);
    if (c == NULL)
        return NULL;
    c->module = Py_NewRef(module);
    c->st = st;
    c->kind = kind;
    c->payload = st->payload[kind];
    c->thread = kind == LOCAL ? this_thread() : 0;
    return c;
}

static Chan *chan_new(PyObject *module, chan_kind kind, uint64_t capacity)
{
    Chan *c = chan_face(module, kind);
    if (c != NULL && !chan_allocate(c, capacity)) {
        PyErr_Format(PyExc_MemoryError, "no memory for a channel of %s%llu %s",
                     capacity < PY_SSIZE_T_MAX ? "" : "at least ", (unsigned long long)capacity,
                     has_bytes(kind) ? "bytes" : "items");
        Py_CLEAR(c);
    }
    return c;
}

/* As chan_allocate() and chan_new(), for a side that reaches the other by lanes.  The body is [log without
 * words][reach].
 */
#if REACHES
static bool chan_allocate_reach(Chan *c, bool reads, uint64_t capacity)
{
    size_t log = nc_align_up(sizeof(nc_log), NC_CACHE_LINE);
    /* a GIL of its own does not keep this interpreter from being forked by another one's thread */
    bool guarded = !NC_FREE_THREADED && PyInterpreterState_Get() == PyInterpreterState_Main();
    char *at = chan_lay_out(c, log + sizeof(os_reach), guarded);
    if (at == NULL)
        return false;
    os_reach *r = (os_reach *)(at + log);
    c->block->log = c->log = (nc_log *)at;
    nc_log_init(c->log, capacity, false, 0);
    c->log->many = NC_LOG_LANES;
    reach_begin(r, c->block, reads, capacity);
    nc_chan_use_lanes(c->block, &r->lanes);
    return true;
}

Chan *chan_new_reach(PyObject *module, chan_kind kind, int side, uint64_t capacity)
{
    Chan *c = chan_face(module, kind);
    if (c != NULL && !chan_allocate_reach(c, side == RX, capacity)) {
        PyErr_NoMemory();
        Py_CLEAR(c);
    }
    return c;
}
#endif

/* ---- a channel that is in several interpreters --------------------------------------------------------- */

/* It has one Chan in each, by however many tickets its ends come there: by way of the Chan the collector of an
 * interpreter finds who keeps whom alive (PROTOCOL.md, section 9).  If two threads without a GIL, or a finalizer, make
 * a second one at the same time, that does no harm: each then counts as a home. */

int chan_list(Chan *c)
{
    if (atomic_load_explicit(&c->listed, memory_order_relaxed)) /* once more would do no harm */
        return 0;
    PyObject *key = PyLong_FromVoidPtr(c->block), *weak = key != NULL ? PyWeakref_NewRef((PyObject *)c, NULL) : NULL;
    int done = weak != NULL ? PyDict_SetItem(c->st->chans, key, weak) : -1;
    Py_XDECREF(weak);
    Py_XDECREF(key);
    if (done == 0)
        atomic_store_explicit(&c->listed, true, memory_order_relaxed); /* as above */
    return done;
}

/* The Chan that is listed for a block, a new reference; NULL without an exception. */
static Chan *chan_listed(core_state *st, PyObject *key)
{
    PyObject *weak = core_dict_find(st->chans, key);
    Chan *c = weak != NULL ? (Chan *)core_weak_target(weak) : NULL;
    Py_XDECREF(weak);
    return c;
}

/* The Chan is being freed, and no weak reference refers to it any more.  Without memory its place in the dict stays,
 * and leads nowhere.  Keeps the current exception. */
static void chan_unlist(Chan *c)
{
    PyObject *type, *value, *traceback;
    if (!atomic_load_explicit(&c->listed, memory_order_relaxed)) /* nobody else knows it any more */
        return;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *key = PyLong_FromVoidPtr(c->block);
    Chan *other = key != NULL ? chan_listed(c->st, key) : NULL;
    if (key != NULL && other == NULL)
        PyDict_DelItem(c->st->chans, key);
    Py_XDECREF(other);
    Py_XDECREF(key);
    PyErr_Restore(type, value, traceback);
}

static void chan_adopt(Chan *c, nc_chan *block)
{
    c->block = block;
    c->gate = block->gate;
    c->log = block->log;
    block_settle(block, 1);
}

Chan *chan_here(PyObject *module, chan_kind kind, nc_chan *block)
{
    PyObject *key = PyLong_FromVoidPtr(block);
    Chan *c = key != NULL ? chan_listed(PyModule_GetState(module), key) : NULL;
    Chan *made = key != NULL && c == NULL ? chan_face(module, kind) : NULL;
    Py_XDECREF(key);
    if (made == NULL) {
        block_unref(block);
        return c;
    }
    chan_adopt(made, block);
    if (chan_list(made) < 0)
        Py_CLEAR(made);
    return made;
}

/* ---- endpoints ------------------------------------------------------------------------------------------ */

Endpoint *endpoint_prepare(Chan *c, int side)
{
    birth *made = NULL;
    if (ends_are_noted(c->st) && (made = birth_note(c, side, NULL)) == NULL)
        return NULL;
    Endpoint *ep = (Endpoint *)core_new(c->st->endpoint_type[c->kind][side]);
    if (ep != NULL) {
        ep->side = (uint8_t)side;
        ep->birth = made;
    } else if (made != NULL)
        birth_forget(c, made);
    return ep;
}

void endpoint_begin(Endpoint *ep, Chan *c) { ep->chan = (Chan *)Py_NewRef(c); }

void endpoint_discard(Endpoint *ep, Chan *c)
{
    if (ep->birth != NULL)
        birth_forget(c, ep->birth);
    ep->birth = NULL;
    Py_DECREF(ep);
}

Endpoint *endpoint_new(Chan *c, int side)
{
    Endpoint *ep = endpoint_prepare(c, side);
    if (ep == NULL)
        return NULL;
    nc_chan_join(c->block, side);
    endpoint_begin(ep, c);
    return ep;
}

Endpoint *chan_lone_receiver(PyObject *module)
{
    Chan *c = chan_new(module, SPSC_BYTES, 1);
    Endpoint *ep = c != NULL ? endpoint_new(c, RX) : NULL;
    Py_XDECREF(c);
    return ep;
}

uint64_t chan_parse_capacity(PyObject *arg)
{
    if (PyBool_Check(arg) || !PyIndex_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "capacity must be an int, not %.200s", Py_TYPE(arg)->tp_name);
        return 0;
    }
    Py_ssize_t capacity = PyNumber_AsSsize_t(arg, NULL); /* clipped: a huge number stays huge */
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
    uint64_t capacity = chan_parse_capacity(args[1]);
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

/* ---- using ------------------------------------------------------------------------------------------ */

bool chan_off_thread(Chan *c)
{
    if (c->thread == 0 || c->thread == this_thread())
        return false;
    core_raise(c->st, E_WRONG_THREAD, NULL, "this local channel belongs to thread %lu, and this is thread %lu",
               c->thread, this_thread());
    return true;
}

void chan_raise_full(Chan *c, PyObject *value)
{
    uint64_t capacity = nc_chan_capacity(c->block), room = capacity - nc_chan_used(c->block);
    if (room == 0)
        core_raise(c->st, E_FULL, value, "the channel is full (capacity %llu)", (unsigned long long)capacity);
    else
        core_raise(c->st, E_FULL, value, "all room is promised to sends that already wait (room for %llu of %llu)",
                   (unsigned long long)room, (unsigned long long)capacity);
}

void chan_raise_empty(Chan *c)
{
    const char *why = "the channel is empty";
    if (nc_chan_have(c->block, NC_RX) != 0)
        why = "everything in the channel is promised to receives that already wait";
    else if (nc_chan_of_bytes(c->block) && nc_chan_used(c->block) != 0)
        why = "the next message is not finished: a sender has a claim open";
    core_raise(c->st, E_EMPTY, NULL, why);
}

step endpoint_check(Endpoint *ep)
{
    if (ep->closed) {
        core_raise(ep->chan->st, E_ENDPOINT_CLOSED, NULL, "this %s is closed", ep->side == TX ? "sender" : "receiver");
        return STEP_ERROR;
    }
    return chan_off_thread(ep->chan) ? STEP_ERROR : STEP_READY;
}

bool endpoint_leased(Endpoint *ep)
{
    if (!nc_end_has_left(&ep->lent->life))
        return true;
    lease_unref(ep->lent);
    ep->lent = NULL;
    return false;
}

/* ---- closing ---------------------------------------------------------------------------------------- */

void endpoint_close_held(Endpoint *ep, nc_box **kicks)
{
    Chan *c = ep->chan;
    if (ep->closed)
        return;
    ep->closed = true;
    if (ep->rested != NULL)
        wake_box_unref(ep->rested);
    ep->rested = NULL;
    nc_chan_call_owner(c->block, ep->side, ep, core_generation(), kicks);
    if (ep->side == RX || ep->claim == NULL) /* else the endpoint leaves when its open write claim ends */
        endpoint_leave(ep, kicks);
}

/* ---- garbage ---------------------------------------------------------------------------------------- */

static int chan_traverse(PyObject *self, visitproc visit, void *arg)
{
    Chan *c = (Chan *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(c->module);
    Py_VISIT(c->watches);
    if (c->block == NULL)
        return 0;
    uint64_t tail = 0, pos = 0;
    if (c->ring != NULL) { /* relaxed: the GIL is held or the world is stopped, so nobody moves a value */
        tail = atomic_load_explicit(&c->ring->tail, memory_order_relaxed);
        pos = atomic_load_explicit(&c->ring->head, memory_order_relaxed);
    }
    for (; pos != tail; pos = nc_ring_advance(c->ring, pos, 1))
        Py_VISIT(atomic_load_explicit(&c->ring->slots[nc_ring_index(c->ring, pos)], memory_order_relaxed));
    for (int side = 0; side < SIDES; side++) {
        int stop = line_traverse(c, side, visit, arg);
        if (stop != 0)
            return stop;
    }
    return 0;
}

static int chan_clear(PyObject *self)
{
    if (((Chan *)self)->ring != NULL)
        discard_orphans((Chan *)self);
    ((Chan *)self)->watched = NULL;
    Py_CLEAR(((Chan *)self)->watches);
    return 0;
}

static void chan_dealloc(PyObject *self)
{
    Chan *c = (Chan *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (c->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    chan_unlist(c);
    if (c->ring != NULL)
        discard_orphans(c);
    if (c->block != NULL) {
        block_settle(c->block, -1);
        block_unref(c->block);
    }
    Py_XDECREF(c->watches);
    Py_XDECREF(c->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef chan_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Chan, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot chan_slots[] = {
    {Py_tp_dealloc, chan_dealloc},
    {Py_tp_traverse, chan_traverse},
    {Py_tp_clear, chan_clear},
    {Py_tp_members, chan_members},
    {0, NULL},
};

static PyType_Spec chan_spec = {
    .name = "nexus_channels._core.Chan",
    .basicsize = sizeof(Chan),
    .flags = CORE_TYPE_FLAGS,
    .slots = chan_slots,
};

int chan_add_types(PyObject *module, core_state *st)
{
    st->chan_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &chan_spec, NULL);
    return st->chan_type != NULL ? 0 : -1;
}
