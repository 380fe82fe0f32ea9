"""Serving's answers as the policy uses them: ensemble, else the named fallback, else a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from policy.forecasts import ServingPredictions, open_serving, source_of, without_disabled
from tests.support.synthetic import START_MS
from tests.support.trading_day import prediction
from tradewind.client import ServingClient, ServingProblem
from tradewind.contracts import Prediction
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import load_settings

IDS = {"BTCUSDT": "d1", "ETHUSDT": "d2"}
Answers = Mapping[str, Prediction | ServingProblem]
DOWN = TradewindError(ErrorCode.SERVING_UNREACHABLE, "nobody listens", "Start serving")


class CannedServing(ServingClient):
    """A client whose answers a test gives."""

    def __init__(self, ensemble: Answers | TradewindError, trees: Answers | TradewindError) -> None:
        super().__init__("http://127.0.0.1:9")
        self.canned = {"ensemble": ensemble, "lightgbm": trees}
        self.asked: list[tuple[str, tuple[str, ...], dict[str, str]]] = []

    def predict_many(  # type: ignore[override]
        self,
        kind: str,
        symbols: Sequence[str],
        *,
        decision_ids: Mapping[str, str] | None = None,
        n_samples: int | None = None,
    ) -> dict[str, Prediction | ServingProblem]:
        self.asked.append((kind, tuple(symbols), dict(decision_ids or {})))
        answers = self.canned[kind]
        if isinstance(answers, TradewindError):
            raise answers
        return {symbol: answers[symbol] for symbol in symbols}


def said(symbol: str, kind: str = "ensemble", *, stale: bool = False) -> Prediction:
    return prediction(symbol, START_MS, 0.6, model_type=kind, stale=stale)


def trouble(symbol: str) -> ServingProblem:
    return ServingProblem(symbol=symbol, error="no_champion", detail="none loaded", hint="train")


def predict(client: CannedServing) -> dict[str, Prediction | str]:
    with client:
        return dict(ServingPredictions(client).predict(tuple(IDS), IDS))


def test_the_ensemble_answers_for_all_in_one_call() -> None:
    good = {symbol: said(symbol) for symbol in IDS}
    client = CannedServing(good, DOWN)
    assert predict(client) == good
    assert client.asked == [("ensemble", tuple(IDS), IDS)]


@pytest.mark.parametrize("bad", [trouble("ETHUSDT"), said("ETHUSDT", stale=True)])
def test_a_symbol_without_a_usable_ensemble_falls_back_by_itself(
    bad: Prediction | ServingProblem,
) -> None:
    trees = {"ETHUSDT": said("ETHUSDT", "lightgbm")}
    client = CannedServing({"BTCUSDT": said("BTCUSDT"), "ETHUSDT": bad}, trees)
    found = predict(client)
    assert {s: source_of(a) for s, a in found.items()} == {
        "BTCUSDT": "ensemble",
        "ETHUSDT": "fallback",
    }
    assert client.asked[1] == ("lightgbm", ("ETHUSDT",), {"ETHUSDT": "d2"})


def test_where_both_fail_the_ensembles_problem_is_told() -> None:
    client = CannedServing(dict(zip(IDS, map(trouble, IDS), strict=True)), DOWN)
    assert predict(client) == dict.fromkeys(IDS, "no_champion: none loaded")


def test_serving_that_is_down_is_a_problem_and_no_exception() -> None:
    found = predict(CannedServing(DOWN, DOWN))
    assert all(str(answer).startswith("serving_unreachable: ") for answer in found.values())
    assert {source_of(answer) for answer in found.values()} == {"none"}


def test_a_real_address_where_nobody_listens_is_a_problem() -> None:
    source = open_serving(load_settings(serving={"client_attempts": 1}), url="http://127.0.0.1:9")
    with source.client:
        found = source.predict(["BTCUSDT"], {"BTCUSDT": "d1"})
    assert str(found["BTCUSDT"]).startswith("serving_unreachable: ")


@pytest.mark.parametrize("key", ["BTCUSDT", "POOLED"])
def test_a_fallback_that_is_switched_off_does_not_answer(key: str) -> None:
    version = f"tradewind.lightgbm.{key}/3"
    trees = prediction("BTCUSDT", START_MS, 0.6, model_type="lightgbm", model_version=version)
    answers: dict[str, Prediction | str] = {
        "BTCUSDT": trees,
        "ETHUSDT": said("ETHUSDT"),
        "SOLUSDT": "no_champion: none",
    }
    off = {("lightgbm", key): (False, "flips"), ("ensemble", "ETHUSDT"): (False, "no member")}
    found = without_disabled(answers, off)
    assert found["BTCUSDT"] == (
        f"member_disabled: the fallback lightgbm.{key} is switched off (flips)"
    )
    assert found["ETHUSDT"] == answers["ETHUSDT"]
    assert found["SOLUSDT"] == answers["SOLUSDT"]
    on = {("lightgbm", key): (True, "retrained"), ("lightgbm", "SOLUSDT"): (False, "flips")}
    assert without_disabled(answers, on) == answers
