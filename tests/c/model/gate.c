/* gate.c: models of nc_gate.h: parking, boxes, closing; most of them over a whole channel (chan.h), of objects or,
 * built with CHAN_OF_BYTES, of bytes.  model_arg is the capacity, in items; of bytes each takes a header and a word. */
#include "chan.h"

enum { MOST = 4, PARKERS = 4 };

struct parker_bed {
    uint32_t semaphore;
};

static chan ch;
static uint32_t payload[MOST]; /* [0] is what a ring that starts full holds */
static uint32_t seen[MOST];    /* by payload: received; by the one receiver, or under a lock */
static parker parkers[PARKERS];
static struct parker_bed beds[PARKERS];
static _Atomic uint32_t freed, went, refused, told[2], quit;
static nc_waiter waiter[2]; /* for models of a gate or a box alone */
static nc_gate *const gate = &ch.gate[RX];

static void parker_kick(parker *p) { model_wake(&p->bed->semaphore); }
static void parker_free(parker *p)
{
    model_free(p, sizeof *p);
    atomic_fetch_add_explicit(&freed, 1, memory_order_relaxed);
}

static bool parker_sleep(parker *p, double patience)
{
    if (nc_post_waits(&p->waiter)) /* it spins a little first */
        return true;
    if (patience > 0)
        return model_sleep_timed(&p->bed->semaphore);
    model_sleep(&p->bed->semaphore);
    return true;
}

static uint32_t get(_Atomic uint32_t *p) { return atomic_load_explicit(p, memory_order_relaxed); }
static uint64_t get64(_Atomic uint64_t *p) { return atomic_load_explicit(p, memory_order_relaxed); }
static void set(_Atomic uint32_t *p, uint32_t value) { atomic_store_explicit(p, value, memory_order_relaxed); }

/* ---- what is sent ---------------------------------------------------------------------------------- */

#ifndef CHAN_OF_BYTES
static void *_Atomic slots[MOST];

static void open_channel(bool many) { chan_init(&ch, slots, model_arg, 0, many); }
static chan_value pack(int number) { return &payload[number]; }
static uint32_t *unpack(const chan_value *value) { return *value; }
static uint64_t needs(const chan_value *value)
{
    (void)value;
    return 1;
}
static uint64_t held(void) { return nc_ring_len(&ch.ring); }

static void push_quietly(int number) /* nobody is told */
{
    void *value = &payload[number];
    CHECK(nc_ring_push_sp(&ch.ring, &value, 1, memory_order_release) == 1);
}

#else
enum { EXTENT = 16 };
static _Alignas(NC_CACHE_LINE) unsigned char block[sizeof(nc_log) + (2 * 8 + 1) * MOST * EXTENT / 8];

static void open_channel(bool many)
{
    nc_log *log = (nc_log *)(void *)block;
    chan_init(&ch, log, (uint64_t)model_arg * EXTENT, -(uint64_t)EXTENT, many);
    for (int i = 0; i < model_arg * EXTENT / 8; i++) {
        atomic_store_explicit(&log->words[i], 0, memory_order_relaxed);
        atomic_store_explicit(nc_log_mark(log, 8 * (uint64_t)i), 0, memory_order_relaxed);
    }
}

/* The payload is plain memory, and what a header that was taken for one would be read from. */
static uint64_t chan_write(chan_value *value)
{
    uint64_t *word = (uint64_t *)(void *)value->record.data;
    *word = value->number;
    atomic_store_explicit(word, value->number, memory_order_relaxed);
    return 8;
}

static void chan_read(chan_value *value)
{
    uint64_t *word = (uint64_t *)(void *)value->record.data, plain = *word;
    CHECK(value->record.size == 8);
    value->number = atomic_load_explicit(word, memory_order_relaxed);
    CHECK(value->number == plain);
    CHECK(value->number - 100 < MOST);
}

static chan_value pack(int number) { return (chan_value){.record.size = 8, .number = (uint64_t)number + 100}; }
static uint32_t *unpack(const chan_value *value) { return &payload[value->number - 100]; }
static uint64_t needs(const chan_value *value) { return value->record.size > 0 ? EXTENT : 1; }
static uint64_t held(void) { return nc_log_used(ch.in.log) / EXTENT; }

static void push_quietly(int number)
{
    chan_value value = pack(number);
    CHECK((ch.many ? nc_log_claim_mp : nc_log_claim_sp)(ch.in.log, 8, &value.record) == NC_OK);
    (ch.many ? nc_log_commit_mp : nc_log_commit_sp)(ch.in.log, &value.record, chan_write(&value), memory_order_release);
}
#endif

static chan_value nothing(void)
{
    chan_value value = pack(0);
#ifdef CHAN_OF_BYTES
    value.record.size = 0;
#endif
    return value;
}

