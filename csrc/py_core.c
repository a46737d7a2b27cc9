/* py_core.c: the module nexus_channels._core: its state, its errors, its arguments. */
#include "py_core.h"

#include <frameobject.h>
#include <math.h>
#include <signal.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

/* ---- errors and arguments --------------------------------------------------------------------------- */

static const char *const error_names[ERRORS] = {
    [E_BUSY] = "BusyError",
    [E_CLAIM_DISCONNECTED] = "ClaimDisconnected",
    [E_CLAIM_FULL] = "ClaimFull",
    [E_CLAIM_RELEASED] = "ClaimReleased",
    [E_CLAIM_TIMEOUT] = "ClaimTimeout",
    [E_CLAIM_TOO_LARGE] = "ClaimTooLarge",
    [E_EMPTY] = "Empty",
    [E_ENDPOINT_CLOSED] = "EndpointClosed",
    [E_FULL] = "Full",
    [E_RECV] = "RecvError",
    [E_RECV_TIMEOUT] = "RecvTimeout",
    [E_SEND] = "SendError",
    [E_SEND_TIMEOUT] = "SendTimeout",
    [E_WRONG_THREAD] = "WrongThreadError",
    [E_ZERO_LENGTH] = "ZeroLengthClaim",
};

PyObject *core_raise(core_state *st, int which, PyObject *value, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    PyObject *message = PyUnicode_FromFormatV(format, args);
    va_end(args);
    PyObject *error = message != NULL ? PyObject_CallFunctionObjArgs(st->errors[which], message, value, NULL) : NULL;
    if (error != NULL)
        PyErr_SetObject(st->errors[which], error);
    Py_XDECREF(error);
    Py_XDECREF(message);
    return NULL;
}

bool core_parse_timeout(PyObject *arg, double *seconds)
{
    *seconds = -1;
    if (arg == Py_None)
        return true;
    double value = PyBool_Check(arg) ? -1 : PyFloat_AsDouble(arg);
    if (PyBool_Check(arg) || (value == -1 && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_TypeError))) {
        PyErr_Format(PyExc_TypeError, "timeout must be None or a number of seconds, not %.200s", Py_TYPE(arg)->tp_name);
        return false;
    }
    if (value == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) /* an int beyond all floats */
            return false;
        PyErr_Clear();
        int negative = PyObject_RichCompareBool(arg, Py_False, Py_LT);
        if (negative < 0)
            return false;
        value = negative ? -1 : INFINITY;
    }
    if (!(value >= 0)) { /* NaN too */
        PyErr_Format(PyExc_ValueError, "timeout must not be negative or NaN: %R", arg);
        return false;
    }
    if (!isinf(value))
        *seconds = value;
    return true;
}

bool core_parse_one_slow(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                         double *timeout)
{
    Py_ssize_t keywords = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    *timeout = -1;
    if (n == 1 && keywords == 0)
        return true;
    if (n == 2 && keywords == 0)
        return core_parse_timeout(args[1], timeout);
    if (n == 1 && keywords == 1 && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), st->s_timeout) == 0)
        return core_parse_timeout(args[1], timeout);
    PyErr_Format(PyExc_TypeError, "%s() takes one argument and a timeout", name);
    return false;
}

bool core_parse_none_slow(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                          double *timeout)
{
    Py_ssize_t keywords = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    *timeout = -1;
    if (n + keywords == 0)
        return true;
    if (n + keywords == 1 && (n == 1 || PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), st->s_timeout) == 0))
        return core_parse_timeout(args[0], timeout);
    PyErr_Format(PyExc_TypeError, "%s() takes nothing but a timeout", name);
    return false;
}

Py_ssize_t core_parse_count(PyObject *arg)
{
    if (PyBool_Check(arg) || !PyIndex_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "the number of items must be an int, not %.200s", Py_TYPE(arg)->tp_name);
        return 0;
    }
    Py_ssize_t n = PyNumber_AsSsize_t(arg, NULL);
    if (n == -1 && PyErr_Occurred())
        return 0;
    if (n < 1)
        PyErr_Format(PyExc_ValueError, "the number of items must be at least 1, not %S", arg);
    return n < 1 ? 0 : n;
}

