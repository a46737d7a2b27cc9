/* py_future.c: what a waiting task waits on: a future as far as asyncio can tell.  Touches nothing of
 * channels.
 *
 * An asyncio.Future would do, and loops whose create_future() makes futures of another class are asked for those.  But
 * each asyncio.Future calls Python code to ask its loop for debug mode, and is made with a dict of arguments.  Together
 * this costs more than all the rest of a wait.  Our future holds no result, has no owner who might forget an error, and
 * lives from the start of a wait to its wake-up.  A few dead futures are kept, to be used again.
 *
 * Nor does our future lose a wake-up.  call_soon() runs Python code and may fail: memory runs out, the stack is too
 * deep, or a signal handler raises, before or after the loop has put the callback into its queue.  An asyncio.Future is
 * then done, and has forgotten whom to call.  Ours has the loop call the future itself, and keeps its callbacks until
 * the loop does so:
 *
 *                wake, cancel: call_soon(future)                          the loop calls it
 *     PENDING ------------------------------------> WOKEN, CANCELLED ----------------------------> its callbacks run
 *        ^          call_soon failed                      |                                         once
 *        '------------------------------------------------'
 *
 * So call_soon() may be tried again, however far it came.  A second call of the future finds nothing to do, and neither
 * does a call that comes while the future is PENDING again.
 *
 * A task asks a future that is not asyncio's for get_loop() and add_done_callback() by name.  Binding a method each
 * time would cost as much as the future.  So get_loop is a function that the loop's mailbox keeps, and
 * add_done_callback is the future itself, which can be called.
 */
#include "py_future.h"
#include "py_inside.h"
#include "py_module.h"

typedef enum { PENDING, WOKEN, CANCELLED } future_state;

typedef struct Future {
    PyObject_HEAD
    PyObject *module;             /* keeps `st` alive */
    core_state *st;
    PyObject *loop, *get_loop;
    PyObject *callback, *context; /* the first to be called: most have one */
    PyObject *more;               /* list of (callback, context) that are still to be called */
    PyObject *message;            /* the message of a cancellation, or NULL */
    vectorcallfunc call;          /* with arguments add_done_callback(), without any what the loop calls */
    _Atomic future_state state;   /* this and the next: relaxed; written on the loop's thread, read by others */
    _Atomic bool blocking;        /* _asyncio_future_blocking */
    bool called;                  /* `callback` was called; it is kept for asyncio's reports of what a loop ran */
    unsigned asked;               /* how often call_soon() was asked to have the future called */
} Future;

static inline future_state state_of(Future *f) { return atomic_load_explicit(&f->state, memory_order_relaxed); }

static inline void set_state(Future *f, future_state state)
{
    atomic_store_explicit(&f->state, state, memory_order_relaxed);
}

static inline bool is_blocking(Future *f) { return atomic_load_explicit(&f->blocking, memory_order_relaxed); }

static inline void set_blocking(Future *f, bool blocking)
{
    atomic_store_explicit(&f->blocking, blocking, memory_order_relaxed);
}

/* ---- making ------------------------------------------------------------------------------------------ */

static PyObject *future_call(PyObject *, PyObject *const *, size_t, PyObject *);

static Future *future_alloc(core_state *st)
{
    Future *f = spare_take(st, SPARE_FUTURES);
    if (f == NULL)
        return PyObject_GC_New(Future, st->future_type);
    Py_SET_REFCNT((PyObject *)f, 1);
    Py_SET_TYPE((PyObject *)f, (PyTypeObject *)Py_NewRef(st->future_type));
    return f;
}

void future_free_spares(core_state *st)
{
    for (Future *f; (f = spare_take(st, SPARE_FUTURES)) != NULL;)
        PyObject_GC_Del(f);
}

#ifdef Py_GIL_DISABLED
/* The tasks of several loops would write into one asyncio.Future at once: each is passed its own future. */
static bool woken_ready(core_state *Py_UNUSED(st)) { return true; }
#else
/* An asyncio.Future that is done, with a stand-in for its loop, as nobody will wait on it.  Made when the first task
 * waits, not with the module: in the first releases of 3.12, sub-interpreters cannot have asyncio's futures. */
