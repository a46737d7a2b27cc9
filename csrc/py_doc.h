/* py_doc.h: what help() says of all that is public: each text has a signature, what it does, what it raises, and last
 * what it promises under cancellation and threads.  Included where the methods and types are listed. */
#ifndef PY_DOC_H
#define PY_DOC_H

/* ---- all endpoints --------------------------------------------------------------------------------------- */

static const char endpoint_clone_doc[] =
    "clone($self)\n--\n\n"
    "Another sender of the same channel; the receiver sees the end when all of them are gone.\n\n"
    "Raises EndpointClosed if this one is closed.  Safe from any thread (local: its own only).";

static const char endpoint_statistics_doc[] =
    "statistics($self)\n--\n\n"
    "A snapshot: capacity, buffered, open_senders, open_receivers, waiting_senders, waiting_receivers, and\n"
    "the totals sent and received, all in items, or in bytes of the ring where bytes are carried.  Each number is "
    "right by itself; together they are right\n"
    "while nobody sends or receives.  Never raises for a closed endpoint; safe from any thread.";

static const char endpoint_same_channel_doc[] =
    "same_channel($self, other, /)\n--\n\nTrue if `other` is an endpoint, of either side, of this very channel.";

static const char endpoint_close_doc[] =
    "close($self)\n--\n\n"
    "Give up this endpoint.  Whoever waits on it raises EndpointClosed.  Closing the last sender lets the\n"
    "receiver drain what was sent and then see the end; closing the receiver discards what is buffered, and\n"
    "senders get SendError with their value.\n\n"
    "Idempotent; dropping the last reference does the same.  Safe from any thread (local: its own only).";

static const char endpoint_open_ends_doc[] =
    "open_ends($self)\n--\n\n"
    "Which senders and receivers keep this channel open: a list of OpenEnd(kind, where).\n\n"
    "`where` is a tuple of 'file:line in function' strings, the line that made the end first and its callers after.\n"
    "It is empty for an end that was made while debug mode was off: see nexus_channels.set_debug_ends().\n"
    "A snapshot.  Never raises for a closed endpoint; safe from any thread.";

static const char endpoint_native_doc[] =
    "native($self)\n--\n\n"
    "An end of this channel for one native thread: pass its address, capsule or cffi pointer to code that includes\n"
    "nexus_channels.h.  Of an mpsc_bytes sender it is a further sender, as clone() gives; else it borrows this\n"
    "endpoint, whose own calls raise BusyError until it is closed.  It keeps the endpoint, and counts as open until\n"
    "closed.\n\n"
    "Raises BusyError while the endpoint is lent or somebody waits on it, EndpointClosed; RuntimeError if a task "
    "waits\non a loop that native code could not wake.  Safe from any thread.";

/* ---- endpoints of objects -------------------------------------------------------------------------------- */

#define RING_CANCEL_SEND "Cancelled or timed out, it did not send.  Safe from any thread (local: its own only)."
#define RING_CANCEL_RECV "Cancelled or timed out, it took nothing.  Safe from any thread (local: its own only)."

static const char ring_send_doc[] =
    "send($self, value, timeout=None)\n--\n\n"
    "Send `value`, waiting for room up to `timeout` seconds; await the result.\n\n"
    "Calls that overlap have no order: a try_send() or send() of the same sender may go before a send() that waits, "
    "if\n"
    "there is room for both.  Await each send before the next.\n\n"
    "Raises SendTimeout, SendError if the receiver is gone (both with `.value`), EndpointClosed.\n" RING_CANCEL_SEND;

static const char ring_send_blocking_doc[] =
    "send_blocking($self, value, timeout=None)\n--\n\n"
    "Send `value`, blocking this thread for room up to `timeout` seconds (0: do not wait), without the GIL.\n\n"
    "Raises SendTimeout, SendError if the receiver is gone (both with `.value`), EndpointClosed, and whatever a\n"
    "signal handler raises.  When it raised, it did not send.  Under gevent, call it in the hub's threadpool: it "
    "blocks\n"
    "the whole thread.  Safe from any thread.";

static const char ring_try_send_doc[] =
    "try_send($self, value, /)\n--\n\n"
    "Send `value` now.  Raises Full when there is no room, or no more than those in line will take; SendError if\n"
    "the receiver is gone (both with `.value`); EndpointClosed.  Never waits, keeps the GIL, and makes no system\n"
    "call unless it wakes somebody.  May go before a send() of this sender that waits, if there is room for both.\n"
    "Safe from any thread (local: its own only).";

