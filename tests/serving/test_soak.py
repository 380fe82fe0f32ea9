"""Serving over time, in small: the runs of ``benchmarks/serving_soak.py`` on the real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import (
    _soak_canary,
    _soak_kill,
    _soak_memory,
    _soak_restart,
    _soak_shadow,
    _soak_swaps,
)
from benchmarks._serving_world import TINY, ServingWorld, make_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SERVING = {**_soak_shadow.SERVING, "flush_s": 0.5}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ServingWorld:
    folder = tmp_path_factory.mktemp("soak")
    modes = len(_soak_shadow.MODES)
    return make_world(
        folder, symbols=8, serve_bars=3000, versions=modes, sizes=TINY, serving=SERVING
    )


def test_swaps_under_load_fail_nothing_and_mix_nothing(world: ServingWorld, tmp_path: Path) -> None:
    plan = _soak_swaps.SwapPlan(swaps=5, rate=30, quiet_s=1, capacity_s=1)
    found = _soak_swaps.run(world, tmp_path, plan)
    for name in ("predict", "predict_deep"):
        assert found[name]["failures"] == {}
        assert found[name]["examples"] == []
        assert found[name]["swaps_seen"] == plan.swaps
        assert found[name]["numbers_checked"] > 50
    assert found["broken"]["answered_by_the_old_one_alone"]
    assert found["ok"], found


def test_a_sleeping_and_a_raising_challenger_fail_no_one(
    world: ServingWorld, tmp_path: Path
) -> None:
    plan = _soak_shadow.ShadowPlan(rounds=1, seconds=1.5, rate=20)
    found = _soak_shadow.run(world, tmp_path, plan)
    assert found["failed"] == 0
    assert found["logged"]["ok"], found["logged"]
    assert found["counted"]["failed"] >= found["logged"]["raises"]["decisions"] > 0
    # A caller who had waited for a sleeper would have waited 5 s; p99 itself is for the benchmark.
    assert found["latency"]["sleeps"]["p99_ms"] < 2500


def test_the_canary_s_share_is_sticky_marked_and_logged(
    world: ServingWorld, tmp_path: Path
) -> None:
    found = _soak_canary.run(world, tmp_path, _soak_canary.CanaryPlan(decisions=1000, again=200))
    assert found["ok"], found


def test_a_kill_loses_one_flush_interval_at_most(world: ServingWorld, tmp_path: Path) -> None:
    found = _soak_kill.run(world, tmp_path, _soak_kill.KillPlan(rounds=2, seconds=1.5, rate=40))
    assert [item["killed"] for item in found["rounds"]] == ["worker", "supervisor"]
    assert all(item["answered_before"] > 20 for item in found["rounds"])
    assert found["ok"], found


def test_answers_are_the_same_over_restarts_and_batches(
    world: ServingWorld, tmp_path: Path
) -> None:
    plan = _soak_restart.RestartPlan(restarts=2, bars=2, batches=(1, 3, 8))
    found = _soak_restart.run(world, tmp_path, plan)
    assert found["exactly_equal_over_restarts"], found
    assert found["ok"], found


def test_memory_is_measured_over_different_requests(world: ServingWorld, tmp_path: Path) -> None:
    count = 5000  # some seconds, on a fast machine too
    plan = _soak_memory.MemoryPlan(predict=count, deep=count)
    found = _soak_memory.run(world, tmp_path, plan)
    for name in ("predict", "predict_deep"):
        assert found[name]["requests"] == count
        assert found[name]["failures"] == []
        assert found[name]["log_dropped"] == 0
        assert found[name]["different"] > 0.5
    assert found["predict_deep"]["different"] == 1
