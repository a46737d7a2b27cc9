"""`nexus_channels.logging`: what arrives, what is dropped and counted, and what a logging call never waits for."""

import asyncio
import contextlib
import copy
import fractions
import gc
import io
import itertools
import json
import logging
import logging.config
import logging.handlers
import os
import pathlib
import pickle
import signal
import struct
import sys
import threading

import pytest
from harness import EXPERIMENT, FREE_THREADED, run_child, size
from support import DEADLINE, Spawned, until

import nexus_channels.logging
from nexus_channels import mpsc_bytes
from nexus_channels._core import log_message
from nexus_channels.logging import ChannelHandler, ChannelListener

numbers = itertools.count()
main_thread_only = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")


class Kept(logging.Handler):
    """A target that keeps its records, and can be held up."""

    def __init__(self, level=logging.NOTSET):
        super().__init__(level)
        self.records = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def emit(self, record):
        self.entered.set()
        self.open.wait()
        self.records.append(record)

    @property
    def texts(self):
        """Of what was logged; reports of dropped records are left out."""
        return [record.getMessage() for record in self.records if not hasattr(record, "dropped")]

    @property
    def reported(self):
        return sum(record.dropped for record in self.records if hasattr(record, "dropped"))


@contextlib.contextmanager
def logging_to(*targets, **options):
    """A logger whose records go to these targets through a channel, and the handler that sends them."""
    log = logging.getLogger(f"tests.{next(numbers)}")
    log.propagate = False
    log.setLevel(logging.DEBUG)
    handler = ChannelHandler(targets=targets, **options)
    log.addHandler(handler)
    try:
        yield log, handler
    finally:
        log.removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def held(target):
    """The target stands still, in its first record, while the block runs."""
    target.open.clear()
    try:
        yield
    finally:
        target.open.set()


def send(handler, text, *args):
    """Past the loggers: some versions of Python ignore what is logged inside a logging call of the same thread."""
    return handler.handle(logging.LogRecord("name", logging.INFO, "path", 1, text, args, None))


def fill(log, handler):
    """Log until a record is dropped; how many were logged."""
    before = handler.dropped
    for number in itertools.count(1):
        log.info("filling")
        if handler.dropped > before:
            return number


# ---- what arrives --------------------------------------------------------------------------------------------------


def test_a_target_gets_the_text_and_every_attribute_but_the_arguments():
    target, other = Kept(), Kept()
    with logging_to(target) as (log, handler):
        log.addHandler(other)
        log.info("%s of %d", "one", 2)
        assert handler.flush(DEADLINE)
    (got,), (sent,) = target.records, other.records
    assert (got.msg, got.args, got.getMessage()) == ("one of 2", None, "one of 2")
    approximate = {"relativeCreated"}
    same = vars(sent).keys() - {"msg", "args", "message"} - approximate
    assert {name: vars(got)[name] for name in same} == {name: vars(sent)[name] for name in same}
    assert got.relativeCreated == pytest.approx(sent.relativeCreated, abs=0.01)


def test_targets_format_as_if_the_record_were_their_own():
    form = "%(asctime)s %(levelname)s %(name)s %(threadName)s %(thread)d %(process)d %(module)s:%(lineno)d %(funcName)s"
    through, direct = io.StringIO(), io.StringIO()
    targets = []
    for stream in (through, direct):
        targets.append(logging.StreamHandler(stream))
        targets[-1].setFormatter(logging.Formatter(f"{form} %(message)s"))
    with logging_to(targets[0]) as (log, handler):
        log.addHandler(targets[1])
        log.warning("text")
        thread = threading.Thread(target=log.error, args=("from %s", "a thread"), name="naïve")
        thread.start()
        thread.join()
        try:
            raise KeyError("key")
        except KeyError:
            log.exception("failed", stack_info=True)
        assert handler.flush(DEADLINE)
    assert "Traceback" in through.getvalue() and "Stack (most recent call last)" in through.getvalue()
    assert through.getvalue() == direct.getvalue()


def test_a_formatter_of_the_handler_makes_the_text():
    target = Kept()
    with logging_to(target) as (log, handler):
        handler.setFormatter(logging.Formatter("%(levelname)s %(extra)s %(message)s"))
        log.info("%d", 1, extra={"extra": "added"})
        with contextlib.suppress(ZeroDivisionError):
            try:
                1 / 0  # noqa: B018
            finally:
                log.info("failed", exc_info=True, extra={"extra": "too"})
        assert handler.flush(DEADLINE)
    first, second = target.texts
    assert first == "INFO added 1"
    assert second.startswith("INFO too failed\nTraceback (most recent call last)")
    assert second.endswith("ZeroDivisionError: division by zero")


def test_a_subclass_may_format_and_filter():
    class Own(ChannelHandler):
        def format(self, record):
            return record.getMessage().upper()

        def filter(self, record):
            return record.getMessage() != "secret"

    target = Kept()
    with Own(targets=[target]) as handler:
        for text in ("first", "secret", "second"):
            send(handler, text)
        assert handler.flush(DEADLINE)
    assert target.texts == ["FIRST", "SECOND"]


def test_a_subclass_may_emit_in_its_own_way():
    class Own(ChannelHandler):
        def emit(self, record):
            record.msg = f"changed: {record.msg}"
            super().emit(record)

    target = Kept()
    with Own(targets=[target]) as handler:
        handler.addFilter(lambda record: record.msg != "secret")
        send(handler, "secret")
        send(handler, "first")
        assert handler.flush(DEADLINE)
    assert target.texts == ["changed: first"]


def test_a_record_class_of_its_own_merges_its_arguments():
    class Braces(logging.LogRecord):
        def getMessage(self):  # noqa: N802
            return self.msg.format(*self.args)

    target = Kept()
    with ChannelHandler(targets=[target]) as handler:
        handler.handle(Braces("name", 20, "path", 1, "{} of {}", (1, 2), None))
        send(handler, KeyError("an object"))
        assert handler.flush(DEADLINE)
    assert target.texts == ["1 of 2", "'an object'"]


def test_filters_of_the_handler_choose():
    target = Kept()
    with logging_to(target) as (log, handler):
        handler.addFilter(lambda record: record.args[0] % 2)
        for number in range(4):
            log.info("%d", number)
        assert handler.flush(DEADLINE)
        assert send(handler, "%d", 0) is False
    assert target.texts == ["1", "3"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="filters replace records since Python 3.12")
def test_a_filter_may_replace_the_record():
    target = Kept()
    with logging_to(target) as (log, handler):
        handler.addFilter(lambda record: logging.makeLogRecord({"msg": "another", "levelno": 20}))
        log.info("one")
        assert handler.flush(DEADLINE)
    assert target.texts == ["another"]


def test_any_text_arrives():
    texts = ["", "\n", "\0", "naïve ☃ 🂡", "\ud800 alone", "%s %d %", "x" * 10_000]
    target = Kept()
    with logging_to(target) as (log, handler):
        for text in texts:
            log.info(text)
        assert handler.flush(DEADLINE)
    assert target.texts == texts


def test_records_of_a_task_have_its_name():
    target, other = Kept(), Kept()

    async def main(log):
        asyncio.current_task().set_name("Aufgabe ☃")
        log.info("from a task")

    with logging_to(target) as (log, handler):
        log.addHandler(other)
        asyncio.run(main(log))
        assert handler.flush(DEADLINE)
    (got,), (sent,) = target.records, other.records
    assert getattr(got, "taskName", None) == getattr(sent, "taskName", None)
    assert got.getMessage() == "from a task"


def test_records_of_one_thread_arrive_in_their_order():
    target = Kept()
    with logging_to(target, policy="block", capacity=4096) as (log, handler):
        threads = [Spawned(lambda n: [log.info("%d %d", n, i) for i in range(500)], n) for n in range(4)]
        for thread in threads:
            thread.join()
        assert handler.flush(DEADLINE)
    for n in range(4):
        assert [text for text in target.texts if text.startswith(f"{n} ")] == [f"{n} {i}" for i in range(500)]


def test_json_lines_carry_what_extra_has():
    jsonlogger = pytest.importorskip("pythonjsonlogger.json", reason="python-json-logger is not installed")
    stream = io.StringIO()
    with logging_to(logging.StreamHandler(stream)) as (log, handler):
        handler.setFormatter(jsonlogger.JsonFormatter("%(levelname)s %(message)s"))
        log.info("paid", extra={"order": 17, "sum": [1, 2]})
        assert handler.flush(DEADLINE)
    assert json.loads(stream.getvalue()) == {"levelname": "INFO", "message": "paid", "order": 17, "sum": [1, 2]}


def test_structlog_renders_before_the_record_is_sent():
    structlog = pytest.importorskip("structlog", reason="structlog is not installed")
    stream = io.StringIO()
    with logging_to(logging.StreamHandler(stream)) as (log, handler):
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                processors=[
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.JSONRenderer(),
                ]
            )
        )
        bound = structlog.wrap_logger(
            log,
            wrapper_class=structlog.stdlib.BoundLogger,
            processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        )
        bound.info("paid", order=17)
        assert handler.flush(DEADLINE)
    assert json.loads(stream.getvalue()) == {"event": "paid", "order": 17}


# ---- levels, files, batches ----------------------------------------------------------------------------------------


