/* os_lobby.h: how senders come by lanes that nobody hosts: each makes its own and sends it to the receiver.  Touches
 * os_lane.h, what stands below that, and system calls.
 *
 *     sender, in any process                                       receiver
 *     holds a copy of the door                                     holds the lobby
 *       |  os_lobby_make: a socketpair, the memory                   |
 *       |-- visit: numbers, the reader's end, the memory ----------->|   os_lobby_see: whole? two descriptors?
 *       |  it writes at once                                         |   os_lobby_take: user, seals, size, layout
 *       |<- - - - - - - - - rings on the lane's own socket - - - - ->|   it reads
 *
 * Lobby and door are the two ends of one socket that keeps messages apart.  All copies of the door are one open file,
 * and once all are closed the lobby hears the end of file, behind the last visit: nobody can come any more.  Once the
 * lobby is closed everywhere, so are the visits in it: their senders hear the end of file on their lanes, and whoever
 * comes to the door is told.
 *
 * A visit is looked at before it is taken out of the lobby: MSG_PEEK gives copies of its descriptors.  So a process
 * that has no numbers left for them, or no memory for the lane, leaves the visit where it is.  To ask first whether two
 * numbers are free would not do, as other threads take numbers at any time, and the kernel drops a descriptor for which
 * it finds none.
 *
 * The receiver believes a visit as little as a guest believes a host (os_block.h).  One thread at a time hears a lobby.
 */
#ifndef OS_LOBBY_H
#define OS_LOBBY_H

#include "os_lane.h"

#if OS_HAS_LANES

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define OS_VISIT_MAGIC UINT32_C(0x6e637669) /* "ncvi" */
#define OS_VISIT_VERSION UINT32_C(1)

/* A lane on its way to its reader. */
typedef struct os_visit {
    uint64_t capacity; /* bytes */
    uint64_t id;       /* the lane's, at random, given by the sender */
    /* 0, or the id of another lane: this one is not read before that one has been read up to `after_pos`.  Whether
     * there is such a lane, is for the receiver to find out. */
    uint64_t after, after_pos;
    int socket; /* the reader's end */
    int memory;
} os_visit;

typedef struct os_visit_message {
    uint32_t magic, version; /* first in every version, so that a mismatch can be told */
    uint64_t reserved;
    uint64_t capacity, id, after, after_pos;
} os_visit_message;

_Static_assert(sizeof(os_visit_message) == 48, "the same for 32 and for 64 bits");
_Static_assert(offsetof(os_visit_message, capacity) == 16, "the same for 32 and for 64 bits");

/* How often a visit is looked at whose descriptors do not come although there are numbers for them.  Other threads may
 * have had these numbers meanwhile; so often in a row it is the kernel that does not let them through. */
enum { OS_VISIT_FDS = 2, OS_LOOKS_MOST = 4096 };

/* What came with a message, and what of it was kept. */
typedef struct os_visitor {
    os_visit_message says;
    size_t size; /* of the message */
    int fds[OS_VISIT_FDS]; /* the first two */
    int came; /* descriptors; those beyond the first two have been closed */
    bool cut; /* not all came */
} os_visitor;

/* ---- the sender ---------------------------------------------------------------------------------------- */

/* Both are closed on exec.  The lobby is told who sends: an empty message, which anybody with a door can send, then
 * differs from the end of file. */
static inline os_result os_lobby_open(int *lobby, int *door)
{
    int pair[2], yes = 1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return OS_SYSTEM;
    *lobby = pair[0];
    *door = pair[1];
    if (setsockopt(*lobby, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) == 0)
        return OS_OK;
    int why = errno;
    close(*lobby);
    close(*door);
    errno = why;
    return OS_SYSTEM;
}

/* Make a lane of `capacity`, as os_block_round() gives it, to write to.  Its reader is away until it takes the visit.
 * visit->socket and visit->memory are to be sent, and then to be closed; the other numbers are the caller's to set.  If
 * this is not OS_OK, nothing is left open. */