static void start(bool many)
{
    open_channel(many);
    set(&freed, 0);
    set(&went, 0);
    set(&refused, 0);
    set(&quit, 0);
    for (int i = 0; i < 2; i++) {
        set(&told[i], 0);
        waiter[i] = (nc_waiter){.share = 1, .least = 1, .box = &parkers[0].box};
        set(&waiter[i].state, NC_OUTSIDE);
        set(&waiter[i].post, NC_POST_NONE);
    }
    for (int i = 0; i < MOST; i++)
        payload[i] = seen[i] = 0;
    for (int i = 0; i < PARKERS; i++) {
        beds[i].semaphore = 0;
        parkers[i].bed = &beds[i];
        parker_init(&parkers[i], &ch);
    }
}

static void setup(void) { start(false); }
static void setup_many(void) { start(true); }

static void setup_full(void)
{
    start(true);
    payload[0] = 1;
    for (int i = 0; i < model_arg; i++)
        push_quietly(0);
}

/* `me` is the thread's own parker, good for one call. */
static chan_step call_for(int me, int side, chan_value *value, double patience)
{
    chan_step step = chan_try(&ch, side, value);
    parkers[me].waiter.least = parkers[me].waiter.share = needs(value);
    if (step == CHAN_BLOCKED)
        step = chan_park(&ch, side, value, &parkers[me], patience);
    parker_unref(&parkers[me]);
    return step;
}

static chan_step send(int me, int number, double patience)
{
    chan_value value = pack(number);
    payload[number] = 1;
    return call_for(me, TX, &value, patience);
}

static chan_step recv(int me, double patience, uint32_t **got)
{
    chan_value value = nothing();
    chan_step step = call_for(me, RX, &value, patience);
    if (step == CHAN_DONE) {
        *got = unpack(&value);
        CHECK(**got == 1);
        **got = 2;
        seen[*got - payload]++;
    }
    return step;
}

static bool gates_at_rest(void)
{
    bool rest = true;
    for (int side = 0; side < SIDES; side++) {
        nc_gate *g = &ch.gate[side];
        rest = rest && g->first == NULL && g->last == NULL && nc_gate_next(g) == NULL && g->waiting == 0 &&
               g->owed == 0 && g->called == 0 && nc_gate_crowd(g) < NC_WAITER &&
               !(nc_gate_flag(g, memory_order_relaxed) & NC_WATCHED);
    }
    return rest;
}

/* ---- parking --------------------------------------------------------------------------------------- */

static void at_rest(void)
{
    CHECK(gates_at_rest());
    CHECK(nc_chan_used(&ch.in) == 0);
}

/* Both sides park: neither misses the other, whatever is full or empty. */
static void one_to_one(int id)
{
    uint32_t *got;
    for (int i = 0; i < 2; i++) {
        if (id == 1) {
            CHECK(send(i, i, 0) == CHAN_DONE);
        } else {
            CHECK(recv(2 + i, 0, &got) == CHAN_DONE);
            CHECK(got == &payload[i]);
        }
    }
}

static void all_freed(void)
{
    at_rest();
    CHECK(get(&freed) == PARKERS);
}

static void two_to_one(int id)
{
    uint32_t *got;
    if (id <= 2) {
        CHECK(send(id - 1, id, 0) == CHAN_DONE);
        return;
    }
    CHECK(recv(2, 0, &got) == CHAN_DONE);
    CHECK(recv(3, 0, &got) == CHAN_DONE);
}

/* Two wait to receive, one of them gives up at any time or puts back what it got: the other gets it. */
static void cancelled_receiver(int id)
{
    uint32_t *got;
    if (id == 1) {
        CHECK(send(0, 0, 0) == CHAN_DONE);
    } else if (id == 2) {
        if (recv(1, 1, &got) == CHAN_DONE)
            CHECK(send(3, 1, 0) == CHAN_DONE);
    } else {
        CHECK(recv(2, 0, &got) == CHAN_DONE);
    }
}

/* Two wait for room, one of them gives up at any time: the other gets it, and the receiver its value. */
static void cancelled_sender(int id)
{
    uint32_t *got;
    if (id <= 2) {
        if (send(id, id, 2 - id) == CHAN_DONE)
            atomic_fetch_add_explicit(&went, 1, memory_order_relaxed);
        return;
    }
    do { /* parked in a box of its own each time */
        nc_box_ref(&parkers[0].box);
        parkers[0].waiter.owner = &ch;
        CHECK(recv(0, 0, &got) == CHAN_DONE);
    } while (got != &payload[2]);
}

/* Somebody who does not wait takes the room that was freed for one who does, and was called for it. */
static void barger(int id)
{
    chan_value value = pack(2);
    if (id == 1) {
        CHECK(send(1, 1, 0) == CHAN_DONE);
    } else if (id == 2) {
        payload[2] = 1;
        if (chan_try(&ch, TX, &value) == CHAN_DONE)
            atomic_fetch_add_explicit(&went, 1, memory_order_relaxed);
    } else {
        bool came = false;
        for (int i = 0; i < 3 && !came; i++) {
            if (i > 0)
                model_idle();
            came = chan_try(&ch, RX, &value) == CHAN_DONE && unpack(&value) == &payload[1];
        }
        CHECK(came);
    }
}

