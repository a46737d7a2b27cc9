/* nexus_ends.h: an end of a channel between processes, in a program without Python: its calls.  For nexus_processes.c
 * alone.  Touches os_parcel.h, what stands below that, and system calls.
 *
 * An end is the lanes of one side (os_reach.h), without a gate: one thread uses it, so nobody stands in line.  Each
 * call holds the lock of the lanes, against a fork or exit() in another thread, and lets go of it while it spins or
 * sleeps.
 */
#ifndef NEXUS_ENDS_H
#define NEXUS_ENDS_H

#include "nexus_channels.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "os_parcel.h"

#if OS_HAS_LANES

typedef struct process_end {
    nexus_end face;
    os_reach reach;
    nc_record record; /* of the open claim */
    bool claimed;
    bool quiet;    /* something was committed that the receiver was not woken for */
    unsigned spin; /* pauses: what suited the last wait */
} process_end;

static inline process_end *process_end_of(const nexus_end *face)
{
    return (process_end *)(uintptr_t)((const char *)face - offsetof(process_end, face));
}

/* ---- of the process ------------------------------------------------------------------------------------- */

static os_reach_list process_ends = {.lock = PTHREAD_MUTEX_INITIALIZER};

static inline void process_hold(void) { os_reach_hold_all(&process_ends); }
static inline void process_release(void) { os_reach_let_all_go(&process_ends); }
static inline void process_forked(void) { os_reach_detach_all(&process_ends); }
static inline void process_exits(void) { os_reach_leave_all(&process_ends); }

/* Pauses; the most of them take about as long as falling asleep and waking up: that is PROCESS_SPIN_WORTH, in ns. */
enum { PROCESS_SPIN_LEAST = 16, PROCESS_SPIN_MOST = 4096, PROCESS_SPIN_WORTH = 100000 };
static unsigned process_spin_most = PROCESS_SPIN_MOST; /* written once, before there is an end */

static inline void process_watch(void)
{
    pthread_atfork(process_hold, process_release, process_forked);
    atexit(process_exits);
    if (sysconf(_SC_NPROCESSORS_ONLN) == 1)
        process_spin_most = PROCESS_SPIN_LEAST; /* nobody else runs while this thread spins */
}

/* ---- time ----------------------------------------------------------------------------------------------- */

static inline int64_t process_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Less than 0: without end. */
static inline int64_t process_deadline(int64_t timeout)
{
    int64_t now = timeout < 0 ? 0 : process_now();
    return timeout < 0 || timeout > INT64_MAX - now ? -1 : now + timeout;
}

