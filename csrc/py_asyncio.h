/* py_asyncio.h: the row of asyncio; see py_asyncio.c. */
#ifndef PY_ASYNCIO_H
#define PY_ASYNCIO_H

#include "py_mailbox.h"

extern const loop_kind asyncio_loops;
/* See loop_wanted(). */
bool asyncio_wanted(core_state *st);

#endif
