/* twin.h: a byte ring and a plain model of it, side by side.  Each operation is done to both, in one thread, and what
 * they say is compared.  For the unit tests and the fuzzer, which bring CHECK and CHECK_EQ. */
#ifndef TWIN_H
#define TWIN_H

#include <stdlib.h>
#include <string.h>

#include "nc_log.h"

enum { TWIN_MOST = 1024, TWIN_CLAIMS = 6 };
enum { TWIN_CLAIMED, TWIN_COMMITTED, TWIN_SKIPPED };

typedef struct twin_entry { /* from a header to the next */
    nc_record record;       /* as claimed; its size then is that of the message */
    uint64_t extent;
    int state;
    uint8_t fill;           /* its bytes are told from this */
} twin_entry;

typedef struct twin {
    nc_log *log;
    bool many;              /* claim_mp and so on */
    uint64_t head, tail;
    twin_entry entries[TWIN_MOST]; /* entries[0] lies at the head */
    int n;
    nc_record claim[TWIN_CLAIMS];  /* those open; one producer has one at most */
    uint8_t claim_fill[TWIN_CLAIMS];
    int claims;
    bool shown;             /* entries[0] is borrowed by the consumer, */
    nc_record record;       /* which has this of it */
} twin;

/* Many 0xff and 0x80: what would be the worst of headers. */
static inline unsigned char twin_byte(uint8_t fill, uint64_t i)
{
    return fill % 4 == 0   ? 0xff
           : fill % 4 == 1 ? (unsigned char)(i % 8 == 7 ? 0x80 : i / 8)
                           : (unsigned char)(fill + i * 7);
}

static inline void twin_write(unsigned char *data, uint64_t n, uint8_t fill)
{
    for (uint64_t i = 0; i < n; i++)
        data[i] = twin_byte(fill, i);
}

static inline bool twin_same(const unsigned char *data, uint64_t n, uint8_t fill)
{
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < n; i++)
        wrong += data[i] != twin_byte(fill, i);
    return wrong == 0;
}

/* A block of exactly its size, so that ASan sees what lies beyond. */
static inline void twin_open(twin *t, uint64_t capacity, uint64_t start, bool many)
{
    uint64_t size = nc_log_block_size(capacity, many);
    t->n = t->claims = 0; /* the rest of a large structure may stay as it was */
    t->shown = false;
    t->log = aligned_alloc(NC_CACHE_LINE, size);
    memset((void *)t->log, 0, size);
    nc_log_init(t->log, capacity, many, start);
    t->head = t->tail = start & ~UINT64_C(7);
    t->many = many;
}

static inline void twin_close(twin *t)
{
    free(t->log);
    t->log = NULL;
}

static inline uint64_t twin_word(const twin *t, uint64_t i)
{
    return atomic_load_explicit(&t->log->words[i], memory_order_relaxed);
}

static inline unsigned twin_mark(const twin *t, uint64_t pos)
{
    return atomic_load_explicit(nc_log_mark(t->log, pos), memory_order_relaxed);
}

static inline twin_entry *twin_at(twin *t, uint64_t pos)
{
    for (int i = 0; i < t->n; i++)
        if (t->entries[i].record.pos == pos)
            return &t->entries[i];
    return NULL;
}

static inline void twin_push(twin *t, nc_record record, uint64_t extent, int state, uint8_t fill)
{
    CHECK(t->n < TWIN_MOST);
    t->entries[t->n++] = (twin_entry){record, extent, state, fill};
    t->tail += extent;
}

static inline void twin_pop(twin *t)
{
    t->head += t->entries[0].extent;
    memmove(t->entries, t->entries + 1, (size_t)--t->n * sizeof t->entries[0]);
}

/* Claim n bytes and write them all; true if there was room, of which both have the same idea. */
static inline bool twin_claim(twin *t, uint64_t n, uint8_t fill)
{
    nc_record record;
    uint64_t extent = 8 + (n + 7) / 8 * 8;
    bool room = extent <= t->log->capacity - (t->tail - t->head);
    nc_result result = t->many ? nc_log_claim_mp(t->log, n, &record) : nc_log_claim_sp(t->log, n, &record);
    CHECK_EQ(result, room ? NC_OK : NC_FULL);
    if (result != NC_OK)
        return false;
    CHECK_EQ(record.pos, t->tail);
    CHECK_EQ(record.size, n);
    CHECK_EQ((uintptr_t)record.data % 8, 0);
    twin_write(record.data, n, fill);
    if (t->many)
        twin_push(t, record, extent, TWIN_CLAIMED, fill);
    else
        t->claims = 0; /* nothing was shared: it is the place of the one before */
    t->claim_fill[t->claims] = fill;
    t->claim[t->claims++] = record;
    return true;
}

static inline nc_record twin_claim_taken(twin *t, int i)
{
    nc_record record = t->claim[i];
    t->claim[i] = t->claim[--t->claims];
    t->claim_fill[i] = t->claim_fill[t->claims];
    return record;
}

