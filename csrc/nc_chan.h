/* nc_chan.h: a channel without Python: a ring of objects or of bytes, a gate for each side, and the count of its ends.
 * Touches nc_gate.h, nc_ring.h, nc_log.h and nc_lanes.h.
 *
 *      put, claim and commit                              take, show and release
 *      --------------------->   nc_ring or nc_log   --------------------------->
 *      then notify NC_RX                                          then notify NC_TX
 *
 *      gate[NC_TX]: senders in line, for room             gate[NC_RX]: receivers in line, for what was sent
 *
 * A channel of bytes may have only one of its sides in this process.  The other one is reached by lanes (nc_lanes.h),
 * which take the place of the ring, and what is said of the other side's gate is done by them.
 *
 * The binding uses this file for Python's threads and for native threads; the models and the stress programs of tests/c
 * use it, too, so they prove what is installed.  It calls only other nc_*.h, allocates nothing and needs no GIL.
 *
 * Most functions take `now`, the generation of the process (nc_gate_enter), and `kicks`, a chain to which they add the
 * boxes that are to be kicked once no gate is held.  A thread that moves something holds the endpoint that it uses; a
 * side with one producer or consumer has one endpoint.  Units are items, or bytes of the ring.
 */
#ifndef NC_CHAN_H
#define NC_CHAN_H

#include "nc_gate.h"
#include "nc_lanes.h"
#include "nc_log.h"
#include "nc_ring.h"

enum { NC_TX, NC_RX, NC_SIDES };

typedef struct nc_chan {
    nc_gate *gate;                   /* [NC_SIDES] */
    nc_ring *ring;                   /* of objects; or */
    nc_log *log;                     /* of bytes; beside lanes it holds no bytes, and says how large they are */
    nc_lanes *lanes;                 /* NULL: both sides are in this process */
    bool reading; /* bytes: a read claim is open; under gate[NC_RX]'s lock once the receiver has left */
    _Atomic uint32_t refs; /* whoever drops the last frees all of it; B1 */
    _Atomic uint32_t open[NC_SIDES]; /* endpoints that have not left; relaxed, but leaving is C3 */
    uint64_t discarded; /* units that the receiver left behind; under gate[NC_RX]'s lock */
    void *memory; /* for the owner of the channel: the allocation to free */
} nc_chan;

/* The outcome of a try. */
typedef enum nc_outcome {
    NC_DONE,
    NC_DISCONNECTED, /* the other side has left, and nothing is left to take */
    NC_BLOCKED, /* not now; what there is may be owed to those in line */
} nc_outcome;

/* How the sides of a channel of objects meet.  If one lock, the GIL, orders both, the orders are the cheap ones. */
typedef struct nc_way {
    bool many; /* several producers may push at once */
    memory_order publish; /* of positions: seq_cst (W2 and W3 need it), or release */
    memory_order glance; /* at the flag: seq_cst (W2), or relaxed */
} nc_way;

/* The caller has set `gate`, and `ring` or `log`.  The channel begins with one reference.  `guarded`: as of a gate. */
static inline void nc_chan_init(nc_chan *ch, uint32_t now, bool guarded)
{
    for (int side = 0; side < NC_SIDES; side++) {
        nc_gate_init(&ch->gate[side], now);
        ch->gate[side].guarded = guarded;
        atomic_store_explicit(&ch->open[side], 0, memory_order_relaxed); /* nobody else knows it yet */
    }
    ch->lanes = NULL;
    ch->reading = false;
    ch->discarded = 0;
    atomic_store_explicit(&ch->refs, 1, memory_order_relaxed); /* nor this */
}

static inline void nc_chan_destroy(nc_chan *ch)
{
    for (int side = 0; side < NC_SIDES; side++)
        nc_lock_destroy(&ch->gate[side].lock);
}

static inline void nc_chan_ref(nc_chan *ch)
{
    atomic_fetch_add_explicit(&ch->refs, 1, memory_order_relaxed); /* the caller holds one already */
}

/* True when that was the last reference: the caller destroys and frees it. */
static inline bool nc_chan_unref(nc_chan *ch)
{
    return atomic_fetch_sub_explicit(&ch->refs, 1, memory_order_acq_rel) == 1; /* B1 -> B1 */
}

/* May native threads come, which do not take the lock that guards the rest?  Relaxed: the caller holds the gate that
 * they go through, or asks again. */
static inline bool nc_chan_shared(nc_chan *ch) { return atomic_load_explicit(&ch->refs, memory_order_relaxed) > 1; }

/* ---- how much there is -------------------------------------------------------------------------------- */

static inline bool nc_chan_of_bytes(const nc_chan *ch) { return ch->log != NULL; }

/* Is the other side in other processes?  Of bytes. */
static inline bool nc_chan_by_lanes(const nc_chan *ch) { return ch->log->many == NC_LOG_LANES; }

