/* fuzz_lane.c: libFuzzer target for lanes: the input is what a hostile peer writes, before any atomic operation of the
 * one side that is tried, the reader or the writer.  Whatever that is, nc_lane.h stays within the block and the
 * records, which lie in allocations of exactly their size, and every call ends: a peer writes only so often within one
 * call.
 *
 * -DREPLAY gives it a main() that runs the files it is told, for compilers without libFuzzer.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) check(condition, #condition, __LINE__)

static void check(int ok, const char *text, int line)
{
    if (ok)
        return;
    fprintf(stderr, "fuzz_lane.c:%d: not so: %s\n", line, text);
    abort();
}

#define NC_MODEL "meddle.h"
#include "nc_lane.h"

enum { OPERATIONS_MOST = 16 }; /* atomic operations of one call, at most */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    const uint8_t *data;
    size_t left;
} input;
static nc_lane_block *block;
static _Atomic uint64_t *words;
static uint64_t capacity;
static bool reads; /* the side that is tried */
static int operations; /* of the call that is running */
static volatile unsigned char sink;

/* Zeros when it is used up. */
static uint64_t take(size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n && input.left > 0; i++, input.left--)
        value |= (uint64_t)*input.data++ << 8 * i;
    return value;
}

/* A word near what is there, a small one, or any. */
static uint64_t some_word(uint64_t now, uint8_t how)
{
    switch (how % 4) {
    case 0:
        return now + (how & 4 ? 1 : 8) * take(1);
    case 1:
        return now - 8 * take(1);
    case 2:
        return take(1);
    default:
        return take(8);
    }
}

static void change(void *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    word = some_word(word, (uint8_t)take(1));
    memcpy(at, &word, sizeof word);
}

/* What an honest peer does: it gives all back, and sends one more. */
static void step_as_told(void)
{
    uint64_t tail, header = 1 + take(1) % 40;
    memcpy(&tail, (void *)&block->tail, sizeof tail);
    memcpy((void *)&block->head, &tail, sizeof tail);
    if (reads && tail % 8 == 0) {
        memcpy((void *)nc_lane_word(words, capacity, tail), &header, sizeof header);
        tail += nc_log_extent(header);
        memcpy((void *)&block->tail, &tail, sizeof tail);
    }
}

/* Called before each atomic operation of the side that is tried. */
static void meddle(void)
{
    static const size_t fields[] = {offsetof(nc_lane_block, tail),          offsetof(nc_lane_block, head),
                                    offsetof(nc_lane_block, reader.sleeps), offsetof(nc_lane_block, writer.sleeps),
                                    offsetof(nc_lane_block, reader.closed), offsetof(nc_lane_block, writer.closed),
                                    offsetof(nc_lane_block, kind),          offsetof(nc_lane_block, capacity)};
    CHECK(++operations <= OPERATIONS_MOST);
    if (block == NULL)
        return;
    uint8_t what = (uint8_t)take(1);
    if (what % 16 == 1)
        change((char *)block + fields[what / 16 % 8]);
    else if (what % 16 == 2)
        change((void *)&words[take(1) % (capacity / 4)]);
    else if (what % 4 == 3)
        step_as_told();
}

/* Where a record may lie at all: behind a header in the first half, and no longer than there is. */
static void check_record(const nc_record *record)
{
    const unsigned char *from = (const unsigned char *)words, *to = from + 2 * capacity;
    CHECK(record->pos % 8 == 0 && record->size > 0 && record->size <= capacity - NC_LOG_HEADER);
    CHECK(record->data == from + (record->pos & (capacity - 1)) + NC_LOG_HEADER);
    CHECK(record->size <= (size_t)(to - record->data));
}

static void call(void) { operations = 0; }

/* ---- the reader --------------------------------------------------------------------------------------- */

static nc_result look(nc_lane_reader *r, uint8_t op, nc_record *record)
{
    nc_lane_fate fate = NC_LANE_OPEN;
    call();
    nc_result result = op & 4 ? nc_lane_peek(r, record) : nc_lane_next(r, op & 8, record, &fate);
    CHECK(result == NC_OK || result == NC_EMPTY || result == NC_BAD);
    CHECK(fate == NC_LANE_OPEN || result != NC_OK || fate == NC_LANE_CLOSED || fate == NC_LANE_CRASHED);
    return result;
}

