/* rings.c: nc_ring beside other shapes of a bounded queue of pointers, without Python, for the floor.
 *
 * A scenario is written once over contenders of two functions, push and pop; each is checked for order and
 * completeness while it is timed.  Rounds are interleaved; the table shows medians of nanoseconds an item.
 * Environment: BENCH_ROUNDS, BENCH_ITEMS. */
#include "bench.h"

#include "nc_ring.h"

enum { CAPACITY = 1024, PRODUCERS = 2 };

static uint64_t n_items;

/* ---- nc_ring: stale copies of the other side's position, NULL for "not there yet" -------------------------- */

static nc_ring ring;
static void *_Atomic ring_slots[CAPACITY];

static void nc_open(void)
{
    for (int i = 0; i < CAPACITY; i++) /* one producer leaves stale values in them */
        atomic_store_explicit(&ring_slots[i], NULL, memory_order_relaxed);
    nc_ring_init(&ring, ring_slots, CAPACITY, 0);
}

static inline bool nc_release_push(void *v) { return nc_ring_push_sp(&ring, &v, 1, memory_order_release); }
static inline bool nc_release_pop(void **v) { return nc_ring_pop_spsc(&ring, v, 1, memory_order_release); }
static inline bool nc_seq_cst_push(void *v) { return nc_ring_push_sp(&ring, &v, 1, memory_order_seq_cst); }
static inline bool nc_seq_cst_pop(void **v) { return nc_ring_pop_spsc(&ring, v, 1, memory_order_seq_cst); }
static inline bool nc_mp_push(void *v) { return nc_ring_push_mp(&ring, &v, 1); }
static inline bool nc_mp_pop(void **v) { return nc_ring_pop_mpsc(&ring, v, 1, memory_order_seq_cst); }

/* ---- Lamport, with stale copies of the other side's position; slots are plain -------------------------------- */

static struct {
    _Alignas(64) _Atomic uint64_t tail;
    uint64_t head_seen;
    _Alignas(64) _Atomic uint64_t head;
    uint64_t tail_seen;
    _Alignas(64) void *slots[CAPACITY];
} lamport;

static void lamport_open(void) { memset(&lamport, 0, sizeof lamport); }

static inline bool lamport_push(void *v)
{
    uint64_t tail = atomic_load_explicit(&lamport.tail, memory_order_relaxed);
    if (tail - lamport.head_seen == CAPACITY) {
        lamport.head_seen = atomic_load_explicit(&lamport.head, memory_order_acquire);
        if (tail - lamport.head_seen == CAPACITY)
            return false;
    }
    lamport.slots[tail % CAPACITY] = v;
    atomic_store_explicit(&lamport.tail, tail + 1, memory_order_release);
    return true;
}

static inline bool lamport_pop(void **v)
{
    uint64_t head = atomic_load_explicit(&lamport.head, memory_order_relaxed);
    if (head == lamport.tail_seen) {
        lamport.tail_seen = atomic_load_explicit(&lamport.tail, memory_order_acquire);
        if (head == lamport.tail_seen)
            return false;
    }
    *v = lamport.slots[head % CAPACITY];
    atomic_store_explicit(&lamport.head, head + 1, memory_order_release);
    return true;
}

/* ---- FastForward: no shared position at all, a slot is empty when it is NULL ---------------------------------- */

static struct {
    _Alignas(64) uint64_t tail; /* the producer's own */
    _Alignas(64) uint64_t head; /* the consumer's own */
    _Alignas(64) void *_Atomic slots[CAPACITY];
} fast;

static void fast_open(void) { memset(&fast, 0, sizeof fast); }

static inline bool fast_push(void *v)
{
    void *_Atomic *slot = &fast.slots[fast.tail % CAPACITY];
    if (atomic_load_explicit(slot, memory_order_acquire) != NULL)
        return false;
    atomic_store_explicit(slot, v, memory_order_release);
    fast.tail++;
    return true;
}

static inline bool fast_pop(void **v)
{
    void *_Atomic *slot = &fast.slots[fast.head % CAPACITY];
    if ((*v = atomic_load_explicit(slot, memory_order_acquire)) == NULL)
        return false;
    atomic_store_explicit(slot, NULL, memory_order_release);
    fast.head++;
    return true;
}

/* ---- Vyukov: a sequence number a slot; wrong at capacity 1 ----------------------------------------------------- */

static struct {
    _Alignas(64) _Atomic uint64_t tail;
    _Alignas(64) uint64_t head; /* the one consumer's own */
    _Alignas(64) struct {
        _Atomic uint64_t sequence;
        void *value;
    } slots[CAPACITY];
} vyukov;

static void vyukov_open(void)
{
    vyukov.head = 0;
    atomic_store_explicit(&vyukov.tail, 0, memory_order_relaxed);
    for (uint64_t i = 0; i < CAPACITY; i++)
        atomic_store_explicit(&vyukov.slots[i].sequence, i, memory_order_relaxed);
}

