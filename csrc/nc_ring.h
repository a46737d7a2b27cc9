/* nc_ring.h: a bounded ring of pointers with an exact capacity.  Touches nc_base.h only.
 *
 * Algorithms are named by their sides.  One producer: push_sp and pop_spsc.  Many producers: push_mp and pop_mpsc.  A
 * ring keeps to one pair.  "One" means one at a time: the caller has to serialise that side, by a lock, the GIL or a
 * single thread.
 *
 *            head                      tail
 *             v                         v
 *    +------+------+------+------+------+------+------+
 *    | NULL |  v   |  v   | NULL |  v   | NULL | NULL |      capacity = 7 slots, span = 8
 *    +------+------+------+------+------+------+------+
 *                            ^ claimed by push_mp, not stored yet
 *
 * A position is lap * span + index, where span is the smallest power of two that is >= capacity and index
 * runs over 0 .. capacity - 1: the capacity is exact, no division is needed, and the 64 bits may wrap.
 *
 *    head <= tail            as free-running positions
 *    empty:  tail == head    full:  tail == head + span
 *    slots[head .. tail) hold values or are claimed; with many producers every other slot is NULL
 *
 * With one producer nobody looks at a slot before the tail has passed it, so slots are not cleared.  Each side keeps
 * its own position in a line of its own, too: the line that the other side polls is only stored to.
 *
 * Taken from others: positions with laps from crossbeam-channel (array flavour); claim, then store, with
 * NULL for "not there yet", from Aeron's many-to-one array queue; stale copies of the other side's
 * position from rtrb.  Edges R1..R4 are in PROTOCOL.md.
 */
#ifndef NC_RING_H
#define NC_RING_H

#include "nc_base.h"

/* What each side writes and reads lies in lines of its own.  Where one lock orders both sides, so that no two cores
 * move items at once, the lines would only take memory: such a build sets this to less. */
#ifndef NC_RING_LINE
#define NC_RING_LINE NC_CACHE_LINE
#endif

typedef struct nc_ring {
    /* read-only after init */
    uint64_t capacity; /* slots in use, 1 .. 2^62 */
    uint64_t span;     /* power of two >= capacity */
    void *_Atomic *slots;

    /* what the consumer reads */
    _Alignas(NC_RING_LINE) _Atomic uint64_t tail; /* next position to claim; written by producers */

    /* the producers' own */
    _Alignas(NC_RING_LINE) uint64_t own_tail; /* one producer: the tail */
    _Atomic uint64_t head_seen;                /* an earlier head; stale */

    /* what producers read */
    _Alignas(NC_RING_LINE) _Atomic uint64_t head; /* next position to take; written by the consumer */

    /* the consumer's own */
    _Alignas(NC_RING_LINE) uint64_t own_head; /* the head */
    uint64_t tail_seen;                        /* head <= tail_seen <= tail; stale */
} nc_ring;

/* `slots` holds `capacity` NULLs; `start` is a position to start from (0, or anything a test wants). */
static inline void nc_ring_init(nc_ring *r, void *_Atomic *slots, uint64_t capacity, uint64_t start)
{
    r->capacity = capacity;
    r->span = nc_pow2_ceil(capacity);
    r->slots = slots;
    start &= ~(r->span - 1); /* relaxed below: nobody else knows the ring yet */
    atomic_store_explicit(&r->tail, start, memory_order_relaxed);
    atomic_store_explicit(&r->head, start, memory_order_relaxed);
    atomic_store_explicit(&r->head_seen, start, memory_order_relaxed);
    r->own_tail = r->own_head = r->tail_seen = start;
}

static inline uint64_t nc_ring_index(const nc_ring *r, uint64_t pos) { return pos & (r->span - 1); }

/* The position `n` items on, n <= capacity. */
static inline uint64_t nc_ring_advance(const nc_ring *r, uint64_t pos, uint64_t n)
{
    uint64_t index = nc_ring_index(r, pos);
    return index + n < r->capacity ? pos + n : pos - index + r->span + (index + n - r->capacity);
}

static inline uint64_t nc_ring_next(const nc_ring *r, uint64_t pos)
{
    return nc_ring_index(r, pos) + 1 < r->capacity ? pos + 1 : (pos | (r->span - 1)) + 1;
}

/* Items from `head` to `tail`, two positions at most a lap apart. */
static inline uint64_t nc_ring_distance(const nc_ring *r, uint64_t head, uint64_t tail)
{
    uint64_t hi = nc_ring_index(r, head), ti = nc_ring_index(r, tail);
    return (tail - ti == head - hi ? 0 : r->capacity) + ti - hi;
}

/* How many items have ever passed a position, as long as the lap count has not wrapped. */
static inline uint64_t nc_ring_ordinal(const nc_ring *r, uint64_t pos)
{
    return pos / r->span * r->capacity + nc_ring_index(r, pos);
}

/* Items in the ring, for anybody at any time: never less than what was there throughout the call.  The head
 * is read first: read second, it could have overtaken the tail.  (R1 -> R1', R3 -> R3') */
