/* py_park.c: how a thread that runs Python waits: it stands in line, stays awake for a moment, then sleeps on its lock.
 * Touches nc_chan.h; knows calls only by their `look`.  How native threads wait is in py_native.c. */
#include "py_park.h"
#include "py_call.h"
#include "py_line.h"
#include "py_reach.h"
#include "py_wake_fd.h"

#include <math.h>

/* ---- its box ---------------------------------------------------------------------------------------- */

static void parker_kick_without_gil(wake_box *b) { PyThread_release_lock(((parker *)b)->lock); }

static void parker_kick(core_state *Py_UNUSED(st), wake_box *b, nc_box **Py_UNUSED(kicks))
{
    parker_kick_without_gil(b);
}

static bool parker_reached(wake_box *Py_UNUSED(b)) { return true; }

static bool parker_dead(core_state *Py_UNUSED(st), wake_box *Py_UNUSED(b)) { return false; }

static void parker_drop(wake_box *b) { PyThread_free_lock(((parker *)b)->lock); }

static const box_kind parker_kind = {
    .kick = parker_kick,
    .kick_without_gil = parker_kick_without_gil,
    .reached = parker_reached,
    .dead = parker_dead,
    .drop = parker_drop,
};

/* On the heap, not on the blocked thread's stack: a daemon thread may die while its waiters are still in line. */
parker *parker_new(Py_ssize_t places)
{
    parker *p = PyMem_RawCalloc(1, sizeof *p + (size_t)places * sizeof(nc_waiter));
    if (p == NULL)
        return NULL;
    nc_box_init(&p->base.box);
    p->base.box.guarded = !NC_FREE_THREADED;
    p->base.kind = &parker_kind;
    p->base.born = core_generation();
    p->places = places;
    p->thread = PyThread_get_thread_ident();
    p->lock = PyThread_allocate_lock();
    if (p->lock == NULL) {
        PyMem_RawFree(p);
        return NULL;
    }
    PyThread_acquire_lock(p->lock, NOWAIT_LOCK);
    return p;
}

nc_waiter *parker_place(parker *p, Py_ssize_t i, void *owner)
{
    p->waiter[i].box = &p->base.box;
    p->waiter[i].owner = owner;
    return &p->waiter[i];
}

void parker_receive(parker *p)
{
    for (nc_waiter *w = nc_box_take(&p->base.box), *next; w != NULL; w = next) {
        next = w->mail_next; /* read before w is received, as w may be posted again from then on */
        nc_post_receive(w);
    }
}

/* Was it called?  For its own thread, while that is awake. */
static inline bool parker_called(parker *p)
{
    for (Py_ssize_t i = 0; i < p->places; i++)
        if (nc_post_waits(&p->waiter[i]))
            return true;
    return false;
}

/* ---- for lanes: it sleeps in poll(2) -------------------------------------------------------------------- */

#if REACHES

#include <poll.h>

typedef struct listening {
    Py_ssize_t n;
    struct heard {
        Chan *chan; /* borrowed: the call holds it; of a native end it is not looked at */
        os_reach_fd *fd; /* a reference */
    } *of; /* [n] */
    struct pollfd polls[]; /* [1 + n]: the thread's own bell, then those */
} listening;

/* A thread that kicks itself is awake: it has heard what was rung, and its own turn was among those that it called.  It
 * looks at its mail before it sleeps (parker_sleep), so it needs no write. */
static void listener_kick_without_gil(wake_box *b)
{
    parker *p = (parker *)b;
    if (p->thread != PyThread_get_thread_ident())
        wake_fd_write(p->lanes->polls[0].fd);
}

static void listener_kick(core_state *Py_UNUSED(st), wake_box *b, nc_box **Py_UNUSED(kicks))
{
    listener_kick_without_gil(b);
}

