/* test_chan.c: nc_chan.h in one thread: going behind a line, lining up, leaving, and what is left when a side is gone.
 */
#include <stdint.h>
#include <string.h>

#include "nc_chan.h"

#include "test.h"

enum { CAPACITY = 8, WAITERS = 4 };

static nc_chan ch;
static nc_gate gates[NC_SIDES];
static nc_ring ring;
static void *_Atomic slots[CAPACITY];
static _Alignas(NC_CACHE_LINE) unsigned char block[4096];
static nc_box box[2];
static nc_waiter waiter[WAITERS];
static nc_box *kicks;
static int owner[2]; /* their addresses are endpoints */
static uint32_t now;
static int values[2 * CAPACITY];
static const nc_way way = {false, memory_order_release, memory_order_relaxed};

static void setup(void)
{
    now = 3;
    kicks = NULL;
    memset(&ch, 0xa5, sizeof ch); /* init has to set every field but the pointers */
    ch.gate = gates;
    ch.ring = NULL;
    ch.log = NULL;
    nc_chan_init(&ch, now, false);
    for (int side = 0; side < NC_SIDES; side++)
        nc_chan_join(&ch, side);
    for (int b = 0; b < 2; b++)
        nc_box_init(&box[b]);
    for (int i = 0; i < WAITERS; i++) {
        waiter[i] = (nc_waiter){.box = &box[i % 2], .owner = &owner[i % 2]};
        atomic_store_explicit(&waiter[i].state, NC_OUTSIDE, memory_order_relaxed);
        atomic_store_explicit(&waiter[i].post, NC_POST_NONE, memory_order_relaxed);
    }
}

static void setup_objects(void)
{
    setup();
    memset((void *)slots, 0, sizeof slots);
    nc_ring_init(&ring, slots, CAPACITY, -(uint64_t)3);
    ch.ring = &ring;
}

static void setup_bytes(bool many)
{
    setup();
    memset(block, 0, sizeof block);
    ch.log = (nc_log *)(void *)block;
    nc_log_init(ch.log, 128, many, 0);
}

static nc_outcome put(int n, bool called, uint64_t *done)
{
    void *some[CAPACITY];
    for (int i = 0; i < n; i++)
        some[i] = &values[i];
    return nc_chan_put(&ch, some, (uint64_t)n, called, way, now, done, &kicks);
}

static nc_outcome take(int n, bool called, uint64_t *done)
{
    void *some[CAPACITY];
    return nc_chan_take(&ch, some, (uint64_t)n, called, way, now, done, &kicks);
}

static nc_place line_up(int side, int i, uint64_t least, uint64_t share)
{
    return nc_chan_line_up(&ch, side, &waiter[i], (nc_need){least, share}, false, true, now, &kicks);
}

static bool leave_line(int side, int i, bool resume)
{
    return nc_chan_leave_line(&ch, side, &waiter[i], resume, now, &kicks);
}

static uint32_t state(int i) { return nc_waiter_state_of(&waiter[i]); }

/* ---- moving ------------------------------------------------------------------------------------------- */

static void what_is_owed_to_those_in_line_is_not_taken_by_others(void)
{
    uint64_t n;
    setup_objects();
    CHECK_EQ(line_up(NC_RX, 0, 1, 3), NC_SLEEP);
    CHECK_EQ(put(2, false, &n), NC_DONE);
    CHECK_EQ(state(0), NC_CALLED);
    CHECK_EQ(take(4, false, &n), NC_BLOCKED);
    CHECK_EQ(n, 0);
    CHECK_EQ(put(4, false, &n), NC_DONE); /* six there, three owed */
    CHECK_EQ(take(8, false, &n), NC_DONE);
    CHECK_EQ(n, 3);
    CHECK_EQ(take(8, true, &n), NC_DONE);
    CHECK_EQ(n, 3);
    leave_line(NC_RX, 0, false);
    CHECK_EQ(take(1, false, &n), NC_BLOCKED);
}

