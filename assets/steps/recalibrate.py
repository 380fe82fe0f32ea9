"""Give the champion a new calibrator, from what it said last week and what came of it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.steps.judge import clean_process_gates
from assets.steps.live import Live, champion_of
from assets.steps.record import verdict_tags
from assets.units import Unit, unit_symbols
from tradewind.clock import Clock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_json
from tradewind.settings import MS_PER_DAY, Settings

if TYPE_CHECKING:
    from registry.versions import RegisteredVersion
    from tradewind.models.base import FloatArray, IntArray, Samples
    from tradewind.models.bundle import ModelBundle
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.evaluation import EvaluationReport
    from tradewind.models.gates import GateReport
    from tradewind.models.live_calibration import Answered

MIN_DAYS = 20
"""Days of bars that a training set is built from at least."""
KEPT, REGISTERED = "kept", "registered"


@dataclass(frozen=True)
class _Evidence:
    """What was served, with the symbols it was about, and what could be found of it again."""

    history: Answered
    recent: Answered
    training_set: TrainingSet
    rows: Samples
    served: FloatArray
    rolled: FloatArray
    until_ms: int


def recalibrate_champion(
    settings: Settings, clock: Clock, unit: Unit, *, who: str = "pipeline"
) -> Live:
    """Refit the champion's calibrator on its last answers, and register what comes of it.

    Where no update of the served probabilities is clearly better than none, nothing is
    registered (``outcome`` "kept"). Otherwise the forecaster with its new calibrator is a new
    version, which has to pass the same gates as a retrained one: skill, the paired comparison
    with the champion and uncertainty on last week's rows, each day calibrated by what was
    known before it; ECE on the rows of ``calibration.live_history_days``, in the same way.
    Running it again at the same market time gives the same version.

    Raises
    ------
    TradewindError
        ``no_champion``; ``not_enough_labels`` where too few of its answers have an outcome.
    """
    from tradewind.models.live_calibration import fit_update, updated

    champion, bundle = champion_of(settings, unit)
    found = _evidence(settings, clock, unit, champion, bundle)
    calibration = settings.calibration
    choice = fit_update(
        found.recent, horizon=settings.training.horizon, needed=calibration.live_min_labels
    )
    _check_rows(settings, found)
    figures: dict[str, Any] = {
        "outcome": KEPT,
        "labels": len(found.recent),
        "update": choice.kind,
        **{f"log_loss_{kind}": score for kind, score in choice.scores.items()},
    }
    if choice.kind == "identity":
        return Live(champion.label, len(found.recent), figures)
    calibrator = updated(bundle.calibrator, choice.calibrator)
    reference = bundle.reference.recalibrated(
        choice.calibrator.apply(found.recent.p_up), bins=settings.drift.bins
    )
    fresh = replace(bundle, calibrator=calibrator, reference=reference)
    report = _report(settings, fresh, found)
    work = settings.home / "work" / "recalibrate" / unit.name / _token(champion, found.recent)
    fresh = _saved(fresh, report, work)
    found.training_set.save(work / "training_set")
    gates = _gates(settings, fresh, report, found, work)
    version, alias = _registered(settings, unit, champion, fresh, report, gates, found, work, who)
    return Live(
        champion.label,
        len(found.recent),
        {
            **figures,
            "outcome": REGISTERED,
            "new_version": version.label,
            "alias": alias or "none",
            "gates": "passed" if gates.passed else "failed",
            "gates_failed": " ".join(g.name for g in gates.gates if not g.passed) or "none",
            "log_loss_minus_champion": _minus_champion(report, found),
        },
    )


def _evidence(
    settings: Settings, clock: Clock, unit: Unit, champion: RegisteredVersion, bundle: ModelBundle
) -> _Evidence:
    import numpy as np

    from tradewind.ledger import fill_outcomes, open_ledger
    from tradewind.ledger.answers import realised_answers
    from tradewind.market.ingest import store_for
    from tradewind.models.dataset import build_training_set
    from tradewind.models.live_calibration import Answered, rolled
    from tradewind.models.training import rows_of

    now, horizon = clock.now_ms(), settings.training.horizon
    calibration, store = settings.calibration, store_for(settings)
    with open_ledger(settings) as ledger:
        fill_outcomes(settings, ledger, store, now)
        said = realised_answers(
            ledger,
            unit.name,
            horizon=horizon,
            since_ms=now - calibration.live_history_days * MS_PER_DAY,
            until_ms=now,
        )
    names = ("bar_ts", "version", "p_up", "y_up")
    history = Answered(*(said[name].to_numpy() for name in names))
    symbols = said["symbol"].to_numpy()
    own = (history.version == champion.version) & (
        history.ts >= now - calibration.live_days * MS_PER_DAY
    )
    p_rolled = rolled(
        history,
        days=calibration.live_days,
        horizon_ms=(horizon + 1) * settings.market.timeframe_ms,
        horizon=horizon,
        needed=calibration.live_min_labels,
    )
    built = build_training_set(
        settings,
        store,
        now,
        symbols=unit_symbols(settings, unit),
        days_back=max(MIN_DAYS, calibration.live_days + 1),
    )
    samples = rows_of(built.samples, unit.key)
    place = {
        (samples.symbols[code], int(ts)): row
        for row, (code, ts) in enumerate(zip(samples.symbol, samples.ts, strict=True))
    }
    pairs = [
        (place[key], row)
        for row in np.flatnonzero(own)
        if (key := (str(symbols[row]), int(history.ts[row]))) in place
    ]
    found: IntArray = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return _Evidence(
        history=replace(history, p_up=p_rolled),
        recent=history.subset(own),
        training_set=built,
        rows=samples.subset(found[:, 0]),
        served=history.p_up[found[:, 1]],
        rolled=p_rolled[found[:, 1]],
        until_ms=now,
    )


def _check_rows(settings: Settings, found: _Evidence) -> None:
    """Refuse to judge on fewer rows than it takes to fit: the others' bars are gone."""
    needed = settings.calibration.live_min_labels
    if len(found.rows) < needed:
        raise TradewindError(
            ErrorCode.NOT_ENOUGH_LABELS,
            f"{len(found.rows)} of {len(found.recent)} answers with an outcome have features in "
            f"the store; {needed} are needed",
            "Ingest the bars of the last days again: run `tradewind ingest`",
        )


