"""Killed with -9 anywhere, an engine ends with the books of one that was never killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from policy.brokers import paper_schema
from policy.engine import Engine
from tests.support.engine_process import COMMIT, FIRST_CYCLE, start
from tests.support.trading_day import STEP, build_engine, trading_settings, write_market
from tradewind.ledger import schema
from tradewind.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ("decide", "intent", "send", "book")
# What belongs to the process and not to the books.
OF_THE_PROCESS = {"leases", "clock"}


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run: its books, and the names of the steps it went through."""

    tables: dict[str, list[tuple[Any, ...]]]
    steps: list[str]
    fills: int


def all_tables(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of the ledger's and of the paper exchange's tables."""
    content = {}
    with engine.ledger.db.read() as connection:
        for metadata in (schema.metadata, paper_schema.metadata):
            for name in sorted(set(metadata.tables) - OF_THE_PROCESS):
                table = metadata.tables[name]
                rows = connection.execute(select(table).order_by(*table.primary_key))
                content[name] = [tuple(row) for row in rows]
    return content


def run_uninterrupted(folder: Path, bars: int) -> Reference:
    settings = trading_settings(folder)
    write_market(settings, bars)
    end_ms = FIRST_CYCLE + (bars - 25) * STEP
    engine, countdown = start(folder, end_ms, folder / "kills.txt")
    assert engine.check().ok, engine.check().lines
    return Reference(all_tables(engine), countdown.passed, len(engine.ledger.fills()))


Life = tuple[str, int]
UNTIL_THE_END: Life = ("", 0)


def run_process(
    folder: Path, end_ms: int, life: Life = UNTIL_THE_END, *, kill_after_s: float = 0
) -> int:
    """Run the engine in a process; return its exit status (−9 when it was killed)."""
    log = str(folder / "kills.txt")
    arguments = [str(folder), str(end_ms), log, life[0], str(life[1])]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.engine_process", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if kill_after_s and process.stdout.readline():  # it has started to trade
        time.sleep(kill_after_s)
        process.kill()
    _, errors = process.communicate(timeout=240)
    assert process.returncode in (0, -9), errors
    return process.returncode


def draw_lives(steps: list[str], count: int, rng: random.Random) -> list[Life]:
    """Return how each process ends: once in every stage, then anywhere, in random order.

    A life is a share of the run, so that all of them fit into it.
    """
    stages = [*STAGES, *[""] * (count - len(STAGES))]
    lives = []
    for stage in stages:
        passes = sum(name.startswith(stage) for name in steps)
        lives.append((stage, rng.randint(1, max(1, passes // (count + 1)))))
    rng.shuffle(lives)
    return lives


def run_killed(folder: Path, bars: int, lives: list[Life]) -> tuple[Engine, list[str]]:
    """Run with a kill after each life, then to the end; return the books and where it died."""
    settings = trading_settings(folder)
    write_market(settings, bars)
    end_ms = FIRST_CYCLE + (bars - 25) * STEP
    for life in lives:
        assert run_process(folder, end_ms, life) == -9
    assert run_process(folder, end_ms) == 0
    engine, _ = build_engine(settings)
    return engine, (folder / "kills.txt").read_text().split()


def assert_same_books(engine: Engine, reference: Reference) -> None:
    found = engine.check()
    assert found.ok, found.lines
    ids = engine.broker.client_ids()  # type: ignore[attr-defined]
    assert max(Counter(ids).values()) == 1
    assert engine.broker.repeats() == 0  # type: ignore[attr-defined]
    books = all_tables(engine)
    # Settings first: where they differ, every decision does, and that is why.
    for name, rows in sorted(reference.tables.items(), key=lambda item: "settings" not in item[0]):
        assert books[name] == rows, name


def test_killed_in_every_stage_ends_with_the_same_books(tmp_path: Path) -> None:
    bars = 55
    reference = run_uninterrupted(tmp_path / "whole", bars)
    lives = draw_lives(reference.steps, len(STAGES), random.Random(3))
    engine, died = run_killed(tmp_path / "killed", bars, lives)
    assert {name.split(":")[0] for name in died} == set(STAGES), died
    assert reference.fills >= 25
    assert_same_books(engine, reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_kills_over_a_hundred_fills(tmp_path: Path, seed: int) -> None:
    bars = 130
    reference = run_uninterrupted(tmp_path / "whole", bars)
    assert reference.fills >= 100
    lives = draw_lives(reference.steps, 10, random.Random(seed))
    engine, died = run_killed(tmp_path / "killed", bars, lives)
    orders = len(engine.broker.client_ids())  # type: ignore[attr-defined]
    print(f"seed {seed}: {reference.fills} fills, {orders} orders, killed in {', '.join(died)}")
    print("\n".join(engine.check().lines))
    assert {name.split(":")[0] for name in died} >= set(STAGES), died
    assert len(died) == 10
    assert_same_books(engine, reference)


@pytest.mark.slow
def test_killed_before_every_kind_of_commit(tmp_path: Path) -> None:
    """Die with a transaction written and not committed, again and again."""
    bars = 45
    reference = run_uninterrupted(tmp_path / "whole", bars)
    share = reference.steps.count(COMMIT) // 9
    lives = [(COMMIT, nth) for nth in random.Random(5).sample(range(1, share), 8)]
    engine, died = run_killed(tmp_path / "killed", bars, lives)
    assert died == [COMMIT] * 8
    assert_same_books(engine, reference)


@pytest.mark.slow
def test_killed_from_outside_at_any_instruction(tmp_path: Path) -> None:
    """The parent kills at a random moment, which no hook has chosen."""
    bars = 80
    reference = run_uninterrupted(tmp_path / "whole", bars)
    folder = tmp_path / "killed"
    settings: Settings = trading_settings(folder)
    write_market(settings, bars)
    end_ms = FIRST_CYCLE + (bars - 25) * STEP
    rng = random.Random(11)
    killed = 0
    for _ in range(8):
        killed += run_process(folder, end_ms, kill_after_s=rng.uniform(0.02, 0.3)) == -9
    assert run_process(folder, end_ms) == 0
    assert killed >= 4
    assert_same_books(build_engine(settings)[0], reference)
