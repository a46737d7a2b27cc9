/* nc_lane.h: a lane, the ring of bytes between two processes that do not trust each other.  Touches nc_log.h, and of
 * that only what a record is: nc_record, its extent, how capacities are rounded.
 *
 * One writer, one reader.  Both map the block and the records:
 *
 *     block                                     records: word 0 .. capacity/8         capacity/8 more words
 *    +------------------------------+          +-------------------------------------+--------------------+
 *    | kind  capacity               | line 0   |     | len payload.. | len pay       | -load              |
 *    | tail                         | line 1   +-------------------------------------+--------------------+
 *    | head                         | line 2         ^ head                  ^ tail
 *    | reader: sleeps, closed       | line 3
 *    | writer: sleeps, closed       | line 4
 *    +------------------------------+
 *
 * A record is what it is in nc_log.h with one producer: a header of one word, which is the length n of the payload,
 * then the payload, padded to 8 bytes.  There are no skips: nothing of a claim is shared before it is committed, so a
 * writer that dies within a claim leaves the lane as it was.  The words behind the ring are the same memory, mapped a
 * second time, or a spill of its own; this file cannot tell which.
 *
 *    0 <= tail - head <= capacity          positions are free-running byte counts, multiples of 8
 *
 * Nothing in the block is believed.  What a side relies on is in its own memory: capacity, its own position, and the
 * last position of the other side that it has checked.  Whatever the block holds and becomes, the functions here read
 * and write nothing outside of block and records, the reader writes nothing into records, and every call ends.  What is
 * not promised: that a record is what an honest writer sent, or that its bytes stay the same.  Copy, then parse.
 *
 * A side sleeps on a socket (os_bell.h), whose end of file says that the other process is gone.  Edges P1..P5 are in
 * PROTOCOL.md.
 */
#ifndef NC_LANE_H
#define NC_LANE_H

#include "nc_log.h"

#define NC_LANE_MAGIC UINT64_C(0x6e636c6e) /* "ncln" */
#define NC_LANE_LAYOUT UINT64_C(1)

/* The layout is the same for all builds on a machine, so this is the largest line of any processor. */
enum { NC_LANE_LINE = 128 };

/* Where one side is.  Any other number is that of a side that is here. */
typedef enum nc_lane_place {
    NC_LANE_HERE = 0, /* a process holds this end: if that ends, it has crashed */
    NC_LANE_LEFT = 1, /* it has left in good order; no other value follows */
    NC_LANE_AWAY = 2, /* the end is on its way to a process: if it gets lost, nobody has crashed */
} nc_lane_place;

/* How one side waits and leaves.  Seldom written, so both sides have it in their caches. */
typedef struct nc_lane_side {
    /* 0, or how many bytes it sleeps for; raised by this side, lowered by the other; P3 */
    _Alignas(NC_LANE_LINE) _Atomic uint64_t sleeps;
    _Atomic uint64_t closed; /* nc_lane_place; written by this side; P4 */
} nc_lane_side;

typedef struct nc_lane_block {
    /* read-only after init */
    _Alignas(NC_LANE_LINE) _Atomic uint64_t kind; /* magic, then layout */
    _Atomic uint64_t capacity;                    /* bytes, a power of two, 64 .. 2^60 */

    _Alignas(NC_LANE_LINE) _Atomic uint64_t tail; /* end of what is committed; written by the writer, P1 */
    _Alignas(NC_LANE_LINE) _Atomic uint64_t head; /* start of what is not given back; written by the reader, P2 */
    nc_lane_side reader, writer;
} nc_lane_block;

_Static_assert(offsetof(nc_lane_block, capacity) == 8, "the layout is that of every build");
_Static_assert(offsetof(nc_lane_block, tail) == NC_LANE_LINE, "the writer's position is in a line of its own");
_Static_assert(offsetof(nc_lane_block, head) == 2 * NC_LANE_LINE, "so is the reader's");
_Static_assert(offsetof(nc_lane_block, reader) == 3 * NC_LANE_LINE, "and what the reader waits by");
_Static_assert(offsetof(nc_lane_block, writer) == 4 * NC_LANE_LINE, "and what the writer waits by");
_Static_assert(offsetof(nc_lane_side, closed) == 8, "the layout is that of every build");
_Static_assert(sizeof(nc_lane_block) == 5 * NC_LANE_LINE, "the layout is that of every build");

