/* nc_gate.h: who waits on one side of a channel, and how the waiters are reached.  Touches nc_base.h only.
 *
 * The other side publishes and then looks at `flag`; a waiter raises `flag` and then looks at the ring.
 * These four accesses are seq_cst, so at least one of the two sees the other (W1 to W3 in PROTOCOL.md; W4 is the lock).
 *
 *      line, first come first                     .-- every waiter before the cursor was called
 *      +--------+    +--------+    +---------+    v    +---------+
 *  --> | CALLED | -> | CALLED | -> | WAITING |  <----  | WAITING |   (first WAITING = cursor, or after it)
 *      +--------+    +--------+    +---------+         +---------+
 *
 *      crowd  = waiters in the line, no observers waiting = those in state WAITING
 *      owed   = sum of their shares               called  = sum of the shares of those CALLED
 *      flag & NC_WATCHED  <=>  waiting > 0
 *
 * A waiter of share 0 is an observer: it is told that there is something, and nothing is kept for it.  So it holds
 * nobody up: calls that do not stand in line go ahead beside it, and while there is too little for it, those behind it
 * are called.
 *
 * To call a waiter is to say "look again"; a call carries no value.  A called waiter keeps its place and its
 * share until it leaves.  So a later comer does not take what was freed for the waiter, and a waiter that
 * is cancelled hands its share to the next.
 *
 * A waiter is reached through its box: a loop's mailbox, or a blocked thread.  Posting to a box takes no
 * lock.  Whoever finds the box empty owes it a kick (a write to a wake fd, a semaphore).  Kicks are given
 * after the gate's lock is left, so boxes that need one are handed back as a chain.
 *
 * Only enrolling and leaving write the links of the line, under the lock; calling changes nothing but
 * states.  So a reader may walk the line without the lock if it keeps others from enrolling and leaving.
 */
#ifndef NC_GATE_H
#define NC_GATE_H

#include "nc_base.h"

struct nc_waiter;

/* ---- the box: where a waiter is reached ------------------------------------------------------------ */

typedef struct nc_box {
    struct nc_waiter *_Atomic mail;  /* called waiters, newest first; pushed by callers, taken by the owner */
    _Atomic uint32_t kick;           /* 1: it is in somebody's chain and will be kicked */
    _Atomic uint32_t refs;           /* one of the owner, of each waiter that may be called, of each chain */
    struct nc_box *next;             /* next in the chain; written by whoever raised `kick` */
    bool guarded;                    /* as nc_gate.guarded; lost in the line of a gate that is not */
} nc_box;

/* Whether a called waiter is in the mail, and so who frees it: its owner, or whoever takes the mail. */
enum { NC_POST_NONE, NC_POST_MAILED, NC_POST_ABANDONED };

typedef enum nc_waiter_state { NC_OUTSIDE, NC_WAITING, NC_CALLED } nc_waiter_state;

typedef struct nc_waiter {
    struct nc_waiter *prev, *next; /* in the line; under the gate's lock */
    struct nc_waiter *mail_next;   /* in the mail; written by the caller before it pushes */
    nc_box *box;                   /* set before enrolling */
    void *owner;                   /* the endpoint it waits on; set before enrolling */
    uint64_t least;                /* what it needs to go on: items, or bytes; set before enrolling */
    uint64_t share;                /* what it will take at most; 0: an observer; set before enrolling, or forgone */
    uint32_t born;                 /* the gate's `born` when it enrolled */
    bool deferred;                 /* called, but its endpoint is lent to a claim; under the gate's lock */
    _Atomic uint32_t state;        /* nc_waiter_state; written under the gate's lock, peeked at by a spinner */
    _Atomic uint32_t post;         /* NC_POST_* */
} nc_waiter;

static inline void nc_box_init(nc_box *box)
{
    atomic_store_explicit(&box->mail, NULL, memory_order_relaxed); /* nobody else knows the box yet */
    atomic_store_explicit(&box->kick, 0, memory_order_relaxed);
    atomic_store_explicit(&box->refs, 1, memory_order_relaxed);
    box->next = NULL;
    box->guarded = false;
}