static void room_is_counted_without_what_is_owed(void)
{
    uint64_t n;
    setup_objects();
    CHECK_EQ(put(CAPACITY, false, &n), NC_DONE);
    CHECK_EQ(line_up(NC_TX, 0, 1, 2), NC_SLEEP);
    CHECK_EQ(take(5, false, &n), NC_DONE);
    CHECK_EQ(nc_chan_room(&ch, now), 3);
    CHECK_EQ(put(5, false, &n), NC_DONE);
    CHECK_EQ(n, 3);
    CHECK_EQ(nc_chan_room(&ch, now), 0);
    leave_line(NC_TX, 0, false);
    CHECK_EQ(nc_chan_room(&ch, now), 2);
}

static void a_claim_goes_behind_the_line_as_far_as_there_is_room_for_all(void)
{
    nc_record first, second;
    for (int many = 0; many < 2; many++) {
        setup_bytes(many);
        CHECK_EQ(nc_chan_claim(&ch, 72, false, now, &first), NC_DONE); /* 80 of 128 */
        nc_chan_commit(&ch, &first, 72, memory_order_seq_cst);
        CHECK_EQ(line_up(NC_TX, 0, 64, 64), NC_SLEEP);
        CHECK_EQ(nc_chan_claim(&ch, 8, false, now, &second), NC_BLOCKED);
        CHECK_EQ(nc_chan_show(&ch, false, true, now, &second, &kicks), NC_DONE);
        nc_chan_release(&ch, &second, memory_order_seq_cst);
        nc_chan_notify(&ch, NC_TX, memory_order_seq_cst, now, &kicks);
        CHECK_EQ(state(0), NC_CALLED);
        CHECK_EQ(nc_chan_claim(&ch, 64, false, now, &first), NC_BLOCKED); /* 72 of the 64 that are not owed */
        CHECK_EQ(nc_chan_claim(&ch, 56, false, now, &first), NC_DONE);
        nc_chan_commit(&ch, &first, 56, memory_order_seq_cst);
        CHECK_EQ(nc_chan_claim(&ch, 56, true, now, &second), NC_DONE);
    }
}

static void who_finds_nothing_notifies_the_other_side_all_the_same(void)
{
    uint64_t n;
    setup_objects();
    CHECK_EQ(line_up(NC_RX, 0, 1, 1), NC_SLEEP);
    void *value = &values[0];
    CHECK_EQ(nc_ring_push_sp(&ring, &value, 1, memory_order_release), 1); /* as if the wake-up had failed */
    for (int i = 1; i < CAPACITY; i++)
        CHECK_EQ(nc_ring_push_sp(&ring, &value, 1, memory_order_release), 1);
    CHECK_EQ(put(1, false, &n), NC_BLOCKED);
    CHECK_EQ(state(0), NC_CALLED);
}

/* ---- the line ----------------------------------------------------------------------------------------- */

static void who_got_a_part_goes_to_the_end_of_the_line(void)
{
    uint64_t n;
    setup_objects();
    line_up(NC_RX, 0, 1, 4);
    line_up(NC_RX, 1, 1, 1);
    put(1, false, &n);
    CHECK_EQ(state(0), NC_CALLED);
    take(1, true, &n);
    CHECK_EQ(nc_chan_line_up(&ch, NC_RX, &waiter[0], (nc_need){1, 3}, true, true, now, &kicks), NC_SLEEP);
    CHECK(gates[NC_RX].first == &waiter[1] && gates[NC_RX].last == &waiter[0]);
    CHECK_EQ(gates[NC_RX].owed, 4);
    put(1, false, &n);
    CHECK_EQ(state(1), NC_CALLED);
    CHECK_EQ(state(0), NC_WAITING);
}

static void a_called_waiter_that_found_nothing_keeps_its_place_and_its_share(void)
{
    uint64_t n;
    setup_objects();
    line_up(NC_RX, 0, 1, 2);
    line_up(NC_RX, 1, 1, 1);
    put(1, false, &n);
    take(1, true, &n); /* somebody else's turn, for once */
    CHECK_EQ(nc_chan_line_up(&ch, NC_RX, &waiter[0], (nc_need){7, 7}, false, true, now, &kicks), NC_SLEEP);
    CHECK(gates[NC_RX].first == &waiter[0]);
    CHECK_EQ(waiter[0].share, 2);
    CHECK_EQ(gates[NC_RX].owed, 3);
}

