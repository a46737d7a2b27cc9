/* bytes.c: messages of 8 to 1024 bytes through nc_log and nc_ring, beside a queue under a lock and a pipe, without
 * Python.
 *
 * Each message is copied in from the producer's buffer and out to the consumer's; through nc_ring goes a pointer to one
 * of the producer's own places.  Each is checked for order and completeness while it is timed.  Rounds are interleaved;
 * the tables show medians of nanoseconds a message.  Environment: BENCH_ROUNDS, BENCH_ITEMS. */
#include "bench.h"

#include "nc_log.h"
#include "nc_ring.h"

enum { SLOTS = 512, LOG_BYTES = 1 << 20, PRODUCERS = 2, LARGEST = 1024 };

static const size_t sizes[] = {8, 64, 256, 1024};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static size_t size; /* of a message */

/* ---- the byte ring ------------------------------------------------------------------------------------------- */

static _Alignas(NC_CACHE_LINE) unsigned char log_block[sizeof(nc_log) + 2 * LOG_BYTES + LOG_BYTES / 8];
static nc_log *const bytes = (nc_log *)(void *)log_block;

static void log_open(bool many)
{
    memset(log_block, 0, sizeof log_block);
    nc_log_init(bytes, nc_log_round(SLOTS * nc_log_extent(size)), many, 0); /* at most LOG_BYTES */
}
static void log_open_sp(void) { log_open(false); }
static void log_open_mp(void) { log_open(true); }

#define PEEK_sp(r, order) nc_log_peek_spsc(bytes, r)
#define PEEK_mp(r, order) nc_log_peek_mpsc(bytes, r, &(bool){false}, order)

