/* end.c: models of nc_end.h, alone and over a whole channel (chan.h), with the calls in the order of a binding: a
 * thread that was lent an end, and whoever takes it back. */
#define CHAN_OF_BYTES
#include "chan.h"
#include "nc_end.h"

enum { EXTENT = 16, CAPACITY = 2 * EXTENT };

struct parker_bed {
    uint32_t semaphore;
};

static nc_end end;
static uint32_t lent; /* plain: what the thread may touch in a call on an open end, and the owner once it has left */
static uint32_t record; /* plain: the open claim; whoever ends it may touch it */
static _Atomic uint32_t departures, ended, went, started;
static chan ch;
static _Alignas(NC_CACHE_LINE) unsigned char block[sizeof(nc_log) + 2 * CAPACITY];
static parker parkers[2];
static struct parker_bed beds[2];

static uint32_t get(_Atomic uint32_t *p) { return atomic_load_explicit(p, memory_order_relaxed); }
static void add(_Atomic uint32_t *p, uint32_t n) { atomic_fetch_add_explicit(p, n, memory_order_relaxed); }

static void parker_kick(parker *p) { model_wake(&p->bed->semaphore); }
static void parker_free(parker *p) { (void)p; }
static bool parker_sleep(parker *p, double patience)
{
    (void)patience;
    if (!nc_post_waits(&p->waiter))
        model_sleep(&p->bed->semaphore);
    return true;
}

static uint64_t chan_write(chan_value *value)
{
    *(uint64_t *)(void *)value->record.data = value->number;
    return 8;
}
static void chan_read(chan_value *value) { value->number = *(uint64_t *)(void *)value->record.data; }

static void setup(void)
{
    nc_log *log = (nc_log *)(void *)block;
    nc_end_init(&end);
    lent = record = 0;
    _Atomic uint32_t *const counts[] = {&departures, &ended, &went, &started};
    for (int i = 0; i < 4; i++)
        atomic_store_explicit(counts[i], 0, memory_order_relaxed);
    for (int i = 0; i < CAPACITY / 8; i++)
        atomic_store_explicit(&log->words[i], 0, memory_order_relaxed);
    chan_init(&ch, log, CAPACITY, 0, false);
    for (int i = 0; i < 2; i++) {
        beds[i].semaphore = 0;
        parkers[i].bed = &beds[i];
        parker_init(&parkers[i], &ch);
    }
}

/* ---- alone ------------------------------------------------------------------------------------------ */

static void depart(void)
{
    if (nc_end_depart(&end))
        add(&departures, 1);
}

/* The owner of what was lent has it back, and uses it. */
static void use_if_given_back(void)
{
    if (nc_end_has_left(&end))
        lent++;
}

static void take_back(bool abandon)
{
    nc_end_close(&end);
    uint32_t state = nc_end_await(&end);
    if (abandon && nc_end_bury(&end)) {
        record++;
        add(&ended, 1);
        nc_end_leave(&end, NC_END_IDLE);
        state = NC_END_IDLE;
    }
    if (state != NC_END_CLAIMED)
        depart();
}

static void use_call(void)
{
    nc_end_answer answer = nc_end_begin(&end);
    CHECK(answer != NC_END_WRONG);
    if (answer != NC_END_OPEN)
        return;
    lent++;
    nc_end_leave(&end, NC_END_IDLE);
}

/* A call on an open end has what was lent to itself; nobody touches it who has not been given it back. */
static void calls_against_close(int id)
{
    if (id == 1) {
        use_call();
        use_call();
    } else if (id == 2) {
        take_back(false);
    } else {
        use_if_given_back();
    }
}

static bool open_claim(void)
{
    nc_end_answer answer = nc_end_begin(&end);
    if (answer != NC_END_OPEN)
        return false;
    lent++;
    record++;
    nc_end_leave(&end, NC_END_CLAIMED);
    return true;
}

