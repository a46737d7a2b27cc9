/* nexus_channels.h: send into, and receive from, a Python channel of bytes from native threads.
 *
 * No GIL, no Python object and no registration: a thread that Python has never heard of may call everything here.
 * C11 and C++17, header-only; nothing to link with, and nothing of Python to include.
 *
 * Python opens the channel and passes the address of one end (an int, a capsule or a cffi pointer):
 *
 *     tx, rx = nexus_channels.mpsc_bytes.channel(1 << 20)
 *     with tx.native() as end:
 *         start_my_thread(end.address)
 *         async for claim in rx: ...
 *
 * and the thread attaches to it, sends, and detaches:
 *
 *     nexus_sender *tx;
 *     if (nexus_attach_sender((const void *)address, &tx) != NEXUS_OK) ...
 *     while (nexus_send(tx, &tick, sizeof tick, NEXUS_FOREVER) == NEXUS_OK) ...
 *     nexus_detach_sender(tx);
 *
 * Rules
 *  - The address is good while Python keeps the native end (or its capsule).  What was attached stays good until it
 *    is detached, whatever Python does meanwhile: a call then answers NEXUS_DISCONNECTED, also when the interpreter
 *    has gone.
 *  - One attached end is used by one thread at a time; give each thread an end of its own.
 *  - Every call answers a nexus_result; NEXUS_OK is 0.  When it is anything else, nothing was sent or taken.
 *  - Timeouts are nanoseconds of CLOCK_MONOTONIC: 0 tries, less than 0 (NEXUS_FOREVER) waits for ever.  A signal does
 *    not end a wait; closing the end or the channel does.
 *  - No call allocates; but one that receives from other processes does when a further one has begun to send.  Those
 *    that cannot wait take a lock only when somebody is waiting, for a few instructions, and wake a sleeping event loop
 *    by one write(2).  Of a channel between processes each call takes a lock, for a few instructions.
 *  - A thread must not be cancelled or killed inside a call.  One that dies between two calls does no harm, unless it
 *    left a claim open: see close(abandon=True) in Python.
 */
#ifndef NEXUS_CHANNELS_H
#define NEXUS_CHANNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What every call answers. */
typedef enum nexus_result {
    NEXUS_OK = 0,
    NEXUS_FULL,         /* no room now, or only room that waiting calls have been promised */
    NEXUS_EMPTY,        /* no message now */
    NEXUS_TIMEOUT,      /* the time is up */
    NEXUS_DISCONNECTED, /* the other side is gone (and everything was received), or Python closed this end */
    NEXUS_TOO_LARGE,    /* more than nexus_max_message_size, than was claimed, or than the buffer holds */
    NEXUS_ZERO_LENGTH,  /* a message has at least one byte */
    NEXUS_BUSY,         /* a claim is open, or (attach) somebody is attached */
    NEXUS_NO_CLAIM,     /* no claim is open */
    NEXUS_BAD_HANDLE,   /* not the address of an end of this side */
    NEXUS_BAD_VERSION,  /* this header and the installed nexus_channels do not fit together: compile again */
    NEXUS_FORKED,       /* the end belongs to the process that this one was forked from */
    /* of channels between processes alone; those up to NEXUS_FOREIGN, and NEXUS_BAD_TICKET, of nexus_processes.h */
    NEXUS_NO_RECEIVER, /* nobody listens at the path */
    NEXUS_TAKEN, /* the channel has its one sender already, or somebody listens at the path already */
    NEXUS_FOREIGN, /* the other process is another user's */
    NEXUS_BAD_PEER, /* another process wrote what no nexus_channels writes; what it had opened has ended; told once */
    NEXUS_BAD_TICKET, /* not a text of for_subprocess(), attached before, or its descriptors were not passed on */
    NEXUS_SYSTEM /* the system refused: errno tells why */
} nexus_result;

#define NEXUS_FOREVER INT64_C(-1)

/* The names under which Python's capsules carry the address. */
#define NEXUS_SENDER_CAPSULE "nexus_channels.sender"
#define NEXUS_RECEIVER_CAPSULE "nexus_channels.receiver"

/* A message for nexus_send_many. */
typedef struct nexus_message {
    const void *data;
    size_t size; /* bytes */
} nexus_message;

/* ---- what an address points to: for this header only -------------------------------------------------- */

#define NEXUS_SENDER_MAGIC UINT64_C(0x315854737578656e) /* "nexusTX1" */
#define NEXUS_RECEIVER_MAGIC UINT64_C(0x315852737578656e) /* "nexusRX1" */
#define NEXUS_LAYOUT 1 /* of the two structures below */

typedef struct nexus_end nexus_end;

