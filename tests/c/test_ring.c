/* test_ring.c: nc_ring.h in one thread.  Hard states are reached by setting counters by hand and by acting as another
 * thread between two steps of a call. */
#include <stdint.h>
#include <string.h>

static void step(const char *name);
#define NC_STEP(name) step(name)
#define sched_yield yield_instead /* what a consumer does that waits for a claimed slot */
#include "nc_ring.h"

#include "test.h"

static const uint64_t capacities[] = {1, 2, 3, 7, 8, 64, 4096};
static const uint64_t starts[] = {0, (UINT64_C(1) << 32) - 50, (UINT64_C(1) << 63) - 50, -(uint64_t)50};
enum { CAPACITIES = 7, STARTS = 4, MOST = 4096 };

static nc_ring ring;
static void *_Atomic slots[MOST];
static char values[3 * MOST]; /* their addresses are what is sent */
static bool many;

/* ---- at a step -------------------------------------------------------------------------------------- */

static const char *stop_at;      /* the step at which, */
static void (*meanwhile)(void);  /* this happens, once */
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

static void (*on_yield)(void);
int yield_instead(void)
{
    if (on_yield != NULL)
        on_yield();
    return 0;
}

/* ---- the ring and its invariants --------------------------------------------------------------------- */

static uint64_t head(void) { return atomic_load_explicit(&ring.head, memory_order_relaxed); }
static uint64_t tail(void) { return atomic_load_explicit(&ring.tail, memory_order_relaxed); }
static void *slot(uint64_t i) { return atomic_load_explicit(&slots[i], memory_order_relaxed); }

static void setup(uint64_t capacity, uint64_t start)
{
    CASE("capacity %" PRIu64 ", start %#" PRIx64 ", %s", capacity, start, many ? "push_mp" : "push_sp");
    memset(&ring, 0xa5, sizeof ring); /* init has to set every field */
    for (uint64_t i = 0; i < capacity; i++)
        atomic_store_explicit(&slots[i], NULL, memory_order_relaxed);
    nc_ring_init(&ring, slots, capacity, start);
}

static uint64_t push(void *const *v, uint64_t n)
{
    return many ? nc_ring_push_mp(&ring, v, n) : nc_ring_push_sp(&ring, v, n, memory_order_seq_cst);
}

static uint64_t pop(void **v, uint64_t n)
{
    return many ? nc_ring_pop_mpsc(&ring, v, n, memory_order_seq_cst)
                : nc_ring_pop_spsc(&ring, v, n, memory_order_seq_cst);
}

static uint64_t push_numbers(uint64_t from, uint64_t n)
{
    void *v[MOST + 8];
    for (uint64_t i = 0; i < n; i++)
        v[i] = &values[(from + i) % sizeof values];
    return push(v, n);
}

/* Pop n and check that they are the numbers from `from`. */
static uint64_t pop_numbers(uint64_t from, uint64_t n)
{
    void *v[MOST + 8];
    n = pop(v, n);
    for (uint64_t i = 0; i < n; i++)
        CHECK(v[i] == &values[(from + i) % sizeof values]);
    return n;
}

/* What the head of nc_ring.h says, with `from` the number that is popped next and `to` the one pushed next. */
static void check_invariants(uint64_t from, uint64_t to)
{
    uint64_t len = to - from, h = nc_ring_index(&ring, head()), t = nc_ring_index(&ring, tail());
    CHECK_EQ(nc_ring_len(&ring), len);
    CHECK_EQ(nc_ring_distance(&ring, head(), tail()), len);
    CHECK_EQ(nc_ring_advance(&ring, head(), len), tail());
    CHECK((tail() == head()) == (len == 0));
    CHECK((tail() == head() + ring.span) == (len == ring.capacity));
    CHECK(tail() - head() <= ring.span);
    CHECK(h < ring.capacity && t < ring.capacity);
    uint64_t head_seen = atomic_load_explicit(&ring.head_seen, memory_order_relaxed);
    CHECK(head() - head_seen <= ring.span * 2);
    CHECK(nc_ring_distance(&ring, head(), ring.tail_seen) <= len);
    CHECK_EQ(ring.own_head, head());
    CHECK(many || ring.own_tail == tail());
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < ring.capacity; i++) {
        uint64_t nth = i >= h ? i - h : i + ring.capacity - h; /* the slot is the nth from the head */
        void *there = nth < len ? &values[(from + nth) % sizeof values] : NULL;
        wrong += slot(i) != there && (many || there != NULL); /* one producer: other slots are stale */
    }
    CHECK_EQ(wrong, 0);
}

