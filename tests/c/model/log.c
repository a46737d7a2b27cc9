/* log.c: models of nc_log.h.  model_arg is the capacity in bytes; records have payloads of one or two words.
 *
 * A payload is written and read as plain memory, so that a race is seen, and as words of the ring, so that a stale one
 * is what a header that is read in its place would be.  Its words look like the headers of records. */
#include "nc_log_reader.h"

#define START (-(uint64_t)16) /* the positions wrap on the way */

enum { LARGEST = 64, MOST = 8 };

static _Alignas(NC_CACHE_LINE) unsigned char block[sizeof(nc_log) + 2 * LARGEST + LARGEST / 8];
static nc_log *const ring = (nc_log *)(void *)block;
static uint32_t taken[4];              /* by producer: how many the consumer has seen */
static _Atomic uint32_t sign, flag[3]; /* between threads, beside the ring */
static bool many, guarded; /* guarded: by way of the reader, which trusts nothing */
static nc_log_reader reader;
static uint64_t each;                  /* records a producer */
static uint64_t sizes[2];              /* of a producer's records, in turn, in bytes */

static void start(bool with_many, uint64_t n, uint64_t size, uint64_t other)
{
    nc_log_init(ring, (uint64_t)model_arg, with_many, START);
    for (uint64_t i = 0; i < (uint64_t)model_arg; i += 8) {
        atomic_store_explicit(nc_log_header(ring, i), 0, memory_order_relaxed);
        if (with_many)
            atomic_store_explicit(nc_log_mark(ring, i), 0, memory_order_relaxed);
    }
    many = with_many;
    guarded = false;
    each = n;
    sizes[0] = size;
    sizes[1] = other;
    for (int p = 0; p < 4; p++)
        taken[p] = 0;
    atomic_store_explicit(&sign, 0, memory_order_relaxed);
    for (int i = 0; i < 3; i++)
        atomic_store_explicit(&flag[i], 0, memory_order_relaxed);
}

static void setup(void) { start(false, 3, 8, 8); }
static void setup_two(void) { start(false, 2, 8, 8); }
static void setup_long(void) { start(false, 3, 16, 16); }
static void setup_mixed(void) { start(false, 3, 16, 8); }
static void setup_many(void) { start(true, 2, 8, 8); }
static void setup_many_long(void) { start(true, 2, 16, 16); }
static void setup_many_mixed(void) { start(true, 2, 8, 16); }
static void setup_one_of_many(void) { start(true, 3, 16, 8); }

static void guard(void)
{
    guarded = true; /* opened by hand: this ring is less than the least */
    reader = (nc_log_reader){ring, (uint64_t)model_arg, many, atomic_load_explicit(&ring->head, memory_order_relaxed)};
}

static void setup_guarded(void)
{
    setup_mixed();
    guard();
}

static void setup_many_guarded(void)
{
    setup_many_long();
    guard();
}

static void setup_claims_guarded(void)
{
    start(true, 1, 8, 8);
    guard();
}

/* As if the consumer had not cleared the marks a lap ago. */
static void setup_never_cleared(void)
{
    start(true, 2, 16, 16);
    for (uint64_t i = 0; i < (uint64_t)model_arg; i += 8)
        atomic_store_explicit(nc_log_mark(ring, i), 1, memory_order_relaxed);
}

/* What word i of record `number` of a producer is: a small, committed record, or so it looks. */
static uint64_t word_of(int producer, uint64_t number, uint64_t i) { return 8 + 64 * producer + 8 * number + i; }

static void write_record(const nc_record *r, int producer, uint64_t number, uint64_t n)
{
    uint64_t *words = (uint64_t *)(void *)r->data;
    for (uint64_t i = 0; i < n / 8; i++) {
        words[i] = word_of(producer, number, i);
        atomic_store_explicit(&words[i], word_of(producer, number, i), memory_order_relaxed);
    }
}

static bool claim(uint64_t n, nc_record *r)
{
    return (many ? nc_log_claim_mp(ring, n, r) : nc_log_claim_sp(ring, n, r)) == NC_OK;
}

static void claim_waiting(uint64_t n, nc_record *r)
{
    unsigned spins = 0;
    while (!claim(n, r))
        nc_relax(&spins);
}

static void commit(const nc_record *r, uint64_t n)
{
    if (many)
        nc_log_commit_mp(ring, r, n, memory_order_release);
    else
        nc_log_commit_sp(ring, r, n, memory_order_release);
}

static uint64_t size_of(uint64_t number) { return sizes[number % 2]; }

