"""What is registered, what is loaded, how old and how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from serving.expiry import Expiry, age_days
from serving.members import choose
from serving.metrics import LEAST_MEMBERS
from serving.models import SERVED_ALIASES, Snapshot
from tradewind.errors import TradewindError
from tradewind.settings import Settings

if TYPE_CHECKING:
    from serving.loaded import LoadedModel
    from serving.runtime import Runtime


def of(runtime: Runtime, families: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the state of every model that can answer for a traded symbol.

    Parameters
    ----------
    families
        Only these; all of them if None.
    """
    snapshot = runtime.table.snapshot
    settings = runtime.settings
    expiry = runtime.expiry()
    not_ready = snapshot.not_ready(settings, expiry)
    wanted = [
        family for family in settings.training.families if families is None or family in families
    ]
    return {
        "ready": not_ready is None,
        "not_ready": None if not_ready is None else not_ready.body(),
        "registry": None if snapshot.problem is None else snapshot.problem.body(),
        "members": _members(snapshot),
        "ensembles": [
            _ensemble(snapshot, settings, symbol, expiry) for symbol in settings.market.symbols
        ],
        "models": [
            entry
            for symbol in settings.market.symbols
            for family in wanted
            for alias in SERVED_ALIASES
            if (entry := _entry(runtime, snapshot, family, symbol, alias, expiry)) is not None
        ],
    }


def _members(snapshot: Snapshot) -> dict[str, Any]:
    """Return the members' states, and whether they are of now or the last known ones."""
    members = snapshot.members
    return {
        "read_ms": members.read_ms,
        "problem": None if members.problem is None else members.problem.body(),
        "states": [
            {
                "family": state.family,
                "key": state.key,
                "state": state.state.value,
                "code": state.code.value,
                "why": state.why,
                "who": state.who,
                "held": state.held,
                "since_ms": state.since_ms,
                "version": state.version,
            }
            for state in members.states.values()
        ],
    }


def _ensemble(
    snapshot: Snapshot, settings: Settings, symbol: str, expiry: Expiry
) -> dict[str, Any]:
    """Return who votes for a symbol, and who does not."""
    try:
        chosen = choose(snapshot, settings, symbol, expiry)
    except TradewindError as error:
        return {"symbol": symbol, "voting": [], "few": True, "problem": error.body()}
    least = settings.serving.vote.least_skill
    voting = [family for family, model in chosen.members.items() if max(least, model.skill) > 0]
    return {
        "symbol": symbol,
        "voting": voting,
        "without_skill": [family for family in chosen.members if family not in voting],
        "few": len(voting) < LEAST_MEMBERS,
        "missing": list(chosen.missing),
        "disabled": [item.model_dump() for item in chosen.disabled],
    }


def _entry(
    runtime: Runtime, snapshot: Snapshot, family: str, symbol: str, alias: str, expiry: Expiry
) -> dict[str, Any] | None:
    slot = snapshot.slot(family, symbol, alias)
    if slot is None:
        return None
    model = snapshot.models.get(slot)
    failure = snapshot.failures.get(slot)
    entry: dict[str, Any] = {
        "symbol": symbol,
        "family": family,
        "alias": alias,
        "name": slot[0],
        "registered_version": snapshot.wanted.get(slot),
        "loaded": model is not None,
        "last_swap_ms": snapshot.swapped_ms.get(slot),
        "load_error": None if failure is None else failure.reason,
    }
    if model is not None:
        entry |= _details(runtime, snapshot, model, symbol, expiry)
    return entry


def _details(
    runtime: Runtime, snapshot: Snapshot, model: LoadedModel, symbol: str, expiry: Expiry
) -> dict[str, Any]:
    meta = model.bundle.meta
    now_ms = expiry.now_ms
    age = None if now_ms is None else round(age_days(model, now_ms), 3)
    limit = runtime.settings.registry.max_model_age_days
    return {
        "version": model.registered.version,
        "model_version": model.model_version,
        "trained_at": model.registered.tags.get("trained_at"),
        "data_end_ms": meta.data_end_ms,
        "age_days": age,
        "too_old": None if age is None else age > limit,
        "expired": None if age is None else expiry.expired(model),
        "expiry_days": expiry.limit_days or None,
        "gates": model.gates,
        "enabled": not snapshot.is_disabled(model, symbol),
        "skill": model.skill,
        "metrics": {**meta.metrics, **model.registered.metrics},
        "calibration": model.bundle.calibrator.kind,
        "run_id": model.registered.run_id,
        "loaded_ms": model.loaded_ms,
    }
