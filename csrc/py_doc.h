/* py_doc.h: what help() says of all that is public.  Included where methods and types are listed.
 *
 * Each text has a signature, what it does, what it raises, and last its contract: for what can wait, what has happened
 * when the wait ended early; then from which threads it may be used.
 */
#ifndef PY_DOC_H
#define PY_DOC_H

/* A line of a text is a line here; the formatter would break many elsewhere. */
/* clang-format off */

/* ---- sentences that many say ------------------------------------------------------------------------ */

#define DOC_ANY_THREAD "Safe from any thread."
#define DOC_OWN_THREAD "Safe from any thread (local: its own only)."
#define DOC_LOCAL_THREAD \
    "For the thread that opened the channel only: elsewhere, to send, receive, clone or close raises WrongThreadError."

/* awaited */
#define DOC_NOT_SENT "Cancelled or timed out, it did not send.  "
#define DOC_NOT_TAKEN "Cancelled or timed out, it took nothing.  "
#define DOC_NOT_RESERVED "Cancelled or timed out, it reserved nothing.  "
#define DOC_PREFIX "Cancelled, it sent a prefix, and drops what else it took from an iterator.  "

/* in a thread, where a signal handler may raise */
#define DOC_RAISED_NOT_SENT "When it raised, it did not send.  "
#define DOC_RAISED_NOT_TAKEN "When it raised, it took nothing.  "
#define DOC_RAISED_NOT_RESERVED "When it raised, it reserved nothing.  "
#define DOC_RAISED_PREFIX \
    "Interrupted by a signal handler that raises, it sent a prefix, and drops what else it took from an iterator.\n"
#define DOC_LOOP "Cancelling a loop, or interrupting it by a signal handler that raises, loses no "

#define DOC_NO_GIL "blocking this thread without the GIL.  "
#define DOC_SIGNAL "Also raises whatever a signal handler raises.\n"
#define DOC_GEVENT "Under gevent, call it in the hub's threadpool: it blocks the whole thread.\n"
#define DOC_NO_WAIT "Never waits, and keeps the GIL.  "
#define DOC_NO_ROOM "Raises Full when there is no room, or when all room is promised to sends that already wait"
#define DOC_NO_ITEM "Raises Empty when there is none, or when all are promised to receives that already wait"
#define DOC_OVERTAKES "It may overtake a send() of this sender that still waits, if there is room for both.\n"
#define DOC_OVERLAP \
    "Calls that overlap have no order: while a send() of this sender waits, another send() or try_send() may\n" \
    "overtake it, if there is room for both.  Await each send before the next.\n\n"
#define DOC_CLOSES_ITSELF "A context manager that closes itself; dropping the last reference closes it too."

/* ---- all endpoints ---------------------------------------------------------------------------------- */

static const char endpoint_clone_doc[] =
    "clone($self)\n--\n\n"
    "Make another sender of the same channel.  The receiver sees the end when every sender is gone.\n\n"
    "Raises EndpointClosed if this one is closed.  " DOC_OWN_THREAD;

static const char endpoint_statistics_doc[] =
    "statistics($self)\n--\n\n"
    "Tell how full the channel is and who uses it, as a Statistics tuple.\n\n"
    "It has capacity and buffered, and the totals sent and received, in items, or in bytes of the ring of a\n"
    "channel of bytes; open_senders, open_receivers, waiting_senders and waiting_receivers.  On mpsc_bytes, claims count\n"
    "from their start, also those that are given back.\n\n"
    "Each number is right by itself; together they are right while nobody sends or receives.  Never raises for a\n"
    "closed endpoint.  " DOC_ANY_THREAD;

static const char endpoint_same_channel_doc[] =
    "same_channel($self, other, /)\n--\n\n"
    "True if `other` is an endpoint, of either side, of this very channel.  " DOC_ANY_THREAD;

static const char endpoint_close_doc[] =
    "close($self)\n--\n\n"
    "Give up this endpoint.  Calls that wait on it raise EndpointClosed.  Closing the last sender lets the receiver\n"
    "drain what was sent and then see the end.  Closing the receiver discards what is buffered, and senders get\n"
    "SendError with their value.\n\n"
    "Idempotent; dropping the last reference does the same.  " DOC_OWN_THREAD;

static const char endpoint_open_ends_doc[] =
    "open_ends($self)\n--\n\n"
    "Which senders and receivers keep this channel open: a list of OpenEnd(kind, where).\n\n"
    "`where` is a tuple of 'file:line in function' strings, the line that made the end first and its callers after.\n"
    "It is empty for an end that was made while debug mode was off: see nexus_channels.set_debug_ends().\n"
    "A snapshot.  Never raises for a closed endpoint.  " DOC_ANY_THREAD;

static const char endpoint_notifier_doc[] =
    "notifier($self)\n--\n\n"
    "Make a Notifier: a file descriptor by which any event loop can wait for this endpoint, such as Qt's, Twisted's,\n"
    "gevent's, or one written with selectors.\n\n"
    "Each call makes another one, with a descriptor of its own.  A notifier does not keep the endpoint open.\n\n"
    "Raises EndpointClosed; OSError when no descriptor is left, or where there is none to wait on (Windows, and builds\n"
    "with NEXUS_CHANNELS_PORTABLE=1).\n" DOC_OWN_THREAD;

/* Special methods: their signature alone, and what the language says of them. */
static const char enter_doc[] = "__enter__($self, /)\n--\n\nReturn what `with` binds.";
static const char exit_doc[] = "__exit__($self, /, *exception)\n--\n\nEnd the `with` block.";
static const char aenter_doc[] = "__aenter__($self, /)\n--\n\nReturn what `async with` binds; await it.";
static const char aexit_doc[] = "__aexit__($self, /, *exception)\n--\n\nEnd the `async with` block; await it.";
static const char reduce_doc[] = "__reduce_ex__($self, protocol, /)\n--\n\nRaise TypeError: no copy, no pickle.";

#define DOC_CAPACITY "How much the channel holds at most, in items or bytes.  " DOC_ANY_THREAD
#define DOC_IS_CLOSED "True once this endpoint was closed.  " DOC_ANY_THREAD
#define DOC_IS_DISCONNECTED "True once the other side is gone, whatever is still buffered.  " DOC_ANY_THREAD

/* ---- endpoints of objects --------------------------------------------------------------------------- */

