"""A real SQLite MLflow store per test; its empty tables are made once and copied."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.tracking import Tracking
from registry.versions import RegisteredVersion, register_bundle
from tests.support.registered import EXAMPLE, NAME, OUTPUT, write_bundle
from tradewind.settings import Settings


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing in them (seconds to make)."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    client = MlflowClient(f"sqlite:///{path}", registry_uri=f"sqlite:///{path}")
    client.search_registered_models()
    return path


@pytest.fixture
def settings(empty_database: Path, make_settings: Callable[..., Settings]) -> Settings:
    built = make_settings()
    database = Path(built.mlflow_tracking_uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True)
    shutil.copyfile(empty_database, database)
    return built


@pytest.fixture
def tracking(settings: Settings) -> Tracking:
    return Tracking(settings)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle per name and seed."""

    def make(seed: int = 0, name: str = NAME) -> Path:
        return write_bundle(tmp_path / f"{name}-{seed}", name, seed)

    return make


@pytest.fixture
def register(
    tracking: Tracking, make_bundle: Callable[..., Path]
) -> Callable[..., RegisteredVersion]:
    """Register a bundle of ``seed`` in a run of its own."""

    def call(seed: int = 0, *, name: str = NAME, **tags: object) -> RegisteredVersion:
        with tracking.start_run("train") as run:
            return register_bundle(
                tracking,
                make_bundle(seed, name),
                run_id=run.run_id,
                name=name,
                input_example=EXAMPLE,
                output_example=OUTPUT,
                tags=tags,
            )

    return call
