/* nc_base.h: what every other nc_*.h stands on: atomics, cache lines, spinning, a small lock.
 *
 * May touch libc and pthreads, or Windows.  Knows nothing of Python: no callbacks, no allocation, no errno.
 *
 * A model explorer takes the place of <stdatomic.h> and of the lock by defining NC_MODEL as the header
 * to include instead.  Delay injection takes the place of NC_STEP.  Neither changes a line elsewhere.  Where systems
 * differ is told here, too; but the clock, which strict C11 does not have, is in py_core.h.
 */
#ifndef NC_BASE_H
#define NC_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef NC_MODEL
#include NC_MODEL
#else
#include <stdatomic.h>
#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#else
#include <pthread.h>
#include <sched.h>
#endif
#endif

/* Ways that only Linux has are taken there; a build with NC_PORTABLE does without, to be tried as other systems are. */
#if defined(__linux__) && !defined(NC_PORTABLE)
#define NC_LINUX 1
#else
#define NC_LINUX 0
#endif

/* The unit in which two cores steal memory from each other. */
#if defined(__aarch64__) && defined(__APPLE__)
#define NC_CACHE_LINE 128
#else
#define NC_CACHE_LINE 64
#endif

/* A slow way, kept out of the short one that leads to it. */
#define NC_SLOW static __attribute__((noinline, unused))

/* A point between two steps of a protocol; tests let another thread run here. */
#ifndef NC_STEP
#define NC_STEP(name) ((void)0)
#endif

typedef enum nc_result {
    NC_OK = 0,
    NC_FULL,  /* no room now */
    NC_EMPTY, /* nothing committed now */
    NC_BAD,   /* the block does not hold what it should: somebody else wrote there */
} nc_result;

#ifndef NC_MODEL
/* Tell the processor that we spin. */
static inline void nc_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#else
    __asm__ __volatile__("" ::: "memory"); /* else a loop of nothing else would be left out */
#endif
}

/* The same, and now and then let another thread run. */
static inline void nc_relax(unsigned *spins)
{
    nc_pause();
    if (++*spins % 128 == 0)
#ifdef _WIN32
        SwitchToThread();
#else
        sched_yield();
#endif
}

enum { NC_PAUSES_LEAST = 32, NC_PAUSES_MOST = 64 };

/* After a compare-and-swap that another thread won: leave the line to the others, twice as long each time, so that one
 * of them gets several through while it has the line.  *pauses begins with NC_PAUSES_LEAST. */
static inline void nc_back_off(unsigned *pauses)
{
    for (unsigned i = 0; i < *pauses; i++)
        nc_pause();
    if (*pauses < NC_PAUSES_MOST)
        *pauses *= 2;
}

/* The lock of the slow paths.  Held for a few dozen instructions, never across a call that can wait or
 * run foreign code.  Not a spin lock: its holder may be preempted. */
#ifdef _WIN32
typedef SRWLOCK nc_lock;

static inline void nc_lock_init(nc_lock *lock) { InitializeSRWLock(lock); }
static inline void nc_lock_destroy(nc_lock *lock) { (void)lock; }
static inline void nc_lock_enter(nc_lock *lock) { AcquireSRWLockExclusive(lock); }
static inline void nc_lock_exit(nc_lock *lock) { ReleaseSRWLockExclusive(lock); }
#else
typedef pthread_mutex_t nc_lock;

static inline void nc_lock_init(nc_lock *lock) { pthread_mutex_init(lock, NULL); }
static inline void nc_lock_destroy(nc_lock *lock) { pthread_mutex_destroy(lock); }
static inline void nc_lock_enter(nc_lock *lock) { pthread_mutex_lock(lock); }
static inline void nc_lock_exit(nc_lock *lock) { pthread_mutex_unlock(lock); }
#endif
#endif

/* The smallest power of two that is at least n; n in 1 .. 2^63. */
static inline uint64_t nc_pow2_ceil(uint64_t n) { return n < 2 ? 1 : UINT64_C(1) << (64 - __builtin_clzll(n - 1)); }

/* The structure of which that is a member. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline uint64_t nc_align_up(uint64_t n, uint64_t align) { return (n + align - 1) & ~(align - 1); }

#endif
