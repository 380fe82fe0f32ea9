"""What several workers show as one, and the namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from serving.metrics import BUCKETS_S, ServingMetrics, forget_dead_workers
from tests.support.server_process import REPOSITORY

# One worker: shows its queue, one alarm, one answer; ends by itself or is killed.
WORKER = """
import os, signal, sys
from prometheus_client import CollectorRegistry
from serving.metrics import ServingMetrics

metrics = ServingMetrics("shop")
queue, failed, ready, end = sys.argv[1:]
metrics.log_depth.set(int(queue))
metrics.model_alarm.labels("a", "champion").set(int(failed))
metrics.ready.set(int(ready))
metrics.registry_up.set(1 - int(failed))
metrics.errors.labels("internal").inc()
print("shown", flush=True)
if end == "stay":
    sys.stdin.readline()
"""
READ = """
from prometheus_client import CollectorRegistry, multiprocess
from serving.metrics import ServingMetrics

metrics = ServingMetrics("shop")
metrics.registry_up.set(1)  # this process is a worker as well, which is not ready
print(metrics.workers_ready())
every = CollectorRegistry()
multiprocess.MultiProcessCollector(every)
for name, labels in (
    ("log_queue_depth", {}),
    ("model_load_failed", {"name": "a", "alias": "champion"}),
    ("registry_up", {}),
    ("errors_total", {"kind": "internal"}),
):
    print(name, every.get_sample_value(f"shop_ml_{name}", labels))
"""


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "PROMETHEUS_MULTIPROC_DIR": str(folder),
        "PYTHONPATH": str(REPOSITORY),
    }


def worker(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments],
        env=environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "shown\n"
    return started


def read(folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", READ],
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


def test_two_workers_show_as_one_and_a_dead_one_is_left_out(tmp_path: Path) -> None:
    first = worker(tmp_path, "3", "0", "1", "stay")
    second = worker(tmp_path, "4", "1", "1", "stay")
    try:
        assert read(tmp_path) == [
            "2",
            "log_queue_depth 7.0",
            "model_load_failed 1.0",
            "registry_up 0.0",
            "errors_total 2.0",
        ]
        second.kill()  # not waited for: what is left of it is a zombie
        assert second.stdout is not None
        assert second.stdout.read() == ""
        assert read(tmp_path) == [
            "1",
            "log_queue_depth 3.0",
            "model_load_failed 0.0",
            "registry_up 1.0",
            "errors_total 2.0",
        ], "what it counted stays, what it showed goes"
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_without_several_processes_there_is_nothing_to_forget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    assert forget_dead_workers() == []
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    (tmp_path / f"gauge_livesum_{os.getpid()}.db").touch()
    assert forget_dead_workers() == []


def test_two_workers_may_forget_the_same_dead_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f"gauge_livesum_{gone.pid}.db"
    left.touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    remove = os.remove

    def late(path: str) -> None:
        remove(path)  # as another worker does between our looking and removing
        remove(path)

    monkeypatch.setattr(os, "remove", late)
    assert forget_dead_workers() == [gone.pid]
    assert not left.exists()


def test_names_follow_the_namespace_and_the_conventions() -> None:
    metrics = ServingMetrics("shop", CollectorRegistry())
    families = list(metrics.registry.collect())
    assert len(families) > 25
    for family in families:
        assert family.name.startswith("shop_ml_")
        assert family.documentation
        assert "_ms" not in family.name, "base units only"
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_the_buckets_reach_from_a_tree_s_answer_to_the_timeout() -> None:
    from tradewind.settings import ServingSettings

    assert list(BUCKETS_S) == sorted(set(BUCKETS_S))
    assert BUCKETS_S[0] <= 0.001
    assert BUCKETS_S[-1] >= ServingSettings().timeout_s
    assert sum(0.025 <= edge <= 0.25 for edge in BUCKETS_S) >= 5
