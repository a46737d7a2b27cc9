/* bench.h: what the benchmarks of this folder share: clocks, medians, and who we are. */
#ifndef BENCH_H
#define BENCH_H

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS_AT_MOST = 101 };

#ifdef __clang__
#define COMPILER __VERSION__
#else
#define COMPILER "gcc " __VERSION__
#endif

/* More threads than cores is the rule on a shared machine, so waiting ends in a yield. */
static inline void relax(unsigned *spins)
{
    if (++*spins % 32 == 0)
        sched_yield();
}

static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median and the least of what was taken; less than 0: not measured. */
static inline void print_cell(double *taken, int rounds)
{
    qsort(taken, (size_t)rounds, sizeof *taken, by_size);
    if (taken[0] < 0)
        printf(" - |");
    else
        printf(" %.1f (%.1f) |", taken[rounds / 2], taken[0]);
}

/* The processor's name, as Linux tells it. */
static inline void print_machine(void)
{
    char line[256], *name;
    FILE *f = fopen("/proc/cpuinfo", "r");
    printf("Machine: ");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, "model name", 10) == 0 && (name = strchr(line, ':')) != NULL) {
            name[strcspn(name, "\n")] = 0;
            printf("%s, ", name + 2);
            break;
        }
    if (f != NULL)
        fclose(f);
    printf("%ld cores; compiler: %s; flags: %s.\n", sysconf(_SC_NPROCESSORS_ONLN), COMPILER, FLAGS);
}

#endif
