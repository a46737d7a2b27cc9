/* py_select.c: select: wait until one of several arms can go on, do that one and no other.  Touches nc_chan.h; knows
 * arms only by their `look`.
 *
 * A wake-up says "look again" and carries nothing.  So a select is one waiter in the line of each arm, all with one box
 * and one future.  Whoever wakes looks at the arms that were called, does the first that can go on, and leaves the
 * other lines, which hands the turns there to the next.  Nothing is taken on behalf of a waiter, so there is nothing to
 * give back, whatever ends the wait.
 *
 * The awaitable is an Awaitable as any other, whose call stands for all arms: its look looks at each of them, and
 * `lines` is how it waits in several lines.  Fair: among the arms that can go on, the one whose endpoint was chosen
 * least recently (py_arm.c).
 */
#include "py_select.h"
#include "py_arm.h"
#include "py_await_life.h"
#include "py_call.h"
#include "py_chan.h"
#include "py_coroutine.h"
#include "py_line.h"
#include "py_loop.h"
#include "py_module.h"
#include "py_origin.h"
#include "py_park.h"
#include "py_selected.h"
#include "py_watch.h"

enum { ARMS_INSIDE = 4 }; /* more need memory of their own */

typedef struct Select {
    Awaitable base;               /* .call.op is one of ours, .call.ep the endpoint of the first arm */
    Py_ssize_t n;                 /* arms; 0 once they are released; in the critical section */
    bool biased;
    Merge *merge; /* whose next this is; strong.  Else NULL */
    PyObject *result; /* strong: there before anything is taken; untracked until it is filled */
    arm *arms; /* [n]: `few`, or memory of its own; so the next */
    arm_turn *turns;
    arm few[ARMS_INSIDE];
    arm_turn few_turns[ARMS_INSIDE];
} Select;

static Select *select_of(Call *call) { return container_of(call, Select, base.call); }

/* ---- one look --------------------------------------------------------------------------------------- */

/* For a merge: (receiver, value); a claim is remembered, as it ends when the next is asked for. */
static void merge_fill(Select *sel, PyObject *receiver, PyObject *value)
{
    Merge *merge = sel->merge;
    PyTuple_SET_ITEM(sel->result, 0, receiver);
    PyTuple_SET_ITEM(sel->result, 1, value);
    PyObject_GC_Track(sel->result);
    if (Py_TYPE(value) != sel->base.st->claim_type[RX])
        return;
    PyObject *before;
    Py_BEGIN_CRITICAL_SECTION(merge);
    before = merge->claim;
    merge->claim = Py_NewRef(value);
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(before); /* another task's; it has that one */
}

/* An arm has gone on: the result, a new reference, for what its look gave (NULL: None), which this takes over, as it
 * does `index`. */
static PyObject *select_chose(Select *sel, Py_ssize_t i, PyObject *index, PyObject *value)
{
    PyObject *result = sel->result, *passed = Py_NewRef(arm_passed(&sel->arms[i]));
    if (sel->merge == NULL)
        selected_fill(result, index, passed, value != NULL ? value : Py_NewRef(Py_None));
    else {
        Py_DECREF(index);
        merge_fill(sel, passed, value);
    }
    sel->result = NULL;
    arms_chose(sel->arms, sel->n, i);
    return result;
}

static void arm_leave_line(Endpoint *ep, nc_waiter *w, nc_box **kicks)
{
    Py_BEGIN_CRITICAL_SECTION(ep);
    line_leave(ep->chan, ep->side, w, kicks);
    Py_END_CRITICAL_SECTION();
}

/* The arm waits no more.  Without a GIL, another thread may end the awaitable while this one waits for an endpoint: so
 * the waiter is taken out first, and the endpoint is kept. */
