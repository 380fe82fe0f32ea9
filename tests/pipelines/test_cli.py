"""The command line: every command answers, and a wrong input gets one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli.main import app
from pipelines.servers import free_port

Call = Callable[..., Result]
COMMANDS = (
    "ingest",
    "features",
    "train",
    "evaluate",
    "drift",
    "promote",
    "rollback",
    "serve",
    "trade",
    "demo",
    "status",
    "explain",
    "doctor",
    "ledger",
    "config",
)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call a command in an empty home, with nothing reachable."""
    monkeypatch.delenv("TRADEWIND_DATA", raising=False)
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRADEWIND_SERVING__PORT", str(free_port()))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **variables: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env=variables)

    return run


def refused(result: Result, code: int, *words: str) -> None:
    """Assert one line on stderr with these words, and this exit code."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(call: Call, name: str) -> None:
    shown = call(name, "--help")
    assert shown.exit_code == 0
    assert "Usage" in shown.output


def test_help_names_every_command(call: Call) -> None:
    shown = call("--help").output
    assert [name for name in COMMANDS if name not in shown] == []


def test_no_bars(call: Call) -> None:
    refused(call("features"), 1, "bars", "BTCUSDT", "tradewind ingest")


def test_unknown_symbol(call: Call) -> None:
    refused(call("train", "-s", "DOGEUSDT", "--dry-run"), 2, "unknown_symbol", "DOGEUSDT")


def test_unknown_family(call: Call) -> None:
    refused(call("train", "-f", "prophet", "--dry-run"), 2, "bad_input", "prophet")


def test_dry_run_names_the_units(call: Call) -> None:
    shown = call("train", "--dry-run", "--json")
    assert shown.exit_code == 0
    assert json.loads(shown.stdout) == {
        "units": ["tradewind.lightgbm.POOLED", "tradewind.transformer.POOLED"]
    }


def test_wrong_setting(call: Call) -> None:
    result = call("config", "show", TRADEWIND_TRAINING__EPOCHS="none")
    refused(result, 2, "bad_setting", "training.epochs", "'none'", "TRADEWIND_TRAINING__EPOCHS")


def test_an_error_as_json(call: Call) -> None:
    result = call("train", "-s", "DOGEUSDT", "--dry-run", "--json")
    assert json.loads(result.stdout)["error"] == "unknown_symbol"


def test_missing_data_folder(call: Call, tmp_path: Path) -> None:
    refused(call("ingest", TRADEWIND_DATA=str(tmp_path / "no")), 1, "data_unreadable", "/no")


def test_wrong_date(call: Call) -> None:
    refused(call("ingest", "--since", "last week"), 2, "bad_input", "last week", "2025-01-31")


def test_replay_clock_that_was_never_set(call: Call) -> None:
    refused(call("features", TRADEWIND_CLOCK="replay"), 2, "bad_setting", "clock")


def test_tracking_server_down(call: Call) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    result = call(
        "promote",
        "tradewind.lightgbm.BTCUSDT",
        "1",
        "--why",
        "a test",
        TRADEWIND_REGISTRY=json.dumps(
            {"tracking_uri": address, "request_timeout_s": 1, "request_retries": 0}
        ),
    )
    refused(result, 1, "tracking_unreachable", address)


def test_serving_down(call: Call) -> None:
    refused(call("trade", "--once"), 1, "serving_unreachable", "127.0.0.1")
    refused(call("trade", "--dry-run"), 1, "serving_unreachable", "127.0.0.1")


def test_no_champion(call: Call) -> None:
    refused(call("evaluate", "-f", "lightgbm"), 1, "no_champion", "tradewind train")
    refused(call("drift", "-f", "lightgbm"), 1, "no_champion")


def test_wrong_alias(call: Call) -> None:
    result = call("promote", "tradewind.lightgbm.BTCUSDT", "1", "--to", "king", "--why", "x")
    refused(result, 2, "bad_input", "king")


def test_rollback_of_a_foreign_name(call: Call) -> None:
    refused(call("rollback", "something", "--why", "a test"), 2, "bad_input", "something")


def test_explain_without_decisions(call: Call) -> None:
    refused(call("explain", "latest"), 2, "bad_input", "no decision")
    refused(call("explain", "nothing-like-it"), 2, "bad_input", "nothing-like-it")


def test_status_of_an_empty_home(call: Call) -> None:
    shown = call("status", "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["bars"] == {}
    assert found["models"] == []
    assert "does not answer" in found["serving"] or "not ready" in found["serving"]
    assert call("status").exit_code == 0


def test_ledger_check_of_an_empty_home(call: Call) -> None:
    shown = call("ledger", "check", "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["ok"]


def test_doctor(call: Call) -> None:
    shown = call("doctor", "--json")
    found = {item["name"]: item for item in json.loads(shown.stdout)["findings"]}
    assert found["dagster"]["ok"]
    assert found["tracking"]["ok"]
    assert call("doctor", TRADEWIND_TRAINING__EPOCHS="0").exit_code == 1


def test_config_masks_passwords(call: Call) -> None:
    secret = "postgresql+psycopg://me:s3cret@db/x"  # made up
    shown = call("config", "show", "--json", TRADEWIND_LEDGER_URL=secret)
    assert shown.exit_code == 0
    assert "s3cret" not in shown.stdout
    assert "me:***@db" in shown.stdout
    assert "s3cret" not in call("config", "show", TRADEWIND_LEDGER_URL=secret).stdout