/* Run a test for each capacity, start, and way to push. */
static void for_all(void (*body)(uint64_t capacity, uint64_t start))
{
    for (int m = 0; m < 2; m++)
        for (int c = 0; c < CAPACITIES; c++)
            for (int s = 0; s < STARTS; s++) {
                many = m;
                setup(capacities[c], starts[s]);
                body(capacities[c], starts[s]);
            }
}

/* ---- positions -------------------------------------------------------------------------------------- */

static void powers_and_alignment(void)
{
    CHECK_EQ(nc_pow2_ceil(1), 1);
    CHECK_EQ(nc_pow2_ceil(2), 2);
    CHECK_EQ(nc_pow2_ceil(3), 4);
    CHECK_EQ(nc_pow2_ceil(4096), 4096);
    CHECK_EQ(nc_pow2_ceil(4097), 8192);
    CHECK_EQ(nc_pow2_ceil((UINT64_C(1) << 62) + 1), UINT64_C(1) << 63);
    CHECK_EQ(nc_pow2_ceil(UINT64_C(1) << 63), UINT64_C(1) << 63);
    CHECK_EQ(nc_align_up(0, 64), 0);
    CHECK_EQ(nc_align_up(1, 64), 64);
    CHECK_EQ(nc_align_up(64, 64), 64);
    CHECK_EQ(nc_align_up(65, 8), 72);
}

static void each_side_has_a_cache_line_of_its_own(void)
{
    if (NC_RING_LINE != NC_CACHE_LINE) {
        CHECK_EQ(sizeof(nc_ring), 9 * sizeof(uint64_t));
        return;
    }
    CHECK_EQ(_Alignof(nc_ring), NC_CACHE_LINE);
    CHECK(offsetof(nc_ring, slots) + sizeof ring.slots <= NC_CACHE_LINE);
    CHECK_EQ(offsetof(nc_ring, tail), NC_CACHE_LINE);
    CHECK_EQ(offsetof(nc_ring, own_tail), 2 * NC_CACHE_LINE);
    CHECK_EQ(offsetof(nc_ring, head), 3 * NC_CACHE_LINE);
    CHECK_EQ(offsetof(nc_ring, own_head), 4 * NC_CACHE_LINE);
    CHECK(offsetof(nc_ring, head_seen) < offsetof(nc_ring, head));
    CHECK(offsetof(nc_ring, tail_seen) + sizeof ring.tail_seen <= sizeof(nc_ring));
    CHECK_EQ(sizeof(nc_ring), 5 * NC_CACHE_LINE);
}

static void a_position_advances_like_a_count(void)
{
    for (uint64_t capacity = 1; capacity <= 17; capacity++)
        for (int s = 0; s < STARTS; s++) {
            setup(capacity, starts[s]);
            uint64_t pos = head(), first = pos;
            for (uint64_t k = 0; k < 70; k++) {
                CHECK_EQ(nc_ring_index(&ring, pos), k % capacity);
                CHECK_EQ(nc_ring_advance(&ring, pos, 0), pos);
                CHECK_EQ(nc_ring_next(&ring, pos), nc_ring_advance(&ring, pos, 1));
                uint64_t far = pos;
                for (uint64_t n = 0; n <= capacity; n++) {
                    CHECK_EQ(nc_ring_advance(&ring, pos, n), far);
                    CHECK_EQ(nc_ring_distance(&ring, pos, far), n);
                    CHECK_EQ(far - pos <= ring.span, true);
                    far = nc_ring_advance(&ring, far, 1);
                }
                CHECK(far - pos > ring.span); /* more than a ring: can only be a stale position */
                if (first + 70 * ring.span > first) /* until the laps wrap */
                    CHECK_EQ(nc_ring_ordinal(&ring, pos), nc_ring_ordinal(&ring, first) + k);
                pos = nc_ring_advance(&ring, pos, 1);
            }
        }
}

static void ordinals_count_from_zero(void)
{
    setup(3, 0);
    for (uint64_t i = 0; i < 100; i++) {
        CHECK_EQ(nc_ring_ordinal(&ring, tail()), i);
        CHECK_EQ(push_numbers(i, 1), 1);
        CHECK_EQ(nc_ring_ordinal(&ring, head()), i);
        CHECK_EQ(pop_numbers(i, 1), 1);
    }
}