static void counted(void)
{
    CHECK(gates_at_rest());
    CHECK(get(&went) == seen[1] + seen[2] + held());
}

/* ---- observers ------------------------------------------------------------------------------------- */

/* `me` is the thread's own parker. */
static chan_step observe(int me, int side, chan_value *value)
{
    parkers[me].waiter.least = needs(value);
    parkers[me].waiter.share = 0;
    chan_step step = chan_observe(&ch, side, value, &parkers[me]);
    parker_unref(&parkers[me]);
    return step;
}

/* One side observes, the other sends or receives what there is: nobody is missed, also at the end. */
static void observed(int id)
{
    chan_value value = nothing();
    uint32_t *got;
    if (id == 1) {
        CHECK(send(0, 1, 0) == CHAN_DONE);
        chan_leave(&ch, TX);
        return;
    }
    CHECK(observe(1, RX, &value) == CHAN_DONE);
    got = unpack(&value);
    CHECK(*got == 1);
    CHECK(observe(2, RX, &value) == CHAN_OVER);
}

static void room_observed(int id)
{
    chan_value value = pack(1);
    uint32_t *got;
    if (id == 1) {
        payload[1] = 1;
        CHECK(observe(0, TX, &value) == CHAN_DONE);
        return;
    }
    CHECK(recv(1, 0, &got) == CHAN_DONE);
    CHECK(recv(2, 0, &got) == CHAN_DONE);
}

/* An observer, and one who waits behind or before it: both are called, and the one item goes to the latter. */
static void observed_and_awaited(int id)
{
    chan_value value = nothing();
    uint32_t *got;
    if (id == 1) {
        CHECK(send(0, 1, 0) == CHAN_DONE);
        chan_leave(&ch, TX);
    } else if (id == 2) {
        if (recv(1, 0, &got) == CHAN_DONE)
            atomic_fetch_add_explicit(&went, 1, memory_order_relaxed);
    } else if (observe(2, RX, &value) == CHAN_DONE) {
        atomic_fetch_add_explicit(&went, 1, memory_order_relaxed);
    }
}

static void received_once(void)
{
    at_rest();
    CHECK(get(&went) == 1);
}

/* An observer that stands in line, and an item whose sender has yet to notify. */
static void setup_observed(void)
{
    start(true);
    parkers[2].waiter.share = 0;
    nc_gate_enter(gate, 0);
    nc_gate_enrol(gate, &parkers[2].waiter);
    nc_gate_exit(gate);
    payload[1] = 1;
    push_quietly(1);
}

/* Somebody takes the item without standing in line, while another is sent: the observer sees that one. */
static void taken_beside_an_observer(int id)
{
    chan_value value = nothing();
    if (id == 1) {
        if (chan_try(&ch, RX, &value) == CHAN_DONE)
            atomic_fetch_add_explicit(&went, 1, memory_order_relaxed);
    } else if (id == 2) {
        CHECK(send(0, 2, 0) == CHAN_DONE);
    } else {
        CHECK(chan_observe(&ch, RX, &value, &parkers[2]) == CHAN_DONE);
        parker_unref(&parkers[2]);
        atomic_fetch_add_explicit(&went, 1, memory_order_relaxed);
    }
}

static void all_taken_or_held(void)
{
    CHECK(gates_at_rest());
    CHECK(get(&went) + held() == 2);
}

/* ---- boxes ----------------------------------------------------------------------------------------- */

static void setup_enrolled(void)
{
    start(false);
    nc_gate_enter(gate, 0);
    nc_gate_enrol(gate, &waiter[0]);
    nc_gate_exit(gate);
}

#ifndef CHAN_OF_BYTES /* what is sent is nothing to them */

static void end_waiter(void)
{
    model_free(&waiter[0], sizeof waiter[0]);
    atomic_fetch_add_explicit(&freed, 1, memory_order_relaxed);
}

static void take_mail(void)
{
    nc_waiter *w = nc_box_take(&parkers[0].box);
    if (w != NULL && !nc_post_receive(w))
        end_waiter();
}

/* Two gates, two callers, one box: its owner hears of both waiters.  One reference a waiter, one for the owner. */
static void setup_two_gates(void)
{
    start(false);
    for (int side = 0; side < SIDES; side++) {
        nc_gate_enter(&ch.gate[side], 0);
        nc_box_ref(&parkers[0].box);
        nc_gate_enrol(&ch.gate[side], &waiter[side]);
        nc_gate_exit(&ch.gate[side]);
    }
}

static void deliver(nc_box *kicks)
{
    while (kicks != NULL) {
        parker *p = parker_of(nc_box_unchain(&kicks));
        parker_kick(p);
        parker_unref(p);
    }
}

