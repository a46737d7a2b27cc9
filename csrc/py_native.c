/* py_native.c: the ends that native threads attach to, behind nexus_channels.h.  The Python objects that they belong to
 * are in py_lend.c.
 *
 * A native end has three owners: the Python object that tx.native() returned, the thread that is attached, and the
 * endpoint that lent itself.  The end refers to the channel's block and to no Python object, so the thread may outlive
 * all Python objects.  Calls from native code need no GIL and allocate nothing, but for a lane that is new.
 *
 * nc_end.h decides which owner may touch the end when (N1 to N3 in PROTOCOL.md).  Python closes an end by raising
 * `closed` and waiting for a state other than BUSY, which takes a few instructions.  If no claim is open, Python then
 * takes the end out of the channel; else the thread does so when it ends the claim.
 */
#include "py_native.h"
#include "py_bytes.h"
#include "py_reach.h"
#include "py_tell.h"

#include <errno.h>

/* ---- life and death: from any thread, with or without a GIL ------------------------------------------- */

static void end_free(native_end *e)
{
    if (e != NULL && e->parker != NULL)
        wake_box_unref(&e->parker->base.box);
    PyMem_RawFree(e);
}

static void end_drop(lease *l)
{
    native_end *e = container_of(l, native_end, lease);
    block_unref(e->block);
    end_free(e);
}

static bool end_foreign(const native_end *e) { return e->born != core_generation(); }

/* Something was published: notify the receivers, or drop it if they are gone (C2). */
static void notify_receivers(nc_chan *b, nc_box **kicks)
{
    bytes_notify(b, RX, kicks);
    if (nc_chan_orphaned(b))
        nc_chan_discard_bytes(b, core_generation());
}

/* End the batch of quiet commits, and notify the receivers. */
static void publish_and_notify(native_end *e, nc_box **kicks)
{
    if (e->unnotified)
        nc_chan_publish_batch(e->block);
    e->unnotified = false;
    notify_receivers(e->block, kicks);
}

/* Take the end out of the channel, once.  Nobody is in a call or has a claim open. */
static void end_depart(native_end *e, nc_box **kicks)
{
    if (!nc_end_depart(&e->lease.life))
        return;
    nc_chan_leave(e->block, e->side, core_generation(), kicks);
    if (e->side == RX && nc_chan_orphaned(e->block))
        nc_chan_discard_bytes(e->block, core_generation());
}

/* Leave the line, if the end stands there, and hand on what it was called for but did not take. */
static void end_leave_line(native_end *e, nc_box **kicks)
{
    nc_chan_leave_line(e->block, e->side, e->parker->waiter, false, core_generation(), kicks);
}

/* Of a channel between processes: hear what was rung, for all who wait here. */
static void end_hear(native_end *e)
{
    nc_box *kicks = NULL;
    nc_chan_hear(e->block, core_generation(), &kicks);
    wake_boxes(kicks);
}

bool native_end_disconnected(native_end *e)
{
    nc_chan *b = e->block;
    if (b->lanes == NULL || end_foreign(e))
        return nc_gate_over_seen(&b->gate[e->side]);
    end_hear(e);
    return nc_lanes_deserted(b->lanes);
}

/* Abort or release the open claim. */
static void claim_drop(native_end *e, nc_box **kicks)
{
    nc_chan *b = e->block;
    if (e->side == TX) {
        bytes_notify(b, nc_chan_abort(b, &e->record), kicks);
    } else {
        nc_chan_release(b, &e->record, memory_order_seq_cst);
        bytes_given_back(b, kicks);
    }
}

/* ---- the frame of every call ------------------------------------------------------------------------ */

static const int begun[] = {[NC_END_OPEN] = NEXUS_OK, [NC_END_SHUT] = NEXUS_DISCONNECTED};

/* Begin a call that needs no claim to be open.  Unless the answer is NEXUS_OK, the call is over. */
static int enter_idle(native_end *e)
{
    if (end_foreign(e))
        return NEXUS_FORKED;
    nc_end_answer answer = nc_end_begin(&e->lease.life);
    return answer == NC_END_WRONG ? NEXUS_BUSY : begun[answer];
}

/* Begin a call that ends a claim; a closed end allows it, too.  Unless the answer is NEXUS_OK, the call is over. */
static int enter_claimed(native_end *e)
{
    if (end_foreign(e))
        return NEXUS_FORKED;
    nc_end_answer answer = nc_end_begin_claimed(&e->lease.life);
    return answer == NC_END_WRONG ? NEXUS_NO_CLAIM : begun[answer];
}