/* The side that is here, of a channel that reaches other processes by lanes. */
static inline void nc_chan_use_lanes(nc_chan *ch, nc_lanes *lanes)
{
    ch->lanes = lanes;
    /* relaxed: nobody else knows it yet.  For good: whoever publishes comes by nc_chan_call_waiting(). */
    atomic_store_explicit(&ch->gate[lanes->reads ? NC_TX : NC_RX].flag, NC_WATCHED, memory_order_relaxed);
}

/* Native threads are about to come to a channel by lanes.  Until now one lock, the GIL, may have been that of its gates
 * and of its lanes; from now on they use their own, for good.  The caller holds that one, so nobody is inside; nor may
 * the process be forked meanwhile, as a fork holds the locks of lanes. */
static inline void nc_chan_unguard(nc_chan *ch, uint32_t now)
{
    if (!ch->lanes->guarded)
        return;
    for (int side = 0; side < NC_SIDES; side++)
        nc_gate_unguard(&ch->gate[side], now);
    ch->lanes->guarded = false;
}

static inline uint64_t nc_chan_capacity(const nc_chan *ch)
{
    return nc_chan_of_bytes(ch) ? ch->log->capacity : ch->ring->capacity;
}

/* How much is in use. */
static inline uint64_t nc_chan_used(nc_chan *ch)
{
    if (ch->lanes != NULL)
        return nc_lanes_used(ch->lanes);
    return nc_chan_of_bytes(ch) ? nc_log_used(ch->log) : nc_ring_len(ch->ring);
}

/* Is the other side gone for good?  As far as it is known here. */
static inline bool nc_chan_over(nc_chan *ch, int side)
{
    return nc_gate_over_seen(&ch->gate[side]) || (ch->lanes != NULL && nc_lanes_over(ch->lanes));
}

/* How much there is for the waiters of a side: items for receivers, room for senders.  For receivers of bytes 1 or 0,
 * is there a record: the next is called when it is taken.  In the gate, or as a hint. */
static inline uint64_t nc_chan_have(nc_chan *ch, int side)
{
    if (side == NC_RX && ch->lanes == NULL)
        return nc_chan_of_bytes(ch) ? nc_log_ready(ch->log) : nc_ring_len(ch->ring);
    if (side == NC_TX && nc_gate_over(&ch->gate[NC_TX]))
        return UINT64_MAX; /* the receiver is gone: all may look */
    if (ch->lanes != NULL)
        return nc_lanes_have(ch->lanes);
    return nc_chan_capacity(ch) - nc_chan_used(ch);
}

/* As nc_chan_have(), but all messages count: for seeing them grow. */
static inline uint64_t nc_chan_filled(nc_chan *ch, int side)
{
    return side == NC_RX ? nc_chan_used(ch) : nc_chan_have(ch, NC_TX);
}

/* Does it look as if a side could go on: is there a record, or room for `least` bytes and nobody in line for it?  Of
 * bytes, and only a hint, for a thread that spins: whoever goes on looks again, so its own loads are relaxed. */
static inline bool nc_chan_seems_ready(nc_chan *ch, int side, uint64_t least)
{
    if (side == NC_TX) {
        uint32_t crowd = nc_gate_crowd(&ch->gate[NC_TX]);
        return crowd & NC_OVER || (crowd == 0 && nc_log_used(ch->log) + least <= ch->log->capacity);
    }
    uint64_t head = atomic_load_explicit(&ch->log->head, memory_order_relaxed);
    return nc_gate_over(&ch->gate[NC_RX]) ||
           (ch->log->many ? atomic_load_explicit(nc_log_mark(ch->log, head), memory_order_relaxed) != 0
                          : atomic_load_explicit(nc_log_header(ch->log, head), memory_order_relaxed) != 0);
}

/* How much of what there is is not owed to those in line.  In the gate. */
static inline uint64_t nc_chan_spare(nc_chan *ch, int side)
{
    uint64_t have = nc_chan_have(ch, side), owed = ch->gate[side].owed;
    return have > owed ? have - owed : 0;
}

/* Room for a sender that does not stand in line. */
static inline uint64_t nc_chan_room(nc_chan *ch, uint32_t now)
{
    nc_gate *g = &ch->gate[NC_TX];
    if (nc_gate_crowd(g) < NC_WAITER)
        return nc_chan_have(ch, NC_TX);
    nc_gate_enter(g, now);
    uint64_t room = nc_chan_spare(ch, NC_TX);
    nc_gate_exit(g);
    return room;
}

/* How many endpoints of a side are open.  Relaxed: a snapshot. */
static inline unsigned nc_chan_open(nc_chan *ch, int side)
{
    if (ch->lanes != NULL && side == (ch->lanes->reads ? NC_TX : NC_RX))
        return nc_lanes_open(ch->lanes);
    return atomic_load_explicit(&ch->open[side], memory_order_relaxed); /* a snapshot */
}

/* How much was ever put in, and how much receivers took out.  Within gate[NC_RX], because of `discarded`.  Relaxed: a
 * snapshot of counters that promise nothing about one another. */
