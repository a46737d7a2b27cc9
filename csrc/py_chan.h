/* py_chan.h: a channel and its endpoints, as Python has them; see py_chan.c. */
#ifndef PY_CHAN_H
#define PY_CHAN_H

#include "py_core.h"

#include "nc_end.h"

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

PyObject *chan_open(PyObject *module, PyObject *const *args, Py_ssize_t n);
/* The receiver of a channel of bytes of its own, for a call that has no endpoint any more; a new reference. */
Endpoint *chan_lone_receiver(PyObject *module);
/* After something was published: does anybody on the other side want to know? */
static inline void tell(Chan *c, int side, nc_box **kicks)
{
    nc_chan_tell(c->block, side, NC_GLANCE, core_generation(), kicks);
}
/* A new endpoint of a channel. */
Endpoint *endpoint_new(Chan *c, int side);
/* Close it, holding the endpoint or with the last reference to it.  Whom it calls is chained to `kicks`. */
void endpoint_close_held(Endpoint *ep, nc_box **kicks);
/* Does the channel belong to another thread?  Then WrongThread is set. */
bool chan_off_thread(Chan *c);
/* Can the endpoint be used at all?  STEP_READY, or STEP_ERROR with an exception set. */
step endpoint_check(Endpoint *ep);

#endif
