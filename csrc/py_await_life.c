/* py_await_life.c: how awaitables are made, kept to be used again, seen by the collector, and freed.  What they do
 * meanwhile is py_await.c's. */
#include "py_await_life.h"

#include "py_await.h"
#include "py_call.h"
#include "py_line.h"
#include "py_origin.h"

/* ---- spares ----------------------------------------------------------------------------------------- */

/* Most awaitables live for one step, so those that have ended are used again.  A spare is a live object that the
 * module's state owns, of its type and tracked by the collector, ended and without an endpoint.  Most become spares as
 * soon as they have ended, so that whoever awaited them drops a reference that is not the last; the others when they
 * are freed.  A spare that somebody else still has, or comes to have by gc.get_objects(), is not used again.  Spares
 * that gc.freeze() meets stay set aside. Such a spare is not collected if it later becomes part of a cycle and never
 * waits; there are at most NC_SPARES. */
static inline int spares_of(bool claims) { return claims ? SPARE_CLAIM_AWAITABLES : SPARE_AWAITABLES; }

/* A spare that nobody else has, not even weakly, or NULL. */
static inline Awaitable *awaitable_kept(core_state *st, bool claims)
{
    spares *s = &st->spare[spares_of(claims)];
    if (!NC_RECYCLES || s->n == 0)
        return NULL;
    Awaitable *aw = s->of[s->n - 1];
    if (Py_REFCNT(aw) != 1 || aw->weakrefs != NULL)
        return NULL;
    s->n--;
    return aw;
}

/* Make a spare of an awaitable that has ended and is being freed.  False if there are enough spares. */
static inline bool awaitable_keep(core_state *st, Awaitable *aw, bool claims)
{
    if (!spare_keep(st, spares_of(claims), aw))
        return false;
    Py_SET_REFCNT((PyObject *)aw, 1);
    return true;
}

/* ---- making one --------------------------------------------------------------------------------------- */

static step nothing_look(Call *Py_UNUSED(call), bool Py_UNUSED(called), PyObject **Py_UNUSED(out),
                         nc_box **Py_UNUSED(kicks))
{
    return STEP_READY;
}

const call_op nothing_op = {.name = "__aexit__", .qualname = "Sender.claim.__aexit__", .look = nothing_look};

/* As new, but without an endpoint. */
static void awaitable_reset(Awaitable *aw)
{
    aw->weakrefs = NULL;
    aw->call = (Call){.op = &nothing_op, .least = 1, .share = 1};
    aw->timeout = -1;
    aw->future = aw->timer = aw->origin = NULL;
    aw->sleeper = NULL;
    aw->state = DONE;
    aw->running = aw->expired = aw->requeue = aw->paused = aw->dirty = false;
    aw->trio = (delegate){0};
}

void awaitable_init(Awaitable *aw, core_state *st)
{
    aw->st = st;
    awaitable_reset(aw);
}

__attribute__((noinline)) static Awaitable *awaitable_make(core_state *st, PyTypeObject *type)
{
    Awaitable *aw = PyObject_GC_New(Awaitable, type);
    if (aw != NULL) {
        awaitable_init(aw, st);
        PyObject_GC_Track(aw);
    }
    return aw;
}

void wait_free_spares(core_state *st)
{
    for (int i = 0; i < PACE_TASKS; i++)
        Py_CLEAR(st->pace.of[i].alive);
    st->spares_most = 0; /* what is freed here is not kept again */
    for (int kind = SPARE_AWAITABLES; kind <= SPARE_SELECTS; kind++)
        for (PyObject *aw; (aw = spare_take(st, kind)) != NULL;)
            Py_DECREF(aw);
}

int wait_traverse_spares(core_state *st, visitproc visit, void *arg)
{
    for (int kind = SPARE_AWAITABLES; kind <= SPARE_SELECTS; kind++)
        for (unsigned i = 0; i < st->spare[kind].n; i++)
            Py_VISIT(st->spare[kind].of[i]);
    return 0;
}

/* A new one, as no spare is kept, or the next spare is in use by somebody; then let go of it, as it must not be used
 * again. */
__attribute__((noinline)) static Awaitable *awaitable_other(core_state *st, bool claims)
{
    Py_XDECREF(spare_take(st, spares_of(claims)));
    return awaitable_make(st, claims ? st->claim_awaitable_type : st->awaitable_type);
}

