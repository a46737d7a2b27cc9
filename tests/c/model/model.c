/* model.c: the explorer behind model.h, which says what it covers.
 *
 * Each location keeps all its values, in modification order, as messages.  A view says how far along that order
 * somebody is bound to be, for each location, and how many releases of each thread he knows of.  A
 * thread has a view; so has a message: what one learns by acquiring it.
 *
 * Choices are numbered from 0, the plainest first (go on; the newest value).  The trail is the list of those made;
 * the space is walked depth first, by replaying the trail with its last choice raised.  After that, if asked to, at
 * random and with wider bounds.
 */
#define _GNU_SOURCE
#include "model.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum {
    THREADS = 6, /* thread 0 sets up and finishes */
    LOCATIONS = 58,
    CLOCKS = LOCATIONS, /* a view's entries: locations, then releases of each thread */
    MESSAGES = 192,
    CELLS = 1 << 12,
    STEPS = 3000,
    STACK = 64 << 10,
    NEVER = 255, /* not blocked */
    ANY = 254,   /* blocked until something is stored anywhere */
    IDLE = 253,  /* until nobody else can run */
};

typedef struct view {
    uint8_t at[LOCATIONS + THREADS];
} view;

typedef struct message {
    uint64_t value;
    view view;
    bool glued; /* a read-modify-write: nothing comes between it and the one before */
} message;

typedef struct location {
    const void *p;
    int n, sc; /* messages; index of the last seq_cst one */
    bool freed;
    uint8_t touched[THREADS]; /* each thread's clock when it last was here */
    message log[MESSAGES];
} location;

typedef struct cell { /* four bytes of plain memory */
    uintptr_t p;
    unsigned long run; /* the execution that it belongs to */
    bool freed;
    uint8_t writer, written, read[THREADS]; /* clocks */
} cell;

typedef struct thread {
    jmp_buf jump;
    ucontext_t start;
    char *stack;
    bool started, done;
    bool may_give_up;        /* while blocked: would give up, if nobody else can run */
    uint8_t blocked;   /* NEVER, ANY, or a location */
    view view, got;    /* got: the oldest it has read since it last went round a loop, */
    uint64_t read;     /* of the locations in this set */
} thread;

int model_arg;

static const model *the_model;
static location locations[LOCATIONS];
static thread threads[THREADS];
static cell cells[CELLS];
static struct {
    int pick, n;
} trail[4 * STEPS];
static int n_locations, current, preempted, weak, steps, depth, trail_length;
static int max_preemptions, max_weak;
static unsigned long run, cut;
static bool telling, at_random;
static uint64_t seed;
static const char *failure;
static jmp_buf main_jump;

static void explain(const char *what, const char *text, uint64_t value, const char *more)
{
    if (telling && current)
        printf("    t%d %-7s %-28s %#llx%s\n", current, what, text, (unsigned long long)value, more);
}

/* ---- choices and threads --------------------------------------------------------------------------- */

static void give_up(const char *why)
{
    fprintf(stderr, "%s: %s\n", the_model->name, why);
    exit(2);
}

/* Mostly the plainest: a bug needs few of the others, at the right places (xorshift64). */
static int random_pick(int n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % 8 != 0 ? 0 : (int)(seed / 8 % (unsigned)n);
}

int model_choose(int n)
{
    if (n <= 1)
        return 0;
    if (depth == trail_length) {
        if (depth == 4 * STEPS)
            give_up("too many choices");
        trail[trail_length].pick = at_random ? random_pick(n) : 0;
        trail[trail_length++].n = n;
    }
    return trail[depth++].pick;
}

int model_thread(void) { return current; }

static void stop(void)
{
    if (current)
        _longjmp(main_jump, 1);
}

static void fail(const char *why)
{
    if (failure == NULL)
        failure = why;
    stop();
}

static void run_thread(int id)
{
    if (_setjmp(threads[current].jump))
        return;
    current = id;
    if (threads[id].started)
        _longjmp(threads[id].jump, 1);
    threads[id].started = true;
    setcontext(&threads[id].start);
}

/* Who could run instead, round robin. */
static int others(int *who)
{
    int n = 0, all = the_model->threads;
    for (int i = 1, t = current; i < all; i++) {
        t = t % all + 1;
        if (!threads[t].done && threads[t].blocked == NEVER)
            who[n++] = t;
    }
    return n;
}

