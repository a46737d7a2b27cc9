/* py_await.c: how a task waits: the steps of the awaitable that async calls return.  Touches nc_chan.h; knows calls
 * only by their `look`, and loops by py_loop.h.
 *
 * A wake-up says "look again" and nothing else.  What a waiter was called for stays in the ring until its
 * own `look` takes it.  So cancelling a waiter at any moment loses nothing: the waiter leaves the line, and
 * the gate calls the next.
 */
#include "py_await.h"
#include "py_call.h"
#include "py_line.h"
#include "py_loop.h"
#include "py_pace.h"
#include "py_reach.h"
#include "py_stop.h"
#include "py_watch.h"

/* ---- one step --------------------------------------------------------------------------- */

static inline const many_lines *lines_of(Awaitable *aw) { return aw->call.op->lines; }

static uint32_t awaitable_place(Awaitable *aw)
{
    if (lines_of(aw) != NULL)
        return lines_of(aw)->place(aw);
    return aw->sleeper != NULL ? nc_waiter_state_of(&aw->sleeper->waiter) : NC_OUTSIDE;
}

void awaitable_raise_other_loop(Awaitable *aw)
{
    PyErr_Format(PyExc_RuntimeError, "%s() was first awaited on another event loop", aw->call.op->qualname);
}

void awaitable_raise_reused(Awaitable *aw)
{
    PyErr_Format(PyExc_RuntimeError, "cannot reuse already awaited %s()", aw->call.op->qualname);
}

void awaitable_end(Awaitable *aw, nc_box **kicks)
{
    sleeper *sl = aw->sleeper;
    aw->state = DONE;
    if (lines_of(aw) != NULL)
        lines_of(aw)->leave(aw, kicks);
    if (sl == NULL)
        return;
    line_leave(sl->chan, sl->side, &sl->waiter, kicks);
    aw->sleeper = NULL;
    sleeper_leave(sl);
}

/* A part of the call is done, and more is to be done: leave the line in between. */
static void awaitable_leave_line(Awaitable *aw, nc_box **kicks)
{
    sleeper *sl = aw->sleeper;
    if (sl != NULL)
        line_leave(sl->chan, sl->side, &sl->waiter, kicks);
    aw->requeue = false;
}

/* Take waiters that will never run out of the lines; true if there were any. */
static bool awaitable_reap(Awaitable *aw, nc_box **kicks)
{
    if (lines_of(aw) != NULL)
        return lines_of(aw)->reap(aw, kicks);
    return line_reap(aw->call.ep->chan, aw->call.ep->side, kicks);
}

/* After a look in vain: line up, or stay in line.  `busy`: it is its turn, but the endpoint is lent. */
static nc_place awaitable_line_up(Awaitable *aw, bool busy, nc_box **kicks)
{
    if (lines_of(aw) != NULL)
        return lines_of(aw)->line_up(aw, kicks);
    if (busy) {
        line_defer(&aw->call, &aw->sleeper->waiter);
        return NC_SLEEP;
    }
    nc_place now = line_up(&aw->call, &aw->sleeper->waiter, aw->requeue, kicks);
    aw->requeue &= now == NC_UNREACHED;
    return now;
}

/* Pauses, one or two microseconds: less than it takes to wake the loop.  And waits: an answer that came so soon is
 * likely to come as soon again. */
enum { STAYS_AWAKE = 64, BRISK_MOST = 16, BRISK_REST = 32 };

/* The other side is another process, which may move a message any time: does it within a moment, as it did lately? */
static bool awaitable_stays_awake(Endpoint *ep)
{
    nc_chan *b = ep->chan->block;
    int brisk = atomic_load_explicit(&ep->brisk, memory_order_relaxed); /* a hint, as the next two */
    if (b->lanes == NULL || nc_gate_crowd(&b->gate[ep->side]) >= NC_WAITER)
        return false;
    if (brisk < 0) {
        atomic_store_explicit(&ep->brisk, (int8_t)(brisk + 1), memory_order_relaxed); /* a hint */
        return false;
    }
    bool moved = reach_spin_natively(b, STAYS_AWAKE);
    brisk = moved ? BRISK_MOST : brisk > 0 ? brisk - 1 : -BRISK_REST;
    atomic_store_explicit(&ep->brisk, (int8_t)brisk, memory_order_relaxed); /* a hint */
    return moved;
}

