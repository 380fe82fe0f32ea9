"""The ensemble's answer from its members' forecasts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from serving.loaded import LoadedModel, RowForecast
from serving.signals import signal_of
from tradewind.contracts import Action, DisabledMember, Signal
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.ensemble import Member, combine_members, silent_vote
from tradewind.settings import ServingSettings

log = logging.getLogger("tradewind.serving")

VOTED = {Action.BUY: Signal.ENTRY_LONG, Action.SELL: Signal.ENTRY_SHORT, Action.HOLD: Signal.HOLD}
NOBODY: Mapping[str, LoadedModel] = {}
WORST_FIRST = ("failed", "unknown")


def values_of(
    models: Mapping[str, LoadedModel],
    forecasts: Mapping[str, RowForecast | TradewindError],
    missing: Sequence[str],
    settings: ServingSettings,
    *,
    silent: Mapping[str, LoadedModel] = NOBODY,
    disabled: Sequence[DisabledMember] = (),
) -> dict[str, Any]:
    """Return the fields of a `Prediction` that come from the models.

    Parameters
    ----------
    models, forecasts
        By family; a member whose forecast failed is left out and named.
    missing
        Members without a champion, or disabled.
    silent
        Of the disabled ones, those that are asked all the same: their votes have weight 0.
    disabled
        Who is disabled, and why.

    Raises
    ------
    TradewindError
        ``no_champion`` if no member is left; if the last one failed, why it did.
    """
    members, failed = _members(models, forecasts)
    unheard, _ = _members(silent, forecasts)
    if failed and not members:
        raise next(iter(failed.values()))
    gone = (*missing, *failed)
    found = combine_members(
        members, threshold=settings.base_threshold, missing=gone, rules=settings.vote
    )
    epistemic_p = _alone(members)
    if epistemic_p is None:
        epistemic_p = found.epistemic_p
    suggested = signal_of(found.p_up, epistemic_p, settings)
    return {
        "p_up": found.p_up,
        "mu": found.mu,
        "uncertainty": found.uncertainty,
        "epistemic": found.epistemic,
        "aleatoric": found.aleatoric,
        "epistemic_p": epistemic_p,
        "confidence": found.confidence,
        "conviction": found.conviction,
        "signal": suggested if suggested is VOTED[found.action] else Signal.HOLD,
        "mc_samples": _mc_samples(models, forecasts),
        "model_version": found.version,
        "gates": _gates([models[member.family] for member in members]),
        "consensus": found.consensus,
        "votes": (
            *found.votes,
            *(silent_vote(member, settings.base_threshold) for member in unheard),
        ),
        "missing_members": found.missing,
        "disabled_members": tuple(disabled),
        # A refused input is strange, not the member: it must not count against it.
        "failed_members": tuple(
            family for family, error in failed.items() if error.code is not ErrorCode.OUT_OF_RANGE
        ),
        "mu_low": found.mu_low,
        "mu_high": found.mu_high,
        "out_of_range": _out_of_range(members, forecasts),
    }


def _members(
    models: Mapping[str, LoadedModel], forecasts: Mapping[str, RowForecast | TradewindError]
) -> tuple[list[Member], dict[str, TradewindError]]:
    members: list[Member] = []
    failed: dict[str, TradewindError] = {}
    for family, model in models.items():
        forecast = forecasts[family]
        if isinstance(forecast, TradewindError):
            if forecast.code is ErrorCode.OVERLOADED:
                # It says nothing of the member, which the supervisor would count as lost.
                raise forecast
            log.warning("member %s is left out: %s", model.model_version, forecast)
            failed[family] = forecast
            continue
        members.append(
            Member(
                family=family,
                version=model.model_version,
                p_up=forecast.p_up,
                mu=forecast.mu,
                epistemic=forecast.epistemic,
                aleatoric=forecast.aleatoric,
                epistemic_p=forecast.epistemic_p,
                confidence=forecast.confidence,
                conviction=forecast.conviction,
                skill=model.skill,
                mu_low=forecast.mu_low,
                mu_high=forecast.mu_high,
                latency_ms=forecast.elapsed_ms,
            )
        )
    return members, failed


def _out_of_range(
    members: Sequence[Member], forecasts: Mapping[str, RowForecast | TradewindError]
) -> tuple[str, ...]:
    """Return the inputs that are outside the training range of any member that answers."""
    names: dict[str, None] = {}
    for member in members:
        forecast = forecasts[member.family]
        if isinstance(forecast, RowForecast):
            names |= dict.fromkeys(forecast.out_of_range)
    return tuple(names)


def _alone(members: Sequence[Member]) -> float | None:
    """Return the only speaking member's own epistemic_p, None where there are several.

    One member has no spread to others; zero would pass it off as certain.
    """
    speaking = [member for member in members if member.skill > 0] or list(members)
    return speaking[0].epistemic_p if len(speaking) == 1 else None


def _mc_samples(
    models: Mapping[str, LoadedModel], forecasts: Mapping[str, RowForecast | TradewindError]
) -> int | None:
    """Return the passes of the stochastic member, None if there is none."""
    for family, model in models.items():
        forecast = forecasts[family]
        if model.stochastic and isinstance(forecast, RowForecast):
            return forecast.passes
    return None


def _gates(models: Sequence[LoadedModel]) -> str:
    """Return the worst of the members' gates."""
    states = {model.gates for model in models}
    return next((state for state in WORST_FIRST if state in states), "passed")
