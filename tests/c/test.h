/* test.h: all that the C tests need of a framework.  A test is a function; what it checks goes on being checked
 * after a failure, but only the first few are told. */
#ifndef TEST_H
#define TEST_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tests_passed, tests_failed;
static _Atomic int checks_failed; /* any thread's */
static char test_case[160]; /* which of its cases a test is at */

#define CHECK(condition) test_check(condition, #condition, __FILE__, __LINE__)
#define CHECK_EQ(a, b) test_check_eq((uint64_t)(a), (uint64_t)(b), #a " == " #b, __FILE__, __LINE__)
#define CASE(...) snprintf(test_case, sizeof test_case, __VA_ARGS__)
#define RUN(test) test_run(test, #test)

static inline void test_check(bool ok, const char *text, const char *file, int line)
{
    if (!ok && checks_failed++ < 5)
        printf("  %s:%d: %s%s%s\n", file, line, text, test_case[0] ? "   in case " : "", test_case);
}

static inline void test_check_eq(uint64_t a, uint64_t b, const char *text, const char *file, int line)
{
    if (a != b && checks_failed < 5)
        printf("  %s:%d: %" PRIu64 " and %" PRIu64 " in\n", file, line, a, b);
    test_check(a == b, text, file, line);
}

/* ONLY=part of a name, in the environment: the others do not run. */
static inline void test_run(void (*test)(void), const char *name)
{
    const char *only = getenv("ONLY");
    if (only != NULL && strstr(name, only) == NULL)
        return;
    checks_failed = 0;
    test_case[0] = 0;
    test();
    if (checks_failed == 0) {
        tests_passed++;
        return;
    }
    tests_failed++;
    printf("FAILED %s: %d checks\n", name, (int)checks_failed);
    fflush(stdout);
}

/* The exit status of the program. */
static inline int test_report(void)
{
    printf("%d passed, %d failed\n", tests_passed, tests_failed);
    return tests_failed != 0 || tests_passed == 0;
}

/* Small, good enough, and the same everywhere (xorshift64*). */
static inline uint64_t test_random(uint64_t *seed)
{
    if (*seed == 0)
        *seed = 1;
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * UINT64_C(2685821657736338717);
}

static inline uint64_t test_environment(const char *name, uint64_t otherwise)
{
    const char *value = getenv(name);
    return value != NULL ? strtoull(value, NULL, 0) : otherwise;
}

#endif