/* Look, and line up while there is nothing.  `looked`: it has just looked in vain, so it lines up at once.  Lining up
 * finds whatever was published since, but not that the endpoint was closed: for that it looks once more.  Holding the
 * awaitable and its endpoint. */
static int awaitable_advance(Awaitable *aw, bool looked, PyObject **out, nc_box **kicks)
{
    Call *call = &aw->call;
    bool awake = false; /* it stayed so for a moment */
    call->sleeps = aw->timeout != 0;
    for (;; looked = false) {
        uint32_t place = awaitable_place(aw);
        step s = STEP_BLOCKED;
        if (place != NC_WAITING && !(looked && place == NC_OUTSIDE && !call->ep->closed)) {
            s = call->op->look(call, place == NC_CALLED, out, kicks);
            if (s == STEP_READY && call_has_more(call)) {
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
        if (aw->timeout == 0 && awaitable_reap(aw, kicks))
            continue;
        if (aw->expired || aw->timeout == 0) {
            awaitable_end(aw, kicks);
            call->op->timed_out(call);
            return STEP_ERROR;
        }
        if (s == STEP_BLOCKED && place == NC_OUTSIDE && !awake && lines_of(aw) == NULL &&
            (awake = awaitable_stays_awake(call->ep)))
            continue;
        if (aw->future == NULL)
            return STEP_PREPARE;
        nc_place now = awaitable_line_up(aw, s == STEP_BUSY && place == NC_CALLED, kicks);
        if (now == NC_UNREACHED)
            return STEP_PREPARE;
        if (now == NC_TURN)
            continue;
        aw->state = PARKED;
        return STEP_SLEEP;
    }
}

/* The first thing that a step does.  STEP_READY: go on.  STEP_BLOCKED: it runs although nobody called it; see
 * awaitable_woken_by_stranger().  `was` is the future that it waited on so far, a new reference. */
static int awaitable_begin(Awaitable *aw, PyObject **was)
{
    if (aw->running) {
        PyErr_Format(PyExc_RuntimeError, "%s() is already being awaited", aw->call.op->qualname);
        return STEP_ERROR;
    }
    if (aw->state == DONE) {
        awaitable_raise_reused(aw);
        return STEP_ERROR;
    }
    aw->running = true;
    if (aw->state == CREATED || aw->state == PAUSED)
        aw->state = BEGUN;
    if (aw->state == PARKED && !aw->expired &&
        (awaitable_place(aw) != NC_CALLED ||
         (lines_of(aw) == NULL && line_deferred(&aw->call, &aw->sleeper->waiter)))) {
        *was = Py_XNewRef(aw->future);
        return STEP_BLOCKED;
    }
    *was = aw->future;
    aw->future = NULL;
    return STEP_READY;
}

/* The step is over, unless it goes on after STEP_PREPARE or STEP_MORE: then `running` still keeps others out.  Holding
 * the awaitable. */
static int awaitable_finish(Awaitable *aw, int s, PyObject **out)
{
    if (s == STEP_SLEEP)
        *out = Py_NewRef(aw->future);
    if (s != STEP_PREPARE && s != STEP_MORE)
        aw->running = false;
    return s;
}

/* A spare may be in an old generation of the collector, or set aside by gc.freeze().  Track it anew, so that
 * an awaitable that waits is collected together with its task. */
static void awaitable_rejuvenate(Awaitable *aw)
{
    if (NC_RECYCLES) {
        PyObject_GC_UnTrack(aw);
        PyObject_GC_Track(aw);
    }
}

/* Make a sleeper for each line, and see that native code can wake the loop; false with an exception set. */
static bool awaitable_make_sleepers(Awaitable *aw, PyObject *loop, nc_box *box, sleeper **sl)
{
    if (*sl == NULL)
        awaitable_rejuvenate(aw);
    if (lines_of(aw) != NULL)
        return lines_of(aw)->prepare(aw, loop, box);
    if (*sl == NULL && (*sl = sleeper_new(box, aw->call.ep)) == NULL) {
        PyErr_NoMemory();
        return false;
    }
    if ((*sl)->waiter.box != box) {
        awaitable_raise_other_loop(aw);
        return false;
    }
    return loop_serves(aw->call.ep->chan, loop, box, aw->call.op->qualname);
}

/* Make what a wait needs: a sleeper with the loop's mailbox, the timer, and the future that the task will wait
 * on, which is returned as a new reference.  Runs Python code; NULL with an exception set. */
static PyObject *awaitable_prepare(core_state *st, Awaitable *aw, sleeper **sl)
{
    PyObject *future = NULL, *mailbox, *loop = loop_here(st, aw->call.op->qualname, &mailbox);
    if (loop == NULL)
        return NULL;
    if (awaitable_make_sleepers(aw, loop, mailbox_box(mailbox), sl) &&
        (aw->timeout <= 0 || aw->timer != NULL ||
         (aw->timer = loop_timer(st, loop, aw->timeout, (PyObject *)aw)) != NULL))
        future = loop_future(st, loop, mailbox);
    Py_DECREF(mailbox);
    Py_DECREF(loop);
    return future;
}

/* Prepare, then look again or line up. */
static int awaitable_prepared(core_state *st, Awaitable *aw, PyObject **out, nc_box **kicks)
{
    sleeper *sl = aw->sleeper; /* nobody else changes it while `running` */
    PyObject *future = awaitable_prepare(st, aw, &sl), *before = NULL;
    int s = STEP_ERROR;
    Py_BEGIN_CRITICAL_SECTION2(aw, awaitable_lock(aw, aw->call.ep));
    aw->sleeper = sl;
    aw->call.waiting = true;
    if (future != NULL) {
        if (lines_of(aw) != NULL)
            lines_of(aw)->set_future(aw, future);
        else
            sleeper_set_future(sl, future);
        before = aw->future; /* from a first try that was in vain, as native code came in between */
        aw->future = future;
        s = awaitable_advance(aw, true, out, kicks);
    } else
        awaitable_end(aw, kicks);
    s = awaitable_finish(aw, s, out);
    Py_END_CRITICAL_SECTION2();
    Py_XDECREF(before);
    return s;
}

/* It sleeps, nobody called it, and yet somebody steps it.  True if a stranger resolved its future: then it goes
 * back to sleep.  Else a second task awaits it: false with an exception set. */
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

/* Let the loop go round once before the next look.  The other side has been notified of all that was sent or taken so
 * far.  STEP_PAUSE, with None for the task. */
static int awaitable_pause(Awaitable *aw, PyObject **out)
{
    Py_BEGIN_CRITICAL_SECTION(aw);
    aw->state = PAUSED;
    aw->running = false;
    aw->paused = aw->dirty = true;
    Py_END_CRITICAL_SECTION();
    *out = Py_NewRef(Py_None);
    return STEP_PAUSE;
}

/* What was taken from a batch's source is sent: take more from it, and send that. */
static int awaitable_more(Awaitable *aw, PyObject **out, nc_box **kicks)
{
    core_state *st = aw->st;
    if (pace_due(st)) /* all of `value` is sent, so it may as well be filled at the next step */
        return awaitable_pause(aw, out);
    int more = call_refill(&aw->call, pace_allowance(st)), s;
    if (more > 0)
        pace_of(st)->left -= (int)PyList_GET_SIZE(aw->call.value);
    Py_BEGIN_CRITICAL_SECTION2(aw, awaitable_lock(aw, aw->call.ep));
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

/* Let go of what an ended call need not keep.  This is above all its endpoint, so that whoever keeps the awaitable does
 * not keep the channel open.  The endpoint is kept by `async with tx.claim(n)`, which goes on until the block is left.
 * Runs Python code; keeps the current exception. */
void awaitable_release(Awaitable *aw)
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
    if (held.op->lines != NULL)
        held.op->lines->release(aw);
    Py_XDECREF(future);
    call_clear(&held);
    Py_XDECREF(ep);
    PyErr_Restore(type, value, traceback);
}

bool awaitable_abort(Awaitable *aw, bool *was_done)
{
    nc_box *kicks = NULL;
    bool running;
    *was_done = true;
    Endpoint *ep = awaitable_endpoint(aw);
    if (ep == NULL)
        return true;
    Py_BEGIN_CRITICAL_SECTION2(aw, awaitable_lock(aw, ep));
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
    line_deliver_any(ep->chan, kicks);
    Py_DECREF(ep);
    return true;
}

/* A signal handler may have raised on the way.  The call, which is about to sleep, then ends with that exception at
 * once, rather than after the next wake-up. */
static int awaitable_interrupt(Awaitable *aw, Endpoint *ep, PyObject **out, nc_box **kicks)
{
    (void)ep; /* with a GIL nothing is locked */
    if (!core_raise_postponed())
        return STEP_SLEEP;
    Py_BEGIN_CRITICAL_SECTION2(aw, awaitable_lock(aw, ep));
    awaitable_end(aw, kicks);
    Py_END_CRITICAL_SECTION2();
    Py_CLEAR(*out);
    return STEP_ERROR;
}

/* Go on with a step of this thread: prepare until the call sleeps or is done, then let go of what it does not need any
 * more.  The caller holds a reference to the endpoint: as soon as it sleeps, another thread may end the call. */
static int awaitable_wait(Awaitable *aw, Endpoint *ep, int s, PyObject **out, nc_box **kicks)
{
    Chan *c = ep->chan;
    if (NC_RECYCLES) /* else nobody reads it, and other threads might write it */
        aw->dirty = true;
    while (s == STEP_PREPARE || s == STEP_MORE) {
        line_deliver_any(c, *kicks);
        *kicks = NULL;
        s = s == STEP_MORE ? awaitable_more(aw, out, kicks) : awaitable_prepared(c->st, aw, out, kicks);
    }
    if (s == STEP_SLEEP) {
        pace_new_turn(pace_of(c->st));
        if (lines_of(aw) != NULL)
            lines_of(aw)->reap_ahead(aw, kicks);
        else
            line_reap_ahead(c, ep->side, kicks);
        s = awaitable_interrupt(aw, ep, out, kicks);
    }
    if (s != STEP_SLEEP && s != STEP_PAUSE)
        awaitable_release(aw);
    return s;
}

Endpoint *awaitable_endpoint(Awaitable *aw)
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
        awaitable_raise_reused(aw);
        return STEP_ERROR;
    }
    Chan *c = ep->chan;
    Py_BEGIN_CRITICAL_SECTION2(aw, awaitable_lock(aw, ep));
    s = awaitable_begin(aw, &was);
    aw->dirty = true;
    begun = s != STEP_ERROR;
    if (s == STEP_READY)
        s = awaitable_finish(aw,
                             call_has_more(&aw->call) && aw->call.n == PyList_GET_SIZE(aw->call.value)
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
        s = awaitable_wait(aw, ep, s == STEP_BLOCKED ? STEP_PREPARE : s, out, &kicks);
    else
        s = STEP_ERROR;
    if (NC_RECYCLES && s == STEP_READY && aw->call.op->at_once != NULL && aw->origin == NULL &&
        !PyObject_GC_IsFinalized((PyObject *)aw)) {
        /* a call for one item has written nothing else */
        aw->dirty = aw->paused = aw->expired = aw->call.waiting = false;
        aw->call.least = aw->call.share = 1;
    }
    Py_XDECREF(was);
    line_deliver_any(c, kicks);
    Py_DECREF(ep);
    return s;
}

/* ---- its first step ---------------------------------------------------------------------------------- */

/* At its first step: must it yield before it looks?  The look at the pace may start a collection, and so Python code
 * that steps the same awaitable.  With a GIL only `running` keeps such code out meanwhile. */
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

/* The first look of a new awaitable, after which most are done.  With a GIL it needs no critical section. */
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
    if (s == STEP_READY && call_has_more(&aw->call))
        s = awaitable_wait(aw, ep, STEP_MORE, out, &kicks);
    else if (s == STEP_READY || s == STEP_ERROR) {
        aw->running = false;
        aw->state = DONE;
        aw->st->pace.left -= aw->call.op->at_once == NULL; /* else awaitable_at_once() has counted it */
        awaitable_release(aw);
    } else if (s == STEP_BLOCKED && aw->timeout != 0)
        s = awaitable_wait(aw, ep, STEP_PREPARE, out, &kicks);
    else {
        aw->running = false;
        s = awaitable_step(aw, out);
    }
    line_deliver_any(c, kicks);
    Py_DECREF(ep);
    return s;
}

