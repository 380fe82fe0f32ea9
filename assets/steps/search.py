"""Search hyperparameters for one unit; every trial is a run nested in the search's own."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from assets.units import Unit, unit_symbols
from tradewind.clock import Clock
from tradewind.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from registry.tracking import RunHandle, Tracking
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.search import FoldHook, SearchResult, TrialResult

SEARCH_KIND = "search"
TRIAL_KIND = "trial"
TRIAL_TAG = "trial"
REPORT_FILE = "search.json"
TOML_FILE = "tradewind.toml"
GOES_ON_DAYS = 7
"""So long the same search goes on with the bars that it began with; then it begins anew."""

TrialLog = Callable[["TrialResult"], None]


@dataclass(frozen=True)
class SearchReport:
    """What a search found, in plain values; ``toml`` is what `tradewind.toml` would say."""

    family: str
    key: str
    trials: list[dict[str, Any]]
    best: dict[str, Any]
    holdout: dict[str, float]
    verdict: str
    toml: str
    run_id: str
    run_url: str | None
    file: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def search(
    settings: Settings,
    clock: Clock,
    unit: Unit,
    *,
    trials: int | None = None,
    days_back: int | None = None,
    holdout_days: int | None = None,
    dagster_run_id: str = "none",
    on_trial: TrialLog | None = None,
    on_fold: FoldHook | None = None,
) -> SearchReport:
    """Search, or go on with the search of the same bars and settings that was stopped.

    Raises
    ------
    TradewindError
        ``no_bars``, ``not_enough_bars``; ``tracking_unreachable``.
    """
    from filelock import FileLock

    from registry.links import run_url
    from registry.tracking import Tracking, git_commit
    from tradewind.files import write_json
    from tradewind.market.active import store_for
    from tradewind.models.dataset import build_training_set
    from tradewind.models.search import run_search, space_of

    days = settings.search.holdout_days if holdout_days is None else holdout_days
    asked = {**_deciding(settings, unit.family, days), "days_back": days_back}
    folder = settings.home / "work" / SEARCH_KIND / unit.mapping_key
    training_set = build_training_set(
        settings,
        store_for(settings),
        _until(settings, clock, folder / f"begun-{_hash(asked)}.json"),
        symbols=unit_symbols(settings, unit),
        days_back=days_back,
    )
    work = folder / _token(asked, training_set)
    work.mkdir(parents=True, exist_ok=True)
    tags = {
        "family": unit.family,
        "model_key": unit.key,
        "symbols": " ".join(unit_symbols(settings, unit)),
        "data_fingerprint": training_set.data_fingerprint,
        "feature_version": training_set.feature_version,
        "git_commit": git_commit(),
        "dagster_run_id": dagster_run_id,
    }
    tracking = Tracking(settings)
    with (
        FileLock(work / ".search.lock"),
        tracking.start_run(
            f"search {unit.family} {unit.key}",
            run_id=_known_run(work),
            tags={**tags, "kind": SEARCH_KIND},
            params={
                "holdout_days": days,
                "rows": len(training_set.samples),
                **{
                    f"range.{item.path}": f"{item.low}…{item.high}"
                    for item in space_of(unit.family)
                },
            },
        ) as run,
    ):
        write_json(work / "run.json", {"run_id": run.run_id})
        log = _TrialRuns(tracking, run.run_id, tags)

        def tell(trial: TrialResult) -> None:
            log(trial)
            if on_trial is not None:
                on_trial(trial)

        result = run_search(
            settings,
            training_set,
            unit.family,
            unit.key,
            workdir=work,
            trials=trials,
            holdout_days=days,
            on_trial=tell,
            on_fold=on_fold,
        )
        url = run_url(settings, tracking.experiment_id, run.run_id)
        report = _report(result, run.run_id, url, work / REPORT_FILE)
        _record(run, result, report, work)
    return report


class _TrialRuns:
    """Logs each trial once, as a finished run nested in the search's."""

    def __init__(self, tracking: Tracking, parent: str, tags: dict[str, str]) -> None:
        from registry.tracking import PARENT_TAG

        self.tracking, self.parent = tracking, parent
        self.tags = {**tags, "kind": TRIAL_KIND}
        runs = tracking.search(f"tags.`{PARENT_TAG}` = '{parent}' AND tags.`kind` = '{TRIAL_KIND}'")
        self.known = {
            int(run.data.tags[TRIAL_TAG]): (run.info.run_id, run.info.status == "FINISHED")
            for run in runs
        }

    def __call__(self, trial: TrialResult) -> None:
        known, finished = self.known.get(trial.number, (None, False))
        if finished:
            return
        figures = {"score": trial.score, "auc": trial.auc, "seconds": trial.seconds}
        self.tracking.log_finished(
            f"trial {trial.number} · {trial.status}",
            run_id=known,
            parent_run_id=self.parent,
            tags={**self.tags, TRIAL_TAG: trial.number, "status": trial.status},
            params=trial.params,
            metrics={
                "rows": float(trial.rows),
                "folds": float(trial.folds),
                **{name: value for name, value in figures.items() if not math.isnan(value)},
            },
            started_ms=trial.started_ms,
            ended_ms=trial.started_ms + round(trial.seconds * 1000),
            description=trial.error
            or f"log_loss less the base rate's {trial.score:+.6f} over {trial.folds} folds; "
            "below zero is skill"
            + (", the defaults" if trial.number == 1 else ""),
        )


