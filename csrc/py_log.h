/* py_log.h: the looks of channels of bytes that others want, too; see py_log.c. */
#ifndef PY_LOG_H
#define PY_LOG_H

#include "py_types.h"

/* Looks of py_log.c: for room to claim, and for the first record: STEP_READY, STEP_BLOCKED, STEP_BUSY, or STEP_ERROR,
 * without an exception at the end. */
step log_claim_look(Call *call, bool called, PyObject **out, nc_box **kicks);
void log_claim_timed_out(Call *call);
step log_look_first(Call *call, bool called, nc_record *record, nc_box **kicks);

#endif
