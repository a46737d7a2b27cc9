/* py_inside.h: which short ways through the insides of CPython and asyncio are taken; see py_inside.c. */
#ifndef PY_INSIDE_H
#define PY_INSIDE_H

#include "py_core.h"

/* Bits of core_state.insides. */
enum {
    INSIDE_THREAD_STATE = 1,
    INSIDE_FIRST_THREAD = 2,
    INSIDE_RUNNING_LOOP = 4,
    INSIDE_CURRENT_TASKS = 8,
    INSIDE_LOOP_QUEUES = 16,
    INSIDE_DONE_FUTURE = 32,
    INSIDE_ASYNCGEN_HOOK = 64,
};

/* Choose, when the module is made; 0, or -1 with an exception set. */
int inside_choose(core_state *st);
/* The names of those that are taken, a new tuple; NULL with an exception set. */
PyObject *inside_names(core_state *st);

#endif
