/* py_reach.h: how a channel reaches other processes: what os_reach.h says, for those who run Python; see py_reach.c. */
#ifndef PY_REACH_H
#define PY_REACH_H

#include "py_types.h"

#include "os_reach_life.h"

/* Lanes are for systems that have them, and for builds that use all that a system has. */
#if OS_HAS_LANES && NC_LINUX
#define REACHES 1
#else
#define REACHES 0
#endif

#if REACHES

static inline os_reach *reach_of(nc_chan *block) { return container_of(block->lanes, os_reach, lanes); }

/* Begin with memory that is zeroed, in the block of the channel; no descriptor is there yet. */
void reach_begin(os_reach *r, nc_chan *block, bool reads, uint64_t capacity);
/* Somebody connects, and has a door before there is a channel: known from its first moment, so that the child of a fork
 * closes its copy.  NULL with MemoryError set. */
os_reach *reach_knock(void);
void reach_knocked(os_reach *r);
/* The process ends in good order: its ends leave their channels.  Calls that still wait on them, or come later, find
 * the other side gone.  From any thread, with or without the GIL. */
void reach_leave_all(void);

/* The descriptor to wait on for a channel by lanes, a new reference; NULL if the side that is here has left. */
os_reach_fd *reach_wait_on(Chan *c);
/* No loop waits for the channel, of which the last end that was here has left. */
void reach_unwatched(Chan *c);

#endif

/* Native threads are about to come to this channel, which has lanes. */
void reach_unguard(Chan *c);
/* Hear what was rung, and call those whose turn it is; nothing, if the channel has no lanes.  Runs Python code. */
void reach_hear(Chan *c);
/* The same for a thread or a loop that was woken by the descriptor that it waits on. */
void reach_answer(Chan *c);
/* Has everybody left at the other side?  Hears first; runs Python code. */
bool reach_deserted(Chan *c);
/* Spin until a lane moves, without the GIL, for that many pauses at most; true if one has.  *late: it was kept from its
 * processor for more than `ns`, and gave up. */
bool reach_spin(Chan *c, unsigned most, int64_t ns, bool *late);
/* Likewise for any thread, which has not the GIL; of a channel by lanes.  Also for a task, which keeps the GIL for a
 * few pauses. */
bool reach_spin_natively(nc_chan *block, unsigned most);
/* Are these ends of one channel between processes? */
bool reach_same(Chan *a, Chan *b);

#endif
