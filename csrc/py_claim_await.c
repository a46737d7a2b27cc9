/* py_claim_await.c: awaiting, entering and iterating over claims: async with tx.claim(n), for claim in rx, async for
 * claim in rx.
 */
#include "py_call.h"
#include "py_chan.h"
#include "py_claim.h"
#include "py_coroutine.h"
#include "py_line.h"
#include "py_log.h"
#include "py_log_recv.h"
#include "py_module.h"
#include "py_park.h"

/* ---- async with tx.claim(n) as view ----------------------------------------------------------------- */

static step claim_aenter_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    step s = log_claim_look(call, called, out, kicks);
    if (s != STEP_READY)
        return s;
    call->entered = *out;
    *out = claim_enter(call->entered, NULL);
    if (*out != NULL)
        return STEP_READY;
    claim_finish_held(call->ep, (Claim *)call->entered, FINISH_ABORT, 0, kicks);
    claim_let_go((Claim *)call->entered);
    return STEP_ERROR;
}

static const call_op claim_aenter_op = {.name = "claim",
                                        .qualname = "Sender.claim",
                                        .look = claim_aenter_look,
                                        .timed_out = log_claim_timed_out,
                                        .claims = true,
                                        .paced = true};

/* async with tx.claim(n) as view: the awaitable is its own __aenter__(); awaiting it enters the claim. */
static PyObject *awaitable_aenter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Awaitable *aw = (Awaitable *)self;
    bool fresh;
    Py_BEGIN_CRITICAL_SECTION(aw);
    fresh = aw->state == CREATED;
    if (fresh)
        aw->call.op = &claim_aenter_op;
    Py_END_CRITICAL_SECTION();
    if (fresh)
        return Py_NewRef(self);
    awaitable_raise_reused(aw);
    return NULL;
}

