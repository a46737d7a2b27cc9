/* lane.c: models of nc_lane.h: what goes through a lane, how its sides sleep and wake each other, and how they leave:
 * by closing, on their way to another process, or killed at any step.  model_arg is the capacity in bytes.
 *
 * Thread 1 writes, thread 2 reads; thread 3 is whoever one of them hands its end to.  A socket is a semaphore, for
 * rings, and a word that says that the other end has been closed; the kernel closes it when the last process that holds
 * it is gone, after all that these have done. */
static void at_step(void);
#define NC_STEP(name) at_step()
#include "nc_lane.h"

#include <setjmp.h>

#define START (-(uint64_t)16) /* the positions wrap on the way */

enum { WRITER = 1, READER = 2, LARGEST = 64 };

static nc_lane_block block;
static _Alignas(NC_CACHE_LINE) _Atomic uint64_t words[2 * LARGEST / 8];
static nc_lane_writer w;
static nc_lane_reader r;
static uint32_t bell[3];          /* by who listens */
static _Atomic uint32_t ended[3]; /* by whose end of the socket was closed */
static uint32_t eof[3];          /* by who has heard that the other's was; that thread's own */
static jmp_buf grave[4]; /* by thread */
static int mortal; /* a side that may be killed at any step */
static int moves; /* a side that is handed on to thread 3 */
static uint32_t mail; /* thread 3 sleeps for what it is handed */
static _Atomic uint32_t handed, holders_gone;
static uint64_t each, most, sizes[2]; /* records to send, to receive, their sizes in turn */
static uint64_t sent; /* the writer's own */
static uint64_t taken; /* the reader's own */
static nc_lane_fate fate; /* what the reader was told of the writer */
static nc_lane_fate fate_of_reader; /* what the writer was told of the reader */
static bool comes; /* the reader is away until it comes */
static bool quietly; /* send and take in pairs, as batches */
static bool lingers; /* who has closed keeps its end of the socket: nobody hears an end of file */

static void start(uint64_t n, uint64_t size, uint64_t other)
{
    uint64_t capacity = (uint64_t)model_arg; /* opened by hand: this lane is less than the least */
    nc_lane_side *const sides[] = {&block.reader, &block.writer};
    nc_lane_init(&block, capacity, START);
    for (int i = 0; i < 2; i++) {
        atomic_store_explicit(&sides[i]->sleeps, 0, memory_order_relaxed);
        atomic_store_explicit(&sides[i]->closed, 0, memory_order_relaxed);
    }
    for (uint64_t i = 0; i < 2 * capacity / 8; i++)
        atomic_store_explicit(&words[i], 0, memory_order_relaxed);
    w = (nc_lane_writer){&block, words, capacity, START, START};
    r = (nc_lane_reader){&block, words, capacity, START, START};
    for (int i = 1; i <= 2; i++) {
        bell[i] = 0;
        eof[i] = false;
        atomic_store_explicit(&ended[i], 0, memory_order_relaxed);
    }
    mortal = 0;
    moves = 0;
    mail = 0;
    atomic_store_explicit(&handed, 0, memory_order_relaxed);
    atomic_store_explicit(&holders_gone, 0, memory_order_relaxed);
    each = n;
    most = n;
    sizes[0] = size;
    sizes[1] = other;
    sent = 0;
    taken = 0;
    fate = NC_LANE_OPEN;
    fate_of_reader = NC_LANE_OPEN;
    comes = false;
    quietly = false;
    lingers = false;
}

static void setup_one(void) { start(1, 8, 8); }
static void setup_two(void) { start(2, 8, 8); }
static void setup(void) { start(3, 8, 8); }
static void setup_long(void) { start(3, 16, 16); }
static void setup_mixed(void) { start(3, 16, 8); }

static void setup_batches(void)
{
    start(4, 8, 8);
    quietly = true;
}

static void setup_mortal_writer(void)
{
    setup_two();
    mortal = WRITER;
}