def test_a_target_gets_what_is_of_its_level():
    every, errors = Kept(), Kept(logging.ERROR)
    with logging_to(every, errors) as (log, handler):
        handler.setLevel(logging.INFO)
        for level in (logging.DEBUG, logging.INFO, logging.ERROR):
            log.log(level, "level %d", level)
        assert handler.flush(DEADLINE)
    assert every.texts == ["level 20", "level 40"]
    assert errors.texts == ["level 40"]


def test_a_target_gets_everything_if_its_level_is_not_respected():
    errors = Kept(logging.ERROR)
    with logging_to(errors, respect_handler_level=False) as (log, handler):
        log.debug("small")
        assert handler.flush(DEADLINE)
    assert errors.texts == ["small"]


class Stream(io.StringIO):
    def __init__(self):
        super().__init__()
        self.flushes = 0

    def flush(self):
        self.flushes += 1


def test_a_batch_is_flushed_once():
    stream, gate = Stream(), Kept()
    with logging_to(gate, logging.StreamHandler(stream)) as (log, handler):
        with held(gate):
            log.info("first")
            until(gate.entered.is_set)
            for number in range(100):
                log.info("%d", number)
        assert handler.flush(DEADLINE)
    assert len(stream.getvalue().splitlines()) == 101
    assert stream.flushes <= 6  # two batches, the barrier, and the end


def test_a_stream_that_is_written_to_is_flushed_by_others_as_ever():
    """`flush` of a target is held back for its listener alone."""
    stream, entered, gate = Stream(), threading.Event(), threading.Event()
    target = logging.StreamHandler(stream)
    target.addFilter(lambda _record: entered.set() or gate.wait())
    with logging_to(target) as (log, handler):
        log.info("first")
        until(entered.is_set)
        assert stream.flushes == 0
        target.createLock()  # the listener has the other for as long as its batch takes
        target.flush()
        assert stream.flushes == 1
        gate.set()
        assert handler.flush(DEADLINE)
    assert "flush" not in vars(target)


def test_a_rotating_file_rotates_in_the_middle_of_a_batch(tmp_path):
    target = logging.handlers.RotatingFileHandler(tmp_path / "log", maxBytes=1000, backupCount=100)
    with logging_to(target, policy="block") as (log, handler):
        for number in range(300):
            log.info("%050d", number)
        assert handler.flush(DEADLINE)
    target.close()
    files = sorted(tmp_path.iterdir(), key=lambda path: int(path.suffix[1:] or 0), reverse=True)
    assert len(files) > 10 and all(path.stat().st_size <= 1000 for path in files)
    lines = [int(line) for path in files for line in path.read_text().splitlines()]
    assert lines == list(range(300))


# ---- dropped records -----------------------------------------------------------------------------------------------


def test_without_room_records_are_dropped_counted_and_reported():
    target = Kept()
    with logging_to(target, capacity=4096) as (log, handler):
        with held(target):
            logged = fill(log, handler)
            for _ in range(9):
                log.info("more")
            assert handler.dropped == 10
        until(lambda: target.reported == 10, "the report")
        assert handler.flush(DEADLINE)
    assert len(target.texts) == logged - 1
    (report,) = [record for record in target.records if hasattr(record, "dropped")]
    assert (report.name, report.levelno) == ("nexus_channels.logging", logging.WARNING)
    assert report.getMessage() == "10 log records were dropped, 10 in all"


def test_a_drop_is_reported_although_nothing_is_logged_any_more():
    """The listener has received everything and waits when the drop is counted."""
    target = Kept()
    with logging_to(target, capacity=4096) as (log, handler):
        log.info("first")
        assert handler.flush(DEADLINE)
        handler._drop()  # as a thread does that found no room some time ago
        until(lambda: target.reported == 1)


def test_later_drops_are_reported_in_a_second_report():
    target = Kept()
    with logging_to(target, capacity=4096) as (log, handler):
        for round_number in range(2):
            target.entered.clear()
            with held(target):
                log.info("first")
                until(target.entered.is_set)
                fill(log, handler)
            until(lambda count=round_number + 1: target.reported == count)
            assert handler.flush(DEADLINE)  # the report may come before the channel is empty
        assert handler.dropped == 2


def test_flush_has_what_was_dropped_before_reported():
    target = Kept()
    with logging_to(target) as (_log, handler):
        for count in range(1, 4):  # each within the second after a report
            handler._drop()
            assert handler.flush(DEADLINE)
            assert target.reported == count


def test_drops_of_a_handler_that_is_closed_and_gone_are_reported(monkeypatch):
    monkeypatch.setattr(nexus_channels.logging, "_PATIENCE", 0.01)
    target = Kept()
    tx, rx = mpsc_bytes.channel(4096)
    with ChannelHandler(tx) as stays, ChannelListener(rx, target):
        with held(target):
            send(stays, "first")
            until(target.entered.is_set)
            handler = ChannelHandler(tx.clone())  # which the listener does not come to see
            while not handler.dropped:
                send(handler, "filling")
            handler.close()
            del handler
            gc.collect()
            other = ChannelHandler(tx.clone())
        until(lambda: target.reported == 1)
        other.close()


def test_drops_of_a_handler_that_nobody_closed_are_reported():
    target = Kept()
    tx, rx = mpsc_bytes.channel(4096)
    with ChannelHandler(tx) as stays, ChannelListener(rx, target):
        stays._drop()
        until(lambda: target.reported == 1)  # the next report is due in a second
        handler = ChannelHandler(tx.clone())
        send(handler, "text")
        assert stays.flush(DEADLINE)
        handler._drop()
        del handler
        gc.collect()
        other = ChannelHandler(tx.clone())
        until(lambda: target.reported == 2)
        other.close()


def test_at_exit_what_was_dropped_is_reported_although_a_sender_stays_open(tmp_path):
    script = """
tx, rx = mpsc_bytes.channel(1 << 14)
ChannelListener(rx, logging.FileHandler(path)).start()
handler = ChannelHandler(tx.clone())
log.addHandler(handler)
for _ in range(2):
    handler._drop()
    handler.listener or handler.flush()
handler._drop()
"""
    run_child(START + script, tmp_path / "log", quiet=True)
    assert (tmp_path / "log").read_text().splitlines()[-1] == "1 log records were dropped, 3 in all"


def test_drops_of_many_threads_are_counted_exactly():
    target = Kept()
    each, threads = size(2000, 100_000), 8
    with logging_to(target, capacity=4096) as (log, handler):
        running = [Spawned(lambda: [log.info("%d", number) for number in range(each)]) for _ in range(threads)]
        for thread in running:
            thread.join()
        assert handler.flush(DEADLINE)
        dropped = handler.dropped
        assert len(target.texts) + dropped == each * threads
    assert target.reported == dropped


def test_nothing_is_lost_under_block():
    """Eight threads and a loop. The loop's records alone may be dropped, and are counted."""
    target = Kept()
    each, threads = size(1000, 120_000), 8

    async def main(log):
        for number in range(each):
            log.info("loop %d", number)
            if number % 50 == 0:
                await asyncio.sleep(0)

    with logging_to(target, policy="block", capacity=1 << 14) as (log, handler):
        running = [
            Spawned(lambda n: [log.info("thread %d %d", n, number) for number in range(each)], n)
            for n in range(threads)
        ]
        asyncio.run(main(log))
        for thread in running:
            thread.join()
        assert handler.flush(None)
        dropped = handler.dropped
    texts = target.texts
    assert sum(text.startswith("thread") for text in texts) == each * threads
    assert sum(text.startswith("loop") for text in texts) == each - dropped
    assert target.reported == dropped


def test_block_waits_for_room():
    target = Kept()
    with logging_to(target, policy="block", capacity=4096) as (log, handler):
        with held(target):
            thread = Spawned(lambda: [log.info("number %d", number) for number in range(200)])
            until(lambda: handler.sender.statistics().waiting_senders == 1)
            assert thread.is_alive()
        thread.join()
        assert handler.flush(DEADLINE)
        assert handler.dropped == 0
    assert target.texts == [f"number {number}" for number in range(200)]


def test_block_gives_up_after_its_timeout():
    target = Kept()
    with logging_to(target, policy="block", timeout=0.01, capacity=4096) as (log, handler), held(target):
        fill(log, handler)
        assert handler.dropped == 1


def test_block_never_waits_in_a_thread_that_runs_a_loop():
    target = Kept()

    async def main(log, handler):
        fill(log, handler)

    with logging_to(target, policy="block", capacity=4096) as (log, handler), held(target):
        asyncio.run(main(log, handler))
        assert handler.dropped == 1


@pytest.mark.parametrize("lock", ["of the target", "of logging"])
def test_block_never_waits_in_a_thread_that_has_a_lock_that_a_target_needs(lock):
    target = Kept()
    with logging_to(target, policy="block", capacity=4096) as (_log, handler), held(target):
        send(handler, "first")
        until(target.entered.is_set)
        if lock == "of the target":
            target.createLock()  # the listener has the other
        with target.lock if lock == "of the target" else logging._lock:
            while not handler.dropped:
                send(handler, "filling")
        assert handler.dropped == 1


def test_a_record_that_meets_a_claim_of_the_sender_is_dropped_and_counted():
    for policy in ("drop", "block"):
        with ChannelHandler(targets=[Kept()], policy=policy) as handler:
            claim = handler.sender.try_claim(10)
            send(handler, "text")
            assert handler.dropped == 1
            claim.abort()


