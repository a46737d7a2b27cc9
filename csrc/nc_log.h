/* nc_log.h: a bounded ring of variable-length records of bytes.  Touches nc_base.h only.
 *
 * Algorithms are named by their sides.  One producer: claim_sp, commit_sp, peek_spsc, release_spsc.  Many producers:
 * claim_mp, commit_mp, abort_mp, peek_mpsc, release_mpsc.  A ring keeps to one kind.  "One" means one at a time, as in
 * nc_ring.h.
 *
 *     word 0 .. capacity/8                            spill: capacity/8 more words
 *    +---------------------------------------------+----------------------------------------------+
 *    |  len payload.. |  ? (claimed) |      |  len pay-load, past the end without a break  |       |
 *    +---------------------------------------------+----------------------------------------------+
 *    |  1 0 0 0 0 0 0 |  0 0 0 0 0 0 | 0 0  |  1 0 0     marks, with many producers: one a word
 *    +---------------------------------------------+
 *       ^ head                       ^ tail            (records start in the first half only)
 *
 * A record is one header word, then its payload, padded to 8 bytes:
 *
 *    header = n             n bytes of payload follow          (n in 1 .. capacity - 8)
 *             NC_SKIP | e   nothing here: go on e bytes further            (e a multiple of 8, e >= 8)
 *             0             one producer: nothing committed here yet
 *
 * Positions are free-running byte counts, multiples of 8; position p lies p mod capacity bytes behind word 0.
 *
 *    0 <= tail - head <= capacity          used = tail - head          room = capacity - used
 *
 * A record that starts near the end runs on into the spill instead of wrapping round.  So payloads stay in
 * one piece and there is no padding: a record fits whenever there is room for it, wherever the last one
 * ended.  The spill costs address space; its pages are touched only as far as the longest such record.
 *
 * One producer publishes in band.  It commits by storing the header, and before that zeroes the word behind the record,
 * where the next header will be.  In a ring that is exactly full that word is the header at the head: the consumer
 * zeroes each header that it passes.  So the consumer goes by the header alone, and no other line moves between the
 * two. The tail is for whoever counts or waits.  Until the commit nothing is shared, so shrinking is free and aborting
 * is doing nothing.
 *
 * Many producers claim by moving the tail, and commit by setting the mark of the record's first word.  The consumer
 * stops at the first mark that is 0, and clears the mark of each record that it passes.  Marks lie apart from the
 * bytes, so no stale byte ever looks like one.  An aborted claim is committed as a skip.
 *
 * That the whole state of a claim is one word of its own is taken from Aeron (aeron_mpsc_rb.c).  There the word is the
 * header, and the consumer zeroes all that it passes.  Here marks take the place of zeroing, and the spill that of
 * padding.  The block holds no pointers.  Edges L1..L4 are in PROTOCOL.md.
 */
#ifndef NC_LOG_H
#define NC_LOG_H

#include "nc_base.h"

#define NC_SKIP (UINT64_C(1) << 63)
#define NC_LOG_MAGIC UINT32_C(0x6e636c67) /* "nclg" */
#define NC_LOG_LAYOUT 3

enum { NC_LOG_HEADER = 8, NC_LOG_LEAST = 64 };
enum { NC_LOG_LANES = 2 }; /* nc_log.many of what stands for a ring, and has no words: see nc_lanes.h */

typedef struct nc_log {
    /* read-only after init */
    uint32_t magic, layout;
    uint64_t capacity; /* bytes, a power of two, 64 .. 2^60 */
    uint64_t many;     /* 1: any number of producers, with marks; 0: one, without */

    /* producers' line */
    _Alignas(NC_CACHE_LINE) _Atomic uint64_t tail; /* sp: end of what is committed; mp: end of what is claimed */
    _Atomic uint64_t head_seen;                    /* an earlier head; written by producers, stale */
    _Atomic uint64_t own_tail; /* one producer: the tail, moved when a commit is over; F2 */

    /* what producers read */
    _Alignas(NC_CACHE_LINE) _Atomic uint64_t head; /* start of what is not consumed; written by the consumer */

    /* the consumer's own */
    _Alignas(NC_CACHE_LINE) uint64_t own_head; /* the head */

    _Alignas(NC_CACHE_LINE) _Atomic uint64_t words[]; /* 2 * capacity / 8 of them; then the marks */
} nc_log;

typedef _Atomic unsigned char nc_mark;