/* What is wrong with a block that somebody else has made. */
typedef enum nc_lane_fault {
    NC_LANE_SOUND = 0,
    NC_LANE_NO_LANE,        /* the magic number is not there */
    NC_LANE_OTHER_LAYOUT,   /* of a version that is not this one */
    NC_LANE_OTHER_CAPACITY, /* not the one that was agreed on, or one that cannot be */
    NC_LANE_BAD_POSITIONS,
} nc_lane_fault;

/* What has become of the other side. */
typedef enum nc_lane_fate {
    NC_LANE_OPEN,
    NC_LANE_CLOSED,  /* it left in good order */
    NC_LANE_CRASHED, /* it is gone, and had not closed */
} nc_lane_fate;

typedef struct nc_lane_writer {
    nc_lane_block *block;
    _Atomic uint64_t *words;
    uint64_t capacity; /* checked when it was opened */
    uint64_t tail;     /* the true tail; the block has a copy for the reader */
    uint64_t head;     /* the last head that was checked; stale, never ahead */
} nc_lane_writer;

typedef struct nc_lane_reader {
    nc_lane_block *block;
    _Atomic uint64_t *words; /* may be mapped read-only */
    uint64_t capacity;       /* checked when it was opened */
    uint64_t head;           /* the true head; the block has a copy for the writer */
    uint64_t tail;           /* the last tail that was checked; stale, never ahead */
} nc_lane_reader;

/* ---- the block -------------------------------------------------------------------------------------- */

/* Done by whoever makes the block, before anybody else knows it (so all is relaxed).  The block is zeroed; `start` is a
 * position to start from (0, or a test's). */
static inline void nc_lane_init(nc_lane_block *block, uint64_t capacity, uint64_t start)
{
    start &= ~UINT64_C(7);
    atomic_store_explicit(&block->kind, NC_LANE_MAGIC << 32 | NC_LANE_LAYOUT, memory_order_relaxed);
    atomic_store_explicit(&block->capacity, capacity, memory_order_relaxed);
    atomic_store_explicit(&block->tail, start, memory_order_relaxed);
    atomic_store_explicit(&block->head, start, memory_order_relaxed);
}

/* Nobody is the reader yet: the end is to be sent to somebody, who arrives (nc_lane_arrive).  Also before anybody else
 * knows the block, so relaxed. */
static inline void nc_lane_await_reader(nc_lane_block *block)
{
    atomic_store_explicit(&block->reader.closed, NC_LANE_AWAY, memory_order_relaxed);
}

/* Does the block say that it is a lane of `capacity`?  Relaxed: these words do not change, and if they do, what was
 * read here is no longer asked for. */
static inline nc_lane_fault nc_lane_check(nc_lane_block *block, uint64_t capacity)
{
    uint64_t kind = atomic_load_explicit(&block->kind, memory_order_relaxed);
    if (kind >> 32 != NC_LANE_MAGIC)
        return NC_LANE_NO_LANE;
    if ((kind & UINT32_MAX) != NC_LANE_LAYOUT)
        return NC_LANE_OTHER_LAYOUT;
    bool same = atomic_load_explicit(&block->capacity, memory_order_relaxed) == capacity;
    return same && capacity == nc_log_round(capacity) ? NC_LANE_SOUND : NC_LANE_OTHER_CAPACITY;
}

/* Both positions, each read once, if they can be those of a lane.  The other side may be at work already, so its
 * position is read as ever; which of the two that is, is not asked. */
static inline nc_lane_fault nc_lane_positions(nc_lane_block *block, uint64_t capacity, uint64_t *head, uint64_t *tail)
{
    *head = atomic_load_explicit(&block->head, memory_order_acquire); /* P2 */
    *tail = atomic_load_explicit(&block->tail, memory_order_acquire); /* P1 */
    bool fine = *head % 8 == 0 && *tail % 8 == 0 && *tail - *head <= capacity;
    return fine ? NC_LANE_SOUND : NC_LANE_BAD_POSITIONS;
}