static void setup_mortal_reader(void)
{
    setup_two();
    mortal = READER;
}

static void setup_comes(void)
{
    setup_two();
    comes = true;
    nc_lane_await_reader(&block);
}

static void setup_mortal_comes(void)
{
    setup_comes();
    mortal = READER;
}

static void setup_writer_moves(void)
{
    setup_two();
    moves = WRITER;
}

static void setup_reader_moves(void)
{
    setup_two();
    moves = READER;
}

static void setup_mortal_writer_moves(void)
{
    setup_writer_moves();
    mortal = WRITER;
}

static void setup_mortal_reader_moves(void)
{
    setup_reader_moves();
    mortal = READER;
}

static void setup_reader_leaves(void)
{
    setup();
    most = 1;
}

static void setup_lingers(void)
{
    setup_two();
    lingers = true;
}

static void setup_reader_lingers(void)
{
    setup_reader_leaves();
    lingers = true;
}

/* ---- sockets, and being killed ------------------------------------------------------------------------ */

static int side_of(int id) { return id == 3 ? moves : id; }

static void at_step(void)
{
    int id = model_thread();
    if (id != 0 && side_of(id) == mortal && model_choose(2))
        longjmp(grave[id], 1);
}

static void ring(int who) { model_wake(&bell[who]); }

static void listen_for(int me)
{
    model_sleep(&bell[me]);
    eof[me] = atomic_load_explicit(&ended[3 - me], memory_order_acquire) != 0; /* P5 */
}

static void end_of_file(int me)
{
    atomic_store_explicit(&ended[me], 1, memory_order_release); /* P5 */
    ring(3 - me);
}

/* An end is sent to thread 3 by way of the kernel, which has it meanwhile. */
static void hand_over(void)
{
    atomic_store_explicit(&handed, 1, memory_order_release);
    model_wake(&mail);
}

static bool is_handed_over(void)
{
    model_sleep(&mail);
    return atomic_load_explicit(&handed, memory_order_acquire) != 0;
}

/* ---- the writer --------------------------------------------------------------------------------------- */

static uint64_t word_of(uint64_t number, uint64_t i) { return 8 + 8 * number + i; } /* as if it were a header */
static uint64_t size_of(uint64_t number) { return sizes[number % 2]; }

static void write_record(const nc_record *record, uint64_t number)
{
    uint64_t *data = (uint64_t *)(void *)record->data;
    for (uint64_t i = 0; i < record->size / 8; i++) {
        data[i] = word_of(number, i);
        atomic_store_explicit(&data[i], word_of(number, i), memory_order_relaxed);
    }
}

static void ring_reader(void)
{
    if (nc_lane_wakes_reader(&w))
        ring(READER);
}

/* False: the reader has left. */
static bool claim(uint64_t n, nc_record *record)
{
    while ((fate_of_reader = nc_lane_peer(&block.reader, eof[WRITER])) == NC_LANE_OPEN) {
        nc_result result = nc_lane_claim(&w, n, record);
        if (result == NC_OK)
            return true;
        CHECK(result == NC_FULL);
        if (quietly) {
            nc_lane_publish(&w);
            ring_reader();
        }
        if (nc_lane_writer_may_sleep(&w, n))
            listen_for(WRITER);
    }
    return false;
}

static bool send_one(uint64_t number)
{
    nc_record record;
    if (!claim(size_of(number), &record))
        return false;
    write_record(&record, number);
    nc_lane_commit(&w, &record, record.size, quietly ? memory_order_release : memory_order_seq_cst);
    if (!quietly) {
        ring_reader();
    } else if (number % 2 == 1) {
        nc_lane_publish(&w);
        ring_reader();
    }
    return true;
}

static void write_up_to(uint64_t n)
{
    while (sent < n && send_one(sent))
        sent++;
}

static void write_all(void)
{
    write_up_to(each);
    CHECK(sent == each || most < each || mortal == READER);
    if (nc_lane_close(&block.writer, &block.reader))
        ring(READER);
}