/* Commit the first n bytes of open claim i. */
static inline void twin_commit(twin *t, int i, uint64_t n, memory_order publish)
{
    uint8_t fill = t->claim_fill[i];
    nc_record record = twin_claim_taken(t, i);
    uint64_t extent = 8 + (n + 7) / 8 * 8;
    if (!t->many) {
        nc_log_commit_sp(t->log, &record, n, publish);
        record.size = n;
        twin_push(t, record, extent, TWIN_COMMITTED, fill);
        return;
    }
    nc_log_commit_mp(t->log, &record, n, publish);
    twin_entry *e = twin_at(t, record.pos);
    uint64_t rest = e->extent - extent;
    *e = (twin_entry){{record.pos, n, record.data}, extent, TWIN_COMMITTED, fill};
    if (rest == 0)
        return;
    CHECK(t->n < TWIN_MOST);
    memmove(e + 2, e + 1, (size_t)(t->entries + t->n - (e + 1)) * sizeof *e);
    e[1] = (twin_entry){{record.pos + extent, 0, NULL}, rest, TWIN_SKIPPED, 0};
    t->n++;
}

static inline void twin_abort(twin *t, int i, memory_order publish)
{
    nc_record record = twin_claim_taken(t, i);
    if (!t->many)
        return;
    nc_log_abort_mp(t->log, &record, publish);
    twin_at(t, record.pos)->state = TWIN_SKIPPED;
}

static inline bool twin_peek(twin *t, memory_order publish)
{
    bool freed = false, skipped = false;
    nc_result result = NC_EMPTY;
    if (t->many)
        result = nc_log_peek_mpsc(t->log, &t->record, &freed, publish);
    else if (t->head / 8 % 2) /* they differ only in the middle of a commit */
        result = nc_log_find_spsc(t->log, &t->record);
    else
        result = nc_log_peek_spsc(t->log, &t->record);
    for (; t->n > 0 && t->entries[0].state == TWIN_SKIPPED; skipped = true)
        twin_pop(t);
    t->shown = t->n > 0 && t->entries[0].state == TWIN_COMMITTED;
    CHECK_EQ(result, t->shown ? NC_OK : NC_EMPTY);
    CHECK_EQ(freed, skipped);
    if (t->shown && result == NC_OK) {
        CHECK_EQ(t->record.pos, t->head);
        CHECK_EQ(t->record.size, t->entries[0].record.size);
        CHECK(t->record.data == t->entries[0].record.data);
        CHECK(twin_same(t->record.data, t->record.size, t->entries[0].fill));
    }
    return t->shown;
}

static inline void twin_release(twin *t, memory_order publish)
{
    if (t->head / 8 % 2) /* all of it was read: that changes nothing but stale bytes */
        nc_log_touch_sc(&t->record);
    if (t->many)
        nc_log_release_mpsc(t->log, &t->record, publish);
    else
        nc_log_release_spsc(t->log, &t->record, publish);
    t->shown = false;
    twin_pop(t);
}

/* What the head of nc_log.h says of the whole. */
static inline void twin_check(twin *t)
{
    uint64_t capacity = t->log->capacity, used = t->tail - t->head, pos = t->head, header = 0, marks = 0, committed = 0;
    CHECK_EQ(atomic_load_explicit(&t->log->head, memory_order_relaxed), t->head);
    CHECK_EQ(atomic_load_explicit(&t->log->tail, memory_order_relaxed), t->tail);
    CHECK_EQ(nc_log_used(t->log), used);
    CHECK_EQ(nc_log_ready(t->log), t->n > 0 && t->entries[0].state != TWIN_CLAIMED);
    for (int i = 0; i < t->n; i++) {
        const twin_entry *e = &t->entries[i];
        uint64_t at = pos;
        CHECK_EQ(e->record.pos, at);
        CHECK(nc_log_dump_next(t->log, &pos, &header));
        CHECK_EQ(header, e->state == TWIN_CLAIMED     ? 0
                         : e->state == TWIN_COMMITTED ? e->record.size
                                                      : NC_SKIP | e->extent);
        CHECK_EQ(pos - at, e->state == TWIN_CLAIMED ? 0 : e->extent);
        pos = at + e->extent; /* past a claim, where dumping ends */
        committed += e->state != TWIN_CLAIMED;
    }
    CHECK(!nc_log_dump_next(t->log, &pos, &header));
    for (uint64_t i = 0; t->many && i < capacity; i += 8) /* what is not committed has no mark */
        marks += twin_mark(t, i);
    CHECK_EQ(marks, t->many ? committed : 0);
    if (!t->many && used < capacity) /* in band: nothing behind the last */
        CHECK_EQ(atomic_load_explicit(nc_log_header(t->log, t->tail), memory_order_relaxed), 0);
}

#endif
