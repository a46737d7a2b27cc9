/* py_core.h: what the py_*.c files share: the module's state, channels, endpoints and calls.
 *
 * A message on its way: Sender method (py_ring.c, py_log.c; of a batch py_call.c) -> Call -> its look -> nc_ring.h or
 * nc_log.h; what has to wait goes through py_await.c and py_park.c, which know calls only by their `look`.
 *
 * Locks, outermost first: the critical section of an awaitable and of its endpoint (free-threaded builds;
 * elsewhere the GIL is both), then a gate's lock.  No Python code runs and nothing is released while a
 * gate's lock is held; what has to run afterwards is kept as a chain of boxes to kick.
 */
#ifndef NC_PY_CORE_H
#define NC_PY_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <time.h>

#include "nc_chan.h"
#include "nc_end.h"

#if PY_VERSION_HEX < 0x030D0000 /* the GIL is the critical section */
#define Py_BEGIN_CRITICAL_SECTION(op) {
#define Py_END_CRITICAL_SECTION() }
#define Py_BEGIN_CRITICAL_SECTION2(a, b) {
#define Py_END_CRITICAL_SECTION2() }
#endif

#ifdef Py_GIL_DISABLED
#define NC_FREE_THREADED 1
#else
#define NC_FREE_THREADED 0
#endif

/* What chan_way() gives, for the shortest ways. */
#define NC_PUBLISH (NC_FREE_THREADED ? memory_order_seq_cst : memory_order_release)
#define NC_GLANCE (NC_FREE_THREADED ? memory_order_seq_cst : memory_order_relaxed)

enum { TX = NC_TX, RX = NC_RX, SIDES = NC_SIDES };
typedef enum { LOCAL, SPSC, MPSC, SPSC_BYTES, MPSC_BYTES, KINDS } chan_kind;

/* Where references are traced, or threads run at once, an object that ended is freed. */
#if NC_FREE_THREADED || defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
#define NC_RECYCLES 0
#else
#define NC_RECYCLES 1
#endif
enum { NC_SPARES = 64 };

/* The calling thread as PyThread_get_thread_ident() names it, without a call where that is known to be the same. */
static inline unsigned long this_thread(void)
{
#if defined(__GLIBC__) && defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)
    return (unsigned long)__builtin_thread_pointer();
#else
    return PyThread_get_thread_ident();
#endif
}

static inline int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* ---- module state ---------------------------------------------------------------------------------- */

enum { /* index into core_state.errors; names in py_module.c */
       E_BUSY,
       E_CLAIM_DISCONNECTED,
       E_CLAIM_FULL,
       E_CLAIM_RELEASED,
       E_CLAIM_TIMEOUT,
       E_CLAIM_TOO_LARGE,
       E_EMPTY,
       E_ENDPOINT_CLOSED,
       E_FULL,
       E_RECV,
       E_RECV_TIMEOUT,
       E_SEND,
       E_SEND_TIMEOUT,
       E_WRONG_THREAD,
       E_ZERO_LENGTH,
       ERRORS,
};

/* How long the tasks of a thread hold its loop by awaiting what was ready: see py_pace.c.  Of the module with a GIL, of
 * the thread without. */
enum { PACE_TASKS = 64 };
typedef struct pace {
    int left;                     /* ready awaits that may pass before anybody looks here */
    int run;                      /* what `left` was set to */
    int credit;                   /* ready awaits that no look at a clock was paid with yet */
    int held;                     /* ready awaits of `task` in its turn, as far as it is known */
    int turns;                    /* in a row that went on, as nobody else wanted the loop */
    void *task;                   /* whose turn it was at the last look; compared, never followed */
    PyObject *alive;              /* a weak reference to it; without a GIL NULL */
    bool over;                    /* somebody has yielded or waited since */
    bool shares, shared;          /* `left` is an even part among those who want the same; it was, at the last look */
    int64_t began;                /* of the run that is being measured, in ns; 0: none is */
    struct {
        void *task;
        int every;                /* ready awaits that take it the time of a turn; INT_MAX: not known */
        int last;                 /* the same by the last measurement alone; 0: there was none */
    } of[PACE_TASKS];
} pace;