static void end_claim(void)
{
    nc_end_answer answer = nc_end_begin_claimed(&end);
    if (answer != NC_END_OPEN) /* it was ended in the thread's place */
        return;
    lent++;
    record++;
    add(&ended, 1);
    if (nc_end_leave_claim(&end))
        depart();
}

/* An open claim stays the thread's, and keeps a closed end in the channel. */
static void claim_against_close(int id)
{
    if (id == 1) {
        if (open_claim())
            end_claim();
    } else if (id == 2) {
        take_back(false);
    } else {
        use_if_given_back();
    }
}

/* A commit that is refused: the claim stays open. */
static void fail_to_end_claim(void)
{
    if (nc_end_begin_claimed(&end) != NC_END_OPEN)
        return;
    record++;
    nc_end_leave(&end, NC_END_CLAIMED);
}

/* Taken back from a thread that is thought to be dead, and is not. */
static void claim_against_burial(int id)
{
    if (id == 1) {
        if (open_claim()) {
            add(&started, 1);
            fail_to_end_claim();
            end_claim();
        }
    } else if (id == 2) {
        take_back(true);
    } else {
        use_if_given_back();
    }
}

static void left_once(void)
{
    CHECK(get(&departures) == 1);
    CHECK(nc_end_has_left(&end));
}

static void left_and_ended_once(void)
{
    left_once();
    CHECK(get(&ended) == get(&started));
    CHECK(get(&end.state) == NC_END_IDLE);
}

/* A call in the wrong state is refused and changes nothing, closed or open. */
static void wrong_calls(int id)
{
    if (id == 2) {
        take_back(false);
        return;
    }
    CHECK(nc_end_begin_claimed(&end) != NC_END_OPEN);
    if (!open_claim())
        return;
    CHECK(nc_end_begin(&end) != NC_END_OPEN);
    end_claim();
    CHECK(get(&ended) == 1);
}

/* One thread after the other: the second sees what the first left. */
static void attach_in_turn(int id)
{
    (void)id;
    unsigned spins = 0;
    while (!nc_end_attach(&end))
        nc_relax(&spins);
    record++;
    add(&ended, nc_end_detach(&end));
}

static void both_attached(void)
{
    CHECK(record == 2 && get(&ended) == 2);
    CHECK(!nc_end_attached(&end));
}

/* Who sees that nobody is attached any more sees what the thread did. */
static void seen_detached(int id)
{
    unsigned spins = 0;
    if (id == 1) {
        record++;
        nc_end_detach(&end);
        return;
    }
    while (nc_end_attached(&end))
        nc_relax(&spins);
    CHECK(record == 1);
}

static void setup_attached(void)
{
    setup();
    CHECK(nc_end_attach(&end));
}

/* ---- over a channel --------------------------------------------------------------------------------- */

/* Stand in line until done, or until the end was closed: the loop of a native wait. */
static chan_step native_park(int side, chan_value *value, parker *p)
{
    bool enrolled = false;
    nc_box *kicks = NULL;
    chan_step step;
    for (;;) {
        step = CHAN_BLOCKED;
        parker_receive(p);
        if (nc_end_closed(&end)) {
            step = CHAN_OVER;
            break;
        }
        lent++; /* in a call, and not closed before it was */
        if (enrolled && nc_waiter_state_of(&p->waiter) == NC_CALLED)
            step = chan_look(&ch, side, true, value, &kicks);
        if (step != CHAN_BLOCKED)
            break;
        bool turn = chan_line_up(&ch, side, &p->waiter, &kicks);
        enrolled = true;
        chan_deliver(&ch, kicks);
        kicks = NULL;
        if (!turn && !nc_end_closed(&end)) {
            nc_end_sleep(&end);
            parker_sleep(p, 0);
            nc_end_awake(&end);
        }
    }
    chan_line_leave(&ch, side, &p->waiter, &kicks);
    chan_deliver(&ch, kicks);
    return step;
}

