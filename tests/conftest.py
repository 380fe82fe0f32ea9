"""Fixtures every test may use. Real components are started elsewhere, on loopback."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tradewind.settings import Settings, load_settings

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_DATA = REPOSITORY.parent / "shared" / "data" / "bars"


@pytest.fixture(autouse=True, scope="session")
def _signals_as_at_a_terminal() -> None:
    """Let Ctrl-C and SIGTERM work in the processes that tests start.

    A shell ignores SIGINT in its background jobs, every child inherits that, and Dagster gives
    SIGTERM whatever SIGINT has: processes would no longer stop when asked to.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own TRADEWIND_* variables out of the tests."""
    for name in list(os.environ):
        if name.startswith("TRADEWIND_") and name != "TRADEWIND_DATA":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real bar sets; the test skips, saying so, where there is none."""
    configured = os.environ.get("TRADEWIND_DATA")
    root = Path(configured) if configured else DEFAULT_DATA
    if not configured and not root.is_dir():
        pytest.skip(f"no real bars: TRADEWIND_DATA is unset and {root} does not exist")
    assert root.is_dir(), f"TRADEWIND_DATA = {root} is not a folder"
    return root.resolve()


@pytest.fixture
def make_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Build settings whose state lives in the test's own folder; no data folder by default."""
    monkeypatch.delenv("TRADEWIND_DATA", raising=False)

    def build(**overrides: Any) -> Settings:
        return load_settings(**{"home": tmp_path / "home", "profile": "quick", **overrides})

    return build