/* Objects that ended and are to be used again: a strong reference to each. */
typedef struct spares {
    unsigned n;
    PyObject *of[NC_SPARES];
} spares;

/* What the state refers to, each listed once: X(field).  Made in py_module.c, visited and cleared there by this list.
 */
#define CORE_TYPES(X)                                                                        \
    X(chan_type)            /* a channel's shared part; not visible from Python */           \
    X(awaitable_type)                                                                        \
    X(claim_awaitable_type) /* what Sender.claim() returns: also an async context manager */ \
    X(claim_iterator_type)                                                                   \
    X(future_type)          /* what tasks wait on */                                         \
    X(mailbox_type)         /* one a loop that was waited on; not visible from Python */

#define CORE_OBJECTS(X)                                                                     \
    X(Statistics)           /* nexus_channels._types.Statistics, and OpenEnd of the same */ \
    X(OpenEnd)                                                                              \
    X(mailboxes)            /* dict: id of a loop -> its mailbox */                         \
    X(recent)               /* GIL builds: the mailbox used last, or NULL */                \
    X(get_running_loop)     /* asyncio._get_running_loop */                                 \
    X(BaseEventLoop)        /* asyncio's */                                                 \
    X(Future)               /* asyncio.Future */                                            \
    X(Future_set_result)    /* its method */                                                \
    X(Future_blocking)      /* its descriptor of _asyncio_future_blocking */                \
    X(Task)                 /* asyncio.Task */                                              \
    X(woken)                /* an asyncio.Future that is done: what woken tasks are told */ \
    X(loop_keyword)         /* ('loop',) */                                                 \
    X(context_keyword)      /* ('context',) */                                              \
    X(context_names)        /* the same, as tasks have it */                                \
    X(current_tasks)        /* dict loop -> task (up to 3.13), or asyncio.current_task() */ \
    X(CancelledError)       /* asyncio's */                                                 \
    X(invalid_state)        /* asyncio.InvalidStateError */

/* Interned: X(field, text). */
#define CORE_NAMES(X)                                 \
    X(s_add_done_callback, "add_done_callback")       \
    X(s_add_reader, "add_reader")                     \
    X(s_blocking, "_asyncio_future_blocking")         \
    X(s_call_later, "call_later")                     \
    X(s_call_soon, "call_soon")                       \
    X(s_call_soon_threadsafe, "call_soon_threadsafe") \
    X(s_cancel, "cancel")                             \
    X(s_context, "context")                           \
    X(s_create_future, "create_future")               \
    X(s_done, "done")                                 \
    X(s_expire, "_expire")                            \
    X(s_get_loop, "get_loop")                         \
    X(s_is_closed, "is_closed")                       \
    X(s_msg, "msg")                                   \
    X(s_ready, "_ready")                              \
    X(s_release, "release")                           \
    X(s_running, "__asyncio_running_event_loop__")    \
    X(s_scheduled, "_scheduled")                      \
    X(s_set_result, "set_result")                     \
    X(s_time, "time")                                 \
    X(s_timeout, "timeout")                           \
    X(s_when, "_when")

#define CORE_TYPE_FIELD(field) PyTypeObject *field;
#define CORE_OBJECT_FIELD(field) PyObject *field;
#define CORE_NAME_FIELD(field, text) PyObject *field;

typedef struct core_state {
    PyObject *module;             /* borrowed: this is its state */
    PyObject *errors[ERRORS];
    PyTypeObject *endpoint_type[KINDS][SIDES];
    const struct payload_kind *payload[KINDS]; /* what a channel of that kind carries */
    PyTypeObject *claim_type[SIDES];  /* WriteClaim, ReadClaim */
    PyTypeObject *native_type[SIDES]; /* NativeSender, NativeReceiver */
    CORE_TYPES(CORE_TYPE_FIELD)
    CORE_OBJECTS(CORE_OBJECT_FIELD)
    CORE_NAMES(CORE_NAME_FIELD)
    _Atomic bool debug_ends;      /* remember where ends are made; relaxed */
    pace pace;
    PyThreadState *const *tstate; /* 3.11: where CPython keeps the current thread state; NULL: ask it by a call */
    spares spare[2];              /* awaitables, those of claims apart */
    unsigned spares_most;         /* how many of each are kept; 0 once the module goes */
    void *spare_future;           /* dead futures to be used again: the first of a list */
    unsigned spare_futures;       /* and how many there are */
    struct sleeper *spare_sleeper; /* the same of sleepers */
    unsigned spare_sleepers;
    PyObject *_Atomic stop;       /* a StopIteration for when there is no memory to hand a result over; relaxed */
    void *spare_claim;            /* the same of dead claims */
    unsigned spare_claims;
    PyTypeObject *holder_type;    /* 3.11: see running_loop(); this and the next three */
    void *holder;
    uint64_t holder_seen;
    uint32_t holder_born;
} core_state;

