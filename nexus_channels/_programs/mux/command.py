"""`python -m nexus_channels mux`: the arguments, the messages, and the exit status."""

import argparse
import os
import sys
from typing import Any

from ..streams import Voice, show
from . import summary
from .files import reason
from .job import Mux
from .lines import LONGEST
from .names import STANDARD, check_paths

__all__ = ["add_to", "main"]

LINES = 1024  # what the channel holds
BYTES = 1 << 20

DESCRIPTION = """\
Merge the lines of several files into one archive, in the order in which they
arrive. One thread reads each file, and all of them send into one channel.
Ctrl-C ends the program with every line that was read in the archive.
"""

EXAMPLES = f"""\
examples:
  merge two files:
    nexus-channels mux a.log b.log -o all.log
  follow files through rotations until Ctrl-C:
    nexus-channels mux -f /var/log/*.log -o all.log
  large files, the fastest way:
    nexus-channels mux --bytes big/*.log -o all.log
  standard input is a source, too:
    zcat old.gz | nexus-channels mux - new.log -o all.log
  write the archive to standard output:
    nexus-channels mux -f a.log b.log -o - | grep ERROR
  the summary for a program:
    nexus-channels mux --json a.log -o all.log | jq .
  start a new archive after the old one was renamed:
    mv all.log all.log.1 && kill -HUP PID

In the archive, each line stands behind the name of its source and a tab. A
line of more than {LONGEST:,} bytes is archived in parts: all parts but the
last have \\+ behind the name.

exit status:
  0    everything was read and archived
  1    a source could not be read, or the archive could not be written; the
       messages and the summary say what is missing
  2    wrong arguments
  130  ended by Ctrl-C (SIGINT), and every line that was read is archived
  143  the same after SIGTERM
  129  the same after SIGHUP, when the terminal was closed
"""


def add_to(commands: Any) -> None:
    merge = commands.add_parser(
        "mux",
        help="merge logs into one archive",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    merge.add_argument("files", nargs="+", metavar="FILE", help="a file or a pipe to read; - is standard input")
    merge.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="ARCHIVE",
        help="the file to write; an existing file is overwritten; - is standard output",
    )
    merge.add_argument("-f", "--follow", action="store_true", help="keep reading as the files grow, like tail -F")
    merge.add_argument(
        "--bytes", action="store_true", help="send blocks of lines through a channel of bytes, which is faster"
    )
    merge.add_argument(
        "--capacity",
        type=positive,
        metavar="N",
        help=f"how many lines the channel holds (default {LINES:,}); with --bytes, how many bytes (default {BYTES:,})",
    )
    merge.add_argument("-q", "--quiet", action="store_true", help="print no progress bar and no summary")
    merge.add_argument("--json", action="store_true", help="print the summary as one line of JSON, and no progress bar")
    merge.set_defaults(command=main, parser=merge)


def positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def main(options: argparse.Namespace) -> int:
    try:
        check_paths(options.files, options.output)
    except ValueError as error:
        options.parser.error(str(error))
    if options.output == STANDARD and 1 in options.closed:
        options.parser.error("standard output is closed")
    if STANDARD in options.files and 0 in options.closed:
        options.parser.error("standard input is closed")
    voice = Voice(options.program)
    capacity = options.capacity or (BYTES if options.bytes else LINES)
    try:
        job = Mux(
            options.files,
            options.output,
            capacity=capacity,
            follow=options.follow,
            in_bytes=options.bytes,
            say=voice.say,
        )
    except OSError as error:
        voice.say(f"cannot begin: {reason(error)}")
        return 1
    except MemoryError:
        voice.say(f"not enough memory for a channel of {capacity:,} {'bytes' if options.bytes else 'lines'}")
        return 1

    if options.follow:
        for source in job.sources:
            if source.path != STANDARD and not os.path.lexists(source.path):
                source.account.wait_for()
    voice.bar = None if options.quiet or options.json else progress_bar(job.total_size())
    bar = voice.bar
    with job:
        try:
            job.run(bar.update if bar else lambda _: None)
        finally:
            voice.bar = None
            if bar:
                bar.close()
        return report(job, options, voice)


def report(job: Mux, options: argparse.Namespace, voice: Voice) -> int:
    """Say what is not in the archive, and show the summary; returns the exit status."""
    code = summary.status(job)
    in_the_way = None
    if options.json or not options.quiet:
        stream = sys.stderr if options.output == STANDARD else sys.stdout
        in_the_way = show(summary.as_json(job) if options.json else summary.as_table(job), stream)
    archived = sum(source.whole.written for source in job.sources)
    lost = sum(source.read for source in job.sources) - archived
    unread = sum(source.account.unread for source in job.sources)
    left = f"; {unread:,} bytes were left unread" if unread else ""
    if job.failure:
        voice.say(f"cannot write {options.output}: {reason(job.failure)}")
    if job.failure or lost:
        voice.say(f"{archived:,} lines are in {options.output}; {lost:,} that were read are not{left}")
    elif job.signal:
        how = "ended at once" if job.forced else "ended"
        voice.say(f"{how} by {job.signal.name}; every line that was read is in {options.output}{left}")
    elif left:
        voice.say(left.removeprefix("; "))
    if in_the_way is not None and not isinstance(in_the_way, BrokenPipeError):
        voice.say(f"cannot write the summary: {reason(in_the_way)}")
        code = code or 1
    return code


def progress_bar(total: int | None) -> Any:
    """A tqdm bar on standard error, or None where that is no terminal or tqdm is not installed."""
    try:
        if not sys.stderr.isatty():
            return None
        from tqdm import tqdm
    except (AttributeError, ValueError, ImportError):  # no stream, a closed one, no tqdm
        return None
    return tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc="merging")
