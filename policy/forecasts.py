"""Where the policy's predictions come from: serving, with a named fallback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tradewind.client import ServingClient, ServingProblem
from tradewind.contracts import Prediction
from tradewind.errors import TradewindError
from tradewind.settings import Settings

Answer = Prediction | str
FALLBACK = "fallback"
SOURCES = {"lightgbm": FALLBACK}


class PredictionSource(Protocol):
    """Anything that predicts many symbols at once."""

    def predict(
        self, symbols: Sequence[str], decision_ids: Mapping[str, str]
    ) -> Mapping[str, Answer]:
        """Return, for every symbol, a prediction or why there is none (``code: detail``)."""
        ...


def source_of(answer: Answer | None) -> str:
    """Return what a decision calls the origin of its prediction."""
    if isinstance(answer, Prediction):
        return SOURCES.get(answer.model_type, answer.model_type)
    return "none"


def without_disabled(
    answers: Mapping[str, Answer], states: Mapping[tuple[str, str], tuple[bool, str]]
) -> dict[str, Answer]:
    """Return the answers; a fallback by a disabled member becomes a problem.

    The ensemble leaves disabled members out by itself; a model that answers alone does not.

    Parameters
    ----------
    states
        (family, key) → (enabled, why), as `Ledger.member_state` returns them.
    """
    return {symbol: _allowed(symbol, answer, states) for symbol, answer in answers.items()}


def _allowed(
    symbol: str, answer: Answer, states: Mapping[tuple[str, str], tuple[bool, str]]
) -> Answer:
    if source_of(answer) != FALLBACK or not isinstance(answer, Prediction):
        return answer
    # tradewind.lightgbm.BTCUSDT/3: the member's key is the symbol or the pool it serves.
    key = answer.model_version.rpartition("/")[0].rpartition(".")[2]
    for member in ((answer.model_type, name) for name in (symbol, key)):
        enabled, why = states.get(member, (True, ""))
        if not enabled:
            return f"member_disabled: the fallback {'.'.join(member)} is switched off ({why})"
    return answer


@dataclass(frozen=True)
class ServingPredictions:
    """The ensemble over HTTP; where it fails or is stale, the boosted trees' champion.

    A symbol that neither answers keeps the ensemble's problem, which makes its decision HOLD.
    """

    client: ServingClient

    def predict(
        self, symbols: Sequence[str], decision_ids: Mapping[str, str]
    ) -> Mapping[str, Answer]:
        """Return predictions or problems; never raises for a serving that is down."""
        answers = self._ask("ensemble", symbols, decision_ids)
        failed = [symbol for symbol in symbols if not _usable(answers[symbol])]
        if failed:
            second = self._ask("lightgbm", failed, decision_ids)
            answers |= {symbol: second[symbol] for symbol in failed if _usable(second[symbol])}
        return answers

    def _ask(
        self, kind: str, symbols: Sequence[str], decision_ids: Mapping[str, str]
    ) -> dict[str, Answer]:
        wanted = {symbol: decision_ids[symbol] for symbol in symbols}
        try:
            if kind == "ensemble":
                found = self.client.predict_ensemble_many(symbols, decision_ids=wanted)
            else:
                found = self.client.predict_many("lightgbm", symbols, decision_ids=wanted)
        except TradewindError as error:
            return dict.fromkeys(symbols, str(error))
        return {symbol: _answer(found[symbol]) for symbol in symbols}


def _answer(found: Prediction | ServingProblem) -> Answer:
    return found if isinstance(found, Prediction) else f"{found.error}: {found.detail}"


def _usable(answer: Answer) -> bool:
    return isinstance(answer, Prediction) and not answer.stale


def open_serving(settings: Settings, url: str | None = None) -> ServingPredictions:
    """Return serving as the policy asks it: within ``engine.request_timeout_s``."""
    timeout = settings.engine.request_timeout_s
    return ServingPredictions(ServingClient(url, settings=settings.serving, timeout_s=timeout))
