"""Every public operation of the object channels once, by name, for the leak tests to repeat."""

import asyncio
import contextlib
import gc

from harness import WAKE
from steploop import StepLoop
from support import Spawned, drive, until_blocked

from nexus_channels import ChannelError, Full, merge, select, select_blocking, try_select


class Value:
    pass


def quietly(call, *args, **kwargs):
    with contextlib.suppress(ChannelError, RuntimeError, TypeError, ValueError):
        call(*args, **kwargs)


def operations(module):
    """{name: function without arguments}, each of which leaves nothing behind."""
    name = module.__name__.rpartition(".")[2]
    loop = StepLoop()
    made = {}

    def operation(function):
        made[function.__name__] = function
        return function

    def full():
        tx, rx = module.channel(1)
        tx.try_send(Value())
        return tx, rx

    def settle(*tasks):
        loop.run_ready()
        for task in tasks:
            assert task.done()
            task.cancelled() or task.exception()

    @operation
    def create_and_drop():
        module.channel(3)

    @operation
    def create_and_close():
        tx, rx = module.channel(3)
        tx.close()
        rx.close()
        tx.close()

    @operation
    def try_calls():
        tx, rx = module.channel(1)
        tx.try_send(Value())
        quietly(tx.try_send, Value())
        rx.try_recv()
        quietly(rx.try_recv)

    @operation
    def try_many():
        tx, rx = module.channel(3)
        assert tx.try_send_many([Value() for _ in range(5)]) == 3
        assert len(rx.try_recv_many(5)) == 3
        rx.try_recv_many(2)

    @operation
    def errors_with_values():
        tx, rx = full()
        for call in (tx.try_send, lambda value: drive(tx.send(value, timeout=0))):
            try:
                call(Value())
            except Full as error:
                assert isinstance(error.value, Value)
        rx.close()
        quietly(tx.try_send, Value())
        quietly(tx.try_send_many, [Value()])
        quietly(lambda: drive(tx.send_many([Value()])))

    @operation
    def end_of_stream():
        tx, rx = full()
        tx.close()
        rx.try_recv()
        quietly(rx.try_recv)
        quietly(lambda: drive(rx.recv()))
        quietly(lambda: drive(rx.recv_many(2)))
        quietly(tx.try_send, Value())

    @operation
    def bad_arguments():
        tx, rx = module.channel(1)
        for bad in (0, -1, True, 1.5, "x", None):
            quietly(module.channel, bad)
        for bad in (-1, float("nan"), "x", True):
            quietly(tx.send, Value(), timeout=bad)
            quietly(rx.recv, timeout=bad)
        quietly(rx.try_recv_many, -1)
        quietly(tx.try_send_many, 5)

    @operation
    def awaited_ready():
        tx, rx = module.channel(3)
        drive(tx.send(Value()))
        drive(tx.send(Value(), timeout=1))
        drive(rx.recv())
        drive(rx.recv(timeout=1))
        drive(tx.send_many([Value(), Value()]))
        drive(rx.recv_many(5))

    @operation
    def never_awaited():
        tx, rx = module.channel(1)
        tx.send(Value()), rx.recv(), tx.send_many([Value()]), rx.recv_many(1)
        awaitable = tx.send(Value())
        awaitable.close()

    @operation
    def awaited_outside_a_loop():
        tx, _rx = full()
        quietly(lambda: drive(tx.send(Value())))

    @operation
    def awaited_twice():
        tx, _rx = module.channel(1)
        awaitable = tx.send(Value())
        drive(awaitable)
        quietly(lambda: drive(awaitable))

    @operation
    def tasks_that_wait():
        tx, rx = full()
        sender, many = loop.create_task(tx.send(Value())), loop.create_task(tx.send_many([Value(), Value()]))
        loop.run_ready()
        for _ in range(4):
            loop.call(rx.try_recv)
            loop.run_ready()
        receiver, batch = loop.create_task(rx.recv()), loop.create_task(rx.recv_many(3))
        loop.run_ready()
        loop.call(tx.try_send, Value())
        loop.run_ready()
        tx.try_send(Value())
        settle(sender, many, receiver, batch)

    @operation
    def selects():
        (tx, rx), (other_tx, other) = full(), module.channel(1)
        many = [module.channel(1) for _ in range(6)]
        try_select(other, rx)
        drive(select(tx.sending(Value()), other))
        drive(select(*[end for _, end in many], rx))
        quietly(try_select, other, rx)
        quietly(select, rx, rx)
        quietly(select, rx, 5)
        select(rx).close()
        quietly(lambda: drive(select(rx)))
        tx.close()
        quietly(try_select, rx)
        assert other_tx.sending(Value()).sender is other_tx

    @operation
    def selects_that_wait():
        (tx, rx), (_other_tx, other) = module.channel(1), module.channel(1)
        tasks = [loop.create_task(select(other, rx)) for _ in range(3)]
        tasks.append(loop.create_task(select(other, rx, timeout=1)))
        loop.run_ready()
        loop.call(tx.try_send, Value())
        tasks[1].cancel()
        loop.run_ready()
        loop.advance(2)
        tx.close()
        settle(*tasks)

    @operation
    def merges():
        ends = [full() for _ in range(2)]
        for tx, _ in ends:
            tx.close()

        async def consume():
            async for _ in merge(*[rx for _, rx in ends]):
                pass

        settle(loop.create_task(consume()))

    @operation
    def tasks_that_are_cancelled():
        tx, rx = full()
        tasks = [loop.create_task(tx.send(Value())), loop.create_task(tx.send(Value()))]
        loop.run_ready()
        loop.call(rx.try_recv)
        tasks[0].cancel()
        settle(*tasks)
        rx.try_recv()
        task = loop.create_task(rx.recv())
        loop.run_ready()
        task.cancel()
        settle(task)

    @operation
    def tasks_that_time_out():
        tx, rx = full()
        task = loop.create_task(tx.send(Value(), timeout=1))
        loop.run_ready()
        loop.advance(2)
        settle(task)
        rx.try_recv()
        task = loop.create_task(rx.recv(timeout=1))
        loop.run_ready()
        loop.advance(2)
        settle(task)

    @operation
    def tasks_whose_channel_closes():
        for end in (0, 1):
            ends = full()
            sender = loop.create_task(ends[0].send(Value()))
            loop.run_ready()
            ends[end].close()
            settle(sender)
            ends = module.channel(1)
            receiver = loop.create_task(ends[1].recv())
            loop.run_ready()
            ends[end].close()
            settle(receiver)

    @operation
    def parked_and_dropped():
        tx, rx = full()
        awaitable = tx.send(Value())
        loop.call(awaitable.send, None)
        del awaitable
        rx.try_recv()
        awaitable = rx.recv()
        loop.call(awaitable.send, None)
        awaitable.close()

    @operation
    def iteration():
        tx, rx = module.channel(3)
        tx.try_send_many([Value(), Value()])
        tx.close()

        async def consume():
            async for _ in rx:
                pass

        settle(loop.create_task(consume()))

    @operation
    def context_managers():
        tx, rx = module.channel(1)
        with tx, rx:
            pass
        tx, rx = module.channel(1)

        async def use():
            async with tx, rx:
                pass

        settle(loop.create_task(use()))

    @operation
    def inspection():
        tx, rx = full()
        for end in (tx, rx):
            (
                end.statistics(),
                end.open_ends(),
                repr(end),
                len(end),
                bool(end),
                end.capacity,
                end.is_closed,
                end.is_disconnected,
            )
            end.same_channel(tx)
            quietly(end.same_channel, 5)
            quietly(end.share)

    if WAKE != "call_soon_threadsafe":

        @operation
        def notifiers():
            tx, rx = full()
            for end, change in ((tx, rx.try_recv), (rx, lambda: tx.try_send(Value()))):
                with end.notifier() as notifier:
                    notifier.arm()
                    change()
                    repr(notifier), notifier.fileno(), notifier.is_closed
                    notifier.clear()
                    notifier.arm()
                quietly(notifier.arm)
                quietly(notifier.__reduce_ex__, 4)
            dropped = rx.notifier()
            dropped.arm()
            tx.close()
            rx.close()
            quietly(rx.notifier)
            dropped.arm()

    @operation
    def pickling():
        tx, rx = module.channel(1)
        quietly(tx.__reduce_ex__, 4)
        quietly(rx.__reduce_ex__, 4)

    @operation
    def cycles_through_the_buffer():
        tx, rx = module.channel(4)
        tx.try_send([tx, rx])
        tx.try_send(rx.recv())
        tx.try_send(tx.send(tx))
        del tx, rx

    @operation
    def a_loop_that_is_closed_with_waiters():
        dead = StepLoop()
        tx, rx = module.channel(1)
        task = dead.create_task(rx.recv())
        task._log_destroy_pending = False
        dead.run_ready()
        dead.close()
        tx.try_send(Value())

    @operation
    def a_loop_of_its_own():
        async def main():
            tx, rx = module.channel(1)
            task = asyncio.create_task(rx.recv())
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(tx.try_send, Value())
            await task

        asyncio.run(main())

    if name in ("local", "mpsc"):

        @operation
        def clones():
            tx, rx = module.channel(1)
            clones = [tx.clone() for _ in range(3)]
            clones.pop().close()
            clones.pop().try_send(Value())
            assert clones[0].same_channel(rx)

    if name != "local":

        @operation
        def blocking_ready():
            tx, rx = module.channel(3)
            tx.send_blocking(Value())
            rx.recv_blocking(timeout=1)
            tx.send_many_blocking([Value(), Value()])
            rx.recv_many_blocking(3)
            tx.send_blocking(Value())
            tx.close()
            list(rx)

        @operation
        def blocking_timeouts():
            tx, rx = full()
            quietly(tx.send_blocking, Value(), timeout=0)
            quietly(tx.send_blocking, Value(), timeout=0.00001)
            quietly(tx.send_many_blocking, [Value()], timeout=0.00001)
            rx.try_recv()
            quietly(rx.recv_blocking, timeout=0.00001)
            quietly(rx.recv_many_blocking, 2, timeout=0.00001)

        @operation
        def threads_that_wait():
            tx, rx = module.channel(1)
            thread = Spawned(rx.recv_blocking)
            until_blocked(rx, receivers=1)
            tx.try_send(Value())
            thread.join()
            thread = Spawned(quietly, rx.recv_blocking)
            until_blocked(rx, receivers=1)
            tx.close()
            thread.join()

        @operation
        def selects_in_a_thread():
            (tx, rx), (other_tx, other) = full(), module.channel(1)
            select_blocking(other, rx)
            quietly(select_blocking, other, rx, timeout=0.00001)
            thread = Spawned(select_blocking, other, rx)
            until_blocked(other, receivers=1)
            other_tx.try_send(Value())
            thread.join()
            tx.close()
            other_tx.close()
            list(merge(other, rx))

        @operation
        def a_thread_wakes_a_loop():
            tx, rx = module.channel(1)
            task = loop.create_task(rx.recv())
            loop.run_ready()
            Spawned(tx.try_send, Value()).join()
            loop.wait_ready()
            settle(task)

    return made


def collect_all():
    for _ in range(3):
        gc.collect()


__all__ = ["collect_all", "operations"]
