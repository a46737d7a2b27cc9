/* py_arm.c: what a select may do, one arm each.  A receiver stands for "receive one"; Sending and Claiming, made by a
 * sender's sending() and claiming(), stand for "send this" and "claim so much".  They hold what they are made of and do
 * nothing themselves, so they may be passed again and again.  Touches nc_chan.h.
 */
#include "py_arm.h"
#include "py_call.h"
#include "py_chan.h"
#include "py_claim.h"
#include "py_doc.h"
#include "py_module.h"

/* ---- Sending and Claiming --------------------------------------------------------------------------- */

typedef struct Giving {
    PyObject_HEAD
    Endpoint *ep;                 /* strong, as is the next; neither changes until the collector clears them */
    PyObject *member;             /* Sending: the value, as its channel checked it */
    Py_ssize_t n;                 /* Claiming: bytes */
} Giving;

static PyObject *giving_new(Endpoint *ep, PyTypeObject *type, PyObject *member, Py_ssize_t n)
{
    Giving *giving = (Giving *)core_new(type);
    if (giving == NULL) {
        Py_XDECREF(member);
        return NULL;
    }
    giving->ep = (Endpoint *)Py_NewRef(ep);
    giving->member = member;
    giving->n = n;
    return (PyObject *)giving;
}

PyObject *endpoint_sending(PyObject *self, PyObject *value)
{
    Endpoint *ep = (Endpoint *)self;
    PyObject *member = call_member(ep->chan, Py_NewRef(value));
    return member != NULL ? giving_new(ep, ep->chan->st->sending_type, member, 0) : NULL;
}

PyObject *endpoint_claiming(PyObject *self, PyObject *n)
{
    Endpoint *ep = (Endpoint *)self;
    Py_ssize_t size = claim_parse_size(ep->chan, n);
    return size != 0 ? giving_new(ep, ep->chan->st->claiming_type, NULL, size) : NULL;
}

static PyObject *giving_value(Giving *giving)
{
    const payload_kind *payload = giving->ep->chan->payload;
    return Py_NewRef(payload->as_passed != NULL ? payload->as_passed(giving->member) : giving->member);
}

static PyObject *giving_get_sender(PyObject *self, void *Py_UNUSED(ignored)) { return Py_NewRef(((Giving *)self)->ep); }

static PyObject *sending_get_value(PyObject *self, void *Py_UNUSED(ignored)) { return giving_value((Giving *)self); }

static PyObject *claiming_get_size(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromSsize_t(((Giving *)self)->n);
}

static PyObject *sending_repr(PyObject *self)
{
    int again = Py_ReprEnter(self);
    if (again != 0)
        return again > 0 ? PyUnicode_FromString("<Sending ...>") : NULL;
    PyObject *value = giving_value((Giving *)self);
    PyObject *repr = PyUnicode_FromFormat("<Sending %R by %R>", value, ((Giving *)self)->ep);
    Py_DECREF(value);
    Py_ReprLeave(self);
    return repr;
}

static PyObject *claiming_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<Claiming %zd bytes by %R>", ((Giving *)self)->n, ((Giving *)self)->ep);
}

static int giving_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Giving *)self)->ep);
    Py_VISIT(((Giving *)self)->member);
    return 0;
}

/* No tp_clear: a cycle through it goes through a channel or a list as well, which is cleared. */
static void giving_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, giving_dealloc) /* what is to be sent may be such an arm, of which the value may be ... */
    Py_XDECREF(((Giving *)self)->member);
    Py_XDECREF(((Giving *)self)->ep);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyGetSetDef sending_getset[] = {{"sender", giving_get_sender, NULL, DOC_ARM_SENDER, NULL},
                                       {"value", sending_get_value, NULL, DOC_SENDING_VALUE, NULL},
                                       {NULL, NULL, NULL, NULL, NULL}};