/* Exchanges of guarded words.  Whoever might come in between holds the same lock, so they need not be atomic. */
static inline uint32_t nc_swap_guarded(_Atomic uint32_t *word, uint32_t value)
{
    uint32_t was = atomic_load_explicit(word, memory_order_relaxed); /* guarded */
    atomic_store_explicit(word, value, memory_order_relaxed);        /* guarded */
    return was;
}

static inline uint32_t nc_add_guarded(_Atomic uint32_t *word, uint32_t n)
{
    return nc_swap_guarded(word, atomic_load_explicit(word, memory_order_relaxed) + n); /* guarded */
}

static inline struct nc_waiter *nc_swap_mail_guarded(nc_box *box, struct nc_waiter *mail)
{
    struct nc_waiter *was = atomic_load_explicit(&box->mail, memory_order_relaxed); /* guarded */
    atomic_store_explicit(&box->mail, mail, memory_order_relaxed);                  /* guarded */
    return was;
}

static inline void nc_box_ref(nc_box *box)
{
    if (box->guarded)
        nc_add_guarded(&box->refs, 1);
    else
        atomic_fetch_add_explicit(&box->refs, 1, memory_order_relaxed); /* the caller holds one already */
}

/* True if that was the last reference; then the caller frees the box. */
static inline bool nc_box_unref(nc_box *box)
{
    if (box->guarded)
        return nc_add_guarded(&box->refs, -1u) == 1;
    return atomic_fetch_sub_explicit(&box->refs, 1, memory_order_acq_rel) == 1; /* B1 -> B1 */
}

/* Add a box that is to be kicked to the chain `kicks`, which then has a reference to it. */
static inline void nc_box_chain(nc_box *box, nc_box **kicks)
{
    nc_box_ref(box);
    box->next = *kicks;
    *kicks = box;
}

/* Push a waiter onto the mail.  Returns what was on top before, or NULL. */
static inline nc_waiter *nc_box_push(nc_box *box, nc_waiter *w)
{
    if (box->guarded) {
        w->mail_next = nc_swap_mail_guarded(box, w);
        return w->mail_next;
    }
    nc_waiter *top = atomic_load_explicit(&box->mail, memory_order_relaxed); /* the swap checks it */
    do
        w->mail_next = top;
    while (!atomic_compare_exchange_weak_explicit(&box->mail, &top, w, memory_order_acq_rel, /* B2 */
                                                  memory_order_relaxed));
    return top;
}

static inline void nc_box_post_guarded(nc_waiter *w, nc_box **kicks)
{
    nc_box *box = w->box;
    if (nc_swap_guarded(&w->post, NC_POST_MAILED) == NC_POST_MAILED)
        return;
    if (nc_box_push(box, w) == NULL && !nc_swap_guarded(&box->kick, 1))
        nc_box_chain(box, kicks);
}

/* Put a waiter into its box; if nobody has promised the box a kick yet, chain it to `kicks`. */
static inline void nc_box_post(nc_waiter *w, nc_box **kicks)
{
    nc_box *box = w->box;
    if (box->guarded) {
        nc_box_post_guarded(w, kicks);
        return;
    }
    if (atomic_exchange_explicit(&w->post, NC_POST_MAILED, memory_order_acq_rel) == NC_POST_MAILED) /* B4 */
        return; /* called before and not received yet: the owner has yet to read its mail */
    if (nc_box_push(box, w) != NULL || atomic_exchange_explicit(&box->kick, 1, memory_order_acq_rel)) /* B3 */
        return;
    nc_box_chain(box, kicks);
}

/* The owner took w and the waiters behind it off the mail, and cannot receive them now.  Put them back, behind what was
 * posted since.  The owner sees to another kick. */
static inline void nc_box_return(nc_box *box, nc_waiter *w)
{
    for (nc_waiter *next; w != NULL; w = next) {
        next = w->mail_next;
        nc_box_push(box, w);
    }
}

