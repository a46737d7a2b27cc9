/* py_coroutine.c: what makes a coroutine of an awaitable: send, throw, close, the attributes that inspect and debuggers
 * read, and the warning when an `await` was forgotten; and the types.
 */
#include "py_await.h"
#include "py_loop.h"

#include <frameobject.h>

/* ---- where it was made ------------------------------------------------------------------------------ */

/* The frames of the running code, at most `depth` of them: ((file, line, function), ...), innermost first; a new
 * reference, or NULL with an exception set. */
static PyObject *origin_here(int depth)
{
    PyFrameObject *frame = PyEval_GetFrame();
    PyObject *list = PyList_New(0);
    Py_XINCREF(frame);
    while (frame != NULL && list != NULL && PyList_GET_SIZE(list) < depth) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        PyObject *place = Py_BuildValue("(OiO)", code->co_filename, PyFrame_GetLineNumber(frame), code->co_name);
        if (place == NULL || PyList_Append(list, place) < 0)
            Py_CLEAR(list);
        Py_XDECREF(place);
        Py_DECREF(code);
        Py_SETREF(frame, PyFrame_GetBack(frame));
    }
    Py_XDECREF(frame);
    PyObject *origin = list != NULL ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return origin;
}

int origin_depth(core_state *st)
{
#if PY_VERSION_HEX >= 0x030D0000
    (void)st;
    return PyThreadState_GetUnchecked()->coroutine_origin_tracking_depth;
#else
    const PyThreadState *now = st->tstate != NULL ? *st->tstate : _PyThreadState_UncheckedGet();
    return now->coroutine_origin_tracking_depth;
#endif
}

PyObject *awaitable_with_origin(Awaitable *aw)
{
    int depth = origin_depth(aw->st);
    if (depth <= 0)
        return (PyObject *)aw;
    aw->worn = true;
    aw->origin = origin_here(depth);
    if (aw->origin != NULL)
        return (PyObject *)aw;
    aw->state = DONE; /* it was never handed out, so there is nothing to warn of */
    Py_DECREF(aw);
    return NULL;
}

/* ---- its methods ------------------------------------------------------------------------------------ */

void awaitable_raise_reused(Awaitable *aw)
{
    PyErr_Format(PyExc_RuntimeError, "cannot reuse already awaited %s()", aw->call.op->qualname);
}

PyObject *awaitable_send(PyObject *self, PyObject *arg)
{
    PyObject *out;
    switch (awaitable_am_send(self, arg, &out)) {
    case PYGEN_NEXT:
        return out;
    case PYGEN_RETURN:
        raise_stop_iteration(out);
        return NULL;
    default:
        return NULL;
    }
}

/* End the call early, unless it has ended; false with an exception set if a step of it is running. */
static bool awaitable_abort(Awaitable *aw, bool *was_done)
{
    nc_box *kicks = NULL;
    bool running;
    *was_done = true;
    Endpoint *ep = awaitable_endpoint(aw);
    if (ep == NULL)
        return true;
    Py_BEGIN_CRITICAL_SECTION2(aw, ep);
    running = aw->running;
    *was_done = aw->state == DONE;
    if (!running)
        awaitable_end(aw, &kicks);
    Py_END_CRITICAL_SECTION2();
    if (running) {
        PyErr_Format(PyExc_RuntimeError, "%s() is already being awaited", aw->call.op->qualname);
        Py_DECREF(ep);
        return false;
    }
    awaitable_release(aw);
    settle_soon(ep->chan, kicks);
    Py_DECREF(ep);
    return true;
}

/* throw(exception), or the older throw(type[, value[, traceback]]). */
PyObject *awaitable_throw(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Awaitable *aw = (Awaitable *)self;
    if (n < 1 || n > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes 1 to 3 arguments");
        return NULL;
    }
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
    bool was_done;
    if (!awaitable_abort((Awaitable *)self, &was_done))
        return NULL;
    Py_RETURN_NONE;
}

