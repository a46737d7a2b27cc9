/* native_producer.c: the producing side of bench/native.py, which builds it. */
#define _POSIX_C_SOURCE 200809L
#include "nexus_channels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 64 }; /* at most */

typedef struct run {
    pthread_t thread;
    const void *address;
    uint64_t count;
    size_t size, batch;   /* bytes a message; messages a wake-up */
    int64_t every;        /* paced: nanoseconds between two messages; 0: at full speed */
    int64_t *late, *took; /* paced: when the message was in the ring, after it was due; what the call took */
    int result;
} run;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int full_speed(nexus_sender *tx, const run *r)
{
    static _Thread_local unsigned char payloads[BATCH][4096];
    nexus_message messages[BATCH];
    for (uint64_t i = 0; i < r->count;) {
        size_t n = 0, sent;
        for (; n < r->batch && i < r->count; n++, i++) {
            memcpy(payloads[n], &i, sizeof i);
            messages[n] = (nexus_message){payloads[n], r->size};
        }
        int result = nexus_send_many(tx, messages, n, NEXUS_FOREVER, &sent);
        if (result != NEXUS_OK)
            return result;
    }
    return NEXUS_OK;
}

static int paced(nexus_sender *tx, const run *r)
{
    unsigned char payload[4096] = {0};
    int64_t due = now();
    for (uint64_t i = 0; i < r->count; i++) {
        due += r->every;
        struct timespec t = {due / 1000000000, due % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        int64_t began = now();
        int result = nexus_try_send(tx, payload, r->size);
        int64_t ended = now();
        if (result != NEXUS_OK)
            return result;
        r->late[i] = ended - due;
        r->took[i] = ended - began;
        if (due < ended)
            due = ended; /* do not count one wait twice */
    }
    return NEXUS_OK;
}

static void *work(void *arg)
{
    run *r = arg;
    nexus_sender *tx;
    r->result = nexus_attach_sender(r->address, &tx);
    if (r->result == NEXUS_OK)
        r->result = r->every ? paced(tx, r) : full_speed(tx, r);
    nexus_detach_sender(tx);
    return NULL;
}

run *run_start(const void *address, uint64_t count, size_t size, size_t batch, int64_t every, int64_t *late,
               int64_t *took)
{
    run *r = calloc(1, sizeof *r);
    *r = (run){.address = address, .count = count, .size = size, .batch = batch, .every = every};
    r->late = late;
    r->took = took;
    pthread_create(&r->thread, NULL, work, r);
    return r;
}

int run_finish(run *r)
{
    pthread_join(r->thread, NULL);
    int result = r->result;
    free(r);
    return result;
}