/* Become the writer.  `words` has 2 * capacity bytes, and `capacity` is what the size of the mapping says. */
static inline nc_lane_fault nc_lane_open_writer(nc_lane_writer *w, nc_lane_block *block, _Atomic uint64_t *words,
                                                uint64_t capacity)
{
    *w = (nc_lane_writer){.block = block, .words = words, .capacity = capacity};
    nc_lane_fault fault = nc_lane_check(block, capacity);
    return fault != NC_LANE_SOUND ? fault : nc_lane_positions(block, capacity, &w->head, &w->tail);
}

/* Become the reader, likewise. */
static inline nc_lane_fault nc_lane_open_reader(nc_lane_reader *r, nc_lane_block *block, _Atomic uint64_t *words,
                                                uint64_t capacity)
{
    *r = (nc_lane_reader){.block = block, .words = words, .capacity = capacity};
    nc_lane_fault fault = nc_lane_check(block, capacity);
    return fault != NC_LANE_SOUND ? fault : nc_lane_positions(block, capacity, &r->head, &r->tail);
}

/* The word at `pos`, which is within the first half; behind it lie at least `capacity` bytes. */
static inline _Atomic uint64_t *nc_lane_word(_Atomic uint64_t *words, uint64_t capacity, uint64_t pos)
{
    return &words[(pos & (capacity - 1)) / 8];
}

static inline nc_record nc_lane_record(_Atomic uint64_t *words, uint64_t capacity, uint64_t pos, uint64_t size)
{
    return (nc_record){pos, size, (unsigned char *)(nc_lane_word(words, capacity, pos) + 1)};
}

/* ---- sleeping and waking: the same for both sides ---------------------------------------------------- */

/* Say that this side is about to sleep, for `bytes`.  It has to look again after that, before it sleeps. */
static inline void nc_lane_raise(nc_lane_side *mine, uint64_t bytes)
{
    atomic_store_explicit(&mine->sleeps, bytes, memory_order_seq_cst); /* P3 */
    NC_STEP("lane_raise: raised, not looked again");
}

/* It need not sleep after all.  Relaxed: the lowered flag carries nothing.  If the other side has taken the flag
 * meanwhile, it rings; this side then wakes up once for nothing. */
static inline void nc_lane_lower(nc_lane_side *mine) { atomic_store_explicit(&mine->sleeps, 0, memory_order_relaxed); }

/* Take the other side's flag.  True if it was up: then ring.  Relaxed: what was published is seen by the ring (P5), and
 * whoever raises the flag again after that ring comes after this. */
static inline bool nc_lane_take_flag(nc_lane_side *other)
{
    bool up = atomic_exchange_explicit(&other->sleeps, 0, memory_order_relaxed) != 0;
    NC_STEP("lane_take_flag: taken, not rung");
    return up;
}

/* Has the other side closed?  Asked after raising the flag. */
static inline bool nc_lane_closed(nc_lane_side *other)
{
    return atomic_load_explicit(&other->closed, memory_order_seq_cst) == NC_LANE_LEFT; /* P4, P3 */
}

/* ---- the writer -------------------------------------------------------------------------------------- */

/* Is there room for `extent` bytes?  NC_BAD: the head is nowhere that a reader could have got to. */
static inline nc_result nc_lane_room(nc_lane_writer *w, uint64_t extent)
{
    if (w->tail - w->head + extent <= w->capacity)
        return NC_OK;
    uint64_t head = atomic_load_explicit(&w->block->head, memory_order_acquire); /* P2; possibly full */
    if (head % 8 != 0 || head - w->head > w->tail - w->head) /* so it is within tail - capacity .. tail */
        return NC_BAD;
    w->head = head;
    return w->tail - head + extent <= w->capacity ? NC_OK : NC_FULL; /* really full */
}

/* Reserve a record of n bytes, n in 1 .. capacity - 8.  Nothing of it is shared before it is committed: a claim that is
 * shrunk gives the rest back, and one that is forgotten was never there. */
