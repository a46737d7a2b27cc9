/* stress_gate.c: parking, calling, mailboxes and closing between threads, over a whole channel (chan.h), of objects or,
 * built with CHAN_OF_BYTES, of bytes: messages of many sizes, copied or claimed, some shrunk, some given up first.
 * STRESS_ITEMS round trips or items a scenario, rounds a tenth of that.  A lost wake-up ends in the watchdog. */
#include "stress.h"

#include <semaphore.h>

#include "chan.h"

enum { MOST = 8, LANES = 3, POSTERS = 3 };

struct parker_bed {
    sem_t semaphore;
};

static chan channel[LANES];
static uint64_t n_items;
static bool one_receiver; /* which may borrow what it receives */
static _Atomic uint64_t sent, received, sent_sum, received_sum, freed, gave_up;

static uint64_t get(_Atomic uint64_t *p) { return atomic_load_explicit(p, memory_order_relaxed); }
static void add(_Atomic uint64_t *p, uint64_t n) { atomic_fetch_add_explicit(p, n, memory_order_relaxed); }

/* ---- how a thread sleeps ------------------------------------------------------------------------------- */

static void parker_kick(parker *p) { sem_post(&p->bed->semaphore); }

static void parker_free(parker *p)
{
    sem_destroy(&p->bed->semaphore);
    free(p->bed);
    free(p);
    add(&freed, 1);
}

static parker *parker_new(void *owner)
{
    parker *p = malloc(sizeof *p);
    p->bed = malloc(sizeof *p->bed);
    sem_init(&p->bed->semaphore, 0, 0);
    parker_init(p, owner);
    return p;
}

static bool parker_sleep(parker *p, double patience)
{
    for (int i = 0; i < 20; i++)
        if (nc_post_waits(&p->waiter))
            return true;
    if (patience == 0) {
        while (sem_wait(&p->bed->semaphore) != 0)
            ; /* a signal */
        return true;
    }
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += (long)(patience * 1e9);
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    int failed;
    while ((failed = sem_timedwait(&p->bed->semaphore, &t)) != 0 && errno == EINTR)
        ;
    return !failed;
}

/* ---- what is sent ---------------------------------------------------------------------------------------- */

/* What is sent is a number, and above it who sends it; a pointer may have 32 bits. */
enum { NUMBER_BITS = sizeof(void *) > 4 ? 32 : 28 };

#ifndef CHAN_OF_BYTES
static void *_Atomic slots[LANES][MOST];

static chan_value pack(uint64_t number) { return (void *)(uintptr_t)number; }
static uint64_t unpack(const chan_value *value) { return (uint64_t)(uintptr_t)*value; }
static uint64_t needs(const chan_value *value)
{
    (void)value;
    return 1;
}

static void chan_open(int lane, uint64_t capacity, bool many)
{
    for (int k = 0; k < MOST; k++)
        atomic_store_explicit(&slots[lane][k], NULL, memory_order_relaxed);
    chan_init(&channel[lane], slots[lane], capacity, -(uint64_t)50, many);
}

static chan_value to_receive(void) { return NULL; }

static chan_step chan_finish(chan *c, int side, chan_value *value, bool again)
{
    (void)c, (void)side, (void)value, (void)again;
    return CHAN_DONE;
}

static void dump_positions(chan *c)
{
    fprintf(stderr, "head %#" PRIx64 ", tail %#" PRIx64 "\n", atomic_load(&c->in.ring->head),
            atomic_load(&c->in.ring->tail));
}

#else
enum { LARGEST = 64 * MOST };
enum { BLOCK = (sizeof(nc_log) + 2 * LARGEST + LARGEST / 8 + NC_CACHE_LINE - 1) / NC_CACHE_LINE * NC_CACHE_LINE };
static _Alignas(NC_CACHE_LINE) unsigned char blocks[LANES][BLOCK];
static uint64_t least_size, range; /* of messages */

static uint64_t mix(uint64_t number) { return (number ^ stress_seed) * UINT64_C(0x9e3779b97f4a7c15); }

/* A message is its number, a check word, and bytes that follow from them. */
static chan_value pack(uint64_t number)
{
    uint64_t size = least_size + mix(number) / 1024 % range;
    return (chan_value){.record.size = size, .number = number, .claim = mix(number) >> 61 == 0};
}
static uint64_t unpack(const chan_value *value) { return value->number; }
static uint64_t needs(const chan_value *value) { return value->record.size ? nc_log_extent(value->record.size) : 1; }