/* ---- push and pop ----------------------------------------------------------------------------------- */

static void new_one(uint64_t capacity, uint64_t start)
{
    (void)start;
    void *v;
    CHECK_EQ(ring.capacity, capacity);
    check_invariants(0, 0);
    CHECK_EQ(pop(&v, 1), 0);
    CHECK_EQ(pop(&v, 0), 0);
    CHECK_EQ(push(NULL, 0), 0);
    check_invariants(0, 0);
}
static void a_new_ring_is_empty(void) { for_all(new_one); }

static void fill_and_drain(uint64_t capacity, uint64_t start)
{
    (void)start;
    uint64_t from = 0, laps = capacity < 100 ? 60 / capacity + 3 : 3; /* past the end of the counters */
    for (uint64_t lap = 0; lap < laps; lap++) {
        for (uint64_t i = 0; i < capacity; i++)
            CHECK_EQ(push_numbers(from + i, 1), 1);
        check_invariants(from, from + capacity);
        CHECK_EQ(push_numbers(from + capacity, 1), 0);
        CHECK_EQ(push_numbers(from + capacity, 2), 0);
        check_invariants(from, from + capacity);
        for (uint64_t i = 0; i < capacity; i++)
            CHECK_EQ(pop_numbers(from + i, 1), 1);
        from += capacity;
        check_invariants(from, from);
        CHECK_EQ(pop_numbers(from, 1), 0);
    }
}
static void a_ring_holds_exactly_its_capacity(void) { for_all(fill_and_drain); }

/* From every index: a batch goes in and out as far as there is room and items. */
static void batches(uint64_t capacity, uint64_t start)
{
    (void)start;
    uint64_t from = 0, stride = capacity > 64 ? capacity / 3 : capacity > 8 ? 7 : 1;
    for (uint64_t at_index = 0; at_index < 2 * capacity; at_index += stride) {
        CHECK_EQ(push_numbers(from, capacity + 3), capacity);
        check_invariants(from, from + capacity);
        uint64_t some = capacity / 2 + 1;
        CHECK_EQ(pop_numbers(from, some), some);
        check_invariants(from + some, from + capacity);
        CHECK_EQ(push_numbers(from + capacity, some + 1), some);
        check_invariants(from + some, from + capacity + some);
        CHECK_EQ(pop_numbers(from + some, MOST + 1), capacity);
        from += capacity + some;
        check_invariants(from, from);
        for (uint64_t i = 0; i < stride; i++) {
            CHECK_EQ(push_numbers(from, 1), 1);
            CHECK_EQ(pop_numbers(from++, 1), 1);
        }
    }
}
static void a_batch_takes_what_fits(void) { for_all(batches); }

/* The forms for one value do what the others do with one. */
static bool push_one(uint64_t number)
{
    void *value = &values[number % sizeof values];
    return many ? nc_ring_push_one_mp(&ring, value) : nc_ring_push_one_sp(&ring, value, memory_order_seq_cst);
}

static void *pop_one(void)
{
    return many ? nc_ring_pop_one_mpsc(&ring, memory_order_seq_cst) : nc_ring_pop_one_spsc(&ring, memory_order_seq_cst);
}

static void one_by_one(uint64_t capacity, uint64_t start)
{
    (void)start;
    uint64_t laps = capacity < 100 ? 60 / capacity + 3 : 2, from = 0;
    for (uint64_t lap = 0; lap < laps; lap++) {
        for (uint64_t i = 0; i < capacity; i++)
            CHECK(push_one(from + i));
        CHECK(!push_one(0));
        check_invariants(from, from + capacity);
        for (uint64_t i = 0; i < capacity; i++)
            CHECK(pop_one() == &values[(from + i) % sizeof values]);
        CHECK(pop_one() == NULL);
        from += capacity;
        check_invariants(from, from);
    }
}
static void one_by_one_is_like_a_batch_of_one(void) { for_all(one_by_one); }

static void around_the_end(uint64_t capacity, uint64_t start)
{
    (void)start;
    setup(capacity, -ring.span); /* the last lap there is */
    for (uint64_t i = 0; i < 3 * capacity; i++) {
        if (capacity <= 64 || i % 1000 == 0)
            check_invariants(i, i);
        CHECK_EQ(push_numbers(i, 1), 1);
        CHECK_EQ(nc_ring_len(&ring), 1);
        CHECK_EQ(pop_numbers(i, 1), 1);
    }
    CHECK(head() < ring.span * 3);
}
static void the_counters_wrap(void) { for_all(around_the_end); }

