"""Ops that look at champions again, and those that move aliases by hand."""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

import getpass
from collections.abc import Callable
from functools import partial
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetObservation,
    OpExecutionContext,
    op,
)

from assets.checks import report_check
from assets.config import PromoteConfig, RollbackConfig, UnitsConfig, names
from assets.drift_history import drift_looks, drift_picture
from assets.keys import family_key
from assets.metadata import beside_champion, drift_table, figures, verdicts
from assets.platform import Platform
from assets.steps import live
from assets.steps.recalibrate import recalibrate_champion
from assets.steps.review import review_challenger
from assets.units import Unit, plan_units
from tradewind.errors import TradewindError


@op(description="Metrics of each champion on bars newer than its data window.")
def measure_champions(
    context: OpExecutionContext, platform: Platform, config: UnitsConfig
) -> dict[str, Any]:
    """Evaluate every chosen champion and observe the figures on the graph."""

    def report(unit: Unit, found: live.Live) -> None:
        context.log_event(
            AssetObservation(
                family_key(unit.family, "evaluation"),
                partition=unit.key,
                metadata=figures({"version": found.version, **found.figures}),
            )
        )

    return _look_at_champions(context, platform, config, live.evaluate_champion, report)


@op(description="A new calibrator for each champion, from its answers and what came of them.")
def recalibrate_champions(
    context: OpExecutionContext, platform: Platform, config: UnitsConfig
) -> dict[str, Any]:
    """Refit every chosen champion's calibrator; what passes the gates gets its alias."""

    def report(unit: Unit, found: live.Live) -> None:
        context.log_event(
            AssetObservation(
                family_key(unit.family, "evaluation"),
                partition=unit.key,
                metadata={
                    **figures({"version": found.version, **found.figures}),
                    **({"verdicts": verdicts(found.gates)["gates"]} if found.gates else {}),
                },
            )
        )
        for gate in found.gates:
            if not gate["passed"]:
                context.log.warning("%s: %s", unit.name, gate["text"])

    look = partial(recalibrate_champion, who=f"dagster:{context.run_id}")
    return _look_at_champions(context, platform, config, look, report)


@op(description="Each challenger beside its champion, on bars new to both.")
def compare_challengers(
    context: OpExecutionContext, platform: Platform, config: UnitsConfig
) -> dict[str, Any]:
    """Compare every chosen unit's challenger with its champion; the alias follows."""

    def report(unit: Unit, found: live.Live) -> None:
        context.log_event(
            AssetObservation(
                family_key(unit.family, "evaluation"),
                partition=unit.key,
                metadata={
                    **figures({"version": found.version, **found.figures}),
                    **beside_champion(found.figures),
                },
            )
        )
        shown = found.figures
        context.log.info("%s: %s, alias %s", found.version, shown["verdict"], shown["alias"])

    look = partial(review_challenger, who=f"dagster:{context.run_id}")
    return _look_at_champions(context, platform, config, look, report)


@op(description="Drift of each champion: PSI of its inputs, and what outcomes say of its answers.")
def measure_drift(
    context: OpExecutionContext, platform: Platform, config: UnitsConfig
) -> dict[str, Any]:
    """Measure every chosen champion and report a soft check on the graph."""

    def report(unit: Unit, found: live.Live) -> None:
        shown = figures({"version": found.version, **found.figures})
        looks = drift_looks(context.instance, unit, found.version, found.figures)
        context.log_event(
            AssetObservation(
                family_key(unit.family, "drift"),
                partition=unit.key,
                metadata={
                    **shown,
                    **drift_table(found.columns),
                    **drift_picture(platform.settings, unit, looks),
                },
            )
        )
        for name, passed in (
            ("psi", found.figures["status"] == "fine"),
            ("concept", found.figures["concept"] == "none"),
        ):
            report_check(
                context,
                AssetCheckEvaluation(
                    asset_key=family_key(unit.family, "drift"),
                    check_name=name,
                    passed=passed,
                    severity=AssetCheckSeverity.WARN,
                    partition=unit.key,
                    metadata=shown,
                ),
            )
        context.log.info("%s: drift %s; %s", unit.name, shown["drift"], shown["advice"])

    return _look_at_champions(context, platform, config, live.drift_of_champion, report)


@op(description="Point an alias at a version whose gates passed.")
def promote_version(
    context: OpExecutionContext, platform: Platform, config: PromoteConfig
) -> dict[str, Any]:
    """Move one alias by hand; the gates recorded on the version are read again."""
    from registry.aliases import promote
    from registry.tracking import Tracking

    change = promote(
        Tracking(platform.settings),
        config.name,
        config.version,
        who=f"{getpass.getuser()} (dagster:{context.run_id})",
        why=config.why,
        to=config.to,
    )
    context.log.info("%s: %s is now version %s", change.name, change.alias, change.to_version)
    return {"name": change.name, "alias": change.alias, "version": change.to_version}


@op(description="Swap champion and previous.")
def roll_back(
    context: OpExecutionContext, platform: Platform, config: RollbackConfig
) -> dict[str, Any]:
    """Go back to the previous champion."""
    from registry.aliases import rollback
    from registry.tracking import Tracking

    change = rollback(
        Tracking(platform.settings),
        config.name,
        who=f"{getpass.getuser()} (dagster:{context.run_id})",
        why=config.why,
    )
    context.log.info("%s: champion is now version %s", change.name, change.to_version)
    return {"name": change.name, "alias": change.alias, "version": change.to_version}


def _look_at_champions(
    context: OpExecutionContext,
    platform: Platform,
    config: UnitsConfig,
    look: live.Look,
    report: Callable[[Unit, live.Live], None],
) -> dict[str, Any]:
    """Look at every unit; what is wrong with one is said, and the others go on."""
    settings = platform.settings
    units = plan_units(settings, config.symbols, names(config.families))
    shown: dict[str, Any] = {}
    errors: list[TradewindError] = []
    for unit, found in live.look_at(settings, platform.clock(), units, look):
        if isinstance(found, TradewindError):
            context.log.warning("%s", found)
            errors.append(found)
            continue
        shown[unit.name] = found.figures
        report(unit, found)
    worst = live.worst_of(errors, len(units))
    if worst is not None:
        raise worst
    return shown
