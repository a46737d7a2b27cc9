/* py_trio.h: tasks of trio: the row of trio in the table of loops, and the delegate by which an awaitable waits in such
 * a task; see py_trio.c. */
#ifndef PY_TRIO_H
#define PY_TRIO_H

#include "py_mailbox.h"

extern const loop_kind trio_loops;

/* ---- is it trio? -------------------------------------------------------------------------------------- */

/* CPython 3.12 and later tell when a module is imported.  On 3.11 a dict has a version that changes whenever it does
 * (PEP 509); it is looked at when an awaitable is made. */
#define TRIO_WATCHED (PY_VERSION_HEX >= 0x030C0000)
#if TRIO_WATCHED
#define MODULES_VERSION(st) 0
#else
#define MODULES_VERSION(st) (((PyDictObject *)(st)->modules)->ma_version_tag)
#endif

/* The modules have changed, or they are not watched: look whether trio is one of them.  Runs no Python code. */
bool trio_look(core_state *st);
/* Have modules been imported since the last look? */
static inline bool trio_modules_changed(core_state *st)
{
    return !TRIO_WATCHED && MODULES_VERSION(st) != st->modules_seen;
}
/* May tasks of trio run in this interpreter?  No while trio is not imported. */
static inline bool trio_imported(core_state *st)
{
    return trio_modules_changed(st) ? trio_look(st) : atomic_load_explicit(&st->trio_found, memory_order_relaxed);
}
/* Does this thread run a task of trio?  Ask trio_imported() first.  Runs Python code; keeps no exception. */
bool trio_here(core_state *st);
/* That task: an address to be compared. */
void *trio_running_task(core_state *st);
/* Is a future one of trio's row? */
bool trio_is_wait(core_state *st, PyObject *future);
void trio_forget(core_state *st);

/* ---- the delegate --------------------------------------------------------------------------------------- */

/* While an awaitable waits in a task of trio it drives a coroutine of trio's own, and hands on what that yields.  It
 * belongs to an awaitable, which has all zeros in it at first, and visits and clears it by the last two functions. */
typedef enum { DELEGATE_NONE, DELEGATE_ASKS, DELEGATE_WAITS, DELEGATE_YIELDS, DELEGATE_PASSES } delegate_stage;
typedef struct delegate {
    PyObject *coroutine; /* of trio; NULL: the task is not suspended */
    PyObject *held; /* DELEGATE_PASSES: the result to give when it is over; NULL: None, or an error */
    PyObject *error; /* the same of the exception to raise */
    uint8_t stage; /* what the coroutine is for */
    bool driven; /* a step of it is running */
} delegate;

/* Begin a step, so that nobody else does; false with an exception set that says that `who` is being awaited. */
bool delegate_enter(PyObject *owner, delegate *d, const char *who);
void delegate_leave(PyObject *owner, delegate *d);
/* The next four return STEP_SLEEP with what the task is to yield in *out; STEP_READY if the coroutine has ended; or
 * STEP_ERROR.  They run Python code.
 *
 * Before the call does anything: is the task cancelled?  (checkpoint_if_cancelled) */
int delegate_ask(core_state *st, delegate *d, PyObject **out);
/* Wait for a future of loop_future(), no longer than loop_timer() says if `timer` is not NULL.  STEP_READY at once if
 * the future is done. */
int delegate_wait(core_state *st, delegate *d, PyObject *future, PyObject *timer, PyObject **out);
/* Have other tasks run, and be cancelled if this one is.  (checkpoint) */
int delegate_yield(core_state *st, delegate *d, PyObject **out);
/* The call has ended, with a result (stolen; NULL: None) or, if `failed`, with the current exception: have other tasks
 * run, and give that afterwards by delegate_result().  (cancel_shielded_checkpoint) */
int delegate_pass(core_state *st, delegate *d, PyObject *result, bool failed, PyObject **out);
/* The task goes on with what trio sent; `expired` is true if that was the end of the time.  An exception that comes
 * while a result is held is postponed. */
int delegate_resume(delegate *d, PyObject *arg, bool *expired, PyObject **out);
/* The same with an exception that is thrown into the task, as `throw()` takes it. */
int delegate_throw(delegate *d, PyObject *const *args, Py_ssize_t n, PyObject **out);
/* STEP_READY with what was held in *out, or STEP_ERROR. */
int delegate_result(delegate *d, PyObject **out);
/* End the coroutine, as close() does: false with an exception set if that raised. */
bool delegate_close(delegate *d);
static inline bool delegate_suspended(const delegate *d) { return d->coroutine != NULL; }
int delegate_traverse(delegate *d, visitproc visit, void *arg);
void delegate_clear(delegate *d);

#endif
