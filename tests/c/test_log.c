/* test_log.c: nc_log.h in one thread.  Hard states are reached by setting counters by hand and by acting as another
 * thread between two steps of a call. */
#include <stdint.h>
#include <string.h>

static void step(const char *name);
#define NC_STEP(name) step(name)
#include "nc_log_reader.h"

#include "test.h"
#include "twin.h"

static const uint64_t capacities[] = {64, 128, 256, 512, 4096};
static const uint64_t starts[] = {0, (UINT64_C(1) << 32) - 56, (UINT64_C(1) << 63) - 56, -(uint64_t)56};
enum { CAPACITIES = 5, STARTS = 4 };

static twin t;

/* ---- at a step -------------------------------------------------------------------------------------- */

static const char *stop_at;     /* the step at which, */
static void (*meanwhile)(void); /* this happens, once */
static int stops;

static void step(const char *name)
{
    if (stop_at == NULL || strcmp(name, stop_at) != 0)
        return;
    stop_at = NULL;
    stops++;
    meanwhile();
}

static void at(const char *name, void (*what)(void))
{
    stop_at = name;
    meanwhile = what;
    stops = 0;
}

/* ---- the ring ---------------------------------------------------------------------------------------- */

static void setup(uint64_t capacity, uint64_t start, bool many)
{
    CASE("capacity %" PRIu64 ", start %#" PRIx64 ", %s", capacity, start, many ? "claim_mp" : "claim_sp");
    if (t.log != NULL)
        twin_close(&t);
    twin_open(&t, capacity, start, many);
}

/* Run a test for each capacity, start, and kind of producer. */
static void for_all(void (*body)(void))
{
    for (int many = 0; many < 2; many++)
        for (int c = 0; c < CAPACITIES; c++)
            for (int s = 0; s < STARTS; s++) {
                setup(capacities[c], starts[s], many);
                body();
            }
}

static bool put(uint64_t n, uint8_t fill)
{
    if (!twin_claim(&t, n, fill))
        return false;
    twin_commit(&t, t.claims - 1, n, memory_order_seq_cst);
    return true;
}

static bool get(void)
{
    if (!twin_peek(&t, memory_order_seq_cst))
        return false;
    twin_release(&t, memory_order_seq_cst);
    return true;
}

static uint64_t head(void) { return atomic_load_explicit(&t.log->head, memory_order_relaxed); }
static uint64_t tail(void) { return atomic_load_explicit(&t.log->tail, memory_order_relaxed); }
static uint64_t word_at(uint64_t pos) { return atomic_load_explicit(nc_log_header(t.log, pos), memory_order_relaxed); }

/* ---- sizes ------------------------------------------------------------------------------------------ */

static void a_wish_is_rounded_up_to_a_power_of_two(void)
{
    CHECK_EQ(nc_log_round(0), 64);
    CHECK_EQ(nc_log_round(1), 64);
    CHECK_EQ(nc_log_round(64), 64);
    CHECK_EQ(nc_log_round(65), 128);
    CHECK_EQ(nc_log_round(4096), 4096);
    CHECK_EQ(nc_log_round((UINT64_C(1) << 59) + 1), UINT64_C(1) << 60);
    CHECK_EQ(nc_log_round(UINT64_C(1) << 60), UINT64_C(1) << 60);
    CHECK_EQ(nc_log_round((UINT64_C(1) << 60) + 1), 0);
    CHECK_EQ(nc_log_round(UINT64_MAX), 0);
}

static void an_extent_is_header_and_payload_padded_to_8(void)
{
    for (uint64_t n = 1; n < 100; n++) {
        CHECK_EQ(nc_log_extent(n) % 8, 0);
        CHECK(nc_log_extent(n) >= n + 8 && nc_log_extent(n) < n + 16);
    }
    CHECK_EQ(nc_log_extent((UINT64_C(1) << 60) - 8), UINT64_C(1) << 60);
}

static void each_side_has_a_cache_line_of_its_own(void)
{
    CHECK_EQ(_Alignof(nc_log), NC_CACHE_LINE);
    CHECK(offsetof(nc_log, capacity) + sizeof t.log->capacity <= offsetof(nc_log, tail));
    CHECK(offsetof(nc_log, head_seen) < offsetof(nc_log, head));
    CHECK(offsetof(nc_log, own_head) < offsetof(nc_log, words));
    CHECK_EQ(nc_log_block_size(64, false), 4 * NC_CACHE_LINE + 128);
    CHECK_EQ(nc_log_block_size(64, true), 4 * NC_CACHE_LINE + 128 + NC_CACHE_LINE);
    CHECK_EQ(nc_log_block_size(4096, true), 4 * NC_CACHE_LINE + 2 * 4096 + 512);
}

static void init_sets_every_field(void)
{
    for (int s = 0; s < STARTS; s++) {
        setup(128, 0, s % 2);
        memset((void *)t.log, 0xa5, offsetof(nc_log, words));
        nc_log_init(t.log, 128, s % 2, starts[s] + 5);
        CHECK_EQ(t.log->magic, NC_LOG_MAGIC);
        CHECK_EQ(t.log->layout, NC_LOG_LAYOUT);
        CHECK_EQ(t.log->many, s % 2);
        CHECK_EQ(nc_log_largest(t.log), 120);
        CHECK_EQ(head(), starts[s]);
        CHECK_EQ(tail(), starts[s]);
        CHECK_EQ(atomic_load_explicit(&t.log->head_seen, memory_order_relaxed), starts[s]);
        CHECK_EQ(t.log->own_head, starts[s]);
    }
}