static uint64_t chan_write(chan_value *value)
{
    nc_record *r = &value->record;
    uint64_t words[2] = {value->number, mix(value->number)};
    memcpy(r->data, words, sizeof words);
    memset(r->data + sizeof words, (int)(0x80 | value->number), r->size - sizeof words);
    return r->size % 7 == 0 ? sizeof words : r->size; /* shrunk: it has to be right all the same */
}

static void chan_read(chan_value *value)
{
    const nc_record *r = &value->record;
    uint64_t words[2], wrong = 0;
    memcpy(words, r->data, sizeof words);
    value->number = words[0];
    uint64_t wanted = pack(words[0]).record.size;
    CHECK_EQ(words[1], mix(words[0]));
    CHECK_EQ(r->size, wanted % 7 == 0 ? sizeof words : wanted);
    for (uint64_t i = sizeof words; i < r->size; i++)
        wrong += r->data[i] != (0x80 | (words[0] & 0xff));
    CHECK_EQ(wrong, 0);
}

/* Capacity 1: two messages never fit. */
static void chan_open(int lane, uint64_t capacity, bool many)
{
    uint64_t bytes = nc_log_round(64 * capacity), largest = bytes - NC_LOG_HEADER;
    least_size = capacity == 1 ? 25 : 16;
    range = largest - least_size + 1;
    memset(blocks[lane], 0, sizeof blocks[lane]);
    chan_init(&channel[lane], (nc_log *)(void *)blocks[lane], bytes, -(uint64_t)50, many);
}

static chan_value to_receive(void) { return (chan_value){.claim = one_receiver}; }

/* The claim that `value` left open, if it did, ends.  Half of the senders give it up first, and are to send `again`. */
static chan_step chan_finish(chan *c, int side, chan_value *value, bool again)
{
    if (!value->claim)
        return CHAN_DONE;
    NC_STEP("claim: open, not ended");
    if (side == RX) {
        chan_read(value);
        chan_release(c, &value->record, false);
    } else if (again || mix(value->number) >> 60 & 1) {
        return chan_commit(c, &value->record, chan_write(value));
    } else {
        chan_abort(c, &value->record);
        return CHAN_BLOCKED;
    }
    return CHAN_DONE;
}

static void dump_positions(chan *c)
{
    uint64_t pos = atomic_load(&c->in.log->head), header;
    fprintf(stderr, "head %#" PRIx64 ", tail %#" PRIx64 ":", pos, atomic_load(&c->in.log->tail));
    for (int i = 0; i < 20 && nc_log_dump_next(c->in.log, &pos, &header) && header != 0; i++)
        fprintf(stderr, " %#" PRIx64, header);
    fprintf(stderr, "\n");
}
#endif

/* ---- blocking calls ------------------------------------------------------------------------------------ */

static chan_step wait_for(chan *c, int side, chan_value *value, double patience)
{
    chan_step step = chan_try(c, side, value);
    if (step != CHAN_BLOCKED)
        return step;
    parker *p = parker_new(c);
    p->waiter.least = p->waiter.share = needs(value);
    step = chan_park(c, side, value, p, patience);
    parker_unref(p);
    return step;
}

static chan_step send(chan *c, uint64_t number, double patience)
{
    chan_step step = CHAN_BLOCKED;
    for (bool again = false; step == CHAN_BLOCKED; again = true) {
        chan_value value = pack(number);
        step = wait_for(c, TX, &value, patience);
        if (step == CHAN_DONE)
            step = chan_finish(c, TX, &value, again);
    }
    return step;
}

static chan_step recv(chan *c, uint64_t *number, double patience)
{
    chan_value value = to_receive();
    chan_step step = wait_for(c, RX, &value, patience);
    if (step == CHAN_DONE) {
        chan_finish(c, RX, &value, false);
        stress_done(1);
    }
    *number = unpack(&value);
    return step;
}

static void setup(uint64_t capacity, bool many, uint32_t senders)
{
    CASE("capacity %" PRIu64, capacity);
    one_receiver = true;
    for (int i = 0; i < LANES; i++) {
        chan_open(i, capacity, many);
        atomic_store_explicit(&channel[i].in.open[TX], senders, memory_order_relaxed);
    }
    atomic_store(&sent, 0);
    atomic_store(&received, 0);
    atomic_store(&sent_sum, 0);
    atomic_store(&received_sum, 0);
    atomic_store(&freed, 0);
    atomic_store(&gave_up, 0);
}

static void check_at_rest(chan *c)
{
    for (int side = 0; side < SIDES; side++) {
        nc_gate *g = &c->gate[side];
        CHECK(g->first == NULL && g->last == NULL && g->cursor == NULL);
        CHECK(g->waiting == 0 && g->owed == 0 && g->called == 0);
        CHECK_EQ(nc_gate_flag(g, memory_order_relaxed) & NC_WATCHED, 0);
        CHECK(nc_gate_crowd(g) < NC_WAITER);
    }
}

