"""Review a challenger beside the champion, and move the alias that it has won or lost."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from assets.steps.handover import handover_reason
from assets.steps.live import Live, champion_of, rows_since
from assets.steps.record import STAGE_TAG
from assets.units import Unit, unit_symbols
from tradewind.clock import Clock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings

if TYPE_CHECKING:
    from registry.reviews import Look
    from registry.tracking import Tracking
    from registry.versions import RegisteredVersion
    from tradewind.models.base import Samples
    from tradewind.models.bundle import ModelBundle

KIND = "review"
PLANNED = "planned"
"""What stands for the verdict of a review that only says what it would compare."""
HANDOVER = "handover"
"""What stands for it where the champion makes way by its age."""
ALIAS_AFTER = {"better": "champion", "worse": "none"}


@dataclass(frozen=True)
class _Pair:
    """A unit's two versions, and where bars begin that are new to both."""

    unit: Unit
    champion: RegisteredVersion
    challenger: RegisteredVersion
    champion_bundle: ModelBundle
    challenger_bundle: ModelBundle

    @property
    def since_ms(self) -> int:
        return max(
            self.champion_bundle.meta.seen_until_ms, self.challenger_bundle.meta.seen_until_ms
        )


def review_challenger(
    settings: Settings,
    clock: Clock,
    unit: Unit,
    *,
    who: str = "pipeline",
    dry_run: bool = False,
) -> Live:
    """Compare a unit's challenger with its champion on all bars new to both, and act on it.

    ``better`` makes it champion, ``worse`` takes its alias away, anything else leaves both as
    they are. The figures, the verdict and the look it cost are tags of its version and a run
    nested in its own. Until there are ``gates.promotion_growth`` times the days of the last look,
    and once ``gates.promotion_looks`` are spent, there is no new look: the last is told again.
    Where no look is due, or it found neither better nor worse, a champion about to expire makes
    way (`handover`).

    ``dry_run`` says what would be compared, and neither predicts nor spends a look.

    Raises
    ------
    TradewindError
        ``no_champion``; ``no_challenger``; ``gates_failed`` where the challenger's gates do not
        stand as passed; ``model_unusable`` where either cannot answer these rows.
    """
    from filelock import FileLock

    from registry.tracking import Tracking

    folder = settings.home / "work" / "review"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{unit.name}.lock"):  # a second review finds the first one's look
        return _review(settings, Tracking(settings), clock, unit, who, dry_run)


def _review(
    settings: Settings, tracking: Tracking, clock: Clock, unit: Unit, who: str, dry_run: bool
) -> Live:
    from registry.reviews import looks_of, record_look
    from tradewind.models.paired_review import (
        days_for_look,
        enough,
        too_few_text,
        whole_days,
    )

    pair = _pair_of(settings, tracking, unit)
    looks = looks_of(pair.challenger, pair.champion.version)
    if looks and not dry_run and _is_pending(tracking, pair, looks[-1]):
        return _carried_out(settings, tracking, pair, looks[-1], who)
    rows = rows_since(settings, clock, unit, pair.since_ms)
    whole, block = whole_days(rows.ts, _horizon_ms(settings))
    count, days, number = int(whole.sum()), len(set(block[whole].tolist())), len(looks) + 1
    needed = days_for_look(settings.gates, number, looks[-1].days if looks else 0)
    due = needed is not None and days >= needed and enough(settings.gates, count, days)
    then: dict[str, Any] = {"days_new_to_both": days, "days_for_next_look": needed}
    aged = _handover(settings, tracking, pair, clock.now_ms())
    if dry_run and aged is not None and not due:
        return _told(pair, HANDOVER, {"rows": 0, "days": 0, "text": aged})
    if dry_run:
        return _told(pair, PLANNED, {"rows": count, **then, "next_look": number, "due": due})
    if not due and aged is not None:
        return _handed_over(tracking, pair, aged, who)
    if not due and looks:
        return _told_look(settings, tracking, pair, looks[-1], then)
    if not due:
        text = too_few_text(settings.gates, count, days)
        return _told(pair, "too_few", {"rows": count, "days": days, "text": text})
    look = _look(settings, pair, number, rows.subset(whole), clock.now_ms())
    record_look(tracking, pair.challenger, look)
    found = _carried_out(settings, tracking, pair, look, who)
    if look.verdict == "not_worse" and aged is not None:
        return _handed_over(tracking, pair, f"{aged}; {look.text}", who)
    return found


