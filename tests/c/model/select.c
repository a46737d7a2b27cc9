/* select.c: models of a thread that waits in the lines of two channels by one box, as py_select.c does: it lines up in
 * both, looks where it was called, takes from one, and leaves both lines.  model_arg is the capacity, in items. */
#include "chan.h"

enum { MOST = 4, PARKERS = 3, CHANS = 2 };

struct parker_bed {
    uint32_t semaphore;
};

/* A thread with a place in each line. */
typedef struct selector {
    parker parker; /* its own place is not used */
    nc_waiter waiter[CHANS];
} selector;

static chan ch[CHANS];
static void *_Atomic slots[CHANS][MOST];
static uint32_t payload[CHANS][MOST]; /* plain: what is sent carries it */
static parker parkers[PARKERS];
static struct parker_bed beds[PARKERS + 1];
static selector chooser;
static _Atomic uint32_t came[CHANS];

static uint32_t get(_Atomic uint32_t *p) { return atomic_load_explicit(p, memory_order_relaxed); }

static void parker_kick(parker *p) { model_wake(&p->bed->semaphore); }
static void parker_free(parker *p) { (void)p; }

static bool parker_sleep(parker *p, double patience)
{
    bool posted = false;
    for (int i = 0; i < CHANS && p == &chooser.parker; i++)
        posted = posted || nc_post_waits(&chooser.waiter[i]); /* it spins a little first */
    if (posted || (p != &chooser.parker && nc_post_waits(&p->waiter)))
        return true;
    if (patience > 0)
        return model_sleep_timed(&p->bed->semaphore);
    model_sleep(&p->bed->semaphore);
    return true;
}

static void setup(void)
{
    for (int i = 0; i < CHANS; i++) {
        chan_init(&ch[i], slots[i], (uint64_t)model_arg, 0, true);
        atomic_store_explicit(&came[i], 0, memory_order_relaxed);
        for (int j = 0; j < MOST; j++)
            payload[i][j] = 0;
        nc_waiter *w = &chooser.waiter[i];
        *w = (nc_waiter){.share = 1, .least = 1, .box = &chooser.parker.box, .owner = &ch[i]};
        atomic_store_explicit(&w->state, NC_OUTSIDE, memory_order_relaxed);
        atomic_store_explicit(&w->post, NC_POST_NONE, memory_order_relaxed);
    }
    for (int i = 0; i < PARKERS; i++) {
        beds[i].semaphore = 0;
        parkers[i].bed = &beds[i];
        parker_init(&parkers[i], &ch[0]);
    }
    beds[PARKERS].semaphore = 0;
    chooser.parker.bed = &beds[PARKERS];
    parker_init(&chooser.parker, &ch[0]);
}

/* ---- calls ------------------------------------------------------------------------------------------ */

static void took(int c, chan_value value)
{
    uint32_t *got = value;
    CHECK(*got == 1);
    *got = 2;
    atomic_fetch_add_explicit(&came[c], 1, memory_order_relaxed);
}

static void send(int c, int number)
{
    chan_value value = &payload[c][number];
    payload[c][number] = 1;
    CHECK(chan_try(&ch[c], TX, &value) == CHAN_DONE); /* there is always room */
}

/* By a parker that is good for one call. */
static chan_step recv(int c, int me)
{
    chan_value value;
    chan_step step = chan_try(&ch[c], RX, &value);
    parkers[me].waiter.owner = &ch[c];
    if (step == CHAN_BLOCKED)
        step = chan_park(&ch[c], RX, &value, &parkers[me], 0);
    if (step == CHAN_DONE)
        took(c, value);
    return step;
}

/* Look at those where it does not stand in line uncalled; at the second channel first, as the first has another waiter.
 */
static chan_step look_at_both(int *index, chan_value *value, nc_box **kicks)
{
    chan_step step = CHAN_BLOCKED;
    for (int i = CHANS - 1; i >= 0 && step == CHAN_BLOCKED; i--) {
        chan_enter(&ch[i], RX);
        uint32_t place = nc_waiter_state_of(&chooser.waiter[i]);
        if (place != NC_WAITING)
            step = chan_look(&ch[i], RX, place == NC_CALLED, value, kicks);
        chan_exit(&ch[i], RX);
        *index = i;
    }
    return step;
}

static bool line_up_at_both(nc_box **kicks)
{
    bool turn = false;
    for (int i = 0; i < CHANS; i++) {
        chan_enter(&ch[i], RX);
        turn = chan_line_up(&ch[i], RX, &chooser.waiter[i], kicks) || turn;
        chan_exit(&ch[i], RX);
    }
    return turn;
}

