"""Predictions from real small bundles: votes, rules, refusals, and the same answer twice."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from serving import status
from serving.loaded import Item, LoadedModel, RowForecast
from serving.predictor import Predictor
from serving.questions import Ask, Kind, Problem, Question, check_samples, parse_window
from serving.runtime import Runtime
from serving.signals import signal_of
from serving.smoke import answer_once
from tests.support.serving import (
    NOW_MS,
    STEP_MS,
    World,
    fit_bundle,
    reseeded,
    training_set,
)
from tradewind.contracts import Action, Prediction, Signal, decision_id
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.definitions import DEEP
from tradewind.ledger import MemberCode, MemberState, MemberStatus, set_replay_clock
from tradewind.models.bundle import ModelBundle
from tradewind.models.conformal import Conformal
from tradewind.settings import ServingSettings

Bundles = dict[str, ModelBundle]
LIGHTGBM = Question(Kind.LIGHTGBM, 20)
DEEP_Q = Question(Kind.DEEP, 20)
ENSEMBLE = Question(Kind.ENSEMBLE, 20)


@pytest.fixture(scope="module")
def served(make_world: Callable[..., World], bundles: Bundles) -> Runtime:
    """Serve lightgbm for BTC, the pooled transformer for all, and a challenger of it."""
    world = make_world()
    world.point(world.register(bundles["btc"]))
    world.point(world.register(bundles["deep"]))
    world.point(world.register(bundles["deep2"]), "challenger")
    runtime = Runtime(world.settings, CollectorRegistry())
    runtime.table.refresh()
    return runtime


@pytest.fixture
def predictor(served: Runtime) -> Predictor:
    set_replay_clock(served.ledger, NOW_MS)
    return served.predictor


def at(served: Runtime, ms: int) -> None:
    """Move market time, past the clock's own cache."""
    served.clock.set(ms)  # type: ignore[attr-defined]


def problem(predictor: Predictor, question: Question, symbol: str) -> TradewindError:
    answer = predictor.ask(question, [Ask(symbol)])[0]
    assert isinstance(answer, Problem)
    return answer.error


def test_a_prediction_says_what_it_rests_on(predictor: Predictor, served: Runtime) -> None:
    found = predictor.ask_one(LIGHTGBM, Ask("BTCUSDT"))
    row = served.view.latest("BTCUSDT")
    assert found.model_type == "lightgbm"
    assert found.model_version == "tradewind.lightgbm.BTCUSDT/1"
    assert found.bar_ts == row.bar_ts == NOW_MS - STEP_MS
    assert found.features_fingerprint == row.fingerprint
    assert found.confidence == pytest.approx(2 * abs(found.p_up - 0.5))
    assert found.uncertainty == pytest.approx(np.hypot(found.epistemic, found.aleatoric))
    assert found.decision_id == decision_id("tradewind", "BTCUSDT", "15m", row.bar_ts)
    assert (found.served_by, found.gates, found.stale) == ("champion", "passed", False)
    assert found.mc_samples is None


def test_the_caller_s_decision_id_is_kept(predictor: Predictor) -> None:
    assert predictor.ask_one(LIGHTGBM, Ask("BTCUSDT", "mine")).decision_id == "mine"


def test_the_deep_model_reports_its_passes(predictor: Predictor) -> None:
    found = predictor.ask_one(Question(Kind.DEEP, 7), Ask("ETHUSDT"))
    assert (found.model_type, found.mc_samples) == ("deep_transformer", 7)
    assert found.epistemic > 0


def test_the_same_question_has_the_same_answer_in_any_batch(predictor: Predictor) -> None:
    alone = predictor.ask_one(DEEP_Q, Ask("BTCUSDT"))
    both = predictor.ask(DEEP_Q, [Ask("ETHUSDT"), Ask("BTCUSDT")])[1]
    assert isinstance(both, Prediction)
    for name in ("p_up", "mu", "uncertainty", "epistemic", "epistemic_p"):
        assert getattr(both, name) == pytest.approx(getattr(alone, name), abs=1e-6)


def test_a_seed_of_the_caller_gives_other_passes(predictor: Predictor) -> None:
    usual = predictor.ask_one(DEEP_Q, Ask("BTCUSDT"))
    seeded = [predictor.ask_one(DEEP_Q, Ask("BTCUSDT", seed=3)) for _ in range(2)]
    assert seeded[0] == seeded[1]
    assert seeded[0].p_up != usual.p_up


