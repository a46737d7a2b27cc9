/* py_wait.c: how a task waits: the awaitable that async calls return.  Touches nc_gate.h; knows calls by their `look`
 * alone, and loops by py_loop.h.
 *
 * A wake-up says "look again" and nothing else.  What a waiter was called for stays in the ring until its
 * own `look` takes it, so cancelling it at any moment loses nothing: it leaves the line, and the gate calls
 * the next.
 */
#include "py_line.h"
#include "py_loop.h"
#include "py_pace.h"

#include <frameobject.h>

/* ---- awaitables: one step --------------------------------------------------------------------------- */

enum { CREATED, PAUSED, BEGUN, PARKED, DONE };
enum { STEP_SLEEP = STEP_BUSY + 1, STEP_PREPARE, STEP_MORE, STEP_PAUSE };

typedef struct Awaitable {
    PyObject_HEAD
    core_state *st;               /* its type keeps it */
    PyObject *weakrefs;
    Call call;                    /* .ep is NULL once it has ended */
    double timeout;               /* seconds; < 0: none */
    PyObject *future;             /* what the task waits on while PARKED */
    PyObject *timer;              /* asyncio.TimerHandle */
    PyObject *origin;             /* where it was made, as a coroutine's cr_origin; NULL: nobody asked */
    sleeper *sleeper;             /* stands in line for it; from the first time that it has to wait */
    uint32_t state; /* CREATED until its first step begins: read alone there, right after it was written */
    bool expired; /* the timer went off */
    bool requeue; /* a part of it went: it goes to the end of the line */
    bool paused; /* it has yielded */
    bool worn; /* more than op, ep, value, timeout and state is not as awaitable_reset() leaves it */
    bool running; /* inside a step: Python code that it runs cannot step it again */
} Awaitable;

static void raise_reused(Awaitable *aw)
{
    PyErr_Format(PyExc_RuntimeError, "cannot reuse already awaited %s()", aw->call.op->qualname);
}

static uint32_t awaitable_place(Awaitable *aw)
{
    return aw->sleeper != NULL ? nc_waiter_state_of(&aw->sleeper->waiter) : NC_OUTSIDE;
}

static void awaitable_end(Awaitable *aw, nc_box **kicks)
{
    sleeper *sl = aw->sleeper;
    aw->state = DONE;
    if (sl == NULL)
        return;
    line_leave(sl->chan, sl->side, &sl->waiter, kicks);
    aw->sleeper = NULL;
    sleeper_leave(sl);
}

/* What it was called for is done, and there is more to do. */
static void awaitable_leave_line(Awaitable *aw, nc_box **kicks)
{
    sleeper *sl = aw->sleeper;
    if (sl != NULL)
        line_leave(sl->chan, sl->side, &sl->waiter, kicks);
    aw->requeue = false;
}

/* A batch whose source has not ended. */
/* Look, and line up while there is nothing.  `looked`: it has just looked in vain; anything published since is found by
 * lining up, only a close of the endpoint is not.  Holding the awaitable and its endpoint. */
static int awaitable_advance(Awaitable *aw, bool looked, PyObject **out, nc_box **kicks)
{
    Call *call = &aw->call;
    for (;; looked = false) {
        uint32_t place = awaitable_place(aw);
        step s = STEP_BLOCKED;
        if (place != NC_WAITING && !(looked && place == NC_OUTSIDE && !call->ep->closed)) {
            s = call->op->look(call, place == NC_CALLED, out, kicks);
            if (s == STEP_READY && has_more(call)) {
                awaitable_leave_line(aw, kicks);
                return STEP_MORE;
            }
            if (s == STEP_READY || s == STEP_ERROR) {
                awaitable_end(aw, kicks);
                if (s == STEP_READY && call->op->paced && (place == NC_CALLED || aw->paused))
                    pace_share(pace_of(aw->st), call->ep);
                return s;
            }
            aw->requeue |= s == STEP_PARTIAL;
        }
        if (aw->expired || aw->timeout == 0) {
            awaitable_end(aw, kicks);
            call->op->timed_out(call);
            return STEP_ERROR;
        }
        if (aw->future == NULL)
            return STEP_PREPARE;
        if (s == STEP_BUSY && place == NC_CALLED)
            line_defer(call, &aw->sleeper->waiter);
        else {
            int turn = line_up_for(call, &aw->sleeper->waiter, aw->requeue, kicks);
            if (turn == LINE_UNREACHED)
                return STEP_PREPARE;
            aw->requeue = false;
            if (turn == LINE_TURN)
                continue;
        }
        aw->state = PARKED;
        return STEP_SLEEP;
    }
}

/* The first thing a step does.  STEP_READY: go on; STEP_BLOCKED: nobody called it, so why does it run?
 * `was` is the future that it waited on so far, a new reference. */
static int awaitable_begin(Awaitable *aw, PyObject **was)
{
    if (aw->running) {
        PyErr_Format(PyExc_RuntimeError, "%s() is already being awaited", aw->call.op->qualname);
        return STEP_ERROR;
    }
    if (aw->state == DONE) {
        raise_reused(aw);
        return STEP_ERROR;
    }
    aw->running = true;
    if (aw->state == CREATED || aw->state == PAUSED)
        aw->state = BEGUN;
    if (aw->state == PARKED && !aw->expired &&
        (awaitable_place(aw) != NC_CALLED || line_deferred(&aw->call, &aw->sleeper->waiter))) {
        *was = Py_XNewRef(aw->future);
        return STEP_BLOCKED;
    }
    *was = aw->future;
    aw->future = NULL;
    return STEP_READY;
}

