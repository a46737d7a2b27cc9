/* py_running.c: which loop and task of asyncio this thread runs, and whether the loop has anything to do.  Wherever
 * this reads private parts of CPython or asyncio, it can fall back on a public function. */
#include "py_running.h"
#include "py_inside.h"

#if PY_VERSION_HEX < 0x030C0000
/* asyncio._get_running_loop() of 3.11 asks the kernel for the process id, which is slow.  It then reads a holder in the
 * thread's dict, whose first field is the loop.  We read that field ourselves once asyncio's answer has shown that it
 * is the loop. */
typedef struct {
    PyObject_HEAD
    PyObject *loop;
} loop_holder;

__attribute__((noinline)) static PyObject *running_loop_slowly(core_state *st, PyDictObject *dict)
{
    loop_holder *holder = dict != NULL ? (loop_holder *)PyDict_GetItemWithError((PyObject *)dict, st->s_running) : NULL;
    if (holder == NULL || !Py_IS_TYPE(holder, st->holder_type) || st->holder_born != core_generation()) {
        PyObject *loop = PyObject_CallNoArgs(st->get_running_loop);
        if (holder == NULL || loop == NULL || loop == Py_None ||
            Py_TYPE(holder)->tp_basicsize < (Py_ssize_t)sizeof *holder || holder->loop != loop ||
            !(st->insides & INSIDE_RUNNING_LOOP))
            return loop;
        st->holder_type = Py_TYPE(holder);
        st->holder_born = core_generation();
        Py_DECREF(loop);
    }
    st->holder = holder;
    st->holder_seen = dict->ma_version_tag;
    return Py_NewRef(holder->loop);
}

/* A dict gets a new version whenever it changes, and no other dict ever has the same.  So as long as the thread's dict
 * has the version that was seen, the holder is in it. */
PyObject *running_loop(core_state *st)
{
    PyDictObject *dict = (PyDictObject *)PyThreadState_GetDict();
    if (dict != NULL && dict->ma_version_tag == st->holder_seen && st->holder_born == core_generation())
        return Py_NewRef(((loop_holder *)st->holder)->loop);
    return running_loop_slowly(st, dict);
}
#else
PyObject *running_loop(core_state *st) { return PyObject_CallNoArgs(st->get_running_loop); }
#endif

/* The task of `loop` that this thread runs right now, a new reference, or NULL without an exception. */
static PyObject *task_of(core_state *st, PyObject *loop)
{
#if !NC_FREE_THREADED
    PyObject *key, *value;
    Py_ssize_t at = 0;
    if (PyDict_Check(st->current_tasks) && PyDict_GET_SIZE(st->current_tasks) == 1 &&
        PyDict_Next(st->current_tasks, &at, &key, &value) && key == loop)
        return value != Py_None ? Py_NewRef(value) : NULL; /* nearly always there is one loop: found without hashing */
#endif
    PyObject *task = PyDict_Check(st->current_tasks) ? core_dict_find(st->current_tasks, loop)
                                                     : PyObject_CallOneArg(st->current_tasks, loop);
    if (task == NULL)
        core_drop_error();
    if (task == Py_None)
        Py_CLEAR(task);
    return task;
}

bool running_task_of(core_state *st, PyObject *loop)
{
    PyObject *task = task_of(st, loop);
    Py_XDECREF(task); /* not the last: asyncio has one */
    return task != NULL;
}

void *running_task(core_state *st)
{
    PyObject *loop = running_loop(st), *task = NULL;
    if (loop == NULL)
        core_drop_error();
    else if (loop != Py_None)
        task = task_of(st, loop);
    Py_XDECREF(loop);
    Py_XDECREF(task); /* as above */
    return task;
}

/* Is the first timer of asyncio's heap due?  True with an exception set if that is not known. */
static bool first_timer_due(core_state *st, PyObject *loop, PyObject *timers)
{
    if (!PyList_Check(timers))
        return true;
    PyObject *first = PySequence_GetItem(timers, 0), *when = NULL, *now = NULL;
    if (first == NULL && PyErr_ExceptionMatches(PyExc_IndexError)) {
        PyErr_Clear();
        return false;
    }
    if (first != NULL && (when = PyObject_GetAttr(first, st->s_when)) != NULL)
        now = PyObject_CallMethodNoArgs(loop, st->s_time);
    bool later = now != NULL && PyObject_RichCompareBool(when, now, Py_GT) == 1;
    Py_XDECREF(now);
    Py_XDECREF(when);
    Py_XDECREF(first);
    return !later;
}

bool running_has_work(core_state *st, PyObject *loop)
{
    if (!(st->insides & INSIDE_LOOP_QUEUES))
        return true;
    PyObject *ready = PyObject_GetAttr(loop, st->s_ready);
    bool has = ready == NULL || PyObject_Size(ready) != 0;
    Py_XDECREF(ready);
    if (has)
        return true;
    PyObject *timers = PyObject_GetAttr(loop, st->s_scheduled);
    has = timers == NULL || first_timer_due(st, loop, timers);
    Py_XDECREF(timers);
    return has;
}
