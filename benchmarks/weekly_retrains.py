"""Weeks of the schedule `retrain_weekly` on real bars, as they would have gone.

The replay clock is put on each Sunday midnight; bars are ingested up to it, the schedule's own
tick is evaluated and what it asks for is launched. On the Saturday after, 18:00, the same is done
with `review_weekly`, and the champion is judged on all bars since its data. The home is kept: a run
that was stopped goes on with its next week. Prints a table and ONE JSON object; writes a picture.

    TRADEWIND_DATA=... python benchmarks/weekly_retrains.py --home var/weeks --weeks 8
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tradewind.clock import DAY, ManualClock, parse_day, utc_text
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_json
from tradewind.settings import MS_PER_DAY, Settings, load_settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from assets.units import Unit
    from pipelines.launch import Finished

RETRAIN, REVIEW = "retrain_weekly", "review_weekly"
SATURDAY = 6 * MS_PER_DAY + 18 * 3_600_000
"""From a Sunday midnight to the review of what it brought."""
LAST_SUNDAY = "2026-04-26"
FILE = "weeks.json"


def main() -> None:
    """Go on with the weeks, then show them."""
    asked = _asked()
    os.environ |= {
        "TRADEWIND_HOME": str(asked.home.absolute()),
        "TRADEWIND_CLOCK": "replay",
        "TRADEWIND_TRAINING__FAMILIES": json.dumps(asked.families.split(",")),
    }
    settings, console = load_settings(), Console(stderr=True)
    file = settings.home / FILE
    known: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    last = parse_day(asked.until, "--until")
    sundays = [last - 7 * MS_PER_DAY * k for k in reversed(range(asked.weeks))]
    for number, sunday in enumerate(sundays[len(known) :], len(known) + 1):
        console.rule(f"week {number} of {asked.weeks}: {utc_text(sunday, DAY)}")
        if known and "after" not in known[-1]:
            known[-1] |= _saturday(settings, console, sunday - 7 * MS_PER_DAY + SATURDAY)
            write_json(file, known)
        known.append(_sunday(settings, console, sunday))
        write_json(file, known)
    if "after" not in known[-1]:
        known[-1] |= _saturday(settings, console, min(last + SATURDAY, asked.end))
        write_json(file, known)
    picture = _picture(settings, known, settings.home / "weeks.png")
    _print(console, known)
    print(json.dumps({"weeks": known, "picture": str(picture)}))


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="a folder of its own; is kept")
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--until", default=LAST_SUNDAY, help="the last Sunday, UTC")
    parser.add_argument(
        "--end", type=parse_day, default="2026-04-30", help="day that the bars reach, UTC"
    )
    parser.add_argument("--families", default="lightgbm")
    asked = parser.parse_args()
    if dt.date.fromisoformat(asked.until).weekday() != 6:
        parser.error(f"--until {asked.until} is no Sunday")
    return asked


def _units(settings: Settings) -> list[Unit]:
    from assets.units import plan_units

    return plan_units(settings, (), ())


def _sunday(settings: Settings, console: Console, sunday: int) -> dict[str, Any]:
    """Do what the platform does on a Sunday, and return what came of it."""
    instance = _at(settings, console, sunday)
    before = {unit.name: _sequence(settings, unit) for unit in _units(settings)}
    runs = _scheduled(instance, RETRAIN, sunday)
    return {
        "sunday": utc_text(sunday, DAY),
        "asked": len(runs),
        "units": {unit.name: _unit(settings, unit, before[unit.name]) for unit in _units(settings)},
    }


def _saturday(settings: Settings, console: Console, saturday: int) -> dict[str, Any]:
    """Review the challengers and judge the champions on the bars since their data."""
    instance = _at(settings, console, saturday)
    after = _champions(settings, saturday)
    before = {unit.name: _sequence(settings, unit) for unit in _units(settings)}
    runs = _scheduled(instance, REVIEW, saturday, strict=False)
    moves = {unit.name: _moves(settings, unit, before[unit.name]) for unit in _units(settings)}
    said = [error for run in runs for error in run.errors]
    return {"after": after, "review": said, "review_moves": moves}


def _at(settings: Settings, console: Console, now_ms: int) -> DagsterInstance:
    """Put the market's clock on a moment, and ingest what has closed by then."""
    from pipelines.launch import ingest_symbols, open_instance
    from tradewind.ledger import open_ledger, set_replay_clock

    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, now_ms)
    instance = open_instance(settings)
    ingest_symbols(settings, instance, console)
    return instance


def _scheduled(
    instance: DagsterInstance, name: str, moment_ms: int, *, strict: bool = True
) -> list[Finished]:
    """Launch what a schedule asks for at that moment; ``strict``: a run that fails ends it all."""
    from dagster import build_schedule_context

    from pipelines.definitions import defs
    from pipelines.launch import launch

    repository = defs.get_repository_def()
    schedule = repository.get_schedule_def(name)
    context = build_schedule_context(
        instance=instance,
        scheduled_execution_time=dt.datetime.fromtimestamp(moment_ms / 1000, dt.UTC),
        repository_def=repository,
    )
    tags = {"dagster/schedule_name": name}
    runs = [
        launch(
            instance,
            schedule.job_name,
            run_config=request.run_config,
            tags={**request.tags, **tags},
        )
        for request in schedule.evaluate_tick(context).run_requests or []
    ]
    failed = [run for run in runs if not run.success]
    if strict and failed:
        raise TradewindError(
            ErrorCode.INTERNAL,
            f"{name}: run {failed[0].run_id}: {'; '.join(failed[0].errors)}",
            "Correct the cause and run the same command again: it goes on with this week",
        )
    return runs