static inline os_result os_lobby_make(os_lane *lane, uint64_t capacity, os_visit *visit)
{
    int pair[2];
    *lane = (os_lane){.socket = -1};
    visit->socket = visit->memory = -1;
    visit->capacity = capacity;
    if (capacity == 0 || capacity != os_block_round(capacity))
        return OS_WRONG_SIZE;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return OS_SYSTEM;
    NC_STEP("lobby_make: paired, no memory");
    os_result result = os_block_make(&lane->map, capacity, true, &visit->memory);
    if (result != OS_OK) {
        int why = errno;
        close(pair[0]);
        close(pair[1]);
        visit->memory = -1;
        errno = why;
        return result;
    }
    nc_lane_await_reader(lane->map.block);
    os_bell_refuse_descriptors(pair[0]);
    lane->socket = pair[0];
    visit->socket = pair[1];
    NC_STEP("lobby_make: made, not sent");
    return OS_OK;
}

/* Why nothing could be sent.  That nobody holds the lobby has several names: by whether there was something in it, and
 * whether it is being closed just now. */
static inline os_result os_lobby_refused(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return OS_AGAIN;
    bool gone = errno == EPIPE || errno == ECONNRESET || errno == ECONNREFUSED || errno == ENOTCONN;
    return gone ? OS_CRASHED : OS_SYSTEM;
}

/* Send the lane to its reader, without waiting.  OS_AGAIN: the lobby is full; poll(2) tells when the door can be
 * written to.  OS_CRASHED: nobody holds the lobby any more.  OS_SYSTEM with ETOOMANYREFS: this user has as many
 * descriptors on their way as it may have open.  The descriptors stay the caller's. */
