"""A Qt window that shows what a worker thread reports through a channel.

    pip install PySide6-Essentials
    python examples/qt_progress.py
    QT_QPA_PLATFORM=offscreen python examples/qt_progress.py --steps 100000    # without a screen

The worker blocks when the window is slow: the channel holds 64 reports. The window's thread never blocks. It waits in
Qt's own event loop, on a notifier of the receiver; there is no timer that polls and no further thread.
"""

import argparse
import sys
import threading

from PySide6.QtCore import QObject, QSocketNotifier
from PySide6.QtWidgets import QApplication, QProgressBar

from nexus_channels import RecvError, spsc

AT_ONCE = 200  # then Qt handles its other events


class Items(QObject):
    """Calls `show(items)` in Qt's loop with what a receiver has, and `ended()` once every sender is gone."""

    def __init__(self, receiver, show, ended, parent=None):
        super().__init__(parent)
        self._receiver, self._show, self._ended = receiver, show, ended
        self._notifier = receiver.notifier()
        self._readable = QSocketNotifier(self._notifier.fileno(), QSocketNotifier.Type.Read, self)
        self._readable.activated.connect(self._take)
        self._notifier.arm()

    def _take(self):
        self._notifier.clear()
        try:
            items = self._receiver.try_recv_many(AT_ONCE)
        except RecvError:
            self.stop()
            self._ended()
        else:
            if items:
                self._show(items)
            self._notifier.arm()  # if there is more, Qt comes back at once

    def stop(self):
        """Take the descriptor out of Qt's loop, and only then close it."""
        self._readable.setEnabled(False)
        self._notifier.close()
        self._receiver.close()


def work(reports, steps):
    """The worker: some steps of work, each with a report."""
    with reports:
        for step in range(1, steps + 1):
            reports.send_blocking(step)


def main(steps):
    application = QApplication(sys.argv[:1])
    bar = QProgressBar(maximum=steps)
    bar.show()
    seen = []

    def show(steps):
        seen.extend(steps)
        bar.setValue(steps[-1])

    tx, rx = spsc.channel(64)
    Items(rx, show, application.quit, parent=bar)
    thread = threading.Thread(target=work, args=(tx, steps))
    thread.start()
    application.exec()
    thread.join()
    print(f"{len(seen):,} reports, {'in order' if seen == list(range(1, steps + 1)) else 'not what was sent'}")
    print(f"the bar shows {bar.text()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    main(parser.parse_args().steps)