_Static_assert(offsetof(nc_log, tail) == NC_CACHE_LINE, "producers' fields start a line");
_Static_assert(offsetof(nc_log, head) == 2 * NC_CACHE_LINE, "what producers read is a line");
_Static_assert(offsetof(nc_log, own_head) == 3 * NC_CACHE_LINE, "the consumer's own field starts a line");
_Static_assert(offsetof(nc_log, words) == 4 * NC_CACHE_LINE, "records start a line");
_Static_assert(sizeof(_Atomic uint64_t) == NC_LOG_HEADER, "a header is one word");

/* A place for a record: claimed by a producer, or read by the consumer. */
typedef struct nc_record {
    uint64_t pos;        /* of its header */
    uint64_t size;       /* of its payload, bytes */
    unsigned char *data; /* the payload */
} nc_record;

/* The capacity for a wish: rounded up, or 0 if the wish is too large. */
static inline uint64_t nc_log_round(uint64_t wish)
{
    return wish > UINT64_C(1) << 60 ? 0 : nc_pow2_ceil(wish < NC_LOG_LEAST ? NC_LOG_LEAST : wish);
}

/* The size of the block for a capacity, for one producer or for many: whole cache lines, in bytes. */
static inline uint64_t nc_log_block_size(uint64_t capacity, bool many)
{
    return sizeof(nc_log) + 2 * capacity + (many ? nc_align_up(capacity / 8 * sizeof(nc_mark), NC_CACHE_LINE) : 0);
}

/* Bytes that a payload of n takes in the ring, header and padding included. */
static inline uint64_t nc_log_extent(uint64_t n) { return nc_align_up(NC_LOG_HEADER + n, 8); }

static inline uint64_t nc_log_largest(const nc_log *log) { return log->capacity - NC_LOG_HEADER; }

/* The block is zeroed and aligned to a cache line; `start` is a position to start from (0, or a test's). */
static inline void nc_log_init(nc_log *log, uint64_t capacity, bool many, uint64_t start)
{
    log->magic = NC_LOG_MAGIC;
    log->layout = NC_LOG_LAYOUT;
    log->capacity = capacity;
    log->many = many;
    start &= ~UINT64_C(7); /* relaxed below: nobody else knows the ring yet */
    atomic_store_explicit(&log->tail, start, memory_order_relaxed);
    atomic_store_explicit(&log->head, start, memory_order_relaxed);
    atomic_store_explicit(&log->head_seen, start, memory_order_relaxed);
    atomic_store_explicit(&log->own_tail, start, memory_order_relaxed);
    log->own_head = start;
}

/* The word at `pos`, and its mark, in a block of that capacity. */
static inline _Atomic uint64_t *nc_log_word_in(nc_log *log, uint64_t capacity, uint64_t pos)
{
    return (_Atomic uint64_t *)(void *)((char *)log->words + (pos & (capacity - 1)));
}

static inline nc_mark *nc_log_mark_in(nc_log *log, uint64_t capacity, uint64_t pos)
{
    return (nc_mark *)&log->words[capacity / 4] + (pos & (capacity - 1)) / 8;
}

/* The header of the record at `pos`; and, where there are marks, whether it is committed. */
static inline _Atomic uint64_t *nc_log_header(nc_log *log, uint64_t pos)
{
    return nc_log_word_in(log, log->capacity, pos);
}

static inline nc_mark *nc_log_mark(nc_log *log, uint64_t pos) { return nc_log_mark_in(log, log->capacity, pos); }

static inline nc_record nc_log_record(nc_log *log, uint64_t pos, uint64_t size)
{
    return (nc_record){pos, size, (unsigned char *)(nc_log_header(log, pos) + 1)};
}

/* The header of a record that is claimed or was shown. */
static inline _Atomic uint64_t *nc_log_header_of(const nc_record *record)
{
    return (_Atomic uint64_t *)(void *)record->data - 1;
}

/* Bytes in use, for anybody at any time: never less than what was in use throughout the call.  The head is read
 * first: read second, it could have overtaken the tail.  (L1 -> L1', L3 -> L3') */
static inline uint64_t nc_log_used(nc_log *log)
{
    uint64_t head = atomic_load_explicit(&log->head, memory_order_seq_cst);
    uint64_t used = atomic_load_explicit(&log->tail, memory_order_seq_cst) - head;
    return used < log->capacity ? used : log->capacity;
}

