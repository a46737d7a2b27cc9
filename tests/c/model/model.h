/* model.h: takes the place of <stdatomic.h> and of the lock, so that the real nc_*.h run in an explorer of
 * the C11 memory model (model.c).  Compile with -DNC_MODEL='"model.h"' -fsanitize=thread, link without it:
 * the calls that the compiler puts in for plain accesses end in model.c too.
 *
 * A model is a set of short threads.  The explorer runs them as coroutines, over and over, each time with
 * other choices, until none is left within the bounds:
 *   - before each atomic operation another thread may go on (at most `preemptions` times an execution);
 *   - a load returns any value that coherence and happens-before still allow, a store may come earlier in
 *     the modification order than it was run, a read-modify-write may take an older value that nobody
 *     took (together at most `weak` times an execution that it is not simply the newest).
 * It fails an execution where a CHECK is false, a plain access races, freed memory is touched, or the
 * threads that are left all wait.  It then runs it once more and prints each step.
 *
 * Covered: relaxed, acquire, release, acq_rel, seq_cst; release sequences through read-modify-writes (not
 * through later stores of the same thread, as C11 has it and C++20 no longer does); the order of a failed
 * compare-and-swap; plain data races; locks, semaphores, spin loops (`nc_relax` waits for a new value).
 * A seq_cst access is acquire and release and, as to its own location, never before an earlier seq_cst
 * store; the order S is that in which the execution ran.
 *
 * Left out, so not found: what the bounds cut off; load buffering (as in RC11, no value out of thin air or out of
 * the future); an S that contradicts the order of running, which only mixes of seq_cst with weaker accesses
 * to one location allow; spurious failure of a weak compare-and-swap; consume; fences (there is no macro: code with
 * one does not compile).
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum memory_order {
    memory_order_relaxed,
    memory_order_acquire,
    memory_order_release,
    memory_order_acq_rel,
    memory_order_seq_cst,
} memory_order;

enum { MODEL_EXCHANGE, MODEL_ADD };

uint64_t model_load(const void *p, size_t size, memory_order order, const char *text);
void model_store(void *p, size_t size, uint64_t value, memory_order order, const char *text);
uint64_t model_rmw(void *p, size_t size, int what, uint64_t value, memory_order order, const char *text);
bool model_cas(void *p, size_t size, uint64_t *old, uint64_t value, memory_order order, memory_order failure,
               const char *text);

#define _Atomic /* the explorer keeps the values; nothing else may touch them */

/* A statement expression, as its value may go unused. */
#define MODEL_VALUE(p, call) __extension__({ (__typeof__(*(p)))(call); })
#define atomic_load_explicit(p, order) MODEL_VALUE(p, model_load(p, sizeof *(p), order, #p))
#define atomic_store_explicit(p, v, order) model_store(p, sizeof *(p), (uint64_t)(v), order, #p)
#define atomic_exchange_explicit(p, v, order) \
    MODEL_VALUE(p, model_rmw(p, sizeof *(p), MODEL_EXCHANGE, (uint64_t)(v), order, #p))
#define atomic_fetch_add_explicit(p, v, order) \
    MODEL_VALUE(p, model_rmw(p, sizeof *(p), MODEL_ADD, (uint64_t)(v), order, #p))
#define atomic_fetch_sub_explicit(p, v, order) \
    MODEL_VALUE(p, model_rmw(p, sizeof *(p), MODEL_ADD, -(uint64_t)(v), order, #p))
#define atomic_compare_exchange_strong_explicit(p, old, v, order, failure)                          \
    __extension__({                                                                                 \
        uint64_t model_old = (uint64_t)*(old);                                                      \
        bool model_done = model_cas(p, sizeof *(p), &model_old, (uint64_t)(v), order, failure, #p); \
        if (!model_done)                                                                            \
            *(old) = (__typeof__(*(p)))model_old;                                                   \
        model_done;                                                                                 \
    })
#define atomic_compare_exchange_weak_explicit atomic_compare_exchange_strong_explicit

/* What nc_base.h defines where there is no model. */
typedef uint32_t nc_lock;

void model_lock(nc_lock *lock);
void model_unlock(nc_lock *lock);
void model_relax(void);

static inline void nc_lock_init(nc_lock *lock) { *lock = 0; }
static inline void nc_lock_destroy(nc_lock *lock) { (void)lock; }
static inline void nc_lock_enter(nc_lock *lock) { model_lock(lock); }
static inline void nc_lock_exit(nc_lock *lock) { model_unlock(lock); }
static inline void nc_relax(unsigned *spins)
{
    (void)spins;
    model_relax();
}

enum { NC_PAUSES_LEAST = 1, NC_PAUSES_MOST = 2 }; /* so that a loop that backs off is short */

static inline void nc_back_off(unsigned *pauses) { *pauses = NC_PAUSES_MOST; }

/* ---- for the models ------------------------------------------------------------------------------- */

typedef struct model {
    const char *name;
    void (*setup)(void);      /* alone, before the threads; has to set up everything anew */
    void (*thread)(int id);   /* id is 1 .. threads */
    void (*finish)(void);     /* alone, after them; or NULL */
    int threads, preemptions, weak;
    int arg;                  /* model_arg, while it runs */
    const char *fails;        /* NULL: must hold.  Else it must fail, and this starts the reason. */
} model;

extern int model_arg;

/* The program: [-x] [-l less] [-r seconds [-s seed]] [name].  Runs the models whose names contain `name` (all without
 * it), with fewer preemptions by `less`; then each goes on at random, beyond its bounds, for so many seconds.  -x stops
 * at the first failure.  Returns the exit status. */
int model_main(const model *models, size_t n, int argc, char **argv);
/* Which thread runs; 0: it is set up, or finished. */
int model_thread(void);
/* 0 .. n - 1: something outside the model decides. */
int model_choose(int n);
void model_sleep(uint32_t *semaphore);
/* The same with a timeout, which may come at any time; true if it did not. */
bool model_sleep_timed(uint32_t *semaphore);
void model_wake(uint32_t *semaphore);
/* Go on when nobody else can. */
void model_idle(void);
/* From here on nobody may touch it, and whoever did must have done so before. */
void model_free(const void *p, size_t size);
void model_check(bool ok, const char *text);
#define CHECK(condition) model_check(condition, "CHECK: " #condition)

#endif
