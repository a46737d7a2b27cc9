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
from time import monotonic, time
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar

from . import mpsc_bytes
from ._core import log_message
from ._types import Uncopied
from .errors import BusyError, ClaimTooLarge, Closed, Full, RecvTimeout

__all__ = ["ChannelHandler", "ChannelListener"]

_CAPACITY = 1 << 20  # bytes, when the handler opens the channel itself
_LEAST = 4096  # a channel that is smaller has no room for a record's place and some text
_BATCH = 256  # records received at a time: what a target's lock is held for
_SITES = 4096  # descriptions of logging calls that a handler, or a listener, remembers
_PATIENCE = 5.0  # seconds that close(), flush() and the end of the program wait for the targets
_REPORTS = 1.0  # seconds between two reports of dropped records

# ---- a record as bytes ---------------------------------------------------------------------------------------------
#
#   | time | head | site | thread name | task name | details, text |
#                   JSON   UTF-8, one after the other; their lengths, in characters, are in the head
#
# The site is what all records of one logging call have in common. It is made once, and remembered together with the
# head and the thread's name: the *place* of a record. `log_message`, in C, joins time, place, task name and text.
# Details are what few records have: a traceback, a stack. A message whose site is empty is for the listener: it has to
# look for dropped records, and to set the event that the head has in the place of a thread.

_TIME = struct.Struct("<df")  # created, msecs
_HEAD = struct.Struct("<HHHIQ")  # lengths of site, thread name, task name and details; thread
_pack_time, _pack, _unpack = _TIME.pack, _HEAD.pack, struct.Struct(_TIME.format + _HEAD.format[1:]).unpack_from
_SITE_AT = _TIME.size + _HEAD.size
_LONGEST_SITE = 1024
_LONGEST_NAME = 256  # bytes of the name of a thread, or a task; C code knows it, too
_LONGEST_LENGTHS = 16  # bytes: what details have beside the text of the traceback and the stack
_MOST_BESIDE_TEXT = _SITE_AT + _LONGEST_SITE + 2 * _LONGEST_NAME + _LONGEST_LENGTHS
_SHORTEST_LIMIT = 256
_HAS_TASKS = sys.version_info >= (3, 12)
_LogRecord = logging.LogRecord
_FROM_TARGET = 0x8000  # in the length of the site: a target logged this, in the thread of its listener
_NEVER = _pack_time(0.0, 0.0)
_WAKE = _NEVER + _pack(0, 0, 0, 0, 0)

_born = logging.LogRecord("", 0, "", 0, "", None, None)
_DEFAULT: Final = logging.Formatter()
_STARTED = _born.created - _born.relativeCreated / 1000  # relativeCreated counts from then

_IN_SITE = ("name", "levelno", "levelname", "pathname", "lineno", "funcName", "process", "processName")
_IN_KEY = (
    "pathname",
    "lineno",
    "name",
    "levelno",
    "levelname",
    "thread",
    "threadName",
    "process",
    "processName",
    "funcName",
)
_MAY_LACK = [*(name for name in _IN_SITE if name != "levelno"), "thread", "threadName", "taskName"]
if not _HAS_TASKS:
    _MAY_LACK.remove("taskName")


def _site_of(record: logging.LogRecord, longest: int | None = None) -> bytes:
    """What all records of a logging call have in common, and which attributes they lack."""
    fields = [_plain(name, getattr(record, name, None), longest) for name in _IN_SITE]
    lacks = [name for name in _MAY_LACK if not hasattr(record, name)]
    return json.dumps([*fields, lacks], ensure_ascii=False).encode("utf-8", "surrogatepass")


def _plain(name: str, value: object, longest: int | None) -> object:
    """As JSON has it, with at most so many characters. What tells most of a path is its end."""
    if value is None:
        return logging.NOTSET if name == "levelno" else None
    if isinstance(value, (int, float)) and abs(value) < 1 << 64:
        return value
    text = value if isinstance(value, str) else str(value)
    if longest is None or len(text) <= 2 * longest:
        return text
    return "..." + text[-2 * longest :] if name == "pathname" else text[:longest] + "..."


