/* c_programs.c: the end of a channel between processes in a program without Python, for c_programs.py.
 *
 *     c_programs send PATH COUNT SIZE        c_programs recv PATH COUNT SIZE, which prints the ns of all but the first
 */
#define _POSIX_C_SOURCE 200809L
#include "nexus_processes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CAPACITY = 1 << 17 }; /* as c_programs.py */

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int send_all(const char *path, uint64_t count, size_t size)
{
    static char message[65536];
    nexus_sender *tx;
    int result = nexus_connect(path, NEXUS_FOREVER, &tx);
    for (uint64_t i = 0; i < count && result == NEXUS_OK; i++) {
        memcpy(message, &i, sizeof i);
        result = nexus_send(tx, message, size, NEXUS_FOREVER);
    }
    nexus_detach_sender(tx);
    return result;
}

static int recv_all(const char *path, uint64_t count)
{
    static char message[65536];
    nexus_receiver *rx;
    int64_t began = 0;
    size_t size;
    int result = nexus_listen(path, CAPACITY, 0, &rx);
    puts("listening");
    fflush(stdout);
    for (uint64_t i = 0, number; i < count && result == NEXUS_OK; i++) {
        result = nexus_recv(rx, message, sizeof message, &size, NEXUS_FOREVER);
        memcpy(&number, message, sizeof number);
        if (number != i)
            return 1;
        if (i == 0)
            began = now();
    }
    printf("%lld\n", (long long)(now() - began));
    nexus_detach_receiver(rx);
    return result;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    uint64_t count = strtoull(argv[3], NULL, 10);
    return argv[1][0] == 's' ? send_all(argv[2], count, strtoull(argv[4], NULL, 10)) : recv_all(argv[2], count);
}