static inline void nc_chan_totals(nc_chan *ch, uint64_t *sent, uint64_t *received)
{
    uint64_t head, tail;
    if (ch->lanes != NULL) {
        nc_lanes_totals(ch->lanes, sent, received);
        return;
    }
    if (nc_chan_of_bytes(ch)) {
        head = atomic_load_explicit(&ch->log->head, memory_order_relaxed); /* a snapshot, as the next three loads */
        tail = atomic_load_explicit(&ch->log->tail, memory_order_relaxed);
    } else {
        head = nc_ring_ordinal(ch->ring, atomic_load_explicit(&ch->ring->head, memory_order_relaxed));
        tail = nc_ring_ordinal(ch->ring, atomic_load_explicit(&ch->ring->tail, memory_order_relaxed));
    }
    *sent = tail;
    *received = head - ch->discarded;
}

/* ---- items that are done ------------------------------------------------------------------------------ */

/* The consumers of a queue report each item that they have finished with.  An item is unfinished from when it was sent
 * until it is reported or discarded.  Reports are counted, not matched with items.  All within gate[NC_RX]. */
typedef struct nc_tally {
    uint64_t done; /* how many items are reported; and, once `begun`, those that were received before */
    uint64_t rounds; /* how often a report left none unfinished */
    bool begun;
} nc_tally;

/* Begin to count, once: what was received before is done. */
static inline void nc_chan_tally(nc_chan *ch, nc_tally *tally, uint32_t now)
{
    uint64_t sent, received;
    nc_gate_enter(&ch->gate[NC_RX], now);
    nc_chan_totals(ch, &sent, &received);
    if (!tally->begun)
        tally->done = received;
    tally->begun = true;
    nc_gate_exit(&ch->gate[NC_RX]);
}

/* The tail is what counts: it is moved before an item can be received, so whoever reports an item that it received sees
 * that the item was sent. */
static inline uint64_t nc_chan_unfinished_held(nc_chan *ch, const nc_tally *tally)
{
    uint64_t sent, received;
    nc_chan_totals(ch, &sent, &received);
    return sent - ch->discarded > tally->done ? sent - ch->discarded - tally->done : 0;
}

static inline uint64_t nc_chan_unfinished(nc_chan *ch, const nc_tally *tally, uint64_t *rounds, uint32_t now)
{
    nc_gate_enter(&ch->gate[NC_RX], now);
    uint64_t unfinished = nc_chan_unfinished_held(ch, tally);
    *rounds = tally->rounds;
    nc_gate_exit(&ch->gate[NC_RX]);
    return unfinished;
}

/* Report one item; returns how many were unfinished before.  0: there was none to report. */
static inline uint64_t nc_chan_report(nc_chan *ch, nc_tally *tally, uint32_t now)
{
    nc_gate_enter(&ch->gate[NC_RX], now);
    uint64_t unfinished = nc_chan_unfinished_held(ch, tally);
    tally->done += unfinished > 0;
    tally->rounds += unfinished == 1;
    nc_gate_exit(&ch->gate[NC_RX]);
    return unfinished;
}

/* ---- notifying the other side ------------------------------------------------------------------------- */

/* Call those on the side that is here who can go on now, and see to it that other processes ring for the others: after
 * the flags of the lanes were raised there was no more than before.  Ends: each look but the last finds more than the
 * one before, and there is never more than a lane holds.  In the gate. */
static inline void nc_chan_call_by_lanes(nc_chan *ch, nc_gate *g, nc_box **kicks)
{
    int side = ch->lanes->reads ? NC_RX : NC_TX;
    if (!nc_gate_over(g) && nc_lanes_over(ch->lanes)) {
        nc_gate_set_over(g); /* C1 */
        nc_gate_resume_all(g, kicks);
    }
    uint64_t before, have = nc_chan_have(ch, side);
    do {
        nc_gate_call_ready(g, have, kicks);
        uint64_t least = nc_gate_least(g);
        if (least == 0) {
            nc_lanes_lower(ch->lanes);
            return;
        }
        nc_lanes_raise(ch->lanes, least);
        before = have;
        have = nc_chan_have(ch, side);
    } while (have > before);
}

/* Call those in line on `side` who can go on now.  In its gate. */
static inline void nc_chan_call_ready(nc_chan *ch, int side, nc_box **kicks)
{
    if (ch->lanes != NULL)
        nc_chan_call_by_lanes(ch, &ch->gate[side], kicks);
    else
        nc_gate_call_ready(&ch->gate[side], nc_chan_have(ch, side), kicks);
}

/* Call those on `side` who can go on now, after the gate's flag was seen to be up.  Not inlined: the flag is mostly
 * down. */
