"""What a model sees now: the newest row of features, its deep window and its age.

Serving and the policy read features here and nowhere else. Features are causal, so a block
of time is computed once from the store and sliced at the clock: a row that closes later than
the clock is never handed out, and a replay over a full store costs a look-up a bar.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from tradewind.clock import Clock, last_closed_bar, staleness_s
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features._block import FeatureBlock, block_span, read_block
from tradewind.features.definitions import WIDE, feature_version
from tradewind.features.reading import COMPANIONS, read_features
from tradewind.features.samples import FeatureRow as FeatureRow
from tradewind.features.samples import Samples, rows_to_samples
from tradewind.market.store import BarStore
from tradewind.settings import MS_PER_DAY, Settings

VOL_PLACE = WIDE.index("vol_20")
KEPT_BLOCKS = 4
"""Blocks of a symbol held in memory, about 0.4 MB each: a few stretches of time."""


@dataclass(frozen=True)
class _Held:
    """The blocks of one symbol by their start, each with the tokens it was computed at.

    Its own lock: a symbol whose bars have just changed does not make the others wait.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    blocks: OrderedDict[int, tuple[tuple[int, ...], FeatureBlock]] = field(
        default_factory=OrderedDict
    )


class FeatureView:
    """Features as of the clock, from the store; safe to share between threads.

    A block is computed anew when the store's change token of the symbol, of a reference or
    of a companion series moves: also a corrected bar or a refilled gap is seen at once.
    """

    def __init__(self, settings: Settings, store: BarStore, clock: Clock) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.version = feature_version(settings)
        self._held: dict[str, _Held] = {}

    def latest(self, symbol: str) -> FeatureRow:
        """Return the row of the newest closed bar; how stale it is, the caller judges.

        Raises
        ------
        TradewindError
            ``unknown_symbol``, or ``not_enough_bars`` saying how many are missing.
        """
        now = self.clock.now_ms()
        newest = last_closed_bar(now, self.settings.market.timeframe)
        block = self._block(symbol, newest)
        return self._row(symbol, block, block.row_at(newest), now)

    def at(self, symbol: str, bar_ts: int) -> FeatureRow:
        """Return the row as of the bar that opened at ``bar_ts``.

        Raises
        ------
        TradewindError
            As `latest`; ``bad_input`` for a bar that has not closed, ``no_bars`` for one
            that the store does not have.
        """
        now = self.clock.now_ms()
        if bar_ts > last_closed_bar(now, self.settings.market.timeframe):
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"bar_ts = {bar_ts} of {symbol} has not closed at market time {now}",
                "Ask for a bar that has closed",
            )
        block = self._block(symbol, bar_ts)
        row = block.row_at(bar_ts)
        if block.ts.size and (row < 0 or block.ts[row] != bar_ts):
            raise TradewindError(
                ErrorCode.NO_BARS,
                f"{symbol} has no bar with bar_ts = {bar_ts}",
                "Run `tradewind ingest`, or ask for a bar that the exchange has",
            )
        return self._row(symbol, block, row, now)

    def frame(self, symbol: str, *, start_ms: int, until_ms: int) -> pl.DataFrame:
        """Return `compute_features` rows opening from ``start_ms``, closed at ``until_ms``.

        What closes after the clock is left out.
        """
        self._check_known(symbol)
        until = min(until_ms, self.clock.now_ms())
        return read_features(self.settings, self.store, symbol, start_ms=start_ms, until_ms=until)

    @staticmethod
    def rows_to_samples(rows: Sequence[FeatureRow]) -> Samples:
        """Return the rows as one batch in the order given, labels NaN."""
        return rows_to_samples(rows)

    def _block(self, symbol: str, ts: int) -> FeatureBlock:
        self._check_known(symbol)
        start = block_span(self.settings, ts)[0]
        held = self._held.setdefault(symbol, _Held())
        with held.lock:
            # Tokens first: a bar written meanwhile is then seen at the next call.
            tokens = self._tokens(symbol)
            known = held.blocks.get(start)
            if known is None or known[0] != tokens:
                known = tokens, self._read(symbol, ts)
                held.blocks[start] = known
            held.blocks.move_to_end(start)
            while len(held.blocks) > KEPT_BLOCKS:
                held.blocks.popitem(last=False)
        return known[1]

    def _read(self, symbol: str, ts: int) -> FeatureBlock:
        try:
            return read_block(self.settings, self.store, symbol, ts)
        except TradewindError as error:
            if error.code is not ErrorCode.NO_BARS:
                raise
            raise self._not_enough(symbol, "has no bars", self._needed()) from error

    def _tokens(self, symbol: str) -> tuple[int, ...]:
        market = self.settings.market
        names = dict.fromkeys((symbol, *market.reference_symbols))
        bars = (self.store.change_token(name, market.timeframe) for name in names)
        series = (self.store.change_token(symbol, kind) for kind, _ in COMPANIONS.values())
        return (*bars, *series)

    def _row(self, symbol: str, block: FeatureBlock, row: int, now: int) -> FeatureRow:
        self._check_ready(symbol, block, row)
        settings, bar_ts = self.settings, int(block.ts[row])
        timeframe, step = settings.market.timeframe, settings.market.timeframe_ms
        wide = block.wide[row].copy()
        deep = block.deep[row - settings.features.window + 1 : row + 1].copy()
        vol = float(wide[VOL_PLACE])
        return FeatureRow(
            symbol=symbol,
            bar_ts=bar_ts,
            close=float(block.close[row]),
            atr=float(block.atr[row]),
            risk_atr=float(block.risk_atr[row]),
            volatility=vol * math.sqrt(MS_PER_DAY / step),
            scale=vol * math.sqrt(settings.training.horizon),
            wide=wide,
            deep=deep,
            staleness_s=staleness_s(now, bar_ts, timeframe),
            fingerprint=hashlib.sha256(wide.tobytes() + deep.tobytes()).hexdigest()[:32],
            feature_version=self.version,
            regime=block.regime[row],
            regime_computed=block.regime_computed[row],
            regimes=block.readings(row),
        )

    def _needed(self) -> int:
        return self.settings.features.warmup_bars + self.settings.features.window

    def _check_ready(self, symbol: str, block: FeatureBlock, row: int) -> None:
        """Refuse a row whose window is not whole: history too short, or something missing."""
        window, warmup = self.settings.features.window, self.settings.features.warmup_bars
        if row < 0:
            raise self._not_enough(symbol, "has no closed bar yet", self._needed())
        streak, history = int(block.streak[row]), int(block.history[row])
        if streak >= window:
            return
        if history < warmup + window - 1:
            have = f"has {history + 1} bars without a hole of {self._needed()} needed"
            raise self._not_enough(symbol, have, self._needed() - history - 1)
        unknown = ", ".join(block.missing(row))
        why = f"lacks {unknown}" if unknown else "had a hole or a flat market lately"
        have = f"at bar {int(block.ts[row])} {why}; {streak} of {window} bars are usable"
        raise self._not_enough(symbol, have, window - streak, at_least=bool(unknown))

    def _not_enough(
        self, symbol: str, have: str, missing: int, *, at_least: bool = False
    ) -> TradewindError:
        count = f"at least {missing}" if at_least else str(missing)
        return TradewindError(
            ErrorCode.NOT_ENOUGH_BARS,
            f"{symbol} {have}: {count} more {self.settings.market.timeframe} bars are missing",
            "Run `tradewind ingest` (Dagster job `ingest`) for it and its reference symbols",
        )

    def _check_known(self, symbol: str) -> None:
        market = self.settings.market
        if symbol in market.all_symbols:
            return
        stored = self.store.symbols(market.timeframe)
        if symbol in stored:
            return
        known = ", ".join(sorted({*market.all_symbols, *stored}))
        raise TradewindError(
            ErrorCode.UNKNOWN_SYMBOL,
            f"symbol = {symbol!r} is not known; known: {known}",
            "Ask for a known one, or add it to market.symbols and run `tradewind ingest`",
        )
