/* py_logging.h: the message that a log record becomes; see py_logging.c. */
#ifndef PY_LOGGING_H
#define PY_LOGGING_H

#include "py_core.h"

/* log_message(): the message, or its key. */
PyObject *logging_message(PyObject *module, PyObject *const *args, Py_ssize_t n);

#endif