static void listener_drop(wake_box *b)
{
    parker *p = (parker *)b;
    for (Py_ssize_t i = 0; i < p->lanes->n; i++)
        os_reach_fd_unref(p->lanes->of[i].fd);
    wake_fd_close(p->lanes->polls[0].fd);
    PyMem_RawFree(p->lanes);
    parker_drop(b);
}

static const box_kind listener_kind = {
    .kick = listener_kick,
    .kick_without_gil = listener_kick_without_gil,
    .reached = parker_reached,
    .dead = parker_dead,
    .drop = listener_drop,
};

static listening *listening_new(Py_ssize_t n)
{
    int bell[2];
    size_t polls = ((size_t)n + 1) * sizeof(struct pollfd);
    listening *l = PyMem_RawCalloc(1, sizeof *l + polls + (size_t)n * sizeof *l->of);
    if (l == NULL) {
        PyErr_NoMemory();
    } else if (!wake_fd_open(bell)) {
        PyErr_SetFromErrno(PyExc_OSError);
        PyMem_RawFree(l);
        l = NULL;
    } else {
        l->of = (struct heard *)(void *)((char *)(l + 1) + nc_align_up(polls, sizeof(void *)));
        l->polls[0] = (struct pollfd){.fd = bell[0], .events = POLLIN};
    }
    return l;
}

static void listening_add(listening *l, Chan *c, os_reach_fd *fd)
{
    l->of[l->n] = (struct heard){c, fd};
    l->polls[++l->n] = (struct pollfd){.fd = fd->fd, .events = POLLIN};
}

static void listening_start(parker *p, listening *l)
{
    p->lanes = l;
    p->base.kind = &listener_kind;
}

static Chan *place_chan(parker *p, Py_ssize_t i) { return ((Endpoint *)p->waiter[i].owner)->chan; }

bool parker_listen(parker *p)
{
    Py_ssize_t by_lanes = 0;
    for (Py_ssize_t i = 0; i < p->places; i++)
        by_lanes += place_chan(p, i)->block->lanes != NULL;
    if (by_lanes == 0)
        return true;
    listening *l = listening_new(by_lanes);
    if (l == NULL)
        return false;
    for (Py_ssize_t i = 0; i < p->places; i++) {
        Chan *c = place_chan(p, i);
        os_reach_fd *fd = c->block->lanes != NULL ? reach_wait_on(c) : NULL;
        if (fd != NULL) /* else it was closed meanwhile, as the next look finds */
            listening_add(l, c, fd);
    }
    listening_start(p, l);
    return true;
}

bool parker_listen_natively(parker *p, Chan *c)
{
    if (c->block->lanes == NULL)
        return true;
    listening *l = listening_new(1);
    if (l == NULL)
        return false;
    os_reach_fd *fd = reach_wait_on(c);
    if (fd != NULL)
        listening_add(l, c, fd);
    p->thread = PYTHREAD_INVALID_THREAD_ID; /* it is nobody's yet, and one thread's after the other's: always written */
    listening_start(p, l);
    return true;
}

/* Without the GIL. */
static PyLockStatus parker_poll(parker *p, PY_TIMEOUT_T us)
{
    struct timespec time = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    int n = ppoll(p->lanes->polls, (nfds_t)p->lanes->n + 1, us < 0 ? NULL : &time, NULL);
    return n > 0 ? PY_LOCK_ACQUIRED : n == 0 ? PY_LOCK_FAILURE : PY_LOCK_INTR;
}

static bool parker_poll_natively(parker *p, PY_TIMEOUT_T us)
{
    struct pollfd *polls = p->lanes->polls;
    if (parker_poll(p, us) != PY_LOCK_ACQUIRED)
        return false;
    if (polls[0].revents != 0)
        wake_fd_clear(polls[0].fd);
    return p->lanes->n > 0 && polls[1].revents != 0;
}