static PyGetSetDef claiming_getset[] = {{"sender", giving_get_sender, NULL, DOC_ARM_SENDER, NULL},
                                        {"size", claiming_get_size, NULL, DOC_CLAIMING_SIZE, NULL},
                                        {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot sending_slots[] = {{Py_tp_dealloc, giving_dealloc},  {Py_tp_traverse, giving_traverse},
                                      {Py_tp_repr, sending_repr},       {Py_tp_getset, sending_getset},
                                      {Py_tp_doc, (void *)sending_doc}, {0, NULL}};
static PyType_Slot claiming_slots[] = {{Py_tp_dealloc, giving_dealloc},   {Py_tp_traverse, giving_traverse},
                                       {Py_tp_repr, claiming_repr},       {Py_tp_getset, claiming_getset},
                                       {Py_tp_doc, (void *)claiming_doc}, {0, NULL}};

static PyType_Spec sending_spec = {.name = "nexus_channels._core.Sending",
                                   .basicsize = sizeof(Giving),
                                   .flags = CORE_TYPE_FLAGS,
                                   .slots = sending_slots};
static PyType_Spec claiming_spec = {.name = "nexus_channels._core.Claiming",
                                    .basicsize = sizeof(Giving),
                                    .flags = CORE_TYPE_FLAGS,
                                    .slots = claiming_slots};

/* ---- arms ------------------------------------------------------------------------------------------- */

/* The endpoint, borrowed, if `passed` is one of that side; else NULL. */
static Endpoint *as_endpoint(core_state *st, PyObject *passed, int side)
{
    for (int kind = 0; kind < KINDS; kind++)
        if (Py_TYPE(passed) == st->endpoint_type[kind][side])
            return (Endpoint *)passed;
    return NULL;
}

static bool refuse_arm(core_state *st, PyObject *passed)
{
    Endpoint *sender = as_endpoint(st, passed, TX);
    if (sender == NULL)
        PyErr_Format(PyExc_TypeError, "an arm is a receiver, sender.sending(value) or sender.claiming(n), not %.200s",
                     Py_TYPE(passed)->tp_name);
    else
        PyErr_Format(PyExc_TypeError, "a sender alone does not say what to send; pass sender.sending(value)%s",
                     sender->chan->payload->claim != NULL ? " or sender.claiming(n)" : "");
    return false;
}

/* What a Sending or Claiming asks for, as a call of its endpoint. */
static Endpoint *arm_give(arm *a, Giving *giving, bool claims)
{
    const payload_kind *payload = giving->ep->chan->payload;
    a->call.op = claims ? payload->claim : payload->send;
    a->call.value = Py_XNewRef(giving->member);
    a->call.n = giving->n;
    if (claims)
        a->call.least = a->call.share = nc_log_extent((uint64_t)giving->n);
    else if (payload->room_for != NULL)
        a->call.least = a->call.share = payload->room_for(giving->member);
    a->giving = Py_NewRef(giving);
    return giving->ep;
}

bool arm_make(core_state *st, arm *a, PyObject *passed)
{
    Endpoint *ep = as_endpoint(st, passed, RX);
    if (ep != NULL)
        a->call.op = ep->chan->payload->recv;
    else if (Py_TYPE(passed) == st->sending_type || Py_TYPE(passed) == st->claiming_type)
        ep = arm_give(a, (Giving *)passed, Py_TYPE(passed) == st->claiming_type);
    else
        return refuse_arm(st, passed);
    a->call.ep = (Endpoint *)Py_NewRef(ep);
    if (!nc_chan_of_bytes(ep->chan->block) || endpoint_idle(ep))
        return true;
    arm_clear(a);
    return false;
}

void arm_clear(arm *a)
{
    Endpoint *ep = a->call.ep;
    a->call.ep = NULL;
    if (a->giving != NULL || a->call.waiting) { /* else nothing else was written */
        PyObject *value = a->call.value, *giving = a->giving;
        a->call = (Call){.n = 1, .least = 1, .share = 1};
        a->giving = NULL;
        Py_XDECREF(value);
        Py_XDECREF(giving);
    }
    Py_XDECREF(ep);
}

enum { FEW_ARMS = 16 }; /* up to here comparing all pairs costs less than a set */

static bool raise_repeated(const arm *a)
{
    PyErr_Format(PyExc_ValueError, "%R is there twice; an endpoint may be in one arm only", a->call.ep);
    return true;
}

bool arms_repeat(const arm *arms, Py_ssize_t n)
{
    for (Py_ssize_t i = 1; i < n && n <= FEW_ARMS; i++)
        for (Py_ssize_t j = 0; j < i; j++)
            if (arms[i].call.ep == arms[j].call.ep)
                return raise_repeated(&arms[i]);
    if (n <= FEW_ARMS)
        return false;
    PyObject *seen = PySet_New(NULL);
    bool bad = seen == NULL;
    for (Py_ssize_t i = 0; i < n && !bad; i++) {
        int there = PySet_Contains(seen, (PyObject *)arms[i].call.ep);
        bad = there != 0 || PySet_Add(seen, (PyObject *)arms[i].call.ep) < 0;
        if (there > 0)
            raise_repeated(&arms[i]);
    }
    Py_XDECREF(seen);
    return bad;
}

static void blame_on(PyObject *error, PyObject *name, PyObject *what)
{
    if (what == NULL || PyObject_SetAttr(error, name, what) < 0)
        PyErr_Clear(); /* an error without attributes, or no memory: it says less, and is raised all the same */
}

void arm_blame(core_state *st, PyObject *passed, Py_ssize_t index)
{
    PyObject *error = core_take_error(), *number = PyLong_FromSsize_t(index);
    blame_on(error, st->s_index, number);
    blame_on(error, st->s_arm, passed);
    Py_XDECREF(number);
    core_give_error(error);
}

Py_ssize_t arms_off_thread(const arm *arms, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++)
        if (arms[i].call.ep->chan->thread != 0 && chan_off_thread(arms[i].call.ep->chan))
            return i;
    return -1;
}

/* ---- arguments ---------------------------------------------------------------------------------------- */

bool arms_parse_keywords(core_state *st, const char *name, PyObject *const *values, PyObject *kwnames, double *timeout,
                         bool *biased)
{
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *keyword = PyTuple_GET_ITEM(kwnames, i);
        if (timeout != NULL && PyUnicode_Compare(keyword, st->s_timeout) == 0) {
            if (!core_parse_timeout(values[i], timeout))
                return false;
        } else if (PyUnicode_Compare(keyword, st->s_biased) == 0) {
            int is = PyObject_IsTrue(values[i]);
            if (is < 0)
                return false;
            *biased = is;
        } else {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", name, keyword);
            return false;
        }
    }
    return true;
}

