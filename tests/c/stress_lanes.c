/* stress_lanes.c: threads that hold no lock in common share the end of a channel between processes, as native threads
 * do that hold no GIL.  The processes are three groups of threads here: two that send, by a lane each, and one that
 * receives. Threads wait in the gate of their process and, by poll(2), for what is rung; whoever hears it hears it for
 * all.  A thread that waits for nothing hears, too.  STRESS_ITEMS messages a sending thread.  A lost wake-up ends in
 * the watchdog. */
#define CHAN_OF_BYTES
#include "stress.h"

#include "os_bell.h"

#if OS_HAS_LANES

#include <sys/eventfd.h>

#include "chan.h"

enum { SENDING = 2, EACH = 2, SENDERS = SENDING * EACH, THREADS = SENDERS + 2, CAPACITY = 256, LARGEST = 64 };

typedef struct way { /* a lane; both its ends map the same memory here */
    nc_lane_block block;
    _Alignas(NC_CACHE_LINE) _Atomic uint64_t words[2 * CAPACITY / 8];
    nc_lane_in in; /* of the receiver */
    int sockets[2]; /* the sender's, the receiver's */
} way;

typedef struct process {
    chan c;
    nc_log log;
    nc_lanes lanes;
} process;

struct parker_bed {
    process *of;
    struct pollfd polls[1 + SENDING]; /* its own bell, then those of its process */
    nfds_t n;
};

static way ways[SENDING];
static process senders[SENDING], receiver;
static _Atomic bool ended;

/* ---- the system ------------------------------------------------------------------------------------------ */

static int which(nc_lanes *l) { return (int)((process *)(void *)((char *)l - offsetof(process, lanes)) - senders); }

static void ring_way(nc_lanes *l, nc_lane_in *in)
{
    way *w = in != NULL ? (way *)(void *)((char *)in - offsetof(way, in)) : &ways[which(l)];
    os_bell_ring(w->sockets[in != NULL]);
}

static void attend_ways(nc_lanes *l)
{
    if (!l->reads) {
        l->eof |= os_bell_hear(ways[which(l)].sockets[0]) == OS_CRASHED;
        return;
    }
    for (int i = 0; i < SENDING; i++)
        ways[i].in.eof |= os_bell_hear(ways[i].sockets[1]) == OS_CRASHED;
}

static void drop_way(nc_lanes *l, nc_lane_in *in)
{
    (void)l;
    (void)in;
}

static void leave_way(nc_lanes *l)
{
    way *w = &ways[which(l)];
    if (nc_lane_close(&w->block.writer, &w->block.reader))
        os_bell_ring(w->sockets[0]);
    shutdown(w->sockets[0], SHUT_RDWR);
}

static void end_ways(nc_lanes *l) { (void)l; }

static const nc_lanes_owner owner = {ring_way, attend_ways, drop_way, leave_way, end_ways};

static void hear(process *p)
{
    nc_box *kicks = NULL;
    nc_chan_hear(&p->c.in, 0, &kicks);
    chan_deliver(&p->c, kicks);
}

/* ---- how a thread sleeps ------------------------------------------------------------------------------- */

static void parker_kick(parker *p)
{
    uint64_t one = 1;
    CHECK(write(p->bed->polls[0].fd, &one, sizeof one) == (ssize_t)sizeof one);
}

static void parker_free(parker *p)
{
    close(p->bed->polls[0].fd);
    free(p->bed);
    free(p);
}

static parker *parker_new(process *of)
{
    parker *p = malloc(sizeof *p);
    p->bed = calloc(1, sizeof *p->bed);
    p->bed->of = of;
    p->bed->polls[p->bed->n++] = (struct pollfd){.fd = eventfd(0, EFD_NONBLOCK), .events = POLLIN};
    for (int i = 0; i < SENDING; i++)
        if (of == &receiver || of == &senders[i])
            p->bed->polls[p->bed->n++] = (struct pollfd){.fd = ways[i].sockets[of == &receiver], .events = POLLIN};
    parker_init(p, p);
    return p;
}

static bool parker_sleep(parker *p, double patience)
{
    uint64_t kicks;
    bool rung = false;
    (void)patience;
    if (nc_post_waits(&p->waiter) || poll(p->bed->polls, p->bed->n, -1) <= 0)
        return true;
    if (p->bed->polls[0].revents != 0)
        CHECK(read(p->bed->polls[0].fd, &kicks, sizeof kicks) > 0);
    for (nfds_t i = 1; i < p->bed->n; i++)
        rung |= p->bed->polls[i].revents != 0;
    if (rung)
        hear(p->bed->of);
    return true;
}

/* ---- what is sent ---------------------------------------------------------------------------------------- */

typedef struct stamp {
    uint64_t who, number;
} stamp;

static uint64_t chan_write(chan_value *value)
{
    stamp s = {value->number >> 32, value->number & UINT32_MAX};
    memcpy(value->record.data, &s, sizeof s);
    memset(value->record.data + sizeof s, (int)s.number, value->record.size - sizeof s);
    return value->record.size;
}

static void chan_read(chan_value *value)
{
    stamp s;
    memcpy(&s, value->record.data, sizeof s);
    for (uint64_t i = sizeof s; i < value->record.size; i++)
        CHECK_EQ(value->record.data[i], (unsigned char)s.number);
    value->number = s.who << 32 | s.number;
}

