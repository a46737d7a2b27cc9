/* stress_log.c: nc_log.h between threads, at every capacity and start.  Each byte of a record follows from its producer
 * and its number, and so does what its producer did with it: committed at once or later, shrunk, or given up before.
 * STRESS_ITEMS records for each topology, spread over capacities and starts. */
#include "stress.h"

#include "nc_log.h"

static const uint64_t capacities[] = {64, 128, 256, 512, 1024, 4096};
static const uint64_t weights[] = {2, 3, 4, 4, 5, 6}; /* of 24 */
static const uint64_t starts[] = {0, (UINT64_C(1) << 32) - 56, (UINT64_C(1) << 63) - 56, -(uint64_t)56};
enum { CAPACITIES = 6, STARTS = 4, MOST = 4096, PRODUCERS = 4 };

static _Alignas(NC_CACHE_LINE) unsigned char block[sizeof(nc_log) + 2 * MOST + MOST / 8];
static nc_log *const log_ = (nc_log *)(void *)block;
static unsigned char text[2 * MOST]; /* what records are cut from */
static int producers;
static bool many; /* claim_mp */
static uint64_t each; /* records a producer */
static uint64_t salt; /* of the case: plans are to differ */
static _Atomic uint64_t aborted, shrunk, held, skips;

/* What record `number` of a producer is like. */
typedef struct plan {
    uint64_t size, claimed; /* claimed >= size */
    const unsigned char *bytes; /* what its bytes are, but for the first */
    bool abort, hold; /* give one up before; claim the next one before this is committed */
} plan;

static plan plan_for(int producer, uint64_t number)
{
    uint64_t seed = stress_seed_for(producer) ^ ((number + salt) * UINT64_C(0x9e3779b97f4a7c15)),
             r = test_random(&seed);
    uint64_t largest = nc_log_largest(log_), small = largest < 200 ? largest : 200;
    plan p;
    p.bytes = text + (test_random(&seed) >> 8) % MOST;
    p.size = r % 8 == 0 ? 1 + number % largest : 1 + (r >> 8) % small; /* every size, most of them small */
    p.claimed = r >> 32 & 7 ? p.size : p.size + (r >> 40) % (largest - p.size + 1);
    p.abort = (r >> 35 & 15) == 0;
    p.hold = many && producers == 1 && (r >> 44 & 15) == 0;
    return p;
}

/* It also tells the producer. */
static unsigned char first_byte(const plan *p, int producer)
{
    return (unsigned char)((p->bytes[0] & ~(PRODUCERS - 1)) | producer);
}

static void fill(const plan *p, int producer, nc_record *record)
{
    memcpy(record->data, p->bytes, p->size);
    record->data[0] = first_byte(p, producer);
}

static void claim(uint64_t n, nc_record *record)
{
    unsigned spins = 0;
    while ((many ? nc_log_claim_mp(log_, n, record) : nc_log_claim_sp(log_, n, record)) != NC_OK)
        stress_relax(&spins);
}

static bool try_claim(uint64_t n, nc_record *record)
{
    return (many ? nc_log_claim_mp(log_, n, record) : nc_log_claim_sp(log_, n, record)) == NC_OK;
}

static void commit(const nc_record *record, uint64_t n)
{
    if (many)
        nc_log_commit_mp(log_, record, n, memory_order_release);
    else
        nc_log_commit_sp(log_, record, n, memory_order_release);
}

static void count(_Atomic uint64_t *p) { atomic_fetch_add_explicit(p, 1, memory_order_relaxed); }

/* Claim something that is never sent, with bytes that would make the worst of headers. */
static void claim_in_vain(const plan *p)
{
    nc_record record;
    claim(p->claimed, &record);
    memset(record.data, 0xff, p->claimed);
    if (many)
        nc_log_abort_mp(log_, &record, memory_order_release);
    count(&aborted);
}

static void produce(int producer)
{
    for (uint64_t sent = 0; sent < each; sent++) {
        plan p = plan_for(producer, sent), q;
        nc_record record, next;
        if (p.abort)
            claim_in_vain(&p);
        claim(p.claimed, &record);
        fill(&p, producer, &record);
        if (p.size < p.claimed)
            count(&shrunk);
        if (p.hold && sent + 1 < each && (q = plan_for(producer, sent + 1), try_claim(q.size, &next))) {
            fill(&q, producer, &next); /* behind what is still claimed */
            commit(&next, q.size);
            count(&held);
            sent++;
        }
        commit(&record, p.size);
        if (sent % 8 == 0)
            nc_log_publish_batch(log_); /* changes nothing, at any time */
    }
}

/* Which it is, its bytes tell; which number it has, the order. */
static uint64_t check(const nc_record *record, uint64_t *next)
{
    int producer = record->data[0] & (PRODUCERS - 1);
    plan p = plan_for(producer, next[producer]++);
    return record->size != p.size || record->data[0] != first_byte(&p, producer) ||
           memcmp(record->data + 1, p.bytes + 1, p.size - 1) != 0;
}

