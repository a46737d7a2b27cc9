/* py_loop.c: which kind of loop runs here, and what a wait wants of it.  Knows the rows of the table in py_mailbox.h,
 * and no loop itself. */
#include "py_loop.h"

#include "py_asyncio.h"
#include "py_future.h"
#include "py_module.h"
#include "py_running.h"
#include "py_trio.h"

/* trio first: its guest mode runs inside a callback of a loop of asyncio, which has no task then. */
static const loop_kind *loop_kind_here(core_state *st)
{
    return trio_imported(st) && trio_here(st) ? &trio_loops : &asyncio_loops;
}

/* "Receiver.recv" has recv_blocking(); of an iterator it is `for`. */
static void raise_no_loop(const char *who)
{
    const char *dot = strrchr(who, '.'), *name = dot != NULL ? dot + 1 : who;
    bool iterates = name[0] == '_';
    PyErr_Format(
        PyExc_RuntimeError,
        "%s() has to wait, and no event loop that it can wait on is running here: one of asyncio, one with the "
        "same interface, such as uvloop, or trio.  In a thread, use the blocking form, %s%s, which all channels but "
        "local "
        "ones have; in any other event loop, use try_ calls and a notifier() of the endpoint",
        who, iterates ? "a plain for loop" : name, iterates ? "" : "_blocking()");
}

PyObject *loop_here(core_state *st, const char *who, PyObject **mailbox)
{
    const loop_kind *kind = loop_kind_here(st);
    PyObject *loop = kind->running(st);
    Mailbox *m = loop != NULL && loop != Py_None ? mailbox_of(kind, st, loop) : NULL;
    if (m == NULL) {
        if (loop == Py_None)
            raise_no_loop(who);
        Py_XDECREF(loop);
        return NULL;
    }
    *mailbox = (PyObject *)m;
    return loop;
}

nc_box *mailbox_box(PyObject *mailbox) { return &((Mailbox *)mailbox)->box->base.box; }

PyObject *loop_future(core_state *st, PyObject *loop, PyObject *mailbox)
{
    return ((Mailbox *)mailbox)->kind->future(st, loop, (Mailbox *)mailbox);
}

PyObject *loop_timer(core_state *st, PyObject *loop, double seconds, PyObject *what)
{
    Mailbox *m = mailbox_of(NULL, st, loop); /* loop_here() has made it */
    const loop_kind *kind = m != NULL ? m->kind : &asyncio_loops;
    Py_XDECREF(m);
    return kind->timer(st, loop, seconds, what);
}

bool loop_wake(core_state *st, PyObject *future)
{
    if ((trio_is_wait(st, future) ? trio_loops.resolve : asyncio_loops.resolve)(st, future) == 0)
        return true;
    if (PyErr_ExceptionMatches(PyExc_MemoryError) || PyErr_ExceptionMatches(PyExc_RecursionError))
        PyErr_Clear();
    else
        PyErr_WriteUnraisable(future);
    return false;
}

bool loop_reach(core_state *st, PyObject *loop, nc_box *box, const char *who)
{
    return mailbox_reach(st, loop, box, who);
}

bool loop_share(nc_box *box) { return mailbox_share(box); }

bool loop_summon(Chan *c, nc_box *box, nc_box **kicks) { return mailbox_summon(c, box, kicks); }

void *loop_task(core_state *st)
{
    return trio_imported(st) && trio_here(st) ? trio_running_task(st) : running_task(st);
}

bool loop_wanted(core_state *st)
{
    return (trio_imported(st) && trio_here(st)) || asyncio_wanted(st); /* trio does not say */
}

int loop_add_types(PyObject *module, core_state *st)
{
    return mailbox_add_types(module, st) < 0 || trio_add_types(module, st) < 0 ? -1 : 0;
}