def _short_site_of(record: logging.LogRecord) -> bytes:
    sites = (_site_of(record, longest) for longest in (None, 64, 16, 4))  # all but the first for what nobody has
    return next(site for site in sites if len(site) <= _LONGEST_SITE)


def _attributes_of(site: bytes) -> tuple[dict[str, Any], list[str]]:
    """What `_site_of` was given, and what follows from it: most of the attributes of a record; and what it lacks."""
    *fields, lacks = json.loads(site)
    attributes = dict(zip(_IN_SITE, fields, strict=True))
    pathname = attributes["pathname"]
    try:
        filename = os.path.basename(pathname)
        module = os.path.splitext(filename)[0]
    except (TypeError, ValueError, AttributeError):  # as a LogRecord has it
        filename, module = pathname, "Unknown module"
    attributes |= {
        "args": None,
        "filename": filename,
        "module": module,
        "exc_info": None,
        "exc_text": None,
        "stack_info": None,
    }
    if _HAS_TASKS:
        attributes["taskName"] = None
    return attributes, lacks


def _name_of(value: object) -> str:
    """The name of a thread or a task, which is cut if it is as long as nobody has it."""
    name = "" if value is None else str(value)
    data = name.encode("utf-8", "surrogatepass")
    return name if len(data) <= _LONGEST_NAME else _cut(data, _LONGEST_NAME).decode("utf-8", "surrogatepass")


def _thread_of(record: logging.LogRecord) -> int:
    thread: object = getattr(record, "thread", None)
    return thread if isinstance(thread, int) and 0 <= thread < 1 << 64 else 0


def _time_of(record: logging.LogRecord) -> bytes:
    with contextlib.suppress(AttributeError, TypeError, ValueError, OverflowError, struct.error):
        return _pack_time(record.created, record.msecs)
    now = time()
    return _pack_time(now, now % 1 * 1000)


def _details_of(record: logging.LogRecord) -> str:
    """The traceback and the stack, as a formatter writes them, behind the length of the first; nothing if none is."""
    info, trace, stack = (getattr(record, name, None) for name in ("exc_info", "exc_text", "stack_info"))
    trace = str(trace) if trace else _DEFAULT.formatException(info) if info else ""
    stack = _DEFAULT.formatStack(stack) if stack else ""
    return f"{len(trace)} {trace}{stack}" if trace or stack else ""


def _parts_of(details: str) -> tuple[str | None, str | None]:
    length, _, both = details.partition(" ")
    return both[: int(length)] or None, both[int(length) :] or None


def _as_text(details: str) -> str:
    """As a formatter writes them, behind the text."""
    return "".join(f"\n{part}" for part in _parts_of(details) if part) if details else ""


def _cut(data: bytes, room: int) -> bytes:
    """The beginning of a text in UTF-8, which ends before a character and says how long it was."""
    mark = f" [cut, {len(data):,} bytes]".encode()
    end = max(0, room - len(mark))
    while end and data[end] & 0xC0 == 0x80:  # in the middle of a character
        end -= 1
    return data[:end] + mark


# ---- who is alive in this process ----------------------------------------------------------------------------------

# Two tuples, and another one whenever a handler begins to use a channel, or a listener is made.
_registry_lock = threading.RLock()  # of who makes another; neither logging nor a listener's thread ever takes it
_handlers: "tuple[weakref.ref[ChannelHandler], ...]" = ()
_listeners: "tuple[weakref.ref[ChannelListener], ...]" = ()

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

_Object = TypeVar("_Object")
_gave_up = False  # at exit, on a target that did not return: nothing waits any more


def _until(timeout: float | None) -> float | None:
    """The monotonic time at which a wait that begins now is over."""
    if _gave_up:
        return monotonic()
    return None if timeout is None or timeout > threading.TIMEOUT_MAX else monotonic() + timeout


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - monotonic())


def _living(references: "Iterable[weakref.ref[_Object]]") -> "list[_Object]":
    return [thing for reference in references if (thing := reference()) is not None]


