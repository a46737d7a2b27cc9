/* os_listen.h: how a receiver is found by a path: a socket in the file system at which senders knock.  Touches
 * os_lobby.h and system calls.
 *
 *     receiver                                              sender, in any process of this user
 *     os_listen_open, _lock, _bind: the socket is there        |
 *       |                                                       |  os_listen_call: connect(2)
 *       |  os_listen_accept <-----------------------------------|
 *       |  whose process is it? is there room for a sender?     |
 *       |-- greeting: magic, version, verdict, kind, capacity ->|  os_listen_heed: whose process? which version?
 *     lobby <- - - - - - - - visits - - - - - - - - - - - - - door      what kind, how much?
 *
 * An accepted connection is a lobby with its door (os_lobby.h).  The sender says nothing before it is greeted, and is
 * greeted without waiting, as the socket is empty.  So a sender that stops halfway holds up nobody.
 *
 * Only the socket itself is ever seen in the folder.  Nobody can connect before listen(2), and its mode is set before
 * it has a name, so there is no moment at which others could come in.  A socket that nobody listens at any more is left
 * by a process that was killed, and is replaced.  Two that replace it at once would each take the other's for a left
 * one, so the folder is locked meanwhile.
 */
#ifndef OS_LISTEN_H
#define OS_LISTEN_H

#include "os_lobby.h"

#if OS_HAS_LANES

#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>

#define OS_GREETING_MAGIC UINT32_C(0x6e636772) /* "ncgr" */
#define OS_GREETING_VERSION UINT32_C(1)

/* How long a path may be, in bytes. */
enum { OS_PATH_MOST = sizeof(((struct sockaddr_un *)0)->sun_path) - 1, OS_BACKLOG = 4096, OS_LISTEN_MODE = 0600 };

typedef enum os_verdict {
    OS_WELCOME = 0,
    OS_TAKEN = 1,   /* this channel takes one sender, which is there */
    OS_FOREIGN = 2, /* a process of another user */
} os_verdict;

typedef struct os_greeting {
    uint32_t magic, version; /* first in every version, so that a mismatch can be told */
    uint32_t verdict;        /* os_verdict */
    uint32_t many;           /* 1: the channel takes many senders; 0: one */
    uint32_t user, reserved; /* user: the receiver's */
    uint64_t capacity;       /* bytes, of a lane */
    uint64_t name;           /* the channel's, at random */
} os_greeting;

_Static_assert(sizeof(os_greeting) == 40, "the same for 32 and for 64 bits");

/* A socket that listens. */
typedef struct os_listening {
    int fd;
    int folder; /* where it is, whatever the current folder becomes */
    dev_t dev;  /* this and the next: of the socket's file */
    ino_t ino;
    struct sockaddr_un at;
} os_listening;

static inline os_result os_listen_address(struct sockaddr_un *at, const char *path)
{
    size_t n = strlen(path);
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (n <= OS_PATH_MOST) {
        memcpy(at->sun_path, path, n);
        return OS_OK;
    }
    errno = ENAMETOOLONG;
    return OS_SYSTEM;
}

/* Whose process is, or made, the other end? */
static inline os_result os_listen_user(int socket, uid_t *user)
{
    struct ucred who;
    socklen_t size = sizeof who;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0)
        return OS_SYSTEM;
    *user = who.uid;
    return OS_OK;
}

/* ---- descriptors that another process named --------------------------------------------------------------- */

/* Whoever has a descriptor of it can make it wait, so that is asked once, before it is believed. */
static inline bool os_is_counter(int fd)
{
    char path[] = "/proc/self/fd/0123456789", says[32];
    char *at = path + sizeof path - 11;
    for (int unit = 1000000000; unit > 0; unit /= 10)
        if (fd >= unit || unit == 1)
            *at++ = (char)('0' + fd / unit % 10);
    *at = '\0';
    int flags = fcntl(fd, F_GETFL);
    ssize_t n = flags >= 0 ? readlink(path, says, sizeof says) : -1;
    bool told = n >= 0 || errno != ENOENT; /* without /proc, there is only the flag to go by */
    return flags >= 0 && (flags & O_NONBLOCK) != 0 &&
           (!told || (n == 20 && memcmp(says, "anon_inode:[eventfd]", 20) == 0));
}