/* Raise errors[which](message), or errors[which](message, value) where a value was not sent; NULL. */
PyObject *core_raise(core_state *st, int which, PyObject *value, const char *format, ...);
/* Count the forks of this process from now on. */
void core_watch_forks(void);
/* A new type, added to the module under `name`; a reference, or NULL with an exception set. */
PyTypeObject *core_add_type(PyObject *module, PyType_Spec *spec, const char *name);
/* An attribute of a module, which is imported; a new reference, or NULL with an exception set. */
PyObject *core_import(const char *module, const char *name);
/* Seconds from an argument: < 0 for None or infinity; false with ValueError or TypeError set. */
bool core_parse_timeout(PyObject *arg, double *seconds);

/* Python code that a call runs on its way, a loop's is_closed() for instance, may be interrupted by a signal handler.
 * What the handler raises belongs to the program.  It must not be taken for an error of that code.
 *
 * Is the current exception such an interruption? */
bool core_interrupted(void);
/* The current exception as an object, with its traceback: taken, and set again, which takes the object over. */
PyObject *core_take_error(void);
void core_give_error(PyObject *error);
/* Hand the current exception on: this thread raises it at its next bytecode, or in a blocking call before it sleeps. */
void core_postpone(void);
/* To try once more what was interrupted.  What interrupted it is kept until the end, or it would do so again. */
enum { INTERRUPTIONS = 8 }; /* in a row; a handler that raises each time must not hold us up for ever */
typedef struct interruptions {
    int n;
    PyObject *of[INTERRUPTIONS];
} interruptions;
/* Is the current exception an interruption, and one more try worthwhile?  Then it is kept. */
bool core_try_again(interruptions *kept);
/* Hand on all that was kept; keeps the current exception. */
void core_postpone_all(interruptions *kept);
/* Was something handed on that is not raised yet?  Then raise it: true with an exception set. */
bool core_raise_postponed(void);
/* Drop the current exception, if any; an interruption is handed on. */
void core_drop_error(void);
/* Report the current exception as unraisable; an interruption is handed on. */
void core_report_error(PyObject *about);
/* Is this the thread that runs Python's signal handlers and pending calls? */
bool core_handles_signals(void);
/* Is this the main thread of the process? */
bool core_main_thread(void);
/* A new reference, or NULL without an exception. */
static inline PyObject *core_dict_find(PyObject *dict, PyObject *key)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *value;
    if (PyDict_GetItemRef(dict, key, &value) < 0)
        core_drop_error();
    return value;
#else
    PyObject *value = PyDict_GetItemWithError(dict, key);
    if (value == NULL)
        core_drop_error();
    return Py_XNewRef(value);
#endif
}

/* What a weak reference refers to, a new reference, or NULL without an exception when it is gone. */
static inline PyObject *core_weak_target(PyObject *weak)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *target;
    PyWeakref_GetRef(weak, &target);
    return target;
#else
    PyObject *target = PyWeakref_GET_OBJECT(weak);
    return target == Py_None ? NULL : Py_NewRef(target);
#endif
}
/* How many times this process was forked off, counting along: what was born elsewhere must not be woken. */
extern _Atomic uint32_t core_forks;
static inline uint32_t core_generation(void)
{
    return atomic_load_explicit(&core_forks, memory_order_relaxed); /* the only thread after a fork */
}

/* ---- channels and endpoints ------------------------------------------------------------------------ */

/* The part of a channel that is no Python object, its block: one allocation, with gates and ring behind it.  Native
 * code may hold on to it when all else is gone; whoever drops the last reference frees it, with or without a GIL. */
