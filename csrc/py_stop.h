/* py_stop.h: the StopIteration by which the result of an awaited call travels; see py_stop.c. */
#ifndef PY_STOP_H
#define PY_STOP_H

#include "py_core.h"

/* Before a result is taken: the one by which it will travel, so that it can be handed over whatever happens to the
 * memory meanwhile.  NULL with MemoryError set.  Then one of the next two, which take it over. */
PyObject *stop_reserve(core_state *st);
/* Raise it with `value`, for `await`, which reads nothing else.  Steals value. */
void stop_hand_over(PyObject *stop, PyObject *value);
/* There was nothing to hand over.  Keeps the current exception. */
void stop_give_back(core_state *st, PyObject *stop);
/* Raise StopIteration(value) as anybody makes it; value may be a tuple or an exception itself.  Steals value. */
void stop_raise(PyObject *value);
/* The module lets go of the one that is kept. */
void stop_free(core_state *st);

#endif
