"""Asset checks: what they look at, with their figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    multi_asset_check,
)

from assets.keys import BARS, FEATURES, family_key
from assets.metadata import figures
from assets.partitions import symbols_partition
from assets.platform import Platform
from assets.steps import Drift, Judgement
from assets.workspace import UnitTask

GATE_NAMES = (
    "skill",
    "ece",
    "champion",
    "uncertainty",
    "finite",
    "artefact",
    "smoke",
)
BAR_CHECKS = ("schema", "unique", "ohlc", "gaps", "staleness", "zero_volume", "outliers")


def gate_evaluations(task: UnitTask, judged: Judgement) -> Iterator[AssetCheckEvaluation]:
    """Yield the gates as evaluations on the asset graph."""
    for gate in judged.gates:
        yield AssetCheckEvaluation(
            asset_key=family_key(task.family, "evaluation"),
            check_name=str(gate["name"]),
            passed=bool(gate["passed"]),
            severity=AssetCheckSeverity.ERROR,
            description=str(gate["text"]),
            metadata=figures(_gate_figures(gate)),
            blocking=True,
            partition=task.key,
        )


def gate_results(judged: Judgement) -> Iterator[AssetCheckResult]:
    """Yield the gates as results of the evaluation asset's own checks."""
    for gate in judged.gates:
        yield AssetCheckResult(
            check_name=str(gate["name"]),
            passed=bool(gate["passed"]),
            severity=AssetCheckSeverity.ERROR,
            description=str(gate["text"]),
            metadata=figures(_gate_figures(gate)),
        )


def drift_evaluation(task: UnitTask, drift: Drift) -> AssetCheckEvaluation:
    """Return drift as a soft evaluation on the asset graph."""
    return AssetCheckEvaluation(
        asset_key=family_key(task.family, "drift"),
        check_name="psi",
        passed=drift.status == "fine",
        severity=AssetCheckSeverity.WARN,
        description=_drift_text(drift),
        metadata=figures(drift.figures),
        partition=task.key,
    )


def drift_result(drift: Drift) -> AssetCheckResult:
    """Return drift as a soft result."""
    return AssetCheckResult(
        check_name="psi",
        passed=drift.status == "fine",
        severity=AssetCheckSeverity.WARN,
        description=_drift_text(drift),
        metadata=figures(drift.figures),
    )


@multi_asset_check(
    name="bar_checks",
    specs=[
        AssetCheckSpec(
            name,
            asset=BARS,
            blocking=name in ("schema", "unique", "ohlc"),
            partitions_def=symbols_partition,
        )
        for name in BAR_CHECKS
    ],
)
def bar_checks(
    context: AssetCheckExecutionContext, platform: Platform
) -> Iterator[AssetCheckResult]:
    """Look at every stored bar of the symbol."""
    from tradewind.market.ingest import store_for
    from tradewind.market.quality import bar_quality

    settings = platform.settings
    now_ms = platform.clock().now_ms()
    timeframe = settings.market.timeframe
    symbol = context.partition_key
    frame = store_for(settings).read_bars(symbol, timeframe, until_ms=now_ms)
    quality = bar_quality(frame, timeframe, now_ms)
    limit = settings.serving.staleness_limit_s
    verdicts: dict[str, tuple[bool, dict[str, Any]]] = {
        "schema": (quality.schema_ok, {"rows": quality.rows}),
        "unique": (quality.duplicates == 0, {"duplicates": quality.duplicates}),
        "ohlc": (quality.ohlc_violations == 0, {"violations": quality.ohlc_violations}),
        "gaps": (quality.gap_share == 0, {"gap_share": quality.gap_share}),
        "staleness": (
            quality.staleness_s <= limit,
            {"staleness_s": quality.staleness_s, "limit_s": limit},
        ),
        "zero_volume": (
            quality.zero_volume_share < 0.01,
            {"zero_volume_share": quality.zero_volume_share},
        ),
        "outliers": (quality.outliers == 0, {"outliers": quality.outliers}),
    }
    for name, (passed, shown) in verdicts.items():
        hard = name in ("schema", "unique", "ohlc")
        yield AssetCheckResult(
            asset_key=BARS,
            check_name=name,
            passed=bool(passed),
            severity=AssetCheckSeverity.ERROR if hard else AssetCheckSeverity.WARN,
            metadata=figures({"symbol": symbol, **shown}),
        )


@multi_asset_check(
    name="feature_checks",
    specs=[
        AssetCheckSpec(
            name, asset=FEATURES, blocking=True, partitions_def=symbols_partition
        )
        for name in ("finite", "look_ahead")
    ],
)
def feature_checks(
    context: AssetCheckExecutionContext, platform: Platform
) -> Iterator[AssetCheckResult]:
    """Look for nulls and infinities, and for features that know the future."""
    from tradewind.features.lookahead import check_store

    report = check_store(platform.settings, platform.clock(), context.partition_key)
    yield AssetCheckResult(
        asset_key=FEATURES,
        check_name="finite",
        passed=report.bad_values == 0,
        metadata=figures({"bad_values": report.bad_values, "rows": report.rows}),
    )
    yield AssetCheckResult(
        asset_key=FEATURES,
        check_name="look_ahead",
        passed=not report.offending,
        metadata=figures({"cuts": report.cuts, "offending": ", ".join(report.offending) or "none"}),
    )


def _gate_figures(gate: dict[str, Any]) -> dict[str, Any]:
    return {"value": gate["value"], "limit": gate["limit"]}


def _drift_text(drift: Drift) -> str:
    return f"{drift.status}: worst {drift.worst_feature} with PSI {drift.worst_psi:.3f}"
