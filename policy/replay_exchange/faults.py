"""What can go wrong with an answer, on request or at random."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tradewind.errors import ErrorCode, TradewindError

RETRY_AFTER_S = 1
SLOW_S = 3.0


class FaultKind(StrEnum):
    """One way for an answer to go wrong."""

    TOO_MANY_REQUESTS = "429"
    BANNED = "418"
    SERVER_ERROR = "5xx"
    DROP_BEFORE = "drop-before"
    """The connection breaks before the exchange does anything."""
    DROP_AFTER = "drop-after"
    """The exchange does what was asked; the connection breaks before it says so."""
    CUT = "cut"
    """The connection breaks in the middle of the body."""
    EMPTY = "empty"
    TRUNCATED = "truncated"
    """Half of the JSON, sent as if it were whole."""
    HTML = "html"
    NULL = "null"
    UNFINISHED = "unfinished"
    """The newest candles are given, the open one among them, whatever span was asked for."""
    DUPLICATED = "duplicated"
    OUT_OF_ORDER = "out-of-order"
    MISSING_ROWS = "missing-rows"
    MISSING_PAGE = "missing-page"
    """An empty list instead of rows."""
    REPEATED_PAGE = "repeated-page"
    """The last answer that the same path gave, whatever is asked now."""
    SLOW = "slow"
    BODY = "body"
    """Any text: the fault's ``body``."""


@dataclass
class Fault:
    """A fault to inject.

    Parameters
    ----------
    kind
        What goes wrong.
    path
        Only requests whose path contains this.
    after
        Matching requests to answer well first.
    times
        Matching requests to answer badly then.
    retry_after_s
        Of 429 and 418; None sends no such header.
    delay_s
        Of a slow answer.
    body
        Sent in place of the answer by `FaultKind.BODY`.
    """

    kind: FaultKind
    path: str = ""
    after: int = 0
    times: int = 1
    retry_after_s: float | None = RETRY_AFTER_S
    delay_s: float = SLOW_S
    body: str = ""


@dataclass
class Faults:
    """Faults waiting for their request, then random ones.

    Parameters
    ----------
    rates
        Probability of each kind for any request.
    seed
        Of the random ones.
    queue
        Faults asked for; the first that matches a request is used up by it.
    done
        How often each kind has been injected.
    """

    rates: Mapping[FaultKind, float] = field(default_factory=dict)
    seed: int = 0
    queue: list[Fault] = field(default_factory=list)
    done: Counter[FaultKind] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Check that the rates are probabilities that leave room for good answers."""
        if min(self.rates.values(), default=0) < 0 or sum(self.rates.values()) > 1:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"fault rates {dict(self.rates)} are not probabilities with a sum up to 1",
                "Give each between 0 and 1, such as 429:0.05",
            )
        self._random = random.Random(self.seed)

    def add(self, fault: Fault) -> None:
        """Put a fault at the end of the queue."""
        self.queue.append(fault)

    def clear(self) -> None:
        """Forget the faults that nobody has met yet."""
        self.queue.clear()

    def take(self, path: str) -> Fault | None:
        """Return the fault that a request of ``path`` meets, if any."""
        fault = self._queued(path) or self._drawn()
        if fault is not None:
            self.done[fault.kind] += 1
        return fault

    def _queued(self, path: str) -> Fault | None:
        for fault in self.queue:
            if fault.path not in path:
                continue
            if fault.after > 0:
                fault.after -= 1
                return None
            fault.times -= 1
            if fault.times <= 0:
                self.queue.remove(fault)
            return fault
        return None

    def _drawn(self) -> Fault | None:
        if not self.rates:
            return None
        drawn = self._random.random()
        for kind, rate in self.rates.items():
            if drawn < rate:
                return Fault(kind)
            drawn -= rate
        return None


def parse_fault(text: str) -> tuple[FaultKind, float]:
    """Return kind and probability of a text such as ``429:0.05``.

    Raises
    ------
    TradewindError
        ``bad_input``, naming the kinds that there are.
    """
    kind, _, rate = text.partition(":")
    try:
        return FaultKind(kind), float(rate)
    except ValueError as error:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"fault {text!r} is not KIND:PROBABILITY",
            f"Write it as 429:0.05; kinds: {', '.join(FaultKind)}",
        ) from error
