/* py_core.h: what all py_*.c files use: the module's state, errors, arguments, and what CPython's versions lack.
 *
 * Locks, outermost first: the critical section of an awaitable and of its endpoint (free-threaded builds;
 * elsewhere the GIL is both), then a gate's lock.  While a gate's lock is held, no Python code runs and no
 * reference is dropped; boxes that are to be kicked afterwards are kept as a chain.
 */
#ifndef NC_PY_CORE_H
#define NC_PY_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <time.h>

#ifndef Py_GIL_DISABLED
#define NC_RING_LINE 8 /* objects are moved by whoever holds the GIL */
#endif
#include "nc_chan.h"
#include "nc_end.h"
#ifndef _WIN32
#include <unistd.h>
#endif

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

/* The orders of core_way(), for the plain ways. */
#define NC_PUBLISH (NC_FREE_THREADED ? memory_order_seq_cst : memory_order_release)
#define NC_GLANCE (NC_FREE_THREADED ? memory_order_seq_cst : memory_order_relaxed)

enum { TX = NC_TX, RX = NC_RX, SIDES = NC_SIDES };
typedef enum { LOCAL, SPSC, MPSC, SPSC_BYTES, MPSC_BYTES, KINDS } chan_kind;

/* How the sides of a channel of objects meet.  With a GIL, objects are moved only by the thread that holds it, so the
 * GIL orders both sides and all producers.  Without a GIL, a single producer pushes as many do, so that the consumer
 * need not read the tail (pop_one_mpsc).  Both sides of a `local` channel belong to one thread. */
static inline nc_way core_way(chan_kind kind)
{
    bool many = NC_FREE_THREADED && kind != LOCAL;
    return (nc_way){.many = many, .publish = many ? memory_order_seq_cst : memory_order_release, .glance = NC_GLANCE};
}

/* A number that no other thread has now: PyThread_get_thread_ident(), without a call where the value is known. */
#if NC_LINUX && defined(__GLIBC__) && defined(__x86_64__) && defined(__LP64__)
#define NC_THREAD_POINTER 1
#else
#define NC_THREAD_POINTER 0
#endif
static inline unsigned long this_thread(void)
{
#if NC_THREAD_POINTER
    unsigned long pointer; /* __builtin_thread_pointer(), which gcc has since 11 */
    __asm__("movq %%fs:0, %0" : "=r"(pointer));
    return pointer;
#else
    return PyThread_get_thread_ident();
#endif
}

/* Nanoseconds since some moment; never set back. */
static inline int64_t now_ns(void)
{
#ifdef _WIN32
    LARGE_INTEGER ticks, a_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&a_second);
    int64_t seconds = ticks.QuadPart / a_second.QuadPart, rest = ticks.QuadPart % a_second.QuadPart;
    return seconds * INT64_C(1000000000) + rest * INT64_C(1000000000) / a_second.QuadPart;
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
#endif
}

/* How many the system has; 0 or less if it does not tell. */
static inline long core_processors(void)
{
#ifdef _WIN32
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return (long)info.dwNumberOfProcessors;
#else
    return sysconf(_SC_NPROCESSORS_ONLN);
#endif
}

/* ---- module state ---------------------------------------------------------------------------------- */

enum { /* index into core_state.errors; names in py_module.c */
       E_BUSY,
       E_CHANNEL,
       E_CLAIM_DISCONNECTED,
       E_CLAIM_FULL,
       E_CLAIM_RELEASED,
       E_CLAIM_TIMEOUT,
       E_CLAIM_TOO_LARGE,
       E_EMPTY,
       E_ENDPOINT_CLOSED,
       E_FULL,
       E_NOTHING_READY,
       E_RECV,
       E_RECV_TIMEOUT,
       E_SELECT_TIMEOUT,
       E_SEND,
       E_SEND_TIMEOUT,
       E_WRONG_THREAD,
       E_ZERO_LENGTH,
       ERRORS,
};

/* How long the tasks of a thread hold its loop by awaiting what was ready: see py_pace.c.  Of the module with a GIL, of
 * the thread without. */
