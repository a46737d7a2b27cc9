/* ours.c: the loops over nc_ring and nc_log that main.rs times.
 *
 * A whole round of ours runs here, so that no call crosses the languages for each item.  A row is a kind of queue with
 * the orders of its stores; its loops are those of peers.rs, in C.  An item is a number other than 0: its producer and
 * its place in that producer's order. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "nc_log.h"
#include "nc_ring.h"

enum { LARGEST = 1024, WORDS = LARGEST / 8, BURST = 64 };

/* ---- waiting: the same as in queue.rs ------------------------------------------------------------------------ */

typedef struct waiting {
    _Atomic bool stop; /* give up; written by the thread that measures, while ours only read it */
    uint32_t patience; /* failed attempts until the thread yields; 0: it never does */
} waiting;

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb"); /* what Rust's spin_loop() is there */
#endif
}

/* After a failed attempt: true if there is to be another. */
static inline bool again(waiting *w, uint32_t *spins)
{
    pause_cpu();
    if (++*spins == w->patience) {
        *spins = 0;
        sched_yield();
    }
    return !atomic_load_explicit(&w->stop, memory_order_relaxed); /* nothing else depends on it */
}

/* ---- queues and their ends ----------------------------------------------------------------------------------- */

typedef struct queue {
    nc_ring *ring; /* objects */
    nc_log *log;   /* bytes */
    uint64_t size; /* of a message */
} queue;

typedef struct queues {
    queue go, back; /* the second is for the way back of a round trip */
} queues;

/* One end of a queue, in its thread: where the ring is, and the message to send or the one received. */
typedef struct end {
    nc_ring *ring;
    nc_log *log;
    uint64_t size;
    uint64_t words[WORDS];
} end;

/* All but the first word of each message is the same. */
static inline uint64_t pattern(uint64_t i) { return i * UINT64_C(0x9e3779b97f4a7c15); }

static inline end sender(const queue *q)
{
    end e = {q->ring, q->log, q->size, {0}};
    for (uint64_t i = 0; q->log != NULL && i < q->size / 8; i++)
        e.words[i] = pattern(i);
    return e;
}

static inline end receiver(const queue *q) { return (end){q->ring, q->log, q->size, {0}}; }

/* Was all of the message received?  Then wipe it, for the next. */
static bool intact(end *e)
{
    bool same = true;
    for (uint64_t i = 1; i < e->size / 8; i++) {
        same = same && e->words[i] == pattern(i);
        e->words[i] = 0;
    }
    return same;
}

static bool nothing_to_see(end *e)
{
    (void)e;
    return true;
}

/* ---- rows: push is false if the queue is full, pop is 0 if it is empty ----------------------------------------- */

#define RING(name, push_one, pop_one)                     \
    static inline bool name##_push(end *e, uint64_t item) \
    {                                                     \
        void *value = (void *)(uintptr_t)item;            \
        return push_one;                                  \
    }                                                     \
    static inline uint64_t name##_pop(end *e) { return (uint64_t)(uintptr_t)pop_one; }

RING(ring_sp_release, nc_ring_push_one_sp(e->ring, value, memory_order_release),
     nc_ring_pop_one_spsc(e->ring, memory_order_release))
RING(ring_sp_seq_cst, nc_ring_push_one_sp(e->ring, value, memory_order_seq_cst),
     nc_ring_pop_one_spsc(e->ring, memory_order_seq_cst))
RING(ring_mp_release, nc_ring_push_one_mp(e->ring, value), nc_ring_pop_one_mpsc(e->ring, memory_order_release))
RING(ring_mp_seq_cst, nc_ring_push_one_mp(e->ring, value), nc_ring_pop_one_mpsc(e->ring, memory_order_seq_cst))

/* Copied in and out.  The consumer has read all of it, so it touches its lines, as for Python. */
static inline void copy_in(end *e, const nc_record *r, uint64_t item)
{
    e->words[0] = item;
    memcpy(r->data, e->words, e->size);
}

static inline uint64_t copy_out(end *e, const nc_record *r)
{
    memcpy(e->words, r->data, r->size);
    nc_log_touch_sc(r);
    return e->words[0];
}

/* Written and read in place, a word of each message. */
static inline void write_word(end *e, const nc_record *r, uint64_t item)
{
    (void)e;
    memcpy(r->data, &item, sizeof item);
}

static inline uint64_t read_word(end *e, const nc_record *r)
{
    uint64_t item;
    (void)e;
    memcpy(&item, r->data, sizeof item);
    return item;
}

#define PEEK_sp(e, r, order) nc_log_peek_spsc(e->log, r)
#define PEEK_mp(e, r, order) nc_log_peek_mpsc(e->log, r, &(bool){false}, order)