/* Hear what was rung meanwhile.  Runs Python code; keeps the current exception. */
static void parker_hear(parker *p)
{
    if (p->lanes->polls[0].revents != 0)
        wake_fd_clear(p->lanes->polls[0].fd);
    for (Py_ssize_t i = 0; i < p->lanes->n; i++)
        if (p->lanes->polls[i + 1].revents != 0) {
            p->lanes->polls[i + 1].revents = 0;
            reach_answer(p->lanes->of[i].chan);
        }
    p->lanes->polls[0].revents = 0;
}

/* The wait is over, and its place in line given up: keep the parker and its descriptor for the next one, if nobody is
 * about to kick it.  Nobody can get at it from then on, as only those in line are called.  `born`: when the wait began;
 * if the process was forked meanwhile, the parent has the same descriptor.  True if it was kept.  Holding the endpoint.
 */
static bool park_rest(Endpoint *ep, parker *p, uint32_t born)
{
    bool alone = atomic_load_explicit(&p->base.box.refs, memory_order_acquire) == 1; /* B1 */
    if (p->lanes == NULL || p->lanes->n == 0 || !alone || born != core_generation() || ep->closed || ep->rested != NULL)
        return false;
    parker_receive(p);
    ep->rested = &p->base.box;
    return true;
}

#else

bool parker_listen(parker *Py_UNUSED(p)) { return true; }
bool parker_listen_natively(parker *Py_UNUSED(p), Chan *Py_UNUSED(c)) { return true; }
static bool parker_poll_natively(parker *Py_UNUSED(p), PY_TIMEOUT_T Py_UNUSED(us)) { return false; }
static PyLockStatus parker_poll(parker *Py_UNUSED(p), PY_TIMEOUT_T Py_UNUSED(us)) { return PY_LOCK_FAILURE; }
static void parker_hear(parker *Py_UNUSED(p)) {}
static bool park_rest(Endpoint *Py_UNUSED(ep), parker *Py_UNUSED(p), uint32_t Py_UNUSED(born)) { return false; }

#endif

bool parker_sleep_natively(parker *p, PY_TIMEOUT_T us)
{
    if (p->lanes != NULL)
        return parker_poll_natively(p, us);
    PyThread_acquire_lock_timed(p->lock, us, 0);
    return false;
}

/* ---- its sleep -------------------------------------------------------------------------------------- */

static double monotonic(void) { return (double)now_ns() * 1e-9; }

/* Falling asleep and waking up take about this long.  If the last wait was shorter, the next one is spent awake for as
 * long; else for half as long as before, down to next to nothing. */
#define SPIN_WORTH 100e-6 /* seconds */
enum { SPIN_LEAST = 16, SPIN_MAIN = 32, SPIN_MOST = 4096 }; /* pauses; SPIN_MOST take about SPIN_WORTH */
enum { BRIEF = 1000 }; /* microseconds of the main thread's first sleep */
/* The same in poll(2), in which every short wait for another process goes to sleep.  A timer that is due before the
 * next tick of the clock has to be set in the hardware, which costs a virtual machine as much as the whole round trip.
 */
enum { BRIEF_POLL = 20000 };
enum { LOOKS_EVERY = 24 }; /* pauses; a busy other side sends or takes at least once in so many */
enum { ENOUGH = 64, ENOUGH_BYTES = 4096 }; /* items, or bytes: without a GIL, waiting for more gains nothing */

/* SPIN_LEAST on a single processor, as nobody else runs while this thread spins. */
static _Atomic unsigned spin_most = SPIN_MOST; /* relaxed: written when the module is made, always the same */

/* Another thread has called this one, and is likely to send or take more.  So stay awake for a moment, as long as the
 * ring goes on to fill or empty.  With a GIL, the other thread holds it.  To ask for the GIL now would mean to sleep
 * until it is released, which takes longer than filling or emptying the ring.  Without a GIL, both threads would fight
 * for each cache line, item by item.  For the same reason the ring is looked at only now and then. */