static chan_step native_call(int side, chan_value *value, parker *p)
{
    nc_box *kicks = NULL;
    p->waiter.owner = &end;
    if (nc_end_begin(&end) != NC_END_OPEN)
        return CHAN_OVER;
    lent++;
    chan_step step = chan_look(&ch, side, false, value, &kicks);
    chan_deliver(&ch, kicks);
    if (step == CHAN_BLOCKED)
        step = native_park(side, value, p);
    nc_end_leave(&end, NC_END_IDLE);
    return step;
}

static void native_close(int side)
{
    nc_box *kicks = NULL;
    nc_end_close(&end);
    nc_chan_call_owner(&ch.in, side, &end, 0, &kicks);
    chan_deliver(&ch, kicks);
    if (nc_end_await(&end) == NC_END_CLAIMED)
        return;
    depart();
    lent++;
}

/* A native receiver waits; its end is closed, or something is sent, or both. */
static void close_against_wait(int id)
{
    chan_value value = {.record.size = 8, .number = 7};
    if (id == 1) {
        chan_step step = native_call(RX, &value, &parkers[0]);
        CHECK(step == CHAN_DONE || step == CHAN_OVER);
        add(&went, step == CHAN_DONE);
        if (step == CHAN_DONE)
            CHECK(value.number == 7);
    } else if (id == 2) {
        native_close(RX);
    } else {
        CHECK(chan_try(&ch, TX, &value) == CHAN_DONE);
    }
}

static void waited_for_and_left(void)
{
    left_once();
    for (int side = 0; side < SIDES; side++) {
        nc_gate *g = &ch.gate[side];
        CHECK(g->first == NULL && g->waiting == 0 && g->owed == 0 && g->called == 0);
    }
    CHECK(nc_log_used(ch.in.log) == EXTENT * ((uint32_t)model_arg - get(&went)));
}

/* What a native sender was told went is received before the end is seen. */
static void sends_before_the_end(int id)
{
    chan_value value = {.record.size = 8, .number = 7};
    unsigned spins = 0;
    if (id == 1) {
        for (int i = 0; i < 2; i++)
            add(&went, native_call(TX, &value, &parkers[0]) == CHAN_DONE);
    } else if (id == 2) {
        native_close(TX);
        chan_leave(&ch, TX); /* it was the last */
    } else {
        chan_step step;
        for (value.record.size = 0; (step = chan_try(&ch, RX, &value)) != CHAN_OVER; spins++)
            if (step == CHAN_DONE)
                add(&ended, 1);
            else
                model_relax();
    }
}

static void all_received(void)
{
    left_once();
    CHECK(get(&ended) == get(&went));
    CHECK(nc_log_used(ch.in.log) == 0);
}

static const model models[] = {
    {"calls against close", setup, calls_against_close, left_once, 3, 3, 2, 0, NULL},
    {"a claim against close", setup, claim_against_close, left_once, 3, 3, 2, 0, NULL},
    {"a claim against a burial", setup, claim_against_burial, left_and_ended_once, 3, 3, 2, 0, NULL},
    {"calls in the wrong state", setup, wrong_calls, left_once, 2, 3, 2, 0, NULL},
    {"attaching in turn", setup, attach_in_turn, both_attached, 2, 3, 2, 0, NULL},
    {"seen to be detached", setup_attached, seen_detached, NULL, 2, 3, 2, 0, NULL},
    {"close against a wait", setup, close_against_wait, waited_for_and_left, 2, 3, 2, 0, NULL},
    {"close against a wait, and a message", setup, close_against_wait, waited_for_and_left, 3, 2, 1, 1, NULL},
    {"sends before the end", setup, sends_before_the_end, all_received, 3, 2, 1, 0, NULL},
};

int main(int argc, char **argv) { return model_main(models, sizeof models / sizeof models[0], argc, argv); }
