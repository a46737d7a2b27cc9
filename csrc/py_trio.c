/* py_trio.c: tasks of trio: the row of trio in the table of loops, and how an awaitable waits in such a task.  trio's
 * names are in nexus_channels/_trio.py, whose tools() is called with the program's trio when a task of trio first
 * awaits.
 *
 * Every await in a task of trio is a checkpoint.  So an awaitable asks first whether the task is cancelled, then sends
 * or takes, and then has other tasks run, without being cancelled any more: an item that was taken is not lost.  If it
 * has to wait, the wait is the checkpoint.  For each of these it drives a coroutine of trio's: the delegate.
 *
 *     CREATED --ASKS--> look --ready--> PASSES --> the result is given
 *                 ^       '---nothing--> WAITS --woken--> look, without PASSES
 *     a batch: YIELDS ----^                  '--cancelled--> leave the line, and raise
 *
 * What a task waits for is a Wait, which is at once the abort function that trio calls on cancellation:
 *
 *                            reschedule
 *               .-----------------------------> WOKEN          abort: FAILED, as the task goes on anyway
 *     NEW ---> PARKED
 *      |        '-----------------------------> ABORTED        wake: nothing to do
 *      |                      abort: SUCCEEDED
 *      '--wake, before the task has stopped: WOKEN, and it looks again instead of waiting
 *
 * Whichever comes first decides, so the task is rescheduled once.  Both happen on the thread of the run.
 */
#include "py_trio.h"
#include "py_inside.h"
#include "py_module.h"

enum {
    TOOL_MODULE,
    TOOL_LIBRARY,
    TOOL_IN_TASK,
    TOOL_TASK,
    TOOL_TOKEN,
    TOOL_RESCHEDULE,
    TOOL_ASK,
    TOOL_PASS,
    TOOL_YIELD,
    TOOL_WAIT,
    TOOL_WAIT_UNTIL,
    TOOL_DEADLINE,
    TOOL_SPAWN,
    TOOL_SOON,
    TOOL_FINISHED,
    TOOL_SUCCEEDED,
    TOOL_FAILED,
    TOOLS
};

/* ---- is it trio? -------------------------------------------------------------------------------------- */

/* With a GIL, most calls that are ready end without a look at anything but a counter (awaitable_at_once).  So while
 * trio is imported the counter is kept below zero. */
static void trio_expect(core_state *st, bool imported)
{
    atomic_store_explicit(&st->trio_found, imported, memory_order_relaxed); /* a hint, until a task of trio runs */
    atomic_store_explicit(&st->trio_stale, true, memory_order_relaxed);
    int bias = imported ? PACE_BIAS : 0;
    if (!NC_FREE_THREADED) {
        st->pace.left += st->pace.bias - bias;
        st->pace.bias = bias;
    }
}

bool trio_look(core_state *st)
{
    st->modules_seen = MODULES_VERSION(st);
    PyObject *trio = core_dict_find(st->modules, st->s_trio);
    bool imported = (trio != NULL && trio != Py_None) || (TRIO_WATCHED && st->modules_watcher < 0);
    Py_XDECREF(trio); /* not the last: sys.modules has one */
    if (imported != atomic_load_explicit(&st->trio_found, memory_order_relaxed))
        trio_expect(st, imported);
    else
        atomic_store_explicit(&st->trio_stale, true, memory_order_relaxed);
    return imported;
}

#if TRIO_WATCHED
/* The states of this module in all interpreters: a watcher of a dict is told nothing else. */
#ifdef _WIN32
static nc_lock all_lock = SRWLOCK_INIT;
#else
static nc_lock all_lock = PTHREAD_MUTEX_INITIALIZER;
#endif
static core_state *all;

/* CPython calls it before sys.modules changes; an error is not allowed, nor a change of the dict. */
static int modules_event(PyDict_WatchEvent event, PyObject *Py_UNUSED(dict), PyObject *key, PyObject *Py_UNUSED(value))
{
    bool whole = key == NULL; /* cleared, or filled at once */
    if (!whole && !(PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, "trio") == 0))
        return 0;
    PyInterpreterState *interpreter = PyInterpreterState_Get();
    nc_lock_enter(&all_lock);
    for (core_state *st = all; st != NULL; st = st->modules_next)
        if (st->modules_interpreter == interpreter && event != PyDict_EVENT_DEALLOCATED)
            trio_expect(st, true);
    nc_lock_exit(&all_lock);
    return 0;
}

