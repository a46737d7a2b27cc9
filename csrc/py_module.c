/* py_module.c: the module nexus_channels._core: makes, visits and frees its state.  It knows every other file of the
 * binding; none of them knows it. */
#include "py_module.h"
#include "py_await_life.h"
#include "py_chan.h"
#include "py_claim.h"
#include "py_doc.h"
#include "py_doorbell.h"
#include "py_ends.h"
#include "py_future.h"
#include "py_inside.h"
#include "py_listen.h"
#include "py_logging.h"
#include "py_park.h"
#include "py_select.h"
#include "py_selected.h"
#include "py_shared.h"
#include "py_stop.h"
#include "py_ticket.h"
#include "py_trio.h"
#include "py_wake.h"
#include "py_wake_fd.h"

/* ---- how it was built ----------------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZER "address"
#elif defined(__SANITIZE_THREAD__)
#define SANITIZER "thread"
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZER "address"
#elif __has_feature(thread_sanitizer)
#define SANITIZER "thread"
#endif
#endif
#ifndef SANITIZER
#define SANITIZER ""
#endif
#ifndef NC_BUILD_FLAGS
#define NC_BUILD_FLAGS ""
#endif

/* build_info(): how this module was built. */
static PyObject *build_info(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    _Atomic uint64_t word = 0;
    const char *wake = !WAKE_FDS ? "call_soon_threadsafe" : NC_LINUX ? "eventfd" : "pipe";
#ifdef NDEBUG
    int debug = 0;
#else
    int debug = 1;
#endif
    return Py_BuildValue("{s:s,s:s,s:N,s:N,s:s,s:N,s:s,s:i,s:N}", "compiler", __VERSION__, "flags", NC_BUILD_FLAGS,
                         "atomics_lock_free", PyBool_FromLong(atomic_is_lock_free(&word)), "free_threaded",
                         PyBool_FromLong(NC_FREE_THREADED), "wake", wake, "debug", PyBool_FromLong(debug), "sanitizer",
                         SANITIZER, "cache_line", NC_CACHE_LINE, "insides", inside_names(PyModule_GetState(module)));
}

/* ---- its state ---------------------------------------------------------------------------------------- */

static const char *const error_names[ERRORS] = {
    [E_BUSY] = "BusyError",
    [E_CHANNEL] = "ChannelError",
    [E_CLAIM_DISCONNECTED] = "ClaimDisconnected",
    [E_CLAIM_FULL] = "ClaimFull",
    [E_CLAIM_RELEASED] = "ClaimReleased",
    [E_CLAIM_TIMEOUT] = "ClaimTimeout",
    [E_CLAIM_TOO_LARGE] = "ClaimTooLarge",
    [E_EMPTY] = "Empty",
    [E_ENDPOINT_CLOSED] = "EndpointClosed",
    [E_FULL] = "Full",
    [E_NOTHING_READY] = "NothingReady",
    [E_RECV] = "RecvError",
    [E_RECV_TIMEOUT] = "RecvTimeout",
    [E_SELECT_TIMEOUT] = "SelectTimeout",
    [E_SEND] = "SendError",
    [E_SEND_TIMEOUT] = "SendTimeout",
    [E_WRONG_THREAD] = "WrongThreadError",
    [E_ZERO_LENGTH] = "ZeroLengthClaim",
};

static int import_errors(core_state *st)
{
    for (int i = 0; i < ERRORS; i++)
        if ((st->errors[i] = core_import("nexus_channels.errors", error_names[i])) == NULL)
            return -1;
    return 0;
}

static int import_others(core_state *st)
{
    if ((st->Statistics = core_import("nexus_channels._types", "Statistics")) == NULL ||
        (st->OpenEnd = core_import("nexus_channels._types", "OpenEnd")) == NULL ||
        (st->get_running_loop = core_import("asyncio", "_get_running_loop")) == NULL ||
        (st->BaseEventLoop = core_import("asyncio", "BaseEventLoop")) == NULL ||
        (st->Future = core_import("asyncio", "Future")) == NULL ||
        (st->Future_set_result = PyObject_GetAttrString(st->Future, "set_result")) == NULL ||
        (st->Future_blocking = PyObject_GetAttrString(st->Future, "_asyncio_future_blocking")) == NULL ||
        (st->Task = core_import("asyncio", "Task")) == NULL ||
        (st->CancelledError = core_import("asyncio", "CancelledError")) == NULL ||
        (st->loop_keyword = Py_BuildValue("(s)", "loop")) == NULL ||
        (st->context_keyword = Py_BuildValue("(s)", "context")) == NULL ||
        (st->current_tasks = core_import("asyncio", "current_task")) == NULL ||
        (st->invalid_state = core_import("asyncio", "InvalidStateError")) == NULL ||
        (st->first_indices = Py_BuildValue("(iiii)", 0, 1, 2, 3)) == NULL ||
        (st->atexit_register = core_import("atexit", "register")) == NULL || (st->mailboxes = PyDict_New()) == NULL ||
        (st->chans = PyDict_New()) == NULL)
        return -1;
    return 0;
}

static int intern_names(core_state *st)
{
#define INTERN(field, text)                                     \
    if ((st->field = PyUnicode_InternFromString(text)) == NULL) \
        return -1;
    CORE_NAMES(INTERN)
    return 0;
}

