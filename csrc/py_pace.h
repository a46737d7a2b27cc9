/* py_pace.h: how long a task may hold its loop; see py_pace.c.  With a GIL all of a module share one record, without
 * one each thread has its own. */
#ifndef PY_PACE_H
#define PY_PACE_H

#include "py_types.h"

#if NC_FREE_THREADED
extern _Thread_local pace pace_of_thread;
static inline pace *pace_of(core_state *Py_UNUSED(st)) { return &pace_of_thread; }
#else
static inline pace *pace_of(core_state *st) { return &st->pace; }
#endif

enum { PACE_FIRST = 4 }; /* calls, after which somebody who may be new and slow is looked at */

/* Whoever is next looks again soon: it is another task's turn, or a new one of this. */
static inline void pace_new_turn(pace *p)
{
    p->over = true;
    p->shares = false;
    p->left = p->run = PACE_FIRST;
}

/* The running task competes with others for the same room, or the same items, and was just given some: the first to run
 * would take all there is, as the others were called for one each.  So it yields after an even part of what the channel
 * holds; again and again, while there are others. */
void pace_share(pace *p, Endpoint *ep);
/* It is to yield to others, if there still are some: else it goes on at once, and there is one less to reckon with. */
bool pace_rivals_gone(Endpoint *ep);
/* The calls that were allowed have passed.  Has the running task to yield?  Not where none runs: whoever drives the
 * awaitable by hand would not know what that means. */
bool pace_spent(core_state *st);

/* Has the running task to yield?  One look at two integers, mostly.  Runs Python code. */
static inline bool pace_due(core_state *st) { return pace_of(st)->left < 0 && pace_spent(st); }

/* Items of one call that may pass before the task has to look whether it must yield. */
static inline Py_ssize_t pace_allowance(core_state *st)
{
    int left = pace_of(st)->left;
    return left < 1 ? 1 : left;
}

#endif
