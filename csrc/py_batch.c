/* py_batch.c: send_many and recv_many, awaited, blocking and without waiting, of objects and of bytes alike.
 *
 * The differences are in the channel's payload_kind.  Senders first, receivers second.
 */
#include "py_await_life.h"
#include "py_call.h"
#include "py_chan.h"
#include "py_claim.h"
#include "py_endpoint.h"
#include "py_line.h"
#include "py_park.h"

/* ---- senders ---------------------------------------------------------------------------------------- */

/* A private list of checked members, as a batch must not change while it is sent.  All are checked before any is sent.
 */
static PyObject *snapshot(Chan *c, PyObject *sequence)
{
    PyObject *list = PySequence_List(sequence);
    if (c->payload->checked == NULL) /* members are the values themselves */
        return list;
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *member = call_member(c, Py_NewRef(PyList_GET_ITEM(list, i)));
        if (member == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, member);
    }
    return list;
}

/* A list, a tuple, a range, a deque: something with a length, and no iterator. */
static bool is_sized(PyObject *iterable)
{
    PyTypeObject *type = Py_TYPE(iterable);
    bool sized = (type->tp_as_sequence != NULL && type->tp_as_sequence->sq_length != NULL) ||
                 (type->tp_as_mapping != NULL && type->tp_as_mapping->mp_length != NULL);
    return sized && !PyIter_Check(iterable);
}

/* Make the call that sends a batch.  An iterable with a length is copied now; any other is taken piece by piece from
 * its iterator.  False with an exception set.  The endpoint is borrowed. */
static bool send_many_call(Call *call, Endpoint *ep, int form, PyObject *iterable)
{
    Chan *c = ep->chan;
    *call = (Call){.op = &c->payload->send_many[form], .ep = ep, .least = 1, .share = 1};
    if (is_sized(iterable)) {
        call->value = snapshot(c, iterable);
        if (call->value != NULL)
            call->share = call_share(c, (uint64_t)PyList_GET_SIZE(call->value));
    } else {
        call->source = PyObject_GetIter(iterable);
        call->value = call->source != NULL ? PyList_New(0) : NULL;
    }
    if (call->value == NULL)
        call_clear(call);
    return call->value != NULL;
}

/* Does it need `async for`?  Only a coroutine can do that, so a batch of it is sent by one in Python. */
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

/* What tasks of dead loops were promised is there for others.  A single call finds that out when nothing else is there;
 * a batch would be content with less.  False with an exception set. */
static bool take_from_the_dead(Endpoint *ep)
{
    nc_box *kicks = NULL;
    if (nc_gate_crowd(&ep->chan->gate[ep->side]) < NC_WAITER)
        return true;
    if (chan_off_thread(ep->chan))
        return false;
    line_reap(ep->chan, ep->side, &kicks);
    line_deliver_any(ep->chan, kicks);
    return true;
}

/* Send as much from the call's source as there is room for: STEP_READY, or STEP_ERROR with an exception set; *sent
 * counts. */
static step try_send_source(Call *call, Py_ssize_t *sent)
{
    Chan *c = call->ep->chan;
    while (call_has_more(call)) {
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
            call_raise_unsent(call, E_FULL, "no room");
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
    step s = take_from_the_dead((Endpoint *)self) ? try_call(&call, NULL) : STEP_ERROR;
    Py_ssize_t sent = call.n;
    if (s == STEP_READY)
        s = try_send_source(&call, &sent);
    if (s == STEP_ERROR)
        call_chain_failure(&call);
    call_clear(&call);
    return s == STEP_ERROR ? NULL : PyLong_FromSsize_t(sent);
}

/* ---- receivers -------------------------------------------------------------------------------------- */

/* Make the call that receives up to `count`; false with an exception set.  The endpoint is borrowed. */
static bool recv_many_call(Call *call, Endpoint *ep, int form, PyObject *count)
{
    *call = (Call){.op = &ep->chan->payload->recv_many[form], .ep = ep, .n = core_parse_count(count)};
    call->least = 1;
    call->share = call_share(ep->chan, (uint64_t)call->n);
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
    if (!recv_many_call(&call, (Endpoint *)self, AWAITED, count) || !take_from_the_dead((Endpoint *)self))
        return NULL;
    return try_call(&call, &list) == STEP_BLOCKED ? PyList_New(0) : list;
}