static void lining_up_where_there_is_something_already_is_a_turn(void)
{
    uint64_t n;
    setup_objects();
    put(2, false, &n);
    CHECK_EQ(line_up(NC_RX, 0, 1, 1), NC_TURN);
    CHECK_EQ(line_up(NC_RX, 1, 1, 1), NC_TURN);
    CHECK_EQ(line_up(NC_RX, 2, 1, 1), NC_SLEEP);
    CHECK(kicks == NULL);
}

static void closing_an_endpoint_gives_what_its_waiters_were_owed_to_others_at_once(void)
{
    uint64_t n;
    setup_objects();
    line_up(NC_RX, 0, 1, 3);
    line_up(NC_RX, 1, 1, 2);
    put(2, false, &n);
    CHECK_EQ(state(0), NC_CALLED);
    CHECK_EQ(state(1), NC_WAITING);
    CHECK_EQ(take(1, false, &n), NC_BLOCKED);
    nc_chan_call_owner(&ch, NC_RX, &owner[0], now, &kicks); /* and nobody comes by yet */
    CHECK_EQ(state(1), NC_CALLED);
    CHECK_EQ(gates[NC_RX].owed, 2);
    nc_chan_call_owner(&ch, NC_RX, &owner[1], now, &kicks);
    CHECK_EQ(take(2, false, &n), NC_DONE);
    CHECK_EQ(n, 2);
}

static void who_could_not_be_woken_by_all_does_not_line_up(void)
{
    setup_objects();
    nc_need need = {1, 1};
    CHECK_EQ(nc_chan_line_up(&ch, NC_RX, &waiter[0], need, false, false, now, &kicks), NC_SLEEP);
    nc_chan_ref(&ch);
    CHECK_EQ(nc_chan_line_up(&ch, NC_RX, &waiter[1], need, false, false, now, &kicks), NC_UNREACHED);
    CHECK_EQ(state(1), NC_OUTSIDE);
    CHECK_EQ(nc_chan_line_up(&ch, NC_RX, &waiter[1], need, false, true, now, &kicks), NC_SLEEP);
    CHECK(!nc_chan_unref(&ch));
    CHECK(nc_chan_unref(&ch));
}

static void a_place_in_the_line_of_the_parent_process_is_none(void)
{
    uint64_t n;
    setup_objects();
    line_up(NC_RX, 0, 1, 2);
    now++;
    CHECK_EQ(line_up(NC_RX, 1, 1, 1), NC_SLEEP); /* the line is empty here */
    CHECK_EQ(gates[NC_RX].owed, 1);
    CHECK_EQ(line_up(NC_RX, 0, 1, 2), NC_SLEEP);
    CHECK(gates[NC_RX].first == &waiter[1] && gates[NC_RX].last == &waiter[0]);
    put(1, false, &n);
    CHECK_EQ(state(1), NC_CALLED);
}

static void who_leaves_hands_on_what_it_was_called_for(void)
{
    uint64_t n;
    setup_objects();
    line_up(NC_RX, 0, 1, 1);
    line_up(NC_RX, 1, 1, 1);
    put(1, false, &n);
    CHECK_EQ(state(1), NC_WAITING);
    CHECK(!leave_line(NC_RX, 0, false));
    CHECK_EQ(state(1), NC_CALLED);
    CHECK(!leave_line(NC_RX, 0, false)); /* again is as good as once */
    CHECK_EQ(gates[NC_RX].owed, 1);
}

static void the_waiters_of_a_dead_thread_leave_together(void)
{
    uint64_t n;
    setup_objects();
    for (int i = 0; i < WAITERS; i++)
        line_up(NC_RX, i, 1, 1);
    put(2, false, &n);
    nc_chan_leave_lines_of(&ch, NC_RX, &box[0], now, &kicks);
    CHECK_EQ(state(0), NC_OUTSIDE);
    CHECK_EQ(state(2), NC_OUTSIDE);
    CHECK_EQ(state(1), NC_CALLED);
    CHECK_EQ(state(3), NC_CALLED);
    CHECK(!leave_line(NC_RX, 0, false));
}

