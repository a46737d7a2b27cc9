/* py_pace.h: how long a task may hold its loop; see py_pace.c.  With a GIL there is one record for each module, without
 * one there is one for each thread. */
#ifndef PY_PACE_H
#define PY_PACE_H

#include "py_types.h"

#if NC_FREE_THREADED
extern _Thread_local pace pace_of_thread;
static inline pace *pace_of(core_state *Py_UNUSED(st)) { return &pace_of_thread; }
#else
static inline pace *pace_of(core_state *st) { return &st->pace; }
#endif

/* How many more calls may pass; and to say so. */
static inline int pace_left(const pace *p) { return p->left + p->bias; }
static inline void pace_allow(pace *p, int calls)
{
    p->run = calls;
    p->left = calls - p->bias;
}

enum { PACE_FIRST = 4 }; /* calls, after which a task that may be new, and slow, is looked at */

/* The next call looks again soon: it is made by another task, or in a new turn of this one. */
static inline void pace_new_turn(pace *p)
{
    p->over = true;
    p->shares = false;
    pace_allow(p, PACE_FIRST);
}

/* The running task competes with others for the same room or the same items, and was just given some.  The others were
 * called for one item each, so the first to run could take all the rest.  Therefore it yields after an even part of
 * what the channel holds, as long as there are others. */
void pace_share(pace *p, Endpoint *ep);
/* The task is to yield to others.  If nobody is in line any more, there is one rival less to reckon with.  True if
 * there is none left: the task goes on at once. */
bool pace_rivals_gone(Endpoint *ep);
/* The calls that were allowed have passed: has the running task to yield?  No if no task runs, as whoever drives an
 * awaitable by hand would not know what that means. */
bool pace_spent(core_state *st);

/* Has the running task to yield?  Mostly this reads one integer.  May run Python code. */
static inline bool pace_due(core_state *st) { return pace_left(pace_of(st)) < 0 && pace_spent(st); }

/* How many items of a batch may be moved before the next look whether the task must yield. */
static inline Py_ssize_t pace_allowance(core_state *st)
{
    int left = pace_left(pace_of(st));
    return left < 1 ? 1 : left;
}

#endif
