/* py_core.h: what all py_*.c files stand on: the module's state, errors, arguments, and a few words for CPython.
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

/* What core_way() gives, for the shortest ways. */
#define NC_PUBLISH (NC_FREE_THREADED ? memory_order_seq_cst : memory_order_release)
#define NC_GLANCE (NC_FREE_THREADED ? memory_order_seq_cst : memory_order_relaxed)

enum { TX = NC_TX, RX = NC_RX, SIDES = NC_SIDES };
typedef enum { LOCAL, SPSC, MPSC, SPSC_BYTES, MPSC_BYTES, KINDS } chan_kind;

/* How the sides of a channel of objects meet.  Objects are only moved with the GIL held.  Where there is one, it orders
 * both sides, and all producers.  Where there is none one producer, too, takes the way of many: the consumer can then
 * do without the tail (pop_one_claimed_sc).  Of `local` one thread has both sides. */
static inline nc_way core_way(chan_kind kind)
{
    bool many = NC_FREE_THREADED && kind != LOCAL;
    return (nc_way){.many = many, .publish = many ? memory_order_seq_cst : memory_order_release, .glance = NC_GLANCE};
}

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

/* What has ended, is kept, and is used again.  Nothing is kept where references are traced, as a trace would then show
 * objects that nobody has; nor without a GIL, as several threads would come for the same. */
#define NC_RECYCLES (!NC_FREE_THREADED && !NC_TRACES_REFERENCES)
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
#define NC_TRACES_REFERENCES 1
#else
#define NC_TRACES_REFERENCES 0
#endif
enum { NC_SPARES = 64 }; /* of a kind, at most */
typedef struct spares {
    unsigned n;
    void *of[NC_SPARES];
} spares;
enum { SPARE_AWAITABLES, SPARE_CLAIM_AWAITABLES, SPARE_CLAIMS, SPARE_FUTURES, SPARE_SLEEPERS, SPARE_KINDS };

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
    spares spare[SPARE_KINDS];
    unsigned spares_most;         /* how many of each are kept; 0 once the module goes */
    PyObject *_Atomic stop;       /* a StopIteration for when there is no memory to hand a result over; relaxed */
    PyTypeObject *holder_type;    /* 3.11: see running_loop(); this and the next three */
    void *holder;
    uint64_t holder_seen;
    uint32_t holder_born;
} core_state;

/* One that was kept, or NULL. */
static inline void *spare_take(core_state *st, int kind)
{
    spares *s = &st->spare[kind];
    return NC_RECYCLES && s->n > 0 ? s->of[--s->n] : NULL;
}

/* Keep one that has ended.  False if there are enough: it is to be freed. */
static inline bool spare_keep(core_state *st, int kind, void *dead)
{
    spares *s = &st->spare[kind];
    if (!NC_RECYCLES || s->n >= st->spares_most)
        return false;
    s->of[s->n++] = dead;
    return true;
}

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

/* ---- small things ----------------------------------------------------------------------------------- */

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define FAST(function) ((PyCFunction)(void (*)(void))(function))
#define END_OF_METHODS {NULL, NULL, 0, NULL}
enum {
    CORE_TYPE_FLAGS = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
    Py_TPFLAGS_DISALLOW_INSTANTIATION
};
/* A new object of a type whose last reference may be dropped by any thread, with an effect that somebody waits
 * for: NULL with an exception set. */
PyObject *core_new(PyTypeObject *type);
/* Arguments as nearly all calls take them: (value, timeout=None), or (timeout=None). */
bool core_parse_one_slowly(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                           double *timeout);
bool core_parse_none_slowly(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                            double *timeout);
static inline bool core_parse_one(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n,
                                  PyObject *kwnames, double *timeout)
{
    *timeout = -1;
    return (n == 1 && kwnames == NULL) || core_parse_one_slowly(st, name, args, n, kwnames, timeout);
}
static inline bool core_parse_none(core_state *st, const char *name, PyObject *const *args, Py_ssize_t n,
                                   PyObject *kwnames, double *timeout)
{
    *timeout = -1;
    return (n == 0 && kwnames == NULL) || core_parse_none_slowly(st, name, args, n, kwnames, timeout);
}
/* How many recv_many may take, 0 with an exception set. */
Py_ssize_t core_parse_count(PyObject *arg);

/* ---- a step ----------------------------------------------------------------------------------------- */

/* What came of one: nc_outcome, and what only calls from Python know. */
typedef enum {
    STEP_READY = NC_DONE, /* the result is in *out (NULL stands for None) */
    STEP_ERROR = NC_DISCONNECTED, /* for this reason or another: an exception is set; nothing was sent or taken */
    STEP_BLOCKED = NC_BLOCKED, /* not now */
    STEP_PARTIAL, /* some of a batch went; not the rest now */
    STEP_BUSY, /* it is this call's turn, but a claim holds the endpoint */
} step;

/* py_inside.c */
PyThreadState *const *inside_tstate(void);

#endif
