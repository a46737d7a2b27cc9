/* nc_lanes.h: the lanes by which one side of a channel reaches other processes: one to write, or any number to read.
 * Touches nc_lane.h.
 *
 *      here: senders     gate[NC_TX] -->  the lane ~~~~~~~~~~~~~>     in another process: the receiver
 *
 *      here: the         gate[NC_RX] <--  a lane  <~~~~~~~~~~~~~      in other processes: senders,
 *      receiver                           a lane  <~~~~~~~~~~~~~      a lane each
 *
 * nc_chan.h uses it in place of a ring; what it calls is NC_SLOW, as most channels have a ring, and their short ways
 * stay short.  Of the two gates, that of the side that is here has the waiters; the other side's has none, and its flag
 * is always up, so that whoever publishes comes by nc_lanes_ring().
 *
 * Whoever is asleep here sleeps in the gate, for all lanes.  Before the last look each lane's flag is raised
 * (nc_lanes_raise), so the other process rings; whoever hears it, any thread or loop of this process, calls those whose
 * turn it is (nc_chan_call_waiting).
 *
 * What needs the system is done by its owner (nc_lanes_owner): rings, hearing them, new lanes, the end.  It is called
 * within the lock, and calls nothing here but what is said to be for it.
 *
 * The lock: `guarded` lanes do not take it, as whoever calls has one: with a GIL that is the GIL, until native threads
 * come, who do not hold it; a program in C takes this one around several calls.  It is taken within a gate's lock, and
 * nothing is taken within it.
 */
#ifndef NC_LANES_H
#define NC_LANES_H

#include "nc_lane.h"

enum {
    NC_LANES_TURN = 8,   /* so many messages are taken of a lane before it is the next one's turn */
    NC_LANES_HEARS = 16, /* so many are sent before it is asked whether anybody still reads them */
    NC_LANES_NEWS = 128, /* so many are received before new lanes are looked for, though there is always a message */
};

/* Rings that came for nothing.  An honest process rings after it has moved its position, or has closed. */
typedef struct nc_lanes_rings {
    uint64_t at;   /* the position, when it rang last */
    uint32_t vain; /* how often it has rung since then */
} nc_lanes_rings;

/* A lane that is read here.  Of its owner's memory. */
typedef struct nc_lane_in {
    nc_lane_reader reader;
    struct nc_lane_in *next; /* in the circle of all */
    uint64_t id;             /* random: tells it from all other lanes of the channel */
    uint64_t after, after_pos; /* nothing is read here before that lane was read up to there; 0: or is gone */
    bool eof;                /* its socket has ended: the process that wrote it is gone, or has left */
    nc_lanes_rings rings;
} nc_lane_in;

struct nc_lanes;

/* What only the owner can do.  Within the lock. */
typedef struct nc_lanes_owner {
    void (*wake)(struct nc_lanes *, nc_lane_in *); /* wake the process at the other end; of the writer: NULL */
    void (*attend)(struct nc_lanes *); /* hear what was rung, take new lanes in; never waits */
    void (*drop)(struct nc_lanes *, nc_lane_in *); /* it was taken out of the circle, for good */
    void (*leave)(struct nc_lanes *); /* the last end here has left: tell the other processes */
    void (*end)(struct nc_lanes *);   /* without the lock: nobody knows the lanes any more */
} nc_lanes_owner;

/* What went wrong with a lane, to be told once. */
typedef enum nc_lanes_fault {
    NC_LANES_SOUND = 0,
    NC_LANES_GARBLED, /* a process wrote what no honest one writes; its lane has ended */
    NC_LANES_REFUSED, /* what came was no lane of this channel */
    NC_LANES_SYSTEM,  /* a new lane waits, and the system refuses: `why` */
} nc_lanes_fault;

