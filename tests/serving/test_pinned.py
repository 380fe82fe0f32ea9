"""A version chosen by the caller answers, is kept a while, and leaves no trace in the ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from serving.loaded import LoadedModel
from serving.models import CHALLENGER, CHAMPION
from serving.pinned import PINNED, Pin, PinnedVersions, parse_pin
from serving.questions import Ask, Kind, Question
from serving.runtime import Runtime
from tests.support.serving import NOW_MS, World, reseeded
from tradewind.contracts import CANARY, Prediction
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import set_replay_clock
from tradewind.models.bundle import ModelBundle
from tradewind.settings import MS_PER_DAY

NAME = "tradewind.lightgbm.BTCUSDT"
ASK = Ask("BTCUSDT")


@pytest.fixture
def served(make_world: Callable[..., World], bundles: dict[str, ModelBundle]) -> Runtime:
    """Version 1 of lightgbm is the champion, 2 the challenger, 3 and 4 have no alias."""
    world = make_world(serving={"canary_share": 1.0, "pinned_versions": 1})
    world.point(world.register(bundles["btc"]))
    world.point(world.register(reseeded(bundles["btc"], seed=12)), CHALLENGER)
    for seed in (13, 14):
        world.register(reseeded(bundles["btc"], seed=seed))
    runtime = Runtime(world.settings, CollectorRegistry())
    runtime.table.refresh()
    set_replay_clock(runtime.ledger, NOW_MS)
    return runtime


def ask(served: Runtime, pin: Pin | None) -> Prediction:
    return served.predictor.ask_one(Question(Kind.LIGHTGBM, 20, pin=pin), ASK)


def refused(served: Runtime, pin: Pin) -> TradewindError:
    with pytest.raises(TradewindError) as caught:
        ask(served, pin)
    return caught.value


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", [None, NAME])
def test_a_number_chooses_the_version(served: Runtime, name: str | None, number: int) -> None:
    found = ask(served, Pin(name=name, number=number))
    assert found.model_version == f"{NAME}/{number}"
    assert found.served_by == PINNED


def test_a_pinned_champion_says_what_the_champion_says(served: Runtime) -> None:
    usual, pinned = ask(served, None), ask(served, Pin(number=1))
    assert pinned == usual.model_copy(update={"served_by": PINNED})


def test_an_alias_chooses_its_version_and_no_canary_takes_its_place(
    served: Runtime,
) -> None:
    tracking = served._connect()
    tracking.client.set_registered_model_alias(NAME, CANARY, "4")
    served.table.refresh()
    assert ask(served, None).served_by == CANARY
    for alias, number in ((CHAMPION, 1), (CHALLENGER, 2), (CANARY, 4)):
        found = ask(served, Pin(alias=alias))
        assert (found.model_version, found.served_by) == (f"{NAME}/{number}", alias)


def test_a_pinned_answer_is_counted_and_neither_logged_nor_shadowed(served: Runtime) -> None:
    for pin in (Pin(number=1), Pin(number=3), Pin(alias=CHAMPION)):
        ask(served, pin)
    served.shadow.drain()
    served.log.flush()
    assert served.ledger.predictions().is_empty()
    assert served.metrics.pinned.labels("BTCUSDT")._value.get() == 3
    ask(served, None)
    served.shadow.drain()
    served.log.flush()
    assert set(served.ledger.predictions()["role"]) == {"champion", "shadow"}


def test_what_does_not_exist_is_answered_with_what_does(served: Runtime) -> None:
    error = refused(served, Pin(number=99))
    assert error.code is ErrorCode.UNKNOWN_VERSION
    assert "4, 3, 2, 1" in error.hint
    error = refused(served, Pin(alias=CANARY))
    assert error.code is ErrorCode.UNKNOWN_VERSION
    assert "champion, challenger" in error.hint


@pytest.mark.parametrize(
    "name", ["tradewind.transformer.POOLED", "tradewind.lightgbm.ETHUSDT", "tradewind.x"]
)
def test_a_version_of_another_model_is_refused(served: Runtime, name: str) -> None:
    error = refused(served, Pin(name=name, number=1))
    assert error.code is ErrorCode.UNKNOWN_VERSION
    assert NAME in error.hint


def test_an_expired_version_is_refused(served: Runtime) -> None:
    set_replay_clock(served.ledger, NOW_MS + 60 * MS_PER_DAY)
    assert refused(served, Pin(number=3)).code is ErrorCode.MODEL_EXPIRED


def test_the_last_version_is_kept_and_a_second_load_at_once_is_turned_away(
    served: Runtime,
) -> None:
    loads: list[int] = []
    inside, go_on = threading.Event(), threading.Event()

    def load(tracking: object, name: str, number: int) -> LoadedModel:
        loads.append(number)
        if number == 4:
            inside.set()
            assert go_on.wait(30)
        return served._load(tracking, name, number)  # type: ignore[arg-type]

    pinned = PinnedVersions(served._connect, load, capacity=1)
    snapshot = served.table.snapshot

    def find(number: int) -> LoadedModel:
        return pinned.find(snapshot, "lightgbm", "BTCUSDT", Pin(number=number))

    assert find(3) is find(3)
    assert loads == [3]
    slow = threading.Thread(target=find, args=(4,))
    slow.start()
    assert inside.wait(30)
    assert find(3).registered.version == 3  # what is there does not wait for what is loading
    with pytest.raises(TradewindError) as caught:
        find(99)
    assert caught.value.code is ErrorCode.OVERLOADED
    go_on.set()
    slow.join()
    find(3)
    assert loads == [3, 4, 3], "one is kept"


@pytest.mark.parametrize(
    ("model_version", "alias", "shadow"),
    [
        ("1", "champion", False),
        ("1", None, True),
        (None, "champion", True),
        (None, "Champion", False),
        (None, "", False),
        ("", None, False),
        ("-1", None, False),
        ("١", None, False),
        ("1.0", None, False),
        ("latest", None, False),
        ("1" * 40, None, False),
        ("tradewind.lightgbm.BTCUSDT", None, False),
        ("tradewind.lightgbm.BTCUSDT/1/2", None, False),
    ],
)
def test_an_unclear_choice_is_refused(
    model_version: str | None, alias: str | None, shadow: bool
) -> None:
    with pytest.raises(TradewindError) as caught:
        parse_pin(model_version, alias, shadow=shadow)
    assert caught.value.code is ErrorCode.BAD_INPUT


def test_no_choice_is_none() -> None:
    assert parse_pin(None, None) is None
    assert parse_pin(None, None, shadow=True) is None
    assert parse_pin(f"{NAME}/12", None) == Pin(name=NAME, number=12)
