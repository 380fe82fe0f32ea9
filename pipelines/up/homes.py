"""Which home `up`, `status` and `logs` mean, and the settings that a demo's home goes on with."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_json
from tradewind.settings import Settings, load_settings

DEFAULT_HOME = Path("var")
DEMO_HOME = DEFAULT_HOME / "demo"
HOME_VARIABLE = "TRADEWIND_HOME"
FINISHED = Path("demo") / "finished.json"
PLAN = Path("demo") / "plan.json"
DATABASES = Path("up") / "databases.json"
DATABASE_VARIABLES = {
    "ledger_url": "TRADEWIND_LEDGER_URL",
    "dagster_database_url": "TRADEWIND_DAGSTER_DATABASE_URL",
}
RECORDED = ("PROFILE", "DATA", "MARKET", "FEATURES", "TRAINING", "BOOSTED", "DEEP")
RECORDED_ALONE = ("REGISTRY__MODEL_EXPIRY_DAYS", "SERVING__VOTE")
RECORDED_POLICY = ("CALIBRATION", "THRESHOLDS", "SIZING", "RISK", "COSTS", "ENGINE")


def choose_home(folder: Path = Path()) -> Path:
    """Return the home that is meant: the one named, else the one where `up` runs.

    Named is TRADEWIND_HOME, or ``home`` in tradewind.toml. Where neither is, it is a finished
    demo's or the default one: the one whose `up` runs, the demo's if none does.

    Raises
    ------
    TradewindError
        ``bad_input`` when `up` runs in both: a command must not guess which is meant.
    """
    given = os.environ.get(HOME_VARIABLE)
    if given:
        return Path(given).absolute()
    settings = load_settings()
    if "home" in settings.model_fields_set:
        return settings.home.absolute()
    demo, usual = (folder / DEMO_HOME).absolute(), (folder / DEFAULT_HOME).absolute()
    running = [home for home in (demo, usual) if _runs(home)]
    if len(running) > 1:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"`tradewind up` runs in {demo} and in {usual}",
            f"Say which is meant: export {HOME_VARIABLE}=…",
        )
    if running:
        return running[0]
    return demo if (demo / FINISHED).exists() else usual


def _runs(home: Path) -> bool:
    from pipelines.up.state import load

    known = load(home)
    return known is not None and known.running


def record_databases(home: Path, settings: Settings) -> None:
    """Write down which databases `up` uses, without passwords: other terminals must use these."""
    write_json(home / DATABASES, _databases(settings))


def check_databases(home: Path, settings: Settings) -> None:
    """Refuse settings that mean other databases than the `up` which runs in ``home``.

    Raises
    ------
    TradewindError
        ``bad_setting``: a kill switch set in an empty ledger would stop nothing.
    """
    path = home / DATABASES
    if not path.exists() or not _runs(home):
        return
    from policy.engine import KILL_FILE

    theirs: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    for name, mine in _databases(settings).items():
        if theirs.get(name, mine) != mine:
            raise TradewindError(
                ErrorCode.BAD_SETTING,
                f"{name} = {mine} here, but `tradewind up` in {home} uses {theirs[name]}",
                f"Export {DATABASE_VARIABLES[name]} as it was for `up`. To stop new entries "
                f"without it, create the file {home / KILL_FILE}",
            )


def _databases(settings: Settings) -> dict[str, str]:
    return {
        "ledger_url": _nameless(settings.ledger_database_url),
        "dagster_database_url": _nameless(settings.dagster_database_url or "SQLite"),
    }


def _nameless(url: str) -> str:
    """Return a database's address without user and password."""
    return re.sub(r"://\S*@", "://", url)


def recordable(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings variables that shape models and trading, without secrets.

    Addresses that may carry a password (proxies, database URLs) are left out.
    """
    wanted = re.compile(
        rf"TRADEWIND_({'|'.join(RECORDED + RECORDED_POLICY + RECORDED_ALONE)})(__.+)?"
    )
    return {
        name: value
        for name, value in sorted(environment.items())
        if wanted.fullmatch(name) and "://" not in value
    }


def recorded(home: Path) -> dict[str, str]:
    """Return the settings variables a finished demo in ``home`` traded with."""
    path = home / FINISHED
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    variables: dict[str, str] = found.get("environment", {})
    return variables


def adopt(home: Path) -> dict[str, str]:
    """Make ``home`` this process's, with its demo's settings where the environment has none.

    Returns the variables that were adopted, so that they can be said aloud.
    """
    os.environ[HOME_VARIABLE] = str(home)
    adopted = {name: value for name, value in recorded(home).items() if name not in os.environ}
    os.environ.update(adopted)
    return adopted


def holds_demo(home: Path) -> bool:
    """Return whether a demo ran in ``home``: its bars are replayed."""
    return (home / PLAN).exists()


def clock_of(home: Path) -> str:
    """Return the clock that a home's `up` runs, or ran, on."""
    from pipelines.up.mode import as_before
    from pipelines.up.state import load

    return as_before(load_settings(home=home), load(home))


def settings_of() -> Settings:
    """Return the settings of the chosen home, on the clock that its `up` runs, or ran, on."""
    from pipelines.up.mode import as_before
    from pipelines.up.state import load

    home = choose_home()
    adopt(home)
    settings = load_settings(home=home)
    return settings.model_copy(update={"clock": as_before(settings, load(home))})
