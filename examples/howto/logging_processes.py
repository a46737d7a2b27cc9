import logging
import multiprocessing
import sys

from nexus_channels import attach, mpsc_bytes
from nexus_channels.logging import ChannelHandler, ChannelListener


def work(log):  # runs in the other process
    logging.getLogger().addHandler(ChannelHandler(attach(log)))
    logging.warning("%d degrees", 90)
    logging.error("too hot, stopping")


if __name__ == "__main__":
    target = logging.StreamHandler(sys.stdout)
    target.setFormatter(logging.Formatter("%(processName)s: %(levelname)s: %(message)s"))
    spawn = multiprocessing.get_context("spawn")
    tx, rx = mpsc_bytes.channel(1 << 20, shared=True)
    worker = spawn.Process(target=work, args=(tx.clone().share(),), name="oven")
    logging.getLogger().addHandler(ChannelHandler(tx))
    with ChannelListener(rx, target):
        worker.start()
        worker.join()
        logging.warning("the oven has ended")