/* ---- threads --------------------------------------------------------------------------------------------- */

static void begin_process(process *p, bool reads)
{
    memset((void *)p, 0, sizeof *p);
    chan_init(&p->c, &p->log, CAPACITY, 0, false);
    p->log.many = NC_LOG_LANES;
    p->c.many = true;
    nc_lanes_init(&p->lanes, &owner, reads, false);
    nc_chan_use_lanes(&p->c.in, &p->lanes);
    for (int i = 1; i < EACH && !reads; i++)
        nc_chan_join(&p->c.in, TX);
}

static void begin(void)
{
    atomic_store(&ended, false);
    begin_process(&receiver, true);
    for (int i = 0; i < SENDING; i++) {
        way *w = &ways[i];
        memset((void *)w, 0, sizeof *w);
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, w->sockets) == 0);
        nc_lane_init(&w->block, CAPACITY, -(uint64_t)CAPACITY);
        begin_process(&senders[i], false);
        CHECK_EQ(nc_lane_open_writer(&senders[i].lanes.writer, &w->block, w->words, CAPACITY), NC_LANE_SOUND);
        CHECK_EQ(nc_lane_open_reader(&w->in.reader, &w->block, w->words, CAPACITY), NC_LANE_SOUND);
        w->in.id = (uint64_t)i + 1;
        nc_lanes_add(&receiver.lanes, &w->in);
    }
    receiver.lanes.shut = true;
}

/* Commit what was claimed, now and then without telling the receiver before a later one. */
static bool end_claim(chan *c, chan_value *value, bool quiet)
{
    nc_box *kicks = NULL;
    nc_chan_commit(&c->in, &value->record, chan_write(value), quiet ? memory_order_release : memory_order_seq_cst);
    chan_notify(c, quiet ? TX : RX, &kicks);
    chan_deliver(c, kicks);
    return quiet;
}

static void flush(chan *c)
{
    nc_box *kicks = NULL;
    nc_chan_publish_batch(&c->in);
    chan_notify(c, RX, &kicks);
    chan_deliver(c, kicks);
}

static void send_all(int id)
{
    chan *c = &senders[id / EACH].c;
    parker *p = parker_new(&senders[id / EACH]);
    uint64_t seed = stress_seed_for(id);
    bool quiet = false;
    for (uint64_t i = 0; i < stress_items; i++) {
        uint64_t x = test_random(&seed), size = sizeof(stamp) + x / 16 % (LARGEST - sizeof(stamp));
        chan_value value = {.record = {.size = size}, .number = (uint64_t)id << 32 | i, .claim = x % 3 == 0};
        p->waiter.least = p->waiter.share = nc_log_extent(size);
        chan_step step = chan_try(c, TX, &value);
        if (step == CHAN_BLOCKED && quiet)
            flush(c); /* a receiver that sleeps would never make room */
        quiet &= step != CHAN_BLOCKED;
        if (step == CHAN_BLOCKED)
            step = chan_park(c, TX, &value, p, 0);
        CHECK_EQ(step, CHAN_DONE);
        if (value.claim)
            quiet = end_claim(c, &value, x % 4 == 0);
        else
            quiet = false;
    }
    if (quiet)
        flush(c);
    parker_unref(p);
    nc_box *kicks = NULL;
    nc_chan_leave(&c->in, TX, 0, &kicks);
    chan_deliver(c, kicks);
}

static void receive_all(void)
{
    parker *p = parker_new(&receiver);
    uint64_t due[SENDERS] = {0};
    for (;;) {
        chan_value value = {.claim = false};
        chan_step step = chan_try(&receiver.c, RX, &value);
        if (step == CHAN_BLOCKED)
            step = chan_park(&receiver.c, RX, &value, p, 0);
        if (step == CHAN_OVER)
            break;
        CHECK_EQ(step, CHAN_DONE);
        uint64_t who = value.number >> 32;
        CHECK(who < SENDERS && (value.number & UINT32_MAX) == due[who]++);
        stress_done(1);
    }
    for (int i = 0; i < SENDERS; i++)
        CHECK_EQ(due[i], stress_items);
    parker_unref(p);
    atomic_store(&ended, true);
}

/* It waits for nothing, and looks in now and then, as an event loop does. */
static void look_in(void)
{
    for (unsigned i = 0; !atomic_load(&ended); i++) {
        hear(i % 3 == 0 ? &receiver : &senders[i % SENDING]);
        sched_yield();
    }
}

static void body(int id)
{
    if (id < SENDERS)
        send_all(id);
    else if (id == SENDERS)
        receive_all();
    else
        look_in();
}

static void threads_share_an_end(void)
{
    double began = stress_clock();
    stress_scenario = "threads share an end";
    begin();
    stress_run(THREADS, body);
    CHECK(nc_lanes_over(&receiver.lanes) && !nc_lanes_crashed(&receiver.lanes));
    for (int i = 0; i < SENDING; i++) {
        close(ways[i].sockets[0]);
        close(ways[i].sockets[1]);
        chan_destroy(&senders[i].c);
    }
    chan_destroy(&receiver.c);
    printf("%d threads by %d lanes, %.2f s\n", SENDERS, SENDING, stress_clock() - began);
}

int main(void)
{
    stress_start(20000);
    RUN(threads_share_an_end);
    return stress_report();
}

#else
#include "no_lanes.h"
#endif