static void new_one(void)
{
    twin_check(&t);
    CHECK(!get());
    twin_check(&t);
}
static void a_new_ring_is_empty(void) { for_all(new_one); }

/* ---- every size at every place ------------------------------------------------------------------------ */

static void round_trip(uint64_t n)
{
    CHECK(put(n, (uint8_t)n));
    CHECK_EQ(tail() - head(), nc_log_extent(n));
    CHECK(get());
    CHECK_EQ(head(), tail());
}

static void every_size_is_accepted_at_every_offset(void)
{
    for (int many = 0; many < 2; many++)
        for (uint64_t capacity = 64; capacity <= 512; capacity *= 2)
            for (uint64_t offset = 0; offset < capacity; offset += 8)
                for (uint64_t n = 1; n <= capacity - 8; n++) {
                    if (n == 1)
                        setup(capacity, starts[offset / 8 % STARTS] / capacity * capacity + offset, many);
                    else /* back to the offset, by hand: all is read, and no mark is left */
                        nc_log_init(t.log, capacity, many, t.head = t.tail = t.head - nc_log_extent(n - 1));
                    CHECK_EQ(tail() % capacity, offset);
                    round_trip(n);
                    if (many || n == capacity - 8)
                        twin_check(&t);
                }
}

/* Whatever lies in the ring already, a message goes in exactly when there is room for it; and both come out again. */
static void a_message_fits_exactly_when_there_is_room(void)
{
    for (int many = 0; many < 2; many++)
        for (uint64_t capacity = 64; capacity <= 128; capacity *= 2)
            for (uint64_t offset = 0; offset < capacity; offset += 8)
                for (uint64_t a = 1; a <= capacity - 8; a += a < 20 ? 1 : 5)
                    for (uint64_t b = 1; b <= capacity - 8; b += 3) {
                        setup(capacity, offset - capacity, many);
                        CHECK(put(a, 4));
                        bool fits = nc_log_extent(a) + nc_log_extent(b) <= capacity;
                        CHECK_EQ(put(b, 9), fits);
                        twin_check(&t);
                        CHECK(get());
                        CHECK_EQ(get(), fits);
                        CHECK(!get());
                    }
}

static void fill_and_drain(void)
{
    uint64_t capacity = t.log->capacity;
    for (uint64_t lap = 0; lap < 5; lap++) {
        uint64_t n = 0;
        CHECK(put(8, 3)); /* so that each lap begins elsewhere */
        while (put(8, (uint8_t)n))
            n++;
        CHECK_EQ(n, capacity / 16 - 1);
        CHECK_EQ(nc_log_used(t.log), capacity);
        CHECK(!put(1, 0));
        CHECK(!put(capacity - 8, 0));
        twin_check(&t);
        for (uint64_t i = 0; i <= n; i++)
            CHECK(get());
        CHECK(!get());
        CHECK(put(1 + lap * 8, 0) && get());
        twin_check(&t);
    }
}
static void a_ring_is_full_at_its_capacity_and_no_sooner(void) { for_all(fill_and_drain); }

static void largest_everywhere(void)
{
    uint64_t largest = nc_log_largest(t.log), step_by = t.log->capacity > 512 ? 1000 : 1;
    for (uint64_t i = 0; i < t.log->capacity / 8; i += step_by) {
        CHECK(put(largest, 0));
        CHECK_EQ(nc_log_used(t.log), t.log->capacity);
        CHECK(!put(1, 0));
        twin_check(&t);
        CHECK(get());
        CHECK(put(8 * (i % 4) + 1, 1) && get());
    }
}
static void the_largest_message_fits_wherever_the_last_one_ended(void) { for_all(largest_everywhere); }

/* ---- one producer ------------------------------------------------------------------------------------ */

static void look_empty(void)
{
    nc_record record;
    CHECK_EQ(nc_log_used(t.log), 0);
    CHECK(!nc_log_ready(t.log));
    if (t.many)
        CHECK_EQ(nc_log_peek_mpsc(t.log, &record, &(bool){false}, memory_order_seq_cst), NC_EMPTY);
    else
        CHECK_EQ(nc_log_find_spsc(t.log, &record), NC_EMPTY);
}

static void one_producer_shares_nothing_before_the_tail_moves(void)
{
    setup(64, -(uint64_t)56, false);
    CHECK(twin_claim(&t, 30, 0));
    look_empty();
    twin_check(&t);
    twin_commit(&t, 0, 30, memory_order_seq_cst);
    CHECK(get());
}

static void a_claim_of_one_producer_is_given_up_by_forgetting_it(void)
{
    setup(64, -(uint64_t)56, false);
    for (uint64_t n = 1; n <= 56; n++) {
        CHECK(twin_claim(&t, n, (uint8_t)n));
        twin_abort(&t, 0, memory_order_seq_cst);
        twin_check(&t);
    }
    CHECK(put(56, 0) && get());
}

static void what_one_producer_shrinks_is_not_taken_up(void)
{
    for (uint64_t offset = 0; offset < 64; offset += 8)
        for (uint64_t size = 1; size <= 56; size++)
            for (uint64_t n = 1; n <= size; n++) {
                setup(64, offset, false);
                CHECK(twin_claim(&t, size, (uint8_t)size));
                twin_commit(&t, 0, n, memory_order_seq_cst);
                CHECK_EQ(nc_log_used(t.log), nc_log_extent(n));
                twin_check(&t);
                CHECK(get() && !get());
            }
}

static void what_was_read_stays_as_it_is_but_for_the_header(void)
{
    for (int many = 0; many < 2; many++) {
        setup(64, 0, many);
        CHECK(put(56, 0));
        CHECK(get());
        CHECK_EQ(twin_word(&t, 0), 0);
        for (uint64_t i = 1; i < 8; i++)
            CHECK_EQ(twin_word(&t, i), UINT64_MAX);
        look_empty(); /* they lie behind the tail, and without a mark */
        CHECK(put(8, 0) && get() && !get());
    }
}

