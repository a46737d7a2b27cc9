/* test_lane.c: unit tests of nc_lane.h.  Whatever a peer could have written into the block is written into it here. */
#include "nc_lane.h"

#include "test.h"

enum { MOST = 1024 };

static nc_lane_block block;
static _Alignas(NC_CACHE_LINE) _Atomic uint64_t words[2 * MOST / 8];
static nc_lane_writer w;
static nc_lane_reader r;

static const uint64_t starts[] = {0, (UINT64_C(1) << 32) - 56, (UINT64_C(1) << 63) - 56, -(uint64_t)56};

static void put(_Atomic uint64_t *p, uint64_t value) { atomic_store(p, value); }
static uint64_t get(_Atomic uint64_t *p) { return atomic_load(p); }

static void open_lane(uint64_t capacity, uint64_t at)
{
    memset((void *)&block, 0, sizeof block);
    memset((void *)words, 0xa5, sizeof words);
    nc_lane_init(&block, capacity, at);
    CHECK_EQ(nc_lane_open_writer(&w, &block, words, capacity), NC_LANE_SOUND);
    CHECK_EQ(nc_lane_open_reader(&r, &block, words, capacity), NC_LANE_SOUND);
}

static unsigned char byte_of(uint64_t number, uint64_t i) { return (unsigned char)(number * 31 + i * 7 + 1); }

/* Send n of the `room` bytes that are claimed. */
static bool send_shrunk(uint64_t number, uint64_t room, uint64_t n)
{
    nc_record record = {0};
    if (nc_lane_claim(&w, room, &record) != NC_OK)
        return false;
    CHECK_EQ(record.size, room);
    for (uint64_t i = 0; i < room; i++)
        record.data[i] = byte_of(number, i);
    nc_lane_commit(&w, &record, n, memory_order_seq_cst);
    return true;
}

static bool send_one(uint64_t number, uint64_t n) { return send_shrunk(number, n, n); }

static void receive(uint64_t number, uint64_t n)
{
    nc_record record = {0};
    bool same = true;
    CHECK_EQ(nc_lane_peek(&r, &record), NC_OK);
    CHECK_EQ(record.size, n);
    for (uint64_t i = 0; i < n; i++)
        same &= record.data[i] == byte_of(number, i);
    CHECK(same);
    nc_lane_release(&r, &record, memory_order_seq_cst);
}

static bool empty(void)
{
    nc_record record = {0};
    return nc_lane_peek(&r, &record) == NC_EMPTY;
}

/* ---- opening ------------------------------------------------------------------------------------------ */

static nc_lane_fault opened(uint64_t capacity)
{
    nc_lane_writer writer;
    nc_lane_reader reader;
    nc_lane_fault fault = nc_lane_open_writer(&writer, &block, words, capacity);
    CHECK_EQ(nc_lane_open_reader(&reader, &block, words, capacity), fault);
    return fault;
}

static void only_what_is_a_lane_is_opened(void)
{
    open_lane(MOST, 0);
    CHECK_EQ(opened(MOST), NC_LANE_SOUND);
    CHECK_EQ(opened(MOST / 2), NC_LANE_OTHER_CAPACITY);
    put(&block.capacity, MOST + 8);
    CHECK_EQ(opened(MOST + 8), NC_LANE_OTHER_CAPACITY);
    put(&block.capacity, 0);
    CHECK_EQ(opened(0), NC_LANE_OTHER_CAPACITY);
    put(&block.capacity, UINT64_C(1) << 61);
    CHECK_EQ(opened(UINT64_C(1) << 61), NC_LANE_OTHER_CAPACITY);
    open_lane(MOST, 0);
    put(&block.kind, get(&block.kind) + 1);
    CHECK_EQ(opened(MOST), NC_LANE_OTHER_LAYOUT);
    put(&block.kind, get(&block.kind) ^ UINT64_C(1) << 32);
    CHECK_EQ(opened(MOST), NC_LANE_NO_LANE);
    put(&block.kind, 0);
    CHECK_EQ(opened(MOST), NC_LANE_NO_LANE);
}