def _report(result: SearchResult, run_id: str, url: str | None, file: Path) -> SearchReport:
    gain = result.holdout_gain
    first, best = result.trials[0], result.best
    if best.number == first.number:
        verdict = "no trial was better than the defaults: keep them"
    elif gain.low > 0:
        verdict = "better than the defaults on days that no trial saw"
    else:
        verdict = (
            "not shown to be better than the defaults on days that no trial saw "
            f"(gain {gain.value:+.6f}, 95 % {gain.low:+.6f} to {gain.high:+.6f}): keep them"
        )
    return SearchReport(
        family=result.family,
        key=result.key,
        trials=[_plain(trial) for trial in result.trials],
        best=_plain(best),
        holdout={
            "rows": float(result.holdout_rows),
            "gain": gain.value,
            "gain_low": gain.low,
            "gain_high": gain.high,
            "auc_best": result.holdout_auc[0],
            "auc_defaults": result.holdout_auc[1],
        },
        verdict=verdict,
        toml=_toml(best.params),
        run_id=run_id,
        run_url=url,
        file=str(file),
    )


def _plain(trial: TrialResult) -> dict[str, Any]:
    """Return a trial as JSON values, in which there is no NaN."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(trial).items()
    }


def _record(run: RunHandle, result: SearchResult, report: SearchReport, work: Path) -> None:
    from tradewind.files import write_json

    values = {name: value for name, value in report.to_dict().items() if name != "file"}
    write_json(work / REPORT_FILE, values)
    run.log_artifact(work / REPORT_FILE)
    run.log_text(report.toml, TOML_FILE)
    run.log_metrics(
        {
            "trials": float(len(result.trials)),
            "score": result.best.score,
            "score_defaults": result.trials[0].score,
            **{f"holdout_{name}": value for name, value in report.holdout.items()},
        }
    )
    run.set_tags({"best_trial": result.best.number, "verdict": report.verdict})


def _toml(params: dict[str, float | int]) -> str:
    lines: dict[str, list[str]] = {}
    for path, value in params.items():
        section, name = path.split(".")
        lines.setdefault(section, []).append(f"{name} = {value}")
    return "\n".join(f"[{section}]\n" + "\n".join(found) for section, found in lines.items())


def _until(settings: Settings, clock: Clock, begun: Path) -> int:
    """Return where a search's bars end: where they ended when the same was asked of late.

    A bar closes every few minutes, and a search takes hours: on newer bars its trials could
    neither go on nor be compared.
    """
    from tradewind.clock import last_closed_bar
    from tradewind.files import write_json
    from tradewind.settings import MS_PER_DAY

    timeframe = settings.market.timeframe
    now_ms = last_closed_bar(clock.now_ms(), timeframe) + settings.market.timeframe_ms
    if begun.is_file():
        known = int(json.loads(begun.read_text(encoding="utf-8"))["until_ms"])
        if 0 <= now_ms - known < GOES_ON_DAYS * MS_PER_DAY:
            return known
    write_json(begun, {"until_ms": now_ms})
    return now_ms


def _deciding(settings: Settings, family: str, holdout_days: int) -> dict[str, Any]:
    """Return the settings that decide the trials; how many there are does not."""
    from tradewind.models.families import family_settings

    sections = ("market", "features", "training", "calibration")
    return {
        "holdout": holdout_days,
        "search": settings.search.model_dump(exclude={"trials", "holdout_days"}),
        **{name: getattr(settings, name).model_dump(mode="json") for name in sections},
        **family_settings(family, settings),
    }


def _token(asked: dict[str, Any], training_set: TrainingSet) -> str:
    """Return a hash of what was asked of which rows."""
    return _hash(
        {
            **asked,
            "data": training_set.data_fingerprint,
            "features": training_set.feature_version,
            "rows": len(training_set.samples),
        }
    )


def _hash(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _known_run(work: Path) -> str | None:
    file = work / "run.json"
    return str(json.loads(file.read_text(encoding="utf-8"))["run_id"]) if file.exists() else None