enum { PACE_TASKS = 64, PACE_BIAS = 1 << 29 };
typedef struct pace {
    int left;                     /* ready awaits that may pass before anybody looks here, less `bias` */
    int bias;                     /* PACE_BIAS while trio is imported, so that every await looks; else 0 */
    int run;                      /* what `left` was set to */
    int credit;                   /* ready awaits since the last that paid for a clock reading */
    int held;                     /* ready awaits of `task` in its turn, as far as it is known */
    int turns;                    /* in a row that went on, as nobody else wanted the loop */
    void *task;                   /* whose turn it was at the last look; compared, never followed */
    bool over;                    /* somebody has yielded or waited since */
    bool shares, shared;          /* `left` is an even part among those who want the same; it was, at the last look */
    int64_t began;                /* of the run that is being measured, in ns; 0: none is */
    struct {
        void *task;
        PyObject *alive;          /* a weak reference to it; without a GIL NULL */
        int every;                /* ready awaits that take it the time of a turn; INT_MAX: not known */
        int last;                 /* the same by the last measurement alone; 0: there was none */
    } of[PACE_TASKS];
} pace;

/* Objects that have ended are kept here, to be used again.  Builds that trace references keep none, as a trace would
 * show objects that nobody has.  Builds without a GIL keep none, as several threads could take the same object. */
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
enum {
    SPARE_AWAITABLES,
    SPARE_CLAIM_AWAITABLES,
    SPARE_SELECTS, /* these and those before: live objects; the others are memory */
    SPARE_CLAIMS,
    SPARE_FUTURES,
    SPARE_SELECTEDS,
    SPARE_SLEEPERS,
    SPARE_KINDS,
};

/* What the state refers to, each listed once: X(field).  Made in py_module.c, visited and cleared there by this list.
 */
#define CORE_TYPES(X)                                                                        \
    X(chan_type)            /* a channel's shared part; not visible from Python */           \
    X(awaitable_type)                                                                        \
    X(claim_awaitable_type) /* what Sender.claim() returns: also an async context manager */ \
    X(claim_iterator_type)                                                                   \
    X(sending_type)         /* what Sender.sending() returns */                              \
    X(claiming_type)        /* what Sender.claiming() returns */                             \
    X(select_type)          /* what select() returns: an awaitable of several lines */       \
    X(selected_type)        /* what that gives */                                            \
    X(future_type)          /* what tasks wait on */                                         \
    X(mailbox_type)         /* one a loop that was waited on; not visible from Python */     \
    X(notifier_type)                                                                         \
    X(ticket_type)                                                                           \
    X(listener_type)                                                                         \
    X(watch_type)           /* a loop that hears lanes; not visible from Python */           \
    X(trio_wait_type)       /* what tasks of trio wait for */                                \
    X(stop_type)            /* 3.12 and later: by which results travel; see py_stop.c */

#define CORE_OBJECTS(X)                                                                     \
    X(Statistics)           /* nexus_channels._types.Statistics, and OpenEnd of the same */ \
    X(OpenEnd)                                                                              \
    X(first_indices)        /* (0, 1, 2, 3): where most arms of a select stand */           \
    X(mailboxes)            /* dict: id of a loop -> its mailbox */                         \
    X(chans)                /* dict: address of a shared block -> its Chan here, weakly */  \
    X(modules)              /* sys.modules */                                               \
    X(trio_retired)         /* list: what trio_tools was, before trio was imported anew */  \
    X(recent)               /* GIL builds: the mailbox used last, or NULL */                \
    X(loop_class)           /* GIL builds: a class that derives from the next, or NULL */   \
    X(get_running_loop)     /* asyncio._get_running_loop */                                 \
    X(BaseEventLoop)        /* asyncio's */                                                 \
    X(Future)               /* asyncio.Future */                                            \
    X(Future_set_result)    /* its method */                                                \
    X(Future_blocking)      /* its descriptor of _asyncio_future_blocking */                \
    X(Task)                 /* asyncio.Task */                                              \
    X(woken)                /* an asyncio.Future that is done: passed to woken tasks */     \
    X(loop_keyword)         /* ('loop',) */                                                 \
    X(context_keyword)      /* ('context',) */                                              \
    X(context_names)        /* the same, as tasks have it */                                \
    X(current_tasks)        /* dict loop -> task (up to 3.13), or asyncio.current_task() */ \
    X(CancelledError)       /* asyncio's */                                                 \
    X(invalid_state)        /* asyncio.InvalidStateError */                                 \
    X(atexit_register)      /* atexit.register() */

