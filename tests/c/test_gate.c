/* test_gate.c: nc_gate.h in one thread: the line, the box, and what is left of them after a fork. */
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nc_gate.h"

#include "test.h"

enum { WAITERS = 8, BOXES = 3, OWNERS = 2 };

static nc_gate gate;
static nc_box box[BOXES];
static nc_waiter waiter[WAITERS];
static nc_box *kicks;
static int owner[OWNERS]; /* their addresses are endpoints */
static uint32_t now;      /* which process this is */
static bool guarded;      /* as where everybody holds the GIL: no locks, no atomics, the same outcome */

static uint32_t flag(void) { return nc_gate_flag(&gate, memory_order_relaxed); }
static uint32_t state(int i) { return nc_waiter_state_of(&waiter[i]); }
static uint32_t refs(int b) { return atomic_load_explicit(&box[b].refs, memory_order_relaxed); }
static uint32_t kick(int b) { return atomic_load_explicit(&box[b].kick, memory_order_relaxed); }
static bool mail(int b) { return atomic_load_explicit(&box[b].mail, memory_order_relaxed) != NULL; }

static void setup(void)
{
    now = 7;
    kicks = NULL;
    memset(&gate, 0xa5, sizeof gate); /* init has to set every field */
    memset(box, 0xa5, sizeof box);
    nc_gate_init(&gate, now);
    gate.guarded = guarded;
    for (int b = 0; b < BOXES; b++) {
        nc_box_init(&box[b]);
        box[b].guarded = guarded;
    }
    for (int i = 0; i < WAITERS; i++) {
        waiter[i] = (nc_waiter){.least = 1, .share = 1, .box = &box[i % BOXES], .owner = &owner[i % OWNERS]};
        atomic_store_explicit(&waiter[i].state, NC_OUTSIDE, memory_order_relaxed);
        atomic_store_explicit(&waiter[i].post, NC_POST_NONE, memory_order_relaxed);
    }
}

/* Each of these enters and leaves the gate. */
#define LOCKED(...)                \
    do {                           \
        nc_gate_enter(&gate, now); \
        __VA_ARGS__;               \
        nc_gate_exit(&gate);       \
    } while (0)

static void enrol(int i) { LOCKED(nc_gate_enrol(&gate, &waiter[i])); }
static void rejoin(int i) { LOCKED(nc_gate_rejoin(&gate, &waiter[i])); }
static void leave(int i) { LOCKED(nc_gate_leave(&gate, &waiter[i])); }
static void call_all(uint64_t have) { LOCKED(nc_gate_call_ready(&gate, have, &kicks)); }
static void call_owner(int o) { LOCKED(nc_gate_call_owner(&gate, &owner[o], &kicks)); }
static void end(void) { LOCKED(nc_gate_set_over(&gate)); }
static void abandon_gate(void) { LOCKED(nc_gate_set_gone(&gate)); }

static bool my_turn(int i, uint64_t have)
{
    bool turn;
    LOCKED(turn = nc_gate_take_turn(&gate, &waiter[i], have));
    return turn;
}

/* The states of the first n waiters, as text. */
static bool states_are(const char *text)
{
    for (int i = 0; text[i] != 0; i++)
        if ("-wC"[state(i)] != text[i])
            return false;
    return true;
}

/* ---- what always holds -------------------------------------------------------------------------------- */

static bool in_chain(const nc_box *b)
{
    for (nc_box *k = kicks; k != NULL; k = k->next)
        if (k == b)
            return true;
    return false;
}

static void check_line(void)
{
    uint64_t owed = 0, called = 0, waiting = 0, n = 0, observers = 0;
    nc_waiter *before = NULL, *next = gate.cursor;
    bool passed_cursor = gate.cursor == NULL, cursor_found = gate.cursor == NULL;
    for (nc_waiter *w = gate.first; w != NULL && n <= WAITERS; before = w, w = w->next, n++) {
        uint32_t s = nc_waiter_state_of(w);
        CHECK(w->prev == before);
        CHECK(s != NC_OUTSIDE);
        CHECK_EQ(w->born, gate.born);
        owed += w->share;
        observers += w->share == 0;
        called += s == NC_CALLED ? w->share : 0;
        waiting += s == NC_WAITING;
        cursor_found |= w == next;
        passed_cursor |= w == next;
        CHECK(s == NC_CALLED || (passed_cursor && gate.cursor != NULL)); /* every one before the cursor was called */
    }
    CHECK(cursor_found);
    CHECK(gate.last == before);
    CHECK_EQ(gate.owed, owed);
    CHECK_EQ(gate.called, called);
    CHECK_EQ(gate.waiting, waiting);
    CHECK_EQ(nc_gate_crowd(&gate) / NC_WAITER, n - observers);
    CHECK_EQ(flag() & NC_WATCHED, waiting > 0);
}

