/* nexus_processes.h: send into, and receive from, a channel of bytes whose other end is in another process.
 *
 * The program needs no Python, nor the nexus_channels package at run time: it compiles nexus_processes.c with its own
 * sources, and links nothing but the C library (with -pthread, where that wants it).  Linux.
 *
 * A program that sends what it reads to whoever listens at a path:
 *
 *     nexus_sender *tx;
 *     if (nexus_connect("/run/user/1000/feed", NEXUS_FOREVER, &tx) != NEXUS_OK) ...
 *     while (read_line(&line) && nexus_send(tx, line.text, line.size, NEXUS_FOREVER) == NEXUS_OK) ...
 *     nexus_detach_sender(tx);
 *
 * and the receiver, in Python or in C:
 *
 *     with mpsc_bytes.listen("/run/user/1000/feed", 1 << 20) as listener:
 *         for claim in listener.receiver: ...
 *
 * What is opened here is an ordinary nexus_sender or nexus_receiver: all calls of nexus_channels.h are for it.
 *
 * Rules, besides those of nexus_channels.h
 *  - One end is used by one thread at a time; give each thread a connection of its own.
 *  - Detaching closes the end: once, and it is not to be used any more.  A process that returns from main() or calls
 *    exit() closes its ends.  One that is killed, or calls _exit(), does not; to the other side that is a crash.
 *  - What the other side had sent before it closed or died is received first, and then NEXUS_DISCONNECTED.
 *  - After fork() the ends stay the parent's.  In the child every call answers NEXUS_FORKED; detaching frees them.
 *  - Opening allocates, and a receiver allocates when a sender comes.  All other calls allocate nothing.  Each takes a
 *    lock that nobody else waits for.  Sending and receiving make no system call while the other side is awake.
 *  - The other process is not believed: whatever it writes, this one reads and writes nothing out of place, and no call
 *    hangs that has a time limit.  Its messages may be anything, and may change while you look at them in place.
 *    Copy, then check.
 *  - No call raises SIGPIPE.  A signal does not end a wait.
 *  - After NEXUS_SYSTEM, errno tells what the system refused.
 */
#ifndef NEXUS_PROCESSES_H
#define NEXUS_PROCESSES_H

#include "nexus_channels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- opening: from any thread; *tx or *rx is NULL unless NEXUS_OK --------------------------------------- */

/* Connect to the channel whose receiver listens at `path`, as connect(path) in Python; to one for many senders or for
 * one.  Waits up to `timeout` ns until the receiver waits for a message, or looks for one.
 * NEXUS_NO_RECEIVER (nobody listens there), NEXUS_TIMEOUT, NEXUS_TAKEN (the channel is for one sender, which is there),
 * NEXUS_FOREIGN, NEXUS_BAD_VERSION, NEXUS_BAD_PEER (whoever listens is no receiver), NEXUS_SYSTEM. */
int nexus_connect(const char *path, int64_t timeout, nexus_sender **tx);

/* Open a channel for senders that come by `path`, as listen(path, capacity) in Python; for many senders, or, if `many`
 * is 0, for one at a time.  Each sender has `capacity` bytes, rounded up to a power of two, and to a page at
 * least.  Senders come in while this receiver waits or looks.  As they may come at any time, the end is not seen before
 * nexus_stop_listening().  Detaching removes the socket from the path.
 * NEXUS_TAKEN (somebody listens there), NEXUS_TOO_LARGE, NEXUS_SYSTEM (EEXIST: there is a file that is no socket). */
int nexus_listen(const char *path, size_t capacity, int many, nexus_receiver **rx);

/* The end that `ticket.for_subprocess()` gave in Python, and whose descriptors this process was started with: pass the
 * text on as an argument, and pass_fds to subprocess.Popen().
 * NEXUS_BAD_HANDLE: it is the other end's text, and still good.  NEXUS_BAD_TICKET: it is no such text, it was attached
 * before, or its descriptors were not passed on.  NEXUS_BAD_PEER, NEXUS_SYSTEM; NEXUS_FULL: so many senders wait for
 * the receiver to look that no more can be told of; try again. */
int nexus_inherit_sender(const char *text, nexus_sender **tx);
int nexus_inherit_receiver(const char *text, nexus_receiver **rx);

/* ---- ends between processes alone: others are not to be passed here -------------------------------------- */

/* The path is free again, and no further sender can come by it; those that have come go on.  Not listening: nothing
 * happens.  NEXUS_FORKED. */
int nexus_stop_listening(nexus_receiver *rx);

/* 1 when the other side is gone, and has not closed: the receiver's process has died; or, of the senders' processes,
 * any that there ever was.  Else 0.  Asked after NEXUS_DISCONNECTED, it tells a crash from an orderly end. */
int nexus_sender_crashed(const nexus_sender *tx);
int nexus_receiver_crashed(const nexus_receiver *rx);

/* For an event loop.  The descriptor that can be read (POLLIN) when there may be something to do; it is this end's, to
 * be polled and nothing else, until it is detached.  -1 after a fork. */
int nexus_sender_fd(const nexus_sender *tx);
int nexus_receiver_fd(const nexus_receiver *rx);

/* Before each poll of that descriptor, and once nothing could be done: NEXUS_EMPTY, and it becomes readable as soon as
 * there is a message, a sender that comes, or the end.  NEXUS_OK: there is something already, so do not poll.  Any
 * other call of this end takes what the descriptor tells, also one that asks whether the other side is gone: watch
 * again after it.  NEXUS_FORKED. */
int nexus_watch_receiver(nexus_receiver *rx);

/* The same for room for a message of n bytes: NEXUS_FULL, or NEXUS_OK.  NEXUS_TOO_LARGE, NEXUS_ZERO_LENGTH. */
int nexus_watch_sender(nexus_sender *tx, size_t n);

#ifdef __cplusplus
}
#endif

#endif