typedef struct nc_lanes {
    const nc_lanes_owner *owner;
    nc_lock lock;
    bool reads;          /* the receiver is here; else the senders.  Never written */
    bool guarded;        /* as nc_gate.guarded: see nc_chan_unguard().  The rest: in the lock */
    nc_lanes_fault fault; /* to be told */
    int why;             /* its errno */
    bool over;           /* the other side is gone for good, and nothing is left to read */
    bool crashed;        /* a process has died that had not closed */
    bool raised;         /* flags may be up */

    /* to write */
    nc_lane_writer writer;
    bool claimed;        /* a claim is open, which begins at the tail: so no other one can */
    bool eof;
    unsigned unread;     /* claims since the reader was last seen to go on, or was asked for */
    uint64_t read;       /* its head then */
    nc_lanes_rings rings;

    /* to read */
    nc_lane_in *turn;    /* in the circle; NULL: there is no lane */
    nc_lane_in *shown;   /* the lane of the record that was shown last */
    nc_lane_in *freed;   /* the lane of the record that was given back last, if it has not been rung for */
    unsigned left;       /* messages, until it is the next one's turn */
    unsigned taken;      /* messages, since new lanes were looked for */
    unsigned count;      /* of lanes */
    bool shut;           /* no new lane can come */
    uint64_t gone;       /* bytes that came by lanes that are gone */
} nc_lanes;

static inline void nc_lanes_init(nc_lanes *l, const nc_lanes_owner *owner, bool reads, bool guarded)
{
    *l = (nc_lanes){.owner = owner, .reads = reads, .guarded = guarded};
    nc_lock_init(&l->lock);
}

static inline void nc_lanes_enter(nc_lanes *l)
{
    if (!l->guarded)
        nc_lock_enter(&l->lock);
}

static inline void nc_lanes_exit(nc_lanes *l)
{
    if (!l->guarded)
        nc_lock_exit(&l->lock);
}

/* ---- within the lock ------------------------------------------------------------------------------------ */

/* For the owner: a lane is new.  If somebody sleeps, its flag is raised, as those of the others were; whoever took it
 * in then calls those who wait, and so they look at it once more. */
static inline void nc_lanes_add(nc_lanes *l, nc_lane_in *lane)
{
    if (l->turn == NULL) {
        l->turn = lane->next = lane;
    } else { /* its turn comes last */
        nc_lane_in *last = l->turn;
        while (last->next != l->turn)
            last = last->next;
        lane->next = l->turn;
        last->next = lane;
    }
    l->count++;
    if (l->raised)
        nc_lane_raise(&lane->reader.block->reader, NC_LOG_HEADER);
}

/* Take the lane out whose turn it is. */
static inline void nc_lanes_remove(nc_lanes *l)
{
    nc_lane_in *lane = l->turn, *before = lane;
    while (before->next != lane)
        before = before->next;
    before->next = lane->next;
    l->turn = lane->next != lane ? lane->next : NULL;
    l->left = NC_LANES_TURN;
    l->count--;
    l->gone += lane->reader.head;
    if (l->shown == lane)
        l->shown = NULL;
    if (l->freed == lane)
        l->freed = NULL;
    l->owner->drop(l, lane);
}

/* Has the lane to wait for another one?  A sender that moved to another process goes on by a new lane; what it sent
 * before, by the old one, comes first. */
static inline bool nc_lanes_held(nc_lane_in *lane)
{
    if (lane->after == 0)
        return false;
    for (nc_lane_in *other = lane->next; other != lane; other = other->next)
        if (other->id == lane->after && (int64_t)(other->reader.head - lane->after_pos) < 0)
            return true;
    lane->after = 0;
    return false;
}

/* No honest lanes wait for one another in a circle; such lanes would never be looked at, and their end not be seen.  So
 * if all wait, one of them does not.  Before any of them is asked. */
static inline void nc_lanes_untie(nc_lanes *l)
{
    nc_lane_in *lane = l->turn;
    for (unsigned n = l->count; n > 0; n--, lane = lane->next)
        if (!nc_lanes_held(lane))
            return;
    if (lane != NULL)
        lane->after = 0;
}