def _with(references: "Iterable[weakref.ref[_Object]]", thing: "_Object") -> "tuple[weakref.ref[_Object], ...]":
    """The living ones, and this one last."""
    return tuple(weakref.ref(one) for one in (*(one for one in _living(references) if one is not thing), thing))


def _note_collection(phase: str, _info: dict[str, int]) -> None:
    (_collecting.add if phase == "start" else _collecting.discard)(get_ident())


def _runs_event_loop() -> bool:
    if _get_running_loop() is not None:
        return True
    in_trio_run: Any = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    return in_trio_run is not None and bool(in_trio_run())


def _owns(lock: Any) -> bool:
    """Whether this thread has a lock; False for one that cannot tell."""
    return lock is not None and hasattr(lock, "_is_owned") and bool(lock._is_owned())


def _has_what_a_target_needs() -> bool:
    """Whether this thread has the lock of a target, or that of `logging`, which a target takes that logs."""
    if _owns(vars(logging)["_lock"]):
        return True
    targets = (target for listener in _living(_listeners) for target in listener._targets or ())
    return any(_owns(getattr(target, "lock", None)) for target in targets)


def _flush_by(sender: mpsc_bytes.Sender, end: float | None) -> bool:
    """What `ChannelHandler.flush()` does, for the channel of this sender."""
    thread = get_ident()
    if thread in _occupied or thread in _serving or thread in _forking:
        return False
    listener = next((one for one in _living(_listeners) if one._serves(sender)), None)
    if listener is None:
        return False
    barrier = _Barrier(sender)
    number = id(barrier)
    _barriers[number] = barrier
    try:
        sender.send_blocking(_NEVER + _pack(0, 0, 0, 0, number), _left(end))
        barrier.ended.wait(_left(end))
    except (Full, Closed, BusyError):
        pass
    finally:
        _barriers.pop(number, None)
    return barrier.is_passed and listener._flush_handlers(end)


def _at_exit() -> None:
    """Wait until everything is written. The handlers stay open for what logs later: logging.shutdown() closes them."""
    global _gave_up
    end = monotonic() + _PATIENCE
    for listener in _living(_listeners):
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
    paused = [one for one in _living(_listeners) if one._writing.acquire(timeout=max(0.0, end - monotonic()))]
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
    for listener in _living(_listeners):
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


# What a channel answers that is closed. Or in use by somebody else, who has a claim of the handler's sender. Or, after
# reopen(), too small for a message that was made before.
_REFUSALS = (Closed, BusyError, ClaimTooLarge)


_LACKING = object()  # stands for what a record lacks, in the key of its place


def _refuse(_message: bytes) -> None:
    raise Full("no listener in this process")


class _Tally:
    """How many records a handler has dropped. It outlives the handler, until a listener has reported them.

    Counts exactly and without a lock.
    """

    def __init__(self) -> None:
        self._by_thread: dict[int, int] = {}
        self._reported = 0
        self._reporting = threading.Lock()  # of listeners
        self.is_told = False  # a listener was told that records were dropped, or will find out

    def count(self) -> None:
        """Each thread has a counter of its own. Between reading and writing it there is no call and no loop's end:
        there CPython would run signal handlers and collections, which may drop a record, too."""
        thread = get_ident()
        counts = self._by_thread
        if thread not in counts:
            counts.setdefault(thread, 0)
        counts[thread] += 1

    @property
    def all(self) -> int:
        return sum(self._by_thread.copy().values())

    def take(self) -> int:
        """How many were counted since this was last called."""
        if not self.is_told:
            return 0
        with self._reporting:
            self.is_told = False  # whoever drops one from now on tells it anew
            counted = self.all
            new, self._reported = counted - self._reported, counted
            return new


