"""A version older than its expiry answers no more, and everything says so."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import expiry, status
from serving.expiry import Expiry
from serving.http import api
from serving.loaded import LoadedModel
from serving.questions import Ask, Kind, Problem, Question
from serving.runtime import Runtime
from tests.support.serving import NOW_MS, World, reseeded
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.bundle import ModelBundle
from tradewind.settings import MS_PER_DAY, load_settings

Bundles = dict[str, ModelBundle]
MakeRuntime = Callable[[World], Runtime]
LIMIT = 21
OLD_DAYS = 22.0
BTC = ("tradewind.lightgbm.BTCUSDT", "champion")
SINGLE, DEEP, ENSEMBLE = (
    Question(kind, 5, allow_stale=True) for kind in (Kind.LIGHTGBM, Kind.DEEP, Kind.ENSEMBLE)
)


def aged(bundle: ModelBundle, days: float, seed: int = 0) -> ModelBundle:
    """Return the bundle as if its evidence had ended so many days before now."""
    bundle = reseeded(bundle, seed=seed)
    end_ms = NOW_MS - round(days * MS_PER_DAY)
    return dataclasses.replace(bundle, meta=bundle.meta.model_copy(update={"data_end_ms": end_ms}))


@pytest.fixture
def mixed(world: World, bundles: Bundles, make_runtime: MakeRuntime) -> Runtime:
    """Serve an expired boosted champion beside a young pooled transformer."""
    world.point(world.register(aged(bundles["btc"], OLD_DAYS)))
    world.point(world.register(bundles["deep"]))
    runtime = make_runtime(world)
    runtime.table.refresh()
    runtime.market.refresh()
    return runtime


def refusal(runtime: Runtime, question: Question, symbol: str = "BTCUSDT") -> TradewindError:
    answer = runtime.predictor.ask(question, [Ask(symbol)])[0]
    assert isinstance(answer, Problem)
    return answer.error


def gauge(runtime: Runtime, name: str, slot: tuple[str, str] = BTC) -> float | None:
    labels = dict(zip(("name", "alias"), slot, strict=True))
    return runtime.metrics.registry.get_sample_value(f"tradewind_ml_{name}", labels)


def test_an_expired_version_refuses_by_name_age_and_limit(mixed: Runtime) -> None:
    error = refusal(mixed, SINGLE)
    assert error.code is ErrorCode.MODEL_EXPIRED
    assert error.detail == (
        "tradewind.lightgbm.BTCUSDT/1 is 22.0 days old, registry.model_expiry_days = 21"
    )
    for remedy in ("retrain", "promote", "registry.model_expiry_days"):
        assert remedy in error.hint
    assert mixed.predictor.ask_one(DEEP, Ask("BTCUSDT")).model_type == "deep_transformer"


def test_the_ensemble_leaves_it_out_and_says_why(mixed: Runtime) -> None:
    found = mixed.predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    assert [vote.family for vote in found.votes] == ["transformer"]
    assert found.missing_members == ("lightgbm",)
    (told,) = found.disabled_members
    assert (told.family, told.key, told.code, told.who) == (
        "lightgbm",
        "BTCUSDT",
        "expired",
        "serving",
    )
    assert "22.0 days old" in told.why


def test_status_metrics_and_readiness_of_one_expired_member(mixed: Runtime) -> None:
    said = status.of(mixed)
    flags = {(item["symbol"], item["family"]): item["expired"] for item in said["models"]}
    assert flags["BTCUSDT", "lightgbm"] is True
    assert flags["BTCUSDT", "transformer"] is False
    assert said["ready"] is True, "the transformer answers for every symbol"
    ensemble = next(item for item in said["ensembles"] if item["symbol"] == "BTCUSDT")
    assert ensemble["disabled"][0]["code"] == "expired"
    assert gauge(mixed, "model_expired") == 1
    assert gauge(mixed, "model_expired", ("tradewind.transformer.POOLED", "champion")) == 0
    assert gauge(mixed, "model_age_seconds") == OLD_DAYS * MS_PER_DAY / 1000


def test_with_nobody_left_it_refuses_until_a_younger_one_comes(
    world: World, bundles: Bundles, make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    world.point(world.register(aged(bundles["btc"], OLD_DAYS)))
    world.point(world.register(aged(bundles["deep"], OLD_DAYS)))
    world.point(world.register(aged(bundles["deep2"], OLD_DAYS)), "challenger")
    runtime = make_runtime(world)
    runtime.table.refresh()
    runtime.market.refresh()
    runtime.market.refresh()
    error = refusal(runtime, ENSEMBLE)
    assert error.code is ErrorCode.MODEL_EXPIRED
    assert "lightgbm.BTCUSDT/1" in error.detail
    assert "transformer.POOLED/1" in error.detail
    shadow = dataclasses.replace(DEEP, alias="challenger")
    assert refusal(runtime, shadow).code is ErrorCode.MODEL_EXPIRED
    not_ready = runtime.not_ready()
    assert not_ready is not None
    assert not_ready.code is ErrorCode.MODEL_EXPIRED
    assert status.of(runtime)["not_ready"]["error"] == "model_expired"
    told = [r for r in caplog.records if "lightgbm.BTCUSDT/1" in r.getMessage()]
    assert len([r for r in told if "has expired" in r.getMessage()]) == 1, "told once"

    world.point(world.register(bundles["deep"]))
    runtime.table.refresh()
    runtime.market.refresh()
    assert runtime.not_ready() is None
    found = runtime.predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    assert found.missing_members == ("lightgbm",)
    assert gauge(runtime, "model_expired", ("tradewind.transformer.POOLED", "champion")) == 0

    world.tracking.client.delete_registered_model_alias(*BTC)
    runtime.table.refresh()
    runtime.market.refresh()
    assert gauge(runtime, "model_expired") == 0, "no alarm of an alias that is gone"


def test_a_replay_expires_as_its_clock_moves(
    world: World, bundles: Bundles, make_runtime: MakeRuntime
) -> None:
    world.point(world.register(aged(bundles["btc"], LIMIT - 1)))
    runtime = make_runtime(world)
    runtime.table.refresh()
    assert runtime.predictor.ask_one(SINGLE, Ask("BTCUSDT")).model_version.endswith("/1")
    runtime.clock.set(NOW_MS + MS_PER_DAY)  # type: ignore[attr-defined]
    assert runtime.predictor.ask_one(SINGLE, Ask("BTCUSDT")).model_version.endswith("/1")
    runtime.clock.set(NOW_MS + MS_PER_DAY + 1)  # type: ignore[attr-defined]
    assert refusal(runtime, SINGLE).code is ErrorCode.MODEL_EXPIRED


def test_zero_lets_it_answer_for_ever(
    make_world: Callable[..., World], bundles: Bundles, make_runtime: MakeRuntime
) -> None:
    world = make_world(registry={"model_expiry_days": 0})
    world.point(world.register(aged(bundles["btc"], 400)))
    runtime = make_runtime(world)
    runtime.table.refresh()
    runtime.market.refresh()
    assert runtime.predictor.ask_one(SINGLE, Ask("BTCUSDT")).model_version.endswith("/1")
    (entry,) = (item for item in status.of(runtime)["models"] if item["symbol"] == "BTCUSDT")
    assert (entry["too_old"], entry["expired"], entry["expiry_days"]) == (True, False, None)


def test_over_http_it_is_503_and_the_policy_gets_the_reason(
    world: World, bundles: Bundles, make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.point(world.register(aged(bundles["btc"], OLD_DAYS)))
    runtime = make_runtime(world)
    runtime.table.refresh()
    monkeypatch.setattr(api.state, "runtime", runtime, raising=False)
    one, many = asyncio.run(_asked())
    assert one.status_code == 503
    assert one.json()["error"] == "model_expired"
    assert many.status_code == 200
    (problem,) = many.json()["problems"]
    assert problem["error"] == "model_expired"
    assert "22.0 days old" in problem["detail"]


async def _asked() -> tuple[httpx.Response, httpx.Response]:
    """Ask for one symbol, and as the policy does for many."""
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://serving") as http:
        one = await http.get("/predict", params={"symbol": "BTCUSDT"})
        body = {"symbols": ["BTCUSDT"], "kind": "ensemble"}
        return one, await http.post("/predict_many", json=body)


def test_the_limit_must_be_above_the_alarm() -> None:
    assert load_settings().registry.model_expiry_days == LIMIT
    with pytest.raises(TradewindError, match="model_expiry_days = 8 must be above") as caught:
        load_settings(registry={"model_expiry_days": 8})
    assert caught.value.code is ErrorCode.BAD_SETTING
    assert load_settings(registry={"model_expiry_days": 0}).registry.model_expiry_days == 0
    with pytest.raises(TradewindError, match="handover_days = 30 must be below"):
        load_settings(registry={"handover_days": 30})


@given(age=st.floats(0, 5000), limit=st.floats(0.5, 4000))
def test_a_version_expires_once_and_for_good(age: float, limit: float, bundles: Bundles) -> None:
    model = LoadedModel.__new__(LoadedModel)
    object.__setattr__(model, "bundle", aged(bundles["btc"], 0))
    later = Expiry(limit, NOW_MS + round(age * MS_PER_DAY))
    assert later.expired(model) == (expiry.age_days(model, later.now_ms or 0) > limit)
    assert not Expiry(0, later.now_ms).expired(model)
    assert not Expiry(limit, None).expired(model)
    assert not later.expired(model) or Expiry(limit, (later.now_ms or 0) + 1).expired(model)