/* ---- interruptions ---------------------------------------------------------------------------------- */

bool core_main_thread(void)
{
#ifdef __linux__
    static _Thread_local uint32_t asked; /* in which generation this thread last asked: a fork makes it main */
    static _Thread_local bool main;
    if (asked != core_generation() + 1) {
        asked = core_generation() + 1;
        main = syscall(SYS_gettid) == getpid();
    }
    return main;
#else
    return pthread_main_np() != 0;
#endif
}

bool core_handles_signals(void) { return core_main_thread() && PyInterpreterState_Get() == PyInterpreterState_Main(); }

/* The Python code that a callable runs, a new reference, or NULL without an exception. */
static PyObject *code_of(PyObject *callable)
{
    PyObject *code = NULL;
    Py_INCREF(callable);
    for (int depth = 0; callable != NULL && code == NULL && depth < 8; depth++) {
        PyObject *inner;
        if (PyFunction_Check(callable)) {
            code = Py_NewRef(PyFunction_GET_CODE(callable));
            break;
        }
        if (PyMethod_Check(callable))
            inner = Py_NewRef(PyMethod_GET_FUNCTION(callable));
        else if ((inner = PyObject_GetAttrString(callable, "func")) == NULL) { /* a functools.partial, or an instance */
            PyErr_Clear();
            inner = PyObject_GetAttrString((PyObject *)Py_TYPE(callable), "__call__");
        }
        Py_SETREF(callable, inner);
    }
    Py_XDECREF(callable);
    PyErr_Clear();
    return code;
}

/* Did a frame that runs this code let the exception pass?  `traceback` is where it came by. */
static bool came_by(PyObject *traceback, PyObject *code)
{
    for (PyTracebackObject *t = (PyTracebackObject *)traceback; t != NULL; t = t->tb_next) {
        PyCodeObject *its = PyFrame_GetCode(t->tb_frame);
        Py_DECREF(its); /* the frame keeps it */
        if ((PyObject *)its == code)
            return true;
    }
    return false;
}

/* Did a signal handler of the program raise what came by there? */
static bool raised_by_handler(PyObject *traceback)
{
    PyObject *signals = PyImport_ImportModule("_signal");
    bool found = false;
    for (int number = 1; signals != NULL && !found && number < NSIG; number++) {
        PyObject *handler = PyObject_CallMethod(signals, "getsignal", "i", number);
        PyObject *code = handler != NULL && PyCallable_Check(handler) ? code_of(handler) : NULL;
        found = code != NULL && came_by(traceback, code);
        Py_XDECREF(code);
        Py_XDECREF(handler);
        PyErr_Clear(); /* a number that is no signal here */
    }
    Py_XDECREF(signals);
    PyErr_Clear();
    return found;
}

bool core_interrupted(void)
{
    if (PyErr_Occurred() == NULL)
        return false;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) /* KeyboardInterrupt, SystemExit: no loop raises these by itself */
        return true;
    if (!core_handles_signals())
        return false;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    bool by_handler = traceback != NULL && raised_by_handler(traceback);
    PyErr_Restore(type, value, traceback);
    return by_handler;
}

PyObject *core_take_error(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

void core_give_error(PyObject *error)
{
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
}

/* Handed on and not raised yet.  Relaxed: written and read by the thread that handles signals. */
static _Atomic int postponed;

/* A pending call: CPython runs it in the main thread between two bytecodes.  Takes over the exception. */
static int raise_now(void *error)
{
    atomic_fetch_sub_explicit(&postponed, 1, memory_order_relaxed); /* this thread's own */
    core_give_error(error);
    return -1;
}

/* Takes over the exception. */
static void postpone(PyObject *error)
{
    if (!core_handles_signals()) { /* set in this thread by another, which had no more than the class to give either */
        PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), (PyObject *)Py_TYPE(error));
        Py_DECREF(error);
        return;
    }
    atomic_fetch_add_explicit(&postponed, 1, memory_order_relaxed); /* this thread's own */
    if (Py_AddPendingCall(raise_now, error) == 0)
        return;
    atomic_fetch_sub_explicit(&postponed, 1, memory_order_relaxed); /* this thread's own */
    core_give_error(error); /* too many wait to be raised already */
    PyErr_WriteUnraisable(NULL);
}