#define LOG(name, kind, order)                                        \
    static inline bool name##_push(int producer, const void *message) \
    {                                                                 \
        nc_record r;                                                  \
        (void)producer;                                               \
        if (nc_log_claim_##kind(bytes, size, &r) != NC_OK)            \
            return false;                                             \
        memcpy(r.data, message, size);                                \
        nc_log_commit_##kind(bytes, &r, size, order);                 \
        return true;                                                  \
    }                                                                 \
    static inline bool name##_pop(void *message)                      \
    {                                                                 \
        nc_record r;                                                  \
        if (PEEK_##kind(&r, order) != NC_OK)                          \
            return false;                                             \
        memcpy(message, r.data, size);                                \
        nc_log_touch_sc(&r);                                          \
        nc_log_release_##kind##sc(bytes, &r, order);                  \
        return true;                                                  \
    }
LOG(log_sp, sp, memory_order_seq_cst)
LOG(log_batch, sp, memory_order_release)
LOG(log_mp, mp, memory_order_seq_cst)

/* ---- the ring of objects: a pointer to a place that its producer uses again in turn ----------------------------- */

static nc_ring ring;
static void *_Atomic ring_slots[SLOTS];
static _Alignas(NC_CACHE_LINE) unsigned char places[PRODUCERS][2 * SLOTS][LARGEST];
static uint64_t used[PRODUCERS];

static void ring_open(void)
{
    for (int i = 0; i < SLOTS; i++)
        atomic_store_explicit(&ring_slots[i], NULL, memory_order_relaxed);
    nc_ring_init(&ring, ring_slots, SLOTS, 0);
}

#define RING(name, push_one, pop_one)                                              \
    static inline bool name##_push(int producer, const void *message)              \
    {                                                                              \
        void *place = places[producer][used[producer] % (2 * SLOTS)];              \
        memcpy(place, message, size); /* what was there left the ring a lap ago */ \
        if (!(push_one))                                                           \
            return false;                                                          \
        used[producer]++;                                                          \
        return true;                                                               \
    }                                                                              \
    static inline bool name##_pop(void *message)                                   \
    {                                                                              \
        void *place = pop_one;                                                     \
        if (place == NULL)                                                         \
            return false;                                                          \
        memcpy(message, place, size);                                              \
        return true;                                                               \
    }
RING(ring_sp, nc_ring_push_one_sp(&ring, place, memory_order_seq_cst),
     nc_ring_pop_one_spsc(&ring, memory_order_seq_cst))
RING(ring_mp, nc_ring_push_one_mp(&ring, place), nc_ring_pop_one_mpsc(&ring, memory_order_seq_cst))

/* ---- for scale: a queue that copies under a lock, with two conditions; a pipe ------------------------------------ */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t items, room;
    uint64_t head, tail;
    unsigned char slots[SLOTS][LARGEST];
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .items = PTHREAD_COND_INITIALIZER, .room = PTHREAD_COND_INITIALIZER};

static void queue_open(void) { queue.head = queue.tail = 0; }

static inline bool queue_push(int producer, const void *message)
{
    (void)producer;
    pthread_mutex_lock(&queue.lock);
    while (queue.tail - queue.head == SLOTS)
        pthread_cond_wait(&queue.room, &queue.lock);
    memcpy(queue.slots[queue.tail++ % SLOTS], message, size);
    pthread_cond_signal(&queue.items);
    pthread_mutex_unlock(&queue.lock);
    return true;
}

static inline bool queue_pop(void *message)
{
    pthread_mutex_lock(&queue.lock);
    while (queue.tail == queue.head)
        pthread_cond_wait(&queue.items, &queue.lock);
    memcpy(message, queue.slots[queue.head++ % SLOTS], size);
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

/* In one piece, as it is less than PIPE_BUF. */
static inline bool pipe_push(int producer, const void *message)
{
    (void)producer;
    return write(pipe_ends[1], message, size) == (ssize_t)size;
}

static inline bool pipe_pop(void *message)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = read(pipe_ends[0], (char *)message + got, size - got);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

/* ---- scenarios ------------------------------------------------------------------------------------------------ */

static void fail(const char *who)
{
    fprintf(stderr, "%s: wrong order, or something lost\n", who);
    exit(1);
}

/* The first word of a message tells its producer and its number. */
static inline uint64_t stamp(uint64_t producer, uint64_t i) { return producer << 48 | i; }

static inline void check(const char *who, uint64_t *next, const uint64_t *message)
{
    uint64_t producer = *message >> 48;
    if (producer >= PRODUCERS || (*message & 0xffffffffffff) != ++next[producer])
        fail(who);
}

typedef struct contender {
    const char *name;
    void (*open)(void);
    void (*pair)(uint64_t n); /* one thread: in and out */
    void (*produce)(int id, uint64_t n);
    void (*consume)(uint64_t n);
    int producers;  /* at most */
    bool calls_the_system;
} contender;

#define CONTENDER(name)                                                          \
    static void name##_pair(uint64_t n)                                          \
    {                                                                            \
        uint64_t next[PRODUCERS] = {0}, in[LARGEST / 8] = {0}, out[LARGEST / 8]; \
        for (uint64_t i = 1; i <= n; i++) {                                      \
            in[0] = stamp(0, i);                                                 \
            if (!name##_push(0, in) || !name##_pop(out))                         \
                fail(#name);                                                     \
            check(#name, next, out);                                             \
        }                                                                        \
    }                                                                            \
    static void name##_produce(int id, uint64_t n)                               \
    {                                                                            \
        uint64_t in[LARGEST / 8] = {0};                                          \
        unsigned spins = 0;                                                      \
        for (uint64_t i = 1; i <= n; i++) {                                      \
            in[0] = stamp((uint64_t)id, i);                                      \
            while (!name##_push(id, in))                                         \
                relax(&spins);                                                   \
        }                                                                        \
    }                                                                            \
    static void name##_consume(uint64_t n)                                       \
    {                                                                            \
        uint64_t next[PRODUCERS] = {0}, out[LARGEST / 8];                        \
        unsigned spins = 0;                                                      \
        for (uint64_t i = 0; i < n; i++) {                                       \
            while (!name##_pop(out))                                             \
                relax(&spins);                                                   \
            check(#name, next, out);                                             \
        }                                                                        \
    }
#define ROW(text, name, open, producers, slow) \
    {text, open, name##_pair, name##_produce, name##_consume, producers, slow}

CONTENDER(log_sp)
CONTENDER(log_batch)
CONTENDER(log_mp)
CONTENDER(ring_sp)
CONTENDER(ring_mp)
CONTENDER(queue)
CONTENDER(pipe)

static const contender contenders[] = {
    ROW("nc_log, one producer, release", log_batch, log_open_sp, 1, false),
    ROW("nc_log, one producer, seq_cst", log_sp, log_open_sp, 1, false),
    ROW("nc_log, many producers, seq_cst", log_mp, log_open_mp, 2, false),
    ROW("nc_ring, one producer, seq_cst", ring_sp, ring_open, 1, false),
    ROW("nc_ring, many producers, seq_cst", ring_mp, ring_open, 2, false),
    ROW("mutex + two condvars, copied", queue, queue_open, 2, true),
    ROW("pipe", pipe, pipe_open, 2, true),
};
enum { CONTENDERS = sizeof contenders / sizeof contenders[0], SCENARIOS = 3 };
static const char *const scenarios[SCENARIOS] = {"One thread, one in and one out", "One producer, one consumer",
                                                 "Two producers, one consumer"};

static const contender *current;
static uint64_t n_each;

static void *producer_thread(void *id)
{
    current->produce((int)(intptr_t)id, n_each);
    return NULL;
}

/* Nanoseconds a message, or -1 where the contender does not do this. */
static double measure(const contender *c, int producers, uint64_t items)
{
    pthread_t threads[PRODUCERS];
    if (producers > c->producers)
        return -1;
    items = c->calls_the_system ? items / 8 : items;
    n_each = items / (uint64_t)(producers ? producers : 1);
    current = c;
    c->open();
    double began = now();
    if (producers == 0) {
        c->pair(n_each);
        return (now() - began) / (double)n_each;
    }
    for (int i = 0; i < producers; i++)
        pthread_create(&threads[i], NULL, producer_thread, (void *)(intptr_t)i);
    c->consume(n_each * (uint64_t)producers);
    for (int i = 0; i < producers; i++)
        pthread_join(threads[i], NULL);
    return (now() - began) / (double)(n_each * (uint64_t)producers);
}

static double taken[SCENARIOS][CONTENDERS][SIZES][ROUNDS_AT_MOST];

static void print_table(int scenario, int rounds)
{
    printf("\n%s:\n\n| queue |", scenarios[scenario]);
    for (int s = 0; s < SIZES; s++)
        printf(" %zu bytes |", sizes[s]);
    printf("\n|---|---:|---:|---:|---:|\n");
    for (int c = 0; c < CONTENDERS; c++) {
        if (taken[scenario][c][0][0] < 0)
            continue;
        printf("| %s |", contenders[c].name);
        for (int s = 0; s < SIZES; s++)
            print_cell(taken[scenario][c][s], rounds);
        printf("\n");
    }
}

int main(void)
{
    const char *rounds_text = getenv("BENCH_ROUNDS"), *items_text = getenv("BENCH_ITEMS");
    int rounds = rounds_text != NULL ? atoi(rounds_text) : 15;
    uint64_t items = items_text != NULL ? strtoull(items_text, NULL, 0) : 400000;
    if (rounds < 1 || rounds > ROUNDS_AT_MOST || items < 1024)
        return 2;
    for (int r = 0; r < rounds; r++)
        for (int scenario = 0; scenario < SCENARIOS; scenario++)
            for (int s = 0; s < SIZES; s++)
                for (int c = 0; c < CONTENDERS; c++) {
                    size = sizes[s];
                    taken[scenario][c][s][r] = measure(&contenders[c], scenario, items);
                }
    print_machine();
    printf("Room for %d messages, in nc_log for the power of two above it in bytes; median (least) of %d interleaved "
           "rounds of "
           "%llu messages (a lock and a pipe: an eighth); ns a message.\n",
           SLOTS, rounds, (unsigned long long)items);
    for (int scenario = 0; scenario < SCENARIOS; scenario++)
        print_table(scenario, rounds);
    return 0;
}