static inline os_result os_lobby_send(int door, const os_visit *visit)
{
    union { /* room for two descriptors, aligned as the kernel wants it */
        struct cmsghdr align;
        char bytes[CMSG_SPACE(OS_VISIT_FDS * sizeof(int))];
    } control;
    os_visit_message says = {.magic = OS_VISIT_MAGIC,
                             .version = OS_VISIT_VERSION,
                             .capacity = visit->capacity,
                             .id = visit->id,
                             .after = visit->after,
                             .after_pos = visit->after_pos};
    int fds[OS_VISIT_FDS] = {visit->socket, visit->memory};
    struct iovec part = {.iov_base = &says, .iov_len = sizeof says};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memset(&control, 0, sizeof control);
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(c), fds, sizeof fds);
    ssize_t n;
    while ((n = sendmsg(door, &message, MSG_DONTWAIT | MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    NC_STEP("lobby_send: sent, not closed");
    return n >= 0 ? OS_OK : os_lobby_refused();
}

/* ---- the receiver -------------------------------------------------------------------------------------- */

/* CMSG_NXTHDR(), which compares signed with unsigned where musl is the C library. */
static inline struct cmsghdr *os_lobby_next(struct msghdr *message, struct cmsghdr *c)
{
    char *begin = (char *)message->msg_control;
    size_t at = (size_t)((char *)c - begin) + CMSG_ALIGN(c->cmsg_len);
    return at + sizeof *c <= message->msg_controllen ? (struct cmsghdr *)(void *)(begin + at) : NULL;
}

/* Keep the first two descriptors that came; close all others. */
static inline void os_lobby_collect(os_visitor *v, struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = os_lobby_next(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++, v->came++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (v->came < OS_VISIT_FDS)
                v->fds[v->came] = fd;
            else
                close(fd);
        }
    }
}

static inline void os_lobby_close_all(os_visitor *v)
{
    for (int i = 0; i < v->came && i < OS_VISIT_FDS; i++)
        close(v->fds[i]);
    v->came = 0;
}

/* See what comes next, and leave it in the lobby. */
static inline os_result os_lobby_look(int lobby, os_visitor *v)
{
    union { /* room for who sends, and for two descriptors */
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(OS_VISIT_FDS * sizeof(int))];
    } control;
    *v = (os_visitor){.came = 0};
    struct iovec part = {.iov_base = &v->says, .iov_len = sizeof v->says};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    /* ECONNRESET is told once, before what came: the other one has gone, and had not read all that it was sent */
    while ((n = recvmsg(lobby, &message, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) < 0 &&
           (errno == EINTR || errno == ECONNRESET))
        ;
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? OS_AGAIN : OS_SYSTEM;
    if (n == 0 && message.msg_controllen == 0)
        return OS_CRASHED; /* the end of file: nobody sends it */
    v->size = (size_t)n;
    v->cut = message.msg_flags & MSG_CTRUNC;
    os_lobby_collect(v, &message);
    return OS_OK;
}

/* Are there numbers for two more descriptors?  errno is EMFILE, for when there are not. */
static inline bool os_lobby_has_room(int lobby)
{
    int one = fcntl(lobby, F_DUPFD_CLOEXEC, 0), two = one < 0 ? -1 : fcntl(lobby, F_DUPFD_CLOEXEC, 0);
    if (one >= 0)
        close(one);
    if (two >= 0)
        close(two);
    errno = EMFILE;
    return two >= 0;
}

/* Take the first message out; a descriptor that it carries still is closed by that, and needs no number.  False: there
 * is none, or an empty one. */
static inline bool os_lobby_drop(int lobby)
{
    char byte;
    ssize_t n;
    while ((n = recv(lobby, &byte, sizeof byte, MSG_DONTWAIT)) < 0 && (errno == EINTR || errno == ECONNRESET))
        ;
    return n > 0;
}

static inline bool os_lobby_is_visit(const os_visitor *v)
{
    return v->size == sizeof v->says && v->says.magic == OS_VISIT_MAGIC && v->says.version == OS_VISIT_VERSION &&
           v->came == OS_VISIT_FDS && !v->cut;
}

/* See the next visit, without waiting, and leave it in the lobby until os_lobby_drop().  OS_OK: the descriptors are
 * copies, and the caller's; nothing else of it has been checked.  OS_AGAIN: there is none.  OS_CRASHED: there is none,
 * and every door is closed.  OS_SYSTEM with EMFILE: two numbers for descriptors are wanted.  OS_NO_HELLO: something
 * else was there, and is gone. */
static inline os_result os_lobby_see(int lobby, os_visit *visit)
{
    os_visitor v;
    for (int looks = 1;; looks++) {
        os_result result = os_lobby_look(lobby, &v);
        if (result != OS_OK)
            return result;
        if (!v.cut || v.came >= OS_VISIT_FDS || looks == OS_LOOKS_MOST)
            break;
        os_lobby_close_all(&v);
        if (!os_lobby_has_room(lobby))
            return OS_SYSTEM;
    }
    NC_STEP("lobby_see: seen, still there");
    if (!os_lobby_is_visit(&v)) {
        os_lobby_drop(lobby);
        os_lobby_close_all(&v);
        return OS_NO_HELLO;
    }
    *visit = (os_visit){.capacity = v.says.capacity,
                        .id = v.says.id,
                        .after = v.says.after,
                        .after_pos = v.says.after_pos,
                        .socket = v.fds[0],
                        .memory = v.fds[1]};
    return OS_OK;
}

/* A unix socket of that type? */
static inline bool os_is_socket(int fd, int of_type)
{
    int domain = 0, type = 0;
    socklen_t size = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && domain == AF_UNIX && type == of_type;
}

/* A socket as os_lobby_make() makes it, by a process of this user. */
static inline os_result os_lobby_check_socket(int socket)
{
    return os_is_socket(socket, SOCK_STREAM) ? os_hello_check_user(socket, geteuid()) : OS_NO_HELLO;
}

/* Arrive at the lane that was heard, as its reader; `capacity` is what was agreed on.  The socket is the lane's if this
 * is OS_OK; else it is still the caller's, to close.  visit->memory stays the caller's, who may want it to hand the
 * lane on: nc_lane_go_away(), and then the same visit once more. */
static inline os_result os_lobby_take(os_lane *lane, const os_visit *visit, uint64_t capacity)
{
    *lane = (os_lane){.socket = visit->socket};
    os_result result = os_lobby_check_socket(visit->socket);
    if (result == OS_OK && visit->capacity != capacity)
        result = OS_WRONG_SIZE;
    if (result == OS_OK)
        result = os_block_open(&lane->map, visit->memory, capacity, false);
    if (result != OS_OK)
        return result;
    os_bell_refuse_descriptors(visit->socket);
    NC_STEP("lobby_take: mapped, not here");
    nc_lane_arrive(&lane->map.block->reader);
    NC_STEP("lobby_take: here");
    return OS_OK;
}

#endif
#endif