static void arm_end_wait(Awaitable *aw, arm *a, nc_box **kicks)
{
    nc_waiter *w = a->waiter;
    if (w == NULL)
        return;
    Endpoint *ep = (Endpoint *)Py_NewRef(a->call.ep);
    a->waiter = NULL;
    arm_leave_line(ep, w, kicks);
    if (aw->call.op->lines != NULL) /* else the place is a thread's, and is freed with the others */
        sleeper_leave(container_of(w, sleeper, waiter));
    Py_DECREF(ep);
}

/* Look at one arm, unless it stands in line uncalled. */
static step arm_look(arm *a, PyObject **out, nc_box **kicks)
{
    step s = STEP_BLOCKED;
    Py_BEGIN_CRITICAL_SECTION(a->call.ep);
    uint32_t place = a->waiter != NULL ? nc_waiter_state_of(a->waiter) : NC_OUTSIDE;
    bool deferred = place == NC_CALLED && line_deferred(&a->call, a->waiter);
    if (place != NC_WAITING && !deferred)
        s = a->call.op->look(&a->call, place == NC_CALLED, out, kicks);
    a->busy = s == STEP_BUSY && place == NC_CALLED;
    Py_END_CRITICAL_SECTION();
    return s;
}

/* Look at the arms in turn, until one can go on or fails; *at is that one.  The awaitable is `running`, so its arms
 * stay as they are. */
static step arms_look(Select *sel, Py_ssize_t *at, PyObject **out, nc_box **kicks)
{
    PyObject *value = NULL;
    step s = STEP_BLOCKED;
    *at = arms_off_thread(sel->arms, sel->n);
    if (*at >= 0)
        return STEP_ERROR;
    arms_order(sel->arms, sel->n, sel->biased, sel->turns);
    for (Py_ssize_t turn = 0; turn < sel->n && s != STEP_ERROR; turn++) {
        *at = sel->turns[turn].index;
        PyObject *index = arm_index(sel->base.st, *at); /* first: when that fails, nothing was taken */
        s = index != NULL ? arm_look(&sel->arms[*at], &value, kicks) : STEP_ERROR;
        if (s == STEP_READY) {
            *out = select_chose(sel, *at, index, value);
            line_deliver_any(sel->arms[*at].call.ep->chan, NULL); /* its receiver may have gone meanwhile */
            return STEP_READY;
        }
        Py_XDECREF(index);
    }
    return s == STEP_ERROR ? s : STEP_BLOCKED;
}

/* Did the arm fail since its channel has ended, or since its receiver was closed? */
static bool has_ended(core_state *st)
{
    return PyErr_ExceptionMatches(st->errors[E_RECV]) || PyErr_ExceptionMatches(st->errors[E_ENDPOINT_CLOSED]);
}

/* The receiver has ended: the merge goes on without it.  Others may leave out another one at the same time.  Without
 * memory it stays, and the next select finds once more that it has ended. */
static void merge_forget(Merge *merge, Endpoint *ep)
{
    bool left = false;
    while (!left) {
        PyObject *all = merge_open(merge), *rest = core_tuple_without(all, (PyObject *)ep);
        left = rest == NULL;
        PyErr_Clear();
        Py_BEGIN_CRITICAL_SECTION(merge);
        if (rest != NULL && merge->open == all) {
            Py_SETREF(merge->open, rest); /* not the last: ours */
            rest = NULL;
            left = true;
        }
        Py_END_CRITICAL_SECTION();
        Py_XDECREF(rest);
        Py_DECREF(all);
    }
}

/* Drop arm i, which has ended, from this select and from the merge.  Clears the exception. */
static void merge_drop(Select *sel, Py_ssize_t i, nc_box **kicks)
{
    arm ended = sel->arms[i];
    PyErr_Clear();
    for (Py_ssize_t j = i + 1; j < sel->n; j++)
        sel->arms[j - 1] = sel->arms[j];
    sel->n--;
    arm_init(&sel->arms[sel->n]);
    arm_end_wait(&sel->base, &ended, kicks);
    merge_forget(sel->merge, ended.call.ep);
    arm_clear(&ended);
}

