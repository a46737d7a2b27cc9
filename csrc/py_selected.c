/* py_selected.c: Selected, the result of a select: (index, arm, value), a tuple with names.  A named tuple of Python's
 * own takes longer to make and to free than all the rest of a select that need not wait, so this is one in C, whose
 * memory is used again.  Touches nothing of channels.
 */
#include "py_selected.h"
#include "py_doc.h"
#include "py_module.h"

enum { ITEMS = 3 };

/* A tuple keeps its hash from 3.14 on. */
static void forget_hash(PyObject *selected)
{
    (void)selected;
#if PY_VERSION_HEX >= 0x030E0000
    ((PyTupleObject *)selected)->ob_hash = -1;
#endif
}

PyObject *selected_new(core_state *st)
{
    PyObject *selected = spare_take(st, SPARE_SELECTEDS);
    if (selected != NULL)
        (void)PyObject_InitVar((PyVarObject *)selected, st->selected_type, ITEMS);
    else if ((selected = (PyObject *)PyObject_GC_NewVar(PyTupleObject, st->selected_type, ITEMS)) == NULL)
        return NULL;
    for (int i = 0; i < ITEMS; i++)
        PyTuple_SET_ITEM(selected, i, NULL);
    forget_hash(selected);
    return selected;
}

void selected_free_spares(core_state *st)
{
    for (PyObject *selected; (selected = spare_take(st, SPARE_SELECTEDS)) != NULL;)
        PyObject_GC_Del(selected);
}

static int selected_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return PyTuple_Type.tp_traverse(self, visit, arg);
}

static void selected_free(PyObject *self, PyTypeObject *type)
{
    for (int i = 0; i < ITEMS; i++) {
        PyObject *item = PyTuple_GET_ITEM(self, i);
        PyTuple_SET_ITEM(self, i, NULL);
        Py_XDECREF(item);
    }
    core_state *st = core_state_of(type); /* NULL once the module is gone */
    if (st == NULL || !spare_keep(st, SPARE_SELECTEDS, self))
        PyObject_GC_Del(self);
    Py_DECREF(type);
}

static void selected_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject *value = PyTuple_GET_ITEM(self, ITEMS - 1);
    PyObject_GC_UnTrack(self);
    if (value == NULL || Py_TYPE(value) != type) {
        selected_free(self, type);
        return;
    }
    Py_TRASHCAN_BEGIN(self, selected_dealloc) /* a chain of results; other objects have trashcans of their own */
    selected_free(self, type);
    Py_TRASHCAN_END
}

static PyObject *selected_repr(PyObject *self)
{
    int again = Py_ReprEnter(self);
    if (again != 0)
        return again > 0 ? PyUnicode_FromString("Selected(...)") : NULL;
    PyObject *repr = PyUnicode_FromFormat("Selected(index=%R, arm=%R, value=%R)", PyTuple_GET_ITEM(self, 0),
                                          PyTuple_GET_ITEM(self, 1), PyTuple_GET_ITEM(self, 2));
    Py_ReprLeave(self);
    return repr;
}

static PyObject *selected_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyErr_Format(PyExc_TypeError, "cannot copy or pickle '%.200s': it names an endpoint", Py_TYPE(self)->tp_name);
    return NULL;
}

#define ITEM(name, i, doc) {name, T_OBJECT, offsetof(PyTupleObject, ob_item) + i * sizeof(PyObject *), READONLY, doc}
static PyMemberDef selected_members[] = {ITEM("index", 0, DOC_SELECTED_INDEX),
                                         ITEM("arm", 1, DOC_SELECTED_ARM),
                                         ITEM("value", 2, DOC_SELECTED_VALUE),
                                         {NULL, 0, 0, 0, NULL}};

static PyMethodDef selected_methods[] = {{"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
                                         {"__reduce_ex__", selected_reduce, METH_O, reduce_doc},
                                         END_OF_METHODS};

static PyType_Slot selected_slots[] = {{Py_tp_dealloc, selected_dealloc},
                                       {Py_tp_traverse, selected_traverse},
                                       {Py_tp_repr, selected_repr},
                                       {Py_tp_members, selected_members},
                                       {Py_tp_methods, selected_methods},
                                       {Py_tp_doc, (void *)selected_doc},
                                       {0, NULL}};

static PyType_Spec selected_spec = {
    .name = "nexus_channels.Selected", .flags = CORE_TYPE_FLAGS, .slots = selected_slots};

/* case Selected(index, arm, value): */
static int add_match_args(PyTypeObject *type)
{
    PyObject *names = Py_BuildValue("(sss)", "index", "arm", "value");
    int failed = names == NULL || PyDict_SetItemString(type->tp_dict, "__match_args__", names) < 0;
    Py_XDECREF(names);
    PyType_Modified(type);
    return failed ? -1 : 0;
}

int selected_add_types(PyObject *module, core_state *st)
{
    st->selected_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &selected_spec, (PyObject *)&PyTuple_Type);
    if (st->selected_type == NULL || add_match_args(st->selected_type) < 0)
        return -1;
    return PyModule_AddObjectRef(module, "Selected", (PyObject *)st->selected_type);
}
