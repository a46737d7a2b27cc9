/* procs.h: processes for tests of lanes: what they share, how they are killed at a step, and what they leave behind.
 *
 * Include it first: it takes the place of NC_STEP, and includes the lanes.  Environment: STRESS_ITEMS, SEED.
 */
#ifndef PROCS_H
#define PROCS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

enum { STEPS = 64 };

/* What a parent and its children share, beside lanes. */
typedef struct board {
    _Atomic uint64_t sent, received, wrong; /* records */
    _Atomic uint64_t died;                  /* when, microseconds */
    _Atomic uint64_t go;
    const char *_Atomic steps[STEPS]; /* those that some process came to */
    _Atomic uint64_t visits[STEPS];
} board;

static board *shared;
static uint64_t procs_items, procs_seed;
static const char *die_at; /* a step, or NULL */
static uint64_t die_after; /* so many visits to it before */
static bool noting;        /* which steps there are */

static inline uint64_t procs_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static inline void procs_die(void)
{
    atomic_store(&shared->died, procs_clock());
    kill(getpid(), SIGKILL);
}

static inline void procs_note(const char *name)
{
    for (int i = 0; i < STEPS; i++) {
        const char *known = atomic_load(&shared->steps[i]);
        if (known == NULL) /* the parent waits while a child notes, so nobody is in between */
            atomic_store(&shared->steps[i], name);
        if (known == NULL || strcmp(known, name) == 0) {
            atomic_fetch_add(&shared->visits[i], 1);
            return;
        }
    }
}

static inline void procs_step(const char *name)
{
    if (noting)
        procs_note(name);
    if (die_at != NULL && strcmp(name, die_at) == 0 && die_after-- == 0)
        procs_die();
}

#define NC_STEP(name) procs_step(name)

#include "os_lane.h"

static const char *procs_scenario = "";

static inline void procs_hang(int signal)
{
    static const char text[] = "FAILED: a process hangs, in ";
    (void)signal;
    if (write(1, text, sizeof text - 1) < 0 || write(1, procs_scenario, strlen(procs_scenario)) < 0)
        _exit(3);
    _exit(2);
}