/* The chain in the order in which its boxes were chained, which is that of the line. */
static inline nc_box *nc_box_in_order(nc_box *kicks)
{
    nc_box *ordered = NULL;
    for (nc_box *next; kicks != NULL; kicks = next) {
        next = kicks->next;
        kicks->next = ordered;
        ordered = kicks;
    }
    return ordered;
}

/* Take a box off the chain, just before kicking it: from here on a new post needs a new kick.  The
 * caller now owns the chain's reference. */
static inline nc_box *nc_box_unchain(nc_box **kicks)
{
    nc_box *box = *kicks;
    *kicks = box->next;
    if (box->guarded)
        nc_swap_guarded(&box->kick, 0);
    else
        atomic_exchange_explicit(&box->kick, 0, memory_order_acq_rel); /* B3: sees every post before it */
    return box;
}

/* Take everything in the box, oldest first.  The exchange also releases: whoever posts into the emptied box sees a wake
 * fd that was stored before (F1). */
static inline nc_waiter *nc_box_take(nc_box *box)
{
    nc_waiter *oldest = NULL, *w;
    if (box->guarded)
        w = nc_swap_mail_guarded(box, NULL);
    else
        w = atomic_exchange_explicit(&box->mail, NULL, memory_order_acq_rel); /* B2 */
    while (w != NULL) {
        nc_waiter *next = w->mail_next;
        w->mail_next = oldest;
        oldest = w;
        w = next;
    }
    return oldest;
}

/* Is w in the mail?  For its own thread, while that is awake. */
static inline bool nc_post_waits(nc_waiter *w)
{
    return atomic_load_explicit(&w->post, memory_order_acquire) == NC_POST_MAILED; /* B4 */
}

/* The box's owner took w off the mail: true if w is still in use, false if it was abandoned. */
static inline bool nc_post_receive(nc_waiter *w)
{
    if (w->box->guarded)
        return nc_swap_guarded(&w->post, NC_POST_NONE) == NC_POST_MAILED;
    return atomic_exchange_explicit(&w->post, NC_POST_NONE, memory_order_acq_rel) == NC_POST_MAILED; /* B4 */
}

/* The waiter's owner gives it up: true if it is not in the mail, false if it is; then the box's owner frees it. */
static inline bool nc_post_abandon(nc_waiter *w)
{
    uint32_t mailed = NC_POST_MAILED;
    if (atomic_load_explicit(&w->post, memory_order_acquire) == NC_POST_NONE) /* B4 */
        return true; /* it has left the line, so it is not posted again */
    return !atomic_compare_exchange_strong_explicit(&w->post, &mailed, NC_POST_ABANDONED, memory_order_acq_rel,
                                                    memory_order_acquire); /* B4 */
}

/* ---- the gate -------------------------------------------------------------------------------------- */

enum {
    NC_WATCHED = 1, /* flag: somebody in this line waits to be called */
    NC_GONE = 2,    /* flag: this side has left for good */
    NC_OVER = 1,    /* crowd: the other side has left for good */
    NC_WAITER = 2,  /* crowd: one waiter that is no observer */
};

typedef struct nc_gate {
    _Atomic uint32_t flag;  /* for the other side: NC_WATCHED | NC_GONE; written under the lock */
    _Atomic uint32_t crowd; /* for this side: NC_WAITER a waiter, | NC_OVER; written under the lock */
    uint32_t waiting;       /* the rest: under the lock */
    uint32_t born;          /* which process it belongs to; see nc_gate_enter */
    bool guarded;           /* all who come here hold the GIL: the gate's own lock is not used, orders are relaxed */
    uint64_t owed, called;
    nc_waiter *first, *last, *cursor;
    nc_lock lock;
} nc_gate;

static inline void nc_gate_init(nc_gate *g, uint32_t born)
{
    atomic_store_explicit(&g->flag, 0, memory_order_relaxed); /* nobody else knows the gate yet */
    atomic_store_explicit(&g->crowd, 0, memory_order_relaxed);
    g->waiting = 0;
    g->born = born;
    g->guarded = false;
    g->owed = g->called = 0;
    g->first = g->last = g->cursor = NULL;
    nc_lock_init(&g->lock);
}

