/* py_coroutine.c: what makes a coroutine of an awaitable: send, throw, close, the attributes that inspect and debuggers
 * read, and the warning when an `await` was forgotten; and the types.
 */
#include "py_coroutine.h"
#include "py_line.h"
#include "py_loop.h"
#include "py_module.h"
#include "py_stop.h"

#include <frameobject.h>

/* ---- its methods ------------------------------------------------------------------------------------ */

PyObject *awaitable_send(PyObject *self, PyObject *arg)
{
    PyObject *out;
    switch (awaitable_am_send(self, arg, &out)) {
    case PYGEN_NEXT:
        return out;
    case PYGEN_RETURN:
        stop_raise(out);
        return NULL;
    default:
        return NULL;
    }
}

/* The task waits by a coroutine of trio, which is to have the exception; nearly always that ends the call. */
static PyObject *awaitable_throw_into_trio(Awaitable *aw, PyObject *const *args, Py_ssize_t n)
{
    PyObject *out = NULL;
    bool was_done;
    if (!delegate_enter((PyObject *)aw, &aw->trio, aw->call.op->qualname))
        return NULL;
    int s = delegate_suspended(&aw->trio) ? delegate_throw(&aw->trio, args, n, &out) : STEP_READY;
    if (s != STEP_SLEEP)
        delegate_clear(&aw->trio);
    delegate_leave((PyObject *)aw, &aw->trio);
    if (s == STEP_SLEEP)
        return out;
    PyObject *error = s == STEP_ERROR ? core_take_error() : NULL;
    bool aborted = awaitable_abort(aw, &was_done);
    if (error != NULL) {
        PyErr_Clear();
        core_give_error(error);
    } else if (aborted)
        awaitable_raise_reused(aw);
    return NULL;
}

/* throw(exception), or the older throw(type[, value[, traceback]]). */
PyObject *awaitable_throw(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Awaitable *aw = (Awaitable *)self;
    if (n < 1 || n > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes 1 to 3 arguments");
        return NULL;
    }
    if (delegate_suspended(&aw->trio))
        return awaitable_throw_into_trio(aw, args, n);
    PyObject *type = args[0], *value = n > 1 ? args[1] : NULL, *traceback = n > 2 ? args[2] : NULL;
    if (traceback == Py_None)
        traceback = NULL;
    if (PyExceptionInstance_Check(type)) {
        value = type;
        type = (PyObject *)Py_TYPE(type);
        if (traceback == NULL)
            traceback = PyException_GetTraceback(value);
        else
            Py_INCREF(traceback);
    } else if (PyExceptionClass_Check(type) && (traceback == NULL || PyTraceBack_Check(traceback)))
        Py_XINCREF(traceback);
    else {
        PyErr_Format(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException, not %.200s",
                     Py_TYPE(type)->tp_name);
        return NULL;
    }
    bool was_done;
    if (!awaitable_abort(aw, &was_done) || was_done) {
        Py_XDECREF(traceback);
        if (was_done)
            awaitable_raise_reused(aw);
        return NULL;
    }
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), traceback);
    return NULL;
}

PyObject *awaitable_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Awaitable *aw = (Awaitable *)self;
    bool was_done, closed;
    if (!delegate_enter(self, &aw->trio, aw->call.op->qualname))
        return NULL;
    closed = delegate_close(&aw->trio);
    delegate_leave(self, &aw->trio);
    PyObject *error = closed ? NULL : core_take_error();
    bool aborted = awaitable_abort(aw, &was_done);
    if (error == NULL)
        return aborted ? Py_NewRef(Py_None) : NULL;
    PyErr_Clear();
    core_give_error(error);
    return NULL;
}

/* The timer went off: wake the task, which looks one last time if it was called meanwhile. */
PyObject *awaitable_expire(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Awaitable *aw = (Awaitable *)self;
    PyObject *future;
    Py_BEGIN_CRITICAL_SECTION(aw);
    if (aw->state != DONE)
        aw->expired = aw->dirty = true;
    future = Py_XNewRef(aw->future);
    Py_END_CRITICAL_SECTION();
    if (future != NULL && !loop_wake(aw->st, future)) {
        nc_box *kicks = NULL;
        Py_BEGIN_CRITICAL_SECTION(aw);
        if (aw->call.op->lines != NULL)
            aw->call.op->lines->post(aw, &kicks);
        else if (aw->sleeper != NULL)
            nc_box_post(&aw->sleeper->waiter, &kicks);
        Py_END_CRITICAL_SECTION();
        wake_deliver(aw->st, kicks);
    }
    Py_XDECREF(future);
    Py_RETURN_NONE;
}

