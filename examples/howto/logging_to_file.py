"""Log from many threads into one file; the threads that log never wait for the disk."""

import logging
import pathlib
import tempfile
import threading

from nexus_channels import Full, RecvError, mpsc


class ChannelHandler(logging.Handler):
    """Sends formatted records to a writer thread; drops and counts them while the channel is full."""

    def __init__(self, path, capacity=10_000):
        super().__init__()
        self.dropped = 0
        self._tx, rx = mpsc.channel(capacity)
        self._writer = threading.Thread(target=self._write, args=(rx, path), daemon=True)
        self._writer.start()

    def emit(self, record):
        try:
            self._tx.try_send(self.format(record))
        except Full:
            self.dropped += 1
        except Exception:
            self.handleError(record)

    def close(self):
        self._tx.close()
        self._writer.join()  # it writes what is buffered, then it sees the end
        super().close()

    @staticmethod
    def _write(rx, path):
        with rx, open(path, "a", encoding="utf-8") as file:
            while True:
                try:
                    lines = rx.recv_many_blocking(256)
                except RecvError:  # the handler was closed and everything is written
                    return
                file.writelines(f"{line}\n" for line in lines)
                file.flush()


def work(name):
    for step in range(2):
        logging.getLogger(name).info("step %d", step)


with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "app.log")
    handler = ChannelHandler(path)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", handlers=[handler])
    threads = [threading.Thread(target=work, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logging.shutdown()
    print(*sorted(path.read_text().splitlines()), sep="\n")  # the threads may alternate in any way
    print("dropped:", handler.dropped)