static inline bool vyukov_push(void *v)
{
    uint64_t tail = atomic_load_explicit(&vyukov.tail, memory_order_relaxed);
    for (;;) {
        uint64_t sequence = atomic_load_explicit(&vyukov.slots[tail % CAPACITY].sequence, memory_order_acquire);
        if (sequence == tail) {
            if (atomic_compare_exchange_weak_explicit(&vyukov.tail, &tail, tail + 1, memory_order_relaxed,
                                                      memory_order_relaxed))
                break;
        } else if ((int64_t)(sequence - tail) < 0) {
            return false;
        } else {
            tail = atomic_load_explicit(&vyukov.tail, memory_order_relaxed);
        }
    }
    vyukov.slots[tail % CAPACITY].value = v;
    atomic_store_explicit(&vyukov.slots[tail % CAPACITY].sequence, tail + 1, memory_order_release);
    return true;
}

/* The same for one producer. */
static inline bool vyukov_sp_push(void *v)
{
    uint64_t tail = atomic_load_explicit(&vyukov.tail, memory_order_relaxed);
    if (atomic_load_explicit(&vyukov.slots[tail % CAPACITY].sequence, memory_order_acquire) != tail)
        return false;
    atomic_store_explicit(&vyukov.tail, tail + 1, memory_order_relaxed);
    vyukov.slots[tail % CAPACITY].value = v;
    atomic_store_explicit(&vyukov.slots[tail % CAPACITY].sequence, tail + 1, memory_order_release);
    return true;
}

static inline bool vyukov_pop(void **v)
{
    uint64_t head = vyukov.head;
    if (atomic_load_explicit(&vyukov.slots[head % CAPACITY].sequence, memory_order_acquire) != head + 1)
        return false;
    *v = vyukov.slots[head % CAPACITY].value;
    atomic_store_explicit(&vyukov.slots[head % CAPACITY].sequence, head + CAPACITY, memory_order_release);
    vyukov.head = head + 1;
    return true;
}

/* ---- for scale: a lock and two conditions; a pipe -------------------------------------------------------------- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t items, room;
    uint64_t head, tail;
    void *slots[CAPACITY];
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .items = PTHREAD_COND_INITIALIZER, .room = PTHREAD_COND_INITIALIZER};

static void queue_open(void) { queue.head = queue.tail = 0; }

static inline bool queue_push(void *v)
{
    pthread_mutex_lock(&queue.lock);
    while (queue.tail - queue.head == CAPACITY)
        pthread_cond_wait(&queue.room, &queue.lock);
    queue.slots[queue.tail++ % CAPACITY] = v;
    pthread_cond_signal(&queue.items);
    pthread_mutex_unlock(&queue.lock);
    return true;
}

static inline bool queue_pop(void **v)
{
    pthread_mutex_lock(&queue.lock);
    while (queue.tail == queue.head)
        pthread_cond_wait(&queue.items, &queue.lock);
    *v = queue.slots[queue.head++ % CAPACITY];
    pthread_cond_signal(&queue.room);
    pthread_mutex_unlock(&queue.lock);
    return true;
}

static int pipe_ends[2];

static void pipe_open(void)
{
    if (pipe_ends[1] == 0 && pipe(pipe_ends) != 0)
        exit(2);
}

static inline bool pipe_push(void *v) { return write(pipe_ends[1], &v, sizeof v) == sizeof v; }
static inline bool pipe_pop(void **v) { return read(pipe_ends[0], v, sizeof *v) == sizeof *v; }

/* ---- scenarios ------------------------------------------------------------------------------------------------- */

static void fail(const char *who)
{
    fprintf(stderr, "%s: wrong order, or something lost\n", who);
    exit(1);
}

/* A value tells its producer and its number. */
static inline void *value_of(uint64_t producer, uint64_t i) { return (void *)(uintptr_t)(producer << 48 | i); }

static inline void check(const char *who, uint64_t *next, void *v)
{
    uint64_t producer = (uintptr_t)v >> 48;
    if (((uintptr_t)v & 0xffffffffffff) != ++next[producer])
        fail(who);
}

typedef struct contender {
    const char *name;
    void (*open)(void);
    void (*pair)(uint64_t n);             /* one thread: in and out */
    void (*burst)(uint64_t n);            /* one thread: 64 in, 64 out */
    void (*produce)(uint64_t id, uint64_t n);
    void (*consume)(uint64_t n);
    int producers;                        /* at most */
} contender;

