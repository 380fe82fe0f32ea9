"""kill -9 at every write of a promotion and of a rollback: always serveable, always resumable.

A child process dies by SIGKILL after its n-th write to the registry, for every n; the
parent then looks at what is left, and asks again.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import registry
from registry.aliases import history, promote, rollback
from registry.tracking import Tracking
from registry.versions import alias_table, resolve
from tradewind.settings import Settings

REPOSITORY = Path(registry.__file__).resolve().parent.parent
WRITES = 8  # more than either operation needs, so that the last ones end unharmed
BY_HAND = {"who": "ann", "why": "crash test"}
CRASHER = """
import os, signal, sys
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

home, operation, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for writes in range(count):
    child = os.fork()  # before any connection is open; importing MLflow each time takes seconds
    if child == 0:
        tracking = Tracking(load_settings(home=home))
        die_after(tracking, writes)
        name = f"tradewind.lightgbm.N{writes}"
        if operation == "promote":
            aliases.promote(tracking, name, 2, who="ann", why="crash test")
        else:
            aliases.rollback(tracking, name, who="ann", why="crash test")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def names(tracking: Tracking) -> list[str]:
    """One registered model per kill point: versions 1, 2 and 3, champion 1, challenger 2.

    The versions have no files: aliases do not look at any.
    """
    made = [f"tradewind.lightgbm.N{number}" for number in range(WRITES)]
    for name in made:
        tracking.client.create_registered_model(name)
        for _ in range(3):
            tracking.client.create_model_version(name, "file:///none", tags={"gates": "passed"})
        promote(tracking, name, 1, **BY_HAND)
        promote(tracking, name, 2, to="challenger", **BY_HAND)
    return made


def crash(settings: Settings, operation: str) -> list[int]:
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", CRASHER),
            *(str(settings.home), operation, str(WRITES)),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    codes = [int(line) for line in done.stdout.split()]
    assert codes[0] == -signal.SIGKILL
    assert codes[-1] == 0, "the last ones must have had writes to spare"
    assert set(codes) == {0, -signal.SIGKILL}
    return codes


def test_a_promotion_killed_anywhere_is_serveable_and_can_be_repeated(
    settings: Settings, tracking: Tracking, names: list[str]
) -> None:
    codes = crash(settings, "promote")
    assert codes.count(-signal.SIGKILL) == 5  # journal, previous, champion, challenger, done
    for name in names:
        left = alias_table(tracking)[name]
        served = resolve(tracking, "lightgbm", name.rsplit(".", 1)[1])
        assert served is not None
        assert served.version in (1, 2)
        if left["champion"] == 2:
            assert left["previous"] == 1, "there is always a way back"
        promote(tracking, name, 2, **BY_HAND)
        assert alias_table(tracking)[name] == {"champion": 2, "previous": 1}
        assert [change.state for change in history(tracking, name)] == ["done"] * 3
        assert (history(tracking, name)[0].from_version) == 1
        rollback(tracking, name, **BY_HAND)
        assert alias_table(tracking)[name] == {"champion": 1, "previous": 2}


def test_another_change_after_a_killed_promotion_is_not_confused(
    settings: Settings, tracking: Tracking, names: list[str]
) -> None:
    codes = crash(settings, "promote")
    for name, code in zip(names, codes, strict=True):
        reached = alias_table(tracking)[name]["champion"] == 2
        promote(tracking, name, 3, **BY_HAND)
        left = alias_table(tracking)[name]
        assert left["champion"] == 3
        assert left["previous"] == (2 if reached else 1)
        states = [change.state for change in history(tracking, name)]
        assert "started" not in states
        assert ("abandoned" in states) == (code != 0 and not reached and len(states) == 4)


def test_a_rollback_killed_anywhere_ends_as_one_rollback(
    settings: Settings, tracking: Tracking, names: list[str]
) -> None:
    for name in names:
        promote(tracking, name, 2, **BY_HAND)
    codes = crash(settings, "rollback")
    assert codes.count(-signal.SIGKILL) == 4  # journal, champion, previous, done
    for name, code in zip(names, codes, strict=True):
        assert alias_table(tracking)[name]["champion"] in (1, 2)
        if code:
            change = rollback(tracking, name, **BY_HAND)
            assert (change.from_version, change.to_version) == (2, 1)
        assert alias_table(tracking)[name] == {"champion": 1, "previous": 2}
        assert [change.state for change in history(tracking, name)] == ["done"] * 4