static bool put(int producer, uint64_t number)
{
    nc_record r;
    if (!claim(size_of(number), &r))
        return false;
    write_record(&r, producer, number, r.size);
    commit(&r, r.size);
    return true;
}

static void produce(int producer)
{
    unsigned spins = 0;
    for (uint64_t i = 0; i < each;)
        if (put(producer, i))
            i++;
        else
            nc_relax(&spins);
}

/* The record is the next of its producer, whole, and stays so until it is given back. */
static void check_record(const nc_record *r)
{
    uint64_t *words = (uint64_t *)(void *)r->data, first = words[0];
    int producer = (int)(first - 8) / 64;
    CHECK(producer < 4);
    uint64_t number = taken[producer]++;
    CHECK(r->size == size_of(number));
    for (uint64_t i = 0; i < r->size / 8; i++) {
        CHECK(words[i] == word_of(producer, number, i));
        CHECK(atomic_load_explicit(&words[i], memory_order_relaxed) == word_of(producer, number, i));
    }
}

static bool peek(nc_record *r, bool *freed)
{
    if (guarded)
        return nc_log_look_sc(&reader, r, freed, memory_order_release) == NC_OK;
    *freed = false;
    if (many)
        return nc_log_peek_mpsc(ring, r, freed, memory_order_release) == NC_OK;
    return nc_log_peek_spsc(ring, r) == NC_OK;
}

static void give_back(const nc_record *r, memory_order publish)
{
    if (guarded)
        nc_log_pass_sc(&reader, nc_log_extent(r->size), publish);
    else if (many)
        nc_log_release_mpsc(ring, r, publish);
    else
        nc_log_release_spsc(ring, r, publish);
}

static bool take(void)
{
    nc_record r;
    bool freed;
    if (!peek(&r, &freed))
        return false;
    check_record(&r);
    give_back(&r, memory_order_release);
    return true;
}

static void consume(uint64_t n)
{
    unsigned spins = 0;
    while (n > 0)
        if (take())
            n--;
        else
            nc_relax(&spins);
}

static void left_empty(void)
{
    CHECK(!take());
    CHECK(nc_log_used(ring) == 0);
    for (uint64_t i = 0; i < (uint64_t)model_arg && many; i += 8)
        CHECK(atomic_load_explicit(nc_log_mark(ring, i), memory_order_relaxed) == 0);
}

/* ---- through the ring ------------------------------------------------------------------------------- */

static void spsc(int id)
{
    if (id == 1)
        produce(1);
    else
        consume(each);
}

static void mpsc(int id)
{
    if (id <= 2)
        produce(id);
    else
        consume(2 * each);
}

/* A claim may be shrunk or given up, and committed after what came later. */
static void ends_of_claims(int id)
{
    nc_record r, next;
    if (id == 1) {
        claim_waiting(16, &r);
        bool ahead = model_choose(2) && claim(8, &next);
        if (model_choose(2)) {
            write_record(&r, 1, 1, 16); /* in vain */
            if (many)
                nc_log_abort_mp(ring, &r, memory_order_release);
        } else {
            write_record(&r, 1, 0, 8);
            commit(&r, 8);
            atomic_store_explicit(&sign, 1, memory_order_relaxed);
        }
        if (ahead) {
            write_record(&next, 2, 0, 8);
            commit(&next, 8);
        } else {
            claim_waiting(8, &next);
            write_record(&next, 2, 0, 8);
            commit(&next, 8);
        }
        return;
    }
    unsigned spins = 0;
    while (taken[2] == 0)
        if (!take())
            nc_relax(&spins);
}

static void setup_claims(void) { start(true, 1, 8, 8); }
static void setup_claims_of_one(void) { start(false, 1, 8, 8); }

static void ends_of_claims_of_one(int id)
{
    nc_record r;
    if (id == 2) {
        ends_of_claims(2);
        return;
    }
    claim_waiting(16, &r);
    write_record(&r, 1, 0, 16);
    if (model_choose(2)) {
        commit(&r, 8); /* else it is forgotten */
        atomic_store_explicit(&sign, 1, memory_order_relaxed);
    }
    claim_waiting(8, &r);
    write_record(&r, 2, 0, 8);
    commit(&r, 8);
}

static void all_that_was_committed(void)
{
    CHECK(taken[1] == atomic_load_explicit(&sign, memory_order_relaxed));
    left_empty();
}

/* ---- room ------------------------------------------------------------------------------------------- */

static void setup_full(void)
{
    start(true, 1, 8, 8);
    for (int i = 0; i < model_arg / 16; i++)
        CHECK(put(3, (uint64_t)i));
}