static const char ring_send_many_doc[] =
    "send_many($self, iterable, timeout=None)\n--\n\n"
    "Send every value of `iterable`, in order; await the result.\n\n"
    "What has a length, a list for instance, is sent as it is at the call.  An iterator is taken as it goes, never "
    "more\n"
    "of it than the channel could hold at once; it may be endless.  An async iterator is sent as its values come.\n\n"
    "Raises as send() does; `.value` is then the list of what was taken and not sent.  Cancelled, it sent a prefix, "
    "and\n"
    "up to one capacity of values taken from an iterator goes with it.  What an iterator raises is raised after all "
    "that\n"
    "came before is sent.  Whenever it has to wait again, it goes to the end of the wait queue.  Safe from any thread\n"
    "(local: its own only).";

static const char ring_send_many_blocking_doc[] =
    "send_many_blocking($self, iterable, timeout=None)\n--\n\n"
    "send_many(), blocking this thread without the GIL.  Interrupted by a signal handler that raises, it sent a\n"
    "prefix.  Safe from any thread.";

static const char ring_try_send_many_doc[] =
    "try_send_many($self, iterable, /)\n--\n\n"
    "Send as many values as there is room for now, in order; returns how many.  Of an iterator it takes no more than\n"
    "there is room for: the rest stays in the iterator.  Raises SendError with the list of what was taken and not "
    "sent\n"
    "if the receiver is gone; EndpointClosed.  Safe from any thread (local: its own only).";

static const char ring_recv_doc[] =
    "recv($self, timeout=None)\n--\n\n"
    "Receive one value, waiting for it up to `timeout` seconds; await the result.\n\n"
    "Raises RecvTimeout, RecvError once every sender is gone and all was received, EndpointClosed.\n" RING_CANCEL_RECV;

static const char ring_recv_blocking_doc[] =
    "recv_blocking($self, timeout=None)\n--\n\n"
    "Receive one value, blocking this thread up to `timeout` seconds (0: do not wait), without the GIL.\n\n"
    "Raises RecvTimeout, RecvError once every sender is gone and all was received, EndpointClosed, and whatever a\n"
    "signal handler raises.  When it raised, it took nothing.  Under gevent, call it in the hub's threadpool: it "
    "blocks\n"
    "the whole thread.  Safe from any thread.";

static const char ring_try_recv_doc[] =
    "try_recv($self)\n--\n\n"
    "Receive one value now.  Raises Empty when there is none, or none but for those in line; RecvError at the end;\n"
    "EndpointClosed.  Never waits, keeps the GIL, and makes no system call unless it wakes somebody.  Safe from any\n"
    "thread (local: its own only).";

static const char ring_recv_many_doc[] =
    "recv_many($self, n, timeout=None)\n--\n\n"
    "Wait for one value, then take what is there, at most `n`, as a list; await the result.\n\n"
    "Raises as recv() does, ValueError for n < 1.\n" RING_CANCEL_RECV;

static const char ring_recv_many_blocking_doc[] =
    "recv_many_blocking($self, n, timeout=None)\n--\n\n"
    "recv_many(), blocking this thread without the GIL.  When it raised, it took nothing.  Safe from any thread.";

static const char ring_try_recv_many_doc[] =
    "try_recv_many($self, n, /)\n--\n\n"
    "Take what is there now, at most `n`, as a list, which may be empty.  Raises "
    "RecvError at the end, EndpointClosed,\n"
    "ValueError for n < 1.  Safe from any thread (local: its own only).";

static const char ring_sender_doc[] =
    "The sending end of a channel; open one with channel(capacity).\n\n"
    "send() waits in a task, send_blocking() in a thread, try_send() not at all.  Any number of tasks and threads\n"
    "may use one sender: they are served first come, first served.  A context manager that closes itself; dropping\n"
    "the last reference closes it too.  When every sender is closed, the receiver drains and then sees the end.";

static const char ring_receiver_doc[] =
    "The receiving end of a channel; open one with channel(capacity).\n\n"
    "recv() waits in a task, recv_blocking() in a thread, try_recv() not at all; `async for` and `for` end when\n"
    "every sender is gone.  Any number of tasks and threads may use it: they are served first come, first served.\n"
    "A context manager that closes itself; dropping the last reference closes it too, and what is buffered is dropped.";

