"""How anyone calls serving: one typed client, blocking and asynchronous.

A read is repeated, a few times, when the connection fails before the whole answer is there, and
when an overloaded server says in Retry-After how soon to come back; any other answer, good or bad,
is never asked for twice. The engine's many-symbol request is repeated only if the connection was
refused, that is, if nothing had been sent. ``timeout_s`` is for each try: a server that sends its
answer's body drop by drop is given up as one that sends nothing. (The blocking client cannot see
single drops of the head: there each has ``timeout_s`` of its own.)
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)

from tradewind.contracts import Prediction
from tradewind.errors import ErrorCode, TradewindError
from tradewind.masking import mask_passwords
from tradewind.settings import ServingSettings

Kind = Literal["lightgbm", "deep", "ensemble"]
START_COMMAND = "tradewind serve"
CONNECTION_FAILURES = (
    httpx.ConnectError,
    httpx.ReadError,
    httpx.WriteError,
    httpx.RemoteProtocolError,
)
NOTHING_SENT = (httpx.ConnectError,)
OVERLOADS = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)


class ServingProblem(BaseModel):
    """Why one symbol of a request for many has no prediction."""

    model_config = ConfigDict(frozen=True)

    symbol: str
    error: str
    detail: str
    hint: str

    def to_error(self) -> TradewindError:
        """Return the problem as an error to raise."""
        return TradewindError(_code(self.error), self.detail, self.hint)


@dataclass(frozen=True)
class _Request:
    """A request, and on which failures it may be sent again."""

    method: str
    path: str
    params: Mapping[str, str | int] | None = None
    body: Mapping[str, Any] | None = None
    repeat_on: tuple[type[httpx.TransportError], ...] = CONNECTION_FAILURES

    @property
    def is_read(self) -> bool:
        """Tell whether it may be sent again although the server has taken it."""
        return self.method == "GET"


@dataclass(frozen=True)
class _Answer:
    """A whole answer: status, body, and the seconds of Retry-After where it has them."""

    url: str
    status: int
    body: bytes
    retry_after_s: float | None

    @classmethod
    def of(cls, response: httpx.Response, body: bytes) -> _Answer:
        after = response.headers.get("retry-after", "")
        seconds = float(after) if after.isascii() and after.isdecimal() else None
        return cls(str(response.request.url), response.status_code, body, seconds)


class _AskAgainError(Exception):
    """The server is overloaded, and says when to come back."""

    def __init__(self, answer: _Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True)
class _Config:
    """Address, patience and repeats."""

    url: str
    timeout_s: float
    attempts: int
    backoff_s: float
    longest_wait_s: float
    n_samples: int

    def samples(self, asked: int | None) -> int:
        """Return the number of passes asked for, else the setting's."""
        return self.n_samples if asked is None else asked

    def http_options(self) -> dict[str, Any]:
        """Return the options of the httpx client.

        A proxy from the environment is for the world outside, not for our own service.
        """
        return {"base_url": self.url, "timeout": self.timeout_s, "trust_env": False}

    def retry_options(self, request: _Request) -> dict[str, Any]:
        """Return tenacity's options: bounded repeats, growing pauses, the last error raised."""
        return {
            "stop": stop_after_attempt(self.attempts),
            "wait": self._pause,
            "retry": retry_if_exception_type((*request.repeat_on, _AskAgainError)),
            "reraise": True,
        }

    def _pause(self, state: RetryCallState) -> float:
        """Return the seconds before the next try: the server's, else growing ones."""
        failure = None if state.outcome is None else state.outcome.exception()
        if isinstance(failure, _AskAgainError):
            return failure.answer.retry_after_s or 0.0
        return wait_exponential(multiplier=self.backoff_s, max=self.timeout_s)(state)

    def settled(self, request: _Request, answer: _Answer) -> _Answer:
        """Return the answer, unless it says to ask again soon and that may be done."""
        after = answer.retry_after_s
        if not request.is_read or answer.status not in OVERLOADS or after is None:
            return answer
        if after > self.longest_wait_s:
            return answer
        raise _AskAgainError(answer)