static nc_result show(nc_record *record, bool *freed)
{
    *freed = false;
    return many ? nc_log_peek_mpsc(log_, record, freed, memory_order_release) : nc_log_find_spsc(log_, record);
}

static void consume(void)
{
    uint64_t next[PRODUCERS] = {0}, left = each * (uint64_t)producers, wrong = 0;
    unsigned spins = 0;
    while (left > 0) {
        nc_record record;
        bool freed;
        nc_result result = show(&record, &freed);
        if (freed)
            count(&skips);
        if (result != NC_OK) {
            wrong += nc_log_used(log_) > log_->capacity;
            stress_relax(&spins);
            continue;
        }
        wrong += !nc_log_ready(log_);
        wrong += check(&record, next);
        if (left % 2)
            nc_log_touch_sc(&record);
        if (many)
            nc_log_release_mpsc(log_, &record, memory_order_release);
        else
            nc_log_release_spsc(log_, &record, memory_order_release);
        left--;
        stress_done(1);
    }
    CHECK_EQ(wrong, 0);
}

/* Somebody who only looks, as a waiter that has raised its flag does. */
static _Atomic bool over;
static void watch(void)
{
    uint64_t wrong = 0;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        wrong += nc_log_used(log_) > log_->capacity;
        nc_log_ready(log_);
        sched_yield();
    }
    CHECK_EQ(wrong, 0);
}

static void body(int id)
{
    if (id < producers) {
        produce(id);
    } else if (id == producers) {
        consume();
        atomic_store_explicit(&over, true, memory_order_relaxed);
    } else {
        watch();
    }
}

static void dump(void)
{
    uint64_t pos = atomic_load(&log_->head), header;
    fprintf(stderr, "%s: head %#" PRIx64 ", tail %#" PRIx64 ", head_seen %#" PRIx64 ":", test_case, pos,
            atomic_load(&log_->tail), atomic_load(&log_->head_seen));
    for (int i = 0; i < 30 && nc_log_dump_next(log_, &pos, &header) && header != 0; i++)
        fprintf(stderr, " %#" PRIx64, header);
    fprintf(stderr, "\n");
}

static void one(uint64_t capacity, uint64_t start)
{
    bool freed;
    nc_record record;
    CASE("capacity %" PRIu64 ", start %#" PRIx64 ", %d producers, %s", capacity, start, producers,
         many ? "claim_mp" : "claim_sp");
    salt += 1000003;
    memset(block, 0, sizeof block);
    nc_log_init(log_, capacity, many, start);
    atomic_store(&over, false);
    stress_run(producers + 2, body);
    CHECK_EQ(show(&record, &freed), NC_EMPTY); /* of a skip at the end */
    CHECK_EQ(nc_log_used(log_), 0);
    uint64_t wrong = 0;
    for (uint64_t i = 0; many && i < capacity; i += 8)
        wrong += atomic_load_explicit(nc_log_mark(log_, i), memory_order_relaxed) != 0;
    CHECK_EQ(wrong, 0);
}

static void all_capacities_and_starts(void)
{
    double began = stress_clock(), records = 0;
    for (int c = 0; c < CAPACITIES; c++)
        for (int s = 0; s < STARTS; s++) {
            each = stress_items * weights[c] / 24 / STARTS / (uint64_t)producers + 1;
            records += (double)each * producers;
            one(capacities[c], starts[s]);
        }
    printf("%s, %d producers: %.0f records, %.1f ns each\n", many ? "claim_mp" : "claim_sp", producers, records,
           (stress_clock() - began) / records * 1e9);
}

static void topology(bool with_many, int n)
{
    many = with_many;
    producers = n;
    all_capacities_and_starts();
}
static void one_producer(void) { topology(false, 1); }
static void one_of_many(void) { topology(true, 1); }
static void two_producers(void) { topology(true, 2); }
static void four_producers(void) { topology(true, 4); }

/* Each way of ending a claim was taken. */
static void each_happened(void)
{
    uint64_t enough = stress_items / 1000;
    CHECK(atomic_load(&aborted) > enough);
    CHECK(atomic_load(&shrunk) > enough);
    CHECK(atomic_load(&held) > enough);
    CHECK(atomic_load(&skips) > enough);
}

int main(void)
{
    stress_scenario = "log";
    stress_dump = dump;
    stress_start(500000);
    uint64_t seed = stress_seed_for(99);
    for (int i = 0; i < 2 * MOST; i++)
        text[i] = (unsigned char)(test_random(&seed) >> 30);
    RUN(one_producer);
    RUN(one_of_many);
    RUN(two_producers);
    RUN(four_producers);
    RUN(each_happened);
    return stress_report();
}
