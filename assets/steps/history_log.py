"""An evaluation over the history in MLflow: the evaluation, its forecasters, their folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.steps.record import log_changed
from registry.folds import FoldLog
from registry.links import artifact_url, run_url
from registry.names import history_name, unit_name
from registry.tracking import RunHandle, Tracking
from tradewind.contracts import POOLED

if TYPE_CHECKING:
    from assets.steps.history import HistoryPlan
    from tradewind.models.rolling.evaluate import Evaluation
    from tradewind.models.rolling.walk import FoldNews

KIND = "history_evaluation"
PART_KIND = "history_forecaster"
INPUTS_TAG = "evaluation_inputs"
ARTIFACTS = "evaluation"
REPORT_FILE = "report.html"


class HistoryLog:
    """Logs folds as they end, then figures and files; a repeat continues the same runs.

    Raises
    ------
    TradewindError
        ``tracking_unreachable``.
    """

    def __init__(self, plan: HistoryPlan, dagster_run_id: str) -> None:
        self.plan = plan
        self.tracking = Tracking(plan.settings)
        self.tags: dict[str, object] = {
            "data_fingerprint": plan.facts["data_fingerprint"],
            "feature_version": plan.facts["feature_version"],
            "symbols": " ".join(plan.facts["symbols"]),
            "source": plan.facts["bars_from"],
            "profile": plan.settings.profile.value,
            "dagster_run_id": dagster_run_id,
            INPUTS_TAG: plan.token,
        }
        self.run_id = ""
        self._parts: dict[tuple[str, str], str] = {}
        self._folds: FoldLog | None = None
        self._stack = ExitStack()

    @property
    def run_url(self) -> str | None:
        """Return the page of the evaluation's run, where an address is known."""
        return run_url(self.plan.settings, self.tracking.experiment_id, self.run_id)

    @property
    def report_url(self) -> str | None:
        """Return the page that shows the report among the run's artifacts."""
        artifact = f"{ARTIFACTS}/{REPORT_FILE}"
        experiment = self.tracking.experiment_id
        return artifact_url(self.plan.settings, experiment, self.run_id, artifact)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold the evaluation's run open; it fails with the body."""
        tags = {**self.tags, "kind": KIND}
        facts = self.plan.facts
        known = self.tracking.find_run({"kind": KIND, INPUTS_TAG: self.plan.token})
        name = history_name(facts["evaluation"]["since"], facts["end_ms"], self.plan.families)
        with self.tracking.start_run(name, run_id=known, tags=tags, params=self._params()) as run:
            self.run_id = run.run_id
            with self._stack:
                yield

    def __call__(self, news: FoldNews) -> None:
        """Log a fold under its family's run, which is opened with the first of them."""
        if news.result is None:
            return
        key = (news.family, news.key)
        if key not in self._parts:
            self._stack.close()  # the family before is done
            tags = self._part_tags(*key)
            run = self._stack.enter_context(
                self.tracking.start_run(
                    unit_name(*key),
                    run_id=self._known(*key),
                    parent_run_id=self.run_id,
                    tags=tags,
                )
            )
            self._parts[key] = run.run_id
            self._folds = FoldLog(self.tracking, run.run_id, tags)
        assert self._folds is not None
        self._folds(news.result)

    def record(self, evaluation: Evaluation, folder: Path) -> None:
        """Log the figures of every forecaster, what compares them, and the files."""
        self._stack.close()
        for name, scopes in evaluation.figures["same"].items():
            keys = [key for key in self._parts if key[0] == name]
            for family, key in keys or [(name, POOLED)]:
                metrics = _metrics(scopes, None if key == POOLED else key)
                gap = evaluation.against.get(f"{name}_minus_base_rate")
                if gap and key == POOLED:
                    metrics |= _gap("log_loss_minus_base_rate", gap)
                self._record_part(family, key, metrics)
        run = RunHandle(self.tracking, self.run_id)
        log_changed(run, _comparison(evaluation))
        run.log_artifact(folder, ARTIFACTS)

    def _record_part(self, name: str, key: str, metrics: Mapping[str, float]) -> None:
        known = self._parts.get((name, key)) or self._known(name, key)
        with self.tracking.start_run(
            unit_name(name, key),
            run_id=known,
            parent_run_id=self.run_id,
            tags=self._part_tags(name, key),
        ) as run:
            log_changed(run, metrics)

    def _known(self, name: str, key: str) -> str | None:
        return self.tracking.find_run(self._part_identity(name, key))

    def _part_identity(self, name: str, key: str) -> dict[str, object]:
        return {
            "kind": PART_KIND,
            "family": name,
            "model_key": key,
            INPUTS_TAG: self.plan.token,
        }

    def _part_tags(self, name: str, key: str) -> dict[str, object]:
        return {**self.tags, **self._part_identity(name, key)}

    def _params(self) -> dict[str, object]:
        params: dict[str, object] = {}
        for name, value in self.plan.facts.items():
            if isinstance(value, Mapping):
                params |= {f"{name}.{part}": own for part, own in value.items()}
            elif isinstance(value, list):
                params[name] = " ".join(map(str, value))
            else:
                params[name] = value
        return params


def _metrics(scopes: Mapping[str, Mapping[str, Any]], symbol: str | None) -> dict[str, float]:
    """Return a forecaster's figures; of a model of one symbol, those of that symbol."""
    if symbol is not None:
        return _numbers(scopes.get(symbol, scopes["pooled"]))
    found = _numbers(scopes["pooled"])
    for name, figures in scopes.items():
        if name != "pooled":
            found |= {f"{name}/{figure}": v for figure, v in _numbers(figures).items()}
    return found


def _comparison(evaluation: Evaluation) -> dict[str, float]:
    """Return what stands on the evaluation's own run."""
    luck = evaluation.luck
    found = {"trials": float(luck["trials"]), "judging_seconds": evaluation.seconds}
    if luck["overfitting"]:
        found["overfitting_probability"] = luck["overfitting"]["probability"]
    gap = evaluation.against.get("ensemble_minus_best_member")
    return found | (_gap("log_loss_ensemble_minus_best_member", gap) if gap else {})


def _gap(name: str, gap: Mapping[str, Any]) -> dict[str, float]:
    return {f"{name}{end}": float(gap[f"value{end}"]) for end in ("", "_low", "_high")}


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
