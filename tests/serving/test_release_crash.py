"""kill -9 at every write of a promotion and of a rollback, under a real server that serves.

MLflow's server, serving and the command are processes of their own, and somebody asks for
predictions all the while. The command is `tradewind promote` or `tradewind rollback`; its
process ends by SIGKILL before its n-th write to the registry, for every n.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.aliases import history, promote
from registry.tracking import Tracking
from registry.versions import alias_table, fetch_bundle
from serving.launch import environment
from tests.serving.test_server_process import REPOSITORY, Server, running, wait_until
from tests.support.server import free_port
from tests.support.serving import NOW_MS, World, store_bars, world_settings
from tests.support.tracking_server import serve
from tradewind.ledger import open_ledger, set_replay_clock
from tradewind.models.bundle import ModelBundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAME = "tradewind.lightgbm.BTCUSDT"
WITHIN_S = 10
SETTLED_S = 2.5
"""Longer than serving's poll and the load of a small model."""
CLI_REPEATS = 5
DAGSTER_REPEATS = 3
PROMOTE = ("promote", NAME, "2", "--why", "crash test")
ROLLBACK = ("rollback", NAME, "--why", "crash test")
# Each child dies before the write of that number; it says on stdout what it was about to write.
COMMANDS = """
import os, signal, sys
import mlflow, mlflow.tracking
import pipelines.cli.models, registry.aliases, registry.tracking  # seconds, once for all children
from pipelines.cli.main import main
mlflow.MlflowClient("http://127.0.0.1:1")  # nothing is asked: the store's module is loaded
WRITES = ("set_registered_model_alias", "delete_registered_model_alias",
          "set_registered_model_tag", "delete_registered_model_tag")

def deadly(name, write, left):
    def call(client, *arguments):
        if left[0] == 0:
            print("killed before", name, *arguments[1:2], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return write(client, *arguments)
    return call

for line in sys.stdin:
    writes, *arguments = line.rstrip("\\n").split("\\t")
    child = os.fork()  # importing MLflow takes seconds: once is enough
    if child == 0:
        left = [int(writes)]
        for name in WRITES:
            whole = getattr(mlflow.tracking.MlflowClient, name)
            setattr(mlflow.tracking.MlflowClient, name, deadly(name, whole, left))
        sys.argv = ["tradewind", *arguments]
        main()
        os._exit(0)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Asker:
    """Somebody who asks without pause, and keeps who answered and with which number."""

    url: str
    answers: list[tuple[float, str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        params = {"symbol": "BTCUSDT"}
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30) as http:
            while not self._stop.wait(0.02):
                answer = http.get("/ml/predict", params=params)
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    continue
                content = answer.json()
                self.answers.append((time.time(), content["model_version"], content["p_up"]))

    def served(self) -> int:
        """Return the version of the newest answer."""
        return int(self.answers[-1][1].rpartition("/")[2])

    def wait_for(self, version: int) -> None:
        """Wait until this version answers."""
        assert wait_until(lambda: self.served() == version, WITHIN_S), self.answers[-1]

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask while the block runs; every answer was good, and each version's is its own."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            assert wait_until(lambda: bool(self.answers), 30), self.failures
            yield
        finally:
            self._stop.set()
            thread.join()
        assert self.failures == []
        said: dict[str, set[float]] = {}
        for _, version, p_up in self.answers:
            said.setdefault(version, set()).add(p_up)
        assert set(said) == {f"{NAME}/1", f"{NAME}/2"}
        assert all(len(found) == 1 for found in said.values()), said
        assert said[f"{NAME}/1"] != said[f"{NAME}/2"], "the two could not be told apart"


@dataclass
class Commands:
    """Runs commands, each in a process that may be told to die."""

    process: subprocess.Popen[str]

    def run(self, *arguments: str, writes: int = 1000) -> tuple[int, str]:
        """Return how a command ended, and what it was about to write when it was killed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\t".join((str(writes), *arguments)) + "\n")
        self.process.stdin.flush()
        place = ""
        for line in self.process.stdout:
            if line.startswith("killed before"):
                place = line.strip()
            if line.startswith("ended"):
                return int(line.split()[1]), place
        pytest.fail("the process that runs the commands ended")