@pytest.mark.parametrize("timeout", [float("inf"), 1e30, fractions.Fraction(30)])
def test_block_takes_any_timeout(timeout):
    target = Kept()
    with logging_to(target, policy="block", timeout=timeout, capacity=4096) as (log, handler):
        for number in range(200):
            log.info("%d", number)
        assert handler.flush(DEADLINE)
    assert len(target.texts) == 200


def test_block_never_waits_in_a_thread_that_runs_trio():
    trio = pytest.importorskip("trio", reason="trio is not installed")
    target = Kept()

    async def main(log, handler):
        fill(log, handler)

    with logging_to(target, policy="block", capacity=4096) as (log, handler), held(target):
        trio.run(main, log, handler)
        assert handler.dropped == 1


def test_a_text_that_is_too_long_is_cut_between_characters_and_marked():
    target = Kept()
    with logging_to(target, max_text_size=300) as (log, handler):
        for start in range(4):
            log.info("a" * start + "🂡" * 1000)
        log.info("fits " + "a" * 200)
        assert handler.flush(DEADLINE)
    *cut, fits = target.texts
    for start, text in enumerate(cut):
        beginning, mark, rest = text.partition(" [cut, ")
        assert (mark, rest) == (" [cut, ", f"{start + 4000:,} bytes]")
        assert len(text.encode()) <= 300
        assert beginning == "a" * start + "🂡" * (len(beginning) - start)
        assert len(beginning) > 50
    assert fits == "fits " + "a" * 200


def test_a_traceback_that_is_too_long_is_cut():
    target = Kept()
    with logging_to(target, max_text_size=300) as (log, handler):
        try:
            raise ValueError("x" * 1000)
        except ValueError:
            log.exception("failed")
        assert handler.flush(DEADLINE)
    (text,) = target.texts
    assert text.startswith("failed\nTraceback")
    assert " [cut, " in text


@pytest.mark.parametrize("length", [1, 100, 200, 5000])
def test_a_text_of_exactly_the_limit_arrives_whole_however_long_the_names_are(length):
    target = Kept()
    with ChannelHandler(targets=[target], max_text_size=300) as handler:
        for size_of_text in (300, 301):
            record = logging.LogRecord("n" * length, 20, "path", 1, "x" * size_of_text, None, None)
            record.threadName = "t" * length
            record.taskName = "k" * length
            for _ in range(2):  # the second is made by C code
                handler.handle(record)
        assert handler.flush(DEADLINE)
    cut = "x" * (300 - len(" [cut, 301 bytes]")) + " [cut, 301 bytes]"
    assert target.texts == ["x" * 300] * 2 + [cut] * 2


def test_the_limit_is_that_of_the_text_with_traceback_and_stack():
    target, other = Kept(), Kept()
    with logging_to(target, max_text_size=800) as (log, handler):
        log.addHandler(other)
        for quotes in (150, 400):
            try:
                raise ValueError('"\n' * quotes)  # what JSON takes twice the room for
            except ValueError:
                log.info("failed", exc_info=True)
        assert handler.flush(DEADLINE)
    whole, cut = target.records
    formatted = logging.Formatter().format(other.records[0])
    assert len(formatted) < 800 < len(logging.Formatter().format(other.records[1]))
    assert (whole.msg, whole.exc_text) == ("failed", formatted.removeprefix("failed\n"))
    assert cut.exc_text is None
    assert len(cut.msg) == 800


@pytest.mark.parametrize(("trace", "stack"), [("", "stack"), ("trace 1", ""), ("trace", "stack"), ("1 2", "3 4")])
def test_traceback_and_stack_are_told_apart(trace, stack):
    target = Kept()
    with ChannelHandler(targets=[target]) as handler:
        record = logging.LogRecord("name", 20, "path", 1, "text", None, None)
        record.exc_text, record.stack_info = trace, stack
        handler.handle(record)
        assert handler.flush(DEADLINE)
    (record,) = target.records
    assert (record.msg, record.exc_text, record.stack_info) == ("text", trace or None, stack or None)


NAMES = ["name", "levelname", "pathname", "funcName", "process", "processName", "threadName"]
NAMES += ["taskName"] if sys.version_info >= (3, 12) else []


@pytest.mark.parametrize("attribute", NAMES)
@pytest.mark.parametrize("text", ["x" * 70_000, "\u0436" * 70_000, "\0" * 70_000, "\ud800" * 70_000])
def test_names_of_any_length_are_cut_and_marked(attribute, text):
    target = Kept()
    with ChannelHandler(targets=[target]) as handler:
        record = logging.LogRecord("name", 20, "path", 1, "text", None, None)
        setattr(record, attribute, text)
        handler.handle(record)
        assert handler.flush(DEADLINE)
    assert target.texts == ["text"]
    got = getattr(target.records[0], attribute)
    beginning, mark, _ = got.partition(" [cut, " if attribute in {"threadName", "taskName"} else "...")
    assert mark
    assert text.startswith(beginning)
    assert len(got.encode("utf-8", "surrogatepass")) <= 1024


@pytest.mark.parametrize("value", [-1, 1 << 64, "seven", 7.5, None])
def test_a_thread_that_is_no_number_is_none(value):
    target = Kept()
    with ChannelHandler(targets=[target]) as handler:
        record = logging.LogRecord("name", 20, "path", 1, "text", None, None)
        record.thread = value
        handler.handle(record)
        assert handler.flush(DEADLINE)
    assert (target.texts, target.records[0].thread) == (["text"], None)


def test_a_path_that_is_none_is_as_in_any_record():
    target = Kept()
    record = logging.LogRecord("name", 20, None, 1, "text", None, None)
    with ChannelHandler(targets=[target]) as handler:
        handler.handle(record)
        assert handler.flush(DEADLINE)
    (got,) = target.records
    assert [(r.pathname, r.filename, r.module) for r in (got, record)] == [(None, None, "Unknown module")] * 2


REGULAR = vars(logging.LogRecord("", 20, "", 0, "", None, None)).keys() - {"msg", "args"}
ALWAYS = {"levelno", "created", "msecs", "relativeCreated", "filename", "module", "exc_info", "exc_text", "stack_info"}


@pytest.mark.parametrize("attribute", sorted(REGULAR))
def test_a_record_that_lacks_an_attribute_arrives(attribute):
    target = Kept()

    def lacking(record):
        delattr(record, attribute)
        return True

    with logging_to(target) as (log, handler):
        handler.addFilter(lacking)
        for number in range(3):
            log.info("%d", number)
        log.removeFilter(lacking)
        handler.removeFilter(lacking)
        log.info("whole")
        assert handler.flush(DEADLINE)
    assert target.texts == ["0", "1", "2", "whole"]
    assert [hasattr(record, attribute) for record in target.records] == [attribute in ALWAYS] * 3 + [True]


def test_an_attribute_error_of_what_is_formatted_is_told(capsys):
    class Odd:
        def __str__(self):
            return self.text

    target = Kept()
    with logging_to(target) as (log, handler):
        log.info("%s", Odd())
        log.info("text", exc_info=(Odd, Odd, None))
        assert handler.flush(DEADLINE)
    assert capsys.readouterr().err.count("--- Logging error ---") == 2
    assert target.texts == []


def test_names_as_nobody_has_them_are_cut():
    target = Kept()
    with ChannelHandler(targets=[target]) as handler:
        record = logging.LogRecord("name" * 10_000, 20, "/path" * 10_000, 1, "text", None, None)
        handler.handle(record)
        assert handler.flush(DEADLINE)
    assert target.texts == ["text"]
    (record,) = target.records
    assert record.name == "name" * 16 + "..."
    assert record.pathname == "..." + ("/path" * 10_000)[-128:]


def test_the_descriptions_of_logging_calls_that_are_remembered_are_bounded():
    target = Kept()
    with ChannelHandler(targets=[target], policy="block") as handler:
        for number in range(5000):
            handler.handle(logging.LogRecord("name", 20, "path", number, "text", None, None))
        assert handler.flush(DEADLINE)
        assert len(handler._places) <= 4096
    assert [record.lineno for record in target.records] == list(range(5000))


# ---- the message, as C code joins it -------------------------------------------------------------------------------

KEY = ("path", 1, "name")
HEAD = struct.Struct("<HHHIQ")
PLACE = HEAD.pack(1, 4, 0, 0, 7) + b"xname"


@pytest.mark.parametrize("text", ["", "text", "\xe9t\xe9", "\u20ac 5", "\U0001f600", "x" * 100])
def test_a_message_is_time_place_and_text(text):
    message = log_message({KEY: PLACE}, 100, 1234.5, 678.0, text, None, *KEY)
    assert message == struct.pack("<df", 1234.5, 678.0) + PLACE + text.encode()