static void check_boxes(void)
{
    for (int b = 0; b < BOXES; b++) {
        CHECK_EQ(kick(b), in_chain(&box[b]));
        CHECK_EQ(refs(b), 1 + in_chain(&box[b]));
    }
}

/* ---- the line ------------------------------------------------------------------------------------------ */

static void a_new_gate_is_at_rest(void)
{
    setup();
    check_line();
    check_boxes();
    CHECK_EQ(flag(), 0);
    CHECK_EQ(nc_gate_crowd(&gate), 0);
    CHECK(!nc_gate_over_seen(&gate));
    call_all(100);
    CHECK(kicks == NULL);
}

static void who_enrols_raises_the_flag_and_who_leaves_last_takes_it_down(void)
{
    setup();
    enrol(0);
    CHECK_EQ(flag(), NC_WATCHED);
    CHECK_EQ(nc_gate_crowd(&gate), NC_WAITER);
    enrol(1);
    CHECK_EQ(nc_gate_crowd(&gate), 2 * NC_WAITER);
    leave(0);
    CHECK_EQ(flag(), NC_WATCHED);
    check_line();
    leave(1);
    CHECK_EQ(flag(), 0);
    CHECK_EQ(nc_gate_crowd(&gate), 0);
    check_line();
    leave(1); /* again is as good as once */
    check_line();
}

static void the_first_in_line_is_called_first_and_no_more_than_there_is(void)
{
    setup();
    for (int i = 0; i < 4; i++)
        enrol(i);
    call_all(0);
    CHECK(states_are("wwww"));
    call_all(1);
    CHECK(states_are("Cwww"));
    call_all(1); /* the one there is, is owed to the first */
    CHECK(states_are("Cwww"));
    call_all(3);
    CHECK(states_are("CCCw"));
    CHECK_EQ(flag(), NC_WATCHED);
    call_all(4);
    CHECK(states_are("CCCC"));
    CHECK_EQ(flag(), 0); /* nobody left to call: nobody need look */
    check_line();
}

static void a_share_is_kept_for_who_was_called(void)
{
    setup();
    waiter[0].share = 10;
    waiter[1].share = 2;
    for (int i = 0; i < 3; i++)
        enrol(i);
    call_all(1); /* least is 1: called for less than its share */
    CHECK(states_are("Cww"));
    call_all(10);
    CHECK(states_are("Cww"));
    call_all(11);
    CHECK(states_are("CCw"));
    call_all(12);
    CHECK(states_are("CCw"));
    leave(0); /* took nothing: what it was owed goes on */
    call_all(12);
    CHECK(states_are("-CC"));
    check_line();
}

static void who_needs_much_is_not_overtaken(void)
{
    setup();
    waiter[0].least = waiter[0].share = 5;
    enrol(0);
    enrol(1);
    call_all(4);
    CHECK(states_are("ww"));
    CHECK(!my_turn(1, 4));
    call_all(5);
    CHECK(states_are("Cw"));
    call_all(6);
    CHECK(states_are("CC"));
}

static void it_is_the_turn_of_the_first_only(void)
{
    setup();
    enrol(0);
    enrol(1);
    CHECK(!my_turn(0, 0));
    CHECK(!my_turn(1, 5));
    CHECK(my_turn(0, 1));
    CHECK(states_are("Cw"));
    CHECK(kicks == NULL); /* it calls itself */
    CHECK(!my_turn(1, 1));
    CHECK(my_turn(1, 2));
    check_line();
}

static void who_rejoins_keeps_its_place(void)
{
    setup();
    for (int i = 0; i < 3; i++)
        enrol(i);
    call_all(2);
    CHECK(states_are("CCw"));
    rejoin(0);
    CHECK(states_are("wCw"));
    CHECK_EQ(flag(), NC_WATCHED);
    check_line();
    CHECK(!my_turn(2, 2));
    call_all(2);
    CHECK(states_are("CCw"));
    check_line();
}

