/* noop.c: two methods that do nothing, called as try_send and try_recv are: the floor of every pair of C calls.  And
 * two functions whose instructions callgrind counts.
 */
#include <Python.h>

static PyObject *noop_send(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value)) { Py_RETURN_NONE; }

static PyObject *noop_recv(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored)) { Py_RETURN_NONE; }

/* CPython 3.11 has a shorter way to a method of this kind than to one without arguments. */
static PyObject *quick_recv(PyObject *Py_UNUSED(self), PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n))
{
    Py_RETURN_NONE;
}

/* Their names are what callgrind is told to look for: not inlined, and no clones with other names.  Not the same body
 * twice, which the linker would make one. */
__attribute__((noinline, noclone)) PyObject *counted_few(PyObject *Py_UNUSED(module), PyObject *function)
{
    return PyObject_CallNoArgs(function);
}

__attribute__((noinline, noclone)) PyObject *counted_many(PyObject *Py_UNUSED(module), PyObject *function)
{
    return PyObject_Vectorcall(function, NULL, 0, NULL);
}

static PyMethodDef functions[] = {
    {"counted_few", counted_few, METH_O, NULL},
    {"counted_many", counted_many, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

/* Something to await that is ready: the object itself, so that nothing is made. */
static PyObject *ready_send(PyObject *self, PyObject *Py_UNUSED(value)) { return Py_NewRef(self); }

static PyObject *ready_recv(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

static PySendResult ready_am_send(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(arg), PyObject **result)
{
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

static PyObject *ready_next(PyObject *Py_UNUSED(self)) { return NULL; /* and no exception: None, at its end */ }

#if PY_VERSION_HEX >= 0x030C0000 && !defined(Py_GIL_DISABLED)
/* The same with a value.  From 3.12 on a value takes a StopIteration, and nothing is quicker than one that comes back.
 */
static PyObject *kept;

static void kept_dealloc(PyObject *self)
{
    Py_CLEAR(((PyStopIterationObject *)self)->value);
    Py_SET_REFCNT(self, 1);
    kept = self;
}

static PyObject *value_next(PyObject *self)
{
    PyObject *stop = kept;
    ((PyStopIterationObject *)stop)->value = Py_NewRef(self);
    PyErr_SetRaisedException(stop);
    return NULL;
}

static PyType_Slot kept_slots[] = {{Py_tp_dealloc, kept_dealloc}, {0, NULL}};
static PyType_Spec kept_spec = {
    .name = "noop.Kept", .basicsize = sizeof(PyStopIterationObject), .flags = Py_TPFLAGS_DEFAULT, .slots = kept_slots};

static int add_kept(void)
{
    PyObject *type = PyType_FromSpecWithBases(&kept_spec, PyExc_StopIteration);
    kept = type != NULL ? PyObject_CallNoArgs(type) : NULL;
    Py_XDECREF(type);
    return kept != NULL ? 0 : -1;
}
#else
static PyObject *value_next(PyObject *Py_UNUSED(self)) { return NULL; /* not asked */ }

static int add_kept(void) { return 0; }
#endif

static PySendResult value_am_send(PyObject *self, PyObject *Py_UNUSED(arg), PyObject **result)
{
    *result = Py_NewRef(self);
    return PYGEN_RETURN;
}

static PyMethodDef methods[] = {
    {"send", noop_send, METH_O, NULL},
    {"recv", noop_recv, METH_NOARGS, NULL},
    {"quick_recv", (PyCFunction)(void (*)(void))quick_recv, METH_FASTCALL, NULL},
    {"ready_send", ready_send, METH_O, NULL},
    {"ready_recv", ready_recv, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_methods, methods},     {Py_am_await, PyObject_SelfIter}, {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, ready_next}, {Py_am_send, ready_am_send},      {0, NULL},
};

static PyType_Spec spec = {
    .name = "noop.End", .basicsize = sizeof(PyObject), .flags = Py_TPFLAGS_DEFAULT, .slots = slots};

static PyType_Slot value_slots[] = {
    {Py_tp_methods, methods},     {Py_am_await, PyObject_SelfIter}, {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, value_next}, {Py_am_send, value_am_send},      {0, NULL},
};

static PyType_Spec value_spec = {
    .name = "noop.ValueEnd", .basicsize = sizeof(PyObject), .flags = Py_TPFLAGS_DEFAULT, .slots = value_slots};

static int add_type(PyObject *module, const char *name, PyType_Spec *its_spec)
{
    PyObject *type = PyType_FromSpec(its_spec);
    int failed = type == NULL ? -1 : PyModule_AddObjectRef(module, name, type);
    Py_XDECREF(type);
    return failed;
}

static int add_all(PyObject *module)
{
    if (add_kept() < 0 || add_type(module, "End", &spec) < 0)
        return -1;
    return add_type(module, "ValueEnd", &value_spec);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, add_all},
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "noop", .m_methods = functions,
                                    .m_slots = module_slots};

PyMODINIT_FUNC PyInit_noop(void) { return PyModuleDef_Init(&module); }