@pytest.mark.parametrize("task", ["", "Task-7", "\u20ac" * 85 + "x", "x" * 256])
def test_the_name_of_a_task_is_before_the_text_and_its_length_in_the_head(task):
    message = log_message({KEY: PLACE}, 100, 1234.5, 678.0, "text", task, *KEY)
    head = HEAD.pack(1, 4, len(task), 0, 7)
    assert message == struct.pack("<df", 1234.5, 678.0) + head + b"xname" + task.encode() + b"text"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"places": {}}, "unknown"),
        ({"places": {KEY: PLACE[:17]}}, "no place"),
        ({"places": {KEY: "place" * 9}}, "no bytes"),
        ({"places": {KEY: bytearray(PLACE)}}, "no bytes"),
        ({"room": 3}, "too long"),
        ({"room": -1}, "too long"),
        ({"room": 1 << 100}, "no size"),
        ({"text": "\ud800"}, "no UTF-8"),
        ({"text": 5}, "no text"),
        ({"task": "x" * 257}, "too long"),
        ({"task": "\u20ac" * 86}, "too long"),
        ({"task": "\ud800"}, "no UTF-8"),
        ({"task": 5}, "no text"),
        ({"created": 5}, "no float"),
        ({"msecs": None}, "no float"),
        ({"msecs": 1e300}, "too large for the four bytes that it gets"),
    ],
)
def test_what_is_no_usual_record_is_left_to_python_code(change, why):
    usual = {"places": {KEY: PLACE}, "room": 100, "created": 1234.5, "msecs": 678.0, "text": "text", "task": None}
    assert log_message(*(usual | change).values(), *KEY) == KEY, why


def test_a_key_that_cannot_be_hashed_or_compared_is_left_to_python_code():
    class Odd:
        __hash__ = None

    class Raising(str):
        def __eq__(self, other):
            raise OSError

        __hash__ = str.__hash__

    for odd in (Odd(), Raising("path")):
        (key,) = log_message({("path",): PLACE}, 100, 0.0, 0.0, "text", None, odd)
        assert key is odd


@pytest.mark.parametrize(
    "arguments", [(), ({},), ([], 1, 0.0, 0.0, "", None), ({}, "1", 0.0, 0.0, "", None), ({}, 1, 0.0, 0.0, "")]
)
def test_a_call_for_no_message_is_refused(arguments):
    with pytest.raises(TypeError, match="log_message"):
        log_message(*arguments)


def test_the_usual_message_is_made_by_c_code_alone(monkeypatch):
    target = Kept()
    made = []
    with logging_to(target) as (log, handler):
        monkeypatch.setattr(handler, "_message", lambda *_, by=handler._message: made.append(1) or by(*_))
        for number in range(3):
            log.info("number %d", number)
        assert handler.flush(DEADLINE)
    assert target.texts == ["number 0", "number 1", "number 2"]
    assert len(made) == 1  # the first, whose place was not known


def test_the_messages_of_tasks_are_made_by_c_code_alone(monkeypatch):
    target = Kept()
    made = []

    async def one(log, number):
        log.info("number %d", number)

    async def main(log):
        for number in range(3):
            await asyncio.create_task(one(log, number), name=f"task {number}")

    with logging_to(target) as (log, handler):
        monkeypatch.setattr(handler, "_message", lambda *_, by=handler._message: made.append(1) or by(*_))
        asyncio.run(main(log))
        assert handler.flush(DEADLINE)
    assert target.texts == ["number 0", "number 1", "number 2"]
    if sys.version_info >= (3, 12):
        assert [record.taskName for record in target.records] == ["task 0", "task 1", "task 2"]
    assert len(made) == 1


def test_details_do_not_make_a_place_forgotten_or_wrong():
    target = Kept()
    with logging_to(target) as (log, handler):
        for number in range(3):
            log.info("number %d", number, stack_info=number == 1)
        assert handler.flush(DEADLINE)
        assert {type(key) for key in handler._places} == {tuple}
    assert target.texts == ["number 0", "number 1", "number 2"]
    assert [bool(record.stack_info) for record in target.records] == [False, True, False]


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def test_arguments_that_do_not_fit_are_told_as_the_standard_library_does(capsys):
    target = Kept()
    with logging_to(target) as (log, handler):
        log.info("%d", "no number")
        log.info("next")
        assert handler.flush(DEADLINE)
    said = capsys.readouterr().err
    assert said.startswith("--- Logging error ---")
    assert "%d format: a real number is required" in said or "%d format" in said
    assert "Message: '%d'" in said
    assert target.texts == ["next"]


def test_nobody_is_told_if_logging_does_not_raise(capsys, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    target = Kept()
    with logging_to(target) as (log, handler):
        log.info("%d", "no number")
        assert handler.flush(DEADLINE)
    assert capsys.readouterr().err == ""


class Failing(Kept):
    """A target that raises for each second record, and keeps what it was told."""

    def __init__(self, error=OSError):
        super().__init__()
        self.error = error
        self.told = []

    def emit(self, record):
        if record.getMessage().endswith(("1", "3")):
            raise self.error("target")
        super().emit(record)

    def handleError(self, record):  # noqa: N802
        self.told.append((record.getMessage(), sys.exc_info()[0]))


@pytest.mark.parametrize("error", [OSError, SystemExit, KeyboardInterrupt])
def test_a_target_that_raises_is_told_and_ends_nothing(error):
    failing, other = Failing(error), Kept()
    with logging_to(failing, other) as (log, handler):
        for number in range(5):
            log.info("%d", number)
        assert handler.flush(DEADLINE)
    assert other.texts == list("01234")
    assert failing.texts == list("024")
    assert failing.told == [("1", error), ("3", error)]


def test_a_target_that_raises_even_when_told_is_told_of_as_a_thread(monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))
    failing, other = Failing(), Kept()
    failing.handleError = lambda record: 1 / 0
    with logging_to(failing, other) as (log, handler):
        log.info("1")
        log.info("2")
        assert handler.flush(DEADLINE)
    assert [type(error) for error in seen] == [ZeroDivisionError]
    assert other.texts == ["1", "2"]


def test_a_stream_that_cannot_be_flushed_is_told_and_ends_nothing():
    class Full(io.StringIO):
        def flush(self):
            raise OSError("no space left")

    told = []
    target, other = logging.StreamHandler(Full()), Kept()
    target.handleError = lambda record: told.append(sys.exc_info()[1])
    with logging_to(target, other) as (log, handler):
        log.info("1")
        assert handler.flush(DEADLINE)
        log.info("2")
        assert handler.flush(DEADLINE)
    assert other.texts == ["1", "2"]
    assert told and all(str(error) == "no space left" for error in told)


def test_a_slow_target_holds_up_nobody_who_logs():
    target = Kept()
    with logging_to(target) as (log, handler), held(target):
        log.info("first")
        until(target.entered.is_set)
        for number in range(100):
            log.info("%d", number)  # returns
        assert handler.dropped == 0
        assert handler.flush(0.01) is False
    assert len(target.texts) == 101


def test_messages_of_somebody_else_are_told_and_passed_by(monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_type))
    tx, rx = mpsc_bytes.channel(4096)
    target = Kept()
    with ChannelHandler(tx) as handler, ChannelListener(rx, target):
        for junk in (b"junk", b"\xff" * 100, bytes(range(100)), bytes(30)):
            tx.try_send(junk)
        send(handler, "text")
        assert handler.flush(DEADLINE)
    assert target.texts == ["text"]
    assert len(seen) == 3


class Logging(Kept):
    """A target that logs through the very handler that writes to it."""

    def __init__(self):
        super().__init__()
        self.log = None

    def emit(self, record):
        super().emit(record)
        self.log.info("wrote %s", record.getMessage())


@pytest.mark.parametrize("policy", ["drop", "block"])
def test_a_target_that_logs_through_the_same_handler_comes_to_an_end(policy):
    target = Logging()
    with logging_to(target, policy=policy, capacity=4096) as (log, handler):
        target.log = log
        for number in range(10):
            log.info("%d", number)
        assert handler.flush(DEADLINE)
        assert handler.flush()  # what the target logged before the first
        assert handler.dropped >= 10  # "wrote wrote 0"
    texts = target.texts
    assert [text for text in texts if "wrote" not in text] == [str(number) for number in range(10)]
    assert [text for text in texts if text.startswith("wrote")] == [f"wrote {number}" for number in range(10)]


def test_block_never_waits_in_a_target():
    class Flooding(Kept):
        def emit(self, record):
            super().emit(record)
            if record.getMessage() == "begin":
                fill(log, handler)

    target = Flooding()
    with logging_to(target, policy="block", capacity=4096) as (log, handler):
        log.info("begin")
        assert handler.flush(DEADLINE)
        assert handler.dropped >= 1


# ---- signal handlers and finalisers --------------------------------------------------------------------------------


@contextlib.contextmanager
def signalled(handler):
    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@main_thread_only
@pytest.mark.parametrize("policy", ["drop", "block"])
def test_a_storm_of_signal_handlers_that_log_loses_nothing_uncounted(policy):
    target = Kept()
    stormed = 0
    logged = size(3000, 300_000)
    with logging_to(target, policy=policy, capacity=4096) as (log, handler):

        def on_signal(*_):
            nonlocal stormed
            stormed += 1
            send(handler, "signal %d", stormed)

        with signalled(on_signal):
            signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
            for number in range(logged):
                log.info("main %d", number)
        assert handler.flush(DEADLINE)
        assert stormed > 0
        assert len(target.texts) + handler.dropped == logged + stormed
        assert target.texts != []


