"""kill -9 at every write of a promotion and of a rollback: always serveable, always resumable.

A child process dies by SIGKILL before its n-th write to the registry, for every n; the
tests then look at what is left, and ask again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import registry
from registry.aliases import history, promote, rollback
from registry.tracking import Tracking
from registry.versions import alias_table, resolve
from tradewind.settings import load_settings

REPOSITORY = Path(registry.__file__).resolve().parent.parent
WRITES = 7  # more than either operation needs, so that the last ones end unharmed
KILLED = -signal.SIGKILL
OPERATIONS = {"A": "promote", "B": "promote", "C": "rollback"}
BY_HAND = {"who": "ann", "why": "crash test"}
CRASHER = """
import json, os, signal, sys
import mlflow.store.tracking.sqlalchemy_store, mlflow.store.model_registry.sqlalchemy_store
from registry import aliases
from registry.tracking import Tracking
from tradewind.settings import load_settings

WRITES = ("set_registered_model_alias", "delete_registered_model_alias",
          "set_registered_model_tag", "delete_registered_model_tag")

def die_after(tracking, writes):
    left = [writes]
    def deadly(write):
        def call(*arguments):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return write(*arguments)
        return call
    for name in WRITES:
        setattr(tracking.client, name, deadly(getattr(tracking.client, name)))

def change(home, operation, name, writes):
    tracking = Tracking(load_settings(home=home))
    die_after(tracking, writes)
    if operation == "promote":
        aliases.promote(tracking, name, 2, who="ann", why="crash test")
    else:
        aliases.rollback(tracking, name, who="ann", why="crash test")

home, operations, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
codes = {group: [] for group in operations}
for group, operation in operations.items():
    for writes in range(count):
        child = os.fork()  # before any connection is open: importing MLflow takes seconds
        if child == 0:
            change(home, operation, f"tradewind.lightgbm.{group}{writes}", writes)
            os._exit(0)
        codes[group].append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


@dataclass(frozen=True)
class Wreck:
    """A registry in which changes were killed, and how each child ended."""

    tracking: Tracking
    codes: dict[str, list[int]]

    def names(self, group: str) -> list[tuple[str, int]]:
        """Return the names of a group, each with its child's exit code."""
        codes = self.codes[group]
        return [(f"tradewind.lightgbm.{group}{i}", code) for i, code in enumerate(codes)]


@pytest.fixture(scope="module")
def wreck(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Wreck:
    """One name per kill point: versions 1, 2, 3; champion 1, challenger 2 (C: champion 2).

    The versions have no files: aliases do not look at any.
    """
    home = tmp_path_factory.mktemp("home")
    (home / "mlflow").mkdir()
    shutil.copyfile(empty_database, home / "mlflow" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith("TRADEWIND_")]:
            patch.delenv(variable)
        tracking = Tracking(load_settings(home=home))
        for group in OPERATIONS:
            for number in range(WRITES):
                name = f"tradewind.lightgbm.{group}{number}"
                tracking.client.create_registered_model(name)
                for _ in range(3):
                    tracking.client.create_model_version(
                        name, "file:///none", tags={"gates": "passed"}
                    )
                promote(tracking, name, 1, **BY_HAND)
                promote(tracking, name, 2, to="challenger", **BY_HAND)
                if OPERATIONS[group] == "rollback":
                    promote(tracking, name, 2, **BY_HAND)
        codes = crash(home)
    return Wreck(tracking, codes)


def crash(home: Path) -> dict[str, list[int]]:
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", CRASHER),
            *(str(home), json.dumps(OPERATIONS), str(WRITES)),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    codes: dict[str, list[int]] = json.loads(done.stdout)
    return codes


def test_every_write_was_a_kill_point(wreck: Wreck) -> None:
    # promotion: journal, previous, champion, challenger, done; rollback has no challenger
    assert wreck.codes["A"] == wreck.codes["B"] == [KILLED] * 5 + [0] * (WRITES - 5)
    assert wreck.codes["C"] == [KILLED] * 4 + [0] * (WRITES - 4)


def test_a_promotion_killed_anywhere_is_serveable_and_can_be_repeated(wreck: Wreck) -> None:
    tracking = wreck.tracking
    for name, _ in wreck.names("A"):
        left = alias_table(tracking)[name]
        served = resolve(tracking, "lightgbm", name.rsplit(".", 1)[1])
        assert served is not None
        assert served.version in (1, 2)
        if left["champion"] == 2:
            assert left["previous"] == 1, "there is always a way back"
        promote(tracking, name, 2, **BY_HAND)
        assert alias_table(tracking)[name] == {"champion": 2, "previous": 1}
        assert [change.state for change in history(tracking, name)] == ["done"] * 3
        assert history(tracking, name)[0].from_version == 1
        rollback(tracking, name, **BY_HAND)
        assert alias_table(tracking)[name] == {"champion": 1, "previous": 2}


def test_another_change_after_a_killed_promotion_is_not_confused(wreck: Wreck) -> None:
    tracking = wreck.tracking
    for name, _ in wreck.names("B"):
        journalled = len(history(tracking, name)) == 3
        reached = alias_table(tracking)[name]["champion"] == 2
        promote(tracking, name, 3, **BY_HAND)
        left = alias_table(tracking)[name]
        assert left["champion"] == 3
        assert left["previous"] == (2 if reached else 1)
        states = [change.state for change in history(tracking, name)]
        assert "started" not in states
        assert ("abandoned" in states) == (journalled and not reached)


def test_a_rollback_killed_anywhere_ends_as_one_rollback(wreck: Wreck) -> None:
    tracking = wreck.tracking
    for name, code in wreck.names("C"):
        assert alias_table(tracking)[name]["champion"] in (1, 2)
        if code == KILLED:
            change = rollback(tracking, name, **BY_HAND)
            assert (change.from_version, change.to_version) == (2, 1)
        assert alias_table(tracking)[name] == {"champion": 1, "previous": 2}
        assert [change.state for change in history(tracking, name)] == ["done"] * 4
