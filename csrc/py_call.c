/* py_call.c: what calls have in common whether they carry objects or bytes: who is told, how a receive fails,
 * and batches.
 *
 * What differs is in the payload_kind of the channel: how a batch to be sent is held, and the looks.  Senders first,
 * receivers second.
 */
#include "py_core.h"

/* In items, or in bytes: those in line wait for the first message of a batch, its look then says for how much. */
static uint64_t share_of(Chan *c, uint64_t n)
{
    uint64_t most = c->ring != NULL ? c->ring->capacity : 1;
    return n < most ? n : most;
}

/* Not inlined: where nobody wants to know, which is mostly, the plain way is to stay short. */
PyObject *call_tell(Endpoint *ep, int side, PyObject *result)
{
    nc_box *kicks = NULL;
    Py_BEGIN_CRITICAL_SECTION(ep);
    nc_chan_notify(ep->chan->block, side, core_generation(), &kicks);
    Py_END_CRITICAL_SECTION();
    settle_soon(ep->chan, kicks);
    return result;
}

/* ---- senders ---------------------------------------------------------------------------------------- */

void call_raise_unsent(Call *call, int which, const char *why)
{
    const payload_kind *payload = call->ep->chan->payload;
    PyObject *unsent = PyList_GetSlice(call->value, call->n, PY_SSIZE_T_MAX);
    if (unsent == NULL)
        return;
    for (Py_ssize_t i = 0; payload->as_passed != NULL && i < PyList_GET_SIZE(unsent); i++)
        PyList_SetItem(unsent, i, Py_NewRef(payload->as_passed(PyList_GET_ITEM(unsent, i))));
    core_raise(call->ep->chan->st, which, unsent, "%s; %zd of %zd not sent", why, PyList_GET_SIZE(unsent),
               PyList_GET_SIZE(call->value));
    Py_DECREF(unsent);
}

void call_send_many_timed_out(Call *call) { call_raise_unsent(call, E_SEND_TIMEOUT, "no room within the timeout"); }

/* What a member of a batch is put in for, a new reference or NULL with an exception set.  Steals what was passed. */
static PyObject *member_of(Chan *c, PyObject *passed)
{
    if (passed == NULL || c->payload->checked == NULL)
        return passed;
    PyObject *member = c->payload->checked(c, passed);
    Py_DECREF(passed);
    return member;
}

/* A list that nobody else has, as what is sent must not change under way; all of it is checked before any is sent. */
static PyObject *snapshot(Chan *c, PyObject *sequence)
{
    PyObject *list = PySequence_List(sequence);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *member = member_of(c, Py_NewRef(PyList_GET_ITEM(list, i)));
        if (member == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, member);
    }
    return list;
}

/* What the source ended with cannot be raised, as the batch before it could not be sent: it is the context of the
 * current exception, which says so. */
void call_chain_failure(Call *call)
{
    PyObject *type, *value, *traceback;
    if (call->failure == NULL)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyException_SetContext(value, call->failure); /* steals it */
    call->failure = NULL;
    PyErr_Restore(type, value, traceback);
}

void call_clear(Call *call)
{
    Py_CLEAR(call->value);
    Py_CLEAR(call->source);
    Py_CLEAR(call->failure);
}

/* A list, a tuple, a range, a deque: not what makes its items as it goes. */
static bool is_sized(PyObject *iterable)
{
    PyTypeObject *type = Py_TYPE(iterable);
    bool sized = (type->tp_as_sequence != NULL && type->tp_as_sequence->sq_length != NULL) ||
                 (type->tp_as_mapping != NULL && type->tp_as_mapping->mp_length != NULL);
    return sized && !PyIter_Check(iterable);
}

/* The call that sends a batch: something with a length as it is now; of anything else what its iterator gives, piece by
 * piece.  False with an exception set.  The endpoint is borrowed. */