static step select_look(Call *call, bool Py_UNUSED(called), PyObject **out, nc_box **kicks)
{
    Select *sel = select_of(call);
    Py_ssize_t at;
    step s;
    while ((s = arms_look(sel, &at, out, kicks)) == STEP_ERROR && sel->merge != NULL && has_ended(sel->base.st)) {
        merge_drop(sel, at, kicks);
        if (sel->n > 0)
            continue;
        if (call->op->lines != NULL) /* in a thread, the end is no exception */
            PyErr_SetNone(PyExc_StopAsyncIteration);
        return STEP_ERROR;
    }
    if (s == STEP_ERROR) {
        arms_chose(sel->arms, sel->n, at);
        arm_blame(sel->base.st, arm_passed(&sel->arms[at]), at);
    }
    return s;
}

static void select_release(Awaitable *aw)
{
    Select *sel = (Select *)aw;
    Py_ssize_t n;
    Py_BEGIN_CRITICAL_SECTION(aw);
    n = sel->n;
    sel->n = 0;
    Py_END_CRITICAL_SECTION();
    for (Py_ssize_t i = 0; i < n; i++)
        arm_clear(&sel->arms[i]);
}

/* Native threads take no GIL, so one may have lined up since the flag was read. */
static void notify_other_side(Endpoint *ep)
{
    int other = 1 - ep->side;
    if (nc_chan_of_bytes(ep->chan->block) && nc_gate_flag(&ep->chan->gate[other], memory_order_seq_cst) != 0) /* W2 */
        call_notify(ep, other, NULL);
}

/* It has ended at its first step: make a spare of it, as awaitable_keep_early() does. */
static void select_keep_early(Select *sel)
{
    if (sel->base.weakrefs == NULL && sel->base.origin == NULL && sel->arms == sel->few &&
        sel->base.call.op->lines != NULL && !PyObject_GC_IsFinalized((PyObject *)sel) &&
        spare_keep(sel->base.st, SPARE_SELECTS, sel))
        Py_INCREF(sel);
}

static inline bool arm_is_here(const arm *a)
{
    unsigned long thread = a->call.ep->chan->thread;
    return thread == 0 || thread == this_thread(); /* else the look raises that */
}

/* What the only arm gives at once, if anything. */
static inline PyObject *only_at_once(Select *sel, PyObject **index)
{
    arm *a = sel->arms;
    *index = PyTuple_GET_ITEM(sel->base.st->first_indices, 0);
    Py_INCREF(*index);
    PyObject *value = arm_is_here(a) && a->call.op->at_once != NULL ? a->call.op->at_once(&a->call) : NULL;
    if (value == NULL)
        Py_DECREF(*index);
    return value;
}

/* What the first arm in order gives that can go on at once, if those before it surely cannot. */
static PyObject *first_at_once(Select *sel, Py_ssize_t *i, PyObject **index)
{
    for (Py_ssize_t at = 0; at < sel->n; at++)
        if (!arm_is_here(&sel->arms[at]))
            return NULL;
    arms_order(sel->arms, sel->n, sel->biased, sel->turns);
    for (Py_ssize_t turn = 0; turn < sel->n; turn++) {
        arm *a = &sel->arms[ *i = sel->turns[turn].index];
        if ((*index = arm_index(sel->base.st, *i)) == NULL) { /* first, as in arms_look() */
            PyErr_Clear(); /* the look raises that, too */
            return NULL;
        }
        PyObject *value = a->call.op->at_once != NULL ? a->call.op->at_once(&a->call) : NULL;
        if (value != NULL)
            return value;
        Py_DECREF(*index);
        if (!arm_surely_waits(a))
            return NULL;
    }
    return NULL;
}

