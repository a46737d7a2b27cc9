/* py_wait.c: how a call waits: its place in line, the awaitable that async calls return, and the loop that
 * blocking calls run.  Touches nc_gate.h; knows calls by their `look` alone, and loops by py_wake.c.
 *
 * A wake-up says "look again" and nothing else.  What a waiter was called for stays in the ring until its
 * own `look` takes it, so cancelling it at any moment loses nothing: it leaves the line, and the gate calls
 * the next.
 */
#include "py_core.h"

#include <math.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

/* ---- the line --------------------------------------------------------------------------------------- */

void gate_notify(chan_block *b, int side, nc_box **kicks)
{
    nc_gate *g = &b->gate[side];
    nc_gate_enter(g, core_generation());
    if (g->waiting > 0)
        nc_gate_call_all(g, block_have(b, side), kicks);
    nc_gate_exit(g);
}

int line_up(chan_block *b, int side, nc_waiter *w, uint64_t least, uint64_t share, bool requeue, nc_box **kicks)
{
    nc_gate *g = &b->gate[side];
    nc_gate_enter(g, core_generation());
    if (block_native(b) && !wake_reached(w->box)) {
        nc_gate_exit(g);
        return LINE_UNREACHED;
    }
    uint32_t state = nc_waiter_state_of(w);
    if (state != NC_OUTSIDE && (requeue || w->born != g->born)) {
        nc_gate_leave(g, w);
        state = NC_OUTSIDE;
    }
    if (state == NC_OUTSIDE) {
        w->least = least;
        w->share = share;
        nc_gate_enrol(g, w);
    } else if (state == NC_CALLED)
        nc_gate_rejoin(g, w);
    NC_STEP("line_up: enrolled, not looked again");
    uint64_t have = block_have(b, side); /* W3 */
    bool turn = nc_gate_my_turn(g, w, have);
    if (turn || g->waiting > 1) /* else it waits alone, in vain */
        nc_gate_call_all(g, have, kicks);
    nc_gate_exit(g);
    return turn || nc_waiter_state_of(w) == NC_CALLED ? LINE_TURN : LINE_SLEEP;
}

static int line_up_for(Call *call, nc_waiter *w, bool requeue, nc_box **kicks)
{
    return line_up(call->ep->chan->block, call->ep->side, w, call->least, call->share, requeue, kicks);
}

/* It is w's turn, but its endpoint is lent to a claim: sleep on until that ends.  Holding the endpoint. */
static void line_defer(Call *call, nc_waiter *w)
{
    nc_gate *g = &call->ep->chan->gate[call->ep->side];
    nc_gate_enter(g, core_generation());
    nc_gate_defer(w);
    nc_gate_exit(g);
    call->ep->deferred = true;
}

/* Was w put off, and not called again since?  Also under the gate's lock, as those who take others out of the line
 * may call it without the endpoint.  Holding that. */
static bool line_deferred(Call *call, nc_waiter *w)
{
    if (!call->ep->deferred)
        return false;
    nc_gate *g = &call->ep->chan->gate[call->ep->side];
    nc_gate_enter(g, core_generation());
    bool deferred = w->deferred;
    nc_gate_exit(g);
    return deferred;
}

/* About to sleep: not behind somebody who will never come. */
static void line_look_ahead(Chan *c, int side, nc_box **kicks)
{
    if (nc_gate_crowd(&c->gate[side]) >= 2 * NC_HEAD)
        line_reap(c, side, kicks);
}

void line_leave(Chan *c, int side, nc_waiter *w, nc_box **kicks)
{
    nc_gate *g = &c->gate[side];
    Endpoint *ep = w->owner;
    nc_gate_enter(g, core_generation());
    nc_gate_leave(g, w);
    if (ep->deferred && ep->claim == NULL)
        ep->deferred = nc_gate_resume(g, ep, kicks);
    if (g->waiting > 0)
        nc_gate_call_all(g, chan_have(c, side), kicks);
    nc_gate_exit(g);
}

