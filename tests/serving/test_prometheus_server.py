"""A real Prometheus scrapes a real server, and raises the alarm of a broken champion."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.programs import program
from tests.support.server import free_port
from tests.support.server_process import running, wait_until
from tests.support.serving import World, unloadable
from tradewind.models.bundle import ModelBundle

PROMETHEUS = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
EVERY = "1s"
WAIT_S = 40


class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=10)

    def close(self) -> None:
        self._http.close()

    def ready(self) -> bool:
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def values(self, query: str) -> dict[str, float]:
        """Return the value of every series of an answer by its labels."""
        answer = self._http.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", answer
        return {
            ",".join(f"{k}={v}" for k, v in sorted(item["metric"].items())): float(item["value"][1])
            for item in answer["data"]["result"]
        }

    def alerts(self) -> dict[str, str]:
        """Return every alert that is pending or firing, and which of both."""
        answer = self._http.get("/api/v1/alerts").json()
        return {item["labels"]["alertname"]: item["state"] for item in answer["data"]["alerts"]}

    def rule_problems(self) -> list[str]:
        """Return what the evaluation of any rule complained of."""
        groups = self._http.get("/api/v1/rules").json()["data"]["groups"]
        return [rule["lastError"] for g in groups for rule in g["rules"] if rule.get("lastError")]


def quick(folder: Path, port: int) -> Path:
    """Write our own configuration and rules for a server at a port, waiting no minute."""
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": EVERY, "evaluation_interval": EVERY}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    rules = yaml.safe_load((PROMETHEUS / "tradewind.rules.yml").read_text("utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["for"] = "2s"
    (folder / "tradewind.rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@contextlib.contextmanager
def scraping(folder: Path, port: int) -> Iterator[Prometheus]:
    """Run Prometheus on a port of loopback, in a folder of its own."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            program("prometheus"),
            f"--config.file={quick(folder, port)}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ],
        cwd=folder,
    )
    found = Prometheus(f"http://{address}")
    try:
        assert wait_until(lambda: found.ready() or process.poll() is not None, WAIT_S)
        assert process.poll() is None
        yield found
    finally:
        found.close()
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.slow
def test_a_broken_champion_raises_the_alarm_and_a_good_one_ends_it(
    make_world: Callable[..., World], bundles: dict[str, ModelBundle], tmp_path: Path
) -> None:
    port = free_port()
    world = make_world(
        serving={"port": port, "poll_s": 0.3, "gauges_s": 0.3, "flush_s": 0.2, "reload_retry_s": 60}
    )
    good = world.register(bundles["btc"])
    world.point(good)
    world.point(world.register(bundles["deep"]))
    broken = world.register(unloadable(bundles["btc"]))
    with (
        running(world, tmp_path / "serving.txt") as server,
        scraping(tmp_path, port) as prometheus,
        httpx.Client(base_url=server.url, trust_env=False) as http,
    ):

        def asked() -> bool:
            assert http.get("/ml/predict", params={"symbol": "BTCUSDT"}).status_code == 200
            return bool(prometheus.values("tradewind_ml_predictions_total"))

        assert wait_until(asked, WAIT_S), "nothing was scraped"
        up = f"__name__=up,instance=127.0.0.1:{port},job=tradewind-serving"
        assert prometheus.values("up") == {up: 1.0}
        assert prometheus.rule_problems() == []
        assert "ModelLoadFailed" not in prometheus.alerts()

        world.point(broken)
        assert wait_until(lambda: "ModelLoadFailed" in prometheus.alerts(), WAIT_S)
        assert wait_until(lambda: prometheus.alerts().get("ModelLoadFailed") == "firing", WAIT_S)
        answer = http.get("/ml/predict", params={"symbol": "BTCUSDT"}).json()
        assert answer["model_version"] == f"{good.name}/{good.version}", "the old one serves on"

        world.point(good)
        assert wait_until(lambda: "ModelLoadFailed" not in prometheus.alerts(), WAIT_S), (
            "the alarm stays although the champion is the good version again"
        )
        http.close()
        server.process.terminate()
        assert server.process.wait(timeout=30) == 0
        assert wait_until(lambda: prometheus.alerts().get("ServingDown") == "firing", WAIT_S)
