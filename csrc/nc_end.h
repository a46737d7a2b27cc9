/* nc_end.h: who may touch an endpoint that was lent to a native thread: the thread, or the closer, which takes the
 * endpoint back.  Touches nc_base.h only.
 *
 *            begin                leave                          the closer
 *    IDLE ----------> BUSY -----------------> IDLE               closed := true              N1
 *      '--<-- CLAIMED, ASLEEP: likewise       CLAIMED, ASLEEP    wait while BUSY             N1
 *                 look at closed  N1                             CLAIMED? the thread departs : the closer does
 *
 * Only the thread moves the state, except in nc_end_bury.  The closer raises `closed` and waits for a state other than
 * BUSY, which takes a few instructions.  If no claim is open then, the closer takes the end out of the channel.  Else
 * the thread does so when it ends the claim.  Edges N1..N3 are in PROTOCOL.md.
 */
#ifndef NC_END_H
#define NC_END_H

#include "nc_base.h"

enum { NC_END_IDLE, NC_END_BUSY, NC_END_CLAIMED, NC_END_ASLEEP };

typedef struct nc_end {
    _Atomic bool attached;  /* a thread has it; N3 */
    _Atomic bool closed;    /* taken back, or about to be; written by the closer, N1 */
    _Atomic bool left;      /* it no longer counts as open, and the endpoint is given back; N2 */
    _Atomic uint32_t state; /* NC_END_*; written by the thread, N1 */
} nc_end;

/* The answer to a call that begins.  Unless it is NC_END_OPEN, the call is over already. */
typedef enum nc_end_answer {
    NC_END_OPEN,
    NC_END_SHUT,  /* it was closed */
    NC_END_WRONG, /* not in the state that the call is for */
} nc_end_answer;

static inline void nc_end_init(nc_end *e)
{
    atomic_store_explicit(&e->attached, false, memory_order_relaxed); /* nobody else knows it yet */
    atomic_store_explicit(&e->closed, false, memory_order_relaxed);
    atomic_store_explicit(&e->left, false, memory_order_relaxed);
    atomic_store_explicit(&e->state, NC_END_IDLE, memory_order_relaxed);
}

static inline bool nc_end_closed(const nc_end *e)
{
    return atomic_load_explicit(&e->closed, memory_order_seq_cst); /* N1 */
}

/* ---- the thread ------------------------------------------------------------------------------------- */

/* Begin a call; `was` is the state to go back to.  False when the end was closed; the call has begun all the same.
 * Only a thread that is being buried finds the state BUSY; it waits until that is over. */
static inline bool nc_end_enter(nc_end *e, uint32_t *was)
{
    unsigned spins = 0;
    while ((*was = atomic_exchange_explicit(&e->state, NC_END_BUSY, memory_order_seq_cst)) == NC_END_BUSY) /* N1 */
        nc_relax(&spins);
    NC_STEP("end_enter: busy, closed not seen");
    return !nc_end_closed(e);
}

static inline void nc_end_leave(nc_end *e, uint32_t state)
{
    atomic_store_explicit(&e->state, state, memory_order_release); /* N1 */
}

/* Begin a call for which no claim may be open. */
static inline nc_end_answer nc_end_begin(nc_end *e)
{
    uint32_t was;
    bool open = nc_end_enter(e, &was);
    if (open && was == NC_END_IDLE)
        return NC_END_OPEN;
    nc_end_leave(e, was);
    return open ? NC_END_WRONG : NC_END_SHUT;
}

/* Begin a call that ends a claim.  Such a call is allowed on a closed end, too. */
static inline nc_end_answer nc_end_begin_claimed(nc_end *e)
{
    uint32_t was;
    bool open = nc_end_enter(e, &was);
    if (was == NC_END_CLAIMED)
        return NC_END_OPEN;
    nc_end_leave(e, was);
    return open ? NC_END_WRONG : NC_END_SHUT;
}

/* The claim has ended.  It kept even a closed end in the channel, so: true if the thread has to depart now. */
static inline bool nc_end_leave_claim(nc_end *e)
{
    nc_end_leave(e, NC_END_IDLE);
    NC_STEP("end_leave_claim: idle, closed not seen");
    return nc_end_closed(e);
}

/* The thread falls asleep in line, or spins outside of it, and wakes up again.  A sleeper joins the line first, then
 * looks at `closed`, then sleeps.  So either the closer finds it in line, or it sees that the end was closed.  A
 * spinner looks at `closed` after nc_end_awake(). */
static inline void nc_end_sleep(nc_end *e) { nc_end_leave(e, NC_END_ASLEEP); }

static inline void nc_end_awake(nc_end *e)
{
    atomic_exchange_explicit(&e->state, NC_END_BUSY, memory_order_seq_cst); /* N1; then it looks at closed */
}

/* True if nobody was attached: one thread after the other has the end. */
static inline bool nc_end_attach(nc_end *e)
{
    bool nobody = false;
    return atomic_compare_exchange_strong_explicit(&e->attached, &nobody, true, memory_order_acquire,
                                                   memory_order_relaxed); /* N3 */
}

/* True if somebody was attached. */
static inline bool nc_end_detach(nc_end *e)
{
    return atomic_exchange_explicit(&e->attached, false, memory_order_release); /* N3 */
}

static inline bool nc_end_attached(nc_end *e)
{
    return atomic_load_explicit(&e->attached, memory_order_acquire); /* N3 */
}

/* ---- departing: the thread or the closer ------------------------------------------------------------- */

/* True for the first that departs: it takes the end out of the channel. */
static inline bool nc_end_depart(nc_end *e)
{
    return !atomic_exchange_explicit(&e->left, true, memory_order_release); /* N2 */
}

/* Has the end departed?  Then the endpoint that was lent is its owner's again. */
static inline bool nc_end_has_left(nc_end *e) { return atomic_load_explicit(&e->left, memory_order_acquire); /* N2 */ }

/* ---- the closer ------------------------------------------------------------------------------------- */

static inline void nc_end_close(nc_end *e) { atomic_store_explicit(&e->closed, true, memory_order_seq_cst); /* N1 */ }

/* After closing, and after calling the thread if it is in line: the state, once it is not BUSY.  If it is CLAIMED, the
 * thread will depart. */
static inline uint32_t nc_end_await(nc_end *e)
{
    unsigned spins = 0;
    uint32_t state;
    while ((state = atomic_load_explicit(&e->state, memory_order_seq_cst)) == NC_END_BUSY) /* N1 */
        nc_relax(&spins);
    return state;
}

/* The thread is gone for good, or said to be.  True if it left a claim open: the closer then ends the claim, and leaves
 * by NC_END_IDLE. */
static inline bool nc_end_bury(nc_end *e)
{
    uint32_t claimed = NC_END_CLAIMED;
    return atomic_compare_exchange_strong_explicit(&e->state, &claimed, NC_END_BUSY, memory_order_acquire,
                                                   memory_order_relaxed); /* N1 */
}

#endif