def _report(settings: Settings, bundle: ModelBundle, found: _Evidence) -> EvaluationReport:
    """Measure last week's rows, each day by what was known before it."""
    import numpy as np

    from tradewind.models.evaluation import judge_rows

    forecast = bundle.predict(found.rows, n_samples=settings.training.judge_passes)
    confidence = 2 * np.abs(found.rolled - 0.5)
    forecast = replace(
        forecast,
        p_up=found.rolled,
        confidence=confidence,
        conviction=bundle.reference.conviction(confidence),
    )
    base = {"base_rate": np.full(len(found.rows), bundle.meta.base_rate)}
    return judge_rows(settings, bundle, found.rows, forecast, base)


def _saved(bundle: ModelBundle, report: EvaluationReport, work: Path) -> ModelBundle:
    """Save the bundle with its figures, once, and return what the files hold."""
    from tradewind.models.bundle import ModelBundle

    folder = work / "bundle"
    if not folder.exists():
        metrics = {name: float(v) for name, v in report.metrics().items() if v is not None}
        update = {"metrics": metrics, "created_ms": time.time_ns() // 1_000_000}
        replace(bundle, meta=bundle.meta.model_copy(update=update)).save(folder)
        write_json(work / "report.json", report.to_json())
    return ModelBundle.load(folder)


def _gates(
    settings: Settings,
    bundle: ModelBundle,
    report: EvaluationReport,
    found: _Evidence,
    work: Path,
) -> GateReport:
    from tradewind.models.gates import GateReport, check_gates, ece_gate

    ece = ece_gate(settings, found.history.p_up, found.history.y)
    checked = check_gates(settings, report, found.served)
    gates = GateReport(tuple(ece if g.name == ece.name else g for g in checked.gates))
    for gate in clean_process_gates(
        settings,
        bundle,
        found.training_set,
        work / "bundle",
        work / "training_set",
        found.until_ms,
    ):
        gates = gates.with_gate(gate)
    return gates


def _registered(
    settings: Settings,
    unit: Unit,
    champion: RegisteredVersion,
    bundle: ModelBundle,
    report: EvaluationReport,
    gates: GateReport,
    found: _Evidence,
    work: Path,
    who: str,
) -> tuple[RegisteredVersion, str | None]:
    from registry.aliases import promote_candidate
    from registry.names import recalibration_name, span_text
    from registry.pyfunc_io import example_of
    from registry.tracking import Tracking
    from registry.versions import register_bundle

    tracking = Tracking(settings)
    start, end = int(found.recent.ts.min()), int(found.recent.ts.max())
    identity = {"kind": "recalibration", "version": champion.label, "work": work.name}
    given, answer = example_of(bundle, found.rows, n_samples=settings.serving.n_samples)
    with tracking.start_run(
        recalibration_name(unit.family, unit.key, champion.version, start, end),
        run_id=tracking.find_run(identity),
        parent_run_id=champion.run_id,
        tags={
            **identity,
            **verdict_tags(gates),
            "family": unit.family,
            "model_key": unit.key,
            "data_span": span_text(start, end),
            "feature_version": bundle.meta.feature_version,
            "data_fingerprint": bundle.meta.data_fingerprint,
        },
        params={"calibrator": bundle.calibrator.kind, "recalibrated_from": champion.label},
    ) as run:
        run.log_metrics({k: v for k, v in report.metrics().items() if v is not None})
        run.log_artifact(work / "report.json", "evaluation")
        version = register_bundle(
            tracking,
            work / "bundle",
            run_id=run.run_id,
            name=unit.name,
            input_example=given,
            output_example=answer,
            description=(
                f"{champion.label} with its calibrator refitted on {len(found.recent)} answers "
                f"and what came of them, {span_text(start, end)}; the forecaster is the same."
            ),
            tags={**verdict_tags(gates), "recalibrated_from": champion.label},
        )
    change = promote_candidate(tracking, version, gates.passed, gates.reasons, who=who)
    return version, None if change is None else change.alias


def _minus_champion(report: EvaluationReport, found: _Evidence) -> float:
    from tradewind.models.metrics import log_loss

    y = report.test.y_up
    return log_loss(found.rolled, y) - log_loss(found.served, y)


def _token(champion: RegisteredVersion, rows: Answered) -> str:
    """Return a name made of all that the new calibrator follows from."""
    digest = hashlib.sha256(champion.label.encode())
    for values in asdict(rows).values():
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]
