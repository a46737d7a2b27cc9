/* py_endpoint.c: what all endpoints have, whatever they carry: inspecting, closing, `with`, and the collector. */
#include "py_endpoint.h"
#include "py_await_life.h"
#include "py_chan.h"
#include "py_doc.h"
#include "py_ends.h"
#include "py_line.h"
#include "py_reach.h"
#include "py_watch.h"

/* ---- inspecting ------------------------------------------------------------------------------------- */

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
    bool over = nc_gate_over_seen(&ep->chan->gate[ep->side]);
    if (!over && ep->chan->block->lanes != NULL)
        over = reach_deserted(ep->chan);
    return PyBool_FromLong(over);
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
    uint64_t sent = 0, received = 0;
    reach_hear(c);
    for (int side = 0; side < SIDES; side++) {
        nc_gate_enter(&c->gate[side], core_generation());
        waiting[side] = nc_gate_crowd(&c->gate[side]) / NC_WAITER;
        if (side == RX)
            nc_chan_totals(c->block, &sent, &received);
        nc_gate_exit(&c->gate[side]);
    }
    return PyObject_CallFunction(c->st->Statistics, "KKIIIIKK", (unsigned long long)nc_chan_capacity(c->block),
                                 (unsigned long long)nc_chan_used(c->block), nc_chan_open(c->block, TX),
                                 nc_chan_open(c->block, RX), waiting[TX], waiting[RX], (unsigned long long)sent,
                                 (unsigned long long)received);
}

PyObject *endpoint_same_channel(PyObject *self, PyObject *other)
{
    core_state *st = ((Endpoint *)self)->chan->st;
    for (int i = 0; i < KINDS * SIDES; i++)
        if (Py_TYPE(other) == st->endpoint_type[i / SIDES][i % SIDES])
            return PyBool_FromLong(((Endpoint *)self)->chan->block == ((Endpoint *)other)->chan->block ||
                                   reach_same(((Endpoint *)self)->chan, ((Endpoint *)other)->chan));
    PyErr_Format(PyExc_TypeError, "same_channel() takes a Sender or a Receiver, not %.200s", Py_TYPE(other)->tp_name);
    return NULL;
}

PyObject *endpoint_reduce(PyObject *self, PyObject *Py_UNUSED(protocol))
{
    nc_chan *b = ((Endpoint *)self)->chan->block;
    PyErr_Format(PyExc_TypeError,
                 "cannot copy or pickle '%.200s': a copy would not be connected.  Pass the endpoint itself to the "
                 "other task or thread%s; %s",
                 Py_TYPE(self)->tp_name, PyObject_HasAttrString(self, "clone") ? ", or a clone()" : "",
                 b->lanes != NULL      ? "pass what share() returns to another process"
                 : nc_chan_of_bytes(b) ? "pass what share() returns to another interpreter; for another process, open "
                                         "the channel with shared=True and pass what share() returns"
                                       : "to another process, send bytes: open a channel of spsc_bytes or mpsc_bytes "
                                         "with shared=True");
    return NULL;
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

/* ---- closing ---------------------------------------------------------------------------------------- */

static void endpoint_close_now(Endpoint *ep)
{
    Chan *c = ep->chan;
    nc_box *kicks = NULL;
    Py_BEGIN_CRITICAL_SECTION(ep);
    endpoint_close_held(ep, &kicks);
    Py_END_CRITICAL_SECTION();
    line_deliver(c, kicks);
    watch_prune(c);
}

PyObject *endpoint_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (chan_off_thread(((Endpoint *)self)->chan))
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
    if (chan_off_thread(call->ep->chan))
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

/* ---- the collector ---------------------------------------------------------------------------------- */

int endpoint_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Endpoint *)self)->chan);
    return 0;
}

/* To close the endpoint is enough: a cycle can only go through the channel's values or lines. */
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
