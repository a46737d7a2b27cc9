/* py_line.c: a waiter's place in line, whoever waits: taking and leaving it, and being put off for a claim.  Touches
 * nc_gate.h; runs no Python code, but for line_look_ahead(). */
#include "py_line.h"

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

int line_up_for(Call *call, nc_waiter *w, bool requeue, nc_box **kicks)
{
    return line_up(call->ep->chan->block, call->ep->side, w, call->least, call->share, requeue, kicks);
}

void line_defer(Call *call, nc_waiter *w)
{
    nc_gate *g = &call->ep->chan->gate[call->ep->side];
    nc_gate_enter(g, core_generation());
    nc_gate_defer(w);
    nc_gate_exit(g);
    call->ep->deferred = true;
}

bool line_deferred(Call *call, nc_waiter *w)
{
    if (!call->ep->deferred)
        return false;
    nc_gate *g = &call->ep->chan->gate[call->ep->side];
    nc_gate_enter(g, core_generation());
    bool deferred = w->deferred;
    nc_gate_exit(g);
    return deferred;
}

void line_look_ahead(Chan *c, int side, nc_box **kicks)
{
    if (nc_gate_crowd(&c->gate[side]) >= 2 * NC_HEAD)
        line_reap(c, side, kicks);
}

/* How many tasks and threads want the same: as many as ever waited with one that left the line, until that is seen to
 * be no longer so (rivals_gone).  Under the gate's lock. */
static void count_rivals(Chan *c, int side)
{
    unsigned now = nc_gate_crowd(&c->gate[side]) / NC_HEAD + 1;
    if (now > atomic_load_explicit(&c->rivals[side], memory_order_relaxed))       /* under the lock */
        atomic_store_explicit(&c->rivals[side], now, memory_order_relaxed);       /* under the lock */
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
    count_rivals(c, side);
    nc_gate_exit(g);
}

static int visit_future(sleeper *sl, visitproc visit, void *arg)
{
    Py_VISIT(atomic_load_explicit(&sl->future, memory_order_relaxed)); /* with the GIL, or in a stopped world */
    return 0;
}

int line_traverse(nc_gate *g, visitproc visit, void *arg)
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
