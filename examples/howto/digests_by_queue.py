import hashlib
import multiprocessing


def work(jobs, results):
    while (block := jobs.get()) is not None:
        results.put(hashlib.sha256(block).hexdigest()[:8])


def digests(blocks, workers):
    spawn = multiprocessing.get_context("spawn")
    jobs, results = spawn.Queue(8), spawn.Queue()
    processes = [spawn.Process(target=work, args=(jobs, results)) for _ in range(workers)]
    for process in processes:
        process.start()
    for block in blocks:
        jobs.put(block)
    for _ in processes:
        jobs.put(None)
    found = [results.get() for _ in blocks]
    for process in processes:
        process.join()
    return found


if __name__ == "__main__":
    print(sorted(digests([bytes([n]) * 1000 for n in range(4)], workers=2)))