static void leaving_mends_the_line_wherever_one_stood(void)
{
    for (int who = 0; who < 3; who++)
        for (int called = 0; called < 4; called++) {
            setup();
            CASE("%d leaves, %d called", who, called);
            for (int i = 0; i < 3; i++)
                enrol(i);
            call_all(called);
            leave(who);
            check_line();
            enrol(3);
            check_line();
            call_all(100);
            for (int i = 0; i < 4; i++)
                CHECK_EQ(state(i), i == who ? NC_OUTSIDE : NC_CALLED);
            leave(3);
            for (int i = 0; i < 3; i++)
                leave(i);
            check_line();
            CHECK(gate.first == NULL && gate.last == NULL && gate.cursor == NULL);
        }
}

static void cancelling_hands_the_call_on(void)
{
    setup();
    enrol(0);
    enrol(1);
    call_all(1);
    CHECK(states_are("Cw"));
    leave(0);
    call_all(1);
    CHECK(states_are("-C"));
}

static void nothing_is_kept_for_an_observer(void)
{
    setup();
    waiter[0].share = 0;
    enrol(0);
    CHECK_EQ(flag(), NC_WATCHED); /* the other side has to look, */
    CHECK_EQ(nc_gate_crowd(&gate), 0); /* and this side need not */
    CHECK_EQ(gate.owed, 0);
    enrol(1);
    enrol(2);
    call_all(1);
    CHECK(states_are("CCw")); /* the one there is, is the next one's */
    check_line();
    rejoin(0);
    CHECK(!my_turn(0, 1));
    CHECK(my_turn(0, 2));
    leave(0);
    CHECK_EQ(nc_gate_crowd(&gate), 2 * NC_WAITER);
    leave(1);
    leave(2);
    check_line();
}

static void an_observer_waits_behind_those_who_were_called(void)
{
    setup();
    waiter[1].share = 0;
    enrol(0);
    enrol(1);
    call_all(1);
    CHECK(states_are("Cw")); /* it is the first one's, */
    leave(0);                /* who took it */
    call_all(0);
    CHECK(states_are("-w"));
    call_all(1);
    CHECK(states_are("-C"));
    check_line();
}

static void an_observer_that_needs_much_is_passed_over(void)
{
    setup();
    waiter[0].share = waiter[2].share = 0;
    waiter[0].least = 5;
    waiter[1].least = waiter[1].share = 2;
    for (int i = 0; i < 4; i++)
        enrol(i);
    call_all(1);
    CHECK(states_are("wwww")); /* waiter 1 is not: it is owed what comes next */
    call_all(2);
    CHECK(states_are("wCww"));
    CHECK_EQ(flag(), NC_WATCHED);
    check_line();
    call_all(3);
    CHECK(states_are("wCCC"));
    check_line();
    leave(1);
    call_all(5);
    CHECK(states_are("w-CC")); /* one of five is owed to waiter 3 */
    call_all(6);
    CHECK(states_are("C-CC"));
    check_line();
}

static void an_observer_sees_the_end_and_the_close(void)
{
    setup();
    waiter[0].share = waiter[1].share = 0;
    waiter[0].least = 9;
    enrol(0);
    enrol(1);
    call_owner(1);
    CHECK(states_are("wC"));
    end();
    call_all(0);
    CHECK(states_are("CC"));
    check_line();
}

static void defer(int i) { LOCKED(nc_gate_defer(&waiter[i])); }

static bool resume(int o)
{
    bool there_was;
    LOCKED(there_was = nc_gate_resume(&gate, &owner[o], &kicks));
    return there_was;
}

/* Take box b's mail: true if waiter i, and nobody else, was in it. */
static bool mail_is(int b, int i)
{
    nc_waiter *w = nc_box_take(&box[b]);
    bool is = w == &waiter[i] && w->mail_next == NULL;
    for (nc_waiter *next; w != NULL; w = next) {
        next = w->mail_next;
        nc_post_receive(w);
    }
    return is;
}

