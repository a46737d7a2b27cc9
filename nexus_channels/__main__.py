"""`python -m nexus_channels`: merge logs, measure the channels, and print how this copy was built."""

import argparse
import os
import sys

from . import __version__
from ._programs.mux import command as mux_command
from ._programs.streams import claim_descriptors, lenient, settle, show

PROGRAM = "nexus-channels"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    closed = claim_descriptors()
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    lenient(sys.stdout)
    lenient(sys.stderr)
    try:
        options = _parser().parse_args(arguments, argparse.Namespace(closed=closed, program=PROGRAM))
        status: int = options.command(options)
    except KeyboardInterrupt:
        show(f"{PROGRAM}: interrupted", sys.stderr)
        return 130
    except BrokenPipeError:
        return 0  # whoever reads the output has seen enough
    finally:
        settle(sys.stdout)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Merge logs, measure the channels, and print how this copy was built."
    )
    parser.add_argument("--version", action="version", version=f"nexus_channels {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    mux_command.add_to(commands)

    bench = commands.add_parser(
        "bench",
        help="measure the channels beside other queues; takes about a minute",
        description="Measure the channels beside the queues of the standard library, and of janus, culsans, aiologic "
        "and anyio if they are installed. Prints one table for each scenario. Each contender is checked for lost or "
        "reordered items before it is timed.",
    )
    bench.add_argument("--quick", action="store_true", help="take a few seconds only: fewer and shorter rounds")
    bench.set_defaults(command=_bench)

    told = commands.add_parser("info", help="print how this copy was built and what it supports")
    told.set_defaults(command=_info)
    return parser


def _bench(options: argparse.Namespace) -> int:
    from ._programs.bench import command  # it imports whatever it finds to compare with: only when asked for

    return command.main(options)


def _info(options: argparse.Namespace) -> int:
    from ._programs import info  # the metadata of packages takes a while to import

    return info.main(options)


if __name__ == "__main__":
    sys.exit(main())