/* Leaving the block commits or aborts at once; the awaitable that is returned has nothing to wait for. */
static PyObject *awaitable_aexit(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Awaitable *aw = (Awaitable *)self;
    PyObject *entered;
    Endpoint *ep = awaitable_endpoint(aw);
    if (ep == NULL) {
        awaitable_raise_reused(aw);
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(aw);
    entered = aw->call.entered;
    aw->call.entered = NULL;
    Py_END_CRITICAL_SECTION();
    bool ok = entered == NULL || claim_leave((Claim *)entered, n > 0 && args[0] != Py_None);
    Py_XDECREF(entered);
    PyObject *nothing = ok ? wait_new(&(Call){.op = &nothing_op, .ep = (Endpoint *)Py_NewRef(ep)}, -1) : NULL;
    if (awaitable_state(self) == DONE)
        awaitable_release(aw);
    Py_DECREF(ep);
    return nothing;
}

static PyMethodDef claim_awaitable_methods[] = {AWAITABLE_METHODS,
                                                {"__aenter__", awaitable_aenter, METH_NOARGS, NULL},
                                                {"__aexit__", FAST(awaitable_aexit), METH_FASTCALL, NULL},
                                                END_OF_METHODS};

static PyType_Slot claim_awaitable_slots[] = {AWAITABLE_SLOTS, {Py_tp_methods, claim_awaitable_methods}, {0, NULL}};

static PyType_Spec claim_awaitable_spec = {
    .name = "nexus_channels._core.ClaimAwaitable",
    .basicsize = sizeof(Awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = claim_awaitable_slots,
};

/* ---- for claim in rx --------------------------------------------------------------------------------- */

/* End the claim that was handed out last, before the next is looked for; false with BufferError set.  Holding the
 * endpoint, which others may use meanwhile: see claim_let_go(). */
static bool iterator_pass_on(ClaimIterator *it, Endpoint *ep, nc_box **kicks)
{
    Claim *last = it->last;
    if (last == NULL)
        return true;
    if (claim_is_open(last) && claim_finish_held(ep, last, FINISH_COMMIT, 0, kicks) == CLAIM_KEPT)
        return false;
    it->last = NULL;
    claim_let_go(last);
    Py_DECREF(last);
    return true;
}

/* The iterator has come to its end, and lets go of the endpoint. */
static void iterator_end(ClaimIterator *it)
{
    Endpoint *ep;
    Py_BEGIN_CRITICAL_SECTION(it);
    ep = it->ep;
    it->ep = NULL;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(ep);
}

/* One look of the iterator, which is call->value.  The end is STEP_ERROR without an exception. */
static step iterator_next_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    ClaimIterator *it = (ClaimIterator *)call->value;
    nc_record record;
    Claim *claim = claim_make(call->ep); /* before the look, as in log_claim_look */
    if (claim == NULL)
        return STEP_ERROR;
    step s = iterator_pass_on(it, call->ep, kicks) ? log_look_first(call, called, &record, kicks) : STEP_ERROR;
    if (s != STEP_READY) {
        Py_DECREF(claim);
        return s;
    }
    *out = Py_NewRef(claim_start(claim, &record));
    Py_XSETREF(it->last, claim); /* if another thread has put one there, it has ended */
    call->ep->chan->block->reading = true;
    return STEP_READY;
}

static step iterator_anext_look(Call *call, bool called, PyObject **out, nc_box **kicks)
{
    step s = iterator_next_look(call, called, out, kicks);
    if (s == STEP_ERROR && !PyErr_Occurred()) {
        iterator_end((ClaimIterator *)call->value); /* the call has a reference of its own to the endpoint */
        PyErr_SetNone(PyExc_StopAsyncIteration);
    }
    return s;
}

static step anext_past_end(Call *Py_UNUSED(call), bool Py_UNUSED(called), PyObject **Py_UNUSED(out),
                           nc_box **Py_UNUSED(kicks))
{
    PyErr_SetNone(PyExc_StopAsyncIteration);
    return STEP_ERROR;
}

static const call_op next_op = {
    .name = "__next__", .qualname = "Receiver.__next__", .look = iterator_next_look, .timed_out = call_recv_timed_out};
static const call_op anext_op = {.name = "__anext__",
                                 .qualname = "Receiver.__anext__",
                                 .look = iterator_anext_look,
                                 .timed_out = call_recv_timed_out,
                                 .paced = true}; /* the last claim was given back when __anext__() was called */
static const call_op anext_past_end_op = {
    .name = "__anext__", .qualname = "Receiver.__anext__", .look = anext_past_end};

/* The endpoint, a new reference; NULL without an exception if the iterator has come to its end. */
static Endpoint *iterator_endpoint(PyObject *self)
{
    Endpoint *ep;
    Py_BEGIN_CRITICAL_SECTION(self);
    ep = (Endpoint *)Py_XNewRef(((ClaimIterator *)self)->ep);
    Py_END_CRITICAL_SECTION();
    return ep;
}

/* __next__(): blocks.  NULL without an exception is the end. */
static PyObject *iterator_next(PyObject *self)
{
    Endpoint *ep = iterator_endpoint(self);
    if (ep == NULL)
        return NULL;
    PyObject *claim =
        wait_blocking(&(Call){.op = &next_op, .ep = ep, .value = self, .n = 1, .least = 1, .share = 1}, -1);
    if (claim == NULL && !PyErr_Occurred())
        iterator_end((ClaimIterator *)self);
    Py_DECREF(ep);
    return claim;
}

/* __anext__(): the next claim is asked for now, whenever that is awaited, so the last claim ends now. */
static PyObject *iterator_anext(PyObject *self)
{
    Endpoint *ep = iterator_endpoint(self);
    nc_box *kicks = NULL;
    bool ok;
    if (ep == NULL) { /* the endpoint is gone, but an awaitable needs one */
        PyObject *module = PyType_GetModule(Py_TYPE(self));
        ep = module != NULL ? chan_lone_receiver(module) : NULL;
        return ep != NULL ? wait_new(&(Call){.op = &anext_past_end_op, .ep = ep}, -1) : NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(ep);
    ok = iterator_pass_on((ClaimIterator *)self, ep, &kicks);
    Py_END_CRITICAL_SECTION();
    line_deliver_any(ep->chan, kicks);
    if (ok)
        return wait_new(&(Call){.op = &anext_op, .ep = ep, .value = Py_NewRef(self), .n = 1, .least = 1, .share = 1},
                        -1);
    Py_DECREF(ep);
    return NULL;
}

static int iterator_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((ClaimIterator *)self)->ep);
    Py_VISIT(((ClaimIterator *)self)->last);
    return 0;
}

/* The iterator is unreachable or dropped: its `for` loop was left. */
static int iterator_clear(PyObject *self)
{
    Claim *last = ((ClaimIterator *)self)->last;
    ((ClaimIterator *)self)->last = NULL;
    if (last != NULL)
        claim_leave_behind(last);
    Py_XDECREF(last);
    return 0;
}

static void iterator_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    iterator_clear(self);
    Py_XDECREF(((ClaimIterator *)self)->ep);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot iterator_slots[] = {{Py_tp_dealloc, iterator_dealloc}, {Py_tp_traverse, iterator_traverse},
                                       {Py_tp_clear, iterator_clear},     {Py_tp_iter, PyObject_SelfIter},
                                       {Py_tp_iternext, iterator_next},   {Py_am_aiter, PyObject_SelfIter},
                                       {Py_am_anext, iterator_anext},     {0, NULL}};

static PyType_Spec iterator_spec = {.name = "nexus_channels._core.ClaimIterator",
                                    .basicsize = sizeof(ClaimIterator),
                                    .flags = CORE_TYPE_FLAGS,
                                    .slots = iterator_slots};

int claim_await_add_types(PyObject *module, core_state *st)
{
    st->claim_awaitable_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &claim_awaitable_spec, NULL);
    st->claim_iterator_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &iterator_spec, NULL);
    return st->claim_awaitable_type != NULL && st->claim_iterator_type != NULL ? 0 : -1;
}
