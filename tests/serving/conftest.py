"""One small world for all of serving's tests; its fitted bundles are made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from registry.tracking import Tracking
from serving.runtime import Runtime
from tests.support.serving import (
    NOW_MS,
    World,
    fit_bundle,
    store_bars,
    training_set,
    world_settings,
)
from tradewind.ledger import open_ledger, set_replay_clock
from tradewind.models.bundle import ModelBundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelBundle]:
    """Fitted bundles: lightgbm per symbol, two pooled transformers."""
    settings = world_settings(tmp_path_factory.mktemp("fit"))
    store_bars(settings)
    data = training_set(settings)
    return {
        "btc": fit_bundle(settings, data, "lightgbm", "BTCUSDT", 1),
        "eth": fit_bundle(settings, data, "lightgbm", "ETHUSDT", 2),
        "deep": fit_bundle(settings, data, "transformer", "POOLED", 3),
        "deep2": fit_bundle(settings, data, "transformer", "POOLED", 4),
    }


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing in them (seconds to make)."""
    settings = world_settings(tmp_path_factory.mktemp("mlflow"))
    Tracking(settings)
    return Path(settings.mlflow_tracking_uri.removeprefix("sqlite:///"))


@pytest.fixture(scope="session")
def make_world(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> Callable[..., World]:
    """Build a world in a folder of its own: bars, a clock at their end, an empty registry."""

    def make(**overrides: Any) -> World:
        settings = world_settings(tmp_path_factory.mktemp("world") / "home", **overrides)
        store_bars(settings)
        with open_ledger(settings) as ledger:
            set_replay_clock(ledger, NOW_MS)
        database = Path(settings.mlflow_tracking_uri.removeprefix("sqlite:///"))
        database.parent.mkdir(parents=True)
        shutil.copyfile(empty_database, database)
        return World(settings, Tracking(settings), tmp_path_factory.mktemp("bundles"))

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture
def make_runtime() -> Iterator[Callable[[World], Runtime]]:
    """Build a runtime whose threads are not started: the test polls and flushes itself."""
    made: list[Runtime] = []

    def make(world: World) -> Runtime:
        runtime = Runtime(world.settings, CollectorRegistry())
        made.append(runtime)
        return runtime

    yield make
    for runtime in made:
        runtime.ledger.close()