static PyObject *woken_new(core_state *st)
{
    PyObject *namespace = core_import("types", "SimpleNamespace"), *loop = NULL, *woken = NULL, *done = NULL;
    PyObject *get_debug = namespace != NULL ? Py_BuildValue("{sO}", "get_debug", (PyObject *)&PyBool_Type) : NULL;
    PyObject *none = PyTuple_New(0);
    if (get_debug != NULL && none != NULL)
        loop = PyObject_Call(namespace, none, get_debug);
    if (loop != NULL)
        woken = PyObject_Vectorcall(st->Future, &loop, 0, st->loop_keyword);
    if (woken != NULL && (done = PyObject_CallMethod(woken, "set_result", "O", Py_None)) == NULL)
        Py_CLEAR(woken);
    Py_XDECREF(done);
    Py_XDECREF(loop);
    Py_XDECREF(none);
    Py_XDECREF(get_debug);
    Py_XDECREF(namespace);
    return woken;
}

static bool woken_ready(core_state *st)
{
    if (st->woken == NULL && (st->insides & INSIDE_DONE_FUTURE)) {
        PyObject *woken = woken_new(st);
        if (woken == NULL)
            return false;
        Py_XSETREF(st->woken, woken); /* making it ran Python code, which may have come here */
    }
    return true;
}
#endif

/* A new future, marked as a task wants it: as if it came from an `await`. */
PyObject *future_new(core_state *st, PyObject *loop, PyObject *get_loop)
{
    Future *f = woken_ready(st) ? future_alloc(st) : NULL;
    if (f == NULL)
        return NULL;
    f->module = Py_NewRef(st->module);
    f->st = st;
    f->loop = Py_NewRef(loop);
    f->get_loop = Py_NewRef(get_loop);
    f->callback = f->context = f->more = f->message = NULL;
    f->call = future_call;
    set_state(f, PENDING);
    set_blocking(f, true);
    f->called = false;
    f->asked = 0;
    PyObject_GC_Track(f);
    return (PyObject *)f;
}

/* ---- waking ------------------------------------------------------------------------------------------ */

/* The future that is passed to the callback.  A task only asks it whether it is done, and is quicker to ask an
 * asyncio.Future, so a task is passed one that is done, where there is one. */
static PyObject *future_for(Future *f, PyObject *callback)
{
    bool task = f->st->woken != NULL && state_of(f) == WOKEN && PyCFunction_CheckExact(callback) &&
                PyCFunction_GET_SELF(callback) != NULL &&
                Py_IS_TYPE(PyCFunction_GET_SELF(callback), (PyTypeObject *)f->st->Task);
    return task ? f->st->woken : (PyObject *)f;
}

/* call_soon(what[, argument], context=context); repeated as often as a signal handler interrupts it.  The loop may have
 * taken `what` each time. */
static int loop_call_soon(Future *f, PyObject *what, PyObject *argument, PyObject *context)
{
    PyObject *args[4] = {f->loop, what}, *handle;
    interruptions kept = {0};
    size_t n = 2;
    if (argument != NULL)
        args[n++] = argument;
    args[n] = context;
    do
        handle =
            PyObject_VectorcallMethod(f->st->s_call_soon, args, n, context != NULL ? f->st->context_keyword : NULL);
    while (handle == NULL && core_try_again(&kept));
    Py_XDECREF(handle);
    core_postpone_all(&kept);
    return handle != NULL ? 0 : -1;
}

static bool has_callbacks(Future *f) { return (f->callback != NULL && !f->called) || f->more != NULL; }

/* The future is done: have the loop call it, so that it calls its callbacks.  0, or -1 with an exception set; runs
 * Python code. */
static int future_schedule(Future *f)
{
    if (!has_callbacks(f))
        return 0;
    f->asked++;
    return loop_call_soon(f, (PyObject *)f, NULL, f->context);
}

/* PENDING becomes `state`, unless the loop does not take the future: then -1 with an exception set. */
static int future_finish(Future *f, future_state state)
{
    set_state(f, state);
    if (future_schedule(f) == 0)
        return 0;
    if (has_callbacks(f)) {
        set_state(f, PENDING);
        return -1;
    }
    core_report_error((PyObject *)f); /* the loop has called it on the spot, and then failed */
    return 0;
}

static int future_wake(PyObject *self)
{
    Future *f = (Future *)self;
    if (state_of(f) != PENDING)
        return 0; /* cancelled in the same tick: the cancellation leaves the line and hands the turn on */
    return future_finish(f, WOKEN);
}

/* Have all further callbacks called, each in its own context, first come first.  Those that the loop did not take are
 * tried again when the loop next calls the future.  False with an exception set. */
static bool future_pass_on(Future *f)
{
    while (f->more != NULL) {
        PyObject *more = Py_NewRef(f->more), *pair = Py_NewRef(PyList_GET_ITEM(more, 0));
        int failed = loop_call_soon(f, PyTuple_GET_ITEM(pair, 0), (PyObject *)f, PyTuple_GET_ITEM(pair, 1));
        if (!failed && f->more == more) {
            failed = PyList_SetSlice(more, 0, 1, NULL);
            if (PyList_GET_SIZE(more) == 0)
                Py_CLEAR(f->more);
        }
        Py_DECREF(pair);
        Py_DECREF(more);
        if (failed)
            return false;
    }
    return true;
}