static const char ring_sender_doc[] =
    "Sends values into a channel.  channel(capacity) opens the channel and returns its first sender.\n"
    "\n"
    ">>> from nexus_channels import mpsc\n"
    ">>> tx, rx = mpsc.channel(2)\n"
    ">>> with tx:\n"
    "...     tx.try_send('first')\n"
    "...     tx.send_blocking('second', timeout=1)\n"
    ">>> list(rx)\n"
    "['first', 'second']\n"
    "\n"
    "send() waits in a task, send_blocking() waits in a thread, and try_send() does not wait.  Any number of tasks\n"
    "and threads may share one sender.  Their calls are served first come, first served.\n"
    "\n"
    "After the last sender closes, the receiver still gets everything that was sent, and then the end.\n"
    DOC_CLOSES_ITSELF "  " DOC_ANY_THREAD;

static const char local_sender_doc[] =
    "Sends values to another task of the same thread.  channel(capacity) opens the channel.\n"
    "\n"
    ">>> import asyncio\n"
    ">>> from nexus_channels import local\n"
    ">>> async def main():\n"
    "...     tx, rx = local.channel(2)\n"
    "...     await tx.send('first')\n"
    "...     tx.try_send('second')\n"
    "...     return await rx.recv_many(2)\n"
    ">>> asyncio.run(main())\n"
    "['first', 'second']\n"
    "\n"
    "send() waits for room, and try_send() does not wait.  clone() makes another sender.\n"
    "\n"
    "After the last sender closes, the receiver still gets everything that was sent, and then the end.\n"
    DOC_CLOSES_ITSELF "\n" DOC_LOCAL_THREAD;

static const char ring_receiver_doc[] =
    "Receives values from a channel.  channel(capacity) opens the channel and returns its receiver.\n"
    "\n"
    ">>> from nexus_channels import mpsc\n"
    ">>> tx, rx = mpsc.channel(2)\n"
    ">>> tx.try_send_many(['first', 'second'])\n"
    "2\n"
    ">>> tx.close()\n"
    ">>> rx.recv_blocking(timeout=1)\n"
    "'first'\n"
    ">>> for value in rx:\n"
    "...     print(value)\n"
    "second\n"
    "\n"
    "recv() waits in a task, recv_blocking() waits in a thread, and try_recv() does not wait.  `async for` and `for`\n"
    "end when every sender is gone and everything was received.  Any number of tasks and threads may share one\n"
    "receiver.  Their calls are served first come, first served.\n"
    "\n"
    DOC_CLOSES_ITSELF "  Closing drops what is buffered.\n" DOC_LOOP "value.  " DOC_ANY_THREAD;

static const char local_receiver_doc[] =
    "Receives values from another task of the same thread.  channel(capacity) opens the channel.\n"
    "\n"
    ">>> import asyncio\n"
    ">>> from nexus_channels import local\n"
    ">>> async def main():\n"
    "...     tx, rx = local.channel(2)\n"
    "...     await tx.send_many(['first', 'second'])\n"
    "...     tx.close()\n"
    "...     return [value async for value in rx]\n"
    ">>> asyncio.run(main())\n"
    "['first', 'second']\n"
    "\n"
    "recv() waits for a value, and try_recv() does not wait.  `async for` ends when every sender is gone and\n"
    "everything was received.\n"
    "\n"
    DOC_CLOSES_ITSELF "  Closing drops what is buffered.\n"
    "Cancelling a loop loses no value.\n" DOC_LOCAL_THREAD;

static const char ring_send_doc[] =
    "send($self, value, timeout=None)\n--\n\n"
    "Send `value`, waiting for room up to `timeout` seconds; await the result.\n\n" DOC_OVERLAP
    "Raises SendTimeout, SendError if the receiver is gone (both with `.value`), EndpointClosed.\n"
    DOC_NOT_SENT DOC_OWN_THREAD;

static const char ring_send_blocking_doc[] =
    "send_blocking($self, value, timeout=None)\n--\n\n"
    "Send `value`, blocking this thread for room up to `timeout` seconds (0: do not wait), without the GIL.\n\n"
    "Raises SendTimeout, SendError if the receiver is gone (both with `.value`), EndpointClosed, and whatever a\n"
    "signal handler raises.  " DOC_GEVENT DOC_RAISED_NOT_SENT DOC_ANY_THREAD;

static const char ring_try_send_doc[] =
    "try_send($self, value, /)\n--\n\n"
    "Send `value` now.\n\n" DOC_NO_ROOM ";\n"
    "SendError if the receiver is gone (both with `.value`); EndpointClosed.  Makes no system call unless it wakes\n"
    "somebody.  " DOC_OVERTAKES DOC_NO_WAIT DOC_OWN_THREAD;

static const char ring_send_many_doc[] =
    "send_many($self, iterable, timeout=None)\n--\n\n"
    "Send every value of `iterable`, in order; await the result.\n\n"
    "Anything with a length, such as a list, is read at the call.  An iterator is read as its values are sent, never\n"
    "more of it than the channel could hold at once; it may be endless.  An async iterator is sent as its values\n"
    "come.  Whenever the call has to wait again, it goes to the end of the wait queue.\n\n"
    "Raises as send() does; `.value` is then the list of what was taken and not sent.  What an iterator raises is\n"
    "raised after all that came before is sent.\n" DOC_PREFIX DOC_OWN_THREAD;

static const char ring_send_many_blocking_doc[] =
    "send_many_blocking($self, iterable, timeout=None)\n--\n\n"
    "send_many(), " DOC_NO_GIL DOC_SIGNAL DOC_RAISED_PREFIX DOC_ANY_THREAD;

static const char ring_try_send_many_doc[] =
    "try_send_many($self, iterable, /)\n--\n\n"
    "Send as many values as there is room for now, in order; returns how many.\n\n"
    "Of an iterator it takes no more than there is room for: the rest stays in the iterator.  Raises SendError with\n"
    "the list of what was taken and not sent if the receiver is gone; EndpointClosed; and, after a prefix was sent,\n"
    "what the iterator or a signal handler raises.  " DOC_OWN_THREAD;

static const char ring_recv_doc[] =
    "recv($self, timeout=None)\n--\n\n"
    "Receive one value, waiting for it up to `timeout` seconds; await the result.\n\n"
    "Raises RecvTimeout, RecvError once every sender is gone and all was received, EndpointClosed.\n"
    DOC_NOT_TAKEN DOC_OWN_THREAD;

