"""What `tradewind status` shows."""

from __future__ import annotations

import re
from typing import Any

from tradewind.clock import staleness_s
from tradewind.errors import TradewindError
from tradewind.settings import MS_PER_DAY, Settings


def collect(settings: Settings) -> dict[str, Any]:
    """Return the state of every part; a part that is down is named, not hidden."""
    from tradewind.ledger import open_ledger
    from tradewind.ledger.clock import open_clock
    from tradewind.market.ingest import store_for

    now_ms = open_clock(settings).now_ms()
    store = store_for(settings)
    timeframe = settings.market.timeframe
    bars = {}
    for symbol in store.symbols(timeframe):
        last = store.last_ts(symbol, timeframe)
        late = None if last is None else staleness_s(now_ms, last, timeframe)
        bars[symbol] = {"last_ts": last, "staleness_s": late}
    with open_ledger(settings) as ledger:
        paper = {
            "cash": str(ledger.cash()),
            "open_positions": len(ledger.positions()),
            "trades": ledger.trades().height,
            "decisions": ledger.decisions().height,
        }
    return {
        "clock": {"mode": settings.clock, "now_ms": now_ms},
        "set": store.set_id,
        "bars": bars,
        "models": _models(settings, now_ms),
        "serving": _serving(settings),
        "paper": paper,
    }


def masked_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON values; a password inside a URL becomes ``***``."""
    masked: dict[str, Any] = _masked(settings.model_dump(mode="json"))
    return masked


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(inner) for name, inner in value.items()}
    if isinstance(value, str):
        return re.sub(r"(://[^:/@]+):[^@/]+@", r"\1:***@", value)
    return value


def _models(settings: Settings, now_ms: int) -> list[dict[str, Any]]:
    from registry.tracking import Tracking
    from registry.versions import alias_table, get_version

    tracking = Tracking(settings)
    rows = []
    for name, aliases in sorted(alias_table(tracking).items()):
        champion = aliases.get("champion")
        version = None if champion is None else get_version(tracking, name, version=champion)
        end = None if version is None else int(version.tags["data_end_ms"])
        rows.append(
            {
                "name": name,
                "champion": champion,
                "challenger": aliases.get("challenger"),
                "previous": aliases.get("previous"),
                "gates": None if version is None else version.gates,
                "data_end_ms": end,
                "age_days": None if end is None else round((now_ms - end) / MS_PER_DAY, 2),
            }
        )
    return rows


def _serving(settings: Settings) -> str:
    from tradewind.client import ServingClient

    url = f"http://{settings.serving.host}:{settings.serving.port}"
    try:
        with ServingClient(url, settings=settings.serving, timeout_s=1) as client:
            if client.ready():
                return f"{url} is ready"
            client.status()  # raises where nothing answers at all
            return f"{url} is not ready"
    except TradewindError as error:
        return f"{url} does not answer ({error.code.value})"