/* Who knows, by another way, that there is room, finds it. */
static void room_known(int id)
{
    unsigned spins = 0;
    if (id == 1) {
        CHECK(take());
        atomic_store_explicit(&sign, 1, memory_order_release);
    } else {
        while (!atomic_load_explicit(&sign, memory_order_acquire))
            nc_relax(&spins);
        CHECK(put(2, 0));
    }
}

/* There is room for all there will ever be: neither a stale head, as each producer leaves it for the others, nor a tail
 * that the head has gone past meanwhile makes a producer see a full ring. */
static void setup_stale(void)
{
    setup_full();
    for (int i = 0; i < model_arg / 16; i++)
        CHECK(take()); /* and head_seen stays where it was */
}

static void room_for_all(int id)
{
    if (id <= 2)
        CHECK(put(id, 0));
    else
        consume(2);
}

/* A full ring, one record freed, two producers at it: exactly one is told that it is full. */
static void one_place(int id)
{
    if (id == 1)
        CHECK(take());
    else if (put(id == 2 ? 1 : 2, 0))
        atomic_fetch_add_explicit(&sign, 1, memory_order_relaxed);
}

static void at_most_one(void)
{
    uint32_t went = atomic_load_explicit(&sign, memory_order_relaxed);
    CHECK(went <= 1);
    CHECK(nc_log_used(ring) == (uint64_t)model_arg - 16 + 16 * went);
}

/* ---- looking ---------------------------------------------------------------------------------------- */

/* A ring that always holds something never looks empty: not even to somebody who only looks. */
static void setup_one_in(void)
{
    start(true, 2, 8, 8);
    CHECK(put(1, 0));
}

static void setup_one_in_of_one(void)
{
    start(false, 2, 8, 8);
    CHECK(put(1, 0));
}

static void never_empty(int id)
{
    unsigned spins = 0;
    if (id == 1) {
        CHECK(put(1, 1));
        atomic_store_explicit(&sign, 1, memory_order_release);
    } else if (id == 2) {
        while (!atomic_load_explicit(&sign, memory_order_acquire))
            nc_relax(&spins);
        CHECK(take());
    } else {
        uint64_t used = nc_log_used(ring);
        CHECK(used >= 16 && used <= (uint64_t)model_arg);
    }
}

/* With many producers the mark of what is given back is cleared a moment before the head moves on. */
static void always_ready(int id)
{
    if (id <= 2) {
        never_empty(id);
        if (id == 2)
            atomic_store_explicit(&sign, 2, memory_order_release);
    } else if (!many || atomic_load_explicit(&sign, memory_order_acquire) == 2) {
        CHECK(nc_log_ready(ring));
    }
}

/* Once all is read, whoever knows of it sees nothing to look at: what lies at the head is no header. */
static void ready_no_more(int id)
{
    if (id == 1) {
        produce(1);
    } else if (id == 2) {
        consume(each);
        atomic_store_explicit(&sign, 1, memory_order_release);
    } else if (atomic_load_explicit(&sign, memory_order_acquire)) {
        CHECK(!nc_log_ready(ring));
        CHECK(nc_log_used(ring) == 0);
    }
}

/* Who dumps, knowing that two records were committed, sees both. */
static void dumped(int id)
{
    uint64_t pos = START, header = 0;
    unsigned spins = 0;
    if (id == 1) {
        produce(1);
        return;
    }
    while (!nc_log_dump_next(ring, &pos, &header) || header == 0)
        nc_relax(&spins);
    nc_record r = nc_log_record(ring, START, header);
    check_record(&r);
}

/* The same where the second record begins in what was a payload a lap ago, which looks like a record. */
static void setup_stale_payload(void)
{
    nc_record r;
    bool freed;
    start(false, 2, 8, 8);
    CHECK(claim(16, &r));
    write_record(&r, 3, 0, 16);
    commit(&r, 16);
    CHECK(peek(&r, &freed));
    give_back(&r, memory_order_release);
}

static void dumped_both(int id)
{
    uint64_t pos = START + nc_log_extent(16), header = 0;
    if (id == 1) {
        produce(1);
        return;
    }
    for (int i = 0; i < 2; i++) {
        uint64_t at = pos;
        unsigned spins = 0;
        while (!nc_log_dump_next(ring, &pos, &header) || header == 0)
            nc_relax(&spins);
        nc_record r = nc_log_record(ring, at, header);
        check_record(&r);
    }
}