/* For the owner: tell what went wrong, if nothing is to be told yet. */
static inline void nc_lanes_blame(nc_lanes *l, nc_lanes_fault fault, int why)
{
    if (l->fault == NC_LANES_SOUND) {
        l->fault = fault;
        l->why = why;
    }
}

/* For the owner: the other process has rung, of which that is the position.  How often in a row for nothing?  What was
 * moved is not looked at: this process may have no use for it yet. */
static inline uint32_t nc_lanes_rung(nc_lanes_rings *rings, _Atomic uint64_t *position)
{
    uint64_t at = atomic_load_explicit(position, memory_order_relaxed); /* carried by the ring, as P5 */
    rings->vain = at != rings->at ? 0 : rings->vain + 1;
    rings->at = at;
    return rings->vain;
}

/* The first record of the lane whose turn it is; if there is none, it is the next one's turn, and a lane that has ended
 * is taken out. */
static inline nc_result nc_lanes_look(nc_lanes *l, nc_record *record)
{
    nc_lane_in *lane = l->turn;
    nc_lane_fate fate = NC_LANE_OPEN;
    nc_result result = nc_lanes_held(lane) ? NC_EMPTY : nc_lane_next(&lane->reader, lane->eof, record, &fate);
    if (result == NC_OK) {
        l->shown = lane;
    } else if (result == NC_BAD || fate != NC_LANE_OPEN) {
        if (result == NC_BAD)
            nc_lanes_blame(l, NC_LANES_GARBLED, 0);
        l->crashed |= fate == NC_LANE_CRASHED;
        nc_lanes_remove(l);
    } else {
        l->turn = lane->next;
        l->left = NC_LANES_TURN;
    }
    return result == NC_OK ? NC_OK : NC_EMPTY;
}

/* The first record of any lane. */
static inline nc_result nc_lanes_find(nc_lanes *l, nc_record *record)
{
    if (l->turn != NULL && l->left == 0) {
        l->turn = l->turn->next;
        l->left = NC_LANES_TURN;
    }
    nc_lanes_untie(l);
    for (unsigned n = l->count; n > 0; n--)
        if (nc_lanes_look(l, record) == NC_OK)
            return NC_OK;
    l->over |= l->turn == NULL && l->shut;
    return NC_EMPTY;
}

/* What has become of the receiver, as far as it was heard. */
static inline bool nc_lanes_reader_gone(nc_lanes *l)
{
    if (!l->over) {
        nc_lane_fate fate = nc_lane_peer(&l->writer.block->reader, l->eof);
        l->over = fate != NC_LANE_OPEN;
        l->crashed |= fate == NC_LANE_CRASHED;
    }
    return l->over;
}

/* Is there something for the receiver to see: a record, or the end of a lane?  seq_cst, as it is asked after flags were
 * raised (P3). */
static inline bool nc_lanes_lane_ready(nc_lane_in *lane)
{
    if (nc_lanes_held(lane))
        return false;
    return lane->eof || atomic_load_explicit(&lane->reader.block->tail, memory_order_seq_cst) != lane->reader.head ||
           nc_lane_closed(&lane->reader.block->writer); /* P1, P4 */
}

static inline bool nc_lanes_any_ready(nc_lanes *l)
{
    nc_lanes_untie(l);
    nc_lane_in *lane = l->turn;
    for (unsigned n = l->count; n > 0; n--, lane = lane->next)
        if (nc_lanes_lane_ready(lane))
            return true;
    return l->fault != NC_LANES_SOUND;
}

/* Bytes that are not given back.  seq_cst, as it is asked after the flag was raised (P3). */
static inline uint64_t nc_lanes_in_use(nc_lanes *l)
{
    nc_lane_writer *w = &l->writer;
    uint64_t head = atomic_load_explicit(&w->block->head, memory_order_seq_cst); /* P2 */
    if (head % 8 == 0 && head - w->head <= w->tail - w->head)
        w->head = head;
    return w->tail - w->head;
}