static void deliver(nc_box *kicks)
{
    chan_deliver(&ch[0], kicks);
    chan_deliver(&ch[1], NULL);
}

/* Take from whichever channel has something, or has ended; *index says which. */
static chan_step choose(int *index, double patience)
{
    chan_value value;
    chan_step step;
    nc_box *kicks;
    do {
        kicks = NULL;
        parker_receive(&chooser.parker);
        step = look_at_both(index, &value, &kicks);
        bool turn = step == CHAN_BLOCKED && line_up_at_both(&kicks);
        deliver(kicks);
        if (step == CHAN_BLOCKED && !turn && !parker_sleep(&chooser.parker, patience))
            step = CHAN_GAVE_UP;
    } while (step == CHAN_BLOCKED);
    kicks = NULL;
    for (int i = 0; i < CHANS; i++) {
        chan_enter(&ch[i], RX);
        chan_line_leave(&ch[i], RX, &chooser.waiter[i], &kicks);
        chan_exit(&ch[i], RX);
    }
    deliver(kicks);
    parker_receive(&chooser.parker);
    if (step == CHAN_DONE)
        took(*index, value);
    return step;
}

/* ---- models ----------------------------------------------------------------------------------------- */

static void at_rest(void)
{
    for (int c = 0; c < CHANS; c++)
        for (int side = 0; side < SIDES; side++) {
            nc_gate *g = &ch[c].gate[side];
            CHECK(g->first == NULL && g->last == NULL && g->waiting == 0 && g->owed == 0 && g->called == 0);
            CHECK(nc_gate_crowd(g) < NC_WAITER && !(nc_gate_flag(g, memory_order_relaxed) & NC_WATCHED));
        }
}

/* One sends to each channel: neither is missed, and each is taken once. */
static void two_senders(int id)
{
    int index, other;
    if (id <= CHANS) {
        send(id - 1, 0);
        return;
    }
    CHECK(choose(&index, 0) == CHAN_DONE);
    CHECK(choose(&other, 0) == CHAN_DONE);
    CHECK(index != other);
}

static void all_came(void)
{
    at_rest();
    CHECK(get(&came[0]) == 1 && get(&came[1]) == 1);
}

/* Another waits in one of the lines: the turn there that is not used is handed to it. */
static void one_in_line(int id)
{
    int index;
    if (id == 1) {
        send(0, 0);
        send(1, 0);
    } else if (id == 2) {
        CHECK(recv(0, 0) == CHAN_DONE);
    } else {
        CHECK(choose(&index, 0) == CHAN_DONE);
        if (index == 0)
            send(0, 1); /* or the other would wait for ever */
    }
}

static void nothing_lost(void)
{
    at_rest();
    CHECK(get(&came[0]) + nc_chan_used(&ch[0].in) >= 1);
    CHECK(get(&came[0]) + get(&came[1]) == 2);
}

/* It gives up at any moment, also when it was called in both lines: others get what came. */
static void gives_up(int id)
{
    int index;
    if (id == 1) {
        send(0, 0);
        send(1, 0);
    } else if (id == 2) {
        if (choose(&index, 1) == CHAN_DONE)
            send(index, 1);
    } else {
        CHECK(recv(0, 0) == CHAN_DONE);
        CHECK(recv(1, 1) == CHAN_DONE);
    }
}

/* One channel ends, the other gets a value: the end is seen, and the value is not lost. */
static void one_ends(int id)
{
    int index;
    if (id == 1) {
        chan_leave(&ch[0], TX);
        return;
    }
    if (id == 2) {
        send(1, 0);
        return;
    }
    for (int i = 0; i < CHANS; i++) {
        chan_step step = choose(&index, 0);
        CHECK(index == 0 ? step == CHAN_OVER : step == CHAN_DONE);
        if (step == CHAN_DONE)
            break;
    }
}

static const model models[] = {
    {"two senders", setup, two_senders, all_came, 3, 2, 1, 1, NULL},
    {"another in one of the lines", setup, one_in_line, nothing_lost, 3, 1, 1, 2, NULL},
    {"giving up", setup, gives_up, at_rest, 3, 2, 0, 2, NULL},
    {"one channel ends", setup, one_ends, at_rest, 3, 2, 1, 1, NULL},
};

int main(int argc, char **argv) { return model_main(models, sizeof models / sizeof models[0], argc, argv); }