/* One producer: who sees by the tail that there is something waits for it, and finds it. */
static void found(int id)
{
    nc_record r;
    if (id == 1) {
        produce(1);
        return;
    }
    for (uint64_t n = 0; n < each; n++) {
        unsigned spins = 0;
        while (!nc_log_ready(ring))
            nc_relax(&spins);
        CHECK(nc_log_find_spsc(ring, &r) == NC_OK);
        check_record(&r);
        give_back(&r, memory_order_release);
    }
}

/* ---- looking after raising a flag, publishing before reading it (W1..W3) ------------------------------------ */

static bool told(int of) { return atomic_load_explicit(&flag[of], memory_order_seq_cst); }
static void raise_flag(int of) { atomic_store_explicit(&flag[of], 1, memory_order_seq_cst); }
static void saw(bool it) { atomic_fetch_add_explicit(&sign, it, memory_order_relaxed); }
static void one_saw_the_other(void) { CHECK(atomic_load_explicit(&sign, memory_order_relaxed) > 0); }

/* model_arg: the ring; how a thing is published is the thread function's matter. */
static void publish(void (*what)(void), bool (*look)(void), int id)
{
    if (id == 1) {
        what();
        saw(told(0));
    } else {
        raise_flag(0);
        saw(look());
    }
}

static void commit_now(void)
{
    nc_record r;
    CHECK(claim(8, &r));
    write_record(&r, 1, 0, 8);
    if (many)
        nc_log_commit_mp(ring, &r, 8, memory_order_seq_cst);
    else
        nc_log_commit_sp(ring, &r, 8, memory_order_seq_cst);
}

static void abort_now(void)
{
    nc_record r;
    CHECK(claim(8, &r));
    nc_log_abort_mp(ring, &r, memory_order_seq_cst);
}

static void commit_quietly(void)
{
    CHECK(put(1, 0));
    if (!many) /* of many, the second claim would publish what came before it */
        CHECK(put(1, 1));
}

static void commit_batch(void)
{
    commit_quietly();
    nc_log_publish_batch(ring);
}

static void release_now(void)
{
    nc_record r;
    bool freed;
    CHECK(peek(&r, &freed));
    give_back(&r, memory_order_seq_cst);
}

static void skip_now(void)
{
    nc_record r;
    bool freed;
    CHECK(nc_log_peek_mpsc(ring, &r, &freed, memory_order_seq_cst) == NC_EMPTY && freed);
}

static void release_quietly(void) { CHECK(take()); }

static void release_batch(void)
{
    release_quietly();
    nc_log_release_batch(ring);
}

static bool ready(void) { return nc_log_ready(ring); }
static bool in_use(void) { return nc_log_used(ring) > 0; }
static bool room(void) { return nc_log_used(ring) < (uint64_t)model_arg; }

static void setup_full_guarded(void)
{
    setup_full();
    guard();
}

static void setup_skip(void)
{
    setup_many();
    for (int i = 0; i < model_arg / 16; i++)
        abort_now();
}

static void committed(int id) { publish(commit_now, ready, id); }
static void aborted(int id) { publish(abort_now, ready, id); }
static void committed_in_use(int id) { publish(commit_now, in_use, id); }
static void published(int id) { publish(commit_batch, ready, id); }
static void unpublished(int id) { publish(commit_quietly, ready, id); }
static void released(int id) { publish(release_now, room, id); }
static void skipped(int id) { publish(skip_now, room, id); }
static void head_released(int id) { publish(release_batch, room, id); }
static void head_unreleased(int id) { publish(release_quietly, room, id); }

/* Two producers, each with a batch that it publishes: who waits for both to be there sees both, or is told. */
static void two_published(int id)
{
    if (id <= 2) {
        CHECK(put(id, 0));
        nc_log_publish_batch(ring);
        saw(told(0));
    } else {
        raise_flag(0);
        saw(ready());
    }
}