static void modules_watch(core_state *st)
{
    st->modules_interpreter = PyInterpreterState_Get();
    st->modules_watcher = PyDict_AddWatcher(modules_event);
    if (st->modules_watcher >= 0 && PyDict_Watch(st->modules_watcher, st->modules) < 0) {
        PyDict_ClearWatcher(st->modules_watcher);
        st->modules_watcher = -1;
    }
    PyErr_Clear(); /* there are no watchers left: then trio is looked for at each call */
    nc_lock_enter(&all_lock);
    st->modules_next = all;
    all = st;
    nc_lock_exit(&all_lock);
}

static void modules_unwatch(core_state *st)
{
    nc_lock_enter(&all_lock);
    for (core_state **at = &all; *at != NULL; at = &(*at)->modules_next)
        if (*at == st) {
            *at = st->modules_next;
            break;
        }
    nc_lock_exit(&all_lock);
    if (st->modules_watcher >= 0 && PyDict_ClearWatcher(st->modules_watcher) < 0)
        PyErr_Clear();
    st->modules_watcher = -1;
}
#else
static void modules_watch(core_state *Py_UNUSED(st)) {}
static void modules_unwatch(core_state *Py_UNUSED(st)) {}
#endif

/* What trio has for us, borrowed; NULL without an exception if trio is not imported, or not yet as a whole.  Without a
 * GIL it is never made anew: another thread may be using it. */