static void try_reader(nc_lane_reader *r)
{
    nc_record record;
    while (input.left > 0) {
        uint8_t op = (uint8_t)take(1);
        uint64_t pos = r->head;
        nc_result result = look(r, op, &record);
        for (int window = op / 16; result == NC_OK && window >= 0; window--) { /* look further, then give back */
            CHECK(record.pos == pos);
            check_record(&record);
            for (uint64_t i = 0; i < record.size; i++)
                sink = record.data[i];
            pos += nc_log_extent(record.size);
            CHECK(pos - r->head <= capacity);
            call();
            if (window == 0 || op & 1)
                nc_lane_release(r, &record, op & 2 ? memory_order_seq_cst : memory_order_release);
            nc_record next;
            call();
            result = nc_lane_peek_at(r, pos, &next);
            if (result == NC_OK)
                record = next;
        }
        call();
        nc_lane_give_back(r);
        call();
        nc_lane_wakes_writer(r);
        call();
        nc_lane_reader_may_sleep(r);
        if (result == NC_BAD)
            break;
    }
}

/* ---- the writer --------------------------------------------------------------------------------------- */

static void try_writer(nc_lane_writer *w)
{
    nc_record record;
    while (input.left > 0) {
        uint8_t op = (uint8_t)take(1);
        uint64_t n = 1 + (op & 1 ? take(2) : take(1) % 40) % (capacity - NC_LOG_HEADER);
        call();
        nc_result result = nc_lane_claim(w, n, &record);
        if (result == NC_OK) {
            CHECK(record.size == n && record.pos == w->tail);
            check_record(&record);
            memset(record.data, op, n);
            call();
            if (op & 2)
                nc_lane_commit(w, &record, op & 4 ? n : 1 + take(2) % n, memory_order_release);
        } else if (result == NC_BAD) {
            break;
        } else {
            call();
            nc_lane_writer_may_sleep(w, n);
        }
        CHECK(w->tail - w->head <= capacity && w->head % 8 == 0);
        call();
        nc_lane_publish(w);
        call();
        nc_lane_wakes_reader(w);
        call();
        nc_lane_fate fate = nc_lane_peer(&block->reader, op & 8);
        CHECK(op & 8 ? fate == NC_LANE_CLOSED || fate == NC_LANE_CRASHED
                     : fate == NC_LANE_OPEN || fate == NC_LANE_CLOSED);
    }
}

/* First who is tried, and with which capacity; then whether the block is right to begin with, or what is in it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input.data = data;
    input.left = size;
    uint8_t kind = (uint8_t)take(1);
    capacity = UINT64_C(64) << kind / 2 % 4;
    void *memory[2] = {NULL, NULL};
    CHECK(posix_memalign(&memory[0], NC_LANE_LINE, sizeof *block) == 0);
    CHECK(posix_memalign(&memory[1], NC_LANE_LINE, 2 * capacity) == 0);
    memset(memory[0], 0, sizeof *block);
    memset(memory[1], kind, 2 * capacity);
    call();
    block = NULL; /* so nobody meddles yet */
    nc_lane_init((nc_lane_block *)memory[0], capacity, kind & 16 ? take(8) : -(uint64_t)(kind & 8) * 8);
    for (size_t i = 0; kind / 32 == 1 && i < sizeof *block; i += 1 + take(1))
        ((unsigned char *)memory[0])[i] ^= (unsigned char)take(1);
    block = (nc_lane_block *)memory[0];
    words = (_Atomic uint64_t *)memory[1];
    reads = kind & 1;
    nc_lane_reader r;
    nc_lane_writer w;
    call();
    if (reads) {
        if (nc_lane_open_reader(&r, block, words, capacity) == NC_LANE_SOUND)
            try_reader(&r);
    } else if (nc_lane_open_writer(&w, block, words, capacity) == NC_LANE_SOUND) {
        try_writer(&w);
    }
    call();
    nc_lane_go_away(&block->reader);
    call();
    nc_lane_arrive(&block->reader);
    call();
    nc_lane_close(&block->writer, &block->reader);
    free(memory[0]);
    free(memory[1]);
    return 0;
}

#ifdef REPLAY

/* Inputs at random, as many as it is told, for compilers without libFuzzer. */
static void at_random(uint64_t n)
{
    static uint8_t data[2048];
    uint64_t seed = 88172645463325252;
    for (uint64_t i = 0; i < n; i++) {
        size_t size = 16 + i % (sizeof data - 16);
        for (size_t k = 0; k < size; k++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            data[k] = (uint8_t)(seed >> 16);
        }
        LLVMFuzzerTestOneInput(data, size);
    }
}

int main(int argc, char **argv)
{
    static uint8_t data[1 << 16];
    int files = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') {
            at_random(strtoull(argv[i] + 1, NULL, 10));
            continue;
        }
        FILE *file = fopen(argv[i], "rb");
        check(file != NULL, argv[i], __LINE__);
        LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof data, file));
        fclose(file);
        files++;
    }
    printf("replayed: %d\n", files);
    return 0;
}

#endif