/* The same without a GIL, where only critical sections keep others away. */
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

int awaitable_state(PyObject *self)
{
    int state;
    Py_BEGIN_CRITICAL_SECTION(self);
    state = ((Awaitable *)self)->state;
    Py_END_CRITICAL_SECTION();
    return state;
}

/* ---- in a task of trio ------------------------------------------------------------------------------- */

/* The endpoint is closed, or nobody is left on the other side and nothing to receive: that will not change, so the call
 * raises its own error whether the task is cancelled or not.  Of several arms, another may yet go. */
static bool awaitable_can_only_fail(Awaitable *aw)
{
    if (lines_of(aw) != NULL)
        return false;
    Endpoint *ep = awaitable_endpoint(aw);
    if (ep == NULL)
        return true;
    nc_gate *gate = &ep->chan->gate[ep->side];
    bool over = nc_gate_over(gate) && (ep->side == TX || nc_chan_have(ep->chan->block, RX) == 0);
    bool fails = over || ep->closed;
    Py_DECREF(ep);
    return fails;
}

/* Trio has raised, or a signal handler, before the call took anything: end it.  Keeps the exception. */
static int awaitable_give_up(Awaitable *aw)
{
    PyObject *error = core_take_error();
    bool was_done;
    delegate_clear(&aw->trio);
    if (!awaitable_abort(aw, &was_done))
        PyErr_Clear();
    core_give_error(error);
    return STEP_ERROR;
}