static void finish(void)
{
    for (int i = 0; i < LANES; i++) {
        check_at_rest(&channel[i]);
        chan_destroy(&channel[i]);
    }
}

static void dump(void)
{
    for (int i = 0; i < LANES; i++) {
        chan *c = &channel[i];
        fprintf(stderr, "lane %d: ", i);
        dump_positions(c);
        for (int side = 0; side < SIDES; side++) {
            nc_gate *g = &c->gate[side];
            fprintf(stderr, "  %s: flag %u, crowd %u, waiting %u, owed %" PRIu64 ", called %" PRIu64 "\n",
                    side == TX ? "tx" : "rx", atomic_load(&g->flag), atomic_load(&g->crowd), g->waiting, g->owed,
                    g->called);
            for (nc_waiter *w = g->first; w != NULL; w = w->next)
                fprintf(stderr, "    state %u, post %u, mail %p, kick %u\n", atomic_load(&w->state),
                        atomic_load(&w->post), (void *)atomic_load(&w->box->mail), atomic_load(&w->box->kick));
        }
    }
}

/* ---- parking ------------------------------------------------------------------------------------------- */

static void echo(int id)
{
    chan *out = &channel[id], *in = &channel[1 - id];
    for (uint64_t i = 1, got; i <= n_items; i++) {
        if (id == 0)
            CHECK_EQ(send(out, i, 0), CHAN_DONE);
        CHECK_EQ(recv(in, &got, 0), CHAN_DONE);
        CHECK_EQ(got, i);
        if (id == 1)
            CHECK_EQ(send(out, i, 0), CHAN_DONE);
    }
}

static void round_trips_at_capacity_1(void)
{
    n_items = stress_items;
    setup(1, false, 1);
    stress_run(2, echo);
    finish();
}

static void stream(int id)
{
    for (uint64_t i = 1, got; i <= n_items; i++)
        if (id == 0) {
            CHECK_EQ(send(channel, i, 0), CHAN_DONE);
        } else {
            CHECK_EQ(recv(channel, &got, 0), CHAN_DONE);
            CHECK_EQ(got, i);
        }
}

static void a_stream_through_little_room(void)
{
    n_items = stress_items;
    for (uint64_t capacity = 1; capacity <= 7; capacity += 3) {
        setup(capacity, false, 1);
        stress_run(2, stream);
        finish();
    }
}

static void fan_in(int id)
{
    if (id < 3) {
        for (uint64_t i = 1; i <= n_items; i++)
            CHECK_EQ(send(channel, (uint64_t)id << NUMBER_BITS | i, 0), CHAN_DONE);
        return;
    }
    uint64_t last[3] = {0}, got;
    for (uint64_t i = 0; i < 3 * n_items; i++) {
        CHECK_EQ(recv(channel, &got, 0), CHAN_DONE);
        CHECK_EQ(got & ((UINT64_C(1) << NUMBER_BITS) - 1), ++last[got >> NUMBER_BITS]);
    }
}

static void many_senders_through_little_room(void)
{
    n_items = stress_items / 3;
    for (uint64_t capacity = 1; capacity <= 7; capacity += 3) {
        setup(capacity, true, 1);
        stress_run(4, fan_in);
        finish();
    }
}

/* ---- giving up ------------------------------------------------------------------------------------------- */

static double some_patience(uint64_t *seed)
{
    uint64_t r = test_random(seed) % 8;
    return r < 3 ? 0 : (double)(test_random(seed) % 100 + 1) * 1e-6;
}

/* Three send, three receive; they give up now and then, and what they were called for goes to the next. */
static void impatient(int id)
{
    uint64_t seed = stress_seed_for(id), got;
    if (id < 3) {
        for (uint64_t i = 1; i <= n_items; i++) {
            chan_step step = send(channel, (uint64_t)id << NUMBER_BITS | i, some_patience(&seed));
            CHECK(step == CHAN_DONE || step == CHAN_GAVE_UP);
            if (step == CHAN_DONE) {
                add(&sent, 1);
                add(&sent_sum, (uint64_t)id << NUMBER_BITS | i);
            }
            add(&gave_up, step == CHAN_GAVE_UP);
        }
        chan_close_sender(channel);
        return;
    }
    chan_step step;
    while ((step = recv(channel, &got, some_patience(&seed))) != CHAN_OVER) {
        if (step == CHAN_DONE) {
            add(&received, 1);
            add(&received_sum, got);
        }
        add(&gave_up, step == CHAN_GAVE_UP);
    }
}

