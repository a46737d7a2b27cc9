/* ring.c: models of nc_ring.h.  model_arg is the capacity, but for hundreds, which are the batch. */
#include "nc_ring.h"

#define START (UINT64_MAX - 1) /* the positions wrap on the way */

enum { MOST = 8 };

static nc_ring ring;
static void *_Atomic slots[MOST];
static uint32_t payload[4][MOST]; /* by producer, number */
static uint32_t taken[4];         /* by producer: how many the consumer has seen */
static _Atomic uint32_t sign;     /* between threads, beside the ring */
static int each;                  /* items a producer */
static bool from_many;            /* how the ring is filled */

static uint64_t capacity(void) { return model_arg % 100; }
static uint64_t batch(void) { return model_arg >= 100 ? model_arg / 100 : 1; }

static void setup(void)
{
    nc_ring_init(&ring, slots, capacity(), START);
    for (int p = 0; p < 4; p++) {
        taken[p] = 0;
        for (int i = 0; i < MOST; i++)
            payload[p][i] = 0;
    }
    atomic_store_explicit(&sign, 0, memory_order_relaxed);
    each = (int)capacity() + 1;
    from_many = false;
}

static void setup_many(void)
{
    setup();
    for (uint64_t i = 0; i < MOST; i++)
        atomic_store_explicit(&slots[i], NULL, memory_order_relaxed);
    from_many = true;
}

static void setup_two_each(void)
{
    setup_many();
    each = 2;
}

static void setup_three_each(void)
{
    setup();
    each = 3;
}

static void setup_three_of_many(void)
{
    setup_many();
    each = 3;
}

static uint64_t push(int producer, int from, uint64_t n)
{
    void *values[MOST];
    for (uint64_t i = 0; i < n; i++) {
        payload[producer][from + i] = 1;
        values[i] = &payload[producer][from + i];
    }
    return from_many ? nc_ring_push_mp(&ring, values, n) : nc_ring_push_sp(&ring, values, n, memory_order_release);
}

/* Push what this producer has, in batches; full: wait. */
static void produce(int producer)
{
    unsigned spins = 0;
    for (int sent = 0; sent < each;) {
        uint64_t left = each - sent, n = push(producer, sent, left < batch() ? left : batch());
        sent += n;
        if (n == 0)
            nc_relax(&spins);
    }
}

/* An item is what its producer made of it, and the next of its producer; from here on it is the consumer's. */
static void check_item(void *value)
{
    uint32_t *item = value;
    int producer = (int)(item - payload[0]) / MOST, number = (int)(item - payload[0]) % MOST;
    CHECK(*item == 1);
    *item = 2;
    CHECK(taken[producer] == (uint32_t)number);
    taken[producer]++;
}

static uint64_t pop(uint64_t n)
{
    void *values[MOST];
    n = from_many ? nc_ring_pop_mpsc(&ring, values, n, memory_order_release)
                  : nc_ring_pop_spsc(&ring, values, n, memory_order_release);
    for (uint64_t i = 0; i < n; i++)
        check_item(values[i]);
    return n;
}

static void consume(int n)
{
    unsigned spins = 0;
    while (n > 0) {
        uint64_t got = pop(batch());
        n -= (int)got;
        if (got == 0)
            nc_relax(&spins);
    }
}

static void left_empty(void)
{
    CHECK(nc_ring_len(&ring) == 0);
    for (uint64_t i = 0; i < capacity(); i++)
        CHECK(!from_many || atomic_load_explicit(&slots[i], memory_order_relaxed) == NULL);
}

/* One producer, one consumer.  Release is enough to hand a value over; only parking needs more. */
static void spsc(int id)
{
    if (id == 1)
        produce(1);
    else
        consume(each);
}

/* Two producers. */
static void mpsc(int id)
{
    if (id <= 2)
        produce(id);
    else
        consume(2 * each);
}