/* Room for the next claim. */
static inline uint64_t nc_lanes_free(nc_lanes *l)
{
    uint64_t used = nc_lanes_in_use(l);
    return l->claimed ? 0 : l->writer.capacity - used;
}

static inline void nc_lanes_set_flags(nc_lanes *l, uint64_t bytes)
{
    if (!l->reads) {
        nc_lane_raise(&l->writer.block->writer, bytes);
        return;
    }
    nc_lane_in *lane = l->turn;
    for (unsigned n = l->count; n > 0; n--, lane = lane->next)
        nc_lane_raise(&lane->reader.block->reader, bytes);
}

static inline void nc_lanes_lower_flags(nc_lanes *l)
{
    if (!l->reads) {
        nc_lane_lower(&l->writer.block->writer);
        return;
    }
    nc_lane_in *lane = l->turn;
    for (unsigned n = l->count; n > 0; n--, lane = lane->next)
        nc_lane_lower(&lane->reader.block->reader);
}

/* ---- calls: how much there is ------------------------------------------------------------------------- */

/* What the side that is here waits for: 1 if there is something to receive, else 0; or room, bytes. */
NC_SLOW uint64_t nc_lanes_have(nc_lanes *l)
{
    nc_lanes_enter(l);
    uint64_t have = l->reads ? nc_lanes_any_ready(l) : nc_lanes_free(l);
    nc_lanes_exit(l);
    return have;
}

/* Bytes in use, of all lanes. */
NC_SLOW uint64_t nc_lanes_used(nc_lanes *l)
{
    nc_lanes_enter(l);
    uint64_t used = l->reads ? 0 : nc_lanes_in_use(l);
    nc_lane_in *lane = l->turn;
    for (unsigned n = l->count; n > 0; n--, lane = lane->next) {
        /* relaxed: a number to show; what cannot be true is not shown */
        uint64_t n_here = atomic_load_explicit(&lane->reader.block->tail, memory_order_relaxed) - lane->reader.head;
        used += n_here <= lane->reader.capacity ? n_here : 0;
    }
    nc_lanes_exit(l);
    return used;
}

/* How much was ever sent, and received, as far as it is known here. */
NC_SLOW void nc_lanes_totals(nc_lanes *l, uint64_t *sent, uint64_t *received)
{
    uint64_t used = nc_lanes_used(l);
    nc_lanes_enter(l);
    uint64_t heads = l->reads ? l->gone : l->writer.tail - used;
    nc_lane_in *lane = l->turn;
    for (unsigned n = l->count; n > 0; n--, lane = lane->next)
        heads += lane->reader.head;
    *received = heads;
    *sent = heads + used;
    nc_lanes_exit(l);
}

/* Is the other side gone for good, and nothing left to read?  As far as it was heard. */
NC_SLOW bool nc_lanes_over(nc_lanes *l)
{
    nc_lanes_enter(l);
    bool over = l->reads ? (l->over |= l->turn == NULL && l->shut) : nc_lanes_reader_gone(l);
    nc_lanes_exit(l);
    return over;
}

/* Has everybody left at the other side, though something may be left to read? */
static inline bool nc_lanes_deserted(nc_lanes *l)
{
    nc_lanes_enter(l);
    bool deserted = l->reads ? l->shut : nc_lanes_reader_gone(l);
    nc_lane_in *lane = l->turn;
    for (unsigned n = l->count; n > 0 && deserted; n--, lane = lane->next)
        deserted = nc_lane_peer(&lane->reader.block->writer, lane->eof) != NC_LANE_OPEN;
    nc_lanes_exit(l);
    return deserted;
}

/* How many are open at the other side, as far as it was heard: processes that send, or 1 while somebody may come; or
 * the receiver.  Hears nothing: whoever does has to call those who wait. */