NC_SLOW void nc_chan_call_waiting(nc_chan *ch, int side, uint32_t now, nc_box **kicks)
{
    if (ch->lanes != NULL && side == (ch->lanes->reads ? NC_TX : NC_RX)) {
        nc_lanes_ring(ch->lanes);
        side = 1 - side; /* where a claim has ended, so the next one can begin */
        if (nc_gate_flag(&ch->gate[side], memory_order_relaxed) == 0) /* whoever lines up after this looks again */
            return;
    }
    nc_gate *g = &ch->gate[side];
    NC_STEP("call_waiting: flag seen, gate not entered");
    nc_gate_enter(g, now);
    if (g->waiting > 0)
        nc_chan_call_ready(ch, side, kicks);
    nc_gate_exit(g);
}

/* Whoever waits on what other processes ring hears it for all: those who can go on now are called.  Any thread, also
 * one that waits for nothing. */
static inline void nc_chan_hear(nc_chan *ch, uint32_t now, nc_box **kicks)
{
    nc_lanes_attend(ch->lanes);
    nc_chan_call_waiting(ch, ch->lanes->reads ? NC_RX : NC_TX, now, kicks);
}

/* After something was published, or nothing could be: if the flag says that anybody waits on `side`, call those who can
 * go on now. */
static inline void nc_chan_notify(nc_chan *ch, int side, memory_order glance, uint32_t now, nc_box **kicks)
{
    NC_STEP("notify: published, flag not seen");
    if (nc_gate_flag(&ch->gate[side], glance) != 0) /* W2 */
        nc_chan_call_waiting(ch, side, now, kicks);
}

/* Bytes: a consumer that does not stand in line has given something back.  Does it have to look for observers on its
 * own side?  With many producers, one that published meanwhile may have seen nothing (nc_log_ready), and so have called
 * nobody.  A consumer that stands in line calls the next when it leaves.  Beside one that does not stand there, only
 * observers can be in line.
 *
 * Relaxed: both the consumer, when it gave back, and the observer, when it lined up, held the one endpoint of the side.
 * If the observer was first, the flag is seen here; else its own look saw what the consumer did. */
static inline bool nc_chan_observed(nc_chan *ch)
{
    return ch->log->many && nc_gate_flag(&ch->gate[NC_RX], memory_order_relaxed) != 0 &&
           nc_gate_crowd(&ch->gate[NC_RX]) < NC_WAITER;
}

/* Bytes: the consumer has given back what it took, or what it stepped over: notify the senders that wait for room, and
 * those observers. */
static inline void nc_chan_given_back(nc_chan *ch, uint32_t now, nc_box **kicks)
{
    nc_chan_notify(ch, NC_TX, memory_order_seq_cst, now, kicks);
    if (nc_chan_observed(ch))
        nc_chan_call_waiting(ch, NC_RX, now, kicks);
}

/* ---- the line ----------------------------------------------------------------------------------------- */

typedef enum nc_place {
    NC_SLEEP, /* in line: sleep until called */
    NC_TURN, /* it is this waiter's turn: look again */
    NC_UNREACHED, /* not in line: those who share the channel could not wake it */
} nc_place;

/* How much a waiter needs to go on, and the most that it takes. */
typedef struct nc_need {
    uint64_t least, share;
} nc_need;

/* Take a place in line, or keep it, and look once more.  `requeue`: the waiter got part of what it wants and goes to
 * the end, so that a long batch starves nobody.  `reachable`: native threads can kick the waiter's box. */
static inline nc_place nc_chan_line_up(nc_chan *ch, int side, nc_waiter *w, nc_need need, bool requeue, bool reachable,
                                       uint32_t now, nc_box **kicks)
{
    nc_gate *g = &ch->gate[side];
    nc_gate_enter(g, now);
    if (nc_chan_shared(ch) && !reachable) {
        nc_gate_exit(g);
        return NC_UNREACHED;
    }
    uint32_t state = nc_waiter_state_of(w);
    if (state != NC_OUTSIDE && (requeue || w->born != g->born)) {
        nc_gate_leave(g, w);
        state = NC_OUTSIDE;
    }
    if (state == NC_OUTSIDE) {
        w->least = need.least;
        w->share = need.share;
        nc_gate_enrol(g, w);
    } else if (state == NC_CALLED)
        nc_gate_rejoin(g, w);
    NC_STEP("line_up: enrolled, not looked again");
    uint64_t have = nc_chan_have(ch, side); /* W3 */
    bool turn = nc_gate_take_turn(g, w, have);
    if (ch->lanes != NULL)
        nc_chan_call_by_lanes(ch, g, kicks);
    else if (turn || g->waiting > 1) /* else w waits alone, and there is nothing for it */
        nc_gate_call_ready(g, have, kicks);
    nc_gate_exit(g);
    return turn || nc_waiter_state_of(w) == NC_CALLED ? NC_TURN : NC_SLEEP;
}

/* Leave the line for good, and hand on what the waiter was called for and did not take; idempotent.  `resume`: its
 * endpoint may have been given back meanwhile, so resume the first waiter that was deferred for it; true if there was
 * one. */
