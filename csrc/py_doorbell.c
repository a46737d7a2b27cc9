/* py_doorbell.c: a thread that wakes event loops for those who cannot.
 *
 * A loop that has no wake fd is woken by its call_soon_threadsafe(), which is Python code.  Native threads run none.  A
 * thread of Python whose stack has run out cannot either.  Both ring the doorbell: they put the loop's box into a queue
 * and wake the doorbell's thread, which kicks the box as any thread of Python would, on a stack of its own.
 *
 *     prepared ---start---> asleep ---ring---> answers ---nothing is left---> asleep
 *         '---------------------'---------------- the interpreter or the module ends ----> ended, when all is answered
 *
 * There is at most one thread for each interpreter, and none before somebody has to ring.  It sleeps on a lock, without
 * a thread state, so that to CPython it is not there: sub-interpreters up to 3.12 must have no further thread state
 * when they are used and when they end.  It makes a thread state to answer with.  Before the interpreter is taken down,
 * a function that was given to `atexit` waits until the thread has ended.  So the interpreter is there whenever the
 * thread makes a thread state, and no thread is left that could return to an interpreter that is not.
 *
 * The doorbell is raw memory with counted references: those of the module's state, of the thread, of the function given
 * to `atexit`, and of each box that rings it.  So native code may ring when the interpreter is gone; nobody answers.
 */
#include "py_doorbell.h"

#ifndef _WIN32
#include <signal.h>
#endif

struct doorbell {
    nc_lock lock;
    bell_entry *first, **last;   /* who rang and was not answered yet, oldest first; under the lock */
    bool called;                 /* `asleep` was released, and the thread has not come by since; under the lock */
    bool started;                /* under the lock */
    _Atomic bool ended;          /* nobody is heard any more; written under the lock */
    unsigned long ender;         /* the thread that ended it; written before `ended` */
    unsigned long thread;        /* which it is; under the lock */
    PyThread_type_lock asleep;   /* taken; a ring releases it */
    PyThread_type_lock running;  /* taken while the thread may touch the interpreter */
    PyInterpreterState *interp;
    PyObject *module;            /* weak reference; used and dropped by threads that hold the GIL */
    uint32_t born;               /* core_generation when made: a forked child makes its own */
    _Atomic uint32_t refs;
};

/* ---- life and death: from any thread, with or without the GIL ----------------------------------------- */

void doorbell_ref(doorbell *bell)
{
    atomic_fetch_add_explicit(&bell->refs, 1, memory_order_relaxed); /* the caller knows of one already */
}

static void doorbell_free(doorbell *bell)
{
    if (bell->asleep != NULL)
        PyThread_free_lock(bell->asleep);
    if (bell->running != NULL)
        PyThread_free_lock(bell->running);
    nc_lock_destroy(&bell->lock);
    PyMem_RawFree(bell);
}

void doorbell_unref(doorbell *bell)
{
    if (atomic_fetch_sub_explicit(&bell->refs, 1, memory_order_acq_rel) == 1) /* B1 */
        doorbell_free(bell);
}

/* ---- ringing: from any thread, with or without the GIL ------------------------------------------------ */

bool doorbell_answered(doorbell *bell)
{
    if (bell->born != core_generation())
        return false;
    return !atomic_load_explicit(&bell->ended, memory_order_acquire) ||
           bell->ender != PyThread_get_thread_ident(); /* D1 */
}

bool doorbell_has_ended(core_state *st)
{
    doorbell *bell = atomic_load_explicit(&st->bell, memory_order_acquire); /* D3 */
    return bell != NULL && atomic_load_explicit(&bell->ended, memory_order_acquire); /* D1 */
}

/* Under the lock. */
static void call_thread(doorbell *bell)
{
    if (!bell->called)
        PyThread_release_lock(bell->asleep);
    bell->called = true;
}

bool doorbell_ring(doorbell *bell, bell_entry *entry)
{
    nc_lock_enter(&bell->lock);
    bool answered = !atomic_load_explicit(&bell->ended, memory_order_relaxed); /* under the lock */
    if (answered && !entry->rung) {
        nc_box_ref(&entry->box->box);
        entry->rung = true;
        entry->next = NULL;
        *bell->last = entry;
        bell->last = &entry->next;
        call_thread(bell);
    }
    nc_lock_exit(&bell->lock);
    return answered;
}