void core_postpone(void) { postpone(core_take_error()); }

bool core_try_again(interruptions *kept)
{
    if (kept->n == INTERRUPTIONS || !core_interrupted())
        return false;
    kept->of[kept->n++] = core_take_error();
    return true;
}

void core_postpone_all(interruptions *kept)
{
    PyObject *type, *value, *traceback;
    if (kept->n == 0)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    for (int i = 0; i < kept->n; i++)
        postpone(kept->of[i]);
    kept->n = 0;
    PyErr_Restore(type, value, traceback);
}

bool core_raise_postponed(void)
{
    if (atomic_load_explicit(&postponed, memory_order_relaxed) == 0 || !core_handles_signals()) /* its own, if any */
        return false;
    return Py_MakePendingCalls() < 0;
}

void core_drop_error(void)
{
    if (core_interrupted())
        core_postpone();
    else
        PyErr_Clear();
}

void core_report_error(PyObject *about)
{
    if (core_interrupted())
        core_postpone();
    else
        PyErr_WriteUnraisable(about);
}

/* ---- objects ---------------------------------------------------------------------------------------- */

/* Free-threaded CPython counts the references of an object's first thread apart, and a last one dropped
 * elsewhere waits for that thread to come by; but it may sleep in a call of ours, until just this object is
 * gone.  So such objects belong to no thread from the start. */
PyObject *core_new(PyTypeObject *type)
{
    PyObject *op = type->tp_alloc(type, 0);
#if NC_FREE_THREADED
    if (op != NULL) { /* nobody else knows it yet */
        op->ob_tid = 0;
        op->ob_ref_local = 0;
        op->ob_ref_shared = _Py_REF_SHARED(1, _Py_REF_MERGED);
    }
#endif
    return op;
}

PyTypeObject *core_add_type(PyObject *module, PyType_Spec *spec, const char *name)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddObjectRef(module, name, type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

/* ---- fork ------------------------------------------------------------------------------------------- */

_Atomic uint32_t core_forks; /* of the process, not of an interpreter */
static pthread_once_t watch_forks = PTHREAD_ONCE_INIT;

static void forked(void) { atomic_fetch_add_explicit(&core_forks, 1, memory_order_relaxed); /* alone after fork */ }

static void watch_forks_once(void) { pthread_atfork(NULL, NULL, forked); }

/* ---- module ----------------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZER "address"
#elif defined(__SANITIZE_THREAD__)
#define SANITIZER "thread"
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZER "address"
#elif __has_feature(thread_sanitizer)
#define SANITIZER "thread"
#endif
#endif
#ifndef SANITIZER
#define SANITIZER ""
#endif
#ifndef NC_BUILD_FLAGS
#define NC_BUILD_FLAGS ""
#endif

/* build_info(): how this module was built. */
static PyObject *build_info(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    _Atomic uint64_t word = 0;
#ifdef __linux__
    const char *wake = "eventfd";
#else
    const char *wake = "pipe";
#endif
#ifdef NDEBUG
    int debug = 0;
#else
    int debug = 1;
#endif
    return Py_BuildValue("{s:s,s:s,s:N,s:N,s:s,s:N,s:s,s:i}", "compiler", __VERSION__, "flags", NC_BUILD_FLAGS,
                         "atomics_lock_free", PyBool_FromLong(atomic_is_lock_free(&word)), "free_threaded",
                         PyBool_FromLong(NC_FREE_THREADED), "wake", wake, "debug", PyBool_FromLong(debug), "sanitizer",
                         SANITIZER, "cache_line", NC_CACHE_LINE);
}

PyObject *core_import(const char *module, const char *name)
{
    PyObject *m = PyImport_ImportModule(module);
    PyObject *attr = m != NULL ? PyObject_GetAttrString(m, name) : NULL;
    Py_XDECREF(m);
    return attr;
}

static int import_errors(core_state *st)
{
    for (int i = 0; i < ERRORS; i++)
        if ((st->errors[i] = core_import("nexus_channels.errors", error_names[i])) == NULL)
            return -1;
    return 0;
}

/* asyncio's dict of running tasks where there is one, else its function: either tells who runs on a loop. */
static PyObject *import_current_tasks(void)
{
    PyObject *tasks = core_import("_asyncio", "_current_tasks");
    if (tasks != NULL && PyDict_Check(tasks))
        return tasks;
    Py_XDECREF(tasks);
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_ImportError) && !PyErr_ExceptionMatches(PyExc_AttributeError))
        return NULL;
    PyErr_Clear();
    return core_import("asyncio", "current_task");
}

