"""A loop written with selectors: it feeds a worker thread and takes the results, and blocks on nothing else."""

import selectors
import threading

from nexus_channels import Empty, Full, RecvError, spsc


def square(numbers, squares):
    """Runs in a thread, and may block."""
    with numbers, squares:
        for number in numbers:
            squares.send_blocking((number, number * number))


class Loop:
    def __init__(self):
        self.selector = selectors.DefaultSelector()

    def watch(self, endpoint, step):
        """Call `step` again and again, as long as the endpoint can go; until it returns False."""
        notifier = endpoint.notifier()
        self.selector.register(notifier, selectors.EVENT_READ, (notifier, step))
        notifier.arm()

    def run(self):
        while self.selector.get_map():
            for key, _ in self.selector.select():
                notifier, step = key.data
                notifier.clear()  # first: what comes from now on makes it readable again
                try:
                    while step():
                        pass
                except (Empty, Full):
                    notifier.arm()  # wait for more
                else:
                    self.selector.unregister(notifier)
                    notifier.close()


def main():
    tx, numbers = spsc.channel(4)
    squares, rx = spsc.channel(4)
    threading.Thread(target=square, args=(numbers, squares)).start()
    to_send = list(range(10, 0, -1))

    def send():
        if not to_send:
            tx.close()
            return False
        tx.try_send(to_send[-1])  # may raise Full
        to_send.pop()
        return True

    def receive():
        try:
            print(*rx.try_recv())  # may raise Empty
        except RecvError:
            return False
        return True

    loop = Loop()
    loop.watch(tx, send)
    loop.watch(rx, receive)
    loop.run()


main()
