/* lanes.c: models of those who wait in a gate for what comes by lanes (nc_lanes.h, nc_chan.h): no wake-up is lost,
 * whoever hears the ring.  model_arg is the capacity in bytes.
 *
 * Thread 1 is another process, at the other end of the lane.  Thread 2, and in some models thread 3, waits in the line
 * of the gate; or it is an event loop of the same process, on which nobody waits, or somebody who looks.  A socket is
 * a word: something lies there to be heard.  Those who poll it are woken, and one of them finds it. */
#define CHAN_OF_BYTES
#include "chan.h"

enum { PEER = 1, WAITER, OTHER, THREADS = OTHER };
enum { LARGEST = 64, MOST = 3 };

struct parker_bed {
    uint32_t semaphore;
    bool polls; /* it hears lanes */
    bool observes; /* likewise, and then tries; it sleeps as long as there is nothing to be heard */
};

static chan ch;
static nc_log log;
static nc_lanes lanes;
static nc_lane_block block;
static _Alignas(NC_CACHE_LINE) _Atomic uint64_t words[2 * LARGEST / 8];
static nc_lane_in in;
static nc_lane_writer w; /* the other process's */
static nc_lane_reader r;
static parker parkers[MOST * 2];
static struct parker_bed beds[THREADS + 1];
static _Atomic uint32_t socket_here, socket_there; /* is something to be heard? */
static _Atomic uint32_t ended, visit, done, came;
static uint32_t bell_there;
static int messages, waiters;
static bool brings; /* the lane comes only now */
static bool loop_calls; /* false: the loop hears, and calls nobody: so it must not be */

static uint32_t get(_Atomic uint32_t *p) { return atomic_load_explicit(p, memory_order_relaxed); }

/* ---- the system ---------------------------------------------------------------------------------------- */

static void ring_here(void)
{
    atomic_store_explicit(&socket_here, 1, memory_order_release); /* P5 */
    for (int i = WAITER; i <= THREADS; i++)
        if (beds[i].polls || beds[i].observes)
            model_wake(&beds[i].semaphore);
}

static void stub_ring(nc_lanes *l, nc_lane_in *lane)
{
    (void)l;
    (void)lane;
    model_wake(&bell_there);
}

static void stub_attend(nc_lanes *l)
{
    if (atomic_exchange_explicit(&socket_here, 0, memory_order_acq_rel) == 0) /* P5 */
        return;
    if (l->reads && l->turn == NULL && atomic_exchange_explicit(&visit, 0, memory_order_acq_rel)) {
        nc_lane_open_reader(&in.reader, &block, words, (uint64_t)model_arg);
        in.reader.capacity = (uint64_t)model_arg;
        in.reader.head = in.reader.tail = 0;
        nc_lanes_add(l, &in);
        l->shut = true;
    }
    if (atomic_load_explicit(&ended, memory_order_acquire))
        *(l->reads ? &in.eof : &l->eof) = true;
}

static void stub_drop(nc_lanes *l, nc_lane_in *lane)
{
    (void)l;
    (void)lane;
}

static void stub_leave(nc_lanes *l) { (void)l; }

static const nc_lanes_owner owner = {stub_ring, stub_attend, stub_drop, stub_leave, stub_leave};

/* As reach_hear() does it. */
static void hear(bool calls)
{
    nc_box *kicks = NULL;
    nc_lanes_enter(&lanes);
    stub_attend(&lanes);
    nc_lanes_exit(&lanes);
    if (calls)
        nc_chan_call_waiting(&ch.in, lanes.reads ? RX : TX, 0, &kicks);
    chan_deliver(&ch, kicks);
}

static void parker_kick(parker *p) { model_wake(&p->bed->semaphore); }
static void parker_free(parker *p) { (void)p; }

static bool parker_sleep(parker *p, double patience)
{
    bool woken = true;
    if (nc_post_waits(&p->waiter))
        return true;
    if (p->bed->observes) {
        while (!nc_post_waits(&p->waiter) && !atomic_load_explicit(&socket_here, memory_order_acquire)) /* P5 */
            model_sleep(&p->bed->semaphore);
        return true;
    }
    if (patience > 0)
        woken = model_sleep_timed(&p->bed->semaphore);
    else
        model_sleep(&p->bed->semaphore);
    if (p->bed->polls)
        hear(true);
    return woken;
}

/* ---- setting up ----------------------------------------------------------------------------------------- */

