/* py_types.h: the structures that the binding shares: a channel, its endpoints, a call.
 *
 * A message on its way: Sender method (py_ring.c, py_log.c; of a batch py_batch.c) -> Call -> its look -> nc_chan.h;
 * what has to wait goes through py_await.c and py_park.c, which know calls only by their `look`. */
#ifndef PY_TYPES_H
#define PY_TYPES_H

#include "py_core.h"

#include "nc_end.h"

/* ---- channels and endpoints ------------------------------------------------------------------------- */

/* The part of a channel that is no Python object, its block: one allocation, with gates and ring behind it.  Native
 * code may hold on to it when all else is gone; whoever drops the last reference frees it, with or without a GIL. */
static inline void block_unref(nc_chan *block)
{
    if (!nc_chan_unref(block))
        return;
    nc_chan_destroy(block);
    PyMem_RawFree(block->memory);
}

/* What somebody outside of Python has been lent, a native end: freed by whoever drops the last reference, with or
 * without a GIL. */
typedef struct lease {
    _Atomic uint32_t refs;
    nc_end life;                  /* who may touch it, and whether what was lent is given back */
    void (*drop)(struct lease *); /* free it */
} lease;

static inline void lease_ref(lease *l)
{
    atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed); /* the caller holds one already */
}

static inline void lease_unref(lease *l)
{
    if (atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) == 1) /* B1 -> B1 */
        l->drop(l);
}

typedef struct birth birth;

typedef struct Chan {
    PyObject_HEAD
    PyObject *module;             /* keeps `st` alive, whatever the collector clears first */
    core_state *st;
    nc_chan *block;               /* a reference; the next three are copies of its pointers, for the shortest way */
    nc_ring *ring;
    nc_log *log;
    nc_gate *gate;
    const struct payload_kind *payload;
    _Atomic unsigned rivals[SIDES]; /* see count_rivals(); written under the gate's lock or as a hint, relaxed */
    birth *births;                /* of its ends, made in debug mode; in the channel's critical section */
    chan_kind kind;
    unsigned long thread;         /* LOCAL: the one thread it belongs to; else 0 */
} Chan;

typedef struct Endpoint {
    PyObject_HEAD
    Chan *chan;                   /* until the endpoint is freed */
    PyObject *weakrefs;
    uint8_t side;
    bool closed;                  /* by its user or by its end; this and the next two in its critical section */
    bool deferred;                /* somebody in line may wait for `claim` to end */
    struct Claim *claim;          /* the open claim that has borrowed it; borrowed: the claim refers to it */
    lease *lent;                  /* the native end that has, a reference; maybe given back: ask endpoint_leased() */
    birth *birth;                 /* where it was made, in debug mode; else NULL */
    _Atomic unsigned spin;        /* pauses worth spending before a blocking wait sleeps */
} Endpoint;

/* Has a native end still borrowed the endpoint, whose `lent` is set?  Else it is given back.  Holding the endpoint. */
static inline bool endpoint_leased(Endpoint *ep)
{
    if (!nc_end_has_left(&ep->lent->life))
        return true;
    lease_unref(ep->lent);
    ep->lent = NULL;
    return false;
}

/* After something was published: call those on that side who wait for it. */
static inline void chan_notify(Chan *c, int side, nc_box **kicks)
{
    nc_chan_notify(c->block, side, NC_GLANCE, core_generation(), kicks);
}

/* ---- calls: one send or receive, however it waits --------------------------------------------------- */

typedef struct Call {
    const struct call_op *op;
    Endpoint *ep; /* strong, unless the call lives on the stack of a method of ep */
    PyObject *value; /* what to send: one value, or a list; strong, NULL once it is in the ring */
    Py_ssize_t n; /* recv_many: at most; send_many: how many went; claim: bytes */
    uint64_t least, share; /* for the waiter: needs, and will take at most */
    PyObject *entered; /* async with tx.claim(n): the claim, from its start to its end; strong */
    bool waiting; /* it has begun to wait: a lent endpoint is waited for, too */
    PyObject *source; /* send_many: the iterator that `value` is filled from; strong, NULL once it ended */
    PyObject *failure; /* what `source` ended with: to be raised when all that came before is sent; strong */
} Call;

typedef struct call_op {
    const char *name, *qualname;
    /* Try once, holding the endpoint.  `called`: it is this call's turn; else it must go behind those who
     * wait.  Whom it made room for, or gave something to, is chained to `kicks`. */
    step (*look)(Call *, bool called, PyObject **out, nc_box **kicks);
    /* Raise what this call raises when its time is up. */
    void (*timed_out)(Call *);
    bool claims; /* the awaitable is to be a ClaimAwaitable */
    bool paced; /* it counts when a task holds its loop by what is ready, and may have to yield */
    /* With a GIL, where most calls end: the result of a look that nobody has to be notified of, a new reference;
     * or NULL without an exception, and the look is still to come.  Of bytes, the caller notifies a native thread that
     * has begun to wait meanwhile.  NULL where there is no such plain way. */
    PyObject *(*at_once)(Call *);
} call_op;

/* What objects and bytes do differently in a batch; the rest is py_call.c's. */
enum { AWAITED, BLOCKING, FORMS };
typedef struct payload_kind {
    PyObject *(*checked)(Chan *, PyObject *value); /* what is put into a batch for it, a new reference; NULL: itself */
    PyObject *(*as_passed)(PyObject *); /* what a member of a batch was passed as, borrowed; NULL: itself */
    uint64_t (*room_for)(PyObject *); /* what a member of a batch takes in the ring; NULL: 1 */
    uint64_t least; /* what a member takes at least */
    call_op send_many[FORMS], recv_many[FORMS];
} payload_kind;

#endif