class ChannelHandler(Uncopied, logging.Handler):
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
    that runs an event loop or has the lock of a target or of `logging`, in a target, in a finaliser that a collection
    runs, in a signal handler that interrupted such a wait, and in a forked process without a listener.

    Without a formatter, the targets format; they get all attributes of the record but `args`, those of `extra`, and
    `exc_info`, whose traceback comes as `exc_text`.
    With a formatter, its result is the message that the targets get.

    A text that with traceback and stack takes more than `max_text_size` bytes in UTF-8, a quarter of the channel if
    that is None, is cut, and says how long it was. The names of threads and tasks may take 256 bytes each, the other
    names and the path about 1,000 together; longer ones are cut and marked.

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
        self._timeout = None if timeout is None else float(timeout)
        own = type(self)
        self._own_format = own.format is not logging.Handler.format
        self._is_customised = own.filter is not logging.Handler.filter or own.emit is not ChannelHandler.emit
        self._places: dict[object, bytes] = {}
        self._tally = _Tally()
        self._listener: ChannelListener | None = None
        self._use(sender, receiver)

    def _limit_for(self, sender: object) -> int:
        """The size of the longest text, once all that it depends on is found to be right."""
        if not isinstance(sender, mpsc_bytes.Sender):
            raise TypeError(f"sender is the sender of an mpsc_bytes channel, not {sender!r}")
        if sender.capacity < _LEAST:
            raise ValueError(f"the channel has {sender.capacity} bytes, and {_LEAST} are the least for logging")
        most = sender.max_message_size - _MOST_BESIDE_TEXT
        limit = sender.capacity // 4 if self._limit_given is None else operator.index(self._limit_given)
        if not _SHORTEST_LIMIT <= limit <= most:
            raise ValueError(f"max_text_size is {_SHORTEST_LIMIT} to {most} bytes here, not {limit}")
        return limit

    def _use(self, sender: mpsc_bytes.Sender, receiver: mpsc_bytes.Receiver | None) -> None:
        """Send into this channel from now on."""
        global _handlers
        listener = None
        if receiver is not None and self._targets is not None:
            listener = ChannelListener._over(receiver, self._targets, self._respect, self._listener).start()
        self._listener = listener
        self._sender = sender
        names = any(isinstance(target, _Named) for target in self._targets or ())
        self._send: Callable[[bytes], None] = self._send_first if names else sender.try_send
        self._may_wait = self._policy == "block"
        with _registry_lock:
            _handlers = _with(_handlers, self)
            if self._may_wait and _note_collection not in gc.callbacks:
                gc.callbacks.append(_note_collection)

    def _forget(self) -> None:
        """In a forked process: have nothing to do with the channel, whose other side is the parent's."""
        self._listener = None
        self._tally = _Tally()
        self._send = _refuse
        self._may_wait = False

    # ---- what one may ask ------------------------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """How many records were dropped, exactly. Starts at 0 in a forked process."""
        return self._tally.all

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
                try:
                    if record.exc_info or record.exc_text or record.stack_info:
                        details = _details_of(record)
                except AttributeError:  # the record lacks one of them
                    details = _details_of(record)
            try:
                made: Any = log_message(
                    self._places,
                    self._limit,
                    record.created,
                    record.msecs,
                    text,
                    since_3_12.taskName if _HAS_TASKS else None,
                    # The rest is the key of the place, in the order of _IN_KEY.
                    record.pathname,
                    record.lineno,
                    record.name,
                    record.levelno,
                    record.levelname,
                    record.thread,
                    record.threadName,
                    record.process,
                    record.processName,
                    record.funcName,
                )
            except AttributeError:
                made = None
            message: bytes = made if type(made) is bytes and not details else self._message(record, details, text, made)
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)
            return True
        if _occupied and get_ident() in _occupied:
            message = self._from_within(message, record)
            if not message:
                return True
        try:
            self._send(message)
        except Full:
            self._no_room(message)
        except _REFUSALS:
            self._send_anew(message)
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

    def _message(
        self, record: logging.LogRecord, details: str, text: str, made: bytes | tuple[object, ...] | None
    ) -> bytes:
        """A message that `log_message` does not make: the first of a place, and what is no usual one."""
        key = made if isinstance(made, tuple) else tuple(getattr(record, name, _LACKING) for name in _IN_KEY)
        place = self._place(record, key)
        task = _name_of(getattr(record, "taskName", None)) if _HAS_TASKS else ""
        data = (text + _as_text(details)).encode("utf-8", "surrogatepass")
        if len(data) > self._limit:
            data, details = _cut(data, self._limit), ""
        elif details:
            data = (details + text).encode("utf-8", "surrogatepass")
        site, name, _, _, thread = _HEAD.unpack_from(place)
        head = _pack(site, name, len(task), len(details), thread)
        return b"".join((_time_of(record), head, place[_HEAD.size :], task.encode("utf-8", "surrogatepass"), data))

    def _place(self, record: logging.LogRecord, key: object) -> bytes:
        """What all records have in common that this thread logs by this call, made and remembered."""
        with contextlib.suppress(TypeError):  # a record of no usual make cannot be a key
            if (known := self._places.get(key)) is not None:
                return known
        site, name = _short_site_of(record), _name_of(getattr(record, "threadName", None))
        head = _pack(len(site), len(name), 0, 0, _thread_of(record))
        place = head + site + name.encode("utf-8", "surrogatepass")
        if len(self._places) >= _SITES:
            self._places.clear()
        with contextlib.suppress(TypeError):
            self._places[key] = place
        return place

    def _send_first(self, message: bytes) -> None:
        """Send the first record of a configuration, whose other handlers were all made by now.

        Handlers are closed in the reverse order of their making. This one has to be closed before its targets.
        """
        lock: Any = vars(logging)["_lock"]
        if lock.acquire(blocking=False):  # else another time: whoever has it may wait for this thread
            try:
                order: list[Any] = vars(logging)["_handlerList"]
                for reference in order.copy():
                    if reference() is self:
                        order.remove(reference)  # not by its place: a collection may remove others meanwhile
                        order.append(reference)
                        break
                self._send = self._sender.try_send
            finally:
                lock.release()
        self._sender.try_send(message)

    # ---- where there is no room ------------------------------------------------------------------------------------

    def _send_anew(self, message: bytes) -> None:
        """Send what a channel refuses, by the channel that `reopen()` has opened; else drop the record."""
        refused: Any = None
        while (send := self._send) is not refused:
            try:
                send(message)
            except Full:
                self._no_room(message)
            except _REFUSALS:
                refused = send
                continue
            return
        self._drop()

    def _no_room(self, message: bytes) -> None:
        """Wait for room, if that is the policy and waiting can do no harm; else drop the record."""
        if not self._should_wait():
            self._drop()
            return
        thread, end = get_ident(), _until(self._timeout)
        _occupied[thread] = self
        sent: list[None] = []
        refused = None
        try:
            while not sent and (sender := self._sender) is not refused:
                try:
                    # Noted by C code: a signal handler that raises comes before or after both, not in between.
                    sent.extend(map(sender.send_blocking, (message,), (_left(end),)))
                except Full:
                    break
                except _REFUSALS:
                    refused = sender  # reopen() may have another by now
        finally:
            _occupied.pop(thread, None)
            if not sent:  # or a signal handler has raised
                self._drop()

    def _should_wait(self) -> bool:
        thread = get_ident()
        return not (
            _gave_up
            or not self._may_wait
            or thread in _occupied
            or thread in _collecting
            or thread in _serving
            or thread in _forking
            or _runs_event_loop()
            or _has_what_a_target_needs()
        )

    def _from_within(self, message: bytes, record: logging.LogRecord) -> bytes:
        """The message, or none, of what is logged in a target or by a signal handler that interrupted a wait.

        What a target logs is marked. What is logged while a marked record is written is dropped: a target that logs
        something of each record would never come to an end. A handler that is itself the target passes the record on.
        """
        listener = _occupied.get(get_ident())
        if isinstance(listener, ChannelListener):
            passes_on, marked = record is listener._giving, listener._writes_marked
            if marked and not passes_on:
                self._drop()
                return b""
            if marked or not passes_on:
                return _marked(message)
        return message

    def _drop(self) -> None:
        """Count a dropped record, and have the listener report it."""
        tally = self._tally
        tally.count()
        if not tally.is_told:
            tally.is_told = True
            self._wake_listener()

    def _wake_listener(self) -> None:
        refused: Any = None
        while (send := self._send) is not refused:
            try:
                send(_WAKE)
            except Full:  # who has so much to receive will look after it
                return
            except _REFUSALS:
                refused = send
                continue
            return

    # ---- waiting for the targets -----------------------------------------------------------------------------------

    def flush(self, timeout: float | None = _PATIENCE) -> bool:  # type: ignore[override]
        """Wait until the targets have written what any thread logged before this call. Returns whether they have.

        It is False after `timeout` seconds, where None is no limit, and at once where it can never be True: in a
        target, without a running listener in this process, and after `close()`. What was dropped before this call is
        reported before it returns. Safe from any thread. It blocks the thread: in a task,
        `await asyncio.to_thread(handler.flush)`.
        """
        return _flush_by(self._sender, _until(timeout))

    def reopen(self, sender: mpsc_bytes.Sender | None = None) -> None:
        """Use a new channel: in a forked process, where the old one has no listener, or after `close()`.

        A handler that was made with targets opens the channel, and starts a listener for the same targets; any other
        needs a new `sender`. `os.register_at_fork(after_in_child=handler.reopen)` does it in every fork.

        Where the old channel is in use, other threads may log meanwhile: each of their records goes into one of the
        two channels, and none is dropped for it. The old channel is then closed as by `close()`; the new listener
        writes when the old one has ended.

        Raises TypeError and ValueError as for a new handler. Not to be called by two threads at once.
        """
        receiver = None
        if sender is None:
            if self._targets is None:
                raise TypeError("this handler was made with a sender and needs a new one to reopen")
            sender, receiver = mpsc_bytes.channel(self._sender.capacity)
        elif sender is self._sender:
            raise ValueError("reopen() takes a new sender; this is the one that the handler has")
        limit = self._limit_for(sender)
        old, listener = self._sender, self._listener
        self._limit = limit
        self._use(sender, receiver)
        self._end(old, listener)

    def close(self) -> None:
        """Wait until the targets have written what was logged, for 5 seconds at most, and close the channel.

        Stops the listener of `targets`, and does not close the targets. What is logged later is dropped and counted.
        Calling it again does nothing. Safe from any thread. It blocks the thread, as `flush()` does.
        """
        self._end(self._sender, self._listener)
        self._may_wait = False
        super().close()

    def _end(self, sender: mpsc_bytes.Sender, listener: "ChannelListener | None") -> None:
        """Have everything written that was sent by this sender, and close it."""
        if listener is None and not sender.is_closed:
            _flush_by(sender, _until(_PATIENCE))
        sender.close()
        if listener is not None:
            listener.stop()
        for one in _living(_listeners):
            if one._serves(sender):
                one._look_around()  # it keeps what this handler has dropped, which may be gone soon

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _marked(message: bytes) -> bytes:
    """The same message, which says that a target has logged it."""
    at = _TIME.size
    length = int.from_bytes(message[at : at + 2], "little") | _FROM_TARGET
    return message[:at] + length.to_bytes(2, "little") + message[at + 2 :]


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