/* Between two steps nothing but STEP_PREPARE and STEP_MORE keeps others out.  Holding the awaitable. */
static int awaitable_finish(Awaitable *aw, int s, PyObject **out)
{
    if (s == STEP_SLEEP)
        *out = Py_NewRef(aw->future);
    if (s != STEP_PREPARE && s != STEP_MORE)
        aw->running = false;
    return s;
}

/* A spare may have grown old, or been frozen by gc.freeze(): what waits is to be collected with its task, as soon as
 * anything new. */
static void awaitable_rejuvenate(Awaitable *aw)
{
    if (NC_RECYCLES) {
        PyObject_GC_UnTrack(aw);
        PyObject_GC_Track(aw);
    }
}

/* Make what it takes to wait: its place in the loop's mailbox, its timer, and the future that the task will
 * wait on, a new reference.  Runs Python code; NULL with an exception set. */
static PyObject *awaitable_prepare(core_state *st, Awaitable *aw, sleeper **sl)
{
    PyObject *future = NULL, *mailbox, *loop = loop_here(st, aw->call.op->qualname, &mailbox);
    if (loop == NULL)
        return NULL;
    nc_box *box = mailbox_box(mailbox);
    if (*sl == NULL) {
        awaitable_rejuvenate(aw);
        *sl = sleeper_new(box, aw->call.ep);
    }
    if (*sl == NULL)
        PyErr_NoMemory();
    else if ((*sl)->waiter.box != box)
        PyErr_Format(PyExc_RuntimeError, "%s() was first awaited on another event loop", aw->call.op->qualname);
    else if (block_native(aw->call.ep->chan->block) && !loop_reach(st, loop, box, aw->call.op->qualname))
        ;
    else if (aw->timeout > 0 && aw->timer == NULL &&
             (aw->timer = loop_timer(st, loop, aw->timeout, (PyObject *)aw)) == NULL)
        ;
    else
        future = loop_future(st, loop, mailbox);
    Py_DECREF(mailbox);
    Py_DECREF(loop);
    return future;
}

/* Prepare, then look again or line up. */
static int awaitable_prepared(core_state *st, Awaitable *aw, PyObject **out, nc_box **kicks)
{
    sleeper *sl = aw->sleeper; /* ours while `running` */
    PyObject *future = awaitable_prepare(st, aw, &sl), *before = NULL;
    int s = STEP_ERROR;
    Py_BEGIN_CRITICAL_SECTION2(aw, aw->call.ep);
    aw->sleeper = sl;
    aw->call.late = true;
    if (future != NULL) {
        sleeper_set_future(sl, future);
        before = aw->future; /* it was prepared in vain, native code came between */
        aw->future = future;
        s = awaitable_advance(aw, true, out, kicks);
    } else
        awaitable_end(aw, kicks);
    s = awaitable_finish(aw, s, out);
    Py_END_CRITICAL_SECTION2();
    Py_XDECREF(before);
    return s;
}

/* A step of something that sleeps and that nobody called: was its future resolved by a stranger (then it
 * goes back to sleep), or does a second task await it? */
static bool awaitable_woken_by_stranger(core_state *st, Awaitable *aw, PyObject *future)
{
    PyObject *done = future != NULL ? PyObject_CallMethodNoArgs(future, st->s_done) : Py_NewRef(Py_False);
    int is = done != NULL ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    if (is == 0)
        PyErr_Format(PyExc_RuntimeError, "%s() is already being awaited by another task", aw->call.op->qualname);
    Py_BEGIN_CRITICAL_SECTION(aw);
    aw->running = is > 0;
    if (is > 0 && aw->future == future) {
        aw->future = NULL;
        Py_DECREF(future); /* not the last: the caller's */
    }
    Py_END_CRITICAL_SECTION();
    return is > 0;
}

/* Let the loop go round once, and then look: nothing has been sent or taken that is not told.  STEP_PAUSE with None for
 * the task. */
static int awaitable_pause(Awaitable *aw, PyObject **out)
{
    Py_BEGIN_CRITICAL_SECTION(aw);
    aw->state = PAUSED;
    aw->running = false;
    aw->paused = aw->worn = true;
    Py_END_CRITICAL_SECTION();
    *out = Py_NewRef(Py_None);
    return STEP_PAUSE;
}

/* What there was of a batch is sent: take more from its source, and send that. */
static int awaitable_more(Awaitable *aw, PyObject **out, nc_box **kicks)
{
    core_state *st = aw->st;
    if (pace_due(st)) /* `value` is sent, so it may be filled at the next step as well as now */
        return awaitable_pause(aw, out);
    int more = call_refill(&aw->call, pace_allowance(st)), s;
    if (more > 0)
        pace_of(st)->left -= (int)PyList_GET_SIZE(aw->call.value);
    Py_BEGIN_CRITICAL_SECTION2(aw, aw->call.ep);
    if (more > 0)
        s = awaitable_advance(aw, false, out, kicks);
    else {
        awaitable_end(aw, kicks);
        s = more < 0 ? STEP_ERROR : STEP_READY;
    }
    s = awaitable_finish(aw, s, out);
    Py_END_CRITICAL_SECTION2();
    return s;
}

/* Let go of what an ended call need not keep, its endpoint above all: whoever keeps the awaitable must not keep the
 * channel open.  But for `async with tx.claim(n)`, which goes on until the block is left.  Runs Python code; keeps the
 * current exception. */
