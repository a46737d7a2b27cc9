/* py_reach.c: how a channel reaches other processes: what os_reach.h says, for those who run Python.  Touches
 * os_reach_life.h and nc_chan.h.
 *
 * Whoever waits here, a thread or a loop, waits on one descriptor besides its own.  A ring lies there until somebody
 * hears it (reach_hear), who then calls those whose turn it is; so it does not matter who of them is the first to hear.
 */
#include "py_reach.h"
#include "py_line.h"

#if REACHES

#include <stdlib.h>

/* ---- of the process: from any thread, with or without the GIL ----------------------------------------------- */

static os_reach_list list = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void hold_reaches(void) { os_reach_hold_all(&list); }
static void release_reaches(void) { os_reach_let_all_go(&list); }
static void detach_reaches(void) { os_reach_detach_all(&list); }

void reach_leave_all(void) { os_reach_leave_all(&list); }

/* A process that returns from main(), or calls exit(), ends in good order; one that is killed does not come here. */
static void watch_process(void)
{
    pthread_atfork(hold_reaches, release_reaches, detach_reaches);
    atexit(reach_leave_all);
}

static void begin(os_reach *r, bool reads, bool guarded, uint64_t capacity)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_process);
    os_reach_begin(r, &list, reads, guarded, capacity);
}

void reach_begin(os_reach *r, nc_chan *block, bool reads, uint64_t capacity)
{
    begin(r, reads, block->gate[TX].guarded, capacity);
}

os_reach *reach_knock(void)
{
    os_reach *r = calloc(1, sizeof *r);
    if (r != NULL)
        begin(r, false, false, 0);
    else
        PyErr_NoMemory();
    return r;
}

void reach_knocked(os_reach *r)
{
    r->lanes.owner->end(&r->lanes);
    free(r);
}

/* ---- for those who wait: any thread, with or without the GIL -------------------------------------------------- */

bool reach_spin_natively(nc_chan *block, unsigned most)
{
    os_reach *r = reach_of(block);
    uint64_t seen;
    _Atomic uint64_t *word = os_reach_spin_begin(r, &seen);
    bool moved = word != NULL && os_reach_spin(word, seen, most);
    if (word != NULL)
        os_reach_spin_end(r);
    return moved;
}

/* ---- the same: with the GIL, runs Python code ----------------------------------------------------------------- */

void reach_hear(Chan *c)
{
    nc_box *kicks = NULL;
    if (c->block->lanes == NULL)
        return;
    nc_chan_hear(c->block, core_generation(), &kicks);
    line_deliver(c, kicks);
}

void reach_answer(Chan *c)
{
    nc_lanes *l = c->block->lanes;
    nc_box *kicks = NULL;
    nc_lanes_enter(l);
    os_reach_answer(reach_of(c->block));
    nc_lanes_exit(l);
    nc_chan_call_waiting(c->block, l->reads ? RX : TX, core_generation(), &kicks);
    line_deliver(c, kicks);
}

/* Pauses: the other process may have to run on this very processor, and answers within a few microseconds. */
enum { YIELD_EVERY = 16 };

/* Without the GIL.  Relaxed: whoever goes on looks. */
static bool spin_politely(_Atomic uint64_t *word, uint64_t seen, unsigned most, int64_t ns, bool *late)
{
    unsigned spins = 0;
    bool moved = false;
    while (!(moved = atomic_load_explicit(word, memory_order_relaxed) != seen) && spins < most && !*late) {
        nc_pause();
        if (++spins % YIELD_EVERY == 0) {
            int64_t began = now_ns();
            sched_yield();
            *late = now_ns() - began > ns;
        }
    }
    return moved;
}

/* True if it is time to hear the rest. */
static bool spun(os_reach *r, bool moved)
{
    nc_lanes_enter(&r->lanes);
    bool due = moved && os_reach_hears_all(r);
    nc_lanes_exit(&r->lanes);
    os_reach_spin_end(r);
    return due;
}

bool reach_spin(Chan *c, unsigned most, int64_t ns, bool *late)
{
    os_reach *r = reach_of(c->block);
    uint64_t seen;
    _Atomic uint64_t *word = os_reach_spin_begin(r, &seen);
    bool moved;
    *late = false;
    if (word == NULL)
        return false;
    Py_BEGIN_ALLOW_THREADS;
    moved = spin_politely(word, seen, most, ns, late);
    Py_END_ALLOW_THREADS;
    if (spun(r, moved))
        reach_hear(c);
    return moved;
}

bool reach_deserted(Chan *c)
{
    reach_hear(c);
    return nc_lanes_deserted(c->block->lanes);
}

os_reach_fd *reach_wait_on(Chan *c)
{
    os_reach *r = reach_of(c->block);
    nc_lanes_enter(&r->lanes);
    os_reach_fd *fd = r->fd;
    if (fd != NULL)
        os_reach_fd_ref(fd);
    nc_lanes_exit(&r->lanes);
    return fd;
}

void reach_unguard(Chan *c)
{
    nc_lock_enter(&list.lock); /* not while the process is being forked */
    nc_chan_unguard(c->block, core_generation());
    nc_lock_exit(&list.lock);
}

void reach_unwatched(Chan *c)
{
    os_reach *r = reach_of(c->block);
    nc_lanes_enter(&r->lanes);
    if (r->left)
        os_close(&r->over);
    nc_lanes_exit(&r->lanes);
}

bool reach_same(Chan *a, Chan *b)
{
    return a->block->lanes != NULL && b->block->lanes != NULL && reach_of(a->block)->name == reach_of(b->block)->name;
}

#else

bool reach_spin_natively(nc_chan *Py_UNUSED(block), unsigned Py_UNUSED(most)) { return false; }
void reach_unguard(Chan *Py_UNUSED(c)) {}
void reach_hear(Chan *Py_UNUSED(c)) {}
void reach_answer(Chan *Py_UNUSED(c)) {}
bool reach_deserted(Chan *Py_UNUSED(c)) { return false; }
bool reach_spin(Chan *Py_UNUSED(c), unsigned Py_UNUSED(n), int64_t Py_UNUSED(ns), bool *Py_UNUSED(l)) { return false; }
bool reach_same(Chan *Py_UNUSED(a), Chan *Py_UNUSED(b)) { return false; }

#endif
