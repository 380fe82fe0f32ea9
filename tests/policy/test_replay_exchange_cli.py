"""`tradewind replay-exchange` as a user runs it: started, asked, stopped."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from tests.support.exchange import exchange_process
from tests.support.synthetic import random_walk_bars

WAIT_S = 60


def test_a_rehearsal_starts_answers_and_ends(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "binance_usdm_perp_15m"
    folder.mkdir(parents=True)
    random_walk_bars(200).write_parquet(folder / "BTCUSDT_15m.parquet")
    options = ("--start", "2025-01-02T00:00", "--speed", "0", "--fault", "html:1.0")
    with exchange_process(tmp_path / "home", "--data", str(folder.parent), *options) as running:
        exports = running.variables
        context = ssl.create_default_context(cafile=exports["TRADEWIND_MARKET__CA_FILE"])
        proxy = exports["TRADEWIND_MARKET__PROXY"]
        with httpx.Client(proxy=proxy, verify=context, trust_env=False) as client:
            answer = client.get("https://fapi.binance.com/fapi/v1/time")
        assert answer.text.startswith("<html>")
        running.process.send_signal(signal.SIGINT)
        rest, _ = running.process.communicate(timeout=WAIT_S)
    assert exports["TRADEWIND_MARKET__SOURCE"] == "ccxt"
    assert exports["TRADEWIND_MARKET__EXCHANGES"] == '["binanceusdm"]'
    assert "2025-01-02 00:00:00 UTC" in running.printed
    assert "1 requests; faults: html × 1" in rest
    assert running.process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--start", "yesterday"], "yesterday"),
        (["--set", "kraken_swap"], "kraken_swap"),
        (["--set", "binance_spot"], "bybit_linear"),
        (["--fault", "429"], "KIND:PROBABILITY"),
        (["--follow-clock", "--start", "2025-01-02"], "contradict"),
        (["--data", "/nowhere"], "/nowhere"),
    ],
)
def test_a_wrong_option_gets_one_clear_line(
    arguments: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRADEWIND_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["replay-exchange", *arguments])
    assert result.exit_code in (1, 2), result.output
    assert "Traceback" not in result.output
    assert word in result.stderr
