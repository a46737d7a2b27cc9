/* py_origin.h: where a coroutine was made, for sys.set_coroutine_origin_tracking_depth(); see py_origin.c. */
#ifndef PY_ORIGIN_H
#define PY_ORIGIN_H

#include "py_core.h"

/* How deep this thread's coroutines remember where they are made; 0: not at all. */
int origin_depth(core_state *st);
/* True where it is known at once that nobody asks. */
static inline bool origin_unasked(core_state *st)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (NC_THREAD_POINTER && this_thread() == st->first_thread)
        return st->first->coroutine_origin_tracking_depth <= 0;
    return origin_depth(st) <= 0;
#else
    return st->tstate != NULL && (*st->tstate)->coroutine_origin_tracking_depth <= 0;
#endif
}
/* Where the running code is: ((file, line, function), ...), innermost first, `depth` of them at most; a new reference,
 * or NULL with an exception set. */
PyObject *origin_here(int depth);

#endif