/* Any mix of batches, against a plain count of what went in and out. */
static void a_random_mix(uint64_t capacity, uint64_t start)
{
    uint64_t seed = test_environment("SEED", 1) + capacity * 7 + start + many, from = 0, to = 0;
    uint64_t rounds = capacity > 64 ? 40 : 2000;
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t n = test_random(&seed) % (capacity + 3), room = capacity - (to - from), there = to - from;
        if (test_random(&seed) % 2) {
            CHECK_EQ(push_numbers(to, n), n < room ? n : room);
            to += n < room ? n : room;
        } else {
            CHECK_EQ(pop_numbers(from, n), n < there ? n : there);
            from += n < there ? n : there;
        }
        check_invariants(from, to);
    }
}
static void any_mix_of_batches(void) { for_all(a_random_mix); }

/* ---- stale positions -------------------------------------------------------------------------------- */

static void the_head_is_only_read_when_the_stale_one_says_full(void)
{
    for (int m = 0; m < 2; m++) {
        many = m;
        setup(3, -(uint64_t)50);
        uint64_t first = head();
        CHECK_EQ(push_numbers(0, 2), 2);
        CHECK_EQ(pop_numbers(0, 2), 2);
        CHECK_EQ(push_numbers(2, 1), 1); /* there is room by what was seen */
        CHECK_EQ(atomic_load_explicit(&ring.head_seen, memory_order_relaxed), first);
        CHECK_EQ(push_numbers(3, 2), 2); /* by what was seen there was not */
        CHECK_EQ(atomic_load_explicit(&ring.head_seen, memory_order_relaxed), head());
        CHECK_EQ(push_numbers(5, 1), 0);
        CHECK_EQ(pop_numbers(2, 3), 3);
    }
}

static void a_stale_head_more_than_a_lap_old_is_no_room(void)
{
    for (int m = 0; m < 2; m++)
        for (int s = 0; s < STARTS; s++) {
            many = m;
            setup(3, starts[s]);
            for (uint64_t i = 0; i < 20; i++) {
                atomic_store_explicit(&ring.head_seen, starts[s] & ~(ring.span - 1), memory_order_relaxed);
                CHECK_EQ(push_numbers(i, 1), 1);
                CHECK_EQ(pop_numbers(i, 1), 1);
            }
        }
}

static void the_tail_is_only_read_when_the_stale_one_says_too_few(void)
{
    many = false;
    setup(7, 0);
    CHECK_EQ(push_numbers(0, 3), 3);
    CHECK_EQ(pop_numbers(0, 1), 1);
    uint64_t seen = ring.tail_seen;
    CHECK_EQ(push_numbers(3, 2), 2);
    CHECK_EQ(pop_numbers(1, 2), 2);
    CHECK_EQ(ring.tail_seen, seen);
    CHECK_EQ(pop_numbers(3, 2), 2);
    CHECK_EQ(ring.tail_seen, tail());
}

static void len_never_exceeds_the_capacity(void)
{
    setup(3, -(uint64_t)50);
    atomic_store_explicit(&ring.tail, head() + 3 * ring.span,
                          memory_order_relaxed); /* as if head had been read long ago */
    CHECK_EQ(nc_ring_len(&ring), 3);
    atomic_store_explicit(&ring.tail, head() + ring.span + 1, memory_order_relaxed);
    CHECK_EQ(nc_ring_len(&ring), 3);
    atomic_store_explicit(&ring.tail, head() + ring.span, memory_order_relaxed);
    CHECK_EQ(nc_ring_len(&ring), 3);
    atomic_store_explicit(&ring.tail, head() + 2, memory_order_relaxed);
    CHECK_EQ(nc_ring_len(&ring), 2);
}

/* ---- between the steps ------------------------------------------------------------------------------- */

static void look_empty(void)
{
    void *v;
    CHECK_EQ(nc_ring_len(&ring), 0);
    CHECK_EQ(pop(&v, 1), 0);
}

static void nothing_is_there_before_the_tail_moves(void)
{
    many = false;
    setup(3, 0);
    at("push_sp: stored, not published", look_empty);
    CHECK_EQ(push_numbers(0, 2), 2);
    CHECK_EQ(stops, 1);
    CHECK_EQ(pop_numbers(0, 2), 2);
}