/* Interned: X(field, text). */
#define CORE_NAMES(X)                                 \
    X(s_add_done_callback, "add_done_callback")       \
    X(s_add_reader, "add_reader")                     \
    X(s_arm, "arm")                                   \
    X(s_biased, "biased")                             \
    X(s_blocking, "_asyncio_future_blocking")         \
    X(s_call_later, "call_later")                     \
    X(s_call_soon, "call_soon")                       \
    X(s_call_soon_threadsafe, "call_soon_threadsafe") \
    X(s_cancel, "cancel")                             \
    X(s_context, "context")                           \
    X(s_create_future, "create_future")               \
    X(s_custom_sleep_data, "custom_sleep_data")       \
    X(s_done, "done")                                 \
    X(s_expire, "_expire")                            \
    X(s_get_loop, "get_loop")                         \
    X(s_index, "index")                               \
    X(s_is_closed, "is_closed")                       \
    X(s_msg, "msg")                                   \
    X(s_name, "name")                                 \
    X(s_ready, "_ready")                              \
    X(s_release, "release")                           \
    X(s_remove_reader, "remove_reader")               \
    X(s_running, "__asyncio_running_event_loop__")    \
    X(s_scheduled, "_scheduled")                      \
    X(s_set_result, "set_result")                     \
    X(s_time, "time")                                 \
    X(s_timeout, "timeout")                           \
    X(s_trio, "trio")                                 \
    X(s_when, "_when")

#define CORE_TYPE_FIELD(field) PyTypeObject *field;
#define CORE_OBJECT_FIELD(field) PyObject *field;
#define CORE_NAME_FIELD(field, text) PyObject *field;

typedef struct core_state {
    PyObject *module;             /* borrowed: this is its state */
    uint64_t number;              /* not 0; no other state of the process, in whichever interpreter, has or had it */
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
    unsigned insides;             /* which short ways are taken; bits of py_inside.h */
    PyThreadState *const *tstate; /* where CPython keeps the current thread state; NULL: ask it by a call */
    const PyThreadState *first;   /* the first thread state of the main interpreter, */
    unsigned long first_thread;   /* and its thread; 0: not known */
    spares spare[SPARE_KINDS];
    unsigned spares_most;         /* how many of each are kept; 0 once the module goes */
    struct doorbell *_Atomic bell; /* or NULL; see py_doorbell.c */
    PyObject *_Atomic trio_tools; /* tuple: what _trio.py has of trio, or NULL; this and the next for py_trio.c */
    _Atomic bool trio_found;      /* this and the next: relaxed, hints */
    _Atomic bool trio_stale;      /* sys.modules["trio"] may be another one than trio_tools is of */
    uint64_t modules_seen;        /* 3.11: the version of sys.modules at the last look */
    int modules_watcher;          /* 3.12 and later: this and the next two; < 0: there are too many watchers */
    PyInterpreterState *modules_interpreter;
    struct core_state *modules_next;
    PyObject *_Atomic stop;       /* what the next result travels by, or NULL; see py_stop.c */
    PyTypeObject *holder_type;    /* 3.11: this and the other holder_* are for running_loop() */
    void *holder;
    uint64_t holder_seen;
    uint32_t holder_born;
} core_state;

/* Take an object that was kept, or NULL. */
static inline void *spare_take(core_state *st, int kind)
{
    spares *s = &st->spare[kind];
    return NC_RECYCLES && s->n > 0 ? s->of[--s->n] : NULL;
}

/* Keep an object that has ended.  False if there are enough: the caller frees it. */
static inline bool spare_keep(core_state *st, int kind, void *dead)
{
    spares *s = &st->spare[kind];
    if (!NC_RECYCLES || s->n >= st->spares_most)
        return false;
    s->of[s->n++] = dead;
    return true;
}