/* This side reads it before it takes: 0 if nobody is in line and the other side is there.  Relaxed: a call
 * that overlaps an enrolment may count as having come first. */
static inline uint32_t nc_gate_crowd(nc_gate *g) { return atomic_load_explicit(&g->crowd, memory_order_relaxed); }

/* The other side reads it after it has published: does somebody have to be notified?  `order` is seq_cst
 * (W2), or relaxed where a lock or the GIL covers both sides. */
static inline uint32_t nc_gate_flag(nc_gate *g, memory_order order) { return atomic_load_explicit(&g->flag, order); }

static inline uint32_t nc_waiter_state_of(nc_waiter *w)
{
    return atomic_load_explicit(&w->state, memory_order_acquire); /* W5 */
}

/* Has the other side left?  Acquire: then what it published before is there to be seen (C1). */
static inline bool nc_gate_over_seen(nc_gate *g)
{
    return atomic_load_explicit(&g->crowd, memory_order_acquire) & NC_OVER;
}

/* Under the lock, so no read-modify-write.  Release: whoever reads NC_OVER from this store must also see
 * what C1 published. */
static inline void nc_gate_add_crowd(nc_gate *g, uint32_t n)
{
    atomic_store_explicit(&g->crowd, nc_gate_crowd(g) + n, memory_order_release); /* C1, handed on */
}

/* Raise the flag before looking again (W1); lower it when nobody is left to be notified.  A flag that is
 * lowered late costs the other side one look and no more, so release is enough for that. */
static inline void nc_gate_set_flag(nc_gate *g)
{
    uint32_t flag = atomic_load_explicit(&g->flag, memory_order_relaxed); /* under the lock */
    uint32_t want = (flag & NC_GONE) | (g->waiting ? NC_WATCHED : 0);
    if (want == flag)
        return;
    bool raise = want & NC_WATCHED && !g->guarded;
    atomic_store_explicit(&g->flag, want, raise ? memory_order_seq_cst : memory_order_release); /* W1 */
}

/* Enter the gate.  `now` is this process's generation.  A gate that was born in the parent process begins
 * anew: the parent's waiters do not wait here, and a lock that was held there would be held for ever. */
static inline void nc_gate_enter(nc_gate *g, uint32_t now)
{
    if (g->born != now) {
        uint32_t gone = atomic_load_explicit(&g->flag, memory_order_relaxed) & NC_GONE; /* alone after fork */
        uint32_t over = nc_gate_crowd(g) & NC_OVER;
        bool guarded = g->guarded;
        nc_gate_init(g, now);
        g->guarded = guarded;
        atomic_store_explicit(&g->flag, gone, memory_order_relaxed);
        atomic_store_explicit(&g->crowd, over, memory_order_relaxed);
    }
    if (!g->guarded)
        nc_lock_enter(&g->lock);
}

static inline void nc_gate_exit(nc_gate *g)
{
    if (!g->guarded)
        nc_lock_exit(&g->lock);
}

/* Others are about to come, who do not hold the lock that guards the gate: from now on its own is taken, also by those
 * who post to the boxes in its line.  The caller holds the lock that guards it, so nobody is inside. */
static inline void nc_gate_unguard(nc_gate *g, uint32_t now)
{
    nc_gate_enter(g, now); /* takes nothing, but it may have to begin anew */
    for (nc_waiter *w = g->first; w != NULL; w = w->next)
        w->box->guarded = false;
    g->guarded = false;
}

/* Everything below is called between nc_gate_enter and nc_gate_exit. */

static inline bool nc_gate_over(nc_gate *g) { return nc_gate_crowd(g) & NC_OVER; }

static inline void nc_gate_set_state(nc_gate *g, nc_waiter *w, uint32_t state)
{
    bool was = atomic_load_explicit(&w->state, memory_order_relaxed) == NC_CALLED; /* under the lock */
    if (was && state != NC_CALLED)
        g->called -= w->share;
    if (!was && state == NC_CALLED)
        g->called += w->share;
    g->waiting += (state == NC_WAITING);
    atomic_store_explicit(&w->state, state, memory_order_release); /* W5 */
}

