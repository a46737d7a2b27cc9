/* os_hello.h: how two processes agree on a lane, over a connected unix socket.  Touches os_bell.h and system calls.
 *
 *     guest                                                  host: made the socket, makes the memory
 *       |-- hello: magic, version, role, wished capacity ------>|   of which user? which version? how much?
 *       |<- answer: magic, version, verdict, capacity ----------|   if it is OS_OK, with the memory's descriptor
 *       |<- - - - - - - - - - rings, both ways - - - - - - - - >|   and at last the end of file (os_bell.h)
 *
 * The kernel tells each who the other is (SO_PEERCRED): the user, as nobody can lie about that.  No process numbers:
 * they are used again, and differ between containers.  A message is read as a whole or refused, and a descriptor that
 * was not asked for is closed.  Nothing here waits, so a guest that says nothing holds nobody up.
 *
 * The socket is a stream: rings are then read many at once, and macOS has such sockets, too.
 */
#ifndef OS_HELLO_H
#define OS_HELLO_H

#include "os_bell.h"

#if OS_HAS_LANES

#include <string.h>
#include <unistd.h>

#define OS_HELLO_MAGIC UINT32_C(0x6e636869) /* "nchi" */
#define OS_HELLO_VERSION UINT32_C(1)

/* What the guest wants to be. */
typedef enum os_role {
    OS_WRITER = 1,
    OS_READER = 2,
} os_role;

typedef struct os_hello {
    uint32_t magic, version; /* first in every version, so that a mismatch can be told */
    uint32_t role;           /* os_role */
    uint32_t reserved;
    uint64_t wish; /* capacity, bytes; 0: the host decides */
} os_hello;

typedef struct os_answer {
    uint32_t magic, version;
    uint32_t verdict; /* os_result */
    uint32_t reserved;
    uint64_t capacity; /* bytes */
} os_answer;

_Static_assert(sizeof(os_hello) == 24 && sizeof(os_answer) == 24, "the same for 32 and for 64 bits");

/* ---- messages ----------------------------------------------------------------------------------------- */

typedef union os_control { /* room for one descriptor, aligned as the kernel wants it */
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
} os_control;

/* Send all of it, with a descriptor unless that is -1.  The socket is empty yet, so it fits. */
static inline os_result os_hello_send(int socket, const void *data, size_t size, int fd)
{
    os_control control;
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n;
    while ((n = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    if (n == (ssize_t)size)
        return OS_OK;
    return n < 0 && (errno == EPIPE || errno == ECONNRESET) ? OS_CRASHED : OS_SYSTEM;
}

/* Keep the first descriptor that came, in *fd if that is wanted, and close all others.  There is room for one header.
 * False if there were others. */
static inline bool os_hello_take_fds(struct msghdr *message, int *fd)
{
    bool fine = !(message->msg_flags & MSG_CTRUNC);
    struct cmsghdr *c = CMSG_FIRSTHDR(message);
    if (c == NULL || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
        return fine;
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n; i++) {
        int came;
        memcpy(&came, CMSG_DATA(c) + i * sizeof came, sizeof came);
        if (fd != NULL && *fd < 0) {
            *fd = came;
        } else {
            close(came);
            fine = false;
        }
    }
    return fine;
}

/* Read a message of exactly that size, without waiting, and a descriptor if `fd` is not NULL. */
static inline os_result os_hello_recv(int socket, void *data, size_t size, int *fd)
{
    os_control control;
    struct iovec part = {.iov_base = data, .iov_len = size};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    while ((n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    if (n <= 0)
        return os_bell_heard(n);
    bool fine = os_hello_take_fds(&message, fd);
    if (fine && n == (ssize_t)size)
        return OS_OK;
    if (fd != NULL && *fd >= 0) {
        close(*fd);
    } else if (fd != NULL && message.msg_flags & MSG_CTRUNC) {
        errno = EMFILE; /* there was one, and no number left for it */
        return OS_SYSTEM;
    }
    return OS_NO_HELLO;
}

/* Is the other end a process of `user`?  Of the user who made the socket, or connected it, that is. */
static inline os_result os_hello_check_user(int socket, uid_t user)
{
    struct ucred who;
    socklen_t size = sizeof who;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0)
        return OS_SYSTEM;
    return who.uid == user ? OS_OK : OS_STRANGER;
}

/* ---- the guest ---------------------------------------------------------------------------------------- */

static inline os_result os_hello_say(int socket, os_role role, uint64_t wish)
{
    os_hello hello = {.magic = OS_HELLO_MAGIC, .version = OS_HELLO_VERSION, .role = role, .wish = wish};
    os_result result = os_hello_send(socket, &hello, sizeof hello, -1);
    NC_STEP("hello_say: said, not answered");
    return result;
}

/* OS_OK, with a descriptor that is the caller's; OS_AGAIN; the host's verdict; or what is wrong with its answer. */
static inline os_result os_hello_heed(int socket, uid_t user, os_answer *answer, int *fd)
{
    *fd = -1;
    os_result result = os_hello_check_user(socket, user);
    if (result == OS_OK)
        result = os_hello_recv(socket, answer, sizeof *answer, fd);
    if (result != OS_OK)
        return result;
    NC_STEP("hello_heed: read, not looked at");
    bool refused = answer->verdict >= OS_SYSTEM && answer->verdict <= OS_STRANGER;
    if (answer->magic != OS_HELLO_MAGIC)
        result = OS_NO_HELLO;
    else if (answer->version != OS_HELLO_VERSION)
        result = OS_WRONG_VERSION;
    else if (answer->verdict != OS_OK || *fd < 0)
        result = refused ? (os_result)answer->verdict : OS_NO_HELLO;
    if (result == OS_OK)
        os_bell_refuse_descriptors(socket);
    else if (*fd >= 0)
        close(*fd);
    return result;
}

/* ---- the host ----------------------------------------------------------------------------------------- */

/* OS_OK if the guest is welcome as `role`; OS_AGAIN if it has not said anything yet; OS_CRASHED if it never will.  Of
 * all else the guest is to be told, by os_hello_answer(). */
static inline os_result os_hello_hear(int socket, uid_t user, os_role role, os_hello *hello)
{
    memset(hello, 0, sizeof *hello);
    os_bell_refuse_descriptors(socket);
    os_result result = os_hello_check_user(socket, user);
    if (result == OS_OK)
        result = os_hello_recv(socket, hello, sizeof *hello, NULL);
    if (result != OS_OK)
        return result;
    NC_STEP("hello_hear: heard, not answered");
    if (hello->magic != OS_HELLO_MAGIC)
        return OS_NO_HELLO;
    if (hello->version != OS_HELLO_VERSION)
        return OS_WRONG_VERSION;
    return hello->role == (uint32_t)role ? OS_OK : OS_WRONG_ROLE;
}

static inline os_result os_hello_answer(int socket, os_result verdict, uint64_t capacity, int fd)
{
    os_answer answer = {.magic = OS_HELLO_MAGIC, .version = OS_HELLO_VERSION, .verdict = verdict, .capacity = capacity};
    return os_hello_send(socket, &answer, sizeof answer, verdict == OS_OK ? fd : -1);
}

#endif
#endif
