"""A canary answers its share of the decisions, always the same ones, and never fails a caller."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from serving.canary import drawn
from serving.loaded import Item, LoadedModel, RowForecast
from serving.questions import Ask, Kind, Problem, Question
from serving.runtime import Runtime
from tests.support.serving import NOW_MS, World
from tradewind.contracts import CANARY, Prediction
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import set_replay_clock
from tradewind.models.bundle import ModelBundle

DEEP_Q, ENSEMBLE = Question(Kind.DEEP, 20), Question(Kind.ENSEMBLE, 20)
SLOT = ("tradewind.transformer.POOLED", CANARY)
IDS = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"bar {i}")) for i in range(10_000)]
OURS = next(name for name in IDS if drawn(name, 0.1))
THEIRS = next(name for name in IDS if not drawn(name, 0.1))


@pytest.fixture
def served(make_world: Callable[..., World], bundles: dict[str, ModelBundle]) -> Runtime:
    world = make_world()
    world.point(world.register(bundles["btc"]))
    world.point(world.register(bundles["deep"]))
    world.point(world.register(bundles["deep2"]), CANARY)
    runtime = Runtime(world.settings, CollectorRegistry())
    runtime.table.refresh()
    set_replay_clock(runtime.ledger, NOW_MS)
    return runtime


def counted(served: Runtime, outcome: str) -> float:
    return served.metrics.canary.labels("BTCUSDT", outcome)._value.get()


def test_the_share_of_ten_thousand_decisions_is_within_sampling_error() -> None:
    share = sum(drawn(name, 0.1) for name in IDS) / len(IDS)
    assert abs(share - 0.1) < 4 * (0.1 * 0.9 / len(IDS)) ** 0.5


@examples(max_examples=50)
@given(st.text(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_every_decision_of_a_smaller_one(
    name: str, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert drawn(name, low) <= drawn(name, high)
    assert not drawn(name, 0)
    assert drawn(name, 1)


def test_its_decisions_are_marked_and_stay_its_own(served: Runtime) -> None:
    own = [served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT", OURS)) for _ in range(3)]
    other = served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT", THEIRS))
    assert {item.served_by for item in own} == {"canary"}
    assert {item.model_version for item in own} == {"tradewind.transformer.POOLED/2"}
    assert (other.served_by, other.model_version) == ("champion", "tradewind.transformer.POOLED/1")
    assert len({item.p_up for item in own}) == 1
    assert own[0].p_up != other.p_up
    served.log.flush()
    logged = served.ledger.predictions(decision_id=OURS)
    assert set(logged["served_by"]) == {"canary"}
    assert counted(served, "answered") == 3


def test_in_the_ensemble_one_member_is_replaced(served: Runtime) -> None:
    own = served.predictor.ask_one(ENSEMBLE, Ask("BTCUSDT", OURS))
    other = served.predictor.ask_one(ENSEMBLE, Ask("BTCUSDT", THEIRS))
    versions = {vote.family: vote.model_version for vote in own.votes}
    assert (own.served_by, other.served_by) == ("canary", "champion")
    assert versions["transformer"] == "tradewind.transformer.POOLED/2"
    assert versions["lightgbm"] == "tradewind.lightgbm.BTCUSDT/1"


REFUSED = TradewindError(ErrorCode.MODEL_UNUSABLE, "broken", "none")
OVERLOADED = TradewindError(ErrorCode.OVERLOADED, "the model's turn did not come", "later")


def break_canary(served: Runtime, fault: Exception) -> None:
    """Let the canary's version raise ``fault`` whenever it is asked."""
    model = served.table.snapshot.models[SLOT]

    class Broken(LoadedModel):
        def forecast(self, items: Sequence[Item], n_samples: int) -> list[RowForecast]:
            raise fault

    fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
    models = {**served.table.snapshot.models, SLOT: Broken(**fields)}
    served.table._snapshot = dataclasses.replace(served.table.snapshot, models=models)


@pytest.mark.parametrize("question", [DEEP_Q, ENSEMBLE])
@pytest.mark.parametrize("fault", [REFUSED, ZeroDivisionError("a bug of its own")])
def test_where_it_fails_the_champion_answers(
    served: Runtime, question: Question, fault: Exception
) -> None:
    usual = served.predictor.ask_one(question, Ask("BTCUSDT", THEIRS))
    break_canary(served, fault)
    found = served.predictor.ask(question, [Ask("BTCUSDT", OURS)])[0]
    assert isinstance(found, Prediction)
    assert found.served_by == "champion"
    assert found.p_up == usual.p_up
    assert (counted(served, "failed"), counted(served, "answered")) == (1, 0)


@pytest.mark.parametrize("question", [DEEP_Q, ENSEMBLE])
def test_an_overload_is_no_fault_of_the_canary_s(served: Runtime, question: Question) -> None:
    break_canary(served, OVERLOADED)
    found = served.predictor.ask(question, [Ask("BTCUSDT", OURS)])[0]
    assert isinstance(found, Problem), "the ensemble must not answer without a healthy member"
    assert found.error.code is ErrorCode.OVERLOADED
    assert (counted(served, "failed"), counted(served, "answered")) == (0, 0)


def test_a_pooled_version_tries_nothing_where_the_symbol_has_its_own_champion(
    make_world: Callable[..., World], bundles: dict[str, ModelBundle]
) -> None:
    """As champion it would not answer there either: what it wins or loses would not be its own."""
    world = make_world()
    own = bundles["btc"]
    pooled = dataclasses.replace(own, meta=own.meta.model_copy(update={"key": "POOLED"}))
    world.point(world.register(own))
    for alias in ("champion", CANARY, "challenger"):
        world.point(world.register(pooled), alias)
    runtime = Runtime(world.settings, CollectorRegistry())
    runtime.table.refresh()
    set_replay_clock(runtime.ledger, NOW_MS)
    question = Question(Kind.LIGHTGBM, 20)
    said = [runtime.predictor.ask_one(question, Ask(s, OURS)) for s in ("BTCUSDT", "ETHUSDT")]
    assert [item.model_version for item in said] == [
        "tradewind.lightgbm.BTCUSDT/1",
        "tradewind.lightgbm.POOLED/2",
    ]
    runtime.shadow.drain()
    runtime.log.flush()
    logged = runtime.ledger.predictions()
    shadows = logged.filter(logged["role"] == "shadow")
    assert shadows["symbol"].to_list() == ["ETHUSDT"]


def test_a_share_of_nothing_is_no_canary(served: Runtime) -> None:
    none = served.settings.serving.model_copy(update={"canary_share": 0.0})
    served.predictor._settings = served.settings.model_copy(update={"serving": none})
    assert served.predictor.ask_one(DEEP_Q, Ask("BTCUSDT", OURS)).served_by == "champion"