static const char ring_recv_blocking_doc[] =
    "recv_blocking($self, timeout=None)\n--\n\n"
    "Receive one value, blocking this thread up to `timeout` seconds (0: do not wait), without the GIL.\n\n"
    "Raises RecvTimeout, RecvError once every sender is gone and all was received, EndpointClosed, and whatever a\n"
    "signal handler raises.  " DOC_GEVENT DOC_RAISED_NOT_TAKEN DOC_ANY_THREAD;

static const char ring_try_recv_doc[] =
    "try_recv($self)\n--\n\n"
    "Receive one value now.\n\n" DOC_NO_ITEM ";\n"
    "RecvError at the end; EndpointClosed.  Makes no system call unless it wakes somebody.\n"
    DOC_NO_WAIT DOC_OWN_THREAD;

/* The next three are for nexus_channels.queue alone. */
static const char ring_tally_doc[] =
    "_tally($self)\n--\n\n"
    "Begin to count which items are done, unless that has begun: what was received before is done.  " DOC_ANY_THREAD;

static const char ring_task_done_doc[] =
    "_task_done($self)\n--\n\n"
    "Report one item as done; True if that leaves none unfinished.\n\n"
    "Raises ValueError if none was unfinished.  " DOC_ANY_THREAD;

static const char ring_tasks_doc[] =
    "_tasks($self)\n--\n\n"
    "Tell how many items are unfinished, and how often a report left none.  " DOC_ANY_THREAD;

static const char ring_recv_many_doc[] =
    "recv_many($self, n, timeout=None)\n--\n\n"
    "Wait for one value, then take what is there, at most `n`, as a list; await the result.\n\n"
    "Raises as recv() does, ValueError for n < 1.\n" DOC_NOT_TAKEN DOC_OWN_THREAD;

static const char ring_recv_many_blocking_doc[] =
    "recv_many_blocking($self, n, timeout=None)\n--\n\n"
    "recv_many(), " DOC_NO_GIL DOC_SIGNAL DOC_RAISED_NOT_TAKEN DOC_ANY_THREAD;

static const char ring_try_recv_many_doc[] =
    "try_recv_many($self, n, /)\n--\n\n"
    "Take what is there now, at most `n`, as a list, which may be empty.\n\n"
    "Raises RecvError at the end, EndpointClosed, ValueError for n < 1.  " DOC_OWN_THREAD;

/* ---- endpoints of bytes ----------------------------------------------------------------------------- */

#define DOC_BAD_SIZE "Raises ClaimTooLarge or ZeroLengthClaim at the call, BusyError while a claim is open, "

static const char log_sender_doc[] =
    "Sends messages into a channel of bytes.  channel(capacity) opens the channel and returns its first sender.\n"
    "\n"
    ">>> from nexus_channels import mpsc_bytes\n"
    ">>> tx, rx = mpsc_bytes.channel(4096)\n"
    ">>> tx.try_send(b'copied')\n"
    ">>> with tx.try_claim(8) as view:\n"
    "...     view[:] = b'in place'\n"
    ">>> rx.try_recv_many(2)\n"
    "[b'copied', b'in place']\n"
    "\n"
    "send() copies a message.  claim() reserves room in the ring, to write the message in place.  Both wait in a\n"
    "task, their `_blocking` forms wait in a thread, and their `try_` forms do not wait.\n"
    "\n"
    "A sender has at most one open claim.  abort() gives that claim back, even if another task or thread holds it.\n"
    "\n"
    DOC_CLOSES_ITSELF "  " DOC_ANY_THREAD;

static const char log_receiver_doc[] =
    "Receives messages from a channel of bytes.  channel(capacity) opens the channel and returns its receiver.\n"
    "\n"
    ">>> from nexus_channels import mpsc_bytes\n"
    ">>> tx, rx = mpsc_bytes.channel(4096)\n"
    ">>> tx.try_send_many([b'copied', b'borrowed'])\n"
    "2\n"
    ">>> rx.try_recv_bytes()\n"
    "b'copied'\n"
    ">>> with rx.try_recv() as view:\n"
    "...     print(bytes(view))\n"
    "b'borrowed'\n"
    "\n"
    "recv_bytes() and recv_into() copy a message.  recv() borrows it from the ring.  All of them wait in a task,\n"
    "their `_blocking` forms wait in a thread, and their `try_` forms do not wait.\n"
    "\n"
    "Iteration borrows each message.  It releases the claim when the loop goes on to the next message or is left.\n"
    "A receiver has at most one open claim.  release() gives it back, even if another task or thread holds the claim.\n"
    "\n"
    DOC_CLOSES_ITSELF "\n" DOC_LOOP "message.  " DOC_ANY_THREAD;

static const char log_claim_doc[] =
    "claim($self, n, timeout=None)\n--\n\n"
    "Reserve a place for a message of n bytes, 1 to max_message_size, waiting for room up to `timeout` seconds;\n"
    "await the WriteClaim, or use `async with tx.claim(n) as view`, which commits at the end and aborts on an\n"
    "exception.\n\n"
    "The block sends all n bytes; what was not written is old content of the ring.  To send fewer, keep the claim, and\n"
    "call commit() inside of `with claim as view`.  On mpsc_bytes, messages of other senders wait behind an open claim:\n"
    "do not wait for data with a claim open.\n\n"
    "An asyncio.BufferedProtocol commits it by call_soon(): in buffer_updated() the loop still holds the view.\n\n"
    DOC_BAD_SIZE "ClaimTimeout,\n"
    "ClaimDisconnected if the receiver is gone, EndpointClosed.\n" DOC_NOT_RESERVED DOC_ANY_THREAD;

static const char log_claim_blocking_doc[] =
    "claim_blocking($self, n, timeout=None)\n--\n\n"
    "claim(), " DOC_NO_GIL DOC_SIGNAL DOC_GEVENT DOC_RAISED_NOT_RESERVED DOC_ANY_THREAD;

static const char log_try_claim_doc[] =
    "try_claim($self, n, /)\n--\n\n"
    "Reserve a place for a message of n bytes now.\n\n"
    "Raises ClaimFull when there is no room, or only as much as the claims and sends that wait already will take;\n"
    "else as claim().  " DOC_NO_WAIT DOC_ANY_THREAD;