static void positions_that_cannot_be_are_not_opened(void)
{
    static const uint64_t wrong[][2] = {{4, 8}, {8, 12}, {8, 0}, {0, MOST + 8}, {0, -(uint64_t)8}};
    for (int i = 0; i < 5; i++) {
        CASE("head %d, tail %d", (int)wrong[i][0], (int)wrong[i][1]);
        open_lane(MOST, 0);
        put(&block.head, wrong[i][0]);
        put(&block.tail, wrong[i][1]);
        CHECK_EQ(opened(MOST), NC_LANE_BAD_POSITIONS);
    }
}

static void a_lane_may_change_hands_with_something_in_it(void)
{
    open_lane(MOST, starts[1]);
    CHECK(send_one(0, 100) && send_one(1, 5));
    receive(0, 100);
    CHECK_EQ(nc_lane_open_writer(&w, &block, words, MOST), NC_LANE_SOUND);
    CHECK_EQ(nc_lane_open_reader(&r, &block, words, MOST), NC_LANE_SOUND);
    CHECK(send_one(2, 9));
    receive(1, 5);
    receive(2, 9);
    CHECK(empty());
}

/* ---- records ------------------------------------------------------------------------------------------ */

static void records_of_all_sizes_fit_at_all_offsets(void)
{
    for (int s = 0; s < 4; s++)
        for (uint64_t offset = 0; offset < 256; offset += 8)
            for (uint64_t n = 1; n <= 256 - 8; n += n < 20 || n > 225 ? 1 : 13) {
                CASE("start %d, offset %d, size %d", s, (int)offset, (int)n);
                open_lane(256, starts[s] + offset);
                CHECK(send_one(n, n));
                CHECK_EQ(send_one(0, 1), 256 - nc_log_extent(n) >= 16);
                receive(n, n);
            }
}

static void a_ring_that_is_full_takes_again_what_was_given_back(void)
{
    open_lane(64, starts[3]);
    for (uint64_t i = 0; i < 4; i++)
        CHECK(send_one(i, 8));
    for (uint64_t i = 0; i < 100; i++) {
        CHECK(!send_one(99, 1));
        receive(i, 8);
        CHECK(!send_one(99, 9));
        CHECK(send_one(i + 4, 8));
    }
}

static void what_is_left_of_a_claim_is_free_and_a_claim_forgotten_was_never_there(void)
{
    nc_record record = {0};
    open_lane(64, 0);
    CHECK(send_shrunk(1, 56, 3));
    CHECK_EQ(nc_lane_claim(&w, 40, &record), NC_OK);
    CHECK(send_shrunk(2, 40, 40));
    receive(1, 3);
    receive(2, 40);
    CHECK(empty());
}

static void a_window_of_records_is_looked_at_and_given_back_at_once(void)
{
    nc_record record = {0};
    open_lane(256, starts[3]);
    for (uint64_t i = 0; i < 5; i++)
        CHECK(send_one(i, 20));
    uint64_t pos = r.head;
    for (uint64_t i = 0; i < 5; i++, pos += 32) {
        CHECK_EQ(nc_lane_peek_at(&r, pos, &record), NC_OK);
        CHECK_EQ(record.data[19], byte_of(i, 19));
    }
    nc_record more;
    CHECK_EQ(nc_lane_peek_at(&r, pos, &more), NC_EMPTY);
    nc_lane_release(&r, &record, memory_order_seq_cst);
    CHECK(empty() && send_one(5, 248));
    receive(5, 248);
}

static void the_reader_writes_nothing_into_records(void)
{
    static unsigned char before[sizeof words];
    open_lane(MOST, 8);
    for (uint64_t i = 0; i < 4; i++)
        CHECK(send_one(i, 100 + i));
    memcpy(before, (void *)words, sizeof words);
    for (uint64_t i = 0; i < 4; i++)
        receive(i, 100 + i);
    CHECK(empty() && nc_lane_reader_may_sleep(&r));
    CHECK(memcmp(before, (void *)words, sizeof words) == 0);
}

/* ---- what a peer may have written --------------------------------------------------------------------- */

static nc_result look(void)
{
    nc_record record = {0};
    return nc_lane_peek(&r, &record);
}