static void look_full(void)
{
    void *v = &values[100];
    CHECK_EQ(nc_ring_len(&ring), ring.capacity);
    CHECK_EQ(push(&v, 1), 0);
}

static void nothing_is_free_before_the_head_moves(void)
{
    for (int m = 0; m < 2; m++) {
        many = m;
        setup(3, -(uint64_t)50);
        CHECK_EQ(push_numbers(0, 3), 3);
        at("pop: taken, not freed", look_full);
        CHECK_EQ(pop_numbers(0, 2), 2);
        CHECK_EQ(stops, 1);
        CHECK_EQ(pop_numbers(2, 2), 1);
        check_invariants(3, 3);
    }
}

static void another_pushes_one(void) { CHECK_EQ(push_numbers(50, 1), 1); }
static void another_fills_it(void) { CHECK_EQ(push_numbers(50, 3), 3); }

static void a_producer_that_was_overtaken_claims_what_is_left(void)
{
    many = true;
    setup(3, -(uint64_t)50);
    at("push_mp: room seen, not claimed", another_pushes_one);
    CHECK_EQ(push_numbers(0, 3), 2);
    CHECK_EQ(stops, 1);
    CHECK_EQ(pop_numbers(50, 1), 1);
    CHECK_EQ(pop_numbers(0, 2), 2);
    at("push_mp: room seen, not claimed", another_fills_it);
    CHECK_EQ(push_numbers(0, 1), 0);
    CHECK_EQ(pop_numbers(50, 3), 3);
    check_invariants(0, 0);
}

static int moves;
static void another_pushes_and_more(void)
{
    CHECK_EQ(push_numbers(50, 1), 1);
    if (++moves < 3)
        at("push_mp: room seen, not claimed", another_pushes_and_more);
}

/* A producer that loses looks at the slot: full of what others stored it pauses longer each time, and then looks again
 * all the same; an empty one it claims at once. */
static void a_producer_that_loses_again_and_again_gets_its_turn(void)
{
    for (int one = 0; one < 2; one++) {
        many = true;
        setup(8, -(uint64_t)50);
        moves = 0;
        at("push_mp: room seen, not claimed", another_pushes_and_more);
        CHECK(one ? push_one(0) : push_numbers(0, 1) == 1);
        CHECK_EQ(moves, 3);
        CHECK_EQ(nc_ring_len(&ring), 4);
        CHECK_EQ(pop_numbers(50, 1) + pop_numbers(50, 1) + pop_numbers(50, 1) + pop_numbers(0, 1), 4);
        check_invariants(0, 0);
    }
}

static void a_look_at_a_full_ring_ends(void)
{
    many = true;
    for (uint64_t capacity = 1; capacity < 9; capacity++) {
        unsigned pauses = NC_PAUSES_LEAST;
        setup(capacity, -(uint64_t)50);
        CHECK_EQ(push_numbers(0, capacity), capacity);
        CHECK_EQ(nc_ring_lost(&ring, &pauses), tail());
        CHECK_EQ(pauses, NC_PAUSES_MOST);
        CHECK_EQ(pop_numbers(0, capacity), capacity);
        pauses = NC_PAUSES_LEAST;
        CHECK_EQ(nc_ring_lost(&ring, &pauses), tail());
        CHECK_EQ(pauses, 2 * NC_PAUSES_LEAST); /* a look at an empty slot is enough */
    }
}

/* Claimed and not stored: counted, and in the way of what was stored behind it. */
static void behind_a_claim(void)
{
    CHECK_EQ(nc_ring_len(&ring), 1);
    CHECK(slot(nc_ring_index(&ring, head())) == NULL);
    CHECK_EQ(push_numbers(1, 1), 1);
    CHECK_EQ(nc_ring_len(&ring), 2);
}

static void a_claimed_slot_counts_before_it_is_stored(void)
{
    many = true;
    setup(3, -(uint64_t)50);
    at("push_mp: claimed, not stored", behind_a_claim);
    CHECK_EQ(push_numbers(0, 1), 1);
    CHECK_EQ(stops, 1);
    CHECK_EQ(pop_numbers(0, 3), 2);
    check_invariants(2, 2);
}

static int yields;
static void store_late(void)
{
    if (++yields == 3)
        atomic_store_explicit(&slots[nc_ring_index(&ring, head())], &values[0], memory_order_release);
}

