/* test_lanes.c: unit tests of nc_lanes.h, whose owner is made of stubs here: other processes are the writers and
 * readers at the other ends of its lanes, and what would be system calls is written down. */
#include "nc_lanes.h"

#include "test.h"

enum { LANES = 4, CAPACITY = 1024 };

/* A lane, and the process at its other end. */
typedef struct peer {
    nc_lane_block block;
    _Alignas(NC_CACHE_LINE) _Atomic uint64_t words[2 * CAPACITY / 8];
    nc_lane_writer w; /* of a lane that is read here */
    nc_lane_reader r; /* of the one that is written here */
    nc_lane_in in;
    int rung, dropped; /* how often */
} peer;

static peer lane[LANES];
static nc_lanes lanes;
static int attended, left, freed;
static peer *comes; /* is taken in when the lanes are attended */
static bool closes; /* likewise: no further one can come */

static peer *peer_of(nc_lane_in *in) { return (peer *)(void *)((char *)in - offsetof(peer, in)); }

static void stub_ring(nc_lanes *l, nc_lane_in *in)
{
    (void)l;
    (in != NULL ? peer_of(in) : &lane[0])->rung++;
}

static void stub_attend(nc_lanes *l)
{
    attended++;
    if (comes != NULL)
        nc_lanes_add(l, &comes->in);
    comes = NULL;
    l->shut |= closes;
}

static void stub_drop(nc_lanes *l, nc_lane_in *in)
{
    (void)l;
    peer_of(in)->dropped++;
}

static void stub_leave(nc_lanes *l)
{
    (void)l;
    left++;
}

static void stub_free(nc_lanes *l)
{
    (void)l;
    freed++;
}

static const nc_lanes_owner owner = {stub_ring, stub_attend, stub_drop, stub_leave, stub_free};

static void open_lane(peer *f, uint64_t id)
{
    memset((void *)f, 0, sizeof *f);
    nc_lane_init(&f->block, CAPACITY, 0);
    CHECK_EQ(nc_lane_open_writer(&f->w, &f->block, f->words, CAPACITY), NC_LANE_SOUND);
    CHECK_EQ(nc_lane_open_reader(&f->r, &f->block, f->words, CAPACITY), NC_LANE_SOUND);
    CHECK_EQ(nc_lane_open_reader(&f->in.reader, &f->block, f->words, CAPACITY), NC_LANE_SOUND);
    f->in.id = id;
}

static void begin(bool reads, bool guarded, int n)
{
    attended = left = freed = 0;
    comes = NULL;
    closes = false;
    nc_lanes_init(&lanes, &owner, reads, guarded);
    for (int i = 0; i < LANES; i++)
        open_lane(&lane[i], (uint64_t)i + 1);
    for (int i = 0; i < n; i++)
        nc_lanes_add(&lanes, &lane[i].in);
    lanes.shut = reads;
    lanes.writer = lane[0].w;
}

/* The process at the other end sends a message that says who it is, and which of its messages that is. */
static void peer_sends(peer *f, unsigned number)
{
    nc_record record = {0};
    CHECK_EQ(nc_lane_claim(&f->w, 2, &record), NC_OK);
    record.data[0] = (unsigned char)(f - lane);
    record.data[1] = (unsigned char)number;
    nc_lane_commit(&f->w, &record, 2, memory_order_seq_cst);
}

/* Receive: who sent it, or -1; *number: which of its messages. */
static int receive(unsigned *number)
{
    nc_record record = {0};
    if (nc_lanes_peek(&lanes, &record) != NC_OK)
        return -1;
    CHECK_EQ(record.size, 2);
    int from = record.data[0];
    *number = record.data[1];
    nc_lanes_release(&lanes, &record, memory_order_seq_cst);
    nc_lanes_ring(&lanes);
    return from;
}

static int from(void)
{
    unsigned number;
    return receive(&number);
}

/* Like os_lane_hang_up(): the end of file of its socket is heard. */
static void peer_closes(peer *f)
{
    nc_lane_close(&f->block.writer, &f->block.reader);
    f->in.eof = true;
}

/* ---- reading ------------------------------------------------------------------------------------------- */