/* ---- many producers: claimed, committed, aborted, shrunk ------------------------------------------------- */

static void nothing_to_take_yet(void)
{
    twin_check(&t);
    CHECK(!nc_log_ready(t.log));
    CHECK(!get());
}

static void claims_in_the_way(void)
{
    CHECK(twin_claim(&t, 8, 0));
    CHECK(twin_claim(&t, 12, 4));
    CHECK_EQ(nc_log_used(t.log), 16 + 24);
    nothing_to_take_yet();
    twin_commit(&t, 1, 12, memory_order_seq_cst);
    nothing_to_take_yet();
    twin_commit(&t, 0, 8, memory_order_seq_cst);
    CHECK(nc_log_ready(t.log));
    CHECK(get() && get() && !get());
    twin_check(&t);
}

static void a_claim_holds_up_what_was_committed_behind_it(void)
{
    for (int s = 0; s < STARTS; s++)
        for (uint64_t offset = 0; offset < 64; offset += 8) {
            setup(64, starts[s] + offset, true);
            claims_in_the_way();
        }
}

static void a_mark_cleared_by_hand_is_the_end_of_what_is_there(void)
{
    setup(64, -(uint64_t)24, true);
    CHECK(put(8, 0) && put(8, 0));
    uint64_t pos = t.tail - 16, header = 1;
    atomic_store_explicit(nc_log_mark(t.log, pos), 0, memory_order_relaxed);
    t.entries[1].state = TWIN_CLAIMED;
    CHECK(get());
    CHECK(!nc_log_ready(t.log));
    CHECK(!get());
    CHECK(nc_log_dump_next(t.log, &pos, &header));
    CHECK_EQ(header, 0);
    CHECK_EQ(pos, t.tail - 16); /* no further */
    atomic_store_explicit(nc_log_mark(t.log, pos), 1, memory_order_relaxed);
    t.entries[0].state = TWIN_COMMITTED;
    CHECK(get());
}

static void an_aborted_claim_is_stepped_over_and_that_makes_room(void)
{
    for (uint64_t offset = 0; offset < 64; offset += 8)
        for (uint64_t n = 1; n <= 56; n++) {
            setup(64, offset, true);
            CHECK(twin_claim(&t, n, 0));
            twin_abort(&t, 0, memory_order_seq_cst);
            CHECK_EQ(word_at(t.head), NC_SKIP | nc_log_extent(n));
            CHECK(nc_log_ready(t.log)); /* there is something to look at */
            twin_check(&t);
            CHECK(!get()); /* peek tells that it freed: the twin compares */
            CHECK_EQ(nc_log_used(t.log), 0);
            twin_check(&t);
            CHECK(put(56, 0));
            CHECK(get());
        }
}

static void many_skips_in_a_row_are_one_look(void)
{
    setup(256, -(uint64_t)100, true);
    for (int i = 0; i < 5; i++)
        CHECK(twin_claim(&t, 8 + 8 * (uint64_t)i % 24, 0));
    while (t.claims > 0)
        twin_abort(&t, t.claims / 2, memory_order_seq_cst);
    CHECK(put(10, 1));
    twin_check(&t);
    CHECK(get());
    twin_check(&t);
    CHECK_EQ(nc_log_used(t.log), 0);
}

static void what_many_producers_shrink_becomes_a_skip(void)
{
    for (uint64_t offset = 0; offset < 64; offset += 8)
        for (uint64_t size = 1; size <= 56; size++)
            for (uint64_t n = 1; n <= size; n++) {
                setup(64, offset, true);
                CHECK(twin_claim(&t, size, (uint8_t)size));
                twin_commit(&t, 0, n, memory_order_seq_cst);
                uint64_t rest = nc_log_extent(size) - nc_log_extent(n);
                if (rest > 0)
                    CHECK_EQ(word_at(t.head + nc_log_extent(n)), NC_SKIP | rest);
                twin_check(&t);
                CHECK(get());
                CHECK_EQ(nc_log_used(t.log), rest);
                CHECK(!get());
                CHECK_EQ(nc_log_used(t.log), 0);
                twin_check(&t);
            }
}

/* The unused end of a record that ran into the spill: its skip lies at the start of the ring, as positions go on. */
static void the_skip_behind_a_shrunk_record_may_lie_past_the_end(void)
{
    setup(64, 48, true);
    CHECK(twin_claim(&t, 40, 0));
    twin_commit(&t, 0, 8, memory_order_seq_cst);
    CHECK_EQ(twin_word(&t, 0), NC_SKIP | 32);
    CHECK(put(8, 1));
    CHECK_EQ(twin_word(&t, 4), 8);
    twin_check(&t);
    CHECK(get() && get());
    twin_check(&t);
}

static void a_skip_may_end_where_the_ring_does(void)
{
    for (uint64_t n = 8; n <= 40; n += 8) {
        setup(64, 128 - nc_log_extent(n), true);
        CHECK(twin_claim(&t, n, 0));
        twin_abort(&t, 0, memory_order_seq_cst);
        CHECK_EQ(t.tail % 64, 0);
        CHECK(put(8, 1));
        twin_check(&t);
        CHECK(get());
        twin_check(&t);
    }
}

static void look_uncommitted(void)
{
    CHECK_EQ(nc_log_used(t.log), 40);
    CHECK(!nc_log_ready(t.log));
    CHECK_EQ(twin_mark(&t, t.head), 0);
    CHECK_EQ(word_at(t.head + 16), NC_SKIP | 24);
    CHECK_EQ(twin_mark(&t, t.head + 16), 1); /* before the mark that leads to it */
}