static inline bool nc_chan_leave_line(nc_chan *ch, int side, nc_waiter *w, bool resume, uint32_t now, nc_box **kicks)
{
    nc_gate *g = &ch->gate[side];
    nc_gate_enter(g, now);
    nc_gate_leave(g, w);
    bool resumed = resume && nc_gate_resume(g, w->owner, kicks); /* the owner is compared, not followed */
    if (g->waiting > 0 || ch->lanes != NULL)
        nc_chan_call_ready(ch, side, kicks);
    nc_gate_exit(g);
    return resumed;
}

/* The same for every waiter of one box, whose thread will never run again.  nc_chan_leave_line() may still be called
 * for such a waiter, and does nothing to it. */
static inline void nc_chan_leave_lines_of(nc_chan *ch, int side, const nc_box *box, uint32_t now, nc_box **kicks)
{
    nc_gate *g = &ch->gate[side];
    nc_gate_enter(g, now);
    for (nc_waiter *w = g->first, *next; w != NULL; w = next) {
        next = w->next;
        if (w->box != box)
            continue;
        nc_gate_leave(g, w);
        nc_gate_resume(g, w->owner, kicks); /* at worst in vain */
    }
    nc_chan_call_ready(ch, side, kicks);
    nc_gate_exit(g);
}

/* A waiter that was taken off the mail could not be woken: it waits on in its old place, as if it had not been called.
 * False if it was abandoned meanwhile: then the caller frees it.  Both steps are in the gate, so nobody can call it in
 * between. */
static inline bool nc_chan_uncall(nc_chan *ch, int side, nc_waiter *w, uint32_t now)
{
    nc_gate *g = &ch->gate[side];
    nc_gate_enter(g, now);
    if (nc_waiter_state_of(w) == NC_CALLED && w->born == g->born) {
        nc_gate_rejoin(g, w);
        if (ch->lanes != NULL)
            nc_lanes_raise(ch->lanes, nc_gate_least(g));
    }
    bool stands = nc_post_receive(w);
    nc_gate_exit(g);
    return stands;
}

/* Call all waiters of one box: they must not sleep as they are, since native threads could not kick it. */
static inline void nc_chan_call_all_of(nc_chan *ch, int side, const nc_box *box, uint32_t now, nc_box **kicks)
{
    nc_gate *g = &ch->gate[side];
    nc_gate_enter(g, now);
    for (nc_waiter *w = g->first; w != NULL; w = w->next)
        if (w->box == box && nc_waiter_state_of(w) == NC_WAITING)
            nc_gate_call(g, w, kicks);
    nc_gate_exit(g);
}

/* It is w's turn, but its endpoint is lent to a claim: w sleeps on until the claim ends.  Holding the endpoint. */
static inline void nc_chan_defer(nc_chan *ch, int side, nc_waiter *w, uint32_t now)
{
    nc_gate_enter(&ch->gate[side], now);
    nc_gate_defer(w);
    nc_gate_exit(&ch->gate[side]);
}

/* Was w deferred, and not called again since?  Under the lock, as others who leave the line may call w without holding
 * its endpoint. */
static inline bool nc_chan_deferred(nc_chan *ch, int side, nc_waiter *w, uint32_t now)
{
    nc_gate_enter(&ch->gate[side], now);
    bool deferred = w->deferred;
    nc_gate_exit(&ch->gate[side]);
    return deferred;
}

/* The claim on `owner` has ended: resume the first waiter that was deferred for it; true if there was one. */
static inline bool nc_chan_resume(nc_chan *ch, int side, void *owner, uint32_t now, nc_box **kicks)
{
    nc_gate_enter(&ch->gate[side], now);
    bool resumed = nc_gate_resume(&ch->gate[side], owner, kicks);
    nc_gate_exit(&ch->gate[side]);
    return resumed;
}

/* `owner` was closed: call all who wait on it, and those who stood behind them.  The thread or loop of the former may
 * come by late, or never, while others go on using the channel. */
static inline void nc_chan_call_owner(nc_chan *ch, int side, void *owner, uint32_t now, nc_box **kicks)
{
    nc_gate *g = &ch->gate[side];
    nc_gate_enter(g, now);
    nc_gate_call_owner(g, owner, kicks);
    if (g->waiting > 0)
        nc_chan_call_ready(ch, side, kicks);
    nc_gate_exit(g);
}

/* ---- objects: moving them ----------------------------------------------------------------------------- */

/* Push up to n values; how many. */
static inline uint64_t nc_chan_push(nc_chan *ch, void *const *values, uint64_t n, nc_way way)
{
    return way.many ? nc_ring_push_mp(ch->ring, values, n) : nc_ring_push_sp(ch->ring, values, n, way.publish);
}

/* Pop up to n values; how many. */
static inline uint64_t nc_chan_pop(nc_chan *ch, void **values, uint64_t n, nc_way way)
{
    return way.many ? nc_ring_pop_mpsc(ch->ring, values, n, way.publish)
                    : nc_ring_pop_spsc(ch->ring, values, n, way.publish);
}

