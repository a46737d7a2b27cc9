/* lane.c: models of nc_lane.h: what goes through a lane, how its sides sleep and wake each other, and how they leave:
 * by closing, or killed at any step.  model_arg is the capacity in bytes.
 *
 * Thread 1 writes, thread 2 reads.  A socket is a semaphore, for rings, and a word that says that the other end has
 * been closed; the kernel closes it when its process is gone, after all that the process has done. */
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
static jmp_buf grave[3];
static int mortal; /* may be killed at any step */
static uint64_t each, most, sizes[2]; /* records to send, to receive, their sizes in turn */
static uint64_t taken; /* the reader's own */
static nc_lane_fate fate; /* what the reader was told of the writer */
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
    each = n;
    most = n;
    sizes[0] = size;
    sizes[1] = other;
    taken = 0;
    fate = NC_LANE_OPEN;
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

static void at_step(void)
{
    int me = model_thread();
    if (me != 0 && me == mortal && model_choose(2))
        longjmp(grave[me], 1);
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
    while (nc_lane_peer(&block.reader, eof[WRITER]) == NC_LANE_OPEN) {
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

static void write_all(void)
{
    uint64_t sent = 0;
    while (sent < each && send_one(sent))
        sent++;
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

static void read_all(void)
{
    nc_record record;
    while (taken < most || most == each) {
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
    if (nc_lane_close(&block.reader, &block.writer))
        ring(WRITER);
}

static void both(int id)
{
    if (setjmp(grave[id]) == 0) {
        if (id == WRITER)
            write_all();
        else
            read_all();
    }
    if (!lingers)
        end_of_file(id);
}

/* ---- what holds in the end ---------------------------------------------------------------------------- */

static uint64_t word_at_end(_Atomic uint64_t *p) { return atomic_load_explicit(p, memory_order_relaxed); }

static void all_taken(void)
{
    CHECK(taken == each && fate == NC_LANE_CLOSED);
    CHECK(r.head == word_at_end(&block.tail));
}

/* All that the writer had published is there, and whether it had closed is told. */
static void all_of_the_dead(void)
{
    CHECK(r.head == word_at_end(&block.tail));
    CHECK(fate == (word_at_end(&block.writer.closed) ? NC_LANE_CLOSED : NC_LANE_CRASHED));
}

static void writer_ended(void) {} /* or every thread that is left waits */

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
    {"no second look", setup_one, read_without_second_look, NULL, 2, 2, 0, 32, ASLEEP},
    {"looks, then raises", setup_one, read_looks_then_raises, NULL, 2, 2, 0, 32, ASLEEP},
    {"written quietly", setup_one, written_quietly, NULL, 2, 2, 1, 32, ASLEEP},
    {"given back quietly", setup_full, given_back_quietly, NULL, 2, 2, 1, 32, ASLEEP},
    {"flag taken before publishing", setup_one, flag_taken_before_publishing, NULL, 2, 2, 0, 32, ASLEEP},
    {"fate after the last look", setup_one, fate_after_the_last_look, all_taken, 2, 2, 0, 32, LOST},
    {"closed before end of file", setup_one, closed_before_end_of_file, all_taken, 2, 2, 0, 32, LOST},
};

int main(int argc, char **argv) { return model_main(models, sizeof models / sizeof models[0], argc, argv); }
