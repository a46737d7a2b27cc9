import sys
import threading

from nexus_channels import Ticket, attach, spsc_bytes

WORDS = [b"over", b"to the", b"other"]


def count(ticket: Ticket[spsc_bytes.Receiver]) -> str:  # runs in the other interpreter
    words = [bytes(claim) for claim in attach(ticket)]
    return f"received {len(words)} words of {sum(map(len, words))} bytes"


def main() -> None:
    from concurrent import interpreters

    tx, rx = spsc_bytes.channel(4096)
    other = interpreters.create()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(other.call(count, rx.share())))
    thread.start()
    with tx:
        for word in WORDS:
            tx.send_blocking(word)
    print(f"sent {len(WORDS)} words")
    thread.join()
    print(*answers)
    other.close()


if __name__ == "__main__":
    if sys.version_info >= (3, 14):
        main()
    else:
        print("this needs Python 3.14, which has concurrent.interpreters")
