/* py_lend.c: what native() of an endpoint of bytes returns: the Python object of an end that a native thread attaches
 * to.  How it is lent, given back and inspected; all that native threads do with it is in py_native.c.
 */
#include "py_chan.h"
#include "py_claim.h"
#include "py_doc.h"
#include "py_endpoint.h"
#include "py_ends.h"
#include "py_line.h"
#include "py_module.h"
#include "py_native.h"

typedef struct Native {
    PyObject_HEAD
    PyObject *weakrefs;
    Chan *chan;                   /* strong */
    Endpoint *ep;                 /* strong, until closed; in its critical section */
    native_end *end;              /* a reference */
    birth *birth;                 /* where it was made, in debug mode; else NULL */
} Native;

/* ---- opening ------------------------------------------------------------------------------------------ */

/* Can the endpoint be lent?  Not while it is lent, nor while Python calls wait on it: native code takes no turns with
 * them. */
static bool lendable(Endpoint *ep)
{
    Chan *c = ep->chan;
    if (claim_lent(ep))
        claim_busy(ep, false);
    else if (nc_gate_crowd(&c->gate[ep->side]) >= NC_WAITER)
        core_raise(c->st, E_BUSY, NULL, "others wait on this %s", ep->side == TX ? "sender" : "receiver");
    else
        return true;
    return false;
}

/* A new native end: a further sender, or one that borrows the endpoint.  Holding the endpoint. */
static native_end *lend_held(Endpoint *ep)
{
    Chan *c = ep->chan;
    bool further = ep->side == TX && c->kind == MPSC_BYTES;
    if (endpoint_check(ep) != STEP_READY || (!further && !lendable(ep)))
        return NULL;
    native_end *e = native_end_new(c, ep->side);
    if (e != NULL && !further) {
        lease_ref(&e->lease);
        ep->lent = &e->lease;
    }
    return e;
}

static void native_close_now(Native *native, bool abandon);

PyObject *endpoint_native(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Endpoint *ep = (Endpoint *)self;
    core_state *st = ep->chan->st;
    nc_box *kicks = NULL;
    line_reap(ep->chan, ep->side, &kicks); /* waiters that will never run do not count */
    line_deliver(ep->chan, kicks);
    Native *native = (Native *)core_new(st->native_type[ep->side]);
    if (native == NULL)
        return NULL;
    native->chan = (Chan *)Py_NewRef(ep->chan);
    native->ep = (Endpoint *)Py_NewRef(self);
    Py_BEGIN_CRITICAL_SECTION(self);
    native->end = lend_held(ep);
    Py_END_CRITICAL_SECTION();
    bool made = native->end != NULL;
    if (made && ends_are_noted(st))
        made = (native->birth = birth_note(ep->chan, ep->side, &native->end->lease)) != NULL;
    if (made && line_reach_all(ep->chan))
        return (PyObject *)native;
    Py_DECREF(native);
    return NULL;
}

/* ---- closing ------------------------------------------------------------------------------------------ */

static void native_close_now(Native *native, bool abandon)
{
    Chan *c = native->chan;
    nc_box *kicks = NULL;
    Endpoint *ep;
    if (native->end != NULL) {
        native_end_close(native->end, abandon, &kicks);
        line_reap(c, 1 - native->end->side, &kicks);
        line_deliver(c, kicks);
    }
    Py_BEGIN_CRITICAL_SECTION(native);
    ep = native->ep;
    native->ep = NULL;
    Py_END_CRITICAL_SECTION();
    if (ep == NULL)
        return;
    Py_BEGIN_CRITICAL_SECTION(ep);
    if (ep->lent != NULL)
        endpoint_leased(ep); /* takes the endpoint back, if its end has left */
    Py_END_CRITICAL_SECTION();
    Py_DECREF(ep);
}

static PyObject *native_close(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"abandon", NULL};
    int abandon = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$p:close", names, &abandon))
        return NULL;
    native_close_now((Native *)self, abandon);
    Py_RETURN_NONE;
}

static PyObject *native_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

static PyObject *native_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n))
{
    native_close_now((Native *)self, false);
    Py_RETURN_NONE;
}

/* ---- inspecting --------------------------------------------------------------------------- */

static const char *capsule_name(int side) { return side == TX ? NEXUS_SENDER_CAPSULE : NEXUS_RECEIVER_CAPSULE; }

static void capsule_drop(PyObject *capsule)
{
    native_end *e = PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule));
    if (e != NULL)
        lease_unref(&e->lease);
}

static PyObject *get_address(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromVoidPtr(&((Native *)self)->end->face);
}