static void each_lane_has_its_turn(void)
{
    begin(true, false, 3);
    unsigned next[3] = {0}, number = 0;
    for (unsigned i = 0; i < 60; i++)
        for (int k = 0; k < 3; k++)
            peer_sends(&lane[k], i);
    int last = -1;
    for (unsigned i = 0, in_turn = 0; i < 180; i++) {
        int k = receive(&number);
        CHECK(k >= 0 && k < 3 && number == next[k]++);
        in_turn = k == last ? in_turn + 1 : 1;
        CHECK(in_turn <= NC_LANES_TURN);
        last = k;
    }
    CHECK_EQ(attended, 180 / NC_LANES_NEWS); /* what is there is found without a system call, nearly always */
    CHECK_EQ(from(), -1);
    CHECK_EQ(attended, 180 / NC_LANES_NEWS + 1);
    CHECK(!nc_lanes_over(&lanes));
}

static void a_lane_that_has_ended_is_read_to_its_end(void)
{
    begin(true, true, 3);
    peer_sends(&lane[1], 0);
    peer_closes(&lane[1]);
    peer_sends(&lane[2], 0);
    lane[2].in.eof = true; /* it was killed */
    CHECK_EQ(from(), 1);
    CHECK_EQ(from(), 2);
    CHECK(!lanes.crashed);
    CHECK_EQ(from(), -1);
    CHECK(lanes.crashed);
    CHECK_EQ(lanes.count, 1);
    CHECK_EQ(lane[1].dropped, 1);
    CHECK_EQ(lane[2].dropped, 1);
    CHECK(!nc_lanes_over(&lanes));
    peer_closes(&lane[0]);
    CHECK(nc_lanes_deserted(&lanes));
    CHECK_EQ(nc_lanes_have(&lanes), 1); /* its end is there to be seen */
    CHECK_EQ(from(), -1);
    CHECK(nc_lanes_over(&lanes));
    uint64_t sent, received;
    nc_lanes_totals(&lanes, &sent, &received);
    CHECK_EQ(sent, 32);
    CHECK_EQ(received, 32);
}

static void it_is_not_over_while_somebody_may_come(void)
{
    begin(true, false, 1);
    lanes.shut = false;
    peer_closes(&lane[0]);
    CHECK_EQ(from(), -1);
    CHECK_EQ(lanes.count, 0);
    CHECK(!nc_lanes_over(&lanes));
    CHECK_EQ(nc_lanes_open(&lanes), 1);
    peer_sends(&lane[1], 0);
    comes = &lane[1];
    closes = true;
    CHECK_EQ(from(), 1); /* it came in while the lanes were attended, and was looked at */
    CHECK(!nc_lanes_over(&lanes));
    peer_closes(&lane[1]);
    CHECK_EQ(from(), -1);
    CHECK(nc_lanes_over(&lanes));
    CHECK_EQ(nc_lanes_open(&lanes), 0);
}

static void a_garbled_lane_ends_alone(void)
{
    begin(true, false, 2);
    int why;
    peer_sends(&lane[0], 0);
    peer_sends(&lane[1], 0);
    atomic_store(&lane[0].block.tail, 7);
    CHECK_EQ(from(), 1);
    CHECK_EQ(from(), -1);
    CHECK_EQ(lane[0].dropped, 1);
    CHECK(nc_lanes_faulty(&lanes));
    CHECK_EQ(nc_lanes_have(&lanes), 1); /* who sleeps is to tell it */
    CHECK_EQ(nc_lanes_take_fault(&lanes, &why), NC_LANES_GARBLED);
    CHECK_EQ(nc_lanes_take_fault(&lanes, &why), NC_LANES_SOUND);
    CHECK_EQ(nc_lanes_have(&lanes), 0);
    peer_sends(&lane[1], 1);
    CHECK_EQ(from(), 1);
}

static void a_lane_waits_for_the_one_before_it(void)
{
    begin(true, false, 3);
    lane[0].in.after = lane[2].in.id; /* its sender wrote that one first, two messages */
    lane[0].in.after_pos = 32;
    peer_sends(&lane[0], 0);
    CHECK_EQ(nc_lanes_have(&lanes), 0);
    CHECK_EQ(from(), -1);
    peer_sends(&lane[2], 0);
    CHECK_EQ(from(), 2);
    CHECK_EQ(from(), -1);
    CHECK_EQ(nc_lanes_have(&lanes), 0);
    peer_sends(&lane[2], 1);
    CHECK_EQ(from(), 2);
    CHECK_EQ(nc_lanes_have(&lanes), 1);
    CHECK_EQ(from(), 0);

    begin(true, false, 3);
    lane[0].in.after = lane[2].in.id;
    lane[0].in.after_pos = 32;
    peer_sends(&lane[0], 0);
    lane[2].in.eof = true; /* it is gone, and sent less than was said */
    CHECK_EQ(nc_lanes_have(&lanes), 1);
    CHECK_EQ(from(), 0);

    begin(true, false, 3);
    lane[0].in.after = 99; /* of a lane that is gone already */
    lane[0].in.after_pos = 32;
    peer_sends(&lane[0], 0);
    CHECK_EQ(nc_lanes_have(&lanes), 1);
    CHECK_EQ(from(), 0);
}