static void parker_linger(nc_chan *b, int side, unsigned most)
{
    uint64_t before = 0, now, enough = !NC_FREE_THREADED ? UINT64_MAX : nc_chan_of_bytes(b) ? ENOUGH_BYTES : ENOUGH;
    unsigned spins = 0;
    while (spins < most && (now = nc_chan_filled(b, side)) != before && now < enough) {
        before = now;
        for (unsigned next = spins + LOOKS_EVERY; spins < next;)
            nc_relax(&spins);
    }
}

/* Wait for a kick, a signal or the deadline, without the GIL: first spin, then sleep.  `brief`: sleep for a moment
 * only, and return as if a signal had come. */
static PyLockStatus parker_sleep(parking *at, parker *p, Call *call, unsigned spin, bool brief)
{
    PyLockStatus slept = PY_LOCK_ACQUIRED;
    PY_TIMEOUT_T us = -1, most = p->lanes != NULL ? BRIEF_POLL : BRIEF;
    if (p->lanes == NULL && spin > SPIN_MAIN)
        most = 0; /* after a long spin no brief sleep is needed */
    if (at->deadline >= 0) {
        double left = at->deadline - monotonic();
        if (left <= 0) {
            if (p->lanes != NULL)
                parker_poll(p, 0); /* the last look left out what is to be heard */
            return PY_LOCK_FAILURE;
        }
        us = left > 3600 ? (PY_TIMEOUT_T)3600000000 : (PY_TIMEOUT_T)ceil(left * 1e6); /* the caller sleeps again */
    }
    if (!brief || (us >= 0 && us < most))
        most = us;
    unsigned spins = 0;
    Py_BEGIN_ALLOW_THREADS;
    while (spins < spin && !parker_called(p))
        nc_relax(&spins);
    bool posted = parker_called(p);
    if (!posted && p->lanes != NULL)
        slept = parker_poll(p, most);
    else if (!posted)
        slept = PyThread_acquire_lock_timed(p->lock, most, 1);
    if (brief && slept == PY_LOCK_FAILURE)
        slept = PY_LOCK_INTR;
    at->woken = monotonic();
    if (posted && p->places == 1 && p->lanes == NULL)
        parker_linger(call->ep->chan->block, call->ep->side, spin);
    Py_END_ALLOW_THREADS;
    return slept == PY_LOCK_FAILURE && us > 0 && at->deadline > monotonic() ? PY_LOCK_ACQUIRED : slept;
}

void park_stay(parker *p)
{
    parker_receive(p);
    if (p->base.born != core_generation())
        p->base.born = core_generation(); /* a signal handler has forked this process */
}

/* One round: look, unless the waiter stands in line uncalled; line up if the look was in vain.  *turn: it is the call's
 * turn now, so look again at once.  Holding the endpoint. */
static step park_look(Call *call, parker *p, PyObject **out, bool *turn, nc_box **kicks)
{
    step s = STEP_BLOCKED;
    park_stay(p);
    uint32_t place = nc_waiter_state_of(p->waiter);
    *turn = false;
    if (place == NC_CALLED && line_deferred(call, p->waiter))
        s = STEP_BUSY;
    else if (place != NC_WAITING) /* also before lining up: others could use the endpoint since the first look */
        s = call->op->look(call, place == NC_CALLED, out, kicks);
    if (s == STEP_READY || s == STEP_ERROR)
        return s;
    if (s == STEP_BUSY && place == NC_CALLED) {
        line_defer(call, p->waiter);
        return STEP_BLOCKED;
    }
    *turn = line_up(call, p->waiter, s == STEP_PARTIAL, kicks) == NC_TURN;
    return STEP_BLOCKED;
}

void park_begin(parking *at, Call *call, double timeout)
{
    at->began = at->woken = monotonic();
    at->deadline = timeout < 0 ? -1 : at->began + timeout;
    at->spin = atomic_load_explicit(&call->ep->spin, memory_order_relaxed); /* a hint: what suited the last wait here */
    at->fresh = true;
}