static const char local_receiver_doc[] =
    "The receiving end of a channel within one thread; open one with channel(capacity).\n\n"
    "recv() waits, try_recv() does not; `async for` ends when every sender is gone.  A context manager that closes\n"
    "itself; dropping the last reference closes it too, and what is buffered is dropped.";

static const char local_sender_doc[] =
    "The sending end of a channel within one thread; open one with channel(capacity).\n\n"
    "send() waits, try_send() does not; clone() makes another sender.  A context manager that closes itself; dropping\n"
    "the last reference closes it too.  When every sender is closed, the receiver drains and then sees the end.";

/* ---- endpoints of bytes ---------------------------------------------------------------------------------- */

#define LOG_CANCEL_SEND "Cancelled or timed out, it did not send.  Safe from any thread."
#define LOG_CANCEL_RECV "Cancelled or timed out, it took nothing.  Safe from any thread."
#define TX_ERRORS "ClaimTooLarge or ZeroLengthClaim at the call, BusyError while a claim is open"

static const char log_claim_doc[] =
    "claim($self, n, timeout=None)\n--\n\n"
    "Reserve a place for a message of n bytes, 1 to max_message_size, waiting for room up to `timeout` seconds; await\n"
    "the WriteClaim, or use `async with tx.claim(n) as view`, which commits at the end and aborts on an exception.\n\n"
    "An asyncio.BufferedProtocol commits it by call_soon(): in buffer_updated() the loop still holds the view.\n\n"
    "Raises " TX_ERRORS
    ", ClaimTimeout,\nClaimDisconnected if the receiver is gone, EndpointClosed.  Cancelled or timed "
    "out, nothing is reserved.\nSafe from any thread.";

static const char log_claim_blocking_doc[] =
    "claim_blocking($self, n, timeout=None)\n--\n\nclaim(), blocking this thread "
    "without the GIL.  Safe from any thread.";

static const char log_try_claim_doc[] =
    "try_claim($self, n, /)\n--\n\n"
    "Reserve a place for a message of n bytes now.  Raises ClaimFull when there is no room, or no more than those in\n"
    "line will take; else as claim().  Never waits, keeps the GIL.  Safe from any thread.";

static const char log_send_doc[] =
    "send($self, data, timeout=None)\n--\n\n"
    "Send a copy of `data`, any C-contiguous buffer of 1 to max_message_size bytes, waiting for room up to `timeout`\n"
    "seconds; await the result.\n\n"
    "Calls that overlap have no order: a try_send() or send() of the same sender may go before a send() that waits, "
    "if\n"
    "there is room for both.  Await each send before the next.\n\n"
    "Raises " TX_ERRORS
    ", SendTimeout, SendError if\nthe receiver is gone (both with `.value`), EndpointClosed.  " LOG_CANCEL_SEND;

static const char log_send_blocking_doc[] = "send_blocking($self, data, timeout=None)\n--\n\n"
                                            "send(), blocking this thread without the GIL.  When it raised, it did not "
                                            "send.  Under gevent, call it in the hub's\n"
                                            "threadpool: it blocks the whole thread.  Safe from any thread.";

static const char log_try_send_doc[] =
    "try_send($self, data, /)\n--\n\n"
    "Send a copy of `data` now.  Raises Full when there is no room, or no more than those in line will take; else as\n"
    "send().  May go before a send() of this sender that waits, if there is room for both.  Never waits, keeps the "
    "GIL.\n"
    "Safe from any thread.";

static const char log_send_many_doc[] =
    "send_many($self, iterable, timeout=None)\n--\n\n"
    "Send copies of all buffers of `iterable`, in order; await the result.\n\n"
    "What has a length, a list for instance, is checked and held at the call.  An iterator is taken as it goes, never\n"
    "more of it than the channel could hold at once.  An async iterator is sent as its messages come.\n\n"
    "Raises as send() does; `.value` is then the list of what was taken and not sent.  Cancelled, it sent a prefix.  "
    "What\n"
    "an iterator raises, or yields and cannot be sent, is raised after all that came before is sent.  Safe from any "
    "thread.";

static const char log_send_many_blocking_doc[] =
    "send_many_blocking($self, iterable, timeout=None)\n--\n\nsend_many(), blocking this thread without the GIL.";