/* With a GIL, where most end. */
static PyObject *select_at_once(Call *call)
{
    Select *sel = select_of(call);
    Py_ssize_t i = 0;
    PyObject *index, *value = sel->n == 1 ? only_at_once(sel, &index) : first_at_once(sel, &i, &index);
    if (value == NULL)
        return NULL;
    sel->base.state = DONE; /* before code of others may run, which must not end it either: */
    sel->base.running = true;
    PyObject *result = select_chose(sel, i, index, value);
    notify_other_side(sel->arms[i].call.ep);
    select_release(&sel->base);
    Py_CLEAR(sel->merge);
    sel->base.running = false;
    select_keep_early(sel);
    return result;
}

static void select_timed_out(Call *call)
{
    core_raise(call->ep->chan->st, E_SELECT_TIMEOUT, NULL, "none of %zd arms could go within the timeout",
               select_of(call)->n);
}

/* ---- its places in line ------------------------------------------------------------------------------- */

static sleeper *sleeper_of(const arm *a) { return a->waiter != NULL ? container_of(a->waiter, sleeper, waiter) : NULL; }

static nc_waiter_state select_place(Awaitable *aw)
{
    Select *sel = (Select *)aw;
    nc_waiter_state all = NC_OUTSIDE;
    for (Py_ssize_t i = 0; i < sel->n && all != NC_CALLED; i++) {
        arm *a = &sel->arms[i];
        if (a->waiter == NULL)
            continue;
        nc_waiter_state place;
        Py_BEGIN_CRITICAL_SECTION(a->call.ep);
        place = (nc_waiter_state)nc_waiter_state_of(a->waiter);
        if (place == NC_CALLED && line_deferred(&a->call, a->waiter))
            place = NC_WAITING;
        else if (place == NC_OUTSIDE && a->call.ep->closed)
            place = NC_CALLED; /* it was closed before this arm lined up: see arm_line_up() */
        Py_END_CRITICAL_SECTION();
        if (place != NC_OUTSIDE)
            all = place;
    }
    return all;
}

/* One arm after a look in vain, since when others may have used the endpoint.  Whoever closes it, or ends its claim,
 * calls those who stand in line or were deferred by then; what comes later must be looked for. */
static nc_place arm_line_up(arm *a, nc_box **kicks)
{
    Endpoint *ep = a->call.ep;
    nc_place now = NC_SLEEP;
    Py_BEGIN_CRITICAL_SECTION(ep);
    uint32_t place = nc_waiter_state_of(a->waiter);
    if (place != NC_WAITING && (ep->closed || (a->busy && ep->claim == NULL)))
        now = NC_TURN;
    else if (a->busy)
        line_defer(&a->call, a->waiter);
    else if (place != NC_CALLED || !line_deferred(&a->call, a->waiter))
        now = line_up(&a->call, a->waiter, false, kicks);
    Py_END_CRITICAL_SECTION();
    return now;
}

static nc_place select_line_up(Awaitable *aw, nc_box **kicks)
{
    Select *sel = (Select *)aw;
    nc_place all = NC_SLEEP;
    for (Py_ssize_t i = 0; i < sel->n; i++) {
        nc_place now = arm_line_up(&sel->arms[i], kicks);
        if (now == NC_UNREACHED)
            return now;
        if (now == NC_TURN)
            all = now;
    }
    return all;
}

static void select_leave(Awaitable *aw, nc_box **kicks)
{
    Select *sel = (Select *)aw;
    for (Py_ssize_t i = 0; i < sel->n; i++)
        arm_end_wait(aw, &sel->arms[i], kicks);
}

static bool select_prepare(Awaitable *aw, PyObject *loop, nc_box *box)
{
    Select *sel = (Select *)aw;
    for (Py_ssize_t i = 0; i < sel->n; i++) {
        arm *a = &sel->arms[i];
        sleeper *sl = a->waiter == NULL ? sleeper_new(box, a->call.ep) : NULL;
        if (a->waiter == NULL && sl == NULL) {
            PyErr_NoMemory();
            return false;
        }
        if (sl != NULL) {
            Py_BEGIN_CRITICAL_SECTION(aw);
            a->waiter = &sl->waiter;
            a->call.waiting = true;
            Py_END_CRITICAL_SECTION();
        }
        if (a->waiter->box != box) {
            awaitable_raise_other_loop(aw);
            return false;
        }
        if (!loop_serves(a->call.ep->chan, loop, box, aw->call.op->qualname))
            return false;
    }
    return true;
}