/* The timer went off: wake the task, which looks one last time if it was called meanwhile. */
PyObject *awaitable_expire(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Awaitable *aw = (Awaitable *)self;
    PyObject *future;
    Py_BEGIN_CRITICAL_SECTION(aw);
    if (aw->state != DONE)
        aw->expired = aw->worn = true;
    future = Py_XNewRef(aw->future);
    Py_END_CRITICAL_SECTION();
    if (future != NULL && !loop_wake(aw->st, future)) {
        nc_box *kicks = NULL;
        Py_BEGIN_CRITICAL_SECTION(aw);
        if (aw->sleeper != NULL)
            nc_box_post(&aw->sleeper->waiter, &kicks);
        Py_END_CRITICAL_SECTION();
        settle(aw->st, NULL, kicks);
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
    running = ((Awaitable *)self)->running;
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(running);
}

static PyObject *awaitable_cr_await(PyObject *self, void *Py_UNUSED(ignored))
{
    PyObject *future;
    Py_BEGIN_CRITICAL_SECTION(self);
    future = Py_NewRef(((Awaitable *)self)->future != NULL ? ((Awaitable *)self)->future : Py_None);
    Py_END_CRITICAL_SECTION();
    return future;
}

static PyObject *awaitable_cr_suspended(PyObject *self, void *Py_UNUSED(ignored))
{
    bool suspended;
    Py_BEGIN_CRITICAL_SECTION(self);
    Awaitable *aw = (Awaitable *)self;
    suspended = !aw->running && (aw->state == PAUSED || aw->state == PARKED);
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(suspended);
}

/* A frame, by which inspect.getcoroutinestate() tells whether a coroutine has ended.  An awaitable has no frame of its
 * own, so this makes one that shows its name. */
static PyObject *awaitable_cr_frame(PyObject *self, void *Py_UNUSED(ignored))
{
    if (awaitable_state(self) == DONE)
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

/* ---- its life --------------------------------------------------------------------------------------- */

int awaitable_traverse(PyObject *self, visitproc visit, void *arg)
{
    Awaitable *aw = (Awaitable *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(aw->call.ep);
    Py_VISIT(aw->call.value);
    Py_VISIT(aw->call.entered);
    Py_VISIT(aw->call.source);
    Py_VISIT(aw->call.failure);
    Py_VISIT(aw->future);
    Py_VISIT(aw->timer);
    if (aw->sleeper != NULL) {
        Py_VISIT(aw->sleeper->chan);
        if (nc_waiter_state_of(&aw->sleeper->waiter) == NC_OUTSIDE) /* else line_traverse() visits its future */
            Py_VISIT(atomic_load_explicit(&aw->sleeper->future, memory_order_relaxed));
    }
    return 0;
}

/* The awaitable is unreachable: leave the line, which breaks the cycle through it.  Its timer is garbage as well. */
int awaitable_clear(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    Endpoint *ep = awaitable_endpoint(aw);
    nc_box *kicks = NULL;
    Py_CLEAR(aw->call.entered);
    if (ep == NULL)
        return 0;
    Py_BEGIN_CRITICAL_SECTION2(aw, ep);
    awaitable_end(aw, &kicks);
    Py_END_CRITICAL_SECTION2();
    Py_CLEAR(aw->timer);
    awaitable_release(aw);
    settle_soon(ep->chan, kicks);
    Py_DECREF(ep);
    return 0;
}

/* Warn as for a coroutine: a forgotten `await` is a message that is not sent. */
void awaitable_finalize(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    PyObject *type, *value, *traceback, *name, *done = NULL;
    aw->worn = true; /* the collector may have come here first */
    if (aw->state != CREATED)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    name = PyUnicode_FromString("warnings");
    PyObject *warnings = name != NULL ? PyImport_GetModule(name) : NULL; /* NULL while the interpreter goes down */
    if (warnings != NULL)
        done = PyObject_CallMethod(warnings, "_warn_unawaited_coroutine", "O", self);
    if (done == NULL && (warnings == NULL || PyErr_ExceptionMatches(PyExc_AttributeError))) {
        PyErr_Clear();
        if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited", aw->call.op->qualname) == 0)
            done = Py_NewRef(Py_None);
    }
    if (done == NULL)
        core_report_error(self);
    Py_XDECREF(done);
    Py_XDECREF(warnings);
    Py_XDECREF(name);
    PyErr_Restore(type, value, traceback);
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
    st->tstate = inside_tstate();
    st->awaitable_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &awaitable_spec, NULL);
    return st->awaitable_type != NULL ? 0 : -1;
}