@main_thread_only
@pytest.mark.parametrize("policy", ["drop", "block"])
def test_a_signal_handler_that_raises_in_the_middle_of_a_call_leaves_the_handler_working(policy):
    class Interrupt(BaseException):
        pass

    def on_signal(*_):
        raise Interrupt

    target = Kept()
    interrupted = 0
    with logging_to(target, policy=policy, capacity=4096) as (log, handler):
        with signalled(on_signal):
            for number in range(size(200, 20_000)):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.00001 + number % 50 * 0.000003)
                    for _ in range(100):  # past the loggers, which may keep logging's own lock for ever if interrupted
                        send(handler, "main %d", number)
                except Interrupt:
                    interrupted += 1
                with contextlib.suppress(Interrupt):
                    signal.setitimer(signal.ITIMER_REAL, 0)
        assert interrupted > 0
        before = len(target.texts)
        assert handler.flush(DEADLINE)
        until(lambda: handler.sender.used == 0)
        log.info("last")
        assert handler.flush(DEADLINE)
        assert len(target.texts) > before or target.texts[-1] == "last"
    assert target.texts[-1] == "last"


@main_thread_only
def test_a_signal_handler_that_interrupts_a_wait_for_room_drops_and_may_raise():
    target = Kept()
    with logging_to(target, policy="block", capacity=4096) as (log, handler):

        def on_signal(*_):
            send(handler, "from the signal handler")
            raise KeyError("out of the wait")

        with signalled(on_signal), held(target):
            log.info("first")
            until(target.entered.is_set)  # what comes now stays in the channel
            waiting = Spawned(until, lambda: handler.sender.statistics().waiting_senders == 1)
            kill = Spawned(lambda: (waiting.join(), os.kill(os.getpid(), signal.SIGALRM)))
            with pytest.raises(KeyError, match="out of the wait"):
                fill(log, handler)
            kill.join()
            assert handler.dropped == 2  # the one that waited, and the one of the signal handler
        log.info("next")
        assert handler.flush(DEADLINE)
    assert target.texts[-1] == "next"


def test_a_finaliser_that_the_collector_runs_never_waits():
    target = Kept()

    class Logged:
        def __del__(self):
            while handler.dropped == 0:
                send(handler, "filling")

    with logging_to(target, policy="block", capacity=4096) as (_log, handler), held(target):
        cycle = Logged()
        cycle.itself = cycle
        del cycle
        gc.collect()
        assert handler.dropped == 1


def test_finalisers_that_log_in_the_middle_of_logging_calls():
    target = Kept()
    died = []

    class Logged:
        def __init__(self):
            self.itself = self

        def __del__(self):
            send(handler, "finaliser")
            died.append(1)

    before = gc.get_threshold()
    with logging_to(target, policy="block") as (log, handler):
        gc.set_threshold(1, 1, 1)
        try:
            for number in range(500):
                Logged()
                log.info("%d", number)
        finally:
            gc.set_threshold(*before)
        gc.collect()
        assert handler.flush(DEADLINE)
        assert len(target.texts) + handler.dropped == 500 + len(died)
    assert died


# ---- flush, stop, close --------------------------------------------------------------------------------------------


def test_flush_is_a_barrier_among_producers():
    target = Kept()
    stop = threading.Event()

    def produce(log):
        while not stop.is_set():
            log.info("other")

    with logging_to(target, policy="block", capacity=1 << 14) as (log, handler):
        threads = [Spawned(produce, log) for _ in range(3)]
        for number in range(50):
            log.info("mine %d", number)
            assert handler.flush(DEADLINE)
            assert f"mine {number}" in target.texts[-20_000:]
        stop.set()
        for thread in threads:
            thread.join()


def test_many_threads_flush_at_once():
    target = Kept()
    with logging_to(target) as (log, handler):

        def work(name):
            for number in range(20):
                log.info("%d %d", name, number)
                assert handler.flush(DEADLINE)
                assert f"{name} {number}" in target.texts

        for thread in [Spawned(work, name) for name in range(5)]:
            thread.join()


def test_flush_flushes_the_targets():
    class Buffering(Kept):
        flushed = 0

        def flush(self):
            self.flushed = len(self.texts)

    target = Buffering()
    with logging_to(target) as (log, handler):
        log.info("one")
        assert handler.flush(DEADLINE)
        assert target.flushed == 1


def test_flush_is_false_at_once_where_nobody_writes():
    tx, rx = mpsc_bytes.channel(4096)
    with ChannelHandler(tx) as handler:
        assert handler.flush(None) is False
        listener = ChannelListener(rx, Kept())
        assert handler.flush(None) is False
        assert listener.flush(None) is False
        with listener:
            assert handler.flush(DEADLINE) is True
            assert listener.flush(DEADLINE) is True
        assert handler.flush(None) is False
    assert handler.flush(None) is False


def test_flush_in_a_target_is_false_at_once():
    answers = []

    class Flushing(Kept):
        def emit(self, record):
            answers.append((handler.flush(None), handler.listener.stop(None)))

    target = Flushing()
    with logging_to(target) as (log, handler):
        log.info("one")
        until(lambda: answers)
    assert answers == [(False, False)]


def test_stop_writes_what_was_sent_and_may_be_called_again():
    tx, rx = mpsc_bytes.channel(1 << 16)
    target = Kept()
    handler = ChannelHandler(tx)
    listener = ChannelListener(rx, target)
    for number in range(300):
        send(handler, "%d", number)
    assert not listener.is_running
    assert listener.start() is listener
    assert listener.is_running
    assert listener.stop(DEADLINE) is True
    assert not listener.is_running
    assert target.texts == [str(number) for number in range(300)]
    assert listener.stop(DEADLINE) is True
    send(handler, "late")
    assert handler.dropped == 1
    with pytest.raises(RuntimeError, match="started or stopped before"):
        listener.start()
    handler.close()


def test_stop_at_any_moment_loses_nothing_that_was_logged_before():
    for delay in range(size(50, 2000)):
        target = Kept()
        tx, rx = mpsc_bytes.channel(1 << 16)
        handler = ChannelHandler(tx)
        with ChannelListener(rx, target):
            for number in range(delay % 7):
                send(handler, "%d", number)
        assert target.texts == [str(number) for number in range(delay % 7)]
        handler.close()


def test_a_listener_that_was_never_started_can_be_stopped():
    tx, rx = mpsc_bytes.channel(4096)
    listener = ChannelListener(rx, Kept())
    assert listener.stop(DEADLINE) is True
    assert rx.is_closed
    tx.close()


def test_stop_of_a_listener_that_was_never_started_writes_what_was_sent():
    tx, rx = mpsc_bytes.channel(4096)
    target = Kept()
    listener = ChannelListener(rx, target)
    with ChannelHandler(tx) as handler:
        send(handler, "text")
        assert listener.stop(DEADLINE) is True
        assert target.texts == ["text"]
        send(handler, "late")
        assert handler.dropped == 1


def test_stop_of_a_listener_with_a_slow_target_is_false_and_goes_on():
    target = Kept()
    with logging_to(target) as (log, handler):
        with held(target):
            log.info("one")
            log.info("two")
            until(target.entered.is_set)
            assert handler.listener.stop(0.01) is False
        assert handler.listener.stop(DEADLINE) is True
    assert target.texts == ["one", "two"]


def test_the_listener_ends_when_every_sender_is_closed():
    tx, rx = mpsc_bytes.channel(4096)
    target = Kept()
    other = ChannelHandler(tx.clone())
    handler = ChannelHandler(tx)
    listener = ChannelListener(rx, target).start()
    for one in (other, handler):
        send(one, "text")
        one.close()
    until(lambda: not listener.is_running)
    assert target.texts == ["text", "text"]
    assert rx.is_closed


def test_a_handler_that_is_dropped_ends_its_listener():
    target = Kept()
    handler = ChannelHandler(targets=[target])
    listener = handler.listener
    send(handler, "text")
    del handler
    gc.collect()
    until(lambda: not listener.is_running)
    assert target.texts == ["text"]


def test_close_writes_everything_and_may_be_called_again():
    target = Kept()
    with logging_to(target) as (log, handler):
        log.info("one")
        handler.close()
        assert target.texts == ["one"]
        assert not handler.listener.is_running
        log.info("late")
        assert handler.dropped == 1
        handler.close()


def test_a_close_ends_the_wait_of_those_who_block():
    target = Kept()
    with logging_to(target, policy="block", capacity=4096) as (log, handler), held(target):
        thread = Spawned(fill, log, handler)
        until(lambda: handler.sender.statistics().waiting_senders == 1)
        handler.sender.close()
        thread.join()
        assert handler.dropped == 1


def test_reopen_after_close_uses_a_new_channel():
    target = Kept()
    with logging_to(target) as (log, handler):
        log.info("one")
        handler.reopen()  # of a channel in use: everything is written first
        assert target.texts == ["one"]
        handler.close()
        handler.reopen()
        log.info("two")
        assert handler.flush(DEADLINE)
    assert target.texts == ["one", "two"]
    tx, _rx = mpsc_bytes.channel(4096)
    with ChannelHandler(tx) as given, pytest.raises(TypeError, match="needs a new one"):
        given.reopen()


@pytest.mark.parametrize("policy", ["drop", "block"])
def test_reopen_beside_threads_that_log_loses_nothing_uncounted(policy):
    target = Kept()
    done = threading.Event()
    logged = [itertools.count() for _ in range(3)]

    def produce(handler, which):
        while not done.is_set():
            send(handler, f"{which} %d", next(logged[which]))

    with logging_to(target, policy=policy, capacity=4096) as (_log, handler):
        producers = [Spawned(produce, handler, which) for which in range(3)]
        for _ in range(size(12, 3000)):
            before = handler.dropped
            handler.reopen()
            assert handler.dropped >= before
        done.set()
        for producer in producers:
            producer.join()
        assert handler.flush(DEADLINE)
        texts = target.texts
        assert len(texts) + handler.dropped == sum(map(next, logged))
        assert policy == "drop" or handler.dropped == 0
        assert target.reported == handler.dropped
    for which in range(3):
        numbers = [int(text[2:]) for text in texts if text.startswith(f"{which} ")]
        assert numbers == sorted(numbers), "the new listener has written before the old one"