def test_the_challenger_answers_and_says_so(predictor: Predictor) -> None:
    shadow = predictor.ask_one(Question(Kind.DEEP, 20, alias="challenger"), Ask("BTCUSDT"))
    assert shadow.served_by == "challenger"
    assert shadow.model_version == "tradewind.transformer.POOLED/2"


def test_the_ensemble_names_its_members(predictor: Predictor) -> None:
    found = predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    assert [vote.family for vote in found.votes] == ["lightgbm", "transformer"]
    assert sum(vote.weight for vote in found.votes) == pytest.approx(1)
    assert found.missing_members == ()
    assert found.model_version.startswith("ensemble-")
    assert found.mc_samples == 20


def test_a_family_without_an_endpoint_speaks_in_the_ensemble(
    make_world: Callable[..., World], bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    small = {"bag": 2, "epochs": 1, "days_back": 20, "families": ["lightgbm", "xgboost"]}
    world = make_world(training=small)
    trees = fit_bundle(world.settings, training_set(world.settings), "xgboost", "POOLED", 5)
    alone = answer_once(world.settings, trees, NOW_MS)
    assert [vote.family for vote in alone.votes] == ["xgboost"]
    world.point(world.register(bundles["btc"]))
    world.point(world.register(trees))
    runtime = make_runtime(world)
    runtime.table.refresh()
    found = runtime.predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    assert {vote.family: vote.model_version for vote in found.votes} == {
        "lightgbm": "tradewind.lightgbm.BTCUSDT/1",
        "xgboost": "tradewind.xgboost.POOLED/1",
    }
    assert found.missing_members == ()


def _strange(bundle: ModelBundle) -> ModelBundle:
    """Return the model with an interval, and a range that the next bar's `range` is outside."""
    place = bundle.reference.names.index("range")

    def below_zero(ends: tuple[float, ...]) -> tuple[float, ...]:
        return (*ends[:place], -1.0, *ends[place + 1 :])

    reference = dataclasses.replace(
        bundle.reference,
        low=below_zero(bundle.reference.low),
        high=below_zero(bundle.reference.high),
        conformal=Conformal(level=0.9, quantile=1.5, rows=100, independent=50.0),
    )
    return dataclasses.replace(bundle, reference=reference)


def test_an_answer_has_its_interval_and_names_inputs_out_of_range(
    make_world: Callable[..., World], bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    for action in ("flag", "off", "refuse"):
        ranges = {"action": action, "margin": 0.5}
        world = make_world(serving={"poll_s": 0.2, "ranges": ranges})
        world.point(world.register(_strange(bundles["btc"])))
        world.point(world.register(bundles["deep"]))
        runtime = make_runtime(world)
        runtime.table.refresh()
        predictor = runtime.predictor
        if action == "refuse":
            refusal = problem(predictor, LIGHTGBM, "BTCUSDT")
            assert refusal.code is ErrorCode.OUT_OF_RANGE
            assert refusal.detail.endswith("tradewind.lightgbm.BTCUSDT/1: range")
            rest = predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
            assert (rest.missing_members, rest.failed_members) == (("lightgbm",), ())
            continue
        found = predictor.ask_one(LIGHTGBM, Ask("BTCUSDT"))
        assert found.mu_low == pytest.approx(found.mu - 1.5 * found.uncertainty)
        assert found.mu_high == pytest.approx(found.mu + 1.5 * found.uncertainty)
        assert found.out_of_range == (("range",) if action == "flag" else ())
        deep = predictor.ask_one(DEEP_Q, Ask("BTCUSDT"))
        assert (deep.mu_low, deep.mu_high, deep.out_of_range) == (None, None, ())
        both = predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
        assert both.out_of_range == found.out_of_range
        assert both.mu_low is None, "the transformer's version keeps no interval"


def test_an_ensemble_of_one_says_so(predictor: Predictor) -> None:
    found = predictor.ask_one(ENSEMBLE, Ask("ETHUSDT"))
    alone = predictor.ask_one(DEEP_Q, Ask("ETHUSDT"))
    assert found.missing_members == ("lightgbm",)
    assert found.consensus == "single"
    assert found.p_up == pytest.approx(alone.p_up)
    assert found.epistemic_p == pytest.approx(alone.epistemic_p), "not zero: one has no spread"


def test_a_member_disabled_by_hand_is_not_asked(predictor: Predictor, served: Runtime) -> None:
    word = functools.partial(served.ledger.set_member, "lightgbm", "BTCUSDT", who="ada")
    word(MemberStatus.DISABLED, why="flips", market_ms=NOW_MS)
    served.table.refresh_members()
    found = predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    shown = {entry["symbol"]: entry for entry in status.of(served)["ensembles"]}
    voting = served.metrics.members_voting.labels("BTCUSDT")._value.get()
    word(MemberStatus.ENABLED, why="well again", market_ms=NOW_MS)
    served.table.refresh_members()
    assert found.missing_members == ("lightgbm",)
    (why,) = found.disabled_members
    assert (why.family, why.key, why.code, why.why, why.who) == (
        *("lightgbm", "BTCUSDT", "by_hand", "flips", "ada"),
    )
    assert [vote.family for vote in found.votes] == ["transformer"]
    assert found.consensus == "single"
    assert shown["BTCUSDT"]["voting"] == ["transformer"]
    assert shown["BTCUSDT"]["few"]
    assert shown["BTCUSDT"]["disabled"][0]["why"] == "flips"
    assert voting == 1
    back = predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    assert (len(back.votes), back.disabled_members) == (2, ())


def _disabled(family: str, key: str) -> MemberState:
    return MemberState(
        family, key, MemberStatus.DISABLED, MemberCode.BIAS, "always BUY", "supervisor", NOW_MS
    )


def test_a_member_disabled_for_what_it_says_is_heard_without_weight(
    make_world: Callable[..., World], bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    world = make_world()
    world.point(world.register(bundles["btc"]))
    world.point(world.register(bundles["deep"]))
    runtime = make_runtime(world)
    runtime.table.refresh()
    both = runtime.predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    assert runtime.ledger.judge_member(_disabled("lightgbm", "BTCUSDT"), None)
    runtime.table.refresh_members()
    found = runtime.predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    alone = runtime.predictor.ask_one(DEEP_Q, Ask("BTCUSDT"))
    silent = next(vote for vote in found.votes if vote.family == "lightgbm")
    assert silent.weight == 0
    assert silent.latency_ms is not None
    assert silent.p_up == next(v.p_up for v in both.votes if v.family == "lightgbm")
    assert found.p_up == pytest.approx(alone.p_up)
    assert found.model_version != both.model_version
    assert found.missing_members == ("lightgbm",)

    assert runtime.ledger.judge_member(_disabled("transformer", "POOLED"), None)
    runtime.table.refresh_members()
    refusal = problem(runtime.predictor, ENSEMBLE, "BTCUSDT")
    assert refusal.code is ErrorCode.NO_CHAMPION
    assert "every member of the ensemble of BTCUSDT is disabled" in refusal.detail
    assert "tradewind members enable" in refusal.hint


def test_a_member_that_fails_is_told_apart_from_one_that_is_disabled(
    predictor: Predictor, served: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LoadedModel.forecast

    def broken(model: LoadedModel, items: Sequence[Item], n_samples: int) -> list[RowForecast]:
        if model.registered.family == "lightgbm":
            raise TradewindError(ErrorCode.MODEL_UNUSABLE, "it answers with NaN", "Train again")
        return whole(model, items, n_samples)

    monkeypatch.setattr(LoadedModel, "forecast", broken)
    found = predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    assert (found.missing_members, found.failed_members) == (("lightgbm",), ("lightgbm",))
    assert found.disabled_members == ()


def test_with_the_ledger_away_the_last_known_states_hold(
    make_world: Callable[..., World],
    bundles: Bundles,
    make_runtime: Callable[[World], Runtime],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = make_world()
    world.point(world.register(bundles["btc"]))
    world.point(world.register(bundles["deep"]))
    runtime = make_runtime(world)
    assert runtime.ledger.judge_member(_disabled("lightgbm", "BTCUSDT"), None)
    runtime.table.refresh()

    def away(*_: object) -> object:
        raise TradewindError(ErrorCode.LEDGER_UNAVAILABLE, "the ledger is away", "Start it")

    with monkeypatch.context() as patch:
        patch.setattr(runtime.ledger.db, "read", away)
        runtime.table.refresh_members()
        told = status.of(runtime)["members"]
        assert told["problem"]["error"] == "ledger_unavailable"
        assert told["states"][0]["state"] == "disabled"
        assert runtime.metrics.member_states_up._value.get() == 0
    found = runtime.predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    assert found.missing_members == ("lightgbm",)
    runtime.table.refresh_members()
    assert status.of(runtime)["members"]["problem"] is None
    assert runtime.metrics.member_states_up._value.get() == 1


def test_serving_follows_a_state_within_the_poll_interval_and_back(
    make_world: Callable[..., World], bundles: Bundles
) -> None:
    world = make_world(serving={"poll_s": 0.1, "members_poll_s": 0.1})
    world.point(world.register(bundles["btc"]))
    world.point(world.register(bundles["deep"]))
    runtime = Runtime(world.settings, CollectorRegistry())
    runtime.start()
    try:
        _until(lambda: runtime.not_ready() is None)
        word = functools.partial(runtime.ledger.set_member, "lightgbm", "BTCUSDT", who="ada")

        def missing() -> tuple[str, ...]:
            return runtime.predictor.ask_one(ENSEMBLE, Ask("BTCUSDT")).missing_members

        assert missing() == ()
        word(MemberStatus.DISABLED, why="flips", market_ms=NOW_MS)
        _until(lambda: missing() == ("lightgbm",))
        word(MemberStatus.ENABLED, why="well", market_ms=NOW_MS)
        _until(lambda: missing() == ())
    finally:
        runtime.stop()


def _until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.05)


def test_members_without_skill_do_not_speak(
    make_world: Callable[..., World], bundles: Bundles, make_runtime: Callable[[World], Runtime]
) -> None:
    world = make_world()
    world.point(world.register(reseeded(bundles["btc"], skill=0.0)))
    world.point(world.register(reseeded(bundles["deep"], skill=0.0)))
    runtime = make_runtime(world)
    runtime.table.refresh()
    found = runtime.predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    assert {vote.weight for vote in found.votes} == {0.0}
    assert found.signal is Signal.HOLD
    assert found.consensus == "none"


def test_an_unknown_symbol_names_the_known_ones(predictor: Predictor) -> None:
    error = problem(predictor, ENSEMBLE, "DOGEUSDT")
    assert error.code is ErrorCode.UNKNOWN_SYMBOL
    assert "BTCUSDT, ETHUSDT" in error.hint


def test_no_champion_names_the_job(predictor: Predictor) -> None:
    error = problem(predictor, LIGHTGBM, "ETHUSDT")
    assert error.code is ErrorCode.NO_CHAMPION
    assert "retrain" in error.hint


def test_no_challenger_has_a_hint(predictor: Predictor) -> None:
    question = Question(Kind.LIGHTGBM, 20, alias="challenger")
    error = problem(predictor, question, "BTCUSDT")
    assert error.code is ErrorCode.NO_CHALLENGER
    assert "shadow=1" in error.hint


def test_too_few_bars_says_how_many_are_missing(predictor: Predictor) -> None:
    error = problem(predictor, DEEP_Q, "XRPUSDT")
    assert error.code is ErrorCode.NOT_ENOUGH_BARS
    assert "266 more" in error.detail
    assert "ingest" in error.hint


def test_late_features_are_refused_unless_allowed(predictor: Predictor, served: Runtime) -> None:
    at(served, NOW_MS + 4 * STEP_MS)
    error = problem(predictor, LIGHTGBM, "BTCUSDT")
    allowed = predictor.ask_one(Question(Kind.LIGHTGBM, 20, allow_stale=True), Ask("BTCUSDT"))
    at(served, NOW_MS)
    assert error.code is ErrorCode.STALE_FEATURES
    assert "2700 s late" in error.detail
    assert allowed.stale
    assert allowed.staleness_s == 2700


def test_one_symbol_s_problem_is_not_another_s(predictor: Predictor) -> None:
    answers = predictor.ask(ENSEMBLE, [Ask(s) for s in ("DOGEUSDT", "BTCUSDT", "XRPUSDT")])
    assert [type(answer) for answer in answers] == [Problem, Prediction, Problem]


def test_a_caller_s_window_is_what_the_model_sees(predictor: Predictor, served: Runtime) -> None:
    own = served.view.latest("BTCUSDT").deep
    same = predictor.ask_one(DEEP_Q, Ask("BTCUSDT", window=own))
    other = predictor.ask_one(DEEP_Q, Ask("BTCUSDT", window=own[::-1].copy()))
    usual = predictor.ask_one(DEEP_Q, Ask("BTCUSDT"))
    assert same.p_up == pytest.approx(usual.p_up, abs=1e-6)
    assert other.p_up != pytest.approx(usual.p_up, abs=1e-6)
    assert other.features_fingerprint.startswith("window-")


def test_answers_are_logged_with_their_role_and_windows_are_not(
    predictor: Predictor, served: Runtime
) -> None:
    served.log.flush()
    seen = len(served.ledger.predictions())
    predictor.ask(ENSEMBLE, [Ask("BTCUSDT"), Ask("DOGEUSDT")])
    predictor.ask(Question(Kind.DEEP, 20, alias="challenger"), [Ask("BTCUSDT")])
    predictor.ask(DEEP_Q, [Ask("BTCUSDT", window=served.view.latest("BTCUSDT").deep)])
    served.log.flush()
    rows = served.ledger.predictions()[seen:]
    assert rows["role"].to_list() == ["champion", "shadow"]
    assert rows["model_type"].to_list() == ["ensemble", "deep_transformer"]
    assert (rows["latency_ms"] > 0).all()


@pytest.mark.parametrize(
    ("p_up", "epistemic_p", "expected"),
    [
        (0.55, 0.0, Signal.ENTRY_LONG),
        (0.5499, 0.0, Signal.HOLD),
        (0.45, 0.0, Signal.ENTRY_SHORT),
        (0.4501, 0.0, Signal.HOLD),
        (0.9, 0.05, Signal.ENTRY_LONG),
        (0.9, 0.0501, Signal.HOLD),
        (0.1, 0.0501, Signal.HOLD),
    ],
)
def test_the_signal_rule(p_up: float, epistemic_p: float, expected: Signal) -> None:
    assert signal_of(p_up, epistemic_p, ServingSettings()) is expected


@pytest.mark.parametrize("n_samples", [0, -1, 1001])
def test_passes_outside_the_range_are_refused(n_samples: int) -> None:
    with pytest.raises(TradewindError, match=rf"n_samples = {n_samples} is outside 1..1000"):
        check_samples(n_samples, 1000)


def good_window() -> list[list[float]]:
    return np.zeros((16, len(DEEP))).tolist()


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (good_window()[:-1], "window is 15 × 10, not 16 × 10"),
        ([row[:-1] for row in good_window()], "window is 16 × 9"),
        ([good_window()[0][:3], *good_window()[1:]], "ragged"),
        ([], "window is 0 × 0"),
    ],
)
def test_a_window_of_another_shape_is_refused(window: list[list[float]], said: str) -> None:
    with pytest.raises(TradewindError) as caught:
        parse_window(window, 16, len(DEEP))
    assert caught.value.code is ErrorCode.BAD_INPUT
    assert said in caught.value.detail


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e39])
def test_a_window_that_is_not_finite_is_refused(bad: float) -> None:
    window = good_window()
    window[3][4] = bad
    with pytest.raises(TradewindError, match=r"window\[3\]\[4\]"):
        parse_window(window, 16, len(DEEP))