static void call(nc_gate *g)
{
    nc_box *kicks = NULL;
    nc_gate_enter(g, 0);
    nc_gate_call_ready(g, 1, &kicks);
    nc_gate_exit(g);
    deliver(kicks);
}

static void two_callers(int id)
{
    if (id <= 2) {
        call(&ch.gate[id - 1]);
        return;
    }
    int patience = 1; /* once the owner may come by on its own */
    for (int heard = 0; heard < 2;) {
        parker_sleep(&parkers[0], patience--);
        for (nc_waiter *w = nc_box_take(&parkers[0].box), *next; w != NULL; w = next) {
            next = w->mail_next;
            nc_gate *g = &ch.gate[w - waiter];
            CHECK(nc_post_receive(w));
            CHECK(nc_waiter_state_of(w) == NC_CALLED);
            nc_gate_enter(g, 0);
            nc_gate_leave(g, w);
            nc_gate_exit(g);
            parker_unref(&parkers[0]);
            heard++;
        }
    }
    parker_unref(&parkers[0]);
}

static void box_freed(void)
{
    CHECK(get(&freed) == 1);
    CHECK(gates_at_rest());
}

/* One caller calls, whatever the waiter does, until it has said two things; the waiter rejoins until it has heard
 * both. */
static void called_again(int id)
{
    if (id <= 2) {
        atomic_store_explicit(&told[id - 1], 1, memory_order_seq_cst);
        if (nc_gate_flag(gate, memory_order_seq_cst) & NC_WATCHED)
            call(gate);
        return;
    }
    for (;;) {
        bool heard = true;
        for (int i = 0; i < 2; i++)
            heard = heard && atomic_load_explicit(&told[i], memory_order_seq_cst);
        if (heard)
            break;
        model_sleep(&beds[0].semaphore);
        for (nc_waiter *w = nc_box_take(&parkers[0].box), *next; w != NULL; w = next) {
            next = w->mail_next;
            CHECK(nc_post_receive(w));
        }
        nc_gate_enter(gate, 0);
        if (nc_waiter_state_of(&waiter[0]) == NC_CALLED)
            nc_gate_rejoin(gate, &waiter[0]);
        nc_gate_exit(gate);
    }
    nc_gate_enter(gate, 0);
    nc_gate_leave(gate, &waiter[0]);
    nc_gate_exit(gate);
    parker_unref(&parkers[0]);
}

/* The same without a look at anything seq_cst, and with a waiter that rejoins before it takes its mail, as a spinner or
 * one with a timer may: what the last caller said is heard with the post that it found there already. */
static void called_before_it_took_its_mail(int id)
{
    if (id <= 2) {
        set(&told[id - 1], 1);
        call(gate);
        return;
    }
    for (;;) {
        if (nc_waiter_state_of(&waiter[0]) == NC_CALLED) {
            nc_gate_enter(gate, 0);
            nc_gate_rejoin(gate, &waiter[0]);
            nc_gate_exit(gate);
        }
        if (get(&told[0]) && get(&told[1]))
            break;
        model_sleep(&beds[0].semaphore);
        for (nc_waiter *w = nc_box_take(&parkers[0].box), *next; w != NULL; w = next) {
            next = w->mail_next;
            CHECK(nc_post_receive(w));
        }
    }
    nc_gate_enter(gate, 0);
    nc_gate_leave(gate, &waiter[0]);
    nc_gate_exit(gate);
    take_mail();
    parker_unref(&parkers[0]);
}

/* A waiter that was called goes away while its box's owner receives: exactly one of the two ends it. */
static void abandoned(int id)
{
    if (id == 1) {
        call(gate);
    } else if (id == 2) {
        nc_gate_enter(gate, 0);
        nc_gate_leave(gate, &waiter[0]);
        nc_gate_exit(gate);
        if (nc_post_abandon(&waiter[0]))
            end_waiter();
        set(&quit, 1);
        parker_kick(&parkers[0]);
    } else {
        do {
            model_sleep(&beds[0].semaphore);
            take_mail();
        } while (!get(&quit));
    }
}

static void ended_once(void)
{
    if (get(&freed) == 0)
        take_mail(); /* the caller was last; its kick is still to be answered */
    CHECK(get(&freed) == 1);
}

/* A loop opens its way in, then takes its mail.  A kick that finds no way is left undone: either the post that it was
 * for was in that mail, or the poster, and whoever kicks for it, sees the way (F1). */
static _Atomic uint32_t way, by_way;

static void setup_no_way(void)
{
    start(false);
    set(&way, 0);
    set(&by_way, 0);
    waiter[0].box = waiter[1].box = &parkers[0].box;
}