static void lanes_that_wait_in_a_circle_are_not_waited_for(void)
{
    for (int looks = 0; looks < 2; looks++) { /* the first to find them: who looks, or who is about to sleep */
        begin(true, false, 3);
        for (int i = 0; i < 3; i++) {
            lane[i].in.after = lane[(i + 1) % 3].in.id;
            lane[i].in.after_pos = CAPACITY * 2;
            peer_sends(&lane[i], 0);
            peer_closes(&lane[i]);
        }
        if (looks == 1)
            CHECK_EQ(nc_lanes_have(&lanes), 1);
        int got[3] = {0};
        for (int i = 0; i < 30 && !nc_lanes_over(&lanes); i++) {
            int k = from();
            if (k >= 0)
                got[k]++;
        }
        CHECK(nc_lanes_over(&lanes));
        CHECK(got[0] == 1 && got[1] == 1 && got[2] == 1);
    }
}

static void a_batch_over_several_lanes_rings_for_each(void)
{
    begin(true, false, 3);
    nc_record record = {0};
    for (int k = 0; k < 3; k++) {
        peer_sends(&lane[k], 0);
        nc_lane_raise(&lane[k].block.writer, CAPACITY); /* it sleeps until all is free */
    }
    for (int k = 0; k < 3; k++) {
        CHECK_EQ(nc_lanes_peek(&lanes, &record), NC_OK);
        nc_lanes_release(&lanes, &record, memory_order_release);
    }
    nc_lanes_release_batch(&lanes);
    nc_lanes_ring(&lanes);
    for (int k = 0; k < 3; k++) {
        CHECK_EQ(lane[k].rung, 1);
        CHECK_EQ(atomic_load(&lane[k].block.head), 16);
    }
}

static void a_record_whose_lane_was_let_go_is_given_back_to_nobody(void)
{
    begin(true, false, 1);
    nc_record record = {0};
    peer_sends(&lane[0], 0);
    CHECK_EQ(nc_lanes_peek(&lanes, &record), NC_OK);
    lanes.turn = lanes.shown = lanes.freed = NULL; /* as in the child of a fork */
    lanes.count = 0;
    nc_lanes_release(&lanes, &record, memory_order_seq_cst);
    nc_lanes_release_batch(&lanes);
    nc_lanes_ring(&lanes);
    CHECK_EQ(atomic_load(&lane[0].block.head), 0);
}

/* ---- writing --------------------------------------------------------------------------------------------- */

static void there_is_one_claim_at_a_time(void)
{
    begin(false, false, 0);
    nc_record one = {0}, other = {0};
    CHECK_EQ(nc_lanes_have(&lanes), CAPACITY);
    CHECK_EQ(nc_lanes_claim(&lanes, 8, &one), NC_OK);
    CHECK_EQ(nc_lanes_have(&lanes), 0);
    CHECK_EQ(nc_lanes_used(&lanes), 0);
    CHECK_EQ(nc_lanes_claim(&lanes, 8, &other), NC_FULL);
    CHECK_EQ(attended, 0);
    nc_lanes_abort(&lanes);
    CHECK_EQ(nc_lanes_claim(&lanes, 8, &other), NC_OK);
    nc_lanes_commit(&lanes, &other, 8, memory_order_seq_cst);
    CHECK_EQ(nc_lanes_used(&lanes), 16);
    CHECK_EQ(nc_lane_peek(&lane[0].r, &one), NC_OK);
}

