"""A program for queue.Queue and asyncio.Queue: threads take jobs that a task puts, and the task waits until all are
done."""

import asyncio
import threading

from nexus_channels.queue import Queue, SyncQueueShutDown


def work(jobs, results):
    try:
        while True:
            number = jobs.get()  # as of a queue.Queue
            results.put(number * number)
            jobs.task_done()
    except SyncQueueShutDown:  # from Python 3.13 on it is queue.ShutDown
        pass


async def main():
    jobs, results = Queue(4), Queue(10)
    workers = [threading.Thread(target=work, args=(jobs.sync_q, results.sync_q)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for number in range(10):
        await jobs.async_q.put(number)  # as of an asyncio.Queue
    await jobs.async_q.join()  # until task_done() was called for each job
    jobs.shutdown()  # the workers end
    print(sorted(results.async_q.get_nowait() for _ in range(10)))
    for worker in workers:
        worker.join()


asyncio.run(main())