/* The loop calls the future. */
static PyObject *future_deliver(Future *f)
{
    if (state_of(f) == PENDING) /* the call_soon() that led to this call has failed after all */
        Py_RETURN_NONE;
    PyObject *callback = f->callback, *result;
    if (callback != NULL && !f->called) {
        f->called = true;
        result = PyObject_CallOneArg(callback, future_for(f, callback));
    } else
        result = Py_NewRef(Py_None);
    if (f->more == NULL)
        return result;
    if (result == NULL)
        core_report_error((PyObject *)f);
    Py_XDECREF(result);
    return future_pass_on(f) ? Py_NewRef(Py_None) : NULL;
}

/* A future of a loop that makes its own. */
static int foreign_resolve(core_state *st, PyObject *future)
{
    PyObject *args[] = {future, Py_None};
    PyObject *done = PyObject_VectorcallMethod(st->s_set_result, args, 2, NULL);
    Py_XDECREF(done);
    if (done == NULL && PyErr_ExceptionMatches(st->invalid_state)) {
        PyErr_Clear(); /* cancelled in the same tick: the cancellation leaves the line and hands the turn on */
        return 0;
    }
    return done != NULL ? 0 : -1;
}

int future_resolve(core_state *st, PyObject *future)
{
    if (Py_IS_TYPE(future, st->future_type))
        return future_wake(future);
    interruptions kept = {0};
    int failed;
    do
        failed = foreign_resolve(st, future);
    while (failed && core_try_again(&kept));
    core_postpone_all(&kept);
    return failed;
}

/* ---- what asyncio asks ------------------------------------------------------------------------------- */

static int future_append(Future *f, PyObject *callback, PyObject *context)
{
    PyObject *pair = NULL;
    int failed = -1;
    if (f->more != NULL || (f->more = PyList_New(0)) != NULL)
        pair = PyTuple_Pack(2, callback, context);
    if (pair != NULL)
        failed = PyList_Append(f->more, pair);
    Py_XDECREF(pair);
    return failed;
}

/* Is "context" the only keyword?  Tasks pass the same tuple of names again and again, so it is remembered. */
static bool names_context(core_state *st, PyObject *kwnames)
{
    if (kwnames == st->context_names)
        return true;
    if (PyTuple_GET_SIZE(kwnames) != 1 || PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), st->s_context) != 0)
        return false;
    if (!NC_FREE_THREADED) /* else several threads would let go of the one before */
        Py_XSETREF(st->context_names, Py_NewRef(kwnames));
    return true;
}

/* add_done_callback(callback, *, context=None) */
static PyObject *future_add_done_callback(PyObject *self, PyObject *const *args, size_t nargs, PyObject *kwnames)
{
    Future *f = (Future *)self;
    if (PyVectorcall_NARGS(nargs) != 1 || (kwnames != NULL && !names_context(f->st, kwnames))) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback() takes a function and the keyword 'context'");
        return NULL;
    }
    PyObject *context = kwnames != NULL && args[1] != Py_None ? Py_NewRef(args[1]) : PyContext_CopyCurrent();
    if (context == NULL)
        return NULL;
    int failed = 0;
    if (state_of(f) != PENDING && !has_callbacks(f))
        failed = loop_call_soon(f, args[0], future_for(f, args[0]), context);
    else if (has_callbacks(f))
        failed = future_append(f, args[0], context);
    else {
        f->callback = Py_NewRef(args[0]);
        f->context = Py_NewRef(context);
    }
    Py_DECREF(context);
    return failed ? NULL : Py_NewRef(Py_None);
}

/* What a future does when it is called: see `call`. */
static PyObject *future_call(PyObject *self, PyObject *const *args, size_t nargs, PyObject *kwnames)
{
    if (PyVectorcall_NARGS(nargs) == 0 && kwnames == NULL && ((Future *)self)->asked > 0)
        return future_deliver((Future *)self);
    return future_add_done_callback(self, args, nargs, kwnames);
}

