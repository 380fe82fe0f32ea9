"""The model table follows aliases, swaps atomically, and never gives up a version that works."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable

import pytest

from serving.loaded import load
from serving.questions import Ask, Kind, Problem, Question
from serving.runtime import Runtime
from tests.support.serving import World, reseeded, unloadable
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.bundle import ModelBundle

Bundles = dict[str, ModelBundle]
LIGHTGBM = ("tradewind.lightgbm.BTCUSDT", "champion")


def metric(runtime: Runtime, metric_name: str, /, **labels: str) -> float | None:
    registry = runtime.metrics.registry
    return registry.get_sample_value(f"tradewind_ml_{metric_name}", labels)


def test_an_empty_registry_is_read_and_not_ready(
    world: World, make_runtime: Callable[[World], Runtime]
) -> None:
    runtime = make_runtime(world)
    before = runtime.not_ready()
    assert before is not None
    assert "has not been read" in before.detail
    runtime.table.refresh()
    problem = runtime.not_ready()
    assert problem is not None
    assert problem.code is ErrorCode.NO_CHAMPION
    assert "BTCUSDT" in problem.detail
    assert "retrain" in problem.hint


def test_aliases_are_followed_and_the_old_snapshot_stays_whole(
    world: World, bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    runtime = make_runtime(world)
    first = world.register(bundles["btc"])
    world.point(first)
    runtime.table.refresh()
    old = runtime.table.snapshot
    second = world.register(reseeded(bundles["btc"], seed=5))
    world.point(second)
    runtime.table.refresh()
    new = runtime.table.snapshot
    assert old.models[LIGHTGBM].model_version == "tradewind.lightgbm.BTCUSDT/1"
    assert new.models[LIGHTGBM].model_version == "tradewind.lightgbm.BTCUSDT/2"
    assert new.swapped_ms[LIGHTGBM] >= old.swapped_ms[LIGHTGBM]
    labels = {"name": LIGHTGBM[0], "alias": "champion"}
    assert metric(runtime, "model_swaps_total", **labels) == 2
    assert metric(runtime, "model_version_info", **labels, version="1") == 0
    assert metric(runtime, "model_version_info", **labels, version="2") == 1


def test_a_promoted_challenger_is_not_loaded_twice(
    world: World, bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    runtime = make_runtime(world)
    world.point(world.register(bundles["btc"]))
    second = world.register(reseeded(bundles["btc"], seed=5))
    world.point(second, "challenger")
    runtime.table.refresh()
    challenger = runtime.table.snapshot.models[LIGHTGBM[0], "challenger"]
    world.point(second)
    runtime.table.refresh()
    assert runtime.table.snapshot.models[LIGHTGBM] is challenger


def test_a_symbol_resolves_to_its_own_model_then_to_the_pooled_one(
    world: World, bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    runtime = make_runtime(world)
    world.point(world.register(bundles["btc"]))
    world.point(world.register(bundles["deep"]))
    runtime.table.refresh()
    snapshot = runtime.table.snapshot

    def version(family: str, symbol: str) -> str | None:
        model = snapshot.resolve(family, symbol)
        return model.model_version if model else None

    assert version("lightgbm", "BTCUSDT") == "tradewind.lightgbm.BTCUSDT/1"
    assert version("lightgbm", "ETHUSDT") is None
    assert version("transformer", "ETHUSDT") == "tradewind.transformer.POOLED/1"
    assert runtime.not_ready() is None


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_and_raises_an_alarm(
    world: World, bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    runtime = make_runtime(world)
    world.point(world.register(bundles["btc"]))
    world.point(world.register(bundles["deep"]))
    runtime.table.refresh()
    world.point(world.register(unloadable(bundles["btc"])))
    runtime.table.refresh()
    labels = {"name": LIGHTGBM[0], "alias": "champion"}
    snapshot = runtime.table.snapshot
    assert snapshot.models[LIGHTGBM].registered.version == 1
    assert snapshot.failures[LIGHTGBM].version == 2
    assert "wobbly" in snapshot.failures[LIGHTGBM].reason
    assert metric(runtime, "model_load_failed", **labels) == 1
    runtime.table.refresh()
    assert metric(runtime, "model_load_failures_total", **labels) == 1, "not tried at each poll"
    time.sleep(world.settings.serving.reload_retry_s)
    runtime.table.refresh()
    assert metric(runtime, "model_load_failures_total", **labels) == 2
    assert runtime.not_ready() is None, "the old version still serves"
    world.point(world.register(reseeded(bundles["btc"], seed=8)))
    runtime.table.refresh()
    assert runtime.table.snapshot.models[LIGHTGBM].registered.version == 3
    assert metric(runtime, "model_load_failed", **labels) == 0


def test_an_unreachable_registry_keeps_serving(
    world: World,
    bundles: Bundles,
    make_runtime: Callable[[World], Runtime],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = make_runtime(world)
    world.point(world.register(bundles["deep"]))
    runtime.table.refresh()
    error = TradewindError(ErrorCode.TRACKING_UNREACHABLE, "nothing answers", "Start it")

    def refuse(_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("registry.versions.alias_table", refuse)
        runtime.table.refresh()
    assert runtime.table.snapshot.problem is error
    assert runtime.not_ready() is None
    assert metric(runtime, "registry_up") == 0
    runtime.table.refresh()
    assert runtime.table.snapshot.problem is None
    assert metric(runtime, "registry_up") == 1


def test_a_registry_that_comes_up_later_is_used(
    world: World,
    bundles: Bundles,
    make_runtime: Callable[[World], Runtime],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world.point(world.register(bundles["deep"]))
    runtime = make_runtime(world)
    with monkeypatch.context() as patch:

        def refuse(_: object) -> None:
            raise TradewindError(ErrorCode.TRACKING_UNREACHABLE, "nothing answers", "Start it")

        patch.setattr("registry.tracking.Tracking", refuse)
        runtime.table.refresh()
    problem = runtime.not_ready()
    assert problem is not None
    assert problem.code is ErrorCode.TRACKING_UNREACHABLE
    runtime.table.refresh()
    assert runtime.not_ready() is None


def test_until_models_are_loaded_a_caller_is_told_to_come_back(
    world: World, bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    world.point(world.register(bundles["deep"]))
    runtime = make_runtime(world)
    question = Question(Kind.DEEP, 2)
    early = runtime.predictor.ask(question, [Ask("BTCUSDT")])[0]
    assert isinstance(early, Problem)
    assert early.error.code is ErrorCode.OVERLOADED, "a champion may exist: nothing says train"
    runtime.table.refresh()
    assert not isinstance(runtime.predictor.ask(question, [Ask("BTCUSDT")])[0], Problem)


def test_a_version_of_other_features_is_refused_when_it_is_warmed(
    world: World, bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    runtime = make_runtime(world)
    bundle = bundles["btc"]
    meta = bundle.meta.model_copy(update={"feature_version": "another"})
    foreign = world.register(
        ModelBundle(meta, bundle.forecaster, bundle.calibrator, bundle.reference)
    )
    with pytest.raises(TradewindError, match="other features") as caught:
        load(world.settings, world.tracking, runtime.view, foreign.name, foreign.version)
    assert caught.value.code is ErrorCode.MODEL_UNUSABLE


def test_moving_the_alias_back_from_a_broken_version_ends_the_alarm(
    world: World, bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    runtime = make_runtime(world)
    good = world.register(bundles["btc"])
    world.point(good)
    runtime.table.refresh()
    world.point(world.register(unloadable(bundles["btc"])))
    runtime.table.refresh()
    labels = {"name": LIGHTGBM[0], "alias": "champion"}
    assert metric(runtime, "model_load_failed", **labels) == 1
    world.point(good)
    runtime.table.refresh()
    assert metric(runtime, "model_load_failed", **labels) == 0


def test_a_version_that_is_swapped_out_leaves_memory_without_a_collection(
    world: World, bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    runtime = make_runtime(world)
    slot = ("tradewind.transformer.POOLED", "champion")
    world.point(world.register(bundles["deep"]))
    runtime.table.refresh()
    old = weakref.ref(runtime.table.snapshot.models[slot].bundle.forecaster)
    world.point(world.register(bundles["deep2"]))
    gc.disable()
    try:
        runtime.table.refresh()
        assert runtime.table.snapshot.models[slot].registered.version == 2
        assert old() is None
    finally:
        gc.enable()
        gc.unfreeze()


def test_an_alias_that_was_taken_away_shows_no_version(
    world: World, bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    runtime = make_runtime(world)
    version = world.register(bundles["btc"])
    world.point(version)
    world.point(version, "challenger")
    runtime.table.refresh()
    labels = {"name": LIGHTGBM[0], "version": "1"}
    assert metric(runtime, "model_version_info", **labels, alias="challenger") == 1
    world.tracking.client.delete_registered_model_alias(version.name, "challenger")
    runtime.table.refresh()
    assert metric(runtime, "model_version_info", **labels, alias="challenger") == 0
    assert metric(runtime, "model_version_info", **labels, alias="champion") == 1
