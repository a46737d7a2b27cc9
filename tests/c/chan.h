/* chan.h: what the stress programs and the models put around nc_chan.h: endpoints, values, threads that wait.
 *
 * Receivers share one endpoint and so one lock; so do the senders of a channel with one producer; the senders of
 * one with many have an endpoint each.  Waiting threads sleep on a semaphore.  With CHAN_OF_BYTES the channel is one of
 * bytes.  The stress programs and the models bring their own semaphore and parkers.
 */
#ifndef CHAN_H
#define CHAN_H

#include "nc_chan.h"

enum { TX = NC_TX, RX = NC_RX, SIDES = NC_SIDES };
enum { CHAN_DONE = NC_DONE, CHAN_OVER = NC_DISCONNECTED, CHAN_BLOCKED = NC_BLOCKED, CHAN_GAVE_UP };
typedef int chan_step;

typedef struct chan {
    nc_chan in;
    nc_gate gate[SIDES];
    nc_ring ring;               /* of objects */
    nc_lock user[SIDES];        /* the endpoint's; user[TX] only with one producer */
    bool many;
    _Atomic uint64_t discarded; /* messages, once the receiver has left */
} chan;

/* What is sent and received. */
#ifdef CHAN_OF_BYTES
typedef struct chan_value {
    nc_record record; /* to send: of the size that it needs */
    uint64_t number;  /* the user's */
    bool claim;       /* not copied in or out: it stays open until chan_commit, chan_abort or chan_release */
} chan_value;

/* The user of this header defines: write a record that was claimed, all of it or less, and say how much; read one. */
static uint64_t chan_write(chan_value *value);
static void chan_read(chan_value *value);
#else
typedef void *chan_value;
#endif

/* ---- a thread that waits ------------------------------------------------------------------------------ */

typedef struct parker {
    nc_box box;
    nc_waiter waiter;
    struct parker_bed *bed;
} parker;

/* The user of this header defines: wake it; sleep, false if it gave up; free it. */
static void parker_kick(parker *p);
static bool parker_sleep(parker *p, double patience);
static void parker_free(parker *p);

static inline parker *parker_of(nc_box *box) { return (parker *)(void *)((char *)box - offsetof(parker, box)); }

static inline void parker_init(parker *p, void *owner)
{
    nc_box_init(&p->box);
    p->waiter.box = &p->box;
    p->waiter.owner = owner;
    p->waiter.least = p->waiter.share = 1;
    p->waiter.prev = p->waiter.next = p->waiter.mail_next = NULL;
    atomic_store_explicit(&p->waiter.state, NC_OUTSIDE, memory_order_relaxed); /* nobody else knows it yet */
    atomic_store_explicit(&p->waiter.post, NC_POST_NONE, memory_order_relaxed);
}

static inline void parker_unref(parker *p)
{
    if (nc_box_unref(&p->box))
        parker_free(p);
}

/* Take the mail off, whatever was called meanwhile: what stays in it would get no further kick. */
static inline void parker_receive(parker *p)
{
    for (nc_waiter *w = nc_box_take(&p->box), *next; w != NULL; w = next) {
        next = w->mail_next;
        nc_post_receive(w);
    }
}

/* ---- endpoints ---------------------------------------------------------------------------------------- */

static inline void chan_start(chan *c, bool many)
{
    c->in.gate = c->gate;
    nc_chan_init(&c->in, 0, false);
    c->many = many;
    atomic_store_explicit(&c->discarded, 0, memory_order_relaxed); /* nobody else knows it yet */
    for (int side = 0; side < SIDES; side++) {
        nc_lock_init(&c->user[side]);
        nc_chan_join(&c->in, side);
    }
}

#ifdef CHAN_OF_BYTES
static inline void chan_init(chan *c, nc_log *log, uint64_t capacity, uint64_t start, bool many)
{
    nc_log_init(log, capacity, many, start);
    c->in.ring = NULL;
    c->in.log = log;
    chan_start(c, many);
}
#else
static inline void chan_init(chan *c, void *_Atomic *slots, uint64_t capacity, uint64_t start, bool many)
{
    nc_ring_init(&c->ring, slots, capacity, start);
    c->in.ring = &c->ring;
    c->in.log = NULL;
    chan_start(c, many);
}
#endif

