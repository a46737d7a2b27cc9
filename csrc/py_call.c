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
    gate_notify(ep->chan->block, side, &kicks);
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

/* The call that sends a batch, which call.value holds; false with an exception set.  The endpoint is borrowed. */
static bool send_many_call(Call *call, Endpoint *ep, int form, PyObject *iterable)
{
    const payload_kind *payload = ep->chan->payload;
    *call = (Call){.op = &payload->send_many[form], .ep = ep, .value = payload->snapshot(ep->chan, iterable)};
    if (call->value == NULL)
        return false;
    call->least = 1;
    call->share = share_of(ep->chan, (uint64_t)PyList_GET_SIZE(call->value));
    return true;
}

PyObject *endpoint_send_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    Endpoint *ep = (Endpoint *)self;
    double timeout;
    Call call;
    if (!core_parse_one(ep->chan->st, "send_many", args, n, kwnames, &timeout) ||
        !send_many_call(&call, ep, AWAITED, args[0]))
        return NULL;
    if (!endpoint_idle(ep)) {
        Py_DECREF(call.value);
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
    Py_DECREF(call.value);
    return result;
}

PyObject *endpoint_try_send_many(PyObject *self, PyObject *sequence)
{
    Call call;
    if (!send_many_call(&call, (Endpoint *)self, AWAITED, sequence))
        return NULL;
    step s = try_call(&call, NULL);
    Py_DECREF(call.value);
    return s == STEP_ERROR ? NULL : PyLong_FromSsize_t(call.n);
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
