/* meddle.h: takes the place of <stdatomic.h>, so that somebody else can write to the block before each atomic operation
 * of the headers: at any time that makes a difference, that is.  Compile with -DNC_MODEL='"meddle.h"', and define
 * meddle().
 */
#ifndef MEDDLE_H
#define MEDDLE_H

#include <pthread.h>
#include <stdatomic.h>

static void meddle(void);

#ifdef __clang__
#define MEDDLE_LOAD(p, order) __c11_atomic_load(p, order)
#define MEDDLE_STORE(p, v, order) __c11_atomic_store(p, v, order)
#define MEDDLE_EXCHANGE(p, v, order) __c11_atomic_exchange(p, v, order)
#else
#define MEDDLE_LOAD(p, order) __atomic_load_n(p, order)
#define MEDDLE_STORE(p, v, order) __atomic_store_n(p, v, order)
#define MEDDLE_EXCHANGE(p, v, order) __atomic_exchange_n(p, v, order)
#endif

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_exchange_explicit
#define atomic_load_explicit(p, order) (meddle(), MEDDLE_LOAD(p, order))
#define atomic_store_explicit(p, v, order) (meddle(), MEDDLE_STORE(p, v, order))
#define atomic_exchange_explicit(p, v, order) (meddle(), MEDDLE_EXCHANGE(p, v, order))

/* What nc_base.h defines where nothing takes its place. */
typedef pthread_mutex_t nc_lock;

/* What nc_base.h defines where nobody meddles; the rings that wait are not for these blocks. */
enum { NC_PAUSES_LEAST = 1, NC_PAUSES_MOST = 1 };

static inline void nc_relax(unsigned *spins) { ++*spins; }
static inline void nc_back_off(unsigned *pauses) { (void)pauses; }

#endif
