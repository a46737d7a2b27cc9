/* py_stop.h: the StopIteration by which the result of an awaited call travels; see py_stop.c. */
#ifndef PY_STOP_H
#define PY_STOP_H

#include "py_core.h"

/* Before a result is taken: see to it that it can be handed over whatever happens to the memory meanwhile.  False with
 * MemoryError set. */
bool stop_put_by(core_state *st);
/* Raise StopIteration with `value`, for `await`, which reads nothing else.  Steals value. */
void stop_hand_over(core_state *st, PyObject *value);
/* Raise StopIteration(value) as anybody makes it; value may be a tuple or an exception itself.  Steals value. */
void stop_raise(PyObject *value);
/* The module lets go of the one that is kept. */
void stop_free(core_state *st);

#endif