/* Later versions of a layout add functions at the end. */
typedef struct nexus_calls {
    int (*attach)(nexus_end *);
    void (*detach)(nexus_end *);
    int (*claim)(nexus_end *, size_t, int64_t, void **);
    int (*commit)(nexus_end *, size_t, int);
    int (*abort)(nexus_end *);
    int (*send)(nexus_end *, const void *, size_t, int64_t);
    int (*send_many)(nexus_end *, const nexus_message *, size_t, int64_t, size_t *);
    int (*flush)(nexus_end *);
    int (*peek)(nexus_end *, const void **, size_t *, int64_t);
    int (*release)(nexus_end *);
    int (*recv)(nexus_end *, void *, size_t, size_t *, int64_t);
    int (*is_disconnected)(const nexus_end *);
    size_t (*capacity)(const nexus_end *);
    size_t (*used)(const nexus_end *);
} nexus_calls;

struct nexus_end {
    uint64_t magic;
    uint32_t layout;
    uint32_t calls_size; /* bytes of *calls */
    const nexus_calls *calls;
};

/* An attached end: struct types of their own, so that a compiler tells them apart. */
typedef struct nexus_sender {
    nexus_end end;
} nexus_sender;
typedef struct nexus_receiver {
    nexus_end end;
} nexus_receiver;

static inline int nexus_attach_end(const void *address, uint64_t magic, nexus_end **end)
{
    const nexus_end *found = (const nexus_end *)address;
    *end = NULL;
    if (found == NULL || found->magic != magic)
        return NEXUS_BAD_HANDLE;
    if (found->layout != NEXUS_LAYOUT || found->calls_size < sizeof(nexus_calls))
        return NEXUS_BAD_VERSION;
    int result = found->calls->attach((nexus_end *)(uintptr_t)address);
    if (result == NEXUS_OK)
        *end = (nexus_end *)(uintptr_t)address;
    return result;
}

/* ---- attaching ------------------------------------------------------------------------------------------ */

/* What a result means, in English.  From any thread. */
static inline const char *nexus_strerror(int result)
{
    static const char *const text[] = {
        "no error",
        "no room now",
        "no message now",
        "the time is up",
        "the other side is gone, or this end was closed",
        "the message is too large",
        "a message has at least one byte",
        "a claim is open, or somebody is attached",
        "no claim is open",
        "not the address of an end of this side",
        "compiled for another version of nexus_channels",
        "the end belongs to the parent process",
        "nobody listens at this path",
        "the channel has its one sender already, or somebody listens at this path already",
        "the other process is another user's",
        "another process wrote what no nexus_channels writes",
        "no ticket that can be attached here, or it was attached before",
        "the system refused, see errno",
    };
    return result >= 0 && (size_t)result < sizeof text / sizeof text[0] ? text[result] : "unknown result";
}

/* Attach this thread to the sending end at `address`; detach when done.  *tx is NULL unless NEXUS_OK.
 * NEXUS_BAD_HANDLE, NEXUS_BAD_VERSION, NEXUS_BUSY (somebody is attached), NEXUS_DISCONNECTED (it was closed),
 * NEXUS_FORKED.  Any thread, while Python keeps the end. */
static inline int nexus_attach_sender(const void *address, nexus_sender **tx)
{
    nexus_end *end;
    int result = nexus_attach_end(address, NEXUS_SENDER_MAGIC, &end);
    *tx = (nexus_sender *)end;
    return result;
}

/* The same for a receiving end. */
static inline int nexus_attach_receiver(const void *address, nexus_receiver **rx)
{
    nexus_end *end;
    int result = nexus_attach_end(address, NEXUS_RECEIVER_MAGIC, &end);
    *rx = (nexus_receiver *)end;
    return result;
}

/* Detach: an open claim is aborted, and for what was committed quietly the receiver is woken.  A thread may attach
 * again until Python closes the end.  Once; NULL is ignored. */
static inline void nexus_detach_sender(nexus_sender *tx)
{
    if (tx != NULL)
        tx->end.calls->detach(&tx->end);
}

/* The same for a receiving end; an open claim is released. */
static inline void nexus_detach_receiver(nexus_receiver *rx)
{
    if (rx != NULL)
        rx->end.calls->detach(&rx->end);
}

/* ---- sending: by the thread that is attached ------------------------------------------------------------- */

/* The largest message, in bytes. */
static inline size_t nexus_max_message_size(const nexus_sender *tx) { return tx->end.calls->capacity(&tx->end) - 8; }

/* Bytes of the ring in use: messages, their headers and padding; with several senders also claims.  A snapshot. */
static inline size_t nexus_used(const nexus_sender *tx) { return tx->end.calls->used(&tx->end); }

/* Send a copy of n bytes, waiting for room up to `timeout` ns.
 * NEXUS_TIMEOUT, NEXUS_DISCONNECTED, NEXUS_TOO_LARGE, NEXUS_ZERO_LENGTH, NEXUS_BUSY (a claim is open), NEXUS_FORKED;
 * NEXUS_FULL instead of NEXUS_TIMEOUT where timeout is 0. */
static inline int nexus_send(nexus_sender *tx, const void *data, size_t n, int64_t timeout)
{
    return tx->end.calls->send(&tx->end, data, n, timeout);
}