static void select_set_future(Awaitable *aw, PyObject *future)
{
    Select *sel = (Select *)aw;
    for (Py_ssize_t i = 0; i < sel->n; i++)
        sleeper_set_future(sleeper_of(&sel->arms[i]), future);
}

static void select_post(Awaitable *aw, nc_box **kicks)
{
    Select *sel = (Select *)aw;
    if (sel->n > 0 && sel->arms[0].waiter != NULL)
        nc_box_post(sel->arms[0].waiter, kicks);
}

static bool select_reap(Awaitable *aw, nc_box **kicks)
{
    Select *sel = (Select *)aw;
    bool any = false;
    for (Py_ssize_t i = 0; i < sel->n; i++)
        any |= line_reap(sel->arms[i].call.ep->chan, sel->arms[i].call.ep->side, kicks);
    return any;
}

/* The endpoint of arm i, a new reference; NULL if there are fewer, as when others have ended it. */
static Endpoint *select_endpoint(Select *sel, Py_ssize_t i)
{
    Endpoint *ep;
    Py_BEGIN_CRITICAL_SECTION(sel);
    ep = i < sel->n ? (Endpoint *)Py_NewRef(sel->arms[i].call.ep) : NULL;
    Py_END_CRITICAL_SECTION();
    return ep;
}

/* It sleeps, so Python code, or another thread, may end it meanwhile. */
static void select_reap_ahead(Awaitable *aw, nc_box **kicks)
{
    Endpoint *ep;
    for (Py_ssize_t i = 0; (ep = select_endpoint((Select *)aw, i)) != NULL; i++) {
        line_reap_ahead(ep->chan, ep->side, kicks);
        Py_DECREF(ep);
    }
}

static const many_lines select_lines = {
    .place = select_place,
    .line_up = select_line_up,
    .leave = select_leave,
    .prepare = select_prepare,
    .set_future = select_set_future,
    .post = select_post,
    .reap = select_reap,
    .reap_ahead = select_reap_ahead,
    .release = select_release,
};

static const call_op select_op = {.name = "select",
                                  .qualname = "select",
                                  .look = select_look,
                                  .timed_out = select_timed_out,
                                  .paced = true,
                                  .at_once = select_at_once,
                                  .lines = &select_lines};

/* Without `lines`: in a thread it waits by a parker, and its awaitable is nobody's to step. */
static const call_op select_blocking_op = {
    .name = "select_blocking", .qualname = "select_blocking", .look = select_look, .timed_out = select_timed_out};
static const call_op anext_op = {.name = "__anext__",
                                 .qualname = "merge.__anext__",
                                 .look = select_look,
                                 .timed_out = select_timed_out,
                                 .paced = true,
                                 .at_once = select_at_once,
                                 .lines = &select_lines};
static const call_op next_op = {.name = "__next__", .qualname = "merge.__next__", .look = select_look};
static const call_op try_select_op = {.name = "try_select", .qualname = "try_select", .look = select_look};

/* ---- its life ----------------------------------------------------------------------------------------- */

__attribute__((noinline)) static Select *select_make(core_state *st)
{
    Select *sel = PyObject_GC_New(Select, st->select_type);
    if (sel == NULL)
        return NULL;
    awaitable_init(&sel->base, st);
    sel->n = 0;
    sel->biased = false;
    sel->merge = NULL;
    sel->result = NULL;
    sel->arms = sel->few;
    sel->turns = sel->few_turns;
    for (int i = 0; i < ARMS_INSIDE; i++)
        arm_init(&sel->few[i]);
    PyObject_GC_Track(sel);
    return sel;
}