/* End a call that has ended the claim. */
static void leave_claim(native_end *e, nc_box *kicks)
{
    if (nc_end_leave_claim(&e->lease.life))
        end_depart(e, &kicks);
    wake_boxes(kicks);
}

/* ---- waiting ---------------------------------------------------------------------------------------- */

/* What a call wants, and may have to wait for. */
typedef struct Want {
    /* Try once; `called`: it is the caller's turn.  STEP_READY: done, see `result`.  STEP_ERROR: disconnected. */
    step (*look)(native_end *, struct Want *, bool called, nc_box **kicks);
    uint64_t least; /* what it needs, in bytes of the ring */
    const nexus_message *messages;
    size_t count, sent;
    void *buffer;
    size_t size; /* of the claim or the buffer; then of the message */
    int result;
    int why; /* errno, of a fault */
    uint32_t after; /* the state of the end after success */
} Want;

/* Is that about a sender in another process?  The end itself goes on. */
static bool is_fault(int result) { return result == NEXUS_BAD_PEER || result == NEXUS_SYSTEM; }

enum { SPIN_LEAST = 16, SPIN_MOST = 1024 }; /* pauses */
enum { SPIN_WORTH = 100000 }; /* ns: the shortest time limit of which a part may be spun away */

/* Before a thread stands in line, where every message for it costs its sender a lock and a call: spin a little, as long
 * as that was worth it lately.  Meanwhile the end counts as asleep, so that its closer does not wait.  A policy of its
 * own, not py_park.c's: a native thread goes on without the GIL, so that a short spin is enough; and whether the last
 * one met something is known without a clock. */
static void end_spin(native_end *e, const Want *want)
{
    unsigned spins = 0;
    bool ready = false;
    nc_end_sleep(&e->lease.life);
    if (e->block->lanes != NULL)
        ready = nc_gate_crowd(&e->block->gate[e->side]) < NC_WAITER && reach_spin_natively(e->block, e->spin);
    else
        while (spins < e->spin && !nc_end_closed(&e->lease.life) &&
               !(ready = nc_chan_seems_ready(e->block, e->side, want->least)))
            nc_relax(&spins);
    nc_end_awake(&e->lease.life);
    if (!ready)
        e->spin = e->spin / 2 > SPIN_LEAST ? e->spin / 2 : SPIN_LEAST;
    else if (e->spin < SPIN_MOST)
        e->spin *= 2;
}

/* Sleep until called, closed or the deadline (< 0: none); false if the time is up. */
static bool end_sleep(native_end *e, int64_t deadline)
{
    parker *p = e->parker;
    PY_TIMEOUT_T us = -1;
    bool rung = false;
    nc_end_sleep(&e->lease.life);
    if (deadline >= 0) {
        int64_t left = deadline - now_ns(), hour = INT64_C(3600000000);
        us = left <= 0 ? 0 : left / 1000 >= hour ? hour : left / 1000 + 1; /* the caller sleeps again */
    }
    if (!nc_post_waits(p->waiter))
        rung = parker_sleep_natively(p, us);
    nc_end_awake(&e->lease.life);
    if (rung)
        end_hear(e);
    return nc_post_waits(p->waiter) || deadline < 0 || now_ns() < deadline;
}

/* Stand in line until the look succeeds or fails: STEP_READY, STEP_ERROR, or STEP_BLOCKED if the time is up. */
static step end_park(native_end *e, Want *want, int64_t timeout, nc_box **kicks)
{
    nc_waiter *w = e->parker->waiter;
    int64_t now = timeout < 0 ? 0 : now_ns();
    int64_t deadline = timeout < 0 ? -1 : timeout < INT64_MAX - now ? now + timeout : INT64_MAX;
    step s = STEP_BLOCKED;
    wake_boxes(*kicks); /* nobody makes room, or sends, who was not woken */
    *kicks = NULL;
    if (timeout < 0 || timeout >= SPIN_WORTH)
        end_spin(e, want);
    for (;;) {
        parker_receive(e->parker);
        uint32_t place = nc_waiter_state_of(w);
        if (nc_end_closed(&e->lease.life))
            s = STEP_ERROR;
        else
            s = place == NC_WAITING ? STEP_BLOCKED : want->look(e, want, place == NC_CALLED, kicks);
        if (s == STEP_READY || s == STEP_ERROR)
            break;
        nc_need need = {want->least, want->least};
        bool turn =
            nc_chan_line_up(e->block, e->side, w, need, s == STEP_PARTIAL, true, core_generation(), kicks) == NC_TURN;
        wake_boxes(*kicks);
        *kicks = NULL;
        s = STEP_BLOCKED;
        if (!turn && !nc_end_closed(&e->lease.life) && !end_sleep(e, deadline))
            break;
    }
    end_leave_line(e, kicks);
    return s;
}