/* Look, and do by the delegate what a task of trio has to do next.  `slept`: the call has been a checkpoint already. */
static int awaitable_trio_looks(Awaitable *aw, bool slept, PyObject **out)
{
    core_state *st = aw->st;
    for (;; slept = true) {
        bool passes = aw->call.op->paced && !slept, tries = aw->timeout == 0;
        int s = awaitable_step(aw, out);
        if (s == STEP_SLEEP) {
            PyObject *future = *out;
            s = delegate_wait(st, &aw->trio, future, aw->timer, out);
            Py_DECREF(future);
        } else if (s == STEP_PAUSE) {
            Py_CLEAR(*out);
            s = delegate_yield(st, &aw->trio, out);
        } else {
            if (!passes || (s == STEP_ERROR && !tries))
                return s;
            s = delegate_pass(st, &aw->trio, *out, s == STEP_ERROR, out);
            return s == STEP_SLEEP ? s : delegate_result(&aw->trio, out);
        }
        if (s == STEP_SLEEP)
            return s;
        if (s == STEP_ERROR)
            return awaitable_give_up(aw);
    }
}

static int awaitable_trio_resumes(Awaitable *aw, PyObject *arg, PyObject **out)
{
    bool expired;
    int stage = aw->trio.stage, s;
    if (arg == Py_None || arg == NULL) { /* trio sends an Outcome */
        PyErr_Format(PyExc_RuntimeError, "%s() is already being awaited by another task", aw->call.op->qualname);
        return STEP_ERROR;
    }
    s = delegate_resume(&aw->trio, arg, &expired, out);
    if (s == STEP_SLEEP)
        return s;
    if (s == STEP_ERROR)
        return awaitable_give_up(aw);
    if (stage == DELEGATE_PASSES)
        return delegate_result(&aw->trio, out);
    aw->expired |= expired;
    return awaitable_trio_looks(aw, stage != DELEGATE_ASKS, out);
}