/* The same with others in line: only as much as is left over from their shares. */
static inline uint64_t nc_chan_push_behind(nc_chan *ch, void *const *values, uint64_t n, nc_way way, uint32_t now)
{
    nc_gate_enter(&ch->gate[NC_TX], now);
    uint64_t spare = nc_chan_spare(ch, NC_TX), most = n < spare ? n : spare;
    uint64_t pushed = most > 0 ? nc_chan_push(ch, values, most, way) : 0;
    nc_gate_exit(&ch->gate[NC_TX]);
    return pushed;
}

/* Likewise for a receiver. */
static inline uint64_t nc_chan_pop_behind(nc_chan *ch, void **values, uint64_t n, nc_way way, uint32_t now)
{
    nc_gate_enter(&ch->gate[NC_RX], now);
    uint64_t spare = nc_chan_spare(ch, NC_RX), most = n < spare ? n : spare;
    uint64_t popped = most > 0 ? nc_chan_pop(ch, values, most, way) : 0;
    nc_gate_exit(&ch->gate[NC_RX]);
    return popped;
}

/* Put up to n values; *put counts them.  `called`: it is the caller's turn; else it goes behind those in line.  The
 * other side is notified even if there is no room, as somebody there may have missed a wake-up. */
static inline nc_outcome nc_chan_put(nc_chan *ch, void *const *values, uint64_t n, bool called, nc_way way,
                                     uint32_t now, uint64_t *put, nc_box **kicks)
{
    uint32_t crowd = nc_gate_crowd(&ch->gate[NC_TX]);
    *put = 0;
    if (crowd & NC_OVER)
        return NC_DISCONNECTED;
    *put = crowd == 0 || called ? nc_chan_push(ch, values, n, way) : nc_chan_push_behind(ch, values, n, way, now);
    nc_chan_notify(ch, NC_RX, way.glance, now, kicks);
    return *put > 0 ? NC_DONE : NC_BLOCKED;
}

/* Take up to n values; *taken counts them.  The rest as in nc_chan_put. */
static inline nc_outcome nc_chan_take(nc_chan *ch, void **values, uint64_t n, bool called, nc_way way, uint32_t now,
                                      uint64_t *taken, nc_box **kicks)
{
    nc_gate *g = &ch->gate[NC_RX];
    bool first = called || nc_gate_crowd(g) < NC_WAITER, over = false;
    for (;;) {
        *taken = first ? nc_chan_pop(ch, values, n, way) : nc_chan_pop_behind(ch, values, n, way, now);
        if (*taken > 0 || over)
            break;
        if (!(over = nc_gate_over_seen(g))) /* C1, before the last look: what came before the end is there by now */
            break;
    }
    if (*taken == 0 && over)
        return nc_ring_len(ch->ring) == 0 ? NC_DISCONNECTED : NC_BLOCKED; /* the rest is owed to those in line */
    nc_chan_notify(ch, NC_TX, way.glance, now, kicks);
    return *taken > 0 ? NC_DONE : NC_BLOCKED;
}

/* ---- bytes: claims ------------------------------------------------------------------------------------- */

/* Native threads may move bytes, and they take no GIL.  So all orders are the strong ones, but within a batch.
 *
 * Reserve room for n bytes, whoever is in line. */
static inline nc_result nc_chan_reserve(nc_chan *ch, uint64_t n, nc_record *record)
{
    if (nc_chan_by_lanes(ch))
        return nc_lanes_claim(ch->lanes, n, record);
    return ch->log->many ? nc_log_claim_mp(ch->log, n, record) : nc_log_claim_sp(ch->log, n, record);
}

/* What a refusal comes to. */
static inline nc_outcome nc_chan_refused(nc_result result)
{
    return result == NC_EMPTY ? NC_DISCONNECTED : NC_BLOCKED; /* EMPTY: by lanes alone, nobody reads them any more */
}

/* Reserve room for n bytes as far as it is this caller's.  `called`: as in nc_chan_put. */
static inline nc_outcome nc_chan_claim(nc_chan *ch, uint64_t n, bool called, uint32_t now, nc_record *record)
{
    nc_gate *g = &ch->gate[NC_TX];
    uint32_t crowd = nc_gate_crowd(g);
    if (crowd & NC_OVER)
        return NC_DISCONNECTED;
    nc_result result = NC_FULL;
    if (crowd == 0 || called) {
        result = nc_chan_reserve(ch, n, record);
    } else {
        nc_gate_enter(g, now);
        if (nc_chan_spare(ch, NC_TX) >= nc_log_extent(n))
            result = nc_chan_reserve(ch, n, record);
        nc_gate_exit(g);
    }
    return result == NC_OK ? NC_DONE : nc_chan_refused(result);
}

/* Commit n bytes; the caller then notifies NC_RX.  `publish`: release within a batch, which nc_chan_publish_batch()
 * ends. */
