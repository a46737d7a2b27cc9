/* driver.c: native threads for the tests, and the functions of nexus_channels.h as symbols, for ctypes.
 *
 * A job is a thread that attaches to one end, works and detaches.  Messages are stamped: who, which, how long, and a
 * check word at the end where there is room; the other side verifies order and content.
 */
#define _POSIX_C_SOURCE 200809L
#include "nexus_channels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- one symbol a function ---------------------------------------------------------------------------- */

int t_attach_sender(const void *address, nexus_sender **tx) { return nexus_attach_sender(address, tx); }
int t_attach_receiver(const void *address, nexus_receiver **rx) { return nexus_attach_receiver(address, rx); }
void t_detach_sender(nexus_sender *tx) { nexus_detach_sender(tx); }
void t_detach_receiver(nexus_receiver *rx) { nexus_detach_receiver(rx); }
size_t t_max_message_size(const nexus_sender *tx) { return nexus_max_message_size(tx); }
size_t t_used(const nexus_sender *tx) { return nexus_used(tx); }
int t_send(nexus_sender *tx, const void *data, size_t n, int64_t timeout) { return nexus_send(tx, data, n, timeout); }
int t_try_send(nexus_sender *tx, const void *data, size_t n) { return nexus_try_send(tx, data, n); }
int t_send_many(nexus_sender *tx, const nexus_message *messages, size_t count, int64_t timeout, size_t *sent)
{
    return nexus_send_many(tx, messages, count, timeout, sent);
}
int t_claim(nexus_sender *tx, size_t n, int64_t timeout, void **place) { return nexus_claim(tx, n, timeout, place); }
int t_try_claim(nexus_sender *tx, size_t n, void **place) { return nexus_try_claim(tx, n, place); }
int t_commit(nexus_sender *tx, size_t n) { return nexus_commit(tx, n); }
int t_commit_quiet(nexus_sender *tx, size_t n) { return nexus_commit_quiet(tx, n); }
int t_flush(nexus_sender *tx) { return nexus_flush(tx); }
int t_abort(nexus_sender *tx) { return nexus_abort(tx); }
int t_sender_is_disconnected(const nexus_sender *tx) { return nexus_sender_is_disconnected(tx); }
int t_peek(nexus_receiver *rx, const void **data, size_t *n, int64_t timeout)
{
    return nexus_peek(rx, data, n, timeout);
}
int t_try_peek(nexus_receiver *rx, const void **data, size_t *n) { return nexus_try_peek(rx, data, n); }
int t_release(nexus_receiver *rx) { return nexus_release(rx); }
int t_recv(nexus_receiver *rx, void *buffer, size_t size, size_t *n, int64_t timeout)
{
    return nexus_recv(rx, buffer, size, n, timeout);
}
int t_try_recv(nexus_receiver *rx, void *buffer, size_t size, size_t *n) { return nexus_try_recv(rx, buffer, size, n); }
int t_receiver_is_disconnected(const nexus_receiver *rx) { return nexus_receiver_is_disconnected(rx); }
const char *t_strerror(int result) { return nexus_strerror(result); }

/* ---- stamped messages --------------------------------------------------------------------------------- */

typedef struct stamp {
    uint32_t who, size;
    uint64_t number;
} stamp;

enum { PRODUCERS = 16 };
enum { SEND = 17, CLAIM, MANY, QUIET, ABORTING };
enum { PEEK, RECV };

static uint64_t mix(uint64_t x) { return (x ^ (x >> 31)) * UINT64_C(0x9e3779b97f4a7c15); }

static void write_stamp(unsigned char *to, uint32_t who, uint32_t size, uint64_t number)
{
    stamp s = {who, size, number};
    memcpy(to, &s, sizeof s);
    for (size_t at = sizeof s; at + 8 <= size; at += 8) {
        uint64_t word = mix(number + at) ^ who;
        memcpy(to + at, &word, 8);
    }
}

/* The number that is due from `who`, or a complaint. */
static int check_stamp(const unsigned char *from, size_t size, uint64_t due[PRODUCERS])
{
    stamp s;
    if (size < sizeof s)
        return 1;
    memcpy(&s, from, sizeof s);
    if (s.who >= PRODUCERS || s.size != size)
        return 2;
    if (s.number != due[s.who])
        return 3;
    for (size_t at = sizeof s; at + 8 <= size; at += 8) {
        uint64_t word;
        memcpy(&word, from + at, 8);
        if (word != (mix(s.number + at) ^ s.who))
            return 4;
    }
    due[s.who]++;
    return 0;
}

/* ---- jobs --------------------------------------------------------------------------------------------- */

typedef struct job {
    pthread_t thread;
    const void *address;
    int how, result, complaint;
    uint32_t who, least, most; /* sizes of messages: between, and at least a stamp */
    uint64_t count, done;
    uint64_t due[PRODUCERS];
    int64_t timeout;
    int stay; /* leave without detaching: the thread "dies" */
} job;

static void count(job *j, uint64_t more) { __atomic_store_n(&j->done, j->done + more, __ATOMIC_RELAXED); }