static bool send_many_call(Call *call, Endpoint *ep, int form, PyObject *iterable)
{
    Chan *c = ep->chan;
    *call = (Call){.op = &c->payload->send_many[form], .ep = ep, .least = 1, .share = 1};
    if (is_sized(iterable)) {
        call->value = snapshot(c, iterable);
        if (call->value != NULL)
            call->share = share_of(c, (uint64_t)PyList_GET_SIZE(call->value));
    } else {
        call->source = PyObject_GetIter(iterable);
        call->value = call->source != NULL ? PyList_New(0) : NULL;
    }
    if (call->value == NULL)
        call_clear(call);
    return call->value != NULL;
}

/* Raise what the source has ended with. */
static int raise_failure(Call *call)
{
    PyObject *failure = call->failure;
    call->failure = NULL;
    core_give_error(failure);
    return -1;
}

/* The source has ended, by an exception that is set or not. */
static void end_of_source(Call *call)
{
    if (PyErr_Occurred())
        call->failure = core_take_error();
    Py_CLEAR(call->source);
}

/* Can anything be sent at all?  Asked before something is taken from the source. */
static bool can_send(Call *call)
{
    Endpoint *ep = call->ep;
    step s;
    Py_BEGIN_CRITICAL_SECTION(ep);
    s = endpoint_check(ep);
    Py_END_CRITICAL_SECTION();
    if (s == STEP_READY && nc_gate_over_seen(&ep->chan->gate[TX])) {
        call_raise_unsent(call, E_SEND, "the receiver is gone");
        return false;
    }
    return s == STEP_READY;
}

int call_refill(Call *call, Py_ssize_t most)
{
    Chan *c = call->ep->chan;
    uint64_t room = nc_chan_room(c->block, core_generation()), taken = 0;
    PyObject *batch = call->failure == NULL ? PyList_New(0) : NULL;
    if (call->failure != NULL)
        return raise_failure(call);
    if (batch == NULL)
        return -1;
    Py_SETREF(call->value, batch);
    call->n = 0;
    if (!can_send(call) || PyErr_CheckSignals() < 0) /* a source in C runs no bytecode that would look for them */
        return -1;
    while (call->source != NULL) {
        PyObject *member = member_of(c, PyIter_Next(call->source));
        if (member == NULL) {
            end_of_source(call);
            break;
        }
        taken += c->payload->room_for != NULL ? c->payload->room_for(member) : 1;
        int failed = PyList_Append(batch, member);
        Py_DECREF(member);
        if (failed)
            end_of_source(call);
        if (PyList_GET_SIZE(batch) >= most || taken > room || room - taken < c->payload->least)
            break;
    }
    call->share = share_of(c, (uint64_t)PyList_GET_SIZE(batch));
    if (PyList_GET_SIZE(batch) > 0)
        return 1;
    return call->failure != NULL ? raise_failure(call) : 0;
}

/* `async for`, which only a coroutine can do; one of Python's own. */
static bool is_async_iterable(PyObject *iterable)
{
    PyAsyncMethods *async = Py_TYPE(iterable)->tp_as_async;
    return Py_TYPE(iterable)->tp_iter == NULL && async != NULL && async->am_aiter != NULL;
}

static PyObject *send_each(Endpoint *ep, PyObject *iterable, double timeout)
{
    PyObject *function = core_import("nexus_channels._batches", "send_many"), *coroutine = NULL;
    PyObject *limit = timeout < 0 ? Py_NewRef(Py_None) : PyFloat_FromDouble(timeout);
    if (function != NULL && limit != NULL)
        coroutine = PyObject_CallFunctionObjArgs(function, ep, iterable, limit, NULL);
    Py_XDECREF(function);
    Py_XDECREF(limit);
    return coroutine;
}