static void opens_the_way(int id)
{
    if (id == 1) {
        set(&way, 1);
        for (nc_waiter *w = nc_box_take(&parkers[0].box); w != NULL; w = w->mail_next)
            set(&told[w - waiter], 1);
        return;
    }
    nc_box *kicks = NULL;
    nc_box_post(&waiter[id - 2], &kicks);
    if (kicks != NULL) {
        nc_box_unchain(&kicks);
        if (get(&way))
            atomic_fetch_add_explicit(&by_way, 1, memory_order_relaxed);
    }
}

static void both_told(void)
{
    for (nc_waiter *w = get(&by_way) ? nc_box_take(&parkers[0].box) : NULL; w != NULL; w = w->mail_next)
        set(&told[w - waiter], 1);
    for (int i = 0; i < model_arg; i++)
        CHECK(get(&told[i]));
}

#endif

/* Somebody who takes no GIL comes to the channel while a task lines up whose loop it could not wake: either the task
 * sees that it has come, or it finds the task in line. */
static void comes_to_share(int id)
{
    nc_box *kicks = NULL;
    if (id == 1) {
        set(&told[0],
            nc_chan_line_up(&ch.in, RX, &waiter[0], (nc_need){1, 1}, false, false, 0, &kicks) == NC_UNREACHED);
        return;
    }
    nc_chan_ref(&ch.in);
    nc_gate_enter(gate, 0);
    set(&told[1], gate->first == &waiter[0]);
    nc_gate_exit(gate);
}

static void setup_shared(void)
{
    start(false);
    nc_chan_ref(&ch.in);
}

/* Whoever drops the last reference frees what all have used. */
static void last_reference(int id)
{
    payload[id] = 1;
    if (nc_chan_unref(&ch.in)) {
        CHECK(payload[1] == 1 && payload[2] == 1);
        model_free(payload, sizeof payload);
        set(&went, get(&went) + 1);
    }
}

static void freed_once(void) { CHECK(get(&went) == 1); }

static void one_saw_the_other(void) { CHECK(get(&told[0]) + get(&told[1]) >= 1); }

/* ---- calling --------------------------------------------------------------------------------------- */

/* Who sees itself called, or its post in the mail, without a lock, sees what it was called for. */
static void spinner(int id)
{
    if (id == 1) {
        nc_box *kicks = NULL;
        payload[1] = 1;
        push_quietly(1);
        nc_gate_enter(gate, 0);
        nc_gate_call(gate, &waiter[0], &kicks);
        nc_gate_exit(gate);
        return;
    }
    unsigned spins = 0;
    while (id == 2 ? nc_waiter_state_of(&waiter[0]) != NC_CALLED : !nc_post_waits(&waiter[0]))
        nc_relax(&spins);
    CHECK(payload[1] == 1);
    CHECK(held() == 1);
}

/* ---- closing --------------------------------------------------------------------------------------- */

/* The receiver leaves while others send: no value stays behind, and nobody waits for ever. */
static void close_against_send(int id)
{
    uint32_t *got;
    if (id == 1) {
        if (model_choose(2) == 1 && recv(0, 1, &got) == CHAN_DONE)
            atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
        chan_leave(&ch, RX);
        return;
    }
    chan_step step = send(id, id - 1, 0);
    CHECK(step == CHAN_DONE || step == CHAN_OVER);
    if (step == CHAN_DONE)
        atomic_fetch_add_explicit(&went, 1, memory_order_relaxed);
}

static void all_discarded(void)
{
    CHECK(gates_at_rest());
    CHECK(nc_chan_used(&ch.in) == 0);
    CHECK(get(&went) == seen[1] + seen[2] + get64(&ch.discarded));
}

static void all_discarded_full(void)
{
    CHECK(gates_at_rest());
    CHECK(nc_chan_used(&ch.in) == 0);
    CHECK(get(&went) + model_arg == seen[0] + seen[1] + seen[2] + get64(&ch.discarded));
}

/* The last sender leaves: everything sent is received first. */
static void close_against_recv(int id)
{
    uint32_t *got;
    if (id == 1) {
        CHECK(send(0, 1, 0) == CHAN_DONE);
        chan_leave(&ch, TX);
    } else {
        CHECK(recv(1, 0, &got) == CHAN_DONE);
        CHECK(recv(2, 0, &got) == CHAN_OVER);
    }
}

static void try_after_close(int id)
{
    chan_value value = nothing();
    unsigned spins = 0;
    if (id == 1) {
        CHECK(send(0, 1, 0) == CHAN_DONE);
        chan_leave(&ch, TX);
        return;
    }
    chan_step step;
    while ((step = chan_try(&ch, RX, &value)) == CHAN_BLOCKED)
        nc_relax(&spins);
    CHECK(step == CHAN_DONE);
}

static uint32_t written[2];

static void setup_two_senders(void)
{
    start(true);
    written[0] = written[1] = 0;
    set(&ch.in.open[TX], 2);
}