static uint32_t size_of(const job *j, uint64_t i)
{
    return j->least + (uint32_t)(j->most > j->least ? mix(i + j->who) % (j->most - j->least + 1) : 0);
}

static int put(nexus_sender *tx, job *j, unsigned char *buffer)
{
    uint32_t size = size_of(j, j->done);
    void *place;
    int result;
    if (j->how == SEND) {
        write_stamp(buffer, j->who, size, j->done);
        return nexus_send(tx, buffer, size, j->timeout);
    }
    if (j->how == ABORTING && j->done % 3 == 0) {
        if ((result = nexus_claim(tx, size, j->timeout, &place)) != NEXUS_OK)
            return result;
        memset(place, 0xff, size);
        if ((result = nexus_abort(tx)) != NEXUS_OK)
            return result;
    }
    uint32_t more = j->how == ABORTING ? 24 : 0; /* claim too much, commit less */
    if ((result = nexus_claim(tx, size + more, j->timeout, &place)) != NEXUS_OK)
        return result;
    write_stamp((unsigned char *)place, j->who, size, j->done);
    if (j->how == QUIET && j->done % 64 != 63 && j->done + 1 < j->count)
        return nexus_commit_quiet(tx, size);
    return nexus_commit(tx, size);
}

static int put_many(nexus_sender *tx, job *j, unsigned char *buffer)
{
    nexus_message batch[16];
    size_t sent, n = 0;
    for (; n < 16 && j->done + n < j->count; n++) {
        uint32_t size = size_of(j, j->done + n);
        unsigned char *at = buffer + n * (j->most + 8);
        write_stamp(at, j->who, size, j->done + n);
        batch[n].data = at;
        batch[n].size = size;
    }
    int result = nexus_send_many(tx, batch, n, j->timeout, &sent);
    count(j, sent);
    return result;
}

static void *produce(void *arg)
{
    job *j = arg;
    nexus_sender *tx;
    unsigned char *buffer = malloc(17 * (size_t)(j->most + 8));
    j->result = nexus_attach_sender(j->address, &tx);
    while (j->result == NEXUS_OK && j->done < j->count)
        if (j->how == MANY)
            j->result = put_many(tx, j, buffer);
        else if ((j->result = put(tx, j, buffer)) == NEXUS_OK)
            count(j, 1);
    free(buffer);
    if (!j->stay)
        nexus_detach_sender(tx);
    return NULL;
}

static void *consume(void *arg)
{
    job *j = arg;
    nexus_receiver *rx;
    unsigned char *buffer = malloc(j->most);
    j->result = nexus_attach_receiver(j->address, &rx);
    while (j->result == NEXUS_OK && j->done < j->count && j->complaint == 0) {
        const void *data = buffer;
        size_t n;
        j->result =
            j->how == RECV ? nexus_recv(rx, buffer, j->most, &n, j->timeout) : nexus_peek(rx, &data, &n, j->timeout);
        if (j->result != NEXUS_OK)
            break;
        j->complaint = check_stamp(data, n, j->due);
        if (j->how == PEEK)
            j->result = nexus_release(rx);
        count(j, 1);
    }
    free(buffer);
    if (!j->stay)
        nexus_detach_receiver(rx);
    return NULL;
}

job *t_job(const void *address, int how, uint32_t who, uint64_t count, uint32_t least, uint32_t most, int64_t timeout,
           int stay)
{
    job *j = calloc(1, sizeof *j);
    j->address = address;
    j->how = how;
    j->who = who;
    j->count = count;
    j->least = least;
    j->most = most;
    j->timeout = timeout;
    j->stay = stay;
    return j;
}

int t_start_producer(job *j) { return pthread_create(&j->thread, NULL, produce, j); }
int t_start_consumer(job *j) { return pthread_create(&j->thread, NULL, consume, j); }

/* Wait for it: its result. */
int t_join(job *j)
{
    pthread_join(j->thread, NULL);
    return j->result;
}

uint64_t t_done(const job *j) { return __atomic_load_n(&j->done, __ATOMIC_RELAXED); }
int t_complaint(const job *j) { return j->complaint; }
uint64_t t_due(const job *j, uint32_t who) { return j->due[who]; }
void t_free(job *j) { free(j); }

/* Send back what comes, until the end; a blocking call. */
int t_echo(const void *from, const void *to)
{
    nexus_receiver *rx;
    nexus_sender *tx;
    const void *data;
    size_t n;
    int result = nexus_attach_receiver(from, &rx) | nexus_attach_sender(to, &tx);
    while (result == NEXUS_OK && (result = nexus_peek(rx, &data, &n, NEXUS_FOREVER)) == NEXUS_OK) {
        result = nexus_send(tx, data, n, NEXUS_FOREVER);
        nexus_release(rx);
    }
    nexus_detach_receiver(rx);
    nexus_detach_sender(tx);
    return result;
}

/* Verify a batch that Python received: 0, or a complaint. */
int t_check(const unsigned char *from, size_t size, uint64_t *due) { return check_stamp(from, size, due); }
void t_stamp(unsigned char *to, uint32_t who, uint32_t size, uint64_t number) { write_stamp(to, who, size, number); }
