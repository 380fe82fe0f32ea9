"""The command line: every command answers, and a wrong input gets one clear line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.main import get_group
from typer.testing import CliRunner, Result

from pipelines.cli.main import app
from pipelines.servers import free_port
from tests.support.history import history_home
from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.market.active import store_for
from tradewind.settings import Settings, load_settings

Call = Callable[..., Result]
COMMANDS = (
    "ingest",
    "data",
    "replay-exchange",
    "features",
    "train",
    "search",
    "evaluate",
    "evaluate-champions",
    "drift",
    "recalibrate",
    "review",
    "outcomes",
    "members",
    "promote",
    "rollback",
    "serve",
    "trade",
    "kill",
    "demo",
    "up",
    "logs",
    "status",
    "explain",
    "doctor",
    "ledger",
    "clock",
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


def test_no_command_is_left_out_here() -> None:
    assert set(COMMANDS) == set(get_group(app).commands)


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


@pytest.mark.data
def test_a_corrupt_file_among_the_data(call: Call, data_root: Path, tmp_path: Path) -> None:
    data = tmp_path / "bars"
    for kind in ("15m", "funding_8h"):
        (folder,) = data_root.glob(f"binance_usdm*_{kind}")
        shutil.copytree(folder, data / folder.name)
    (broken,) = data.glob("*/ETHUSDT_15m.parquet")
    broken.write_bytes(broken.read_bytes()[:1000])
    result = call("ingest", "--since", "2026-04-01", TRADEWIND_DATA=str(data))
    refused(result, 1, "corrupt_file", "ETHUSDT")
    stored = tmp_path.glob("home/store/**/15m/*/*.parquet")
    assert {path.parent.name for path in stored} == {"BTCUSDT", "SOLUSDT"}
    again = call("ingest", "--since", "2026-04-01", TRADEWIND_DATA=str(data))
    refused(again, 1, "corrupt_file", "ETHUSDT")


def test_too_few_bars_for_a_split(call: Call, tmp_path: Path) -> None:
    """Each step that fails is one line on stderr; nothing is registered."""
    store = store_for(load_settings(home=tmp_path / "home"))
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT", "SOLUSDT")):
        store.write_bars(symbol, "15m", random_walk_bars(500, seed=seed))
    variables = {
        "TRADEWIND_HOME": str(tmp_path / "home"),
        "TRADEWIND_CLOCK": "replay",
        "TRADEWIND_FEATURES": '{"warmup_bars": 300, "window": 16, "ratio_window": 50}',
    }
    end = datetime.fromtimestamp((START_MS + 500 * 900_000) / 1000, tz=UTC)
    assert call("clock", "set", end.isoformat(), **variables).exit_code == 0
    result = call("train", "-f", "lightgbm", **variables)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert all("[lightgbm_POOLED]: not_enough_bars: " in line for line in lines)
    assert any("the slice" in line for line in lines)
    assert json.loads(call("status", "--json", **variables).stdout)["models"] == []


def test_wrong_date(call: Call) -> None:
    refused(call("ingest", "--since", "last week"), 2, "bad_input", "last week", "2025-01-31")


def test_replay_clock_that_was_never_set(call: Call) -> None:
    refused(call("features", TRADEWIND_CLOCK="replay"), 2, "bad_setting", "clock set")


def test_the_replay_clock_is_set_and_shown(call: Call) -> None:
    replay = {"TRADEWIND_CLOCK": "replay"}
    assert call("clock", "set", "2025-10-01T00:00", **replay).exit_code == 0
    shown = json.loads(call("clock", "show", "--json", **replay).stdout)
    assert shown == {"mode": "replay", "now_ms": 1_759_276_800_000}
    assert "2025-10-01 00:00:00 UTC" in call("clock", "show", **replay).stdout
    refused(call("clock", "set", "noon", **replay), 2, "bad_input", "noon")
    refused(call("clock", "set", "2025-10-01"), 2, "bad_setting", "TRADEWIND_CLOCK=replay")


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
    refused(call("evaluate-champions", "-f", "lightgbm"), 1, "no_champion", "tradewind train")
    refused(call("drift", "-f", "lightgbm"), 1, "no_champion")


def test_an_evaluation_says_what_it_lacks(call: Call) -> None:
    refused(call("evaluate", "--dry-run"), 1, "no_bars", "tradewind ingest")
    refused(call("evaluate", "--since", "spring"), 2, "bad_input", "spring")
    refused(call("evaluate", "--bars", "cloud"), 2, "bad_input", "cloud")
    refused(call("evaluate", "-f", "oracle"), 2, "bad_setting", "oracle")
    refused(call("evaluate", "--bars", "folder"), 2, "bad_setting", "TRADEWIND_DATA")
    refused(call("evaluate", "--days-back", "5"), 2, "bad_input", "--days-back 5", "30")


def test_an_evaluation_tells_its_cost_and_its_result(
    call: Call, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = history_home(make_settings)
    dumped = settings.model_dump(mode="json")
    sections = ("market", "features", "training", "boosted", "evaluation")
    given = {f"TRADEWIND_{name.upper()}": json.dumps(dumped[name]) for name in sections}
    told = call("evaluate", "--dry-run", "--json", **given)
    assert told.exit_code == 0, told.output
    (cost,) = json.loads(told.stdout)["costs"]
    assert (cost["family"], cost["folds"]) == ("lightgbm", 2)
    page = tmp_path / "out" / "report.html"
    done = call("evaluate", "--no-track", "--report", str(page), **given)
    assert done.exit_code == 0, done.output
    assert "Net edge:" in done.output
    assert "2/2" in done.output
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


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
    assert found["serving"]["ready"] is False
    assert found["up"]["running"] is False
    assert "`tradewind up` is not running" in found["problems"]
    assert call("status").exit_code == 0
    assert call("status", "--strict").exit_code == 1


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