static void awaitable_release(Awaitable *aw)
{
    PyObject *timer, *future, *type, *value, *traceback;
    Call held;
    Endpoint *ep = NULL;
    Py_BEGIN_CRITICAL_SECTION(aw);
    timer = aw->timer;
    future = aw->future;
    held = aw->call;
    aw->timer = aw->future = NULL;
    aw->call.value = aw->call.source = aw->call.failure = NULL;
    if (held.entered == NULL) {
        ep = held.ep;
        aw->call.ep = NULL;
    }
    Py_END_CRITICAL_SECTION();
    PyErr_Fetch(&type, &value, &traceback);
    if (timer != NULL) {
        PyObject *done = PyObject_CallMethodNoArgs(timer, aw->st->s_cancel);
        if (done == NULL)
            core_report_error(timer);
        Py_XDECREF(done);
        Py_DECREF(timer);
    }
    PyErr_Restore(type, value, traceback);
    if (type != NULL)
        call_chain_failure(&held);
    PyErr_Fetch(&type, &value, &traceback);
    Py_XDECREF(future);
    call_clear(&held);
    Py_XDECREF(ep);
    PyErr_Restore(type, value, traceback);
}

/* What a signal handler raised on the way is the call's own error as long as it has sent or taken nothing: it need not
 * wait for the next wake-up to come out. */
static int awaitable_interrupt(Awaitable *aw, PyObject **out, nc_box **kicks)
{
    if (!core_raise_postponed())
        return STEP_SLEEP;
    Py_BEGIN_CRITICAL_SECTION2(aw, aw->call.ep);
    awaitable_end(aw, kicks);
    Py_END_CRITICAL_SECTION2();
    Py_CLEAR(*out);
    return STEP_ERROR;
}

/* It is this thread's step, or done by it: prepare until it sleeps or is done, then let go of what is not needed any
 * more.  The caller holds a reference to the endpoint. */
static int awaitable_wait(Awaitable *aw, int s, PyObject **out, nc_box **kicks)
{
    Endpoint *ep = aw->call.ep;
    Chan *c = ep->chan;
    if (NC_RECYCLES) /* else nobody asks, and other threads might be at it */
        aw->worn = true;
    while (s == STEP_PREPARE || s == STEP_MORE) {
        settle_soon(c, *kicks);
        *kicks = NULL;
        s = s == STEP_MORE ? awaitable_more(aw, out, kicks) : awaitable_prepared(c->st, aw, out, kicks);
    }
    if (s == STEP_SLEEP) {
        pace_new_turn(pace_of(c->st));
        line_look_ahead(c, ep->side, kicks);
        s = awaitable_interrupt(aw, out, kicks);
    }
    if (s != STEP_SLEEP && s != STEP_PAUSE)
        awaitable_release(aw);
    return s;
}

/* Its endpoint, a new reference, or NULL once it has ended: another thread may end it at any time. */
static inline Endpoint *awaitable_endpoint(Awaitable *aw)
{
    Endpoint *ep;
    Py_BEGIN_CRITICAL_SECTION(aw);
    ep = (Endpoint *)Py_XNewRef(aw->call.ep);
    Py_END_CRITICAL_SECTION();
    return ep;
}

/* One step: STEP_READY with the result, STEP_ERROR, STEP_SLEEP with the future to wait on, or STEP_PAUSE. */
static int awaitable_step(Awaitable *aw, PyObject **out)
{
    nc_box *kicks = NULL;
    PyObject *was = NULL;
    bool begun;
    int s;
    *out = NULL;
    Endpoint *ep = awaitable_endpoint(aw);
    if (ep == NULL) {
        raise_reused(aw);
        return STEP_ERROR;
    }
    Chan *c = ep->chan;
    Py_BEGIN_CRITICAL_SECTION2(aw, ep);
    s = awaitable_begin(aw, &was);
    aw->worn = true;
    begun = s != STEP_ERROR;
    if (s == STEP_READY)
        s = awaitable_finish(aw,
                             has_more(&aw->call) && aw->call.n == PyList_GET_SIZE(aw->call.value)
                                 ? STEP_MORE
                                 : awaitable_advance(aw, false, out, &kicks),
                             out);
    Py_END_CRITICAL_SECTION2();
    if (!begun) {
        Py_DECREF(ep);
        return STEP_ERROR;
    }
    bool ours = s != STEP_BLOCKED || awaitable_woken_by_stranger(c->st, aw, was);
    if (ours)
        s = awaitable_wait(aw, s == STEP_BLOCKED ? STEP_PREPARE : s, out, &kicks);
    else
        s = STEP_ERROR;
    if (NC_RECYCLES && s == STEP_READY && aw->call.op->at_once != NULL && aw->origin == NULL) {
        aw->worn = aw->paused = aw->expired = aw->call.late = false; /* one item, gone: that is all there was */
        aw->call.least = aw->call.share = 1;
    }
    Py_XDECREF(was);
    settle_soon(c, kicks);
    Py_DECREF(ep);
    return s;
}

/* ---- awaitables: the type --------------------------------------------------------------------------- */

static const call_op nothing_op;

/* As new, but for its endpoint. */
static void awaitable_reset(Awaitable *aw)
{
    aw->weakrefs = NULL;
    aw->call = (Call){.op = &nothing_op, .least = 1, .share = 1};
    aw->timeout = -1;
    aw->future = aw->timer = aw->origin = NULL;
    aw->sleeper = NULL;
    aw->state = DONE;
    aw->running = aw->expired = aw->requeue = aw->paused = aw->worn = false;
}

static void awaitable_dealloc(PyObject *);

__attribute__((noinline)) static Awaitable *awaitable_make(core_state *st, PyTypeObject *type)
{
    Awaitable *aw = PyObject_GC_New(Awaitable, type);
    if (aw != NULL) {
        aw->st = st;
        awaitable_reset(aw);
        PyObject_GC_Track(aw);
    }
    return aw;
}

