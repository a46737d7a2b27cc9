/* knocking.c: a program that connects in vain again and again, while another thread forks: no child has a copy of a
 * door.
 *
 *     knocking PATH FORKS
 */
#define _GNU_SOURCE
#include "nexus_processes.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static _Atomic bool stop;

int __real_pthread_mutex_unlock(pthread_mutex_t *lock); /* as the linker calls them: --wrap */
int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock);

/* A fork that waited for the lock comes before the next step of whoever had it. */
int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock)
{
    int result = __real_pthread_mutex_unlock(lock);
    usleep(100);
    return result;
}

static void *knock(void *path)
{
    nexus_sender *tx;
    while (!atomic_load(&stop))
        nexus_connect(path, 0, &tx);
    return NULL;
}

static int descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n;
}

int main(int argc, char **argv)
{
    pthread_t knocking;
    int more = 0, before = descriptors();
    if (argc != 3 || pthread_create(&knocking, NULL, knock, argv[1]) != 0)
        return 2;
    for (int i = 0; i < atoi(argv[2]); i++) {
        int status;
        pid_t child = fork();
        if (child == 0)
            _exit(descriptors() > before);
        waitpid(child, &status, 0);
        more += status != 0;
    }
    atomic_store(&stop, true);
    pthread_join(knocking, NULL);
    printf("more %d\n", more);
    return 0;
}
