import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor

from nexus_channels import attach, mpsc_bytes


def start(tickets):  # runs once in each worker
    global tx
    tx = attach(tickets.get())


def square(number):  # runs in whichever worker is free
    tx.send_blocking(b"%d" % number**2)


def finish(executor, tickets):  # runs in a thread, as the results are received meanwhile
    executor.shutdown()  # waits for the jobs
    while not tickets.empty():  # the executor has started only as many workers as it needed
        tickets.get().close()


def squares(numbers, workers):
    spawn = multiprocessing.get_context("spawn")
    tx, rx = mpsc_bytes.channel(1 << 16, shared=True)
    tickets = spawn.Queue()
    for _ in range(workers):
        tickets.put(tx.clone().share())
    tx.close()  # the tickets hold clones
    executor = ProcessPoolExecutor(workers, spawn, start, (tickets,))
    for number in numbers:
        executor.submit(square, number)
    threading.Thread(target=finish, args=(executor, tickets)).start()
    return sorted(int(bytes(claim)) for claim in rx)  # ends when all workers have ended, and no ticket is left


if __name__ == "__main__":
    print(squares(range(5), workers=2))