static inline void block_unref(nc_chan *block)
{
    if (!nc_chan_unref(block))
        return;
    nc_chan_destroy(block);
    PyMem_RawFree(block->memory);
}

/* What somebody outside of Python has been lent, a native end: freed by whoever drops the last reference, with or
 * without a GIL. */
typedef struct lease {
    _Atomic uint32_t refs;
    nc_end life;                  /* who may touch it, and whether what was lent is given back */
    void (*drop)(struct lease *); /* free it */
} lease;

static inline void lease_ref(lease *l)
{
    atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed); /* the caller holds one already */
}

static inline void lease_unref(lease *l)
{
    if (atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) == 1) /* B1 -> B1 */
        l->drop(l);
}

typedef struct birth birth;

typedef struct Chan {
    PyObject_HEAD
    PyObject *module;             /* keeps `st` alive, whatever the collector clears first */
    core_state *st;
    nc_chan *block;               /* a reference; the next three are copies of its pointers, for the shortest way */
    nc_ring *ring;
    nc_log *log;
    nc_gate *gate;
    const struct payload_kind *payload;
    _Atomic unsigned rivals[SIDES]; /* see count_rivals(); written under the gate's lock or as a hint, relaxed */
    birth *births;                /* of its ends, made in debug mode; in the channel's critical section */
    chan_kind kind;
    unsigned long thread;         /* LOCAL: the one thread it belongs to; else 0 */
} Chan;

typedef struct Endpoint {
    PyObject_HEAD
    Chan *chan;                   /* until the endpoint is freed */
    PyObject *weakrefs;
    uint8_t side;
    bool closed;                  /* by its user or by its end; this and the next two in its critical section */
    bool deferred;                /* somebody in line may wait for `claim` to end */
    struct Claim *claim;          /* the open claim that has borrowed it; borrowed: the claim refers to it */
    lease *lent;                  /* the native end that has, a reference; maybe given back: ask endpoint_leased() */
    birth *birth;                 /* where it was made, in debug mode; else NULL */
    _Atomic unsigned spin;        /* pauses worth spending before a blocking wait sleeps */
} Endpoint;

/* Has a native end still borrowed the endpoint, whose `lent` is set?  Else it is given back.  Holding the endpoint. */
static inline bool endpoint_leased(Endpoint *ep)
{
    if (!nc_end_has_left(&ep->lent->life))
        return true;
    lease_unref(ep->lent);
    ep->lent = NULL;
    return false;
}

/* ---- calls: one send or receive, however it waits --------------------------------------------------- */

typedef enum {
    STEP_READY = NC_DONE, /* the result is in *out (NULL stands for None) */
    STEP_ERROR = NC_DISCONNECTED, /* for this reason or another: an exception is set; nothing was sent or taken */
    STEP_BLOCKED = NC_BLOCKED, /* not now */
    STEP_PARTIAL, /* some of a batch went; not the rest now */
    STEP_BUSY, /* it is this call's turn, but a claim holds the endpoint */
} step;

typedef struct Call {
    const struct call_op *op;
    Endpoint *ep; /* strong, unless the call lives on the stack of a method of ep */
    PyObject *value; /* what to send: one value, or a list; strong, NULL once it is in the ring */
    Py_ssize_t n; /* recv_many: at most; send_many: how many went; claim: bytes */
    uint64_t least, share; /* for the waiter: needs, and will take at most */
    PyObject *entered; /* async with tx.claim(n): the claim, from its start to its end; strong */
    bool late; /* it has begun to wait: a lent endpoint is waited for, too */
    PyObject *source; /* send_many: the iterator that `value` is filled from; strong, NULL once it ended */
    PyObject *failure; /* what `source` ended with: to be raised when all that came before is sent; strong */
} Call;

typedef struct call_op {
    const char *name, *qualname;
    /* Try once, holding the endpoint.  `called`: it is this call's turn; else it must go behind those who
     * wait.  Whom it made room for, or gave something to, is chained to `kicks`. */
    step (*look)(Call *, bool called, PyObject **out, nc_box **kicks);
    /* Raise what this call raises when its time is up. */
    void (*timed_out)(Call *);
    bool claims; /* the awaitable is to be a ClaimAwaitable */
    bool paced; /* it counts when a task holds its loop by what is ready, and may have to yield */
    /* With a GIL, where most calls end: the result of a look that nobody has to be told of, a new reference; or NULL
     * without an exception, and the look is still to come.  Of bytes, the caller tells a native thread that has come to
     * want to know meanwhile.  NULL where there is no such short way. */
    PyObject *(*at_once)(Call *);
} call_op;

