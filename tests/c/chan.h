/* chan.h: a channel as a binding builds one from nc_gate.h and nc_ring.h, or with CHAN_OF_BYTES nc_log.h: who calls
 * what, in which order.
 *
 * Receivers share one endpoint and so one lock; so do the senders of a channel with one producer; the senders of
 * one with many have an endpoint each.  Waiting threads sleep on a semaphore.  Used by the stress
 * programs, and by the models, which bring their own semaphore and parkers.
 */
#ifndef CHAN_H
#define CHAN_H

#include "nc_gate.h"
#ifdef CHAN_OF_BYTES
#include "nc_log.h"
#else
#include "nc_ring.h"
#endif

enum { TX, RX, SIDES };

typedef enum { CHAN_DONE, CHAN_BLOCKED, CHAN_OVER, CHAN_GAVE_UP } chan_step;

typedef struct chan {
#ifdef CHAN_OF_BYTES
    nc_log *log;
#else
    nc_ring ring;
#endif
    nc_gate gate[SIDES];
    nc_lock user[SIDES];    /* the endpoint's; user[TX] only with one producer */
    bool many;
    _Atomic uint32_t senders;
    uint64_t discarded;     /* under gate[RX]'s lock, once the receiver has left */
} chan;

/* What is sent and received. */
#ifdef CHAN_OF_BYTES
typedef struct chan_value {
    nc_record record; /* to send: of the size that it needs */
    uint64_t number;  /* the user's */
    bool claim;       /* not copied in or out: it stays open until chan_commit, chan_abort or chan_release */
} chan_value;
#else
typedef void *chan_value;
#endif