static void the_skip_is_there_before_the_mark_that_leads_to_it(void)
{
    setup(64, -(uint64_t)24, true);
    CHECK(twin_claim(&t, 32, 0));
    at("commit_mp: written, not committed", look_uncommitted);
    twin_commit(&t, 0, 5, memory_order_seq_cst);
    CHECK_EQ(stops, 1);
    CHECK(get());
}

/* ---- stale positions, and others between the steps ------------------------------------------------------- */

static uint64_t head_seen(void) { return atomic_load_explicit(&t.log->head_seen, memory_order_relaxed); }

static void the_head_is_only_read_when_the_stale_one_says_full(void)
{
    for (int many = 0; many < 2; many++) {
        setup(64, -(uint64_t)56, many);
        uint64_t first = t.head;
        CHECK(put(8, 0) && put(8, 0) && get());
        CHECK(put(24, 0)); /* there is room by what was seen */
        CHECK_EQ(head_seen(), first);
        CHECK(put(8, 0)); /* by what was seen there was not */
        CHECK_EQ(head_seen(), head());
        CHECK(!put(8, 0));
        while (get())
            ;
        twin_check(&t);
    }
}

/* One producer, in the middle of a commit: the tail has moved, and the header is not there yet. */
static nc_record header_to_come;

static void header_is_not_there(void)
{
    nc_record record = {0};
    CHECK_EQ(nc_log_peek_spsc(t.log, &record), NC_EMPTY);
    CHECK(nc_log_ready(t.log));
    CHECK_EQ(nc_log_used(t.log), nc_log_extent(8));
    atomic_store_explicit(nc_log_header_of(&header_to_come), 8, memory_order_release); /* and now it is */
    CHECK_EQ(nc_log_find_spsc(t.log, &record), NC_OK);
    CHECK_EQ(record.size, 8);
}

static void a_header_comes_after_the_tail(void)
{
    nc_record record;
    for (int s = 0; s < STARTS; s++) {
        setup(64, starts[s], false);
        if (t.many)
            CHECK_EQ(nc_log_peek_mpsc(t.log, &record, &(bool){false}, memory_order_seq_cst), NC_EMPTY);
        else
            CHECK_EQ(nc_log_find_spsc(t.log, &record), NC_EMPTY);
        CHECK_EQ(nc_log_claim_sp(t.log, 8, &header_to_come), NC_OK);
        at("commit_sp: tail moved, header not stored", header_is_not_there);
        nc_log_commit_sp(t.log, &header_to_come, 8, memory_order_seq_cst);
        CHECK_EQ(stops, 1);
    }
}

static void room_is_counted_right_from_any_stale_head(void)
{
    for (int s = 0; s < STARTS; s++)
        for (uint64_t laps = 0; laps < 4; laps++)
            for (uint64_t used = 0; used <= 64; used += 8)
                for (uint64_t extent = 16; extent <= 64; extent += 8) {
                    setup(64, starts[s], true);
                    atomic_store_explicit(&t.log->tail, starts[s] + used, memory_order_relaxed);
                    atomic_store_explicit(&t.log->head_seen, starts[s] - laps * 64, memory_order_relaxed);
                    CHECK_EQ(nc_log_fits(t.log, starts[s] + used, extent), used + extent <= 64);
                }
}

/* A producer that slept between its look at the tail and the one at the head: it sees a full ring, or claims by a swap
 * that fails. */
static void a_tail_that_the_head_went_past_is_never_room(void)
{
    for (int s = 0; s < STARTS; s++) {
        setup(64, starts[s], true);
        uint64_t stale = t.tail;
        for (int i = 0; i < 10; i++)
            CHECK(put(40, 0) && get());
        for (uint64_t extent = 16; extent <= 64; extent += 8)
            CHECK(!nc_log_fits(t.log, stale, extent));
        CHECK(put(56, 1) && get());
    }
}

static nc_record theirs;
static void another_claims_8(void)
{
    CHECK_EQ(nc_log_claim_mp(t.log, 8, &theirs), NC_OK);
    twin_push(&t, theirs, 16, TWIN_CLAIMED, 0);
}

static void a_producer_that_was_overtaken_claims_behind(void)
{
    for (int s = 0; s < STARTS; s++) {
        setup(64, starts[s], true);
        at("claim_mp: room seen, not claimed", another_claims_8);
        CHECK(twin_claim(&t, 40, 0)); /* 48 + 16 */
        CHECK_EQ(stops, 1);
        CHECK_EQ(t.claim[0].pos, theirs.pos + 16);
        nc_log_abort_mp(t.log, &theirs, memory_order_seq_cst);
        twin_at(&t, theirs.pos)->state = TWIN_SKIPPED;
        twin_commit(&t, 0, 40, memory_order_seq_cst);
        twin_check(&t);
        CHECK(get());
    }
}

static void a_producer_that_was_overtaken_finds_the_ring_full(void)
{
    nc_record record;
    setup(64, -(uint64_t)56, true);
    at("claim_mp: room seen, not claimed", another_claims_8);
    CHECK_EQ(nc_log_claim_mp(t.log, 56, &record), NC_FULL);
    CHECK_EQ(stops, 1);
    CHECK_EQ(nc_log_used(t.log), 16);
}

static void look_full(void)
{
    nc_record record;
    CHECK_EQ(nc_log_used(t.log), 64);
    CHECK_EQ(t.many ? nc_log_claim_mp(t.log, 1, &record) : nc_log_claim_sp(t.log, 1, &record), NC_FULL);
}