/* ---- its thread --------------------------------------------------------------------------------------- */

/* Signals go to the program's own threads; one that waits in a call is to be interrupted. */
static void leave_signals_to_others(void)
{
#ifndef _WIN32
    static const int faults[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&set, faults[i]);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
#endif
}

/* Take the queue.  True if nobody can have rung since, nor will. */
static bool take_queue(doorbell *bell, bell_entry **queue)
{
    nc_lock_enter(&bell->lock);
    bell->called = false;
    *queue = bell->first;
    bell->first = NULL;
    bell->last = &bell->first;
    bool last = atomic_load_explicit(&bell->ended, memory_order_relaxed); /* under the lock */
    nc_lock_exit(&bell->lock);
    return last;
}

/* From here on the entry may be put into the queue again: as with B3, what is posted later is answered later. */
static bell_entry *leave_queue(doorbell *bell, bell_entry *entry)
{
    nc_lock_enter(&bell->lock);
    bell_entry *next = entry->next;
    entry->rung = false;
    nc_lock_exit(&bell->lock);
    return next;
}

/* Kick all boxes of the queue.  With the GIL; runs Python code. */
static void answer_all(doorbell *bell, bell_entry *entry)
{
    /* The module keeps the state, and a mailbox that is dropped might drop the module. */
    PyObject *module = bell->module != NULL ? core_weak_target(bell->module) : NULL;
    while (entry != NULL) {
        wake_box *b = entry->box;
        nc_box *kicks = NULL;
        entry = leave_queue(bell, entry);
        if (module != NULL) {
            core_state *st = PyModule_GetState(module);
            b->kind->kick(st, b, &kicks);
            wake_deliver(st, kicks);
        }
        wake_box_unref(&b->box);
    }
    Py_XDECREF(module);
}

enum { PAUSE = 10000 }; /* microseconds, until there is memory */

static void answer_with_gil(doorbell *bell, bell_entry *queue)
{
    PyThreadState *tstate;
    while ((tstate = core_new_thread_state(bell->interp)) == NULL)
        PyThread_acquire_lock_timed(bell->running, PAUSE, 0); /* taken: this is a sleep */
    PyEval_AcquireThread(tstate);
    answer_all(bell, queue);
    PyThreadState_Clear(tstate);
    PyThreadState_DeleteCurrent();
}

static void doorbell_thread(void *arg)
{
    doorbell *bell = arg;
    bell_entry *queue;
    bool last;
    leave_signals_to_others();
    do {
        PyThread_acquire_lock(bell->asleep, WAIT_LOCK);
        last = take_queue(bell, &queue);
        if (queue != NULL)
            answer_with_gil(bell, queue);
    } while (!last);
    PyThread_release_lock(bell->running); /* D2 */
    doorbell_unref(bell);
}

doorbell *doorbell_start(core_state *st)
{
    doorbell *bell = atomic_load_explicit(&st->bell, memory_order_acquire); /* D3 */
    if (bell == NULL || bell->born != core_generation())
        return NULL;
    nc_lock_enter(&bell->lock); /* nobody waits for the lock long: the new thread does not need it to begin */
    bool ended = atomic_load_explicit(&bell->ended, memory_order_relaxed); /* under the lock */
    if (!bell->started && !ended) {
        doorbell_ref(bell);
        PyThread_acquire_lock(bell->running, NOWAIT_LOCK);
        bell->thread = PyThread_start_new_thread(doorbell_thread, bell);
        bell->started = bell->thread != PYTHREAD_INVALID_THREAD_ID;
        if (!bell->started)
            PyThread_release_lock(bell->running);
    }
    bool runs = bell->started && !ended;
    nc_lock_exit(&bell->lock);
    return runs ? bell : NULL;
}

/* ---- its end: with the GIL ---------------------------------------------------------------------------- */

/* Nobody may ring any more, and the thread ends when all is answered.  True if there is one. */
static bool doorbell_end(doorbell *bell)
{
    nc_lock_enter(&bell->lock);
    if (!atomic_load_explicit(&bell->ended, memory_order_relaxed)) /* under the lock */
        bell->ender = PyThread_get_thread_ident();
    atomic_store_explicit(&bell->ended, true, memory_order_release); /* D1 */
    bool other = bell->started && bell->thread != PyThread_get_thread_ident();
    if (bell->started)
        call_thread(bell);
    nc_lock_exit(&bell->lock);
    return other;
}

