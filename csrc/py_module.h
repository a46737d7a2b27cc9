/* py_module.h: what each file adds to the module; 0, or -1 with an exception set. */
#ifndef PY_MODULE_H
#define PY_MODULE_H

#include "py_core.h"

int arm_add_types(PyObject *module, core_state *st);
int await_add_types(PyObject *module, core_state *st);
int chan_add_types(PyObject *module, core_state *st);
int claim_add_types(PyObject *module, core_state *st);
int claim_await_add_types(PyObject *module, core_state *st);
int future_add_types(PyObject *module, core_state *st);
int log_add_types(PyObject *module, core_state *st);
int loop_add_types(PyObject *module, core_state *st);
int merge_add_types(PyObject *module, core_state *st);
int mailbox_add_types(PyObject *module, core_state *st);
int native_add_types(PyObject *module, core_state *st);
int notifier_add_types(PyObject *module, core_state *st);
int ring_add_types(PyObject *module, core_state *st);
int select_add_types(PyObject *module, core_state *st);
int selected_add_types(PyObject *module, core_state *st);
int stop_add_types(PyObject *module, core_state *st);
int ticket_add_types(PyObject *module, core_state *st);
int watch_add_types(PyObject *module, core_state *st);
int trio_add_types(PyObject *module, core_state *st);

#endif
