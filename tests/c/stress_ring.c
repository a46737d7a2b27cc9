/* stress_ring.c: nc_ring.h between threads, with a check word on each item, at every capacity and start.
 * STRESS_ITEMS items for each topology, spread over capacities and starts. */
#include "stress.h"

#include "nc_ring.h"

static const uint64_t capacities[] = {1, 2, 3, 7, 8, 64, 4096};
static const uint64_t weights[] = {1, 1, 1, 2, 2, 6, 12}; /* of 25: a small ring hands each item over by itself */
static const uint64_t starts[] = {0, (UINT64_C(1) << 32) - 50, (UINT64_C(1) << 63) - 50, -(uint64_t)50};
enum { CAPACITIES = 7, STARTS = 4, MOST = 4096, PRODUCERS = 4, BATCH = 64, POOL = 2 * MOST };

typedef struct item {
    uint64_t producer, number, check;
} item;

static nc_ring ring;
static void *_Atomic slots[MOST];
/* A producer's items, used again and again.  That item n + POOL may be written is known from the ring alone: n has left
 * it. */
static item pool[PRODUCERS][POOL];
static int producers;
static bool many; /* push_mp */
static uint64_t each; /* items a producer */
static uint64_t largest; /* batch */

static uint64_t check_word(uint64_t producer, uint64_t number)
{
    return (number ^ stress_seed) * UINT64_C(0x9e3779b97f4a7c15) + producer;
}

static void produce(int producer)
{
    uint64_t seed = stress_seed_for(producer), sent = 0;
    unsigned spins = 0;
    while (sent < each) {
        void *batch[BATCH];
        uint64_t n = 1 + test_random(&seed) % largest;
        if (n > each - sent)
            n = each - sent;
        for (uint64_t i = 0; i < n; i++) {
            item *it = &pool[producer][(sent + i) % POOL];
            *it = (item){(uint64_t)producer, sent + i, check_word((uint64_t)producer, sent + i)};
            batch[i] = it;
        }
        for (uint64_t done = 0; done < n;) {
            uint64_t left = n - done, went;
            if (left == 1)
                went = many ? nc_ring_push_one_mp(&ring, batch[done])
                            : nc_ring_push_one_sp(&ring, batch[done], memory_order_release);
            else
                went = many ? nc_ring_push_mp(&ring, batch + done, left)
                            : nc_ring_push_sp(&ring, batch + done, left, memory_order_release);
            done += went;
            if (went == 0)
                stress_relax(&spins);
        }
        sent += n;
    }
}

static void consume(void)
{
    uint64_t seed = stress_seed_for(-1), next[PRODUCERS] = {0}, left = each * (uint64_t)producers, wrong = 0;
    unsigned spins = 0;
    while (left > 0) {
        void *batch[BATCH];
        uint64_t n = 1 + test_random(&seed) % largest;
        if (n == 1 && left % 2) /* else the form for many, of one */
            n = (batch[0] = many ? nc_ring_pop_one_mpsc(&ring, memory_order_release)
                                 : nc_ring_pop_one_spsc(&ring, memory_order_release)) != NULL;
        else
            n = many ? nc_ring_pop_mpsc(&ring, batch, n, memory_order_release)
                     : nc_ring_pop_spsc(&ring, batch, n, memory_order_release);
        for (uint64_t i = 0; i < n; i++) {
            item it = *(item *)batch[i];
            wrong += it.producer >= PRODUCERS || it.number != next[it.producer]++ ||
                     it.check != check_word(it.producer, it.number);
        }
        left -= n;
        stress_done(n);
        if (n == 0)
            stress_relax(&spins);
    }
    CHECK_EQ(wrong, 0);
}

static void body(int id)
{
    if (id < producers)
        produce(id);
    else
        consume();
}

static void dump(void)
{
    fprintf(stderr, "%s: head %#" PRIx64 ", tail %#" PRIx64 ", head_seen %#" PRIx64 "\n", test_case,
            atomic_load(&ring.head), atomic_load(&ring.tail), atomic_load(&ring.head_seen));
}

static void one(uint64_t capacity, uint64_t start)
{
    CASE("capacity %" PRIu64 ", start %#" PRIx64, capacity, start);
    largest = capacity < BATCH ? capacity + 1 : BATCH;
    for (uint64_t i = 0; i < capacity; i++)
        atomic_store_explicit(&slots[i], NULL, memory_order_relaxed);
    nc_ring_init(&ring, slots, capacity, start);
    stress_run(producers + 1, body);
    CHECK_EQ(nc_ring_len(&ring), 0);
    for (uint64_t i = 0; i < capacity; i++)
        CHECK(!many || atomic_load_explicit(&slots[i], memory_order_relaxed) == NULL);
}

static void all_capacities_and_starts(void)
{
    double began = stress_clock(), items = 0;
    for (int c = 0; c < CAPACITIES; c++)
        for (int s = 0; s < STARTS; s++) {
            each = stress_items * weights[c] / 25 / STARTS / (uint64_t)producers + 1;
            items += (double)each * producers;
            one(capacities[c], starts[s]);
        }
    printf("%s, %d producers: %.0f items, %.1f ns each\n", many ? "push_mp" : "push_sp", producers, items,
           (stress_clock() - began) / items * 1e9);
}

static void spsc(void)
{
    many = false;
    producers = 1;
    all_capacities_and_starts();
}

static void mpsc(int n)
{
    many = true;
    producers = n;
    all_capacities_and_starts();
}
static void mpsc_1(void) { mpsc(1); }
static void mpsc_2(void) { mpsc(2); }
static void mpsc_4(void) { mpsc(4); }

int main(void)
{
    stress_scenario = "ring";
    stress_dump = dump;
    stress_start(500000);
    RUN(spsc);
    RUN(mpsc_1);
    RUN(mpsc_2);
    RUN(mpsc_4);
    return stress_report();
}
