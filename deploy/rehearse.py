#!/usr/bin/env python3
"""Rehearse the composed stack for real, from nothing: `python3 deploy/rehearse.py --help`.

Brings docker-compose.yml up under a project name of its own, reads bars, launches a retraining
over GraphQL in the web server, asks serving for a prediction, lets the engine trade replayed
bars, looks at what listens, takes everything down and up again and looks whether it is all still
there. Prints a table of start times and memory. Standard library only; needs podman with
podman-compose, and takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "tradewind-rehearsal"
SERVICES = (
    "postgres",
    "mlflow",
    "dagster-code",
    "dagster-webserver",
    "dagster-daemon",
    "serving",
    "engine",
)
PORTS = {"DAGSTER_PORT": 3900, "MLFLOW_PORT": 5900, "SERVING_PORT": 8900}
TINY = {
    "TRADEWIND_CLOCK": "replay",
    "TRADEWIND_PROFILE": "quick",
    "TRADEWIND_MARKET": {"symbols": ["BTCUSDT", "ETHUSDT"]},
    "TRADEWIND_TRAINING": {
        "days_back": 40,
        "walk_forward_folds": 2,
        "fold_days": 4,
        "bootstrap_samples": 100,
    },
    "TRADEWIND_BOOSTED": {"max_rounds": 20},
}
RETRAIN = {
    "ops": {
        "plan_units": {
            "config": {"families": ["lightgbm"], "days_back": 40, "allow_failed_gates": True}
        }
    }
}
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
RUNS = "query { runsOrError { ... on Runs { results { runId status } } } }"
DAY_MS, BAR_MS = 86_400_000, 900_000
REPLAY_DAYS = 2
START_LIMIT_S, RUN_LIMIT_S, TRADE_LIMIT_S, READY_LIMIT_S = 240, 600, 180, 180
DECISIONS_WANTED = 6


def say(text: str) -> None:
    """Print a line at once."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


class RehearsalError(Exception):
    """The rehearsal cannot go on."""


class Stack:
    """The composed stack, as podman and podman-compose see it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {**os.environ, **environment}

    def compose(self, *arguments: str) -> str:
        """Run podman-compose."""
        return self._run("podman-compose", "-p", PROJECT, *arguments)

    def podman(self, *arguments: str) -> str:
        """Run podman."""
        return self._run("podman", *arguments)

    def tradewind(self, service: str, *arguments: str) -> str:
        """Run a command of `tradewind` in a service's container."""
        return self.podman("exec", container(service), "tradewind", *arguments)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RehearsalError(
                f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        return done.stdout

    def healthy(self, service: str) -> bool:
        """Ask the service's own health check, once, now."""
        asked = subprocess.run(
            ["podman", "healthcheck", "run", container(service)], capture_output=True, check=False
        )
        return asked.returncode == 0

    def up(self) -> dict[str, float]:
        """Start service by service in order; return the seconds each took to be healthy.

        podman-compose before 1.3 does not wait for `condition: service_healthy` itself.
        """
        taken = {}
        for service in SERVICES:
            began = time.monotonic()
            self.compose("up", "-d", "--no-deps", service)
            wait_for(f"{service} to be healthy", START_LIMIT_S, lambda s=service: self.healthy(s))
            taken[service] = time.monotonic() - began
            say(f"{service} is healthy after {taken[service]:.1f} s")
        return taken

    def memory(self) -> dict[str, str]:
        """Return what each container uses now."""
        names = [container(service) for service in SERVICES]
        lines = self.podman("stats", "--no-stream", "--format", "{{.Name}}\t{{.MemUsage}}", *names)
        pairs = (line.split("\t") for line in lines.splitlines() if "\t" in line)
        return {name: usage.split("/")[0].strip() for name, usage in pairs}


def container(service: str) -> str:
    """Return a service's container name."""
    return f"{PROJECT}_{service}_1"


def wait_for(what: str, limit_s: float, done: Callable[[], bool]) -> None:
    """Wait until ``done`` says so."""
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            raise RehearsalError(f"waited {limit_s:.0f} s in vain for {what}")
        time.sleep(1)


def ask_dagster(query: str, **variables: object) -> dict[str, object]:
    """Ask the web server's GraphQL."""
    return post(
        f"http://127.0.0.1:{PORTS['DAGSTER_PORT']}/graphql",
        {"query": query, "variables": variables},
    )["data"]


def post(url: str, body: object) -> dict:
    """Send JSON, return JSON."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def get(path: str) -> dict:
    """Ask serving."""
    url = f"http://127.0.0.1:{PORTS['SERVING_PORT']}{path}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def serving_ready() -> bool:
    """Return whether serving has champions to answer with."""
    try:
        url = f"http://127.0.0.1:{PORTS['SERVING_PORT']}/readyz"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def retrain() -> str:
    """Launch a retraining over GraphQL, wait for its end; return its id."""
    params = {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "tradewind",
            "jobName": "retrain",
        },
        "runConfigData": RETRAIN,
        "mode": "default",
    }
    launched = ask_dagster(LAUNCH, params=params)["launchRun"]
    if launched["__typename"] != "LaunchRunSuccess":
        raise RehearsalError(f"the launch was refused: {launched}")
    run_id = launched["run"]["runId"]
    say(f"retrain {run_id} launched over GraphQL")
    began = time.monotonic()

    def status() -> str:
        return ask_dagster(STATUS, id=run_id)["runOrError"]["status"]

    wait_for("the run to end", RUN_LIMIT_S, lambda: status() in ("SUCCESS", "FAILURE", "CANCELED"))
    if status() != "SUCCESS":
        raise RehearsalError(f"run {run_id} ended {status()}")
    say(f"retrain ended SUCCESS after {time.monotonic() - began:.0f} s")
    return run_id


def read_bars(stack: Stack) -> None:
    """Ingest everything, then set the replay's clock some days before the newest bar."""
    stack.tradewind("dagster-code", "clock", "set", "2100-01-01T00:00")
    stack.tradewind("dagster-code", "ingest", "--json")
    bars = json.loads(stack.tradewind("dagster-code", "status", "--json"))["bars"]
    last = min(row["last_ts"] for row in bars.values())
    start = time.gmtime((last + BAR_MS - REPLAY_DAYS * DAY_MS) / 1000)
    stack.tradewind("dagster-code", "clock", "set", time.strftime("%Y-%m-%dT%H:%M", start))
    say(f"bars of {', '.join(bars)} read")


def books(stack: Stack) -> dict:
    """Return the paper account, after the books were checked."""
    if not json.loads(stack.tradewind("dagster-code", "ledger", "check", "--json"))["ok"]:
        raise RehearsalError("the books do not balance")
    return json.loads(stack.tradewind("dagster-code", "status", "--json"))["paper"]


def listeners_beyond_loopback() -> list[str]:
    """Return our published ports that answer on an address other than loopback."""
    found = []
    for address in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}:
        if address.startswith("127.") or address == "::1":
            continue
        for port in PORTS.values():
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
                probe.settimeout(1)
                if probe.connect_ex((address, port)) == 0:
                    found.append(f"{address}:{port}")
    return found