/* What objects and bytes do differently in a batch; the rest is py_call.c's. */
enum { AWAITED, BLOCKING, FORMS };
typedef struct payload_kind {
    PyObject *(*checked)(Chan *, PyObject *value); /* what is put into a batch for it, a new reference; NULL: itself */
    PyObject *(*as_passed)(PyObject *); /* what a member of a batch was passed as, borrowed; NULL: itself */
    uint64_t (*room_for)(PyObject *); /* what a member of a batch takes in the ring; NULL: 1 */
    uint64_t least; /* what a member takes at least */
    call_op send_many[FORMS], recv_many[FORMS];
} payload_kind;
#define SEND_MANY_OPS(its_look)                   \
    {                                             \
        {.name = "send_many",                     \
         .qualname = "Sender.send_many",          \
         .look = its_look,                        \
         .timed_out = call_send_many_timed_out,   \
         .paced = true},                          \
        {.name = "send_many_blocking",            \
         .qualname = "Sender.send_many_blocking", \
         .look = its_look,                        \
         .timed_out = call_send_many_timed_out},  \
    }
#define RECV_MANY_OPS(its_look)                     \
    {                                               \
        {.name = "recv_many",                       \
         .qualname = "Receiver.recv_many",          \
         .look = its_look,                          \
         .timed_out = call_recv_timed_out,          \
         .paced = true},                            \
        {.name = "recv_many_blocking",              \
         .qualname = "Receiver.recv_many_blocking", \
         .look = its_look,                          \
         .timed_out = call_recv_timed_out},         \
    }

/* py_inside.c */
PyThreadState *const *inside_tstate(void);

/* py_call.c */
/* Something was published, or given back, the plain way, and the flag says that somebody wants to know.  Hands the
 * result on. */
PyObject *call_tell(Endpoint *ep, int side, PyObject *result);
/* Raise errors[which] with the list of what was not sent of a batch, as it was passed. */
void call_raise_unsent(Call *call, int which, const char *why);
void call_send_many_timed_out(Call *call);
/* All that was taken from call->source is sent: take up to `most` more, as far as there is room, or one.  1: there is
 * something to send; 0: that was all; -1 with an exception set.  Runs Python code. */
int call_refill(Call *call, Py_ssize_t most);
enum { CALL_BATCH = 64 }; /* so many at once, where no loop has to go on meanwhile */
/* Let go of what the call holds, but for its endpoint. */
void call_clear(Call *call);
/* Is there more in its source than was taken from it, or has the source failed? */
static inline bool call_has_more(const Call *call) { return call->source != NULL || call->failure != NULL; }
/* The call has failed with the current exception: what its source has ended with becomes that one's context. */
void call_chain_failure(Call *call);
/* The end of the stream as an error, unless another is set. */
void call_raise_end(Call *call);
void call_recv_timed_out(Call *call);
/* What a waiter of a batch of n takes at most, in items, or in bytes: those in line wait for the first message of a
 * batch, its look then says for how much. */
uint64_t call_share(Chan *c, uint64_t n);
/* What a member of a batch is put in for, a new reference or NULL with an exception set.  Steals what was passed. */
PyObject *call_member(Chan *c, PyObject *passed);

