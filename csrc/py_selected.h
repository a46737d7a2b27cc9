/* py_selected.h: the result of a select; see py_selected.c. */
#ifndef PY_SELECTED_H
#define PY_SELECTED_H

#include "py_core.h"

/* A result without its items, or NULL with an exception set.  Nobody else can see it until it is filled; dropped before
 * that, it is freed. */
PyObject *selected_new(core_state *st);
/* Fill it: the index of the arm, the arm, and the value, of which all are taken over. */
static inline void selected_fill(PyObject *selected, PyObject *index, PyObject *arm, PyObject *value)
{
    PyTuple_SET_ITEM(selected, 0, index);
    PyTuple_SET_ITEM(selected, 1, arm);
    PyTuple_SET_ITEM(selected, 2, value);
    PyObject_GC_Track(selected);
}
void selected_free_spares(core_state *st);

#endif