#define MISSED "CHECK: atomic_load"
static const model models[] = {
    /* the quick ones first */
    {"a flag and a commit, one producer", setup, committed, one_saw_the_other, 2, 3, 3, 32, NULL},
    {"a flag and a commit, many", setup_many, committed, one_saw_the_other, 2, 3, 3, 32, NULL},
    {"a flag and a commit, in use, one", setup, committed_in_use, one_saw_the_other, 2, 3, 3, 32, NULL},
    {"a flag and a commit, in use, many", setup_many, committed_in_use, one_saw_the_other, 2, 3, 3, 32, NULL},
    {"a flag and an abort", setup_many, aborted, one_saw_the_other, 2, 3, 3, 32, NULL},
    {"a flag and a batch, one producer", setup, published, one_saw_the_other, 2, 3, 3, 32, NULL},
    {"a flag and a batch, many", setup_many, published, one_saw_the_other, 2, 3, 3, 32, NULL},
    {"a flag and two batches", setup_many, two_published, one_saw_the_other, 3, 3, 2, 32, NULL},
    {"a flag and a batch not published", setup, unpublished, one_saw_the_other, 2, 3, 1, 32, MISSED},
    {"the same, many", setup_many, unpublished, one_saw_the_other, 2, 3, 1, 32, MISSED},
    {"a flag and a release", setup_full, released, one_saw_the_other, 2, 3, 3, 32, NULL},
    {"a flag and a release, guarded", setup_full_guarded, released, one_saw_the_other, 2, 3, 3, 32, NULL},
    {"a flag and a skip", setup_skip, skipped, one_saw_the_other, 2, 3, 3, 32, NULL},
    {"a flag and a batch given back", setup_full, head_released, one_saw_the_other, 2, 3, 3, 32, NULL},
    {"the same, not released", setup_full, head_unreleased, one_saw_the_other, 2, 3, 1, 32, MISSED},
    {"used of what is never empty", setup_one_in, never_empty, NULL, 3, 3, 2, 32, NULL},
    {"ready, always", setup_one_in, always_ready, NULL, 3, 3, 2, 32, NULL},
    {"ready, always, one producer", setup_one_in_of_one, always_ready, NULL, 3, 3, 2, 32, NULL},
    {"ready no more", setup_many, ready_no_more, left_empty, 3, 2, 2, 16, NULL},
    {"ready no more, one producer", setup_long, ready_no_more, left_empty, 3, 2, 2, 32, NULL},
    {"found by the tail", setup_two, found, left_empty, 2, 3, 2, 32, NULL},
    {"dumped", setup, dumped, NULL, 2, 3, 2, 64, NULL},
    {"dumped, both", setup_stale_payload, dumped_both, NULL, 2, 3, 3, 32, NULL},
    {"dumped, many", setup_many, dumped, NULL, 2, 3, 2, 64, NULL},
    {"room that one knows of, one place", setup_full, room_known, NULL, 2, 3, 3, 16, NULL},
    {"room that one knows of, two", setup_full, room_known, NULL, 2, 3, 3, 32, NULL},
    {"room for all", setup_stale, room_for_all, left_empty, 3, 3, 1, 32, NULL},
    {"one place for two", setup_full, one_place, at_most_one, 3, 3, 2, 16, NULL},
    {"one place of two for two", setup_full, one_place, at_most_one, 3, 3, 2, 32, NULL},
    {"claims of many, guarded", setup_claims_guarded, ends_of_claims, all_that_was_committed, 2, 2, 1, 32, NULL},
    {"spsc, guarded", setup_guarded, spsc, left_empty, 2, 2, 2, 32, NULL},
    {"mpsc, guarded", setup_many_guarded, mpsc, left_empty, 3, 1, 1, 32, NULL},
    {"spsc, one at a time", setup, spsc, left_empty, 2, 3, 2, 16, NULL},
    {"spsc, two", setup, spsc, left_empty, 2, 3, 2, 32, NULL},
    {"spsc, longer than half", setup_long, spsc, left_empty, 2, 3, 2, 32, NULL},
    {"spsc, mixed", setup_mixed, spsc, left_empty, 2, 3, 2, 32, NULL},
    {"spsc, as one of many", setup_one_of_many, spsc, left_empty, 2, 2, 2, 32, NULL},
    {"mpsc, one at a time", setup_many, mpsc, left_empty, 3, 1, 1, 16, NULL},
    {"mpsc, two", setup_many, mpsc, left_empty, 3, 2, 1, 32, NULL},
    {"mpsc, longer than half", setup_many_long, mpsc, left_empty, 3, 2, 1, 32, NULL},
    {"mpsc, mixed", setup_many_mixed, mpsc, left_empty, 3, 1, 1, 32, NULL},
    {"mpsc, never cleared", setup_never_cleared, mpsc, NULL, 3, 2, 1, 32, "CHECK: r->size"},
    {"claims of many", setup_claims, ends_of_claims, all_that_was_committed, 2, 3, 1, 32, NULL},
    {"claims of one", setup_claims_of_one, ends_of_claims_of_one, all_that_was_committed, 2, 3, 2, 32, NULL},
};

int main(int argc, char **argv) { return model_main(models, sizeof models / sizeof models[0], argc, argv); }
