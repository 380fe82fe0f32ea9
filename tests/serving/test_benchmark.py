"""The serving benchmark runs to its end, in small sizes; its figures are looked at by a person."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_S = 600


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)  # ended from outside it would leave its server behind
def test_the_quick_benchmark_measures_everything(tmp_path: Path) -> None:
    given = {name: v for name, v in os.environ.items() if not name.startswith("TRADEWIND_")}
    threads = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving", "--smoke"],
        cwd=REPOSITORY,
        env={**given, **threads, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    for name in ("exact_20", "exact_100"):
        # Not a figure: a forward that costs less than its own products would be measured wrongly.
        assert found["raw"][name]["batched_to_floor"] > 0.8
    for stages in found["stages"].values():
        assert set(stages) == {
            f"{stage}_ms"
            for stage in ("features", "windowing", "forward", "calibration", "serialisation")
        }
    assert set(found["one_caller"]) == {"ping_p50_ms", "predict", "predict_deep"}
    for by_callers in found["callers"].values():
        assert set(by_callers) == {"1", "8", "64"}
        for load in by_callers.values():
            assert load["answered"] > 0
            assert load["connections_lost"] == 0
    assert set(found["many"]) == {"1", "3", "50"}
    assert all(load["answered"] > 0 for load in found["many"].values())
    for crowd in found["beside_deep"].values():
        assert crowd["predict"]["answered"] > 0
        assert all("refused" not in probe for probe in crowd["probes"].values())
    assert "retry-after: True" in found["overload"]["500"]["first_refusals"]["429"]
    assert set(found["goals"]) == {
        "exact_20_to_floor",
        "last_layer_100_to_floor",
        "predict_overhead_ms",
        "predict_deep_overhead_ms",
        "predict_deep_to_forward",
    }
