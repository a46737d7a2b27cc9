"""Log from many threads into one file; the threads that log never wait for the disk."""

import logging
import pathlib
import tempfile
import threading

from nexus_channels.logging import ChannelHandler


def work(name):
    for step in range(2):
        logging.getLogger(name).info("step %d", step)


with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "app.log")
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handler = ChannelHandler(targets=[file])
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    threads = [threading.Thread(target=work, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()  # waits until the file has it
    print(*sorted(path.read_text().splitlines()), sep="\n")  # the threads may alternate in any way
    print("dropped:", handler.dropped)
    logging.shutdown()