/* Most awaitables live for one step, so those that ended are used again: a spare is a live object that the module's
 * state owns, still of its type and tracked by the collector, ended and without an endpoint.  The collector may show
 * it to a user like any other; then it is his.  Spares that gc.freeze() meets stay set aside: such a one that is then
 * made part of a cycle and never waits is not collected, which comes to NC_SPARES of them at most. */
#if NC_RECYCLES
/* One that was kept, or NULL. */
static inline Awaitable *awaitable_kept(core_state *st, bool claims)
{
    unsigned n = st->spare[claims].n;
    if (n == 0 || Py_REFCNT(st->spare[claims].of[n - 1]) != 1)
        return NULL;
    st->spare[claims].n = n - 1;
    return (Awaitable *)st->spare[claims].of[n - 1];
}

/* Let go of the last one kept if a user has got hold of it: it is not to be used again. */
static void awaitable_give_away(core_state *st, bool claims)
{
    if (st->spare[claims].n > 0)
        Py_DECREF(st->spare[claims].of[--st->spare[claims].n]);
}

/* Bring back to life what is being freed, and has ended.  False if there are enough. */
static inline bool awaitable_keep(core_state *st, Awaitable *aw, bool claims)
{
    unsigned n = st->spare[claims].n;
    if (n >= st->spares_most)
        return false;
    Py_SET_REFCNT((PyObject *)aw, 1);
    st->spare[claims].of[n] = (PyObject *)aw;
    st->spare[claims].n = n + 1;
    return true;
}
#else
static Awaitable *awaitable_kept(core_state *Py_UNUSED(st), bool Py_UNUSED(claims)) { return NULL; }

static void awaitable_give_away(core_state *Py_UNUSED(st), bool Py_UNUSED(claims)) {}

static bool awaitable_keep(core_state *Py_UNUSED(st), Awaitable *Py_UNUSED(aw), bool Py_UNUSED(claims))
{
    return false;
}
#endif

void wait_free_spares(core_state *st)
{
    Py_XDECREF(atomic_exchange_explicit(&st->stop, NULL, memory_order_relaxed)); /* the last to know it */
    Py_CLEAR(st->pace.alive);
    st->spares_most = 0; /* what is freed here is not kept again */
    for (int claims = 0; claims < 2; claims++)
        while (st->spare[claims].n > 0)
            Py_DECREF(st->spare[claims].of[--st->spare[claims].n]);
}

int wait_traverse_spares(core_state *st, visitproc visit, void *arg)
{
    for (int claims = 0; claims < 2; claims++)
        for (unsigned i = 0; i < st->spare[claims].n; i++)
            Py_VISIT(st->spare[claims].of[i]);
    return 0;
}

/* A new one, where none is kept or the next is a user's. */
__attribute__((noinline)) static Awaitable *awaitable_other(core_state *st, bool claims)
{
    awaitable_give_away(st, claims);
    return awaitable_make(st, claims ? st->claim_awaitable_type : st->awaitable_type);
}

/* Where the running code is: ((file, line, function), ...), innermost first, as deep as the thread asks for; a new
 * reference, or NULL with an exception set. */
static PyObject *origin_here(int depth)
{
    PyFrameObject *frame = PyEval_GetFrame();
    PyObject *list = PyList_New(0);
    Py_XINCREF(frame);
    while (frame != NULL && list != NULL && PyList_GET_SIZE(list) < depth) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        PyObject *place = Py_BuildValue("(OiO)", code->co_filename, PyFrame_GetLineNumber(frame), code->co_name);
        if (place == NULL || PyList_Append(list, place) < 0)
            Py_CLEAR(list);
        Py_XDECREF(place);
        Py_DECREF(code);
        Py_SETREF(frame, PyFrame_GetBack(frame));
    }
    Py_XDECREF(frame);
    PyObject *origin = list != NULL ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return origin;
}

/* sys.set_coroutine_origin_tracking_depth() holds for us, too. */
static int origin_depth(core_state *st)
{
#if PY_VERSION_HEX >= 0x030D0000
    (void)st;
    return PyThreadState_GetUnchecked()->coroutine_origin_tracking_depth;
#else
    const PyThreadState *now = st->tstate != NULL ? *st->tstate : _PyThreadState_UncheckedGet();
    return now->coroutine_origin_tracking_depth;
#endif
}

/* True where it is known at once that nobody asks for it. */
static inline bool origin_unasked(core_state *st)
{
#if PY_VERSION_HEX >= 0x030C0000
    return origin_depth(st) <= 0;
#else
    return st->tstate != NULL && (*st->tstate)->coroutine_origin_tracking_depth <= 0;
#endif
}

/* Not inlined: rarely done, and at the very end, so that there is nothing to be kept over it. */
__attribute__((noinline)) static PyObject *awaitable_with_origin(Awaitable *aw)
{
    int depth = origin_depth(aw->st);
    if (depth <= 0)
        return (PyObject *)aw;
    aw->worn = true;
    aw->origin = origin_here(depth);
    if (aw->origin != NULL)
        return (PyObject *)aw;
    aw->state = DONE; /* it was never handed out */
    Py_DECREF(aw);
    return NULL;
}

/* It is made: hand it out. */
static inline PyObject *awaitable_new(Awaitable *aw)
{
    return origin_unasked(aw->st) ? (PyObject *)aw : awaitable_with_origin(aw);
}

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
    aw->worn = true;
    return awaitable_new(aw);
}

/* For a call that moves one item: what a spare has already is not written. */
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

/* At its first step: must it yield before it looks?  The look at the pace may start a collection, and with it Python
 * code that steps the same awaitable; with a GIL nothing else keeps it out meanwhile. */