#define RECORDS(name, kind, order, write, read)                \
    static inline bool name##_push(end *e, uint64_t item)      \
    {                                                          \
        nc_record r;                                           \
        if (nc_log_claim_##kind(e->log, e->size, &r) != NC_OK) \
            return false;                                      \
        write(e, &r, item);                                    \
        nc_log_commit_##kind(e->log, &r, e->size, order);      \
        return true;                                           \
    }                                                          \
    static inline uint64_t name##_pop(end *e)                  \
    {                                                          \
        nc_record r;                                           \
        if (PEEK_##kind(e, &r, order) != NC_OK)                \
            return 0;                                          \
        uint64_t item = read(e, &r);                           \
        nc_log_release_##kind##sc(e->log, &r, order);          \
        return item;                                           \
    }

RECORDS(log_one_release, sp, memory_order_release, copy_in, copy_out)
RECORDS(log_one_seq_cst, sp, memory_order_seq_cst, copy_in, copy_out)
RECORDS(log_many_release, mp, memory_order_release, copy_in, copy_out)
RECORDS(log_many_seq_cst, mp, memory_order_seq_cst, copy_in, copy_out)
RECORDS(claim_one_release, sp, memory_order_release, write_word, read_word)
RECORDS(claim_one_seq_cst, sp, memory_order_seq_cst, write_word, read_word)
RECORDS(claim_many_release, mp, memory_order_release, write_word, read_word)
RECORDS(claim_many_seq_cst, mp, memory_order_seq_cst, write_word, read_word)

/* ---- the loops ------------------------------------------------------------------------------------------------ */

/* Sums are of the items received: main.rs compares them with what was sent.  collect() keeps the items themselves; it
 * stops at the first message that did not arrive whole. */
#define LOOPS(name, whole)                                                             \
    static uint64_t name##_pair(queues *q, uint64_t n)                                 \
    {                                                                                  \
        end tx = sender(&q->go), rx = receiver(&q->go);                                \
        uint64_t sum = 0;                                                              \
        for (uint64_t i = 1; i <= n; i++) {                                            \
            if (!name##_push(&tx, i))                                                  \
                return 0;                                                              \
            sum += name##_pop(&rx);                                                    \
        }                                                                              \
        return sum;                                                                    \
    }                                                                                  \
    static uint64_t name##_burst(queues *q, uint64_t n)                                \
    {                                                                                  \
        end tx = sender(&q->go), rx = receiver(&q->go);                                \
        uint64_t sum = 0;                                                              \
        for (uint64_t i = 1; i <= n;) {                                                \
            for (int k = 0; k < BURST; k++)                                            \
                if (!name##_push(&tx, i++))                                            \
                    return 0;                                                          \
            for (int k = 0; k < BURST; k++)                                            \
                sum += name##_pop(&rx);                                                \
        }                                                                              \
        return sum;                                                                    \
    }                                                                                  \
    static uint64_t name##_produce(queues *q, uint64_t first, uint64_t n, waiting *w)  \
    {                                                                                  \
        end tx = sender(&q->go);                                                       \
        uint32_t spins = 0;                                                            \
        for (uint64_t i = 0; i < n; i++)                                               \
            while (!name##_push(&tx, first + i))                                       \
                if (!again(w, &spins))                                                 \
                    return i;                                                          \
        return n;                                                                      \
    }                                                                                  \
    static uint64_t name##_consume(queues *q, uint64_t n, waiting *w)                  \
    {                                                                                  \
        end rx = receiver(&q->go);                                                     \
        uint64_t sum = 0, item;                                                        \
        uint32_t spins = 0;                                                            \
        for (uint64_t i = 0; i < n; i++, sum += item)                                  \
            while ((item = name##_pop(&rx)) == 0)                                      \
                if (!again(w, &spins))                                                 \
                    return 0;                                                          \
        return sum;                                                                    \
    }                                                                                  \
    static uint64_t name##_collect(queues *q, uint64_t *items, uint64_t n, waiting *w) \
    {                                                                                  \
        end rx = receiver(&q->go);                                                     \
        uint32_t spins = 0;                                                            \
        for (uint64_t i = 0; i < n; i++) {                                             \
            while ((items[i] = name##_pop(&rx)) == 0)                                  \
                if (!again(w, &spins))                                                 \
                    return i;                                                          \
            if (!whole(&rx))                                                           \
                return i;                                                              \
        }                                                                              \
        return n;                                                                      \
    }                                                                                  \
    static uint64_t name##_ping(queues *q, uint64_t n, waiting *w)                     \
    {                                                                                  \
        end tx = sender(&q->go), rx = receiver(&q->back);                              \
        uint64_t sum = 0, item;                                                        \
        uint32_t spins = 0;                                                            \
        for (uint64_t i = 1; i <= n; i++, sum += item) {                               \
            if (!name##_push(&tx, i))                                                  \
                return 0;                                                              \
            while ((item = name##_pop(&rx)) == 0)                                      \
                if (!again(w, &spins))                                                 \
                    return 0;                                                          \
        }                                                                              \
        return sum;                                                                    \
    }                                                                                  \
    static uint64_t name##_pong(queues *q, uint64_t n, waiting *w)                     \
    {                                                                                  \
        end rx = receiver(&q->go), tx = sender(&q->back);                              \
        uint64_t item;                                                                 \
        uint32_t spins = 0;                                                            \
        for (uint64_t i = 0; i < n; i++) {                                             \
            while ((item = name##_pop(&rx)) == 0)                                      \
                if (!again(w, &spins))                                                 \
                    return i;                                                          \
            if (!name##_push(&tx, item))                                               \
                return i;                                                              \
        }                                                                              \
        return n;                                                                      \
    }

LOOPS(ring_sp_release, nothing_to_see)
LOOPS(ring_sp_seq_cst, nothing_to_see)
LOOPS(ring_mp_release, nothing_to_see)
LOOPS(ring_mp_seq_cst, nothing_to_see)
LOOPS(log_one_release, intact)
LOOPS(log_one_seq_cst, intact)
LOOPS(log_many_release, intact)
LOOPS(log_many_seq_cst, intact)
LOOPS(claim_one_release, nothing_to_see)
LOOPS(claim_one_seq_cst, nothing_to_see)
LOOPS(claim_many_release, nothing_to_see)
LOOPS(claim_many_seq_cst, nothing_to_see)

/* ---- open and close ------------------------------------------------------------------------------------------- */

static void *zeroed(uint64_t size)
{
    size = nc_align_up(size, NC_CACHE_LINE);
    void *block = aligned_alloc(NC_CACHE_LINE, size);
    if (block == NULL)
        abort();
    return memset(block, 0, size);
}

static queue open_ring(uint64_t capacity)
{
    queue q = {zeroed(sizeof(nc_ring)), NULL, 0};
    nc_ring_init(q.ring, zeroed(capacity * sizeof(void *)), capacity, 0);
    return q;
}

static queue open_log(uint64_t capacity, uint64_t size, bool many)
{
    queue q = {NULL, zeroed(nc_log_block_size(capacity, many)), size};
    nc_log_init(q.log, capacity, many, 0);
    return q;
}

static queues *open_rings(uint64_t capacity, uint64_t size)
{
    (void)size;
    queues *q = zeroed(sizeof *q);
    *q = (queues){open_ring(capacity), open_ring(capacity)};
    return q;
}

static queues *open_logs(uint64_t capacity, uint64_t size, bool many)
{
    queues *q = zeroed(sizeof *q);
    *q = (queues){open_log(capacity, size, many), open_log(capacity, size, many)};
    return q;
}

static queues *open_logs_one(uint64_t capacity, uint64_t size) { return open_logs(capacity, size, false); }
static queues *open_logs_many(uint64_t capacity, uint64_t size) { return open_logs(capacity, size, true); }

static void close_queue(queue *q)
{
    if (q->ring != NULL)
        free(q->ring->slots);
    free(q->ring);
    free(q->log);
}

static void close_queues(queues *q)
{
    close_queue(&q->go);
    close_queue(&q->back);
    free(q);
}

/* ---- the table, read by ours.rs --------------------------------------------------------------------------------- */

typedef enum kind { OBJECTS, BYTES, CLAIMS } kind;

typedef struct row {
    const char *name;
    uint32_t kind;
    uint32_t producers; /* at most */
    queues *(*open)(uint64_t capacity, uint64_t size);
    void (*close)(queues *q);
    uint64_t (*pair)(queues *q, uint64_t n);
    uint64_t (*burst)(queues *q, uint64_t n);
    uint64_t (*produce)(queues *q, uint64_t first, uint64_t n, waiting *w);
    uint64_t (*consume)(queues *q, uint64_t n, waiting *w);
    uint64_t (*collect)(queues *q, uint64_t *items, uint64_t n, waiting *w);
    uint64_t (*ping)(queues *q, uint64_t n, waiting *w);
    uint64_t (*pong)(queues *q, uint64_t n, waiting *w);
} row;

#define ROW(text, kind, producers, open, name)                                                \
    {text,         kind,           producers,      open,           close_queues, name##_pair, \
     name##_burst, name##_produce, name##_consume, name##_collect, name##_ping,  name##_pong}

static const row rows[] = {
    ROW("nc_ring push_sp release", OBJECTS, 1, open_rings, ring_sp_release),
    ROW("nc_ring push_sp seq_cst", OBJECTS, 1, open_rings, ring_sp_seq_cst),
    ROW("nc_ring push_mp, pop release", OBJECTS, 2, open_rings, ring_mp_release),
    ROW("nc_ring push_mp, pop seq_cst", OBJECTS, 2, open_rings, ring_mp_seq_cst),
    ROW("nc_log one release", BYTES, 1, open_logs_one, log_one_release),
    ROW("nc_log one seq_cst", BYTES, 1, open_logs_one, log_one_seq_cst),
    ROW("nc_log many release", BYTES, 2, open_logs_many, log_many_release),
    ROW("nc_log many seq_cst", BYTES, 2, open_logs_many, log_many_seq_cst),
    ROW("nc_log one release", CLAIMS, 1, open_logs_one, claim_one_release),
    ROW("nc_log one seq_cst", CLAIMS, 1, open_logs_one, claim_one_seq_cst),
    ROW("nc_log many release", CLAIMS, 2, open_logs_many, claim_many_release),
    ROW("nc_log many seq_cst", CLAIMS, 2, open_logs_many, claim_many_seq_cst),
};

const row *ours_rows(uint64_t *count)
{
    *count = sizeof rows / sizeof rows[0];
    return rows;
}