def test_reopen_into_another_channel_beside_threads_that_log_loses_nothing_uncounted():
    """The second channel is too small for some messages that were made before."""

    def produce():
        while not done.is_set():
            next(logged)
            send(handler, "x" * 10_000)
            going.set()

    for _ in range(size(10, 300)):
        target, logged, going, done = Kept(), itertools.count(), threading.Event(), threading.Event()
        big, small = mpsc_bytes.channel(1 << 16), mpsc_bytes.channel(1 << 12)
        handler = ChannelHandler(big.sender)
        with ChannelListener(big.receiver, target), ChannelListener(small.receiver, target):
            producers = [Spawned(produce) for _ in range(2)]
            until(going.is_set)
            handler.reopen(small.sender)
            done.set()
            for producer in producers:
                producer.join()
        handler.close()
        assert len(target.texts) + handler.dropped == next(logged)


def test_reopen_beside_a_call_that_waits_for_room_sends_its_record_into_the_new_channel(monkeypatch):
    target = Kept()
    with logging_to(target, policy="block", capacity=4096) as (log, handler):
        with held(target):
            log.info("first")
            until(target.entered.is_set)
            threads = [Spawned(lambda: [log.info("number %d", number) for number in range(40)])]
            until(lambda: handler.sender.statistics().waiting_senders == 1)
            threads.append(Spawned(handler.reopen))
            until(lambda: not threads[0].is_alive())  # into the new channel, which nobody reads yet
        for thread in threads:
            thread.join()
        assert handler.flush(DEADLINE)
        assert handler.dropped == 0
    assert target.texts == ["first", *(f"number {number}" for number in range(40))]


def test_reopen_in_a_target_goes_on_with_the_new_channel():
    class Reopening(Kept):
        def emit(self, record):
            super().emit(record)
            if record.getMessage() == "reopen":
                handler.reopen()

    target = Reopening()
    with logging_to(target) as (log, handler):
        for text in ("reopen", "after"):
            log.info(text)
        until(lambda: target.texts == ["reopen", "after"])
        log.info("later")
        assert handler.flush(DEADLINE)
    assert target.texts == ["reopen", "after", "later"]


def test_reopen_by_the_sender_that_the_handler_has_is_refused():
    tx, _rx = mpsc_bytes.channel(4096)
    with ChannelHandler(tx) as handler:
        with pytest.raises(ValueError, match="takes a new sender"):
            handler.reopen(tx)
        assert not tx.is_closed


def test_handlers_and_listeners_cannot_be_copied_or_pickled():
    with ChannelHandler(targets=[Kept()]) as handler:
        for thing in (handler, handler.listener):
            for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="cannot copy or pickle"):
                    attempt(thing)


# ---- dictConfig ----------------------------------------------------------------------------------------------------


def configuration(tmp_path, **options):
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(levelname)s %(name)s %(message)s"}},
        "handlers": {
            "channel": {"class": "nexus_channels.logging.ChannelHandler", "targets": ["file", "kept"], **options},
            "file": {
                "class": "logging.FileHandler",
                "filename": str(tmp_path / "log"),
                "formatter": "plain",
                "level": "WARNING",
            },
            "kept": {"()": Kept},
        },
        "loggers": {"tests.configured": {"handlers": ["channel"], "level": "DEBUG", "propagate": False}},
    }


@pytest.fixture
def configured():
    """The logger that `configuration` configures, and its handler; closed at the end."""
    log = logging.getLogger("tests.configured")
    yield log
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()


@pytest.fixture
def dict_config(monkeypatch):
    """`logging.config.dictConfig`, which closes no handlers of pytest's."""
    monkeypatch.setattr(logging.config, "_clearExistingHandlers", lambda: None)
    return logging.config.dictConfig


def test_a_plain_configuration_names_its_targets(tmp_path, configured, dict_config):
    dict_config(configuration(tmp_path, policy="block", capacity=8192, level="INFO"))
    (handler,) = configured.handlers
    assert (handler.policy, handler.sender.capacity, handler.level) == ("block", 8192, logging.INFO)
    configured.debug("small")
    configured.info("middle")
    configured.warning("large")
    gc.collect()
    assert handler.flush(DEADLINE)
    file, kept = handler.listener._targets
    assert (tmp_path / "log").read_text() == "WARNING tests.configured large\n"
    assert kept.texts == ["middle", "large"]
    file.close()


def test_a_configuration_may_use_factories_and_references(tmp_path, configured, dict_config):
    config = configuration(tmp_path)
    del config["handlers"]["kept"], config["handlers"]["file"]
    config["handlers"]["channel"] = {
        "()": "ext://nexus_channels.logging.ChannelHandler",
        "targets": ["ext://test_logging.SHARED", "cfg://handlers.before"],
        "formatter": "plain",
    }
    config["handlers"]["before"] = {"()": Kept}
    dict_config(config)
    (handler,) = configured.handlers
    configured.info("text")
    assert handler.flush(DEADLINE)
    assert [target.texts for target in handler.listener._targets] == [["INFO tests.configured text"]] * 2


SHARED = Kept()


def test_a_name_that_the_configuration_does_not_have_is_an_error(tmp_path, configured, dict_config):
    config = configuration(tmp_path)
    config["handlers"]["channel"]["targets"] = ["elif"]
    with pytest.raises(ValueError, match="channel") as failed:
        dict_config(config)
    assert "there is no handler of the name 'elif'" in str(failed.value.__cause__)


def test_a_handler_may_be_named_outside_of_a_configuration():
    target = Kept()
    target.name = "tests.named"
    with ChannelHandler(targets=["tests.named"]) as handler:
        send(handler, "text")
        assert handler.flush(DEADLINE)
    assert target.texts == ["text"]


# ---- bad input -----------------------------------------------------------------------------------------------------