def _config(url: str | None, settings: ServingSettings | None, timeout_s: float | None) -> _Config:
    chosen = settings or ServingSettings()
    address = url or f"http://{chosen.host}:{chosen.port}"
    if not address.lower().startswith(("http://", "https://")):
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"url = {mask_passwords(address)!r} is no web address",
            "Begin it with http://",
        )
    return _Config(
        url=address.rstrip("/"),
        timeout_s=timeout_s or chosen.client_timeout_s,
        attempts=chosen.client_attempts,
        backoff_s=chosen.client_backoff_s,
        longest_wait_s=chosen.client_longest_wait_s,
        n_samples=chosen.n_samples,
    )


class ServingClient:
    """The blocking client; close it, or use it as a context manager. Safe between threads.

    Parameters
    ----------
    url
        Address of serving; by default the host and port of ``settings``.
    settings
        Serving's section of the settings, for the address, timeout and repeats.
    timeout_s
        Seconds to wait for each answer, in place of the settings' ``client_timeout_s``.

    Notes
    -----
    Every call raises `TradewindError`: ``serving_unreachable`` naming the address and the
    command that starts serving, or the server's own code, detail and hint. An address without
    ``http://``, and one text where a list of symbols belongs, are ``bad_input``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: ServingSettings | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._config = _config(url, settings, timeout_s)
        self._http = httpx.Client(**self._config.http_options())

    @property
    def url(self) -> str:
        """Return the address that is called."""
        return self._config.url

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(
        self,
        symbol: str,
        *,
        decision_id: str | None = None,
        allow_stale: bool = False,
        model_version: str | int | None = None,
        alias: str | None = None,
    ) -> Prediction:
        """Return the boosted-tree champion's prediction.

        ``model_version`` (a number, or ``tradewind.FAMILY.KEY/N``) or ``alias`` chooses another
        version, to look into it: such an answer is not logged.
        """
        chosen = _choice(decision_id, allow_stale, model_version, alias)
        return _prediction(self._json(_predict(symbol, chosen)))

    def predict_deep(
        self,
        symbol: str,
        *,
        n_samples: int | None = None,
        shadow: bool = False,
        seed: int | None = None,
        decision_id: str | None = None,
        allow_stale: bool = False,
        model_version: str | int | None = None,
        alias: str | None = None,
    ) -> Prediction:
        """Return the deep champion's prediction over ``n_samples`` passes (20 unless set).

        With ``shadow`` the challenger answers; there may be none (``no_challenger``).
        """
        chosen = _choice(decision_id, allow_stale, model_version, alias, seed)
        passes = self._config.samples(n_samples)
        return _prediction(self._json(_predict_deep(symbol, passes, shadow, chosen)))

    def predict_ensemble(self, symbol: str) -> Prediction:
        """Return the ensemble's prediction, with every member's vote."""
        return _prediction(self._json(_predict_ensemble(symbol)))

    def predict_ensemble_many(
        self, symbols: Sequence[str], *, decision_ids: Mapping[str, str] | None = None
    ) -> dict[str, Prediction | ServingProblem]:
        """Return, for every symbol asked, its ensemble prediction or why there is none."""
        return self.predict_many("ensemble", symbols, decision_ids=decision_ids)

    def predict_many(
        self,
        kind: Kind,
        symbols: Sequence[str],
        *,
        decision_ids: Mapping[str, str] | None = None,
        n_samples: int | None = None,
    ) -> dict[str, Prediction | ServingProblem]:
        """Return, for every symbol asked, a prediction of ``kind`` or why there is none."""
        answer = self._json(
            _predict_many(kind, symbols, decision_ids, self._config.samples(n_samples))
        )
        return _many(answer, symbols)

    def status(self) -> dict[str, Any]:
        """Return what is loaded, per symbol and alias."""
        return _object(self._json(_STATUS))

    def ready(self) -> bool:
        """Tell whether serving is up with every champion loaded; False if it is not there."""
        try:
            return self._http.get(_READY.path).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _json(self, request: _Request) -> Any:
        try:
            for attempt in Retrying(**self._config.retry_options(request)):
                with attempt:
                    answer = self._config.settled(request, self._whole(request))
        except _AskAgainError as error:
            answer = error.answer
        except httpx.RequestError as error:
            raise _unreachable(self._config, error) from error
        return _checked(answer)

    def _whole(self, request: _Request) -> _Answer:
        """Return the whole answer, or give it up when its time is over."""
        deadline = time.monotonic() + self._config.timeout_s
        with self._http.stream(
            request.method, request.path, params=request.params, json=request.body
        ) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("", request=response.request)
            return _Answer.of(response, bytes(body))


class AsyncServingClient:
    """The asynchronous client: the same calls and errors as `ServingClient`, awaited."""

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: ServingSettings | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._config = _config(url, settings, timeout_s)
        self._http = httpx.AsyncClient(**self._config.http_options())

    @property
    def url(self) -> str:
        """Return the address that is called."""
        return self._config.url

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(
        self,
        symbol: str,
        *,
        decision_id: str | None = None,
        allow_stale: bool = False,
        model_version: str | int | None = None,
        alias: str | None = None,
    ) -> Prediction:
        """Return the boosted-tree champion's prediction.

        ``model_version`` (a number, or ``tradewind.FAMILY.KEY/N``) or ``alias`` chooses another
        version, to look into it: such an answer is not logged.
        """
        chosen = _choice(decision_id, allow_stale, model_version, alias)
        return _prediction(await self._json(_predict(symbol, chosen)))

    async def predict_deep(
        self,
        symbol: str,
        *,
        n_samples: int | None = None,
        shadow: bool = False,
        seed: int | None = None,
        decision_id: str | None = None,
        allow_stale: bool = False,
        model_version: str | int | None = None,
        alias: str | None = None,
    ) -> Prediction:
        """Return the deep champion's (with ``shadow`` the challenger's) prediction."""
        chosen = _choice(decision_id, allow_stale, model_version, alias, seed)
        passes = self._config.samples(n_samples)
        return _prediction(await self._json(_predict_deep(symbol, passes, shadow, chosen)))

    async def predict_ensemble(self, symbol: str) -> Prediction:
        """Return the ensemble's prediction, with every member's vote."""
        return _prediction(await self._json(_predict_ensemble(symbol)))

    async def predict_ensemble_many(
        self, symbols: Sequence[str], *, decision_ids: Mapping[str, str] | None = None
    ) -> dict[str, Prediction | ServingProblem]:
        """Return, for every symbol asked, its ensemble prediction or why there is none."""
        return await self.predict_many("ensemble", symbols, decision_ids=decision_ids)

    async def predict_many(
        self,
        kind: Kind,
        symbols: Sequence[str],
        *,
        decision_ids: Mapping[str, str] | None = None,
        n_samples: int | None = None,
    ) -> dict[str, Prediction | ServingProblem]:
        """Return, for every symbol asked, a prediction of ``kind`` or why there is none."""
        answer = await self._json(
            _predict_many(kind, symbols, decision_ids, self._config.samples(n_samples))
        )
        return _many(answer, symbols)

    async def status(self) -> dict[str, Any]:
        """Return what is loaded, per symbol and alias."""
        return _object(await self._json(_STATUS))

    async def ready(self) -> bool:
        """Tell whether serving is up with every champion loaded; False if it is not there."""
        try:
            return (await self._http.get(_READY.path)).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    async def _json(self, request: _Request) -> Any:
        try:
            async for attempt in AsyncRetrying(**self._config.retry_options(request)):
                with attempt:
                    answer = self._config.settled(request, await self._whole(request))
        except _AskAgainError as error:
            answer = error.answer
        except httpx.RequestError as error:
            raise _unreachable(self._config, error) from error
        return _checked(answer)

    async def _whole(self, request: _Request) -> _Answer:
        """Return the whole answer, or give it up when its time is over."""
        try:
            async with asyncio.timeout(self._config.timeout_s):
                response = await self._http.request(
                    request.method, request.path, params=request.params, json=request.body
                )
        except TimeoutError as error:
            raise httpx.ReadTimeout("") from error
        return _Answer.of(response, response.content)


_STATUS = _Request("GET", "/ml/models/status")
_READY = _Request("GET", "/readyz")


def _choice(
    decision_id: str | None,
    allow_stale: bool,
    model_version: str | int | None,
    alias: str | None,
    seed: int | None = None,
) -> dict[str, str | int]:
    """Return the parameters that were given; the server has the defaults of the others."""
    given: dict[str, str | int | None] = {
        "decision_id": decision_id,
        "allow_stale": int(allow_stale) or None,
        "model_version": model_version,
        "alias": alias,
        "seed": seed,
    }
    return {name: value for name, value in given.items() if value is not None}


def _predict(symbol: str, chosen: Mapping[str, str | int]) -> _Request:
    return _Request("GET", "/ml/predict", {"symbol": symbol, **chosen})


def _predict_deep(
    symbol: str, n_samples: int, shadow: bool, chosen: Mapping[str, str | int]
) -> _Request:
    asked = {"symbol": symbol, "n_samples": n_samples, "shadow": int(shadow), **chosen}
    return _Request("GET", "/ml/predict_deep", asked)


def _predict_ensemble(symbol: str) -> _Request:
    return _Request("GET", "/ml/predict_ensemble", {"symbol": symbol})


def _predict_many(
    kind: Kind, symbols: Sequence[str], decision_ids: Mapping[str, str] | None, n_samples: int
) -> _Request:
    if isinstance(symbols, str):  # a sequence too: of letters
        raise TradewindError(
            ErrorCode.BAD_INPUT, f"symbols = {symbols!r} is one text", f"Pass [{symbols!r}]"
        )
    body = {
        "kind": kind,
        "symbols": list(symbols),
        "decision_ids": dict(decision_ids) if decision_ids is not None else None,
        "n_samples": n_samples,
    }
    return _Request("POST", "/ml/predict_many", body=body, repeat_on=NOTHING_SENT)


def _checked(answer: _Answer) -> Any:
    """Return the JSON of a good answer; raise the server's error otherwise."""
    try:
        content = json.loads(answer.body)
    except ValueError as error:
        raise _not_understood(answer, "it is not JSON") from error
    if httpx.codes.is_success(answer.status):
        return content
    if not isinstance(content, dict) or not {"error", "detail", "hint"} <= content.keys():
        raise _not_understood(answer, "the error has no code, detail and hint")
    raise TradewindError(_code(content["error"]), str(content["detail"]), str(content["hint"]))