static inline nc_result nc_lane_claim(nc_lane_writer *w, uint64_t n, nc_record *record)
{
    nc_result result = nc_lane_room(w, nc_log_extent(n));
    if (result == NC_OK)
        *record = nc_lane_record(w->words, w->capacity, w->tail, n);
    NC_STEP("lane_claim: claimed, not written");
    return result;
}

/* Publish the first n bytes of the record, n in 1 .. its size.  `publish` is seq_cst before nc_lane_wakes_reader();
 * release within a batch. */
static inline void nc_lane_commit(nc_lane_writer *w, const nc_record *record, uint64_t n, memory_order publish)
{
    _Atomic uint64_t *header = nc_lane_word(w->words, w->capacity, record->pos);
    atomic_store_explicit(header, n, memory_order_relaxed); /* P1 publishes it */
    NC_STEP("lane_commit: written, not published");
    w->tail = record->pos + nc_log_extent(n);
    atomic_store_explicit(&w->block->tail, w->tail, publish); /* P1 */
    NC_STEP("lane_commit: published, flag not read");
}

/* End a batch that was committed by release stores: from here on it counts as if it had been published seq_cst. */
static inline void nc_lane_publish(nc_lane_writer *w)
{
    atomic_store_explicit(&w->block->tail, w->tail, memory_order_seq_cst); /* P1 */
}

/* After publishing: true if the reader has to be rung for. */
static inline bool nc_lane_wakes_reader(nc_lane_writer *w)
{
    nc_lane_side *reader = &w->block->reader;
    return atomic_load_explicit(&reader->sleeps, memory_order_seq_cst) != 0 && nc_lane_take_flag(reader); /* P3 */
}

/* A claim of n bytes was refused, as the lane is full.  True if the writer may sleep, and will be rung for once there
 * is room; false: look again. */
static inline bool nc_lane_writer_may_sleep(nc_lane_writer *w, uint64_t n)
{
    nc_lane_side *writer = &w->block->writer;
    nc_lane_raise(writer, nc_log_extent(n));
    bool same = atomic_load_explicit(&w->block->head, memory_order_seq_cst) == w->head; /* P2, P3 */
    if (same && !nc_lane_closed(&w->block->reader))
        return true;
    nc_lane_lower(writer);
    return false;
}

/* ---- the reader -------------------------------------------------------------------------------------- */

/* Look how far the writer has got.  NC_BAD: nowhere that a writer could have got to. */
static inline nc_result nc_lane_look(nc_lane_reader *r)
{
    uint64_t tail = atomic_load_explicit(&r->block->tail, memory_order_acquire); /* P1 */
    if (tail % 8 != 0 || tail - r->tail > r->capacity - (r->tail - r->head))
        return NC_BAD;
    r->tail = tail;
    return NC_OK;
}

/* The record at `pos`, which is the head, or the end of a record that was shown before: NC_EMPTY if there is none yet.
 * NC_BAD: its header is not that of a record that ends before the tail. */
static inline nc_result nc_lane_peek_at(nc_lane_reader *r, uint64_t pos, nc_record *record)
{
    if (pos == r->tail && nc_lane_look(r) != NC_OK)
        return NC_BAD;
    if (pos == r->tail)
        return NC_EMPTY;
    _Atomic uint64_t *header = nc_lane_word(r->words, r->capacity, pos);
    uint64_t size = atomic_load_explicit(header, memory_order_relaxed); /* after P1, and read once */
    if (size == 0 || size > r->tail - pos - NC_LOG_HEADER)
        return NC_BAD;
    *record = nc_lane_record(r->words, r->capacity, pos, size);
    return NC_OK;
}

/* The first record, without taking it. */
static inline nc_result nc_lane_peek(nc_lane_reader *r, nc_record *record)
{
    return nc_lane_peek_at(r, r->head, record);
}

/* Done with the record, which is the first, or with all up to it: the bytes are the writer's again.  `publish` is
 * seq_cst before nc_lane_wakes_writer(); release within a batch. */
static inline void nc_lane_release(nc_lane_reader *r, const nc_record *record, memory_order publish)
{
    NC_STEP("lane_release: read, not given back");
    r->head = record->pos + nc_log_extent(record->size);
    atomic_store_explicit(&r->block->head, r->head, publish); /* P2 */
    NC_STEP("lane_release: given back, flag not read");
}