BAD = {
    "neither": (TypeError, "give either", lambda tx: {}),
    "both": (TypeError, "give either", lambda tx: {"sender": tx, "targets": []}),
    "policy": (ValueError, "not 'wait'", lambda tx: {"sender": tx, "policy": "wait"}),
    "timeout without block": (ValueError, "not 1 for policy 'drop'", lambda tx: {"sender": tx, "timeout": 1}),
    "negative timeout": (ValueError, "not -1", lambda tx: {"sender": tx, "policy": "block", "timeout": -1}),
    "no sender": (TypeError, "not 'sender'", lambda tx: {"sender": "sender"}),
    "capacity of a sender": (TypeError, "capacity is for", lambda tx: {"sender": tx, "capacity": 1}),
    "small": (ValueError, "has 1024 bytes, and 4096", lambda tx: {"targets": [], "capacity": 1024}),
    "no text": (ValueError, "256 to 2506 bytes here, not 255", lambda tx: {"sender": tx, "max_text_size": 255}),
    "much text": (ValueError, "256 to 2506 bytes here, not 2507", lambda tx: {"sender": tx, "max_text_size": 2507}),
    "a name for a list": (TypeError, "not 'console'", lambda tx: {"targets": "console"}),
    "no handler": (TypeError, "not 3", lambda tx: {"targets": [3]}),
    "no name": (ValueError, "'nobody'", lambda tx: {"targets": ["nobody"]}),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named_and_leave_nothing_behind(case):
    error, said, options = BAD[case]
    tx, _rx = mpsc_bytes.channel(4096)
    threads, handlers = threading.active_count(), len(logging._handlerList)
    with pytest.raises(error, match=said):
        ChannelHandler(**options(tx))
    assert (threading.active_count(), len(logging._handlerList)) <= (threads, handlers)
    assert not tx.is_closed


def test_a_listener_takes_a_receiver_and_handlers():
    tx, rx = mpsc_bytes.channel(4096)
    with pytest.raises(TypeError, match="a target is a logging"):
        ChannelListener(rx, "console")
    with pytest.raises(TypeError, match="receiver is"):
        ChannelListener(tx, Kept())
    assert "not running, 1 targets" in repr(ChannelListener(rx, Kept()))


def test_what_a_handler_says_of_itself():
    with ChannelHandler(targets=[], level="INFO") as handler:
        assert repr(handler) == "<ChannelHandler (INFO) policy='drop'>"
        assert handler.lock is None
        assert repr(handler.listener) == "<ChannelListener running, 0 targets>"


# ---- exit and fork, in processes of their own ----------------------------------------------------------------------

START = """
import atexit, gc, io, logging, os, signal, sys, threading, time
import nexus_channels.logging
from nexus_channels import mpsc_bytes
from nexus_channels._core import log_message
from nexus_channels.logging import ChannelHandler, ChannelListener
from support import until
log = logging.getLogger("app")
log.setLevel(logging.DEBUG)
path = sys.argv[1]
"""


def test_at_exit_everything_is_written(tmp_path):
    script = """
log.addHandler(ChannelHandler(targets=[logging.FileHandler(path)]))
for number in range(2000):
    log.info("%d", number)
"""
    run_child(START + script, tmp_path / "log", quiet=True)
    assert (tmp_path / "log").read_text().splitlines() == [str(number) for number in range(2000)]


def test_at_exit_a_listener_of_ones_own_is_waited_for(tmp_path):
    script = """
tx, rx = mpsc_bytes.channel(1 << 20)
ChannelListener(rx, logging.FileHandler(path)).start()
log.addHandler(ChannelHandler(tx))
for number in range(2000):
    log.info("%d", number)
"""
    run_child(START + script, tmp_path / "log", quiet=True)
    assert len((tmp_path / "log").read_text().splitlines()) == 2000


def test_at_exit_the_listener_of_a_handler_that_is_gone_is_waited_for(tmp_path):
    script = """
class Slow(logging.FileHandler):
    def emit(self, record):
        time.sleep(0.005)
        super().emit(record)
handler = ChannelHandler(targets=[Slow(path)])
log.addHandler(handler)
for number in range(60):
    log.info("%d", number)
log.removeHandler(handler)
del handler
"""
    run_child(START + script, tmp_path / "log", quiet=True)
    assert len((tmp_path / "log").read_text().splitlines()) == 60


def test_what_other_exit_handlers_log_is_written(tmp_path):
    script = """
atexit.register(log.info, "after ours")
from importlib import reload
atexit.unregister(nexus_channels.logging._at_exit)
atexit.register(log.info, "after ours, too")
atexit.register(nexus_channels.logging._at_exit)
atexit.register(log.info, "before ours")
log.addHandler(ChannelHandler(targets=[logging.FileHandler(path)]))
"""
    run_child(START + script, tmp_path / "log", quiet=True)
    assert (tmp_path / "log").read_text().splitlines() == ["before ours", "after ours, too", "after ours"]


def test_at_exit_a_target_that_does_not_return_is_left_after_the_deadline(tmp_path):
    script = """
class Stuck(logging.Handler):
    def emit(self, record):
        threading.Event().wait()
nexus_channels.logging._PATIENCE = 0.2
handler = ChannelHandler(targets=[logging.FileHandler(path), Stuck()])
log.addHandler(handler)
log.info("one")
until(lambda: handler.sender.used == 0)
log.info("two")
"""
    source = START + script + 'atexit.register(lambda: print("exiting"))\n'
    assert run_child(source, tmp_path / "log", seconds=4) == "exiting\n"


def test_at_exit_the_loss_is_told(tmp_path):
    script = """
class Stuck(logging.Handler):
    def emit(self, record):
        threading.Event().wait()
nexus_channels.logging._PATIENCE = 0.1
sys.stderr = sys.stdout
log.addHandler(ChannelHandler(targets=[Stuck()]))
log.info("one")
"""
    said = run_child(START + script, tmp_path / "log", seconds=4)
    assert said == "nexus_channels.logging: log records are lost: a target took over 0.1 s at exit\n"


@pytest.mark.skipif(EXPERIMENT, reason="3.13t may hang at its end beside busy daemon threads; with a FileHandler, too")
def test_daemon_threads_that_log_while_the_interpreter_ends(tmp_path):
    script = """
log.addHandler(ChannelHandler(targets=[logging.FileHandler(path)], policy=sys.argv[2], capacity=4096))
def forever():
    while True:
        log.info("text")
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.05)
"""
    for policy in ("drop", "block"):
        for _ in range(size(2, 25)):
            run_child(START + script, tmp_path / "log", policy)


FORK = """
def fork(function):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(10)
            function()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def run_forking(script, path):
    run_child(START + FORK + script, path, flags=("-Wignore",))
    return path.read_text().splitlines()


@needs_fork
@pytest.mark.parametrize("policy", ["drop", "block"])
def test_a_forked_child_drops_and_counts_and_writes_nothing_twice(tmp_path, policy):
    script = f"""
handler = ChannelHandler(targets=[logging.FileHandler(path)], policy={policy!r}, capacity=4096)
log.addHandler(handler)
for number in range(10):
    log.info("%d", number)
def child():
    assert handler.dropped == 0
    for number in range(1000):
        log.info("child")
    assert handler.dropped == 1000
    assert handler.listener is None
    assert handler.flush(None) is False
    logging.shutdown()
fork(child)
log.info("parent")
"""
    assert run_forking(script, tmp_path / "log") == [*map(str, range(10)), "parent"]


@needs_fork
def test_a_forked_child_that_reopens_has_a_listener_of_its_own(tmp_path):
    script = """
handler = ChannelHandler(targets=[logging.FileHandler(path)], policy="block", capacity=4096)
log.addHandler(handler)
log.info("before")
handler.flush()
def child():
    log.info("lost")
    handler.reopen()
    for number in range(300):
        log.info("child %d", number)
    assert handler.dropped == 1
    handler.close()
fork(child)
log.info("after")
"""
    lines = run_forking(script, tmp_path / "log")
    lines.remove("1 log records were dropped, 1 in all")  # in the child, before it had a channel
    assert lines == ["before", *(f"child {number}" for number in range(300)), "after"]


@needs_fork
def test_a_handler_can_reopen_in_every_fork_by_itself(tmp_path):
    script = """
handler = ChannelHandler(targets=[logging.FileHandler(path)])
os.register_at_fork(after_in_child=handler.reopen)
log.addHandler(handler)
log.info("before")
handler.flush()
def child():
    log.info("child")
    handler.flush()
    def grandchild():
        log.info("grandchild")
        logging.shutdown()
    fork(grandchild)
    logging.shutdown()
fork(child)
"""
    assert run_forking(script, tmp_path / "log") == ["before", "child", "grandchild"]


@needs_fork
@pytest.mark.skipif(FREE_THREADED, reason="objects that other threads had locked stay locked in the child")
def test_a_child_that_ends_like_any_program_does_not_wait(tmp_path):
    script = """
class Slow(logging.FileHandler):
    def emit(self, record):
        super().emit(record)
        until(lambda: len(hold) == 0)
hold = [1]
handler = ChannelHandler(targets=[Slow(path)])
log.addHandler(handler)
for number in range(5):
    log.info("%d", number)
pid = os.fork()
if pid == 0:
    log.info("child")
    sys.exit(0)
began = time.monotonic()
assert os.waitpid(pid, 0)[1] == 0
assert time.monotonic() - began < 4
hold.clear()
"""
    assert run_forking(script, tmp_path / "log") == [*"01234"]


@needs_fork
@pytest.mark.skipif(FREE_THREADED, reason="objects that other threads had locked stay locked in the child")
def test_forks_in_the_midst_of_logging_wedge_nobody(tmp_path):
    script = f"""
handler = ChannelHandler(targets=[logging.FileHandler(path)], policy="block", capacity=4096)
log.addHandler(handler)
stop = threading.Event()
def work():
    while not stop.is_set():
        log.info("parent")
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
def child():
    log.info("lost")
    assert handler.dropped == 1
    handler.reopen()
    log.info("child")
    assert handler.flush(20)
for _ in range({size(20, 300)}):
    fork(child)
stop.set()
for thread in threads:
    thread.join()
"""
    lines = run_forking(script, tmp_path / "log")
    assert lines.count("child") == size(20, 300)
    assert set(lines) == {"child", "parent", "1 log records were dropped, 1 in all"}


@needs_fork
def test_the_listener_of_the_parent_cannot_be_started_in_a_child(tmp_path):
    script = """
tx, rx = mpsc_bytes.channel(4096)
listener = ChannelListener(rx, logging.FileHandler(path))
handler = ChannelHandler(tx)
def child():
    try:
        listener.start()
    except RuntimeError as error:
        assert "parent process" in str(error)
    else:
        raise AssertionError
    assert listener.stop(None) is True
    tx, rx = mpsc_bytes.channel(4096)
    handler.reopen(tx)
    with ChannelListener(rx, logging.FileHandler(path)):
        log.addHandler(handler)
        log.info("child")
fork(child)
"""
    assert run_forking(script, tmp_path / "log") == ["child"]


def test_the_module_does_not_stand_in_the_way_of_the_standard_one():
    package = pathlib.Path(sys.modules["nexus_channels"].__file__).parent
    assert pathlib.Path(logging.__file__).parent != package
    assert sys.modules["nexus_channels.logging"].logging is logging


# ---- targets, listeners and handlers beside one another ------------------------------------------------------------


class Sink(io.StringIO):
    """Takes everything and keeps nothing."""

    def write(self, text):
        return len(text)


def test_two_listeners_with_the_same_streams_in_another_order_go_on():
    a, b = logging.StreamHandler(Sink()), logging.StreamHandler(Sink())
    with logging_to(a, b, policy="block") as (one, first), logging_to(b, a, policy="block") as (two, second):
        threads = [
            Spawned(lambda log=log: [log.info("%d", n) for n in range(size(5000, 100_000))]) for log in (one, two)
        ]
        for thread in threads:
            thread.join()
        assert first.flush(DEADLINE)
        assert second.flush(DEADLINE)


def test_the_lock_of_a_stream_is_free_while_another_target_writes():
    console, slow = logging.StreamHandler(Sink()), Kept()
    with logging_to(console, slow) as (log, handler):
        with held(slow):
            log.info("text")
            until(slow.entered.is_set)
            Spawned(send, console, "directly").join()
        assert handler.flush(DEADLINE)


def test_what_is_logged_while_a_handler_closes_is_written_or_counted():
    for _ in range(size(5, 200)):
        target = Kept()
        logged = itertools.count()
        with logging_to(target) as (_log, handler):
            going = threading.Event()

            def produce(handler=handler, going=going, logged=logged):
                while not (going.is_set() and handler.sender.is_closed):
                    send(handler, "%d", next(logged))
                    going.set()

            producers = [Spawned(produce) for _ in range(2)]
            until(going.is_set)
            handler.close()
            for producer in producers:
                producer.join()
            assert len(target.texts) + handler.dropped == next(logged)


def test_a_listener_that_stops_does_not_write_what_is_logged_later_for_ever():
    tx, rx = mpsc_bytes.channel(1 << 14)
    handler = ChannelHandler(tx, policy="block")
    target = Kept()
    listener = ChannelListener(rx, target).start()
    stopped, logged = threading.Event(), itertools.count()

    def produce():
        while not stopped.is_set():
            send(handler, "%d", next(logged))

    producer = Spawned(produce)
    until(lambda: target.records)
    assert listener.stop(DEADLINE)
    stopped.set()
    producer.join()
    assert len(target.texts) + handler.dropped == next(logged)


def test_flush_without_a_deadline_ends_when_the_listener_does():
    for _ in range(size(100, 5000)):
        with logging_to(Kept()) as (_log, handler):
            flushing = [Spawned(lambda: any(not handler.flush(None) for _ in itertools.count())) for _ in range(2)]
            handler.close()
            for one in flushing:
                one.join()


def test_flush_takes_any_time():
    with logging_to(Kept()) as (_log, handler):
        assert handler.flush(float("inf"))
        assert handler.flush(1e30)


@pytest.mark.parametrize("length", [2, 3])
def test_handlers_in_a_chain_pass_everything_on(length):
    target = Kept()
    with contextlib.ExitStack() as stack:
        handlers = [stack.enter_context(ChannelHandler(targets=[target]))]
        while len(handlers) < length:
            handlers.append(stack.enter_context(ChannelHandler(targets=[handlers[-1]])))
        for number in range(5):
            send(handlers[-1], "%d", number)
        assert handlers[-1].flush(DEADLINE), "it waits for the last one, too"
        assert target.texts == list("01234")
        assert [handler.dropped for handler in handlers] == [0] * length


def test_a_report_of_dropped_records_passes_through_a_chain():
    target = Kept()
    with ChannelHandler(targets=[target]) as inner, ChannelHandler(targets=[inner], capacity=4096) as outer:
        with held(target):
            send(inner, "text")
            until(target.entered.is_set)
            outer._drop()
        until(lambda: "1 log records were dropped, 1 in all" in target.texts)


def test_a_listener_flushes_by_whichever_handler_is_open():
    tx, rx = mpsc_bytes.channel(1 << 14)
    handlers = [ChannelHandler(tx.clone()), ChannelHandler(tx.clone()), ChannelHandler(tx)]
    with ChannelListener(rx, Kept()) as listener:
        for handler in handlers:
            assert listener.flush(DEADLINE)
            handler.close()


def test_stop_beside_start_ends():
    for _ in range(size(100, 5000)):
        _tx, rx = mpsc_bytes.channel(4096)
        listener = ChannelListener(rx)
        stopping = Spawned(listener.stop)
        with contextlib.suppress(RuntimeError):  # it was stopped before
            listener.start()
        stopping.join()
        assert listener.stop(DEADLINE)


def test_a_flush_that_a_target_has_of_its_own_is_called_and_stays():
    target = logging.StreamHandler(Sink())
    calls = []
    target.flush = lambda: calls.append(1)
    with logging_to(target) as (log, handler):
        log.info("text")
        assert handler.flush(DEADLINE)
    assert calls
    assert "flush" in vars(target)


def test_functions_and_processes_are_told_apart_on_the_same_line(monkeypatch):
    target, names = Kept(), {}
    with logging_to(target) as (log, handler):
        names["log"] = log
        for function in ("first", "second"):
            exec(f"def {function}():\n    log.info('')", names)
            names[function]()
        for process in ("one", "two"):
            record = logging.LogRecord("name", 20, "path", 1, "", None, None)
            record.processName = process
            handler.handle(record)
        assert handler.flush(DEADLINE)
    assert [record.funcName for record in target.records[:2]] == ["first", "second"]
    assert [record.processName for record in target.records[2:]] == ["one", "two"]


def test_long_paths_in_other_scripts_arrive_whole_and_longer_ones_keep_their_end():
    target = Kept()
    with ChannelHandler(targets=[target]) as handler:
        for times in (30, 200):
            record = logging.LogRecord(
                "name", 20, "/" + "\u043f\u0443\u0442\u044c/" * times, 17, "", None, None, "function"
            )
            record.levelname = "NOTE"
            handler.handle(record)
        assert handler.flush(DEADLINE)
    whole, cut = target.records
    assert whole.pathname == "/" + "\u043f\u0443\u0442\u044c/" * 30
    assert cut.pathname.startswith("...")
    assert ("/" + "\u043f\u0443\u0442\u044c/" * 200).endswith(cut.pathname.removeprefix("..."))
    assert {(r.lineno, r.funcName, r.levelname) for r in target.records} == {(17, "function", "NOTE")}
    assert len(cut.pathname) > 20


CONFIGURED = """
import logging.config, sys
logging.config.dictConfig({
    "version": 1,
    "handlers": {
        "channel": {"class": "nexus_channels.logging.ChannelHandler", "targets": ["file"]},
        "file": {"class": "logging.FileHandler", "filename": sys.argv[1], "mode": "w", "delay": True},
    },
    "root": {"handlers": ["channel"], "level": "INFO"},
})
for number in range(100):
    logging.info("%d", number)
"""


@pytest.mark.parametrize(
    "end",
    ["logging.shutdown()", "logging.config.dictConfig({'version': 1})", "import atexit"],
)
def test_a_handler_of_a_configuration_closes_before_its_targets_whatever_their_names(tmp_path, end):
    run_child(CONFIGURED + end, tmp_path / "log", quiet=True)
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(100)]


def test_a_handler_of_a_configuration_and_its_thread_go_when_nobody_has_it():
    script = CONFIGURED + (
        "import gc, threading, time, weakref\n"
        "gone = weakref.ref(logging.getLogger().handlers[0])\n"
        "assert gone().flush()\n"
        "logging.getLogger().handlers.clear()\n"
        "logging._handlers.clear()\n"
        "gc.collect()\n"
        "assert gone() is None\n"
        "for thread in threading.enumerate():\n"
        "    if thread is not threading.main_thread():\n"
        "        thread.join(5)\n"
        "assert threading.active_count() == 1\n"
    )
    run_child(script, os.devnull, quiet=True)


def test_a_configuration_beside_a_target_that_logs_does_not_wait_if_the_handler_was_closed(tmp_path):
    """Old handlers are closed under logging's own lock, which a target takes that logs by a new logger."""
    script = """
class Logging(logging.FileHandler):
    def emit(self, record):
        super().emit(record)
        logging.getLogger(f"made for {record.getMessage()}")
import logging.config
for _ in range(20):
    handler = ChannelHandler(targets=[Logging(path)])
    log.handlers = [handler]
    for number in range(100):
        log.info("%d", number)
    handler.close()
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
"""
    run_child(START + script, tmp_path / "log", seconds=4, quiet=True)
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(100)] * 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("when", ["before", "after_in_parent"])
def test_hooks_of_a_fork_that_log_never_wait(when):
    run_child(
        "import logging, os, sys\n"
        f"os.register_at_fork({when}=lambda: [log.info('forking') for _ in range(200)])\n"
        "from nexus_channels.logging import ChannelHandler\n"
        "log = logging.getLogger('log')\n"
        "log.setLevel(logging.INFO)\n"
        "handler = ChannelHandler(targets=[logging.NullHandler()], policy='block', capacity=4096)\n"
        "log.addHandler(handler)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )


STUCK = """
import atexit, logging, logging.handlers, threading
log = logging.getLogger("log")
log.setLevel(logging.INFO)
atexit.register(lambda: [log.info("bye") for _ in range(100)])  # runs after ours
import nexus_channels.logging as ours
ours._PATIENCE = 0.2
class Stuck(logging.Handler):
    def emit(self, record):
        threading.Event().wait()
"""


@pytest.mark.parametrize("target", ["Stuck()", "logging.handlers.MemoryHandler(1, target=Stuck())"])
def test_a_program_ends_although_a_target_is_stuck_and_others_log_at_exit(target):
    script = STUCK + (
        f"target = {target}\n"
        "log.addHandler(ours.ChannelHandler(targets=[target], policy='block', capacity=4096))\n"
        "log.info('one')\n"
    )
    run_child(script)


@main_thread_only
def test_a_signal_handler_that_raises_after_a_wait_leaves_no_record_both_written_and_dropped():
    class Interrupted(BaseException):  # which logging does not report and forget
        pass

    def interrupt(*_):
        raise Interrupted

    target, wrong = Kept(), []
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ChannelHandler(targets=[target], policy="block", capacity=4096) as handler:
            for round_ in range(size(1500, 20_000)):
                dropped = handler.dropped
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.00002 + round_ % 40 * 0.00001)
                    for number in range(100):
                        text = f"{round_} {number}"
                        send(handler, text)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Interrupted:
                    pass
                if handler.dropped > dropped:
                    assert handler.flush(DEADLINE)
                    wrong += [text] if text in target.texts[-300:] else []
    finally:
        signal.signal(signal.SIGALRM, before)
    assert wrong == []
