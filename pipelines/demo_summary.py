"""The end of the demo: the figures of every model, and where to look further."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

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
        *(f"{baseline}_{name}" for baseline in BASELINES for name in SHOWN),
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
    "wf_base_rate_log_loss",
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
    if found["edge_rule"] == "off":
        console.print(
            "the edge rule is off in the demo (TRADEWIND_ENGINE__REQUIRE_EDGE=false): "
            f"{found['paper']['entries_without_edge']} of {found['paper']['entries']} entries "
            "would have been refused for want of an expected gain above costs",
            soft_wrap=True,
            highlight=False,
        )
    home = found["home"]
    prefix = f"TRADEWIND_HOME={home} TRADEWIND_CLOCK=replay"
    console.print(
        f"summary  {path.absolute()}\n"
        f"status   {prefix} tradewind status\n"
        f"story    {prefix} tradewind explain latest\n"
        f"runs     DAGSTER_HOME={home}/dagster {prefix} dagster dev\n"
        f"models   mlflow ui --backend-store-uri sqlite:///{home}/mlflow/mlflow.db",
        soft_wrap=True,
        highlight=False,
    )


def _table(found: dict[str, Any]) -> Table:
    view = Table(title="Models on bars they never saw (95 % intervals)", title_justify="left")
    view.add_column("symbol, version", overflow="fold")
    for name in ("AUC", "log-loss (base)", "Brier (base)", "ECE", "gates"):
        view.add_column(name, justify="right")
    for symbol, families in found["models"].items():
        for figures in families.values():
            view.add_row(
                f"{symbol} {figures['version'].removeprefix('tradewind.')}",
                f"{figures['auc']:.3f} [{figures['auc_low']:.3f}, {figures['auc_high']:.3f}]",
                *(
                    f"{figures[name]:.4f} ({_short(figures.get(f'base_rate_{name}'))})"
                    for name in ("log_loss", "brier")
                ),
                f"{figures['ece']:.3f}",
                figures["gates"] if figures["gates"] == "passed" else f"[red]{figures['gates']}[/]",
            )
    return view


def _paper_table(paper: dict[str, Any]) -> Table:
    balance = "books balance" if paper["ledger_balances"] else "[red]BOOKS DO NOT BALANCE[/]"
    view = Table(
        title=f"Paper account, net of costs: {paper['decisions']} decisions, {paper['orders']} "
        f"orders, {paper['fills']} fills, {paper['trades']} closed trades; {balance}",
        title_justify="left",
    )
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