/* Move all callbacks into `more`; false with an exception set. */
static bool future_spread(Future *f)
{
    PyObject *list = PyList_New(0), *pair = NULL;
    bool ok = list != NULL;
    if (ok && f->callback != NULL && !f->called)
        ok = (pair = PyTuple_Pack(2, f->callback, f->context)) != NULL && PyList_Append(list, pair) == 0;
    if (ok && f->more != NULL)
        ok = PyList_SetSlice(list, PyList_GET_SIZE(list), PyList_GET_SIZE(list), f->more) == 0;
    Py_XDECREF(pair);
    if (!ok) {
        Py_XDECREF(list);
        return false;
    }
    PyObject *callback = f->callback, *context = f->context, *more = f->more;
    f->callback = f->context = NULL;
    f->more = list;
    Py_XDECREF(callback);
    Py_XDECREF(context);
    Py_XDECREF(more);
    return true;
}

/* remove_done_callback(callback): how many were removed.  Comparing runs Python code, which may call this, too. */
static PyObject *future_remove_done_callback(PyObject *self, PyObject *callback)
{
    Future *f = (Future *)self;
    if (!future_spread(f))
        return NULL;
    PyObject *all = Py_NewRef(f->more), *kept = PyList_New(0);
    Py_ssize_t removed = 0, n = PyList_GET_SIZE(all); /* what is added meanwhile stays */
    int same = kept != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; same >= 0 && i < PyList_GET_SIZE(all); i++) {
        PyObject *pair = Py_NewRef(PyList_GET_ITEM(all, i));
        same = i < n ? PyObject_RichCompareBool(PyTuple_GET_ITEM(pair, 0), callback, Py_EQ) : 0;
        removed += same > 0;
        if (same == 0)
            same = PyList_Append(kept, pair);
        Py_DECREF(pair);
    }
    if (same >= 0 && f->more == all && PyList_GET_SIZE(kept) > 0)
        Py_SETREF(f->more, Py_NewRef(kept));
    else if (same >= 0 && f->more == all)
        Py_CLEAR(f->more);
    Py_DECREF(all);
    Py_XDECREF(kept);
    return same < 0 ? NULL : PyLong_FromSsize_t(removed);
}

/* cancel(msg=None): false if it is done. */
static PyObject *future_cancel(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Future *f = (Future *)self;
    Py_ssize_t keywords = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    if (n + keywords > 1 || (keywords == 1 && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), f->st->s_msg) != 0)) {
        PyErr_SetString(PyExc_TypeError, "cancel() takes nothing but a message, 'msg'");
        return NULL;
    }
    if (state_of(f) != PENDING)
        Py_RETURN_FALSE;
    PyObject *message = n + keywords == 1 && args[0] != Py_None ? Py_NewRef(args[0]) : NULL;
    Py_XSETREF(f->message, message);
    return future_finish(f, CANCELLED) < 0 ? NULL : Py_NewRef(Py_True);
}

static PyObject *future_cancelled(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(state_of((Future *)self) == CANCELLED);
}

static PyObject *future_done(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(state_of((Future *)self) != PENDING);
}

/* None once it is done, as a future carries no value.  exception() gives the same. */
static PyObject *future_result(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Future *f = (Future *)self;
    if (state_of(f) == WOKEN)
        Py_RETURN_NONE;
    if (state_of(f) == PENDING) {
        PyErr_SetString(f->st->invalid_state, "Result is not set.");
        return NULL;
    }
    PyObject *error = PyObject_CallFunctionObjArgs(f->st->CancelledError, f->message, NULL);
    if (error != NULL)
        PyErr_SetObject(f->st->CancelledError, error);
    Py_XDECREF(error);
    return NULL;
}

/* set_result(None), as a stranger might. */
static PyObject *future_set_result(PyObject *self, PyObject *Py_UNUSED(result))
{
    Future *f = (Future *)self;
    if (state_of(f) != PENDING) {
        PyErr_SetString(f->st->invalid_state, "invalid state");
        return NULL;
    }
    return future_wake(self) < 0 ? NULL : Py_NewRef(Py_None);
}

/* The future itself is awaited: it is yielded once, and is done after that. */
static PyObject *future_next(PyObject *self)
{
    Future *f = (Future *)self;
    if (state_of(f) == PENDING) {
        set_blocking(f, true);
        return Py_NewRef(self);
    }
    Py_XDECREF(future_result(self, NULL));
    return NULL;
}

static PyObject *future_repr(PyObject *self)
{
    static const char *const states[] = {[PENDING] = "pending", [WOKEN] = "finished", [CANCELLED] = "cancelled"};
    Future *f = (Future *)self;
    return PyUnicode_FromFormat("<%s %s at %p>", Py_TYPE(self)->tp_name, states[state_of(f)], self);
}

static PyObject *future_get_loop(PyObject *self, void *Py_UNUSED(ignored))
{
    return Py_NewRef(((Future *)self)->get_loop);
}

static PyObject *future_self(PyObject *self, void *Py_UNUSED(ignored)) { return Py_NewRef(self); }