static const char log_send_doc[] =
    "send($self, data, timeout=None)\n--\n\n"
    "Send a copy of `data`, any C-contiguous buffer of 1 to max_message_size bytes, waiting for room up to `timeout`\n"
    "seconds; await the result.\n\n" DOC_OVERLAP DOC_BAD_SIZE "SendTimeout,\n"
    "SendError if the receiver is gone (both with `.value`), EndpointClosed.\n" DOC_NOT_SENT DOC_ANY_THREAD;

static const char log_send_blocking_doc[] =
    "send_blocking($self, data, timeout=None)\n--\n\n"
    "send(), " DOC_NO_GIL DOC_SIGNAL DOC_GEVENT DOC_RAISED_NOT_SENT DOC_ANY_THREAD;

static const char log_try_send_doc[] =
    "try_send($self, data, /)\n--\n\n"
    "Send a copy of `data` now.\n\n" DOC_NO_ROOM ";\n"
    "else as send().  " DOC_OVERTAKES DOC_NO_WAIT DOC_ANY_THREAD;

static const char log_send_many_doc[] =
    "send_many($self, iterable, timeout=None)\n--\n\n"
    "Send copies of all buffers of `iterable`, in order; await the result.\n\n"
    "What has a length, a list for instance, is checked and held at the call.  An iterator is taken as it goes, as\n"
    "much of it as there is room for and one message more at most.  An async iterator is sent as its messages come.\n"
    "Whenever the call has to wait again, it goes to the end of the wait queue.\n\n"
    "Raises as send() does; `.value` is then the list of what was taken and not sent.  What an iterator raises, or\n"
    "yields and cannot be sent, is raised after all that came before is sent.\n" DOC_PREFIX DOC_ANY_THREAD;

static const char log_send_many_blocking_doc[] =
    "send_many_blocking($self, iterable, timeout=None)\n--\n\n"
    "send_many(), " DOC_NO_GIL DOC_SIGNAL DOC_RAISED_PREFIX DOC_ANY_THREAD;

static const char log_try_send_many_doc[] =
    "try_send_many($self, iterable, /)\n--\n\n"
    "Send copies of as many buffers as there is room for now, in order; returns how many.\n\n"
    "Of an iterator the rest stays there; a message that was taken and does not fit is handed back by Full, whose\n"
    "`.value` is the list of it.  Raises as send() does; and, after a prefix was sent, what the iterator or a signal\n"
    "handler raises.  " DOC_ANY_THREAD;

static const char log_abort_doc[] =
    "abort($self)\n--\n\n"
    "Abort the claim of this sender that is open, whoever holds it: for a claim that a kept exception or task holds.\n"
    "Returns True, or False if no claim was open.\n\n"
    "Raises BufferError while a view of the claim exists.  A closed sender may do this, too.  " DOC_ANY_THREAD;

static const char log_recv_doc[] =
    "recv($self, timeout=None)\n--\n\n"
    "Borrow the next message, waiting for it up to `timeout` seconds; await the ReadClaim.\n\n"
    "Give pyzmq a copy of it, or memoryview(claim) with copy=False and track=True, and release the claim after the\n"
    "tracker is done.  pyzmq does not keep the buffer of the claim itself.\n\n"
    "Raises BusyError at the call while a claim is open, RecvTimeout, RecvError once every sender is gone and all\n"
    "was received, EndpointClosed.  " DOC_NOT_TAKEN DOC_ANY_THREAD;

static const char log_recv_blocking_doc[] =
    "recv_blocking($self, timeout=None)\n--\n\n"
    "recv(), " DOC_NO_GIL DOC_SIGNAL DOC_GEVENT DOC_RAISED_NOT_TAKEN DOC_ANY_THREAD;

static const char log_try_recv_doc[] =
    "try_recv($self)\n--\n\n"
    "Borrow the next message now.\n\n" DOC_NO_ITEM ";\n"
    "else as recv().  " DOC_NO_WAIT DOC_ANY_THREAD;

static const char log_recv_bytes_doc[] =
    "recv_bytes($self, timeout=None)\n--\n\n"
    "Receive the next message as bytes, waiting for it up to `timeout` seconds; await it.  One copy.\n\n"
    "Raises as recv().  " DOC_NOT_TAKEN DOC_ANY_THREAD;

static const char log_recv_bytes_blocking_doc[] =
    "recv_bytes_blocking($self, timeout=None)\n--\n\n"
    "recv_bytes(), " DOC_NO_GIL DOC_SIGNAL DOC_RAISED_NOT_TAKEN DOC_ANY_THREAD;

static const char log_try_recv_bytes_doc[] =
    "try_recv_bytes($self)\n--\n\n"
    "Receive the next message as bytes, now.  Raises as try_recv().  " DOC_NO_WAIT DOC_ANY_THREAD;

static const char log_recv_into_doc[] =
    "recv_into($self, buffer, timeout=None)\n--\n\n"
    "Receive the next message into a writable C-contiguous buffer, waiting for it up to `timeout` seconds; await the\n"
    "number of bytes.\n\n"
    "Raises ValueError if the message is larger than the buffer, and the message stays; else as recv().\n"
    DOC_NOT_TAKEN DOC_ANY_THREAD;

static const char log_recv_into_blocking_doc[] =
    "recv_into_blocking($self, buffer, timeout=None)\n--\n\n"
    "recv_into(), " DOC_NO_GIL DOC_SIGNAL DOC_RAISED_NOT_TAKEN DOC_ANY_THREAD;

static const char log_try_recv_into_doc[] =
    "try_recv_into($self, buffer, /)\n--\n\n"
    "Receive the next message into `buffer`, now; returns its size.  Raises as try_recv() and recv_into().\n"
    DOC_NO_WAIT DOC_ANY_THREAD;

static const char log_recv_many_doc[] =
    "recv_many($self, n, timeout=None)\n--\n\n"
    "Wait for one message, then take what is there, at most n, as a list of bytes; await it.\n\n"
    "Raises as recv(), ValueError for n < 1.  " DOC_NOT_TAKEN DOC_ANY_THREAD;

static const char log_recv_many_blocking_doc[] =
    "recv_many_blocking($self, n, timeout=None)\n--\n\n"
    "recv_many(), " DOC_NO_GIL DOC_SIGNAL DOC_RAISED_NOT_TAKEN DOC_ANY_THREAD;