static inline void nc_chan_commit(nc_chan *ch, const nc_record *record, uint64_t n, memory_order publish)
{
    if (!ch->log->many)
        nc_log_commit_sp(ch->log, record, n, publish);
    else if (!nc_chan_by_lanes(ch))
        nc_log_commit_mp(ch->log, record, n, publish);
    else
        nc_lanes_commit(ch->lanes, record, n, publish);
}

/* End a batch of them; the caller then notifies NC_RX. */
static inline void nc_chan_publish_batch(nc_chan *ch)
{
    if (nc_chan_by_lanes(ch))
        nc_lanes_publish(ch->lanes);
    else
        nc_log_publish_batch(ch->log);
}

/* Abort a claim; the caller then notifies the side that this returns.  With many producers, the consumer has a skip to
 * step over.  A single producer has published nothing yet, so the room is free again. */
static inline int nc_chan_abort(nc_chan *ch, const nc_record *record)
{
    if (nc_chan_by_lanes(ch))
        nc_lanes_abort(ch->lanes);
    if (!ch->log->many || nc_chan_by_lanes(ch))
        return NC_TX;
    nc_log_abort_mp(ch->log, record, memory_order_seq_cst);
    return NC_RX;
}

/* The first record, which stays: NC_EMPTY if there is none, or if it is not quite there yet.  *freed: skips were
 * stepped over. */
static inline nc_result nc_chan_peek(nc_chan *ch, nc_record *record, bool *freed, memory_order publish)
{
    *freed = false;
    if (nc_chan_by_lanes(ch))
        return nc_lanes_peek(ch->lanes, record);
    return ch->log->many ? nc_log_peek_mpsc(ch->log, record, freed, publish) : nc_log_peek_spsc(ch->log, record);
}

/* The same by lanes that are known already: whoever finds nothing peeks, or sleeps on what is to be heard. */
static inline nc_result nc_chan_glance(nc_chan *ch, nc_record *record, bool *freed, memory_order publish)
{
    *freed = false;
    return nc_chan_by_lanes(ch) ? nc_lanes_glance(ch->lanes, record) : nc_chan_peek(ch, record, freed, publish);
}

/* As nc_chan_peek(), but waits for one of which the tail tells, if it is not quite there: whoever was called, or saw a
 * number of bytes in use, does not look in vain. */
static inline nc_result nc_chan_find(nc_chan *ch, nc_record *record, bool *freed)
{
    if (ch->log->many)
        return nc_chan_peek(ch, record, freed, memory_order_seq_cst);
    *freed = false;
    return nc_log_find_spsc(ch->log, record);
}

/* Look at the first record, which stays.  With waiters in line it is owed to the first of them; only the end is for
 * all.  If skips were stepped over, they are given back; if nothing is there, NC_TX is notified.  `hear`: by lanes,
 * look also at what is to be heard; else the caller sleeps on that, if this was in vain. */
static inline nc_outcome nc_chan_show(nc_chan *ch, bool called, bool hear, uint32_t now, nc_record *record,
                                      nc_box **kicks)
{
    nc_gate *g = &ch->gate[NC_RX];
    bool freed, first = called || nc_gate_crowd(g) < NC_WAITER;
    for (int last = 0; last < 2; last++) {
        if (first) {
            bool known = !hear && nc_chan_by_lanes(ch);
            nc_result r =
                known ? nc_chan_glance(ch, record, &freed, memory_order_seq_cst) : nc_chan_find(ch, record, &freed);
            if (freed)
                nc_chan_given_back(ch, now, kicks);
            if (r == NC_OK)
                return NC_DONE;
        }
        if (ch->lanes != NULL && first) /* the look has heard what observers in line would have heard */
            nc_chan_notify(ch, NC_RX, memory_order_relaxed, now, kicks);
        if (ch->lanes != NULL) /* a fault is told as an end, too: whoever tells it asks for both */
            return nc_lanes_over(ch->lanes) || nc_lanes_faulty(ch->lanes) ? NC_DISCONNECTED : NC_BLOCKED;
        if (last == 0 && !nc_gate_over_seen(g)) { /* C1, before the last look */
            nc_chan_notify(ch, NC_TX, memory_order_seq_cst, now, kicks); /* as in nc_chan_put */
            return NC_BLOCKED;
        }
    }
    return nc_log_used(ch->log) == 0 ? NC_DISCONNECTED : NC_BLOCKED;
}

/* Give the first record back; the caller then calls nc_chan_given_back().  `publish`: release within a batch, which
 * nc_log_release_batch() ends. */
static inline void nc_chan_release(nc_chan *ch, const nc_record *record, memory_order publish)
{
    if (!ch->log->many)
        nc_log_release_spsc(ch->log, record, publish);
    else if (!nc_chan_by_lanes(ch))
        nc_log_release_mpsc(ch->log, record, publish);
    else
        nc_lanes_release(ch->lanes, record, publish);
}

/* End a batch of them. */
static inline void nc_chan_release_batch(nc_chan *ch)
{
    if (nc_chan_by_lanes(ch))
        nc_lanes_release_batch(ch->lanes);
    else
        nc_log_release_batch(ch->log);
}