static void who_was_put_off_for_a_claim_is_posted_when_it_ends(void)
{
    setup(); /* waiters 0, 2, 4 have owner 0 and boxes 0, 2, 1 */
    for (int i = 0; i < 5; i++)
        enrol(i);
    CHECK(!resume(0)); /* nobody was put off */
    call_all(3);
    CHECK(mail_is(0, 0) && mail_is(2, 2));
    defer(0);
    defer(2);
    CHECK(states_are("CCCww")); /* called still: what they are owed is kept */
    check_line();
    CHECK(!resume(1));
    CHECK(resume(0));
    CHECK(mail_is(0, 0) && !mail(2));
    CHECK(resume(0)); /* the next claim ended */
    CHECK(mail_is(2, 2));
    CHECK(!resume(0));
    leave(0);
    defer(2);
    call_owner(0); /* closed: those who wait, and those who were put off */
    CHECK(mail_is(2, 2));
    CHECK(states_are("-CCwC"));
    leave(2);
    enrol(2); /* comes anew, not put off */
    call_all(100);
    CHECK(!resume(0));
    check_line();
}

static void closing_an_endpoint_calls_those_who_wait_on_it(void)
{
    setup();
    for (int i = 0; i < 5; i++)
        enrol(i);
    call_all(1);
    call_owner(1);
    CHECK(states_are("CCwCw"));
    check_line();
    CHECK(kicks != NULL);
    leave(1);
    leave(3);
    call_all(2);
    CHECK(states_are("C-C-w"));
    check_line();
}

static void who_waits_on_a_closed_endpoint_is_owed_nothing_from_then_on(void)
{
    setup();
    for (int i = 0; i < 4; i++) {
        waiter[i].share = 3;
        enrol(i);
    }
    call_all(6);
    CHECK(states_are("CCww"));
    call_owner(0);
    CHECK(states_are("CCCw"));
    CHECK_EQ(gate.owed, 6);
    CHECK_EQ(gate.called, 3);
    CHECK_EQ(nc_gate_crowd(&gate), 2 * NC_WAITER);
    check_line();
    call_all(6); /* those behind need not wait until the others have come by */
    CHECK(states_are("CCCC"));
    rejoin(0); /* could not be woken: it holds up nobody */
    leave(3);
    enrol(3);
    call_all(4);
    CHECK(states_are("CCCC"));
    call_owner(0); /* again is as good as once */
    check_line();
    for (int i = 0; i < 4; i++)
        leave(i);
    CHECK_EQ(gate.owed, 0);
    CHECK_EQ(gate.called, 0);
    CHECK_EQ(nc_gate_crowd(&gate), 0);
    check_line();
}

static void the_end_calls_everybody_once_nothing_is_left(void)
{
    setup();
    for (int i = 0; i < 3; i++)
        enrol(i);
    CHECK(!nc_gate_over_seen(&gate));
    end();
    CHECK(nc_gate_over_seen(&gate));
    call_all(1); /* there is something left, for one */
    CHECK(states_are("Cww"));
    leave(0);
    call_all(0);
    CHECK(states_are("-CC"));
    rejoin(1);
    CHECK(my_turn(1, 0));
    leave(1);
    leave(2);
    CHECK_EQ(nc_gate_crowd(&gate), NC_OVER); /* for good */
    enrol(0);
    CHECK_EQ(nc_gate_crowd(&gate), NC_OVER + NC_WAITER);
    CHECK(my_turn(0, 0));
    check_line();
}

static void a_side_that_left_says_so_for_good(void)
{
    setup();
    enrol(0);
    abandon_gate();
    CHECK_EQ(flag(), NC_GONE | NC_WATCHED);
    leave(0);
    CHECK_EQ(flag(), NC_GONE);
    enrol(1);
    call_all(1);
    CHECK_EQ(flag(), NC_GONE);
    abandon_gate();
    CHECK_EQ(flag(), NC_GONE);
    check_line();
}

/* ---- fork ------------------------------------------------------------------------------------------------ */

static void a_forked_child_starts_with_an_empty_line(void)
{
    setup();
    enrol(0);
    enrol(1);
    end();
    abandon_gate();
    call_all(0);
    now++;
    enrol(2);
    CHECK_EQ(nc_gate_crowd(&gate), NC_WAITER | NC_OVER);
    CHECK_EQ(flag(), NC_WATCHED | NC_GONE);
    CHECK(gate.first == &waiter[2] && gate.last == &waiter[2]);
    check_line();
    leave(0); /* stood in the parent's line */
    CHECK_EQ(state(0), NC_OUTSIDE);
    leave(1);
    check_line();
    CHECK(gate.first == &waiter[2]);
    enrol(0); /* and may stand in this one */
    check_line();
    leave(2);
    leave(0);
    check_line();
}