/* The first waiter in line that was not called yet, or NULL. */
static inline nc_waiter *nc_gate_next(nc_gate *g)
{
    nc_waiter *w = g->cursor;
    while (w != NULL && atomic_load_explicit(&w->state, memory_order_relaxed) != NC_WAITING) /* under the lock */
        w = w->next;
    return g->cursor = w;
}

/* A waiter joins the line (1) or leaves it (-1).  An observer is owed nothing, so nobody asks whether it is there. */
static inline void nc_gate_count(nc_gate *g, const nc_waiter *w, int by)
{
    g->owed += (uint64_t)by * w->share;
    if (w->share > 0)
        nc_gate_add_crowd(g, (uint32_t)by * NC_WAITER);
}

/* Join the end of the line.  The caller must then look at the ring again (W1 before W3). */
static inline void nc_gate_enrol(nc_gate *g, nc_waiter *w)
{
    w->prev = g->last;
    w->next = NULL;
    if (g->last != NULL)
        g->last->next = w;
    else
        g->first = w;
    g->last = w;
    if (g->cursor == NULL)
        g->cursor = w;
    w->born = g->born;
    w->deferred = false;
    if (w->box->guarded && !g->guarded)
        w->box->guarded = false; /* from now on others may post; here the GIL is held, too */
    nc_gate_count(g, w, 1);
    nc_gate_set_state(g, w, NC_WAITING);
    nc_gate_set_flag(g);
}

/* A called waiter looked and found nothing: it waits on, in its old place.  Look again, as after enrolling. */
static inline void nc_gate_rejoin(nc_gate *g, nc_waiter *w)
{
    nc_gate_set_state(g, w, NC_WAITING);
    g->cursor = g->first; /* it may stand before the cursor */
    nc_gate_set_flag(g);
}

/* Leave the line, called or not; leaving twice does no harm.  The caller then calls those whose turn it may
 * be now. */
static inline void nc_gate_leave(nc_gate *g, nc_waiter *w)
{
    if (atomic_load_explicit(&w->state, memory_order_relaxed) == NC_OUTSIDE) /* under the lock */
        return;
    if (w->born != g->born) { /* the line it stood in stayed behind in the parent process */
        atomic_store_explicit(&w->state, NC_OUTSIDE, memory_order_relaxed);
        return;
    }
    if (atomic_load_explicit(&w->state, memory_order_relaxed) == NC_WAITING) /* under the lock */
        g->waiting--;
    nc_gate_set_state(g, w, NC_OUTSIDE);
    if (g->cursor == w)
        g->cursor = w->next;
    *(w->prev != NULL ? &w->prev->next : &g->first) = w->next;
    *(w->next != NULL ? &w->next->prev : &g->last) = w->prev;
    w->prev = w->next = NULL;
    nc_gate_count(g, w, -1);
    nc_gate_set_flag(g);
}

/* Tell a waiter to look again.  Without `kicks` the waiter is the caller itself, which looks anyway. */
static inline void nc_gate_call(nc_gate *g, nc_waiter *w, nc_box **kicks)
{
    g->waiting--;
    nc_gate_set_state(g, w, NC_CALLED);
    if (kicks != NULL)
        nc_box_post(w, kicks);
    nc_gate_set_flag(g);
}

/* Does what there is go as far as w, beyond those already called?  At the end nothing is left, and all may see that. */
static inline bool nc_gate_reaches(nc_gate *g, const nc_waiter *w, uint64_t have)
{
    return have == 0 ? nc_gate_over(g) : have > g->called && have - g->called >= w->least;
}

/* Call waiters from the front, as far as `have` items or bytes go.  With NC_OVER and nothing left, call everybody.  An
 * observer for which there is too little is passed over. */
static inline void nc_gate_call_ready(nc_gate *g, uint64_t have, nc_box **kicks)
{
    for (nc_waiter *w = nc_gate_next(g); w != NULL; w = w->next) {
        if (atomic_load_explicit(&w->state, memory_order_relaxed) != NC_WAITING) /* under the lock */
            continue;
        if (nc_gate_reaches(g, w, have))
            nc_gate_call(g, w, kicks);
        else if (w->share > 0)
            break;
    }
}