/* Look once, and wait if the look was in vain. */
static int run(native_end *e, Want *want, int64_t timeout)
{
    nc_box *kicks = NULL;
    int result = enter_idle(e);
    if (result != NEXUS_OK)
        return result;
    step s = want->look(e, want, false, &kicks);
    if (s == STEP_BLOCKED || s == STEP_PARTIAL) {
        if (e->unnotified) /* a receiver that sleeps beside a full ring would never make room */
            publish_and_notify(e, &kicks);
        else if (e->side == TX && e->block->lanes != NULL) /* the look has heard what was rung for those in line */
            bytes_notify(e->block, RX, &kicks);
        if (timeout != 0)
            s = end_park(e, want, timeout, &kicks);
        result = timeout != 0 ? NEXUS_TIMEOUT : e->side == TX ? NEXUS_FULL : NEXUS_EMPTY;
    }
    if (s == STEP_READY)
        result = want->result;
    if (s == STEP_ERROR)
        result = NEXUS_DISCONNECTED;
    nc_end_leave(&e->lease.life, result == NEXUS_OK ? want->after : NC_END_IDLE);
    wake_boxes(kicks);
    if (is_fault(result))
        errno = want->why;
    return result;
}

/* ---- attaching --------------------------------------------------------------------------------------- */

static int call_attach(nexus_end *face)
{
    native_end *e = container_of(face, native_end, face);
    if (end_foreign(e))
        return NEXUS_FORKED;
    if (nc_end_closed(&e->lease.life))
        return NEXUS_DISCONNECTED;
    if (!nc_end_attach(&e->lease.life))
        return NEXUS_BUSY;
    lease_ref(&e->lease);
    return NEXUS_OK;
}

static void call_detach(nexus_end *face)
{
    native_end *e = container_of(face, native_end, face);
    nc_box *kicks = NULL;
    uint32_t was;
    if (!end_foreign(e)) {
        nc_end_enter(&e->lease.life, &was); /* closed or not */
        if (was == NC_END_CLAIMED)
            claim_drop(e, &kicks);
        if (e->unnotified)
            publish_and_notify(e, &kicks);
        leave_claim(e, kicks);
    }
    if (nc_end_detach(&e->lease.life))
        lease_unref(&e->lease);
}

/* ---- sending ----------------------------------------------------------------------------------------- */

static int check_size(const native_end *e, size_t n)
{
    return n == 0 ? NEXUS_ZERO_LENGTH : n > nc_log_largest(e->block->log) ? NEXUS_TOO_LARGE : NEXUS_OK;
}

static step end_claim_look(native_end *e, Want *want, bool called, nc_box **Py_UNUSED(kicks))
{
    return bytes_claim(e->block, want->size, called, &e->record);
}

static int call_claim(nexus_end *face, size_t n, int64_t timeout, void **place)
{
    native_end *e = container_of(face, native_end, face);
    int result = check_size(e, n);
    Want want = {.look = end_claim_look, .least = nc_log_extent(n), .size = n, .after = NC_END_CLAIMED};
    if (result == NEXUS_OK)
        result = run(e, &want, timeout);
    *place = result == NEXUS_OK ? e->record.data : NULL;
    return result;
}

/* A claim whose size does not fit stays open, so sizes are checked first. */
static int call_commit(nexus_end *face, size_t n, int quiet)
{
    native_end *e = container_of(face, native_end, face);
    nc_box *kicks = NULL;
    int result = enter_claimed(e);
    if (result != NEXUS_OK)
        return result;
    if (n == 0 || n > e->record.size) {
        nc_end_leave(&e->lease.life, NC_END_CLAIMED);
        return n == 0 ? NEXUS_ZERO_LENGTH : NEXUS_TOO_LARGE;
    }
    if (nc_chan_over(e->block, TX)) {
        claim_drop(e, &kicks);
        result = NEXUS_DISCONNECTED;
    } else {
        (quiet ? bytes_commit_quiet : bytes_commit)(e->block, &e->record, n);
        e->unnotified |= quiet;
    }
    if (!quiet || nc_end_closed(&e->lease.life)) /* there may be no next call */
        publish_and_notify(e, &kicks);
    else if (e->block->lanes != NULL) /* the lane is free for the next claim, and somebody may stand in line for that */
        bytes_notify(e->block, TX, &kicks);
    leave_claim(e, kicks);
    return result;
}

