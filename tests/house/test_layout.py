"""The house keeps its shape: rooms, names, file sizes, and what the lock promises."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("pipelines", "assets", "serving", "policy", "registry", "tradewind")
MAX_LINES = 600


def _python_files() -> list[Path]:
    return [path for room in (*ROOMS, "tests") for path in (ROOT / room).rglob("*.py")]


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_resolves_inside_the_repository(room: str) -> None:
    spec = importlib.util.find_spec(room)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT)


@pytest.mark.parametrize(
    "name",
    [
        "workspace.yaml",
        "dagster.yaml",
        "pyproject.toml",
        "requirements.lock",
        "Makefile",
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "LICENSE",
        ".ci/run",
        "docs/adr",
    ],
)
def test_top_level_holds(name: str) -> None:
    assert (ROOT / name).exists()


def test_no_file_is_longer_than_the_limit() -> None:
    files = _python_files()
    assert len(files) > 50
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


def test_no_module_at_the_root_shadows_a_package() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == []


def test_definitions_are_composition_only() -> None:
    lines = (ROOT / "pipelines" / "definitions.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60


def test_the_lock_meets_every_requirement() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if "==" in line and not line.startswith("#"):
            name, version = line.split("==")
            lock[name.strip().lower().replace("_", "-")] = version.strip()
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted.extend(extra)
    for text in wanted:
        requirement = Requirement(text)
        pinned = lock.get(requirement.name.lower().replace("_", "-"))
        assert pinned is not None, f"{requirement.name} is not in requirements.lock"
        assert requirement.specifier.contains(pinned, prereleases=True), (text, pinned)


def test_the_card_packages_are_the_versions_that_work() -> None:
    assert importlib.metadata.version("bentoml") >= "1.4"
    assert importlib.metadata.version("pandas") < "3.1"
    for package in ("dagster", "mlflow", "lightgbm", "polars", "duckdb", "ccxt", "evidently"):
        assert importlib.metadata.version(package)