static bool awaitable_must_pause(Awaitable *aw, Endpoint *ep)
{
    if (!aw->call.op->paced)
        return false;
    if (!NC_FREE_THREADED) {
        aw->state = BEGUN;
        aw->running = true;
    }
    bool must = pace_due(aw->st) && !pace_rivals_gone(ep);
    if (!NC_FREE_THREADED) {
        aw->state = CREATED;
        aw->running = false;
    }
    return must;
}

/* The first look of a new awaitable, with which most end: with a GIL nothing has to be held for it. */
static int awaitable_first_look(Awaitable *aw, PyObject **out)
{
    Endpoint *ep = (Endpoint *)Py_NewRef(aw->call.ep);
    Chan *c = ep->chan;
    nc_box *kicks = NULL;
    int s;
    *out = NULL;
    if (awaitable_must_pause(aw, ep)) {
        Py_DECREF(ep);
        return awaitable_pause(aw, out);
    }
    aw->state = BEGUN;
    aw->running = true;
    s = aw->call.op->look(&aw->call, false, out, &kicks);
    if (s == STEP_READY && has_more(&aw->call))
        s = awaitable_wait(aw, STEP_MORE, out, &kicks);
    else if (s == STEP_READY || s == STEP_ERROR) {
        aw->running = false;
        aw->state = DONE;
        aw->st->pace.left -= aw->call.op->at_once == NULL; /* else it was counted there */
        awaitable_release(aw);
    } else if (s == STEP_BLOCKED && aw->timeout != 0)
        s = awaitable_wait(aw, STEP_PREPARE, out, &kicks);
    else {
        aw->running = false;
        s = awaitable_step(aw, out);
    }
    settle_soon(c, kicks);
    Py_DECREF(ep);
    return s;
}

/* The same where nothing but critical sections keep others away. */
static int awaitable_first_step(Awaitable *aw, PyObject **out)
{
    Endpoint *ep = awaitable_endpoint(aw);
    bool pause = false;
    int s;
    *out = NULL;
    if (ep != NULL && awaitable_must_pause(aw, ep)) {
        Py_BEGIN_CRITICAL_SECTION(aw);
        pause = aw->state == CREATED && !aw->running;
        aw->running |= pause;
        Py_END_CRITICAL_SECTION();
    }
    if (pause)
        s = awaitable_pause(aw, out);
    else {
        s = awaitable_step(aw, out);
        pace_of(aw->st)->left -= s == STEP_READY;
    }
    Py_XDECREF(ep);
    return s;
}

static int awaitable_state(PyObject *self)
{
    int state;
    Py_BEGIN_CRITICAL_SECTION(self);
    state = ((Awaitable *)self)->state;
    Py_END_CRITICAL_SECTION();
    return state;
}

static int awaitable_run(Awaitable *aw, PyObject **out)
{
    if (awaitable_state((PyObject *)aw) == CREATED)
        return NC_FREE_THREADED ? awaitable_first_step(aw, out) : awaitable_first_look(aw, out);
    return awaitable_step(aw, out);
}

/* Who takes no GIL, a native thread, may have lined up since the other side's flag was looked at. */
__attribute__((noinline)) static void tell_native(Endpoint *ep)
{
    int other = 1 - ep->side;
    if (nc_gate_flag(&ep->chan->gate[other], memory_order_seq_cst) != 0) /* W2 */
        call_tell(ep, other, NULL);
}

/* The whole life of most awaitables: STEP_READY, or STEP_PAUSE where it has to yield first, else STEP_BLOCKED.  `out`
 * is written before the rest is done, so that there is little to keep in registers. */
static inline int awaitable_at_once(Awaitable *aw, PyObject **out)
{
    PyObject *(*at_once)(Call *) = aw->call.op->at_once;
    if (NC_FREE_THREADED || aw->state != CREATED || at_once == NULL)
        return STEP_BLOCKED;
    if (--aw->st->pace.left < 0 && awaitable_must_pause(aw, aw->call.ep))
        return awaitable_pause(aw, out);
    if ((*out = at_once(&aw->call)) == NULL)
        return STEP_BLOCKED;
    Endpoint *ep = aw->call.ep;
    aw->state = DONE;
    aw->call.ep = NULL;
    if (ep->chan->log != NULL)
        tell_native(ep);
    Py_DECREF(ep);
    return STEP_READY;
}