static int call_abort(nexus_end *face)
{
    native_end *e = container_of(face, native_end, face);
    nc_box *kicks = NULL;
    int result = enter_claimed(e);
    if (result != NEXUS_OK)
        return result;
    claim_drop(e, &kicks);
    leave_claim(e, kicks);
    return NEXUS_OK;
}

/* Send all messages that fit, then notify once. */
static step end_send_look(native_end *e, Want *want, bool called, nc_box **kicks)
{
    size_t before = want->sent;
    step s = STEP_READY;
    for (; want->sent < want->count; want->sent++) {
        const nexus_message *message = &want->messages[want->sent];
        nc_record record;
        if ((want->result = check_size(e, message->size)) != NEXUS_OK)
            break;
        want->least = nc_log_extent(message->size);
        if ((s = bytes_claim(e->block, message->size, called, &record)) != STEP_READY)
            break;
        memcpy(record.data, message->data, message->size);
        bytes_commit_quiet(e->block, &record, message->size);
        e->unnotified = true;
    }
    if (want->sent > before)
        publish_and_notify(e, kicks);
    return s == STEP_BLOCKED && want->sent > before ? STEP_PARTIAL : s;
}

static int call_send_many(nexus_end *face, const nexus_message *messages, size_t count, int64_t timeout, size_t *sent)
{
    Want want = {.look = end_send_look, .messages = messages, .count = count};
    int result = run(container_of(face, native_end, face), &want, timeout);
    *sent = want.sent;
    return result;
}

/* One message is published by its commit; the batch above takes a locked store of its own, which has to wait until the
 * receiver lets go of the line of the last header. */
static step end_send_one_look(native_end *e, Want *want, bool called, nc_box **kicks)
{
    nc_record record;
    step s = bytes_claim(e->block, want->messages->size, called, &record);
    if (s != STEP_READY)
        return s;
    memcpy(record.data, want->messages->data, want->messages->size);
    bytes_commit(e->block, &record, want->messages->size);
    e->unnotified = false; /* what was quiet before is published as well */
    notify_receivers(e->block, kicks);
    return STEP_READY;
}

static int call_send(nexus_end *face, const void *data, size_t n, int64_t timeout)
{
    native_end *e = container_of(face, native_end, face);
    nexus_message message = {data, n};
    Want want = {.look = end_send_one_look, .least = nc_log_extent(n), .messages = &message, .count = 1};
    int result = check_size(e, n); /* first, as in Python */
    return result != NEXUS_OK ? result : run(e, &want, timeout);
}

static int call_flush(nexus_end *face)
{
    native_end *e = container_of(face, native_end, face);
    nc_box *kicks = NULL;
    uint32_t was;
    if (end_foreign(e))
        return NEXUS_FORKED;
    nc_end_enter(&e->lease.life, &was); /* closed or not */
    if (e->unnotified)
        publish_and_notify(e, &kicks);
    nc_end_leave(&e->lease.life, was);
    wake_boxes(kicks);
    return NEXUS_OK;
}

/* ---- receiving --------------------------------------------------------------------------------------- */

/* Look for the first record.  By lanes a fault is told, once, as in Python: STEP_READY, and then the result is not OK.
 */
static step end_show(native_end *e, Want *want, bool called, nc_record *record, nc_box **kicks)
{
    nc_chan *b = e->block;
    step s = bytes_show(b, called, record, kicks);
    if (s != STEP_ERROR || b->lanes == NULL)
        return s;
    nc_lanes_fault fault = tell_take_fault(b, &want->why);
    if (fault == NC_LANES_SOUND)
        return nc_lanes_over(b->lanes) ? STEP_ERROR : STEP_BLOCKED;
    if (fault != NC_LANES_SYSTEM)
        want->why = EPROTO;
    want->result = fault == NC_LANES_SYSTEM ? NEXUS_SYSTEM : NEXUS_BAD_PEER;
    return STEP_READY;
}

static step end_peek_look(native_end *e, Want *want, bool called, nc_box **kicks)
{
    return end_show(e, want, called, &e->record, kicks);
}

static int call_peek(nexus_end *face, const void **data, size_t *n, int64_t timeout)
{
    native_end *e = container_of(face, native_end, face);
    Want want = {.look = end_peek_look, .least = 1, .after = NC_END_CLAIMED};
    int result = run(e, &want, timeout);
    *data = result == NEXUS_OK ? e->record.data : NULL;
    *n = result == NEXUS_OK ? e->record.size : 0;
    return result;
}

static int call_release(nexus_end *face) { return call_abort(face); /* both end the open claim */ }

