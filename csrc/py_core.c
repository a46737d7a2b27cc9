/* py_core.c: what every file of the binding uses: errors, arguments, exceptions of signal handlers, forks.  Touches
 * nothing but CPython. */
#include "py_core.h"

#include <frameobject.h>
#include <math.h>
#include <signal.h>
#if NC_LINUX
#include <sys/syscall.h>
#endif

/* ---- errors and arguments --------------------------------------------------------------------------- */

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
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) /* an int too large for a float */
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

bool core_parse_one_slowly(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
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

bool core_parse_none_slowly(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
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

#if NC_LINUX
bool core_main_thread(void)
{
    static _Thread_local uint32_t asked; /* the generation when this thread last asked, + 1: a fork makes it main */
    static _Thread_local bool main;
    if (asked != core_generation() + 1) {
        asked = core_generation() + 1;
        main = syscall(SYS_gettid) == getpid();
    }
    return main;
}

static int know_main_thread(void) { return 0; }
static void be_main_thread(void) {}
#else
static _Atomic unsigned long main_thread; /* of the process; 0: not known yet.  Relaxed: it changes in a fork alone */

bool core_main_thread(void) { return atomic_load_explicit(&main_thread, memory_order_relaxed) == this_thread(); }

#ifndef _WIN32
static void be_main_thread(void) { atomic_store_explicit(&main_thread, this_thread(), memory_order_relaxed); }
#endif

/* Other interpreters may take whichever thread came first for the main one. */
static int know_main_thread(void)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main())
        return 0;
    PyObject *function = core_import("threading", "main_thread");
    PyObject *thread = function != NULL ? PyObject_CallNoArgs(function) : NULL;
    PyObject *ident = thread != NULL ? PyObject_GetAttrString(thread, "ident") : NULL;
    unsigned long value = ident != NULL ? PyLong_AsUnsignedLong(ident) : 0;
    Py_XDECREF(function);
    Py_XDECREF(thread);
    Py_XDECREF(ident);
    if (PyErr_Occurred())
        return -1;
    atomic_store_explicit(&main_thread, value, memory_order_relaxed);
    return 0;
}
#endif

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

/* Did the exception pass through a frame that runs this code?  `traceback` is the exception's. */
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

/* Did a signal handler of the program raise the exception with this traceback? */
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
        PyErr_Clear(); /* the number is no signal on this system */
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

/* How many exceptions were postponed and not raised yet.  Relaxed: only the thread that handles signals uses it. */
static _Atomic int postponed;

/* A pending call: CPython runs it in the main thread between two bytecodes.  Steals the exception. */
static int raise_now(void *error)
{
    atomic_fetch_sub_explicit(&postponed, 1, memory_order_relaxed); /* this thread's own */
    core_give_error(error);
    return -1;
}

/* Have the exception raised a little later, between two bytecodes.  Steals it. */
static void postpone(PyObject *error)
{
    if (!core_handles_signals()) { /* it came by PyThreadState_SetAsyncExc(), which takes a class, too */
        PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), (PyObject *)Py_TYPE(error));
        Py_DECREF(error);
        return;
    }
    atomic_fetch_add_explicit(&postponed, 1, memory_order_relaxed); /* this thread's own */
    if (Py_AddPendingCall(raise_now, error) == 0)
        return;
    atomic_fetch_sub_explicit(&postponed, 1, memory_order_relaxed); /* this thread's own */
    core_give_error(error); /* there are too many pending calls */
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

/* Free-threaded CPython counts the references of an object's first thread apart.  If another thread drops the
 * last reference, the object is freed only when the first thread comes by.  But that thread may be asleep in
 * a call of ours until this very object is gone.  So such objects belong to no thread from the start. */
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

PyObject *core_import(const char *module, const char *name)
{
    PyObject *m = PyImport_ImportModule(module);
    PyObject *attr = m != NULL ? PyObject_GetAttrString(m, name) : NULL;
    Py_XDECREF(m);
    return attr;
}

PyObject *core_tuple_without(PyObject *all, PyObject *item)
{
    Py_ssize_t n = PyTuple_GET_SIZE(all), at = 0;
    while (at < n && PyTuple_GET_ITEM(all, at) != item)
        at++;
    PyObject *rest = at < n ? PyTuple_New(n - 1) : NULL;
    for (Py_ssize_t i = 0; rest != NULL && i < n - 1; i++)
        PyTuple_SET_ITEM(rest, i, Py_NewRef(PyTuple_GET_ITEM(all, i + (i >= at))));
    return rest;
}

PyTypeObject *core_add_type(PyObject *module, PyType_Spec *spec, const char *name)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddObjectRef(module, name, type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

uint64_t core_number(void)
{
    static _Atomic uint64_t given; /* relaxed: the numbers differ, and publish nothing */
    return atomic_fetch_add_explicit(&given, 1, memory_order_relaxed) + 1;
}

/* ---- fork ------------------------------------------------------------------------------------------- */

_Atomic uint32_t core_forks; /* of the process, not of an interpreter */
#ifdef _WIN32
int core_watch_process(void) { return know_main_thread(); }
PyThreadState *core_new_thread_state(PyInterpreterState *interp) { return PyThreadState_New(interp); }
#else
static pthread_once_t watch_forks = PTHREAD_ONCE_INIT;

/* Up to CPython 3.11.9 a child hangs if another thread was making a thread state at the fork: that thread holds a lock
 * of CPython's, and the child waits for it (gh-112275).  So a fork waits until the thread state is made. */
static nc_lock making = PTHREAD_MUTEX_INITIALIZER;
enum { FORKS_WAIT = PY_VERSION_HEX < 0x030C0000 }; /* 3.13 takes its lock before it forks: to wait then would hang */

PyThreadState *core_new_thread_state(PyInterpreterState *interp)
{
    if (!FORKS_WAIT)
        return PyThreadState_New(interp);
    nc_lock_enter(&making);
    PyThreadState *made = PyThreadState_New(interp);
    nc_lock_exit(&making);
    return made;
}

static void before_fork(void)
{
    if (FORKS_WAIT)
        nc_lock_enter(&making);
}

static void after_fork(void)
{
    if (FORKS_WAIT)
        nc_lock_exit(&making);
}

static void forked(void)
{
    after_fork();
    atomic_fetch_add_explicit(&core_forks, 1, memory_order_relaxed); /* alone after fork */
    be_main_thread();
}

static void watch_forks_once(void) { pthread_atfork(before_fork, after_fork, forked); }

int core_watch_process(void)
{
    pthread_once(&watch_forks, watch_forks_once);
    return know_main_thread();
}
#endif