void park_end(parking *at, Call *call)
{
    unsigned most = atomic_load_explicit(&spin_most, memory_order_relaxed);
    unsigned spin = at->woken - at->began < SPIN_WORTH ? most : at->spin / 2 > SPIN_LEAST ? at->spin / 2 : SPIN_LEAST;
    atomic_store_explicit(&call->ep->spin, (uint16_t)spin, memory_order_relaxed);
}

/* A signal that comes between the last check for signals and the sleep is handled only at the next wake-up, as with
 * CPython's own locks.  So the main thread, which runs Python's signal handlers, begins with a brief sleep (`fresh`)
 * and then checks for signals once more: this finds a signal that came while the thread lined up. */
step park_sleep(parking *at, Call *call, parker *p)
{
    bool main = core_main_thread(), brief = main && at->fresh;
    unsigned spin = at->spin > SPIN_MAIN && main && !brief ? SPIN_MAIN : at->spin;
    if (p->lanes != NULL)
        spin = 0; /* nobody calls a thread that spins: see run_blocking() */
    PyLockStatus slept = parker_sleep(at, p, call, spin, brief);
    if (p->lanes != NULL)
        parker_hear(p);
    at->fresh &= slept != PY_LOCK_INTR; /* what was rung before the wait may end its first sleep at once */
    if (slept == PY_LOCK_INTR && PyErr_CheckSignals() < 0)
        return STEP_ERROR;
    if (slept == PY_LOCK_FAILURE && !parker_called(p)) {
        call->op->timed_out(call);
        return STEP_ERROR;
    }
    return STEP_BLOCKED;
}

/* A parker with one place, which hears lanes if there are any: the one that has rested, if it is of this process.  NULL
 * with an exception set. */
