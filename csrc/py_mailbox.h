/* py_mailbox.h: the mailbox of an event loop, and the table of the kinds of loops; see py_mailbox.c. */
#ifndef PY_MAILBOX_H
#define PY_MAILBOX_H

#include "py_doorbell.h"
#include "py_wake_fd.h"

typedef struct loop_box {
    wake_box base;
    _Atomic int wake_fd; /* what wakers write to; < 0 until it is opened, and if the loop reads it no more */
    int read_fd; /* what the loop reads from; an eventfd is both */
    wake_fd_file file; /* which file that is */
    doorbell *_Atomic bell; /* what native code rings if there is no wake fd; NULL until it may have to */
    bell_entry entry;
    _Atomic bool shared; /* its tasks have waited where others than this interpreter may call them; relaxed: see F1 */
    void *loop; /* the loop's address, by which its mailbox is found; never followed */
} loop_box;

typedef struct Mailbox {
    PyObject_HEAD
    PyObject *module; /* keeps `st` alive */
    core_state *st;
    const struct loop_kind *kind;
    loop_box *box;
    PyObject *loop; /* weak reference; of trio the token of a run stands for the loop */
    PyObject *key;
    PyObject *reader; /* weak reference to what the loop calls when its wake fd was written to; or NULL */
    PyObject *summons; /* the same of what it is to call to be reached; in the critical section of the mailbox */
    PyObject *get_loop; /* asyncio: the method of that name, of our own futures */
    bool called; /* the loop has called a Watch, which has not returned yet; for the loop's thread alone */
    bool makes_futures; /* asyncio: the loop's class has a create_future() of its own, which must be used */
    _Atomic unsigned failures; /* wake-ups that failed since the last that did not; relaxed, a hint */
} Mailbox;

/* One kind of event loop, a row of the table: asyncio_loops, trio_loops.  All of it runs Python code. */
typedef struct loop_kind {
    box_kind box;
    /* The loop that this thread runs, or None, a new reference; NULL with an exception set. */
    PyObject *(*running)(core_state *);
    /* Does this thread run a task of that loop, which it runs, right now? */
    bool (*in_task)(core_state *, PyObject *loop);
    /* Will no task run there any more?  No where asking fails. */
    bool (*closed)(Mailbox *, PyObject *loop);
    /* Give a new mailbox what else it needs; 0, or -1 with an exception set.  NULL: nothing. */
    int (*begin)(Mailbox *, PyObject *loop);
    /* Have the loop call `reader` whenever the descriptor can be read, on the loop's thread; a new reference to
     * anything, or NULL with an exception set: NotImplementedError or AttributeError if it never will. */
    PyObject *(*read)(Mailbox *, PyObject *loop, PyObject *fd, PyObject *reader);
    /* Likewise for the lanes of a channel, until `reader` returns True; and no more, after that. */
    PyObject *(*watch)(Mailbox *, PyObject *loop, PyObject *fd, PyObject *reader);
    PyObject *(*unwatch)(Mailbox *, PyObject *loop, PyObject *fd);
    /* Have the loop call `callback`, from any thread; likewise. */
    PyObject *(*call_soon)(core_state *, PyObject *loop, PyObject *callback);
    /* Wake the task that waits on a future: 0, or -1 with an exception set, that of no signal handler.  On the loop's
     * thread. */
    int (*resolve)(core_state *, PyObject *future);
    /* See loop_future() and loop_timer(). */
    PyObject *(*future)(core_state *, PyObject *loop, Mailbox *);
    PyObject *(*timer)(core_state *, PyObject *loop, double seconds, PyObject *what);
} loop_kind;

/* The loop's mailbox, a new reference.  One is made if `kind` says of which kind the loop is; else NULL without an
 * exception if there is none. */
Mailbox *mailbox_of(const loop_kind *kind, core_state *st, PyObject *loop);
/* A loop reads its wake fd no more: it is woken by call_soon from now on.  On the loop's thread; runs Python code. */
void mailbox_read_no_more(Mailbox *m);
/* See loop_reach(), loop_share() and loop_summon(). */
bool mailbox_reach(core_state *st, PyObject *loop, nc_box *box, const char *who);
bool mailbox_share(nc_box *box);
bool mailbox_summon(Chan *c, nc_box *called, nc_box **kicks);

/* The box of a loop, whichever kind it is. */
void mailbox_box_kick(core_state *st, wake_box *base, nc_box **kicks);
void mailbox_box_kick_without_gil(wake_box *b);
bool mailbox_box_reached(wake_box *b);
bool mailbox_box_dead(core_state *st, wake_box *b);
void mailbox_box_drop(wake_box *base);
#define MAILBOX_BOX                                       \
    {                                                     \
        .kick = mailbox_box_kick,                         \
        .kick_without_gil = mailbox_box_kick_without_gil, \
        .reached = mailbox_box_reached,                   \
        .dead = mailbox_box_dead,                         \
        .drop = mailbox_box_drop,                         \
    }

#endif
