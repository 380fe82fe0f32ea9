"""The BentoML service: each worker holds the models, one error contract stands around it.

Started by `serving.launch`, or by ``bentoml serve serving.service:Tradewind``; the worker
process reads its settings from the environment and from ``tradewind.toml``.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import bentoml
from pydantic import ValidationError
from starlette.routing import Route

from serving.bodies import JsonBodies
from serving.errors import ErrorContract, status_of
from serving.http import ICON, OPENAPI, PREFIX, SCRIPT, STYLE, api, ask_many, asks_of, passes
from serving.metrics import forget_dead_workers
from serving.paths import KnownPaths
from serving.places import HeavyPlaces
from serving.questions import Ask, Kind, Question, parse_window
from serving.request_log import RequestLog, configure_logging, failed
from serving.runtime import Runtime
from serving.strict import Flag, Seed, Whole
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.definitions import DEEP
from tradewind.settings import load_settings

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

SETTINGS = load_settings()
PARENT_CHECK_S = 1.0
BENTOML_ERRORS = "bentoml._internal.server.http_app"
"""The logger of what BentoML's own POST methods could not answer."""
PLACES = math.ceil(SETTINGS.serving.max_concurrency / SETTINGS.serving.workers)
"""Of one worker: BentoML divides them so."""
HEAVY_PLACES = max(1, int(SETTINGS.serving.heavy_share * PLACES))
PROBE_THREADS = 4
"""Beside a thread for each request that is let in: for readiness and metrics, which never wait."""


OTHER_NAMES = {"/metrics/prom": "/metrics", "/docs.json": f"{PREFIX}{OPENAPI}"}
"""Paths that answer as others do: BentoML's own page shows the document of the whole."""


def known_paths(bento_app: Starlette) -> set[str]:
    """Return every path that is served, none of which has a part that varies."""
    ours = {f"{PREFIX}{route.path}" for route in api.routes if isinstance(route, Route)}
    theirs = {route.path for route in bento_app.routes if isinstance(route, Route)}
    return (ours | theirs | {SCRIPT, STYLE, ICON}) - {"/"}


class CallersFault(logging.Filter):
    """Leaves out BentoML's tracebacks of input that does not fit: the caller is told, with 422."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is to be written."""
        return not (record.exc_info and isinstance(record.exc_info[1], ValidationError))


class OtherNames:
    """ASGI middleware: hands the paths of `OTHER_NAMES` on under their real names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request for an alias on under the real path."""
        if scope["type"] == "http" and scope["path"] in OTHER_NAMES:
            real = OTHER_NAMES[scope["path"]]
            scope = {**scope, "path": real, "raw_path": real.encode()}
        await self._app(scope, receive, send)


class ContractService(bentoml.Service[Any]):  # type: ignore[misc]  # bentoml is untyped
    """A BentoML service whose every error has our form, those of its traffic limits too.

    BentoML puts a service's own middlewares inside its limits, so that a 429 or 504 of
    theirs would pass by; hence around the finished app.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return BentoML's app inside the error contract."""
        app = super().to_asgi(is_main=is_main)
        app.add_exception_handler(TradewindError, api.exception_handlers[TradewindError])
        bodies = JsonBodies(app, SETTINGS.serving.max_body_bytes)
        heavy = HeavyPlaces(bodies, places=HEAVY_PLACES)
        contract = ErrorContract(
            KnownPaths(heavy, known=known_paths(app), front=f"{PREFIX}/docs"),
            retry_after_s=SETTINGS.serving.retry_after_s,
            refusal_pause_s=SETTINGS.serving.refusal_pause_s,
            on_error=_count_error,
        )
        return RequestLog(OtherNames(contract))


