"""What `tradewind status` knows: every part's state; a part that is down is named, not hidden."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pipelines.up.health import read_engine
from pipelines.up.state import ProcessState, UpState, load
from tradewind.clock import staleness_s
from tradewind.errors import ErrorCode, TradewindError
from tradewind.masking import mask_passwords
from tradewind.settings import MS_PER_DAY, Settings

RETRAIN_JOB = "retrain"
RECENT = 20
SQLITE = "sqlite:///"
SECONDS_PER_MINUTE = 60


def collect(settings: Settings) -> dict[str, Any]:
    """Return the state of every part, with what is wrong under ``problems``."""
    known = load(settings.home)
    found: dict[str, Any] = {
        "home": str(settings.home.absolute()),
        "up": _up(known),
        **_of_ledger_and_bars(settings),
    }
    now_ms = found["clock"]["now_ms"]
    problems: list[str] = list(found.pop("problems"))
    found["serving"] = _serving(_with_port(settings, known))
    for name, read in (
        ("models", lambda: _models(settings, now_ms)),
        ("last_retrain", lambda: _last_retrain(settings)),
    ):
        try:
            found[name] = read()
        except TradewindError as error:
            found[name] = [] if name == "models" else None
            problems.append(f"{name.replace('_', ' ')}: {error}")
    told = read_engine(settings.home)
    found["engine"] = told and {key: told[key] for key in ("state", "detail", "wall_ms")}
    problems.extend(_down(found))
    found["problems"] = problems
    return found


def _of_ledger_and_bars(settings: Settings) -> dict[str, Any]:
    from tradewind.ledger import open_clock, open_ledger
    from tradewind.market.ingest import store_for

    problems: list[str] = []
    store = store_for(settings)
    timeframe = settings.market.timeframe
    with open_ledger(settings) as ledger:
        try:
            now_ms: int | None = open_clock(settings, ledger).now_ms()
        except TradewindError as error:
            now_ms = None
            problems.append(f"clock: {error}")
        switch = ledger.kill_switch.state()
        decisions = ledger.decisions()
        curve = ledger.equity_curve()
        paper = {
            "cash": str(ledger.cash()),
            "equity": str(curve["equity"][-1]) if len(curve) else None,
            "open_positions": len(ledger.positions()),
            "trades": ledger.trades().height,
            "decisions": decisions.height,
            "last_decision": _last_decision(decisions),
        }
    bars = {}
    for symbol in store.symbols(timeframe):
        last = store.last_ts(symbol, timeframe)
        late = None if last is None or now_ms is None else staleness_s(now_ms, last, timeframe)
        bars[symbol] = {"last_ts": last, "staleness_s": late}
    return {
        "clock": {"mode": settings.clock, "now_ms": now_ms},
        "set": store.set_id,
        "bars": bars,
        "paper": paper,
        "trading": {
            "state": _trading_state(switch.engaged, switch.flatten),
            "kill_switch": switch.engaged,
            "reason": switch.reason if switch.engaged else None,
        },
        "problems": problems,
    }


def _trading_state(engaged: bool, flatten: bool) -> str:
    """Return NautilusTrader's word for what the switch allows."""
    if not engaged:
        return "ACTIVE"
    return "HALTED" if flatten else "REDUCING"


def _last_decision(decisions: Any) -> dict[str, Any] | None:
    if decisions.is_empty():
        return None
    row = decisions.row(-1, named=True)
    return {name: row[name] for name in ("decision_id", "symbol", "bar_ts", "action")}