static inline void chan_destroy(chan *c)
{
    nc_chan_destroy(&c->in);
    for (int side = 0; side < SIDES; side++)
        nc_lock_destroy(&c->user[side]);
}

static inline void chan_enter(chan *c, int side)
{
    if (side == RX || !c->many)
        nc_lock_enter(&c->user[side]);
}

static inline void chan_exit(chan *c, int side)
{
    if (side == RX || !c->many)
        nc_lock_exit(&c->user[side]);
}

static inline void chan_notify(chan *c, int side, nc_box **kicks)
{
    nc_chan_notify(&c->in, side, memory_order_seq_cst, 0, kicks);
}

/* ---- one try ------------------------------------------------------------------------------------------ */

static inline nc_way chan_way(const chan *c) { return (nc_way){c->many, memory_order_seq_cst, memory_order_seq_cst}; }

/* As the binding's looks do it.  `called`: it is the caller's turn; else it goes behind those who wait. */
#ifndef CHAN_OF_BYTES
static inline chan_step chan_look(chan *c, int side, bool called, chan_value *value, nc_box **kicks)
{
    uint64_t n;
    if (side == TX)
        return (chan_step)nc_chan_put(&c->in, value, 1, called, chan_way(c), 0, &n, kicks);
    return (chan_step)nc_chan_take(&c->in, value, 1, called, chan_way(c), 0, &n, kicks);
}
#else
static bool chan_glances; /* by lanes: a look leaves out what is to be heard, as whoever looks in vain sleeps on that */

static inline chan_step chan_look(chan *c, int side, bool called, chan_value *value, nc_box **kicks)
{
    nc_record *record = &value->record;
    chan_step step = side == TX ? (chan_step)nc_chan_claim(&c->in, record->size, called, 0, record)
                                : (chan_step)nc_chan_show(&c->in, called, !chan_glances, 0, record, kicks);
    bool copied = step == CHAN_DONE && !value->claim;
    if (side == TX) {
        if (copied)
            nc_chan_commit(&c->in, record, chan_write(value), memory_order_seq_cst);
        if (copied || step == CHAN_BLOCKED)
            chan_notify(c, RX, kicks);
    } else if (copied) {
        chan_read(value);
        nc_chan_release(&c->in, record, memory_order_seq_cst);
        nc_chan_given_back(&c->in, 0, kicks);
    } else if (step == CHAN_DONE) {
        c->in.reading = true;
    }
    return step;
}
#endif

static inline void chan_count(chan *c, uint64_t messages)
{
    atomic_fetch_add_explicit(&c->discarded, messages, memory_order_relaxed); /* looked at when all have ended */
}

/* What the binding does when its hands are free: kick, and discard what nobody will receive. */
static inline void chan_deliver(chan *c, nc_box *kicks)
{
    while (kicks != NULL) {
        NC_STEP("deliver: gate left, not kicked");
        parker *p = parker_of(nc_box_unchain(&kicks));
        parker_kick(p);
        parker_unref(p);
    }
    if (!nc_chan_orphaned(&c->in))
        return;
#ifdef CHAN_OF_BYTES
    chan_count(c, nc_chan_discard_bytes(&c->in, 0));
#else
    void *value;
    while (nc_chan_discard(&c->in, &value, 1, chan_way(c), 0) > 0)
        chan_count(c, 1);
#endif
}

static inline chan_step chan_try(chan *c, int side, chan_value *value)
{
    nc_box *kicks = NULL;
    chan_enter(c, side);
    chan_step step = chan_look(c, side, false, value, &kicks);
    chan_exit(c, side);
    chan_deliver(c, kicks);
    return step;
}

/* ---- in line ------------------------------------------------------------------------------------------ */

/* Take a place in line or keep the one held, and look again: true if it is the waiter's turn after all. */
static inline bool chan_line_up(chan *c, int side, nc_waiter *w, nc_box **kicks)
{
    return nc_chan_line_up(&c->in, side, w, (nc_need){w->least, w->share}, false, true, 0, kicks) == NC_TURN;
}