static const char log_try_send_many_doc[] =
    "try_send_many($self, iterable, /)\n--\n\n"
    "Send copies of as many buffers as there is room for now, in order; returns "
    "how many.  Of an iterator the rest stays\n"
    "there; a message that was taken and does not fit is handed back by Full, "
    "whose `.value` is the list of it.  Raises "
    "as\nsend() does.  Safe from any thread.";

static const char log_recv_doc[] =
    "recv($self, timeout=None)\n--\n\n"
    "Borrow the next message, waiting for it up to `timeout` seconds; await the ReadClaim.\n\n"
    "Give pyzmq a copy of it, or memoryview(claim) with copy=False and track=True, and release the claim after the\n"
    "tracker is done: of the claim itself pyzmq would not hold the buffer.\n\n"
    "Raises BusyError at the call while a claim is open, RecvTimeout, RecvError once every sender is gone and all was\n"
    "received, EndpointClosed.  " LOG_CANCEL_RECV;

static const char log_recv_blocking_doc[] =
    "recv_blocking($self, timeout=None)\n--\n\n"
    "recv(), blocking this thread without the GIL.  Under gevent, call it in the "
    "hub's threadpool: it blocks the whole\n"
    "thread.  Safe from any thread.";

static const char log_try_recv_doc[] =
    "try_recv($self)\n--\n\n"
    "Borrow the next message now.  Raises Empty when there is none, or it is owed to those in line; else as recv().\n"
    "Never waits, keeps the GIL.  Safe from any thread.";

static const char log_recv_bytes_doc[] =
    "recv_bytes($self, timeout=None)\n--\n\n"
    "Receive the next message as bytes, waiting for it up to `timeout` seconds; await "
    "it.  One copy.  Raises as recv().";

static const char log_recv_bytes_blocking_doc[] =
    "recv_bytes_blocking($self, timeout=None)\n--\n\nrecv_bytes(), blocking this thread without the GIL.";

static const char log_try_recv_bytes_doc[] =
    "try_recv_bytes($self)\n--\n\nThe next message as bytes, now.  Raises as try_recv().";

static const char log_recv_into_doc[] =
    "recv_into($self, buffer, timeout=None)\n--\n\n"
    "Receive the next message into a writable C-contiguous buffer, waiting for it up to `timeout` seconds; await the\n"
    "number of bytes.  Raises ValueError if the message is larger than the buffer, and the message stays; else as "
    "recv().";

static const char log_recv_into_blocking_doc[] =
    "recv_into_blocking($self, buffer, timeout=None)\n--\n\nrecv_into(), blocking this thread without the GIL.";

static const char log_try_recv_into_doc[] =
    "try_recv_into($self, buffer, /)\n--\n\nThe next message into `buffer`, now; "
    "returns its size.  Raises as try_recv() and recv_into().";

static const char log_recv_many_doc[] =
    "recv_many($self, n, timeout=None)\n--\n\n"
    "Wait for one message, then take what is there, at most n, as a list of bytes; await it.  Raises as recv().";

static const char log_recv_many_blocking_doc[] =
    "recv_many_blocking($self, n, timeout=None)\n--\n\nrecv_many(), blocking this thread without the GIL.";

static const char log_try_recv_many_doc[] =
    "try_recv_many($self, n, /)\n--\n\nWhat is there now, at most n messages, as a list of bytes, which may be empty.";

static const char log_abort_doc[] =
    "abort($self)\n--\n\n"
    "Abort the claim of this sender that is open, whoever holds it: for a claim that a kept exception or task holds.\n"
    "Returns True, or False if no claim was open.\n\n"
    "Raises BufferError while a view of the claim exists.  Also of a closed sender.  Safe from any thread.";

static const char log_release_doc[] =
    "release($self)\n--\n\n"
    "Release the claim of this receiver that is open, whoever holds it: for a claim that a kept exception or task "
    "holds.\n"
    "Returns True, or False if no claim was open.\n\n"
    "Raises BufferError while a view of the claim exists.  Also of a closed receiver.  Safe from any thread.";

static const char log_sender_doc[] =
    "The sending end of a channel of bytes; open one with channel(capacity).\n\n"
    "claim() reserves a place to write into, send() copies; both wait in a task, their _blocking forms in a thread,\n"
    "their try_ forms not at all.  One claim may be open at a time; abort() gives it back, whoever holds it.  A "
    "context\n"
    "manager that closes itself; dropping the last reference closes it too.";