/* Send a copy of n bytes now.  Never waits.  NEXUS_FULL, and as nexus_send. */
static inline int nexus_try_send(nexus_sender *tx, const void *data, size_t n)
{
    return tx->end.calls->send(&tx->end, data, n, 0);
}

/* Send copies of `count` messages in order.  The receiver is woken once at the end, and before each wait for room.
 * *sent tells how many were sent, also when the result is not NEXUS_OK.  Errors as nexus_send; a message of a bad size
 * is not sent, nor those after it. */
static inline int nexus_send_many(nexus_sender *tx, const nexus_message *messages, size_t count, int64_t timeout,
                                  size_t *sent)
{
    return tx->end.calls->send_many(&tx->end, messages, count, timeout, sent);
}

/* Reserve n bytes to write into, aligned to 8, waiting for room up to `timeout` ns; then commit or abort.  One claim
 * may be open at a time.  With several producers, the receiver does not get what others send after an open claim until
 * that claim ends.  Errors as nexus_send. */
static inline int nexus_claim(nexus_sender *tx, size_t n, int64_t timeout, void **place)
{
    return tx->end.calls->claim(&tx->end, n, timeout, place);
}

/* The same without waiting. */
static inline int nexus_try_claim(nexus_sender *tx, size_t n, void **place)
{
    return tx->end.calls->claim(&tx->end, n, 0, place);
}

/* Send the first n bytes of what was claimed.  The claim is over, unless NEXUS_TOO_LARGE or NEXUS_ZERO_LENGTH.
 * NEXUS_DISCONNECTED: the receiver is gone.  NEXUS_NO_CLAIM, NEXUS_FORKED. */
static inline int nexus_commit(nexus_sender *tx, size_t n) { return tx->end.calls->commit(&tx->end, n, 0); }

/* The same without waking the receiver: for bursts.  A receiver that is awake sees the message when it looks.  One that
 * sleeps is woken by the next nexus_flush, nexus_commit, send, wait for room, or detach. */
static inline int nexus_commit_quiet(nexus_sender *tx, size_t n) { return tx->end.calls->commit(&tx->end, n, 1); }

/* Wake a receiver that sleeps, for all that was committed quietly.  NEXUS_FORKED. */
static inline int nexus_flush(nexus_sender *tx) { return tx->end.calls->flush(&tx->end); }

/* Give the claim up; nothing is sent.  NEXUS_NO_CLAIM, NEXUS_FORKED. */
static inline int nexus_abort(nexus_sender *tx) { return tx->end.calls->abort(&tx->end); }

/* 1 when the receiver is gone or this end was closed, else 0. */
static inline int nexus_sender_is_disconnected(const nexus_sender *tx)
{
    return tx->end.calls->is_disconnected(&tx->end);
}

/* ---- receiving: by the thread that is attached ----------------------------------------------------------- */

/* Borrow the next message, waiting for one up to `timeout` ns: *data, aligned to 8, and its size *n are good until
 * nexus_release.  NEXUS_TIMEOUT (NEXUS_EMPTY where timeout is 0), NEXUS_DISCONNECTED (every sender is gone and all was
 * received), NEXUS_BUSY (a claim is open), NEXUS_FORKED.  Between processes NEXUS_BAD_PEER, once, if a
 * process wrote what it should not, and its messages have ended; or NEXUS_SYSTEM, once, if a new sender cannot come:
 * errno tells why. */
static inline int nexus_peek(nexus_receiver *rx, const void **data, size_t *n, int64_t timeout)
{
    return rx->end.calls->peek(&rx->end, data, n, timeout);
}

/* The same without waiting. */
static inline int nexus_try_peek(nexus_receiver *rx, const void **data, size_t *n)
{
    return rx->end.calls->peek(&rx->end, data, n, 0);
}

/* Give back the message that was borrowed.  NEXUS_NO_CLAIM, NEXUS_FORKED. */
static inline int nexus_release(nexus_receiver *rx) { return rx->end.calls->release(&rx->end); }

/* Copy the next message into a buffer of `size` bytes, waiting for one up to `timeout` ns; *n is its size.
 * NEXUS_TOO_LARGE: it has *n bytes, and stays.  Else as nexus_peek. */
static inline int nexus_recv(nexus_receiver *rx, void *buffer, size_t size, size_t *n, int64_t timeout)
{
    return rx->end.calls->recv(&rx->end, buffer, size, n, timeout);
}

/* The same without waiting. */
static inline int nexus_try_recv(nexus_receiver *rx, void *buffer, size_t size, size_t *n)
{
    return rx->end.calls->recv(&rx->end, buffer, size, n, 0);
}

/* 1 when every sender is gone, whatever is still to be received, or this end was closed; else 0. */
static inline int nexus_receiver_is_disconnected(const nexus_receiver *rx)
{
    return rx->end.calls->is_disconnected(&rx->end);
}

#ifdef __cplusplus
}
#endif

#endif
