/* lanes.c: lanes between two processes, beside a trusting ring in the same kind of memory, a pipe, and bare eventfds.
 *
 * Each process has a core of its own.  A message is copied in and copied out, and checked for order.  Rounds are
 * interleaved; the tables show medians, and in brackets the best round.  Environment: BENCH_ROUNDS, BENCH_ITEMS. */
#include "bench.h"

#if defined(__linux__)

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include "nc_log.h"
#include "os_lane.h"

enum { SHARED_LINE = 4096, LARGEST = 1 << 16, PINGS = 5000, DEATHS = 100 };

static const struct load {
    size_t size;
    uint64_t room;
    int slower; /* so many times fewer messages */
} loads[] = {{64, 1 << 16, 1}, {64, 1 << 20, 1}, {1024, 1 << 16, 16}, {LARGEST, 1 << 20, 128}};
enum { LOADS = sizeof loads / sizeof loads[0] };

static size_t size;
static uint64_t items, room;
static unsigned char message[LARGEST];

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void pin(int core)
{
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    sched_setaffinity(0, sizeof cores, &cores);
}

/* ---- a way for messages from one process to another --------------------------------------------------------- */

typedef struct way {
    os_tx tx; /* a lane */
    os_rx rx;
    nc_log *log; /* a ring that trusts: its flags in front of it, an eventfd a side */
    _Atomic uint64_t *reader_sleeps, *writer_sleeps;
    int reader_bell, writer_bell;
    int pipe[2];
    uint64_t moved; /* by this side, where it counts batches */
} way;

static void open_lane(way *w)
{
    int pair[2];
    os_lane lane;
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    must(os_hello_say(pair[1], OS_WRITER, room) == OS_OK);
    must(os_lane_host(&lane, pair[0], getuid(), OS_WRITER, room) == OS_OK && os_rx_open(&w->rx, &lane) == OS_OK);
    must(os_lane_attach(&lane, pair[1], getuid(), OS_WRITER, room) == OS_OK && os_tx_open(&w->tx, &lane) == OS_OK);
    /* The bench forks with both ends open, as no program would. */
    madvise((void *)w->rx.lane.map.block, (size_t)w->rx.lane.map.length, MADV_DOFORK);
    madvise((void *)w->tx.lane.map.block, (size_t)w->tx.lane.map.length, MADV_DOFORK);
}

static void close_lane(way *w)
{
    os_tx_close(&w->tx);
    os_rx_close(&w->rx);
}

static void lane_send(way *w, const void *data)
{
    nc_record r;
    while (os_tx_claim(&w->tx, size, &r, -1) != OS_OK)
        ;
    memcpy(r.data, data, size);
    os_tx_commit(&w->tx, &r, size);
}

static void lane_recv(way *w, void *data)
{
    nc_record r;
    while (os_rx_peek(&w->rx, &r, -1) != OS_OK)
        ;
    memcpy(data, r.data, size);
    os_rx_release(&w->rx, &r);
}

/* 64 at a time are published at once; what is left is so when the lane is full, or at the end. */
static void lane_send_quietly(way *w, const void *data)
{
    nc_record r;
    os_result result = os_tx_claim(&w->tx, size, &r, 0);
    if (result == OS_AGAIN) {
        nc_lane_publish(&w->tx.writer);
        if (nc_lane_wakes_reader(&w->tx.writer))
            os_bell_ring(w->tx.lane.socket);
        result = os_tx_claim(&w->tx, size, &r, -1);
    }
    must(result == OS_OK);
    memcpy(r.data, data, size);
    if (++w->moved % 64 != 0 && w->moved < items)
        nc_lane_commit(&w->tx.writer, &r, size, memory_order_release);
    else
        os_tx_commit(&w->tx, &r, size);
}

