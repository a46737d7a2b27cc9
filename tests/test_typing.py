"""What type checkers make of the package: that values keep their type, and that mistakes are found."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

import nexus_channels

pytest.importorskip("mypy", reason="mypy is not installed")

STRICT = ("-m", "mypy", "--strict", "--no-error-summary")
STUBTEST = ("-P", "-m", "mypy.stubtest")

VALID = """
    import asyncio
    from typing import assert_type

    from nexus_channels import Channel, Full, Selected, SendError, Statistics
    from nexus_channels import merge, select, select_blocking, try_select
    from nexus_channels.{module} import Receiver, Sender, channel

    tx, rx = channel[int](3)
    assert_type(tx, Sender[int])
    assert_type(rx, Receiver[int])
    pair = channel[str](capacity=3)
    assert_type(pair.sender, Sender[str])
    assert_type(pair.receiver, Receiver[str])


    async def use(tx: Sender[int], rx: Receiver[int]) -> None:
        await tx.send(1)
        await tx.send(1, timeout=2.5)
        await tx.send_many([1, 2])
        tx.try_send(1)
        assert_type(tx.try_send_many((1, 2)), int)
        assert_type(await rx.recv(), int)
        assert_type(await rx.recv(timeout=None), int)
        assert_type(await rx.recv_many(3), list[int])
        assert_type(rx.try_recv(), int)
        assert_type(rx.try_recv_many(3), list[int])
        async for value in rx:
            assert_type(value, int)
        assert_type(tx.is_closed, bool)
        assert_type(rx.is_disconnected, bool)
        assert_type(len(tx), int)
        assert_type(tx.capacity, int)
        assert_type(rx.statistics(), Statistics)
        assert_type(rx.statistics().waiting_senders, int)
        assert_type(rx.open_ends()[0].where, tuple[str, ...])
        assert_type(tx.same_channel(rx), bool)
        async with rx as receiver:
            assert_type(receiver, Receiver[int])
        with tx as sender:
            assert_type(sender, Sender[int])
        tx.close()
        task = asyncio.create_task(rx.recv())
        assert_type(await task, int)
        async with asyncio.TaskGroup() as group:
            group.create_task(tx.send(1))
        await asyncio.gather(tx.send(1), rx.recv())
        await asyncio.wait_for(rx.recv(), 1)
        assert_type(await select(rx, timeout=1), Selected[int])
        assert_type((await select(rx, tx.sending(1), biased=True)).value, int | None)
        index, arm, got = try_select(rx, pair.receiver)
        assert_type(index, int)
        assert_type(got, int | str)
        assert_type(select_blocking(*[rx, rx]).value, int)
        async for _, value in merge(rx, rx):
            assert_type(value, int)


    def failures(tx: Sender[int]) -> object:
        try:
            tx.try_send(1)
        except Full as full:
            return full.value
        except SendError as error:
            return error.value
        return None
"""

BLOCKING = """

    def block(tx: Sender[int], rx: Receiver[int]) -> None:
        tx.send_blocking(1, timeout=1)
        tx.send_many_blocking([1])
        assert_type(rx.recv_blocking(), int)
        assert_type(rx.recv_many_blocking(3, timeout=0.5), list[int])
        for value in rx:
            assert_type(value, int)
"""

CLONE = """

    def clone(tx: Sender[int]) -> None:
        assert_type(tx.clone(), Sender[int])