static void who_gives_up_passes_on_what_it_was_called_for(void)
{
    n_items = stress_items / 3;
    for (uint64_t capacity = 1; capacity <= 3; capacity++) {
        setup(capacity, true, 3);
        one_receiver = false;
        stress_run(6, impatient);
        CHECK_EQ(get(&sent), get(&received));
        CHECK_EQ(get(&sent_sum), get(&received_sum));
        finish();
    }
    printf("gave up %" PRIu64 " times\n", get(&gave_up));
}

/* ---- one mailbox for several lines ------------------------------------------------------------------------ */

static parker *loop; /* as an event loop has it: one box, a semaphore for its wake fd */
static nc_waiter loop_waiter[LANES];

/* Take what there is, line up, until there is nothing: true at the end of the lane. */
static bool lane_advance(int lane, uint64_t *last)
{
    chan *c = &channel[lane];
    nc_waiter *w = &loop_waiter[lane];
    for (bool called = nc_waiter_state_of(w) == NC_CALLED;;) {
        nc_box *kicks = NULL;
        chan_value value;
        memset(&value, 0, sizeof value); /* to be copied */
        bool turn = false;
        chan_enter(c, RX);
        chan_step step = chan_look(c, RX, called, &value, &kicks);
        if (step == CHAN_BLOCKED)
            turn = chan_line_up(c, RX, w, &kicks);
        else if (nc_waiter_state_of(w) != NC_OUTSIDE)
            chan_line_leave(c, RX, w, &kicks);
        chan_exit(c, RX);
        chan_deliver(c, kicks);
        if (step == CHAN_OVER)
            return true;
        if (step == CHAN_BLOCKED && !turn)
            return false;
        called = turn;
        if (step == CHAN_DONE) {
            CHECK_EQ(unpack(&value), ++*last);
            stress_done(1);
        }
    }
}

static void run_loop(void)
{
    uint64_t last[LANES] = {0};
    int open = LANES;
    for (int lane = 0; lane < LANES; lane++)
        open -= lane_advance(lane, &last[lane]);
    while (open > 0) {
        while (sem_wait(&loop->bed->semaphore) != 0)
            ;
        for (nc_waiter *w = nc_box_take(&loop->box), *next; w != NULL; w = next) {
            next = w->mail_next;
            CHECK(nc_post_receive(w));
            if (nc_waiter_state_of(w) == NC_CALLED)
                open -= lane_advance((int)(w - loop_waiter), &last[w - loop_waiter]);
        }
    }
    for (int lane = 0; lane < LANES; lane++)
        CHECK_EQ(last[lane], n_items);
}

static void mail(int id)
{
    if (id == POSTERS) {
        run_loop();
        return;
    }
    for (uint64_t i = 1; i <= n_items; i++)
        CHECK_EQ(send(&channel[id], i, 0), CHAN_DONE);
    chan_leave(&channel[id], TX);
}

static void several_posters_into_one_mailbox(void)
{
    n_items = stress_items / LANES;
    setup(3, true, 1);
    loop = parker_new(channel);
    for (int i = 0; i < LANES; i++) {
        loop_waiter[i] = (nc_waiter){.least = 1, .share = 1, .box = &loop->box, .owner = channel};
        atomic_store(&loop_waiter[i].state, NC_OUTSIDE);
        atomic_store(&loop_waiter[i].post, NC_POST_NONE);
    }
    stress_run(POSTERS + 1, mail);
    CHECK_EQ(atomic_load(&loop->box.refs), 1);
    parker_unref(loop);
    finish();
}

/* Waiters come and go while a caller calls them and the box's owner receives them: each is ended once, by one of the
 * two who might. */
static void end_post(nc_waiter *w)
{
    free(w);
    add(&freed, 1);
}

static _Atomic bool over;