PyObject *awaitable_repr(PyObject *self)
{
    static const char *const states[] = {
        [CREATED] = "created", [PAUSED] = "waiting", [BEGUN] = "running", [PARKED] = "waiting", [DONE] = "done"};
    Awaitable *aw = (Awaitable *)self;
    return PyUnicode_FromFormat("<%s() %s at %p>", aw->call.op->qualname, states[awaitable_state(self)], self);
}

static PyObject *awaitable_name(PyObject *self, void *qualified)
{
    const call_op *op = ((Awaitable *)self)->call.op;
    return PyUnicode_FromString(qualified ? op->qualname : op->name);
}

static PyObject *awaitable_cr_running(PyObject *self, void *Py_UNUSED(ignored))
{
    bool running;
    Py_BEGIN_CRITICAL_SECTION(self);
    running = ((Awaitable *)self)->running || ((Awaitable *)self)->trio.driven;
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(running);
}

static PyObject *awaitable_cr_await(PyObject *self, void *Py_UNUSED(ignored))
{
    PyObject *future;
    Py_BEGIN_CRITICAL_SECTION(self);
    Awaitable *aw = (Awaitable *)self;
    future = Py_NewRef(delegate_suspended(&aw->trio) ? aw->trio.coroutine : aw->future != NULL ? aw->future : Py_None);
    Py_END_CRITICAL_SECTION();
    return future;
}

static PyObject *awaitable_cr_suspended(PyObject *self, void *Py_UNUSED(ignored))
{
    bool suspended;
    Py_BEGIN_CRITICAL_SECTION(self);
    Awaitable *aw = (Awaitable *)self;
    suspended = !aw->running && !aw->trio.driven &&
                (aw->state == PAUSED || aw->state == PARKED || delegate_suspended(&aw->trio));
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(suspended);
}

/* A frame, by which inspect.getcoroutinestate() tells whether a coroutine has ended.  An awaitable has no frame of its
 * own, so this makes one that shows its name. */
static PyObject *awaitable_cr_frame(PyObject *self, void *Py_UNUSED(ignored))
{
    if (awaitable_state(self) == DONE && !delegate_suspended(&((Awaitable *)self)->trio))
        Py_RETURN_NONE;
    PyCodeObject *code = PyCode_NewEmpty("nexus_channels", ((Awaitable *)self)->call.op->name, 1);
    PyObject *globals = code != NULL ? PyDict_New() : NULL, *frame = NULL;
    if (globals != NULL)
        frame = (PyObject *)PyFrame_New(PyThreadState_Get(), code, globals, NULL);
    Py_XDECREF(code);
    Py_XDECREF(globals);
    return frame;
}

static PyObject *awaitable_cr_origin(PyObject *self, void *Py_UNUSED(ignored))
{
    PyObject *origin = ((Awaitable *)self)->origin; /* set when it was made */
    return Py_NewRef(origin != NULL ? origin : Py_None);
}

/* ---- the types -------------------------------------------------------------------------------------- */

static PyMethodDef awaitable_methods[] = {AWAITABLE_METHODS, END_OF_METHODS};

PyGetSetDef awaitable_getset[] = {
    {"__name__", awaitable_name, NULL, NULL, NULL},         {"__qualname__", awaitable_name, NULL, NULL, (void *)1},
    {"cr_running", awaitable_cr_running, NULL, NULL, NULL}, {"cr_await", awaitable_cr_await, NULL, NULL, NULL},
    {"cr_frame", awaitable_cr_frame, NULL, NULL, NULL},     {"cr_suspended", awaitable_cr_suspended, NULL, NULL, NULL},
    {"cr_origin", awaitable_cr_origin, NULL, NULL, NULL},   {NULL, NULL, NULL, NULL, NULL},
};

PyMemberDef awaitable_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Awaitable, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot awaitable_slots[] = {AWAITABLE_SLOTS, {Py_tp_methods, awaitable_methods}, {0, NULL}};

static PyType_Spec awaitable_spec = {
    .name = "nexus_channels._core.Awaitable",
    .basicsize = sizeof(Awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = awaitable_slots,
};

/* ---- module ----------------------------------------------------------------------------------------- */

int await_add_types(PyObject *module, core_state *st)
{
    st->spares_most = NC_SPARES;
    st->awaitable_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &awaitable_spec, NULL);
    return st->awaitable_type != NULL ? 0 : -1;
}