/* For asyncio's reports of slow callbacks: whose callback it is that the loop runs, usually a task's. */
static PyObject *future_bound_to(PyObject *self, void *Py_UNUSED(ignored))
{
    PyObject *callback = ((Future *)self)->callback;
    return callback != NULL ? PyObject_GetAttrString(callback, "__self__") : Py_NewRef(self);
}

static PyObject *future_get_blocking(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyBool_FromLong(is_blocking((Future *)self));
}

static int future_set_blocking(PyObject *self, PyObject *value, void *Py_UNUSED(ignored))
{
    if (value == NULL || !PyBool_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "_asyncio_future_blocking is True or False");
        return -1;
    }
    set_blocking((Future *)self, value == Py_True);
    return 0;
}

/* The three names that a task asks for each time are answered without a search through types.  Interned strings that
 * are equal are the same object. */
static PyObject *future_getattro(PyObject *self, PyObject *name)
{
    Future *f = (Future *)self;
    if (name == f->st->s_blocking)
        return PyBool_FromLong(is_blocking(f));
    if (name == f->st->s_get_loop)
        return Py_NewRef(f->get_loop);
    if (name == f->st->s_add_done_callback)
        return Py_NewRef(self);
    return PyObject_GenericGetAttr(self, name);
}

static int future_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    Future *f = (Future *)self;
    return name == f->st->s_blocking ? future_set_blocking(self, value, NULL)
                                     : PyObject_GenericSetAttr(self, name, value);
}

/* ---- the type ---------------------------------------------------------------------------------------- */

static int future_traverse(PyObject *self, visitproc visit, void *arg)
{
    Future *f = (Future *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(f->module);
    Py_VISIT(f->loop);
    Py_VISIT(f->get_loop);
    Py_VISIT(f->callback);
    Py_VISIT(f->context);
    Py_VISIT(f->more);
    Py_VISIT(f->message);
    return 0;
}

/* Does not clear the loop, which a future always has; whatever else is in a cycle with the loop lets go of it. */
static int future_clear(PyObject *self)
{
    Future *f = (Future *)self;
    Py_CLEAR(f->callback);
    Py_CLEAR(f->context);
    Py_CLEAR(f->more);
    Py_CLEAR(f->message);
    return 0;
}

static void future_dealloc(PyObject *self)
{
    Future *f = (Future *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject *module = f->module;
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, future_dealloc) /* a callback may belong to another future, and so on */
    Py_DECREF(f->loop);
    Py_DECREF(f->get_loop);
    Py_XDECREF(f->callback);
    Py_XDECREF(f->context);
    Py_XDECREF(f->more);
    Py_XDECREF(f->message);
    if (!spare_keep(f->st, SPARE_FUTURES, f))
        PyObject_GC_Del(f);
    Py_DECREF(module); /* may be the last reference, and so free `st` */
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyMethodDef future_methods[] = {
    {"remove_done_callback", future_remove_done_callback, METH_O, NULL},
    {"cancel", FAST(future_cancel), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"cancelled", future_cancelled, METH_NOARGS, NULL},
    {"done", future_done, METH_NOARGS, NULL},
    {"result", future_result, METH_NOARGS, NULL},
    {"exception", future_result, METH_NOARGS, NULL},
    {"set_result", future_set_result, METH_O, NULL},
    END_OF_METHODS,
};

static PyMemberDef future_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Future, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef future_getset[] = {
    {"get_loop", future_get_loop, NULL, NULL, NULL},
    {"add_done_callback", future_self, NULL, NULL, NULL},
    {"__self__", future_bound_to, NULL, NULL, NULL},
    {"_asyncio_future_blocking", future_get_blocking, future_set_blocking, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_dealloc, future_dealloc},   {Py_tp_traverse, future_traverse},
    {Py_tp_clear, future_clear},       {Py_tp_repr, future_repr},
    {Py_tp_call, PyVectorcall_Call},   {Py_am_await, PyObject_SelfIter},
    {Py_tp_iter, PyObject_SelfIter},   {Py_tp_iternext, future_next},
    {Py_tp_methods, future_methods},   {Py_tp_members, future_members},
    {Py_tp_getset, future_getset},     {Py_tp_getattro, future_getattro},
    {Py_tp_setattro, future_setattro}, {0, NULL},
};

static PyType_Spec future_spec = {
    .name = "nexus_channels._core.Future",
    .basicsize = sizeof(Future),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = future_slots,
};

int future_add_types(PyObject *module, core_state *st)
{
    st->future_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &future_spec, NULL);
    return st->future_type != NULL ? 0 : -1;
}
