"""What type checkers make of the package: that values keep their type, and that mistakes are found."""

import pathlib
import subprocess
import sys
import textwrap

import pytest

import nexus_channels

pytest.importorskip("mypy", reason="mypy is not installed")

VALID = """
    import asyncio
    from typing import assert_type

    from nexus_channels import Channel, Full, SendError, Statistics
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
}


def mypy(tmp_path, code):
    sample = tmp_path / "sample.py"
    sample.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path.parent / "cache"), str(sample)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.timeout(180)
@pytest.mark.watchdog(180)
def test_a_program_that_uses_everything_passes_mypy_strictly(tmp_path):
    reported = []
    for module in ("local", "spsc", "mpsc"):
        code = VALID.format(module=module)
        code += BLOCKING if module != "local" else ""
        code += CLONE if module != "spsc" else ""
        reported += mypy(tmp_path, code)[:-1]
    assert reported == []


@pytest.mark.timeout(180)
@pytest.mark.watchdog(180)
def test_mypy_finds_every_mistake(tmp_path):
    head = ["import asyncio", "from nexus_channels.mpsc import Receiver, Sender, channel", "tx, rx = channel[int](3)"]
    reported = mypy(tmp_path, "\n".join([*head, *MISTAKES.values()]) + "\n")
    found = {line.split(":")[1] for line in reported if ": error:" in line}
    missed = [mistake for number, mistake in enumerate(MISTAKES, len(head) + 1) if str(number) not in found]
    assert missed == []


@pytest.mark.timeout(180)
@pytest.mark.watchdog(180)
@pytest.mark.parametrize(
    ("module", "call"), [("local", "tx.send_blocking(1)"), ("local", "rx.recv_blocking()"), ("spsc", "tx.clone()")]
)
def test_mypy_knows_what_a_variant_does_not_have(tmp_path, module, call):
    head = [f"from nexus_channels.{module} import Receiver, Sender, channel", "tx, rx = channel[int](3)"]
    assert any("attr-defined" in line for line in mypy(tmp_path, "\n".join([*head, call]) + "\n"))


def test_the_package_says_that_it_is_typed():
    package = pathlib.Path(nexus_channels.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()