static void nothing_is_free_before_the_head_moves(void)
{
    for (int many = 0; many < 2; many++) {
        setup(64, -(uint64_t)40, many);
        CHECK(put(56, 0));
        CHECK(twin_peek(&t, memory_order_seq_cst));
        at("advance_sc: cleared, not given back", look_full);
        twin_release(&t, memory_order_seq_cst);
        CHECK_EQ(stops, 1);
        CHECK(put(56, 0));
    }
}

static void used_never_exceeds_the_capacity(void)
{
    setup(64, -(uint64_t)56, false);
    for (uint64_t ahead = 64; ahead < 300; ahead += 8) { /* as if the head had been read long ago */
        atomic_store_explicit(&t.log->tail, head() + ahead, memory_order_relaxed);
        CHECK_EQ(nc_log_used(t.log), 64);
    }
    atomic_store_explicit(&t.log->tail, head() + 40, memory_order_relaxed);
    CHECK_EQ(nc_log_used(t.log), 40);
}

static void ready_means_a_mark_at_the_head(void)
{
    for (int s = 0; s < STARTS; s++) {
        setup(64, starts[s], true);
        CHECK(!nc_log_ready(t.log));
        CHECK(twin_claim(&t, 8, 0));
        CHECK(!nc_log_ready(t.log)); /* claimed */
        CHECK(put(8, 0));
        CHECK(!nc_log_ready(t.log)); /* committed behind a claim */
        twin_abort(&t, 0, memory_order_seq_cst);
        CHECK(nc_log_ready(t.log)); /* a skip */
        CHECK(get());
        CHECK(!nc_log_ready(t.log));
        atomic_store_explicit(nc_log_mark(t.log, t.tail), 1, memory_order_relaxed);
        CHECK(!nc_log_ready(t.log)); /* behind the tail there is nothing, whatever lies there */
        atomic_store_explicit(nc_log_mark(t.log, t.tail), 0, memory_order_relaxed);
    }
}

/* ---- copies that a fork made in the middle of a step ---------------------------------------------------- */

static unsigned char *copy;
static uint64_t copied;

static void take_a_copy(void)
{
    copied = nc_log_block_size(t.log->capacity, t.many);
    copy = malloc(copied);
    memcpy(copy, (void *)t.log, copied);
}

/* Go on with the copy, as the child does: it holds what `t` says. */
static void go_on_with_the_copy(void)
{
    memcpy((void *)t.log, copy, copied);
    free(copy);
    nc_log_after_fork(t.log);
    twin_check(&t);
    while (get())
        ;
    twin_check(&t);
    CHECK_EQ(t.n, 0);
    for (uint64_t i = 0, n = nc_log_largest(t.log); i < 3; i++, n -= 8) /* what is cleared is cleared: all fits, and */
        CHECK(put(n, 1) && get() && !get()); /* nothing stale is taken for a record */
}

static void a_copy_in_the_middle_of_a_commit(void)
{
    static const char *const steps[] = {"commit_sp: tail moved, header not stored",
                                        "commit_sp: header stored, commit not over"};
    for (int s = 0; s < STARTS; s++)
        for (int step = 0; step < 2; step++)
            for (int before = 0; before < 3; before++)
                for (uint64_t n = 8; n <= 24; n += 16) { /* 24 fills the ring exactly, behind two of 8 */
                    setup(64, starts[s], false);
                    for (int i = 0; i < before; i++)
                        CHECK(put(8, 0));
                    CHECK(twin_claim(&t, n, 0));
                    twin original = t;
                    at(steps[step], take_a_copy);
                    twin_commit(&t, 0, n, memory_order_seq_cst);
                    CHECK_EQ(stops, 1);
                    if (step == 0) /* it was never sent */
                        t = original;
                    t.claims = 0;
                    go_on_with_the_copy();
                }
}

static void a_copy_in_the_middle_of_giving_back(void)
{
    static const char *const steps[] = {"advance_sc: decided, not cleared", "advance_sc: cleared, not given back"};
    for (int s = 0; s < STARTS; s++)
        for (int step = 0; step < 2; step++)
            for (int many = 0; many < 2; many++)
                for (int records = 1; records < 4; records++) {
                    setup(64, starts[s], many);
                    for (int i = 0; i < records; i++)
                        CHECK(put(i == 2 ? 24 : 8, 0));
                    CHECK(twin_peek(&t, memory_order_seq_cst));
                    at(steps[step], take_a_copy);
                    twin_release(&t, memory_order_seq_cst);
                    CHECK_EQ(stops, 1);
                    go_on_with_the_copy();
                }
}

static void a_copy_of_a_ring_at_rest_stays_as_it_is(void)
{
    for (int many = 0; many < 2; many++)
        for (int records = 0; records < 4; records++) {
            setup(64, -(uint64_t)56, many);
            for (int i = 0; i < records; i++)
                CHECK(put(8, 0));
            take_a_copy();
            go_on_with_the_copy();
        }
}

/* ---- stale bytes ------------------------------------------------------------------------------------ */

/* All 0xff, released; then a claim at every place in it is no record before it is committed. */
static void a_stale_payload_never_looks_like_a_header(void)
{
    for (uint64_t capacity = 64; capacity <= 512; capacity *= 2)
        for (uint64_t offset = 0; offset < capacity; offset += 8) {
            setup(capacity, offset - capacity, true);
            CHECK(put(capacity - 8, 0) && get());
            twin_check(&t);
            for (uint64_t n = 8; t.tail - t.head + 16 <= capacity; n = 8) {
                CHECK(twin_claim(&t, n, 0));
                CHECK_EQ(twin_mark(&t, t.claim[t.claims - 1].pos), 0);
                t.claims = 0; /* they stay open */
            }
            CHECK(!get());
        }
}