static inline void procs_start(uint64_t items)
{
    procs_items = test_environment("STRESS_ITEMS", items);
    procs_seed = test_environment("SEED", (uint64_t)time(NULL));
    printf("SEED=%" PRIu64 " STRESS_ITEMS=%" PRIu64 "\n", procs_seed, procs_items);
    fflush(stdout);
    void *page = mmap(NULL, sizeof(board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared = page;
    signal(SIGALRM, procs_hang);
}

static inline void procs_clear(void)
{
    atomic_store(&shared->sent, 0);
    atomic_store(&shared->received, 0);
    atomic_store(&shared->wrong, 0);
    atomic_store(&shared->died, 0);
    atomic_store(&shared->go, 0);
}

/* A process that runs body(arg); its exit status says whether all its checks held. */
static inline pid_t procs_fork(void (*body)(int arg), int arg)
{
    fflush(stdout);
    pid_t child = fork();
    if (child != 0)
        return child;
    checks_failed = 0;
    alarm(120);
    body(arg);
    fflush(stdout);
    _exit(checks_failed != 0);
}

/* It ended by itself and found nothing wrong, or it was killed, as `was_killed` says. */
static inline void procs_join(pid_t child, bool was_killed)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (was_killed)
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    else
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* However it ended, if it found nothing wrong. */
static inline void procs_reap(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
}

/* Until there is something to read, or the end of file. */
static inline void procs_readable(int socket)
{
    struct pollfd ready = {.fd = socket, .events = POLLIN};
    while (poll(&ready, 1, -1) < 1)
        ;
}

/* ---- what is left behind -------------------------------------------------------------------------------- */

static inline int procs_count_dir(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    while (dir != NULL && readdir(dir) != NULL)
        n++;
    if (dir != NULL)
        closedir(dir);
    return n;
}

static inline int procs_descriptors(void) { return procs_count_dir("/proc/self/fd"); }

/* Mappings of lanes, of one process. */
static inline int procs_mapped_by(const char *process)
{
    char line[512];
    int n = 0;
    snprintf(line, sizeof line, "/proc/%.20s/maps", process);
    FILE *maps = fopen(line, "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
        n += strstr(line, "nexus-lane") != NULL;
    if (maps != NULL)
        fclose(maps);
    return n;
}

static inline int procs_mapped(void) { return procs_mapped_by("self"); }

/* Descriptors and mappings of lanes, of this process's group, where a descendant of it might still be. */
static inline int procs_lanes_anywhere(void)
{
    int n = 0;
    struct dirent *entry;
    DIR *dir = opendir("/proc");
    while (dir != NULL && (entry = readdir(dir)) != NULL)
        if (getpgid(atoi(entry->d_name)) == getpgrp())
            n += procs_mapped_by(entry->d_name);
    if (dir != NULL)
        closedir(dir);
    return n;
}

#if OS_HAS_LANES

static inline void procs_pair(int pair[2]) { CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0); }

enum { PROCS_MOST = 1 << 16 };

typedef struct record {
    uint64_t number;
    unsigned char rest[];
} record;

static int sockets[2]; /* of a lane: ours, once we are one of two; 0 is the host's */
static bool writer_hosts;
static uint64_t capacity, count, receives_most;

/* ---- what nobody should send ------------------------------------------------------------------------------ */

enum { CAPACITY = PROCS_MOST }; /* whole pages, on each machine */

static inline int memory(uint64_t size, unsigned seals)
{
    int fd = memfd_create("nexus-lane", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    if (seals != 0)
        CHECK(fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

static inline void put_word(int fd, size_t at, uint64_t word)
{
    CHECK(pwrite(fd, &word, sizeof word, (off_t)at) == sizeof word);
}

/* A lane as it should be made, but for one word. */
static inline int lane_but(size_t at, uint64_t word)
{
    int fd = memory(os_block_page() + CAPACITY, OS_SEALS);
    put_word(fd, offsetof(nc_lane_block, kind), NC_LANE_MAGIC << 32 | NC_LANE_LAYOUT);
    put_word(fd, offsetof(nc_lane_block, capacity), CAPACITY);
    put_word(fd, at, word);
    return fd;
}

/* A message with n descriptors, 0 .. 16, all of them copies of number 0. */
static inline bool send_descriptors(int socket, const void *data, size_t size, int n)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (n > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE((size_t)n * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
        for (int i = 0, fd = 0; i < n; i++)
            memcpy(CMSG_DATA(c) + (size_t)i * sizeof fd, &fd, sizeof fd);
    }
    return sendmsg(socket, &message, 0) == (ssize_t)size;
}

/* ---- both sides of a lane, as a program writes them ---------------------------------------------------------------
 */

static inline bool is_host(os_role role) { return (role == OS_WRITER) == writer_hosts; }

/* Attach as `role`; nobody is waited for but the other side. */
static inline os_result attach(os_lane *lane, os_role role)
{
    int socket = sockets[is_host(role) ? 0 : 1];
    os_role other = role == OS_WRITER ? OS_READER : OS_WRITER;
    *lane = (os_lane){.socket = socket};
    os_result result = is_host(role) ? OS_OK : os_hello_say(socket, role, capacity);
    if (result != OS_OK)
        return result;
    for (;;) {
        result = is_host(role) ? os_lane_host(lane, socket, getuid(), other, PROCS_MOST)
                               : os_lane_attach(lane, socket, getuid(), role, PROCS_MOST);
        if (result != OS_AGAIN)
            return result;
        procs_readable(socket);
    }
}

/* Small, and now and then as large as may be. */
static inline uint64_t size_of(uint64_t number, uint64_t room)
{
    uint64_t x = number * UINT64_C(0x9e3779b97f4a7c15) >> 33, most = room - NC_LOG_HEADER;
    return sizeof(record) + (x % 64 == 0 ? x / 64 % (most - sizeof(record) + 1) : x / 64 % 100);
}

static inline os_result send_record(os_tx *tx, uint64_t number)
{
    nc_record to = {0};
    os_result result;
    uint64_t n = size_of(number, tx->lane.map.capacity);
    while ((result = os_tx_claim(tx, n, &to, -1)) == OS_AGAIN)
        ;
    if (result != OS_OK)
        return result;
    record *r = (record *)(void *)to.data;
    r->number = number;
    memset(r->rest, (int)(number % 251), n - sizeof *r);
    os_tx_commit(tx, &to, n);
    return OS_OK;
}

/* True if the record is number `number`, whole. */
static inline bool check_record(const nc_record *from, uint64_t number, uint64_t room)
{
    const record *r = (const record *)(const void *)from->data;
    uint64_t rest = from->size - sizeof *r;
    return from->size == size_of(number, room) && r->number == number &&
           (rest == 0 || (r->rest[0] == number % 251 && r->rest[rest - 1] == number % 251));
}

static inline os_result write_all(void)
{
    os_lane lane;
    os_tx tx;
    os_result result = attach(&lane, OS_WRITER);
    if (result != OS_OK) {
        close(lane.socket);
        return result;
    }
    CHECK_EQ(os_tx_open(&tx, &lane), OS_OK);
    for (uint64_t i = 0; i < count && result == OS_OK; i++)
        if ((result = send_record(&tx, i)) == OS_OK)
            atomic_fetch_add(&shared->sent, 1);
    os_tx_close(&tx);
    return result;
}

static inline os_result read_all(void)
{
    os_lane lane;
    os_rx rx;
    nc_record from = {0};
    os_result result = attach(&lane, OS_READER);
    if (result != OS_OK) {
        close(lane.socket);
        return result;
    }
    CHECK_EQ(os_rx_open(&rx, &lane), OS_OK);
    uint64_t taken = 0;
    while (taken < receives_most) {
        result = os_rx_peek(&rx, &from, -1);
        if (result == OS_AGAIN)
            continue;
        if (result != OS_OK)
            break;
        if (!check_record(&from, taken++, lane.map.capacity))
            atomic_fetch_add(&shared->wrong, 1);
        os_rx_release(&rx, &from);
        atomic_fetch_add(&shared->received, 1);
    }
    if (result == OS_CRASHED || result == OS_CLOSED) /* all that was published was received */
        CHECK_EQ(atomic_load(&rx.reader.block->tail), rx.reader.head);
    os_rx_close(&rx);
    return result;
}

static inline void be_one_of_two(os_role role)
{
    close(sockets[is_host(role) ? 1 : 0]);
    os_result result = role == OS_WRITER ? write_all() : read_all();
    CHECK(result == OS_OK || (role == OS_READER && result == OS_CLOSED));
}

static inline void as_child(int role) { be_one_of_two((os_role)role); }

static inline void set_up(const char *name, bool writer_is_host, uint64_t wish, uint64_t n)
{
    procs_scenario = name;
    alarm(120);
    procs_clear();
    writer_hosts = writer_is_host;
    capacity = wish;
    count = n;
    receives_most = UINT64_MAX;
    procs_pair(sockets);
}

#endif

/* ---- killed at any step --------------------------------------------------------------------------------- */

/* Which steps does a child come to, and how often?  `nobody_dies` runs one that notes them. */
static inline int procs_steps(void (*nobody_dies)(void))
{
    int n = 0;
    memset((void *)shared->steps, 0, sizeof shared->steps);
    memset((void *)shared->visits, 0, sizeof shared->visits);
    nobody_dies();
    while (n < STEPS && atomic_load(&shared->steps[n]) != NULL)
        n++;
    return n;
}

/* Each step in turn, at its first visit and at some later one; those to which a process need not come at each run, such
 * as sleeping, have to be died at as well, now and then.  `one_dies` is true if it did. */
static inline void kill_at_each_step(const char *who, void (*nobody_dies)(void),
                                     bool (*one_dies)(const char *step, uint64_t after), uint64_t rounds,
                                     uint64_t *seed)
{
    int steps = procs_steps(nobody_dies);
    uint64_t deaths[STEPS] = {0};
    CHECK(steps > 8);
    for (uint64_t i = 0; i < rounds || i < 8 * (uint64_t)steps; i++) {
        uint64_t k = i % (uint64_t)steps, visits = atomic_load(&shared->visits[k]);
        uint64_t after = i % 2 ? test_random(seed) % visits : 0;
        deaths[k] += one_dies(atomic_load(&shared->steps[k]), after);
    }
    for (int k = 0; k < steps; k++) {
        const char *step = atomic_load(&shared->steps[k]); /* by chance nobody may have come to it yet */
        for (int more = 0; deaths[k] == 0 && more < 1000; more++)
            deaths[k] += one_dies(step, 0);
        CASE("%s", step);
        CHECK(deaths[k] > 0);
        printf("%s killed at '%s': %d\n", who, step, (int)deaths[k]);
    }
}

#endif
