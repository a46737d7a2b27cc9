"""A handler for `logging` that never waits for the disk, and the listener that writes what it is given.

`ChannelHandler` merges a record's arguments into its text and puts the text into a channel of bytes, which takes no
lock. The thread of a `ChannelListener` receives the records in batches and gives them to ordinary handlers, its
*targets*: files, streams, sockets, whatever has `handle()`.

>>> import logging, sys
>>> from nexus_channels.logging import ChannelHandler
>>> log = logging.getLogger('docs.nexus_channels')
>>> with ChannelHandler(targets=[logging.StreamHandler(sys.stdout)]) as handler:
...     log.addHandler(handler)
...     log.warning('%d of %d', 1, 2)
...     log.removeHandler(handler)
1 of 2
"""

# pyright: reportPrivateUsage=false
# The two classes here are one mechanism, and know each other.

import atexit
import contextlib
import gc
import json
import logging
import operator
import os
import struct
import sys
import threading
import weakref
from asyncio import _get_running_loop
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from threading import get_ident
from time import monotonic
from typing import Any, Final, Literal, Self, TypeAlias

from . import mpsc_bytes
from ._core import log_message
from .errors import Closed, Full, RecvTimeout

__all__ = ["ChannelHandler", "ChannelListener"]

_CAPACITY = 1 << 20  # bytes, when the handler opens the channel itself
_LEAST = 4096  # a channel that is smaller has no room for a record's place and some text
_BATCH = 256  # records received at a time: what a target's lock is held for
_SITES = 4096  # descriptions of logging calls that a handler, or a listener, remembers
_LONG_NAME = 128  # bytes of the names of a thread and its task; longer ones are not remembered
_PATIENCE = 5.0  # seconds that close(), flush() and the end of the program wait for the targets
_REPORTS = 1.0  # seconds between two reports of dropped records

# ---- a record as bytes ---------------------------------------------------------------------------------------------
#
#   | time | head | site | thread name, task name | details, text |
#                   JSON   UTF-8, one after the other; their lengths, in characters, are in the head
#
# The site is what all records of one logging call have in common. It is made once, and remembered together with the
# head and the names: the *place* of a record. `log_message`, in C, joins time, place and text. Details are what few
# records have: a traceback, a stack. A message whose site is empty is for the listener: it has to look for dropped
# records, and to set the event that the head has in the place of a thread.

_TIME = struct.Struct("<df")  # created, msecs
_HEAD = struct.Struct("<HHHIQ")  # lengths of site, thread name, task name and details; thread
_pack_time, _pack, _unpack = _TIME.pack, _HEAD.pack, struct.Struct(_TIME.format + _HEAD.format[1:]).unpack_from
_SITE_AT = _TIME.size + _HEAD.size
_LONGEST_SITE = 1024
_SHORTEST_LIMIT = 256
_HAS_TASKS = sys.version_info >= (3, 12)
_LogRecord = logging.LogRecord
_FROM_TARGET = 0x8000  # in the length of the site: a target logged this, in the thread of its listener
_NEVER = _pack_time(0.0, 0.0)
_WAKE = _NEVER + _pack(0, 0, 0, 0, 0)

_born = logging.LogRecord("", 0, "", 0, "", None, None)
_DEFAULT: Final = logging.Formatter()
_STARTED = _born.created - _born.relativeCreated / 1000  # relativeCreated counts from then


def _site_of(record: logging.LogRecord) -> bytes:
    fields = (
        record.name,
        record.levelno,
        record.levelname,
        record.pathname,
        record.lineno,
        record.funcName,
        record.process,
        record.processName,
    )
    return json.dumps(fields, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _short_site_of(record: logging.LogRecord) -> bytes:
    site = _site_of(record)
    for most in (64, 16, 4):
        if len(site) <= _LONGEST_SITE:
            break
        # Names and paths as nobody has them. What tells most of a path is its end.
        path, function = str(record.pathname)[-2 * most :], str(record.funcName)[:most]
        short = logging.LogRecord(
            str(record.name)[:most], record.levelno, path, record.lineno, "", None, None, function
        )
        short.levelname = str(record.levelname)[:most]
        short.process, short.processName = record.process, str(record.processName)[:most]
        site = _site_of(short)
    return site


def _attributes_of(site: bytes) -> dict[str, Any]:
    """What `_site_of` was given, and what follows from it: most of the attributes of a record."""
    name, levelno, levelname, pathname, lineno, function, process, process_name = json.loads(site)
    filename = os.path.basename(pathname or "")
    return {
        "name": name,
        "args": None,
        "levelname": levelname,
        "levelno": levelno,
        "pathname": pathname,
        "filename": filename,
        "module": os.path.splitext(filename)[0],
        "exc_info": None,
        "exc_text": None,
        "stack_info": None,
        "lineno": lineno,
        "funcName": function,
        "process": process,
        "processName": process_name,
        "taskName": None,
    }


def _cut(data: bytes, room: int) -> bytes:
    """The beginning of a text in UTF-8, which ends before a character and says how long it was."""
    mark = f" [cut, {len(data):,} bytes]".encode()
    end = max(0, room - len(mark))
    while end and data[end] & 0xC0 == 0x80:  # in the middle of a character
        end -= 1
    return data[:end] + mark


# ---- who is alive in this process ----------------------------------------------------------------------------------

_registry_lock = threading.RLock()  # of the next two; neither logging nor a listener's thread ever takes it
_handlers: "tuple[weakref.ref[ChannelHandler], ...]" = ()  # another one whenever a handler begins to use a channel
_listeners: "weakref.WeakSet[ChannelListener]" = weakref.WeakSet()

# By thread: the listener that writes there just now, or the handler in which the thread waits for room. A signal
# handler that interrupts this wait, or a target, must not wait for room as well: it would wait for itself.
_occupied: "dict[int, ChannelHandler | ChannelListener]" = {}
_serving: set[int] = set()  # the threads of listeners, which must never wait for room
_collecting: set[int] = set()  # threads that collect garbage: a finaliser may run under any lock of the program
_forking: set[int] = set()  # threads that fork: the listeners wait for them


class _Barrier:
    """What `flush()` waits for: that the listener of the channel comes to a message, or ends."""

    def __init__(self, sender: mpsc_bytes.Sender) -> None:
        self.sender = sender
        self.ended = threading.Event()
        self.is_passed = False


_barriers: dict[int, _Barrier] = {}  # by the number that is sent

_gave_up = False  # at exit, on a target that did not return: nothing waits any more


def _until(timeout: float | None) -> float | None:
    """The monotonic time at which a wait that begins now is over."""
    if _gave_up:
        return monotonic()
    return None if timeout is None or timeout > threading.TIMEOUT_MAX else monotonic() + timeout


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - monotonic())