static void abandoned(int id)
{
    nc_gate *g = &channel[0].gate[RX];
    if (id == 0) {
        uint64_t seed = stress_seed_for(id);
        for (uint64_t i = 0; i < n_items; i++) {
            nc_waiter *w = calloc(1, sizeof *w);
            w->least = w->share = 1;
            w->box = &loop->box;
            nc_gate_enter(g, 0);
            nc_gate_enrol(g, w);
            nc_gate_exit(g);
            for (uint64_t spin = test_random(&seed) % 64; spin > 0 && nc_waiter_state_of(w) != NC_CALLED; spin--)
                sched_yield();
            nc_gate_enter(g, 0);
            nc_gate_leave(g, w);
            nc_gate_exit(g);
            if (nc_post_abandon(w))
                end_post(w);
            stress_done(1);
        }
        atomic_store(&over, true);
        parker_kick(loop);
    } else if (id == 1) {
        while (!atomic_load(&over)) {
            nc_box *kicks = NULL;
            nc_gate_enter(g, 0);
            nc_gate_call_ready(g, 1, &kicks);
            nc_gate_exit(g);
            chan_deliver(&channel[0], kicks);
            sched_yield();
        }
    } else {
        do {
            while (sem_wait(&loop->bed->semaphore) != 0)
                ;
            for (nc_waiter *w = nc_box_take(&loop->box), *next; w != NULL; w = next) {
                next = w->mail_next;
                if (!nc_post_receive(w))
                    end_post(w);
            }
        } while (!atomic_load(&over));
    }
}

static void an_abandoned_waiter_is_ended_once(void)
{
    n_items = stress_items / 2;
    setup(1, false, 1);
    loop = parker_new(channel);
    atomic_store(&over, false);
    stress_run(3, abandoned);
    for (nc_waiter *w = nc_box_take(&loop->box), *next; w != NULL; w = next) { /* called at the very end */
        next = w->mail_next;
        CHECK(!nc_post_receive(w));
        end_post(w);
    }
    CHECK_EQ(get(&freed), n_items);
    CHECK_EQ(atomic_load(&loop->box.refs), 1);
    parker_unref(loop);
    finish();
}

/* ---- closing --------------------------------------------------------------------------------------------- */

static pthread_barrier_t barrier;
static bool receiver_leaves;

/* Each round a new channel: two senders send three items each and close, one receiver takes all and sees the end; or
 * leaves at some time, and what is sent is received or discarded. */
static void close_rounds(int id)
{
    uint64_t seed = stress_seed_for(id), rounds = stress_items / 10 + 1;
    for (uint64_t round = 0; round < rounds; round++) {
        if (id == 0)
            setup(1 + round % 3, true, 2);
        pthread_barrier_wait(&barrier);
        uint64_t got, mine = 0, stay = receiver_leaves ? test_random(&seed) % 8 : 100;
        if (id < 2) {
            for (uint64_t i = 1; i <= 3; i++) {
                chan_step step = send(channel, i, 0);
                CHECK(step == CHAN_DONE || (receiver_leaves && step == CHAN_OVER));
                mine += step == CHAN_DONE;
            }
            add(&sent, mine);
            chan_close_sender(channel);
        } else {
            chan_step step = CHAN_DONE;
            while (mine < stay && (step = recv(channel, &got, 0)) == CHAN_DONE)
                mine++;
            CHECK(step == CHAN_DONE || step == CHAN_OVER);
            add(&received, mine);
            chan_leave(channel, RX);
        }
        pthread_barrier_wait(&barrier);
        if (id == 0) {
            CHECK_EQ(get(&sent), get(&received) + get(&channel[0].discarded));
            CHECK(nc_chan_used(&channel[0].in) == 0);
            if (!receiver_leaves) {
                CHECK_EQ(get(&received), 6);
                CHECK_EQ(get(&channel[0].discarded), 0);
            }
            finish();
        }
        pthread_barrier_wait(&barrier);
    }
}

static void what_was_sent_comes_before_the_end(void)
{
    receiver_leaves = false;
    pthread_barrier_init(&barrier, NULL, 3);
    stress_run(3, close_rounds);
    pthread_barrier_destroy(&barrier);
}

static void nothing_stays_behind_when_the_receiver_leaves(void)
{
    receiver_leaves = true;
    pthread_barrier_init(&barrier, NULL, 3);
    stress_run(3, close_rounds);
    pthread_barrier_destroy(&barrier);
}

#define SCENARIO(test)                                            \
    do {                                                          \
        double began = stress_clock();                            \
        stress_scenario = #test;                                  \
        RUN(test);                                                \
        printf("%-50s %6.2f s\n", #test, stress_clock() - began); \
    } while (0)

int main(void)
{
    stress_dump = dump;
    stress_start(20000);
    SCENARIO(round_trips_at_capacity_1);
    SCENARIO(a_stream_through_little_room);
    SCENARIO(many_senders_through_little_room);
    SCENARIO(who_gives_up_passes_on_what_it_was_called_for);
    SCENARIO(several_posters_into_one_mailbox);
    SCENARIO(an_abandoned_waiter_is_ended_once);
    SCENARIO(what_was_sent_comes_before_the_end);
    SCENARIO(nothing_stays_behind_when_the_receiver_leaves);
    return stress_report();
}
