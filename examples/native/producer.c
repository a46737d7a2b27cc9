/* producer.c: a thread in C that sends ticks at full speed.  ticks.py builds it and calls feed_start and feed_finish.
 *
 *     cc -std=c11 -O2 -shared -fPIC -pthread -I"$(python -c 'import nexus_channels as n; print(n.get_include())')" \
 *         producer.c -o producer.so
 */
#define _POSIX_C_SOURCE 200809L
#include "nexus_channels.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "tick.h"

typedef struct feed {
    pthread_t thread;
    const void *address;
    uint32_t source;
    uint64_t count;
    int result;
} feed;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void *run(void *arg)
{
    feed *f = arg;
    nexus_sender *tx;
    void *place;
    f->result = nexus_attach_sender(f->address, &tx);
    for (uint64_t i = 0; i < f->count && f->result == NEXUS_OK; i++) {
        f->result = nexus_claim(tx, sizeof(tick), NEXUS_FOREVER, &place); /* waits while the ring is full */
        if (f->result != NEXUS_OK)
            break;
        *(tick *)place =
            (tick){.source = f->source, .number = i, .sent_at = now(), .price = 100 + (double)(i % 64) / 64};
        f->result = nexus_commit(tx, sizeof(tick)); /* and wakes the consumer if it sleeps */
    }
    nexus_detach_sender(tx);
    return NULL;
}

/* Start a thread that sends `count` ticks to the native end at `address`; NULL if it cannot be started. */
feed *feed_start(const void *address, uint32_t source, uint64_t count)
{
    feed *f = calloc(1, sizeof *f);
    if (f == NULL)
        return NULL;
    f->address = address;
    f->source = source;
    f->count = count;
    if (pthread_create(&f->thread, NULL, run, f) == 0)
        return f;
    free(f);
    return NULL;
}

/* Wait for its end: a nexus_result. */
int feed_finish(feed *f)
{
    pthread_join(f->thread, NULL);
    int result = f->result;
    free(f);
    return result;
}