PyObject *endpoint_send_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    Call call;
    if (!core_parse_one(ep->chan->st, "send_many", args, n, kwnames, &timeout))
        return NULL;
    if (is_async_iterable(args[0]))
        return endpoint_idle(ep) ? send_each(ep, args[0], timeout) : NULL;
    if (!send_many_call(&call, ep, AWAITED, args[0]))
        return NULL;
    if (!endpoint_idle(ep)) {
        call_clear(&call);
        return NULL;
    }
    Py_INCREF(ep);
    return wait_new(&call, timeout);
}

PyObject *endpoint_send_many_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    Call call;
    if (!core_parse_one(ep->chan->st, "send_many_blocking", args, n, kwnames, &timeout) ||
        !send_many_call(&call, ep, BLOCKING, args[0]))
        return NULL;
    PyObject *result = wait_blocking(&call, timeout);
    call_clear(&call);
    return result;
}

/* As much from the call's source as there is room for: STEP_READY, or STEP_ERROR with an exception set; *sent counts.
 */
static step try_send_source(Call *call, Py_ssize_t *sent)
{
    Chan *c = call->ep->chan;
    while (call->source != NULL || call->failure != NULL) {
        if (call->failure == NULL && nc_chan_room(c->block, core_generation()) < c->payload->least)
            break;
        int more = call_refill(call, CALL_BATCH);
        if (more <= 0)
            return more < 0 ? STEP_ERROR : STEP_READY;
        step s = try_call(call, NULL);
        *sent += call->n;
        if (s == STEP_ERROR)
            return s;
        if (s != STEP_READY) {
            call_raise_unsent(call, E_FULL, "no room for what was taken from the iterator");
            return STEP_ERROR;
        }
    }
    return STEP_READY;
}

PyObject *endpoint_try_send_many(PyObject *self, PyObject *iterable)
{
    Call call;
    if (!send_many_call(&call, (Endpoint *)self, AWAITED, iterable))
        return NULL;
    step s = try_call(&call, NULL);
    Py_ssize_t sent = call.n;
    if (s == STEP_READY)
        s = try_send_source(&call, &sent);
    if (s == STEP_ERROR)
        call_chain_failure(&call);
    call_clear(&call);
    return s == STEP_ERROR ? NULL : PyLong_FromSsize_t(sent);
}

/* ---- receivers -------------------------------------------------------------------------------------- */

void call_raise_end(Call *call)
{
    if (!PyErr_Occurred())
        core_raise(call->ep->chan->st, E_RECV, NULL, "every sender is gone and everything was received");
}

void call_recv_timed_out(Call *call)
{
    core_raise(call->ep->chan->st, E_RECV_TIMEOUT, NULL, "nothing came within the timeout");
}

/* The call that receives up to `count`; false with an exception set.  The endpoint is borrowed. */
static bool recv_many_call(Call *call, Endpoint *ep, int form, PyObject *count)
{
    *call = (Call){.op = &ep->chan->payload->recv_many[form], .ep = ep, .n = core_parse_count(count)};
    call->least = 1;
    call->share = share_of(ep->chan, (uint64_t)call->n);
    return call->n != 0;
}

PyObject *endpoint_recv_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    Call call;
    if (!core_parse_one(ep->chan->st, "recv_many", args, n, kwnames, &timeout) ||
        !recv_many_call(&call, ep, AWAITED, args[0]) || !endpoint_idle(ep))
        return NULL;
    Py_INCREF(ep);
    return wait_new(&call, timeout);
}

PyObject *endpoint_recv_many_blocking(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    Call call;
    if (!core_parse_one(ep->chan->st, "recv_many_blocking", args, n, kwnames, &timeout) ||
        !recv_many_call(&call, ep, BLOCKING, args[0]))
        return NULL;
    return wait_blocking(&call, timeout);
}

PyObject *endpoint_try_recv_many(PyObject *self, PyObject *count)
{
    PyObject *list = NULL;
    Call call;
    if (!recv_many_call(&call, (Endpoint *)self, AWAITED, count))
        return NULL;
    return try_call(&call, &list) == STEP_BLOCKED ? PyList_New(0) : list;
}