def _handover(settings: Settings, tracking: Tracking, pair: _Pair, now_ms: int) -> str | None:
    """Return why the champion makes way for this challenger without being beaten; else None.

    Not for one that is as old itself, nor for one that stood there before: whoever took it back
    had a reason.
    """
    from registry.aliases import history

    registry = settings.registry
    if handover_reason(registry, pair.challenger, now_ms) is not None:
        return None
    stood = pair.challenger.version
    if any(
        change.alias == "champion" and change.from_version == stood
        for change in history(tracking, pair.unit.name)
    ):
        return None
    return handover_reason(registry, pair.champion, now_ms)


def _handed_over(tracking: Tracking, pair: _Pair, aged: str, who: str) -> Live:
    """Let the challenger take the place of a champion that is about to expire.

    Only after every look that is due: one that is found worse is challenger no more.
    """
    from registry.aliases import promote
    from registry.tracking import RunHandle

    promote(
        tracking,
        pair.unit.name,
        pair.challenger.version,
        who=who,
        why=aged,
        instead_of=pair.champion.version,
    )
    tags = {STAGE_TAG: "promoted", "alias": "champion"}
    RunHandle(tracking, pair.challenger.run_id).set_tags(tags)
    return _told(pair, HANDOVER, {"rows": 0, "days": 0, "alias": "champion", "text": aged})


def _pair_of(settings: Settings, tracking: Tracking, unit: Unit) -> _Pair:
    from registry.versions import GATES_PASSED, fetch_bundle, find_alias
    from tradewind.models.bundle import ModelBundle

    champion, champion_bundle = champion_of(settings, unit)
    challenger = find_alias(tracking, unit.name, "challenger")
    if challenger is None:
        raise TradewindError(
            ErrorCode.NO_CHALLENGER,
            f"{unit.name} has no challenger beside its champion {champion.label}",
            f"Run `tradewind train -f {unit.family}`: a version that passes the gates becomes "
            "challenger",
        )
    if challenger.gates != GATES_PASSED:
        raise TradewindError(
            ErrorCode.GATES_FAILED,
            f"challenger {challenger.label} has gates={challenger.gates}, not {GATES_PASSED}",
            "Train again, or make a version challenger whose gates passed",
        )
    folder = fetch_bundle(
        tracking, unit.name, version=challenger.version, cache_dir=settings.home / "models"
    )
    return _Pair(unit, champion, challenger, champion_bundle, ModelBundle.load(folder))


def _look(settings: Settings, pair: _Pair, number: int, rows: Samples, now_ms: int) -> Look:
    """Compare the two on ``rows``, at the level of this look."""
    from registry.reviews import Look
    from tradewind.features.definitions import feature_version
    from tradewind.models.metrics import classification_metrics
    from tradewind.models.paired_review import alpha_of_look, paired_review

    asked: dict[str, Any] = {
        "n_samples": settings.training.judge_passes,
        "feature_version": feature_version(settings),
    }
    champion_p = pair.champion_bundle.predict(rows, **asked).p_up
    challenger_p = pair.challenger_bundle.predict(rows, **asked).p_up
    review = paired_review(
        rows.ts,
        champion_p,
        challenger_p,
        rows.y_up,
        horizon_ms=_horizon_ms(settings),
        alpha=alpha_of_look(settings.gates),
        settings=settings.gates,
    )
    own = classification_metrics(challenger_p, rows.y_up)
    other = classification_metrics(champion_p, rows.y_up)
    return Look(
        champion=pair.champion.version,
        number=number,
        alpha=review.alpha,
        verdict=review.verdict.value,
        rows=review.rows,
        days=review.days,
        start_ms=int(rows.ts.min()),
        end_ms=int(rows.ts.max()),
        when_ms=now_ms,
        text=review.text,
        figures={
            **review.figures(),
            **own,
            **{f"{name}_champion": value for name, value in other.items()},
        },
    )