typedef struct parker { /* a thread that waits, and how it sleeps */
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

/* With the ring set up already. */
static inline void chan_init_gates(chan *c, bool many)
{
    for (int side = 0; side < SIDES; side++) {
        nc_gate_init(&c->gate[side], 0);
        nc_lock_init(&c->user[side]);
    }
    c->many = many;
    c->discarded = 0;
    atomic_store_explicit(&c->senders, 1, memory_order_relaxed); /* nobody else knows it yet */
}

static inline void chan_destroy(chan *c)
{
    for (int side = 0; side < SIDES; side++) {
        nc_lock_destroy(&c->gate[side].lock);
        nc_lock_destroy(&c->user[side]);
    }
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

static inline uint64_t chan_have(chan *c, int side);

/* Tell those on `side` who can go on now, if the flag says that somebody wants to know. */
static inline void chan_tell(chan *c, int side, nc_box **kicks)
{
    NC_STEP("tell: published, flag not seen");
    nc_gate *g = &c->gate[side];
    if (!(nc_gate_flag(g, memory_order_seq_cst) & NC_WATCHED)) /* W2 */
        return;
    NC_STEP("tell: flag seen, gate not entered");
    nc_gate_enter(g, 0);
    nc_gate_call_all(g, chan_have(c, side), kicks);
    nc_gate_exit(g);
}

/* ---- of objects, or of bytes ------------------------------------------------------------------------------ */

#ifndef CHAN_OF_BYTES

static inline void chan_init(chan *c, void *_Atomic *slots, uint64_t capacity, uint64_t start, bool many)
{
    nc_ring_init(&c->ring, slots, capacity, start);
    chan_init_gates(c, many);
}

static inline uint64_t chan_have(chan *c, int side)
{
    uint64_t len = nc_ring_len(&c->ring);
    if (side == RX)
        return len;
    return nc_gate_over(&c->gate[TX]) ? UINT64_MAX : c->ring.capacity - len;
}

static inline bool chan_is_empty(chan *c) { return nc_ring_len(&c->ring) == 0; }

/* Put a value in, or take one out, and tell the other side. */
static inline bool chan_move(chan *c, int side, chan_value *value, nc_box **kicks)
{
    uint64_t n = side == RX ? nc_ring_pop_sc(&c->ring, value, 1, memory_order_seq_cst)
                 : c->many  ? nc_ring_push_mp(&c->ring, value, 1)
                            : nc_ring_push_sp(&c->ring, value, 1, memory_order_seq_cst);
    if (n > 0)
        chan_tell(c, 1 - side, kicks);
    return n > 0;
}

static inline bool chan_drop_one(chan *c)
{
    void *value;
    return nc_ring_pop_sc(&c->ring, &value, 1, memory_order_seq_cst) == 1;
}

#else

/* The user of this header defines: write a record that was claimed, all of it or less, and say how much; read one. */
static uint64_t chan_write(chan_value *value);
static void chan_read(chan_value *value);

static inline void chan_init(chan *c, nc_log *log, uint64_t capacity, uint64_t start, bool many)
{
    c->log = log;
    nc_log_init(log, capacity, many, start);
    chan_init_gates(c, many);
}

static inline uint64_t chan_have(chan *c, int side)
{
    if (side == RX)
        return nc_log_ready(c->log);
    return nc_gate_over(&c->gate[TX]) ? UINT64_MAX : c->log->capacity - nc_log_used(c->log);
}

static inline bool chan_is_empty(chan *c) { return nc_log_used(c->log) == 0; }

static inline void chan_publish(chan *c, const nc_record *record, uint64_t n, nc_box **kicks)
{
    if (c->many)
        nc_log_commit_mp(c->log, record, n, memory_order_seq_cst);
    else
        nc_log_commit_sp(c->log, record, n, memory_order_seq_cst);
    chan_tell(c, RX, kicks);
}

/* The consumer has a skip to step over; or, with one producer, what was claimed is simply free again. */
static inline void chan_give_up(chan *c, const nc_record *record, nc_box **kicks)
{
    if (c->many)
        nc_log_abort_mp(c->log, record, memory_order_seq_cst);
    chan_tell(c, c->many ? RX : TX, kicks);
}

static inline void chan_give_back(chan *c, const nc_record *record, nc_box **kicks)
{
    nc_log_release_sc(c->log, record, memory_order_seq_cst);
    chan_tell(c, TX, kicks);
}

static inline bool chan_move(chan *c, int side, chan_value *value, nc_box **kicks)
{
    nc_record *record = &value->record;
    nc_result result;
    if (side == TX) {
        uint64_t n = record->size;
        result = c->many ? nc_log_claim_mp(c->log, n, record) : nc_log_claim_sp(c->log, n, record);
        if (result == NC_OK && !value->claim)
            chan_publish(c, record, chan_write(value), kicks);
        return result == NC_OK;
    }
    bool freed;
    result = nc_log_peek_sc(c->log, record, &freed, memory_order_seq_cst);
    if (freed)
        chan_tell(c, TX, kicks);
    if (result == NC_OK && !value->claim) {
        chan_read(value);
        chan_give_back(c, record, kicks);
    }
    return result == NC_OK;
}

static inline bool chan_drop_one(chan *c)
{
    nc_record record;
    bool freed;
    if (nc_log_peek_sc(c->log, &record, &freed, memory_order_seq_cst) != NC_OK)
        return false;
    nc_log_release_sc(c->log, &record, memory_order_seq_cst);
    return true;
}

#endif

/* ---- one call ----------------------------------------------------------------------------------------------- */

/* Try once.  `called`: it is the caller's turn; else it must go behind those who wait. */
static inline chan_step chan_look(chan *c, int side, bool called, chan_value *value, nc_box **kicks)
{
    bool over = nc_gate_over_seen(&c->gate[side]); /* before the last look */
    if (side == TX && over)
        return CHAN_OVER;
    if (!called && nc_gate_crowd(&c->gate[side]) >= NC_HEAD)
        return CHAN_BLOCKED;
    if (chan_move(c, side, value, kicks))
        return CHAN_DONE;
    return over ? CHAN_OVER : CHAN_BLOCKED;
}

/* Take values off the ring, the receiver being gone: who holds the gate has the consumer's part. */
static inline void chan_discard(chan *c)
{
    nc_gate_enter(&c->gate[RX], 0);
    while (chan_have(c, RX) > 0) /* W3, after C2: what a look behind a skip does not see is asked for again */
        c->discarded += chan_drop_one(c);
    nc_gate_exit(&c->gate[RX]);
}

static inline void chan_settle(chan *c, nc_box *kicks)
{
    while (kicks != NULL) {
        NC_STEP("settle: gate left, not kicked");
        parker *p = parker_of(nc_box_unchain(&kicks));
        parker_kick(p);
        parker_unref(p);
    }
    if (nc_gate_flag(&c->gate[RX], memory_order_relaxed) & NC_GONE) /* W2 was before */
        chan_discard(c);
}

/* Take a place in line or keep the one held, and look again: true if it is the waiter's turn after all. */
static inline bool chan_line_up(chan *c, int side, nc_waiter *w, bool enrolled, nc_box **kicks)
{
    nc_gate *g = &c->gate[side];
    nc_gate_enter(g, 0);
    if (!enrolled)
        nc_gate_enrol(g, w);
    else if (nc_waiter_state_of(w) == NC_CALLED)
        nc_gate_rejoin(g, w);
    NC_STEP("line_up: enrolled, not looked again");
    uint64_t have = chan_have(c, side); /* W3 */
    bool turn = nc_gate_my_turn(g, w, have);
    nc_gate_call_all(g, have, kicks);
    nc_gate_exit(g);
    return turn || nc_waiter_state_of(w) == NC_CALLED;
}

static inline void chan_line_leave(chan *c, int side, nc_waiter *w, nc_box **kicks)
{
    nc_gate *g = &c->gate[side];
    nc_gate_enter(g, 0);
    nc_gate_leave(g, w);
    nc_gate_call_all(g, chan_have(c, side), kicks);
    nc_gate_exit(g);
}

/* Wait in line with a parker that was set up for this, until done, over, or out of patience. */
static inline chan_step chan_park(chan *c, int side, chan_value *value, parker *p, double patience)
{
    bool enrolled = false;
    for (;;) {
        chan_step step = CHAN_BLOCKED;
        nc_box *kicks = NULL;
        bool turn = false;
        chan_enter(c, side);
        parker_receive(p);
        if (enrolled && nc_waiter_state_of(&p->waiter) == NC_CALLED)
            step = chan_look(c, side, true, value, &kicks);
        if (step == CHAN_BLOCKED)
            turn = chan_line_up(c, side, &p->waiter, enrolled, &kicks);
        enrolled = true;
        chan_exit(c, side);
        chan_settle(c, kicks);
        if (step == CHAN_BLOCKED && !turn && !parker_sleep(p, patience) && !nc_post_waits(&p->waiter))
            step = CHAN_GAVE_UP;
        if (step == CHAN_BLOCKED)
            continue;
        kicks = NULL;
        chan_enter(c, side);
        chan_line_leave(c, side, &p->waiter, &kicks);
        chan_exit(c, side);
        chan_settle(c, kicks);
        return step;
    }
}

static inline chan_step chan_try(chan *c, int side, chan_value *value)
{
    nc_box *kicks = NULL;
    chan_enter(c, side);
    chan_step step = chan_look(c, side, false, value, &kicks);
    chan_exit(c, side);
    chan_settle(c, kicks);
    return step;
}

#ifdef CHAN_OF_BYTES
/* The ends of claims, which have lent themselves the endpoint. */
static inline chan_step chan_commit(chan *c, const nc_record *record, uint64_t n)
{
    nc_box *kicks = NULL;
    bool gone = nc_gate_over_seen(&c->gate[TX]);
    if (gone)
        chan_give_up(c, record, &kicks);
    else
        chan_publish(c, record, n, &kicks);
    chan_settle(c, kicks);
    return gone ? CHAN_OVER : CHAN_DONE;
}

static inline void chan_abort(chan *c, const nc_record *record)
{
    nc_box *kicks = NULL;
    chan_give_up(c, record, &kicks);
    chan_settle(c, kicks);
}

static inline void chan_release(chan *c, const nc_record *record)
{
    nc_box *kicks = NULL;
    chan_give_back(c, record, &kicks);
    chan_settle(c, kicks);
}
#endif

/* The last endpoint of a side goes. */
static inline void chan_leave(chan *c, int side)
{
    nc_box *kicks = NULL;
    nc_gate *mine = &c->gate[side], *theirs = &c->gate[1 - side];
    nc_gate_enter(mine, 0);
    nc_gate_call_owner(mine, c, &kicks);
    nc_gate_exit(mine);
    nc_gate_enter(theirs, 0);
    nc_gate_end(theirs); /* C1 */
    nc_gate_call_all(theirs, chan_have(c, 1 - side), &kicks);
    nc_gate_exit(theirs);
    NC_STEP("leave: the other side is told, not gone yet");
    nc_gate_enter(mine, 0);
    nc_gate_abandon(mine); /* C2: before the ring is emptied */
    nc_gate_exit(mine);
    chan_settle(c, kicks);
}

/* One of several senders goes. */
static inline void chan_close_sender(chan *c)
{
    if (atomic_fetch_sub_explicit(&c->senders, 1, memory_order_acq_rel) == 1) /* C3 */
        chan_leave(c, TX);
}

#endif