/* ---- the receiver: the file ------------------------------------------------------------------------------ */

/* The last part of the path: what the folder knows the socket by. */
static inline const char *os_listen_name(const os_listening *l)
{
    const char *slash = strrchr(l->at.sun_path, '/');
    return slash != NULL ? slash + 1 : l->at.sun_path;
}

static inline int os_listen_folder(const os_listening *l)
{
    char folder[sizeof l->at.sun_path + 1] = ".";
    const char *name = os_listen_name(l);
    if (name != l->at.sun_path) { /* up to the slash, which is the whole of the root folder */
        memcpy(folder, l->at.sun_path, (size_t)(name - l->at.sun_path));
        folder[name - l->at.sun_path] = '\0';
    }
    return open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* The socket closes, and nobody has it any more.  Its file stays. */
static inline void os_listen_forget(os_listening *l)
{
    if (l->fd >= 0)
        close(l->fd);
    if (l->folder >= 0)
        close(l->folder);
    l->fd = l->folder = -1;
}

/* Begin: the folder.  There is no socket yet, so a child that is forked while the lock is waited for has no copy of it.
 * Not OS_OK: nothing is left open. */
static inline os_result os_listen_open(os_listening *l, const char *path)
{
    l->fd = l->folder = -1;
    os_result result = os_listen_address(&l->at, path);
    if (result != OS_OK)
        return result;
    if (*os_listen_name(l) == '\0') {
        errno = path[0] == '\0' ? ENOENT : EISDIR;
        return OS_SYSTEM;
    }
    l->folder = os_listen_folder(l);
    return l->folder >= 0 ? OS_OK : OS_SYSTEM;
}

/* A socket that has no name yet; bind(2) gives the file its mode, less the umask. */
static inline bool os_listen_socket(os_listening *l)
{
    l->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return l->fd >= 0 && fchmod(l->fd, OS_LISTEN_MODE) == 0;
}

/* Wait until no other process is between looking and binding in this folder.  OS_SYSTEM with EINTR: a signal came. */
static inline os_result os_listen_lock(os_listening *l) { return flock(l->folder, LOCK_EX) == 0 ? OS_OK : OS_SYSTEM; }

/* What is there: errno is ENOENT for nothing, 0 for a socket that nobody listens at, EEXIST for what is no socket,
 * EADDRINUSE for one that somebody uses; or why that cannot be told. */
static inline void os_listen_look(const os_listening *l)
{
    struct stat file;
    if (fstatat(l->folder, os_listen_name(l), &file, AT_SYMLINK_NOFOLLOW) != 0)
        return;
    if (!S_ISSOCK(file.st_mode)) {
        errno = EEXIST;
        return;
    }
    int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return;
    int answer = connect(probe, (const struct sockaddr *)&l->at, sizeof l->at) == 0 ? EISCONN : errno;
    close(probe);
    /* EAGAIN: so many knock that there is no room for more; EPROTOTYPE: it is of another kind */
    errno = answer == ECONNREFUSED                                          ? 0
            : answer == EISCONN || answer == EAGAIN || answer == EPROTOTYPE ? EADDRINUSE
                                                                            : answer;
}

/* Know the file again, and correct its mode if the umask has taken from it. */
static inline os_result os_listen_note(os_listening *l)
{
    struct stat file;
    const char *name = os_listen_name(l);
    if (fstatat(l->folder, name, &file, AT_SYMLINK_NOFOLLOW) != 0)
        return OS_SYSTEM;
    l->dev = file.st_dev;
    l->ino = file.st_ino;
    if (S_ISSOCK(file.st_mode) && (file.st_mode & 07777) != OS_LISTEN_MODE)
        return fchmodat(l->folder, name, OS_LISTEN_MODE, 0) == 0 ? OS_OK : OS_SYSTEM;
    return OS_OK;
}

/* Remove the file, if it is still this socket's.  Nobody replaces it meanwhile, as somebody listens at it until after
 * that; and no other file has its number as long as the socket is open. */
static inline void os_listen_remove(const os_listening *l)
{
    struct stat file;
    const char *name = os_listen_name(l);
    if (fstatat(l->folder, name, &file, AT_SYMLINK_NOFOLLOW) == 0 && file.st_dev == l->dev && file.st_ino == l->ino)
        unlinkat(l->folder, name, 0);
}

/* Give the socket its name and listen, holding the lock, which ends here.  Not OS_OK: nothing is left open, and what
 * was there is there; errno as os_listen_look() says, or as the system. */
static inline os_result os_listen_bind(os_listening *l)
{
    os_result result = OS_SYSTEM;
    bool made = os_listen_socket(l);
    if (made) {
        errno = 0;
        os_listen_look(l);
    }
    if (made && errno == 0)
        unlinkat(l->folder, os_listen_name(l), 0);
    if (made && (errno == 0 || errno == ENOENT) && bind(l->fd, (const struct sockaddr *)&l->at, sizeof l->at) == 0) {
        result = os_listen_note(l);
        if (result == OS_OK && listen(l->fd, OS_BACKLOG) != 0)
            result = OS_SYSTEM;
        int why = errno;
        if (result != OS_OK)
            os_listen_remove(l);
        errno = why;
    }
    int why = errno;
    flock(l->folder, LOCK_UN);
    if (result != OS_OK)
        os_listen_forget(l);
    errno = why;
    return result;
}

static inline void os_listen_close(os_listening *l)
{
    if (l->fd >= 0)
        os_listen_remove(l);
    os_listen_forget(l);
}

/* ---- the receiver: who comes ------------------------------------------------------------------------------ */

/* Take the next one in, without waiting: OS_OK; OS_STRANGER, to be told so; OS_AGAIN: there is none.  OS_SYSTEM: there
 * is one, and the system refuses. */
static inline os_result os_listen_accept(const os_listening *l, int *lobby)
{
    int yes = 1;
    while ((*lobby = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC)) < 0 && (errno == EINTR || errno == ECONNABORTED))
        ;
    if (*lobby < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? OS_AGAIN : OS_SYSTEM;
    os_result result = os_hello_check_user(*lobby, geteuid());
    if (result == OS_OK && setsockopt(*lobby, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) != 0) /* as os_lobby_open() */
        result = OS_SYSTEM;
    if (result != OS_SYSTEM)
        return result;
    int why = errno;
    close(*lobby);
    *lobby = -1;
    errno = why;
    return OS_SYSTEM;
}

/* If the other one has gone meanwhile, the lobby will hear that. */
static inline void os_listen_greet(int lobby, os_verdict verdict, bool many, uint64_t capacity, uint64_t name)
{
    os_greeting greeting = {.magic = OS_GREETING_MAGIC,
                            .version = OS_GREETING_VERSION,
                            .verdict = verdict,
                            .many = many,
                            .user = geteuid(),
                            .capacity = capacity,
                            .name = name};
    os_hello_send(lobby, &greeting, sizeof greeting, -1);
}

/* ---- the sender ----------------------------------------------------------------------------------------- */

/* Knock: waits at most that long for room, or without end if `us` < 0.  OS_SYSTEM with EAGAIN: there was none; with
 * EINTR: a signal came, so call it again. */
static inline os_result os_listen_call(int socket, const struct sockaddr_un *at, int64_t us)
{
    struct timeval most = {0};
    if (us >= 0) {
        us = us > 0 ? us : 1; /* 0 would be for ever */
        most = (struct timeval){.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    }
    if (setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most) != 0)
        return OS_SYSTEM;
    return connect(socket, (const struct sockaddr *)at, sizeof *at) == 0 ? OS_OK : OS_SYSTEM;
}

/* Read the greeting, without waiting.  OS_OK: it is one of this version; OS_AGAIN: there is none yet; OS_CRASHED: there
 * will be none; OS_NO_HELLO, OS_WRONG_VERSION: greeting->version tells which. */
static inline os_result os_listen_heed(int socket, os_greeting *greeting)
{
    *greeting = (os_greeting){0};
    os_result result = os_hello_recv(socket, greeting, sizeof *greeting, NULL);
    if (result != OS_OK)
        return result;
    if (greeting->magic != OS_GREETING_MAGIC)
        return OS_NO_HELLO;
    if (greeting->version != OS_GREETING_VERSION)
        return OS_WRONG_VERSION;
    bool sound = greeting->verdict <= OS_FOREIGN && greeting->many <= 1 && greeting->capacity != 0 &&
                 greeting->capacity == os_block_round(greeting->capacity);
    return sound ? OS_OK : OS_NO_HELLO;
}

#endif
#endif