static PyObject *get_capsule(PyObject *self, void *Py_UNUSED(ignored))
{
    native_end *e = ((Native *)self)->end;
    PyObject *capsule = PyCapsule_New(&e->face, capsule_name(e->side), capsule_drop);
    if (capsule != NULL)
        lease_ref(&e->lease);
    return capsule;
}

static PyObject *get_is_closed(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyBool_FromLong(nc_end_closed(&((Native *)self)->end->lease.life));
}

static PyObject *get_is_disconnected(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyBool_FromLong(native_end_disconnected(((Native *)self)->end));
}

static PyObject *get_is_attached(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyBool_FromLong(nc_end_attached(&((Native *)self)->end->lease.life));
}

static PyObject *native_repr(PyObject *self)
{
    native_end *e = ((Native *)self)->end;
    bool attached = nc_end_attached(&e->lease.life);
    return PyUnicode_FromFormat("<%s %s, %s, at %p>", Py_TYPE(self)->tp_name,
                                nc_end_closed(&e->lease.life) ? "closed" : "open",
                                attached ? "attached" : "nobody attached", (void *)&e->face);
}

static PyObject *native_reduce(PyObject *self, PyObject *Py_UNUSED(protocol))
{
    PyErr_Format(PyExc_TypeError, "cannot copy or pickle '%.200s': its address means something here only",
                 Py_TYPE(self)->tp_name);
    return NULL;
}

static int native_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Native *)self)->chan);
    Py_VISIT(((Native *)self)->ep);
    return 0;
}

static int native_clear(PyObject *self)
{
    if (((Native *)self)->chan != NULL)
        native_close_now((Native *)self, false);
    return 0;
}

static void native_dealloc(PyObject *self)
{
    Native *native = (Native *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (native->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    if (native->chan != NULL)
        native_close_now(native, false);
    if (native->birth != NULL)
        birth_forget(native->chan, native->birth);
    if (native->end != NULL)
        lease_unref(&native->end->lease);
    Py_XDECREF(native->chan);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- types -------------------------------------------------------------------------------------------- */

static PyMethodDef native_methods[] = {
    {"close", (PyCFunction)(void (*)(void))native_close, METH_VARARGS | METH_KEYWORDS, native_close_doc},
    {"__enter__", native_enter, METH_NOARGS, enter_doc},
    {"__exit__", FAST(native_exit), METH_FASTCALL, exit_doc},
    {"__reduce_ex__", native_reduce, METH_O, reduce_doc},
    END_OF_METHODS};

static PyGetSetDef native_getset[] = {
    {"address", get_address, NULL, DOC_ADDRESS, NULL},
    {"capsule", get_capsule, NULL, DOC_CAPSULE, NULL},
    {"is_closed", get_is_closed, NULL, DOC_NATIVE_IS_CLOSED, NULL},
    {"is_disconnected", get_is_disconnected, NULL, DOC_NATIVE_IS_DISCONNECTED, NULL},
    {"is_attached", get_is_attached, NULL, DOC_IS_ATTACHED, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef native_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Native, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define SLOTS(doc)                                                                                       \
    {                                                                                                    \
        {Py_tp_dealloc, native_dealloc}, {Py_tp_traverse, native_traverse}, {Py_tp_clear, native_clear}, \
            {Py_tp_repr, native_repr}, {Py_tp_methods, native_methods}, {Py_tp_getset, native_getset},   \
            {Py_tp_members, native_members}, {Py_tp_doc, (void *)doc},                                   \
        {                                                                                                \
            0, NULL                                                                                      \
        }                                                                                                \
    }
static PyType_Slot sender_slots[] = SLOTS(native_sender_doc), receiver_slots[] = SLOTS(native_receiver_doc);

#define SPEC(cls, its_slots) \
    {.name = "nexus_channels._core." cls, .basicsize = sizeof(Native), .flags = CORE_TYPE_FLAGS, .slots = its_slots}
static PyType_Spec native_specs[SIDES] = {SPEC("NativeSender", sender_slots), SPEC("NativeReceiver", receiver_slots)};

int native_add_types(PyObject *module, core_state *st)
{
    static const char *const names[SIDES] = {"NativeSender", "NativeReceiver"};
    for (int side = 0; side < SIDES; side++) {
        PyObject *type = PyType_FromModuleAndSpec(module, &native_specs[side], NULL);
        if ((st->native_type[side] = (PyTypeObject *)type) == NULL ||
            PyModule_AddObjectRef(module, names[side], type) < 0)
            return -1;
    }
    return 0;
}