@pytest.fixture(scope="module")
def server(
    empty_database: Path,
    bundles: dict[str, ModelBundle],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Serving at its default pace on MLflow's server; version 1 is champion, 2 is its equal."""
    root = tmp_path_factory.mktemp("release")
    database = root / "mlflow.db"
    database.write_bytes(empty_database.read_bytes())
    with serve(database, root) as (url, _):
        settings = world_settings(
            root / "home",
            registry={"tracking_uri": url},
            serving={"port": free_port(), "gauges_s": 1.0},
        )
        store_bars(settings)
        with open_ledger(settings) as ledger:
            set_replay_clock(ledger, NOW_MS)
        world = World(settings, Tracking(settings), tmp_path_factory.mktemp("bundles"))
        other = dataclasses.replace(
            bundles["eth"], meta=bundles["eth"].meta.model_copy(update={"key": "BTCUSDT"})
        )
        for bundle in (bundles["btc"], other):
            world.register(bundle)
        world.register(bundles["deep"])
        promote(world.tracking, NAME, 1, who="ann", why="first")
        promote(world.tracking, "tradewind.transformer.POOLED", 1, who="ann", why="first")
        with running(world, root / "serving.txt") as started:
            yield started


@pytest.fixture(scope="module")
def variables(server: Server) -> dict[str, str]:
    given = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")}
    return {**given, **environment(server.world.settings)}


@pytest.fixture
def commands(variables: dict[str, str]) -> Iterator[Commands]:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", COMMANDS],
        cwd=REPOSITORY,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Commands(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_release_killed_at_any_write_serves_one_version_and_is_finished_by_the_same_command(
    server: Server, commands: Commands, tmp_path: Path
) -> None:
    tracking, asker = server.world.tracking, Asker(server.url)
    places: dict[str, list[str]] = {"promote": [], "rollback": []}
    with asker.asking():
        for writes in range(6):
            promote(tracking, NAME, 2, to="challenger", who="ann", why="the next one")
            for operation, old, new in ((PROMOTE, 1, 2), (ROLLBACK, 2, 1)):
                before = len(history(tracking, NAME))
                code, place = commands.run(*operation, writes=writes)
                left = _sound(tracking, tmp_path)
                assert left in (old, new)
                _settled(asker, left)
                print(f"{operation[0]} {place or 'ended by itself'}: version {left} serves")
                if code != 0:
                    assert code == -9, "the process was not killed"
                    places[operation[0]].append(place)
                    assert commands.run(*operation)[0] == 0
                asker.wait_for(new)
                aliases = alias_table(tracking)[NAME]
                assert aliases == {"champion": new, "previous": old}
                changes = history(tracking, NAME)
                assert len(changes) == before + 1, "the change is in the history once"
                newest = changes[0]
                assert {change.state for change in changes} == {"done"}
                assert (newest.operation, newest.from_version, newest.to_version) == (
                    operation[0],
                    old,
                    new,
                )
    # promote: journal, previous, champion, challenger freed, done; rollback frees nothing.
    assert [len(places["promote"]), len(places["rollback"])] == [5, 4], places


def _sound(tracking: Tracking, scratch: Path) -> int:
    """Return the champion's number; its files are whole, and there is a way back."""
    aliases = alias_table(tracking)[NAME]
    champion = aliases["champion"]
    folder = fetch_bundle(tracking, NAME, version=champion, cache_dir=scratch / "again")
    assert ModelBundle.load(folder).meta.key == "BTCUSDT"
    return champion


def _settled(asker: Asker, version: int) -> None:
    """Wait until serving has seen the registry again; it answers with its champion."""
    asker.wait_for(version)
    time.sleep(SETTLED_S)
    assert asker.served() == version


def test_a_rollback_takes_effect_in_serving_within_ten_seconds(
    server: Server, variables: dict[str, str], tmp_path: Path
) -> None:
    tracking, asker = server.world.tracking, Asker(server.url)
    if alias_table(tracking)[NAME].get("previous") != 2:
        promote(tracking, NAME, 2, who="ann", why="something to go back from")
    config = tmp_path / "rollback.json"
    config.write_text(
        json.dumps({"ops": {"roll_back": {"config": {"name": NAME, "why": "worse"}}}})
    )
    job = ["job", "execute", "-m", "pipelines.definitions", "-j", "rollback", "-c", str(config)]
    ways = {
        "tradewind rollback": (
            CLI_REPEATS,
            ["-c", "from pipelines.cli import main; main()", *ROLLBACK],
        ),
        "Dagster job rollback": (DAGSTER_REPEATS, ["-m", "dagster", *job]),
    }
    dagster_home = tmp_path / "dagster"
    dagster_home.mkdir()
    given = {**variables, "DAGSTER_HOME": str(dagster_home)}
    figures: dict[str, dict[str, Any]] = {}
    with asker.asking():
        for way, (repeats, arguments) in ways.items():
            spent = [_seconds(tracking, asker, arguments, given) for _ in range(repeats)]
            figures[way] = {
                "repeats": repeats,
                "after_the_alias_moved_s": _summary([moved for moved, _ in spent]),
                "after_the_command_began_s": _summary([begun for _, begun in spent]),
            }
            assert max(moved for moved, _ in spent) < WITHIN_S, figures
    print(json.dumps(figures))


def _seconds(
    tracking: Tracking, asker: Asker, arguments: list[str], variables: dict[str, str]
) -> tuple[float, float]:
    """Return how long after alias and command the previous version was the one to answer."""
    aliases = alias_table(tracking)[NAME]
    asker.wait_for(aliases["champion"])
    target = aliases["previous"]
    begun, seen = time.time(), len(asker.answers)
    subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=variables,
        check=True,
        capture_output=True,
        timeout=120,
    )

    def first() -> float | None:
        wanted = f"{NAME}/{target}"
        return next((at for at, version, _ in asker.answers[seen:] if version == wanted), None)

    assert wait_until(lambda: first() is not None, WITHIN_S), asker.answers[-1]
    moved = history(tracking, NAME)[0].when_ms / 1000
    at = first()
    assert at is not None
    return at - moved, at - begun


def _summary(seconds: list[float]) -> dict[str, float]:
    return {
        "least": round(min(seconds), 2),
        "median": round(statistics.median(seconds), 2),
        "greatest": round(max(seconds), 2),
    }
