/* threads.c: one program without Python whose threads each have an end of their own, while another thread forks.
 *
 *     threads PATH COUNT FORKS
 */
#define _GNU_SOURCE
#include "nexus_processes.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SENDERS = 3 };

static const char *path;
static uint64_t count;
static int forks;

typedef struct Sender {
    pthread_t thread;
    uint64_t number;
    int result;
} Sender;

static void *send_all(void *arg)
{
    Sender *s = arg;
    nexus_sender *tx;
    void *place;
    s->result = nexus_connect(path, NEXUS_FOREVER, &tx);
    for (uint64_t i = 0; i < count && s->result == NEXUS_OK; i++) {
        uint64_t message[2] = {s->number, i};
        if (s->number == 0) {
            s->result = nexus_send(tx, message, sizeof message, NEXUS_FOREVER);
            continue;
        }
        s->result = nexus_claim(tx, sizeof message, NEXUS_FOREVER, &place);
        if (s->result == NEXUS_OK) {
            memcpy(place, message, sizeof message);
            s->result = nexus_commit_quiet(tx, sizeof message);
        }
    }
    nexus_detach_sender(tx);
    return NULL;
}

static void *fork_all(void *unused)
{
    for (int i = 0; i < forks; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
        sched_yield();
    }
    return unused;
}

static int receive_all(nexus_receiver *rx)
{
    uint64_t next[SENDERS] = {0}, message[2];
    size_t size;
    for (uint64_t n = 0; n < SENDERS * count; n++)
        if (nexus_recv(rx, message, sizeof message, &size, NEXUS_FOREVER) != NEXUS_OK || size != sizeof message ||
            message[0] >= SENDERS || message[1] != next[message[0]]++)
            return 1;
    nexus_stop_listening(rx);
    return nexus_recv(rx, message, sizeof message, &size, NEXUS_FOREVER) != NEXUS_DISCONNECTED;
}

int main(int argc, char **argv)
{
    Sender senders[SENDERS];
    nexus_receiver *rx;
    pthread_t forker;
    if (argc != 4)
        return 2;
    path = argv[1];
    count = strtoull(argv[2], NULL, 10);
    forks = atoi(argv[3]);
    int wrong = nexus_listen(path, 4096, 1, &rx);
    for (uint64_t i = 0; i < SENDERS; i++) {
        senders[i].number = i;
        pthread_create(&senders[i].thread, NULL, send_all, &senders[i]);
    }
    pthread_create(&forker, NULL, fork_all, NULL);
    wrong |= receive_all(rx);
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(senders[i].thread, NULL);
        wrong |= senders[i].result;
    }
    pthread_join(forker, NULL);
    printf("wrong %d crashed %d\n", wrong, nexus_receiver_crashed(rx));
    nexus_detach_receiver(rx);
    return 0;
}