static const char log_try_recv_many_doc[] =
    "try_recv_many($self, n, /)\n--\n\n"
    "Take what is there now, at most n messages, as a list of bytes, which may be empty.\n\n"
    "Raises RecvError at the end, BusyError while a claim is open, EndpointClosed, ValueError for n < 1.\n"
    DOC_NO_WAIT DOC_ANY_THREAD;

static const char log_release_doc[] =
    "release($self)\n--\n\n"
    "Release the claim of this receiver that is open, whoever holds it: for a claim that a kept exception or task\n"
    "holds.  Returns True, or False if no claim was open.\n\n"
    "Raises BufferError while a view of the claim exists.  A closed receiver may do this, too.  " DOC_ANY_THREAD;

#define DOC_MAX_MESSAGE_SIZE "The largest message, in bytes: capacity - 8.  " DOC_ANY_THREAD
#define DOC_USED \
    "Bytes of the ring in use: messages, their 8-byte headers and padding.  On mpsc_bytes also open claims, and those\n" \
    "given back that the receiver has not passed yet.  " DOC_ANY_THREAD

/* ---- select ----------------------------------------------------------------------------------------- */

#define DOC_ARMS \
    "An arm is a receiver, which stands for \"receive one\" (of bytes, a ReadClaim); tx.sending(value) for \"send it\";\n" \
    "or, of bytes, tx.claiming(n) for a WriteClaim.  Kinds of channels mix; an endpoint may be in one arm only.\n\n" \
    "Fair: of the arms that can go, the one whose endpoint a select chose least recently; `biased=True` takes the first\n" \
    "in the order given.  An arm whose other side is gone, or that you closed, can go too: its turn raises its error,\n" \
    "with the arm's place and the arm in `index` and `arm`.\n\n"
#define DOC_BAD_ARMS \
    "Raises ValueError for no arms or an endpoint in two, TypeError for what is no arm, BusyError while a claim or a\n" \
    "native end uses an endpoint, WrongThreadError for a local channel off its thread"

static const char select_doc[] =
    "select($module, /, *arms, timeout=None, biased=False)\n--\n\n"
    "Wait up to `timeout` seconds until one arm can go, do that one and no other; await the result, a Selected of the\n"
    "arm's index, the arm itself, and the value.\n\n" DOC_ARMS
    DOC_BAD_ARMS ", SelectTimeout, RuntimeError\n"
    "if it has to wait and neither asyncio nor trio runs here.  Cancelled or timed out, it did nothing, and every turn that\n"
    "it was given goes to the next waiter.  " DOC_OWN_THREAD;

static const char select_blocking_doc[] =
    "select_blocking($module, /, *arms, timeout=None, biased=False)\n--\n\n"
    "Wait up to `timeout` seconds until one arm can go, " DOC_NO_GIL "Do that one and no\n"
    "other; returns a Selected of the arm's index, the arm itself, and the value.\n\n" DOC_ARMS
    DOC_BAD_ARMS ", SelectTimeout.\n" DOC_SIGNAL
    "When it raised, it did nothing, and every turn that it was given goes to the next in line.\n" DOC_GEVENT
    DOC_OWN_THREAD;

static const char try_select_doc[] =
    "try_select($module, /, *arms, biased=False)\n--\n\n"
    "Do the first arm that can go now; returns a Selected of the arm's index, the arm itself, and the value.\n\n" DOC_ARMS
    "Raises NothingReady when no arm can go now, or when all is promised to calls that already wait.\n" DOC_BAD_ARMS
    ".\n" DOC_NO_WAIT DOC_OWN_THREAD;

static const char endpoint_sending_doc[] =
    "sending($self, value, /)\n--\n\n"
    "An arm for select(): send `value` by this sender.  It sends nothing by itself, and may be passed more than once.\n\n"
    "Of bytes, raises what send() raises for such a message, and holds its buffer as long as the arm lives.\n"
    DOC_ANY_THREAD;

static const char endpoint_claiming_doc[] =
    "claiming($self, n, /)\n--\n\n"
    "An arm for select(): a WriteClaim of n bytes, 1 to max_message_size.  It claims nothing by itself, and may be passed\n"
    "more than once.\n\n"
    "Raises what claim() raises for such a size.  " DOC_ANY_THREAD;

static const char sending_doc[] =
    "An arm of a select: send `value` by `sender`.  What Sender.sending() returns.\n\n" DOC_ANY_THREAD;
static const char claiming_doc[] =
    "An arm of a select: a WriteClaim of `size` bytes of `sender`.  What Sender.claiming() returns.\n\n" DOC_ANY_THREAD;
static const char selected_doc[] =
    "What a select did: which arm, and what came of it.  A tuple with names, which unpacks.\n"
    "\n"
    ">>> from nexus_channels import spsc, try_select\n"
    ">>> (tx, rx), (tx2, rx2) = spsc.channel(1), spsc.channel(1)\n"
    ">>> tx2.try_send('value')\n"
    ">>> index, arm, value = try_select(rx, rx2)\n"
    ">>> index, arm is rx2, value\n"
    "(1, True, 'value')\n"
    "\n" DOC_ANY_THREAD;
#define DOC_SELECTED_INDEX "The place of the arm among those that were passed.  " DOC_ANY_THREAD
#define DOC_SELECTED_ARM "The arm, the very object that was passed.  " DOC_ANY_THREAD
#define DOC_SELECTED_VALUE "What was received, the WriteClaim, or None for what was sent.  " DOC_ANY_THREAD
#define DOC_ARM_SENDER "The sender that this arm uses.  " DOC_ANY_THREAD
#define DOC_SENDING_VALUE "What is sent, the very object that was passed.  " DOC_ANY_THREAD
#define DOC_CLAIMING_SIZE "Bytes of the claim.  " DOC_ANY_THREAD

static const char merge_doc[] =
    "merge(*receivers, biased=False)\n--\n\n"
    "Iterate over what several receivers get, as `(receiver, value)`: by `async for` in a task, by `for` in a thread.\n"
    "It ends when all have ended.  Of bytes, the value is a ReadClaim, which ends when the next value is asked for, or\n"
    "the loop is left.\n"
    "\n"
    ">>> from nexus_channels import merge, spsc\n"
    ">>> (tx, rx), (tx2, rx2) = spsc.channel(2), spsc.channel(2)\n"
    ">>> with tx, tx2:\n"
    "...     tx.try_send('first')\n"
    "...     tx2.try_send('second')\n"
    ">>> for receiver, value in merge(rx, rx2):\n"
    "...     print(receiver is rx2, value)\n"
    "False first\n"
    "True second\n"
    "\n"
    "Fair, or `biased`, as `select()` is.  A receiver that has ended, or that you close, is left out from then on.\n"
    "Raises what `select()` raises for such arms.  Cancelled, it took nothing.  Others may use the receivers meanwhile.\n"
    "Safe from any thread.";