/* The same with one producer: what lies behind each record is no record, whatever lay there, and also where the ring
 * was exactly full, so that the next header is the one at the head. */
static void a_stale_payload_behind_one_producer_never_looks_like_a_header(void)
{
    for (uint64_t capacity = 64; capacity <= 256; capacity *= 2)
        for (uint64_t offset = 0; offset < capacity; offset += 8)
            for (uint64_t n = 8; n <= capacity - 8; n += 8) {
                setup(capacity, offset - capacity, false);
                CHECK(put(capacity - 8, 0) && get() && !get()); /* all 0xff, and the ring was full */
                for (int lap = 0; lap < 3; lap++) {
                    while (put(n, 0))
                        CHECK(nc_log_ready(t.log));
                    while (get())
                        twin_check(&t);
                    CHECK_EQ(t.n, 0);
                }
            }
}

/* A record is released between two others, at every place and every size: their headers, marks and payloads stay as
 * they are. */
static void releasing_leaves_the_neighbours_alone(void)
{
    for (uint64_t capacity = 128; capacity <= 512; capacity *= 2)
        for (uint64_t offset = 0; offset < capacity; offset += 8)
            for (uint64_t n = 8; n <= capacity - 40; n += 8) {
                setup(capacity, offset - capacity, true);
                CHECK(put(n, 0));
                CHECK(twin_claim(&t, 16, 1)); /* behind it; not committed before the release */
                twin_entry neighbour = t.entries[1];
                CHECK(get());
                CHECK_EQ(twin_mark(&t, neighbour.record.pos), 0);
                CHECK(twin_same(neighbour.record.data, 16, 1));
                twin_commit(&t, 0, 9, memory_order_seq_cst);
                CHECK(put(n, 4)); /* before it, or past the end, in what was freed */
                CHECK(twin_peek(&t, memory_order_seq_cst));
                twin_release(&t, memory_order_seq_cst);
                twin_check(&t);
                CHECK(get() && !get());
                twin_check(&t);
            }
}

/* A skip of one word is passed: its neighbour's first word is no payload of its own to be zeroed. */
static void a_skip_without_a_payload_is_passed_alone(void)
{
    for (uint64_t offset = 0; offset < 64; offset += 8) {
        setup(64, offset, true);
        CHECK(twin_claim(&t, 16, 0));
        twin_commit(&t, 0, 8, memory_order_seq_cst); /* a skip of 8 bytes behind it */
        CHECK(put(9, 0));
        CHECK(get());
        CHECK(twin_peek(&t, memory_order_seq_cst)); /* past the skip */
        CHECK_EQ(word_at(t.head), 9);
        twin_check(&t);
        CHECK(get() && !get());
    }
}

/* The largest record begins in the last word, runs over the spill and ends before it: its marks do not. */
static void marks_are_as_many_as_places_where_records_start(void)
{
    setup(512, 56, true);
    CHECK_EQ((uintptr_t)nc_log_mark(t.log, 0), (uintptr_t)t.log + sizeof(nc_log) + 1024);
    CHECK_EQ((uintptr_t)nc_log_mark(t.log, 504) + sizeof(nc_mark), (uintptr_t)t.log + nc_log_block_size(512, true));
    setup(64, 56, true);
    CHECK(put(56, 0));
    for (uint64_t i = 0; i < 64; i += 8)
        CHECK_EQ(twin_mark(&t, i), i == 56);
    CHECK(get());
    twin_check(&t);
}

/* ---- dumping ---------------------------------------------------------------------------------------- */

static void a_dump_tells_records_skips_and_the_first_claim(void)
{
    setup(128, -(uint64_t)40, true);
    CHECK(put(5, 0));
    CHECK(twin_claim(&t, 30, 0));
    twin_commit(&t, 0, 10, memory_order_seq_cst);
    CHECK(twin_claim(&t, 8, 0));
    twin_abort(&t, 0, memory_order_seq_cst);
    CHECK(twin_claim(&t, 8, 0));
    const uint64_t expected[] = {5, 10, NC_SKIP | 16, NC_SKIP | 16, 0, 0};
    uint64_t pos = head(), header = 0;
    for (int i = 0; i < 6; i++) {
        CHECK(nc_log_dump_next(t.log, &pos, &header));
        CHECK_EQ(header, expected[i]);
    }
    CHECK_EQ(pos, t.claim[0].pos);
}

/* ---- batches ---------------------------------------------------------------------------------------- */

static void batch(void)
{
    for (int lap = 0; lap < 20; lap++) {
        for (int i = 0; i < 3; i++) {
            CHECK(twin_claim(&t, 5, (uint8_t)i));
            twin_commit(&t, 0, 5, memory_order_release);
        }
        nc_log_publish_batch(t.log);
        twin_check(&t); /* it changes nothing */
        for (int i = 0; i < 3; i++) {
            CHECK(twin_peek(&t, memory_order_release));
            twin_release(&t, memory_order_release);
        }
        nc_log_release_batch(t.log);
        twin_check(&t);
    }
}
static void settling_a_batch_changes_no_position(void) { for_all(batch); }

/* ---- a block that is not trusted --------------------------------------------------------------------- */

static nc_log_reader reader;
static nc_result open_it(void) { return nc_log_open_sc(&reader, t.log, nc_log_block_size(t.log->capacity, t.many)); }