static int import_others(core_state *st)
{
    if ((st->Statistics = core_import("nexus_channels._types", "Statistics")) == NULL ||
        (st->OpenEnd = core_import("nexus_channels._types", "OpenEnd")) == NULL ||
        (st->get_running_loop = core_import("asyncio", "_get_running_loop")) == NULL ||
        (st->BaseEventLoop = core_import("asyncio", "BaseEventLoop")) == NULL ||
        (st->Future = core_import("asyncio", "Future")) == NULL ||
        (st->Future_set_result = PyObject_GetAttrString(st->Future, "set_result")) == NULL ||
        (st->Future_blocking = PyObject_GetAttrString(st->Future, "_asyncio_future_blocking")) == NULL ||
        (st->Task = core_import("asyncio", "Task")) == NULL ||
        (st->CancelledError = core_import("asyncio", "CancelledError")) == NULL ||
        (st->loop_keyword = Py_BuildValue("(s)", "loop")) == NULL ||
        (st->context_keyword = Py_BuildValue("(s)", "context")) == NULL ||
        (st->current_tasks = import_current_tasks()) == NULL ||
        (st->invalid_state = core_import("asyncio", "InvalidStateError")) == NULL ||
        (st->mailboxes = PyDict_New()) == NULL)
        return -1;
    return 0;
}