/* Who sees the end sees all that each of them did before it left, in the channel and out of it. */
static void two_close_against_recv(int id)
{
    uint32_t *got;
    if (id <= 2) {
        CHECK(send(id - 1, id, 0) == CHAN_DONE);
        written[id - 1] = 1;
        chan_close_sender(&ch);
        return;
    }
    CHECK(recv(2, 0, &got) == CHAN_DONE);
    CHECK(recv(3, 0, &got) == CHAN_DONE);
    chan_value value = nothing();
    chan_step step;
    unsigned spins = 0;
    while ((step = chan_try(&ch, RX, &value)) == CHAN_BLOCKED)
        nc_relax(&spins);
    CHECK(step == CHAN_OVER);
    CHECK(written[0] == 1 && written[1] == 1);
}

/* Two wait to receive, one value comes, then the end: one gets the value, the other the end. */
static void end_for_all(int id)
{
    uint32_t *got;
    if (id == 1) {
        CHECK(send(0, 1, 0) == CHAN_DONE);
        chan_leave(&ch, TX);
        return;
    }
    chan_step step = recv(id, 0, &got);
    CHECK(step == CHAN_DONE || step == CHAN_OVER);
    atomic_fetch_add_explicit(step == CHAN_DONE ? &went : &refused, 1, memory_order_relaxed);
}

static void one_each(void)
{
    at_rest();
    CHECK(get(&went) == 1 && get(&refused) == 1);
}

/* Who reads, without a lock, that the other side has left, sees all that it sent; also when somebody has come to the
 * line or left it since. */
static void over_seen(int id)
{
    if (id == 1) {
        payload[1] = 1;
        push_quietly(1);
        nc_gate_enter(gate, 0);
        nc_gate_set_over(gate);
        nc_gate_exit(gate);
    } else if (id == 2) {
        nc_gate_enter(gate, 0);
        nc_gate_leave(gate, &waiter[0]);
        nc_gate_exit(gate);
    } else if (nc_gate_over_seen(gate)) {
        CHECK(held() == 1);
    }
}

/* A sender waits whose thread does not come by, and another one behind it.  When the endpoint of the former is closed,
 * the room that it was called for, or would have been, goes to the latter at once. */
static int owner;

static void setup_absent(void)
{
    chan_value value = pack(1);
    setup_full();
    waiter[0].owner = &owner;
    waiter[0].least = waiter[0].share = needs(&value);
    nc_gate_enter(&ch.gate[TX], 0);
    nc_gate_enrol(&ch.gate[TX], &waiter[0]);
    nc_gate_exit(&ch.gate[TX]);
}

static void closed_ahead_of_another(int id)
{
    nc_box *kicks = NULL;
    uint32_t *got;
    if (id == 1) {
        CHECK(recv(1, 0, &got) == CHAN_DONE);
    } else if (id == 2) {
        nc_chan_call_owner(&ch.in, TX, &owner, 0, &kicks);
        chan_deliver(&ch, kicks);
    } else {
        CHECK(send(2, 2, 0) == CHAN_DONE);
    }
}

static void one_held_when_it_has_come_by(void)
{
    nc_gate_enter(&ch.gate[TX], 0);
    nc_gate_leave(&ch.gate[TX], &waiter[0]);
    nc_gate_exit(&ch.gate[TX]);
    CHECK(gates_at_rest());
    CHECK(held() == 1);
}

/* ---- claims, and batches of bytes --------------------------------------------------------------------- */

#ifdef CHAN_OF_BYTES

/* A claim of n bytes, left open. */
static chan_step claim(int me, int number, uint64_t n, chan_value *value)
{
    *value = pack(number);
    value->record.size = n;
    value->claim = true;
    payload[number] = 1;
    chan_step step = chan_try(&ch, TX, value);
    parkers[me].waiter.least = parkers[me].waiter.share = nc_log_extent(n);
    if (step == CHAN_BLOCKED)
        step = chan_park(&ch, TX, value, &parkers[me], 0);
    parker_unref(&parkers[me]);
    return step;
}

/* The receiver waits, the one claim that fills the ring is given up, and the next waits for the room. */
static void abort_wakes(int id)
{
    chan_value value;
    uint32_t *got;
    if (id == 1) {
        CHECK(claim(0, 0, 8, &value) == CHAN_DONE);
        chan_abort(&ch, &value.record);
        CHECK(send(1, 1, 0) == CHAN_DONE);
    } else {
        CHECK(recv(2, 0, &got) == CHAN_DONE);
        CHECK(got == &payload[1]);
    }
}

/* What was committed behind an open claim comes after it, and is not slept upon. */
static void claim_in_the_way(int id)
{
    chan_value value;
    uint32_t *got;
    if (id == 1) {
        CHECK(claim(0, 1, 8, &value) == CHAN_DONE);
        CHECK(chan_commit(&ch, &value.record, chan_write(&value)) == CHAN_DONE);
    } else if (id == 2) {
        CHECK(send(1, 2, 0) == CHAN_DONE);
    } else {
        CHECK(recv(2, 0, &got) == CHAN_DONE);
        CHECK(recv(3, 0, &got) == CHAN_DONE);
    }
}