static void *hold(void *arg)
{
    int *pipe_ends = arg;
    char c = 0;
    nc_lock_enter(&gate.lock);
    CHECK_EQ(write(pipe_ends[1], &c, 1), 1); /* held */
    CHECK_EQ(read(pipe_ends[2], &c, 1), 1);  /* forked */
    nc_lock_exit(&gate.lock);
    return NULL;
}

static void a_lock_held_by_another_thread_at_the_fork_holds_nobody_up(void)
{
    int ends[4];
    char c = 0;
    pthread_t thread;
    setup();
    enrol(0);
    CHECK_EQ(pipe(ends), 0);
    CHECK_EQ(pipe(ends + 2), 0);
    pthread_create(&thread, NULL, hold, ends);
    CHECK_EQ(read(ends[0], &c, 1), 1);
    pid_t child = fork();
    if (child == 0) {
        alarm(10);
        now++;
        enrol(1);
        call_all(1);
        leave(0);
        _exit(state(1) == NC_CALLED && nc_gate_crowd(&gate) == NC_WAITER ? 0 : 1);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK_EQ(write(ends[3], &c, 1), 1);
    pthread_join(thread, NULL);
    leave(0); /* the parent goes on as if nothing had been */
    check_line();
    for (int i = 0; i < 4; i++)
        close(ends[i]);
}

static void a_guarded_gate_leaves_its_lock_alone(void)
{
    setup();
    gate.guarded = true; /* as where everybody holds the GIL */
    nc_lock_enter(&gate.lock);
    enrol(0);
    enrol(1);
    call_all(1);
    CHECK(states_are("Cw"));
    CHECK_EQ(flag(), NC_WATCHED);
    leave(0);
    leave(1);
    CHECK_EQ(flag(), 0);
    check_line();
    nc_lock_exit(&gate.lock);
    now++;
    enrol(2);
    CHECK(gate.guarded); /* in a forked child as well */
    check_line();
    leave(2);
}

/* A loop whose tasks wait on both kinds of channel. */
static void a_box_is_guarded_until_it_stands_at_a_gate_that_is_not(void)
{
    setup();
    box[0].guarded = box[1].guarded = gate.guarded = true;
    enrol(0);
    enrol(1);
    CHECK(box[0].guarded && box[1].guarded);
    leave(0);
    gate.guarded = false;
    enrol(3); /* box 0 */
    CHECK(!box[0].guarded && box[1].guarded);
    gate.guarded = true;
    enrol(6);
    CHECK(!box[0].guarded);
}

/* Native threads are about to come. */
static void a_gate_that_is_unguarded_frees_the_boxes_in_its_line(void)
{
    setup();
    box[0].guarded = box[1].guarded = box[2].guarded = gate.guarded = true;
    enrol(0);
    enrol(1);
    leave(1);
    nc_gate_unguard(&gate, now);
    CHECK(!gate.guarded && !box[0].guarded && box[1].guarded);
    enrol(1);
    CHECK(!box[1].guarded);
    call_all(2); /* by the lock, which would be held for ever if it were not free */
    CHECK(states_are("CC"));
    leave(0);
    leave(1);
    check_line();
    gate.guarded = true;
    enrol(2);
    now++; /* in a forked child: that line stays in the parent process */
    box[2].guarded = true;
    nc_gate_unguard(&gate, now);
    CHECK(!gate.guarded && box[2].guarded);
    CHECK_EQ(gate.born, now);
    enrol(3);
    check_line();
    leave(3);
    leave(2);
}

static uint64_t least(void)
{
    uint64_t n;
    LOCKED(n = nc_gate_least(&gate));
    return n;
}

static void the_next_call_takes_what_the_next_in_line_needs_or_an_observer_ahead_of_it(void)
{
    static const uint64_t needs[] = {5, 9, 7, 2, 3}, shares[] = {1, 0, 7, 2, 0};
    setup();
    CHECK_EQ(least(), 0);
    for (int i = 0; i < 5; i++) {
        waiter[i].least = needs[i];
        waiter[i].share = shares[i];
        enrol(i);
    }
    CHECK_EQ(least(), 5);
    call_all(5);
    CHECK(states_are("Cwwww"));
    CHECK_EQ(least(), 7); /* the observer ahead of it needs more */
    waiter[1].least = 6;
    CHECK_EQ(least(), 6);
    leave(1);
    leave(2);
    CHECK_EQ(least(), 2); /* and not what those behind it need */
    leave(3);
    CHECK_EQ(least(), 3); /* observers alone */
    leave(4);
    CHECK_EQ(least(), 0);
    leave(0);
    check_line();
}

/* ---- boxes ----------------------------------------------------------------------------------------------- */

static void post(int i) { nc_box_post(&waiter[i], &kicks); }

/* Kick the first box of the chain; which one it was. */
static int kick_first(void)
{
    nc_box *b = nc_box_unchain(&kicks);
    CHECK(!nc_box_unref(b));
    return (int)(b - box);
}

static int number_of(const nc_waiter *w) { return w == NULL ? -1 : (int)(w - waiter); }

static void the_first_post_owes_a_kick(void)
{
    setup(); /* waiters 0, 3, 6 have box 0 */
    post(0);
    CHECK(kicks == &box[0] && box[0].next == NULL);
    CHECK_EQ(refs(0), 2);
    post(3);
    CHECK(kicks == &box[0] && box[0].next == NULL);
    check_boxes();
    CHECK_EQ(kick_first(), 0);
    CHECK(kicks == NULL);
    check_boxes();
    post(6); /* not taken yet: the kick that was given will do */
    CHECK(kicks == NULL);
    nc_waiter *w = nc_box_take(&box[0]);
    CHECK_EQ(number_of(w), 0);
    CHECK_EQ(number_of(w->mail_next), 3);
    CHECK_EQ(number_of(w->mail_next->mail_next), 6);
    CHECK(w->mail_next->mail_next->mail_next == NULL);
    CHECK(!mail(0));
    CHECK(nc_box_take(&box[0]) == NULL);
    for (nc_waiter *next; w != NULL; w = next) {
        next = w->mail_next;
        CHECK(nc_post_receive(w));
    }
    post(3); /* taken: a new one */
    CHECK(kicks == &box[0]);
    check_boxes();
}

static void a_post_that_was_taken_before_its_kick_needs_no_second(void)
{
    setup();
    post(0);
    CHECK_EQ(number_of(nc_box_take(&box[0])), 0); /* the owner came by on its own */
    CHECK(nc_post_receive(&waiter[0]));
    post(0);
    CHECK(kicks == &box[0] && box[0].next == NULL); /* it is in the chain still */
    check_boxes();
    CHECK_EQ(kick_first(), 0);
    CHECK_EQ(number_of(nc_box_take(&box[0])), 0);
    CHECK(nc_post_receive(&waiter[0]));
    post(0);
    CHECK(kicks == &box[0]);
}

static void a_waiter_is_in_the_mail_once(void)
{
    setup();
    post(0);
    post(0);
    post(0);
    nc_waiter *w = nc_box_take(&box[0]);
    CHECK(w == &waiter[0] && w->mail_next == NULL);
    post(0); /* taken, not received: its owner is still to look at it */
    CHECK(!mail(0));
    CHECK(nc_post_receive(w));
    post(0);
    CHECK(mail(0));
}

static void a_chain_holds_each_box_once(void)
{
    setup();
    for (int i = 0; i < WAITERS; i++) {
        post(i);
        check_boxes();
    }
    CHECK_EQ(kick_first(), 2);
    check_boxes();
    post(2);
    CHECK_EQ(kick_first(), 1);
    CHECK_EQ(kick_first(), 0);
    CHECK(kicks == NULL);
    check_boxes();
}

static void chains_of_two_callers_do_not_mix(void)
{
    setup();
    nc_box *mine = NULL;
    post(0);
    nc_box_post(&waiter[1], &mine);
    nc_box_post(&waiter[3], &mine); /* box 0 is in the other chain */
    CHECK(mine == &box[1] && box[1].next == NULL);
    CHECK(kicks == &box[0] && box[0].next == NULL);
    CHECK(nc_box_unchain(&mine) == &box[1] && mine == NULL);
    CHECK(nc_box_unchain(&kicks) == &box[0] && kicks == NULL);
}

static void the_last_reference_frees_the_box(void)
{
    setup();
    nc_box_ref(&box[0]);
    nc_box_ref(&box[0]);
    CHECK(!nc_box_unref(&box[0]));
    CHECK(!nc_box_unref(&box[0]));
    CHECK(nc_box_unref(&box[0]));
}

static void who_abandons_frees_what_is_not_in_the_mail(void)
{
    setup();
    CHECK(nc_post_abandon(&waiter[0])); /* never posted */
    post(1);
    CHECK(!nc_post_abandon(&waiter[1])); /* the box's owner will */
    CHECK_EQ(number_of(nc_box_take(&box[1])), 1);
    CHECK(!nc_post_receive(&waiter[1]));
    post(2);
    CHECK_EQ(number_of(nc_box_take(&box[2])), 2);
    CHECK(nc_post_receive(&waiter[2]));
    CHECK(nc_post_abandon(&waiter[2])); /* received before */
}

static void a_call_posts_and_a_turn_does_not(void)
{
    setup();
    enrol(0);
    enrol(1);
    CHECK(my_turn(0, 1));
    CHECK(!mail(0));
    call_all(2);
    CHECK(mail(1) && kicks == &box[1]);
    CHECK_EQ(state(1), NC_CALLED);
    check_line();
    check_boxes();
}

/* ---- any order --------------------------------------------------------------------------------------------- */

/* The plain model: the line as an array, and per waiter what it is. */
static struct {
    int line[WAITERS], n;
    uint32_t state[WAITERS];
    bool mailed[WAITERS], over, gone;
} m;

static uint64_t called_sum(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < m.n; i++)
        sum += m.state[m.line[i]] == NC_CALLED ? waiter[m.line[i]].share : 0;
    return sum;
}