/* Hand out an awaitable that was just made, with its origin if that is asked for.  Takes over the reference; NULL with
 * an exception set.  Not inlined, as it is rare; and a tail call, so that its caller keeps nothing over it. */
__attribute__((noinline)) static PyObject *awaitable_with_origin(Awaitable *aw)
{
    trio_imported(aw->st); /* on 3.11, where modules have changed: takes note if trio is one of them */
    int depth = origin_depth(aw->st);
    if (depth <= 0)
        return (PyObject *)aw;
    aw->dirty = true;
    aw->origin = origin_here(depth);
    if (aw->origin != NULL)
        return (PyObject *)aw;
    aw->state = DONE; /* it was never handed out, so there is nothing to warn of */
    Py_DECREF(aw);
    return NULL;
}

/* The same, where nobody asks, and no module has been imported since. */
static inline PyObject *awaitable_new(Awaitable *aw)
{
    return origin_unasked(aw->st) && !trio_modules_changed(aw->st) ? (PyObject *)aw : awaitable_with_origin(aw);
}

PyObject *awaitable_hand_out(Awaitable *aw) { return awaitable_new(aw); }

PyObject *wait_new(const Call *call, double timeout)
{
    core_state *st = call->ep->chan->st;
    Awaitable *aw = awaitable_kept(st, call->op->claims);
    if (aw == NULL && (aw = awaitable_other(st, call->op->claims)) == NULL) {
        Call held = *call;
        call_clear(&held);
        Py_DECREF(call->ep);
        return NULL;
    }
    aw->call = *call;
    aw->timeout = timeout;
    aw->state = CREATED;
    aw->dirty = true;
    return awaitable_new(aw);
}

/* For a call that moves one item: only those fields are written that differ from a spare's. */
static inline PyObject *awaitable_begins(Awaitable *aw, const call_op *op, Endpoint *ep)
{
    aw->call.op = op;
    aw->call.ep = (Endpoint *)Py_NewRef(ep);
    aw->state = CREATED;
    return awaitable_new(aw);
}

static inline PyObject *awaitable_gives(Awaitable *aw, const call_op *op, Endpoint *ep, PyObject *value)
{
    aw->call.value = Py_NewRef(value);
    return awaitable_begins(aw, op, ep);
}

__attribute__((noinline)) static PyObject *wait_new_give_slowly(const call_op *op, Endpoint *ep, PyObject *value)
{
    Awaitable *aw = awaitable_other(ep->chan->st, false);
    return aw != NULL ? awaitable_gives(aw, op, ep, value) : NULL;
}

__attribute__((noinline)) static PyObject *wait_new_take_slowly(const call_op *op, Endpoint *ep)
{
    Awaitable *aw = awaitable_other(ep->chan->st, false);
    return aw != NULL ? awaitable_begins(aw, op, ep) : NULL;
}

PyObject *wait_new_give(const call_op *op, Endpoint *ep, PyObject *value)
{
    Awaitable *aw = awaitable_kept(ep->chan->st, false);
    return aw != NULL ? awaitable_gives(aw, op, ep, value) : wait_new_give_slowly(op, ep, value);
}

PyObject *wait_new_take(const call_op *op, Endpoint *ep)
{
    Awaitable *aw = awaitable_kept(ep->chan->st, false);
    return aw != NULL ? awaitable_begins(aw, op, ep) : wait_new_take_slowly(op, ep);
}

PyObject *wait_within(PyObject *awaitable, double timeout)
{
    Awaitable *aw = (Awaitable *)awaitable;
    if (aw != NULL)
        aw->timeout = timeout;
    return awaitable;
}

/* ---- the collector ------------------------------------------------------------------------------------ */

