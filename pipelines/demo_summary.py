"""The end of the demo: the figures of every model, and where to look further."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipelines.up.homes import DEMO_HOME
from tradewind.settings import Settings

if TYPE_CHECKING:
    from registry.tracking import Tracking
    from registry.versions import RegisteredVersion

SHOWN = ("auc", "log_loss", "brier", "ece")
REPORT = "evaluation/report.json"


def model_figures(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return, by symbol and family, the figures of the version that serves.

    Each holds auc, log_loss, brier and ece with the ends of their intervals
    (``auc_low``, …), and the baselines' figures on the same rows.
    """
    from registry.tracking import Tracking
    from registry.versions import resolve

    tracking = Tracking(settings)
    found: dict[str, dict[str, Any]] = {}
    for symbol in settings.market.symbols:
        for family in settings.training.families:
            version = resolve(tracking, family, symbol)
            if version is not None:
                figures = _figures(tracking, version, symbol)
                found.setdefault(symbol, {})[family] = figures
    return found


def _figures(tracking: Tracking, version: RegisteredVersion, symbol: str) -> dict[str, Any]:
    with tracking.translated(), tempfile.TemporaryDirectory() as folder:
        path = tracking.client.download_artifacts(version.run_id, REPORT, folder)
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    own = report["per_symbol"].get(symbol, report)
    from tradewind.models.baselines import BASELINES

    names = [
        *(f"{name}{end}" for name in SHOWN for end in ("", "_low", "_high")),
        "ece_perfect",
        *(f"{name}_{baseline}" for baseline in BASELINES for name in SHOWN),
    ]
    walked = {name: value for name, value in report.items() if name in WALK_FORWARD}
    return {
        "version": version.label,
        "gates": version.gates,
        "missed": json.loads(version.tags.get("gate_reasons", "[]")),
        "rows": own.get("rows"),
        **{name: own[name] for name in names if own.get(name) is not None},
        **walked,
    }


WALK_FORWARD = (
    "wf_rows",
    "wf_auc",
    "wf_auc_low",
    "wf_auc_high",
    "wf_log_loss",
    "wf_log_loss_base_rate",
    "wf_brier",
    "wf_ece",
    "wf_ece_perfect",
)


def print_summary(console: Console, found: dict[str, Any], path: Path) -> None:
    """Print one table, the paper account, and the commands that show more."""
    if found["simulated"]:
        console.print("[bold red]SIMULATED MARKET: these figures say nothing about trading.[/]")
    console.print(_table(found))
    missed = [item for item in found["promoted"] if item["gates"] != "passed"]
    for item in missed:
        console.print(
            f"[bold red]gates failed: {item['version']}[/] {'; '.join(item['missed'])}",
            soft_wrap=True,
            highlight=False,
        )
    console.print(_paper_table(found["paper"]))
    counted = found["paper"]
    console.print(
        f"{counted['decisions']} decisions, {counted['orders']} orders, {counted['fills']} fills, "
        f"{counted['trades']} closed trades; not entered because: "
        + (", ".join(f"{name} {count}" for name, count in counted["refusals"].items()) or "–"),
        soft_wrap=True,
        highlight=False,
    )
    paper = found["paper"]
    console.print(
        f"loosened for the demo, so that orders flow: {found['loosened']}. "
        f"{paper['entries_without_edge']} of the {paper['entries']} entries had no expected gain "
        f"above costs; the default settings would have entered at most "
        f"{paper['entries_at_default_settings']} times.",
        soft_wrap=True,
        highlight=False,
    )
    slowest = sorted(found["retrain_steps"].items(), key=lambda item: -item[1])[:6]
    console.print(
        "time: "
        + ", ".join(
            f"{name} {row['seconds']:.0f} s (peak {row['peak_mib']:.0f} MiB)"
            for name, row in found["stages"].items()
        )
        + (f"; slowest steps {', '.join(f'{n} {s:.0f} s' for n, s in slowest)}" if slowest else ""),
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    home = found["home"]
    prefix = "" if home == str(DEMO_HOME.absolute()) else f"TRADEWIND_HOME={home} "
    console.print(
        f"summary  {path.absolute()}\n"
        f"story    {prefix}tradewind explain latest\n"
        f"status   {prefix}tradewind status\n"
        f"pages    {prefix}make up: Dagster, MLflow and serving; the engine "
        f"goes on through the {found['data']['unread_days']} days that the demo left unread",
        soft_wrap=True,
        highlight=False,
    )


def wide_console() -> Console:
    """Return a console whose tables do not fold where output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def _table(found: dict[str, Any]) -> Table:
    view = Table(
        title="Models on bars they never saw, 95 % intervals (base rate on the same bars)",
        title_justify="left",
    )
    view.add_column("symbol", no_wrap=True)
    view.add_column("family", no_wrap=True)
    for name in ("AUC", "log-loss (base)", "Brier (base)", "ECE", "gates"):
        view.add_column(name, justify="right")
    for symbol, families in found["models"].items():
        for family, figures in families.items():
            passed = figures["gates"] == "passed"
            view.add_row(
                symbol,
                family,
                f"{figures['auc']:.3f} [{figures['auc_low']:.3f}, {figures['auc_high']:.3f}]",
                *(
                    f"{figures[name]:.4f} ({_short(figures.get(f'{name}_base_rate'))})"
                    for name in ("log_loss", "brier")
                ),
                f"{figures['ece']:.3f} [{figures['ece_low']:.3f}, {figures['ece_high']:.3f}]",
                "passed" if passed else f"[red]{figures['gates']}[/]",
            )
    return view


def _paper_table(paper: dict[str, Any]) -> Table:
    balance = "books balance" if paper["ledger_balances"] else "[red]BOOKS DO NOT BALANCE[/]"
    view = Table(title=f"Paper account, net of costs ({balance})", title_justify="left")
    for name in ("over the replayed bars", "return", "net PnL", "Sharpe", "max drawdown"):
        view.add_column(name, justify="left" if name.startswith("over") else "right")
    rows = {"policy": paper, "buy and hold": paper["buy_and_hold"], "no trade": paper["no_trade"]}
    for name, figures in rows.items():
        if figures is not None:
            sharpe = figures["sharpe"]
            view.add_row(
                name,
                _percent(figures["return"]),
                f"{figures['net_pnl']:+.2f}",
                "–" if sharpe is None else f"{sharpe:.2f}",
                f"{figures['max_drawdown']:.2%}",
            )
    return view


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2%}"