static inline uint64_t nc_ring_len(nc_ring *r)
{
    uint64_t head = atomic_load_explicit(&r->head, memory_order_seq_cst);
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_seq_cst);
    uint64_t len = tail - head > r->span ? r->capacity : nc_ring_distance(r, head, tail);
    return len;
}

/* ---- producers ------------------------------------------------------------------------------------ */

/* Room behind `tail` if the head is, or was, at `head`; counted no further than `want`. */
static inline uint64_t nc_ring_gap(const nc_ring *r, uint64_t head, uint64_t tail, uint64_t want)
{
    if (tail - head >= r->span) /* full; or `tail` is stale and the head went past it */
        return 0;
    return want == 1 ? 1 : r->capacity - nc_ring_distance(r, head, tail);
}

/* Room behind `tail`, for a producer: at least what it wants, or all that there really is. */
static inline uint64_t nc_ring_room(nc_ring *r, uint64_t tail, uint64_t want)
{
    uint64_t head = atomic_load_explicit(&r->head_seen, memory_order_acquire); /* R4 -> A4; possibly full */
    uint64_t room = nc_ring_gap(r, head, tail, want);
    if (room >= want)
        return room;
    head = atomic_load_explicit(&r->head, memory_order_acquire);         /* R3 -> A3: its slots are free */
    atomic_store_explicit(&r->head_seen, head, memory_order_release);    /* R4: and so for other producers */
    return nc_ring_gap(r, head, tail, want);                             /* else: really full */
}

/* Items that the consumer may take if the head is at `head`; counted no further than `want`. */
static inline uint64_t nc_ring_ready(const nc_ring *r, uint64_t head, uint64_t want)
{
    return want == 1 ? head != r->tail_seen : nc_ring_distance(r, head, r->tail_seen);
}

static inline void nc_ring_fill(nc_ring *r, uint64_t pos, void *value, memory_order order)
{
    atomic_store_explicit(&r->slots[nc_ring_index(r, pos)], value, order);
}

/* Push up to `n` values in order; returns how many.  `publish` is the order of the tail's store:
 * seq_cst where the other side may look without a common lock (R1), release where a lock or the GIL
 * covers both. */
static inline uint64_t nc_ring_push_sp(nc_ring *r, void *const *values, uint64_t n, memory_order publish)
{
    uint64_t tail = r->own_tail, room = nc_ring_room(r, tail, n);
    if (n > room)
        n = room;
    if (n == 0)
        return 0;
    for (uint64_t i = 0; i < n; i++, tail = nc_ring_next(r, tail)) /* relaxed: R1 below publishes them */
        nc_ring_fill(r, tail, values[i], memory_order_relaxed);
    NC_STEP("push_sp: stored, not published");
    r->own_tail = tail;
    atomic_store_explicit(&r->tail, tail, publish); /* R1 */
    return n;
}

/* push_sp for one value, by far the most frequent: no loop, and no count of the room. */
static inline bool nc_ring_push_one_sp(nc_ring *r, void *value, memory_order publish)
{
    uint64_t tail = r->own_tail, next = nc_ring_next(r, tail);
    if (nc_ring_room(r, tail, 1) == 0)
        return false;
    nc_ring_fill(r, tail, value, memory_order_relaxed); /* R1 below publishes it */
    r->own_tail = next;
    atomic_store_explicit(&r->tail, next, publish); /* R1 */
    return true;
}

/* The tail, after another producer has won the swap.  A value in its slot tells that somebody has moved on since, or
 * that the ring is full: to swap now would be in vain, and would take the line from its owner.  Not inlined: this is
 * the slow way. */
NC_SLOW uint64_t nc_ring_lost(nc_ring *r, unsigned *pauses)
{
    for (;;) {
        unsigned paused = *pauses;
        nc_back_off(pauses);
        uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed); /* the swap checks it */
        if (paused == NC_PAUSES_MOST || /* relaxed: a hint */
            atomic_load_explicit(&r->slots[nc_ring_index(r, tail)], memory_order_relaxed) == NULL)
            return tail;
    }
}

/* The same for many producers: claim by compare-and-swap, then store.  What is claimed and not yet
 * stored holds the consumer up for the few instructions in between. */
static inline uint64_t nc_ring_push_mp(nc_ring *r, void *const *values, uint64_t n)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed), take; /* the swap checks it */
    unsigned pauses = NC_PAUSES_LEAST;
    for (;;) {
        uint64_t room = nc_ring_room(r, tail, n);
        take = n < room ? n : room;
        if (take == 0) {
            uint64_t now = atomic_load_explicit(&r->tail, memory_order_relaxed);
            if (now == tail)
                return 0;
            tail = now; /* not full: somebody moved on while we looked */
            continue;
        }
        NC_STEP("push_mp: room seen, not claimed");
        if (atomic_compare_exchange_strong_explicit(&r->tail, &tail, nc_ring_advance(r, tail, take),
                                                    memory_order_seq_cst, memory_order_relaxed)) /* R1 */
            break;
        tail = nc_ring_lost(r, &pauses);
    }
    NC_STEP("push_mp: claimed, not stored");
    for (uint64_t i = 0; i < take; i++, tail = nc_ring_next(r, tail))
        nc_ring_fill(r, tail, values[i], memory_order_release); /* R2 */
    return take;
}

