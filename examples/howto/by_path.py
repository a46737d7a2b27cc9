import os
import subprocess
import sys
import tempfile

from nexus_channels import mpsc_bytes


def send(path: str) -> None:  # a program of its own
    with mpsc_bytes.connect(path, timeout=60) as tx:
        for word in (b"three", b"short", b"words"):
            tx.send_blocking(word)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "words")
        with mpsc_bytes.listen(path, 4096) as listener:
            senders = [subprocess.Popen([sys.executable, __file__, path]) for _ in range(2)]
            words = [listener.receiver.recv_bytes_blocking() for _ in range(6)]
        print("words sent by two processes:", len(words))
        for sender in senders:
            sender.wait()


if __name__ == "__main__":
    send(sys.argv[1]) if len(sys.argv) > 1 else main()