"""

BYTES = """
    import asyncio
    from typing import assert_type

    from nexus_channels import merge, select
    from nexus_channels.{module} import ReadClaim, Receiver, Sender, WriteClaim, channel

    tx, rx = channel(4096)
    assert_type(tx, Sender)
    assert_type(rx, Receiver)


    async def use(tx: Sender, rx: Receiver) -> None:
        assert_type(await tx.claim(8, timeout=1), WriteClaim)
        async with tx.claim(8) as view:
            assert_type(view, memoryview)
        with tx.try_claim(8) as view:
            view[:] = bytes(8)
        claim = tx.claim_blocking(8)
        claim[0] = 1
        claim[1:3] = b"23"
        claim.commit(3)
        await tx.send(bytearray(3))
        await tx.send_many([b"1", memoryview(b"2")])
        assert_type(tx.try_send_many((b"1", b"2")), int)
        assert_type(await rx.recv(), ReadClaim)
        with rx.recv_blocking(timeout=None) as view:
            assert_type(view, memoryview)
        message = rx.try_recv()
        assert_type(bytes(message), bytes)
        message.release()
        assert_type(rx.release(), bool)
        assert_type(tx.abort(), bool)
        assert_type(await rx.recv_bytes(), bytes)
        assert_type(rx.try_recv_into(bytearray(8)), int)
        assert_type(await rx.recv_many(3), list[bytes])
        async for message in rx:
            assert_type(message, ReadClaim)
        for message in rx:
            assert_type(message, ReadClaim)
        assert_type(tx.max_message_size, int)
        assert_type(rx.used, int)
        task = asyncio.create_task(rx.recv_bytes())
        assert_type(await task, bytes)
        assert_type((await select(rx, tx.claiming(8), tx.sending(b"1"))).value, ReadClaim | WriteClaim | None)
        for _, merged in merge(rx):
            assert_type(merged, ReadClaim)
        with tx.native() as end:
            assert_type(end.address, int)
"""

QUEUE = """
    import asyncio
    import logging.handlers
    from typing import assert_type

    from nexus_channels import mpsc, spsc
    from nexus_channels.queue import AsyncQueue, BaseQueue, Queue, SyncQueue, as_queue

    both = Queue[int](3)
    assert_type(both, Queue[int])
    assert_type(both.sync_q, SyncQueue[int])
    assert_type(both.async_q, AsyncQueue[int])
    assert_type(both.maxsize, int)
    assert_type(both.closed, bool)
    assert_type(as_queue(mpsc.channel[str](3)), Queue[str])
    tx, rx = spsc.channel[str](3)
    assert_type(as_queue((tx, rx)).sync_q.get(), str)
    logging.handlers.QueueHandler(Queue[object](3).sync_q)


    def threads(queue: SyncQueue[int]) -> None:
        queue.put(1)
        queue.put(1, True, 2.5)
        queue.put(item=1, block=False, timeout=None)
        assert_type(queue.get(timeout=1), int)
        assert_type(queue.get(False), int)
        queue.join()


    async def tasks(queue: AsyncQueue[int]) -> None:
        await queue.put(1)
        assert_type(await queue.get(), int)
        await queue.join()
        task = asyncio.create_task(queue.get())
        assert_type(await task, int)
        await asyncio.wait_for(queue.put(1), 1)
        await both.aclose()
        await both.wait_closed()


    def either(queue: BaseQueue[int]) -> int:
        queue.put_nowait(1)
        queue.task_done()
        queue.shutdown()
        queue.shutdown(immediate=True)
        assert_type(queue.qsize(), int)
        assert_type(queue.full() or queue.empty() or queue.is_shutdown, bool)
        assert_type(queue.unfinished_tasks, int)
        return queue.get_nowait()


    class Mine(SyncQueue[str]):
        def put(self, item: str, block: bool = True, timeout: float | None = None) -> None:
            super().put(item.upper(), block, timeout)