static int visit_future(sleeper *sl, visitproc visit, void *arg)
{
    Py_VISIT(atomic_load_explicit(&sl->future, memory_order_relaxed)); /* with the GIL, or in a stopped world */
    return 0;
}

int wait_traverse_line(nc_gate *g, visitproc visit, void *arg)
{
    bool shared = !g->guarded && g->born == core_generation(); /* threads of Python stand still, native ones do not */
    int stop = 0;
    if (shared)
        nc_lock_enter(&g->lock);
    for (nc_waiter *w = g->first; w != NULL && stop == 0; w = w->next)
        if (container_of(w->box, wake_box, box)->is_loop)
            stop = visit_future(container_of(w, sleeper, waiter), visit, arg);
    if (shared)
        nc_lock_exit(&g->lock);
    return stop;
}

/* ---- awaitables: one step --------------------------------------------------------------------------- */

enum { CREATED, BEGUN, PARKED, DONE };
enum { STEP_SLEEP = STEP_BUSY + 1, STEP_PREPARE };

typedef struct Awaitable {
    PyObject_HEAD
    Call call;
    double timeout;               /* seconds; < 0: none */
    PyObject *future;             /* what the task waits on while PARKED */
    PyObject *timer;              /* asyncio.TimerHandle */
    sleeper *sleeper;             /* stands in line for it; from the first time that it has to wait */
    uint32_t state; /* CREATED until its first step begins: read alone there, right after it was written */
    bool expired; /* the timer went off */
    bool requeue; /* a part of it went: it goes to the end of the line */
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

/* Look, and line up while there is nothing.  `looked`: it has just looked in vain, and what came since is seen by
 * lining up, but for one thing.  Holding the awaitable and its endpoint. */
static int awaitable_advance(Awaitable *aw, bool looked, PyObject **out, nc_box **kicks)
{
    Call *call = &aw->call;
    for (;; looked = false) {
        uint32_t place = awaitable_place(aw);
        step s = STEP_BLOCKED;
        if (place != NC_WAITING && !(looked && place == NC_OUTSIDE && !call->ep->closed)) {
            s = call->op->look(call, place == NC_CALLED, out, kicks);
            if (s == STEP_READY || s == STEP_ERROR) {
                awaitable_end(aw, kicks);
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
    if (aw->state == CREATED)
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

/* Between two steps nothing but STEP_PREPARE keeps others out.  Holding the awaitable. */
static int awaitable_finish(Awaitable *aw, int s, PyObject **out)
{
    if (s == STEP_SLEEP)
        *out = Py_NewRef(aw->future);
    if (s != STEP_PREPARE)
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
    nc_box *box;
    PyObject *future = NULL, *get_loop, *loop = loop_here(st, aw->call.op->qualname, &box, &get_loop);
    if (loop == NULL)
        return NULL;
    if (*sl == NULL)
        awaitable_rejuvenate(aw);
    bool same = *sl == NULL || (*sl)->waiter.box == box;
    if (*sl != NULL || (*sl = sleeper_new(box, aw->call.ep)) == NULL)
        wake_box_unref(box);
    if (*sl == NULL)
        PyErr_NoMemory();
    else if (!same)
        PyErr_Format(PyExc_RuntimeError, "%s() was first awaited on another event loop", aw->call.op->qualname);
    else if (block_native(aw->call.ep->chan->block) && !loop_reach(st, loop, box, aw->call.op->qualname))
        ;
    else if (aw->timeout > 0 && aw->timer == NULL &&
             (aw->timer = loop_timer(st, loop, aw->timeout, (PyObject *)aw)) == NULL)
        ;
    else
        future = loop_future(st, loop, get_loop);
    Py_XDECREF(get_loop);
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

/* Let go of what an ended call need not keep.  Runs Python code; keeps the current exception. */
static void awaitable_release(core_state *st, Awaitable *aw)
{
    PyObject *timer, *future, *held, *type, *value, *traceback;
    Py_BEGIN_CRITICAL_SECTION(aw);
    timer = aw->timer;
    future = aw->future;
    held = aw->call.value;
    aw->timer = aw->future = aw->call.value = NULL;
    Py_END_CRITICAL_SECTION();
    if (timer == NULL && future == NULL && held == NULL)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    if (timer != NULL) {
        PyObject *done = PyObject_CallMethodNoArgs(timer, st->s_cancel);
        if (done == NULL)
            PyErr_WriteUnraisable(timer);
        Py_XDECREF(done);
        Py_DECREF(timer);
    }
    Py_XDECREF(future);
    Py_XDECREF(held);
    PyErr_Restore(type, value, traceback);
}

/* It is this thread's step, or done by it: prepare until it sleeps or is done, then let go of what is not needed any
 * more. */
static int awaitable_wait(Awaitable *aw, int s, PyObject **out, nc_box **kicks)
{
    Chan *c = aw->call.ep->chan;
    if (NC_RECYCLES) /* else nobody asks, and other threads might be at it */
        aw->worn = true;
    while (s == STEP_PREPARE) {
        settle_soon(c, *kicks);
        *kicks = NULL;
        s = awaitable_prepared(c->st, aw, out, kicks);
    }
    if (s == STEP_SLEEP)
        line_look_ahead(c, aw->call.ep->side, kicks);
    else
        awaitable_release(c->st, aw);
    return s;
}

/* One step: STEP_READY with the result, STEP_ERROR, or STEP_SLEEP with the future to wait on. */
static int awaitable_step(Awaitable *aw, PyObject **out)
{
    nc_box *kicks = NULL;
    PyObject *was = NULL;
    bool begun, bare;
    int s;
    *out = NULL;
    if (aw->call.ep == NULL) {
        raise_reused(aw);
        return STEP_ERROR;
    }
    Chan *c = aw->call.ep->chan;
    Py_BEGIN_CRITICAL_SECTION2(aw, aw->call.ep);
    s = awaitable_begin(aw, &was);
    aw->worn = true;
    begun = s != STEP_ERROR;
    if (s == STEP_READY)
        s = awaitable_finish(aw, awaitable_advance(aw, false, out, &kicks), out);
    bare = aw->call.value == NULL && aw->timer == NULL; /* here: others may end it as soon as it is let go */
    Py_END_CRITICAL_SECTION2();
    if (!begun)
        return STEP_ERROR;
    if (s == STEP_READY && was == NULL && bare) { /* at the first look */
        settle_soon(c, kicks);
        return s;
    }
    bool ours = s != STEP_BLOCKED || awaitable_woken_by_stranger(c->st, aw, was);
    if (ours)
        s = awaitable_wait(aw, s == STEP_BLOCKED ? STEP_PREPARE : s, out, &kicks);
    else
        s = STEP_ERROR;
    if (NC_RECYCLES && s == STEP_READY && aw->call.op->at_once != NULL && aw->call.value == NULL) {
        aw->worn = aw->expired = aw->call.late = false; /* one item, gone: that is all there was */
        aw->call.least = aw->call.share = 1;
    }
    Py_XDECREF(was);
    settle_soon(c, kicks);
    return s;
}

/* ---- awaitables: the type --------------------------------------------------------------------------- */

static const call_op nothing_op;

/* As new, but for its endpoint. */
static void awaitable_reset(Awaitable *aw)
{
    aw->call = (Call){.op = &nothing_op, .least = 1, .share = 1};
    aw->timeout = -1;
    aw->future = aw->timer = NULL;
    aw->sleeper = NULL;
    aw->state = DONE;
    aw->running = aw->expired = aw->requeue = aw->worn = false;
}

__attribute__((noinline)) static Awaitable *awaitable_make(PyTypeObject *type)
{
    Awaitable *aw = PyObject_GC_New(Awaitable, type);
    if (aw != NULL) {
        awaitable_reset(aw);
        PyObject_GC_Track(aw);
    }
    return aw;
}

/* Most awaitables live for one step, so those that ended are used again: a spare is a live object that the module's
 * state owns, still of its type and tracked by the collector, ended and without an endpoint.  The collector may show
 * it to a user like any other; then it is his. */
#if NC_RECYCLES
/* One that was kept, or NULL. */
static inline Awaitable *awaitable_kept(core_state *st, bool claims)
{
    unsigned n = st->spare[claims].n;
    PyObject *aw = n > 0 ? st->spare[claims].of[n - 1] : NULL;
    if (aw == NULL || Py_REFCNT(aw) != 1)
        return NULL;
    st->spare[claims].n = n - 1;
    return (Awaitable *)aw;
}

/* Let go of the last one kept if a user has got hold of it: it is not to be used again. */
static void awaitable_give_away(core_state *st, bool claims)
{
    if (st->spare[claims].n > 0)
        Py_DECREF(st->spare[claims].of[--st->spare[claims].n]);
}

/* Bring back to life what is being freed.  False if there are enough; else its endpoint is the caller's. */
static inline bool awaitable_keep(core_state *st, Awaitable *aw, bool claims)
{
    unsigned n = st->spare[claims].n;
    if (n == NC_SPARES)
        return false;
    aw->call.ep = NULL;
    aw->state = DONE;
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
static Awaitable *awaitable_other(core_state *st, bool claims)
{
    awaitable_give_away(st, claims);
    return awaitable_make(claims ? st->claim_awaitable_type : st->awaitable_type);
}

PyObject *wait_new(const Call *call, double timeout)
{
    core_state *st = call->ep->chan->st;
    Awaitable *aw = awaitable_kept(st, call->op->claims);
    if (aw == NULL && (aw = awaitable_other(st, call->op->claims)) == NULL) {
        Py_XDECREF(call->value);
        Py_DECREF(call->ep);
        return NULL;
    }
    aw->call = *call;
    aw->timeout = timeout;
    aw->state = CREATED;
    aw->worn = true;
    return (PyObject *)aw;
}

static inline PyObject *awaitable_one(Awaitable *aw, const call_op *op, Endpoint *ep, PyObject *value, double timeout)
{
    aw->call.op = op;
    aw->call.ep = (Endpoint *)Py_NewRef(ep);
    aw->call.value = Py_XNewRef(value);
    aw->timeout = timeout;
    aw->state = CREATED;
    return (PyObject *)aw;
}

__attribute__((noinline)) static PyObject *wait_new_one_slowly(const call_op *op, Endpoint *ep, PyObject *value,
                                                               double timeout)
{
    Awaitable *aw = awaitable_other(ep->chan->st, false);
    return aw != NULL ? awaitable_one(aw, op, ep, value, timeout) : NULL;
}

/* The same for a call that moves one item: what a spare has already is not written. */
PyObject *wait_new_one(const call_op *op, Endpoint *ep, PyObject *value, double timeout)
{
    Awaitable *aw = awaitable_kept(ep->chan->st, false);
    return aw != NULL ? awaitable_one(aw, op, ep, value, timeout) : wait_new_one_slowly(op, ep, value, timeout);
}

/* The first look of a new awaitable, with which most end: with a GIL nothing has to be held for it. */
static int awaitable_first_look(Awaitable *aw, PyObject **out)
{
    Chan *c = aw->call.ep->chan;
    nc_box *kicks = NULL;
    int s;
    aw->state = BEGUN;
    aw->running = true;
    *out = NULL;
    s = aw->call.op->look(&aw->call, false, out, &kicks);
    if (s == STEP_READY || s == STEP_ERROR) {
        aw->running = false;
        aw->state = DONE;
        if (aw->call.value != NULL)
            awaitable_release(c->st, aw);
    } else if (s == STEP_BLOCKED && aw->timeout != 0)
        s = awaitable_wait(aw, STEP_PREPARE, out, &kicks);
    else {
        aw->running = false;
        s = awaitable_step(aw, out);
    }
    settle_soon(c, kicks);
    return s;
}

static int awaitable_run(Awaitable *aw, PyObject **out)
{
    if (!NC_FREE_THREADED && aw->state == CREATED)
        return awaitable_first_look(aw, out);
    return awaitable_step(aw, out);
}

/* Who takes no GIL, a native thread, may have lined up since the other side's flag was looked at. */
__attribute__((noinline)) static PyObject *tell_native(Endpoint *ep, PyObject *result)
{
    int other = 1 - ep->side;
    bool asked = nc_gate_flag(&ep->chan->gate[other], memory_order_seq_cst) != 0; /* W2 */
    return asked ? call_tell(ep, other, result) : result;
}

/* The whole life of most awaitables: the result, a new reference, or NULL without an exception. */
static inline PyObject *awaitable_at_once(Awaitable *aw)
{
    PyObject *(*at_once)(Call *) = aw->call.op->at_once;
    if (NC_FREE_THREADED || aw->state != CREATED || at_once == NULL)
        return NULL;
    PyObject *result = at_once(&aw->call);
    if (result == NULL)
        return NULL;
    aw->state = DONE;
    return aw->call.ep->chan->log == NULL ? result : tell_native(aw->call.ep, result);
}

static int awaitable_state(PyObject *self)
{
    int state;
    Py_BEGIN_CRITICAL_SECTION(self);
    state = ((Awaitable *)self)->state;
    Py_END_CRITICAL_SECTION();
    return state;
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
        return PYGEN_NEXT;
    default:
        return PYGEN_ERROR;
    }
}

static PySendResult awaitable_am_send(PyObject *self, PyObject *arg, PyObject **out)
{
    if (arg == Py_None && (*out = awaitable_at_once((Awaitable *)self)) != NULL)
        return PYGEN_RETURN;
    return awaitable_am_send_slowly(self, arg, out);
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
    Endpoint *ep = ((Awaitable *)self)->call.ep;
    if (ep == NULL) {
        raise_reused((Awaitable *)self);
        return NULL;
    }
    core_state *st = ep->chan->st;
    PyObject *out;
    if (!stop_put_by(st))
        return NULL;
    if ((out = awaitable_at_once((Awaitable *)self)) != NULL) {
        if (out == Py_None)
            Py_DECREF(out);
        else
            hand_over(st, out);
        return NULL;
    }
    switch (awaitable_run((Awaitable *)self, &out)) {
    case STEP_SLEEP:
        return out;
    case STEP_READY:
        if (out != NULL) /* NULL without an exception stands for None */
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
    if (aw->call.ep == NULL)
        return true;
    Chan *c = aw->call.ep->chan;
    Py_BEGIN_CRITICAL_SECTION2(aw, aw->call.ep);
    running = aw->running;
    *was_done = aw->state == DONE;
    if (!running)
        awaitable_end(aw, &kicks);
    Py_END_CRITICAL_SECTION2();
    if (running) {
        PyErr_Format(PyExc_RuntimeError, "%s() is already being awaited", aw->call.op->qualname);
        return false;
    }
    awaitable_release(c->st, aw);
    settle_soon(c, kicks);
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
    if (future != NULL)
        resolve(aw->call.ep->chan->st, future);
    Py_XDECREF(future);
    Py_RETURN_NONE;
}

static PyObject *awaitable_repr(PyObject *self)
{
    static const char *const states[] = {"created", "running", "waiting", "done"};
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

static PyObject *awaitable_cr_frame(PyObject *Py_UNUSED(self), void *Py_UNUSED(ignored)) { Py_RETURN_NONE; }

static int awaitable_traverse(PyObject *self, visitproc visit, void *arg)
{
    Awaitable *aw = (Awaitable *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(aw->call.ep);
    Py_VISIT(aw->call.value);
    Py_VISIT(aw->call.entered);
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
    nc_box *kicks = NULL;
    if (aw->call.ep == NULL)
        return 0;
    Chan *c = aw->call.ep->chan;
    Py_BEGIN_CRITICAL_SECTION2(aw, aw->call.ep);
    awaitable_end(aw, &kicks);
    Py_END_CRITICAL_SECTION2();
    Py_CLEAR(aw->timer);
    awaitable_release(c->st, aw);
    settle_soon(c, kicks);
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

__attribute__((noinline)) static void awaitable_dealloc_slowly(Awaitable *aw)
{
    PyTypeObject *type = Py_TYPE(aw);
    Endpoint *ep = aw->call.ep;
    PyObject_GC_UnTrack(aw);
    if (aw->sleeper != NULL)
        awaitable_drop_sleeper(aw);
    Py_XDECREF(aw->future);
    Py_XDECREF(aw->timer);
    Py_XDECREF(aw->call.value);
    Py_XDECREF(aw->call.entered);
    if (ep != NULL && awaitable_keep(ep->chan->st, aw, type == ep->chan->st->claim_awaitable_type)) {
        awaitable_reset(aw);
        PyObject_GC_Track(aw);
        Py_DECREF(ep); /* may be the last, and take the module along */
        return;
    }
    PyObject_GC_Del(aw);
    Py_XDECREF(ep);
    Py_DECREF(type);
}

static void awaitable_dealloc(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    Endpoint *ep = aw->call.ep;
    if (!aw->worn && aw->call.value == NULL && ep != NULL && awaitable_keep(ep->chan->st, aw, false))
        Py_DECREF(ep); /* as below */
    else
        awaitable_dealloc_slowly(aw);
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
    if (aw->call.ep == NULL) {
        raise_reused(aw);
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(aw);
    entered = aw->call.entered;
    aw->call.entered = NULL;
    Py_END_CRITICAL_SECTION();
    bool ok = entered == NULL || claim_aexit(entered, n > 0 && args[0] != Py_None);
    Py_XDECREF(entered);
    return ok ? wait_new(&(Call){.op = &nothing_op, .ep = (Endpoint *)Py_NewRef(aw->call.ep)}, -1) : NULL;
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
    {"cr_frame", awaitable_cr_frame, NULL, NULL, NULL},     {NULL, NULL, NULL, NULL, NULL},
};

/* tp_iter, so that `yield from x.__await__()` works */
#define AWAITABLE_SLOTS                                                                                       \
    {Py_tp_dealloc, awaitable_dealloc}, {Py_tp_traverse, awaitable_traverse}, {Py_tp_clear, awaitable_clear}, \
        {Py_tp_repr, awaitable_repr}, {Py_am_await, PyObject_SelfIter}, {Py_tp_iter, PyObject_SelfIter},      \
        {Py_am_send, awaitable_am_send}, {Py_tp_iternext, awaitable_iternext},                                \
    {                                                                                                         \
        Py_tp_getset, awaitable_getset                                                                        \
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

/* ---- blocking --------------------------------------------------------------------------------------- */

static double monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A wait that took less than this would have been spun through, and is next time: falling asleep and waking up takes as
 * long.  So whoever waits seldom or long spends next to nothing on it. */
#define SPIN_WORTH 100e-6 /* seconds */
enum { SPIN_LEAST = 16, SPIN_MAIN = 32, SPIN_MOST = 4096 }; /* pauses; the most takes about as long */
enum { NAP = 1000 }; /* microseconds of the main thread's first sleep */
enum { LOOKS_EVERY = 24 }; /* pauses, in which whoever fills or empties a ring moves at least once */
enum { ENOUGH = 64, ENOUGH_BYTES = 4096 }; /* items, or bytes of messages, that are worth coming for without a GIL */

/* Alone on one processor there is nobody to wait for awake. */
static _Atomic unsigned spin_most = SPIN_MOST; /* relaxed: written when the module is made, always the same */

static bool in_main_thread(void)
{
#ifdef __linux__
    static _Thread_local uint32_t asked; /* in which generation this thread last asked: a fork makes it main */
    static _Thread_local bool main;
    if (asked != core_generation() + 1) {
        asked = core_generation() + 1;
        main = syscall(SYS_gettid) == getpid();
    }
    return main;
#else
    return pthread_main_np() != 0;
#endif
}

/* Called, and whoever called is likely to be still at it: stay awake a moment longer, as long as there is ever more.
 * With a GIL it holds that, and asking for it now means to sleep until it ends, which takes longer than filling or
 * emptying the ring.  Without, both would fight for each cache line, item by item; which is also why the ring is looked
 * at but now and then. */
static void parker_linger(chan_block *b, int side, unsigned most)
{
    uint64_t before = 0, now, enough = !NC_FREE_THREADED ? UINT64_MAX : b->log != NULL ? ENOUGH_BYTES : ENOUGH;
    unsigned spins = 0;
    while (spins < most && (now = block_filled(b, side)) != before && now < enough) {
        before = now;
        for (unsigned next = spins + LOOKS_EVERY; spins < next;)
            nc_relax(&spins);
    }
}

/* Until a kick, a signal or the deadline (< 0: none), at first awake; without the GIL.  `doze`: not for long, as if a
 * signal had come then.  *woken tells when that was, before the GIL had to be waited for. */
static PyLockStatus parker_sleep(parker *p, chan_block *b, int side, double deadline, unsigned spin, bool doze,
                                 double *woken)
{
    PyLockStatus slept = PY_LOCK_ACQUIRED;
    PY_TIMEOUT_T us = -1, nap = spin > SPIN_MAIN ? 0 : NAP; /* who was awake for long has given signals their time */
    if (deadline >= 0) {
        double left = deadline - monotonic();
        if (left <= 0)
            return PY_LOCK_FAILURE;
        us = left > 3600 ? (PY_TIMEOUT_T)3600000000 : (PY_TIMEOUT_T)ceil(left * 1e6); /* it is asked again */
    }
    unsigned spins = 0;
    Py_BEGIN_ALLOW_THREADS;
    while (spins < spin && !nc_post_waits(&p->waiter))
        nc_relax(&spins);
    bool posted = nc_post_waits(&p->waiter);
    if (!posted)
        slept = PyThread_acquire_lock_timed(p->lock, doze && (us < 0 || us > nap) ? nap : us, 1);
    if (doze && slept == PY_LOCK_FAILURE)
        slept = PY_LOCK_INTR;
    *woken = monotonic();
    if (posted)
        parker_linger(b, side, spin);
    Py_END_ALLOW_THREADS;
    return slept == PY_LOCK_FAILURE && us > 0 && deadline > monotonic() ? PY_LOCK_ACQUIRED : slept;
}

/* One round: look if it is our turn, line up if there was nothing.  *turn: look again at once.  Holding the
 * endpoint. */
static step park_look(Call *call, parker *p, PyObject **out, bool *turn, nc_box **kicks)
{
    step s = STEP_BLOCKED;
    parker_receive(p);
    uint32_t place = nc_waiter_state_of(&p->waiter);
    *turn = false;
    if (place == NC_CALLED && line_deferred(call, &p->waiter))
        s = STEP_BUSY;
    else if (place != NC_WAITING) /* before lining up too: the endpoint was let go of since the first look */
        s = call->op->look(call, place == NC_CALLED, out, kicks);
    if (s == STEP_READY || s == STEP_ERROR)
        return s;
    if (s == STEP_BUSY && place == NC_CALLED) {
        line_defer(call, &p->waiter);
        return STEP_BLOCKED;
    }
    if (p->base.born != core_generation())
        p->base.born = core_generation(); /* a signal handler has forked us */
    *turn = line_up_for(call, &p->waiter, s == STEP_PARTIAL, kicks) == LINE_TURN;
    return STEP_BLOCKED;
}

/* Sleep until called: STEP_BLOCKED, or STEP_ERROR when a signal handler raised or the time is up.  A signal that comes
 * between the last look for signals and the sleep is not heard before the next wake-up, as with CPython's own locks.
 * So the one thread that runs Python's signal handlers begins by a doze (*fresh), and looks for signals once more: what
 * came while it lined up is heard. */
static step park_sleep(Call *call, parker *p, double deadline, unsigned spin, bool *fresh, double *woken)
{
    Endpoint *ep = call->ep;
    bool main = in_main_thread(), doze = main && *fresh;
    if (spin > SPIN_MAIN && main && !doze)
        spin = SPIN_MAIN;
    *fresh = false;
    PyLockStatus slept = parker_sleep(p, ep->chan->block, ep->side, deadline, spin, doze, woken);
    if (slept == PY_LOCK_INTR && PyErr_CheckSignals() < 0)
        return STEP_ERROR;
    if (slept == PY_LOCK_FAILURE && !nc_post_waits(&p->waiter)) {
        call->op->timed_out(call);
        return STEP_ERROR;
    }
    return STEP_BLOCKED;
}

/* Having found nothing: line up and sleep until the call is done.  The result as in look. */
static step park(Call *call, double timeout, PyObject **out)
{
    Endpoint *ep = call->ep;
    Chan *c = ep->chan;
    double began = monotonic(), woken = began, deadline = timeout < 0 ? -1 : began + timeout;
    unsigned spin = atomic_load_explicit(&ep->spin, memory_order_relaxed); /* a hint: what suited the last one here */
    nc_box *kicks = NULL;
    bool turn, fresh = true;
    step s;
    parker *p = parker_new(ep);
    if (p == NULL) {
        PyErr_NoMemory();
        return STEP_ERROR;
    }
    call->late = true;
    do {
        Py_BEGIN_CRITICAL_SECTION(ep);
        s = park_look(call, p, out, &turn, &kicks);
        Py_END_CRITICAL_SECTION();
        if (s == STEP_BLOCKED && !turn)
            line_look_ahead(c, ep->side, &kicks);
        settle(c->st, c, kicks);
        kicks = NULL;
        if (s == STEP_BLOCKED && !turn)
            s = park_sleep(call, p, deadline, spin, &fresh, &woken);
    } while (s == STEP_BLOCKED);
    unsigned most = atomic_load_explicit(&spin_most, memory_order_relaxed);
    spin = woken - began < SPIN_WORTH ? most : spin / 2 > SPIN_LEAST ? spin / 2 : SPIN_LEAST;
    atomic_store_explicit(&ep->spin, spin, memory_order_relaxed);
    Py_BEGIN_CRITICAL_SECTION(ep);
    line_leave(c, ep->side, &p->waiter, &kicks);
    Py_END_CRITICAL_SECTION();
    wake_box_unref(&p->base.box);
    settle(c->st, c, kicks);
    return s;
}

step try_call(Call *call, PyObject **out)
{
    Endpoint *ep = call->ep;
    nc_box *kicks = NULL;
    step s;
    do {
        Py_BEGIN_CRITICAL_SECTION(ep);
        s = call->op->look(call, false, out, &kicks);
        Py_END_CRITICAL_SECTION();
    } while (s == STEP_BLOCKED && line_reap(ep->chan, ep->side, &kicks));
    settle_soon(ep->chan, kicks);
    return s;
}

PyObject *wait_blocking(Call *call, double timeout)
{
    PyObject *out = NULL;
    step s = try_call(call, &out);
    if (s == STEP_BLOCKED || s == STEP_PARTIAL) {
        if (timeout == 0) {
            call->op->timed_out(call);
            return NULL;
        }
        s = park(call, timeout, &out);
    }
    if (s == STEP_ERROR)
        return NULL;
    return out != NULL ? out : Py_NewRef(Py_None);
}

/* ---- module ----------------------------------------------------------------------------------------- */

int wait_add_types(PyObject *module, core_state *st)
{
    if (sysconf(_SC_NPROCESSORS_ONLN) == 1)
        atomic_store_explicit(&spin_most, SPIN_LEAST, memory_order_relaxed);
    st->awaitable_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &awaitable_spec, NULL);
    st->claim_awaitable_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &claim_awaitable_spec, NULL);
    return st->awaitable_type != NULL && st->claim_awaitable_type != NULL ? 0 : -1;
}