def test_votes_follow_the_members_probabilities(predictor: Predictor) -> None:
    found = predictor.ask_one(ENSEMBLE, Ask("BTCUSDT"))
    for vote in found.votes:
        expected = signal_of(vote.p_up, 0.0, ServingSettings())
        actions = {
            Signal.ENTRY_LONG: Action.BUY,
            Signal.ENTRY_SHORT: Action.SELL,
            Signal.HOLD: Action.HOLD,
        }
        assert vote.action is actions[expected]


def test_a_candidate_answers_before_it_is_registered(served: Runtime, bundles: Bundles) -> None:
    found = answer_once(served.settings, bundles["btc"], NOW_MS)
    set_replay_clock(served.ledger, NOW_MS)
    usual = served.predictor.ask_one(LIGHTGBM, Ask("BTCUSDT"))
    assert found.p_up == pytest.approx(usual.p_up)
    assert found.model_version == "tradewind.lightgbm.BTCUSDT/0"


def test_a_turn_that_does_not_come_is_waited_for_once_by_all_rows(
    served: Runtime, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def full(model: LoadedModel, items: Sequence[Item], n_samples: int) -> list[RowForecast]:
        calls.append(len(items))
        raise TradewindError(ErrorCode.OVERLOADED, "the model's turn did not come", "later")

    monkeypatch.setattr(LoadedModel, "forecast", full)
    answers = predictor.ask(DEEP_Q, [Ask("BTCUSDT"), Ask("ETHUSDT")])
    found = [item.error.code for item in answers if isinstance(item, Problem)]
    assert found == [ErrorCode.OVERLOADED] * 2
    assert calls == [2], "asked again alone, each row would wait as long once more"
