/* py_inside.c: all that is read of the insides of CPython and asyncio, which any release may change.
 *
 * Each has a public way beside it that does the same more slowly.  It is taken only on the versions that it was written
 * for, and only where what it needs is there and, if both ways can be compared, says the same; so a version that nobody
 * has seen yet works.  With NEXUS_CHANNELS_PUBLIC_ONLY=1 in the environment, none is taken.
 *
 *     name          versions         what is read                                  instead
 *     ------------  ---------------  --------------------------------------------  --------------------------------
 *     thread_state  3.11             where the current thread state stands         PyThreadState_Get()
 *     first_thread  3.12 and later,  the main interpreter's first thread state,    PyThreadState_GetUnchecked(),
 *                   Linux, x86-64    which lies where it is until CPython ends;    PyThreadState_Get() on 3.12
 *                                    if its thread is the first to import this
 *     running_loop  3.11             the holder that asyncio keeps in the dict of  asyncio._get_running_loop()
 *                                    the thread, and the version of that dict
 *     current_tasks 3.11 to 3.13     asyncio's dict of the tasks that run now      asyncio.current_task()
 *     loop_queues   all              loop._ready and loop._scheduled: does         "yes": tasks that need not wait
 *                                    anybody wait for a turn of the loop?          yield more often
 *     done_future   with a GIL       a woken task asks its future nothing but      the future that it waited on
 *                                    whether it is done: all are passed the same
 *     asyncgen_hook all              the thread's hook for asynchronous            sniffio's thread-local, while trio
 *                                    generators: is it a method of an asyncio      is imported
 *                                    loop?  Then no task of trio runs
 *
 * Only py_running.c, py_origin.h, py_future.c and py_trio.c take them.
 */
#include "py_inside.h"

#if PY_VERSION_HEX < 0x030C0000
PyThreadState *const *inside_311_tstate(void); /* py_inside_311.c */
#endif

static const char *const names[] = {"thread_state", "first_thread", "running_loop", "current_tasks",
                                    "loop_queues",  "done_future",  "asyncgen_hook"};

static bool public_only(void)
{
    const char *value = getenv("NEXUS_CHANNELS_PUBLIC_ONLY");
    return value != NULL && *value != '\0' && strcmp(value, "0") != 0;
}

/* The first thread state of the main interpreter is a part of the interpreter, and any other may be freed. */
static void choose_thread_state(core_state *st)
{
    PyThreadState *now = PyThreadState_Get();
#if PY_VERSION_HEX < 0x030C0000
    if (*inside_311_tstate() == now) {
        st->tstate = inside_311_tstate();
        st->insides |= INSIDE_THREAD_STATE;
    }
#else
    if (NC_THREAD_POINTER && core_handles_signals() && PyThreadState_GetID(now) == 1) {
        st->first = now;
        st->first_thread = this_thread();
        st->insides |= INSIDE_FIRST_THREAD;
    }
#endif
}

/* Either tells which task a loop runs: the function, which is there already, or the dict. */
static bool choose_current_tasks(core_state *st)
{
    PyObject *tasks = core_import("_asyncio", "_current_tasks");
    if (tasks != NULL && PyDict_Check(tasks)) {
        Py_SETREF(st->current_tasks, tasks);
        st->insides |= INSIDE_CURRENT_TASKS;
        return true;
    }
    Py_XDECREF(tasks);
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_ImportError) && !PyErr_ExceptionMatches(PyExc_AttributeError))
        return false;
    PyErr_Clear();
    return true;
}

int inside_choose(core_state *st)
{
    if (public_only())
        return 0;
    choose_thread_state(st);
    if (PY_VERSION_HEX < 0x030C0000)
        st->insides |= INSIDE_RUNNING_LOOP;
    if (!NC_FREE_THREADED)
        st->insides |= INSIDE_DONE_FUTURE;
    st->insides |= INSIDE_LOOP_QUEUES | INSIDE_ASYNCGEN_HOOK;
    return choose_current_tasks(st) ? 0 : -1;
}

PyObject *inside_names(core_state *st)
{
    PyObject *list = PyList_New(0), *tuple = NULL;
    int failed = list == NULL;
    for (unsigned i = 0; !failed && i < sizeof names / sizeof *names; i++)
        if (st->insides >> i & 1) {
            PyObject *name = PyUnicode_FromString(names[i]);
            failed = name == NULL || PyList_Append(list, name) < 0;
            Py_XDECREF(name);
        }
    if (!failed)
        tuple = PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}