/* push_mp for one value. */
static inline bool nc_ring_push_one_mp(nc_ring *r, void *value)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed); /* the swap checks it */
    unsigned pauses = NC_PAUSES_LEAST;
    for (;;) {
        if (nc_ring_room(r, tail, 1) == 0) {
            uint64_t now = atomic_load_explicit(&r->tail, memory_order_relaxed);
            if (now == tail)
                return false;
            tail = now; /* not full: somebody moved on while we looked */
            continue;
        }
        NC_STEP("push_mp: room seen, not claimed");
        void *_Atomic *slot = &r->slots[nc_ring_index(r, tail)];
        if (atomic_compare_exchange_strong_explicit(&r->tail, &tail, nc_ring_next(r, tail), memory_order_seq_cst,
                                                    memory_order_relaxed)) { /* R1 */
            NC_STEP("push_mp: claimed, not stored");
            atomic_store_explicit(slot, value, memory_order_release); /* R2 */
            return true;
        }
        tail = nc_ring_lost(r, &pauses);
    }
}

/* ---- the consumer --------------------------------------------------------------------------------- */

/* How many items the consumer may take, no more than it wants; and where from. */
static inline uint64_t nc_ring_found(nc_ring *r, uint64_t head, uint64_t want)
{
    uint64_t len = nc_ring_ready(r, head, want);
    if (len < want) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire); /* R1 -> A1 */
        len = nc_ring_ready(r, head, want);
    }
    return len < want ? len : want;
}

static inline void nc_ring_move_head(nc_ring *r, uint64_t head, memory_order publish)
{
    NC_STEP("pop: taken, not freed");
    r->own_head = head;
    atomic_store_explicit(&r->head, head, publish); /* R3 */
}

/* Take up to `n` values of one producer, in order; returns how many.  `publish` as in push_sp (R3). */
static inline uint64_t nc_ring_pop_spsc(nc_ring *r, void **values, uint64_t n, memory_order publish)
{
    uint64_t head = r->own_head;
    n = nc_ring_found(r, head, n);
    for (uint64_t i = 0; i < n; i++, head = nc_ring_next(r, head)) /* relaxed: after A1 */
        values[i] = atomic_load_explicit(&r->slots[nc_ring_index(r, head)], memory_order_relaxed);
    if (n > 0)
        nc_ring_move_head(r, head, publish);
    return n;
}

/* pop_spsc for one value; NULL if there is none. */
static inline void *nc_ring_pop_one_spsc(nc_ring *r, memory_order publish)
{
    uint64_t head = r->own_head;
    if (head == r->tail_seen && head == (r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire))) /* A1 */
        return NULL;
    void *value = atomic_load_explicit(&r->slots[nc_ring_index(r, head)], memory_order_relaxed); /* after A1 */
    nc_ring_move_head(r, nc_ring_next(r, head), publish);
    return value;
}

/* Take up to `n` values of many producers, in order; returns how many.  Waits for those that are claimed. */
static inline uint64_t nc_ring_pop_mpsc(nc_ring *r, void **values, uint64_t n, memory_order publish)
{
    uint64_t head = r->own_head;
    n = nc_ring_found(r, head, n);
    for (uint64_t i = 0; i < n; i++, head = nc_ring_next(r, head)) {
        void *_Atomic *slot = &r->slots[nc_ring_index(r, head)];
        unsigned spins = 0;
        while ((values[i] = atomic_load_explicit(slot, memory_order_acquire)) == NULL) /* R2 -> A2 */
            nc_relax(&spins);
        atomic_store_explicit(slot, NULL, memory_order_relaxed); /* R3 below publishes it */
    }
    if (n > 0)
        nc_ring_move_head(r, head, publish);
    return n;
}

/* pop_mpsc for one value; NULL if there is none, or if it is claimed and not stored yet: pop_mpsc waits for such a one.
 * A value in a slot was claimed before, so the tail is not read, and its cache line stays with the producers. */
static inline void *nc_ring_pop_one_mpsc(nc_ring *r, memory_order publish)
{
    uint64_t head = r->own_head, next = nc_ring_next(r, head);
    void *_Atomic *slot = &r->slots[nc_ring_index(r, head)];
    void *value = atomic_load_explicit(slot, memory_order_acquire); /* R2 -> A2 */
    if (value == NULL)
        return NULL;
    if (head == r->tail_seen) /* never behind the head */
        r->tail_seen = next;
    atomic_store_explicit(slot, NULL, memory_order_relaxed); /* R3 below publishes it */
    nc_ring_move_head(r, next, publish);
    return value;
}

#endif
