"""From rows and models to answers: the forwards of a request, and what they say of each symbol.

No models are chosen here and nothing is logged: the predictor does this for what was asked, the
shadow desk again for the challengers.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from serving import ensemble
from serving.loaded import Item, LoadedModel, RowForecast
from serving.questions import MODEL_TYPE, Ask, Kind, Question
from serving.signals import signal_of
from tradewind.contracts import DisabledMember, Prediction
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.samples import FeatureRow
from tradewind.settings import RangeSettings, ServingSettings

log = logging.getLogger("tradewind.serving")


@dataclass(frozen=True)
class Ready:
    """An ask whose features and models are there.

    ``served_by`` is the alias that answers; where that is the canary, ``instead`` has the
    champions, who answer if it fails.
    """

    ask: Ask
    row: FeatureRow
    decision_id: str
    served_by: str
    members: Mapping[str, LoadedModel]
    missing: tuple[str, ...] = ()
    silent: Mapping[str, LoadedModel] = field(default_factory=dict)
    disabled: tuple[DisabledMember, ...] = ()
    instead: Ready | None = None

    @property
    def asked(self) -> Mapping[str, LoadedModel]:
        """Return every model whose forecast is wanted, those of disabled members too."""
        return {**self.members, **self.silent}

    @property
    def changed(self) -> tuple[str, ...]:
        """Return the families whose model is not the one that stands by."""
        if self.instead is None:
            return ()
        return tuple(f for f, model in self.members.items() if self.instead.members[f] != model)

    @property
    def item(self) -> Item:
        return Item(self.row, self.ask.seed)


Forecasts = Mapping[tuple[str, str], RowForecast | TradewindError]
"""Model version and symbol to its forecast, or to why there is none."""


def answer_of(
    settings: ServingSettings, question: Question, ready: Ready, forecasts: Forecasts
) -> Prediction:
    """Return the prediction for one symbol.

    Raises
    ------
    TradewindError
        Why the model gave none; of an ensemble, why its last member did not.
    """
    found = {
        family: forecasts[model.model_version, key_of(ready)]
        for family, model in ready.asked.items()
    }
    if question.kind is Kind.ENSEMBLE:
        values = ensemble.values_of(
            ready.members,
            found,
            ready.missing,
            settings,
            silent=ready.silent,
            disabled=ready.disabled,
        )
    else:
        values = _single_values(ready, found, settings)
    row = ready.row
    return Prediction(
        symbol=row.symbol,
        model_type=MODEL_TYPE[question.kind],
        bar_ts=row.bar_ts,
        staleness_s=row.staleness_s,
        stale=row.staleness_s > settings.staleness_limit_s,
        regime=row.regime,
        regime_computed=row.regime_computed,
        regime_state=row.regimes[0].regime.value,
        regime_confidence=row.regimes[0].confidence,
        feature_version=row.feature_version,
        features_fingerprint=row.fingerprint,
        decision_id=ready.decision_id,
        served_by=ready.served_by,
        **values,
    )


def forward(ready: Sequence[Ready], n_samples: int, ranges: RangeSettings) -> Forecasts:
    """Run each model once over the rows of all symbols that it answers for."""
    by_model: dict[str, tuple[LoadedModel, dict[str, Item]]] = {}
    items: defaultdict[str, dict[str, Item]] = defaultdict(dict)
    for entry in ready:
        for model in entry.asked.values():
            items[model.model_version][key_of(entry)] = entry.item
            by_model[model.model_version] = (model, items[model.model_version])
    found: dict[tuple[str, str], RowForecast | TradewindError] = {}
    for version, (model, rows) in by_model.items():
        started = time.perf_counter()
        try:
            forecasts: Sequence[RowForecast | TradewindError] = model.forecast(
                list(rows.values()), n_samples
            )
        except TradewindError as error:
            if error.code is ErrorCode.OVERLOADED:  # no row's fault: each would wait as long again
                forecasts = [error] * len(rows)
            else:
                forecasts = [_alone(model, item, n_samples) for item in rows.values()]
        except Exception as error:
            log.exception("%s failed on %d rows", version, len(rows))
            forecasts = [_broken(version, error)] * len(rows)
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


def _alone(model: LoadedModel, item: Item, n_samples: int) -> RowForecast | TradewindError:
    """Return one row's forecast after its batch failed, so that the bad row is found."""
    try:
        return model.forecast([item], n_samples)[0]
    except TradewindError as error:
        return error


def _broken(version: str, error: Exception) -> TradewindError:
    """Return what is said of a version with a fault of its own: it is that version's alone."""
    return TradewindError(
        ErrorCode.MODEL_UNUSABLE,
        f"{version} failed: {type(error).__name__}: {error}",
        "Roll back with the Dagster job `rollback`, or train again",
    )


def key_of(entry: Ready) -> str:
    """Return what tells the rows of one request apart."""
    return f"{entry.row.symbol}|{entry.row.fingerprint}|{entry.ask.seed}"


def _single_values(
    ready: Ready,
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