/* Is there something for the consumer to look at, a record or a skip?  For anybody at any time.  seq_cst (W3), as it is
 * asked after raising or reading a gate's flag.  If the consumer moved meanwhile, the mark was that of another record:
 * ask again.  With many producers the answer may be false while the consumer gives a record back, whatever lies
 * behind.  So the consumer has to look again after that, or to call the next. */
static inline bool nc_log_ready(nc_log *log)
{
    for (;;) {
        uint64_t head = atomic_load_explicit(&log->head, memory_order_acquire); /* L3 */
        bool ready = head != atomic_load_explicit(&log->tail, memory_order_seq_cst) &&
                     (!log->many || atomic_load_explicit(nc_log_mark(log, head), memory_order_seq_cst) != 0);
        if (head == atomic_load_explicit(&log->head, memory_order_relaxed)) /* after these loads, which acquire */
            return ready;
    }
}

/* ---- producers ------------------------------------------------------------------------------------ */

/* Is there room for `extent` bytes at `tail`? */
static inline bool nc_log_fits(nc_log *log, uint64_t tail, uint64_t extent)
{
    uint64_t head = atomic_load_explicit(&log->head_seen, memory_order_acquire); /* L4; possibly full */
    if (tail + extent - head <= log->capacity)
        return true;
    head = atomic_load_explicit(&log->head, memory_order_acquire);          /* L3: consumed, and no mark left */
    atomic_store_explicit(&log->head_seen, head, memory_order_release);     /* L4: so for other producers */
    return tail + extent - head <= log->capacity;                           /* else: really full */
}

/* Reserve a record of n bytes, n in 1 .. largest.  Nobody else sees it until it is committed. */
static inline nc_result nc_log_claim_sp(nc_log *log, uint64_t n, nc_record *record)
{
    uint64_t tail = atomic_load_explicit(&log->own_tail, memory_order_relaxed); /* ours: nobody else writes it */
    if (!nc_log_fits(log, tail, nc_log_extent(n)))
        return NC_FULL;
    *record = nc_log_record(log, tail, n);
    return NC_OK;
}

/* Publish the first n bytes of the record, n in 1 .. its size; the rest stays free.  `publish` is the order of the
 * tail's store, as in nc_ring.h.  The tail goes first: a locked store of it behind the header would have to wait until
 * the consumer, which looks at the header all the time, lets go of that line. */
static inline void nc_log_commit_sp(nc_log *log, const nc_record *record, uint64_t n, memory_order publish)
{
    uint64_t next = record->pos + nc_log_extent(n);
    uint64_t head = atomic_load_explicit(&log->head_seen, memory_order_relaxed); /* as claim_sp left it */
    if (next - head < log->capacity) /* else it is the header at the head, or the consumer has zeroed it */
        atomic_store_explicit(nc_log_header(log, next), 0, memory_order_relaxed); /* L2 publishes it */
    atomic_store_explicit(&log->tail, next, publish); /* L1 */
    NC_STEP("commit_sp: tail moved, header not stored");
    atomic_store_explicit(nc_log_header_of(record), n, memory_order_release); /* L2 */
    NC_STEP("commit_sp: header stored, commit not over");
    atomic_store_explicit(&log->own_tail, next, memory_order_release); /* F2 */
}

/* The same for many producers.  From here on the record is ours, and the consumer cannot pass it. */
static inline nc_result nc_log_claim_mp(nc_log *log, uint64_t n, nc_record *record)
{
    uint64_t extent = nc_log_extent(n), tail = atomic_load_explicit(&log->tail, memory_order_relaxed);
    unsigned pauses = NC_PAUSES_LEAST;
    for (;;) { /* relaxed above: the swap checks it */
        if (!nc_log_fits(log, tail, extent)) {
            uint64_t now = atomic_load_explicit(&log->tail, memory_order_relaxed);
            if (now == tail)
                return NC_FULL;
            tail = now; /* not full: another producer moved the tail while we looked */
            continue;
        }
        NC_STEP("claim_mp: room seen, not claimed");
        if (atomic_compare_exchange_strong_explicit(&log->tail, &tail, tail + extent, memory_order_seq_cst,
                                                    memory_order_relaxed)) /* L1 */
            break;
        nc_back_off(&pauses);
        tail = atomic_load_explicit(&log->tail, memory_order_relaxed); /* the swap checks it */
    }
    *record = nc_log_record(log, tail, n);
    return NC_OK;
}