/* Before an operation that others can see: one of them may go first. */
static void point(void)
{
    if (current == 0)
        return;
    if (++steps > STEPS) {
        cut++;
        stop();
    }
    int who[THREADS], n = preempted < max_preemptions ? others(who) : 0, pick = model_choose(n + 1);
    if (pick > 0) {
        preempted++;
        run_thread(who[pick - 1]);
    }
}

/* The thread cannot go on: another must.  Which one: in a spin loop, where the question comes up again and
 * again, any but the first counts as a preemption. */
static void leave(void)
{
    int who[THREADS], n = others(who);
    bool spins = threads[current].blocked == ANY;
    if (n > 0) {
        int pick = model_choose(spins && preempted >= max_preemptions ? 1 : n);
        preempted += spins && pick > 0;
        run_thread(who[pick]);
        return;
    }
    for (int t = 1; t <= the_model->threads; t++)
        if (!threads[t].done && threads[t].may_give_up) {
            threads[t].blocked = NEVER;
            run_thread(t);
            return;
        }
    for (int t = 1; t <= the_model->threads; t++)
        if (!threads[t].done)
            fail("every thread that is left waits");
    stop();
}

static void block(int on)
{
    explain("waits", "", 0, "");
    threads[current].blocked = on;
    leave();
}

static void body(void)
{
    the_model->thread(current);
    threads[current].done = true;
    leave();
}

/* ---- plain memory ---------------------------------------------------------------------------------- */

static cell *cell_of(uintptr_t p)
{
    for (size_t i = p >> 2;; i++) {
        cell *c = &cells[i % CELLS];
        if (c->run == run && c->p == p)
            return c;
        if (c->run != run) {
            memset(c, 0, sizeof *c);
            c->run = run;
            c->p = p;
            return c;
        }
    }
}

static void plain(const void *p, size_t size, bool write)
{
    if (current == 0)
        return;
    const uint8_t *know = threads[current].view.at + CLOCKS;
    for (uintptr_t at = (uintptr_t)p & ~(uintptr_t)3; at < (uintptr_t)p + size; at += 4) {
        cell *c = cell_of(at);
        if (c->freed)
            fail("freed memory is used");
        bool race = c->writer != current && c->written > know[c->writer];
        for (int t = 1; write && t <= the_model->threads; t++)
            race |= t != current && c->read[t] > know[t];
        if (race)
            fail("data race");
        if (write) {
            c->writer = current;
            c->written = know[current];
        } else {
            c->read[current] = know[current];
        }
    }
}

void model_free(const void *p, size_t size)
{
    const char *from = p, *to = from + size;
    const uint8_t *know = threads[current].view.at + CLOCKS;
    plain(p, size, true);
    for (const char *at = from; at < to; at += 4)
        cell_of((uintptr_t)at & ~(uintptr_t)3)->freed = true;
    for (location *l = locations; l < locations + n_locations; l++)
        if ((const char *)l->p >= from && (const char *)l->p < to) {
            for (int t = 1; t <= the_model->threads; t++)
                if (l->touched[t] > know[t])
                    fail("freed while in use");
            l->freed = true;
        }
}

/* ---- atomic operations ----------------------------------------------------------------------------- */

static bool acquires(memory_order order) { return order == memory_order_acquire || order >= memory_order_acq_rel; }
static bool releases(memory_order order) { return order >= memory_order_release; }

static void join(view *a, const view *b)
{
    for (size_t i = 0; i < sizeof a->at; i++)
        a->at[i] = a->at[i] > b->at[i] ? a->at[i] : b->at[i];
}

static uint64_t of_size(uint64_t value, size_t size)
{
    return size == 8 ? value : value & ((UINT64_C(1) << size * 8) - 1);
}

static int location_of(const void *p, size_t size)
{
    int l = 0;
    while (l < n_locations && locations[l].p != p)
        l++;
    location *loc = &locations[l];
    if (l == n_locations) {
        if (n_locations++ == LOCATIONS)
            give_up("too many locations");
        memset(loc, 0, offsetof(location, log) + sizeof loc->log[0]);
        loc->p = p;
        loc->n = 1;
        memcpy(&loc->log[0].value, p, size); /* little-endian */
    }
    if (loc->freed)
        fail("freed memory is used");
    loc->touched[current] = threads[current].view.at[CLOCKS + current];
    return l;
}

