"""`tradewind status` on one screen: tables that fit 80 columns, sentences for the rest."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.cli.data import utc
from pipelines.status import in_words

STATE_COLOURS = {"healthy": "green", "starting": "yellow", "waiting": "yellow"}


def print_status(found: dict[str, Any], console: Console) -> None:
    """Print what `pipelines.status.collect` found."""
    _processes(found, console)
    clock = found["clock"]
    _line(console, f"clock    {clock['mode']}, {utc(clock['now_ms']) or 'not set'} UTC")
    engine = found["engine"]
    _line(console, f"engine   {engine['state']}: {engine['detail']}" if engine else "engine   –")
    serving = found["serving"]
    why = "ready" if serving["ready"] else f"not ready, {serving['why']}"
    _line(console, f"serving  {serving['url']} {why}")
    trading = found["trading"]
    reason = f": {trading['reason']}" if trading["reason"] else ", the kill switch is off"
    _line(console, f"trading  {trading['state']}{reason}")
    _line(console, f"paper    {_paper(found['paper'])}")
    _line(console, f"retrain  {_retrain(found['last_retrain'])}")
    _bars(found, console)
    _models(found, console)
    for problem in found["problems"]:
        _line(console, f"! {problem}", "yellow")


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)


def _processes(found: dict[str, Any], console: Console) -> None:
    up = found["up"]
    _line(console, f"home     {found['home']}")
    if not up["processes"]:
        return
    title = f"tradewind up, pid {up['pid']}" if up["running"] else "tradewind up is not running"
    view = _table(title, ("process", "state", "address"), ("pid", "up", "MiB", "restarts"))
    for item in up["processes"]:
        colour = STATE_COLOURS.get(item["state"], "red")
        view.add_row(
            item["name"],
            f"[{colour}]{item['state']}[/]",
            (item["address"] or "–").rpartition("://")[2],
            _cell(item["pid"]),
            in_words(item["uptime_s"]),
            _cell(item["rss_mib"]),
            str(item["restarts"]),
        )
    console.print(view)


def _bars(found: dict[str, Any], console: Console) -> None:
    view = _table(f"bars of {found['set']}", ("symbol", "last bar (UTC)", "fresh?"), ())
    for symbol, row in found["bars"].items():
        late = row["staleness_s"]
        words = f"late by {in_words(late)}" if late else ("up to date" if late == 0 else "–")
        view.add_row(symbol, utc(row["last_ts"]) or "–", words)
    if found["bars"]:
        console.print(view)


def _models(found: dict[str, Any], console: Console) -> None:
    view = _table("models", ("model",), ("champion", "chall.", "prev.", "gates", "age (d)"))
    for row in found["models"]:
        cells = (row[name] for name in ("champion", "challenger", "previous", "gates", "age_days"))
        name = row["name"].removeprefix("tradewind.")
        view.add_row(f"{name} (expired)" if row["expired"] else name, *map(_cell, cells))
    if found["models"]:
        console.print(view)


def _table(title: str, words: tuple[str, ...], figures: tuple[str, ...]) -> Table:
    view = Table(
        title=title,
        title_justify="left",
    )
    for name in words:
        view.add_column(name, overflow="fold")
    for name in figures:
        # A header that folds is no header.
        view.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    return view


def _cell(value: object) -> str:
    return "–" if value is None else str(value)


def _paper(paper: dict[str, Any]) -> str:
    last = paper["last_decision"]
    news = f"; last: {last['symbol']} {last['action']} at {utc(last['bar_ts'])}" if last else ""
    if paper["equity"] is None and paper["decisions"] == 0:
        return "no account yet: the engine opens it with its first cycle"
    equity = paper["equity"]
    worth = f"equity {float(equity):.2f}" if equity else f"cash {float(paper['cash']):.2f}"
    return (
        f"{worth}, {paper['open_positions']} open positions, "
        f"{paper['trades']} closed trades, {paper['decisions']} decisions{news}"
    )


def _retrain(last: dict[str, Any] | None) -> str:
    if last is None:
        return "never"
    more = f"; {last['under_way']} under way" if last["under_way"] else ""
    verdict = f"{last['status']} {utc(last['ended_ms']) or ''}".strip() + more
    if last["checks"] == 0:
        return verdict
    missed = last["missed"]
    words = f"missed {', '.join(missed)}" if missed else "no check missed"
    return f"{verdict}, {last['checks']} checks, {words}"