/* Publish the first n bytes of the record.  What is left over becomes a skip.  The skip is written before the
 * mark of the record, by which the consumer comes to it. */
static inline void nc_log_commit_mp(nc_log *log, const nc_record *record, uint64_t n, memory_order publish)
{
    uint64_t extent = nc_log_extent(n), rest = nc_log_extent(record->size) - extent;
    if (rest > 0) { /* relaxed, all but the last: L2 publishes them */
        atomic_store_explicit(nc_log_header(log, record->pos + extent), NC_SKIP | rest, memory_order_relaxed);
        atomic_store_explicit(nc_log_mark(log, record->pos + extent), 1, memory_order_relaxed);
    }
    atomic_store_explicit(nc_log_header_of(record), n, memory_order_relaxed);
    NC_STEP("commit_mp: written, not committed");
    atomic_store_explicit(nc_log_mark(log, record->pos), 1, publish); /* L2 */
}

/* Give the record up: the consumer will step over it. */
static inline void nc_log_abort_mp(nc_log *log, const nc_record *record, memory_order publish)
{
    uint64_t extent = nc_log_extent(record->size); /* relaxed: L2 publishes it */
    atomic_store_explicit(nc_log_header_of(record), NC_SKIP | extent, memory_order_relaxed);
    atomic_store_explicit(nc_log_mark(log, record->pos), 1, publish); /* L2 */
}

/* ---- the consumer --------------------------------------------------------------------------------- */

/* The record at the head, without taking it: NC_EMPTY if there is none, or if its header is not there yet. */
static inline nc_result nc_log_peek_spsc(nc_log *log, nc_record *record)
{
    _Atomic uint64_t *header = nc_log_header(log, log->own_head);
    uint64_t n = atomic_load_explicit(header, memory_order_acquire); /* L2 */
    if (n == 0)
        return NC_EMPTY;
    *record = (nc_record){log->own_head, n, (unsigned char *)(header + 1)};
    return NC_OK;
}

/* The same, but if the tail says that a record is there, wait for its header.  That takes the producer a few
 * instructions, in which it calls nothing; but it may lose its core there. */
static inline nc_result nc_log_find_spsc(nc_log *log, nc_record *record)
{
    unsigned spins = 0;
    while (nc_log_peek_spsc(log, record) != NC_OK) {
        if (log->own_head == atomic_load_explicit(&log->tail, memory_order_relaxed)) /* the header acquires */
            return NC_EMPTY;
        nc_relax(&spins);
    }
    return NC_OK;
}

/* Give back `extent` bytes from the head on.  Their header is zeroed: with one producer it says that nothing is there
 * (L3).  With many, which have a mark instead, that is for speed alone: a cache line that the consumer has written to
 * is in its cache only, and a producer gets such a line back sooner than one that lies in both caches.  The consumer's
 * own head goes first: it tells a forked child how far this got. */
static inline void nc_log_advance_sc(nc_log *log, nc_mark *mark, _Atomic uint64_t *header, uint64_t extent,
                                     memory_order publish)
{
    uint64_t head = log->own_head += extent;
    NC_STEP("advance_sc: decided, not cleared");
    if (mark != NULL)
        atomic_store_explicit(mark, 0, memory_order_release); /* F2; L3 publishes both */
    atomic_store_explicit(header, 0, memory_order_release);   /* F2 */
    NC_STEP("advance_sc: cleared, not given back");
    atomic_store_explicit(&log->head, head, publish); /* L3 */
}

/* Done with the record that was shown: its bytes are the producer's again. */
static inline void nc_log_release_spsc(nc_log *log, const nc_record *record, memory_order publish)
{
    nc_log_advance_sc(log, NULL, nc_log_header_of(record), nc_log_extent(record->size), publish);
}

/* The same of many producers, mark included. */
static inline void nc_log_release_mpsc(nc_log *log, const nc_record *record, memory_order publish)
{
    nc_log_advance_sc(log, nc_log_mark(log, record->pos), nc_log_header_of(record), nc_log_extent(record->size),
                      publish);
}

/* The first committed record of many producers, without taking it: NC_EMPTY if there is none.  Steps over skips;
 * *freed is true if it did, as that has made room.  The mark tells, and the tail is not read. */