def _living(references: "Iterable[weakref.ref[ChannelHandler]]") -> "list[ChannelHandler]":
    return [handler for reference in references if (handler := reference()) is not None]


def _set_handlers(handlers: "Iterable[ChannelHandler]") -> None:
    global _handlers
    _handlers = tuple(map(weakref.ref, handlers))


def _living_listeners() -> "list[ChannelListener]":
    with _registry_lock:
        return list(_listeners)


def _note_collection(phase: str, _info: dict[str, int]) -> None:
    (_collecting.add if phase == "start" else _collecting.discard)(get_ident())


def _runs_event_loop() -> bool:
    if _get_running_loop() is not None:
        return True
    in_trio_run: Any = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    return in_trio_run is not None and bool(in_trio_run())


def _at_exit() -> None:
    """Wait until everything is written. The handlers stay open for what logs later: logging.shutdown() closes them."""
    global _gave_up
    end = monotonic() + _PATIENCE
    for listener in _living_listeners():
        if listener.is_running and not (listener.flush(_left(end)) or listener.stop(_left(end))):
            listener._abandon()
            _gave_up = True
    if _gave_up:
        sys.stderr.write(f"nexus_channels.logging: log records are lost: a target took over {_PATIENCE:g} s at exit\n")


_paused: "list[ChannelListener]" = []  # while a thread forks


def _before_fork() -> None:
    """Wait for the listeners to be between two batches: a child has copies of what streams have buffered, and of their
    locks. Targets that take a second are not waited for. Until the fork is over, this thread must not wait for room."""
    _forking.add(get_ident())
    end = monotonic() + 1
    paused = [one for one in _living_listeners() if one._writing.acquire(timeout=max(0.0, end - monotonic()))]
    _registry_lock.acquire()
    _paused.extend(paused)


def _after_fork_in_parent() -> None:
    paused = _paused.copy()
    _paused.clear()
    _registry_lock.release()
    for listener in paused:
        listener._writing.release()
    _forking.discard(get_ident())


def _after_fork_in_child() -> None:
    """Only the thread that forked is here, no listener's. What the channels hold is the parent's to write."""
    global _occupied, _serving, _collecting, _forking, _barriers
    _occupied, _serving, _collecting, _forking, _barriers = {}, set(), set(), set(), {}
    _paused.clear()
    _registry_lock.release()
    for listener in _living_listeners():
        listener._forget()
    for handler in _living(_handlers):
        handler._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)  # runs before logging.shutdown(), which was registered earlier

# ---- targets -------------------------------------------------------------------------------------------------------


class _Named:
    """A handler of a configuration that is being read: dictConfig may make it after the handler that writes to it."""

    def __init__(self, name: str, handlers: Mapping[str, object]) -> None:
        self.name = name
        self.handlers = handlers  # keeps the handler alive, which may be nobody else's

    def find(self) -> logging.Handler:
        found = self.handlers[self.name]
        if not isinstance(found, logging.Handler):
            raise ValueError(f"the handler {self.name!r} was not made by its configuration")
        return found


_Target: TypeAlias = logging.Handler | _Named


def _find_targets(targets: Any) -> list[_Target]:
    given: object = targets
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise TypeError(f"targets is a list of handlers or of their names, not {targets!r}")
    configurator = getattr(targets, "configurator", None)  # dictConfig's lists have it
    handlers = None if configurator is None else configurator.config.get("handlers", {})
    # By index: that is how a list of dictConfig converts "ext://..." and "cfg://...".
    return [_find_target(targets[index], handlers) for index in range(len(targets))]