class ChannelListener(Uncopied):
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
    def _over(
        cls, receiver: mpsc_bytes.Receiver, targets: Iterable[_Target], respect: bool, after: "ChannelListener | None"
    ) -> Self:
        """A listener that writes when `after` has ended, which has the same targets."""
        self = cls.__new__(cls)
        self._begin(receiver, targets, respect)
        self._after = after
        return self

    def _begin(self, receiver: object, targets: Iterable[_Target], respect: bool) -> None:
        global _listeners
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
        self._after: ChannelListener | None = None
        self._sites: dict[bytes, tuple[dict[str, Any], list[str]]] = {}
        self._writes_marked = False
        self._at: logging.Handler | None = None  # the target that has a record just now
        self._giving: logging.LogRecord | None = None  # that record
        # Those of `_handlers` that use the channel, and of those that did, or are gone, what they have to report.
        self._seen: tuple[Any, list[tuple[weakref.ref[ChannelHandler], _Tally]]] = (None, [])
        self._next_report = 0.0
        self._dropped = 0
        with _registry_lock:
            _listeners = _with(_listeners, self)

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
            if self._thread is None and not self._receiver.is_closed and len(self._receiver):
                self.start()  # to write what was sent
            self._stops = True
            # A thread that receives gets what is there, then looks; one that waits with nothing there has to be woken.
            if self._thread is None or (self._receives and not len(self._receiver)):
                self._wake()
        return self._ends(end)

    def _wake(self) -> None:
        """Have the thread look around: by a message or, if nobody here can send one, by the end of the channel."""
        for sender in self._senders() if self._thread is not None else ():
            try:
                sender.try_send(_WAKE)
            except Full:
                return  # then it has something to receive
            except _REFUSALS:
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
        return any(_flush_by(sender, end) for sender in self._senders())

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

    def _serves(self, sender: mpsc_bytes.Sender) -> bool:
        return self.is_running and self._receiver.same_channel(sender)

    def _senders(self) -> list[mpsc_bytes.Sender]:
        """Those of the handlers of this process that use the channel."""
        senders = (handler._sender for handler in _living(reference for reference, _ in self._look_around()))
        return [sender for sender in senders if self._receiver.same_channel(sender)]

    def _look_around(self) -> "list[tuple[weakref.ref[ChannelHandler], _Tally]]":
        """Whose drops it reports."""
        of, known = self._seen
        if of is _handlers:
            return known
        with self._lock:
            handlers = _handlers
            known = [one for one in self._seen[1] if one[1].is_told]
            tallies = [tally for _, tally in known]
            mine = (one for one in _living(handlers) if self._receiver.same_channel(one._sender))
            known += [(weakref.ref(one), one._tally) for one in mine if one._tally not in tallies]
            self._seen = (handlers, known)
            return known

    # ---- its thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        thread = get_ident()
        _serving.add(thread)
        try:
            if self._after is not None and self._after._thread is not None:
                self._after._thread.join()
                self._after = None
            with contextlib.suppress(Closed):  # every sender is closed, or stop() has closed the receiver
                while self._may_receive():
                    try:
                        batch = self._receiver.recv_many_blocking(_BATCH, self._wait_for_report())
                    except RecvTimeout:
                        batch = []
                    self._receives = False  # whoever stops it now need not wake it
                    self._write(batch)
                for sender in self._senders():
                    sender.close()  # what is logged from now on is dropped, and counted
                while batch := self._receiver.try_recv_many(_BATCH):
                    self._write(batch)
            self._next_report = 0.0
            self._write([])
        finally:
            self._receiver.close()
            for barrier in _barriers.copy().values():
                if self._receiver.same_channel(barrier.sender):
                    barrier.ended.set()
            _serving.discard(thread)

    def _may_receive(self) -> bool:
        with self._lock:
            self._receives = not self._stops
            return self._receives

    def _write(self, batch: list[bytes]) -> None:
        """Give a batch to the targets, and the report of dropped records if it is due."""
        with self._writing, self._occupying():
            if batch:
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
            if monotonic() >= self._next_report:
                self._report()

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
        with getattr(target, "lock", None) or contextlib.nullcontext():
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
            self._report()
            for target in self._targets or ():
                self._flush(target)
            barrier.is_passed = True
            barrier.ended.set()

    def _record(
        self, message: bytes, created: float, msecs: float, length: int, name: int, task: int, details: int, thread: int
    ) -> logging.LogRecord:
        site = message[_SITE_AT : _SITE_AT + length]
        known = self._sites.get(site)
        if known is None:
            if len(self._sites) >= _SITES:
                self._sites.clear()
            known = self._sites[site] = _attributes_of(site)
        attributes, lacks = known
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
            fields["exc_text"], fields["stack_info"] = _parts_of(text[start : start + details])
        fields["msg"] = text[start + details :]
        for attribute in lacks:
            fields.pop(attribute, None)
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
        if any(tally.is_told for _, tally in self._look_around()):
            return max(0.0, self._next_report - monotonic())
        return None

    def _report(self) -> None:
        dropped = sum(tally.take() for _, tally in self._look_around())
        if dropped:
            self._dropped += dropped
            self._next_report = monotonic() + _REPORTS
            text = f"{dropped} log records were dropped, {self._dropped} in all"
            record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
            record.dropped = dropped
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