static void start(bool reads, int n)
{
    uint64_t capacity = (uint64_t)model_arg;
    nc_lane_init(&block, capacity, 0);
    for (int i = 0; i < 2; i++) {
        nc_lane_side *side = i == 0 ? &block.reader : &block.writer;
        atomic_store_explicit(&side->sleeps, 0, memory_order_relaxed);
        atomic_store_explicit(&side->closed, 0, memory_order_relaxed);
    }
    for (uint64_t i = 0; i < 2 * capacity / 8; i++)
        atomic_store_explicit(&words[i], 0, memory_order_relaxed);
    w = (nc_lane_writer){&block, words, capacity, 0, 0};
    r = (nc_lane_reader){&block, words, capacity, 0, 0};
    in = (nc_lane_in){.reader = r, .id = 1};
    ch.in.ring = NULL;
    ch.in.log = &log;
    nc_log_init(&log, capacity, false, 0);
    log.many = NC_LOG_LANES;
    chan_start(&ch, true);
    nc_lanes_init(&lanes, &owner, reads, false);
    nc_chan_use_lanes(&ch.in, &lanes);
    if (reads) {
        nc_lanes_add(&lanes, &in);
        lanes.shut = true;
    }
    lanes.writer = w;
    for (int i = 0; i <= THREADS; i++)
        beds[i] = (struct parker_bed){0};
    _Atomic uint32_t *const flags[] = {&socket_here, &socket_there, &ended, &visit, &done, &came};
    for (int i = 0; i < 6; i++)
        atomic_store_explicit(flags[i], 0, memory_order_relaxed);
    bell_there = 0;
    messages = n;
    waiters = 1;
    loop_calls = true;
    chan_glances = brings = false;
    beds[WAITER].polls = true;
}

static void setup_one(void) { start(true, 1); }
static void setup_two(void) { start(true, 2); }

static void setup_by_loop(void)
{
    start(true, 1);
    beds[WAITER].polls = false;
    beds[OTHER].polls = true;
}

static void setup_by_either(void)
{
    setup_two();
    beds[OTHER].polls = true;
}

static void setup_heard_in_vain(void)
{
    setup_by_loop();
    loop_calls = false;
}

/* The lane is not here yet. */
static void setup_visit(void)
{
    start(true, 1);
    lanes.turn = NULL;
    lanes.count = 0;
    lanes.shut = false;
    brings = true;
    beds[OTHER].polls = true;
}

/* Likewise, but a look leaves out what is to be heard. */
static void setup_glance(void)
{
    setup_one();
    chan_glances = true;
}

static void setup_two_glances(void)
{
    setup_two();
    chan_glances = true;
}

static void setup_glance_by_either(void)
{
    setup_by_either();
    chan_glances = true;
}

static void setup_glance_visit(void)
{
    setup_visit();
    chan_glances = true;
}

/* It sleeps on something else: the ring of before is not heard. */
static void setup_glance_in_vain(void)
{
    setup_glance_visit();
    beds[WAITER].polls = beds[OTHER].polls = false;
}

static void setup_two_waiters(void)
{
    setup_two();
    waiters = 2;
    beds[OTHER].polls = true;
}

static void setup_observed(void)
{
    start(true, 1);
    beds[WAITER].observes = true;
}

static void setup_room(void) { start(false, 2); }

static void setup_room_by_either(void)
{
    setup_room();
    beds[OTHER].polls = true;
}

/* ---- the other process ------------------------------------------------------------------------------------ */

static void peer_writes(void)
{
    nc_record record = {0};
    if (brings) {
        atomic_store_explicit(&visit, 1, memory_order_release);
        ring_here();
    }
    for (int i = 0; i < messages; i++) {
        CHECK(nc_lane_claim(&w, 8, &record) == NC_OK);
        *(uint64_t *)(void *)record.data = (uint64_t)i;
        nc_lane_commit(&w, &record, 8, memory_order_seq_cst);
        if (nc_lane_wakes_reader(&w))
            ring_here();
    }
}

static void peer_writes_and_closes(void)
{
    peer_writes();
    nc_lane_close(&block.writer, &block.reader);
    atomic_store_explicit(&ended, 1, memory_order_release);
    ring_here(); /* the end of file */
}

static void peer_reads(void)
{
    nc_record record = {0};
    for (int i = 0; i < messages; i++) {
        nc_lane_fate fate;
        nc_result result;
        while ((result = nc_lane_next(&r, false, &record, &fate)) == NC_EMPTY)
            if (nc_lane_reader_may_sleep(&r))
                model_sleep(&bell_there);
        CHECK(result == NC_OK && *(uint64_t *)(void *)record.data == (uint64_t)i);
        nc_lane_release(&r, &record, memory_order_seq_cst);
        if (nc_lane_wakes_writer(&r))
            ring_here();
    }
}

/* ---- those who wait ---------------------------------------------------------------------------------------- */

static uint64_t chan_write(chan_value *value)
{
    *(uint64_t *)(void *)value->record.data = value->number;
    return value->record.size;
}

static void chan_read(chan_value *value) { value->number = *(uint64_t *)(void *)value->record.data; }

/* By a parker that is good for one call. */
static chan_step call(int side, int id, int nth, uint64_t number, double patience)
{
    parker *p = &parkers[(id - WAITER) * MOST + nth];
    chan_value value = {.record = {.size = 8}, .number = number};
    chan_step step = chan_try(&ch, side, &value);
    if (step == CHAN_BLOCKED) {
        parker_init(p, &ch);
        p->bed = &beds[id];
        p->waiter.least = p->waiter.share = side == TX ? nc_log_extent(8) : 1;
        step = chan_park(&ch, side, &value, p, patience);
    }
    if (step == CHAN_DONE)
        atomic_fetch_add_explicit(&came, 1, memory_order_relaxed);
    return step;
}

