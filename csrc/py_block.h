/* py_block.h: the block of a channel: memory with counted references that belongs to no interpreter.  See py_block.c.
 */
#ifndef PY_BLOCK_H
#define PY_BLOCK_H

#include "py_core.h"

/* The part of a channel that is no Python object: one allocation, with the gates and the ring behind it.  Native code
 * and other interpreters may keep it when all Python objects of this one are gone. */
typedef struct chan_block {
    nc_chan chan;
    _Atomic uint32_t
        homes; /* Chans, one in each interpreter, and tickets; what each has the others do not see; a hint */
    struct chan_block *before, *after; /* of those that carry bytes; under the lock of the list */
} chan_block;

/* See to it that the child of a fork finds the rings of bytes whole.  Called whenever the module is imported. */
void block_watch(void);
/* List a new block that carries bytes: the child of a fork looks after those. */
void block_list(nc_chan *block);
/* The last reference is gone.  With or without a GIL. */
void block_free(nc_chan *block);

static inline void block_unref(nc_chan *block)
{
    if (nc_chan_unref(block))
        block_free(block);
}

/* One home more, or (-1) less. */
static inline void block_settle(nc_chan *block, int by)
{
    chan_block *b = container_of(block, chan_block, chan);
    atomic_fetch_add_explicit(&b->homes, (uint32_t)by, memory_order_relaxed); /* a hint */
}

/* May ends of the channel be elsewhere, in another interpreter or in a ticket? */
static inline bool block_elsewhere(nc_chan *block)
{
    return atomic_load_explicit(&container_of(block, chan_block, chan)->homes, memory_order_relaxed) > 1; /* a hint */
}

#endif