static void a_block_is_opened_only_if_it_is_one(void)
{
    static const uint64_t wrong[] = {0, 1, 32, 63, 65, 96, 256, UINT64_C(1) << 60, UINT64_C(1) << 63, UINT64_MAX};
    setup(128, -(uint64_t)56, true);
    uint64_t size = nc_log_block_size(128, true);
    CHECK_EQ(nc_log_open_sc(&reader, t.log, size), NC_OK);
    CHECK_EQ(reader.head, t.head);
    CHECK_EQ(nc_log_open_sc(&reader, t.log, size + 100), NC_OK);
    CHECK_EQ(nc_log_open_sc(&reader, t.log, size - 1), NC_BAD);
    CHECK_EQ(nc_log_open_sc(&reader, t.log, 0), NC_BAD);
    CHECK_EQ(nc_log_open_sc(&reader, (char *)t.log + 8, size), NC_BAD);
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        t.log->capacity = wrong[i];
        CHECK_EQ(nc_log_open_sc(&reader, t.log, size), NC_BAD);
    }
    t.log->capacity = 128;
    t.log->magic++;
    CHECK_EQ(open_it(), NC_BAD);
    t.log->magic--;
    t.log->layout++;
    CHECK_EQ(open_it(), NC_BAD);
    t.log->layout--;
    t.log->many = 2;
    CHECK_EQ(open_it(), NC_BAD);
    t.log->many = 0; /* then it has no marks, and needs less */
    CHECK_EQ(nc_log_open_sc(&reader, t.log, size - 16), NC_OK);
    t.log->many = 1;
    CHECK_EQ(nc_log_open_sc(&reader, t.log, size - 16), NC_BAD);
    atomic_store_explicit(&t.log->head, t.head + 4, memory_order_relaxed);
    CHECK_EQ(open_it(), NC_BAD);
}

/* The same as peek and release, for all that an honest producer does. */
static void guarded(void)
{
    nc_record record;
    bool freed;
    CHECK_EQ(open_it(), NC_OK);
    for (uint64_t n = 1; n <= nc_log_largest(t.log); n += n < 30 ? 1 : 13) {
        CHECK_EQ(nc_log_look_sc(&reader, &record, &freed, memory_order_seq_cst), NC_EMPTY);
        CHECK(put(n, (uint8_t)n));
        CHECK_EQ(nc_log_look_sc(&reader, &record, &freed, memory_order_seq_cst), NC_OK);
        CHECK(!freed && record.size == n && record.pos == t.head && twin_same(record.data, n, (uint8_t)n));
        nc_log_pass_sc(&reader, nc_log_extent(n), memory_order_seq_cst);
        twin_pop(&t);
        twin_check(&t);
    }
    if (!t.many)
        return;
    CHECK(twin_claim(&t, 8, 0) && twin_claim(&t, 24, 0));
    CHECK_EQ(nc_log_look_sc(&reader, &record, &freed, memory_order_seq_cst), NC_EMPTY);
    twin_commit(&t, 1, 8, memory_order_seq_cst);
    twin_abort(&t, 0, memory_order_seq_cst);
    CHECK_EQ(nc_log_look_sc(&reader, &record, &freed, memory_order_seq_cst), NC_OK);
    CHECK(freed && record.size == 8);
    nc_log_pass_sc(&reader, 16, memory_order_seq_cst);
    CHECK_EQ(nc_log_look_sc(&reader, &record, &freed, memory_order_seq_cst), NC_EMPTY);
    CHECK(freed);
    CHECK_EQ(head(), tail());
}
static void a_reader_that_trusts_nothing_reads_the_same(void) { for_all(guarded); }

static nc_result look(void)
{
    nc_record record;
    bool freed;
    return nc_log_look_sc(&reader, &record, &freed, memory_order_seq_cst);
}

static void what_cannot_be_is_told(void)
{
    static const uint64_t headers[] = {
        0,          57,          64,           1024,         NC_SKIP - 1,
        NC_SKIP,    NC_SKIP | 1, NC_SKIP | 12, NC_SKIP | 72, NC_SKIP | (NC_SKIP - 8),
        UINT64_MAX,
    };
    for (unsigned i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        setup(64, 48, true);
        CHECK(put(56, 0));
        CHECK_EQ(open_it(), NC_OK);
        CHECK_EQ(look(), NC_OK);
        atomic_store_explicit(nc_log_header(t.log, t.head), headers[i], memory_order_relaxed);
        CHECK_EQ(look(), NC_BAD);
    }
    setup(64, 48, true);
    CHECK(put(8, 0));
    CHECK_EQ(open_it(), NC_OK);
    atomic_store_explicit(nc_log_header(t.log, t.head), 9, memory_order_relaxed); /* past the tail */
    CHECK_EQ(look(), NC_BAD);
    atomic_store_explicit(&t.log->tail, t.head + 72, memory_order_relaxed); /* more than there is room for */
    CHECK_EQ(look(), NC_BAD);
    atomic_store_explicit(&t.log->tail, t.head - 8, memory_order_relaxed); /* before the head */
    CHECK_EQ(look(), NC_BAD);
    uint64_t header, extent; /* nor from a position that the tail has gone back behind */
    atomic_store_explicit(&t.log->tail, t.head + 8, memory_order_relaxed);
    CHECK_EQ(nc_log_look_at(&reader, t.head + 16, &header, &extent), NC_BAD);
}

/* Skips that somebody puts in as fast as they are passed: the look ends all the same. */
static void put_in_another_skip(void)
{
    uint64_t pos = reader.head;
    atomic_store_explicit(nc_log_header(t.log, pos), NC_SKIP | 8, memory_order_relaxed);
    atomic_store_explicit(nc_log_mark(t.log, pos), 1, memory_order_relaxed);
    atomic_store_explicit(&t.log->tail, pos + 64, memory_order_relaxed);
    if (++stops < 1000)
        stop_at = "look_sc: passed a skip";
}