/* One step in a task of trio. */
__attribute__((noinline)) static int awaitable_run_in_trio(Awaitable *aw, PyObject *arg, PyObject **out)
{
    int s = STEP_READY;
    *out = NULL;
    if (!delegate_enter((PyObject *)aw, &aw->trio, aw->call.op->qualname))
        return STEP_ERROR;
    aw->dirty = true;
    if (delegate_suspended(&aw->trio))
        s = awaitable_trio_resumes(aw, arg, out);
    else {
        if (aw->call.op->paced && !awaitable_can_only_fail(aw))
            s = delegate_ask(aw->st, &aw->trio, out);
        if (s == STEP_ERROR)
            awaitable_give_up(aw);
        else if (s == STEP_READY)
            s = awaitable_trio_looks(aw, false, out);
    }
    aw->dirty = true; /* awaitable_step() knows nothing of the delegate */
    delegate_leave((PyObject *)aw, &aw->trio);
    if (s == STEP_READY && *out == NULL)
        *out = Py_NewRef(Py_None);
    return s;
}

/* Is this the first step, in a task of trio, or one of those that follow? */
static inline bool awaitable_of_trio(Awaitable *aw)
{
    return delegate_suspended(&aw->trio) ||
           (trio_imported(aw->st) && awaitable_state((PyObject *)aw) == CREATED && trio_here(aw->st));
}