def _find_target(target: object, configured: Mapping[str, object] | None) -> _Target:
    if isinstance(target, logging.Handler):
        return target
    if not isinstance(target, str):
        raise TypeError(f"a target is a logging.Handler or the name of one, not {target!r}")
    if configured is not None and target in configured:
        return _Named(target, configured)
    found: logging.Handler | None
    if sys.version_info >= (3, 12):
        found = logging.getHandlerByName(target)
    else:
        by_name: Any = vars(logging)["_handlers"]
        found = by_name.get(target)
    if found is None:
        raise ValueError(f"there is no handler of the name {target!r}")
    return found


# ---- the side that logs --------------------------------------------------------------------------------------------


def _refuse(_message: bytes) -> None:
    raise Full("no listener in this process")


class ChannelHandler(logging.Handler):
    """Sends records to a `ChannelListener`, whose thread gives them to ordinary handlers, the targets.

    >>> import logging
    >>> from nexus_channels.logging import ChannelHandler
    >>> log = logging.getLogger('docs.handler')
    >>> with ChannelHandler(targets=[logging.NullHandler()]) as handler:
    ...     log.addHandler(handler)
    ...     log.warning('this call waits for no disk')
    ...     log.removeHandler(handler)
    >>> handler.dropped
    0

    With `targets`, a list of handlers, it opens a channel of `capacity` bytes (1 MiB if none are given) and starts a
    listener. In a configuration for `logging.config.dictConfig` the list may name other handlers of it. Without
    targets, `sender` is the sender of an `mpsc_bytes` channel whose receiver a `ChannelListener` has, and belongs to
    the handler from then on. `respect_handler_level` is that of the listener.

    `policy` is what happens to a record for which the channel has no room. "drop": it is counted in `dropped`, and
    within about a second the targets get a record that says how many were dropped. "block": the call waits for room,
    for at most `timeout` seconds if that is given, then the record is dropped. It never waits, but drops, in a thread
    that runs an event loop, in a target, in a finaliser that a collection runs, in a signal handler that interrupted
    such a wait, and in a forked process without a listener.

    Without a formatter, the targets format; they get all attributes of the record but `args`, those of `extra`, and
    `exc_info`, whose traceback comes as `exc_text`.
    With a formatter, its result is the message that the targets get. A text of more than `max_text_size` bytes in
    UTF-8, a quarter of the channel if that is None, is cut, and says how long it was.

    Raises TypeError for a wrong kind of argument or combination, ValueError for values out of range and for names of
    no handler. Safe from any thread, signal handler and finaliser: logging takes no lock.
    """

    def __init__(
        self,
        sender: mpsc_bytes.Sender | None = None,
        *,
        targets: Sequence[logging.Handler | str] | None = None,
        capacity: int | None = None,
        policy: Literal["drop", "block"] = "drop",
        timeout: float | None = None,
        max_text_size: int | None = None,
        respect_handler_level: bool = True,
        level: int | str = logging.NOTSET,
    ) -> None:
        if policy not in ("drop", "block"):
            raise ValueError(f'policy is "drop" or "block", not {policy!r}')
        if timeout is not None and (policy != "block" or not timeout >= 0):
            raise ValueError(f'timeout is for policy "block", in seconds, not {timeout!r} for policy {policy!r}')
        if (sender is None) == (targets is None):
            raise TypeError("give either the sender of an mpsc_bytes channel, or targets")
        if sender is not None and capacity is not None:
            raise TypeError("capacity is for the channel that is opened for targets; the sender's has one")
        self._targets = None if targets is None else _find_targets(targets)
        self._respect = respect_handler_level
        receiver = None
        if sender is None:
            sender, receiver = mpsc_bytes.channel(_CAPACITY if capacity is None else capacity)
        self._limit_given = max_text_size
        self._limit = self._limit_for(sender)
        super().__init__(level)
        self._policy: Literal["drop", "block"] = policy
        self._timeout = timeout
        own = type(self)
        self._own_format = own.format is not logging.Handler.format
        self._is_customised = own.filter is not logging.Handler.filter or own.emit is not ChannelHandler.emit
        self._places: dict[object, bytes] = {}
        self._use(sender, receiver)

    def _limit_for(self, sender: object) -> int:
        """The size of the longest text, once all that it depends on is found to be right."""
        if not isinstance(sender, mpsc_bytes.Sender):
            raise TypeError(f"sender is the sender of an mpsc_bytes channel, not {sender!r}")
        if sender.capacity < _LEAST:
            raise ValueError(f"the channel has {sender.capacity} bytes, and {_LEAST} are the least for logging")
        most = sender.max_message_size - _SITE_AT - _LONGEST_SITE
        limit = sender.capacity // 4 if self._limit_given is None else operator.index(self._limit_given)
        if not _SHORTEST_LIMIT <= limit <= most:
            raise ValueError(f"max_text_size is {_SHORTEST_LIMIT} to {most} bytes here, not {limit}")
        return limit

    def _use(self, sender: mpsc_bytes.Sender, receiver: mpsc_bytes.Receiver | None) -> None:
        listener = None
        if receiver is not None and self._targets is not None:
            listener = ChannelListener._over(receiver, self._targets, self._respect).start()
        self._listener: ChannelListener | None = listener
        self._room = self._limit - _LONG_NAME  # for the text of a message with a place
        self._drops: dict[int, int] = {}  # by thread
        self._told = False  # a listener was told that records were dropped, or will find out
        self._reported = 0
        self._sender = sender
        names = any(isinstance(target, _Named) for target in self._targets or ())
        self._send: Callable[[bytes], None] = self._send_first if names else sender.try_send
        self._may_wait = self._policy == "block"
        with _registry_lock:
            _set_handlers([*(handler for handler in _living(_handlers) if handler is not self), self])
            if self._may_wait and _note_collection not in gc.callbacks:
                gc.callbacks.append(_note_collection)

    def _forget(self) -> None:
        """In a forked process: have nothing to do with the channel, whose other side is the parent's."""
        self._listener = None
        self._drops = {}
        self._told, self._reported = False, 0
        self._send = _refuse
        self._may_wait = False

    # ---- what one may ask ------------------------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """How many records were dropped, exactly. Starts at 0 in a forked process and after `reopen()`."""
        return sum(self._drops.copy().values())

    @property
    def policy(self) -> Literal["drop", "block"]:
        """What happens to a record for which there is no room: "drop" or "block"."""
        return self._policy

    @property
    def sender(self) -> mpsc_bytes.Sender:
        """The sender of the channel. It has `statistics()`."""
        return self._sender

    @property
    def listener(self) -> "ChannelListener | None":
        """The listener that was started for `targets`, or None."""
        return self._listener

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ({logging.getLevelName(self.level)}) policy={self._policy!r}>"

    # ---- logging ---------------------------------------------------------------------------------------------------

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """Make no lock: none is needed. Safe from any thread."""
        self.lock = None

    def handle(self, record: logging.LogRecord, *, _passed: bool = False) -> bool:
        """Send the record if it passes the filters, and return whether it does.

        Where there is no room, `policy` says what happens. A record that cannot be formatted goes to `handleError()`.
        Safe from any thread, signal handler and finaliser; takes no lock.
        """
        if (self.filters or self._is_customised) and not _passed:
            return self._handle_step_by_step(record)
        since_3_12: Any = record
        try:
            details = ""
            if self.formatter is not None or self._own_format:
                text = self.format(record)
            else:
                text = record.msg
                if type(text) is not str or type(record) is not _LogRecord:
                    text = record.getMessage()
                elif args := record.args:  # as getMessage() does it, which takes twice as long
                    text %= args
                if record.exc_info or record.exc_text or record.stack_info:
                    details = _details_of(record)
            task = since_3_12.taskName if _HAS_TASKS else None
            made: Any = log_message(
                self._places,
                self._room,
                record.created,
                record.msecs,
                text,
                # The rest is the key of the place.
                record.pathname,
                record.lineno,
                record.name,
                record.levelno,
                record.levelname,
                record.thread,
                record.threadName,
                task,
                record.process,
                record.processName,
                record.funcName,
            )
            usual = type(made) is bytes and not details
            message: bytes = made if usual else self._message(record, task or "", details, text, made)
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)
            return True
        if _occupied and get_ident() in _occupied:
            self._send_from_within(message, record)
            return True
        try:
            self._send(message)
        except (Full, Closed):
            self._no_room(message)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record as `handle()` does, past the filters.

        Safe from any thread, signal handler and finaliser; takes no lock.
        """
        self.handle(record, _passed=True)

    def _handle_step_by_step(self, record: logging.LogRecord) -> bool:
        """`handle()` for whoever filters records, or has a filter() or emit() of their own."""
        passed: Any = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def _message(self, record: logging.LogRecord, task: str, details: str, text: str, key: object) -> bytes:
        """A message that `log_message` does not make: the first of a place, and what is no usual one."""
        data = text.encode("utf-8", "surrogatepass")
        if details or len(data) > self._room or not (place := self._place(record, task, key)):
            return self._long(record, task, details, text)
        return _pack_time(record.created, record.msecs) + place + data

    def _place(self, record: logging.LogRecord, task: str, key: object) -> bytes:
        """The place of what this thread and task log by this call, made and remembered; empty if it is too long."""
        with contextlib.suppress(TypeError):  # a record of no usual make cannot be a key
            if (known := self._places.get(key)) is not None:
                return known
        name, site = record.threadName or "", _short_site_of(record)
        names = (name + task).encode("utf-8", "surrogatepass")
        place = _pack(len(site), len(name), len(task), 0, record.thread or 0) + site + names
        if len(names) > _LONG_NAME:
            place = b""
        if len(self._places) >= _SITES:
            self._places.clear()
        with contextlib.suppress(TypeError):
            self._places[key] = place
        return place

    def _long(self, record: logging.LogRecord, task: str, details: str, text: str) -> bytes:
        """A message with details, with long names, or with a long text, which is cut if it is too long."""
        name, site = record.threadName or "", _short_site_of(record)
        data = f"{name}{task}{details}{text}".encode("utf-8", "surrogatepass")
        if len(data) > self._limit:
            name, text = name[:32], text + _as_text(details)
            task = details = ""
            front = name.encode("utf-8", "surrogatepass")
            data = front + _cut(text.encode("utf-8", "surrogatepass"), self._limit - len(front))
        head = _pack(len(site), len(name), len(task), len(details), record.thread or 0)
        return _pack_time(record.created, record.msecs) + head + site + data

    def _send_first(self, message: bytes) -> None:
        """Send the first record of a configuration, whose other handlers were all made by now.

        Handlers are closed in the reverse order of their making. This one has to be closed before its targets.
        """
        lock: Any = vars(logging)["_lock"]
        if lock.acquire(blocking=False):  # else another time: whoever has it may wait for this thread
            try:
                order: list[Any] = vars(logging)["_handlerList"]
                for at, reference in enumerate(order):
                    if reference() is self:
                        order.append(order.pop(at))
                        break
                self._send = self._sender.try_send
            finally:
                lock.release()
        self._sender.try_send(message)

    # ---- where there is no room ------------------------------------------------------------------------------------

    def _no_room(self, message: bytes) -> None:
        """Wait for room, if that is the policy and waiting can do no harm; else drop the record."""
        thread = get_ident()
        must_not_wait = thread in _collecting or thread in _serving or thread in _forking
        if _gave_up or not self._may_wait or must_not_wait or _runs_event_loop():
            self._drop()
            return
        _occupied[thread] = self
        sent: list[None] = []
        try:
            # Noted by C code: a signal handler that raises comes before or after both, not in between.
            sent.extend(map(self._sender.send_blocking, (message,), (self._timeout,)))
        except (Full, Closed):
            pass
        finally:
            _occupied.pop(thread, None)
            if not sent:  # or a signal handler has raised
                self._drop()

    def _send_from_within(self, message: bytes, record: logging.LogRecord) -> None:
        """Send, without ever waiting, what is logged in a target or by a signal handler that interrupted a wait.

        What a target logs is marked. What is logged while a marked record is written is dropped: a target that logs
        something of each record would never come to an end. A handler that is itself the target passes the record on.
        """
        listener = _occupied[get_ident()]
        if isinstance(listener, ChannelListener):
            passes_on, marked = record is listener._giving, listener._writes_marked
            if marked and not passes_on:
                self._drop()
                return
            if marked or not passes_on:
                message = _marked(message)
        try:
            self._send(message)
        except (Full, Closed):
            self._drop()

    def _drop(self) -> None:
        """Count a dropped record, exactly and without a lock, and have the listener report it.

        Each thread has a counter of its own. Between reading and writing it there is no call and no loop's end: there
        CPython would run signal handlers and collections, which may drop a record, too.
        """
        thread = get_ident()
        drops = self._drops
        if thread not in drops:
            drops.setdefault(thread, 0)
        drops[thread] += 1
        if not self._told:
            self._told = True
            with contextlib.suppress(Full, Closed):  # who has so much to receive will look after it
                self._send(_WAKE)

    def _take_drops(self) -> int:
        """How many records were dropped since this was last called."""
        self._told = False  # whoever drops one from now on tells it anew
        dropped = self.dropped
        new, self._reported = dropped - self._reported, dropped
        return new

    # ---- waiting for the targets -----------------------------------------------------------------------------------

    def flush(self, timeout: float | None = _PATIENCE) -> bool:  # type: ignore[override]
        """Wait until the targets have written what any thread logged before this call. Returns whether they have.

        It is False after `timeout` seconds, where None is no limit, and at once where it can never be True: in a
        target, without a running listener in this process, and after `close()`. Safe from any thread. It blocks the
        thread: in a task, `await asyncio.to_thread(handler.flush)`.
        """
        thread = get_ident()
        if thread in _occupied or thread in _serving or thread in _forking:
            return False
        listener = next((one for one in _living_listeners() if one._serves(self)), None)
        if listener is None:
            return False
        end = _until(timeout)
        barrier = _Barrier(self._sender)
        number = id(barrier)
        _barriers[number] = barrier
        try:
            barrier.sender.send_blocking(_NEVER + _pack(0, 0, 0, 0, number), _left(end))
            barrier.ended.wait(_left(end))
        except (Full, Closed):
            pass
        finally:
            _barriers.pop(number, None)
        return barrier.is_passed and listener._flush_handlers(end)

    def reopen(self, sender: mpsc_bytes.Sender | None = None) -> None:
        """Use a new channel: in a forked process, where the old one has no listener.

        A handler that was made with targets opens the channel, and starts a listener for the same targets; any other
        needs a new `sender`. `os.register_at_fork(after_in_child=handler.reopen)` does it in every fork. Where the old
        channel is in use, it is closed as by `close()`.

        Raises TypeError and ValueError as for a new handler. Not to be called by two threads at once.
        """
        receiver = None
        if sender is None:
            if self._targets is None:
                raise TypeError("this handler was made with a sender and needs a new one to reopen")
            sender, receiver = mpsc_bytes.channel(self._sender.capacity)
        limit = self._limit_for(sender)
        self._end()
        self._limit = limit
        self._use(sender, receiver)

    def close(self) -> None:
        """Wait until the targets have written what was logged, for 5 seconds at most, and close the channel.

        Stops the listener of `targets`, and does not close the targets. What is logged later is dropped and counted.
        Calling it again does nothing. Safe from any thread. It blocks the thread, as `flush()` does.
        """
        self._end()
        with _registry_lock:
            _set_handlers(handler for handler in _living(_handlers) if handler is not self)
        super().close()

    def _end(self) -> None:
        if self._listener is not None:
            self._listener.stop()
        elif not self._sender.is_closed:
            self.flush()
        self._may_wait = False
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _marked(message: bytes) -> bytes:
    """The same message, which says that a target has logged it."""
    at = _TIME.size
    length = int.from_bytes(message[at : at + 2], "little") | _FROM_TARGET
    return message[:at] + length.to_bytes(2, "little") + message[at + 2 :]


def _details_of(record: logging.LogRecord) -> str:
    """The traceback and the stack, as a formatter writes them."""
    trace = record.exc_text or (_DEFAULT.formatException(record.exc_info) if record.exc_info else None)
    stack = _DEFAULT.formatStack(record.stack_info) if record.stack_info else None
    return json.dumps([trace, stack])


def _as_text(details: str) -> str:
    return "".join(f"\n{part}" for part in json.loads(details) if part) if details else ""


# ---- the side that writes ------------------------------------------------------------------------------------------


_FLUSH_OF_STREAMS: Callable[[Any], None] = vars(logging.StreamHandler)["flush"]


class _HeldFlush:
    """Stands for `flush` of a stream's handler while its listener writes a batch, which is flushed at its end."""

    def __init__(self, target: logging.Handler) -> None:
        self.target = target
        self.thread = get_ident()

    def __call__(self) -> None:
        if get_ident() != self.thread:
            type(self.target).flush(self.target)


