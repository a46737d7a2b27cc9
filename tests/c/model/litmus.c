/* litmus.c: does the explorer know the memory model?  Small programs with a known answer: the weak outcome is
 * found where C11 allows it (the CHECK that denies it fails), and not where it is forbidden. */
#include "model.h"

#define LOAD(p, order) atomic_load_explicit(p, memory_order_##order)
#define STORE(p, v, order) atomic_store_explicit(p, v, memory_order_##order)
#define SWAP(p, v, order) atomic_exchange_explicit(p, v, memory_order_##order)

static uint32_t x, y, r[6], plain;
static nc_lock lock;
static uint32_t semaphore;

static void setup(void)
{
    x = y = plain = lock = semaphore = 0;
    for (int i = 0; i < 6; i++)
        r[i] = 0;
}

/* Store buffering: each stores, then looks at the other's.  The parking handshake. */
#define STORE_BUFFERING(name, store, load)     \
    static void sb_##name(int id)              \
    {                                          \
        STORE(id == 1 ? &x : &y, 1, store);    \
        r[id] = LOAD(id == 1 ? &y : &x, load); \
    }
STORE_BUFFERING(weak, release, acquire)
STORE_BUFFERING(strong, seq_cst, seq_cst)
STORE_BUFFERING(stores, seq_cst, acquire)
STORE_BUFFERING(loads, release, seq_cst)

static void sb_swaps(int id)
{
    SWAP(id == 1 ? &x : &y, 1, acq_rel);
    r[id] = LOAD(id == 1 ? &y : &x, acquire);
}

static void sb_one_flag(int id) /* both swap one flag: right, as DESIGN says */
{
    if (id == 1)
        STORE(&x, 1, release);
    r[id] = SWAP(&y, id, acq_rel);
    if (id == 2)
        r[3] = LOAD(&x, acquire);
}

static void not_both_missed(void) { CHECK(r[1] || r[2]); }
static void one_flag_not_missed(void) { CHECK(r[1] == 2 || r[3] == 1); }

/* Message passing: plain data behind a flag. */
#define MESSAGE(name, store, load)   \
    static void mp_##name(int id)    \
    {                                \
        if (id == 1) {               \
            plain = 1;               \
            STORE(&x, 1, store);     \
        } else if (LOAD(&x, load)) { \
            CHECK(plain == 1);       \
        }                            \
    }
MESSAGE(right, release, acquire)
MESSAGE(no_release, relaxed, acquire)
MESSAGE(no_acquire, release, relaxed)

/* The same with atomic data: an old value, or a store that came before one it should follow. */
static void stale_data(int id)
{
    if (id == 1) {
        STORE(&y, 1, relaxed);
        STORE(&x, 1, relaxed);
    } else {
        r[1] = LOAD(&x, acquire);
        r[2] = LOAD(&y, relaxed);
    }
}
static void data_seen(void) { CHECK(!r[1] || r[2]); }

/* Memory used again: may the second user's store come before the first one's? */
#define REUSE(name, store, load)     \
    static void reuse_##name(int id) \
    {                                \
        if (id == 1) {               \
            STORE(&y, 1, relaxed);   \
            STORE(&x, 1, store);     \
        } else if (LOAD(&x, load)) { \
            STORE(&y, 2, relaxed);   \
            r[1] = 1;                \
        }                            \
    }
REUSE(right, release, acquire)
REUSE(no_release, relaxed, acquire)
REUSE(no_acquire, release, relaxed)
static void second_user_last(void) { CHECK(!r[1] || LOAD(&y, relaxed) == 2); }

/* Two stores each, in opposite orders: both may end first. */
static void crossed(int id)
{
    STORE(id == 1 ? &x : &y, 1, release);
    STORE(id == 1 ? &y : &x, 2, release);
}
static void not_crossed(void) { CHECK(LOAD(&x, relaxed) == 2 || LOAD(&y, relaxed) == 2); }

/* Coherence: one location never runs backwards, whatever the order. */
static void coherent(int id)
{
    if (id == 1) {
        STORE(&x, 1, relaxed);
        STORE(&x, 2, relaxed);
        return;
    }
    uint32_t a = LOAD(&x, relaxed), b = LOAD(&x, relaxed);
    CHECK(a <= b);
}

/* A read-modify-write misses none, and carries a release on. */
static void counts(int id) { r[id] = atomic_fetch_add_explicit(&x, 1, memory_order_relaxed); }
static void counted(void) { CHECK(LOAD(&x, relaxed) == 3 && r[1] != r[2] && r[2] != r[3] && r[1] != r[3]); }

static void sequence(int id)
{
    uint32_t one = 1;
    if (id == 1) {
        plain = 1;
        STORE(&x, 1, release);
    } else if (id == 2) {
        atomic_compare_exchange_strong_explicit(&x, &one, 2, memory_order_relaxed, memory_order_relaxed);
    } else if (LOAD(&x, acquire) == 2) {
        CHECK(plain == 1);
    }
}

/* Happens-before goes from hand to hand. */
#define CHAIN(name, second)             \
    static void chain_##name(int id)    \
    {                                   \
        if (id == 1) {                  \
            plain = 1;                  \
            STORE(&x, 1, release);      \
        } else if (id == 2) {           \
            if (LOAD(&x, acquire))      \
                STORE(&y, 1, second);   \
        } else if (LOAD(&y, acquire)) { \
            CHECK(plain == 1);          \
        }                               \
    }
CHAIN(right, release)
CHAIN(broken, relaxed)

