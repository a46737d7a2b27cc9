"""Check FIX messages in two threads; append them to an archive in one; complete the archive after a crash."""

import io
import re
import struct
from concurrent.futures import ThreadPoolExecutor

from nexus_channels import mpsc_bytes

NUMBER = struct.Struct("<Q")
HEADER = re.compile(rb"8=FIX\.4\.4\x019=(\d+)\x01")
TRAILER = len(b"10=123\x01")


def message(number):
    body = b"35=0\x0149=BUYER\x0156=SELLER\x0134=%d\x01" % number
    content = b"8=FIX.4.4\x019=%d\x01" % len(body) + body
    return content + b"10=%03d\x01" % (sum(content) % 256)


def parse(tx, numbered):
    rejected = []
    with tx:
        for number, content in numbered:
            if sum(content[:-TRAILER]) % 256 != int(content[-4:-1]):
                rejected.append(number)
                continue
            with tx.claim_blocking(NUMBER.size + len(content)) as room:  # commits at the end of the block
                NUMBER.pack_into(room, 0, number)
                room[NUMBER.size :] = content
    return rejected


def append(rx, file):
    with rx:  # if this thread fails, the parsers get ClaimDisconnected
        for claim in rx:
            file.write(claim)  # straight from the ring


def records(content):
    """(number, where the record ends) of every whole record."""
    end = 0
    while header := HEADER.match(content, end + NUMBER.size):
        start, end = end, header.end() + int(header[1]) + TRAILER
        if end > len(content):
            return
        yield *NUMBER.unpack_from(content, start), end


def archive(session, file):
    content = file.getvalue()
    done = dict(records(content))
    file.truncate(max(done.values(), default=0))  # take off the record that was cut short
    file.seek(0, io.SEEK_END)
    missing = [(number, content) for number, content in enumerate(session) if number not in done]
    tx, rx = mpsc_bytes.channel(1024)
    with ThreadPoolExecutor(3) as pool, tx:
        archiver = pool.submit(append, rx, file)
        parsers = [pool.submit(parse, tx.clone(), missing[first::2]) for first in range(2)]
        tx.close()  # from now on the parsers alone keep the channel open
    archiver.result()
    rejected = [number for parser in parsers for number in parser.result()]
    numbers = sorted(number for number, _ in records(file.getvalue()))
    print(f"{len(done)} were there, {len(numbers)} are there now: {numbers}, rejected: {rejected}")


session = [message(number) for number in range(7)]
session[3] = session[3].replace(b"BUYER", b"BAYER")  # the CheckSum is wrong now
disk = io.BytesIO()  # stands for the archive file
archive(session, disk)
disk.truncate(len(disk.getvalue()) - 10)  # a crash cut the last record short
archive(session, disk)