static void receives(int id)
{
    for (int i = 0; i < messages / waiters; i++)
        CHECK(call(RX, id, i, 0, 0) == CHAN_DONE);
}

static void sends(void)
{
    for (int i = 0; i < messages; i++)
        CHECK(call(TX, WAITER, i, (uint64_t)i, 0) == CHAN_DONE);
}

static void one_of_them_ends(void)
{
    if (atomic_fetch_add_explicit(&done, 1, memory_order_acq_rel) + 1 == (uint32_t)waiters)
        model_wake(&beds[OTHER].semaphore);
}

static void loops(void)
{
    while (atomic_load_explicit(&done, memory_order_acquire) < (uint32_t)waiters) {
        model_sleep(&beds[OTHER].semaphore);
        hear(loop_calls);
    }
}

/* ---- the models ------------------------------------------------------------------------------------------ */

static void thread_of_receivers(int id)
{
    if (id == PEER)
        peer_writes();
    else {
        receives(id);
        one_of_them_ends();
    }
}

static void thread_and_loop(int id)
{
    if (id == 3) {
        loops();
        return;
    }
    thread_of_receivers(id);
}

/* Thread 2 gives up at any time; then thread 3 waits, behind it or after it, for both. */
static void thread_gives_up(int id)
{
    if (id == PEER)
        peer_writes();
    else if (id == WAITER)
        call(RX, id, 0, 0, 1);
    else
        while (get(&came) < 1 && call(RX, id, 0, 0, 0) == CHAN_BLOCKED)
            ;
}

/* Thread 2 is a notifier, which goes on to the end; thread 3 tries once, and may be the one who hears. */
static void thread_observed(int id)
{
    chan_value value = {.number = 0};
    if (id == PEER) {
        peer_writes_and_closes();
    } else if (id == OTHER) {
        if (chan_try(&ch, RX, &value) == CHAN_DONE)
            atomic_fetch_add_explicit(&came, 1, memory_order_relaxed);
    } else {
        parker *p = &parkers[0];
        parker_init(p, &ch);
        p->bed = &beds[id];
        p->waiter.share = 0;
        while (chan_observe(&ch, RX, &value, p) == CHAN_DONE)
            atomic_fetch_add_explicit(&came, 1, memory_order_relaxed);
    }
}

static void thread_of_senders(int id)
{
    if (id == PEER)
        peer_reads();
    else {
        sends();
        one_of_them_ends();
    }
}

static void thread_of_senders_and_loop(int id)
{
    if (id == 3)
        loops();
    else
        thread_of_senders(id);
}

static void setup_gives_up(void)
{
    setup_two();
    beds[OTHER].polls = true;
}

static void finish(void) { CHECK(get(&came) == (uint32_t)messages); }

static const char LOST[] = "every thread that is left waits";

static const model models[] = {
    {"a waiter, and a ring", setup_one, thread_of_receivers, finish, 2, 4, 3, 64, NULL},
    {"a waiter, and two rings", setup_two, thread_of_receivers, finish, 2, 3, 2, 64, NULL},
    {"heard by a loop", setup_by_loop, thread_and_loop, finish, 3, 3, 2, 64, NULL},
    {"heard by either", setup_by_either, thread_and_loop, finish, 3, 2, 2, 64, NULL},
    {"heard, and nobody called", setup_heard_in_vain, thread_and_loop, finish, 3, 2, 2, 64, LOST},
    {"a lane that comes", setup_visit, thread_and_loop, finish, 3, 2, 2, 64, NULL},
    {"a glance, and a ring", setup_glance, thread_of_receivers, finish, 2, 4, 3, 64, NULL},
    {"a glance, and two rings", setup_two_glances, thread_of_receivers, finish, 2, 3, 2, 64, NULL},
    {"a glance, heard by either", setup_glance_by_either, thread_and_loop, finish, 3, 2, 2, 64, NULL},
    {"a glance, and a lane that comes", setup_glance_visit, thread_and_loop, finish, 3, 2, 2, 64, NULL},
    {"a glance, and nobody hears", setup_glance_in_vain, thread_and_loop, finish, 3, 2, 2, 64, LOST},
    {"two waiters", setup_two_waiters, thread_of_receivers, finish, 3, 2, 2, 64, NULL},
    {"a waiter gives up", setup_gives_up, thread_gives_up, NULL, 3, 2, 2, 64, NULL},
    {"observed to the end", setup_observed, thread_observed, finish, 3, 2, 2, 64, NULL},
    {"room", setup_room, thread_of_senders, finish, 2, 3, 3, 16, NULL},
    {"room, heard by either", setup_room_by_either, thread_of_senders_and_loop, finish, 3, 2, 2, 16, NULL},
};

int main(int argc, char **argv) { return model_main(models, sizeof models / sizeof models[0], argc, argv); }