/* ---- all steps ---------------------------------------------------------------------------------------- */

static int awaitable_run(Awaitable *aw, PyObject *arg, PyObject **out)
{
    if (awaitable_of_trio(aw))
        return awaitable_run_in_trio(aw, arg, out);
    if (awaitable_state((PyObject *)aw) == CREATED)
        return NC_FREE_THREADED ? awaitable_first_step(aw, out) : awaitable_first_look(aw, out);
    return awaitable_step(aw, out);
}

/* A native thread takes no GIL, so it may have lined up since the other side's flag was read. */
__attribute__((noinline)) static void notify_native(Endpoint *ep)
{
    int other = 1 - ep->side;
    if (nc_gate_flag(&ep->chan->gate[other], memory_order_seq_cst) != 0) /* W2 */
        call_notify(ep, other, NULL);
    if (ep->side == RX && nc_chan_observed(ep->chan->block))
        call_notify(ep, RX, NULL);
}

/* As many calls have passed as were allowed, or it may be a task of trio: STEP_MORE to go on, or what awaitable_run()
 * returns. */
__attribute__((noinline)) static int awaitable_looks_round(Awaitable *aw, PyObject **out)
{
    if (awaitable_of_trio(aw))
        return awaitable_run_in_trio(aw, Py_None, out);
    if (pace_left(pace_of(aw->st)) < 0 && awaitable_must_pause(aw, aw->call.ep))
        return awaitable_pause(aw, out);
    return STEP_MORE;
}

/* The whole life of most awaitables: STEP_READY; STEP_BLOCKED if this way is not for it; else what awaitable_run()
 * returns.  `out` is written first, so that little has to be kept in registers. */
static inline int awaitable_at_once(Awaitable *aw, PyObject **out)
{
    PyObject *(*at_once)(Call *) = aw->call.op->at_once;
    if (NC_FREE_THREADED || aw->state != CREATED || at_once == NULL)
        return STEP_BLOCKED;
    if (--aw->st->pace.left < 0) {
        int s = awaitable_looks_round(aw, out);
        if (s != STEP_MORE)
            return s;
    }
    if ((*out = at_once(&aw->call)) == NULL)
        return STEP_BLOCKED;
    Endpoint *ep = aw->call.ep;
    aw->state = DONE;
    aw->call.ep = NULL;
    awaitable_keep_early(aw);
    if (nc_chan_of_bytes(ep->chan->block))
        notify_native(ep);
    Py_DECREF(ep);
    return STEP_READY;
}

__attribute__((noinline)) static PySendResult awaitable_am_send_slowly(PyObject *self, PyObject *arg, PyObject **out)
{
    if (arg != Py_None && arg != NULL && awaitable_state(self) == CREATED &&
        !delegate_suspended(&((Awaitable *)self)->trio)) {
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    switch (awaitable_run((Awaitable *)self, arg, out)) {
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

PySendResult awaitable_am_send(PyObject *self, PyObject *arg, PyObject **out)
{
    if (arg != Py_None)
        return awaitable_am_send_slowly(self, arg, out);
    switch (awaitable_at_once((Awaitable *)self, out)) {
    case STEP_READY:
        return PYGEN_RETURN;
    case STEP_SLEEP:
    case STEP_PAUSE:
        return PYGEN_NEXT;
    case STEP_ERROR:
        return PYGEN_ERROR;
    default:
        return awaitable_am_send_slowly(self, Py_None, out);
    }
}

PyObject *awaitable_iternext(PyObject *self)
{
    core_state *st = ((Awaitable *)self)->st;
    PyObject *out, *stop = stop_reserve(st);
    if (stop == NULL)
        return NULL;
    int s = awaitable_at_once((Awaitable *)self, &out);
    if (s == STEP_BLOCKED)
        s = awaitable_run((Awaitable *)self, Py_None, &out);
    if (s == STEP_READY && out != NULL && out != Py_None) {
        stop_hand_over(stop, out);
        return NULL;
    }
    stop_give_back(st, stop);
    if (s == STEP_READY)
        Py_XDECREF(out); /* NULL without an exception stands for None */
    return s == STEP_SLEEP || s == STEP_PAUSE ? out : NULL;
}