/* Raise errors[which](message), or errors[which](message, value) if a value was not sent; returns NULL. */
PyObject *core_raise(core_state *st, int which, PyObject *value, const char *format, ...);
/* Count the forks of this process from now on, and know its main thread; 0, or -1 with an exception set. */
int core_watch_process(void);
/* A number for a module's state, which no other has. */
uint64_t core_number(void);
/* A thread state, made without the GIL; no process is forked meanwhile.  NULL without an exception: no memory. */
PyThreadState *core_new_thread_state(PyInterpreterState *interp);
/* A new type, added to the module under `name`; a reference, or NULL with an exception set. */
PyTypeObject *core_add_type(PyObject *module, PyType_Spec *spec, const char *name);
/* An attribute of a module, which is imported; a new reference, or NULL with an exception set. */
PyObject *core_import(const char *module, const char *name);
/* The state of the module that a type is of; NULL without an exception once the collector has cleared the type. */
static inline core_state *core_state_of(PyTypeObject *type)
{
    return ((PyHeapTypeObject *)type)->ht_module != NULL ? PyType_GetModuleState(type) : NULL;
}
/* A new tuple without that item; NULL without an exception if the item is not there, or with MemoryError set. */
PyObject *core_tuple_without(PyObject *all, PyObject *item);
/* Seconds from an argument: < 0 for None or infinity; false with ValueError or TypeError set. */
bool core_parse_timeout(PyObject *arg, double *seconds);

/* A call may run Python code on its way, a loop's is_closed() for instance, and a signal handler may interrupt that
 * code. The exception that the handler raises belongs to the program.  It must not be taken for an error of that code.
 *
 * Is the current exception such an interruption? */
bool core_interrupted(void);
/* Take the current exception as an object, with its traceback; set one again, which takes the object over. */
PyObject *core_take_error(void);
void core_give_error(PyObject *error);
/* Postpone the current exception: this thread raises it at its next bytecode, or in a blocking call before it sleeps.
 */
void core_postpone(void);
/* For trying again what was interrupted.  The interruptions are kept until the end: raised earlier, they would
 * interrupt the next try. */
enum { INTERRUPTIONS = 8 }; /* in a row; a handler that raises each time must not hold the call up for ever */
typedef struct interruptions {
    int n;
    PyObject *of[INTERRUPTIONS];
} interruptions;
/* Is the current exception an interruption, and is another try allowed?  If so, the exception is kept. */
bool core_try_again(interruptions *kept);
/* Postpone all that was kept; leaves the current exception set. */
void core_postpone_all(interruptions *kept);
/* Raise a postponed exception that was not raised yet: true if there was one. */
bool core_raise_postponed(void);
/* Drop the current exception, if any; postpone an interruption. */
void core_drop_error(void);
/* Report the current exception as unraisable; postpone an interruption. */
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

/* The target of a weak reference, a new reference, or NULL without an exception if it is gone. */
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
/* How many forks lie between the first process and this one.  A box that was made in another one must not be woken. */
extern _Atomic uint32_t core_forks;
static inline uint32_t core_generation(void)
{
    return atomic_load_explicit(&core_forks, memory_order_relaxed); /* the only thread after a fork */
}

/* ---- small things ----------------------------------------------------------------------------------- */

#define FAST(function) ((PyCFunction)(void (*)(void))(function))
#define END_OF_METHODS {NULL, NULL, 0, NULL}
enum {
    CORE_TYPE_FLAGS = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
    Py_TPFLAGS_DISALLOW_INSTANTIATION
};
/* A new object, or NULL with an exception set.  For types whose last reference any thread may drop, with an effect that
 * others wait for. */
PyObject *core_new(PyTypeObject *type);
/* The arguments of nearly all calls: (value, timeout=None), or (timeout=None). */
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
/* The count of recv_many(), or 0 with an exception set. */
Py_ssize_t core_parse_count(PyObject *arg);

/* ---- a step ----------------------------------------------------------------------------------------- */

/* The outcome of a step: nc_outcome, and what only calls from Python have. */
typedef enum {
    STEP_READY = NC_DONE, /* the result is in *out (NULL stands for None) */
    STEP_ERROR = NC_DISCONNECTED, /* an exception is set: for this reason, or another; nothing was sent or taken */
    STEP_BLOCKED = NC_BLOCKED, /* not now */
    STEP_PARTIAL, /* part of a batch was sent; not the rest now */
    STEP_BUSY, /* it is this call's turn, but a claim holds the endpoint */
} step;
/* What an awaitable's step comes to besides: it waits; it must prepare to wait; more of a batch is to be done; it
 * yields. */
enum { STEP_SLEEP = STEP_BUSY + 1, STEP_PREPARE, STEP_MORE, STEP_PAUSE };

#endif
