/* py_merge.c: merge: iterate over what several receivers get.  Each step is a select over those that have not ended
 * (py_select.c).  Of bytes, the claim that was handed out last ends when the next is asked for, or the merge is
 * dropped.
 */
#include "py_await_life.h"
#include "py_chan.h"
#include "py_doc.h"
#include "py_module.h"
#include "py_select.h"

/* ---- its claim -------------------------------------------------------------------------------------- */

/* End the claim that was handed out last; false with BufferError set while views of it are used.  Runs Python code. */
static bool merge_release(Merge *merge, core_state *st)
{
    PyObject *claim;
    Py_BEGIN_CRITICAL_SECTION(merge);
    claim = Py_XNewRef(merge->claim);
    Py_END_CRITICAL_SECTION();
    if (claim == NULL)
        return true;
    PyObject *done = PyObject_CallMethodNoArgs(claim, st->s_release);
    if (done == NULL && PyErr_ExceptionMatches(st->errors[E_CLAIM_RELEASED])) {
        PyErr_Clear(); /* the body of the loop has ended it */
        done = Py_NewRef(Py_None);
    }
    Py_BEGIN_CRITICAL_SECTION(merge);
    if (done != NULL && merge->claim == claim) {
        merge->claim = NULL;
        Py_DECREF(claim); /* not the last: ours */
    }
    Py_END_CRITICAL_SECTION();
    Py_DECREF(claim);
    Py_XDECREF(done);
    return done != NULL;
}

/* The loop over it was left: end its claim, now or, while views of it are used, when it is dropped. */
static void merge_leave_behind(core_state *st, PyObject *claim)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *done = st != NULL ? PyObject_CallMethodNoArgs(claim, st->s_release) : NULL;
    if (done == NULL)
        PyErr_Clear();
    Py_XDECREF(done);
    Py_DECREF(claim);
    PyErr_Restore(type, value, traceback);
}

/* ---- its steps -------------------------------------------------------------------------------------- */

static step past_end(Call *Py_UNUSED(call), bool Py_UNUSED(called), PyObject **Py_UNUSED(out),
                     nc_box **Py_UNUSED(kicks))
{
    PyErr_SetNone(PyExc_StopAsyncIteration);
    return STEP_ERROR;
}

static const call_op past_end_op = {.name = "__anext__", .qualname = "merge.__anext__", .look = past_end};

static PyObject *merge_anext(PyObject *self)
{
    PyObject *module = PyType_GetModule(Py_TYPE(self));
    if (module == NULL || !merge_release((Merge *)self, PyModule_GetState(module)))
        return NULL;
    PyObject *open = merge_open((Merge *)self), *next = NULL;
    if (PyTuple_GET_SIZE(open) > 0)
        next = select_anext(module, (Merge *)self, open);
    else {
        Endpoint *ep = chan_lone_receiver(module); /* an awaitable needs one */
        next = ep != NULL ? wait_new(&(Call){.op = &past_end_op, .ep = ep}, -1) : NULL;
    }
    Py_DECREF(open);
    return next;
}

/* Blocks; NULL without an exception is the end. */
static PyObject *merge_next(PyObject *self)
{
    PyObject *module = PyType_GetModule(Py_TYPE(self));
    if (module == NULL || !merge_release((Merge *)self, PyModule_GetState(module)))
        return NULL;
    PyObject *open = merge_open((Merge *)self);
    PyObject *next = PyTuple_GET_SIZE(open) > 0 ? select_next(module, (Merge *)self, open) : NULL;
    Py_DECREF(open);
    return next;
}

/* ---- the type --------------------------------------------------------------------------------------- */

/* Only receivers, and what a select of them would refuse. */
static bool check_receivers(PyObject *module, PyObject *receivers)
{
    core_state *st = PyModule_GetState(module);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(receivers); i++) {
        PyTypeObject *type = Py_TYPE(PyTuple_GET_ITEM(receivers, i));
        if (type != st->sending_type && type != st->claiming_type)
            continue;
        PyErr_Format(PyExc_TypeError, "merge() takes receivers, not %.200s", type->tp_name);
        return false;
    }
    return select_check(module, PySequence_Fast_ITEMS(receivers), PyTuple_GET_SIZE(receivers));
}

static PyObject *merge_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"biased", NULL};
    PyObject *module = PyType_GetModule(type), *nothing = PyTuple_New(0);
    int biased = 0;
    bool ok = module != NULL && nothing != NULL &&
              PyArg_ParseTupleAndKeywords(nothing, kwargs, "|$p:merge", names, &biased) &&
              check_receivers(module, args);
    Py_XDECREF(nothing);
    Merge *merge = ok ? (Merge *)type->tp_alloc(type, 0) : NULL;
    if (merge == NULL)
        return NULL;
    merge->biased = biased;
    merge->open = Py_NewRef(args);
    return (PyObject *)merge;
}

static int merge_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Merge *)self)->open);
    Py_VISIT(((Merge *)self)->claim);
    return 0;
}

static void merge_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (((Merge *)self)->claim != NULL)
        merge_leave_behind(core_state_of(type), ((Merge *)self)->claim);
    Py_XDECREF(((Merge *)self)->open);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef merge_methods[] = {{"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
                                      END_OF_METHODS};

static PyType_Slot merge_slots[] = {{Py_tp_new, merge_new},
                                    {Py_tp_dealloc, merge_dealloc},
                                    {Py_tp_traverse, merge_traverse},

                                    {Py_tp_iter, PyObject_SelfIter},
                                    {Py_tp_iternext, merge_next},
                                    {Py_am_aiter, PyObject_SelfIter},
                                    {Py_am_anext, merge_anext},
                                    {Py_tp_methods, merge_methods},
                                    {Py_tp_doc, (void *)merge_doc},
                                    {0, NULL}};

static PyType_Spec merge_spec = {.name = "nexus_channels.merge",
                                 .basicsize = sizeof(Merge),
                                 .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                                 .slots = merge_slots};

int merge_add_types(PyObject *module, core_state *Py_UNUSED(st))
{
    PyTypeObject *type = core_add_type(module, &merge_spec, "merge");
    Py_XDECREF(type); /* the module keeps it */
    return type != NULL ? 0 : -1;
}