/* The unused end of a shrunk record is room for who waits, once the receiver has come by it. */
static void shrinking_makes_room(int id)
{
    chan_value value;
    uint32_t *got;
    if (id == 1) {
        for (int i = 0; i < 2; i++) {
            CHECK(claim(i, i, 24, &value) == CHAN_DONE);
            CHECK(chan_commit(&ch, &value.record, chan_write(&value)) == CHAN_DONE);
        }
        return;
    }
    for (int i = 0; i < 2; i++) {
        CHECK(recv(2 + i, 0, &got) == CHAN_DONE);
        CHECK(got == &payload[i]);
    }
}

static void empty_but_for_a_skip(void)
{
    CHECK(gates_at_rest());
    nc_record record;
    bool freed;
    CHECK(nc_chan_find(&ch.in, &record, &freed) == NC_EMPTY);
    CHECK(nc_chan_used(&ch.in) == 0);
}

/* A batch is published by release stores, ended, and told of once; the receiver's likewise. */
static void batch(int id)
{
    nc_box *kicks = NULL;
    uint32_t *got;
    if (id == 1) {
        payload[1] = payload[2] = 1;
        push_quietly(1);
        push_quietly(2);
        nc_log_publish_batch(ch.in.log);
        chan_notify(&ch, RX, &kicks);
        chan_deliver(&ch, kicks);
        return;
    }
    CHECK(recv(2, 0, &got) == CHAN_DONE);
    CHECK(recv(3, 0, &got) == CHAN_DONE);
}

static void batch_taken(int id)
{
    nc_box *kicks = NULL;
    if (id == 1) {
        CHECK(send(0, 1, 0) == CHAN_DONE);
        return;
    }
    for (int i = 0; i < model_arg; i++) {
        chan_value value = nothing();
        bool freed;
        CHECK(nc_chan_peek(&ch.in, &value.record, &freed, memory_order_release) == NC_OK);
        chan_read(&value);
        nc_chan_release(&ch.in, &value.record, memory_order_release);
    }
    nc_log_release_batch(ch.in.log);
    chan_notify(&ch, TX, &kicks);
    chan_deliver(&ch, kicks);
}

static void one_held(void)
{
    CHECK(gates_at_rest());
    CHECK(held() == 1);
}

/* The receiver leaves while a claim is open: committed or given up, nothing stays behind. */
static void close_against_claim(int id)
{
    chan_value value;
    uint32_t *got;
    if (id == 1) {
        if (model_choose(2) == 1 && recv(0, 1, &got) == CHAN_DONE)
            atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
        chan_leave(&ch, RX);
        return;
    }
    chan_step step = claim(id, id - 1, 8, &value);
    if (step == CHAN_DONE && model_choose(2) == 1)
        chan_abort(&ch, &value.record);
    else if (step == CHAN_DONE && (step = chan_commit(&ch, &value.record, chan_write(&value))) == CHAN_DONE)
        atomic_fetch_add_explicit(&went, 1, memory_order_relaxed);
    CHECK(step == CHAN_DONE || step == CHAN_OVER);
}

/* The receiver leaves with a message still borrowed: what comes behind that is discarded when it is given back. */
static void close_with_a_claim_open(int id)
{
    chan_value value = nothing();
    if (id > 1) {
        chan_step step = send(id, id - 1, 0);
        CHECK(step == CHAN_DONE || step == CHAN_OVER);
        if (step == CHAN_DONE)
            atomic_fetch_add_explicit(&went, 1, memory_order_relaxed);
        return;
    }
    value.claim = true;
    bool borrowed = chan_try(&ch, RX, &value) == CHAN_DONE;
    chan_leave(&ch, RX);
    if (borrowed) {
        chan_read(&value);
        chan_release(&ch, &value.record, true);
    }
}

/* The last thing a sender does is to give a claim up: the end is seen all the same. */
static void abort_before_the_end(int id)
{
    chan_value value;
    uint32_t *got;
    if (id == 1) {
        CHECK(send(0, 1, 0) == CHAN_DONE);
        CHECK(claim(1, 2, 8, &value) == CHAN_DONE);
        chan_abort(&ch, &value.record);
        chan_leave(&ch, TX);
    } else {
        CHECK(recv(2, 0, &got) == CHAN_DONE);
        CHECK(recv(3, 0, &got) == CHAN_OVER);
    }
}

#endif

