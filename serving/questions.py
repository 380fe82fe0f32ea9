"""What can be asked of the predictor, and the answer to one symbol of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from serving.models import CHAMPION
from serving.pinned import Pin
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import Float32Array

MAX_DECISION_ID = 36
"""Length of the ledger's column: that of a UUID."""


class Kind(StrEnum):
    """Which model answers."""

    LIGHTGBM = "lightgbm"
    DEEP = "deep"
    ENSEMBLE = "ensemble"


FAMILY: Mapping[Kind, str] = {Kind.LIGHTGBM: "lightgbm", Kind.DEEP: "transformer"}
MODEL_TYPE: Mapping[Kind, str] = {
    Kind.LIGHTGBM: "lightgbm",
    Kind.DEEP: "deep_transformer",
    Kind.ENSEMBLE: "ensemble",
}


@dataclass(frozen=True)
class Ask:
    """One symbol of a request.

    Parameters
    ----------
    symbol
        Exchange id.
    decision_id
        The engine's; derived from strategy, symbol and bar where absent.
    window
        The caller's own deep window, shape (W, D), instead of the store's last bars.
    seed
        Seed of the stochastic passes, instead of the hash of version, symbol and bar.
    """

    symbol: str
    decision_id: str | None = None
    window: Float32Array | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Question:
    """What is asked about all symbols of a request alike.

    A ``pin`` chooses the version in place of the alias; its answer is for looking at alone: it
    is neither logged nor shadowed, and no canary takes its place.
    """

    kind: Kind
    n_samples: int
    alias: str = CHAMPION
    allow_stale: bool = False
    endpoint: str = ""
    pin: Pin | None = None


@dataclass(frozen=True)
class Problem:
    """Why a symbol has no prediction."""

    symbol: str
    error: TradewindError

    def body(self) -> dict[str, str]:
        """Return ``{symbol, error, detail, hint}``."""
        return {"symbol": self.symbol, **self.error.body()}


def check_samples(n_samples: int, limit: int) -> int:
    """Return ``n_samples`` if it is in 1..limit.

    Raises
    ------
    TradewindError
        ``bad_input`` otherwise.
    """
    if not 1 <= n_samples <= limit:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"n_samples = {n_samples} is outside 1..{limit}",
            f"Ask for 1 to {limit} stochastic passes",
        )
    return n_samples


def check_decision_id(given: str | None) -> None:
    """Refuse a decision id that the ledger cannot hold: one such would stop the log's flushes.

    Raises
    ------
    TradewindError
        ``bad_input`` for more than `MAX_DECISION_ID` characters, or others than ASCII's
        printable ones.
    """
    if given is None or (len(given) <= MAX_DECISION_ID and given.isascii() and given.isprintable()):
        return
    raise TradewindError(
        ErrorCode.BAD_INPUT,
        f"decision_id = {given[:MAX_DECISION_ID]!r}… ({len(given)} characters) cannot be logged",
        f"Give at most {MAX_DECISION_ID} printable ASCII characters, as a UUID, or leave it out",
    )


def parse_window(window: Sequence[Sequence[float]], bars: int, features: int) -> Float32Array:
    """Return a caller's window as an array of shape (bars, features).

    Raises
    ------
    TradewindError
        ``bad_input`` for another shape, naming it, or for NaN or Inf, naming the place.
    """
    widths = {len(row) for row in window}
    if len(window) != bars or widths != {features}:
        found = (
            "×".join(("ragged", *map(str, sorted(widths))))
            if len(widths) > 1
            else str(next(iter(widths), 0))
        )
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"window is {len(window)} × {found}, not {bars} × {features}",
            f"Send the last {bars} bars, oldest first, each with the {features} deep features",
        )
    with np.errstate(over="ignore"):  # what is too large for a float32 is refused below
        array = np.asarray(window, dtype=np.float32)
    if not np.isfinite(array).all():
        bar, feature = map(int, np.argwhere(~np.isfinite(array))[0])
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"window[{bar}][{feature}] = {window[bar][feature]} is not a finite float32",
            "Send finite numbers only",
        )
    return array