static void a_look_ends_however_many_skips_there_are(void)
{
    setup(64, 48, true);
    CHECK(twin_claim(&t, 8, 0));
    twin_abort(&t, 0, memory_order_seq_cst);
    CHECK_EQ(open_it(), NC_OK);
    at("look_sc: passed a skip", put_in_another_skip);
    CHECK_EQ(look(), NC_BAD);
    CHECK(stops > 8 && stops < 30);
    stop_at = NULL;
}

static void what_the_block_says_later_of_its_size_is_nothing_to_the_reader(void)
{
    setup(64, 48, true);
    CHECK(put(40, 5));
    CHECK_EQ(open_it(), NC_OK);
    t.log->capacity = UINT64_C(1) << 40;
    t.log->many = 0;
    atomic_store_explicit(&t.log->head, 0, memory_order_relaxed);
    CHECK_EQ(look(), NC_OK);
    nc_log_pass_sc(&reader, 48, memory_order_seq_cst);
    CHECK_EQ(head(), 96);
    CHECK_EQ(look(), NC_EMPTY);
    t.log->capacity = 64;
    t.log->many = 1;
}

/* ---- any mix ---------------------------------------------------------------------------------------- */

static void a_random_mix(void)
{
    uint64_t seed = test_environment("SEED", 1) + t.log->capacity + t.head + t.many, most = nc_log_largest(t.log);
    int open = t.many ? TWIN_CLAIMS : 1;
    for (int i = 0; i < 3000; i++) {
        uint64_t r = test_random(&seed), n = 1 + test_random(&seed) % (r % 8 == 0 ? most : most / 4);
        int which = t.claims > 0 ? (int)(test_random(&seed) % (uint64_t)t.claims) : 0;
        if (r / 8 % 5 < 2 && t.claims < open)
            twin_claim(&t, n, (uint8_t)test_random(&seed));
        else if (r / 8 % 5 == 2 && t.claims > 0)
            twin_abort(&t, which, memory_order_seq_cst);
        else if (r / 8 % 5 < 4 && t.claims > 0)
            twin_commit(&t, which, 1 + n % t.claim[which].size, memory_order_seq_cst);
        else if (t.shown)
            twin_release(&t, memory_order_seq_cst);
        else
            twin_peek(&t, memory_order_seq_cst);
        if (t.log->capacity <= 512 || i % 50 == 0)
            twin_check(&t);
    }
}
static void any_mix_of_operations(void) { for_all(a_random_mix); }

int main(void)
{
    RUN(a_wish_is_rounded_up_to_a_power_of_two);
    RUN(an_extent_is_header_and_payload_padded_to_8);
    RUN(each_side_has_a_cache_line_of_its_own);
    RUN(init_sets_every_field);
    RUN(a_new_ring_is_empty);
    RUN(every_size_is_accepted_at_every_offset);
    RUN(a_message_fits_exactly_when_there_is_room);
    RUN(a_ring_is_full_at_its_capacity_and_no_sooner);
    RUN(the_largest_message_fits_wherever_the_last_one_ended);
    RUN(one_producer_shares_nothing_before_the_tail_moves);
    RUN(a_claim_of_one_producer_is_given_up_by_forgetting_it);
    RUN(what_one_producer_shrinks_is_not_taken_up);
    RUN(what_was_read_stays_as_it_is_but_for_the_header);
    RUN(a_claim_holds_up_what_was_committed_behind_it);
    RUN(a_mark_cleared_by_hand_is_the_end_of_what_is_there);
    RUN(an_aborted_claim_is_stepped_over_and_that_makes_room);
    RUN(many_skips_in_a_row_are_one_look);
    RUN(what_many_producers_shrink_becomes_a_skip);
    RUN(the_skip_behind_a_shrunk_record_may_lie_past_the_end);
    RUN(a_skip_may_end_where_the_ring_does);
    RUN(the_skip_is_there_before_the_mark_that_leads_to_it);
    RUN(the_head_is_only_read_when_the_stale_one_says_full);
    RUN(a_header_comes_after_the_tail);
    RUN(room_is_counted_right_from_any_stale_head);
    RUN(a_tail_that_the_head_went_past_is_never_room);
    RUN(a_producer_that_was_overtaken_claims_behind);
    RUN(a_producer_that_was_overtaken_finds_the_ring_full);
    RUN(nothing_is_free_before_the_head_moves);
    RUN(used_never_exceeds_the_capacity);
    RUN(ready_means_a_mark_at_the_head);
    RUN(a_copy_in_the_middle_of_a_commit);
    RUN(a_copy_in_the_middle_of_giving_back);
    RUN(a_copy_of_a_ring_at_rest_stays_as_it_is);
    RUN(a_stale_payload_never_looks_like_a_header);
    RUN(a_stale_payload_behind_one_producer_never_looks_like_a_header);
    RUN(releasing_leaves_the_neighbours_alone);
    RUN(a_skip_without_a_payload_is_passed_alone);
    RUN(marks_are_as_many_as_places_where_records_start);
    RUN(a_dump_tells_records_skips_and_the_first_claim);
    RUN(settling_a_batch_changes_no_position);
    RUN(a_block_is_opened_only_if_it_is_one);
    RUN(a_reader_that_trusts_nothing_reads_the_same);
    RUN(what_cannot_be_is_told);
    RUN(a_look_ends_however_many_skips_there_are);
    RUN(what_the_block_says_later_of_its_size_is_nothing_to_the_reader);
    RUN(any_mix_of_operations);
    twin_close(&t);
    return test_report();
}
