/* py_ends.h: which ends of a channel are open, and where they were made; see py_ends.c. */
#ifndef PY_ENDS_H
#define PY_ENDS_H

#include "py_types.h"

/* Are ends to remember where they are made? */
static inline bool ends_are_noted(core_state *st)
{
    return atomic_load_explicit(&st->debug_ends, memory_order_relaxed); /* a switch: nothing else goes with it */
}
void ends_read_environment(core_state *st);
PyObject *ends_set_debug(PyObject *module, PyObject *on);
/* Remember that an end is made here, until birth_forget(); NULL with an exception set. */
birth *birth_note(Chan *c, int side, lease *native);
void birth_forget(Chan *c, birth *b);
/* The endpoint counts no longer among those of its side.  Waiters of the other side that will never run are taken out
 * of the line, as the end, or what is left, is for the others.  Runs Python code. */
void endpoint_leave(Endpoint *ep, nc_box **kicks);

#endif