"""

MISTAKES = {
    "a value of another type": 'tx.try_send("text")',
    "awaiting a value of another type": 'asyncio.run(tx.send("text"))',
    "a batch of another type": 'tx.try_send_many(["text"])',
    "no capacity": "channel[int]()",
    "a capacity that is no integer": "channel[int](1.5)",
    "a timeout that is no number": 'rx.recv(timeout="1")',
    "a receiver that sends": "rx.try_send(1)",
    "a sender that receives": "tx.try_recv()",
    "a property that is set": "tx.capacity = 5",
    "an endpoint made by hand": "Sender()",
    "an arm that sends another type": 'tx.sending("text")',
    "a sender that is an arm": "asyncio.run(nexus_channels.select(tx))",
}
MISSING = [
    ("local", "tx.send_blocking(1)"),
    ("local", "rx.recv_blocking()"),
    ("local", "list(rx)"),
    ("spsc", "tx.clone()"),
]


def _valid(module):
    if module.endswith("bytes"):
        return BYTES.format(module=module)
    return VALID.format(module=module) + (BLOCKING if module != "local" else "") + (CLONE if module != "spsc" else "")


def _lines(module, *lines):
    start = [
        "import asyncio, nexus_channels",
        f"from nexus_channels.{module} import Receiver, Sender, channel",
        "tx, rx = channel[int](3)",
    ]
    return "\n".join([*start, *lines]) + "\n"


MODULES = ("local", "spsc", "mpsc", "spsc_bytes", "mpsc_bytes")
FIRST = 4  # where the lines given to _lines start


def where_it_is():
    """An environment in which mypy finds the package: it does not know the import hooks of editable installs."""
    parent = pathlib.Path(nexus_channels.__file__).parent.parent
    return os.environ | ({} if parent.name == "site-packages" else {"MYPYPATH": str(parent)})


def checked(folder, *command):
    """What a module, run in that folder, says of the installed package and of programs."""
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=folder,
        env=where_it_is(),
    )


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """What mypy says of each sample, {name: {line: message}}. One run for all, as starting it takes seconds."""
    folder = tmp_path_factory.mktemp("samples")
    samples = {f"valid_{module}": _valid(module) for module in MODULES}
    samples["valid_queue"] = QUEUE
    samples["mistakes"] = _lines("mpsc", *MISTAKES.values())
    samples |= {f"missing_{number}": _lines(module, line) for number, (module, line) in enumerate(MISSING)}
    for name, code in samples.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(code))
    done = checked(folder, *STRICT, *(f"{name}.py" for name in samples))
    assert done.returncode == 1, done.stdout + done.stderr
    messages = {name: {} for name in samples}
    for line in done.stdout.splitlines():
        file, number, kind, message = line.split(":", 3)
        if kind.strip() == "error":
            messages[file.removesuffix(".py")].setdefault(int(number), message.strip())
    return messages


@pytest.mark.timeout(180)
@pytest.mark.watchdog(180)
@pytest.mark.parametrize("module", [*MODULES, "queue"])
def test_a_program_that_uses_everything_passes_mypy_strictly(reported, module):
    assert reported[f"valid_{module}"] == {}


@pytest.mark.timeout(180)
@pytest.mark.watchdog(180)
@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=list(MISTAKES))
def test_mypy_finds(reported, number):
    assert FIRST + number in reported["mistakes"]


@pytest.mark.timeout(180)
@pytest.mark.watchdog(180)
@pytest.mark.parametrize("number", range(len(MISSING)), ids=[f"{module} {line}" for module, line in MISSING])
def test_mypy_knows_what_a_variant_does_not_have(reported, number):
    assert FIRST in reported[f"missing_{number}"]


def test_the_package_says_that_it_is_typed():
    package = pathlib.Path(nexus_channels.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()


@pytest.mark.timeout(180)
@pytest.mark.watchdog(180)
def test_the_stubs_say_what_the_native_module_has(tmp_path):
    done = checked(tmp_path, *STUBTEST, "nexus_channels._core")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
@pytest.mark.watchdog(180)
@pytest.mark.skipif(
    importlib.util.find_spec("nexus_channels._ffi") is None, reason="nexus_channels.native is not there"
)
def test_what_a_type_checker_reads_is_what_the_package_has(tmp_path):
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\n[mypy-cffi.*,inotify_simple.*,tqdm.*,uvloop.*]\nignore_missing_imports = True\n")
    allowed = pathlib.Path(__file__).parent / "typing" / "stubtest.txt"
    options = ["--ignore-unused-allowlist", "--mypy-config-file", str(config), "--allowlist", str(allowed)]
    done = checked(tmp_path, *STUBTEST, *options, "nexus_channels")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
@pytest.mark.watchdog(180)
def test_programs_of_users_pass_mypy_strictly_and_their_mistakes_are_found(tmp_path):
    """A mistake is marked `# type: ignore[code]`, and --strict warns of an ignore that is not needed."""
    users = pathlib.Path(__file__).parent / "typing" / "users.py"
    done = checked(tmp_path, *STRICT, str(users))
    assert done.returncode == 0, done.stdout + done.stderr
