"""Which models make up the ensemble of a symbol: who votes, who is silent, who is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.expiry import Expiry
from serving.loaded import LoadedModel
from serving.models import Snapshot, unavailable
from tradewind.contracts import DisabledMember
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.members import MemberState
from tradewind.models.ensemble import voting_families
from tradewind.models.supervisor import QUALITY
from tradewind.settings import Settings


@dataclass(frozen=True)
class Chosen:
    """The models of one answer by family.

    ``members`` vote. ``silent`` are disabled for what they say: they say it on with weight 0,
    so that they can be judged. ``missing`` names every family without a vote, ``disabled`` those
    of them that have a version which may not vote: disabled, or expired.
    """

    members: Mapping[str, LoadedModel]
    missing: tuple[str, ...] = ()
    silent: Mapping[str, LoadedModel] = field(default_factory=dict)
    disabled: tuple[DisabledMember, ...] = ()


def choose(snapshot: Snapshot, settings: Settings, symbol: str, expiry: Expiry) -> Chosen:
    """Return the ensemble of a symbol.

    A member disabled for its latency, for errors or by hand is not asked at all: it could
    delay or break the answer. Nor is an expired one: a retraining is due, not a judgement.

    Raises
    ------
    TradewindError
        ``no_champion`` (or why there is none loaded) where nobody is left to vote;
        ``model_expired`` where that is because they are too old.
    """
    members: dict[str, LoadedModel] = {}
    silent: dict[str, LoadedModel] = {}
    missing: list[str] = []
    disabled: list[DisabledMember] = []
    expired: list[LoadedModel] = []
    for family in voting_families(settings):
        model = snapshot.resolve(family, symbol)
        state = None if model is None else snapshot.disabling(model, symbol)
        outdated = model is not None and expiry.expired(model)
        if model is not None and state is None and not outdated:
            members[family] = model
            continue
        missing.append(family)
        if model is not None and state is not None:
            disabled.append(_named(state))
            if state.code in QUALITY and not outdated:
                silent[family] = model
        elif model is not None:
            expired.append(model)
            disabled.append(expiry.left_out(model))
    if not members:
        if expired and len(expired) == len(disabled):
            raise expiry.error(expired)
        if disabled:
            raise _all_disabled(symbol, disabled)
        raise unavailable(snapshot, " or ".join(missing), symbol)
    return Chosen(members, tuple(missing), silent, tuple(disabled))


def _named(state: MemberState) -> DisabledMember:
    return DisabledMember(
        family=state.family, key=state.key, code=state.code.value, why=state.why, who=state.who
    )


def _all_disabled(symbol: str, disabled: list[DisabledMember]) -> TradewindError:
    said = "; ".join(f"{item.family}.{item.key} by {item.who}: {item.why}" for item in disabled)
    return TradewindError(
        ErrorCode.NO_CHAMPION,
        f"every member of the ensemble of {symbol} is disabled ({said})",
        "Look at `tradewind members`; retrain, or run `tradewind members enable NAME --reason …`",
    )