static void those_of_one_box_are_called_without_a_reason(void)
{
    setup_objects();
    for (int i = 0; i < WAITERS; i++)
        line_up(NC_RX, i, 1, 1);
    nc_chan_call_all_of(&ch, NC_RX, &box[1], now, &kicks);
    CHECK_EQ(state(0), NC_WAITING);
    CHECK_EQ(state(1), NC_CALLED);
    CHECK_EQ(state(3), NC_CALLED);
    CHECK(kicks == &box[1] && box[1].next == NULL);
}

static void a_waiter_that_could_not_be_notified_waits_on_in_its_place(void)
{
    uint64_t n;
    setup_objects();
    line_up(NC_RX, 0, 1, 1);
    line_up(NC_RX, 1, 1, 1);
    put(1, false, &n);
    CHECK(nc_box_take(&box[0]) == &waiter[0]);
    CHECK(nc_chan_uncall(&ch, NC_RX, &waiter[0], now));
    CHECK_EQ(state(0), NC_WAITING);
    CHECK_EQ(gates[NC_RX].called, 0);
    nc_chan_notify(&ch, NC_RX, memory_order_seq_cst, now, &kicks);
    CHECK_EQ(state(0), NC_CALLED);
    CHECK_EQ(state(1), NC_WAITING);
    CHECK(nc_box_take(&box[0]) == &waiter[0]);
    leave_line(NC_RX, 0, false);
    CHECK(!nc_post_abandon(&waiter[0]));
    CHECK(!nc_chan_uncall(&ch, NC_RX, &waiter[0], now)); /* abandoned: whoever took the mail frees it */
    CHECK_EQ(state(0), NC_OUTSIDE);
}

static void who_is_put_off_for_a_claim_goes_on_when_it_ends(void)
{
    uint64_t n;
    setup_objects();
    line_up(NC_RX, 0, 1, 1);
    line_up(NC_RX, 2, 1, 1); /* of the same endpoint */
    put(2, false, &n);
    CHECK(nc_box_take(&box[0]) == &waiter[0]);
    nc_post_receive(&waiter[0]);
    nc_post_receive(&waiter[2]);
    for (int i = 0; i < 4; i += 2) {
        nc_chan_defer(&ch, NC_RX, &waiter[i], now);
        CHECK(nc_chan_deferred(&ch, NC_RX, &waiter[i], now));
    }
    CHECK(!nc_chan_resume(&ch, NC_RX, &owner[1], now, &kicks));
    CHECK(nc_chan_resume(&ch, NC_RX, &owner[0], now, &kicks)); /* the first */
    CHECK(!nc_chan_deferred(&ch, NC_RX, &waiter[0], now));
    CHECK(nc_chan_deferred(&ch, NC_RX, &waiter[2], now));
    CHECK(leave_line(NC_RX, 0, true)); /* and the next */
    CHECK(!nc_chan_deferred(&ch, NC_RX, &waiter[2], now));
    CHECK(!leave_line(NC_RX, 2, true));
}

/* ---- leaving ------------------------------------------------------------------------------------------ */

static void the_last_of_a_side_ends_it(void)
{
    uint64_t n;
    setup_objects();
    nc_chan_join(&ch, NC_TX);
    line_up(NC_RX, 0, 1, 1);
    line_up(NC_RX, 1, 1, 1);
    put(1, false, &n);
    nc_chan_leave(&ch, NC_TX, now, &kicks);
    CHECK(!nc_gate_over_seen(&gates[NC_RX]));
    CHECK_EQ(state(1), NC_WAITING);
    nc_chan_leave(&ch, NC_TX, now, &kicks);
    CHECK(nc_gate_over_seen(&gates[NC_RX]));
    CHECK(!nc_chan_orphaned(&ch));
    CHECK_EQ(take(1, false, &n), NC_BLOCKED); /* owed to the first in line, who may be cancelled */
    CHECK_EQ(take(1, true, &n), NC_DONE);
    leave_line(NC_RX, 0, false);
    CHECK_EQ(state(1), NC_CALLED); /* for the end, which is for all */
    CHECK_EQ(take(1, false, &n), NC_DISCONNECTED);
}