static void a_reader_refuses_headers_of_no_record(void)
{
    static const uint64_t wrong[] = {0, 25, 32, 1024, UINT64_C(1) << 63, UINT64_C(1) << 63 | 16, -(uint64_t)1};
    for (int i = 0; i < 7; i++) {
        CASE("header %llx", (unsigned long long)wrong[i]);
        open_lane(256, starts[i % 4]);
        CHECK(send_one(0, 20));
        put(nc_lane_word(words, 256, r.head), wrong[i]);
        CHECK_EQ(look(), NC_BAD);
    }
    open_lane(256, 0);
    CHECK(send_one(0, 20)); /* 24 would fill it up to the tail, padding included */
    put(nc_lane_word(words, 256, r.head), 24);
    CHECK_EQ(look(), NC_OK);
}

static void a_reader_refuses_a_tail_where_no_writer_gets_to(void)
{
    static const uint64_t wrong[] = {4, 264, 1024, -(uint64_t)8};
    for (int i = 0; i < 4; i++) {
        CASE("tail + %llx", (unsigned long long)wrong[i]);
        open_lane(256, starts[i]);
        put(&block.tail, starts[i] + wrong[i]);
        CHECK_EQ(look(), NC_BAD);
    }
    open_lane(256, 0);
    CHECK(send_one(0, 8) && send_one(1, 8));
    receive(0, 8);
    receive(1, 8);
    put(&block.tail, 16); /* where it was before */
    CHECK_EQ(look(), NC_BAD);
}

static void a_writer_refuses_a_head_where_no_reader_gets_to(void)
{
    static const uint64_t wrong[] = {4, 72, 1024, -(uint64_t)8, -(uint64_t)64};
    for (int i = 0; i < 5; i++) {
        CASE("head + %llx", (unsigned long long)wrong[i]);
        nc_record record = {0};
        open_lane(64, starts[i % 4]);
        CHECK(send_one(0, 56));
        put(&block.head, starts[i % 4] + wrong[i]);
        CHECK_EQ(nc_lane_claim(&w, 8, &record), NC_BAD);
    }
}

static void a_capacity_that_changes_later_is_not_asked_for(void)
{
    open_lane(64, 0);
    put(&block.capacity, UINT64_C(1) << 40);
    put(&block.kind, 0);
    for (uint64_t i = 0; i < 100; i++) {
        CHECK(send_one(i, 50) && !send_one(99, 50));
        receive(i, 50);
    }
}

static void positions_in_the_block_that_are_ours_are_not_believed(void)
{
    open_lane(64, 0);
    CHECK(send_one(0, 8));
    put(&block.head, 8); /* the reader's copy for the writer */
    receive(0, 8);
    CHECK_EQ(get(&block.head), 16);
    put(&block.tail, 0); /* the writer's, for the reader */
    CHECK(send_one(1, 8));
    CHECK_EQ(get(&block.tail), 32);
    receive(1, 8);
}

/* ---- sleeping and waking ------------------------------------------------------------------------------ */

static void nobody_is_rung_for_who_does_not_sleep(void)
{
    open_lane(64, 0);
    CHECK(send_one(0, 8) && !nc_lane_wakes_reader(&w));
    receive(0, 8);
    CHECK(!nc_lane_wakes_writer(&r));
}

static void a_reader_that_sleeps_is_rung_for_once(void)
{
    open_lane(64, 0);
    CHECK(nc_lane_reader_may_sleep(&r));
    CHECK(send_one(0, 8) && nc_lane_wakes_reader(&w) && !nc_lane_wakes_reader(&w));
    CHECK(!nc_lane_reader_may_sleep(&r));
    CHECK_EQ(get(&block.reader.sleeps), 0);
    receive(0, 8);
    CHECK(empty() && nc_lane_reader_may_sleep(&r) && get(&block.reader.sleeps) != 0);
}

static void a_writer_is_rung_for_when_there_is_the_room_that_it_wants(void)
{
    open_lane(64, 0);
    for (uint64_t i = 0; i < 4; i++)
        CHECK(send_one(i, 8));
    CHECK(!send_one(4, 40) && nc_lane_writer_may_sleep(&w, 40));
    for (uint64_t i = 0; i < 2; i++) {
        receive(i, 8);
        CHECK(!nc_lane_wakes_writer(&r));
    }
    receive(2, 8);
    CHECK(nc_lane_wakes_writer(&r) && !nc_lane_wakes_writer(&r));
    CHECK(send_one(4, 40));
}

