/* nc_log_reader.h: a consumer of a byte ring that others may write to as they please, at any time.
 *
 * What was checked is kept here, in the reader's own memory, or is read from the block only once.  Whatever the block
 * holds, open_sc, look_sc and pass_sc read and write nothing outside of it, and what look_sc shows lies within it.
 * Each look ends, and looks go on at most from head to tail.  It is not promised that a record is what an honest
 * producer sent, nor that its bytes stay the same while they are read: copy first, then parse.  The functions of
 * nc_log.h check nothing, and need not where the block is private. */
#ifndef NC_LOG_READER_H
#define NC_LOG_READER_H

#include "nc_log.h"

typedef struct nc_log_reader {
    nc_log *log;
    uint64_t capacity, many; /* as the block said when it was opened, checked */
    uint64_t head;           /* the true head; the block has copies of it */
} nc_log_reader;

/* `block` has `size` bytes: NC_OK, or NC_BAD.  The builtins see to it that plain fields are read only once. */
static inline nc_result nc_log_open_sc(nc_log_reader *r, void *block, uint64_t size)
{
    nc_log *log = (nc_log *)block;
    if ((uintptr_t)block % NC_CACHE_LINE != 0 || size < nc_log_block_size(NC_LOG_LEAST, false))
        return NC_BAD;
    uint64_t capacity = __atomic_load_n(&log->capacity, __ATOMIC_RELAXED);
    uint64_t many = __atomic_load_n(&log->many, __ATOMIC_RELAXED);
    uint64_t head = atomic_load_explicit(&log->head, memory_order_relaxed); /* no other consumer moves it */
    *r = (nc_log_reader){log, capacity, many, head};
    bool known = log->magic == NC_LOG_MAGIC && log->layout == NC_LOG_LAYOUT && many <= 1;
    bool fits = capacity == nc_log_round(capacity) && nc_log_block_size(capacity, many) <= size;
    return known && fits && head % 8 == 0 ? NC_OK : NC_BAD;
}

/* As nc_log_header() and nc_log_mark() of nc_log.h, which believe what the block says of its capacity. */
static inline _Atomic uint64_t *nc_log_word_at(nc_log_reader *r, uint64_t pos)
{
    return nc_log_word_in(r->log, r->capacity, pos);
}

static inline nc_mark *nc_log_mark_at(nc_log_reader *r, uint64_t pos)
{
    return nc_log_mark_in(r->log, r->capacity, pos);
}

/* The header at `pos`, which is not before the head.  NC_OK, and *extent is how far it is to the next; NC_EMPTY if
 * there is none yet; or NC_BAD.  The tail is read last: it was moved before the mark or the header was stored. */
static inline nc_result nc_log_look_at(nc_log_reader *r, uint64_t pos, uint64_t *header, uint64_t *extent)
{
    bool marked = !r->many || atomic_load_explicit(nc_log_mark_at(r, pos), memory_order_acquire) != 0; /* L2 */
    *header = atomic_load_explicit(nc_log_word_at(r, pos), memory_order_acquire);                      /* L2 */
    uint64_t tail = atomic_load_explicit(&r->log->tail, memory_order_relaxed); /* after L2 */
    uint64_t there = tail - pos, passed = pos - r->head;
    if (tail - r->head > r->capacity || passed > tail - r->head)
        return NC_BAD;
    if (there == 0 || !marked || (!r->many && *header == 0))
        return NC_EMPTY;
    uint64_t n = *header & ~NC_SKIP;
    bool skip = *header != n;
    if (skip ? n < 8 || n % 8 != 0 : n == 0)
        return NC_BAD;
    *extent = skip ? n : nc_log_extent(n); /* below 2^63, so it does not overflow */
    return *extent <= there ? NC_OK : NC_BAD;
}

/* Give back `extent` bytes from the head on, and clear what says that they hold a record. */
static inline void nc_log_pass_sc(nc_log_reader *r, uint64_t extent, memory_order publish)
{
    if (r->many) /* relaxed, both: L3 publishes them */
        atomic_store_explicit(nc_log_mark_at(r, r->head), 0, memory_order_relaxed);
    else
        atomic_store_explicit(nc_log_word_at(r, r->head), 0, memory_order_relaxed);
    r->head += extent;
    atomic_store_explicit(&r->log->head, r->head, publish); /* L3 */
}

/* The first record, or NC_BAD: then this block cannot be read any further. */
static inline nc_result nc_log_look_sc(nc_log_reader *r, nc_record *record, bool *freed, memory_order publish)
{
    uint64_t header, extent, before = r->head;
    nc_result result;
    *freed = false;
    while ((result = nc_log_look_at(r, r->head, &header, &extent)) == NC_OK && (header & NC_SKIP)) {
        nc_log_pass_sc(r, extent, publish);
        NC_STEP("look_sc: passed a skip");
        *freed = true;
        if (r->head - before > r->capacity)
            return NC_BAD; /* somebody puts in skips faster than they are passed */
    }
    if (result == NC_OK)
        *record = (nc_record){r->head, header, (unsigned char *)(nc_log_word_at(r, r->head) + 1)};
    return result;
}

#endif
