/* py_line.c: a waiter's place in line: how a waiter takes it, leaves it, and is deferred for a claim; how waiters that
 * will never run are taken out; what is due after a step; and how native code gets to wake loops.  The heading of
 * each part says whether it runs Python code.  Touches nc_chan.h. */
#include "py_line.h"

#include "py_doorbell.h"
#include "py_loop.h"

static wake_box *box_of(nc_box *box) { return container_of(box, wake_box, box); }

/* ---- no Python code runs ---------------------------------------------------------------------------- */

nc_place line_up(Call *call, nc_waiter *w, bool requeue, nc_box **kicks)
{
    return nc_chan_line_up(call->ep->chan->block, call->ep->side, w, (nc_need){call->least, call->share}, requeue,
                           wake_reached(w->box), core_generation(), kicks);
}

void line_defer(Call *call, nc_waiter *w)
{
    nc_chan_defer(call->ep->chan->block, call->ep->side, w, core_generation());
    call->ep->deferred = true;
}

bool line_deferred(Call *call, nc_waiter *w)
{
    return call->ep->deferred && nc_chan_deferred(call->ep->chan->block, call->ep->side, w, core_generation());
}

/* How many tasks and threads compete on this side: the most that ever stood in line when one left it, until
 * pace_rivals_gone() finds that they are gone.  A hint, so relaxed: others may write it at the same time. */
static void count_rivals(Chan *c, int side)
{
    unsigned now = nc_gate_crowd(&c->gate[side]) / NC_WAITER + 1;
    if (now > atomic_load_explicit(&c->rivals[side], memory_order_relaxed)) /* a hint */
        atomic_store_explicit(&c->rivals[side], now, memory_order_relaxed); /* a hint */
}

void line_leave(Chan *c, int side, nc_waiter *w, nc_box **kicks)
{
    Endpoint *ep = w->owner;
    bool resume = ep->deferred && ep->claim == NULL;
    bool resumed = nc_chan_leave_line(c->block, side, w, resume, core_generation(), kicks);
    if (resume)
        ep->deferred = resumed;
    count_rivals(c, side);
}

/* Does the box belong to a loop of this interpreter?  Only then may it be asked for objects. */
static bool is_at_home(core_state *st, nc_box *box) { return box_of(box)->home == st->number; }

static int visit_future(Chan *c, sleeper *sl, visitproc visit, void *arg)
{
    if (sl->chan != c) /* another Chan of this channel visits it */
        return 0;
    Py_VISIT(atomic_load_explicit(&sl->future, memory_order_relaxed)); /* with the GIL, or in a stopped world */
    return 0;
}

/* Does the sleeper keep its channel, whatever the collector finds?  While it stands in line it may be called from
 * elsewhere, by an end that this interpreter's collector does not see.  When the interpreter is taken down, nobody in
 * it is to be called any more. */
static bool sleeper_keeps(sleeper *sl) { return block_elsewhere(sl->chan->block) && !doorbell_has_ended(sl->chan->st); }

int line_traverse_sleeper(sleeper *sl, visitproc visit, void *arg)
{
    bool outside = nc_waiter_state_of(&sl->waiter) == NC_OUTSIDE;
    if (sl->chan != NULL && (outside || !sleeper_keeps(sl)))
        Py_VISIT(sl->chan);
    if (outside)
        Py_VISIT(atomic_load_explicit(&sl->future, memory_order_relaxed)); /* with the GIL, or in a stopped world */
    return 0;
}

int line_traverse(Chan *c, int side, visitproc visit, void *arg)
{
    nc_gate *g = &c->gate[side];
    bool shared = !g->guarded && g->born == core_generation(); /* Python's threads stand still, native threads do not */
    int stop = 0;
    if (shared)
        nc_lock_enter(&g->lock);
    for (nc_waiter *w = g->first; w != NULL && stop == 0; w = w->next)
        if (is_at_home(c->st, w->box)) /* so it is a loop's, and the waiter a sleeper */
            stop = visit_future(c, container_of(w, sleeper, waiter), visit, arg);
    if (shared)
        nc_lock_exit(&g->lock);
    return stop;
}

/* ---- after a step: runs Python code -------------------------------------------------------------- */

void discard_orphans(Chan *c)
{
    PyObject *values[8]; /* few: this may nest as deep as channels hold channels */
    uint64_t n;
    if (nc_chan_of_bytes(c->block)) {
        nc_chan_discard_bytes(c->block, core_generation());
        return;
    }
    do {
        n = nc_chan_discard(c->block, (void **)values, 8, core_way(c->kind), core_generation());
        for (uint64_t i = 0; i < n; i++)
            Py_DECREF(values[i]);
    } while (n > 0);
}

