/* py_pace.c: how long a task holds its loop by awaiting what is ready, and when it yields.  Knows loops by py_loop.h.
 *
 * A call that is ready does not wait, so a task whose calls are always ready would keep its loop for ever: no timer, no
 * time-out, no cancellation and no Ctrl-C would get through.  Once a task has held its loop for about TURN by awaiting
 * what was ready, its next call yields once, before it sends or takes anything.
 *
 * A turn of a loop costs as much as hundreds of calls.  If the loop shows that nobody waits for it, the task goes on,
 * up to TURNS turns of its own.  A descriptor that became ready is known only to the kernel, and has to wait that long.
 * TURNS turns are longer than the 5 ms after which a thread that waits for the GIL asks for it.  For each turn of the
 * loop lets go of the GIL for a moment that is too short to take it, and that thread then begins to wait anew.
 *
 * Reading a clock at each call would cost half as much as the call.  So calls are counted, and there is a look every
 * CHECK calls, or every CHECK_FAST where at least FAST take a turn.  Some of the runs between two looks are timed, to
 * learn how many calls take a turn.  The larger count of the last two such runs holds, as the machine may have stopped
 * one of them for something else.  Each task has its own count.  If a task waits for something else than a channel,
 * this is not noticed; it costs at most one turn of the loop too many.
 *
 * tokio gives each task 128 operations between two yields, trio a checkpoint each. */
#include "py_pace.h"

#include "py_loop.h"

#include <limits.h>

#define TURN 500000 /* ns */
enum { TURNS = 16 };
enum { CHECK = 64, MEASURE = CHECK, MEASURE_AGAIN = 4 * CHECK, MOST = 16 * CHECK };
enum { FAST = 32 * CHECK, CHECK_FAST = 4 * CHECK };
enum { LEAST = 8 }; /* calls between two yields of a task that competes with others */

#if NC_FREE_THREADED
_Thread_local pace pace_of_thread;
#endif

/* A timed run of `run` calls has just ended: how many calls take a turn? */
static int pace_measured(pace *p, int run)
{
    int64_t took = now_ns() - p->began, every = took > 0 ? (int64_t)run * TURN / took : INT_MAX;
    p->began = 0;
    return every < 1 ? 1 : every < INT_MAX ? (int)every : INT_MAX;
}

void pace_share(pace *p, Endpoint *ep)
{
    Chan *c = ep->chan;
    unsigned rivals = atomic_load_explicit(&c->rivals[ep->side], memory_order_relaxed); /* a hint */
    if (rivals < 2)
        return;
    uint64_t all = nc_chan_capacity(c->block) / (nc_chan_of_bytes(c->block) ? 64 : 1), even = all / rivals;
    pace_allow(p, even < LEAST ? LEAST : even < MOST ? (int)even : MOST);
    p->shares = true;
}

bool pace_rivals_gone(Endpoint *ep)
{
    Chan *c = ep->chan;
    pace *p = pace_of(c->st);
    if (!p->shared)
        return false;
    p->shared = false;
    if (nc_gate_crowd(&c->gate[ep->side]) >= NC_WAITER)
        return false;
    unsigned rivals = atomic_load_explicit(&c->rivals[ep->side], memory_order_relaxed); /* a hint */
    if (rivals > 1)
        atomic_store_explicit(&c->rivals[ep->side], rivals - 1, memory_order_relaxed); /* a hint */
    pace_share(p, ep);
    return rivals < 2;
}

#if !NC_FREE_THREADED
static bool refers_to(PyObject *weak, PyObject *object)
{
    PyObject *target = core_weak_target(weak);
    Py_XDECREF(target); /* not the last: compared only, or the running task */
    return target == object;
}
#endif

/* Is the record that of this task, and not that of one that is gone and lay at the same address? */
static bool pace_knows(pace *p, size_t at, void *task)
{
    if (p->of[at].task != task)
        return false;
#if NC_FREE_THREADED
    return true;
#else
    return p->of[at].alive != NULL && refers_to(p->of[at].alive, task);
#endif
}

/* Nothing is known of this task yet.  Its record may have been another's, who is then measured anew. */
static void pace_meet(pace *p, size_t at, void *task)
{
    p->of[at].task = task;
    p->of[at].every = INT_MAX;
    p->of[at].last = 0;
#if !NC_FREE_THREADED
    Py_XSETREF(p->of[at].alive, PyWeakref_NewRef(task, NULL)); /* without a callback CPython shares one */
    if (p->of[at].alive == NULL)
        PyErr_Clear();
#endif
}

bool pace_spent(core_state *st)
{
    pace *p = pace_of(st);
    int run = p->run - pace_left(p); /* a batch may have moved more items than it was allowed */
    void *task = loop_task(st);
    size_t at = ((uintptr_t)task >> 4) % PACE_TASKS;
    bool known_task = task != NULL && pace_knows(p, at, task), fresh = p->over || task != p->task || !known_task;
    p->shared = false;
    p->credit = p->credit + run < 2 * MEASURE_AGAIN ? p->credit + run : 2 * MEASURE_AGAIN;
    pace_allow(p, CHECK);
    p->task = task;
    p->over = false;
    if (task == NULL) {
        p->shares = false;
        return false;
    }
    if (!known_task)
        pace_meet(p, at, task);
    if (fresh) {
        p->held = 0;
        p->turns = 0;
        p->began = 0;
    } else
        p->held += run;
    if (p->began != 0) {
        int every = pace_measured(p, run), last = p->of[at].last;
        p->of[at].every = last == 0 ? INT_MAX : every > last ? every : last;
        p->of[at].last = every;
    }
    p->shared = p->shares;
    bool over = p->held >= p->of[at].every;
    if (over && !p->shares && ++p->turns < TURNS && !loop_wanted(st)) {
        p->held = 0;
        over = false;
    }
    if (over || p->shares) {
        p->over = true;
        p->shares = false;
        pace_allow(p, 0);
        return true;
    }
    bool known = p->of[at].every < INT_MAX;
    if (p->credit >= (known ? MEASURE_AGAIN : MEASURE)) {
        p->credit -= MEASURE;
        p->began = now_ns();
    }
    int rest = known ? p->of[at].every - p->held : p->began != 0 ? PACE_FIRST : CHECK;
    int most = known && p->of[at].every >= FAST ? CHECK_FAST : CHECK;
    pace_allow(p, rest < most ? rest : most);
    return false;
}