/* ---- the reader --------------------------------------------------------------------------------------- */

static void check_record(const nc_record *record)
{
    uint64_t *data = (uint64_t *)(void *)record->data;
    CHECK(record->size == size_of(taken));
    for (uint64_t i = 0; i < record->size / 8; i++) {
        CHECK(data[i] == word_of(taken, i));
        CHECK(atomic_load_explicit(&data[i], memory_order_relaxed) == word_of(taken, i));
    }
    taken++;
}

static void ring_writer(void)
{
    if (nc_lane_wakes_writer(&r))
        ring(WRITER);
}

static void take(const nc_record *record)
{
    check_record(record);
    nc_lane_release(&r, record, quietly ? memory_order_release : memory_order_seq_cst);
    if (quietly && taken % 2 == 1)
        return;
    if (quietly)
        nc_lane_give_back(&r);
    ring_writer();
}

static void read_up_to(uint64_t n)
{
    nc_record record;
    while (taken < n) {
        nc_result result = nc_lane_next(&r, eof[READER], &record, &fate);
        CHECK(result != NC_BAD);
        if (result == NC_OK) {
            take(&record);
        } else if (fate != NC_LANE_OPEN) {
            break;
        } else {
            if (quietly) {
                nc_lane_give_back(&r);
                ring_writer();
            }
            if (nc_lane_reader_may_sleep(&r))
                listen_for(READER);
        }
    }
}

static void read_all(void)
{
    read_up_to(most == each ? UINT64_MAX : most);
    if (nc_lane_close(&block.reader, &block.writer))
        ring(WRITER);
}

static nc_lane_side *place_of(int side) { return side == WRITER ? &block.writer : &block.reader; }

/* Who comes later knows no more than what the block says. */
static void come(int side)
{
    uint64_t head, tail;
    nc_lane_arrive(place_of(side));
    CHECK(nc_lane_positions(&block, (uint64_t)model_arg, &head, &tail) == NC_LANE_SOUND);
    if (side == WRITER)
        w = (nc_lane_writer){&block, words, (uint64_t)model_arg, tail, head};
    else
        r = (nc_lane_reader){&block, words, (uint64_t)model_arg, head, tail};
}

static void both(int id)
{
    if (setjmp(grave[id]) == 0) {
        if (id == READER && comes)
            come(READER);
        if (id == WRITER)
            write_all();
        else
            read_all();
    }
    if (!lingers)
        end_of_file(id);
}

/* ---- an end that is handed on --------------------------------------------------------------------------- */

static void first_half(void)
{
    if (moves == WRITER)
        write_up_to(1);
    else
        read_up_to(1);
}

static void all_the_rest(int side)
{
    if (side == WRITER)
        write_all();
    else
        read_all();
}

/* Thread 3 dies with nothing in its hands if the first holder died before it handed its end over. */
static void handed_on(int id)
{
    if (setjmp(grave[id]) == 0) {
        if (id == moves) {
            first_half();
            nc_lane_go_away(place_of(moves));
            hand_over();
            return;
        }
        if (id == 3) {
            if (!is_handed_over())
                return;
            come(moves);
        }
        all_the_rest(side_of(id));
    } else if (id == moves) {
        model_wake(&mail);
    }
    end_of_file(side_of(id));
}

/* ---- what holds in the end ---------------------------------------------------------------------------- */

static uint64_t word_at_end(_Atomic uint64_t *p) { return atomic_load_explicit(p, memory_order_relaxed); }

static void all_taken(void)
{
    CHECK(taken == each && fate == NC_LANE_CLOSED);
    CHECK(r.head == word_at_end(&block.tail));
}

/* What is to be told of a side that is gone. */
static nc_lane_fate truth(nc_lane_side *side)
{
    return word_at_end(&side->closed) == NC_LANE_HERE ? NC_LANE_CRASHED : NC_LANE_CLOSED;
}