/* End a batch that was given back by release stores. */
static inline void nc_lane_give_back(nc_lane_reader *r)
{
    atomic_store_explicit(&r->block->head, r->head, memory_order_seq_cst); /* P2 */
}

/* After giving back: true if the writer has to be rung for, as there is the room that it sleeps for.  The tail of a
 * writer that sleeps is the one that it had when it raised its flag, so it is read relaxed, after P3. */
static inline bool nc_lane_wakes_writer(nc_lane_reader *r)
{
    nc_lane_side *writer = &r->block->writer;
    uint64_t bytes = atomic_load_explicit(&writer->sleeps, memory_order_seq_cst); /* P3 */
    if (bytes == 0)
        return false;
    uint64_t used = atomic_load_explicit(&r->block->tail, memory_order_relaxed) - r->head;
    return used <= r->capacity && bytes <= r->capacity - used && nc_lane_take_flag(writer);
}

/* Nothing was found.  True if the reader may sleep, and will be rung for; false: look again. */
static inline bool nc_lane_reader_may_sleep(nc_lane_reader *r)
{
    nc_lane_side *reader = &r->block->reader;
    nc_lane_raise(reader, NC_LOG_HEADER);
    bool same = atomic_load_explicit(&r->block->tail, memory_order_seq_cst) == r->tail; /* P1, P3 */
    if (same && !nc_lane_closed(&r->block->writer))
        return true;
    nc_lane_lower(reader);
    return false;
}

/* ---- an end that travels ------------------------------------------------------------------------------ */

/* This process holds the end now.  Relaxed, as the other side tells HERE from AWAY after the end of file alone, which
 * carries what was stored before (P5).  Whoever had the end before has stored its AWAY before it handed it over, by way
 * of the kernel, so this store is the later one. */
static inline void nc_lane_arrive(nc_lane_side *mine)
{
    NC_STEP("lane_arrive: not said");
    atomic_store_explicit(&mine->closed, NC_LANE_HERE, memory_order_relaxed); /* P4 */
}

/* This process is about to hand its end over.  All that was read has been given back, all that was written published:
 * the next holder begins with the positions of the block.  Relaxed as nc_lane_arrive(). */
static inline void nc_lane_go_away(nc_lane_side *mine)
{
    atomic_store_explicit(&mine->closed, NC_LANE_AWAY, memory_order_relaxed); /* P4 */
    NC_STEP("lane_go_away: said, not handed over");
}

/* ---- the end ----------------------------------------------------------------------------------------- */

/* Leave in good order.  True if the other side has to be rung for. */
static inline bool nc_lane_close(nc_lane_side *mine, nc_lane_side *other)
{
    NC_STEP("lane_close: not said");
    atomic_store_explicit(&mine->closed, NC_LANE_LEFT, memory_order_seq_cst); /* P4 */
    NC_STEP("lane_close: said, not told");
    return atomic_load_explicit(&other->sleeps, memory_order_seq_cst) != 0 && nc_lane_take_flag(other); /* P3 */
}

/* What has become of the other side; `eof`: the end of file was seen on its socket, before this call (P5).  An end that
 * got lost on its way has nobody who crashed. */
static inline nc_lane_fate nc_lane_peer(nc_lane_side *other, bool eof)
{
    uint64_t closed = atomic_load_explicit(&other->closed, memory_order_acquire); /* P4 */
    if (closed == NC_LANE_LEFT || (eof && closed == NC_LANE_AWAY))
        return NC_LANE_CLOSED;
    return eof ? NC_LANE_CRASHED : NC_LANE_OPEN;
}

/* The next record, or what has become of the writer if there is none: whatever it had committed comes first. */
static inline nc_result nc_lane_next(nc_lane_reader *r, bool eof, nc_record *record, nc_lane_fate *fate)
{
    *fate = NC_LANE_OPEN;
    nc_result result = nc_lane_peek(r, record);
    if (result != NC_EMPTY)
        return result;
    *fate = nc_lane_peer(&r->block->writer, eof);
    return *fate == NC_LANE_OPEN ? NC_EMPTY : nc_lane_peek(r, record); /* the last look comes after that */
}

#endif
