"""Settings reach the worker process whole, and a port that cannot be had is refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from serving.launch import check_port_free, environment
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings, load_settings


def loaded_from(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("TRADEWIND_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings()


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"clock": "replay", "profile": "full", "ledger_url": "sqlite:///x.db"},
        {"market": {"symbols": ("ADAUSDT", "BTCUSDT"), "ca_file": Path("/tmp/ca.pem")}},
        {"serving": {"port": 1234, "metrics_namespace": "other"}},
        {"costs": {"maker": Decimal("0.00013")}, "registry": {"tracking_uri": "http://x:1"}},
    ],
)
def test_another_process_loads_the_same_settings(
    overrides: dict[str, Any],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = make_settings(**overrides)
    assert loaded_from(environment(settings), monkeypatch) == settings


def test_a_relative_home_is_made_absolute(
    tmp_path: Path, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = environment(make_settings(home=Path("state")))
    assert variables["TRADEWIND_HOME"] == str(tmp_path / "state")


def test_what_the_caller_has_set_for_libraries_wins(
    make_settings: Callable[..., Settings],
) -> None:
    variables = environment(make_settings(), {"OMP_NUM_THREADS": "4", "TRADEWIND_HOME": "/else"})
    assert variables["OMP_NUM_THREADS"] == "4"
    assert variables["TRADEWIND_HOME"] != "/else"


def test_threads_and_memory_of_the_worker_are_held_down(
    make_settings: Callable[..., Settings],
) -> None:
    variables = environment(make_settings(), {})
    assert (variables["OMP_NUM_THREADS"], variables["MALLOC_ARENA_MAX"]) == ("1", "2")


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(TradewindError) as caught:
            check_port_free("127.0.0.1", taken.getsockname()[1])
    assert caught.value.code is ErrorCode.ALREADY_RUNNING


def test_a_host_that_is_not_ours_is_a_bad_setting() -> None:
    with pytest.raises(TradewindError) as caught:
        check_port_free("203.0.113.7", 8000)
    assert caught.value.code is ErrorCode.BAD_SETTING