def masked_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON values; a password inside a URL becomes ``***``."""
    masked: dict[str, Any] = _masked(settings.model_dump(mode="json"))
    return masked


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(inner) for name, inner in value.items()}
    if isinstance(value, str):
        return mask_passwords(value)
    return value


def _models(settings: Settings, now_ms: int | None) -> list[dict[str, Any]]:
    from registry.tracking import Tracking
    from registry.versions import alias_table, get_version

    database = settings.mlflow_tracking_uri.removeprefix(SQLITE)
    if database != settings.mlflow_tracking_uri and not Path(database).exists():
        return []  # who only looks creates nothing

    tracking = Tracking(settings)
    rows = []
    for name, aliases in sorted(alias_table(tracking).items()):
        champion = aliases.get("champion")
        version = None if champion is None else get_version(tracking, name, version=champion)
        end = None if version is None else int(version.tags["data_end_ms"])
        age = None if end is None or now_ms is None else (now_ms - end) / MS_PER_DAY
        rows.append(
            {
                "name": name,
                "champion": champion,
                "challenger": aliases.get("challenger"),
                "previous": aliases.get("previous"),
                "gates": None if version is None else version.gates,
                "data_end_ms": end,
                "age_days": None if age is None else round(age, 2),
                "too_old": None if age is None else age > settings.registry.max_model_age_days,
                "expired": None if age is None else _expired(age, settings),
            }
        )
    return rows


def _expired(age_days: float, settings: Settings) -> bool:
    return 0 < settings.registry.model_expiry_days < age_days


def _last_retrain(settings: Settings) -> dict[str, Any] | None:
    """Return the newest ended run of the retrain job, how its checks went, and if one runs now."""
    from dagster import RunsFilter

    from pipelines.instance import open_storage

    if not (settings.home / "dagster").exists():
        return None
    instance = open_storage(settings)
    records = instance.get_run_records(filters=RunsFilter(job_name=RETRAIN_JOB), limit=RECENT)
    if not records:
        return None
    record = next((item for item in records if item.dagster_run.is_finished), records[0])
    run = record.dagster_run
    checks = [
        event.asset_check_evaluation_data
        for entry in instance.all_logs(run.run_id)
        if (event := entry.dagster_event) is not None
        and event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    missed = sorted(
        f"{item.asset_key.to_user_string()}:{item.check_name}" for item in checks if not item.passed
    )
    drifted = [name for name in missed if "/drift:" in name]
    return {
        "run_id": run.run_id,
        "under_way": sum(not item.dagster_run.is_finished for item in records),
        "status": run.status.value,
        "ended_ms": None if record.end_time is None else round(record.end_time * 1000),
        "checks": len(checks),
        "missed": [name for name in missed if name not in drifted],
        "drift_alarms": drifted,
    }


def _up(known: UpState | None) -> dict[str, Any]:
    if known is None:
        return {"running": False, "pid": None, "mode": None, "processes": []}
    return {
        "running": known.running,
        "pid": known.pid,
        "mode": known.mode,
        "processes": [_process(item, known.running) for item in known.processes],
    }


def _process(item: ProcessState, watched: bool) -> dict[str, Any]:
    """Return a process as it is now, which its supervisor may not have noticed yet."""
    alive = item.alive()
    if alive:
        state = item.state if watched else "not watched"
    else:
        state = item.state if item.state in ("waiting", "restarting", "given up") else "down"
    uptime = None
    if alive and item.started_ms is not None:
        uptime = round(time.time() - item.started_ms / 1000, 1)
    return {
        "name": item.name,
        "state": state,
        "detail": item.detail,
        "pid": item.pid if alive else None,
        "uptime_s": uptime,
        "rss_mib": memory_mib(item.pid) if alive and item.pid else None,
        "restarts": item.restarts,
        "address": item.address,
        "log": item.log,
    }


def memory_mib(pid: int) -> int | None:
    """Return the resident memory of a process and everything below it; None when it is gone."""
    import psutil

    try:
        top = psutil.Process(pid)
        family = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return None
    total = 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it ended between the listing and the look
            continue
    return round(total / 2**20)


def _with_port(settings: Settings, known: UpState | None) -> Settings:
    """Return the settings with the port that serving was really given."""
    port = known.ports.get("serving") if known is not None and known.running else None
    if port is None:
        return settings
    serving = settings.serving.model_copy(update={"host": "127.0.0.1", "port": port})
    return settings.model_copy(update={"serving": serving})


def _serving(settings: Settings) -> dict[str, Any]:
    from tradewind.client import ServingClient

    url = f"http://{settings.serving.host}:{settings.serving.port}"
    try:
        with ServingClient(url, settings=settings.serving, timeout_s=1) as client:
            if client.ready():
                return {"url": url, "ready": True, "why": None}
            why = client.status()["not_ready"]  # raises where nothing answers at all
    except TradewindError as error:
        return {"url": url, "ready": False, "why": f"does not answer ({error.code.value})"}
    if why is not None and why["error"] == ErrorCode.NO_CHAMPION.value:
        return {"url": url, "ready": False, "why": f"no champion yet: {why['detail']}"}
    return {"url": url, "ready": False, "why": why and why["detail"]}


def _down(found: dict[str, Any]) -> list[str]:
    """Name what does not work; a home that nothing runs in has only what it misses itself."""
    problems = []
    up = found["up"]
    if not up["running"]:
        problems.append(
            "`tradewind up` is not running"
            if up["pid"] is None
            else f"`tradewind up` is not running (last pid {up['pid']})"
        )
    for item in up["processes"] if up["running"] else []:
        if item["state"] != "healthy":
            why = f" ({item['detail']})" if item["detail"] else ""
            problems.append(f"{item['name']} is {item['state']}{why}")
    if not found["bars"]:
        problems.append("no bars: run `tradewind ingest`")
    problems.extend(
        f"bars of {symbol} are {in_words(row['staleness_s'])} late"
        for symbol, row in found["bars"].items()
        if row["staleness_s"]
    )
    problems.extend(
        f"{row['name']}: the champion is too old ({row['age_days']} days)"
        for row in found["models"]
        if row["too_old"] and not row["expired"]
    )
    problems.extend(
        f"{row['name']}: the champion has expired ({row['age_days']} days) and answers no more: "
        "launch `retrain`, or run `tradewind train`"
        for row in found["models"]
        if row["expired"]
    )
    if not found["serving"]["ready"]:
        problems.append(f"serving {found['serving']['url']}: {found['serving']['why']}")
    if found["trading"]["kill_switch"]:
        problems.append(f"the kill switch is on: {found['trading']['reason']}")
    retrain = found["last_retrain"]
    problems.extend(f"drift: {name}" for name in (retrain or {}).get("drift_alarms", []))
    return problems


def in_words(seconds: float | None) -> str:
    """Return a span of time as a person says it."""
    if seconds is None:
        return "–"
    minutes = seconds / SECONDS_PER_MINUTE
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < SECONDS_PER_MINUTE:
        return f"{minutes:.0f} min"
    hours = minutes / SECONDS_PER_MINUTE
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
