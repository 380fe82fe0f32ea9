"""Definitions load lightly; rooms import downwards; the command line answers at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "mlflow", "bentoml", "lightgbm", "xgboost", "evidently")
HEAVY += ("sklearn", "ccxt", "pandas", "numba")


def _loaded_after(statement: str, tmp_path: Path) -> dict[str, object]:
    code = (
        "import sys, time, json\n"
        "start = time.perf_counter()\n"
        f"{statement}\n"
        "print(json.dumps({'seconds': time.perf_counter() - start,"
        " 'modules': sorted({name.split('.')[0] for name in sys.modules})}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "TRADEWIND_HOME": str(tmp_path), "HOME": str(tmp_path)},
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_definitions_load_without_heavy_packages(tmp_path: Path) -> None:
    found = _loaded_after("import pipelines.definitions", tmp_path)
    modules = found["modules"]
    assert isinstance(modules, list)
    assert "dagster" in modules
    assert [name for name in HEAVY if name in modules] == []


@pytest.mark.parametrize(
    "module", ["pipelines.cli", "assets.steps", "registry", "tradewind.client"]
)
def test_light_modules_stay_light(module: str, tmp_path: Path) -> None:
    modules = _loaded_after(f"import {module}", tmp_path)["modules"]
    assert isinstance(modules, list)
    assert [name for name in HEAVY if name in modules] == []


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