static void the_consumer_waits_for_a_claimed_slot_and_yields(void)
{
    many = true;
    for (int c = 0; c < CAPACITIES; c++) {
        setup(capacities[c], -(uint64_t)50);
        atomic_store_explicit(&ring.tail, nc_ring_advance(&ring, tail(), 1), memory_order_relaxed); /* a claim */
        if (ring.capacity > 1)
            CHECK_EQ(push_numbers(1, 1), 1);
        yields = 0;
        on_yield = store_late;
        CHECK_EQ(pop_numbers(0, 2), ring.capacity > 1 ? 2 : 1);
        on_yield = NULL;
        CHECK_EQ(yields, 3);
        CHECK_EQ(nc_ring_len(&ring), 0);
    }
}

static void pop_one_waits_for_nothing(void)
{
    many = true;
    setup(3, -(uint64_t)50);
    atomic_store_explicit(&ring.tail, nc_ring_advance(&ring, tail(), 1), memory_order_relaxed); /* a claim */
    CHECK(pop_one() == NULL);
    CHECK_EQ(nc_ring_len(&ring), 1);
    atomic_store_explicit(&slots[nc_ring_index(&ring, head())], &values[0], memory_order_release);
    CHECK(pop_one() == &values[0]);
    check_invariants(1, 1);
}

/* Taken one by one without a look at the tail, and then by the forms that have one of their own, which is stale. */
static void the_tail_that_was_seen_is_never_behind_the_head(void)
{
    void *v[8];
    many = true;
    for (uint64_t capacity = 1; capacity <= 7; capacity++)
        for (uint64_t seen = 0; seen <= capacity; seen++)
            for (uint64_t more = 0; more <= 2 * capacity; more++) {
                uint64_t from = 0;
                setup(capacity, -(uint64_t)48);
                CHECK_EQ(push_numbers(0, seen), seen);
                CHECK_EQ(pop(v, seen), seen); /* it has seen so many, */
                for (from = seen; from < seen + more; from++) /* and takes more of which it has not */
                    CHECK(push_one(from) && pop_one() == &values[from % sizeof values]);
                CHECK_EQ(pop(v, 1), 0);
                CHECK(pop_one() == NULL);
                CHECK_EQ(push_numbers(from, capacity), capacity);
                CHECK_EQ(pop(v, 8), capacity);
                check_invariants(from + capacity, from + capacity);
            }
}

static void one_of_a_batch_claimed_is_stored_late(void)
{
    many = true;
    setup(8, -(uint64_t)50);
    CHECK_EQ(push_numbers(0, 5), 5);
    atomic_store_explicit(&slots[2], NULL, memory_order_relaxed); /* the third of them is not there yet */
    void *v[5];
    CHECK_EQ(nc_ring_len(&ring), 5);
    CHECK_EQ(pop(v, 2), 2);
    yields = 0;
    on_yield = store_late;
    CHECK_EQ(pop(v, 3), 3);
    on_yield = NULL;
    CHECK(v[0] == &values[0] && v[1] == &values[3] && v[2] == &values[4]);
}

int main(void)
{
    RUN(powers_and_alignment);
    RUN(each_side_has_a_cache_line_of_its_own);
    RUN(a_position_advances_like_a_count);
    RUN(ordinals_count_from_zero);
    RUN(a_new_ring_is_empty);
    RUN(a_ring_holds_exactly_its_capacity);
    RUN(a_batch_takes_what_fits);
    RUN(one_by_one_is_like_a_batch_of_one);
    RUN(the_counters_wrap);
    RUN(any_mix_of_batches);
    RUN(the_head_is_only_read_when_the_stale_one_says_full);
    RUN(a_stale_head_more_than_a_lap_old_is_no_room);
    RUN(the_tail_is_only_read_when_the_stale_one_says_too_few);
    RUN(len_never_exceeds_the_capacity);
    RUN(nothing_is_there_before_the_tail_moves);
    RUN(nothing_is_free_before_the_head_moves);
    RUN(a_producer_that_was_overtaken_claims_what_is_left);
    RUN(a_producer_that_loses_again_and_again_gets_its_turn);
    RUN(a_look_at_a_full_ring_ends);
    RUN(a_claimed_slot_counts_before_it_is_stored);
    RUN(the_consumer_waits_for_a_claimed_slot_and_yields);
    RUN(pop_one_waits_for_nothing);
    RUN(the_tail_that_was_seen_is_never_behind_the_head);
    RUN(one_of_a_batch_claimed_is_stored_late);
    return test_report();
}