static const model models[] = {
    {"parking, capacity 1", setup, one_to_one, all_freed, 2, 2, 2, 1, NULL},
    {"parking, capacity 2", setup, one_to_one, all_freed, 2, 2, 2, 2, NULL},
    {"parking, two senders, capacity 1", setup_many, two_to_one, all_freed, 3, 1, 1, 1, NULL},
    {"a cancelled receiver, capacity 1", setup_many, cancelled_receiver, at_rest, 3, 2, 1, 1, NULL},
    {"a cancelled receiver, capacity 2", setup_many, cancelled_receiver, at_rest, 3, 1, 1, 2, NULL},
    {"a cancelled sender, capacity 1", setup_full, cancelled_sender, counted, 3, 1, 1, 1, NULL},
    {"a barger, capacity 1", setup_full, barger, NULL, 3, 3, 0, 1, NULL},
    {"observed, one producer", setup, observed, at_rest, 2, 3, 2, 1, NULL},
    {"observed, many", setup_many, observed, at_rest, 2, 3, 2, 1, NULL},
    {"room observed", setup_full, room_observed, at_rest, 2, 3, 2, 1, NULL},
    {"observed and awaited", setup_many, observed_and_awaited, received_once, 3, 2, 1, 1, NULL},
    {"taken beside an observer", setup_observed, taken_beside_an_observer, all_taken_or_held, 3, 2, 1, 2, NULL},
#ifndef CHAN_OF_BYTES
    {"two callers, one box", setup_two_gates, two_callers, box_freed, 3, 2, 2, 1, NULL},
    {"one waiter called again", setup_enrolled, called_again, box_freed, 3, 3, 1, 1, NULL},
    {"called before it took its mail", setup_enrolled, called_before_it_took_its_mail, box_freed, 3, 2, 2, 1, NULL},
    {"a way opened against a post", setup_no_way, opens_the_way, both_told, 2, 3, 3, 1, NULL},
    {"a way opened against two posts", setup_no_way, opens_the_way, both_told, 3, 3, 2, 2, NULL},
    {"abandon against receive", setup_enrolled, abandoned, ended_once, 3, 3, 2, 1, NULL},
#endif
    {"come to share against lining up", setup, comes_to_share, one_saw_the_other, 2, 3, 2, 1, NULL},
    {"the last reference to a channel", setup_shared, last_reference, freed_once, 2, 3, 2, 1, NULL},
    {"spinner", setup_enrolled, spinner, NULL, 3, 3, 2, 1, NULL},
    {"close against send", setup, close_against_send, all_discarded, 2, 3, 2, 1, NULL},
    {"close against two sends", setup_many, close_against_send, all_discarded, 3, 1, 1, 1, NULL},
    {"close of a full ring against send", setup_full, close_against_send, all_discarded_full, 2, 3, 1, 1, NULL},
    {"close against recv", setup, close_against_recv, at_rest, 2, 3, 1, 1, NULL},
    {"close against try_recv", setup, try_after_close, NULL, 2, 3, 2, 1, NULL},
    {"two close against recv", setup_two_senders, two_close_against_recv, at_rest, 3, 1, 1, 2, NULL},
    {"closed ahead of another", setup_absent, closed_ahead_of_another, one_held_when_it_has_come_by, 3, 2, 1, 1, NULL},
    {"end for all", setup, end_for_all, one_each, 3, 1, 1, 1, NULL},
    {"the end seen without a lock", setup_enrolled, over_seen, NULL, 3, 3, 2, 1, NULL},
#ifdef CHAN_OF_BYTES
    {"an aborted claim wakes both sides", setup_many, abort_wakes, at_rest, 2, 2, 1, 1, NULL},
    {"a claim in the way", setup_many, claim_in_the_way, at_rest, 3, 1, 1, 2, NULL},
    {"shrinking makes room, one producer", setup, shrinking_makes_room, empty_but_for_a_skip, 2, 2, 1, 2, NULL},
    {"shrinking makes room, many", setup_many, shrinking_makes_room, empty_but_for_a_skip, 2, 2, 1, 2, NULL},
    {"a batch published, one producer", setup, batch, at_rest, 2, 3, 2, 2, NULL},
    {"a batch published, many", setup_many, batch, at_rest, 2, 3, 2, 2, NULL},
    {"a batch taken and given back", setup_full, batch_taken, one_held, 2, 3, 2, 2, NULL},
    {"close against a claim, one producer", setup, close_against_claim, all_discarded, 2, 3, 1, 1, NULL},
    {"close against a claim, many", setup_many, close_against_claim, all_discarded, 2, 3, 1, 1, NULL},
    {"close against two claims", setup_many, close_against_claim, all_discarded, 3, 1, 1, 2, NULL},
    {"close with a claim open", setup, close_with_a_claim_open, all_discarded, 2, 3, 2, 1, NULL},
    {"close with a claim open, two senders", setup_many, close_with_a_claim_open, all_discarded, 3, 2, 0, 2, NULL},
    {"an abort before the end", setup_many, abort_before_the_end, at_rest, 2, 2, 1, 1, NULL},
#endif
};

int main(int argc, char **argv) { return model_main(models, sizeof models / sizeof models[0], argc, argv); }
