"""Which home `up`, `status` and `logs` mean, and the settings that a demo's home goes on with."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradewind.settings import Settings, load_settings

DEFAULT_HOME = Path("var")
DEMO_HOME = DEFAULT_HOME / "demo"
HOME_VARIABLE = "TRADEWIND_HOME"
FINISHED = Path("demo") / "finished.json"
PLAN = Path("demo") / "plan.json"
RECORDED = ("PROFILE", "DATA", "MARKET", "FEATURES", "TRAINING", "BOOSTED", "DEEP")
RECORDED_POLICY = ("CALIBRATION", "THRESHOLDS", "SIZING", "RISK", "COSTS", "ENGINE")


def choose_home(folder: Path = Path()) -> Path:
    """Return TRADEWIND_HOME, else a finished demo's home, else the default."""
    given = os.environ.get(HOME_VARIABLE)
    if given:
        return Path(given).absolute()
    demo = folder / DEMO_HOME
    return (demo if (demo / FINISHED).exists() else folder / DEFAULT_HOME).absolute()


def recordable(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings variables that shape models and trading, without secrets.

    Addresses that may carry a password (proxies, database URLs) are left out.
    """
    wanted = re.compile(rf"TRADEWIND_({'|'.join(RECORDED + RECORDED_POLICY)})(__.+)?")
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