/* Sleep until the descriptor can be read; 0: the time is up.  A signal does not end it. */
static inline int process_sleep(int fd, int64_t deadline)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    int n;
    do {
        int64_t left = deadline < 0 ? 0 : deadline - process_now();
        left = left > 0 ? left : 0;
        struct timespec time = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
        n = ppoll(&ready, 1, deadline < 0 ? NULL : &time, NULL);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* ---- the frame of every call ---------------------------------------------------------------------------- */

/* Unless the answer is NEXUS_OK, the call is over; else it holds the lock. */
static inline int process_enter(process_end *e)
{
    nc_lock_enter(&e->reach.lanes.lock);
    if (!e->reach.forked)
        return NEXUS_OK;
    nc_lock_exit(&e->reach.lanes.lock);
    return NEXUS_FORKED;
}

static inline int process_leave(process_end *e, int result)
{
    int why = errno;
    nc_lock_exit(&e->reach.lanes.lock);
    errno = why;
    return result;
}

/* Begin a call that needs no claim to be open, or one that ends it. */
static inline int process_enter_idle(process_end *e)
{
    int result = process_enter(e);
    return result == NEXUS_OK && e->claimed ? process_leave(e, NEXUS_BUSY) : result;
}

static inline int process_enter_claimed(process_end *e)
{
    int result = process_enter(e);
    return result == NEXUS_OK && !e->claimed ? process_leave(e, NEXUS_NO_CLAIM) : result;
}

/* ---- within the lock ------------------------------------------------------------------------------------ */

/* What went wrong is told once: NEXUS_OK if there is nothing. */
static inline int process_fault(process_end *e)
{
    int why;
    switch (nc_lanes_take_fault(&e->reach.lanes, &why)) {
    case NC_LANES_SOUND:
        break;
    case NC_LANES_GARBLED:
    case NC_LANES_REFUSED:
        os_reach_listen_again(&e->reach);
        return NEXUS_BAD_PEER;
    case NC_LANES_SYSTEM:
        os_reach_listen_again(&e->reach);
        errno = why;
        return NEXUS_SYSTEM;
    }
    return NEXUS_OK;
}

/* Nobody is at the other side any more. */
static inline int process_gone(process_end *e)
{
    int fault = process_fault(e);
    return fault != NEXUS_OK ? fault : NEXUS_DISCONNECTED;
}

/* End the batch of quiet commits, and wake the receiver. */
static inline void process_publish(process_end *e)
{
    if (!e->quiet)
        return;
    e->quiet = false;
    nc_lanes_publish(&e->reach.lanes);
    nc_lanes_ring(&e->reach.lanes);
}

/* ---- waiting -------------------------------------------------------------------------------------------- */

enum { PROCESS_AGAIN = -1 }; /* beside nexus_result: it cannot be done now */

/* What a call wants, and may have to wait for. */
typedef struct process_want {
    int (*look)(process_end *, struct process_want *); /* a nexus_result, or PROCESS_AGAIN */
    uint64_t least; /* room that it needs, in bytes of the ring */
    const nexus_message *messages;
    size_t count, sent;
    void *buffer;
    size_t size; /* of the claim or the buffer; then of the message */
} process_want;

typedef struct process_wait_state {
    int64_t began, deadline; /* deadline < 0: none */
    int slept;               /* 0: the time is up, so the next look is the last; < 0: the system refuses */
    int why;                 /* its errno then, as the next look makes calls of its own */
} process_wait_state;

/* Stay awake for a moment, as long as that was worth it lately; true if the other side has moved on.  Not on and on,
 * where it moves on and there is still too little. */
static inline bool process_wait_awake(process_end *e, const process_wait_state *at)
{
    uint64_t seen;
    _Atomic uint64_t *word =
        process_now() - at->began < PROCESS_SPIN_WORTH ? os_reach_spin_begin(&e->reach, &seen) : NULL;
    if (word == NULL)
        return false;
    nc_lock_exit(&e->reach.lanes.lock);
    bool moved = os_reach_spin(word, seen, e->spin);
    nc_lock_enter(&e->reach.lanes.lock);
    os_reach_spin_end(&e->reach);
    return moved;
}

/* After the flags were raised: is there what is waited for, or an end? */
static inline bool process_has(process_end *e, uint64_t least)
{
    nc_lanes *l = &e->reach.lanes;
    return e->reach.fd == NULL || nc_lanes_have(l) >= least || nc_lanes_over(l);
}

/* Fall asleep, unless that must not be. */
static inline void process_wait_asleep(process_end *e, uint64_t least, process_wait_state *at)
{
    nc_lanes *l = &e->reach.lanes;
    nc_lanes_raise(l, least);
    if (process_has(e, least)) { /* the other process might say so again and again, and there be nothing */
        at->slept = at->deadline < 0 || process_now() < at->deadline;
        return;
    }
    os_reach_fd *fd = e->reach.fd;
    os_reach_fd_ref(fd); /* the process may exit meanwhile, in another thread */
    nc_lock_exit(&l->lock);
    at->slept = process_sleep(fd->fd, at->deadline);
    at->why = errno;
    nc_lock_enter(&l->lock);
    os_reach_fd_unref(fd);
    nc_lanes_attend(l);
}

/* The last look was in vain: wait until another one is worth it. */
static inline void process_wait(process_end *e, uint64_t least, process_wait_state *at)
{
    if (!process_wait_awake(e, at))
        process_wait_asleep(e, least, at);
}

/* How long it took decides how long the next wait is spent awake. */
static inline void process_wait_end(process_end *e, const process_wait_state *at)
{
    bool worth = process_now() - at->began < PROCESS_SPIN_WORTH;
    e->spin = worth ? process_spin_most : e->spin / 2 > PROCESS_SPIN_LEAST ? e->spin / 2 : PROCESS_SPIN_LEAST;
}

/* What it comes to if the last look was in vain. */
static inline int process_in_vain(const process_end *e, int64_t timeout, const process_wait_state *at)
{
    if (at->slept < 0) {
        errno = at->why;
        return NEXUS_SYSTEM;
    }
    return timeout != 0 ? NEXUS_TIMEOUT : e->reach.lanes.reads ? NEXUS_EMPTY : NEXUS_FULL;
}

/* Look, and wait while the look is in vain. */
static inline int process_run(process_end *e, process_want *want, int64_t timeout)
{
    process_wait_state at = {.began = -1, .slept = 1};
    int result = process_enter_idle(e);
    if (result != NEXUS_OK)
        return result;
    while ((result = want->look(e, want)) == PROCESS_AGAIN && timeout != 0 && at.slept > 0) {
        process_publish(e); /* a receiver that sleeps beside a full ring would never make room */
        if (at.began < 0) {
            at.began = process_now();
            at.deadline = process_deadline(timeout);
        }
        process_wait(e, want->least, &at);
    }
    if (result == PROCESS_AGAIN) {
        process_publish(e);
        result = process_in_vain(e, timeout, &at);
    }
    nc_lanes_lower(&e->reach.lanes);
    if (at.began >= 0)
        process_wait_end(e, &at);
    return process_leave(e, result);
}

/* ---- sending -------------------------------------------------------------------------------------------- */

static inline int process_check_size(const process_end *e, size_t n)
{
    uint64_t largest = e->reach.capacity - NC_LOG_HEADER;
    return n == 0 ? NEXUS_ZERO_LENGTH : n > largest ? NEXUS_TOO_LARGE : NEXUS_OK;
}

static inline int process_take_room(process_end *e, size_t n, nc_record *record)
{
    nc_result result = nc_lanes_claim(&e->reach.lanes, n, record);
    return result == NC_OK ? NEXUS_OK : result == NC_FULL ? PROCESS_AGAIN : process_gone(e);
}

static inline int process_look_to_claim(process_end *e, process_want *want)
{
    int result = process_take_room(e, want->size, &e->record);
    e->claimed = result == NEXUS_OK;
    return result;
}

static inline int process_claim(nexus_end *face, size_t n, int64_t timeout, void **place)
{
    process_end *e = process_end_of(face);
    int result = process_check_size(e, n);
    process_want want = {.look = process_look_to_claim, .least = nc_log_extent(n), .size = n};
    if (result == NEXUS_OK)
        result = process_run(e, &want, timeout);
    *place = result == NEXUS_OK ? e->record.data : NULL;
    return result;
}

static inline int process_commit(nexus_end *face, size_t n, int quiet)
{
    process_end *e = process_end_of(face);
    nc_lanes *l = &e->reach.lanes;
    int result = process_enter_claimed(e);
    if (result != NEXUS_OK)
        return result;
    if (n == 0 || n > e->record.size) /* the claim stays open */
        return process_leave(e, n == 0 ? NEXUS_ZERO_LENGTH : NEXUS_TOO_LARGE);
    e->claimed = false;
    if (nc_lanes_reader_gone(l)) {
        nc_lanes_abort(l);
        return process_leave(e, process_gone(e));
    }
    nc_lanes_commit(l, &e->record, n, quiet ? memory_order_release : memory_order_seq_cst); /* P1 */
    e->quiet = quiet != 0;
    if (!quiet)
        nc_lanes_ring(l);
    return process_leave(e, NEXUS_OK);
}

/* All messages that fit; the receiver is woken once for them. */
static inline int process_look_to_send(process_end *e, process_want *want)
{
    int result = NEXUS_OK;
    for (; want->sent < want->count; want->sent++) {
        const nexus_message *message = &want->messages[want->sent];
        nc_record record;
        if ((result = process_check_size(e, message->size)) != NEXUS_OK)
            break;
        want->least = nc_log_extent(message->size);
        if ((result = process_take_room(e, message->size, &record)) != NEXUS_OK)
            break;
        memcpy(record.data, message->data, message->size);
        nc_lanes_commit(&e->reach.lanes, &record, message->size, memory_order_release); /* P1 */
        e->quiet = true;
    }
    process_publish(e);
    return result;
}

static inline int process_send_many(nexus_end *face, const nexus_message *messages, size_t count, int64_t timeout,
                                    size_t *sent)
{
    process_want want = {.look = process_look_to_send, .messages = messages, .count = count};
    int result = process_run(process_end_of(face), &want, timeout);
    *sent = want.sent;
    return result;
}

/* One message, published by its commit, with what was quiet before. */
static inline int process_look_to_send_one(process_end *e, process_want *want)
{
    nc_record record;
    int result = process_take_room(e, want->messages->size, &record);
    if (result != NEXUS_OK)
        return result;
    memcpy(record.data, want->messages->data, want->messages->size);
    nc_lanes_commit(&e->reach.lanes, &record, want->messages->size, memory_order_seq_cst); /* P1 */
    e->quiet = false;
    nc_lanes_ring(&e->reach.lanes);
    return NEXUS_OK;
}

static inline int process_send(nexus_end *face, const void *data, size_t n, int64_t timeout)
{
    process_end *e = process_end_of(face);
    nexus_message message = {data, n};
    process_want want = {.look = process_look_to_send_one, .least = nc_log_extent(n), .messages = &message, .count = 1};
    int result = process_check_size(e, n);
    return result != NEXUS_OK ? result : process_run(e, &want, timeout);
}

static inline int process_flush(nexus_end *face)
{
    process_end *e = process_end_of(face);
    int result = process_enter(e);
    if (result != NEXUS_OK)
        return result;
    process_publish(e);
    return process_leave(e, NEXUS_OK);
}

/* ---- receiving ------------------------------------------------------------------------------------------ */

static inline int process_first(process_end *e, nc_record *record)
{
    nc_lanes *l = &e->reach.lanes;
    if (nc_lanes_peek(l, record) == NC_OK)
        return NEXUS_OK;
    int fault = process_fault(e);
    return fault != NEXUS_OK ? fault : nc_lanes_over(l) ? NEXUS_DISCONNECTED : PROCESS_AGAIN;
}

/* Give it back, and wake the sender that waits for the room. */
static inline void process_take(process_end *e, const nc_record *record)
{
    nc_lanes_release(&e->reach.lanes, record, memory_order_seq_cst); /* P2 */
    nc_lanes_ring(&e->reach.lanes);
}

static inline int process_look_to_peek(process_end *e, process_want *want)
{
    (void)want;
    int result = process_first(e, &e->record);
    e->claimed = result == NEXUS_OK;
    return result;
}

static inline int process_peek(nexus_end *face, const void **data, size_t *n, int64_t timeout)
{
    process_end *e = process_end_of(face);
    process_want want = {.look = process_look_to_peek, .least = 1};
    int result = process_run(e, &want, timeout);
    *data = result == NEXUS_OK ? e->record.data : NULL;
    *n = result == NEXUS_OK ? (size_t)e->record.size : 0;
    return result;
}

static inline int process_look_to_copy(process_end *e, process_want *want)
{
    nc_record record;
    int result = process_first(e, &record);
    if (result != NEXUS_OK)
        return result;
    size_t room = want->size;
    want->size = (size_t)record.size;
    if (record.size > room)
        return NEXUS_TOO_LARGE;
    memcpy(want->buffer, record.data, (size_t)record.size);
    process_take(e, &record);
    return NEXUS_OK;
}

static inline int process_recv(nexus_end *face, void *buffer, size_t size, size_t *n, int64_t timeout)
{
    process_want want = {.look = process_look_to_copy, .least = 1, .buffer = buffer, .size = size};
    int result = process_run(process_end_of(face), &want, timeout);
    *n = result == NEXUS_OK || result == NEXUS_TOO_LARGE ? want.size : 0;
    return result;
}

/* Give the claim up, or the borrowed message back. */
static inline void process_drop_claim(process_end *e)
{
    e->claimed = false;
    if (e->reach.lanes.reads)
        process_take(e, &e->record);
    else
        nc_lanes_abort(&e->reach.lanes);
}

static inline int process_abort(nexus_end *face)
{
    process_end *e = process_end_of(face);
    int result = process_enter_claimed(e);
    if (result != NEXUS_OK)
        return result;
    process_drop_claim(e);
    return process_leave(e, NEXUS_OK);
}

/* ---- inspecting ----------------------------------------------------------------------------------------- */

static inline int process_is_disconnected(const nexus_end *face)
{
    process_end *e = process_end_of(face);
    if (process_enter(e) != NEXUS_OK)
        return 1;
    nc_lanes *l = &e->reach.lanes;
    nc_lanes_attend(l);
    return process_leave(e, e->reach.left || nc_lanes_deserted(l));
}

static inline size_t process_capacity(const nexus_end *face) { return (size_t)process_end_of(face)->reach.capacity; }

static inline size_t process_used(const nexus_end *face)
{
    process_end *e = process_end_of(face);
    if (process_enter(e) != NEXUS_OK)
        return 0;
    uint64_t used = nc_lanes_used(&e->reach.lanes);
    process_leave(e, NEXUS_OK);
    return (size_t)used;
}

static inline int process_crashed(const nexus_end *face)
{
    process_end *e = process_end_of(face);
    if (process_enter(e) != NEXUS_OK)
        return 0;
    nc_lanes *l = &e->reach.lanes;
    nc_lanes_attend(l);
    nc_lanes_over(l);
    return process_leave(e, l->crashed);
}

static inline int process_fd(const nexus_end *face)
{
    process_end *e = process_end_of(face);
    int fd = -1;
    if (process_enter(e) != NEXUS_OK)
        return fd;
    if (e->reach.fd != NULL)
        fd = e->reach.fd->fd;
    return process_leave(e, fd);
}

/* Hear what was rung so far, and raise the flags: whatever comes from now on rings. */
static inline int process_arm(nexus_end *face, uint64_t least, int nothing)
{
    process_end *e = process_end_of(face);
    int result = process_enter(e);
    if (result != NEXUS_OK)
        return result;
    process_publish(e);
    nc_lanes_attend(&e->reach.lanes);
    nc_lanes_raise(&e->reach.lanes, least);
    if (!process_has(e, least))
        return process_leave(e, nothing);
    nc_lanes_lower(&e->reach.lanes);
    return process_leave(e, NEXUS_OK);
}

/* ---- beginning and ending ------------------------------------------------------------------------------- */

static inline int process_attach(nexus_end *face)
{
    (void)face;
    return NEXUS_BUSY; /* whoever opened it is attached */
}

static inline void process_detach(nexus_end *face)
{
    process_end *e = process_end_of(face);
    nc_lock_enter(&e->reach.lanes.lock);
    if (!e->reach.forked) {
        if (e->claimed)
            process_drop_claim(e);
        process_publish(e);
    }
    nc_lanes_leave(&e->reach.lanes);
    nc_lock_exit(&e->reach.lanes.lock);
    e->reach.lanes.owner->end(&e->reach.lanes);
    free(e);
}

static const nexus_calls process_calls = {
    .attach = process_attach,
    .detach = process_detach,
    .claim = process_claim,
    .commit = process_commit,
    .abort = process_abort,
    .send = process_send,
    .send_many = process_send_many,
    .flush = process_flush,
    .peek = process_peek,
    .release = process_abort,
    .recv = process_recv,
    .is_disconnected = process_is_disconnected,
    .capacity = process_capacity,
    .used = process_used,
};

/* Nothing is open yet, and its capacity is not known.  NULL without memory, with errno. */
static inline process_end *process_end_new(bool reads)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, process_watch);
    process_end *e = calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    e->face.magic = reads ? NEXUS_RECEIVER_MAGIC : NEXUS_SENDER_MAGIC;
    e->face.layout = NEXUS_LAYOUT;
    e->face.calls_size = sizeof process_calls;
    e->face.calls = &process_calls;
    e->spin = PROCESS_SPIN_LEAST;
    os_reach_begin(&e->reach, &process_ends, reads, true, 0);
    return e;
}

/* The end, if that is the result of opening it; else it is freed, with all that is open of it, and this is NULL. */
static inline process_end *process_opened(process_end *e, int result)
{
    int why = errno;
    if (result == NEXUS_OK || e == NULL)
        return e;
    process_detach(&e->face);
    errno = why;
    return NULL;
}

/* What a refusal comes to. */
static inline int process_told(os_result result)
{
    return result == OS_OK       ? NEXUS_OK
           : result == OS_AGAIN  ? NEXUS_FULL
           : result == OS_SYSTEM ? NEXUS_SYSTEM
                                 : NEXUS_BAD_PEER;
}

#endif
#endif