static void lane_recv_quietly(way *w, void *data)
{
    nc_record r;
    os_result result = os_rx_peek(&w->rx, &r, 0);
    if (result == OS_AGAIN) {
        nc_lane_give_back(&w->rx.reader);
        if (nc_lane_wakes_writer(&w->rx.reader))
            os_bell_ring(w->rx.lane.socket);
        result = os_rx_peek(&w->rx, &r, -1);
    }
    must(result == OS_OK);
    memcpy(data, r.data, size);
    if (++w->moved % 64 != 0)
        nc_lane_release(&w->rx.reader, &r, memory_order_release);
    else
        os_rx_release(&w->rx, &r);
}

static void open_log(way *w)
{
    int fd;
    must(os_block_file(SHARED_LINE + nc_log_block_size(room, false), &fd) == OS_OK);
    char *p = mmap(NULL, SHARED_LINE + nc_log_block_size(room, false), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    must(p != MAP_FAILED);
    close(fd);
    w->reader_sleeps = (_Atomic uint64_t *)(void *)p;
    w->writer_sleeps = (_Atomic uint64_t *)(void *)(p + NC_LANE_LINE);
    w->log = (nc_log *)(void *)(p + SHARED_LINE);
    nc_log_init(w->log, room, false, 0);
    w->reader_bell = eventfd(0, EFD_CLOEXEC);
    w->writer_bell = eventfd(0, EFD_CLOEXEC);
}

static void close_log(way *w)
{
    munmap((void *)w->reader_sleeps, SHARED_LINE + nc_log_block_size(room, false));
    close(w->reader_bell);
    close(w->writer_bell);
}

static void ring_eventfd(_Atomic uint64_t *sleeps, int fd)
{
    uint64_t one = 1;
    if (atomic_load_explicit(sleeps, memory_order_seq_cst) && atomic_exchange_explicit(sleeps, 0, memory_order_seq_cst))
        must(write(fd, &one, sizeof one) == sizeof one);
}

static void log_send(way *w, const void *data)
{
    nc_record r;
    uint64_t rings;
    while (nc_log_claim_sp(w->log, size, &r) != NC_OK) {
        atomic_store_explicit(w->writer_sleeps, 1, memory_order_seq_cst);
        if (nc_log_used(w->log) + nc_log_extent(size) > room)
            must(read(w->writer_bell, &rings, sizeof rings) == sizeof rings);
    }
    memcpy(r.data, data, size);
    nc_log_commit_sp(w->log, &r, size, memory_order_seq_cst);
    ring_eventfd(w->reader_sleeps, w->reader_bell);
}

static void log_recv(way *w, void *data)
{
    nc_record r;
    uint64_t rings;
    while (nc_log_peek_spsc(w->log, &r) != NC_OK) {
        atomic_store_explicit(w->reader_sleeps, 1, memory_order_seq_cst);
        if (!nc_log_ready(w->log))
            must(read(w->reader_bell, &rings, sizeof rings) == sizeof rings);
    }
    memcpy(data, r.data, size);
    nc_log_release_spsc(w->log, &r, memory_order_seq_cst);
    ring_eventfd(w->writer_sleeps, w->writer_bell);
}

static void open_pipe(way *w) { must(pipe(w->pipe) == 0); }

static void close_pipe(way *w)
{
    close(w->pipe[0]);
    close(w->pipe[1]);
}

static void pipe_send(way *w, const void *data)
{
    for (size_t n = 0; n < size;) {
        ssize_t more = write(w->pipe[1], (const char *)data + n, size - n);
        must(more > 0);
        n += (size_t)more;
    }
}

static void pipe_recv(way *w, void *data)
{
    for (size_t n = 0; n < size;) {
        ssize_t more = read(w->pipe[0], (char *)data + n, size - n);
        must(more > 0);
        n += (size_t)more;
    }
}

static const struct contender {
    const char *name;
    void (*open)(way *w);
    void (*close)(way *w);
    void (*send)(way *w, const void *data);
    void (*recv)(way *w, void *data);
    int slower; /* so many times fewer messages */
} contenders[] = {
    {"lane", open_lane, close_lane, lane_send, lane_recv, 1},
    {"lane, in batches of 64", open_lane, close_lane, lane_send_quietly, lane_recv_quietly, 1},
    {"nc_log in shared memory, eventfds", open_log, close_log, log_send, log_recv, 1},
    {"pipe", open_pipe, close_pipe, pipe_send, pipe_recv, 8},
};
enum { CONTENDERS = sizeof contenders / sizeof contenders[0] };

/* ---- one way ---------------------------------------------------------------------------------------------- */

static double one_way(const struct contender *c, uint64_t n)
{
    way w = {0};
    c->open(&w);
    items = n;
    pid_t child = fork();
    if (child == 0) {
        pin(1);
        for (uint64_t i = 0; i < n; i++) {
            c->recv(&w, message);
            must(*(uint64_t *)(void *)message == i);
        }
        _exit(0);
    }
    pin(0);
    double began = now();
    for (uint64_t i = 0; i < n; i++) {
        *(uint64_t *)(void *)message = i;
        c->send(&w, message);
    }
    int status;
    must(waitpid(child, &status, 0) == child && status == 0);
    double took = now() - began;
    c->close(&w);
    return took / (double)n;
}

static void print_one_way(int rounds, uint64_t n)
{
    static double taken[CONTENDERS][LOADS][ROUNDS_AT_MOST];
    for (int i = 0; i < rounds; i++)
        for (int k = 0; k < LOADS; k++)
            for (int c = 0; c < CONTENDERS; c++) {
                size = loads[k].size;
                room = loads[k].room;
                uint64_t count = n / (uint64_t)(contenders[c].slower * loads[k].slower);
                taken[c][k][i] = one_way(&contenders[c], count);
            }
    printf("\n| one way, ns a message | 64 bytes | 64 bytes, 1 MiB of room | 1 KiB | 64 KiB, 1 MiB of room |\n"
           "|---|---:|---:|---:|---:|\n");
    for (int c = 0; c < CONTENDERS; c++) {
        printf("| %s |", contenders[c].name);
        for (int k = 0; k < LOADS; k++)
            print_cell(taken[c][k], rounds);
        printf("\n");
    }
}

/* ---- round trips of two that sleep -------------------------------------------------------------------------- */

static void trip_by_eventfd(way *a, way *b)
{
    uint64_t one = 1, rings;
    must(write(a->reader_bell, &one, sizeof one) == sizeof one);
    must(read(b->reader_bell, &rings, sizeof rings) == sizeof rings);
}

static void trip_back_by_eventfd(way *a, way *b)
{
    uint64_t one = 1, rings;
    must(read(a->reader_bell, &rings, sizeof rings) == sizeof rings);
    must(write(b->reader_bell, &one, sizeof one) == sizeof one);
}

static void trip_by_lane(way *a, way *b)
{
    lane_send(a, message);
    lane_recv(b, message);
}

static void trip_back_by_lane(way *a, way *b)
{
    lane_recv(a, message);
    lane_send(b, message);
}

static double trips[ROUNDS_AT_MOST * 100];

/* The median and the 99th in a hundred, microseconds. */
static void measure_trips(bool lanes, double *median, double *late)
{
    way a = {0}, b = {0};
    size = 64;
    room = 1 << 16;
    (lanes ? open_lane : open_log)(&a);
    (lanes ? open_lane : open_log)(&b);
    pid_t child = fork();
    if (child == 0) {
        pin(1);
        for (int i = 0; i < PINGS; i++)
            (lanes ? trip_back_by_lane : trip_back_by_eventfd)(&a, &b);
        _exit(0);
    }
    pin(0);
    for (int i = 0; i < PINGS; i++) {
        double began = now();
        (lanes ? trip_by_lane : trip_by_eventfd)(&a, &b);
        trips[i] = (now() - began) / 1000;
    }
    waitpid(child, NULL, 0);
    (lanes ? close_lane : close_log)(&a);
    (lanes ? close_lane : close_log)(&b);
    qsort(trips, PINGS, sizeof trips[0], by_size);
    *median = trips[PINGS / 2];
    *late = trips[PINGS * 99 / 100];
}

static void print_trips(int rounds)
{
    static double taken[2][2][ROUNDS_AT_MOST], ratio[ROUNDS_AT_MOST];
    for (int i = 0; i < rounds; i++) {
        for (int lanes = 0; lanes < 2; lanes++)
            measure_trips(lanes, &taken[lanes][0][i], &taken[lanes][1][i]);
        ratio[i] = taken[1][0][i] / taken[0][0][i];
    }
    printf("\n| round trip, both asleep, us | p50 | p99 |\n|---|---:|---:|\n");
    for (int lanes = 0; lanes < 2; lanes++) {
        printf("| %s |", lanes ? "two lanes, 64 bytes" : "two bare eventfds");
        print_cell(taken[lanes][0], rounds);
        print_cell(taken[lanes][1], rounds);
        printf("\n");
    }
    qsort(ratio, (size_t)rounds, sizeof ratio[0], by_size);
    printf("\nOf each round's p50, lanes to eventfds: %.2f in the median, %.2f to %.2f.\n", ratio[rounds / 2], ratio[0],
           ratio[rounds - 1]);
}

/* ---- a process is killed ------------------------------------------------------------------------------------ */

static double told_of_death(bool reader)
{
    int pair[2];
    os_lane lane;
    nc_record r = {0};
    size = 64;
    room = 4096;
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    pid_t child = fork();
    if (child == 0) {
        close(pair[0]);
        must(os_hello_say(pair[1], reader ? OS_WRITER : OS_READER, room) == OS_OK);
        pause();
    }
    close(pair[1]);
    os_result result;
    while ((result = os_lane_host(&lane, pair[0], getuid(), reader ? OS_WRITER : OS_READER, room)) == OS_AGAIN)
        poll(&(struct pollfd){.fd = pair[0], .events = POLLIN}, 1, -1);
    must(result == OS_OK);
    double *died = mmap(NULL, sizeof *died, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t killer = fork();
    if (killer == 0) {
        usleep(1000); /* until the other sleeps */
        *died = now();
        kill(child, SIGKILL);
        _exit(0);
    }
    os_rx rx;
    os_tx tx;
    if (reader)
        must(os_rx_open(&rx, &lane) == OS_OK);
    else
        must(os_tx_open(&tx, &lane) == OS_OK);
    do {
        result = reader ? os_rx_peek(&rx, &r, -1) : os_tx_claim(&tx, size, &r, -1);
        if (result == OS_OK)
            os_tx_commit(&tx, &r, size);
    } while (result == OS_OK || result == OS_AGAIN);
    must(result == OS_CRASHED);
    double took = (now() - *died) / 1000;
    os_lane_leave(&lane);
    waitpid(child, NULL, 0);
    waitpid(killer, NULL, 0);
    munmap(died, sizeof *died);
    return took;
}

static void print_deaths(void)
{
    static double taken[DEATHS];
    printf("\n| SIGKILL until the other, which sleeps, is told, us | median | last of %d |\n|---|---:|---:|\n", DEATHS);
    for (int reader = 1; reader >= 0; reader--) {
        for (int i = 0; i < DEATHS; i++)
            taken[i] = told_of_death(reader);
        qsort(taken, DEATHS, sizeof taken[0], by_size);
        printf("| %s | %.0f | %.0f |\n", reader ? "a reader, of its writer's death" : "a writer, of its reader's",
               taken[DEATHS / 2], taken[DEATHS - 1]);
    }
}

int main(void)
{
    const char *r = getenv("BENCH_ROUNDS"), *n = getenv("BENCH_ITEMS");
    int rounds = r ? atoi(r) : 11;
    uint64_t count = n ? strtoull(n, NULL, 10) : 1000000;
    rounds = rounds > ROUNDS_AT_MOST ? ROUNDS_AT_MOST : rounds;
    print_machine();
    print_one_way(rounds, count);
    fflush(stdout);
    print_trips(rounds);
    print_deaths();
    return 0;
}

#else

int main(void)
{
    printf("No lanes between processes on this system.\n");
    return 0;
}

#endif