/* Who looks from a side that does not move sees the other side's true state, or an older one. */
static void len_from_sides(int id)
{
    unsigned spins = 0;
    for (int i = 0; i < each;) {
        uint64_t len = nc_ring_len(&ring);
        CHECK(len <= capacity());
        if (id == 1 && len < capacity()) {
            uint64_t left = each - i, room = capacity() - len;
            if (room > left)
                room = left;
            CHECK(push(1, i, room) == room);
            i += (int)room;
        } else if (id == 2 && len > 0) {
            CHECK(pop(len) == len);
            i += (int)len;
        } else {
            nc_relax(&spins);
        }
    }
}

/* A ring that always holds something never looks empty: not even to somebody who only looks. */
static void setup_one_in(void)
{
    setup();
    CHECK(push(1, 0, 1) == 1);
}

static void never_empty(int id)
{
    unsigned spins = 0;
    if (id == 1) {
        CHECK(push(1, 1, 1) == 1);
    } else if (id == 2) {
        while (nc_ring_len(&ring) < 2)
            nc_relax(&spins);
        CHECK(pop(1) == 1);
    } else {
        uint64_t len = nc_ring_len(&ring);
        CHECK(len >= 1 && len <= capacity());
    }
}

/* A ring is full only if it is: who knows, by another way, that there is room, finds it. */
static void setup_full(void)
{
    setup_many();
    CHECK(push(1, 0, capacity()) == capacity());
}

static void room_known(int id)
{
    unsigned spins = 0;
    if (id == 1) {
        CHECK(pop(1) == 1);
        atomic_store_explicit(&sign, 1, memory_order_release);
    } else {
        while (!atomic_load_explicit(&sign, memory_order_acquire))
            nc_relax(&spins);
        CHECK(push(2, 0, 1) == 1);
    }
}

/* There is room for all there will ever be: neither a stale head, as each producer leaves it for the others, nor a tail
 * that the head has gone past meanwhile makes a producer see a full ring. */
static void setup_stale(void)
{
    setup_many();
    for (uint64_t i = 0; i < capacity(); i++)
        CHECK(push(3, (int)i, 1) == 1);
    for (uint64_t i = 0; i < capacity(); i++)
        CHECK(pop(1) == 1); /* and head_seen stays where it was */
}

static void room_for_all(int id)
{
    if (id <= 2) {
        CHECK(push(id, 0, 1) == 1);
    } else {
        consume(1);
        consume(1);
    }
}

/* A full ring, one slot freed, two producers at it: exactly one is told that it is full. */
static void one_slot(int id)
{
    if (id == 1) {
        CHECK(pop(1) == 1);
        return;
    }
    if (push(id, 0, 1) == 1)
        atomic_fetch_add_explicit(&sign, 1, memory_order_relaxed);
}

static void at_most_one(void)
{
    uint32_t went = atomic_load_explicit(&sign, memory_order_relaxed);
    CHECK(went <= 1);
    CHECK(nc_ring_len(&ring) == capacity() - 1 + went);
}

/* ---- one at a time ----------------------------------------------------------------------------------- */

static void produce_one_by_one(void)
{
    unsigned spins = 0;
    for (int i = 0; i < each;) {
        payload[1][i] = 1;
        if (nc_ring_push_one_sp(&ring, &payload[1][i], memory_order_release))
            i++;
        else
            nc_relax(&spins);
    }
}

static void consume_one_by_one(int n)
{
    unsigned spins = 0;
    while (n > 0) {
        void *value = nc_ring_pop_one_spsc(&ring, memory_order_release);
        if (value == NULL) {
            nc_relax(&spins);
            continue;
        }
        check_item(value);
        n--;
    }
}

static void one_by_one(int id)
{
    if (id == 1)
        produce_one_by_one();
    else
        consume_one_by_one(each);
}

/* What is claimed and not stored yet is not there.  Without a look at the tail, and now and then with one. */
static void consume_claimed(int n)
{
    unsigned spins = 0;
    while (n > 0) {
        void *value = nc_ring_pop_one_mpsc(&ring, memory_order_release);
        if (value != NULL)
            check_item(value);
        else if (n % 2 == 0 || pop(1) == 0) {
            nc_relax(&spins);
            continue;
        }
        CHECK(nc_ring_len(&ring) <= capacity());
        n--;
    }
}