/* End the thread and wait until it has ended, without the GIL, as it may be answering.  In a forked child there is no
 * such thread, and the lock may be held for ever. */
static void doorbell_end_and_wait(doorbell *bell)
{
    if (bell->born != core_generation() || !doorbell_end(bell))
        return;
    Py_BEGIN_ALLOW_THREADS;
    PyThread_acquire_lock(bell->running, WAIT_LOCK); /* D2 */
    PyThread_release_lock(bell->running);
    Py_END_ALLOW_THREADS;
}

#define CAPSULE "nexus_channels.doorbell"

/* What `atexit` calls; self is a capsule of the doorbell. */
static PyObject *doorbell_at_exit(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    doorbell_end_and_wait(PyCapsule_GetPointer(self, CAPSULE));
    Py_RETURN_NONE;
}

static PyMethodDef doorbell_at_exit_def = {"_end_doorbell", doorbell_at_exit, METH_NOARGS, NULL};

/* `atexit` has called it, or was cleared. */
static void doorbell_dropped_by_exit(PyObject *capsule)
{
    doorbell *bell = PyCapsule_GetPointer(capsule, CAPSULE);
    doorbell_end_and_wait(bell);
    Py_CLEAR(bell->module);
    doorbell_unref(bell);
}

void doorbell_leave(core_state *st)
{
    doorbell *bell = atomic_exchange_explicit(&st->bell, NULL, memory_order_acq_rel); /* D3 */
    if (bell == NULL)
        return;
    if (bell->born == core_generation())
        doorbell_end(bell);
    doorbell_unref(bell);
}

/* ---- its beginning: with the GIL ---------------------------------------------------------------------- */

static doorbell *doorbell_new(core_state *st)
{
    doorbell *bell = PyMem_RawCalloc(1, sizeof *bell);
    if (bell == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    nc_lock_init(&bell->lock);
    bell->last = &bell->first;
    bell->interp = PyInterpreterState_Get();
    bell->born = core_generation();
    atomic_store_explicit(&bell->refs, 1, memory_order_relaxed); /* nobody else knows it yet */
    bell->asleep = PyThread_allocate_lock();
    bell->running = PyThread_allocate_lock();
    if (bell->asleep == NULL || bell->running == NULL) {
        PyErr_NoMemory();
        doorbell_free(bell);
        return NULL;
    }
    PyThread_acquire_lock(bell->asleep, NOWAIT_LOCK);
    bell->module = PyWeakref_NewRef(st->module, NULL);
    if (bell->module == NULL) {
        doorbell_free(bell);
        return NULL;
    }
    return bell;
}

/* Have it ended with the interpreter.  From here on the capsule owns the weak reference. */
static int end_at_exit(core_state *st, doorbell *bell)
{
    PyObject *capsule = PyCapsule_New(bell, CAPSULE, doorbell_dropped_by_exit);
    if (capsule == NULL) {
        Py_CLEAR(bell->module);
        return -1;
    }
    doorbell_ref(bell);
    PyObject *end = PyCFunction_New(&doorbell_at_exit_def, capsule);
    PyObject *done = end != NULL ? PyObject_CallOneArg(st->atexit_register, end) : NULL;
    Py_DECREF(capsule);
    Py_XDECREF(end);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

int doorbell_prepare(core_state *st)
{
    doorbell *old = atomic_load_explicit(&st->bell, memory_order_acquire); /* D3 */
    if (old != NULL && old->born == core_generation())
        return 0;
    doorbell *bell = doorbell_new(st);
    if (bell == NULL)
        return -1;
    if (end_at_exit(st, bell) < 0) {
        doorbell_unref(bell);
        return -1;
    }
    if (!atomic_compare_exchange_strong_explicit(&st->bell, &old, bell, memory_order_acq_rel, /* D3 */
                                                 memory_order_relaxed))
        doorbell_unref(bell); /* another thread was quicker: this one is never rung */
    else if (old != NULL)
        doorbell_unref(old); /* the parent process's: its memory stays, as its thread is not here to let go of it */
    return 0;
}
