"""A pipeline: every stage is a task, channels join the stages, and the end flows through."""

import asyncio

from nexus_channels import local


async def read(tx):
    with tx:
        for line in ("3", "4", "no number", "5"):
            await tx.send(line)


async def parse(rx, tx):
    with rx, tx:
        async for line in rx:
            if line.isdigit():
                await tx.send(int(line))


async def square(rx, tx):
    with rx, tx:
        async for number in rx:
            await tx.send(number * number)


async def main():
    lines_tx, lines = local.channel(8)
    numbers_tx, numbers = local.channel(8)
    squares_tx, squares = local.channel(8)
    async with asyncio.TaskGroup() as stages:
        stages.create_task(read(lines_tx))
        stages.create_task(parse(lines, numbers_tx))
        stages.create_task(square(numbers, squares_tx))
        with squares:
            async for number in squares:  # ends when the last stage has closed its sender
                print(number)
    print("all stages have ended")


asyncio.run(main())