static void room_that_came_before_the_flag_is_seen(void)
{
    open_lane(64, 0);
    CHECK(send_one(0, 56) && !send_one(1, 56));
    receive(0, 56);
    CHECK(!nc_lane_writer_may_sleep(&w, 56) && get(&block.writer.sleeps) == 0);
    CHECK(send_one(1, 56));
}

static void a_writer_whose_tail_cannot_be_is_not_rung_for(void)
{
    open_lane(64, 0);
    CHECK(send_one(0, 56) && nc_lane_writer_may_sleep(&w, 56));
    receive(0, 56);
    put(&block.tail, 1024);
    CHECK(!nc_lane_wakes_writer(&r));
    put(&block.writer.sleeps, UINT64_MAX);
    put(&block.tail, r.head);
    CHECK(!nc_lane_wakes_writer(&r));
}

/* ---- the end ------------------------------------------------------------------------------------------ */

static nc_result next(bool eof, nc_lane_fate *fate)
{
    nc_record record = {0};
    return nc_lane_next(&r, eof, &record, fate);
}

static void what_was_sent_comes_before_the_end(void)
{
    for (int eof = 0; eof < 2; eof++) {
        nc_lane_fate fate;
        open_lane(64, 0);
        CHECK(send_one(0, 8));
        CHECK(!nc_lane_close(&block.writer, &block.reader));
        CHECK_EQ(next(eof, &fate), NC_OK);
        receive(0, 8);
        CHECK(next(eof, &fate) == NC_EMPTY && fate == NC_LANE_CLOSED);
    }
}

static void who_ended_now_and_had_not_closed_has_crashed(void)
{
    nc_lane_fate fate;
    open_lane(64, 0);
    CHECK(send_one(0, 8));
    CHECK_EQ(next(true, &fate), NC_OK);
    receive(0, 8);
    CHECK(next(false, &fate) == NC_EMPTY && fate == NC_LANE_OPEN);
    CHECK(next(true, &fate) == NC_EMPTY && fate == NC_LANE_CRASHED);
    CHECK_EQ(nc_lane_peer(&block.reader, false), NC_LANE_OPEN);
    CHECK_EQ(nc_lane_peer(&block.reader, true), NC_LANE_CRASHED);
}

static void nobody_sleeps_where_the_other_has_closed_and_who_sleeps_is_rung_for(void)
{
    open_lane(64, 0);
    CHECK(nc_lane_reader_may_sleep(&r));
    CHECK(nc_lane_close(&block.writer, &block.reader));
    CHECK(!nc_lane_reader_may_sleep(&r));
    CHECK(send_one(0, 56) && nc_lane_writer_may_sleep(&w, 56));
    CHECK(nc_lane_close(&block.reader, &block.writer));
    CHECK(!nc_lane_writer_may_sleep(&w, 56));
    CHECK_EQ(nc_lane_peer(&block.reader, false), NC_LANE_CLOSED);
}

/* ---- an end that travels ------------------------------------------------------------------------------ */

static nc_lane_side *const sides[] = {&block.reader, &block.writer};

static void both_sides_of_a_new_lane_are_here_unless_its_reader_is_waited_for(void)
{
    open_lane(64, 0);
    CHECK(get(&block.reader.closed) == NC_LANE_HERE && get(&block.writer.closed) == NC_LANE_HERE);
    nc_lane_await_reader(&block);
    CHECK(get(&block.reader.closed) == NC_LANE_AWAY && get(&block.writer.closed) == NC_LANE_HERE);
    CHECK_EQ(nc_lane_peer(&block.reader, true), NC_LANE_CLOSED);
    nc_lane_arrive(&block.reader);
    CHECK_EQ(nc_lane_peer(&block.reader, true), NC_LANE_CRASHED);
}

