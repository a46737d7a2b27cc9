/* os_bell.h: how two processes wake each other, and how one learns that the other is gone: a connected socket of
 * theirs.  Touches nc_base.h and system calls; knows nothing of Python, allocates nothing, prints nothing.
 *
 *     ring    one byte to the other end; never waits, whatever the other end does
 *     hear    take what was rung; never waits
 *     sleep   until there is a ring, or the end of file: all copies of the other end have been closed
 *
 * The kernel closes the sockets of a process however it ends, so the end of file tells a death, and needs no number of
 * a process and no clock.  What a process stored before it rang, or before it died, is seen by whoever heard that (P5).
 *
 * Why not an eventfd: its two holders share one open file.  One of them could make it blocking and fill it up, and the
 * other would hang in write(2).  A socket has an open file for each end, and a flag for each call that says not to
 * wait. It costs one descriptor instead of three, and a recv(2) that sleeps hears ring and death at once.
 *
 * The seam, for the other systems, is these three calls and os_result; what stands above (os_block.h, os_hello.h,
 * os_lane.h) wants memory and descriptors besides.
 *
 *     macOS     has all that is here, but for MSG_NOSIGNAL: set SO_NOSIGPIPE on the socket.
 *     Windows   an auto-reset event for each direction, duplicated into the other process, and that process's
 *               handle, which is signalled when it ends.  Ring is SetEvent, sleep is WaitForMultipleObjects.
 *               The guest of a hostile host could then not trust the handles that it was given.  A named pipe
 *               with overlapped reads has an end for each side.
 */
#ifndef OS_BELL_H
#define OS_BELL_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#error "define _GNU_SOURCE before the first header"
#endif

#include "nc_base.h"

/* Words of the block are shared by processes, so their atomics must not be made of a lock of one process. */
#if defined(__linux__) && defined(ATOMIC_LLONG_LOCK_FREE) && ATOMIC_LLONG_LOCK_FREE == 2
#define OS_HAS_LANES 1
#else
#define OS_HAS_LANES 0
#endif

#if OS_HAS_LANES

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>

/* What came of a call.  The numbers are sent to the other process (os_hello.h), so they stay as they are. */
typedef enum os_result {
    OS_OK = 0,
    OS_AGAIN = 1,         /* not now: it would have to wait */
    OS_CLOSED = 2,        /* the other side left in good order */
    OS_CRASHED = 3,       /* the other side is gone, and had not closed */
    OS_GARBLED = 4,       /* the other side wrote what no honest one writes */
    OS_SYSTEM = 5,        /* the system refused: errno tells why */
    OS_NO_HELLO = 6,      /* whoever is at the other end does not speak this protocol */
    OS_WRONG_VERSION = 7, /* of the protocol, or of the block's layout */
    OS_WRONG_ROLE = 8,    /* both want to write, or both to read */
    OS_WRONG_SIZE = 9,    /* the block is not as large as was said, or the wish is larger than is allowed */
    OS_NO_SEALS = 10,     /* the block could be cut off under us */
    OS_NO_LANE = 11,      /* the block holds no lane */
    OS_STRANGER = 12,     /* a process of another user */
} os_result;

/* Have the kernel refuse descriptors that the other end sends, from Linux 6.16 on.  Whoever hears a ring drops what
 * came with it; the last use of a file of somebody else's could keep us waiting there, as that of a socket that
 * lingers. */
static inline void os_bell_refuse_descriptors(int socket)
{
#if defined(__hppa__) || defined(__sparc__)
    (void)socket; /* another number */
#else
    enum { PASS_RIGHTS = 83 };
    int no = 0;
    setsockopt(socket, SOL_SOCKET, PASS_RIGHTS, &no, sizeof no); /* an older kernel knows no such option */
#endif
}

/* Wake the other end.  If the socket is full, the other end has rings to hear already; if it is gone, nobody sleeps. */
static inline void os_bell_ring(int socket)
{
    NC_STEP("bell_ring: about to ring");
    while (send(socket, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

/* What came of a recv(2): EOF is told as 0, and by a reset if something lay there unread. */
static inline os_result os_bell_heard(ssize_t n)
{
    if (n > 0)
        return OS_OK;
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? OS_AGAIN : OS_CRASHED;
}

/* Take rings, many at once.  OS_OK, OS_AGAIN if there were none, or OS_CRASHED at the end of file; whether that was a
 * crash is for nc_lane_peer() to say. */
static inline os_result os_bell_hear(int socket)
{
    char rings[256];
    ssize_t n;
    while ((n = recv(socket, rings, sizeof rings, MSG_DONTWAIT)) < 0 && errno == EINTR)
        ;
    return os_bell_heard(n);
}

/* Sleep until it rings, for `timeout` milliseconds at most, or without limit if that is negative.  As os_bell_hear(); a
 * signal ends it with OS_AGAIN.  Without a limit a recv(2) that waits is all; it does not where somebody has made the
 * socket non-blocking. */
static inline os_result os_bell_sleep(int socket, int timeout)
{
    char rings[256];
    NC_STEP("bell_sleep: about to sleep");
    if (timeout < 0) {
        ssize_t n = recv(socket, rings, sizeof rings, 0);
        if (n < 0 && errno == EINTR)
            return OS_AGAIN;
        if (n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
            return os_bell_heard(n);
    }
    struct pollfd ready = {.fd = socket, .events = POLLIN};
    return poll(&ready, 1, timeout) > 0 ? os_bell_hear(socket) : OS_AGAIN;
}

#endif
#endif
