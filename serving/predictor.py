"""From a question about symbols to predictions: pure Python, no web framework.

One snapshot of the models is taken per request and kept; rows of all symbols go through
each model in one batched forward; what is wrong with one symbol does not touch another.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from serving import ensemble
from serving.expiry import Expiry
from serving.live_view import LiveView
from serving.loaded import Item, LoadedModel, RowForecast
from serving.members import Chosen, choose
from serving.metrics import ServingMetrics
from serving.models import CHALLENGER, CHAMPION, Snapshot, SnapshotSource, unavailable
from serving.prediction_log import PredictionLog
from serving.questions import FAMILY, MODEL_TYPE, Ask, Kind, Problem, Question
from serving.signals import signal_of
from tradewind.clock import Clock
from tradewind.contracts import DisabledMember, Prediction, decision_id
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.samples import FeatureRow
from tradewind.ledger.records import PredictionRecord, Role
from tradewind.settings import RangeSettings, ServingSettings, Settings

Answer = Prediction | Problem


@dataclass(frozen=True)
class _Ready:
    """An ask whose features and models are there."""

    ask: Ask
    row: FeatureRow
    members: Mapping[str, LoadedModel]
    missing: tuple[str, ...] = ()
    silent: Mapping[str, LoadedModel] = field(default_factory=dict)
    disabled: tuple[DisabledMember, ...] = ()

    @property
    def asked(self) -> Mapping[str, LoadedModel]:
        """Return every model whose forecast is wanted, those of disabled members too."""
        return {**self.members, **self.silent}

    @property
    def item(self) -> Item:
        return Item(self.row, self.ask.seed)


Forecasts = Mapping[tuple[str, str], RowForecast | TradewindError]
"""Model version and symbol to its forecast, or to why there is none."""


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
    ) -> None:
        self._settings = settings
        self._view = view
        self._clock = clock
        self._table = table
        self._metrics = metrics
        self._log = log

    def ask(self, question: Question, asks: Sequence[Ask]) -> list[Answer]:
        """Return one answer an ask, in order: a prediction, or why there is none."""
        started = time.perf_counter()
        snapshot = self._table.snapshot
        expiry = Expiry.now(self._settings, self._clock)
        with self._metrics.stage(question.endpoint, "features"):
            prepared = [self._prepare(snapshot, expiry, question, ask) for ask in asks]
        ready = [item for item in prepared if isinstance(item, _Ready)]
        with self._metrics.stage(question.endpoint, "forward"):
            forecasts = _forward(ready, question.n_samples, self._settings.serving.ranges)
        answers = [
            item if isinstance(item, Problem) else self._answer(question, item, forecasts)
            for item in prepared
        ]
        latency_ms = (time.perf_counter() - started) * 1000
        self._record(question, asks, answers, latency_ms)
        return answers

    def ask_one(self, question: Question, ask: Ask) -> Prediction:
        """Return the prediction for one symbol; raise why there is none."""
        answer = self.ask(question, [ask])[0]
        if isinstance(answer, Problem):
            raise answer.error
        return answer

    def _prepare(
        self, snapshot: Snapshot, expiry: Expiry, question: Question, ask: Ask
    ) -> _Ready | Problem:
        try:
            self._check_known(ask.symbol)
            chosen = self._members(snapshot, expiry, question, ask.symbol)
            row = self._view.latest(ask.symbol)
            self._check_fresh(row, question.allow_stale)
        except TradewindError as error:
            return Problem(ask.symbol, error)
        if ask.window is not None:
            row = _with_window(row, ask.window)
        return _Ready(
            ask, row, chosen.members, chosen.missing, chosen.silent, tuple(chosen.disabled)
        )

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

    def _answer(self, question: Question, ready: _Ready, forecasts: Forecasts) -> Answer:
        found = {
            family: forecasts[model.model_version, _key(ready)]
            for family, model in ready.asked.items()
        }
        try:
            if question.kind is Kind.ENSEMBLE:
                values = ensemble.values_of(
                    ready.members,
                    found,
                    ready.missing,
                    self._settings.serving,
                    silent=ready.silent,
                    disabled=ready.disabled,
                )
            else:
                values = _single_values(ready, found, self._settings.serving)
            return self._prediction(question, ready, values)
        except TradewindError as error:
            return Problem(ready.ask.symbol, error)

    def _prediction(
        self, question: Question, ready: _Ready, values: Mapping[str, Any]
    ) -> Prediction:
        settings, row = self._settings, ready.row
        return Prediction(
            symbol=row.symbol,
            model_type=MODEL_TYPE[question.kind],
            bar_ts=row.bar_ts,
            staleness_s=row.staleness_s,
            stale=row.staleness_s > settings.serving.staleness_limit_s,
            regime=row.regime,
            regime_computed=row.regime_computed,
            regime_state=row.regimes[0].regime.value,
            regime_confidence=row.regimes[0].confidence,
            feature_version=row.feature_version,
            features_fingerprint=row.fingerprint,
            decision_id=ready.ask.decision_id or self._decision_id(ready),
            served_by=question.alias,
            **values,
        )

    def _decision_id(self, ready: _Ready) -> str:
        """Return the decision that the answer belongs to; a caller's own window has none."""
        if ready.ask.window is not None:
            return ""
        settings, row = self._settings, ready.row
        return decision_id(
            settings.engine.strategy, row.symbol, settings.market.timeframe, row.bar_ts
        )

    def _record(
        self, question: Question, asks: Sequence[Ask], answers: Sequence[Answer], latency_ms: float
    ) -> None:
        """Count every prediction, and log those on the store's features.

        An answer to a caller's own window says nothing about the market's bar, so it must
        not be joined with that bar's outcome, nor move its gauges: it is left out.
        """
        shadow = question.alias != CHAMPION
        request_id = uuid.uuid4().hex
        records = []
        for ask, answer in zip(asks, answers, strict=True):
            if isinstance(answer, Problem) or ask.window is not None:
                continue
            self._metrics.answered(answer, shadow=shadow)
            if question.kind is Kind.ENSEMBLE:
                self._metrics.voted(answer)
            role: Role = "shadow" if shadow else "champion"
            records.append(PredictionRecord(answer, role, latency_ms, request_id))
        self._log.put(records)