static PyObject *trio_load(core_state *st, PyObject *before)
{
    PyObject *trio = core_dict_find(st->modules, st->s_trio), *make = NULL, *made = NULL;
    atomic_store_explicit(&st->trio_stale, false, memory_order_relaxed);
    if (trio == NULL || trio == Py_None) {
        Py_XDECREF(trio);
        trio_look(st);
        return NULL;
    }
    if (before == NULL || PyTuple_GET_ITEM(before, TOOL_MODULE) != trio) {
        if ((make = core_import("nexus_channels._trio", "tools")) != NULL)
            made = PyObject_CallOneArg(make, trio);
        Py_XDECREF(make);
        if (made == NULL || !PyTuple_Check(made) || PyTuple_GET_SIZE(made) != TOOLS) {
            Py_CLEAR(made);
            core_drop_error();
            atomic_store_explicit(&st->trio_stale, true, memory_order_relaxed);
        }
    } else
        made = Py_NewRef(before);
    Py_DECREF(trio);
    PyObject *old = before;
    if (made == NULL || made == before) {
        Py_XDECREF(made);
        return made;
    }
    if (!atomic_compare_exchange_strong_explicit(&st->trio_tools, &old, made, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        Py_DECREF(made);
        return old; /* another thread was quicker */
    }
    if (old != NULL && (st->trio_retired == NULL || PyList_Append(st->trio_retired, old) < 0))
        PyErr_Clear(); /* then it is never freed: somebody may be using it */
    else
        Py_XDECREF(old);
    return made;
}

static inline PyObject *trio_tools(core_state *st)
{
    PyObject *tools = atomic_load_explicit(&st->trio_tools, memory_order_acquire);
    bool stale = atomic_load_explicit(&st->trio_stale, memory_order_relaxed);
    return tools != NULL && (NC_FREE_THREADED || !stale) ? tools : trio_load(st, tools);
}

static inline PyObject *tool(core_state *st, int which)
{
    return PyTuple_GET_ITEM(atomic_load_explicit(&st->trio_tools, memory_order_acquire), which);
}

/* Is it a loop of asyncio?  Asked by each call while trio is imported, mostly of the same class as before. */
static bool is_loop(core_state *st, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    if ((PyObject *)type == st->loop_class)
        return true;
    bool is = PyType_IsSubtype(type, (PyTypeObject *)st->BaseEventLoop);
    if (is && !NC_FREE_THREADED)
        Py_XSETREF(st->loop_class, Py_NewRef(type));
    return is;
}

/* A run of trio sets its own hook for asynchronous generators in its thread, and a loop of asyncio sets a method of the
 * loop.  So asyncio's tasks are told at little cost, also those that run nested in a task of trio. */
static bool asyncio_has_thread(core_state *st)
{
    PyObject *hook = (st->insides & INSIDE_ASYNCGEN_HOOK) ? PyThreadState_Get()->async_gen_firstiter : Py_None;
    return hook == NULL || (PyMethod_Check(hook) && is_loop(st, PyMethod_GET_SELF(hook)));
}

bool trio_here(core_state *st)
{
    PyObject *tools = asyncio_has_thread(st) ? NULL : trio_tools(st);
    if (tools == NULL)
        return false;
    PyObject *library = PyTuple_GET_ITEM(tools, TOOL_LIBRARY), *answer = NULL;
    bool is = true;
    if (library != Py_None) {
        PyObject *name = PyObject_GetAttr(library, st->s_name);
        is = name == st->s_trio || (name != NULL && PyUnicode_Check(name) && PyUnicode_Compare(name, st->s_trio) == 0);
        Py_XDECREF(name);
    }
    if (is)
        answer = PyObject_CallNoArgs(PyTuple_GET_ITEM(tools, TOOL_IN_TASK));
    is = answer != NULL && answer != Py_None && answer != Py_False;
    Py_XDECREF(answer);
    core_drop_error();
    return is;
}

void *trio_running_task(core_state *st)
{
    PyObject *task = PyObject_CallNoArgs(tool(st, TOOL_TASK));
    if (task == NULL)
        core_drop_error();
    Py_XDECREF(task); /* not the last: it runs */
    return task;
}

/* ---- what a task waits for ------------------------------------------------------------------------------ */

typedef enum { NEW, WAIT_PARKED, WOKEN, ABORTED } wait_state;

typedef struct Wait {
    PyObject_HEAD
    PyObject *module; /* keeps `st` alive */
    core_state *st;
    PyObject *task;
    vectorcallfunc call; /* the abort function */
    _Atomic wait_state state; /* relaxed: written on the thread of the run */
} Wait;

static inline wait_state wait_state_of(Wait *w) { return atomic_load_explicit(&w->state, memory_order_relaxed); }

static inline void wait_set(Wait *w, wait_state state)
{
    atomic_store_explicit(&w->state, state, memory_order_relaxed);
}

/* trio cancels the task: "SUCCEEDED" means that trio reschedules it.  Cannot fail. */
static PyObject *wait_abort(PyObject *self, PyObject *const *Py_UNUSED(args), size_t Py_UNUSED(n),
                            PyObject *Py_UNUSED(names))
{
    Wait *w = (Wait *)self;
    bool woken = wait_state_of(w) == WOKEN;
    if (!woken)
        wait_set(w, ABORTED);
    return Py_NewRef(tool(w->st, woken ? TOOL_FAILED : TOOL_SUCCEEDED));
}

static PyObject *trio_future(core_state *st, PyObject *Py_UNUSED(loop), Mailbox *Py_UNUSED(m))
{
    PyObject *task = PyObject_CallNoArgs(tool(st, TOOL_TASK));
    Wait *w = task != NULL ? PyObject_GC_New(Wait, st->trio_wait_type) : NULL;
    if (w == NULL) {
        Py_XDECREF(task);
        return NULL;
    }
    w->module = Py_NewRef(st->module);
    w->st = st;
    w->task = task;
    w->call = wait_abort;
    wait_set(w, NEW);
    PyObject_GC_Track(w);
    return (PyObject *)w;
}

/* trio clears what a task keeps under that name when the task is rescheduled.  Keeps the current exception. */
static bool wait_sleeps(Wait *w)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *kept = PyObject_GetAttr(w->task, w->st->s_custom_sleep_data);
    if (kept == NULL)
        core_drop_error();
    Py_XDECREF(kept); /* not the last, if it is the one: the caller's */
    PyErr_Restore(type, value, traceback);
    return kept == (PyObject *)w;
}

/* A signal handler may raise before or after trio has put the task into its queue. */
static int trio_resolve(core_state *st, PyObject *future)
{
    Wait *w = (Wait *)future;
    wait_state state = wait_state_of(w);
    if (state == WOKEN || state == ABORTED)
        return 0;
    wait_set(w, WOKEN);
    if (state == NEW)
        return 0;
    interruptions kept = {0};
    PyObject *done = NULL;
    bool woken = false;
    while (!woken) {
        done = PyObject_CallOneArg(tool(st, TOOL_RESCHEDULE), w->task);
        bool interrupted = done == NULL && core_try_again(&kept);
        woken = done != NULL || !wait_sleeps(w);
        if (!woken && !interrupted)
            break;
    }
    Py_XDECREF(done);
    if (woken)
        PyErr_Clear();
    else
        wait_set(w, WAIT_PARKED);
    core_postpone_all(&kept);
    return woken ? 0 : -1;
}