/* The current thread reads message i. */
static uint64_t see(int l, int i, memory_order order)
{
    thread *t = &threads[current];
    const message *m = &locations[l].log[i];
    if (acquires(order))
        join(&t->view, &m->view);
    t->view.at[l] = i;
    if (!(t->read >> l & 1) || i < t->got.at[l])
        t->got.at[l] = i;
    t->read |= UINT64_C(1) << l;
    return m->value;
}

static void move_up(view *v, int l, int from) { v->at[l] += v->at[l] >= from; }

/* Make room for message i of location l. */
static void shift(int l, int i)
{
    location *loc = &locations[l];
    for (int t = 0; t < THREADS; t++) {
        move_up(&threads[t].view, l, i);
        move_up(&threads[t].got, l, i);
    }
    for (int k = 0; k < n_locations; k++)
        for (int m = 0; m < locations[k].n; m++)
            move_up(&locations[k].log[m].view, l, i);
    loc->sc += loc->sc >= i;
    memmove(&loc->log[i + 1], &loc->log[i], (loc->n - i) * sizeof loc->log[0]);
}

/* The current thread writes message i; `over`: it is a read-modify-write of the one before. */
static void put(int l, int i, uint64_t value, memory_order order, bool over)
{
    location *loc = &locations[l];
    thread *t = &threads[current];
    if (loc->n == MESSAGES || t->view.at[CLOCKS + current] == UINT8_MAX)
        give_up("too many values");
    if (i < loc->n)
        shift(l, i);
    loc->n++;
    t->view.at[l] = i;
    message *m = &loc->log[i];
    m->value = value;
    m->glued = over;
    if (over)
        m->view = m[-1].view; /* the release sequence goes on */
    else
        memset(&m->view, 0, sizeof m->view);
    if (releases(order)) {
        join(&m->view, &t->view);
        t->view.at[CLOCKS + current]++; /* what follows is not released by this */
    }
    m->view.at[l] = i;
    if (order == memory_order_seq_cst && i > loc->sc)
        loc->sc = i;
    for (int k = 1; k <= the_model->threads && value != m[-1].value; k++)
        if (threads[k].blocked == l || threads[k].blocked == ANY)
            threads[k].blocked = NEVER;
}

/* The least message that an access of this order may read. */
static int least(int l, memory_order order)
{
    int known = threads[current].view.at[l], sc = locations[l].sc;
    return order == memory_order_seq_cst && sc > known ? sc : known;
}

/* One of n messages, the newest first; anything but the newest counts. */
static int pick_of(const int *from, int n)
{
    int pick = current && weak < max_weak ? model_choose(n) : 0;
    weak += pick > 0;
    return from[pick];
}

uint64_t model_load(const void *p, size_t size, memory_order order, const char *text)
{
    point();
    int l = location_of(p, size), from[MESSAGES], n = 0, newest = locations[l].n - 1;
    for (int i = newest; i >= least(l, order); i--)
        from[n++] = i;
    int i = pick_of(from, n);
    uint64_t value = see(l, i, order);
    explain("loads", text, value, i < newest ? "   (not the newest)" : "");
    return value;
}

void model_store(void *p, size_t size, uint64_t value, memory_order order, const char *text)
{
    point();
    int l = location_of(p, size), to[MESSAGES], n = 0, end = locations[l].n;
    for (int i = end; i > least(l, order); i--)
        if (i == end || !locations[l].log[i].glued)
            to[n++] = i;
    int i = pick_of(to, n);
    put(l, i, of_size(value, size), order, false);
    explain("stores", text, of_size(value, size), i < end ? "   (before one that was stored already)" : "");
}

/* Read-modify-writes: may message i be read and written over? */
static bool free_to_take(int l, int i) { return i == locations[l].n - 1 || !locations[l].log[i + 1].glued; }

uint64_t model_rmw(void *p, size_t size, int what, uint64_t value, memory_order order, const char *text)
{
    point();
    int l = location_of(p, size), from[MESSAGES], n = 0, newest = locations[l].n - 1;
    for (int i = newest; i >= least(l, order); i--)
        if (free_to_take(l, i))
            from[n++] = i;
    int i = pick_of(from, n);
    uint64_t old = see(l, i, order), new = of_size(what == MODEL_ADD ? old + value : value, size);
    put(l, i + 1, new, order, true);
    explain("had", text, old, i < newest ? "   (not the newest)" : "");
    explain("now", text, new, "");
    return old;
}