def _forward(ready: Sequence[_Ready], n_samples: int, ranges: RangeSettings) -> Forecasts:
    """Run each model once over the rows of all symbols that it answers for."""
    by_model: dict[str, tuple[LoadedModel, dict[str, Item]]] = {}
    items: defaultdict[str, dict[str, Item]] = defaultdict(dict)
    for entry in ready:
        for model in entry.asked.values():
            items[model.model_version][_key(entry)] = entry.item
            by_model[model.model_version] = (model, items[model.model_version])
    found: dict[tuple[str, str], RowForecast | TradewindError] = {}
    for version, (model, rows) in by_model.items():
        started = time.perf_counter()
        try:
            forecasts: Sequence[RowForecast | TradewindError] = model.forecast(
                list(rows.values()), n_samples
            )
        except TradewindError as error:
            forecasts = [_alone(model, item, n_samples, error) for item in rows.values()]
        elapsed_ms = (time.perf_counter() - started) * 1000
        found |= {
            (version, key): _within(_timed(value, elapsed_ms), version, ranges)
            for key, value in zip(rows, forecasts, strict=True)
        }
    return found


def _timed(
    forecast: RowForecast | TradewindError, elapsed_ms: float
) -> RowForecast | TradewindError:
    """Return the forecast with the time of its forward, which all its rows share."""
    if isinstance(forecast, TradewindError):
        return forecast
    return replace(forecast, elapsed_ms=elapsed_ms)


def _within(
    forecast: RowForecast | TradewindError, version: str, ranges: RangeSettings
) -> RowForecast | TradewindError:
    """Return the forecast, or why it is none: inputs unlike training, where that refuses."""
    if isinstance(forecast, TradewindError) or not forecast.out_of_range:
        return forecast
    if ranges.action != "refuse":
        return forecast
    return TradewindError(
        ErrorCode.OUT_OF_RANGE,
        f"inputs outside the training range of {version}: {', '.join(forecast.out_of_range)}",
        "Retrain on bars like these, or set TRADEWIND_SERVING__RANGES__ACTION=flag",
    )


def _alone(
    model: LoadedModel, item: Item, n_samples: int, shared: TradewindError
) -> RowForecast | TradewindError:
    """Return one row's forecast after its batch failed, so that the bad row is found."""
    try:
        return model.forecast([item], n_samples)[0]
    except TradewindError as error:
        return error


def _key(entry: _Ready) -> str:
    """Return what tells the rows of one request apart."""
    return f"{entry.row.symbol}|{entry.row.fingerprint}|{entry.ask.seed}"


def _single_values(
    ready: _Ready,
    found: Mapping[str, RowForecast | TradewindError],
    settings: ServingSettings,
) -> dict[str, Any]:
    family, model = next(iter(ready.members.items()))
    forecast = found[family]
    if isinstance(forecast, TradewindError):
        raise forecast
    return {
        "p_up": forecast.p_up,
        "mu": forecast.mu,
        "uncertainty": forecast.uncertainty,
        "epistemic": forecast.epistemic,
        "aleatoric": forecast.aleatoric,
        "epistemic_p": forecast.epistemic_p,
        "confidence": forecast.confidence,
        "conviction": forecast.conviction,
        "signal": signal_of(forecast.p_up, forecast.epistemic_p, settings),
        "mc_samples": forecast.passes if model.stochastic else None,
        "model_version": model.model_version,
        "gates": model.gates,
        "mu_low": forecast.mu_low,
        "mu_high": forecast.mu_high,
        "out_of_range": forecast.out_of_range,
    }


def _with_window(row: FeatureRow, window: np.ndarray[Any, Any]) -> FeatureRow:
    """Return the row with the caller's window, under a fingerprint of its own."""
    digest = hashlib.sha256(np.ascontiguousarray(window).tobytes()).hexdigest()
    return replace(row, deep=window, fingerprint=f"window-{digest[:16]}")