def _prediction(content: Any) -> Prediction:
    try:
        return Prediction.model_validate(content)
    except ValidationError as error:
        raise _foreign(error) from error


def _many(content: Any, symbols: Sequence[str]) -> dict[str, Prediction | ServingProblem]:
    try:
        answers = _ManyAnswer.model_validate(content)
    except ValidationError as error:
        raise _foreign(error) from error
    found: dict[str, Prediction | ServingProblem] = {}
    found |= {problem.symbol: problem for problem in answers.problems}
    found |= {prediction.symbol: prediction for prediction in answers.predictions}
    return {symbol: found.get(symbol) or _unanswered(symbol) for symbol in symbols}


class _ManyAnswer(BaseModel):
    predictions: tuple[Prediction, ...]
    problems: tuple[ServingProblem, ...] = ()


def _unanswered(symbol: str) -> ServingProblem:
    return ServingProblem(
        symbol=symbol,
        error=ErrorCode.INTERNAL.value,
        detail=f"serving's answer says nothing about {symbol}",
        hint="Look into serving's log; client and server may differ in version",
    )


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise TradewindError(
            ErrorCode.INTERNAL,
            f"serving's status is {type(content).__name__}, not an object",
            "Client and server may differ in version: restart both from one checkout",
        )
    return content


def _code(value: object) -> ErrorCode:
    """Return the server's code; one that this version does not know becomes ``internal``."""
    known = {code.value: code for code in ErrorCode}
    return known.get(str(value), ErrorCode.INTERNAL)


def _unreachable(config: _Config, error: httpx.RequestError) -> TradewindError:
    if isinstance(error, httpx.TimeoutException):
        what = f"did not answer within {config.timeout_s:g} s"
    else:
        what = f"does not answer ({error or type(error).__name__})"
    return TradewindError(
        ErrorCode.SERVING_UNREACHABLE,
        f"serving at {config.url} {what}",
        f"Start it with `{START_COMMAND}`, or correct TRADEWIND_SERVING__HOST and __PORT",
    )


def _not_understood(answer: _Answer, why: str) -> TradewindError:
    return TradewindError(
        ErrorCode.INTERNAL,
        f"{answer.url} answered HTTP {answer.status}, not understood: {why}",
        "Check that this address is Tradewind's serving, and look into its log",
    )


def _foreign(error: ValidationError) -> TradewindError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return TradewindError(
        ErrorCode.INTERNAL,
        f"serving's answer breaks the contract at {place!r}: {first['msg']}",
        "Client and server may differ in version: restart both from one checkout",
    )
