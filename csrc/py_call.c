/* py_call.c: what calls have in common whether they carry objects or bytes: whom they notify, how they fail, and how a
 * call that sends a batch takes more from its source.
 *
 * The differences are in the channel's payload_kind: how a batch to be sent is held, and the looks.
 */
#include "py_call.h"
#include "py_chan.h"
#include "py_line.h"
#include "py_tell.h"

uint64_t call_share(Chan *c, uint64_t n)
{
    uint64_t most = nc_chan_of_bytes(c->block) ? 1 : nc_chan_capacity(c->block);
    return n < most ? n : most;
}

/* Not inlined: mostly nobody waits, and the plain way is to stay short. */
PyObject *call_notify(Endpoint *ep, int side, PyObject *result)
{
    nc_box *kicks = NULL;
    Py_BEGIN_CRITICAL_SECTION(ep);
    nc_chan_call_waiting(ep->chan->block, side, core_generation(), &kicks);
    Py_END_CRITICAL_SECTION();
    line_deliver_any(ep->chan, kicks);
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
    Py_ssize_t left = PyList_GET_SIZE(unsent);
    if (call->source != NULL) /* how many it has is not known */
        core_raise(call->ep->chan->st, which, unsent, "%s; %zd taken from the iterator and not sent", why, left);
    else
        core_raise(call->ep->chan->st, which, unsent, "%s; %zd of %zd not sent", why, left,
                   PyList_GET_SIZE(call->value));
    Py_DECREF(unsent);
    if (which == E_SEND)
        tell_how(call->ep->chan);
}

void call_send_many_timed_out(Call *call) { call_raise_unsent(call, E_SEND_TIMEOUT, "no room within the timeout"); }

PyObject *call_member(Chan *c, PyObject *passed)
{
    if (passed == NULL || c->payload->checked == NULL)
        return passed;
    PyObject *member = c->payload->checked(c, passed);
    Py_DECREF(passed);
    return member;
}

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

/* Raise the exception that ended the source. */
static int raise_failure(Call *call)
{
    PyObject *failure = call->failure;
    call->failure = NULL;
    core_give_error(failure);
    return -1;
}

/* The source has ended, with an exception if one is set. */
static void end_of_source(Call *call)
{
    if (PyErr_Occurred())
        call->failure = core_take_error();
    Py_CLEAR(call->source);
}

/* Can anything be sent at all?  Asked before anything is taken from the source. */
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
    if (!can_send(call) || PyErr_CheckSignals() < 0) /* a source in C runs no bytecode, which would check for signals */
        return -1;
    while (call->source != NULL) {
        PyObject *member = call_member(c, PyIter_Next(call->source));
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
    call->share = call_share(c, (uint64_t)PyList_GET_SIZE(batch));
    if (PyList_GET_SIZE(batch) > 0)
        return 1;
    return call->failure != NULL ? raise_failure(call) : 0;
}

/* ---- receivers -------------------------------------------------------------------------------------- */

void call_raise_end(Call *call)
{
    Chan *c = call->ep->chan;
    if (PyErr_Occurred())
        return;
    core_raise(c->st, E_RECV, NULL, "every sender is gone and everything was received");
    tell_how(c);
}

void call_recv_timed_out(Call *call)
{
    core_raise(call->ep->chan->st, E_RECV_TIMEOUT, NULL, "nothing came within the timeout");
}
