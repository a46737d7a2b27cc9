/* py_stop.c: the StopIteration by which the result of an awaited call travels.  Touches nothing of channels.
 *
 * Up to 3.11, `await` asks any awaitable of C for its result by am_send.  From 3.12 on it does so with true coroutines
 * only; from all others it gets each result as the value of a StopIteration.  To make one and free it again takes
 * longer than the send or receive itself.  So there is one that travels again and again:
 *
 *             stop_reserve()             stop_hand_over()          `await` has read the value
 *     kept ------------------> reserved ------------------> raised ----------------------------> kept
 *       ^                          |                           |   freed by somebody who has
 *       |      stop_give_back()    |                           |   changed it, or another one
 *       '--------------------------'                           |   is kept by then
 *                                                              '-------------------------------> freed
 *
 * It is of a class of its own, derived from StopIteration, as only the class's dealloc can tell when it comes back: the
 * value must not be kept for a moment longer.  Whoever catches it may keep it.  One that somebody else has is not used
 * again, and neither is one that the collector has found to be garbage, as it may yet clear it.
 *
 * Without a GIL each call makes its own.  An object that another thread has made is not freed before that thread next
 * looks around, and the value would stay with it as long.
 */
#include "py_stop.h"
#include "py_module.h"

void stop_raise(PyObject *value)
{
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    Py_DECREF(value);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
}

#if PY_VERSION_HEX < 0x030C0000

int stop_add_types(PyObject *Py_UNUSED(module), core_state *Py_UNUSED(st)) { return 0; }

void stop_free(core_state *Py_UNUSED(st)) {}

PyObject *stop_reserve(core_state *Py_UNUSED(st)) { return Py_None; } /* `await` does not come here; next() does */

void stop_hand_over(PyObject *Py_UNUSED(stop), PyObject *value) { stop_raise(value); }

void stop_give_back(core_state *Py_UNUSED(st), PyObject *Py_UNUSED(stop)) {}

#else

typedef struct Stop {
    PyStopIterationObject base;
    core_state *st; /* borrowed; NULL once it is garbage, as the collector may free the module first */
} Stop;

/* ---- the one that is kept ----------------------------------------------------------------------------------- */

static PyObject *stop_new(core_state *st)
{
    PyTypeObject *type = NC_RECYCLES ? st->stop_type : (PyTypeObject *)PyExc_StopIteration;
    PyObject *none = PyTuple_New(0);
    PyObject *stop = none != NULL ? ((PyTypeObject *)PyExc_StopIteration)->tp_new(type, none, NULL) : NULL;
    Py_XDECREF(none);
    if (NC_RECYCLES && stop != NULL)
        ((Stop *)stop)->st = st;
    return stop;
}

/* Take the one that is kept, or NULL. */
static inline PyObject *stop_take(core_state *st)
{
    PyObject *stop = atomic_load_explicit(&st->stop, memory_order_relaxed);
    atomic_store_explicit(&st->stop, NULL, memory_order_relaxed); /* holding the GIL */
    return stop;
}

/* Keep this one, unless one is kept already. */
static inline bool stop_keep(core_state *st, PyObject *stop)
{
    if (NC_FREE_THREADED || st->spares_most == 0 || atomic_load_explicit(&st->stop, memory_order_relaxed) != NULL)
        return false;
    atomic_store_explicit(&st->stop, stop, memory_order_relaxed);
    return true;
}

void stop_free(core_state *st) { Py_XDECREF(stop_take(st)); }

/* None is kept; or somebody else has it, to whom the collector has shown it. */
__attribute__((noinline)) static PyObject *stop_reserve_another(core_state *st)
{
    if (NC_RECYCLES)
        Py_XDECREF(stop_take(st)); /* so that another one is kept from now on */
    return stop_new(st);
}

PyObject *stop_reserve(core_state *st)
{
    if (NC_FREE_THREADED)
        return stop_new(st);
    PyObject *stop = atomic_load_explicit(&st->stop, memory_order_relaxed);
    return stop != NULL && Py_REFCNT(stop) == 1 ? stop_take(st) : stop_reserve_another(st);
}

void stop_give_back(core_state *st, PyObject *stop)
{
    if (!stop_keep(st, stop))
        Py_DECREF(stop);
}

void stop_hand_over(PyObject *stop, PyObject *value)
{
    PyObject *before = ((PyStopIterationObject *)stop)->value; /* NULL, unless somebody else has written it */
    ((PyStopIterationObject *)stop)->value = value;
    PyErr_SetRaisedException(stop);
    Py_XDECREF(before);
}

/* ---- its class ------------------------------------------------------------------------------------------------ */

/* As it was made, but for the value: nobody has caught it, or given it a note. */
static inline bool stop_untouched(Stop *stop)
{
    PyStopIterationObject *s = &stop->base;
    return s->args != NULL && PyTuple_GET_SIZE(s->args) == 0 && s->dict == NULL && s->notes == NULL &&
           s->traceback == NULL && s->context == NULL && s->cause == NULL && !s->suppress_context;
}

static void stop_dealloc(PyObject *self)
{
    Stop *stop = (Stop *)self;
    if (stop->st != NULL && stop_untouched(stop) && stop_keep(stop->st, self)) {
        PyObject *value = stop->base.value;
        stop->base.value = NULL;
        Py_SET_REFCNT(self, 1);
        Py_XDECREF(value); /* runs Python code if it is the last */
        return;
    }
    PyTypeObject *type = Py_TYPE(self);
    ((PyTypeObject *)PyExc_StopIteration)->tp_dealloc(self);
    Py_DECREF(type);
}

/* The collector calls this before it clears anything. */
static void stop_finalize(PyObject *self) { ((Stop *)self)->st = NULL; }

/* A copy, or what is unpickled, is an ordinary one. */
static PyObject *stop_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *value = ((PyStopIterationObject *)self)->value;
    return Py_BuildValue("(O(O))", PyExc_StopIteration, value != NULL ? value : Py_None);
}

static PyMethodDef stop_methods[] = {{"__reduce__", stop_reduce, METH_NOARGS, NULL}, END_OF_METHODS};

static int stop_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return ((PyTypeObject *)PyExc_StopIteration)->tp_traverse(self, visit, arg);
}

static int stop_clear(PyObject *self) { return ((PyTypeObject *)PyExc_StopIteration)->tp_clear(self); }

static PyType_Slot stop_slots[] = {{Py_tp_dealloc, stop_dealloc},   {Py_tp_finalize, stop_finalize},
                                   {Py_tp_traverse, stop_traverse}, {Py_tp_clear, stop_clear},
                                   {Py_tp_methods, stop_methods},   {0, NULL}};

static PyType_Spec stop_spec = {
    .name = "nexus_channels._core.StopIteration",
    .basicsize = sizeof(Stop),
    .flags = CORE_TYPE_FLAGS,
    .slots = stop_slots,
};

int stop_add_types(PyObject *module, core_state *st)
{
    st->stop_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &stop_spec, PyExc_StopIteration);
    return st->stop_type != NULL ? 0 : -1;
}

#endif