static void model_call(int i, bool by_mail)
{
    m.state[i] = NC_CALLED;
    m.mailed[i] = m.mailed[i] || by_mail;
}

static bool model_reaches(int i, uint64_t have)
{
    return have >= called_sum() + waiter[i].least || (have == 0 && m.over);
}

/* The first that waits, if what there is reaches it.  `pass`: observers that it does not reach are passed over. */
static int model_next(uint64_t have, bool pass)
{
    for (int i = 0; i < m.n; i++) {
        int w = m.line[i];
        if (m.state[w] != NC_WAITING)
            continue;
        if (model_reaches(w, have))
            return w;
        if (!pass || waiter[w].share > 0)
            return -1;
    }
    return -1;
}

static void model_leave(int i)
{
    int at = 0;
    while (m.line[at] != i)
        at++;
    memmove(&m.line[at], &m.line[at + 1], (m.n - at - 1) * sizeof m.line[0]);
    m.n--;
    m.state[i] = NC_OUTSIDE;
}

static void receive_all(int b)
{
    for (nc_waiter *w = nc_box_take(&box[b]), *next; w != NULL; w = next) {
        next = w->mail_next;
        CHECK(m.mailed[number_of(w)]);
        m.mailed[number_of(w)] = false;
        CHECK(nc_post_receive(w));
    }
}