static parker *park_take(Endpoint *ep)
{
    nc_box *rested;
    Py_BEGIN_CRITICAL_SECTION(ep);
    rested = ep->rested;
    ep->rested = NULL;
    Py_END_CRITICAL_SECTION();
    parker *p = rested != NULL ? (parker *)container_of(rested, wake_box, box) : NULL;
    if (p != NULL && p->base.born == core_generation()) {
        p->thread = PyThread_get_thread_ident();
        return p;
    }
    if (p != NULL)
        wake_box_unref(rested);
    p = parker_new(1);
    if (p == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    parker_place(p, 0, ep);
    if (!parker_listen(p)) {
        wake_box_unref(&p->base.box);
        return NULL;
    }
    return p;
}

/* After a look in vain: line up and sleep until the call is done.  Returns what the last look returned, or STEP_ERROR.
 */
static step park(Call *call, double timeout, PyObject **out)
{
    Endpoint *ep = call->ep;
    Chan *c = ep->chan;
    nc_box *kicks = NULL;
    parking at;
    bool turn, rests;
    step s;
    parker *p = park_take(ep);
    if (p == NULL)
        return STEP_ERROR;
    uint32_t born = p->base.born;
    park_begin(&at, call, timeout);
    call->waiting = true;
    do {
        Py_BEGIN_CRITICAL_SECTION(ep);
        s = park_look(call, p, out, &turn, &kicks);
        Py_END_CRITICAL_SECTION();
        if (s == STEP_BLOCKED && !turn)
            line_reap_ahead(c, ep->side, &kicks);
        line_deliver(c, kicks);
        kicks = NULL;
        if (s == STEP_BLOCKED && core_raise_postponed()) /* the exception of a signal handler that ran meanwhile */
            s = STEP_ERROR;
        if (s == STEP_BLOCKED && !turn)
            s = park_sleep(&at, call, p);
    } while (s == STEP_BLOCKED);
    park_end(&at, call);
    Py_BEGIN_CRITICAL_SECTION(ep);
    line_leave(c, ep->side, p->waiter, &kicks);
    rests = park_rest(ep, p, born);
    Py_END_CRITICAL_SECTION();
    if (!rests)
        wake_box_unref(&p->base.box);
    line_deliver(c, kicks);
    return s;
}

step try_call(Call *call, PyObject **out)
{
    Endpoint *ep = call->ep;
    nc_box *kicks = NULL;
    step s;
    do {
        Py_BEGIN_CRITICAL_SECTION(ep);
        s = call->op->look(call, false, out, &kicks);
        Py_END_CRITICAL_SECTION();
    } while (s == STEP_BLOCKED && line_reap(ep->chan, ep->side, &kicks));
    line_deliver_any(ep->chan, kicks);
    return s;
}

/* What moves need not be of use: it is too little room, or no honest process moves it.  Whoever goes on to sleep looks
 * for signals and at the time. */
enum { SPINS_IN_VAIN = 16 };

/* A thread that yields to a process that computes gets the processor back after milliseconds, while one that sleeps
 * gets it at once when it is woken.  So after such a yield many waits do not spin. */
enum { WARY = 512 }; /* waits */

static bool spin_is_wary(Endpoint *ep)
{
    unsigned wary = atomic_load_explicit(&ep->wary, memory_order_relaxed); /* a hint, as the next one */
    if (wary > 0)
        atomic_store_explicit(&ep->wary, (uint16_t)(wary - 1), memory_order_relaxed); /* a hint */
    return wary > 0;
}

/* The other side is another process, which may move a message any time: stay awake for a moment, as long as that was
 * worth it lately.  Nobody stands in line meanwhile, so the other process need not ring. */
static step spin_by_lanes(Call *call, PyObject **out)
{
    Endpoint *ep = call->ep;
    bool late = false;
    if (spin_is_wary(ep))
        return STEP_BLOCKED;
    unsigned spin = atomic_load_explicit(&ep->spin, memory_order_relaxed); /* a hint, as in park_begin() */
    step s = STEP_BLOCKED;
    for (int vain = 0; s == STEP_BLOCKED && vain < SPINS_IN_VAIN; vain++) {
        if (late || nc_gate_crowd(&ep->chan->gate[ep->side]) >= NC_WAITER)
            break;
        bool moved = reach_spin(ep->chan, spin, (int64_t)(SPIN_WORTH * 1e9), &late);
        if (late)
            atomic_store_explicit(&ep->wary, WARY, memory_order_relaxed); /* a hint */
        if (!moved)
            break;
        s = try_call(call, out);
    }
    return s;
}

/* Look once, and wait if the look was in vain; `deadline` < 0: none, 0: do not wait.  Returns as a look does. */
static step run_blocking(Call *call, double deadline, PyObject **out)
{
    call->sleeps = deadline != 0;
    step s = try_call(call, out);
    if (s == STEP_BLOCKED && call->ep->chan->block->lanes != NULL)
        s = spin_by_lanes(call, out);
    if (s != STEP_BLOCKED && s != STEP_PARTIAL)
        return s;
    double left = deadline > 0 ? deadline - monotonic() : deadline;
    if (deadline > 0 && left <= 0) { /* it does not sleep after all */
        call->sleeps = false;
        s = try_call(call, out);
    }
    if (s != STEP_BLOCKED && s != STEP_PARTIAL)
        return s;
    if (deadline >= 0 && left <= 0) {
        call->op->timed_out(call);
        return STEP_ERROR;
    }
    return park(call, left, out);
}

PyObject *wait_blocking(Call *call, double timeout)
{
    PyObject *out = NULL;
    double deadline = timeout > 0 ? monotonic() + timeout : timeout;
    step s = run_blocking(call, deadline, &out);
    while (s == STEP_READY && call_has_more(call)) {
        int more = call_refill(call, CALL_BATCH);
        if (more == 0)
            break;
        s = more < 0 ? STEP_ERROR : run_blocking(call, deadline, &out);
    }
    if (s == STEP_ERROR) {
        call_chain_failure(call);
        return NULL;
    }
    return out != NULL ? out : Py_NewRef(Py_None);
}

void park_init(void)
{
    if (core_processors() == 1)
        atomic_store_explicit(&spin_most, SPIN_LEAST, memory_order_relaxed);
}