static inline nc_result nc_log_peek_mpsc(nc_log *log, nc_record *record, bool *freed, memory_order publish)
{
    const uint64_t capacity = log->capacity;
    *freed = false;
    for (;;) {
        uint64_t head = log->own_head;
        nc_mark *mark = nc_log_mark_in(log, capacity, head);
        _Atomic uint64_t *header = nc_log_word_in(log, capacity, head);
        if (atomic_load_explicit(mark, memory_order_acquire) == 0) /* L2 */
            return NC_EMPTY;
        uint64_t n = atomic_load_explicit(header, memory_order_relaxed); /* after L2 */
        if (!(n & NC_SKIP)) {
            *record = (nc_record){head, n, (unsigned char *)(header + 1)};
            return NC_OK;
        }
        nc_log_advance_sc(log, mark, header, n & ~NC_SKIP, publish);
        *freed = true;
    }
}

/* The consumer has read all of the record: zero a word of each further cache line too, for the same reason as in
 * nc_log_advance_sc().  Not for lines that it has not read: these are still in the producer's cache. */
static inline void nc_log_touch_sc(const nc_record *record)
{
    uint64_t last = (record->size - 1) & ~UINT64_C(7); /* relaxed, all: L3 publishes them */
    for (uint64_t i = NC_CACHE_LINE; i < last; i += NC_CACHE_LINE)
        atomic_store_explicit((_Atomic uint64_t *)(void *)(record->data + i), 0, memory_order_relaxed);
    atomic_store_explicit((_Atomic uint64_t *)(void *)(record->data + last), 0, memory_order_relaxed);
}

/* ---- batches --------------------------------------------------------------------------------------- */

/* End a batch that was committed, or given back, by release stores: from here on it counts as if it had been published
 * seq_cst.  Called once for a batch, before the gate's flag is read (W2).  A waiter that raised the flag before and
 * looks later (W3) reads this swap or a later one, and with it sees what came before.  Anybody may call this, as it
 * does not change the position. */
static inline void nc_log_publish_batch(nc_log *log)
{
    atomic_fetch_add_explicit(&log->tail, 0, memory_order_seq_cst); /* L1 */
}

static inline void nc_log_release_batch(nc_log *log)
{
    atomic_fetch_add_explicit(&log->head, 0, memory_order_seq_cst); /* L3 */
}

/* ---- after a fork ------------------------------------------------------------------------------------ */

/* In a child, which is alone with its copy: whoever was in the middle of a commit or of giving back is not here.  What
 * was decided is done, and a record without a header was never sent.  A claim of many producers that is open stays so:
 * the child receives what lies before it. */
static inline void nc_log_after_fork(nc_log *log)
{
    uint64_t head = atomic_load_explicit(&log->head, memory_order_relaxed); /* relaxed, all: there is one thread */
    uint64_t tail = atomic_load_explicit(&log->tail, memory_order_relaxed);
    if (head != log->own_head) {
        atomic_store_explicit(nc_log_header(log, head), 0, memory_order_relaxed);
        if (log->many)
            atomic_store_explicit(nc_log_mark(log, head), 0, memory_order_relaxed);
        atomic_store_explicit(&log->head, log->own_head, memory_order_relaxed);
    }
    uint64_t own = atomic_load_explicit(&log->own_tail, memory_order_relaxed);
    if (log->many || tail == own)
        return;
    bool sent = atomic_load_explicit(nc_log_header(log, own), memory_order_relaxed) != 0;
    atomic_store_explicit(sent ? &log->own_tail : &log->tail, sent ? tail : own, memory_order_relaxed);
}

/* ---- for debugging and tests ---------------------------------------------------------------------- */

/* The header of the record at *pos; then *pos moves on to the next.  Header 0 means not committed, or
 * not quite yet: what lies behind is not known.  Start from the head; false when the tail is reached.  Only while
 * nobody consumes. */
static inline bool nc_log_dump_next(nc_log *log, uint64_t *pos, uint64_t *header)
{
    if (*pos == atomic_load_explicit(&log->tail, memory_order_acquire)) /* L1 */
        return false;
    *header = 0;
    if (log->many && atomic_load_explicit(nc_log_mark(log, *pos), memory_order_acquire) == 0) /* L2 */
        return true;
    *header = atomic_load_explicit(nc_log_header(log, *pos), memory_order_relaxed); /* after L1, L2 */
    if (*header != 0)
        *pos += *header & NC_SKIP ? *header & ~NC_SKIP : nc_log_extent(*header);
    return true;
}

#endif