/* A spare that nobody else has, or a new one. */
static inline Select *select_alloc(core_state *st)
{
    Select *sel = spare_take(st, SPARE_SELECTS);
    if (sel == NULL)
        return select_make(st);
    if (Py_REFCNT(sel) == 1 && sel->base.weakrefs == NULL)
        return sel;
    Py_DECREF(sel);
    return select_make(st);
}

/* The result of a merge; the collector must not show it before it is filled. */
static PyObject *pair_new(void)
{
    PyObject *pair = PyTuple_New(2);
    if (pair != NULL)
        PyObject_GC_UnTrack(pair);
    return pair;
}

static bool select_make_room(Select *sel, Py_ssize_t n)
{
    if (n <= ARMS_INSIDE)
        return true;
    arm *arms = PyMem_New(arm, (size_t)n);
    arm_turn *turns = PyMem_New(arm_turn, (size_t)n);
    if (arms == NULL || turns == NULL) {
        PyMem_Free(arms);
        PyMem_Free(turns);
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        arm_init(&arms[i]);
    sel->arms = arms;
    sel->turns = turns;
    return true;
}

/* A select of these arms that has not begun, or NULL with an exception set.  It is `running` for this thread: whoever
 * finds it by the collector cannot step it. */
static Select *select_new(core_state *st, const call_op *op, PyObject *const *passed, Py_ssize_t n, Merge *merge)
{
    if (n == 0)
        return (Select *)PyErr_Format(PyExc_ValueError, "%s() needs at least one arm", op->qualname);
    Select *sel = select_alloc(st);
    if (sel == NULL)
        return NULL;
    sel->merge = (Merge *)Py_XNewRef(merge);
    sel->result = merge != NULL ? pair_new() : selected_new(st);
    bool ok = sel->result != NULL && select_make_room(sel, n);
    for (Py_ssize_t i = 0; i < n && ok; i++) {
        ok = arm_make(st, &sel->arms[i], passed[i]);
        if (ok)
            sel->n++; /* from now on the collector visits it */
        else
            arm_blame(st, passed[i], i);
    }
    if (!ok || (n > 1 && arms_repeat(sel->arms, n))) {
        Py_DECREF(sel);
        return NULL;
    }
    sel->base.call.op = op;
    sel->base.call.ep = (Endpoint *)Py_NewRef(sel->arms[0].call.ep);
    sel->base.timeout = -1; /* a spare may have that of its last call */
    sel->base.dirty = sel->base.running = true;
    return sel;
}

static int select_traverse(PyObject *self, visitproc visit, void *arg)
{
    Select *sel = (Select *)self;
    for (Py_ssize_t i = 0; i < sel->n; i++) {
        arm *a = &sel->arms[i];
        sleeper *sl = sleeper_of(a);
        Py_VISIT(a->call.ep);
        Py_VISIT(a->call.value);
        Py_VISIT(a->giving);
        if (sl == NULL || sel->base.call.op->lines == NULL)
            continue;
        int stop = line_traverse_sleeper(sl, visit, arg);
        if (stop != 0)
            return stop;
    }
    Py_VISIT(sel->merge);
    return awaitable_traverse(self, visit, arg);
}

/* It is dropped while it waits: as if it had been closed. */
static void select_drop_sleepers(Select *sel)
{
    nc_box *kicks = NULL;
    awaitable_end(&sel->base, &kicks); /* nobody else has it any more */
    line_deliver_any(sel->base.call.ep->chan, kicks);
}

static void select_dealloc(PyObject *self)
{
    Select *sel = (Select *)self;
    PyTypeObject *type = Py_TYPE(sel);
    if (sel->base.state == CREATED && PyObject_CallFinalizerFromDealloc(self) < 0)
        return; /* it lives on: whoever was shown the warning has kept it */
    PyObject_GC_UnTrack(sel);
    Py_TRASHCAN_BEGIN(self, select_dealloc) /* what is to be sent may be such a call, of which the value may be ... */
    if (sel->base.weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    if (sel->n > 0 && sel->arms[0].waiter != NULL)
        select_drop_sleepers(sel);
    select_release(&sel->base);
    Endpoint *ep = sel->base.call.ep;
    Py_XDECREF(sel->base.future);
    Py_XDECREF(sel->base.timer);
    Py_XDECREF(sel->base.origin);
    delegate_clear(&sel->base.trio);
    Py_XDECREF(sel->result);
    Py_CLEAR(sel->merge);
    if (sel->arms != sel->few) {
        PyMem_Free(sel->arms);
        PyMem_Free(sel->turns);
    }
    sel->result = NULL;
    sel->arms = sel->few;
    sel->turns = sel->few_turns;
    /* if its finaliser has run, it is not used again: the finaliser would not run a second time */
    if (!PyObject_GC_IsFinalized(self) && spare_keep(sel->base.st, SPARE_SELECTS, sel)) {
        awaitable_init(&sel->base, sel->base.st);
        Py_SET_REFCNT(self, 1);
        PyObject_GC_Track(sel);
    } else {
        PyObject_GC_Del(sel);
        Py_DECREF(type);
    }
    Py_XDECREF(ep); /* may be the last reference, and so free the module too */
    Py_TRASHCAN_END
}

static PyMethodDef select_methods[] = {AWAITABLE_METHODS, END_OF_METHODS};

static PyType_Slot select_slots[] = {{Py_tp_dealloc, select_dealloc},
                                     {Py_tp_traverse, select_traverse},
                                     AWAITABLE_SLOTS_BUT_LIFE,
                                     {Py_tp_methods, select_methods},
                                     {0, NULL}};

static PyType_Spec select_spec = {.name = "nexus_channels._core.Select",
                                  .basicsize = sizeof(Select),
                                  .flags = CORE_TYPE_FLAGS,
                                  .slots = select_slots};

/* ---- in a thread ---------------------------------------------------------------------------------------- */

/* One round of a thread: as park_look(), for all arms. */
static step round_of_thread(Select *sel, parker *p, PyObject **out, bool *turn, nc_box **kicks)
{
    park_stay(p);
    step s = select_look(&sel->base.call, false, out, kicks);
    *turn = s == STEP_BLOCKED && select_line_up(&sel->base, kicks) == NC_TURN;
    return s;
}

/* After a look in vain: line up everywhere, and sleep until one arm can go on. */
static step select_park(Select *sel, double timeout, PyObject **out)
{
    Chan *c = sel->base.call.ep->chan;
    nc_box *kicks = NULL;
    parking at;
    bool turn;
    step s;
    parker *p = parker_new(sel->n);
    if (p == NULL) {
        PyErr_NoMemory();
        return STEP_ERROR;
    }
    for (Py_ssize_t i = 0; i < sel->n; i++) {
        sel->arms[i].waiter = parker_place(p, i, sel->arms[i].call.ep);
        sel->arms[i].call.waiting = true;
    }
    if (!parker_listen(p)) {
        select_leave(&sel->base, &kicks);
        wake_box_unref(&p->base.box);
        return STEP_ERROR;
    }
    park_begin(&at, &sel->base.call, timeout);
    do {
        s = round_of_thread(sel, p, out, &turn, &kicks);
        if (s == STEP_BLOCKED && !turn)
            select_reap_ahead(&sel->base, &kicks);
        line_deliver_any(c, kicks);
        kicks = NULL;
        if (s == STEP_BLOCKED && core_raise_postponed()) /* the exception of a signal handler that ran meanwhile */
            s = STEP_ERROR;
        if (s == STEP_BLOCKED && !turn)
            s = park_sleep(&at, &sel->base.call, p);
    } while (s == STEP_BLOCKED);
    park_end(&at, &sel->base.call);
    select_leave(&sel->base, &kicks);
    wake_box_unref(&p->base.box);
    line_deliver_any(c, kicks);
    return s;
}

/* Look, again if waiters that will never run were in the way; returns as a look does. */
static step select_now(Select *sel, PyObject **out)
{
    Call *call = &sel->base.call;
    nc_box *kicks = NULL;
    step s;
    *out = NC_FREE_THREADED ? NULL : select_at_once(call);
    if (*out != NULL)
        return STEP_READY;
    do
        s = select_look(call, false, out, &kicks);
    while (s == STEP_BLOCKED && select_reap(&sel->base, &kicks));
    line_deliver_any(call->ep->chan, kicks);
    return s;
}

/* ---- functions of the module -------------------------------------------------------------------------- */

static Select *select_parse(PyObject *module, const call_op *op, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                            double *timeout)
{
    core_state *st = PyModule_GetState(module);
    bool biased = false;
    if (kwnames != NULL && !arms_parse_keywords(st, op->name, args + n, kwnames, timeout, &biased))
        return NULL;
    Select *sel = select_new(st, op, args, n, NULL);
    if (sel != NULL)
        sel->biased = biased;
    return sel;
}

PyObject *select_await(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    double timeout = -1;
    Select *sel = select_parse(module, &select_op, args, n, kwnames, &timeout);
    if (sel == NULL)
        return NULL;
    sel->base.timeout = timeout;
    sel->base.state = CREATED;
    sel->base.running = false;
    return awaitable_hand_out(&sel->base);
}

PyObject *select_blocking(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    double timeout = -1;
    PyObject *out = NULL;
    Select *sel = select_parse(module, &select_blocking_op, args, n, kwnames, &timeout);
    if (sel == NULL)
        return NULL;
    step s = select_now(sel, &out);
    if (s == STEP_BLOCKED && timeout == 0) {
        select_timed_out(&sel->base.call);
        s = STEP_ERROR;
    }
    if (s == STEP_BLOCKED)
        select_park(sel, timeout, &out);
    Py_DECREF(sel);
    return out;
}

PyObject *select_try(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    PyObject *out = NULL;
    Select *sel = select_parse(module, &try_select_op, args, n, kwnames, NULL);
    if (sel == NULL)
        return NULL;
    if (select_now(sel, &out) == STEP_BLOCKED)
        core_raise(sel->base.st, E_NOTHING_READY, NULL, "none of %zd arms can go now", sel->n);
    Py_DECREF(sel);
    return out;
}

bool select_check(PyObject *module, PyObject *const *arms, Py_ssize_t n)
{
    static const call_op merge_op = {.name = "merge", .qualname = "merge", .look = select_look};
    Select *sel = select_new(PyModule_GetState(module), &merge_op, arms, n, NULL);
    Py_XDECREF(sel);
    return sel != NULL;
}

/* A select of these receivers of the merge, some of which others may find ended while it runs. */
static Select *select_of_open(PyObject *module, const call_op *op, Merge *merge, PyObject *open)
{
    Select *sel = select_new(PyModule_GetState(module), op, PySequence_Fast_ITEMS(open), PyTuple_GET_SIZE(open), merge);
    if (sel != NULL)
        sel->biased = merge->biased;
    return sel;
}

PyObject *select_anext(PyObject *module, Merge *merge, PyObject *open)
{
    Select *sel = select_of_open(module, &anext_op, merge, open);
    if (sel == NULL)
        return NULL;
    sel->base.state = CREATED;
    sel->base.running = false;
    return awaitable_hand_out(&sel->base);
}

PyObject *select_next(PyObject *module, Merge *merge, PyObject *open)
{
    PyObject *out = NULL;
    Select *sel = select_of_open(module, &next_op, merge, open);
    if (sel == NULL)
        return NULL;
    if (select_now(sel, &out) == STEP_BLOCKED)
        select_park(sel, -1, &out);
    Py_DECREF(sel);
    return out;
}

int select_add_types(PyObject *module, core_state *st)
{
    st->select_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &select_spec, NULL);
    return st->select_type != NULL ? 0 : -1;
}