static inline unsigned nc_lanes_open(nc_lanes *l)
{
    unsigned open = 0;
    nc_lanes_enter(l);
    nc_lane_in *lane = l->turn;
    for (unsigned n = l->count; n > 0; n--, lane = lane->next)
        open += nc_lane_peer(&lane->reader.block->writer, lane->eof) == NC_LANE_OPEN;
    if (open == 0)
        open = l->reads ? !l->shut : !nc_lanes_reader_gone(l);
    nc_lanes_exit(l);
    return open;
}

/* Has a process died that had not closed?  As far as it was heard. */
static inline bool nc_lanes_crashed(nc_lanes *l)
{
    nc_lanes_enter(l);
    bool crashed = l->crashed;
    nc_lanes_exit(l);
    return crashed;
}

/* What is to be told, once. */
static inline nc_lanes_fault nc_lanes_take_fault(nc_lanes *l, int *why)
{
    nc_lanes_enter(l);
    nc_lanes_fault fault = l->fault;
    *why = l->why;
    l->fault = NC_LANES_SOUND;
    nc_lanes_exit(l);
    return fault;
}

/* Is there something to be told?  A hint: whoever tells it takes it. */
NC_SLOW bool nc_lanes_faulty(nc_lanes *l)
{
    nc_lanes_enter(l);
    bool faulty = l->fault != NC_LANES_SOUND;
    nc_lanes_exit(l);
    return faulty;
}

/* The last end that is here has left. */
NC_SLOW void nc_lanes_leave(nc_lanes *l)
{
    nc_lanes_enter(l);
    l->owner->leave(l);
    nc_lanes_exit(l);
}

/* ---- calls: sleeping and waking ------------------------------------------------------------------------ */

/* Hear what was rung; the caller then calls those whose turn it is. */
NC_SLOW void nc_lanes_attend(nc_lanes *l)
{
    nc_lanes_enter(l);
    l->owner->attend(l);
    nc_lanes_exit(l);
}

/* Somebody here is about to sleep; a sender for that many bytes.  Look again after that. */
NC_SLOW void nc_lanes_raise(nc_lanes *l, uint64_t bytes)
{
    nc_lanes_enter(l);
    l->raised = true;
    nc_lanes_set_flags(l, bytes);
    nc_lanes_exit(l);
}

/* Nobody here sleeps any more. */
NC_SLOW void nc_lanes_lower(nc_lanes *l)
{
    nc_lanes_enter(l);
    if (l->raised)
        nc_lanes_lower_flags(l);
    l->raised = false;
    nc_lanes_exit(l);
}

/* After something was published: ring, if the other process says that it sleeps. */
NC_SLOW void nc_lanes_ring(nc_lanes *l)
{
    nc_lanes_enter(l);
    if (!l->reads) {
        if (nc_lane_wakes_reader(&l->writer))
            l->owner->wake(l, NULL);
    } else if (l->freed != NULL) {
        if (nc_lane_wakes_writer(&l->freed->reader))
            l->owner->wake(l, l->freed);
        l->freed = NULL;
    }
    nc_lanes_exit(l);
}

/* ---- calls: the writer ---------------------------------------------------------------------------------- */

/* Is it to be asked whether anybody still reads?  Whoever finds room does not sleep, and so hears nothing: then a
 * receiver that has died would be noticed when the lane is full.  While nobody has arrived there, it is asked each
 * time.  Relaxed: a hint. */
static inline bool nc_lanes_unsure(nc_lanes *l)
{
    nc_lane_block *block = l->writer.block;
    if (atomic_load_explicit(&block->reader.closed, memory_order_relaxed) == NC_LANE_AWAY)
        return true;
    if (++l->unread < NC_LANES_HEARS)
        return false;
    uint64_t head = atomic_load_explicit(&block->head, memory_order_relaxed);
    bool stands = head == l->read;
    l->unread = 0;
    l->read = head;
    return stands;
}