@bentoml.service(
    name="tradewind",
    service_class=ContractService,
    workers=SETTINGS.serving.workers,
    threads=SETTINGS.serving.threads,
    traffic={
        "timeout": SETTINGS.serving.timeout_s,
        "max_concurrency": SETTINGS.serving.max_concurrency,
    },
    http={"host": SETTINGS.serving.host, "port": SETTINGS.serving.port},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(api, path=PREFIX)
class Tradewind:
    """Predictions of the champions, for many symbols at once or a caller's own window."""

    def __init__(self) -> None:
        if bentoml.server_context.worker_index is not None:  # in a test others own the logging
            configure_logging(SETTINGS.serving.log_format)
            logging.getLogger(BENTOML_ERRORS).addFilter(CallersFault())
        forget_dead_workers()
        self.runtime = Runtime(SETTINGS)
        api.state.runtime = self.runtime
        self.runtime.start()
        _end_with_parent()

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def make_room(self) -> None:
        """Give every request that is let in a thread: those that wait would keep the others out."""
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = PLACES + PROBE_THREADS

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        """Flush the prediction log and stop the threads."""
        api.state.runtime = None
        self.runtime.stop()

    def __is_ready__(self) -> bool:
        """Tell BentoML's /readyz; what is missing is raised, and so named in its answer."""
        problem = self.runtime.not_ready()
        if problem is not None:
            expired = problem.code is ErrorCode.MODEL_EXPIRED
            code = problem.code if expired else ErrorCode.NO_CHAMPION
            raise TradewindError(code, problem.detail, problem.hint)
        workers, own = SETTINGS.serving.workers, int(bentoml.server_context.worker_index or 0)
        if own and workers > 1 and (ready := self.runtime.metrics.workers_ready()) < workers:
            raise TradewindError(
                ErrorCode.NO_CHAMPION,
                f"{ready} of {workers} workers have loaded every champion",
                "Wait some seconds; serving's log says what a worker waits for",
            )
        return True

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]
    def predict(
        self,
        ctx: bentoml.Context,
        symbols: list[str],
        decision_ids: dict[str, str] | None = None,
        allow_stale: Flag = False,
    ) -> dict[str, Any]:
        """Return the boosted-tree champions' predictions for ``symbols``."""
        return self._batch(ctx, Kind.LIGHTGBM, symbols, decision_ids, None, allow_stale)

    @bentoml.api(route="/predict_ensemble")  # type: ignore[untyped-decorator]
    def predict_ensemble(
        self,
        ctx: bentoml.Context,
        symbols: list[str],
        decision_ids: dict[str, str] | None = None,
        n_samples: Whole | None = None,
        allow_stale: Flag = False,
    ) -> dict[str, Any]:
        """Return the ensembles' predictions for ``symbols``, with every member's vote."""
        return self._batch(ctx, Kind.ENSEMBLE, symbols, decision_ids, n_samples, allow_stale)

    @bentoml.api(route="/predict_deep")  # type: ignore[untyped-decorator]
    def predict_deep(
        self,
        ctx: bentoml.Context,
        symbols: list[str],
        window: list[list[float]] | None = None,
        decision_ids: dict[str, str] | None = None,
        n_samples: Whole | None = None,
        allow_stale: Flag = False,
        seed: Seed | None = None,
    ) -> dict[str, Any]:
        """Return the transformer champions' predictions for ``symbols``.

        With ``window`` (128 bars × 10 deep features, oldest first) exactly one symbol is
        named: the one whose model and volatility are to be used.
        """
        if window is None:
            return self._batch(
                ctx, Kind.DEEP, symbols, decision_ids, n_samples, allow_stale, seed=seed
            )
        return _answered(ctx, lambda: self._own_window(symbols, window, n_samples, seed))

    def _batch(
        self,
        ctx: bentoml.Context,
        kind: Kind,
        symbols: list[str],
        decision_ids: dict[str, str] | None,
        n_samples: int | None,
        allow_stale: bool,
        *,
        seed: int | None = None,
    ) -> dict[str, Any]:
        def answer() -> dict[str, Any]:
            asks = asks_of(self.runtime, symbols, decision_ids, seed=seed)
            question = Question(
                kind,
                passes(self.runtime, n_samples),
                allow_stale=allow_stale,
                endpoint=f"post_{kind.value}",
            )
            return self._ask(question, asks)

        return _answered(ctx, answer)

    def _own_window(
        self,
        symbols: list[str],
        window: list[list[float]],
        n_samples: int | None,
        seed: int | None,
    ) -> dict[str, Any]:
        if len(symbols) != 1:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"window is for one symbol, symbols names {len(symbols)}",
                "Send one request a window",
            )
        asks = asks_of(self.runtime, symbols, None, seed=seed)
        array = parse_window(window, SETTINGS.features.window, len(DEEP))
        question = Question(
            Kind.DEEP,
            passes(self.runtime, n_samples),
            allow_stale=True,  # the caller's bars count here; how late ours are is in the answer
            endpoint="post_window",
        )
        return self._ask(question, [replace(asks[0], window=array)])

    def _ask(self, question: Question, asks: list[Ask]) -> dict[str, Any]:
        """Return the answers; what is wrong with the only symbol asked about is raised."""
        if len(asks) > 1:
            return ask_many(self.runtime, question, asks)
        with self.runtime.metrics.stage(question.endpoint, "total"):
            prediction = self.runtime.predictor.ask_one(question, asks[0])
        return {"predictions": [prediction.model_dump(mode="json")], "problems": []}


def _answered(ctx: bentoml.Context, answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the answer, or the body of the error with its status.

    BentoML turns whatever a method raises into a body of its own.
    """
    try:
        return answer()
    except TradewindError as error:
        ctx.response.status_code = status_of(error)
        return error.body()


def _count_error(kind: str, path: str) -> None:
    failed(kind)
    runtime = getattr(api.state, "runtime", None)
    if runtime is not None and path != "/readyz":  # a probe's answer is not a failure
        runtime.metrics.refused(kind)


def _end_with_parent() -> None:
    """End this worker when its supervisor was killed, or it would hold the port for ever."""
    if bentoml.server_context.worker_index is None:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
