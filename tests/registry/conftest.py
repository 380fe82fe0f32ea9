"""A real SQLite MLflow store per test; its empty tables are made once and copied."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from registry.tracking import Tracking
from registry.versions import RegisteredVersion, register_bundle
from tradewind.files import sha256_file, write_bytes, write_json
from tradewind.settings import Settings

NAME = "tradewind.lightgbm.BTCUSDT"
EXAMPLE = {"wide": np.zeros((2, 3)), "scale": np.ones(2)}
OUTPUT = {"p_up": np.full(2, 0.5), "mu": np.zeros(2)}


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


def write_bundle(folder: Path, name: str = NAME, seed: int = 0) -> Path:
    """Write the files of a sound bundle whose weights are a line of text."""
    from tradewind.models.bundle import BundleMeta

    _, family, key = name.split(".")
    meta = BundleMeta(
        family=family,
        key=key,
        symbols=("BTCUSDT", "ETHUSDT"),
        timeframe="15m",
        horizon=16,
        window=5,
        feature_version="f1",
        wide_names=("a", "b", "c"),
        data_fingerprint="abc",
        train_start_ms=1_700_000_000_000,
        train_end_ms=1_730_000_000_000,
        data_end_ms=1_735_689_600_000,
        seed=seed,
        epochs=3,
        created_ms=1_735_689_600_000,
        skill=0.002,
        base_rate=0.5,
        metrics={"auc": 0.54, "ece": 0.03},
        gates="unknown",
    )
    write_json(folder / "meta.json", meta.model_dump(mode="json"))
    write_bytes(folder / "forecaster" / "model.txt", f"weights of seed {seed}".encode())
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "bundle.json"]
    digests = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    write_json(folder / "bundle.json", {"format": 1, "files": digests})
    return folder


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
