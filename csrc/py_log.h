/* py_log.h: the look of a sender's claim, which `async with tx.claim(n)` wants, too; see py_log.c. */
#ifndef PY_LOG_H
#define PY_LOG_H

#include "py_types.h"

/* Room to claim: STEP_READY, STEP_BLOCKED, STEP_BUSY, or STEP_ERROR with an exception set. */
step log_claim_look(Call *call, bool called, PyObject **out, nc_box **kicks);
void log_claim_timed_out(Call *call);

#endif