bool model_cas(void *p, size_t size, uint64_t *old, uint64_t value, memory_order order, memory_order failed,
               const char *text)
{
    point();
    int l = location_of(p, size), from[MESSAGES], n = 0, newest = locations[l].n - 1;
    const message *log = locations[l].log;
    for (int i = newest; i >= 0; i--)
        if (log[i].value == *old ? i >= least(l, order) && free_to_take(l, i) : i >= least(l, failed))
            from[n++] = i;
    int i = pick_of(from, n);
    bool done = log[i].value == *old;
    uint64_t had = *old = see(l, i, done ? order : failed);
    if (done)
        put(l, i + 1, of_size(value, size), order, true);
    explain(done ? "swaps" : "cannot", text, had, i < newest ? "   (not the newest)" : "");
    return done;
}

/* ---- waiting --------------------------------------------------------------------------------------- */

/* Locks and semaphores are counts that always show the newest.  False: nobody is left to count them up. */
static bool count_down(uint32_t *p, bool may_give_up, uint64_t stop_at, const char *text)
{
    bool blocked = false;
    for (;; blocked = true) {
        point();
        int l = location_of(p, sizeof *p), newest = locations[l].n - 1;
        if (locations[l].log[newest].value != stop_at) {
            uint64_t value = see(l, newest, memory_order_acquire);
            put(l, newest + 1, of_size(value - 1, sizeof *p), memory_order_relaxed, true);
            explain(text, "", 0, "");
            return true;
        }
        if (blocked && may_give_up)
            return false;
        threads[current].may_give_up = may_give_up;
        block(l);
        threads[current].may_give_up = false;
    }
}

static void count_up(uint32_t *p, const char *text)
{
    int l = location_of(p, sizeof *p), newest = locations[l].n - 1;
    explain(text, "", 0, "");
    put(l, newest + 1, of_size(see(l, newest, memory_order_relaxed) + 1, sizeof *p), memory_order_release, true);
}

void model_lock(nc_lock *lock) { count_down(lock, false, UINT32_MAX, "locks"); }
void model_unlock(nc_lock *lock) { count_up(lock, "unlocks"); } /* no point: no operation of another can tell */
void model_sleep(uint32_t *semaphore) { count_down(semaphore, false, 0, "awakes"); }
bool model_sleep_timed(uint32_t *semaphore) { return model_choose(2) == 0 && count_down(semaphore, true, 0, "awakes"); }

void model_wake(uint32_t *semaphore)
{
    point();
    count_up(semaphore, "wakes");
}

/* A loop of loads goes round again: only with something new to see. */
void model_relax(void)
{
    thread *t = &threads[current];
    bool news = false;
    for (int l = 0; current && l < n_locations; l++) {
        int newest = locations[l].n - 1;
        if ((t->read >> l & 1) && locations[l].log[t->got.at[l]].value != locations[l].log[newest].value) {
            t->view.at[l] = newest;
            news = true;
        }
    }
    t->read = 0;
    if (current && !news)
        block(ANY);
}

/* Time passes: what others stored has come through. */
void model_idle(void)
{
    thread *t = &threads[current];
    t->may_give_up = true;
    block(IDLE);
    t->may_give_up = false;
    for (int l = 0; l < n_locations; l++)
        t->view.at[l] = locations[l].n - 1;
}

void model_check(bool ok, const char *text)
{
    if (!ok)
        fail(text);
}

/* ---- plain accesses, as -fsanitize=thread reports them ----------------------------------------------- */

#define ON_ACCESS(size)                                                  \
    void __tsan_read##size(void *p);                                     \
    void __tsan_read##size(void *p) { plain(p, size, false); }           \
    void __tsan_write##size(void *p);                                    \
    void __tsan_write##size(void *p) { plain(p, size, true); }           \
    void __tsan_unaligned_read##size(void *p);                           \
    void __tsan_unaligned_read##size(void *p) { plain(p, size, false); } \
    void __tsan_unaligned_write##size(void *p);                          \
    void __tsan_unaligned_write##size(void *p) { plain(p, size, true); }
ON_ACCESS(1)
ON_ACCESS(2)
ON_ACCESS(4)
ON_ACCESS(8)
ON_ACCESS(16)

#define ON_RANGE(name, write)                 \
    void __tsan_##name(void *p, size_t size); \
    void __tsan_##name(void *p, size_t size) { plain(p, size, write); }
ON_RANGE(read_range, false)
ON_RANGE(write_range, true)

void *__tsan_memset(void *p, int byte, size_t size);
void *__tsan_memset(void *p, int byte, size_t size)
{
    plain(p, size, true);
    return memset(p, byte, size);
}

