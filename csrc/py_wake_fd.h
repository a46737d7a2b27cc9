/* py_wake_fd.h: the descriptor that an event loop waits on, by which it is woken from wherever: an eventfd, or a pipe.
 * Needs no GIL and no Python; not of the core, as it makes system calls. */
#ifndef PY_WAKE_FD_H
#define PY_WAKE_FD_H

#include "nc_base.h"

#if defined(_WIN32) || defined(NC_NO_READERS)
/* asyncio's usual loop on Windows reads no descriptors, and its other one only sockets: there is none, and loops are
 * woken by call_soon_threadsafe. */
enum { WAKE_FDS = 0 };
typedef int wake_fd_file;
static inline bool wake_fd_open(int fds[2])
{
    (void)fds;
    return false;
}
static inline void wake_fd_close(int fd) { (void)fd; }
static inline bool wake_fd_clear(int fd)
{
    (void)fd;
    return false;
}
static inline bool wake_fd_write(int fd)
{
    (void)fd;
    return false;
}
static inline void wake_fd_know(int fd, wake_fd_file *file)
{
    (void)fd;
    *file = 0;
}
static inline bool wake_fd_is(int fd, const wake_fd_file *file)
{
    (void)fd;
    (void)file;
    return false;
}
#else
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#if NC_LINUX
#include <sys/eventfd.h>
#endif

enum { WAKE_FDS = 1 };

/* fds[0] to read from, fds[1] to write to; both are the same where one will do.  False with errno set. */
static inline bool wake_fd_open(int fds[2])
{
#if NC_LINUX
    fds[0] = fds[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fds[0] >= 0;
#else
    if (pipe(fds) != 0)
        return false;
    for (int i = 0; i < 2; i++) {
        fcntl(fds[i], F_SETFD, FD_CLOEXEC);
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
    }
    return true;
#endif
}

/* One write a burst.  A full pipe is as good as a written one: the reader has yet to come by.  False if the
 * descriptor is not ours any more: somebody closed it. */
static inline bool wake_fd_write(int fd)
{
    static const uint64_t one = 1;
    ssize_t n;
    while ((n = write(fd, &one, sizeof one)) < 0 && errno == EINTR)
        ;
    return n >= 0 || errno == EAGAIN;
}

/* False if the descriptor is not ours any more. */
static inline bool wake_fd_clear(int fd)
{
    uint64_t buffer[8];
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) == (ssize_t)sizeof buffer || (n < 0 && errno == EINTR))
        ; /* an eventfd answers 8 bytes, once; a pipe until it is empty */
    return n > 0 || (n < 0 && errno == EAGAIN);
}

static inline void wake_fd_close(int fd) { close(fd); }

/* What is known of the file that a descriptor was opened for. */
typedef struct wake_fd_file {
    dev_t device;
    ino_t inode;
    bool known;
} wake_fd_file;

static inline void wake_fd_know(int fd, wake_fd_file *file)
{
    struct stat now;
    *file = (wake_fd_file){.known = false};
    if (fstat(fd, &now) == 0)
        *file = (wake_fd_file){.device = now.st_dev, .inode = now.st_ino, .known = true};
}

/* Is it still the same file?  Or did somebody close it, and its number is another file's by now?  Touches neither: to
 * read would take what is another's.  On Linux all eventfds have one inode, which epoll objects and timers have, too;
 * of these only those are told apart that block. */
static inline bool wake_fd_is(int fd, const wake_fd_file *file)
{
    struct stat now;
    int flags = fcntl(fd, F_GETFL);
    return file->known && flags >= 0 && (flags & O_NONBLOCK) != 0 && fstat(fd, &now) == 0 &&
           now.st_dev == file->device && now.st_ino == file->inode;
}
#endif

#endif