bool trio_is_wait(core_state *st, PyObject *future) { return Py_IS_TYPE(future, st->trio_wait_type); }

static PyObject *wait_done(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(wait_state_of((Wait *)self) >= WOKEN);
}

static PyObject *wait_repr(PyObject *self)
{
    static const char *const states[] = {
        [NEW] = "new", [WAIT_PARKED] = "pending", [WOKEN] = "finished", [ABORTED] = "cancelled"};
    return PyUnicode_FromFormat("<%s %s at %p>", Py_TYPE(self)->tp_name, states[wait_state_of((Wait *)self)], self);
}

static int wait_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Wait *)self)->module);
    Py_VISIT(((Wait *)self)->task);
    return 0;
}

static int wait_clear(PyObject *self)
{
    PyObject *task = ((Wait *)self)->task;
    ((Wait *)self)->task = Py_NewRef(Py_None);
    Py_XDECREF(task);
    return 0;
}

static void wait_dealloc(PyObject *self)
{
    Wait *w = (Wait *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject *module = w->module;
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, wait_dealloc) /* the task may be the last that keeps another one */
    Py_XDECREF(w->task);
    PyObject_GC_Del(w);
    Py_DECREF(module); /* may be the last reference, and so free `st` */
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyMethodDef wait_methods[] = {{"done", wait_done, METH_NOARGS, NULL}, END_OF_METHODS};

static PyMemberDef wait_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Wait, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot wait_slots[] = {
    {Py_tp_dealloc, wait_dealloc},   {Py_tp_traverse, wait_traverse},
    {Py_tp_clear, wait_clear},       {Py_tp_repr, wait_repr},
    {Py_tp_methods, wait_methods},   {Py_tp_members, wait_members},
    {Py_tp_call, PyVectorcall_Call}, {0, NULL},
};

static PyType_Spec wait_spec = {
    .name = "nexus_channels._core.TrioWait",
    .basicsize = sizeof(Wait),
    .flags = CORE_TYPE_FLAGS | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = wait_slots,
};

/* ---- the row --------------------------------------------------------------------------------------------- */

/* The token of the run stands for the loop. */
static PyObject *trio_running(core_state *st)
{
    return trio_imported(st) && trio_here(st) ? PyObject_CallNoArgs(tool(st, TOOL_TOKEN)) : Py_NewRef(Py_None);
}

static bool trio_in_task(core_state *Py_UNUSED(st), PyObject *Py_UNUSED(loop))
{
    return true; /* else trio_running() would have said None */
}

/* While the run reads its wake fd it has not ended.  Else there is one way to know: to ask for a callback. */
static bool trio_closed(Mailbox *m, PyObject *loop)
{
    if (atomic_load_explicit(&m->box->wake_fd, memory_order_relaxed) >= 0) /* a hint: if it ends now, ask next time */
        return false;
    interruptions kept = {0};
    PyObject *finished;
    do
        finished = PyObject_CallOneArg(tool(m->st, TOOL_FINISHED), loop);
    while (finished == NULL && core_try_again(&kept));
    bool is = finished == Py_True;
    Py_XDECREF(finished);
    PyErr_Clear();
    core_postpone_all(&kept);
    return is;
}

static PyObject *trio_end(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    mailbox_read_no_more((Mailbox *)self);
    Py_RETURN_NONE;
}

static PyMethodDef trio_end_def = {"_end", trio_end, METH_NOARGS, NULL};

static PyObject *trio_read(Mailbox *m, PyObject *Py_UNUSED(loop), PyObject *fd, PyObject *reader)
{
    PyObject *end = PyCFunction_New(&trio_end_def, (PyObject *)m), *task = NULL;
    if (end != NULL)
        task = PyObject_CallFunctionObjArgs(tool(m->st, TOOL_SPAWN), fd, reader, end, NULL);
    Py_XDECREF(end);
    return task;
}

/* The system task ends once the reader says so; then, as at the end of a run, it is called once more. */
static PyObject *trio_watch(Mailbox *m, PyObject *Py_UNUSED(loop), PyObject *fd, PyObject *reader)
{
    return PyObject_CallFunctionObjArgs(tool(m->st, TOOL_SPAWN), fd, reader, reader, NULL);
}

static PyObject *trio_unwatch(Mailbox *Py_UNUSED(m), PyObject *Py_UNUSED(loop), PyObject *Py_UNUSED(fd))
{
    return Py_NewRef(Py_None);
}

static PyObject *trio_call_soon(core_state *st, PyObject *loop, PyObject *callback)
{
    return PyObject_CallFunctionObjArgs(tool(st, TOOL_SOON), loop, callback, NULL);
}

static PyObject *trio_timer(core_state *st, PyObject *Py_UNUSED(loop), double seconds, PyObject *Py_UNUSED(what))
{
    return PyObject_CallFunction(tool(st, TOOL_DEADLINE), "d", seconds);
}

const loop_kind trio_loops = {
    .box = MAILBOX_BOX,
    .running = trio_running,
    .in_task = trio_in_task,
    .closed = trio_closed,
    .read = trio_read,
    .watch = trio_watch,
    .unwatch = trio_unwatch,
    .call_soon = trio_call_soon,
    .resolve = trio_resolve,
    .future = trio_future,
    .timer = trio_timer,
};

/* ---- the delegate ----------------------------------------------------------------------------------------- */

bool delegate_enter(PyObject *owner, delegate *d, const char *who)
{
    bool busy;
    (void)owner; /* with a GIL nothing is locked */
    Py_BEGIN_CRITICAL_SECTION(owner);
    busy = d->driven;
    d->driven = true;
    Py_END_CRITICAL_SECTION();
    if (busy)
        PyErr_Format(PyExc_RuntimeError, "%s() is already being awaited", who);
    return !busy;
}

void delegate_leave(PyObject *owner, delegate *d)
{
    (void)owner;
    Py_BEGIN_CRITICAL_SECTION(owner);
    d->driven = false;
    Py_END_CRITICAL_SECTION();
}

/* The coroutine has ended, or failed with an exception. */
static int delegate_over(delegate *d, int s)
{
    if (d->stage == DELEGATE_WAITS) {
        Wait *w = (Wait *)d->held;
        if (wait_state_of(w) == WAIT_PARKED)
            wait_set(w, WOKEN); /* by a stranger: nobody else may reschedule the task */
        d->held = NULL;
        Py_DECREF(w); /* not the last: the awaitable's, or its sleeper's */
    }
    PyObject *coroutine = d->coroutine;
    d->coroutine = NULL;
    Py_DECREF(coroutine);
    if (s != STEP_ERROR || d->stage != DELEGATE_PASSES)
        return s;
    core_report_error(NULL); /* the result is there, and is not lost */
    return STEP_READY;
}

static int delegate_drive(delegate *d, PyObject *arg, PyObject **out)
{
    PySendResult sent = PyIter_Send(d->coroutine, arg, out);
    return sent == PYGEN_NEXT ? STEP_SLEEP : delegate_over(d, sent == PYGEN_RETURN ? STEP_READY : STEP_ERROR);
}

/* Steals the coroutine, which may be NULL with an exception set. */
static int delegate_begin(delegate *d, delegate_stage stage, PyObject *coroutine, PyObject **out)
{
    *out = NULL;
    d->stage = stage;
    if ((d->coroutine = coroutine) == NULL)
        return STEP_ERROR;
    int s = delegate_drive(d, Py_None, out);
    if (s == STEP_READY)
        Py_CLEAR(*out);
    return s;
}

int delegate_ask(core_state *st, delegate *d, PyObject **out)
{
    return delegate_begin(d, DELEGATE_ASKS, PyObject_CallNoArgs(tool(st, TOOL_ASK)), out);
}

int delegate_yield(core_state *st, delegate *d, PyObject **out)
{
    return delegate_begin(d, DELEGATE_YIELDS, PyObject_CallNoArgs(tool(st, TOOL_YIELD)), out);
}

int delegate_wait(core_state *st, delegate *d, PyObject *future, PyObject *timer, PyObject **out)
{
    Wait *w = (Wait *)future;
    *out = NULL;
    if (wait_state_of(w) != NEW)
        return STEP_READY;
    if (PyObject_SetAttr(w->task, st->s_custom_sleep_data, future) < 0)
        return STEP_ERROR;
    PyObject *coroutine = timer == NULL ? PyObject_CallOneArg(tool(st, TOOL_WAIT), future)
                                        : PyObject_CallFunctionObjArgs(tool(st, TOOL_WAIT_UNTIL), future, timer, NULL);
    if (coroutine == NULL)
        return STEP_ERROR;
    if (wait_state_of(w) != NEW) { /* other code ran meanwhile */
        PyObject *closed = PyObject_CallMethod(coroutine, "close", NULL);
        Py_XDECREF(closed);
        Py_DECREF(coroutine);
        return closed != NULL ? STEP_READY : STEP_ERROR;
    }
    wait_set(w, WAIT_PARKED);
    d->held = Py_NewRef(future);
    return delegate_begin(d, DELEGATE_WAITS, coroutine, out);
}

int delegate_pass(core_state *st, delegate *d, PyObject *result, bool failed, PyObject **out)
{
    d->held = result;
    d->error = failed ? core_take_error() : NULL;
    int s = delegate_begin(d, DELEGATE_PASSES, PyObject_CallNoArgs(tool(st, TOOL_PASS)), out);
    if (s != STEP_ERROR)
        return s;
    core_report_error(NULL); /* there was no coroutine to be had */
    return STEP_READY;
}

int delegate_resume(delegate *d, PyObject *arg, bool *expired, PyObject **out)
{
    int s = delegate_drive(d, arg, out);
    *expired = s == STEP_READY && d->stage == DELEGATE_WAITS && *out == Py_True;
    if (s == STEP_READY)
        Py_CLEAR(*out);
    return s;
}

int delegate_throw(delegate *d, PyObject *const *args, Py_ssize_t n, PyObject **out)
{
    PyObject *method = PyObject_GetAttrString(d->coroutine, "throw");
    *out = method != NULL ? PyObject_Vectorcall(method, args, (size_t)n, NULL) : NULL;
    Py_XDECREF(method);
    if (*out != NULL)
        return STEP_SLEEP;
    bool ended = PyErr_ExceptionMatches(PyExc_StopIteration);
    if (d->stage == DELEGATE_PASSES) /* whoever throws does not want the result */
        d->stage = DELEGATE_YIELDS;
    delegate_over(d, STEP_ERROR);
    if (ended)
        PyErr_Clear();
    return ended ? STEP_READY : STEP_ERROR;
}

int delegate_result(delegate *d, PyObject **out)
{
    PyObject *error = d->error;
    *out = d->held;
    d->held = d->error = NULL;
    d->stage = DELEGATE_NONE;
    if (error == NULL)
        return STEP_READY;
    core_give_error(error);
    return STEP_ERROR;
}

bool delegate_close(delegate *d)
{
    PyObject *coroutine = d->coroutine;
    if (coroutine == NULL)
        return true;
    PyObject *closed = PyObject_CallMethod(coroutine, "close", NULL), *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    delegate_clear(d);
    PyErr_Restore(type, value, traceback);
    Py_XDECREF(closed);
    return closed != NULL;
}

int delegate_traverse(delegate *d, visitproc visit, void *arg)
{
    Py_VISIT(d->coroutine);
    Py_VISIT(d->held);
    Py_VISIT(d->error);
    return 0;
}

void delegate_clear(delegate *d)
{
    PyObject *coroutine = d->coroutine, *held = d->held, *error = d->error;
    d->coroutine = d->held = d->error = NULL;
    d->stage = DELEGATE_NONE;
    Py_XDECREF(coroutine);
    Py_XDECREF(held);
    Py_XDECREF(error);
}

/* ---- module ----------------------------------------------------------------------------------------------- */

void trio_forget(core_state *st)
{
    modules_unwatch(st);
    Py_XDECREF(atomic_exchange_explicit(&st->trio_tools, NULL, memory_order_acq_rel));
}

int trio_add_types(PyObject *module, core_state *st)
{
    st->modules = Py_NewRef(PyImport_GetModuleDict());
    st->trio_retired = PyList_New(0);
    st->trio_wait_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &wait_spec, NULL);
    if (st->trio_wait_type == NULL || st->trio_retired == NULL)
        return -1;
    modules_watch(st);
    trio_look(st);
    return 0;
}