#define CONTENDER(name, push, pop)                      \
    static void name##_pair(uint64_t n)                 \
    {                                                   \
        uint64_t next[PRODUCERS] = {0};                 \
        for (uint64_t i = 1; i <= n; i++) {             \
            void *v = NULL;                             \
            if (!push(value_of(0, i)) || !pop(&v))      \
                fail(#name);                            \
            check(#name, next, v);                      \
        }                                               \
    }                                                   \
    static void name##_burst(uint64_t n)                \
    {                                                   \
        uint64_t next[PRODUCERS] = {0};                 \
        for (uint64_t i = 1; i <= n;) {                 \
            void *v = NULL;                             \
            for (int k = 0; k < 64; k++)                \
                if (!push(value_of(0, i++)))            \
                    fail(#name);                        \
            for (int k = 0; k < 64; k++) {              \
                if (!pop(&v))                           \
                    fail(#name);                        \
                check(#name, next, v);                  \
            }                                           \
        }                                               \
    }                                                   \
    static void name##_produce(uint64_t id, uint64_t n) \
    {                                                   \
        unsigned spins = 0;                             \
        for (uint64_t i = 1; i <= n; i++)               \
            while (!push(value_of(id, i)))              \
                relax(&spins);                          \
    }                                                   \
    static void name##_consume(uint64_t n)              \
    {                                                   \
        unsigned spins = 0;                             \
        uint64_t next[PRODUCERS] = {0};                 \
        for (uint64_t i = 0; i < n; i++) {              \
            void *v = NULL;                             \
            while (!pop(&v))                            \
                relax(&spins);                          \
            check(#name, next, v);                      \
        }                                               \
    }
#define ROW(text, name, open, producers) \
    {text, open, name##_pair, name##_burst, name##_produce, name##_consume, producers}

CONTENDER(nc_release, nc_release_push, nc_release_pop)
CONTENDER(nc_seq_cst, nc_seq_cst_push, nc_seq_cst_pop)
CONTENDER(nc_mp, nc_mp_push, nc_mp_pop)
CONTENDER(lamport, lamport_push, lamport_pop)
CONTENDER(fast, fast_push, fast_pop)
CONTENDER(vyukov_sp, vyukov_sp_push, vyukov_pop)
CONTENDER(vyukov, vyukov_push, vyukov_pop)
CONTENDER(queue, queue_push, queue_pop)
CONTENDER(pipe, pipe_push, pipe_pop)

static const contender contenders[] = {
    ROW("nc_ring, push_sp, release", nc_release, nc_open, 1),
    ROW("nc_ring, push_sp, seq_cst", nc_seq_cst, nc_open, 1),
    ROW("nc_ring, push_mp, seq_cst", nc_mp, nc_open, 2),
    ROW("Lamport, cached positions", lamport, lamport_open, 1),
    ROW("FastForward, NULL slots alone", fast, fast_open, 1),
    ROW("Vyukov, one producer", vyukov_sp, vyukov_open, 1),
    ROW("Vyukov, many producers", vyukov, vyukov_open, 2),
    ROW("mutex + two condvars", queue, queue_open, 2),
    ROW("pipe", pipe, pipe_open, 2),
};
enum { CONTENDERS = sizeof contenders / sizeof contenders[0], SCENARIOS = 4 };
static const char *const scenarios[SCENARIOS] = {"one thread, 1 in 1 out", "one thread, 64 in 64 out",
                                                 "1 producer, 1 consumer", "2 producers, 1 consumer"};

static const contender *current;
static int n_producers;

static void *producer_thread(void *id)
{
    current->produce((uintptr_t)id, n_items / (uint64_t)n_producers);
    return NULL;
}

/* Nanoseconds an item, or -1 where the contender does not do this. */
static double measure(const contender *c, int scenario)
{
    pthread_t threads[PRODUCERS];
    bool slow = c->pair == queue_pair || c->pair == pipe_pair;
    uint64_t n = n_items;
    if (slow)
        n_items /= 8;
    n_items -= n_items % 128;
    current = c;
    n_producers = scenario - 1;
    double began = now();
    if (n_producers > c->producers) {
        n_items = n;
        return -1;
    }
    c->open();
    if (scenario == 0)
        c->pair(n_items);
    else if (scenario == 1)
        c->burst(n_items);
    else {
        for (int i = 0; i < n_producers; i++)
            pthread_create(&threads[i], NULL, producer_thread, (void *)(uintptr_t)i);
        c->consume(n_items);
        for (int i = 0; i < n_producers; i++)
            pthread_join(threads[i], NULL);
    }
    double each = (now() - began) / (double)n_items;
    n_items = n;
    return each;
}

int main(void)
{
    const char *rounds_text = getenv("BENCH_ROUNDS"), *items_text = getenv("BENCH_ITEMS");
    int rounds = rounds_text != NULL ? atoi(rounds_text) : 15;
    static double taken[CONTENDERS][SCENARIOS][ROUNDS_AT_MOST];
    n_items = items_text != NULL ? strtoull(items_text, NULL, 0) : 1000000;
    if (rounds < 1 || rounds > ROUNDS_AT_MOST || n_items < 1024)
        return 2;
    for (int r = 0; r < rounds; r++)
        for (int s = 0; s < SCENARIOS; s++)
            for (int c = 0; c < CONTENDERS; c++)
                taken[c][s][r] = measure(&contenders[c], s);
    print_machine();
    printf("Capacity %d; median (least) of %d interleaved rounds of %llu items; ns an item.\n\n", CAPACITY, rounds,
           (unsigned long long)n_items);
    printf("| ring |");
    for (int s = 0; s < SCENARIOS; s++)
        printf(" %s |", scenarios[s]);
    printf("\n|---|---:|---:|---:|---:|\n");
    for (int c = 0; c < CONTENDERS; c++) {
        printf("| %s |", contenders[c].name);
        for (int s = 0; s < SCENARIOS; s++) {
            print_cell(taken[c][s], rounds);
        }
        printf("\n");
    }
    return 0;
}