static void claimed_from_one(int id)
{
    if (id == 1)
        produce(1);
    else
        consume_claimed(each);
}

static void produce_one_by_one_beside_others(int producer)
{
    unsigned spins = 0;
    for (int i = 0; i < each;) {
        payload[producer][i] = 1;
        if (nc_ring_push_one_mp(&ring, &payload[producer][i]))
            i++;
        else
            nc_relax(&spins);
    }
}

static void claimed_from_many(int id)
{
    if (id == 1)
        produce(id);
    else if (id == 2)
        produce_one_by_one_beside_others(id);
    else
        consume_claimed(2 * each);
}

/* ---- publishing before reading a flag, looking after raising it (W1..W3) ------------------------------------- */

static _Atomic uint32_t flag, seen;

static void setup_flag(void)
{
    setup();
    atomic_store_explicit(&flag, 0, memory_order_relaxed);
    atomic_store_explicit(&seen, 0, memory_order_relaxed);
}

static void setup_flag_full(void)
{
    setup();
    CHECK(push(1, 0, capacity()) == capacity());
    atomic_store_explicit(&flag, 0, memory_order_relaxed);
    atomic_store_explicit(&seen, 0, memory_order_relaxed);
}

static void setup_flag_many(void)
{
    setup_many();
    atomic_store_explicit(&flag, 0, memory_order_relaxed);
    atomic_store_explicit(&seen, 0, memory_order_relaxed);
}

static void setup_flag_many_full(void)
{
    setup_full();
    atomic_store_explicit(&flag, 0, memory_order_relaxed);
    atomic_store_explicit(&seen, 0, memory_order_relaxed);
}

static void saw(bool it) { atomic_fetch_add_explicit(&seen, it, memory_order_relaxed); }

#define PUBLISHES(name, what, look)                                 \
    static void name(int id)                                        \
    {                                                               \
        void *value = &payload[1][0];                               \
        if (id == 1) {                                              \
            CHECK(what);                                            \
            saw(atomic_load_explicit(&flag, memory_order_seq_cst)); \
        } else {                                                    \
            atomic_store_explicit(&flag, 1, memory_order_seq_cst);  \
            saw(look);                                              \
        }                                                           \
        (void)value;                                                \
    }
PUBLISHES(push_and_look, nc_ring_push_sp(&ring, &value, 1, memory_order_seq_cst), nc_ring_len(&ring) > 0)
PUBLISHES(push_one_and_look, nc_ring_push_one_sp(&ring, value, memory_order_seq_cst), nc_ring_len(&ring) > 0)
PUBLISHES(push_mp_and_look, nc_ring_push_mp(&ring, &value, 1), nc_ring_len(&ring) > 0)
PUBLISHES(push_one_mp_and_look, nc_ring_push_one_mp(&ring, value), nc_ring_len(&ring) > 0)
PUBLISHES(pop_and_look, nc_ring_pop_spsc(&ring, &value, 1, memory_order_seq_cst), nc_ring_len(&ring) < capacity())
PUBLISHES(pop_many_and_look, nc_ring_pop_mpsc(&ring, &value, 1, memory_order_seq_cst), nc_ring_len(&ring) < capacity())
PUBLISHES(pop_one_and_look, nc_ring_pop_one_spsc(&ring, memory_order_seq_cst), nc_ring_len(&ring) < capacity())
PUBLISHES(pop_one_of_many_and_look, nc_ring_pop_one_mpsc(&ring, memory_order_seq_cst), nc_ring_len(&ring) < capacity())

static void one_saw_the_other(void) { CHECK(atomic_load_explicit(&seen, memory_order_relaxed) > 0); }