/* ---- claims ----------------------------------------------------------------------------------------- */

static const char write_claim_doc[] =
    "Room in the ring for one message, to write it in place: a writable buffer of len() bytes.\n"
    "\n"
    ">>> from nexus_channels import spsc_bytes\n"
    ">>> tx, rx = spsc_bytes.channel(4096)\n"
    ">>> claim = tx.try_claim(8)\n"
    ">>> claim[:3] = b'abc'\n"
    ">>> claim.commit(3)\n"
    ">>> rx.try_recv_bytes()\n"
    "b'abc'\n"
    "\n"
    "Write through memoryview(claim), claim[...], numpy.frombuffer, readinto and the like, then commit().  As a\n"
    "context manager it gives a memoryview, commits at the end and aborts on an exception.  Inside the block, commit(n)\n"
    "or abort() end it early: the block's own view does not count.  Dropped, it is aborted.\n"
    "While another view of it exists, commit() and abort() raise BufferError.  It borrows its sender: another claim or\n"
    "send raises BusyError.  It may be committed after its sender was closed.\n"
    "Safe from any thread; its views are not.";

static const char read_claim_doc[] =
    "A message that is read in place, borrowed from the ring: a read-only buffer of len() bytes.\n"
    "\n"
    ">>> from nexus_channels import spsc_bytes\n"
    ">>> tx, rx = spsc_bytes.channel(4096)\n"
    ">>> tx.try_send(b'abc')\n"
    ">>> claim = rx.try_recv()\n"
    ">>> len(claim), bytes(claim)\n"
    "(3, b'abc')\n"
    ">>> claim.release()\n"
    "\n"
    "Read it through memoryview(claim), claim[...] or bytes(claim), then release() it.  As a context manager it\n"
    "gives a memoryview and releases at the end.  Dropped, it is released.  A claim of an iteration is valid until\n"
    "the next one is asked for or the loop is left, however the loop is left.  While a view of it exists, release()\n"
    "raises BufferError.  It borrows its receiver: another receive raises BusyError.  It stays readable after its\n"
    "receiver was closed.\n"
    "Safe from any thread; its views are not.";

static const char claim_commit_doc[] =
    "commit($self, n=None, /)\n--\n\n"
    "Send the message, or its first n bytes.\n\n"
    "Raises ClaimReleased if it was ended already, BufferError while a view exists (nothing changes), ClaimTooLarge\n"
    "or ZeroLengthClaim for a bad n, ClaimDisconnected if the receiver is gone.  In an asyncio.BufferedProtocol call\n"
    "it by call_soon(): the loop holds the view until buffer_updated() returns.  " DOC_ANY_THREAD;

static const char claim_abort_doc[] =
    "abort($self)\n--\n\n"
    "Give the place back.  Raises ClaimReleased if it was ended already, BufferError while a view exists.\n"
    DOC_ANY_THREAD;

static const char claim_release_doc[] =
    "release($self)\n--\n\n"
    "Give the message back, so that its room is free.\n\n"
    "Raises ClaimReleased if it was released already, BufferError while a view exists.\n"
    "Do not release it while pyzmq sends it with copy=False, unless pyzmq was given memoryview(claim).\n"
    DOC_ANY_THREAD;

/* ---- notifiers ---------------------------------------------------------------------------------------- */

static const char notifier_doc[] =
    "Lets any event loop wait for an endpoint, by a file descriptor.  The notifier() method of the endpoint makes it.\n"
    "\n"
    "The order of use: arm(), wait until fileno() is readable, clear(), call try_recv() or try_send() until it raises\n"
    "Empty or Full, and arm() again.\n"
    "\n"
    ">>> import select\n"
    ">>> from nexus_channels import spsc\n"
    ">>> tx, rx = spsc.channel(4)\n"
    ">>> with rx.notifier() as notifier:\n"
    "...     notifier.arm()\n"
    "...     tx.try_send('hello')\n"
    "...     ready, _, _ = select.select([notifier], [], [])\n"
    "...     notifier.clear()\n"
    "...     print(rx.try_recv())\n"
    "hello\n"
    "\n"
    "Armed, it becomes readable when there is something to receive, or room to send, or the other side is gone, or the\n"
    "endpoint was closed; at once if that is so already.  It stays readable until clear(), also if others take what\n"
    "there was: the call may still raise Empty or Full.  Between processes it may be readable for a moment alone, if\n"
    "somebody else hears of it first, and also when a process has come or gone.  Nothing is reserved for a notifier,\n"
    "so one that is not looked at holds nobody up, and calls that wait on the same side are served first.\n"
    "\n"
    "A context manager that closes itself.  It does not keep its endpoint open, and dropping it closes the descriptor.\n"
    "A signal costs one write() for each time it was armed, in the thread that sends, receives or closes; no thread is\n"
    "started.  After fork(), the child has to make its own.\n" DOC_OWN_THREAD;

static const char notifier_fileno_doc[] =
    "fileno($self)\n--\n\n"
    "The descriptor to wait on until it is readable, as an int; do not read from it or close it.  It stays the same\n"
    "until close().\n\n"
    "Raises ValueError when this notifier is closed; RuntimeError in a forked child; OSError when somebody else has\n"
    "closed the descriptor.\n" DOC_OWN_THREAD;

static const char notifier_arm_doc[] =
    "arm($self)\n--\n\n"
    "From now on, become readable once the endpoint can go; at once if it can already, or is closed.  Never waits.\n\n"
    "A receiver can go when there is something to receive, and at the end of the stream.  A sender can go when there is\n"
    "room, or the receiver is gone.  For a sender of bytes, there is room when the message fits that was last refused\n"
    "for want of room; if none was refused since the last arm(), when the smallest message fits.\n\n"
    "Armed already, it stays so.  Without clear(), it also stays readable.\n\n"
    "Raises BusyError while a claim or a native end has borrowed the endpoint; ValueError when this notifier is closed;\n"
    "RuntimeError in a forked child; OSError when somebody else has closed the descriptor.\n" DOC_OWN_THREAD;