def _is_pending(tracking: Tracking, pair: _Pair, look: Look) -> bool:
    """Tell whether a review was killed between its look and what follows from it.

    An alias that did follow, and was set back by a person since, is not moved a second time.
    """
    from registry.aliases import history

    if look.state == "done":
        return False
    return all(change.why != _why(look) for change in history(tracking, pair.unit.name))


def _why(look: Look) -> str:
    return f"review, look {look.number} beside version {look.champion}: {look.text}"


def _carried_out(settings: Settings, tracking: Tracking, pair: _Pair, look: Look, who: str) -> Live:
    """Log a look, let the alias follow it, and mark it done; repeating is harmless."""
    from registry.aliases import promote, withdraw
    from registry.reviews import record_look
    from registry.tracking import RunHandle

    _log(settings, tracking, pair, look)
    name, version = pair.unit.name, pair.challenger.version
    if look.verdict == "better":
        promote(tracking, name, version, who=who, why=_why(look), instead_of=look.champion)
    elif look.verdict == "worse":
        withdraw(tracking, name, version, who=who, why=_why(look), beside=look.champion)
    alias = ALIAS_AFTER.get(look.verdict, "challenger")
    RunHandle(tracking, pair.challenger.run_id).set_tags(
        {STAGE_TAG: "judged" if alias == "none" else "promoted", "alias": alias}
    )
    done = replace(look, state="done")
    record_look(tracking, pair.challenger, done)
    return _told_look(settings, tracking, pair, done, {"alias": alias})


def _log(settings: Settings, tracking: Tracking, pair: _Pair, look: Look) -> None:
    """Log a look as a run nested in the one that made the challenger, once."""
    from registry.names import review_name, span_text

    unit, challenger = pair.unit, pair.challenger
    identity = _identity(pair, look)
    if tracking.find_run({**identity, STAGE_TAG: "judged"}) is not None:
        return
    now_ms = time.time_ns() // 1_000_000
    tracking.log_finished(
        review_name(unit.family, unit.key, challenger.version, look.champion, look.number),
        run_id=tracking.find_run(identity),
        parent_run_id=challenger.run_id,
        tags={
            **identity,
            "family": unit.family,
            "model_key": unit.key,
            "symbols": " ".join(unit_symbols(settings, unit)),
            "profile": settings.profile.value,
            "data_span": span_text(look.start_ms, look.end_ms),
            "verdict": look.verdict,
        },
        params={
            "version": challenger.label,
            "champion": pair.champion.label,
            "look": look.number,
            "look_alpha": look.alpha,
        },
        metrics={"rows": look.rows, "days": look.days, **look.figures},
        started_ms=now_ms,
        ended_ms=now_ms,
        description=f"{challenger.label} beside {pair.champion.label}: {look.text}.",
        done={STAGE_TAG: "judged"},
    )


def _identity(pair: _Pair, look: Look) -> dict[str, object]:
    return {
        "kind": KIND,
        "version": pair.challenger.label,
        "champion": pair.champion.label,
        "look": look.number,
    }


def _told_look(
    settings: Settings, tracking: Tracking, pair: _Pair, look: Look, more: dict[str, Any]
) -> Live:
    from registry.links import run_url

    run_id = tracking.find_run(_identity(pair, look))
    page = run_url(settings, tracking.experiment_id, run_id) if run_id else None
    return _told(
        pair,
        look.verdict,
        {
            "look": look.number,
            "look_alpha": look.alpha,
            "rows": look.rows,
            "days": look.days,
            **more,
            **look.figures,
            "text": look.text,
            **({"mlflow_url": page} if page else {}),
        },
    )


def _told(pair: _Pair, verdict: str, figures: dict[str, Any]) -> Live:
    shown = {
        "verdict": verdict,
        "champion": pair.champion.label,
        "alias": "challenger",
        **figures,
        "new_from_ms": pair.since_ms,
    }
    return Live(pair.challenger.label, int(figures["rows"]), shown)


def _horizon_ms(settings: Settings) -> int:
    """Return the time from a bar's open to the close of its label's last bar."""
    return (settings.training.horizon + 1) * settings.market.timeframe_ms