/* py_batch.c */
PyObject *endpoint_send_many(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *endpoint_send_many_blocking(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *endpoint_try_send_many(PyObject *, PyObject *);
PyObject *endpoint_recv_many(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *endpoint_recv_many_blocking(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *endpoint_try_recv_many(PyObject *, PyObject *);

/* py_chan.c */
int chan_add_types(PyObject *module, core_state *st);
PyObject *chan_open(PyObject *module, PyObject *const *args, Py_ssize_t n);
/* The receiver of a channel of bytes of its own, for a call that has no endpoint any more; a new reference. */
Endpoint *chan_lone_receiver(PyObject *module);
/* A new object of a type whose last reference may be dropped by any thread, with an effect that somebody waits
 * for: NULL with an exception set. */
PyObject *core_new(PyTypeObject *type);
/* How the sides of a channel of objects meet.  Objects are only moved with the GIL held.  Where there is one, it orders
 * both sides, and all producers.  Where there is none one producer, too, takes the way of many: the consumer can then
 * do without the tail (pop_one_claimed_sc). */
static inline nc_way chan_way(const Chan *c)
{
    bool many = NC_FREE_THREADED && c->kind != LOCAL; /* of `local` one thread has both sides */
    return (nc_way){.many = many, .publish = many ? memory_order_seq_cst : memory_order_release, .glance = NC_GLANCE};
}
/* After something was published: does anybody on the other side want to know? */
static inline void tell(Chan *c, int side, nc_box **kicks);
/* A new endpoint of a channel. */
Endpoint *endpoint_new(Chan *c, int side);
/* Close it, holding the endpoint or with the last reference to it.  Whom it calls is chained to `kicks`. */
void endpoint_close_held(Endpoint *ep, nc_box **kicks);
/* Does the channel belong to another thread?  Then WrongThread is set. */
bool chan_off_thread(Chan *c);
/* Can the endpoint be used at all?  STEP_READY, or STEP_ERROR with an exception set. */
step endpoint_check(Endpoint *ep);

/* The endpoint counts no longer among those of its side. */
static inline void endpoint_leave(Endpoint *ep, nc_box **kicks);

/* py_ends.c */
/* Are ends to remember where they are made? */
static inline bool debug_ends(core_state *st)
{
    return atomic_load_explicit(&st->debug_ends, memory_order_relaxed); /* a switch: nothing else goes with it */
}
void ends_read_environment(core_state *st);
PyObject *ends_set_debug(PyObject *module, PyObject *on);
/* Remember that an end is made here, until birth_forget(); NULL with an exception set. */
birth *birth_note(Chan *c, int side, lease *native);
void birth_forget(Chan *c, birth *b);
/* It counts no longer as open. */
void birth_left(birth *b);

/* What all endpoints have, to be listed among a type's slots and methods; the texts are py_doc.h's. */
#define ENDPOINT_METHODS                                                                 \
    {"close", endpoint_close, METH_NOARGS, endpoint_close_doc},                          \
        {"statistics", endpoint_statistics, METH_NOARGS, endpoint_statistics_doc},       \
        {"open_ends", endpoint_open_ends, METH_NOARGS, endpoint_open_ends_doc},          \
        {"same_channel", endpoint_same_channel, METH_O, endpoint_same_channel_doc},      \
        {"__enter__", endpoint_enter, METH_NOARGS, NULL},                                \
        {"__exit__", (PyCFunction)(void (*)(void))endpoint_exit, METH_FASTCALL, NULL},   \
        {"__aenter__", endpoint_aenter, METH_NOARGS, NULL},                              \
        {"__aexit__", (PyCFunction)(void (*)(void))endpoint_aexit, METH_FASTCALL, NULL}, \
    {                                                                                    \
        "__reduce_ex__", endpoint_reduce, METH_O, NULL                                   \
    }
#define ENDPOINT_GENERIC {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL}
#define ENDPOINT_CLONE {"clone", endpoint_clone, METH_NOARGS, endpoint_clone_doc}
#define ENDPOINT_SLOTS                                                                                     \
    {Py_tp_dealloc, endpoint_dealloc}, {Py_tp_traverse, endpoint_traverse}, {Py_tp_clear, endpoint_clear}, \
        {Py_tp_repr, endpoint_repr}, {Py_nb_bool, endpoint_bool}, {Py_sq_length, endpoint_length},         \
    {                                                                                                      \
        Py_tp_members, endpoint_members                                                                    \
    }
#define ENDPOINT_GETSET                                                              \
    {"capacity", endpoint_capacity, NULL, DOC_CAPACITY, NULL},                       \
        {"is_closed", endpoint_is_closed, NULL, DOC_IS_CLOSED, NULL},                \
    {                                                                                \
        "is_disconnected", endpoint_is_disconnected, NULL, DOC_IS_DISCONNECTED, NULL \
    }
#define ENDPOINT_SPEC(module, cls, its_slots)  \
    {.name = "nexus_channels." module "." cls, \
     .basicsize = sizeof(Endpoint),            \
     .flags = ENDPOINT_FLAGS,                  \
     .slots = its_slots}
#define FAST(function) ((PyCFunction)(void (*)(void))(function))
#define END_OF_METHODS {NULL, NULL, 0, NULL}
enum {
    ENDPOINT_FLAGS = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
    Py_TPFLAGS_DISALLOW_INSTANTIATION
};
PyObject *endpoint_capacity(PyObject *, void *);
PyObject *endpoint_is_closed(PyObject *, void *);
PyObject *endpoint_is_disconnected(PyObject *, void *);
extern PyMemberDef endpoint_members[];
PyObject *endpoint_close(PyObject *, PyObject *);
PyObject *endpoint_clone(PyObject *, PyObject *);
PyObject *endpoint_statistics(PyObject *, PyObject *);
PyObject *endpoint_open_ends(PyObject *, PyObject *);
PyObject *endpoint_same_channel(PyObject *, PyObject *);
PyObject *endpoint_enter(PyObject *, PyObject *);
PyObject *endpoint_exit(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *endpoint_aenter(PyObject *, PyObject *);
PyObject *endpoint_aexit(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *endpoint_reduce(PyObject *, PyObject *);
PyObject *endpoint_repr(PyObject *);
int endpoint_bool(PyObject *);
Py_ssize_t endpoint_length(PyObject *);
int endpoint_traverse(PyObject *, visitproc, void *);
int endpoint_clear(PyObject *);
void endpoint_dealloc(PyObject *);

/* py_ring.c */
int ring_add_types(PyObject *module, core_state *st);

/* py_claim.c */
int claim_add_types(PyObject *module, core_state *st);
void claim_free_spares(core_state *st);
/* May a call on the endpoint begin: is it not lent?  False with BusyError set. */
bool endpoint_idle(Endpoint *ep);

/* py_log.c */
int log_add_types(PyObject *module, core_state *st);
/* Looks of py_log.c: for room to claim, and for the first record: STEP_READY, STEP_BLOCKED, STEP_BUSY, or STEP_ERROR,
 * without an exception at the end. */
step log_claim_look(Call *call, bool called, PyObject **out, nc_box **kicks);
void log_claim_timed_out(Call *call);
step log_look_first(Call *call, bool called, nc_record *record, nc_box **kicks);

/* py_claim_await.c */
int claim_await_add_types(PyObject *module, core_state *st);

/* py_native.c */
int native_add_types(PyObject *module, core_state *st);
PyObject *endpoint_native(PyObject *, PyObject *);
/* Arguments as nearly all calls take them: (value, timeout=None), or (timeout=None). */
bool core_parse_one_slow(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                         double *timeout);
bool core_parse_none_slow(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                          double *timeout);
static inline bool core_parse_one(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n,
                                  PyObject *kwnames, double *timeout)
{
    *timeout = -1;
    return (n == 1 && kwnames == NULL) || core_parse_one_slow(st, name, args, n, kwnames, timeout);
}
static inline bool core_parse_none(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n,
                                   PyObject *kwnames, double *timeout)
{
    *timeout = -1;
    return (n == 0 && kwnames == NULL) || core_parse_none_slow(st, name, args, n, kwnames, timeout);
}
/* How many recv_many may take, 0 with an exception set. */
Py_ssize_t core_parse_count(PyObject *arg);

/* py_future.c */
int future_add_types(PyObject *module, core_state *st);
void future_free_spares(core_state *st);
/* A future of the loop that a task may wait on, a new reference; get_loop is a function that returns the loop. */
PyObject *future_new(core_state *st, PyObject *loop, PyObject *get_loop);
/* Wake the task that waits on a future, ours or a loop's own: 0, or -1 with an exception set, that of no signal
 * handler.  On its loop's thread; runs Python code. */
int future_resolve(core_state *st, PyObject *future);

/* py_wake.c */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* What differs between those who are reached through a box: a loop, a blocked thread. */
struct wake_box;
typedef struct box_kind {
    bool of_tasks; /* what stands in line with it is a sleeper */
    void (*kick)(core_state *, struct wake_box *, nc_box **kicks); /* may run Python code, and find others to kick */
    void (*kick_without_gil)(struct wake_box *); /* by whatever thread */
    bool (*reached)(struct wake_box *); /* would that wake it? */
    bool (*dead)(core_state *, struct wake_box *); /* will those in line with it never run?  Runs Python code */
    void (*drop)(struct wake_box *); /* what it holds, before its memory is freed */
} box_kind;

typedef struct wake_box {
    nc_box box;
    const box_kind *kind;
    uint32_t born; /* core_generation when made; a forked child leaves it alone */
} wake_box;

typedef struct parker {
    wake_box base;
    nc_waiter waiter;
    PyThread_type_lock lock; /* taken; a kick releases it */
} parker;

/* What stands in line for an awaitable. */
typedef struct sleeper {
    nc_waiter waiter;
    Chan *chan; /* strong; NULL once it was abandoned in the mail, with a GIL */
    int side;
    PyObject *_Atomic future; /* strong; taken out by whoever resolves it.  Only its loop's thread puts one
                             in, so relaxed is enough for the rest but the hand-over: S1 */
} sleeper;

void wake_free_spares(core_state *st);
/* Give every box of the chain its kick.  Runs Python code; keeps the current exception. */
void wake_deliver(core_state *st, nc_box *kicks);
/* Give every box of the chain its kick, from a thread that need not be one of Python's. */
void wake_boxes(nc_box *kicks);
/* Could native code kick this box? */
bool wake_reached(nc_box *box);
void wake_box_unref(nc_box *box);
sleeper *sleeper_new(nc_box *box, Endpoint *owner);
void sleeper_free(sleeper *sl);
/* Its awaitable goes: the sleeper is freed, now or by whoever takes the mail that it is in.  Out of the line, holding
 * the awaitable. */
void sleeper_leave(sleeper *sl);
void sleeper_set_future(sleeper *sl, PyObject *future);
/* Put a future in, or NULL, and take out what was there; hands the references over.  With a GIL, which every caller
 * holds, this needs no atomicity. */
PyObject *sleeper_swap_future(sleeper *sl, PyObject *future);

/* py_asyncio.c; all else of it is in py_loop.h */
int loop_add_types(PyObject *module, core_state *st);

/* py_park.c */
/* Of the process: once there is a module. */
void park_init(void);
parker *parker_new(void *owner);
/* Take the mail off, so that the next post finds the box empty and kicks.  On every round: a post may land after the
 * state that it tells of was seen, and acted on. */
static inline void parker_receive(parker *p)
{
    if (nc_box_take(&p->base.box) != NULL)
        nc_post_receive(&p->waiter);
}
/* Look once, and again if that was in vain because of waiters who will never come.  The result as in look. */
step try_call(Call *call, PyObject **out);
/* Run the call to its end in this thread, asleep without the GIL in between. */
PyObject *wait_blocking(Call *call, double timeout);

/* py_coroutine.c */
int await_add_types(PyObject *module, core_state *st);

/* py_await.c */
/* The awaitable of a call (a coroutine as far as anyone can tell); takes over call->ep's and call->value's
 * references, also when it fails. */
PyObject *wait_new(const Call *call, double timeout);
/* The same for one item, sent or received; they take references of their own, and wait as long as it takes. */
PyObject *wait_new_give(const call_op *op, Endpoint *ep, PyObject *value);
PyObject *wait_new_take(const call_op *op, Endpoint *ep);
/* Give a new one its timeout in seconds (< 0: none).  Passes it, or NULL, on. */
PyObject *wait_within(PyObject *awaitable, double timeout);
void wait_free_spares(core_state *st);
int wait_traverse_spares(core_state *st, visitproc visit, void *arg);

static inline void endpoint_leave(Endpoint *ep, nc_box **kicks)
{
    if (ep->birth != NULL)
        birth_left(ep->birth);
    nc_chan_leave(ep->chan->block, ep->side, core_generation(), kicks);
}

static inline void tell(Chan *c, int side, nc_box **kicks)
{
    nc_chan_tell(c->block, side, NC_GLANCE, core_generation(), kicks);
}

#endif