/* ---- whose turn it is ------------------------------------------------------------------------------- */

static uint64_t chosen_of(const arm *a)
{
    return atomic_load_explicit(&a->call.ep->chosen, memory_order_relaxed); /* a hint, as in the next function */
}

void arms_chose_among(arm *arms, Py_ssize_t n, Py_ssize_t index)
{
    uint64_t last = 0;
    for (Py_ssize_t i = 0; i < n; i++)
        if (chosen_of(&arms[i]) > last)
            last = chosen_of(&arms[i]);
    atomic_store_explicit(&arms[index].call.ep->chosen, last + 1, memory_order_relaxed); /* a hint */
}

static int compare_turns(const void *a, const void *b)
{
    const arm_turn *first = a, *second = b;
    if (first->chosen != second->chosen)
        return first->chosen < second->chosen ? -1 : 1;
    return first->index < second->index ? -1 : 1;
}

void arms_order(arm *arms, Py_ssize_t n, bool biased, arm_turn *turns)
{
    bool sorted = true;
    if (n == 1) {
        turns[0].index = 0;
        return;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        turns[i] = (arm_turn){.chosen = chosen_of(&arms[i]), .index = i};
        sorted &= i == 0 || turns[i - 1].chosen <= turns[i].chosen;
    }
    if (sorted || biased)
        return;
    if (n > FEW_ARMS) {
        qsort(turns, (size_t)n, sizeof *turns, compare_turns);
        return;
    }
    for (Py_ssize_t i = 1; i < n; i++) {
        arm_turn turn = turns[i];
        Py_ssize_t at = i;
        for (; at > 0 && turns[at - 1].chosen > turn.chosen; at--)
            turns[at] = turns[at - 1];
        turns[at] = turn;
    }
}

bool arm_surely_waits(const arm *a)
{
    Endpoint *ep = a->call.ep;
    nc_gate *g = &ep->chan->gate[ep->side];
    return !ep->closed && nc_gate_crowd(g) == 0 && nc_chan_have(ep->chan->block, ep->side) == 0;
}

int arm_add_types(PyObject *module, core_state *st)
{
    st->sending_type = core_add_type(module, &sending_spec, "Sending");
    st->claiming_type = st->sending_type != NULL ? core_add_type(module, &claiming_spec, "Claiming") : NULL;
    return st->claiming_type != NULL ? 0 : -1;
}
