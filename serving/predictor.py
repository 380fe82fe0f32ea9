"""From a question about symbols to predictions: pure Python, no web framework.

One snapshot of the models is taken per request and kept; rows of all symbols go through
each model in one batched forward; what is wrong with one symbol does not touch another.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from serving.answering import Forecasts, Ready, answer_of, forward
from serving.canary import drawn, with_canary
from serving.expiry import Expiry
from serving.live_view import LiveView
from serving.members import Chosen, choose
from serving.metrics import ServingMetrics
from serving.models import CHALLENGER, CHAMPION, Snapshot, SnapshotSource, unavailable
from serving.pinned import PinnedVersions
from serving.prediction_log import PredictionLog
from serving.questions import (
    FAMILY,
    Ask,
    Kind,
    Problem,
    Question,
    check_decision_id,
)
from serving.request_log import current, ledger_id
from serving.shadow import ShadowDesk
from tradewind.clock import Clock
from tradewind.contracts import Prediction, decision_id
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.samples import FeatureRow
from tradewind.ledger.records import PredictionRecord, Role
from tradewind.settings import Settings

log = logging.getLogger("tradewind.serving")

Answer = Prediction | Problem


class Predictor:
    """Answers questions with the models that the table holds at that moment."""

    def __init__(
        self,
        settings: Settings,
        *,
        view: LiveView,
        clock: Clock,
        table: SnapshotSource,
        metrics: ServingMetrics,
        log: PredictionLog,
        shadow: ShadowDesk | None = None,
        pinned: PinnedVersions | None = None,
    ) -> None:
        self._settings = settings
        self._view = view
        self._clock = clock
        self._table = table
        self._metrics = metrics
        self._log = log
        self._shadow = shadow
        self._pinned = pinned

    def ask(self, question: Question, asks: Sequence[Ask]) -> list[Answer]:
        """Return one answer an ask, in order: a prediction, or why there is none."""
        started = time.perf_counter()
        snapshot = self._table.snapshot
        expiry = Expiry.now(self._settings, self._clock)
        with self._metrics.stage(question.endpoint, "features"):
            prepared = [self._prepare(snapshot, expiry, question, ask) for ask in asks]
        ready = [item for item in prepared if isinstance(item, Ready)]
        with self._metrics.stage(question.endpoint, "forward"):
            forecasts = forward(ready, question.n_samples, self._settings.serving.ranges)
        answers = [
            item if isinstance(item, Problem) else self._answer(question, item, forecasts)
            for item in prepared
        ]
        _note(asks, answers)
        latency_ms = (time.perf_counter() - started) * 1000
        self._record(question, asks, answers, latency_ms)
        if self._shadow is not None:
            answered = [
                item
                for item, answer in zip(prepared, answers, strict=True)
                if isinstance(item, Ready) and isinstance(answer, Prediction)
            ]
            self._shadow.offer(snapshot, expiry, question, answered, forecasts)
        return answers

    def ask_one(self, question: Question, ask: Ask) -> Prediction:
        """Return the prediction for one symbol; raise why there is none."""
        answer = self.ask(question, [ask])[0]
        if isinstance(answer, Problem):
            raise answer.error
        return answer

    def _prepare(
        self, snapshot: Snapshot, expiry: Expiry, question: Question, ask: Ask
    ) -> Ready | Problem:
        try:
            self._check_known(ask.symbol)
            check_decision_id(ask.decision_id)
            chosen = self._members(snapshot, expiry, question, ask.symbol)
            row = self._view.latest(ask.symbol)
            self._check_fresh(row, question.allow_stale)
        except TradewindError as error:
            return Problem(ask.symbol, error)
        if ask.window is not None:
            row = _with_window(row, ask.window)
        ready = Ready(
            ask,
            row,
            self._decision_id(ask, row),
            question.pin.served_by if question.pin else question.alias,
            chosen.members,
            chosen.missing,
            chosen.silent,
            chosen.disabled,
        )
        return ready if question.pin else self._canary(snapshot, expiry, ready) or ready

    def _canary(self, snapshot: Snapshot, expiry: Expiry, ready: Ready) -> Ready | None:
        """Return the canary's part where the decision falls to it; other aliases have none."""
        if ready.served_by != CHAMPION or ready.ask.window is not None:
            return None
        if not drawn(ready.decision_id, self._settings.serving.canary_share):
            return None
        return with_canary(snapshot, expiry, ready)

    def _check_known(self, symbol: str) -> None:
        known = self._settings.market.symbols
        if symbol not in known:
            raise TradewindError(
                ErrorCode.UNKNOWN_SYMBOL,
                f"symbol = {symbol!r} is not traded here",
                f"Known symbols: {', '.join(known)}",
            )

    def _check_fresh(self, row: FeatureRow, allow_stale: bool) -> None:
        limit = self._settings.serving.staleness_limit_s
        if row.staleness_s > limit and not allow_stale:
            raise TradewindError(
                ErrorCode.STALE_FEATURES,
                f"the features of {row.symbol} are {row.staleness_s:.0f} s late, "
                f"more than {limit:.0f} s (last bar {row.bar_ts})",
                "Launch the Dagster job `ingest`, or ask with allow_stale=1",
            )

    def _members(
        self, snapshot: Snapshot, expiry: Expiry, question: Question, symbol: str
    ) -> Chosen:
        """Return the models that answer, by family, and the members that do not."""
        if question.kind is Kind.ENSEMBLE:
            return choose(snapshot, self._settings, symbol, expiry)
        family = FAMILY[question.kind]
        if question.pin is not None:
            assert self._pinned is not None, "only a running server takes pins"
            pinned = self._pinned.find(snapshot, family, symbol, question.pin)
            expiry.check(pinned)
            return Chosen({family: pinned})
        model = snapshot.resolve(family, symbol, question.alias)
        if model is not None:
            expiry.check(model)
            return Chosen({family: model})
        if question.alias == CHALLENGER:
            raise TradewindError(
                ErrorCode.NO_CHALLENGER,
                f"no challenger of {family} shadows {symbol}",
                "Ask without shadow=1, or launch the Dagster job `retrain`: a version that "
                "passes the gates becomes challenger",
            )
        raise unavailable(snapshot, family, symbol)

    def _answer(self, question: Question, ready: Ready, forecasts: Forecasts) -> Answer:
        """Return the answer; where a canary failed, the champions'."""
        serving, symbol = self._settings.serving, ready.ask.symbol
        try:
            found = answer_of(serving, question, ready, forecasts)
        except TradewindError as error:
            # An overload is no failure of the canary's; the champion's turn would be as far.
            if ready.instead is None or error.code is ErrorCode.OVERLOADED:
                return Problem(symbol, error)
            return self._champions(question, ready.instead, error)
        if ready.instead is None:
            return found
        if not _spoke(ready, found):
            failed = TradewindError(ErrorCode.MODEL_UNUSABLE, "the canary gave no forecast", "")
            return self._champions(question, ready.instead, failed)
        self._metrics.canaried(symbol, "answered")
        return found

    def _champions(self, question: Question, ready: Ready, error: TradewindError) -> Answer:
        """Answer what a canary could not: it costs a forward, never the answer."""
        log.warning(
            "a canary did not answer for %s, its champion does: %s", ready.ask.symbol, error
        )
        self._metrics.canaried(ready.ask.symbol, "failed")
        forecasts = forward([ready], question.n_samples, self._settings.serving.ranges)
        return self._answer(question, ready, forecasts)

    def _decision_id(self, ask: Ask, row: FeatureRow) -> str:
        """Return the decision that the answer belongs to; a caller's own window has none."""
        if ask.decision_id:
            return ask.decision_id
        if ask.window is not None:
            return ""
        settings = self._settings
        return decision_id(
            settings.engine.strategy, row.symbol, settings.market.timeframe, row.bar_ts
        )

    def _record(
        self, question: Question, asks: Sequence[Ask], answers: Sequence[Answer], latency_ms: float
    ) -> None:
        """Count every prediction, and log those on the store's features.

        An answer to a caller's own window says nothing about the market's bar, so it must
        not be joined with that bar's outcome, nor move its gauges: it is left out. So is an
        answer of a pinned version, which no one may trade on or judge that version by.
        """
        shadow = question.alias != CHAMPION
        request_id = ledger_id()
        records = []
        for ask, answer in zip(asks, answers, strict=True):
            if isinstance(answer, Problem) or ask.window is not None:
                continue
            if question.pin is not None:
                self._metrics.pinned.labels(answer.symbol).inc()
                continue
            self._metrics.answered(answer, shadow=shadow)
            if question.kind is Kind.ENSEMBLE:
                self._metrics.voted(answer)
            role: Role = "shadow" if shadow else "champion"
            records.append(PredictionRecord(answer, role, latency_ms, request_id))
        self._log.put(records)


def _note(asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
    """Tell the request's line in the log what was asked and who answered."""
    note = current()
    if note is None:
        return
    note.symbols += [ask.symbol for ask in asks]
    versions = dict.fromkeys(note.model_versions)
    for answer in answers:
        if isinstance(answer, Problem):
            note.problems.append(answer.error.code.value)
        else:
            note.decision_ids.append(answer.decision_id)
            versions[answer.model_version] = None
    note.model_versions = list(versions)


def _spoke(ready: Ready, answer: Prediction) -> bool:
    """Tell whether the canary is in the answer: an ensemble leaves out a member that failed."""
    return not set(answer.failed_members) & set(ready.changed)


def _with_window(row: FeatureRow, window: np.ndarray[Any, Any]) -> FeatureRow:
    """Return the row with the caller's window, under a fingerprint of its own."""
    digest = hashlib.sha256(np.ascontiguousarray(window).tobytes()).hexdigest()
    return replace(row, deep=window, fingerprint=f"window-{digest[:16]}")