static void check_against_model(void)
{
    int n = 0;
    for (nc_waiter *w = gate.first; w != NULL; w = w->next, n++)
        CHECK(n < m.n && number_of(w) == m.line[n]);
    CHECK_EQ(n, m.n);
    for (int i = 0; i < WAITERS; i++) {
        CHECK_EQ(state(i), m.state[i]);
        CHECK_EQ(atomic_load_explicit(&waiter[i].post, memory_order_relaxed) == NC_POST_MAILED, m.mailed[i]);
    }
    CHECK_EQ(nc_gate_over_seen(&gate), m.over);
    CHECK_EQ(flag() & NC_GONE, m.gone ? NC_GONE : 0);
    check_line();
    check_boxes();
}

static void one_step(uint64_t *seed)
{
    int i = (int)(test_random(seed) % WAITERS), next;
    uint64_t have = test_random(seed) % 12;
    switch (test_random(seed) % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
        if (m.state[i] != NC_OUTSIDE)
            break;
        waiter[i].share = test_random(seed) % 5; /* 0: an observer */
        waiter[i].least = 1 + test_random(seed) % (waiter[i].share > 0 ? waiter[i].share : 4);
        enrol(i);
        m.state[i] = NC_WAITING;
        m.line[m.n++] = i;
        break;
    case 4:
    case 5:
        leave(i);
        if (m.state[i] != NC_OUTSIDE)
            model_leave(i);
        break;
    case 6:
    case 7:
        if (m.state[i] != NC_CALLED)
            break;
        rejoin(i);
        m.state[i] = NC_WAITING;
        break;
    case 8:
    case 9:
    case 10:
        call_all(have);
        while ((next = model_next(have, true)) >= 0)
            model_call(next, true);
        break;
    case 11:
        next = model_next(have, false);
        CHECK_EQ(my_turn(i, have), next == i && next >= 0);
        if (next == i)
            model_call(i, false);
        break;
    case 12:
        call_owner(i % OWNERS);
        for (int k = i % OWNERS; k < WAITERS; k += OWNERS)
            if (m.state[k] == NC_WAITING)
                model_call(k, true);
        break;
    case 13:
        if (kicks != NULL)
            kick_first();
        break;
    case 14:
        receive_all(i % BOXES);
        break;
    default:
        if (test_random(seed) % 40 == 0) {
            end();
            m.over = true;
        } else if (test_random(seed) % 40 == 0) {
            abandon_gate();
            m.gone = true;
        }
    }
}