static const char notifier_clear_doc[] =
    "clear($self)\n--\n\n"
    "Be readable no more, and armed no more.  Call it before you receive or send, and arm() after that.  Never waits.\n\n"
    "A thread that was about to signal may make it readable once more after this.\n\n"
    "Raises as fileno() does.  " DOC_OWN_THREAD;

static const char notifier_close_doc[] =
    "close($self)\n--\n\n"
    "Close the descriptor; take it out of the event loop before.  The endpoint stays as it is.  Idempotent; dropping\n"
    "the last reference does the same.\n" DOC_OWN_THREAD;

#define DOC_NOTIFIER_IS_CLOSED "True once this notifier was closed.  " DOC_ANY_THREAD

/* ---- other interpreters ------------------------------------------------------------------------------- */

static const char endpoint_share_doc[] =
    "share($self)\n--\n\n"
    "Move this end of a channel of bytes elsewhere: returns a Ticket for attach() there.  That is another interpreter of\n"
    "the process; or another process, if the channel was opened with shared=True.  This endpoint is closed; share a\n"
    "clone() to keep one.  The ticket counts as an open end, so the other side sees no end meanwhile.\n\n"
    "Raises TypeError for channels of objects, which cannot leave their interpreter; EndpointClosed; BusyError while a\n"
    "claim or a native end borrows the endpoint; between processes OSError if no descriptor is left.  A task that waits\n"
    "on a loop that others could not wake gets RuntimeError.\n"
    DOC_OWN_THREAD;

static const char attach_doc[] =
    "attach($module, ticket, /)\n--\n\n"
    "Make an endpoint of a Ticket, or of its bytes, in this interpreter: a Sender or a Receiver of the channel that\n"
    "share() was called on.  Each ticket can be attached once.  One of a channel between processes is attached in\n"
    "whichever process it has come to; under fork, in the first that does it.  A str is the text of for_subprocess().\n\n"
    "Raises ValueError when the ticket was attached or given up, or was not issued by this process, or its descriptors\n"
    "were not passed to it; TypeError for anything else; between processes OSError or MemoryError, after which the\n"
    "ticket is as before.\n" DOC_ANY_THREAD;

static const char ticket_doc[] =
    "An end of a channel of bytes on its way to another interpreter or process, returned by share() of the end.\n\n"
    "Pass it to attach() there, once.  It can be pickled, so it goes through concurrent.interpreters.Queue and\n"
    "Interpreter.call(); its bytes go everywhere.  Until it is attached it counts as an open end of its channel.\n\n"
    "It is given up, as if that end had been closed, by close(), at the end of a `with` block, or when no Ticket object\n"
    "is left that stands for it.  A pickle that was not loaded yet also holds it, until the interpreter ends that made\n"
    "the pickle.  Bytes hold nothing: keep the Ticket until they are attached.\n\n"
    "Between processes it is carried by multiprocessing: as an argument of a Process or of the initializer of a pool, or\n"
    "through a Queue or Pipe.  It holds descriptors, so it has no bytes, and copy and plain pickle raise TypeError.\n"
    "Whoever inherits it by a fork has a copy, and may be the one who attaches it.\n\n"
    ">>> import nexus_channels\n"
    ">>> from nexus_channels import spsc_bytes\n"
    ">>> tx, rx = spsc_bytes.channel(4096)\n"
    ">>> ticket = tx.share()\n"
    ">>> there = nexus_channels.attach(ticket)  # mostly in another interpreter\n"
    ">>> there.try_send(b'hello')\n"
    ">>> rx.try_recv_bytes()\n"
    "b'hello'\n\n"
    "Safe from any thread.";

static const char ticket_close_doc[] =
    "close($self)\n--\n\n"
    "Give the ticket up: its end of the channel is closed, and attach() raises ValueError from now on.  Does nothing\n"
    "once it was attached.  Idempotent.  " DOC_ANY_THREAD;

static const char ticket_bytes_doc[] =
    "__bytes__($self)\n--\n\n"
    "The ticket as bytes, for attach().  They do not hold it: keep this object until they are attached.  " DOC_ANY_THREAD;

static const char ticket_for_subprocess_doc[] =
    "for_subprocess($self)\n--\n\n"
    "Move this ticket of a channel between processes into a SubprocessTicket, for a program that subprocess starts.\n\n"
    "Give its `pass_fds` to subprocess.Popen(), and its `text` to the program, which calls attach(text).  Then close it.\n\n"
    "Raises ValueError when the ticket was attached or given up; TypeError for one of a channel within the process.\n"
    DOC_ANY_THREAD;

static const char ticket_reduce_doc[] =
    "__reduce_ex__($self, protocol, /)\n--\n\n"
    "For pickle: the pickle holds the ticket until it is loaded, or this interpreter ends.  " DOC_ANY_THREAD;

/* ---- listeners ---------------------------------------------------------------------------------------- */

static const char listener_doc[] =
    "Lets other processes of this user find a receiver by a path; the listen() of spsc_bytes and mpsc_bytes makes it.\n"
    "\n"
    ">>> import tempfile, threading\n"
    ">>> from nexus_channels import mpsc_bytes\n"
    ">>> folder = tempfile.TemporaryDirectory()\n"
    ">>> path = folder.name + '/feed'\n"
    ">>> def work():  # mostly in another process\n"
    "...     with mpsc_bytes.connect(path) as tx:\n"
    "...         tx.send_blocking(b'hello')\n"
    ">>> with mpsc_bytes.listen(path, 4096) as listener:\n"
    "...     threading.Thread(target=work).start()\n"
    "...     print(listener.receiver.recv_bytes_blocking())\n"
    "b'hello'\n"
    ">>> folder.cleanup()\n"
    "\n"
    "It counts as an open sender, so the receiver sees the end only once this is closed and all senders have gone.\n"
    "Senders come in when the receiver waits for a message, or looks for one.  Closing the receiver closes this, too.\n"
    "A context manager that closes itself; dropping the last reference closes it too.  Closing removes the socket from\n"
    "the file system, and so does a process that exits; one that is killed leaves it, and the next listen() replaces it.\n"
    "After fork(), it stays with the parent.  While it is open, share() of the receiver raises BusyError.\n"
    "Safe from any thread.";

static const char listener_close_doc[] =
    "close($self)\n--\n\n"
    "Let no more senders in, and remove the socket from the file system.  The receiver and the senders that have come go\n"
    "on; whoever is about to connect() gets ConnectionRefusedError.  Idempotent; dropping the last reference does the\n"
    "same.  " DOC_ANY_THREAD;