static void the_end_of_the_reader_is_told(void)
{
    nc_record record = {0};
    for (int how = 0; how < 3; how++) {
        begin(false, false, 0);
        if (how == 0)
            nc_lane_close(&lane[0].block.reader, &lane[0].block.writer);
        else if (how == 1)
            lanes.eof = true;
        else
            atomic_store(&lane[0].block.head, 3); /* it writes what it cannot mean */
        CHECK_EQ(nc_lanes_claim(&lanes, how == 2 ? CAPACITY - 8 : 8, &record), how == 2 ? NC_OK : NC_EMPTY);
        if (how == 2) {
            nc_lanes_commit(&lanes, &record, CAPACITY - 8, memory_order_seq_cst);
            CHECK_EQ(nc_lanes_claim(&lanes, 8, &record), NC_EMPTY);
        }
        CHECK(nc_lanes_over(&lanes));
        CHECK_EQ(lanes.crashed, how == 1);
        CHECK_EQ(nc_lanes_open(&lanes), 0);
    }
}

/* ---- sleeping and waking ----------------------------------------------------------------------------------- */

static void flags_are_raised_on_all_lanes_and_lowered(void)
{
    begin(true, false, 3);
    nc_lanes_lower(&lanes);
    nc_lanes_raise(&lanes, 8);
    CHECK(lanes.raised);
    for (int k = 0; k < 3; k++)
        CHECK_EQ(atomic_load(&lane[k].block.reader.sleeps), 8);
    CHECK_EQ(atomic_load(&lane[3].block.reader.sleeps), 0);
    peer_sends(&lane[1], 0);
    CHECK(nc_lane_wakes_reader(&lane[1].w));
    CHECK(!nc_lane_wakes_reader(&lane[1].w));
    nc_lanes_lower(&lanes);
    for (int k = 0; k < 3; k++)
        CHECK_EQ(atomic_load(&lane[k].block.reader.sleeps), 0);

    begin(false, false, 0);
    nc_lanes_raise(&lanes, 24);
    CHECK_EQ(atomic_load(&lane[0].block.writer.sleeps), 24);
    nc_lanes_lower(&lanes);
    CHECK_EQ(atomic_load(&lane[0].block.writer.sleeps), 0);
}

static void who_sleeps_at_the_other_end_is_rung_for_once(void)
{
    begin(false, false, 0);
    nc_record record = {0};
    nc_lanes_ring(&lanes);
    CHECK_EQ(lane[0].rung, 0);
    nc_lane_raise(&lane[0].block.reader, 8);
    CHECK_EQ(nc_lanes_claim(&lanes, 8, &record), NC_OK);
    nc_lanes_commit(&lanes, &record, 8, memory_order_seq_cst);
    nc_lanes_ring(&lanes);
    nc_lanes_ring(&lanes);
    CHECK_EQ(lane[0].rung, 1);
}

static void who_rings_after_it_has_moved_does_not_ring_in_vain(void)
{
    nc_lanes_rings rings = {0};
    _Atomic uint64_t position = 8;
    CHECK_EQ(nc_lanes_rung(&rings, &position), 0);
    CHECK_EQ(nc_lanes_rung(&rings, &position), 1);
    CHECK_EQ(nc_lanes_rung(&rings, &position), 2);
    position = 16;
    CHECK_EQ(nc_lanes_rung(&rings, &position), 0);
    CHECK_EQ(nc_lanes_rung(&rings, &position), 1);
}

static void leaving_is_the_owners(void)
{
    begin(true, false, 1);
    nc_lanes_leave(&lanes);
    CHECK_EQ(left, 1);
    CHECK_EQ(freed, 0);
}

int main(void)
{
    RUN(each_lane_has_its_turn);
    RUN(a_lane_that_has_ended_is_read_to_its_end);
    RUN(it_is_not_over_while_somebody_may_come);
    RUN(a_garbled_lane_ends_alone);
    RUN(a_lane_waits_for_the_one_before_it);
    RUN(lanes_that_wait_in_a_circle_are_not_waited_for);
    RUN(a_batch_over_several_lanes_rings_for_each);
    RUN(a_record_whose_lane_was_let_go_is_given_back_to_nobody);
    RUN(there_is_one_claim_at_a_time);
    RUN(the_end_of_the_reader_is_told);
    RUN(flags_are_raised_on_all_lanes_and_lowered);
    RUN(who_sleeps_at_the_other_end_is_rung_for_once);
    RUN(who_rings_after_it_has_moved_does_not_ring_in_vain);
    RUN(leaving_is_the_owners);
    return test_report();
}