class ChannelListener:
    """Receives what `ChannelHandler`s send, in a thread of its own, and gives it to `targets`.

    >>> import logging, sys
    >>> from nexus_channels import mpsc_bytes
    >>> from nexus_channels.logging import ChannelHandler, ChannelListener
    >>> tx, rx = mpsc_bytes.channel(1 << 16)
    >>> log = logging.getLogger('docs.listener')
    >>> handler = ChannelHandler(tx)
    >>> log.addHandler(handler)
    >>> with ChannelListener(rx, logging.StreamHandler(sys.stdout)):
    ...     log.warning('written when the block ends')
    written when the block ends
    >>> log.removeHandler(handler)

    `receiver` is that of an `mpsc_bytes` channel, and belongs to the listener from then on. A target gets the records
    that are at least of its level; with `respect_handler_level=False` it gets all. Records come in batches of up to
    256, after each of which a target that is a `logging.StreamHandler` is flushed. A target that raises is told by its
    `handleError()` or, if that raises, by `threading.excepthook`; the next records come all the same.

    It ends when every sender is closed and everything is written, or by `stop()`. At exit it has 5 seconds to write
    what is left. In a forked process it does nothing.

    Raises TypeError unless `receiver` is a receiver of bytes and each target a `logging.Handler`. Safe from any thread.
    """

    def __init__(
        self, receiver: mpsc_bytes.Receiver, *targets: logging.Handler, respect_handler_level: bool = True
    ) -> None:
        given: Any = targets
        for target in given:
            if not isinstance(target, logging.Handler):
                raise TypeError(f"a target is a logging.Handler, not {target!r}")
        self._begin(receiver, targets, respect_handler_level)

    @classmethod
    def _over(cls, receiver: mpsc_bytes.Receiver, targets: Iterable[_Target], respect: bool) -> Self:
        self = cls.__new__(cls)
        self._begin(receiver, targets, respect)
        return self

    def _begin(self, receiver: object, targets: Iterable[_Target], respect: bool) -> None:
        if not isinstance(receiver, mpsc_bytes.Receiver):
            raise TypeError(f"receiver is the receiver of an mpsc_bytes channel, not {receiver!r}")
        self._receiver = receiver
        self._given = list(targets)
        self._targets: list[logging.Handler] | None = None  # until the first record, when all names are known
        self._respect = respect
        self._is_parents = False
        self._writing = threading.RLock()  # the thread has it while it writes a batch
        self._lock = threading.RLock()  # of the next three
        self._thread: threading.Thread | None = None
        self._receives = False  # or is about to
        self._stops = False
        self._sites: dict[bytes, dict[str, Any]] = {}
        self._writes_marked = False
        self._at: logging.Handler | None = None  # the target that has a record just now
        self._giving: logging.LogRecord | None = None  # that record
        # Those of these handlers that use the channel.
        self._seen: tuple[Any, list[weakref.ref[ChannelHandler]]] = (None, [])
        self._next_report = 0.0
        self._dropped = 0
        with _registry_lock:
            _listeners.add(self)

    # ---- its life --------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> Self:
        """Start the thread, and return the listener. The thread is a daemon: exit does not wait for it to end.

        Raises RuntimeError if it was started before, or by the parent process. Safe from any thread.
        """
        if self._is_parents:
            raise RuntimeError("the listener is of the parent process, which writes what its channel has")
        with self._lock:
            if self._thread is not None or self._receiver.is_closed:
                raise RuntimeError("the listener was started or stopped before")
            self._thread = threading.Thread(target=self._run, name="nexus_channels.logging", daemon=True)
            try:
                self._thread.start()
            except BaseException:
                self._thread = None
                raise
        return self

    def stop(self, timeout: float | None = _PATIENCE) -> bool:
        """Write what was sent before this call, close the channel, and end the thread. Returns whether it has ended.

        The handlers of this process that use the channel drop and count what is logged from then on. It is False after
        `timeout` seconds, where None is no limit, and in a target. The thread then goes on until everything is written.
        Calling it again waits again. Safe from any thread; it blocks the thread.
        """
        if self._is_parents:
            return True
        end = _until(timeout)
        with self._lock:
            self._stops = True
            # A thread that receives gets what is there, then looks; one that waits with nothing there has to be woken.
            if self._thread is None or (self._receives and not len(self._receiver)):
                self._wake()
        return self._ends(end)

    def _wake(self) -> None:
        """Have the thread look around: by a message or, if nobody here can send one, by the end of the channel."""
        for handler in self._feeders() if self._thread is not None else ():
            try:
                handler._sender.try_send(_WAKE)
            except Full:
                return  # then it has something to receive
            except Closed:
                continue
            return
        self._receiver.close()

    def _ends(self, end: float | None) -> bool:
        thread = self._thread
        if thread is None:
            return True
        if thread is threading.current_thread():
            return False
        thread.join(_left(end))
        return not thread.is_alive()

    def flush(self, timeout: float | None = _PATIENCE) -> bool:
        """Wait until the targets have written what was logged before this call. Returns whether they have.

        As `ChannelHandler.flush()`, of a handler of this process that uses the same channel; False if there is none.
        Safe from any thread; it blocks the thread.
        """
        end = _until(timeout)
        return any(handler.flush(_left(end)) for handler in self._feeders())

    def _flush_handlers(self, end: float | None) -> bool:
        """`flush()` of those targets that are ChannelHandlers; not for the listener's thread, which must not wait."""
        handlers = [target for target in self._targets or () if isinstance(target, ChannelHandler)]
        return all(handler.flush(_left(end)) for handler in handlers)

    def __enter__(self) -> Self:
        return self if self.is_running else self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop(None)

    def __repr__(self) -> str:
        state = "running" if self.is_running else "not running"
        return f"<{type(self).__name__} {state}, {len(self._given)} targets>"

    def _forget(self) -> None:
        """In a forked process, where its thread is not."""
        self._writing = threading.RLock()
        self._lock = threading.RLock()
        self._thread = None
        self._is_parents = True

    def _abandon(self) -> None:
        """Have logging.shutdown() pass by what a target that does not return holds: its own lock, and those of handlers
        that it writes to. Only at exit."""
        living: list[Any] = [reference() for reference in vars(logging)["_handlerList"]]
        stuck = [handler for handler in living if handler is not None and not _is_free(handler)]
        for handler in {id(handler): handler for handler in (*stuck, self._at) if handler is not None}.values():
            handler.createLock()
            handler.flush = handler.close = lambda: None

    # ---- whose records it writes -----------------------------------------------------------------------------------

    def _serves(self, handler: ChannelHandler) -> bool:
        return self.is_running and self._receiver.same_channel(handler.sender)

    def _feeders(self) -> list[ChannelHandler]:
        """The handlers of this process that use the channel."""
        of, mine = self._seen
        handlers = _handlers
        if of is not handlers:
            mine = [weakref.ref(one) for one in _living(handlers) if self._receiver.same_channel(one.sender)]
            self._seen = (handlers, mine)
        return _living(mine)

    # ---- its thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        thread = get_ident()
        _serving.add(thread)
        try:
            with contextlib.suppress(Closed):  # every sender is closed, or stop() has closed the receiver
                while self._may_receive():
                    try:
                        batch = self._receiver.recv_many_blocking(_BATCH, self._wait_for_report())
                    except RecvTimeout:
                        batch = []
                    self._receives = False  # whoever stops it now need not wake it
                    self._write(batch)
                    self._report()
                for handler in self._feeders():
                    handler._sender.close()  # what is logged from now on is dropped, and counted
                while batch := self._receiver.try_recv_many(_BATCH):
                    self._write(batch)
            self._next_report = 0.0
            self._report()
        finally:
            self._receiver.close()
            for barrier in list(_barriers.values()):
                if self._receiver.same_channel(barrier.sender):
                    barrier.ended.set()
            _serving.discard(thread)

    def _may_receive(self) -> bool:
        with self._lock:
            self._receives = not self._stops
            return self._receives

    def _write(self, batch: list[bytes]) -> None:
        if not batch:
            return
        with self._writing, self._occupying():
            self._find_targets()
            records: list[tuple[logging.LogRecord, bool]] = []
            for message in batch:
                try:
                    created, msecs, length, *rest = _unpack(message)
                    if length != 0:
                        record = self._record(message, created, msecs, length & ~_FROM_TARGET, *rest)
                        records.append((record, bool(length & _FROM_TARGET)))
                        continue
                except Exception:  # somebody else's message
                    _tell()
                    continue
                self._give(records)
                records.clear()
                self._pass_barrier(rest[3])
            self._give(records)

    @contextlib.contextmanager
    def _occupying(self) -> Generator[None]:
        """What is logged in this thread meanwhile, a target logs."""
        thread = get_ident()
        _occupied[thread] = self
        try:
            yield
        finally:
            _occupied.pop(thread, None)

    def _find_targets(self) -> None:
        if self._targets is None:
            self._targets = [target for given in self._given if (target := self._find(given)) is not None]
            self._given = list(self._targets)  # a configuration is not kept any longer

    def _find(self, given: _Target) -> logging.Handler | None:
        try:
            return given.find() if isinstance(given, _Named) else given
        except Exception:
            _tell()
            return None

    @contextlib.contextmanager
    def _holding(self, target: logging.Handler) -> Generator[None]:
        """Keep the lock of a stream for its part of a batch, and flush once at the end: one system call for all."""
        if type(target).flush is not _FLUSH_OF_STREAMS or "flush" in vars(target):
            yield
            return
        self._at = target
        with target.lock or contextlib.nullcontext():
            target.flush = _HeldFlush(target)  # type: ignore[method-assign]
            try:
                yield
            finally:
                vars(target).pop("flush", None)
                self._flush(target)

    def _flush(self, target: logging.Handler) -> None:
        self._at = target
        try:
            target.flush()
        except BaseException:
            self._failed(target, logging.LogRecord(__name__, logging.ERROR, __file__, 0, "flush", None, None))
        self._at = None

    def _pass_barrier(self, number: int) -> None:
        barrier = _barriers.get(number)
        if barrier is not None:
            for target in self._targets or ():
                self._flush(target)
            barrier.is_passed = True
            barrier.ended.set()

    def _record(
        self, message: bytes, created: float, msecs: float, length: int, name: int, task: int, details: int, thread: int
    ) -> logging.LogRecord:
        site = message[_SITE_AT : _SITE_AT + length]
        attributes = self._sites.get(site)
        if attributes is None:
            if len(self._sites) >= _SITES:
                self._sites.clear()
            attributes = self._sites[site] = _attributes_of(site)
        text = message[_SITE_AT + length :].decode("utf-8", "surrogatepass")
        record = logging.LogRecord.__new__(logging.LogRecord)
        fields = record.__dict__
        fields.update(attributes)
        fields["threadName"] = text[:name] or None
        fields["thread"] = thread or None
        fields["created"] = created
        fields["msecs"] = msecs
        fields["relativeCreated"] = (created - _STARTED) * 1000
        if task:
            fields["taskName"] = text[name : name + task]
        start = name + task
        if details:
            fields["exc_text"], fields["stack_info"] = json.loads(text[start : start + details])
        fields["msg"] = text[start + details :]
        return record

    def _give(self, records: "list[tuple[logging.LogRecord, bool]]") -> None:
        """Give records to one target after the other; True marks those that a target has logged.

        Not record by record: a target would wait for the others while it holds its lock, which others of the program
        take.
        """
        for target in self._targets or () if records else ():
            try:
                with self._holding(target):
                    for record, marked in records:
                        self._at, self._giving, self._writes_marked = target, record, marked
                        self._give_one(target, record)
            finally:
                self._at = self._giving = None
                self._writes_marked = False

    def _give_one(self, target: logging.Handler, record: logging.LogRecord) -> None:
        try:
            if record.levelno >= target.level or not self._respect:
                target.handle(record)
        except BaseException:
            self._failed(target, record)

    def _failed(self, target: logging.Handler, record: logging.LogRecord) -> None:
        try:
            target.handleError(record)
        except BaseException:
            _tell()

    # ---- records that were dropped ---------------------------------------------------------------------------------

    def _wait_for_report(self) -> float | None:
        """How long to wait for records: until the next report is due, if there is anything to report."""
        if any(handler._told for handler in self._feeders()):
            return max(0.0, self._next_report - monotonic())
        return None

    def _report(self) -> None:
        now = monotonic()
        if now < self._next_report:
            return
        dropped = sum(handler._take_drops() for handler in self._feeders() if handler._told)
        if dropped:
            self._dropped += dropped
            self._next_report = now + _REPORTS
            text = f"{dropped} log records were dropped, {self._dropped} in all"
            record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
            record.dropped = dropped
            with self._writing, self._occupying():
                self._find_targets()
                self._give([(record, True)])


def _is_free(handler: logging.Handler) -> bool:
    """Whether nobody has the lock of a handler for more than a moment."""
    lock: Any = handler.lock
    if lock is None:
        return True
    free = bool(lock.acquire(timeout=0.1))
    if free:
        lock.release()
    return free


def _tell() -> None:
    """Tell of the exception that is being handled as of one that nobody caught in a thread."""
    kind, error, trace = sys.exc_info()
    with contextlib.suppress(Exception):
        threading.excepthook(threading.ExceptHookArgs((kind, error, trace, threading.current_thread())))