static int intern_names(core_state *st)
{
    struct {
        PyObject **where;
        const char *name;
    } names[] = {
        {&st->s_add_done_callback, "add_done_callback"},
        {&st->s_add_reader, "add_reader"},
        {&st->s_blocking, "_asyncio_future_blocking"},
        {&st->s_call_later, "call_later"},
        {&st->s_call_soon, "call_soon"},
        {&st->s_call_soon_threadsafe, "call_soon_threadsafe"},
        {&st->s_cancel, "cancel"},
        {&st->s_context, "context"},
        {&st->s_create_future, "create_future"},
        {&st->s_done, "done"},
        {&st->s_expire, "_expire"},
        {&st->s_get_loop, "get_loop"},
        {&st->s_is_closed, "is_closed"},
        {&st->s_msg, "msg"},
        {&st->s_ready, "_ready"},
        {&st->s_release, "release"},
        {&st->s_running, "__asyncio_running_event_loop__"},
        {&st->s_scheduled, "_scheduled"},
        {&st->s_set_result, "set_result"},
        {&st->s_time, "time"},
        {&st->s_timeout, "timeout"},
        {&st->s_when, "_when"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if ((*names[i].where = PyUnicode_InternFromString(names[i].name)) == NULL)
            return -1;
    return 0;
}

static int core_exec(PyObject *module)
{
    core_state *st = PyModule_GetState(module);
    st->module = module;
    ends_read_environment(st);
    pthread_once(&watch_forks, watch_forks_once);
    if (import_errors(st) < 0 || import_others(st) < 0 || intern_names(st) < 0 || chan_add_types(module, st) < 0 ||
        ring_add_types(module, st) < 0 || log_add_types(module, st) < 0 || claim_add_types(module, st) < 0 ||
        wake_add_types(module, st) < 0 || future_add_types(module, st) < 0 || wait_add_types(module, st) < 0 ||
        native_add_types(module, st) < 0)
        return -1;
    static const char *const kinds[KINDS] = {"LOCAL", "SPSC", "MPSC", "SPSC_BYTES", "MPSC_BYTES"};
    for (int kind = 0; kind < KINDS; kind++)
        if (PyModule_AddIntConstant(module, kinds[kind], kind) < 0)
            return -1;
    return 0;
}

/* Everything the state refers to, in turn. */
#define VISIT_STATE(st, VISIT)                                \
    do {                                                      \
        for (int i = 0; i < ERRORS; i++)                      \
            VISIT((st)->errors[i]);                           \
        for (int i = 0; i < KINDS * SIDES; i++)               \
            VISIT((st)->endpoint_type[i / SIDES][i % SIDES]); \
        VISIT((st)->Statistics);                              \
        VISIT((st)->OpenEnd);                                 \
        VISIT((st)->chan_type);                               \
        VISIT((st)->awaitable_type);                          \
        VISIT((st)->claim_awaitable_type);                    \
        VISIT((st)->claim_type[TX]);                          \
        VISIT((st)->claim_type[RX]);                          \
        VISIT((st)->claim_iterator_type);                     \
        VISIT((st)->native_type[TX]);                         \
        VISIT((st)->native_type[RX]);                         \
        VISIT((st)->future_type);                             \
        VISIT((st)->mailbox_type);                            \
        VISIT((st)->mailboxes);                               \
        VISIT((st)->recent);                                  \
        VISIT((st)->get_running_loop);                        \
        VISIT((st)->BaseEventLoop);                           \
        VISIT((st)->Future);                                  \
        VISIT((st)->Future_set_result);                       \
        VISIT((st)->Future_blocking);                         \
        VISIT((st)->Task);                                    \
        VISIT((st)->woken);                                   \
        VISIT((st)->CancelledError);                          \
        VISIT((st)->loop_keyword);                            \
        VISIT((st)->context_keyword);                         \
        VISIT((st)->context_names);                           \
        VISIT((st)->current_tasks);                           \
        VISIT((st)->invalid_state);                           \
    } while (0)

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    core_state *st = PyModule_GetState(module);
    if (st == NULL)
        return 0;
    VISIT_STATE(st, Py_VISIT);
    return wait_traverse_spares(st, visit, arg);
}

/* Only what can close a cycle through a user's objects: channels may outlive this and still need the rest,
 * which goes with the state itself. */
static int core_clear(PyObject *module)
{
    core_state *st = PyModule_GetState(module);
    if (st != NULL && st->mailboxes != NULL)
        PyDict_Clear(st->mailboxes);
    if (st != NULL) {
        Py_CLEAR(st->recent);
        wait_free_spares(st);
    }
    return 0;
}

static void core_free(void *module)
{
    core_state *st = PyModule_GetState(module); /* without one, CPython does not come here */
    wait_free_spares(st);
    wake_free_spares(st);
    future_free_spares(st);
    claim_free_spares(st);
    VISIT_STATE(st, Py_CLEAR);
    PyObject **names[] = {&st->s_add_done_callback,
                          &st->s_add_reader,
                          &st->s_blocking,
                          &st->s_call_later,
                          &st->s_call_soon,
                          &st->s_call_soon_threadsafe,
                          &st->s_cancel,
                          &st->s_context,
                          &st->s_create_future,
                          &st->s_done,
                          &st->s_expire,
                          &st->s_get_loop,
                          &st->s_is_closed,
                          &st->s_msg,
                          &st->s_ready,
                          &st->s_release,
                          &st->s_running,
                          &st->s_scheduled,
                          &st->s_set_result,
                          &st->s_time,
                          &st->s_timeout,
                          &st->s_when};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        Py_CLEAR(*names[i]);
}

static const char set_debug_ends_doc[] =
    "set_debug_ends($module, on, /)\n--\n\n"
    "Have endpoints remember where they are made, to find out what keeps a channel open; or stop that.\n\n"
    "Each endpoint, clone() and native() end made from now on is listed by open_ends() with the lines of the program "
    "that\n"
    "made it, and its repr() names the first of them.  Off at first, unless the environment says\n"
    "NEXUS_CHANNELS_DEBUG_ENDS=1 when the package is imported.  Safe from any thread.";

static PyMethodDef core_methods[] = {
    {"open", (PyCFunction)(void (*)(void))chan_open, METH_FASTCALL, "open(kind, capacity) -> (sender, receiver)"},
    {"set_debug_ends", ends_set_debug, METH_O, set_debug_ends_doc},
    {"build_info", build_info, METH_NOARGS, "How this module was built, as a dict."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef core_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "nexus_channels._core",
    .m_doc = "The channels themselves; use nexus_channels and its modules.",
    .m_size = sizeof(core_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