/* Independent reads: only seq_cst makes two readers agree on the order of two writers. */
#define READERS(name, store, load)                                                              \
    static void iriw_##name(int id)                                                             \
    {                                                                                           \
        if (id <= 2) {                                                                          \
            STORE(id == 1 ? &x : &y, 1, store);                                                 \
            return;                                                                             \
        }                                                                                       \
        uint32_t first = LOAD(id == 3 ? &x : &y, load), second = LOAD(id == 3 ? &y : &x, load); \
        r[id] = first && !second;                                                               \
    }
READERS(weak, release, acquire)
READERS(strong, seq_cst, seq_cst)
static void readers_agree(void) { CHECK(!(r[3] && r[4])); }

static void locked(int id)
{
    (void)id;
    nc_lock_enter(&lock);
    plain++;
    nc_lock_exit(&lock);
}
static void both_locked(void) { CHECK(plain == 2); }

static void unlocked(int id)
{
    (void)id;
    plain++;
}

static void sleeps(int id)
{
    if (id == 1) {
        plain = 1;
        model_wake(&semaphore);
    } else {
        model_sleep(&semaphore);
        CHECK(plain == 1);
    }
}

static void sleeps_for_ever(int id)
{
    if (id == 2 || LOAD(&x, relaxed))
        model_sleep(&semaphore);
    else
        STORE(&x, 1, relaxed);
}

static void spins(int id)
{
    if (id == 1) {
        plain = 1;
        STORE(&x, 1, release);
        return;
    }
    unsigned n = 0;
    while (!LOAD(&x, acquire))
        nc_relax(&n);
    CHECK(plain == 1);
}

static void spins_for_ever(int id)
{
    unsigned n = 0;
    while (!LOAD(id == 1 ? &x : &y, acquire))
        nc_relax(&n);
}

#define FREES(name, order)                                               \
    static void frees_##name(int id)                                     \
    {                                                                    \
        (void)id;                                                        \
        (void)LOAD(&y, relaxed);                                         \
        if (atomic_fetch_sub_explicit(&x, 1, memory_order_##order) == 1) \
            model_free(&y, sizeof y);                                    \
    }
FREES(right, acq_rel)
FREES(release, release)
FREES(acquire, acquire)
static void two_owners(void)
{
    setup();
    STORE(&x, 2, relaxed);
}

static void uses_freed(int id)
{
    if (id == 1)
        model_free(&y, sizeof y);
    else
        (void)LOAD(&y, relaxed);
}

#define MISSED "CHECK"
static const model models[] = {
    {"store buffering, release/acquire", setup, sb_weak, not_both_missed, 2, 2, 1, 0, MISSED},
    {"store buffering, seq_cst", setup, sb_strong, not_both_missed, 2, 3, 3, 0, NULL},
    {"store buffering, seq_cst stores", setup, sb_stores, not_both_missed, 2, 2, 1, 0, MISSED},
    {"store buffering, seq_cst loads", setup, sb_loads, not_both_missed, 2, 2, 1, 0, MISSED},
    {"store buffering, swaps", setup, sb_swaps, not_both_missed, 2, 2, 1, 0, MISSED},
    {"one flag, swapped by both", setup, sb_one_flag, one_flag_not_missed, 2, 3, 3, 0, NULL},
    {"message, release/acquire", setup, mp_right, NULL, 2, 3, 3, 0, NULL},
    {"message, no release", setup, mp_no_release, NULL, 2, 2, 1, 0, "data race"},
    {"message, no acquire", setup, mp_no_acquire, NULL, 2, 2, 1, 0, "data race"},
    {"message, atomic data", setup, stale_data, data_seen, 2, 2, 1, 0, MISSED},
    {"memory used again", setup, reuse_right, second_user_last, 2, 3, 3, 0, NULL},
    {"memory used again, no release", setup, reuse_no_release, second_user_last, 2, 2, 1, 0, MISSED},
    {"memory used again, no acquire", setup, reuse_no_acquire, second_user_last, 2, 2, 1, 0, MISSED},
    {"two stores crossed", setup, crossed, not_crossed, 2, 2, 1, 0, MISSED},
    {"coherence of one location", setup, coherent, NULL, 3, 3, 3, 0, NULL},
    {"read-modify-writes lose none", setup, counts, counted, 3, 3, 3, 0, NULL},
    {"release sequence", setup, sequence, NULL, 3, 3, 3, 0, NULL},
    {"chain of hands", setup, chain_right, NULL, 3, 3, 3, 0, NULL},
    {"chain of hands, broken", setup, chain_broken, NULL, 3, 2, 1, 0, "data race"},
    {"independent reads, acquire", setup, iriw_weak, readers_agree, 4, 3, 2, 0, MISSED},
    {"independent reads, seq_cst", setup, iriw_strong, readers_agree, 4, 3, 2, 0, NULL},
    {"lock", setup, locked, both_locked, 2, 3, 3, 0, NULL},
    {"no lock", setup, unlocked, NULL, 2, 0, 0, 0, "data race"},
    {"semaphore", setup, sleeps, NULL, 2, 3, 3, 0, NULL},
    {"sleeps for ever", setup, sleeps_for_ever, NULL, 2, 0, 0, 0, "every thread that is left waits"},
    {"spin loop", setup, spins, NULL, 2, 3, 3, 0, NULL},
    {"spins for ever", setup, spins_for_ever, NULL, 2, 0, 0, 0, "every thread that is left waits"},
    {"last owner frees, acq_rel", two_owners, frees_right, NULL, 2, 3, 3, 0, NULL},
    {"last owner frees, release", two_owners, frees_release, NULL, 2, 2, 1, 0, "freed while in use"},
    {"last owner frees, acquire", two_owners, frees_acquire, NULL, 2, 2, 1, 0, "freed while in use"},
    {"use of freed memory", setup, uses_freed, NULL, 2, 2, 1, 0, "freed"},
};

int main(int argc, char **argv) { return model_main(models, sizeof models / sizeof models[0], argc, argv); }
