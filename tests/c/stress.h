/* stress.h: threads, a watchdog, and delays at the steps of a protocol, for the stress programs.
 *
 * Environment: STRESS_ITEMS (how much each scenario does), SEED, DELAY_STEP (the name of a step; a part is
 * enough) with DELAY_US (0: yield; else sleep so long) and DELAY_TIMES (how often at most).
 *
 * Include it first: it takes the place of NC_STEP.
 */
#ifndef STRESS_H
#define STRESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

/* ---- delays ---------------------------------------------------------------------------------------------- */

static const char *delay_step;
static uint64_t delay_us;
static _Atomic int64_t delay_times; /* relaxed: a count */
static _Atomic uint64_t delays;

static inline void delay_at(const char *step)
{
    if (delay_step == NULL || strstr(step, delay_step) == NULL ||
        atomic_fetch_sub_explicit(&delay_times, 1, memory_order_relaxed) <= 0)
        return;
    atomic_fetch_add_explicit(&delays, 1, memory_order_relaxed);
    if (delay_us == 0)
        sched_yield();
    else
        nanosleep(
            &(struct timespec){.tv_sec = (time_t)(delay_us / 1000000), .tv_nsec = (long)(delay_us % 1000000 * 1000)},
            NULL);
}

#define NC_STEP(name) delay_at(name)

/* ---- watchdog -------------------------------------------------------------------------------------------- */

static _Atomic uint64_t stress_progress; /* counted up by whoever gets something done */
static const char *stress_scenario = "setup";
static void (*stress_dump)(void); /* prints what there is to see */
static uint64_t stress_items, stress_seed;

static inline void stress_done(uint64_t n) { atomic_fetch_add_explicit(&stress_progress, n, memory_order_relaxed); }

/* Nothing done for 5 s: somebody sleeps who should have been woken. */
static void *stress_watch(void *arg)
{
    (void)arg;
    for (uint64_t last = ~UINT64_C(0);;) {
        uint64_t now = atomic_load_explicit(&stress_progress, memory_order_relaxed);
        if (now == last) {
            fprintf(stderr, "FAILED %s: no progress in 5 s (lost wake-up?), SEED=%" PRIu64 "\n", stress_scenario,
                    stress_seed);
            if (stress_dump != NULL)
                stress_dump();
            abort();
        }
        last = now;
        sleep(5);
    }
    return NULL;
}

static inline void stress_start(uint64_t items)
{
    stress_items = test_environment("STRESS_ITEMS", items);
    stress_seed = test_environment("SEED", (uint64_t)time(NULL));
    delay_step = getenv("DELAY_STEP");
    delay_us = test_environment("DELAY_US", 0);
    atomic_store(&delay_times, (int64_t)test_environment("DELAY_TIMES", 200));
    printf("SEED=%" PRIu64 " STRESS_ITEMS=%" PRIu64 "%s%s\n", stress_seed, stress_items,
           delay_step ? " DELAY_STEP=" : "", delay_step ? delay_step : "");
    pthread_t watchdog;
    pthread_create(&watchdog, NULL, stress_watch, NULL);
    pthread_detach(watchdog);
}

static inline int stress_report(void)
{
    if (delay_step != NULL)
        printf("%" PRIu64 " delays\n", atomic_load(&delays));
    return test_report();
}

/* ---- threads --------------------------------------------------------------------------------------------- */

enum { STRESS_THREADS = 8 };

static void (*stress_body)(int id);

static void *stress_thread(void *arg)
{
    stress_body((int)(intptr_t)arg);
    return NULL;
}

/* Run body(0) .. body(n - 1) at once, to their ends. */
static inline void stress_run(int n, void (*body)(int id))
{
    pthread_t threads[STRESS_THREADS];
    stress_body = body;
    for (int i = 0; i < n; i++)
        pthread_create(&threads[i], NULL, stress_thread, (void *)(intptr_t)i);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

/* A seed for this thread of this scenario. */
static inline uint64_t stress_seed_for(int id) { return stress_seed * 1000003 + (uint64_t)id * 7919 + 1; }

/* Full or empty: there are more threads here than cores, so do not spin for long. */
static inline void stress_relax(unsigned *spins)
{
    if (++*spins % 8 == 0)
        sched_yield();
}

static inline double stress_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
