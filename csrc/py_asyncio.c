/* py_asyncio.c: the event loops of asyncio, and other loops with the same interface: a row of the table in
 * py_mailbox.h. Only this file, py_running.c and py_future.c know asyncio; py_core.h and py_module.c have its names. */
#include "py_asyncio.h"
#include "py_future.h"
#include "py_running.h"

static bool asyncio_closed(Mailbox *m, PyObject *loop)
{
    interruptions kept = {0};
    int is;
    do {
        PyObject *closed = PyObject_CallMethodNoArgs(loop, m->st->s_is_closed);
        is = closed == NULL ? -1 : PyObject_IsTrue(closed);
        Py_XDECREF(closed);
    } while (is < 0 && core_try_again(&kept));
    PyErr_Clear();
    core_postpone_all(&kept);
    return is == 1;
}

/* Has the loop a create_future() of its own, written in Python?  It may then make futures of another class; those of
 * asyncio and uvloop make nothing but asyncio.Future.  -1 with an exception set. */
static int makes_futures(core_state *st, PyObject *loop)
{
    PyObject *its = PyObject_GetAttr(loop, st->s_create_future);
    if (its == NULL)
        return -1;
    PyObject *own = PyObject_GetAttr(st->BaseEventLoop, st->s_create_future);
    PyObject *function = PyMethod_Check(its) ? PyMethod_GET_FUNCTION(its) : its;
    int differs = own == NULL ? -1 : function != own && !PyCFunction_Check(function);
    Py_DECREF(its);
    Py_XDECREF(own);
    return differs;
}

/* get_loop() of our futures: self is a weak reference to the loop. */
static PyObject *mailbox_get_loop(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *loop = core_weak_target(self);
    return loop != NULL ? loop : Py_NewRef(Py_None);
}

static PyMethodDef mailbox_get_loop_def = {"get_loop", mailbox_get_loop, METH_NOARGS, NULL};

/* What a mailbox of asyncio has for the futures of its loop. */
static int asyncio_begin(Mailbox *m, PyObject *loop)
{
    m->get_loop = PyCFunction_New(&mailbox_get_loop_def, m->loop);
    int makes = m->get_loop != NULL ? makes_futures(m->st, loop) : -1;
    m->makes_futures = makes > 0;
    return makes < 0 ? -1 : 0;
}

static PyObject *asyncio_read(Mailbox *m, PyObject *loop, PyObject *fd, PyObject *reader)
{
    return PyObject_CallMethodObjArgs(loop, m->st->s_add_reader, fd, reader, NULL);
}

static PyObject *asyncio_unwatch(Mailbox *m, PyObject *loop, PyObject *fd)
{
    return PyObject_CallMethodOneArg(loop, m->st->s_remove_reader, fd);
}

static PyObject *asyncio_call_soon(core_state *st, PyObject *loop, PyObject *callback)
{
    return PyObject_CallMethodOneArg(loop, st->s_call_soon_threadsafe, callback);
}

static PyObject *asyncio_future(core_state *st, PyObject *loop, Mailbox *m)
{
    if (!m->makes_futures)
        return future_new(st, loop, m->get_loop);
    PyObject *future = PyObject_CallMethodNoArgs(loop, st->s_create_future);
    if (future == NULL)
        return NULL;
    if (Py_IS_TYPE(future, (PyTypeObject *)st->Future)) { /* an ordinary one after all: ours costs less */
        Py_DECREF(future);
        return future_new(st, loop, m->get_loop);
    }
    /* as a future's own __await__() does: a task takes only futures that are so marked */
    if (PyObject_SetAttr(future, st->s_blocking, Py_True) < 0)
        Py_CLEAR(future);
    return future;
}

static PyObject *asyncio_timer(core_state *st, PyObject *loop, double seconds, PyObject *what)
{
    PyObject *expire = PyObject_GetAttr(what, st->s_expire), *timer = NULL;
    PyObject *delay = expire != NULL ? PyFloat_FromDouble(seconds) : NULL;
    if (delay != NULL)
        timer = PyObject_CallMethodObjArgs(loop, st->s_call_later, delay, expire, NULL);
    Py_XDECREF(delay);
    Py_XDECREF(expire);
    return timer;
}

const loop_kind asyncio_loops = {
    .box = MAILBOX_BOX,
    .running = running_loop,
    .in_task = running_task_of,
    .closed = asyncio_closed,
    .begin = asyncio_begin,
    .read = asyncio_read,
    .watch = asyncio_read,
    .unwatch = asyncio_unwatch,
    .call_soon = asyncio_call_soon,
    .resolve = future_resolve,
    .future = asyncio_future,
    .timer = asyncio_timer,
};

bool asyncio_wanted(core_state *st)
{
    PyObject *loop = running_loop(st);
    bool wanted = true;
    if (loop != NULL && PyType_IsSubtype(Py_TYPE(loop), (PyTypeObject *)st->BaseEventLoop)) {
        Mailbox *m = mailbox_of(NULL, st, loop);
        bool mail =
            m != NULL && atomic_load_explicit(&m->box->base.box.mail, memory_order_relaxed) != NULL; /* a hint */
        wanted = mail || running_has_work(st, loop);
        Py_XDECREF(m);
    }
    core_drop_error();
    Py_XDECREF(loop);
    return wanted;
}