static step end_recv_look(native_end *e, Want *want, bool called, nc_box **kicks)
{
    nc_record record;
    step s = end_show(e, want, called, &record, kicks);
    if (s != STEP_READY || is_fault(want->result))
        return s;
    want->result = record.size > want->size ? NEXUS_TOO_LARGE : NEXUS_OK;
    want->size = record.size;
    if (want->result != NEXUS_OK) {
        bytes_left(e->block, kicks);
        return STEP_READY;
    }
    memcpy(want->buffer, record.data, record.size);
    bytes_take(e->block, &record);
    bytes_given_back(e->block, kicks);
    return STEP_READY;
}

static int call_recv(nexus_end *face, void *buffer, size_t size, size_t *n, int64_t timeout)
{
    Want want = {.look = end_recv_look, .least = 1, .buffer = buffer, .size = size};
    int result = run(container_of(face, native_end, face), &want, timeout);
    *n = result == NEXUS_OK || result == NEXUS_TOO_LARGE ? want.size : 0;
    return result;
}

/* ---- inspecting -------------------------------------------------------------------------------------- */

static int call_is_disconnected(const nexus_end *face)
{
    native_end *e =
        container_of((nexus_end *)(uintptr_t)face, native_end, face); /* only the face is not to be written */
    return nc_end_closed(&e->lease.life) || native_end_disconnected(e);
}

static size_t call_capacity(const nexus_end *face)
{
    return container_of(face, const native_end, face)->block->log->capacity;
}

static size_t call_used(const nexus_end *face)
{
    return nc_chan_used(container_of(face, const native_end, face)->block);
}

static const nexus_calls calls = {
    .attach = call_attach,
    .detach = call_detach,
    .claim = call_claim,
    .commit = call_commit,
    .abort = call_abort,
    .send = call_send,
    .send_many = call_send_many,
    .flush = call_flush,
    .peek = call_peek,
    .release = call_release,
    .recv = call_recv,
    .is_disconnected = call_is_disconnected,
    .capacity = call_capacity,
    .used = call_used,
};

/* ---- opening and closing: from Python, which runs no code ------------------------------------------------- */

native_end *native_end_new(Chan *c, int side)
{
    native_end *e = PyMem_RawCalloc(1, sizeof *e);
    if (e == NULL || (e->parker = parker_new(1)) == NULL)
        PyErr_NoMemory();
    if (e == NULL || e->parker == NULL || !parker_listen_natively(e->parker, c)) {
        end_free(e);
        return NULL;
    }
    if (c->block->lanes != NULL)
        reach_unguard(c);
    parker_place(e->parker, 0, e);
    e->face.magic = side == TX ? NEXUS_SENDER_MAGIC : NEXUS_RECEIVER_MAGIC;
    e->face.layout = NEXUS_LAYOUT;
    e->face.calls_size = sizeof calls;
    e->face.calls = &calls;
    e->block = c->block;
    e->side = side;
    e->born = core_generation();
    e->spin = SPIN_LEAST;
    nc_end_init(&e->lease.life);
    e->lease.drop = end_drop;
    atomic_store_explicit(&e->lease.refs, 1, memory_order_relaxed); /* nobody else knows it yet */
    nc_chan_ref(c->block);
    nc_chan_join(c->block, side);
    return e;
}

/* The thread of a closed end is said to be gone for good: end the claim that it left open; true if there was one.  If
 * the thread is in a call after all, it ends the claim itself. */
static bool end_bury(native_end *e, nc_box **kicks)
{
    end_leave_line(e, kicks);
    bool claimed = nc_end_bury(&e->lease.life);
    if (claimed) {
        claim_drop(e, kicks);
        nc_end_leave(&e->lease.life, NC_END_IDLE);
    }
    if (nc_end_detach(&e->lease.life))
        lease_unref(&e->lease); /* not the last: the caller has one */
    return claimed;
}

void native_end_close(native_end *e, bool abandon, nc_box **kicks)
{
    nc_chan *b = e->block;
    nc_end_close(&e->lease.life);
    nc_chan_call_owner(b, e->side, e, core_generation(), kicks);
    if (end_foreign(e)) { /* its thread is in the parent process */
        end_depart(e, kicks);
        return;
    }
    uint32_t state = nc_end_await(&e->lease.life);
    if (e->side == TX) { /* the quiet commits */
        nc_chan_publish_batch(b);
        notify_receivers(b, kicks);
    }
    if (abandon && end_bury(e, kicks))
        state = NC_END_IDLE;
    if (state != NC_END_CLAIMED) /* else its thread departs when it ends the claim */
        end_depart(e, kicks);
}