/* How much there has to be for anybody more to be called: what the next in line needs, or an observer ahead of it,
 * which holds nobody up.  0: nobody waits to be called. */
static inline uint64_t nc_gate_least(nc_gate *g)
{
    uint64_t least = 0;
    for (nc_waiter *w = nc_gate_next(g); w != NULL; w = w->next) {
        if (atomic_load_explicit(&w->state, memory_order_relaxed) != NC_WAITING) /* under the lock */
            continue;
        if (least == 0 || w->least < least)
            least = w->least;
        if (w->share > 0)
            break;
    }
    return least;
}

/* After enrolling or rejoining, and after a second look that found `have`: is it w's turn?  Then w counts as
 * called, and its thread goes on at once. */
static inline bool nc_gate_take_turn(nc_gate *g, nc_waiter *w, uint64_t have)
{
    if (nc_gate_next(g) != w || !nc_gate_reaches(g, w, have))
        return false;
    nc_gate_call(g, w, NULL);
    return true;
}

/* A called waiter found its endpoint lent to a claim: it keeps its place and its share, and sleeps until
 * nc_gate_resume.  The caller of either holds the endpoint. */
static inline void nc_gate_defer(nc_waiter *w) { w->deferred = true; }

static inline void nc_gate_undefer(nc_waiter *w, nc_box **kicks)
{
    w->deferred = false;
    nc_box_post(w, kicks);
}

/* The claim on `owner` has ended: the first waiter that was deferred for it goes on.  True if there was one. */
static inline bool nc_gate_resume(nc_gate *g, void *owner, nc_box **kicks)
{
    for (nc_waiter *w = g->first; w != NULL; w = w->next)
        if (w->owner == owner && w->deferred) {
            nc_gate_undefer(w, kicks);
            return true;
        }
    return false;
}

/* A waiter will take nothing more.  What it was owed is there for others at once, whenever its thread comes by to leave
 * the line: from now on it is as an observer.  The caller then calls those whose turn it may be now. */
static inline void nc_gate_forgo(nc_gate *g, nc_waiter *w)
{
    nc_gate_count(g, w, -1);
    if (atomic_load_explicit(&w->state, memory_order_relaxed) == NC_CALLED) /* under the lock */
        g->called -= w->share;
    w->share = 0;
}

/* An endpoint was closed: call everybody who waits on it.  They find that it is closed, and take nothing.  The caller
 * then calls those behind them. */
static inline void nc_gate_call_owner(nc_gate *g, void *owner, nc_box **kicks)
{
    for (nc_waiter *w = g->first; w != NULL; w = w->next) {
        if (w->owner != owner)
            continue;
        nc_gate_forgo(g, w);
        if (atomic_load_explicit(&w->state, memory_order_relaxed) == NC_WAITING) /* under the lock */
            nc_gate_call(g, w, kicks);
        else if (w->deferred)
            nc_gate_undefer(w, kicks);
    }
}

/* All deferred waiters go on at once: there is something to see that needs no endpoint. */
static inline void nc_gate_resume_all(nc_gate *g, nc_box **kicks)
{
    for (nc_waiter *w = g->first; w != NULL; w = w->next)
        if (w->deferred)
            nc_gate_undefer(w, kicks);
}

/* The other side has left: no wait in this line makes sense any more. */
static inline void nc_gate_set_over(nc_gate *g)
{
    atomic_store_explicit(&g->crowd, nc_gate_crowd(g) | NC_OVER, memory_order_seq_cst); /* C1 */
}

/* This side has left: whoever publishes from now on sees it (W2). */
static inline void nc_gate_set_gone(nc_gate *g)
{
    uint32_t flag = atomic_load_explicit(&g->flag, memory_order_relaxed); /* under the lock */
    atomic_store_explicit(&g->flag, flag | NC_GONE, memory_order_seq_cst); /* C2 */
}

#endif
