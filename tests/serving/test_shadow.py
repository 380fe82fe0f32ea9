"""Challengers answer beside champions: on the same rows, logged, and never in the way."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest
from prometheus_client import CollectorRegistry

from serving.loaded import Item, LoadedModel, RowForecast
from serving.models import CHALLENGER
from serving.questions import Ask, Kind, Question
from serving.runtime import Runtime
from serving.shadow import ShadowDesk
from tests.support.serving import NOW_MS, World
from tradewind.contracts import Prediction
from tradewind.features.definitions import DEEP
from tradewind.ledger import set_replay_clock
from tradewind.models.bundle import ModelBundle

DEEP_Q, ENSEMBLE = Question(Kind.DEEP, 20), Question(Kind.ENSEMBLE, 20)
SLOT = ("tradewind.transformer.POOLED", CHALLENGER)


@pytest.fixture
def served(make_world: Callable[..., World], bundles: dict[str, ModelBundle]) -> Runtime:
    world = make_world()
    world.point(world.register(bundles["btc"]))
    world.point(world.register(bundles["deep"]))
    world.point(world.register(bundles["deep2"]), "challenger")
    runtime = Runtime(world.settings, CollectorRegistry())
    runtime.table.refresh()
    set_replay_clock(runtime.ledger, NOW_MS)
    return runtime


def logged(served: Runtime, role: str) -> pl.DataFrame:
    served.shadow.drain()
    served.log.flush()
    return served.ledger.predictions().filter(pl.col("role") == role)


def counted(served: Runtime, outcome: str) -> float:
    return served.metrics.shadow.labels("BTCUSDT", outcome)._value.get()


def change_challenger(served: Runtime, forecast: object) -> None:
    """Put a challenger into the snapshot whose forwards are ``forecast``."""
    table = served.table
    model = table.snapshot.models[SLOT]

    class Changed(LoadedModel):
        def forecast(self, items: Sequence[Item], n_samples: int) -> list[RowForecast]:
            return forecast(items, n_samples)  # type: ignore[operator, no-any-return]

    fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
    models = {**table.snapshot.models, SLOT: Changed(**fields)}
    table._snapshot = dataclasses.replace(table.snapshot, models=models)


def test_both_are_logged_under_one_decision_on_one_row(served: Runtime) -> None:
    said = served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT"))
    asked = served.predictor.ask_one(Question(Kind.DEEP, 20, alias=CHALLENGER), Ask("BTCUSDT"))
    shadow = logged(served, "shadow")
    champion = logged(served, "champion")
    assert shadow["served_by"].to_list() == ["challenger"] * 2
    assert shadow["p_up"].to_list() == pytest.approx([asked.p_up] * 2, abs=1e-9)
    assert set(shadow["decision_id"]) == set(champion["decision_id"]) == {said.decision_id}
    assert set(shadow["model_version"]) == {"tradewind.transformer.POOLED/2"}
    assert champion["model_version"].to_list() == ["tradewind.transformer.POOLED/1"]
    assert counted(served, "answered") == 2


def test_the_ensemble_of_a_challenger_has_one_member_replaced(served: Runtime) -> None:
    said = served.predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    served.shadow.drain()
    (record,) = [item for item in served.log._queue if item.role == "shadow"]
    votes = {vote.family: vote for vote in said.votes}
    own = {vote.family: vote for vote in record.prediction.votes}
    assert record.prediction.decision_id == said.decision_id
    assert record.prediction.features_fingerprint == said.features_fingerprint
    assert own["lightgbm"].p_up == votes["lightgbm"].p_up
    assert own["transformer"].model_version == "tradewind.transformer.POOLED/2"
    assert own["transformer"].p_up != votes["transformer"].p_up
    assert record.prediction.model_version != said.model_version


def test_a_decision_is_answered_once_by_a_challenger(served: Runtime) -> None:
    for _ in range(5):
        served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT"))
    served.predictor.ask_one(DEEP_Q, Ask("ETHUSDT"))
    shadow = logged(served, "shadow")
    assert sorted(shadow["symbol"]) == ["BTCUSDT", "ETHUSDT"]


def test_two_symbols_under_one_decision_id_are_both_answered(served: Runtime) -> None:
    served.predictor.ask(DEEP_Q, [Ask("BTCUSDT", "both"), Ask("ETHUSDT", "both")])
    shadow = logged(served, "shadow")
    assert sorted(shadow["symbol"]) == ["BTCUSDT", "ETHUSDT"]
    assert set(shadow["decision_id"]) == {"both"}


def test_a_slow_challenger_delays_nobody_and_what_finds_no_room_is_counted(
    served: Runtime,
) -> None:
    usual = served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT"))
    served.shadow.drain()
    real = served.table.snapshot.models[SLOT].forecast

    answered = threading.Event()

    def slow(items: Sequence[Item], n_samples: int) -> list[RowForecast]:
        answered.wait(60)
        return real(items, n_samples)

    change_challenger(served, slow)
    small = served.settings.serving.model_copy(update={"shadow_queue": 2})
    desk = ShadowDesk(small, metrics=served.metrics, log=served.log)
    served.predictor._shadow = desk
    desk.start()
    said = [served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT", f"decision {i}")) for i in range(6)]
    assert not answered.is_set()  # every caller has its answer, the challenger none yet
    assert {item.p_up for item in said} == {usual.p_up}
    assert counted(served, "dropped") >= 3
    answered.set()
    desk.stop()


def test_a_broken_challenger_is_counted_and_the_next_one_answers(served: Runtime) -> None:
    real = served.table.snapshot.models[SLOT].forecast
    calls: list[int] = []

    def once_broken(items: Sequence[Item], n_samples: int) -> list[RowForecast]:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("a challenger is not an error of ours")
        return real(items, n_samples)

    change_challenger(served, once_broken)
    first = served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT", "one"))
    second = served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT", "two"))
    assert first.p_up == second.p_up
    assert logged(served, "shadow")["decision_id"].to_list() == ["two"]
    assert (counted(served, "failed"), counted(served, "answered")) == (1, 1)


def test_a_window_of_the_caller_and_other_aliases_have_no_shadow(served: Runtime) -> None:
    window = np.zeros((served.settings.features.window, len(DEEP)), dtype=np.float32)
    assert isinstance(served.predictor.ask(DEEP_Q, [Ask("BTCUSDT", window=window)])[0], Prediction)
    served.predictor.ask_one(Question(Kind.LIGHTGBM, 20), Ask("BTCUSDT"))  # has no challenger
    assert logged(served, "shadow").is_empty()


def test_only_the_usual_question_is_kept_of_a_decision(served: Runtime) -> None:
    served.predictor.ask_one(Question(Kind.DEEP, 3), Ask("BTCUSDT"))
    served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT", seed=7))
    assert logged(served, "shadow").is_empty()
    served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT"))
    assert len(logged(served, "shadow")) == 1


def test_the_shadow_can_be_switched_off(served: Runtime) -> None:
    off = served.settings.serving.model_copy(update={"shadow": False})
    served.predictor._shadow = ShadowDesk(off, metrics=served.metrics, log=served.log)
    served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT"))
    served.predictor._shadow.drain()
    assert logged(served, "shadow").is_empty()


def test_what_waited_too_long_behind_a_slow_challenger_is_dropped(
    make_world: Callable[..., World], bundles: dict[str, ModelBundle]
) -> None:
    world = make_world()
    world.point(world.register(bundles["deep"]))
    world.point(world.register(bundles["deep2"]), "challenger")
    runtime = Runtime(world.settings, CollectorRegistry())
    runtime.table.refresh()
    runtime.predictor.ask_one(DEEP_Q, Ask("BTCUSDT", "waits"))
    job = runtime.shadow._jobs.get_nowait()
    long_ago = job.offered - world.settings.serving.shadow_wait_s - 1
    runtime.shadow._jobs.put_nowait(dataclasses.replace(job, offered=long_ago))
    runtime.predictor.ask_one(DEEP_Q, Ask("BTCUSDT", "comes"))
    shadow = logged(runtime, "shadow")
    assert shadow["decision_id"].to_list() == ["comes"]
    assert (counted(runtime, "dropped"), counted(runtime, "answered")) == (1, 1)
