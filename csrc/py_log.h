/* py_log.h: how a message gets into a channel of bytes and out of it, for Python endpoints (py_log.c) and native
 * ends (py_native.c) alike: a channel's block, no Python object, no GIL.
 *
 * Native code may come at any time, so all orders are the strong ones on every build, and the gates' locks real.
 */
#ifndef NC_PY_LOG_H
#define NC_PY_LOG_H

#include "py_core.h"

/* The order in which bytes are published: seq_cst, for W2 and W3; within a batch, whose end settles it, release. */
#define LOG_PUBLISH memory_order_seq_cst
#define LOG_BATCH memory_order_release

/* After something was published: does anybody on the other side want to know?  Else as tell(). */
static inline void block_tell(chan_block *b, int side, nc_box **kicks)
{
    if (nc_gate_flag(&b->gate[side], memory_order_seq_cst) != 0) /* W2 */
        gate_notify(b, side, kicks);
}

/* ---- senders ---------------------------------------------------------------------------------------- */

static inline nc_result log_claim(chan_block *b, uint64_t n, nc_record *record)
{
    return b->log->many ? nc_log_claim_mp(b->log, n, record) : nc_log_claim_sp(b->log, n, record);
}

static inline void log_commit_as(chan_block *b, const nc_record *record, uint64_t n, memory_order publish)
{
    if (b->log->many)
        nc_log_commit_mp(b->log, record, n, publish);
    else
        nc_log_commit_sp(b->log, record, n, publish);
}

static inline void log_commit(chan_block *b, const nc_record *record, uint64_t n)
{
    log_commit_as(b, record, n, LOG_PUBLISH);
}

/* Nobody is told before nc_log_settle_tail(). */
static inline void log_commit_quiet(chan_block *b, const nc_record *record, uint64_t n)
{
    log_commit_as(b, record, n, LOG_BATCH);
}

/* Then those on side log_freed_by_abort() want to know. */
static inline void log_abort(chan_block *b, const nc_record *record)
{
    if (b->log->many) /* one producer has shared nothing yet */
        nc_log_abort_mp(b->log, record, LOG_PUBLISH);
}

/* Many producers: the consumer has a skip to step over.  One: what was claimed is simply free again. */
static inline int log_freed_by_abort(const chan_block *b) { return b->log->many ? RX : TX; }

/* Room for n bytes: STEP_READY, STEP_BLOCKED, or STEP_ERROR when the receiver is gone.  `called`: it is the
 * caller's turn; else it takes only what is left over when those in line have had their share. */
static inline step log_reserve(chan_block *b, uint64_t n, bool called, nc_record *record)
{
    nc_gate *g = &b->gate[TX];
    uint32_t crowd = nc_gate_crowd(g);
    if (crowd & NC_OVER)
        return STEP_ERROR;
    if (crowd == 0 || called)
        return log_claim(b, n, record) == NC_OK ? STEP_READY : STEP_BLOCKED;
    nc_gate_enter(g, core_generation());
    uint64_t have = block_have(b, TX), extent = nc_log_extent(n);
    bool got = have > g->owed && have - g->owed >= extent && log_claim(b, n, record) == NC_OK;
    nc_gate_exit(g);
    return got ? STEP_READY : STEP_BLOCKED;
}

/* ---- the receiver ----------------------------------------------------------------------------------- */

/* The first record: STEP_READY, STEP_BLOCKED, or STEP_ERROR at the end. */
static inline step log_show(chan_block *b, bool called, nc_record *record, nc_box **kicks)
{
    nc_gate *g = &b->gate[RX];
    bool freed;
    /* The first record is owed to the first in line, whatever lies behind it; only the end is for all. */
    bool first = called || nc_gate_crowd(g) < NC_HEAD;
    for (int last = 0; last < 2; last++) {
        if (first) {
            nc_result r = nc_log_peek_sc(b->log, record, &freed, LOG_PUBLISH);
            if (freed)
                block_tell(b, TX, kicks);
            if (r == NC_OK)
                return STEP_READY;
        }
        if (last == 0 && !nc_gate_over_seen(g)) { /* C1, before the last look */
            block_tell(b, TX, kicks);             /* who sends may wait for a wake-up that could not be given */
            return STEP_BLOCKED;
        }
    }
    return nc_log_used(b->log) == 0 ? STEP_ERROR : STEP_BLOCKED;
}

/* Then senders want to know. */
static inline void log_take(chan_block *b, const nc_record *record) { nc_log_release_sc(b->log, record, LOG_PUBLISH); }

/* The same for one that was copied out. */
static inline void log_take_read(chan_block *b, const nc_record *record)
{
    nc_log_touch_sc(record);
    log_take(b, record);
}

#endif
