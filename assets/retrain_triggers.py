"""When a champion should be retrained: rules on plain values, without Dagster and MLflow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from assets.units import Unit
from tradewind.contracts import POOLED
from tradewind.settings import MS_PER_DAY, RetrainTriggerSettings

DRIFT = "drift"
CONCEPT = "concept"
AGE = "age"
TRADES = "trades"
WIN_RATE = "win_rate"
SUPERVISOR = "supervisor"
ALERT = "alert"
CLEARED = {DRIFT: "fine", CONCEPT: "none"}
"""What ends an episode of each alarm; a warning between the two does not."""


KEY_START = "retrain "


@dataclass(frozen=True)
class ClosedTrade:
    """What the rules need of a closed trade."""

    opened_ms: int
    pnl: float


@dataclass(frozen=True)
class ChampionState:
    """A champion and what is known of it: its evidence's end, its drift, the trades of its symbols.

    ``drift`` is the status of the newest measurement of this very version, None without one,
    ``worst_psi`` the PSI of the ``worst_feature`` in it, and
    ``concept`` the verdict of the outcomes in it, ``concept_z`` standard errors from none;
    ``trades`` are those of the symbols it serves, oldest first. ``supervisor`` is why the model
    supervisor asks for a retraining of this version, None where it does not.
    """

    unit: Unit
    version: int
    data_end_ms: int
    drift: str | None
    worst_psi: float | None
    trades: tuple[ClosedTrade, ...]
    concept: str | None = None
    concept_z: float | None = None
    supervisor: str | None = None
    worst_feature: str | None = None

    @property
    def label(self) -> str:
        """Return ``name/version``."""
        return f"{self.unit.name}/{self.version}"


@dataclass(frozen=True)
class Finding:
    """What was looked at in one champion, and why it should be retrained, if at all."""

    champion: ChampionState
    reasons: Mapping[str, str]
    looked_at: str


@dataclass(frozen=True)
class Ask:
    """One retraining to ask for: the form's symbols and families, and each champion's reasons."""

    symbols: tuple[str, ...]
    families: tuple[str, ...]
    why: Mapping[str, Mapping[str, str]]
    attempt: int = 1

    @property
    def key(self) -> str:
        """Return the idempotence key: the same reasons of the same versions, and the attempt."""
        parts = [f"{label}:{'+'.join(sorted(found))}" for label, found in sorted(self.why.items())]
        return f"{KEY_START}{' '.join(parts)} attempt {self.attempt}"

    @property
    def reason(self) -> str:
        """Return the reasons as a person reads them."""
        return "; ".join(
            f"{label} {text}" for label, found in self.why.items() for text in found.values()
        )


def look(
    champion: ChampionState, now_ms: int, limits: RetrainTriggerSettings, *, max_age_days: float
) -> Finding:
    """Return every reason to retrain a champion, with the figures that were looked at.

    Only trades opened after the champion's evidence ends count: older ones are not its own.
    ``max_age_days`` is the age from which every part calls a model too old.
    """
    reasons: dict[str, str] = {}
    psi = "not measured" if champion.worst_psi is None else f"{champion.worst_psi:.3f}"
    if champion.drift == ALERT:
        of = f" of {champion.worst_feature}" if champion.worst_feature else ""
        reasons[DRIFT] = f"drift alarm, worst PSI {psi}{of}"
    z = "not judged" if champion.concept_z is None else f"z {champion.concept_z:.1f}"
    if champion.concept == ALERT:
        reasons[CONCEPT] = f"concept drift alarm, log-loss over its expectation by {z}"
    days = (now_ms - champion.data_end_ms) / MS_PER_DAY
    if days > max_age_days:
        reasons[AGE] = f"{days:.1f} days old, limit {max_age_days:g}"
    own = [trade for trade in champion.trades if trade.opened_ms >= champion.data_end_ms]
    if len(own) >= limits.new_trades:
        reasons[TRADES] = f"{len(own)} new closed trades, limit {limits.new_trades}"
    recent = own[-limits.win_rate_trades :]
    rate = sum(trade.pnl > 0 for trade in recent) / len(recent) if recent else None
    shown = "no trades" if rate is None else f"{rate:.1%} of the last {len(recent)}"
    if rate is not None and len(recent) >= limits.win_rate_trades and rate < limits.min_win_rate:
        reasons[WIN_RATE] = f"win rate {shown} trades, limit {limits.min_win_rate:.0%}"
    if champion.supervisor is not None:
        reasons[SUPERVISOR] = f"the supervisor asks: {champion.supervisor}"
    looked_at = (
        f"{champion.label}: drift {champion.drift or 'not measured'} (PSI {psi}), "
        f"outcomes {champion.concept or 'not measured'} ({z}), "
        f"{days:.1f} of {max_age_days:g} days old, "
        f"{len(own)} of {limits.new_trades} new trades, "
        f"win rate {shown} (limit {limits.min_win_rate:.0%} over {limits.win_rate_trades}), "
        f"supervisor {'asks' if champion.supervisor else 'asks for nothing'}"
    )
    return Finding(champion, reasons, looked_at)


def names_asked(key: str) -> frozenset[str]:
    """Return the registered names that an idempotence key asks for."""
    parts = key.removeprefix(KEY_START).rpartition(" attempt ")[0].split()
    return frozenset(part.rpartition("/")[0] for part in parts)


def asks(findings: Sequence[Finding], asked: Mapping[str, Collection[str]]) -> list[Ask]:
    """Return the retrainings to ask for: one for the pooled champions, one for each symbol.

    ``asked`` are the reasons already asked for, by ``name/version``: they are not asked again.
    """
    by_key: dict[str, list[tuple[ChampionState, dict[str, str]]]] = {}
    for finding in findings:
        before = asked.get(finding.champion.label, ())
        new = {name: text for name, text in finding.reasons.items() if name not in before}
        if new:
            by_key.setdefault(finding.champion.unit.key, []).append((finding.champion, new))
    return [
        Ask(
            symbols=() if key == POOLED else (key,),
            families=tuple(champion.unit.family for champion, _ in group),
            why={champion.label: reasons for champion, reasons in group},
        )
        for key, group in by_key.items()
    ]


def still_asked(
    asked: Mapping[str, Mapping[str, str]], champions: Sequence[ChampionState]
) -> dict[str, dict[str, str]]:
    """Return ``asked`` without the alarms of drift that have been measured to be over.

    An alarm asks once, however often it is measured, and anew once it was cleared in between.
    """
    over = {
        champion.label: {
            name
            for name, state in ((DRIFT, champion.drift), (CONCEPT, champion.concept))
            if state == CLEARED[name]
        }
        for champion in champions
    }
    kept = {
        label: {name: key for name, key in keys.items() if name not in over.get(label, ())}
        for label, keys in asked.items()
    }
    return {label: keys for label, keys in kept.items() if keys}


def remembered(
    asked: Mapping[str, Mapping[str, str]], new: Sequence[Ask], standing: Collection[str]
) -> dict[str, dict[str, str]]:
    """Return ``{name/version: {reason: key of its request}}`` as asked by now.

    Champions that no longer stand are forgotten.
    """
    found = {label: dict(keys) for label, keys in asked.items() if label in standing}
    for ask in new:
        for label, reasons in ask.why.items():
            found.setdefault(label, {}).update(dict.fromkeys(reasons, ask.key))
    return {label: dict(sorted(keys.items())) for label, keys in sorted(found.items())}