void __tsan_init(void);
void __tsan_init(void) {}
void __tsan_func_entry(void *p);
void __tsan_func_entry(void *p) { (void)p; }
void __tsan_func_exit(void *p);
void __tsan_func_exit(void *p) { (void)p; }

/* ---- the walk -------------------------------------------------------------------------------------- */

static void reset(void)
{
    run++;
    n_locations = current = preempted = weak = steps = depth = 0;
    for (int t = 0; t < THREADS; t++) {
        thread *th = &threads[t];
        th->started = th->done = th->may_give_up = false;
        th->blocked = NEVER;
        th->read = 0;
        memset(&th->view, 0, sizeof th->view);
        memset(&th->got, 0, sizeof th->got);
        th->view.at[CLOCKS + t] = 1;
    }
}

static void once(void)
{
    reset();
    the_model->setup();
    for (int t = 1; t <= the_model->threads; t++) {
        thread *th = &threads[t];
        join(&th->view, &threads[0].view);
        if (th->stack == NULL)
            th->stack = malloc(STACK);
        getcontext(&th->start);
        th->start.uc_stack.ss_sp = th->stack;
        th->start.uc_stack.ss_size = STACK;
        makecontext(&th->start, body, 0);
    }
    if (!_setjmp(main_jump))
        run_thread(1 + model_choose(the_model->threads));
    bool ended = failure == NULL && steps <= STEPS;
    current = 0;
    for (int t = 1; t <= the_model->threads; t++)
        join(&threads[0].view, &threads[t].view);
    if (ended && the_model->finish != NULL)
        the_model->finish();
}

/* On to the next trail; false when there is none. */
static bool next_trail(void)
{
    while (trail_length > 0 && trail[trail_length - 1].pick + 1 >= trail[trail_length - 1].n)
        trail_length--;
    if (trail_length == 0)
        return false;
    trail[trail_length - 1].pick++;
    return true;
}

static double clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Within the bounds all executions there are; then some beyond, for `more` seconds.  `less`: with fewer preemptions. */
static void walk(const model *m, int less, double more)
{
    the_model = m;
    model_arg = m->arg;
    failure = NULL;
    trail_length = 0;
    cut = 0;
    max_preemptions = m->preemptions > less ? m->preemptions - less : 0;
    max_weak = m->weak;
    do
        once();
    while (failure == NULL && next_trail());
    for (double end = clock_now() + more; more > 0 && failure == NULL && clock_now() < end;) {
        max_preemptions = 3 * m->preemptions + 3;
        max_weak = 3 * m->weak + 3;
        trail_length = 0;
        at_random = true;
        once();
        at_random = false;
    }
}

static void tell_again(void)
{
    telling = true;
    failure = NULL;
    once();
    telling = false;
    printf("    %s\n", failure != NULL ? failure : "(not again: the model depends on something outside)");
}

static bool explore(const model *m, int less, double more)
{
    unsigned long first = run;
    double began = clock_now();
    walk(m, m->fails != NULL ? 0 : less, more);
    bool good = m->fails == NULL ? failure == NULL : failure != NULL && !strncmp(failure, m->fails, strlen(m->fails));
    printf("%-6s %-34s %9lu executions, %d preemptions, %d weak, %.2f s%s%s\n", good ? "ok" : "FAILED", m->name,
           run - first, max_preemptions, max_weak, clock_now() - began, failure ? ": " : "", failure ? failure : "");
    if (cut > 0 && more == 0) {
        printf("       %lu executions had no end\n", cut);
        good = false;
    }
    if (!good && failure != NULL)
        tell_again();
    fflush(stdout);
    return good;
}

int model_main(const model *models, size_t n, int argc, char **argv)
{
    int passed = 0, failed = 0, less = 0, option;
    bool at_first = false;
    double more = 0;
    seed = (uint64_t)time(NULL) * 2 + 1;
    while ((option = getopt(argc, argv, "l:r:s:x")) != -1)
        if (option == 'l')
            less = atoi(optarg);
        else if (option == 'r')
            more = atof(optarg);
        else if (option == 's')
            seed = strtoull(optarg, NULL, 0);
        else if (option == 'x')
            at_first = true;
        else
            return 2;
    if (more > 0)
        printf("seed %llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < n && !(at_first && failed); i++)
        if (optind == argc || strstr(models[i].name, argv[optind]) != NULL) {
            if (explore(&models[i], less, more))
                passed++;
            else
                failed++;
        }
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0 || passed == 0;
}