/* Reserve n bytes.  NC_FULL: not now; NC_EMPTY: the receiver is gone. */
NC_SLOW nc_result nc_lanes_claim(nc_lanes *l, uint64_t n, nc_record *record)
{
    nc_lanes_enter(l);
    nc_result result = NC_FULL;
    if (nc_lanes_unsure(l))
        l->owner->attend(l);
    for (int last = 0; last < 2 && result == NC_FULL && !l->claimed; last++) {
        if (last == 1)
            l->owner->attend(l); /* the receiver may have died */
        if (nc_lanes_reader_gone(l))
            result = NC_EMPTY;
        else if ((result = nc_lane_claim(&l->writer, n, record)) == NC_BAD) {
            nc_lanes_blame(l, NC_LANES_GARBLED, 0);
            l->over = true;
            result = NC_EMPTY;
        }
    }
    l->claimed |= result == NC_OK;
    nc_lanes_exit(l);
    return result;
}

/* Publish the first n bytes of the claim. */
NC_SLOW void nc_lanes_commit(nc_lanes *l, const nc_record *record, uint64_t n, memory_order publish)
{
    nc_lanes_enter(l);
    nc_lane_commit(&l->writer, record, n, publish);
    l->claimed = false;
    nc_lanes_exit(l);
}

/* End a batch that was committed by release stores, whoever of this process has committed to it. */
NC_SLOW void nc_lanes_publish(nc_lanes *l)
{
    nc_lanes_enter(l);
    nc_lane_publish(&l->writer);
    nc_lanes_exit(l);
}

/* The claim was never there. */
NC_SLOW void nc_lanes_abort(nc_lanes *l)
{
    nc_lanes_enter(l);
    l->claimed = false;
    nc_lanes_exit(l);
}

/* ---- calls: the reader ---------------------------------------------------------------------------------- */

/* The first record of the lanes that are known, without taking it, or NC_EMPTY.  Hears nothing: for whoever then peeks,
 * or sleeps on what is to be heard. */
NC_SLOW nc_result nc_lanes_glance(nc_lanes *l, nc_record *record)
{
    nc_lanes_enter(l);
    nc_result result = nc_lanes_find(l, record);
    nc_lanes_exit(l);
    return result;
}

/* The first record, without taking it, or NC_EMPTY; then nc_lanes_over() and the fault tell more. */
NC_SLOW nc_result nc_lanes_peek(nc_lanes *l, nc_record *record)
{
    nc_lanes_enter(l);
    nc_result result = nc_lanes_find(l, record);
    if (result != NC_OK && !l->over) {
        l->owner->attend(l);
        result = nc_lanes_find(l, record);
    }
    nc_lanes_exit(l);
    return result;
}

/* Give the record back that was shown.  `publish`: release within a batch. */
NC_SLOW void nc_lanes_release(nc_lanes *l, const nc_record *record, memory_order publish)
{
    nc_lanes_enter(l);
    nc_lane_in *lane = l->shown;
    if (lane != NULL) { /* else the receiver has left meanwhile */
        if (l->freed != NULL && l->freed != lane) { /* a batch goes over several lanes */
            nc_lane_give_back(&l->freed->reader);
            if (nc_lane_wakes_writer(&l->freed->reader))
                l->owner->wake(l, l->freed);
        }
        nc_lane_release(&lane->reader, record, publish);
        l->freed = lane;
        l->left -= l->left > 0;
        if (++l->taken == NC_LANES_NEWS) { /* the caller calls those whose turn it is, as after each release */
            l->taken = 0;
            l->owner->attend(l);
        }
    }
    nc_lanes_exit(l);
}

/* End a batch. */
NC_SLOW void nc_lanes_release_batch(nc_lanes *l)
{
    nc_lanes_enter(l);
    if (l->freed != NULL)
        nc_lane_give_back(&l->freed->reader);
    nc_lanes_exit(l);
}

#endif