/* All that the writer had published is there, and whether it had closed is told. */
static void all_of_the_dead(void)
{
    CHECK(r.head == word_at_end(&block.tail));
    CHECK(fate == truth(&block.writer));
}

/* The writer ended, else every thread that is left waits; if it did not send all, it was told why. */
static void writer_ended(void)
{
    CHECK(fate_of_reader == NC_LANE_OPEN ? sent == each : fate_of_reader == truth(&block.reader));
}

/* ---- a side that sleeps in a wrong way: these must fail ------------------------------------------------ */

static void read_without_second_look(int id)
{
    nc_record record = {0};
    if (id == WRITER) {
        CHECK(send_one(0));
        return;
    }
    while (nc_lane_peek(&r, &record) != NC_OK) {
        nc_lane_raise(&block.reader, 8);
        listen_for(READER);
    }
}

static void read_looks_then_raises(int id)
{
    nc_record record = {0};
    if (id == WRITER) {
        CHECK(send_one(0));
        return;
    }
    while (nc_lane_peek(&r, &record) != NC_OK)
        if (atomic_load_explicit(&block.tail, memory_order_seq_cst) == r.tail) {
            nc_lane_raise(&block.reader, 8);
            listen_for(READER);
        }
}

/* What is published or given back before a flag is read has to be so by seq_cst. */
static void written_quietly(int id)
{
    nc_record record = {0};
    if (id == WRITER) {
        nc_lane_claim(&w, 8, &record);
        write_record(&record, 0);
        nc_lane_commit(&w, &record, 8, memory_order_release);
        ring_reader();
        return;
    }
    while (nc_lane_peek(&r, &record) != NC_OK)
        if (nc_lane_reader_may_sleep(&r))
            listen_for(READER);
}

static void setup_full(void)
{
    setup_two();
    for (int i = 0; i < model_arg / 16; i++)
        CHECK(send_one((uint64_t)i));
}

static void given_back_quietly(int id)
{
    nc_record record = {0};
    if (id == WRITER) {
        while (nc_lane_claim(&w, 8, &record) != NC_OK)
            if (nc_lane_writer_may_sleep(&w, 8))
                listen_for(WRITER);
        return;
    }
    CHECK(nc_lane_peek(&r, &record) == NC_OK);
    nc_lane_release(&r, &record, memory_order_release);
    ring_writer();
}

static void flag_taken_before_publishing(int id)
{
    nc_record record = {0};
    if (id == WRITER) {
        bool asleep = nc_lane_wakes_reader(&w);
        nc_lane_claim(&w, 8, &record);
        write_record(&record, 0);
        nc_lane_commit(&w, &record, 8, memory_order_seq_cst);
        if (asleep)
            ring(READER);
        return;
    }
    while (nc_lane_peek(&r, &record) != NC_OK)
        if (nc_lane_reader_may_sleep(&r))
            listen_for(READER);
}

/* Is it closed, after the look that was in vain: the last message is lost. */
static void fate_after_the_last_look(int id)
{
    nc_record record = {0};
    if (id == WRITER) {
        both(WRITER);
        return;
    }
    for (;;) {
        if (nc_lane_peek(&r, &record) == NC_OK)
            take(&record);
        else if ((fate = nc_lane_peer(&block.writer, eof[READER])) != NC_LANE_OPEN)
            break;
        else if (nc_lane_reader_may_sleep(&r))
            listen_for(READER);
    }
}

/* The closed writer, asked for before the end of file is: it may have closed in between. */
static void closed_before_end_of_file(int id)
{
    nc_record record = {0};
    if (id == WRITER) {
        both(WRITER);
        return;
    }
    for (;;) {
        bool closed = nc_lane_closed(&block.writer);
        bool ended_now = atomic_load_explicit(&ended[WRITER], memory_order_acquire) != 0;
        if (nc_lane_peek(&r, &record) == NC_OK) {
            take(&record);
        } else if (closed || ended_now) {
            fate = closed ? NC_LANE_CLOSED : NC_LANE_CRASHED;
            break;
        } else if (nc_lane_reader_may_sleep(&r)) {
            listen_for(READER);
        }
    }
}

