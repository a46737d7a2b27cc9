"""Test code that uses channels: no sleeps, small channels, every wait with a limit."""

import asyncio
import unittest

import nexus_channels
from nexus_channels import SendError, mpsc


async def double(rx, tx):
    """The code under test: a stage of a pipeline."""
    with rx, tx:
        async for number in rx:
            await tx.send(2 * number)


async def until(condition):
    """Let other tasks run until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


class DoubleTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        asyncio.get_running_loop().slow_callback_duration = 5  # debug mode is on: say nothing of a busy machine
        nexus_channels.set_debug_ends(True)
        self.addCleanup(nexus_channels.set_debug_ends, False)
        self.source, self.rx = mpsc.channel(8)
        self.tx, self.sink = mpsc.channel(1)  # one item fills it: the stage has to wait soon
        self.addCleanup(self.source.close)
        self.addCleanup(self.sink.close)

    async def test_everything_comes_out_before_the_end(self):
        self.source.try_send_many([1, 2, 3])
        self.source.close()
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            tasks.create_task(double(self.rx, self.tx))
            assert [item async for item in self.sink] == [2, 4, 6]
        assert self.source.open_ends() == []  # the stage closed what it was given

    async def test_it_waits_while_nobody_receives(self):
        self.source.try_send_many([1, 2, 3])
        task = asyncio.create_task(double(self.rx, self.tx))
        await until(lambda: self.tx.statistics().waiting_senders == 1)
        assert self.rx.statistics().buffered == 1  # 2 is in the sink, 4 waits, 3 was not taken
        self.sink.close()
        await asyncio.wait([task], timeout=5)
        error = task.exception()
        assert isinstance(error, SendError)
        assert error.value == 4


tests = unittest.defaultTestLoader.loadTestsFromTestCase(DoubleTest)
result = tests.run(unittest.TestResult())
print(result.testsRun, "tests,", len(result.failures + result.errors), "failed")
