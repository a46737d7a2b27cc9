"""Lines out of chunks: whole ones, and parts of those that are too long."""

from collections.abc import Iterator

__all__ = ["CHUNK", "LONGEST", "Lines", "cut", "tagged"]

CHUNK = 1 << 16  # bytes read at once
LONGEST = 1 << 20  # bytes of the longest line that is archived in one piece
NEWLINE = ord("\n")
MANY = 1000  # pieces of an unfinished line that are kept apart: each costs more memory than the bytes in it


class Lines:
    """Puts the chunks of one file together to lines, and keeps the line that is not finished yet."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._pieces: list[bytes] = []
        self.begun = 0  # bytes of the unfinished line

    def add(self, chunk: bytes, start: int = 0) -> Iterator[tuple[bytes, int, bool]]:
        """What the chunk finishes: (text, where whole lines begin in it, True), or (a part of a longer line, 0, False).

        The bytes in front of `start` are the last of those that were added before. A text may have other lines in front
        of the whole ones, and the beginning of one behind them.
        """
        end = chunk.rfind(b"\n", start) + 1
        if not end:
            yield from self._keep(chunk[start:])
            return
        first = chunk.find(b"\n", start)
        if self.begun + first - start > self._longest:
            yield from self._keep(chunk[start:first])
            start = first
        begin = start - self.begun
        if begin == 0 or (begin > 0 and chunk[begin - 1] == NEWLINE):
            text = chunk  # the unfinished line is in it, too: nothing has to be copied
        else:
            with memoryview(chunk) as view, view[start:end] as lines:
                text, begin = b"".join((*self._pieces, lines)), 0
        # Kept before the lines are handed on: nothing is forgotten if nobody takes them.
        self._begin(chunk[end:])
        yield text, begin, True
        yield from self._keep(b"")

    def take(self) -> bytes:
        """The unfinished line, which is forgotten."""
        text = b"".join(self._pieces)
        self._begin(b"")
        return text

    def _begin(self, piece: bytes) -> None:
        self._pieces = [piece] if piece else []
        self.begun = len(piece)

    def _keep(self, piece: bytes) -> Iterator[tuple[bytes, int, bool]]:
        if piece:
            self._pieces.append(piece)
            self.begun += len(piece)
        if self.begun <= self._longest and len(self._pieces) < MANY:
            return
        text = self.take()
        while len(text) > self._longest:
            part, text = text[: self._longest], text[self._longest :]
            self._begin(text)
            yield part, 0, False
        self._begin(text)


def tagged(text: bytes, prefix: bytes) -> bytes:
    """Lines as they stand in the archive: each behind the prefix. `text` ends with a newline."""
    shifted = text.replace(b"\n", b"\n" + prefix)  # the first prefix stands at the end
    with memoryview(shifted) as view, view[: -len(prefix)] as rest:
        return b"".join((prefix, rest))


def cut(text: bytes, limit: int, lines: int) -> Iterator[tuple[int, int, int]]:
    """The messages to send a text in, as (start, end, lines): each ends with a newline, or else has none in it.

    `lines` is how many the text has: so they are counted only where it is cut.
    """
    start = 0
    while len(text) - start > limit:
        end = text.rfind(b"\n", start, start + limit) + 1
        inside = text.count(b"\n", start, end) if end else 0
        end = end or start + limit
        yield start, end, inside
        lines -= inside
        start = end
    if start < len(text):
        yield start, len(text), lines