static void a_receiver_that_leaves_is_told_of_and_what_it_left_is_discarded(void)
{
    uint64_t n;
    void *some[4];
    setup_objects();
    put(6, false, &n);
    line_up(NC_TX, 0, CAPACITY, CAPACITY);
    nc_chan_leave(&ch, NC_RX, now, &kicks);
    CHECK_EQ(state(0), NC_CALLED);
    CHECK(nc_chan_orphaned(&ch));
    CHECK_EQ(put(1, true, &n), NC_DISCONNECTED);
    CHECK_EQ(nc_chan_discard(&ch, some, 4, way, now), 4);
    CHECK(some[0] == &values[0] && some[3] == &values[3]);
    CHECK_EQ(nc_chan_discard(&ch, some, 4, way, now), 2);
    CHECK_EQ(nc_chan_discard(&ch, some, 4, way, now), 0);
    CHECK_EQ(ch.discarded, 6);
}

static void an_open_read_claim_keeps_what_lies_behind_it_until_it_ends(void)
{
    for (int many = 0; many < 2; many++) {
        nc_record record[3], shown;
        setup_bytes(many);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(nc_chan_claim(&ch, 8, false, now, &record[i]), NC_DONE);
            if (i < 2 || !many) /* of many producers one may still be at it */
                nc_chan_commit(&ch, &record[i], 8, memory_order_seq_cst);
        }
        CHECK_EQ(nc_chan_show(&ch, false, true, now, &shown, &kicks), NC_DONE);
        ch.reading = true;
        nc_chan_leave(&ch, NC_RX, now, &kicks);
        CHECK_EQ(nc_chan_discard_bytes(&ch, now), 0);
        CHECK_EQ(nc_chan_used(&ch), 48);
        CHECK_EQ(nc_chan_end_read(&ch, &shown, true, now), many ? 2 : 3);
        CHECK_EQ(ch.discarded, many ? 32 : 48);
        if (many) {
            CHECK_EQ(nc_chan_abort(&ch, &record[2]), NC_RX);
            CHECK_EQ(nc_chan_discard_bytes(&ch, now), 0); /* a skip is no message */
        }
        CHECK_EQ(nc_chan_used(&ch), 0);
        CHECK_EQ(ch.discarded, 48);
    }
}

int main(void)
{
    RUN(what_is_owed_to_those_in_line_is_not_taken_by_others);
    RUN(room_is_counted_without_what_is_owed);
    RUN(a_claim_goes_behind_the_line_as_far_as_there_is_room_for_all);
    RUN(who_finds_nothing_notifies_the_other_side_all_the_same);
    RUN(who_got_a_part_goes_to_the_end_of_the_line);
    RUN(a_called_waiter_that_found_nothing_keeps_its_place_and_its_share);
    RUN(lining_up_where_there_is_something_already_is_a_turn);
    RUN(closing_an_endpoint_gives_what_its_waiters_were_owed_to_others_at_once);
    RUN(who_could_not_be_woken_by_all_does_not_line_up);
    RUN(a_place_in_the_line_of_the_parent_process_is_none);
    RUN(who_leaves_hands_on_what_it_was_called_for);
    RUN(the_waiters_of_a_dead_thread_leave_together);
    RUN(those_of_one_box_are_called_without_a_reason);
    RUN(a_waiter_that_could_not_be_notified_waits_on_in_its_place);
    RUN(who_is_put_off_for_a_claim_goes_on_when_it_ends);
    RUN(the_last_of_a_side_ends_it);
    RUN(a_receiver_that_leaves_is_told_of_and_what_it_left_is_discarded);
    RUN(an_open_read_claim_keeps_what_lies_behind_it_until_it_ends);
    return test_report();
}
