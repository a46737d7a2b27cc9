"""Tickets as text and inherited descriptors: programs that subprocess starts, and texts that are none of a ticket."""

import contextlib
import copy
import gc
import os
import re
import subprocess
import sys

import pytest
from processes import descriptors, fork, needs_lanes

import nexus_channels
from nexus_channels import RecvError, SendError, SubprocessTicket, attach

pytestmark = needs_lanes

RECEIVER = """
import os, sys
from nexus_channels import attach
rx, tx = attach(sys.argv[1]), attach(os.environ["BACK"])
for claim in rx:
    tx.send_blocking(bytes(claim).upper())
"""
SENDER = """
import sys
from nexus_channels import attach
tx = attach(sys.argv[1])
for n in range(int(sys.argv[2])):
    tx.send_blocking(b"%d" % n)
"""


@pytest.fixture(params=["spsc_bytes", "mpsc_bytes"])
def module(request):
    return getattr(nexus_channels, request.param)


@pytest.fixture
def channel(module):
    return module.channel(4096, shared=True)


def program(text, *args, pass_fds, **options):
    return subprocess.Popen([sys.executable, "-P", "-c", text, *args], pass_fds=pass_fds, **options)


def join(child, code=0):
    assert child.wait(60) == code


def passed_on(passed):
    """As in the program that it goes to: copies of the descriptors, which can be inherited, and the text of these."""
    text = passed.text
    copies = {}
    for fd in passed.pass_fds:
        copies[fd] = os.dup(fd)
        os.set_inheritable(copies[fd], True)
    head, numbers, *named = text.split("-")
    named = [re.sub(r"^\d+", lambda fd: str(copies[int(fd[0])]), name) for name in named]
    return "-".join([head, numbers, *named]), list(copies.values())


def test_a_sender_goes_to_a_program(channel):
    tx, rx = channel
    with tx.share().for_subprocess() as passed:
        assert type(passed) is SubprocessTicket
        text, fds = passed
        assert text.isascii() and re.fullmatch(r"[\w.-]+", text) and set(fds) <= set(descriptors())
        child = program(SENDER, text, "1000", pass_fds=fds)
    assert [int(bytes(claim)) for claim in rx] == list(range(1000))
    with pytest.raises(RecvError) as end:
        rx.try_recv()
    assert not end.value.crashed
    join(child)


def test_a_receiver_goes_to_a_program_with_what_was_sent_before(channel, module):
    tx, rx = channel
    back, results = module.channel(4096, shared=True)
    tx.send_blocking(b"before")
    assert rx.statistics().buffered  # the lane is there
    with rx.share().for_subprocess() as (text, fds), back.share().for_subprocess() as (back_text, back_fds):
        child = program(RECEIVER, text, pass_fds=fds + back_fds, env={**os.environ, "BACK": back_text})
    tx.send_blocking(b"after")
    tx.close()
    assert [bytes(claim) for claim in results] == [b"BEFORE", b"AFTER"]
    join(child)


def test_a_program_that_is_killed_is_seen(channel):
    tx, rx = channel
    with rx.share().for_subprocess() as (text, fds):
        child = program(
            "import sys, nexus_channels; rx = nexus_channels.attach(sys.argv[1]); rx.recv_bytes_blocking(); "
            "print('here', flush=True); rx.recv_bytes_blocking()",
            text,
            pass_fds=fds,
            stdout=subprocess.PIPE,
        )
    tx.send_blocking(b"come")
    with child.stdout:
        assert child.stdout.readline() == b"here\n"
    child.kill()
    with pytest.raises(SendError) as error:
        while True:
            tx.send_blocking(bytes(100), timeout=20)
    assert error.value.crashed
    join(child, code=-9)


def test_a_program_that_does_not_attach_it_has_given_it_up(channel):
    tx, rx = channel
    with tx.share().for_subprocess() as passed:
        child = program("pass", pass_fds=passed.pass_fds)
    with pytest.raises(RecvError) as end:
        rx.recv_bytes_blocking(timeout=20)
    assert not end.value.crashed
    join(child)


def test_what_was_attached_is_not_inherited_any_further(channel):
    """The text and the descriptors as they are in the program."""
    tx, _rx = channel
    with tx.share().for_subprocess() as passed:
        text, fds = passed_on(passed)
        end = attach(text)
    for fd in fds:  # the door is exchanged for a new one
        with contextlib.suppress(OSError):
            assert not os.get_inheritable(fd)
    end.send_blocking(b"x")


def test_a_text_is_good_once(channel):
    tx, rx = channel
    with tx.share().for_subprocess() as passed:
        text, fds = passed_on(passed)
        attach(text).close()
        with pytest.raises(ValueError, match="was attached before"):
            attach(text)
        again, more_fds = passed_on(passed)  # other descriptors, of the same ticket
        with pytest.raises(ValueError, match="attached before"):
            attach(again)
    for fd in {*fds, *more_fds}:
        with contextlib.suppress(OSError):
            os.close(fd)
    with pytest.raises(RecvError):
        rx.recv_bytes_blocking(timeout=20)