__attribute__((noinline)) static PySendResult awaitable_am_send_slowly(PyObject *self, PyObject *arg, PyObject **out)
{
    if (arg != Py_None && arg != NULL && awaitable_state(self) == CREATED) {
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    switch (awaitable_run((Awaitable *)self, out)) {
    case STEP_READY:
        if (*out == NULL)
            *out = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    case STEP_SLEEP:
    case STEP_PAUSE:
        return PYGEN_NEXT;
    default:
        return PYGEN_ERROR;
    }
}

static PySendResult awaitable_am_send(PyObject *self, PyObject *arg, PyObject **out)
{
    if (arg != Py_None)
        return awaitable_am_send_slowly(self, arg, out);
    switch (awaitable_at_once((Awaitable *)self, out)) {
    case STEP_READY:
        return PYGEN_RETURN;
    case STEP_PAUSE:
        return PYGEN_NEXT;
    default:
        return awaitable_am_send_slowly(self, Py_None, out);
    }
}

/* Raise StopIteration(value), which may be a tuple or an exception itself.  Steals value. */
static void raise_stop_iteration(PyObject *value)
{
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    Py_DECREF(value);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
}

#if PY_VERSION_HEX >= 0x030C0000
static PyObject *stop_new(void)
{
    PyTypeObject *type = (PyTypeObject *)PyExc_StopIteration;
    PyObject *none = PyTuple_New(0), *stop = none != NULL ? type->tp_new(type, none, NULL) : NULL;
    Py_XDECREF(none);
    return stop;
}

/* A result that was taken must not be lost because there is no memory for the StopIteration that it travels
 * in: so one is put by beforehand.  False with MemoryError set, and nothing was taken. */
static bool stop_put_by(core_state *st)
{
    if (atomic_load_explicit(&st->stop, memory_order_relaxed) != NULL)
        return true;
    PyObject *stop = stop_new(), *none = NULL;
    if (stop == NULL)
        return false;
    if (!atomic_compare_exchange_strong_explicit(&st->stop, &none, stop, memory_order_acq_rel, memory_order_relaxed))
        Py_DECREF(stop); /* another thread was quicker */
    return true;
}

/* The one put by, with `value`, which it steals; NULL with MemoryError set in the end. */
static PyObject *stop_in_need(core_state *st, PyObject *value)
{
    PyObject *stop = atomic_exchange_explicit(&st->stop, NULL, memory_order_acq_rel);
    if (stop == NULL) { /* several threads in need at once */
        Py_DECREF(value);
        return NULL;
    }
    PyErr_Clear();
    Py_XSETREF(((PyStopIterationObject *)stop)->value, value);
    return stop;
}

/* The same for `await`, which looks at .value alone: no tuple of arguments, no normalisation.  This is how
 * every result travels from 3.12 on, where only true coroutines are sent to. */
static void hand_over(core_state *st, PyObject *value)
{
    PyObject *stop = stop_new();
    if (stop != NULL)
        Py_XSETREF(((PyStopIterationObject *)stop)->value, value);
    else if ((stop = stop_in_need(st, value)) == NULL)
        return;
    PyErr_SetRaisedException(stop);
}
#else
static bool stop_put_by(core_state *Py_UNUSED(st)) { return true; }

static void hand_over(core_state *Py_UNUSED(st), PyObject *value) { raise_stop_iteration(value); }
#endif

static PyObject *awaitable_iternext(PyObject *self)
{
    core_state *st = ((Awaitable *)self)->st;
    PyObject *out;
    if (!stop_put_by(st))
        return NULL;
    int s = awaitable_at_once((Awaitable *)self, &out);
    if (s == STEP_BLOCKED)
        s = awaitable_run((Awaitable *)self, &out);
    switch (s) {
    case STEP_SLEEP:
    case STEP_PAUSE:
        return out;
    case STEP_READY:
        if (out == Py_None) /* NULL without an exception stands for None */
            Py_CLEAR(out);
        if (out != NULL)
            hand_over(st, out);
        return NULL;
    default:
        return NULL;
    }
}

static PyObject *awaitable_send(PyObject *self, PyObject *arg)
{
    PyObject *out;
    switch (awaitable_am_send(self, arg, &out)) {
    case PYGEN_NEXT:
        return out;
    case PYGEN_RETURN:
        raise_stop_iteration(out);
        return NULL;
    default:
        return NULL;
    }
}

/* End it before its time, unless it has ended; false with an exception set if it cannot be. */
static bool awaitable_abort(Awaitable *aw, bool *was_done)
{
    nc_box *kicks = NULL;
    bool running;
    *was_done = true;
    Endpoint *ep = awaitable_endpoint(aw);
    if (ep == NULL)
        return true;
    Py_BEGIN_CRITICAL_SECTION2(aw, ep);
    running = aw->running;
    *was_done = aw->state == DONE;
    if (!running)
        awaitable_end(aw, &kicks);
    Py_END_CRITICAL_SECTION2();
    if (running) {
        PyErr_Format(PyExc_RuntimeError, "%s() is already being awaited", aw->call.op->qualname);
        Py_DECREF(ep);
        return false;
    }
    awaitable_release(aw);
    settle_soon(ep->chan, kicks);
    Py_DECREF(ep);
    return true;
}

/* throw(exception), or the older throw(type[, value[, traceback]]). */
static PyObject *awaitable_throw(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Awaitable *aw = (Awaitable *)self;
    if (n < 1 || n > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes 1 to 3 arguments");
        return NULL;
    }
    PyObject *type = args[0], *value = n > 1 ? args[1] : NULL, *traceback = n > 2 ? args[2] : NULL;
    if (traceback == Py_None)
        traceback = NULL;
    if (PyExceptionInstance_Check(type)) {
        value = type;
        type = (PyObject *)Py_TYPE(type);
        if (traceback == NULL)
            traceback = PyException_GetTraceback(value);
        else
            Py_INCREF(traceback);
    } else if (PyExceptionClass_Check(type) && (traceback == NULL || PyTraceBack_Check(traceback)))
        Py_XINCREF(traceback);
    else {
        PyErr_Format(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException, not %.200s",
                     Py_TYPE(type)->tp_name);
        return NULL;
    }
    bool was_done;
    if (!awaitable_abort(aw, &was_done) || was_done) {
        Py_XDECREF(traceback);
        if (was_done)
            raise_reused(aw);
        return NULL;
    }
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), traceback);
    return NULL;
}

static PyObject *awaitable_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    bool was_done;
    if (!awaitable_abort((Awaitable *)self, &was_done))
        return NULL;
    Py_RETURN_NONE;
}