def _sequence(settings: Settings, unit: Unit) -> int:
    """Return the number of the newest alias change of a unit, 0 without any."""
    from registry.aliases import history
    from registry.tracking import Tracking

    try:
        changes = history(Tracking(settings), unit.name)
    except TradewindError:  # nothing is registered yet
        return 0
    return changes[0].sequence if changes else 0


def _unit(settings: Settings, unit: Unit, before: int) -> dict[str, Any]:
    """Return this week's version of a unit, its gates, and every alias that moved, with why."""
    from registry.tracking import Tracking
    from registry.versions import alias_table, list_versions

    tracking = Tracking(settings)
    newest = max(list_versions(tracking, unit.name), key=lambda item: item.version)
    names = ("auc", "log_loss_minus_base_rate", "wf_ece", "wf_ece_perfect")
    return {
        "version": newest.version,
        "gates": newest.gates,
        "reasons": json.loads(newest.tags.get("gate_reasons", "[]")),
        **{name: newest.metrics.get(name) for name in names},
        "aliases": alias_table(tracking).get(unit.name, {}),
        "moves": _moves(settings, unit, before),
    }


def _moves(settings: Settings, unit: Unit, before: int) -> list[dict[str, Any]]:
    """Return the alias changes after the ``before``-th, oldest first."""
    from registry.aliases import history
    from registry.tracking import Tracking

    return [
        {"alias": item.alias, "from": item.from_version, "to": item.to_version, "why": item.why}
        for item in reversed(history(Tracking(settings), unit.name))
        if item.sequence > before
    ]


def _champions(settings: Settings, now_ms: int) -> dict[str, Any]:
    """Return each champion's figures on the bars since its data."""
    from assets.steps.live import evaluate_champion

    found: dict[str, Any] = {}
    for unit in _units(settings):
        try:
            live = evaluate_champion(settings, ManualClock(now_ms), unit)
        except TradewindError as error:
            found[unit.name] = {"error": error.code.value}
            continue
        found[unit.name] = {"version": live.version, **live.figures}
    return found


def _print(console: Console, weeks: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title=f"{len(weeks)} weeks of {RETRAIN}")
    columns = ("Sunday", "version", "gates", "wf_ece", "auc", "aliases", "live ece", "live rows")
    for column in columns:
        table.add_column(column)
    for week in weeks:
        for name, unit in week["units"].items():
            live = week.get("after", {}).get(name, {})
            table.add_row(
                week["sunday"],
                f"{name}/{unit['version']}",
                unit["gates"],
                _short(unit["wf_ece"]),
                _short(unit["auc"]),
                " ".join(f"{alias} {number}" for alias, number in sorted(unit["aliases"].items())),
                _short(live.get("ece")),
                str(live.get("rows", "–")),
            )
    console.print(table)
    for week in weeks:
        for name, unit in week["units"].items():
            _told(console, week["sunday"], name, unit["moves"])
            for reason in unit["reasons"]:
                console.print(f"{week['sunday']} {name}/{unit['version']}: {reason}")
            reviewed = week.get("review_moves", {}).get(name, [])
            _told(console, f"review after {week['sunday']}", name, reviewed)


def _told(console: Console, when: str, name: str, moves: list[dict[str, Any]]) -> None:
    for move in moves:
        console.print(
            f"{when} {name}: {move['alias']} {move['from']} → {move['to']}: {move['why']}",
            highlight=False,
        )


def _picture(settings: Settings, weeks: list[dict[str, Any]], target: Path) -> Path:
    """Draw who stood when, and the calibration of each week's candidate and champion."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(weeks[0]["units"])
    days = [week["sunday"][5:] for week in weeks]
    figure, rows = pyplot.subplots(
        2, len(names), figsize=(9 * len(names), 6), sharex=True, squeeze=False
    )
    for column, name in enumerate(names):
        above, below = rows[0][column], rows[1][column]
        units = [week["units"][name] for week in weeks]
        for alias, mark in (("champion", "o-"), ("challenger", "s--"), ("previous", "v:")):
            held = [unit["aliases"].get(alias) for unit in units]
            above.plot(days, [float("nan") if x is None else x for x in held], mark, label=alias)
        failed = [(d, u["version"]) for d, u in zip(days, units, strict=True) if u["reasons"]]
        above.plot(*(zip(*failed, strict=True) if failed else ([], [])), "rx", label="rejected")
        above.set(title=name, ylabel="version")
        above.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
        live = [week.get("after", {}).get(name, {}).get("ece") for week in weeks]
        below.plot(days, [unit["wf_ece"] for unit in units], "o-", label="candidate, walk-forward")
        below.plot(days, [unit["wf_ece_perfect"] for unit in units], ":", label="perfect model")
        shown = [float("nan") if x is None else x for x in live]
        below.plot(days, shown, "s--", label="champion, on bars since its data")
        below.axhline(settings.calibration.ece_gate, color="#888888", label="gate")
        below.set(ylabel="ECE", ylim=(0, None))
        below.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    figure.savefig(target, dpi=90)
    return target


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
