/* py_bytes.h: nc_chan.h as channels of bytes use it, for Python endpoints (py_log.c, py_log_recv.c, py_claim.c) and
 * native ends (py_native.c) alike: no Python object, no GIL.
 *
 * Native code may come at any time.  So all orders are the strong ones on every build, and the gates' locks are real.
 */
#ifndef PY_BYTES_H
#define PY_BYTES_H

#include "py_core.h"

/* After something was published: call those on that side who wait for it. */
static inline void bytes_notify(nc_chan *b, int side, nc_box **kicks)
{
    nc_chan_notify(b, side, memory_order_seq_cst, core_generation(), kicks);
}

static inline void bytes_commit(nc_chan *b, const nc_record *record, uint64_t n)
{
    nc_chan_commit(b, record, n, memory_order_seq_cst);
}

/* Nobody is notified before nc_chan_publish_batch(). */
static inline void bytes_commit_quiet(nc_chan *b, const nc_record *record, uint64_t n)
{
    nc_chan_commit(b, record, n, memory_order_release);
}

static inline step bytes_claim(nc_chan *b, uint64_t n, bool called, nc_record *record)
{
    return (step)nc_chan_claim(b, n, called, core_generation(), record);
}

/* Look for the first record: STEP_READY, STEP_BLOCKED, or STEP_ERROR at the end of the stream. */
static inline step bytes_show(nc_chan *b, bool called, nc_record *record, nc_box **kicks)
{
    return (step)nc_chan_show(b, called, true, core_generation(), record, kicks);
}

/* The record was copied out: give it back.  Then call bytes_given_back(). */
static inline void bytes_take(nc_chan *b, const nc_record *record)
{
    nc_chan_touch(b, record);
    nc_chan_release(b, record, memory_order_seq_cst);
}

/* After a record was given back: call those who wait for room, and whoever has to see what lies behind it. */
static inline void bytes_given_back(nc_chan *b, nc_box **kicks) { nc_chan_given_back(b, core_generation(), kicks); }

/* The record that was shown stays.  By lanes the look may have heard what observers in line would have heard. */
static inline void bytes_left(nc_chan *b, nc_box **kicks)
{
    if (b->lanes != NULL)
        nc_chan_notify(b, RX, memory_order_relaxed, core_generation(), kicks);
}

#endif