static void an_end_that_gets_lost_on_its_way_has_nobody_who_crashed(void)
{
    for (int i = 0; i < 2; i++) {
        open_lane(64, 0);
        nc_lane_go_away(sides[i]);
        CHECK_EQ(nc_lane_peer(sides[i], false), NC_LANE_OPEN);
        CHECK_EQ(nc_lane_peer(sides[i], true), NC_LANE_CLOSED);
        nc_lane_arrive(sides[i]);
        CHECK_EQ(nc_lane_peer(sides[i], false), NC_LANE_OPEN);
        CHECK_EQ(nc_lane_peer(sides[i], true), NC_LANE_CRASHED);
        CHECK(!nc_lane_close(sides[i], sides[1 - i]));
        CHECK_EQ(nc_lane_peer(sides[i], false), NC_LANE_CLOSED);
        CHECK_EQ(nc_lane_peer(sides[i], true), NC_LANE_CLOSED);
    }
}

static void a_place_that_is_none_is_that_of_a_side_that_is_here(void)
{
    static const uint64_t none[] = {3, 4, UINT64_C(1) << 32 | NC_LANE_LEFT, UINT64_C(1) << 32 | NC_LANE_AWAY,
                                    UINT64_MAX};
    for (int i = 0; i < 10; i++) {
        open_lane(64, 0);
        put(&sides[i % 2]->closed, none[i / 2]);
        CHECK(!nc_lane_closed(sides[i % 2]));
        CHECK_EQ(nc_lane_peer(sides[i % 2], false), NC_LANE_OPEN);
        CHECK_EQ(nc_lane_peer(sides[i % 2], true), NC_LANE_CRASHED);
    }
}

static void one_may_write_to_and_sleep_for_a_side_that_is_away(void)
{
    open_lane(64, 0);
    nc_lane_await_reader(&block);
    CHECK(send_one(0, 56) && nc_lane_writer_may_sleep(&w, 56));
    nc_lane_arrive(&block.reader);
    receive(0, 56);
    CHECK(nc_lane_wakes_writer(&r));
    nc_lane_go_away(&block.writer);
    CHECK(empty() && nc_lane_reader_may_sleep(&r));
}

static void what_was_sent_comes_before_an_end_that_got_lost(void)
{
    nc_lane_fate fate;
    open_lane(64, 0);
    CHECK(send_one(0, 8));
    nc_lane_go_away(&block.writer);
    CHECK(next(true, &fate) == NC_OK && fate == NC_LANE_OPEN);
    receive(0, 8);
    CHECK(next(false, &fate) == NC_EMPTY && fate == NC_LANE_OPEN);
    CHECK(next(true, &fate) == NC_EMPTY && fate == NC_LANE_CLOSED);
}

int main(void)
{
    RUN(only_what_is_a_lane_is_opened);
    RUN(positions_that_cannot_be_are_not_opened);
    RUN(a_lane_may_change_hands_with_something_in_it);
    RUN(records_of_all_sizes_fit_at_all_offsets);
    RUN(a_ring_that_is_full_takes_again_what_was_given_back);
    RUN(what_is_left_of_a_claim_is_free_and_a_claim_forgotten_was_never_there);
    RUN(a_window_of_records_is_looked_at_and_given_back_at_once);
    RUN(the_reader_writes_nothing_into_records);
    RUN(a_reader_refuses_headers_of_no_record);
    RUN(a_reader_refuses_a_tail_where_no_writer_gets_to);
    RUN(a_writer_refuses_a_head_where_no_reader_gets_to);
    RUN(a_capacity_that_changes_later_is_not_asked_for);
    RUN(positions_in_the_block_that_are_ours_are_not_believed);
    RUN(nobody_is_rung_for_who_does_not_sleep);
    RUN(a_reader_that_sleeps_is_rung_for_once);
    RUN(a_writer_is_rung_for_when_there_is_the_room_that_it_wants);
    RUN(room_that_came_before_the_flag_is_seen);
    RUN(a_writer_whose_tail_cannot_be_is_not_rung_for);
    RUN(what_was_sent_comes_before_the_end);
    RUN(who_ended_now_and_had_not_closed_has_crashed);
    RUN(nobody_sleeps_where_the_other_has_closed_and_who_sleeps_is_rung_for);
    RUN(both_sides_of_a_new_lane_are_here_unless_its_reader_is_waited_for);
    RUN(an_end_that_gets_lost_on_its_way_has_nobody_who_crashed);
    RUN(a_place_that_is_none_is_that_of_a_side_that_is_here);
    RUN(one_may_write_to_and_sleep_for_a_side_that_is_away);
    RUN(what_was_sent_comes_before_an_end_that_got_lost);
    return test_report();
}