/* What each file adds. */
static int (*const adders[])(PyObject *module, core_state *st) = {
    chan_add_types,     ring_add_types,   log_add_types,      claim_add_types,       loop_add_types,  future_add_types,
    await_add_types,    native_add_types, notifier_add_types, claim_await_add_types, arm_add_types,   select_add_types,
    selected_add_types, merge_add_types,  stop_add_types,     ticket_add_types,      watch_add_types, listen_add_types,
};

static int core_exec(PyObject *module)
{
    core_state *st = PyModule_GetState(module);
    st->module = module;
    st->number = core_number();
    ends_read_environment(st);
    park_init();
    block_watch();
    if (core_watch_process() < 0 || import_errors(st) < 0 || import_others(st) < 0 || inside_choose(st) < 0 ||
        intern_names(st) < 0)
        return -1;
    for (size_t i = 0; i < sizeof adders / sizeof adders[0]; i++)
        if (adders[i](module, st) < 0)
            return -1;
    static const char *const kinds[KINDS] = {"LOCAL", "SPSC", "MPSC", "SPSC_BYTES", "MPSC_BYTES"};
    for (int kind = 0; kind < KINDS; kind++)
        if (PyModule_AddIntConstant(module, kinds[kind], kind) < 0)
            return -1;
    return 0;
}

/* Apply X to everything that the state refers to, except its names. */
#define REFERENCES(X)                          \
    for (int i = 0; i < ERRORS; i++)           \
        X(errors[i])                           \
    for (int i = 0; i < KINDS * SIDES; i++)    \
        X(endpoint_type[i / SIDES][i % SIDES]) \
    for (int side = 0; side < SIDES; side++) { \
        X(claim_type[side])                    \
        X(native_type[side])                   \
    }                                          \
    CORE_TYPES(X)                              \
    CORE_OBJECTS(X)

#define VISIT(field) Py_VISIT(st->field);
#define CLEAR(field) Py_CLEAR(st->field);
#define CLEAR_NAME(field, text) CLEAR(field)

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    core_state *st = PyModule_GetState(module);
    if (st == NULL)
        return 0;
    REFERENCES(VISIT)
    Py_VISIT(atomic_load_explicit(&st->stop, memory_order_relaxed));
    Py_VISIT(atomic_load_explicit(&st->trio_tools, memory_order_relaxed));
    return wait_traverse_spares(st, visit, arg);
}

/* Clears only what can be part of a cycle through a user's objects.  Channels may outlive this call and still
 * need the rest, which is freed with the state itself. */
static int core_clear(PyObject *module)
{
    core_state *st = PyModule_GetState(module);
    if (st != NULL && st->mailboxes != NULL)
        PyDict_Clear(st->mailboxes);
    if (st != NULL) {
        Py_CLEAR(st->recent);
        Py_CLEAR(st->loop_class);
        wait_free_spares(st);
        stop_free(st);
    }
    return 0;
}

static void core_free(void *module)
{
    core_state *st = PyModule_GetState(module); /* without one, CPython does not come here */
    ticket_forget(st);
    doorbell_leave(st);
    trio_forget(st);
    wait_free_spares(st);
    stop_free(st);
    wake_free_spares(st);
    future_free_spares(st);
    claim_free_spares(st);
    selected_free_spares(st);
    REFERENCES(CLEAR)
    CORE_NAMES(CLEAR_NAME)
}

/* ---- what Python sees --------------------------------------------------------------------------------- */

static PyMethodDef core_methods[] = {
    {"open", (PyCFunction)(void (*)(void))chan_open, METH_FASTCALL, open_doc},
    {"select", FAST(select_await), METH_FASTCALL | METH_KEYWORDS, select_doc},
    {"select_blocking", FAST(select_blocking), METH_FASTCALL | METH_KEYWORDS, select_blocking_doc},
    {"try_select", FAST(select_try), METH_FASTCALL | METH_KEYWORDS, try_select_doc},
    {"log_message", (PyCFunction)(void (*)(void))logging_message, METH_FASTCALL, log_message_doc},
    {"set_debug_ends", ends_set_debug, METH_O, set_debug_ends_doc},
    {"attach", ticket_attach, METH_O, attach_doc},
    {"_ticket", FAST(ticket_read), METH_FASTCALL, NULL},
    {"leave_shared", shared_leave, METH_NOARGS, leave_shared_doc},
    {"ticket_parts", ticket_parts, METH_O, ticket_parts_doc},
    {"ticket_of_parts", ticket_of_parts, METH_VARARGS, ticket_of_parts_doc},
    {"open_shared", (PyCFunction)(void (*)(void))shared_open, METH_FASTCALL, open_shared_doc},
    {"listen_at", (PyCFunction)(void (*)(void))listen_open, METH_FASTCALL, listen_at_doc},
    {"connect_to", (PyCFunction)(void (*)(void))listen_connect, METH_FASTCALL, connect_to_doc},
    {"build_info", build_info, METH_NOARGS, build_info_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef core_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "nexus_channels._core",
    .m_doc = "The channels themselves; use nexus_channels and its modules.",
    .m_size = sizeof(core_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
