"""What `tradewind doctor` looks at: versions, settings, data, disk, ledger, tracker, port."""

from __future__ import annotations

import importlib.metadata
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tradewind.errors import TradewindError
from tradewind.settings import Settings, load_settings

PACKAGES = (
    "dagster",
    "mlflow",
    "torch",
    "lightgbm",
    "xgboost-cpu",
    "polars",
    "duckdb",
    "bentoml",
    "evidently",
    "ccxt",
)
MIN_FREE_GIB = 2


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    ok: bool
    found: str
    remedy: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything; a wrong setting ends the examination with its own finding."""
    findings = [_python(), *(_package(name) for name in PACKAGES)]
    try:
        settings = load_settings()
    except TradewindError as error:
        return [*findings, Finding("settings", False, error.detail, error.hint)]
    findings.append(Finding("settings", True, f"home {settings.home}", ""))
    findings.extend(_of_settings(settings))
    return findings


def _of_settings(settings: Settings) -> Iterator[Finding]:
    yield _disk(settings)
    yield _attempt("bars", lambda: _bars(settings))
    yield _attempt("ledger", lambda: _ledger(settings))
    yield _attempt("tracking", lambda: _tracking(settings))
    yield _port(settings)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), version, "Install Python 3.11 or newer")


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name), "")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", "Run `make install`")


def _disk(settings: Settings) -> Finding:
    place = settings.home if settings.home.exists() else settings.home.absolute().parent
    free = shutil.disk_usage(place).free / 2**30
    return Finding(
        "disk",
        free >= MIN_FREE_GIB,
        f"{free:.1f} GiB free at {place}",
        f"Free at least {MIN_FREE_GIB} GiB, or move TRADEWIND_HOME",
    )


def _bars(settings: Settings) -> str:
    from tradewind.market.ingest import store_for

    store = store_for(settings)
    held = store.symbols(settings.market.timeframe)
    return f"{len(held)} symbols in the store: {', '.join(held) or 'none yet'}"


def _ledger(settings: Settings) -> str:
    from tradewind.ledger import open_ledger

    with open_ledger(settings) as ledger:
        ledger.kill_switch.state()
    return "opens and is migrated"


def _tracking(settings: Settings) -> str:
    from registry.tracking import Tracking
    from registry.versions import alias_table

    return f"{len(alias_table(Tracking(settings)))} registered models"


def _port(settings: Settings) -> Finding:
    host, port = settings.serving.host, settings.serving.port
    with socket.socket() as probe:
        probe.settimeout(1)
        in_use = probe.connect_ex((host, port)) == 0
    found = f"{host}:{port} is {'in use (serving, or another program)' if in_use else 'free'}"
    return Finding("serving port", True, found, "")


def _attempt(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look(), "")
    except TradewindError as error:
        return Finding(name, False, error.detail, error.hint)
