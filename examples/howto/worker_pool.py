"""A worker pool: threads share one receiver of jobs and send results back by a second channel."""

import asyncio
import threading

from nexus_channels import mpsc


def work(jobs, tx):
    with tx:
        for number in jobs:  # the threads share this receiver: each job goes to one of them
            try:
                result = 60 // number
            except ZeroDivisionError as error:
                result = type(error).__name__  # a job that fails does not end the worker
            tx.send_blocking((number, result))


async def submit(tx):
    with tx:  # the workers end when all jobs are taken
        for number in range(6):
            await tx.send(number)


async def main():
    jobs_tx, jobs = mpsc.channel(4)
    results_tx, results = mpsc.channel(4)
    with results_tx:
        for _ in range(3):
            threading.Thread(target=work, args=(jobs, results_tx.clone())).start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(submit(jobs_tx))
        with jobs, results:
            done = {number: result async for number, result in results}  # ends when all workers have ended
    for number in sorted(done):
        print(number, done[number])


asyncio.run(main())
