/* native_pair.c: two C threads that send and receive, by native ends or by the bare ring.  bench/native_pair.py builds
 * and calls it. */
#define _GNU_SOURCE
#include "nc_log.h"
#include "nexus_channels.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LARGEST = 4096 };

typedef struct side {
    const void *address; /* of a native end; or */
    nc_log *log;
    pthread_barrier_t *start;
    uint64_t count;
    size_t size; /* bytes a message */
    uint64_t sum;
    int64_t began, ended; /* by its own clock: a third thread would have to wait for a core */
    int core, result;
} side;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* On a core of its own, where there are two. */
static void pin(int core)
{
    cpu_set_t all, one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof all, &all) != 0)
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && core-- == 0)
            CPU_SET(cpu, &one);
    if (CPU_COUNT(&one) == 1)
        sched_setaffinity(0, sizeof one, &one);
}

static void begin(side *s)
{
    pthread_barrier_wait(s->start);
    s->began = now();
}

static void *send_by_end(void *arg)
{
    side *s = arg;
    unsigned char message[LARGEST] = {0};
    nexus_sender *tx;
    pin(s->core);
    s->result = nexus_attach_sender(s->address, &tx);
    begin(s);
    for (uint64_t i = 1; i <= s->count && s->result == NEXUS_OK; i++) {
        memcpy(message, &i, sizeof i);
        s->result = nexus_send(tx, message, s->size, NEXUS_FOREVER);
    }
    s->ended = now();
    nexus_detach_sender(tx);
    return NULL;
}

static void *recv_by_end(void *arg)
{
    side *s = arg;
    unsigned char message[LARGEST];
    nexus_receiver *rx;
    uint64_t i;
    size_t n;
    pin(s->core);
    s->result = nexus_attach_receiver(s->address, &rx);
    begin(s);
    for (uint64_t left = s->count; left > 0 && s->result == NEXUS_OK; left--) {
        s->result = nexus_recv(rx, message, sizeof message, &n, NEXUS_FOREVER);
        memcpy(&i, message, sizeof i);
        s->sum += i;
    }
    s->ended = now();
    nexus_detach_receiver(rx);
    return NULL;
}

/* The same by the ring alone, with the orders that waiting needs; a side that cannot go on spins. */
static void *send_by_ring(void *arg)
{
    side *s = arg;
    unsigned char message[LARGEST] = {0};
    nc_record record;
    pin(s->core);
    begin(s);
    for (uint64_t i = 1; i <= s->count; i++) {
        unsigned spins = 0;
        memcpy(message, &i, sizeof i);
        while ((s->log->many ? nc_log_claim_mp : nc_log_claim_sp)(s->log, s->size, &record) != NC_OK)
            nc_relax(&spins);
        memcpy(record.data, message, s->size);
        (s->log->many ? nc_log_commit_mp : nc_log_commit_sp)(s->log, &record, s->size, memory_order_seq_cst);
    }
    s->ended = now();
    return NULL;
}

static bool show(nc_log *log, nc_record *record)
{
    bool freed;
    if (log->many)
        return nc_log_peek_mpsc(log, record, &freed, memory_order_seq_cst) == NC_OK;
    return nc_log_peek_spsc(log, record) == NC_OK;
}

static void *recv_by_ring(void *arg)
{
    side *s = arg;
    unsigned char message[LARGEST];
    nc_record record;
    uint64_t i;
    pin(s->core);
    begin(s);
    for (uint64_t left = s->count; left > 0; left--) {
        unsigned spins = 0;
        while (!show(s->log, &record))
            nc_relax(&spins);
        memcpy(message, record.data, record.size);
        nc_log_touch_sc(&record);
        (s->log->many ? nc_log_release_mpsc : nc_log_release_spsc)(s->log, &record, memory_order_seq_cst);
        memcpy(&i, message, sizeof i);
        s->sum += i;
    }
    s->ended = now();
    return NULL;
}

/* Nanoseconds for all, or -1 if something went wrong. */
static int64_t time_pair(side tx, side rx, void *(*send)(void *), void *(*recv)(void *))
{
    pthread_t threads[2];
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, 2);
    tx.start = rx.start = &start;
    tx.core = 0;
    rx.core = 1;
    pthread_create(&threads[0], NULL, send, &tx);
    pthread_create(&threads[1], NULL, recv, &rx);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
    bool right = tx.result == NEXUS_OK && rx.result == NEXUS_OK && rx.sum == tx.count * (tx.count + 1) / 2;
    int64_t began = tx.began < rx.began ? tx.began : rx.began, ended = tx.ended > rx.ended ? tx.ended : rx.ended;
    return right ? ended - began : -1;
}

int64_t pair_by_ends(const void *tx, const void *rx, uint64_t count, size_t size)
{
    return time_pair((side){.address = tx, .count = count, .size = size},
                     (side){.address = rx, .count = count, .size = size}, send_by_end, recv_by_end);
}

int64_t pair_by_ring(uint64_t capacity, int many, uint64_t count, size_t size)
{
    uint64_t bytes = nc_log_block_size(capacity, many);
    nc_log *log = aligned_alloc(NC_CACHE_LINE, bytes);
    memset((void *)log, 0, bytes);
    nc_log_init(log, capacity, many, 0);
    int64_t took = time_pair((side){.log = log, .count = count, .size = size},
                             (side){.log = log, .count = count, .size = size}, send_by_ring, recv_by_ring);
    free(log);
    return took;
}
