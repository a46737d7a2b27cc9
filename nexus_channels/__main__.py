"""`python -m nexus_channels`: the log multiplexer, a short benchmark, and what this build can do."""

import argparse
import os
import sys

from . import __version__
from ._programs import info, mux

PROGRAM = "nexus-channels"
LINES = 1024  # what the multiplexer's channel holds
BYTES = 1 << 20


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # file names may be any bytes
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--version", action="version", version=f"nexus_channels {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    merge = commands.add_parser(
        "mux",
        help="merge logs into one archive",
        description="Merge the lines of several files into one archive, in the order in which they arrive: a thread "
        "a file, all sending into one channel. Each line stands behind the name of its source and a tab. Ctrl-C ends "
        "it cleanly, with all that was read in the archive.",
    )
    merge.add_argument("files", nargs="+", metavar="FILE", help="what to read: files, or pipes such as <(command)")
    merge.add_argument("-o", "--output", required=True, metavar="ARCHIVE", help="what to write; overwritten if there")
    merge.add_argument("-f", "--follow", action="store_true", help="read on as the files grow, like tail -F")
    merge.add_argument(
        "--bytes", action="store_true", help="send blocks of lines through a channel of bytes, no object a line"
    )
    merge.add_argument(
        "--capacity",
        type=_positive,
        metavar="N",
        help=f"lines the channel holds ({LINES:,}), or with --bytes the size of its ring in bytes ({BYTES:,})",
    )
    merge.add_argument("-q", "--quiet", action="store_true", help="no progress bar and no summary")
    merge.set_defaults(command=_mux, parser=merge)

    bench = commands.add_parser(
        "bench",
        help="measure the channels beside other queues, in about a minute",
        description="Measure the channels beside the queues of the standard library, and of janus, culsans, aiologic "
        "and anyio where they are installed, and print a table a scenario. Each is checked before it is timed.",
    )
    bench.add_argument("--quick", action="store_true", help="a few seconds: fewer and shorter rounds")
    bench.set_defaults(command=_bench)

    told = commands.add_parser("info", help="tell how this copy was built and what it can do")
    told.set_defaults(command=info.main)
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def _complain(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr)


# ---- mux -----------------------------------------------------------------------------------------------------------


def _mux(options: argparse.Namespace) -> int:
    try:
        mux.check_paths(options.files, options.output)
    except ValueError as error:
        options.parser.error(str(error))
    capacity = options.capacity or (BYTES if options.bytes else LINES)
    try:
        job = mux.Mux(options.files, options.output, capacity=capacity, follow=options.follow, in_bytes=options.bytes)
    except MemoryError:
        _complain(f"not enough memory for a channel of {capacity:,} {'bytes' if options.bytes else 'lines'}")
        return 1

    if options.follow:
        for path in options.files:
            if not os.path.exists(path):
                _complain(f"waiting for {path}")
    failure = None
    bar = None if options.quiet else mux.progress_bar(job.total_size())
    try:
        job.run(bar.update if bar else lambda _: None)
    except OSError as error:
        failure = f"cannot write {options.output}: {mux.reason(error)}"
    finally:
        if bar:
            bar.close()

    for source in job.sources:
        if source.error:
            _complain(f"cannot read {source.path}: {source.error}")
    if not options.quiet:
        print(job.summary())
    if failure:
        _complain(failure)
        return 1
    if job.signal:
        _complain(f"ended by {job.signal.name}; every line that was read is in {options.output}")
        return 128 + job.signal
    return 1 if any(source.error for source in job.sources) else 0


def _bench(options: argparse.Namespace) -> int:
    from ._programs.bench import command  # it imports whatever it finds to compare with: only when asked for

    return command.main(options)


if __name__ == "__main__":
    sys.exit(main())
