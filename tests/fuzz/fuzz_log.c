/* fuzz_log.c: libFuzzer targets for the byte ring.  Two programs from one file:
 *
 *   as it is      the input is a sequence of operations on a ring and on a plain model of it (tests/c/twin.h)
 *   -DHOSTILE     the input is a block as somebody else may have written it, and what he writes to it meanwhile;
 * whatever that is, nc_log_open_sc and what follows stay within the block
 *
 * -DREPLAY gives either a main() that runs the files it is told, for compilers without libFuzzer.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) check(condition, #condition, __LINE__)
#define CHECK_EQ(a, b) CHECK((uint64_t)(a) == (uint64_t)(b))

static void check(int ok, const char *text, int line)
{
    if (ok)
        return;
    fprintf(stderr, "fuzz_log.c or twin.h:%d: not so: %s\n", line, text);
    abort();
}

#include "nc_log_reader.h"
#include "twin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct input {
    const uint8_t *data;
    size_t left;
} input;

/* Zeros when it is used up. */
static uint64_t take(input *in, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n && in->left > 0; i++, in->left--)
        value |= (uint64_t)*in->data++ << 8 * i;
    return value;
}

#ifndef HOSTILE

static const uint64_t starts[] = {0, (UINT64_C(1) << 32) - 56, (UINT64_C(1) << 63) - 56, -(uint64_t)56};
static twin t;

/* One operation; a byte tells which, and of what kind. */
static void operate(input *in)
{
    uint8_t op = (uint8_t)take(in, 1);
    int which = t.claims > 0 ? op / 8 % t.claims : 0;
    memory_order publish = op & 0x80 ? memory_order_seq_cst : memory_order_release;
    switch (op % 8) {
    case 0: /* the whole of the range, for what may be claimed at all */
        if (t.claims < TWIN_CLAIMS)
            twin_claim(&t, 1 + take(in, 2) % nc_log_largest(t.log), op);
        break;
    case 1:
        if (t.claims < TWIN_CLAIMS)
            twin_claim(&t, 1 + take(in, 1) % 40, op);
        break;
    case 2:
        if (t.claims > 0)
            twin_commit(&t, which, t.claim[which].size, publish);
        break;
    case 3: /* shrunk */
        if (t.claims > 0)
            twin_commit(&t, which, 1 + take(in, 2) % t.claim[which].size, publish);
        break;
    case 4:
        if (t.claims > 0)
            twin_abort(&t, which, publish);
        break;
    case 5:
    case 6: /* a record may be looked at again before it is given back */
        twin_peek(&t, publish);
        if (op % 8 == 5 && t.shown)
            twin_release(&t, publish);
        break;
    default:
        nc_log_publish_batch(t.log);
        nc_log_release_batch(t.log);
    }
    twin_check(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};
    uint64_t kind = take(&in, 1);
    twin_open(&t, UINT64_C(64) << kind / 2 % 4, starts[kind / 8 % 4] + kind / 32 * 8, kind & 1);
    while (in.left > 0)
        operate(&in);
    while (t.claims > 0)
        twin_abort(&t, t.claims - 1, memory_order_seq_cst);
    while (twin_peek(&t, memory_order_seq_cst)) { /* all that was committed comes out */
        twin_release(&t, memory_order_seq_cst);
        twin_check(&t);
    }
    CHECK_EQ(nc_log_used(t.log), 0);
    twin_close(&t);
    return 0;
}

#else

static unsigned char *block;
static size_t block_size;
static volatile unsigned char sink;

/* Whatever is shown can be read, every byte of it, by ASan's leave. */
static void read_record(const nc_record *r)
{
    CHECK(r->size > 0 && r->pos % 8 == 0);
    CHECK(r->data >= block + sizeof(nc_log) + NC_LOG_HEADER);
    CHECK(r->size <= (size_t)(block + block_size - r->data));
    for (uint64_t i = 0; i < r->size; i++)
        sink = r->data[i];
}

static void put_word(size_t at, uint64_t word)
{
    if (at + 8 <= block_size)
        memcpy(block + at, &word, 8);
}

/* Somebody else writes: any word, or what might be a header or a mark, or one of the positions. */
static void interfere(input *in)
{
    uint8_t what = (uint8_t)take(in, 1);
    uint64_t small = take(in, 1);
    if ((what & 0xc1) == 0xc1 && block_size > 0)
        block[block_size - 1 - small % block_size] = what & 2; /* a mark, where there are any */
    else if (what & 1)
        put_word(sizeof(nc_log) + small % 64 * 8, (what & 2 ? NC_SKIP : 0) | what / 4);
    else if (what & 2)
        put_word(what & 4 ? offsetof(nc_log, tail) : offsetof(nc_log, head), small * 8);
    else
        put_word(small * 8, take(in, 8));
}

static void dump(nc_log_reader *r, input *in)
{
    uint64_t pos = r->head, header, extent, passed = 0;
    while (nc_log_look_at(r, pos, &header, &extent) == NC_OK) {
        pos += extent;
        passed += extent;
        CHECK(passed <= r->capacity);
        if (take(in, 1) & 1)
            interfere(in);
    }
}

static void consume(nc_log_reader *r, input *in)
{
    nc_record record;
    bool freed;
    for (int i = 0; i < 64; i++) {
        uint8_t op = (uint8_t)take(in, 1);
        if (op & 1)
            interfere(in);
        if (op & 2)
            dump(r, in);
        nc_result result = nc_log_look_sc(r, &record, &freed, memory_order_seq_cst);
        if (result == NC_OK) {
            read_record(&record);
            if (op & 4)
                interfere(in);
            nc_log_pass_sc(r, nc_log_extent(record.size), memory_order_seq_cst);
        } else if (in->left == 0) {
            break;
        }
    }
}

/* First whether to help the block over the first checks, and how large it is; then the block, then what is done to it.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};
    uint64_t kind = take(&in, 1), capacity = UINT64_C(64) << kind / 8 % 4;
    block_size = kind & 0x20 ? nc_log_block_size(capacity, kind & 4) : take(&in, 2) % 1600;
    void *memory = NULL; /* of exactly this size */
    CHECK(posix_memalign(&memory, NC_CACHE_LINE, block_size) == 0);
    block = memory;
    memset(block, 0, block_size);
    size_t given = in.left < block_size ? in.left : block_size;
    memcpy(block, in.data, given);
    in.data += given;
    in.left -= given;
    nc_log *log = (nc_log *)(void *)block;
    if (block_size < sizeof *log)
        kind = 0;
    if (kind & 1) {
        log->magic = NC_LOG_MAGIC;
        log->layout = NC_LOG_LAYOUT;
        log->many = kind & 4 ? 1 : 0;
    }
    if (kind & 0x40)
        log->capacity = kind & 0x80 ? capacity : UINT64_C(1) << take(&in, 1) % 64;
    if (kind & 2) { /* and positions that may be */
        uint64_t head = take(&in, 1) * 8, used = take(&in, 1) * 8;
        memcpy((void *)&log->head, &head, 8);
        head += used;
        memcpy((void *)&log->tail, &head, 8);
    }
    nc_log_reader r;
    if (nc_log_open_sc(&r, block, block_size) == NC_OK)
        consume(&r, &in);
    free(block);
    return 0;
}

#endif

#ifdef REPLAY

int main(int argc, char **argv)
{
    static uint8_t data[1 << 16];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        check(file != NULL, argv[i], __LINE__);
        LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof data, file));
        fclose(file);
    }
    printf("replayed: %d\n", argc - 1);
    return 0;
}

#endif