/* The timer went off: wake the task, which will look a last time if it was called meanwhile. */
static PyObject *awaitable_expire(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Awaitable *aw = (Awaitable *)self;
    PyObject *future;
    Py_BEGIN_CRITICAL_SECTION(aw);
    if (aw->state != DONE)
        aw->expired = aw->worn = true;
    future = Py_XNewRef(aw->future);
    Py_END_CRITICAL_SECTION();
    if (future != NULL && !loop_wake(aw->st, future)) {
        nc_box *kicks = NULL;
        Py_BEGIN_CRITICAL_SECTION(aw);
        if (aw->sleeper != NULL)
            nc_box_post(&aw->sleeper->waiter, &kicks);
        Py_END_CRITICAL_SECTION();
        settle(aw->st, NULL, kicks);
    }
    Py_XDECREF(future);
    Py_RETURN_NONE;
}

static PyObject *awaitable_repr(PyObject *self)
{
    static const char *const states[] = {
        [CREATED] = "created", [PAUSED] = "waiting", [BEGUN] = "running", [PARKED] = "waiting", [DONE] = "done"};
    Awaitable *aw = (Awaitable *)self;
    return PyUnicode_FromFormat("<%s() %s at %p>", aw->call.op->qualname, states[awaitable_state(self)], self);
}

static PyObject *awaitable_name(PyObject *self, void *qualified)
{
    const call_op *op = ((Awaitable *)self)->call.op;
    return PyUnicode_FromString(qualified ? op->qualname : op->name);
}

static PyObject *awaitable_cr_running(PyObject *self, void *Py_UNUSED(ignored))
{
    bool running;
    Py_BEGIN_CRITICAL_SECTION(self);
    running = ((Awaitable *)self)->running;
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(running);
}

static PyObject *awaitable_cr_await(PyObject *self, void *Py_UNUSED(ignored))
{
    PyObject *future;
    Py_BEGIN_CRITICAL_SECTION(self);
    future = Py_NewRef(((Awaitable *)self)->future != NULL ? ((Awaitable *)self)->future : Py_None);
    Py_END_CRITICAL_SECTION();
    return future;
}

static PyObject *awaitable_cr_suspended(PyObject *self, void *Py_UNUSED(ignored))
{
    bool suspended;
    Py_BEGIN_CRITICAL_SECTION(self);
    Awaitable *aw = (Awaitable *)self;
    suspended = !aw->running && (aw->state == PAUSED || aw->state == PARKED);
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(suspended);
}

/* What inspect.getcoroutinestate() tells a coroutine by that was not started.  It has no frame of its own: this one
 * shows its name. */
static PyObject *awaitable_cr_frame(PyObject *self, void *Py_UNUSED(ignored))
{
    if (awaitable_state(self) == DONE)
        Py_RETURN_NONE;
    PyCodeObject *code = PyCode_NewEmpty("nexus_channels", ((Awaitable *)self)->call.op->name, 1);
    PyObject *globals = code != NULL ? PyDict_New() : NULL, *frame = NULL;
    if (globals != NULL)
        frame = (PyObject *)PyFrame_New(PyThreadState_Get(), code, globals, NULL);
    Py_XDECREF(code);
    Py_XDECREF(globals);
    return frame;
}

static PyObject *awaitable_cr_origin(PyObject *self, void *Py_UNUSED(ignored))
{
    PyObject *origin = ((Awaitable *)self)->origin; /* from the start */
    return Py_NewRef(origin != NULL ? origin : Py_None);
}

static int awaitable_traverse(PyObject *self, visitproc visit, void *arg)
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
    if (aw->sleeper != NULL) {
        Py_VISIT(aw->sleeper->chan);
        if (nc_waiter_state_of(&aw->sleeper->waiter) == NC_OUTSIDE) /* else its future is the line's to visit */
            Py_VISIT(atomic_load_explicit(&aw->sleeper->future, memory_order_relaxed));
    }
    return 0;
}

/* Unreachable: leave the line, which breaks the cycle through it.  The timer, if any, is garbage as well. */
static int awaitable_clear(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    Endpoint *ep = awaitable_endpoint(aw);
    nc_box *kicks = NULL;
    Py_CLEAR(aw->call.entered);
    if (ep == NULL)
        return 0;
    Py_BEGIN_CRITICAL_SECTION2(aw, ep);
    awaitable_end(aw, &kicks);
    Py_END_CRITICAL_SECTION2();
    Py_CLEAR(aw->timer);
    awaitable_release(aw);
    settle_soon(ep->chan, kicks);
    Py_DECREF(ep);
    return 0;
}

/* Dropped while it waits: as if it had been closed. */
static void awaitable_drop_sleeper(Awaitable *aw)
{
    nc_box *kicks = NULL;
    Py_BEGIN_CRITICAL_SECTION(aw->call.ep);
    awaitable_end(aw, &kicks);
    Py_END_CRITICAL_SECTION();
    settle_soon(aw->call.ep->chan, kicks);
}

