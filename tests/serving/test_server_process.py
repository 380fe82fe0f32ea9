"""The real server process: ready, a champion moved under load, metrics, and a clean stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serving.launch import environment
from tests.support.server import free_port
from tests.support.server_process import START_S, Server, ready, running, wait_until
from tests.support.serving import World
from tradewind.ledger import open_ledger
from tradewind.models.bundle import ModelBundle

REPOSITORY = Path(__file__).resolve().parents[2]
SWAP_S = 10


@dataclass
class Load:
    """Threads that ask without pause and keep every answer."""

    url: str
    answers: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        body = {"kind": "deep", "symbols": ["BTCUSDT", "ETHUSDT"], "n_samples": 5}
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30) as http:
            while not self.stop.is_set():
                try:
                    answer = http.post("/ml/predict_many", json=body)
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.answers.append((time.monotonic(), answer.json()))
                else:
                    self.failures.append(answer.text)


@pytest.fixture(scope="module")
def make_served_world(
    make_world: Callable[..., World], bundles: dict[str, ModelBundle]
) -> Callable[[], World]:
    """Build a world with champions, to be served on a port of its own."""

    def make() -> World:
        serving = {"port": free_port(), "poll_s": 1.0, "flush_s": 0.2, "gauges_s": 0.5}
        world = make_world(serving=serving)
        world.point(world.register(bundles["btc"]))
        world.point(world.register(bundles["deep"]))
        return world

    return make


@pytest.fixture(scope="module")
def server(
    make_served_world: Callable[[], World], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    output = tmp_path_factory.mktemp("server") / "output.txt"
    with running(make_served_world(), output) as started:
        yield started


def versions_in(content: dict[str, Any]) -> set[str]:
    return {item["model_version"] for item in content["predictions"]}


def test_a_champion_moved_under_load(server: Server, bundles: dict[str, ModelBundle]) -> None:
    load = Load(server.url)
    threads = [threading.Thread(target=load.run) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert wait_until(lambda: len(load.answers) > 20, 30), load.failures
        second = server.world.register(bundles["deep2"])
        moved = time.monotonic()
        server.world.point(second)
        new = f"{second.name}/{second.version}"
        swapped = wait_until(lambda: new in versions_in(load.answers[-1][1]), SWAP_S)
        assert swapped, "the new champion does not answer"
        first_new = min(at for at, content in load.answers if new in versions_in(content))
        time.sleep(0.5)
    finally:
        load.stop.set()
        for thread in threads:
            thread.join()
    assert load.failures == []
    assert first_new - moved < SWAP_S
    probabilities: dict[tuple[str, str], set[float]] = {}
    for _, content in load.answers:
        assert len(versions_in(content)) == 1, "one request mixes versions"
        assert len(content["predictions"]) == 2
        for item in content["predictions"]:
            key = item["model_version"], item["symbol"]
            probabilities.setdefault(key, set()).add(round(item["p_up"], 6))
    assert len(probabilities) == 4
    assert all(len(found) == 1 for found in probabilities.values()), probabilities


def test_metrics_of_the_process(server: Server) -> None:
    httpx.get(f"{server.url}/ml/predict?symbol=BTCUSDT", trust_env=False)
    httpx.get(f"{server.url}/ml/predict?symbol=NOPE", trust_env=False)

    def text(path: str) -> str:
        return httpx.get(f"{server.url}{path}", trust_env=False).text

    names = (
        'tradewind_ml_uncertainty{symbol="BTCUSDT"}',
        'tradewind_ml_cross_asset_ratio{pair="BTC_ETH"}',
        'tradewind_ml_cross_asset_ratio{pair="ETH_SOL"}',
        'tradewind_ml_regime_state{symbol="BTCUSDT"}',
        'tradewind_ml_feature_staleness_seconds{symbol="ETHUSDT"} 0.0',
        'tradewind_ml_errors_total{kind="unknown_symbol"}',
        "tradewind_ml_request_seconds_bucket",
        "tradewind_ml_model_swaps_total",
        "tradewind_ml_model_age_seconds",
        "tradewind_ml_registry_up 1.0",
    )
    assert wait_until(lambda: all(name in text("/metrics") for name in names), 10), [
        name for name in names if name not in text("/metrics")
    ]
    assert "tradewind_ml_uncertainty" in text("/metrics/prom")


def test_a_request_s_id_leads_from_the_caller_to_the_log_and_the_ledger(server: Server) -> None:
    asked = {"symbol": "BTCUSDT", "decision_id": "traced"}
    given = {"X-Request-ID": "caller-17"}
    found = httpx.get(f"{server.url}/ml/predict", params=asked, headers=given, trust_env=False)
    assert found.headers["x-request-id"] == "caller-17"
    bad = httpx.get(f"{server.url}/ml/predict?symbol=NOPE", headers=given, trust_env=False)
    assert bad.headers["x-request-id"] == "caller-17"

    def lines() -> list[dict[str, Any]]:
        written = server.output.read_text().splitlines()
        return [json.loads(line) for line in written if "caller-17" in line and line.endswith("}")]

    def of_requests() -> list[dict[str, Any]]:
        return [line for line in lines() if line["message"] == "request"]

    assert wait_until(lambda: len(of_requests()) == 2, 10), lines()  # after the answer is out
    good, refused = sorted(of_requests(), key=lambda line: int(line["status"]))
    assert good["decision_ids"] == ["traced"]
    assert good["model_versions"] == [found.json()["model_version"]]
    assert (refused["status"], refused["error"]) == (404, "unknown_symbol")

    def logged() -> list[str]:
        with open_ledger(server.world.settings) as ledger:
            return list(ledger.predictions(decision_id="traced")["request_id"])

    assert wait_until(lambda: bool(logged()), 10)
    assert [name.split("~")[0] for name in logged()] == ["caller-17"]


def test_bentoml_s_own_client_asks_for_many(server: Server) -> None:
    """It learns the endpoints from ``/schema.json``; apart, as it leaves a folder behind."""
    asked = (
        "import bentoml, json, sys\n"
        "with bentoml.SyncHTTPClient(sys.argv[1]) as client:\n"
        "    print(json.dumps(client.predict(symbols=['BTCUSDT'])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked, server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert [item["symbol"] for item in answer["predictions"]] == ["BTCUSDT"]


def test_a_taken_port_is_refused_in_one_line(server: Server) -> None:
    given = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")}
    done = subprocess.run(
        [sys.executable, "-m", "serving"],
        cwd=REPOSITORY,
        env={**given, **environment(server.world.settings)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("already_running: serving cannot listen on 127.0.0.1:")
    assert len(done.stderr.splitlines()) == 1


def test_stopping_flushes_every_answer(server: Server) -> None:
    decisions = [f"last-{i}" for i in range(20)]
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        for decision in decisions:
            answer = http.get("/ml/predict", params={"symbol": "BTCUSDT", "decision_id": decision})
            assert answer.status_code == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0, server.output.read_text()
    with open_ledger(server.world.settings) as ledger:
        logged = set(ledger.predictions(model_type="lightgbm")["decision_id"])
    assert set(decisions) <= logged
    assert "Traceback" not in server.output.read_text()


@pytest.mark.slow
def test_a_kill_loses_one_flush_interval_and_leaves_nothing_behind(
    make_served_world: Callable[[], World], tmp_path: Path
) -> None:
    with running(make_served_world(), tmp_path / "output.txt") as server:
        supervisor = psutil.Process(server.process.pid)
        worker = supervisor.children()[0]
        params = {"symbol": "BTCUSDT", "decision_id": "before-the-kill"}
        httpx.get(f"{server.url}/ml/predict", params=params, trust_env=False)
        time.sleep(server.world.settings.serving.flush_s + 2)  # a flush on a busy machine
        worker.kill()
        assert wait_until(lambda: ready(server.url), START_S), "no new worker came"
        with open_ledger(server.world.settings) as ledger:
            assert len(ledger.predictions(decision_id="before-the-kill")) == 1
        again = supervisor.children()[0]
        assert again.pid != worker.pid
        supervisor.kill()
        gone = wait_until(lambda: not again.is_running() or again.status() == "zombie", 20)
        assert gone, "the worker holds the port after its supervisor was killed"
