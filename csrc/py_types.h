/* py_types.h: the structures that the binding shares: a channel, its endpoints, a call.
 *
 * The way of a message: Sender method (py_ring.c, py_log.c; of a batch py_batch.c) -> Call -> its look -> nc_chan.h.  A
 * call that has to wait goes through py_await.c or py_park.c, which know calls only by their `look`. */
#ifndef PY_TYPES_H
#define PY_TYPES_H

#include "py_block.h"

#include "nc_end.h"

/* ---- channels and endpoints ------------------------------------------------------------------------- */

/* What code outside of Python has been lent: a native end.  Whoever drops the last reference frees it, with or without
 * a GIL. */
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
    PyObject *weakrefs;           /* NULL, or that in st->chans */
    core_state *st;
    nc_chan *block;               /* a reference; `ring`, `log`, `gate` are copies of its pointers, for speed */
    nc_ring *ring;
    nc_log *log;
    nc_gate *gate;
    const struct payload_kind *payload;
    _Atomic unsigned rivals[SIDES]; /* see count_rivals() in py_line.c; a hint, relaxed */
    birth *births;                /* of the ends made in debug mode; in the channel's critical section */
    chan_kind kind;
    _Atomic bool listed;          /* in st->chans; relaxed */
    unsigned long thread;         /* LOCAL: the one thread that the channel belongs to; else 0 */
    PyObject *watches;            /* loops that hear its lanes, see py_watch.c; this and the next in its section */
    nc_box *watched;              /* the box of one of them, compared only; or NULL */
    nc_tally tally;               /* of objects, for nexus_channels.queue: under gate[RX]'s lock */
} Chan;

typedef struct Endpoint {
    PyObject_HEAD
    Chan *chan;                   /* until the endpoint is freed */
    PyObject *weakrefs;
    uint8_t side;
    bool closed;                  /* closed or dropped; this, `deferred`, `claim`: in its critical section */
    bool deferred;                /* a call in line may wait for `claim` to end */
    _Atomic int8_t brisk;         /* of lanes: so many waits of tasks stay awake, or, less than 0, do not */
    _Atomic uint16_t spin;        /* pauses worth spending before a blocking wait sleeps */
    _Atomic uint16_t wary;        /* of lanes: so many blocking waits do not spin; these three are hints, relaxed */
    struct Claim *claim;          /* the open claim that uses it; borrowed, as the claim refers to it */
    lease *lent;                  /* the native end that uses or used it, a reference: ask endpoint_leased() */
    birth *birth;                 /* where it was made, in debug mode; else NULL */
    uint64_t refused;             /* sender of bytes: what a try needed in vain, until arm(); 0: nothing; likewise */
    nc_box *rested;               /* of lanes: the parker of the last wait, for the next; or NULL; likewise */
    _Atomic uint64_t chosen; /* grows whenever a select has chosen it; see py_select.c; a hint, relaxed */
} Endpoint;

/* After something was published: call those on that side who wait for it. */
static inline void chan_notify(Chan *c, int side, nc_box **kicks)
{
    nc_chan_notify(c->block, side, NC_GLANCE, core_generation(), kicks);
}

/* ---- calls: one send or receive, however it waits --------------------------------------------------- */

typedef struct Call {
    const struct call_op *op;
    Endpoint *ep; /* strong, unless the call lives on the stack of a method of ep */
    PyObject *value; /* to send: one value, or a list; strong, NULL once it is in the ring */
    Py_ssize_t n; /* recv_many: the most; send_many: how many are sent; claim: bytes */
    uint64_t least, share; /* for the waiter: what it needs, and the most that it takes */
    PyObject *entered; /* async with tx.claim(n): the claim, from its start to its end; strong */
    bool waiting; /* it has begun to wait: from now on a lent endpoint blocks it instead of raising BusyError */
    bool sleeps; /* after a look in vain it goes to sleep on what other processes ring, so a look need not hear it */
    PyObject *source; /* send_many: the iterator that `value` is filled from; strong, NULL once it ended */
    PyObject *failure; /* the exception that ended `source`, to be raised when all before it is sent; strong */
} Call;

typedef struct call_op {
    const char *name, *qualname;
    /* Try once, holding the endpoint.  `called`: it is this call's turn; else the call must leave to those in line what
     * is owed to them.  Boxes that need a kick are chained to `kicks`.  May run Python code, before it takes anything.
     */
    step (*look)(Call *, bool called, PyObject **out, nc_box **kicks);
    /* Raise the time-out error of this call. */
    void (*timed_out)(Call *);
    bool claims; /* the awaitable is to be a ClaimAwaitable */
    bool paced; /* counted in py_pace.c: a task that awaits it may have to yield */
    /* On builds with a GIL, where most calls end: the result, a new reference, if the call can end at once and nobody
     * has to be notified.  Else NULL without an exception; the caller then looks.  Of bytes, the caller still notifies
     * native threads that began to wait meanwhile.  The pointer is NULL for calls without this plain way. */
    PyObject *(*at_once)(Call *);
    const struct many_lines *lines; /* NULL: the call waits in one line; see py_await.h */
} call_op;

/* How batches of objects and of bytes differ; the rest is in py_call.c. */
enum { AWAITED, BLOCKING, FORMS };
typedef struct payload_kind {
    PyObject *(*checked)(Chan *, PyObject *value); /* the member for a value, a new reference; NULL: the value itself */
    PyObject *(*as_passed)(PyObject *); /* the value passed for a member, borrowed; NULL: the member itself */
    uint64_t (*room_for)(PyObject *); /* how much of the ring a member takes; NULL: 1 */
    uint64_t least; /* how much of the ring any member takes at least */
    const call_op *recv, *send, *claim; /* of one item, as arms of a select; claim: NULL if there are no claims */
    call_op send_many[FORMS], recv_many[FORMS];
} payload_kind;

#endif
