"""How it went, for people and for programs."""

from typing import Any

from .files import reason
from .job import Mux

__all__ = ["as_json", "as_table", "status"]


def status(job: Mux) -> int:
    """The exit status: 1 if anything is known to be missing, 128 and the signal's number if one ended it, else 0."""
    if job.failure or job.forced or any(source.account.failed for source in job.sources):
        return 1
    return 128 + job.signal if job.signal else 0


def as_table(job: Mux) -> str:
    """A table of the sources, and how fast it went."""
    titles = ("source", "archived", "read", "parts", "unread bytes", "errors", "held back")
    numbers = [
        (s.whole.written, s.read, s.part.written, s.account.unread, s.account.error_count, s.held) for s in job.sources
    ]
    total = tuple(map(sum, zip(*numbers, strict=True)))
    names = [*(source.name for source in job.sources), "total"]
    rows = [titles, *((name, *(f"{n:,}" for n in row)) for name, row in zip(names, [*numbers, total], strict=True))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join([f"{row[0]:<{widths[0]}}", *(f"{n:>{w}}" for n, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    rate = total[0] / job.seconds if job.seconds else 0.0
    table.append(f"{total[0]:,} lines in {job.seconds:.2f} s, {rate:,.0f} lines/s")
    table.append(f"a full channel held readers back {total[-1]:,} times")
    return "\n".join(table)


def as_json(job: Mux) -> str:
    """The same as one line of JSON; names that are no UTF-8 have surrogates for the bytes that are none."""
    sources = [
        {
            "path": source.path,
            "tag": source.name,
            "lines_read": source.read,
            "lines_archived": source.whole.written,
            "parts_archived": source.part.written,
            "bytes_unread": source.account.unread,
            "held_back": source.held,
            "failed": source.account.failed,
            "error_count": source.account.error_count,
            "errors": [{"time": round(when, 3), "text": text} for when, text in source.account.errors],
        }
        for source in job.sources
    ]
    whole: dict[str, Any] = {
        "archive": job.output,
        "archive_error": reason(job.failure) if job.failure else None,
        "archive_reopened": job.reopened,
        "seconds": round(job.seconds, 6),
        "signal": job.signal.name if job.signal else None,
        "forced": job.forced,
        "exit_status": status(job),
        "sources": sources,
    }
    import json  # not needed by most runs

    return json.dumps(whole)