/* Warn as of a coroutine: a forgotten `await` is a message that is not sent. */
static void awaitable_finalize(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    PyObject *type, *value, *traceback, *name, *done = NULL;
    aw->worn = true; /* the collector may have come here first */
    if (aw->state != CREATED)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    name = PyUnicode_FromString("warnings");
    PyObject *warnings = name != NULL ? PyImport_GetModule(name) : NULL; /* not while the interpreter goes down */
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

__attribute__((noinline)) static void awaitable_dealloc_slowly(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    PyTypeObject *type = Py_TYPE(aw);
    if (aw->state == CREATED && PyObject_CallFinalizerFromDealloc(self) < 0)
        return; /* whoever hears of the warning may keep it */
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
    Py_XDECREF(aw->call.entered);
    call_clear(&aw->call);
    /* one that had its finaliser run is not used again: it would not have it run once more */
    if (!PyObject_GC_IsFinalized(self) && awaitable_keep(aw->st, aw, type == aw->st->claim_awaitable_type)) {
        awaitable_reset(aw);
        PyObject_GC_Track(aw);
    } else {
        PyObject_GC_Del(aw);
        Py_DECREF(type);
    }
    Py_XDECREF(ep); /* may be the last, and take the module along */
    Py_TRASHCAN_END
}

static void awaitable_dealloc(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    bool plain = !aw->worn && aw->call.ep == NULL && aw->weakrefs == NULL; /* then it has ended, and holds nothing */
    if (plain && awaitable_keep(aw->st, aw, false))
        aw->timeout = -1;
    else
        awaitable_dealloc_slowly(self);
}

/* async with tx.claim(n) as view: awaiting it enters the claim */
static PyObject *awaitable_aenter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Awaitable *aw = (Awaitable *)self;
    bool fresh;
    Py_BEGIN_CRITICAL_SECTION(aw);
    fresh = aw->state == CREATED;
    if (fresh)
        claim_aenter(&aw->call);
    Py_END_CRITICAL_SECTION();
    if (fresh)
        return Py_NewRef(self);
    raise_reused(aw);
    return NULL;
}

static step nothing_look(Call *Py_UNUSED(call), bool Py_UNUSED(called), PyObject **Py_UNUSED(out),
                         nc_box **Py_UNUSED(kicks))
{
    return STEP_READY;
}

static const call_op nothing_op = {.name = "__aexit__", .qualname = "Sender.claim.__aexit__", .look = nothing_look};

/* and leaving it commits or aborts, at once; there is nothing left to wait for */
static PyObject *awaitable_aexit(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Awaitable *aw = (Awaitable *)self;
    PyObject *entered;
    Endpoint *ep = awaitable_endpoint(aw);
    if (ep == NULL) {
        raise_reused(aw);
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(aw);
    entered = aw->call.entered;
    aw->call.entered = NULL;
    Py_END_CRITICAL_SECTION();
    bool ok = entered == NULL || claim_aexit(entered, n > 0 && args[0] != Py_None);
    Py_XDECREF(entered);
    PyObject *nothing = ok ? wait_new(&(Call){.op = &nothing_op, .ep = (Endpoint *)Py_NewRef(ep)}, -1) : NULL;
    if (awaitable_state(self) == DONE)
        awaitable_release(aw);
    Py_DECREF(ep);
    return nothing;
}

#define AWAITABLE_METHODS                                                                          \
    {"send", awaitable_send, METH_O, NULL}, {"throw", FAST(awaitable_throw), METH_FASTCALL, NULL}, \
        {"close", awaitable_close, METH_NOARGS, NULL},                                             \
    {                                                                                              \
        "_expire", awaitable_expire, METH_NOARGS, NULL                                             \
    }

static PyMethodDef awaitable_methods[] = {AWAITABLE_METHODS, END_OF_METHODS};
static PyMethodDef claim_awaitable_methods[] = {AWAITABLE_METHODS,
                                                {"__aenter__", awaitable_aenter, METH_NOARGS, NULL},
                                                {"__aexit__", FAST(awaitable_aexit), METH_FASTCALL, NULL},
                                                END_OF_METHODS};

static PyGetSetDef awaitable_getset[] = {
    {"__name__", awaitable_name, NULL, NULL, NULL},         {"__qualname__", awaitable_name, NULL, NULL, (void *)1},
    {"cr_running", awaitable_cr_running, NULL, NULL, NULL}, {"cr_await", awaitable_cr_await, NULL, NULL, NULL},
    {"cr_frame", awaitable_cr_frame, NULL, NULL, NULL},     {"cr_suspended", awaitable_cr_suspended, NULL, NULL, NULL},
    {"cr_origin", awaitable_cr_origin, NULL, NULL, NULL},   {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef awaitable_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Awaitable, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* tp_iter, so that `yield from x.__await__()` works */
#define AWAITABLE_SLOTS                                                                                              \
    {Py_tp_dealloc, awaitable_dealloc}, {Py_tp_traverse, awaitable_traverse}, {Py_tp_clear, awaitable_clear},        \
        {Py_tp_repr, awaitable_repr}, {Py_am_await, PyObject_SelfIter}, {Py_tp_iter, PyObject_SelfIter},             \
        {Py_am_send, awaitable_am_send}, {Py_tp_iternext, awaitable_iternext}, {Py_tp_finalize, awaitable_finalize}, \
        {Py_tp_members, awaitable_members},                                                                          \
    {                                                                                                                \
        Py_tp_getset, awaitable_getset                                                                               \
    }

static PyType_Slot awaitable_slots[] = {AWAITABLE_SLOTS, {Py_tp_methods, awaitable_methods}, {0, NULL}};

static PyType_Spec awaitable_spec = {
    .name = "nexus_channels._core.Awaitable",
    .basicsize = sizeof(Awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = awaitable_slots,
};

static PyType_Slot claim_awaitable_slots[] = {AWAITABLE_SLOTS, {Py_tp_methods, claim_awaitable_methods}, {0, NULL}};

static PyType_Spec claim_awaitable_spec = {
    .name = "nexus_channels._core.ClaimAwaitable",
    .basicsize = sizeof(Awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = claim_awaitable_slots,
};

/* ---- module ----------------------------------------------------------------------------------------- */

int wait_add_types(PyObject *module, core_state *st)
{
    st->spares_most = NC_SPARES;
    st->tstate = inside_tstate();
    park_init();
    st->awaitable_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &awaitable_spec, NULL);
    st->claim_awaitable_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &claim_awaitable_spec, NULL);
    return st->awaitable_type != NULL && st->claim_awaitable_type != NULL ? 0 : -1;
}