#define DOC_LISTENER_RECEIVER "The receiver of what all senders send, a Receiver of its module.  " DOC_ANY_THREAD
#define DOC_LISTENER_PATH "Where senders find it: the path that was passed, as str or bytes.  " DOC_ANY_THREAD
#define DOC_LISTENER_IS_CLOSED "True once this listener, or its receiver, was closed; in a forked child, too.  " DOC_ANY_THREAD

/* ---- native ends ------------------------------------------------------------------------------------ */

static const char endpoint_native_doc[] =
    "native($self)\n--\n\n"
    "Make an end of this channel for a native thread: pass its address, capsule or cffi pointer to code that includes\n"
    "nexus_channels.h.  For an mpsc_bytes sender, the native end is a further sender, like one of clone().  For other\n"
    "endpoints, it borrows the endpoint: calls of the endpoint raise BusyError until the native end is closed.  A\n"
    "native end keeps its endpoint alive, and counts as open until it is closed.\n\n"
    "Raises BusyError while a claim or another native end borrows the endpoint, or somebody waits on it;\n"
    "EndpointClosed.  A task that waits on a loop that native code could not wake gets RuntimeError.  " DOC_ANY_THREAD;

#define DOC_NATIVE(end, other)                                                                           \
    "\n"                                                                                                 \
    ">>> from nexus_channels import spsc_bytes\n"                                                        \
    ">>> tx, rx = spsc_bytes.channel(4096)\n"                                                            \
    ">>> with " end ".native() as end:\n"                                                                \
    "...     print(end.is_attached)\n"                                                                   \
    "False\n"                                                                                            \
    "\n"                                                                                                 \
    "Pass `address`, `capsule` or nexus_channels.native.cast(end) to code that includes nexus_channels.h, and keep\n" \
    "this object until the thread has attached.  Detaching does not end the stream: the " other " sees the end when\n" \
    "this object is closed, too.  A context manager that closes itself.  " DOC_ANY_THREAD

static const char native_sender_doc[] =
    "Lets a native thread send into a channel of bytes.  The native() method of a sender makes it.\n"
    DOC_NATIVE("tx", "receiver");

static const char native_receiver_doc[] =
    "Lets a native thread receive from a channel of bytes.  The native() method of a receiver makes it.\n"
    DOC_NATIVE("rx", "sender");

static const char native_close_doc[] =
    "close($self, *, abandon=False)\n--\n\n"
    "Take the end from its thread: a call that waits, and every later one, answers NEXUS_DISCONNECTED.  The end\n"
    "leaves the channel and gives its endpoint back: at once, or when the thread ends the claim it has open.\n\n"
    "With `abandon` such a claim is aborted or released: only for a thread that is gone for good and left it open.\n"
    "Idempotent; dropping the last reference closes too.  " DOC_ANY_THREAD;

#define DOC_ADDRESS "What nexus_attach_sender or nexus_attach_receiver takes, as an int.  " DOC_ANY_THREAD
#define DOC_CAPSULE "The address as a PyCapsule, which keeps it good.  " DOC_ANY_THREAD
#define DOC_NATIVE_IS_CLOSED "True once this end was closed.  " DOC_ANY_THREAD
#define DOC_NATIVE_IS_DISCONNECTED "True once the other side is gone.  " DOC_ANY_THREAD
#define DOC_IS_ATTACHED "True while a thread is attached.  " DOC_ANY_THREAD

/* ---- the module ------------------------------------------------------------------------------------- */

static const char set_debug_ends_doc[] =
    "set_debug_ends($module, on, /)\n--\n\n"
    "Have endpoints remember where they are made, to find out what keeps a channel open; or stop that.\n\n"
    "Each endpoint, clone() and native() end made from now on is listed by open_ends() with the lines of the program\n"
    "that made it, and its repr() names the first of them.  Off at first, unless the environment says\n"
    "NEXUS_CHANNELS_DEBUG_ENDS=1 when the package is imported.  " DOC_ANY_THREAD;

static const char leave_shared_doc[] =
    "leave_shared($module, /)\n--\n\n"
    "The ends of channels between processes that this process has leave in good order, as when it exits.  For children of\n"
    "multiprocessing, which end by os._exit().  " DOC_ANY_THREAD;

static const char ticket_parts_doc[] =
    "ticket_parts($module, ticket, /)\n--\n\n"
    "What a ticket of a channel between processes holds: (bytes, descriptors), which stay the ticket's.  None if it is of\n"
    "a channel within this process.  " DOC_ANY_THREAD;

static const char ticket_of_parts_doc[] =
    "ticket_of_parts($module, numbers, descriptors, /)\n--\n\n"
    "A Ticket of what ticket_parts() gave, in whichever process; takes the descriptors over unless it raises.\n" DOC_ANY_THREAD;

static const char open_shared_doc[] =
    "open_shared($module, kind, capacity, /)\n--\n\n"
    "Open a channel between processes: (sender, receiver).  What channel(capacity, shared=True) calls.\n" DOC_ANY_THREAD;

static const char listen_at_doc[] =
    "listen_at($module, kind, path, capacity, /)\n--\n\n"
    "Open a channel that is found by a path: a Listener.  What each module's listen() calls.  " DOC_ANY_THREAD;

static const char connect_to_doc[] =
    "connect_to($module, kind, path, timeout, /)\n--\n\n"
    "Make a sender of such a channel.  What each module's connect() calls.  " DOC_ANY_THREAD;

static const char open_doc[] =
    "open($module, kind, capacity, /)\n--\n\n"
    "Open a channel: (sender, receiver).  What each module's channel() calls.\n"
    "Safe from any thread; a local channel is for that thread only.";

static const char log_message_doc[] =
    "log_message($module, places, room, created, msecs, text, task, /, *key)\n--\n\n"
    "The message of a log record: its time, the bytes that `places` has under `key`, the task's name and the text.  Where\n"
    "there are none, or the text takes more than `room` bytes or something is of no usual kind, the key, a tuple.  For\n"
    "nexus_channels.logging.  "
    DOC_ANY_THREAD;

static const char build_info_doc[] =
    "build_info($module)\n--\n\n"
    "How this module was built, as a dict.  " DOC_ANY_THREAD;

/* clang-format on */

#endif