int awaitable_traverse(PyObject *self, visitproc visit, void *arg)
{
    Awaitable *aw = (Awaitable *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(aw->call.ep);
    Py_VISIT(aw->call.value);
    Py_VISIT(aw->call.entered);
    Py_VISIT(aw->call.source);
    Py_VISIT(aw->call.failure);
    Py_VISIT(aw->future);
    Py_VISIT(aw->timer);
    int stop = delegate_traverse(&aw->trio, visit, arg);
    if (stop != 0)
        return stop;
    return aw->sleeper != NULL ? line_traverse_sleeper(aw->sleeper, visit, arg) : 0;
}

/* The awaitable is unreachable: leave the line, which breaks the cycle through it.  Its timer is garbage as well. */
int awaitable_clear(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    Endpoint *ep = awaitable_endpoint(aw);
    nc_box *kicks = NULL;
    Py_CLEAR(aw->call.entered);
    delegate_clear(&aw->trio);
    if (ep == NULL)
        return 0;
    Py_BEGIN_CRITICAL_SECTION2(aw, awaitable_lock(aw, ep));
    awaitable_end(aw, &kicks);
    Py_END_CRITICAL_SECTION2();
    Py_CLEAR(aw->timer);
    awaitable_release(aw);
    line_deliver_any(ep->chan, kicks);
    Py_DECREF(ep);
    return 0;
}

/* Warn as for a coroutine: a forgotten `await` is a message that is not sent. */
void awaitable_finalize(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    PyObject *type, *value, *traceback, *name, *done = NULL;
    aw->dirty = true; /* the collector may have come here first */
    if (aw->state != CREATED || delegate_suspended(&aw->trio))
        return;
    PyErr_Fetch(&type, &value, &traceback);
    name = PyUnicode_FromString("warnings");
    PyObject *warnings = name != NULL ? PyImport_GetModule(name) : NULL; /* NULL while the interpreter goes down */
    if (warnings != NULL)
        done = PyObject_CallMethod(warnings, "_warn_unawaited_coroutine", "O", self);
    if (done == NULL && (warnings == NULL || PyErr_ExceptionMatches(PyExc_AttributeError))) {
        PyErr_Clear();
        if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited", aw->call.op->qualname) == 0)
            done = Py_NewRef(Py_None);
    }
    if (done == NULL)
        core_report_error(self);
    Py_XDECREF(done);
    Py_XDECREF(warnings);
    Py_XDECREF(name);
    PyErr_Restore(type, value, traceback);
}

/* ---- freeing ------------------------------------------------------------------------------------------ */

/* It is dropped while it waits: as if it had been closed. */
static void awaitable_drop_sleeper(Awaitable *aw)
{
    nc_box *kicks = NULL;
    Py_BEGIN_CRITICAL_SECTION(aw->call.ep);
    awaitable_end(aw, &kicks);
    Py_END_CRITICAL_SECTION();
    line_deliver_any(aw->call.ep->chan, kicks);
}

__attribute__((noinline)) static void awaitable_dealloc_slowly(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    PyTypeObject *type = Py_TYPE(aw);
    if (aw->state == CREATED && PyObject_CallFinalizerFromDealloc(self) < 0)
        return; /* it lives on: whoever was shown the warning has kept it */
    PyObject_GC_UnTrack(aw);
    Py_TRASHCAN_BEGIN(self,
                      awaitable_dealloc) /* what is to be sent may be such a call, of which the value may be ... */
    if (aw->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    if (aw->sleeper != NULL)
        awaitable_drop_sleeper(aw);
    Endpoint *ep = aw->call.ep;
    Py_XDECREF(aw->future);
    Py_XDECREF(aw->timer);
    Py_XDECREF(aw->origin);
    delegate_clear(&aw->trio);
    Py_XDECREF(aw->call.entered);
    call_clear(&aw->call);
    /* if its finaliser has run, it is not used again: the finaliser would not run a second time */
    if (!PyObject_GC_IsFinalized(self) && awaitable_keep(aw->st, aw, type == aw->st->claim_awaitable_type)) {
        awaitable_reset(aw);
        PyObject_GC_Track(aw);
    } else {
        PyObject_GC_Del(aw);
        Py_DECREF(type);
    }
    Py_XDECREF(ep); /* may be the last reference, and so free the module too */
    Py_TRASHCAN_END
}

void awaitable_dealloc(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    bool clean = !aw->dirty && aw->call.ep == NULL && aw->weakrefs == NULL; /* it has ended, and holds nothing */
    if (clean && awaitable_keep(aw->st, aw, false))
        aw->timeout = -1;
    else
        awaitable_dealloc_slowly(self);
}