def published(stack: Stack) -> list[str]:
    """Return what podman publishes, e.g. 127.0.0.1:3900."""
    lines = stack.podman("ps", "--filter", f"name={PROJECT}_", "--format", "{{.Ports}}")
    return sorted(
        {part.split("->")[0] for line in lines.split() for part in line.split(",") if part}
    )


def rehearse(stack: Stack) -> None:
    """Do it all."""
    taken = stack.up()
    idle = stack.memory()
    read_bars(stack)
    run_id = retrain()
    wait_for("serving to load the champion", READY_LIMIT_S, serving_ready)
    answer = get("/ml/predict?symbol=BTCUSDT")
    say(f"prediction: {json.dumps(answer)[:300]}")

    def enough() -> bool:
        return books(stack)["decisions"] >= DECISIONS_WANTED

    wait_for("the engine to decide", TRADE_LIMIT_S, enough)
    busy = stack.memory()
    before = books(stack)
    say(f"the engine's account: {before}")

    outside, ports = listeners_beyond_loopback(), published(stack)
    if outside or not all(port.startswith("127.0.0.1:") for port in ports):
        raise RehearsalError(f"beyond loopback: {outside}, published {ports}")
    say(f"published: {', '.join(ports)}; nothing answers beyond loopback")

    stack.compose("down")
    again = stack.up()
    runs = ask_dagster(RUNS)["runsOrError"]["results"]
    if {"runId": run_id, "status": "SUCCESS"} not in runs:
        raise RehearsalError(f"the run is gone after down and up: {runs}")
    wait_for("serving to be ready again", READY_LIMIT_S, serving_ready)
    after = books(stack)
    if after["decisions"] < before["decisions"]:
        raise RehearsalError(f"decisions are gone: {before} before, {after} after")
    say(f"after down and up: run, champion and {after['decisions']} decisions are there")

    print("\n| service | first start (s) | second start (s) | idle | while trading |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in SERVICES:
        memory = f"{idle[container(name)]} | {busy[container(name)]}"
        print(f"| {name} | {taken[name]:.1f} | {again[name]:.1f} | {memory} |")


def main() -> int:
    """Rehearse; leave nothing behind unless told to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("TRADEWIND_DATA"))
    parser.add_argument("--keep", action="store_true", help="leave the stack running")
    parser.add_argument("--logs", type=Path, help="write every container's log into this folder")
    given = parser.parse_args()
    missing = [name for name in ("podman", "podman-compose") if shutil.which(name) is None]
    if missing or given.data is None:
        sys.exit(f"missing: {', '.join(missing) or 'TRADEWIND_DATA (or --data)'}")
    settings = {k: v if isinstance(v, str) else json.dumps(v) for k, v in TINY.items()}
    password = secrets.token_urlsafe(18)
    stack = Stack(
        {
            "POSTGRES_PASSWORD": password,
            "TRADEWIND_DATA": str(given.data.resolve()),
            **settings,
            **{name: str(port) for name, port in PORTS.items()},
        }
    )
    return rehearse_and_clean(stack, password, logs=given.logs, keep=given.keep)


def rehearse_and_clean(stack: Stack, password: str, *, logs: Path | None, keep: bool) -> int:
    """Rehearse, keep the logs, and take the stack down however the rehearsal ended."""
    code = 0
    try:
        try:
            rehearse(stack)
        except RehearsalError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            code = 1
        finally:
            if logs is not None:
                code = max(code, keep_logs(logs, password))
    finally:
        if not keep:
            stack.compose("down", "-v")
    return code


def keep_logs(folder: Path, password: str) -> int:
    """Write the logs; return 1 if the password stands in one."""
    folder.mkdir(parents=True, exist_ok=True)
    leaks = []
    for service in SERVICES:
        done = subprocess.run(
            ["podman", "logs", container(service)], capture_output=True, check=False
        )
        text = done.stdout + done.stderr
        (folder / f"{service}.log").write_bytes(text)
        if password.encode() in text:
            leaks.append(service)
    if leaks:
        print(f"FAILED: the password stands in the log of {', '.join(leaks)}", file=sys.stderr)
    return 1 if leaks else 0


if __name__ == "__main__":
    sys.exit(main())