/* Who is handed the end may be here before the other says that it is away: killed then, it seems to have closed. */
static void handed_over_before_it_is_said(int id)
{
    if (id == READER) {
        read_all();
        return;
    }
    if (id == WRITER) {
        first_half();
        hand_over();
        nc_lane_go_away(&block.writer);
    } else {
        CHECK(is_handed_over());
        nc_lane_arrive(&block.writer);
    }
    if (atomic_fetch_add_explicit(&holders_gone, 1, memory_order_acq_rel) == 1)
        end_of_file(WRITER);
}

static void is_told_of_the_crash(void) { CHECK(fate == NC_LANE_CRASHED); }

#define ASLEEP "every thread"
#define LOST "CHECK: "
static const model models[] = {
    /* the quick ones first */
    {"asleep and woken, one", setup_one, both, all_taken, 2, 3, 2, 32, NULL},
    {"asleep and woken, one place", setup_two, both, all_taken, 2, 3, 2, 16, NULL},
    {"asleep and woken, two places", setup, both, all_taken, 2, 3, 2, 32, NULL},
    {"asleep and woken, longer", setup_long, both, all_taken, 2, 3, 2, 32, NULL},
    {"asleep and woken, mixed", setup_mixed, both, all_taken, 2, 3, 2, 32, NULL},
    {"batches", setup_batches, both, all_taken, 2, 3, 1, 32, NULL},
    {"closed, the socket is not", setup_lingers, both, all_taken, 2, 3, 2, 16, NULL},
    {"the reader has, likewise", setup_reader_lingers, both, writer_ended, 2, 3, 2, 16, NULL},
    {"the reader leaves", setup_reader_leaves, both, writer_ended, 2, 3, 2, 16, NULL},
    {"a writer killed anywhere", setup_mortal_writer, both, all_of_the_dead, 2, 3, 2, 16, NULL},
    {"a reader killed anywhere", setup_mortal_reader, both, writer_ended, 2, 3, 2, 16, NULL},
    {"a reader that comes", setup_comes, both, all_taken, 2, 3, 2, 16, NULL},
    {"killed before it came, or after", setup_mortal_comes, both, writer_ended, 2, 3, 2, 16, NULL},
    {"a writer handed on", setup_writer_moves, handed_on, all_taken, 3, 2, 1, 16, NULL},
    {"a reader handed on", setup_reader_moves, handed_on, all_taken, 3, 2, 1, 16, NULL},
    {"a writer handed on, killed anywhere", setup_mortal_writer_moves, handed_on, all_of_the_dead, 3, 2, 1, 16, NULL},
    {"a reader handed on, killed anywhere", setup_mortal_reader_moves, handed_on, writer_ended, 3, 2, 1, 16, NULL},
    {"no second look", setup_one, read_without_second_look, NULL, 2, 2, 0, 32, ASLEEP},
    {"looks, then raises", setup_one, read_looks_then_raises, NULL, 2, 2, 0, 32, ASLEEP},
    {"written quietly", setup_one, written_quietly, NULL, 2, 2, 1, 32, ASLEEP},
    {"given back quietly", setup_full, given_back_quietly, NULL, 2, 2, 1, 32, ASLEEP},
    {"flag taken before publishing", setup_one, flag_taken_before_publishing, NULL, 2, 2, 0, 32, ASLEEP},
    {"fate after the last look", setup_one, fate_after_the_last_look, all_taken, 2, 2, 0, 32, LOST},
    {"closed before end of file", setup_one, closed_before_end_of_file, all_taken, 2, 2, 0, 32, LOST},
    {"handed over before it is said", setup_writer_moves, handed_over_before_it_is_said, is_told_of_the_crash, 3, 2, 0,
     32, LOST},
};

int main(int argc, char **argv) { return model_main(models, sizeof models / sizeof models[0], argc, argv); }
