"""Write a FIX 4.4 session as a broker's gateway would log it: `python examples/make_fix_session.py > session.fix`.

Logon, market data, orders, executions, cancels, heartbeats, a logout; one message a line. `examples/data/session.fix`
is its output: the same every time.
"""

import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

MESSAGES = 4000
SYMBOLS = {"AAPL": 227.5, "MSFT": 418.2, "SAP.DE": 231.4, "EUR/USD": 1.0842, "ESZ6": 5982.25, "7203.T": 2715.0}


class Session:
    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._clock = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
        self._sequence = 0
        self._ids = 0
        self._prices = dict(SYMBOLS)
        self._open: list[tuple[str, str, str, int]] = []  # id, symbol, side, quantity

    def message(self, kind: str, *fields: tuple[int, object]) -> bytes:
        """One message, with header and trailer."""
        self._sequence += 1
        self._clock += timedelta(microseconds=self._chance.randrange(200, 90_000))
        head = [(35, kind), (34, self._sequence), (49, "GATEWAY"), (52, self._now()), (56, "BROKER")]
        body = b"".join(b"%d=%b\x01" % (tag, as_bytes(value)) for tag, value in [*head, *fields])
        whole = b"8=FIX.4.4\x019=%d\x01%b" % (len(body), body)
        return b"%b10=%03d\x01" % (whole, sum(whole) % 256)

    def messages(self, count: int) -> Iterator[bytes]:
        token = b"salt\x01and\npepper"  # data may hold anything, also what separates fields and lines
        yield self.message("A", (98, 0), (108, 30), (95, len(token)), (96, token), (141, "Y"))
        kinds = [self._quote, self._snapshot, self._order, self._fill, self._cancel]
        for number in range(count - 2):
            if number % 100 == 99:
                yield self.message("0")
                continue
            (make,) = self._chance.choices(kinds, weights=[5, 1, 3, 3, 1])
            yield make()
        yield self.message("5", (58, "end of day"))

    def _now(self) -> str:
        return f"{self._clock:%Y%m%d-%H:%M:%S}.{self._clock.microsecond // 1000:03d}"

    def _id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}{self._clock:%y%m%d}-{self._ids:06d}"

    def _symbol(self) -> tuple[str, float]:
        symbol = self._chance.choice(list(self._prices))
        self._prices[symbol] *= 1 + self._chance.gauss(0, 0.0004)
        return symbol, round(self._prices[symbol], 4 if "/" in symbol else 2)

    def _quote(self) -> bytes:
        symbol, price = self._symbol()
        update = [(279, self._chance.choice("01")), (269, self._chance.choice("01")), (55, symbol), (270, price)]
        return self.message("X", (262, "MD1"), (268, 1), *update, (271, self._chance.randrange(1, 90) * 100))

    def _snapshot(self) -> bytes:
        symbol, price = self._symbol()
        levels = [
            field
            for depth in range(3)
            for side, sign in (("0", -1), ("1", 1))
            for field in ((269, side), (270, round(price * (1 + sign * (depth + 1) / 5000), 4)), (271, 100 << depth))
        ]
        return self.message("W", (262, "MD1"), (55, symbol), (268, 6), *levels)

    def _order(self) -> bytes:
        symbol, price = self._symbol()
        order = (self._id("ORD"), symbol, self._chance.choice("12"), self._chance.randrange(1, 50) * 10)
        self._open.append(order)
        name, _, side, quantity = order
        head = [(11, name), (1, "ACCT-7"), (21, 1), (55, symbol), (54, side), (60, self._now())]
        return self.message("D", *head, (38, quantity), (40, 2), (44, price), (59, 0))

    def _fill(self) -> bytes:
        if not self._open:
            return self._order()
        name, symbol, side, quantity = self._open.pop(self._chance.randrange(len(self._open)))
        price = round(self._prices[symbol], 4)
        report = [(37, f"B{name}"), (11, name), (17, self._id("EX")), (150, "F"), (39, 2), (55, symbol), (54, side)]
        amounts = [(38, quantity), (32, quantity), (31, price), (151, 0), (14, quantity), (6, price)]
        return self.message("8", *report, *amounts, (60, self._now()))

    def _cancel(self) -> bytes:
        if not self._open:
            return self._order()
        name, symbol, side, quantity = self._open.pop(0)
        fields = [(41, name), (11, self._id("CXL")), (55, symbol), (54, side), (60, self._now()), (38, quantity)]
        return self.message("F", *fields, (58, "client request"))


def as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def main() -> None:
    for message in Session(seed=44).messages(MESSAGES):
        sys.stdout.buffer.write(message + b"\n")


if __name__ == "__main__":
    main()
