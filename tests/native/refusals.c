/* refusals.c: a program at one end of a channel to which the system does what it seldom does: functions of the C
 * library are replaced here.
 *
 *     refusals interrupted PATH | unmapped PATH | asleep PATH | exiting PATH
 */
#define _GNU_SOURCE
#include "nexus_processes.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool interrupts, refuses;
static int maps, unmaps;

/* Before Linux 6.18 a signal undid all that the call had done.  So much fits between two signals of a timer. */
int posix_fallocate(int fd, off_t at, off_t length)
{
    if (interrupts && length > 2 << 20)
        return EINTR;
    return syscall(SYS_fallocate, fd, 0, at, length) == 0 ? 0 : errno;
}

/* The second map of a lane fails, as where a process has as many as it may. */
void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (refuses && flags & MAP_FIXED && ++maps == 2) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}

int munmap(void *at, size_t length)
{
    unmaps += refuses;
    return (int)syscall(SYS_munmap, at, length);
}

static _Atomic bool waits;

int flock(int fd, int how)
{
    atomic_store_explicit(&waits, true, memory_order_release);
    return (int)syscall(SYS_flock, fd, how);
}

/* Without a number for any descriptor, poll(2) is refused. */
static void wait_refused(nexus_sender *tx)
{
    struct rlimit none = {0, 0};
    while (nexus_try_send(tx, "x", 1) == NEXUS_OK)
        ;
    setrlimit(RLIMIT_NOFILE, &none);
    int result = nexus_send(tx, "x", 1, NEXUS_FOREVER);
    printf("send %d %d\n", result, result == NEXUS_SYSTEM ? errno : 0);
}

static pthread_t listening;

static void *listen_there(void *path)
{
    nexus_receiver *rx;
    int result = nexus_listen(path, 4096, 1, &rx);
    printf("listen %d\n", result);
    return NULL;
}

/* After the ends of the process have been closed, as this was asked for before there was one. */
static void at_exit(void)
{
    puts("exiting");
    fflush(stdout);
    pthread_join(listening, NULL);
    fflush(stdout);
}

/* exit() while another thread waits for its turn in the folder, on which flock(2) is replaced to tell. */
static void exit_beside(char *path)
{
    atexit(at_exit);
    pthread_create(&listening, NULL, listen_there, path);
    while (!atomic_load_explicit(&waits, memory_order_acquire))
        sched_yield();
    exit(0);
}

int main(int argc, char **argv)
{
    nexus_sender *tx;
    if (argc != 3)
        return 2;
    if (strcmp(argv[1], "exiting") == 0)
        exit_beside(argv[2]);
    interrupts = strcmp(argv[1], "interrupted") == 0;
    refuses = strcmp(argv[1], "unmapped") == 0;
    int result = nexus_connect(argv[2], NEXUS_FOREVER, &tx);
    int why = result == NEXUS_SYSTEM ? errno : 0, times = unmaps;
    refuses = false;
    printf("open %d %d unmapped %d\n", result, why, times);
    if (tx != NULL && strcmp(argv[1], "asleep") == 0)
        wait_refused(tx);
    nexus_detach_sender(tx);
    return 0;
}
