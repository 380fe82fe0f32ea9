"""The kill switch and the peak from the command line: engaged, shown, lifted, recorded."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli.safety import kill_app
from tests.support.synthetic import START_MS
from tradewind.ledger import open_ledger, set_replay_clock
from tradewind.settings import load_settings

Call = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(kill_app, list(arguments))


def told(*arguments: str) -> dict[str, Any]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_on_show_and_lift_say_who_why_and_when(home: Path) -> None:
    before = time.time_ns() // 1_000_000
    engaged = told("on", "--why", "the feed is wrong")
    assert (engaged["engaged"], engaged["flatten"]) == (True, False)
    assert (engaged["who"], engaged["why"]) == (getpass.getuser(), "the feed is wrong")
    assert before <= engaged["changed_ms"] <= time.time_ns() // 1_000_000
    assert told("show") == engaged
    with open_ledger(load_settings()) as ledger:
        assert ledger.kill_switch.state().engaged, "another process sees it"
    lifted = told("lift", "--why", "the feed is well")
    assert not lifted["engaged"]
    assert [item["kind"] for item in lifted["history"]] == ["kill_on", "kill_lift"]
    shown = call("show").output
    assert "kill switch: off" in shown
    assert f"kill_on by {getpass.getuser()}: the feed is wrong" in shown


def test_flatten_asks_for_every_position_to_be_closed(home: Path) -> None:
    assert told("on", "--flatten", "--why", "drill")["flatten"]
    assert "on, closing positions" in call("show").output


def test_lift_refuses_while_the_file_stands(home: Path) -> None:
    told("on", "--why", "drill")
    file = home / "KILL"
    file.write_text("smoke")
    refused = call("lift", "--why", "it is over")
    assert refused.exit_code == 2
    assert str(file) in refused.stderr
    assert f"Remove {file}" in refused.stderr
    shown = told("show")
    assert (shown["engaged"], shown["file"]) == (True, str(file))
    file.unlink()
    assert not told("lift", "--why", "it is over")["engaged"]


def test_lifting_nothing_and_giving_no_reason_are_refused(home: Path) -> None:
    assert "the kill switch is not on" in call("lift", "--why", "nothing").stderr
    assert call("on", "--why", " ").exit_code == 2
    assert call("on").exit_code == 2
    assert told("show")["history"] == []


def test_reset_peak_counts_from_market_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEWIND_CLOCK", "replay")
    with open_ledger(load_settings()) as ledger:
        set_replay_clock(ledger, START_MS)
    assert told("show")["peak_since_ms"] is None
    found = told("reset-peak", "--why", "capital was taken out")
    assert found["peak_since_ms"] == START_MS
    (item,) = found["history"]
    assert (item["kind"], item["who"], item["market_ms"]) == (
        "peak_reset",
        getpass.getuser(),
        START_MS,
    )
    with open_ledger(load_settings()) as ledger:
        assert ledger.peak_since(START_MS) == START_MS