def test_a_text_in_the_process_of_its_ticket_touches_nothing(channel):
    tx, rx = channel
    passed = tx.share().for_subprocess()
    text, _ = passed
    before = descriptors()
    with pytest.raises(ValueError, match="give pass_fds"):
        attach(text)

    def child():
        with pytest.raises(ValueError, match="give pass_fds"):
            attach(text)

    fork(child)
    assert descriptors() == before
    assert not rx.is_disconnected
    del passed
    gc.collect()
    assert rx.is_disconnected


def test_texts_that_are_none_are_refused_with_the_reason(channel):
    tx, _rx = channel
    passed = tx.share().for_subprocess()
    text, fds = passed_on(passed)
    head, numbers, token, door = text.split("-")
    for bad, says in (
        ("", "no ticket of this version"),
        ("hello", "no ticket of this version"),
        ("x" * 1000, r"'x{40}\.\.\.' is no ticket"),
        ("nxc9-" + text[5:], "no ticket of this version"),
        (head + "-" + numbers, "no ticket of this version"),
        (text[:-1] + "z", "not whole"),
        (f"{head}-{numbers[:-1]}-{token}-{door}", "not whole"),
        (f"{head}-{numbers}-{token}-{door}-", "not whole"),
        (f"{head}-{numbers}-{token}", "not the parts"),
        (f"{head}-{numbers}-{door}-{token}", "not those of one"),
        (f"{head}-{numbers}-{token}-{token}", "twice"),
        (f"{head}-{'00' * 8}{numbers[16:]}-{token}-{door}", "not the parts"),
        (f"{head}-{numbers}-{token}-{door}9", "was not passed"),
        (f"{head}-{numbers}-{token}-{1 << 70}.1", "was not passed"),
        (f"{head}-{numbers}-{token}--1.1", "not whole"),
    ):
        with pytest.raises(ValueError, match=says):
            attach(bad)
        assert set(fds) <= set(descriptors()), bad
    attach(text).send_blocking(b"x")


@pytest.mark.parametrize("at", [2, 3])
def test_descriptors_of_another_kind_are_refused_and_left_alone(channel, at):
    tx, _rx = channel
    with tx.share().for_subprocess() as passed:
        text, fds = passed_on(passed)
        read, write = os.pipe()
        os.set_inheritable(write, True)
        parts = text.split("-")
        parts[at] = f"{write}.{os.fstat(write).st_ino}"
        with pytest.raises(ValueError, match="not those of one"):
            attach("-".join(parts))
        assert os.write(write, b"still open") == 10
        for fd in (*fds, read, write):
            os.close(fd)


def test_a_counter_that_would_wait_is_refused(channel):
    tx, _rx = channel
    with tx.share().for_subprocess() as passed:
        text, fds = passed_on(passed)
        counter = os.eventfd(0, os.EFD_CLOEXEC)
        os.set_inheritable(counter, True)
        parts = text.split("-")
        parts[2] = f"{counter}.{os.fstat(counter).st_ino}"
        with pytest.raises(ValueError, match="not those of one"):
            attach("-".join(parts))
        for fd in (*fds, counter):
            os.close(fd)


def test_tickets_of_channels_within_the_process_stay_there(module):
    tx, _rx = module.channel(4096)
    with tx.share() as ticket, pytest.raises(TypeError, match="shared=True"):
        ticket.for_subprocess()


def test_a_ticket_that_was_given_up_is_refused(channel):
    tx, _rx = channel
    ticket = tx.share()
    ticket.close()
    with pytest.raises(ValueError, match="given away or closed"):
        ticket.for_subprocess()


def test_a_ticket_moves_into_the_one_for_a_program(channel):
    tx, rx = channel
    ticket = tx.share()
    passed = ticket.for_subprocess()
    assert "2 descriptors" in repr(passed) and "spent" in repr(ticket)
    for call in (ticket.for_subprocess, lambda: attach(ticket)):
        with pytest.raises(ValueError, match="not good any more"):
            call()
    ticket.close()
    assert not rx.is_disconnected
    passed.close()
    passed.close()
    assert rx.is_disconnected and "closed" in repr(passed)
    with pytest.raises(TypeError):
        copy.copy(passed)


def test_nothing_is_left_open(channel, module):
    del channel
    gc.collect()

    def once():
        tx, rx = module.channel(4096, shared=True)
        with tx.share().for_subprocess() as (text, fds):
            child = program(SENDER, text, "3", pass_fds=fds)
        assert [rx.recv_bytes_blocking() for _ in range(3)] == [b"0", b"1", b"2"]
        join(child)
        rx.close()

    once()
    gc.collect()
    before = descriptors()
    once()
    gc.collect()
    assert descriptors() == before