static const model models[] = {
    /* the quick ones first */
    {"a flag and a push", setup_flag, push_and_look, one_saw_the_other, 2, 3, 3, 1, NULL},
    {"a flag and a push of one", setup_flag, push_one_and_look, one_saw_the_other, 2, 3, 3, 1, NULL},
    {"a flag and a push of many", setup_flag_many, push_mp_and_look, one_saw_the_other, 2, 3, 3, 1, NULL},
    {"a flag and a push of one of many", setup_flag_many, push_one_mp_and_look, one_saw_the_other, 2, 3, 3, 1, NULL},
    {"a flag and a pop", setup_flag_full, pop_and_look, one_saw_the_other, 2, 3, 3, 1, NULL},
    {"a flag and a pop of one", setup_flag_full, pop_one_and_look, one_saw_the_other, 2, 3, 3, 1, NULL},
    {"a flag and a pop from many", setup_flag_many_full, pop_many_and_look, one_saw_the_other, 2, 3, 3, 1, NULL},
    {"a flag and a pop of one from many", setup_flag_many_full, pop_one_of_many_and_look, one_saw_the_other, 2, 3, 3, 1,
     NULL},
    {"spsc, capacity 1", setup_three_each, spsc, left_empty, 2, 3, 2, 1, NULL},
    {"spsc, capacity 2", setup_three_each, spsc, left_empty, 2, 3, 2, 2, NULL},
    {"spsc, capacity 3", setup, spsc, left_empty, 2, 3, 2, 3, NULL},
    {"spsc, capacity 2, by two", setup, spsc, left_empty, 2, 3, 2, 202, NULL},
    {"spsc, capacity 3, by two", setup, spsc, left_empty, 2, 3, 2, 203, NULL},
    {"mpsc, capacity 1", setup_two_each, mpsc, left_empty, 3, 2, 1, 1, NULL},
    {"mpsc, capacity 2", setup_two_each, mpsc, left_empty, 3, 2, 1, 2, NULL},
    {"mpsc, capacity 3", setup_two_each, mpsc, left_empty, 3, 2, 1, 3, NULL},
    {"mpsc, capacity 3, by two", setup_two_each, mpsc, left_empty, 3, 2, 1, 203, NULL},
    {"len, capacity 1", setup, len_from_sides, left_empty, 2, 3, 2, 1, NULL},
    {"len, capacity 2", setup, len_from_sides, left_empty, 2, 3, 2, 2, NULL},
    {"len of what is never empty", setup_one_in, never_empty, NULL, 3, 3, 2, 2, NULL},
    {"room that one knows of, capacity 1", setup_full, room_known, NULL, 2, 3, 3, 1, NULL},
    {"room that one knows of, capacity 2", setup_full, room_known, NULL, 2, 3, 3, 2, NULL},
    {"room for all", setup_stale, room_for_all, left_empty, 3, 3, 1, 2, NULL},
    {"one slot for two, capacity 1", setup_full, one_slot, at_most_one, 3, 3, 2, 1, NULL},
    {"one slot for two, capacity 2", setup_full, one_slot, at_most_one, 3, 3, 2, 2, NULL},
    {"one by one, capacity 1", setup_three_each, one_by_one, left_empty, 2, 3, 2, 1, NULL},
    {"one by one, capacity 2", setup_three_each, one_by_one, left_empty, 2, 3, 2, 2, NULL},
    {"one by one, capacity 3", setup, one_by_one, left_empty, 2, 3, 2, 3, NULL},
    {"claimed, from one, capacity 1", setup_three_of_many, claimed_from_one, left_empty, 2, 3, 2, 1, NULL},
    {"claimed, from one, capacity 2", setup_three_of_many, claimed_from_one, left_empty, 2, 3, 2, 2, NULL},
    {"claimed, from many, capacity 1", setup_two_each, claimed_from_many, left_empty, 3, 1, 1, 1, NULL},
    {"claimed, from many, capacity 2", setup_two_each, claimed_from_many, left_empty, 3, 2, 1, 2, NULL},
};

int main(int argc, char **argv) { return model_main(models, sizeof models / sizeof models[0], argc, argv); }
