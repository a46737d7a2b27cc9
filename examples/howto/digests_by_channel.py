import hashlib
import multiprocessing
import threading

from nexus_channels import attach, mpsc_bytes, select_blocking, spsc_bytes


def work(jobs, results):
    with attach(results) as tx:
        for block in attach(jobs):
            tx.send_blocking(hashlib.sha256(block).hexdigest()[:8].encode())


def feed(senders, blocks):  # runs in a thread
    try:
        for block in blocks:
            select_blocking(*(tx.sending(block) for tx in senders))  # to the first worker that has room
    finally:  # also if a worker has died, as the others would wait for ever
        for tx in senders:
            tx.close()


def digests(blocks, workers):
    spawn = multiprocessing.get_context("spawn")
    jobs = [spsc_bytes.channel(1 << 16, shared=True) for _ in range(workers)]
    tx, results = mpsc_bytes.channel(1 << 16, shared=True)
    processes = [spawn.Process(target=work, args=(rx.share(), tx.clone().share())) for _, rx in jobs]
    for process in processes:
        process.start()
    tx.close()  # the workers have clones
    threading.Thread(target=feed, args=([tx for tx, _ in jobs], blocks)).start()
    found = [bytes(digest).decode() for digest in results]  # ends when the last worker has ended
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a worker failed")
    return found


if __name__ == "__main__":
    print(sorted(digests([bytes([n]) * 1000 for n in range(4)], workers=2)))