static void any_order_of_calls_agrees_with_a_plain_model(void)
{
    uint64_t seed = test_environment("SEED", 1), first = seed;
    for (int round = 0; round < 300 && checks_failed == 0; round++) {
        setup();
        memset(&m, 0, sizeof m);
        for (int i = 0; i < 300 && checks_failed == 0; i++) {
            CASE("SEED=%" PRIu64 ", round %d, step %d", first, round, i);
            one_step(&seed);
            check_against_model();
        }
    }
}

static void run_all(void)
{
    RUN(a_new_gate_is_at_rest);
    RUN(who_enrols_raises_the_flag_and_who_leaves_last_takes_it_down);
    RUN(the_first_in_line_is_called_first_and_no_more_than_there_is);
    RUN(a_share_is_kept_for_who_was_called);
    RUN(who_needs_much_is_not_overtaken);
    RUN(it_is_the_turn_of_the_first_only);
    RUN(who_rejoins_keeps_its_place);
    RUN(leaving_mends_the_line_wherever_one_stood);
    RUN(cancelling_hands_the_call_on);
    RUN(nothing_is_kept_for_an_observer);
    RUN(an_observer_waits_behind_those_who_were_called);
    RUN(an_observer_that_needs_much_is_passed_over);
    RUN(an_observer_sees_the_end_and_the_close);
    RUN(who_was_put_off_for_a_claim_is_posted_when_it_ends);
    RUN(closing_an_endpoint_calls_those_who_wait_on_it);
    RUN(who_waits_on_a_closed_endpoint_is_owed_nothing_from_then_on);
    RUN(the_end_calls_everybody_once_nothing_is_left);
    RUN(a_side_that_left_says_so_for_good);
    RUN(a_forked_child_starts_with_an_empty_line);
    RUN(a_lock_held_by_another_thread_at_the_fork_holds_nobody_up);
    RUN(a_guarded_gate_leaves_its_lock_alone);
    RUN(a_box_is_guarded_until_it_stands_at_a_gate_that_is_not);
    RUN(a_gate_that_is_unguarded_frees_the_boxes_in_its_line);
    RUN(the_next_call_takes_what_the_next_in_line_needs_or_an_observer_ahead_of_it);
    RUN(the_first_post_owes_a_kick);
    RUN(a_post_that_was_taken_before_its_kick_needs_no_second);
    RUN(a_waiter_is_in_the_mail_once);
    RUN(a_chain_holds_each_box_once);
    RUN(chains_of_two_callers_do_not_mix);
    RUN(the_last_reference_frees_the_box);
    RUN(who_abandons_frees_what_is_not_in_the_mail);
    RUN(a_call_posts_and_a_turn_does_not);
    RUN(any_order_of_calls_agrees_with_a_plain_model);
}

int main(void)
{
    run_all();
    guarded = true;
    run_all();
    return test_report();
}