/* The record was copied, and is about to be given back: for speed alone. */
static inline void nc_chan_touch(nc_chan *ch, const nc_record *record)
{
    if (!nc_chan_by_lanes(ch)) /* its reader may not write there */
        nc_log_touch_sc(record);
}

/* ---- leaving ------------------------------------------------------------------------------------------- */

/* Are the receivers gone for good?  Then nobody will take what is in the ring.  Relaxed: the caller has looked at the
 * flag after it published (W2), or has just left. */
static inline bool nc_chan_orphaned(nc_chan *ch)
{
    return nc_gate_flag(&ch->gate[NC_RX], memory_order_relaxed) & NC_GONE;
}

/* Of an orphaned channel: take up to n objects out of the ring, for the caller to drop; returns how many.  The thread
 * in the gate is the consumer.  W3, after C2: at least one of the sender and the receiver that left sees what
 * the other did. */
static inline uint64_t nc_chan_discard(nc_chan *ch, void **values, uint64_t n, nc_way way, uint32_t now)
{
    nc_gate_enter(&ch->gate[NC_RX], now);
    uint64_t taken = nc_chan_have(ch, NC_RX) > 0 ? nc_chan_pop(ch, values, n, way) : 0; /* W3 */
    ch->discarded += taken;
    nc_gate_exit(&ch->gate[NC_RX]);
    return taken;
}

/* The same of bytes, within the gate: discard all that is committed; returns how many messages.  While a read claim is
 * open they are kept, and the end of the claim discards them. */
static inline uint64_t nc_chan_discard_bytes_held(nc_chan *ch)
{
    nc_record record;
    bool freed;
    uint64_t messages = 0;
    if (ch->reading || nc_chan_by_lanes(ch)) /* what lies in lanes goes with them */
        return 0;
    uint64_t before = atomic_load_explicit(&ch->log->head, memory_order_relaxed); /* under the lock */
    while (nc_chan_have(ch, NC_RX) > 0) /* W3; peek alone, behind a skip, may miss what W3 would see */
        if (nc_chan_find(ch, &record, &freed) == NC_OK) {
            nc_chan_release(ch, &record, memory_order_seq_cst);
            messages++;
        }
    ch->discarded += atomic_load_explicit(&ch->log->head, memory_order_relaxed) - before; /* as above */
    return messages;
}

static inline uint64_t nc_chan_discard_bytes(nc_chan *ch, uint32_t now)
{
    nc_gate_enter(&ch->gate[NC_RX], now);
    uint64_t messages = nc_chan_discard_bytes_held(ch);
    nc_gate_exit(&ch->gate[NC_RX]);
    return messages;
}

/* End a read claim, for which the caller has set `reading`; then as after nc_chan_release().  `left`: its receiver left
 * meanwhile, so the thread in the gate is the consumer, and discards all messages behind the record, too.  Returns how
 * many messages were discarded, this one included. */
static inline uint64_t nc_chan_end_read(nc_chan *ch, const nc_record *record, bool left, uint32_t now)
{
    uint64_t discarded = 0;
    if (left)
        nc_gate_enter(&ch->gate[NC_RX], now);
    nc_chan_release(ch, record, memory_order_seq_cst);
    ch->reading = false;
    if (left) {
        ch->discarded += nc_log_extent(record->size);
        discarded = 1 + nc_chan_discard_bytes_held(ch);
        nc_gate_exit(&ch->gate[NC_RX]);
    }
    return discarded;
}

/* A further endpoint of a side. */
static inline void nc_chan_join(nc_chan *ch, int side)
{
    /* relaxed: the caller holds another endpoint, or makes the first */
    atomic_fetch_add_explicit(&ch->open[side], 1, memory_order_relaxed);
}

/* An endpoint leaves its side.  With the last one the side is gone; if nc_chan_orphaned() then, the caller discards. */
static inline void nc_chan_leave(nc_chan *ch, int side, uint32_t now, nc_box **kicks)
{
    nc_gate *mine = &ch->gate[side], *theirs = &ch->gate[1 - side];
    /* C3: whoever sees the end sees all that each endpoint did before it left */
    if (atomic_fetch_sub_explicit(&ch->open[side], 1, memory_order_acq_rel) != 1)
        return;
    if (ch->lanes != NULL) {
        nc_lanes_leave(ch->lanes);
        return;
    }
    nc_gate_enter(theirs, now);
    nc_gate_set_over(theirs); /* C1: first, or others would go on sending to nobody while this thread is held up */
    nc_gate_call_ready(theirs, nc_chan_have(ch, 1 - side), kicks);
    nc_gate_resume_all(theirs, kicks);
    nc_gate_exit(theirs);
    NC_STEP("leave: the other side is notified, not gone yet");
    nc_gate_enter(mine, now);
    nc_gate_set_gone(mine); /* C2: before the ring is emptied */
    nc_gate_exit(mine);
}

#endif