static const char log_receiver_doc[] =
    "The receiving end of a channel of bytes; open one with channel(capacity).\n\n"
    "recv() borrows a message, recv_bytes() and recv_into() copy it; all wait in a task, their _blocking forms in a\n"
    "thread, their try_ forms not at all.  Iteration borrows, and releases each claim when the next is asked for or "
    "the\n"
    "loop is left.  One claim may be open at a time; release() gives it back, whoever holds it.  A context manager "
    "that\n"
    "closes itself; dropping the last reference closes it too.";

/* ---- claims ---------------------------------------------------------------------------------------------- */

static const char write_claim_doc[] =
    "A place in the ring for one message of len() bytes: a writable buffer.\n\n"
    "Write through memoryview(claim), claim[...], numpy.frombuffer, readinto and the like, then commit().  As a\n"
    "context manager it gives a memoryview, commits at the end and aborts on an exception.  Dropped, it is aborted.\n"
    "While a view of it exists, commit() and abort() raise BufferError.  It borrows its sender: another claim or send\n"
    "raises BusyError.  It may be committed after its sender was closed.  Safe from any thread; its views are not.";

static const char read_claim_doc[] =
    "A message in the ring, borrowed: a read-only buffer of len() bytes.\n\n"
    "Read it through memoryview(claim), claim[...] or bytes(claim), then release() it.  As a context manager it gives "
    "a\n"
    "memoryview and releases at the end.  Dropped, it is released.  A claim of an iteration is valid until the next "
    "one\n"
    "is asked for or the loop is left, however the loop is left.  While a view of it exists, release() raises\n"
    "BufferError.  It borrows its receiver: another receive raises BusyError.  It stays readable after its receiver\n"
    "was closed.  Safe from any thread; its views are not.";

static const char claim_commit_doc[] =
    "commit($self, n=None, /)\n--\n\n"
    "Send the message, or its first n bytes.  Raises ClaimReleased if it was ended already, BufferError while a view\n"
    "exists (nothing changes), ClaimTooLarge or ZeroLengthClaim for a bad n, ClaimDisconnected if the receiver is "
    "gone.\n"
    "In an asyncio.BufferedProtocol call it by call_soon(): the loop holds the view until buffer_updated() returns.";

static const char claim_abort_doc[] =
    "abort($self)\n--\n\n"
    "Give the place back.  Raises ClaimReleased if it was ended already, BufferError while a view exists.";

static const char claim_release_doc[] =
    "release($self)\n--\n\n"
    "Done with the message.  Raises ClaimReleased if it was released already, BufferError while a view exists.\n"
    "Not while pyzmq sends it with copy=False, unless that was given memoryview(claim): pyzmq holds no buffer of it.";

/* ---- native ends ----------------------------------------------------------------------------------------- */

static const char native_close_doc[] =
    "close($self, *, abandon=False)\n--\n\n"
    "Take the end from its thread: a call that waits, and every later one, answers NEXUS_DISCONNECTED.  It leaves the\n"
    "channel, and what was borrowed is given back, at once, or when the thread ends the claim it has open.\n\n"
    "With `abandon` such a claim is aborted or released: only for a thread that is gone for good and left it open.\n"
    "Idempotent; dropping the last reference closes too.  Safe from any thread.";

static const char native_doc[] =
    "An end of a channel for one native thread; made by native().\n\n"
    "Pass `address`, `capsule` or nexus_channels.native.cast(end) to code that includes nexus_channels.h, and keep\n"
    "this object until it has attached.  A context manager that closes itself.  Safe from any thread.";

/* ---- the module ------------------------------------------------------------------------------------------ */

static const char set_debug_ends_doc[] =
    "set_debug_ends($module, on, /)\n--\n\n"
    "Have endpoints remember where they are made, to find out what keeps a channel open; or stop that.\n\n"
    "Each endpoint, clone() and native() end made from now on is listed by open_ends() with the lines of the program "
    "that\n"
    "made it, and its repr() names the first of them.  Off at first, unless the environment says\n"
    "NEXUS_CHANNELS_DEBUG_ENDS=1 when the package is imported.  Safe from any thread.";

#endif