void line_deliver(Chan *c, nc_box *kicks)
{
    bool orphans = nc_chan_orphaned(c->block);
    PyObject *type, *value, *traceback;
    if (kicks == NULL && !orphans)
        return;
    Py_INCREF(c);
    wake_deliver(c->st, kicks);
    PyErr_Fetch(&type, &value, &traceback);
    if (orphans)
        discard_orphans(c);
    Py_DECREF(c);
    PyErr_Restore(type, value, traceback);
}

/* ---- waiters that will never run: runs Python code ----------------------------------------------- */

/* Collect the boxes of this interpreter's loops that have called waiters in this line, each with a reference; returns
 * how many. */
static int called_loops(core_state *st, nc_gate *g, nc_box **boxes, int most)
{
    int n = 0;
    nc_gate_enter(g, core_generation());
    for (nc_waiter *w = g->called > 0 ? g->first : NULL; w != NULL && n < most; w = w->next) {
        bool known = nc_waiter_state_of(w) != NC_CALLED || !is_at_home(st, w->box);
        for (int i = 0; i < n && !known; i++)
            known = boxes[i] == w->box;
        if (!known) {
            nc_box_ref(w->box);
            boxes[n++] = w->box;
        }
    }
    nc_gate_exit(g);
    return n;
}

bool line_reap(Chan *c, int side, nc_box **kicks)
{
    nc_box *boxes[8];
    bool any = false;
    if (nc_gate_crowd(&c->gate[side]) < NC_WAITER)
        return false;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    for (int n = called_loops(c->st, &c->gate[side], boxes, 8); n > 0; n--) {
        if (box_of(boxes[n - 1])->kind->dead(c->st, box_of(boxes[n - 1]))) {
            nc_chan_leave_lines_of(c->block, side, boxes[n - 1], core_generation(), kicks);
            any = true;
        }
        wake_box_unref(boxes[n - 1]);
    }
    PyErr_Restore(type, value, traceback);
    return any;
}

void line_reap_ahead(Chan *c, int side, nc_box **kicks)
{
    if (nc_gate_crowd(&c->gate[side]) >= 2 * NC_WAITER)
        line_reap(c, side, kicks);
}

/* ---- within reach of native code: runs Python code ----------------------------------------------- */

static size_t line_length(nc_gate *g)
{
    size_t n = 0;
    for (nc_waiter *w = g->first; w != NULL; w = w->next)
        n++;
    return n;
}

/* Enter the gate with room for a box for each waiter of its line, in an array that the caller frees.  The line is
 * counted in the gate: `crowd` leaves out those who are owed nothing, and without a GIL others come meanwhile.  False
 * with an exception set, and not in the gate. */
static bool enter_with_room(nc_gate *g, nc_box ***boxes)
{
    size_t room = 0, waiters;
    *boxes = NULL;
    nc_gate_enter(g, core_generation());
    while ((waiters = line_length(g)) > room) {
        nc_gate_exit(g);
        PyMem_Free(*boxes);
        *boxes = PyMem_New(nc_box *, room = waiters);
        if (*boxes == NULL) {
            PyErr_NoMemory();
            return false;
        }
        nc_gate_enter(g, core_generation());
    }
    return true;
}

/* Collect the boxes of this interpreter's loops in this line that native code could not wake, each with a reference, in
 * an array that the caller frees; returns how many, or -1 with an exception set.  Whoever lines up after this sees that
 * native code may come. */
static Py_ssize_t unreached_loops(core_state *st, nc_gate *g, nc_box ***boxes)
{
    Py_ssize_t n = 0;
    if (!enter_with_room(g, boxes))
        return -1;
    for (nc_waiter *w = g->first; w != NULL; w = w->next) {
        bool known = !is_at_home(st, w->box) || loop_share(w->box);
        for (Py_ssize_t i = 0; i < n && !known; i++)
            known = (*boxes)[i] == w->box;
        if (!known) {
            nc_box_ref(w->box);
            (*boxes)[n++] = w->box;
        }
    }
    nc_gate_exit(g);
    return n;
}

bool line_reach_all(Chan *c)
{
    nc_box *kicks = NULL, **boxes;
    bool ok = true;
    for (int side = 0; side < SIDES && ok; side++) {
        Py_ssize_t n = unreached_loops(c->st, &c->gate[side], &boxes);
        ok = n >= 0;
        for (Py_ssize_t i = 0; i < n; i++) {
            ok = loop_summon(c, boxes[i], &kicks) && ok;
            wake_box_unref(boxes[i]);
        }
        PyMem_Free(boxes);
    }
    line_deliver(c, kicks);
    return ok;
}