static inline void chan_line_leave(chan *c, int side, nc_waiter *w, nc_box **kicks)
{
    nc_chan_leave_line(&c->in, side, w, false, 0, kicks);
}

/* Wait in line with a parker that was set up for this, until done, over, or out of patience. */
static inline chan_step chan_park(chan *c, int side, chan_value *value, parker *p, double patience)
{
    for (bool enrolled = false;; enrolled = true) {
        chan_step step = CHAN_BLOCKED;
        nc_box *kicks = NULL;
        bool turn = false;
        chan_enter(c, side);
        parker_receive(p);
        if (enrolled && nc_waiter_state_of(&p->waiter) == NC_CALLED)
            step = chan_look(c, side, true, value, &kicks);
        if (step == CHAN_BLOCKED)
            turn = chan_line_up(c, side, &p->waiter, &kicks);
        chan_exit(c, side);
        chan_deliver(c, kicks);
        if (step == CHAN_BLOCKED && !turn && !parker_sleep(p, patience) && !nc_post_waits(&p->waiter))
            step = CHAN_GAVE_UP;
        if (step == CHAN_BLOCKED)
            continue;
        kicks = NULL;
        chan_enter(c, side);
        chan_line_leave(c, side, &p->waiter, &kicks);
        chan_exit(c, side);
        chan_deliver(c, kicks);
        return step;
    }
}

/* As a notifier does it: arm, wait, clear, try, until the try succeeds or the other side is gone.  The parker's waiter
 * was set up for this, with share 0, and may stand in line already. */
static inline chan_step chan_observe(chan *c, int side, chan_value *value, parker *p)
{
    chan_step step = CHAN_BLOCKED;
    while (step == CHAN_BLOCKED) {
        nc_box *kicks = NULL;
        bool turn = false;
        chan_enter(c, side);
        if (nc_waiter_state_of(&p->waiter) == NC_OUTSIDE) {
            parker_receive(p);
            turn = chan_line_up(c, side, &p->waiter, &kicks);
        }
        chan_exit(c, side);
        chan_deliver(c, kicks);
        if (!turn)
            parker_sleep(p, 0);
        kicks = NULL;
        chan_line_leave(c, side, &p->waiter, &kicks);
        parker_receive(p);
        chan_deliver(c, kicks);
        step = chan_try(c, side, value);
    }
    return step;
}

/* ---- the ends of claims, which have lent themselves the endpoint -------------------------------------- */

#ifdef CHAN_OF_BYTES
static inline void chan_abort(chan *c, const nc_record *record)
{
    nc_box *kicks = NULL;
    chan_notify(c, nc_chan_abort(&c->in, record), &kicks);
    chan_deliver(c, kicks);
}

static inline chan_step chan_commit(chan *c, const nc_record *record, uint64_t n)
{
    nc_box *kicks = NULL;
    if (nc_gate_over_seen(&c->gate[TX])) {
        chan_abort(c, record);
        return CHAN_OVER;
    }
    nc_chan_commit(&c->in, record, n, memory_order_seq_cst);
    chan_notify(c, RX, &kicks);
    chan_deliver(c, kicks);
    return CHAN_DONE;
}

/* `left`: the receiver has left meanwhile. */
static inline void chan_release(chan *c, const nc_record *record, bool left)
{
    nc_box *kicks = NULL;
    chan_count(c, nc_chan_end_read(&c->in, record, left, 0));
    nc_chan_given_back(&c->in, 0, &kicks);
    chan_deliver(c, kicks);
}
#endif

/* ---- leaving ------------------------------------------------------------------------------------------ */

/* One of several senders goes, on whose endpoint nobody waits. */
static inline void chan_close_sender(chan *c)
{
    nc_box *kicks = NULL;
    nc_chan_leave(&c->in, TX, 0, &kicks);
    chan_deliver(c, kicks);
}

/* The one endpoint of a side goes. */
static inline void chan_leave(chan *c, int side)
{
    nc_box *kicks = NULL;
    nc_chan_call_owner(&c->in, side, c, 0, &kicks);
    nc_chan_leave(&c->in, side, 0, &kicks);
    chan_deliver(c, kicks);
}

#endif
