"""The GET endpoints under ``/ml`` and the engine's many-symbol request: a FastAPI app.

The app exists when this module is imported; the running service puts its `Runtime` into
``api.state.runtime``. Handlers are plain functions, run in FastAPI's threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from serving import openapi, status
from serving.errors import bad_input, status_of
from serving.models import CHALLENGER, CHAMPION
from serving.pinned import parse_pin
from serving.questions import Ask, Kind, Question, check_decision_id, check_samples
from serving.runtime import Runtime
from serving.strict import LARGEST_SEED, Flag, Whole
from tradewind import __version__
from tradewind.contracts import Prediction
from tradewind.errors import ErrorCode, TradewindError

PREFIX = "/ml"
OPENAPI = "/openapi.json"
ASSETS = "/static_content"
"""Where BentoML serves the files of its own Swagger page."""
SCRIPT = f"{ASSETS}/swagger-ui-bundle.js"
STYLE = f"{ASSETS}/swagger-ui.css"
ICON = f"{ASSETS}/favicon-light-32x32.png"
SHOWN_CHARACTERS = 40


async def known_parameters(request: Request) -> None:
    """Refuse a parameter that the endpoint does not take, or one given twice.

    Left aside, it would have another version answer than the caller believes.
    """
    route = request.scope["route"]
    known = [field.alias for field in route.dependant.query_params]
    given = [name for name, _ in request.query_params.multi_items()]
    for name in dict.fromkeys(given):
        if name not in known or given.count(name) > 1:
            why = "is given more than once" if name in known else "is not taken here"
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"parameter {name[:SHOWN_CHARACTERS]!r} {why}",
                f"Parameters of {route.path}: {', '.join(known) or 'none'}",
            )


# FastAPI's own documentation pages load their scripts from a public CDN: `docs` below does not.
api = FastAPI(
    title="Tradewind serving",
    version=__version__,
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
    dependencies=[Depends(known_parameters)],
)


@api.get("/docs", include_in_schema=False)
def docs() -> HTMLResponse:
    """Return the page on which a person tries the endpoints; works without a network."""
    return get_swagger_ui_html(
        openapi_url=f"{PREFIX}{OPENAPI}",
        title=api.title,
        swagger_js_url=SCRIPT,
        swagger_css_url=STYLE,
        swagger_favicon_url=ICON,
    )


class ManyRequest(BaseModel):
    """The engine's request: one kind of prediction for many symbols."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind = Kind.ENSEMBLE
    symbols: list[str]
    decision_ids: dict[str, str] | None = None
    n_samples: Whole | None = None
    allow_stale: Flag = False


class ManyAnswer(BaseModel):
    """Predictions, and for every other symbol why there is none."""

    predictions: list[Prediction]
    problems: list[dict[str, str]]


async def running(request: Request) -> Runtime:
    """Return the runtime that the service has put into the app.

    A coroutine although it waits for nothing: FastAPI hands a plain function to a thread.
    """
    runtime = getattr(request.app.state, "runtime", None)
    if not isinstance(runtime, Runtime):
        raise TradewindError(
            ErrorCode.OVERLOADED, "serving is starting or stopping", "Ask again in a second"
        )
    return runtime


Running = Annotated[Runtime, Depends(running)]
Symbol = Annotated[str, Query(description="exchange id, e.g. BTCUSDT")]
DecisionId = Annotated[str | None, Query(description="derived from symbol and bar if absent")]
Samples = Annotated[int | None, Query(description="stochastic passes, 1..1000; default 20")]
Shadow = Annotated[bool, Query(description="1: the challenger answers")]
ModelVersion = Annotated[
    str | None,
    Query(description="this version answers: a number, or tradewind.FAMILY.KEY/N; not logged"),
]
Alias = Annotated[
    str | None,
    Query(description="champion, challenger or canary: its version answers; not logged"),
]
AllowStale = Annotated[bool, Query(description="1: answer on late features, marked stale")]
Seed = Annotated[int | None, Query(ge=0, le=LARGEST_SEED, description="of the passes")]


@api.exception_handler(TradewindError)
def refuse(request: Request, error: TradewindError) -> JSONResponse:
    """Answer an expected failure with its body and status."""
    return JSONResponse(error.body(), status_code=status_of(error))


@api.exception_handler(RequestValidationError)
def refuse_input(request: Request, error: RequestValidationError) -> JSONResponse:
    """Answer input of the wrong form; FastAPI's own answer fails where it cannot be JSON."""
    return JSONResponse(
        bad_input({"detail": error.errors()}), status_code=HTTPStatus.UNPROCESSABLE_ENTITY
    )


@api.get(OPENAPI, include_in_schema=False)
def openapi_document(runtime: Running) -> dict[str, Any]:
    """Return the OpenAPI document of everything that is served, with the settings' bounds."""
    return openapi.document(api, runtime.settings, PREFIX)


@api.get("/predict", response_model=Prediction)
def predict(
    runtime: Running,
    symbol: Symbol,
    decision_id: DecisionId = None,
    allow_stale: AllowStale = False,
    model_version: ModelVersion = None,
    alias: Alias = None,
) -> Response:
    """Return the boosted-tree champion's (or the chosen version's) prediction."""
    question = Question(
        Kind.LIGHTGBM,
        passes(runtime, None),
        allow_stale=allow_stale,
        endpoint="predict",
        pin=parse_pin(model_version, alias),
    )
    return _one(runtime, question, Ask(symbol, decision_id))


@api.get("/predict_deep", response_model=Prediction)
def predict_deep(
    runtime: Running,
    symbol: Symbol,
    n_samples: Samples = None,
    shadow: Shadow = False,
    decision_id: DecisionId = None,
    allow_stale: AllowStale = False,
    seed: Seed = None,
    model_version: ModelVersion = None,
    alias: Alias = None,
) -> Response:
    """Return the transformer champion's (with shadow=1 the challenger's) prediction.

    With ``model_version`` or ``alias`` the chosen version's.
    """
    question = Question(
        Kind.DEEP,
        passes(runtime, n_samples),
        alias=CHALLENGER if shadow else CHAMPION,
        allow_stale=allow_stale,
        endpoint="predict_deep",
        pin=parse_pin(model_version, alias, shadow=shadow),
    )
    return _one(runtime, question, Ask(symbol, decision_id, seed=seed))


@api.get("/predict_ensemble", response_model=Prediction)
def predict_ensemble(
    runtime: Running,
    symbol: Symbol,
    decision_id: DecisionId = None,
    n_samples: Samples = None,
    allow_stale: AllowStale = False,
) -> Response:
    """Return the ensemble's prediction with every member's vote, weight and version."""
    question = Question(
        Kind.ENSEMBLE,
        passes(runtime, n_samples),
        allow_stale=allow_stale,
        endpoint="predict_ensemble",
    )
    return _one(runtime, question, Ask(symbol, decision_id))


@api.post("/predict_many", response_model=ManyAnswer)
def predict_many(runtime: Running, body: ManyRequest) -> Response:
    """Return predictions for many symbols, one batched forward a model."""
    question = Question(
        body.kind,
        passes(runtime, body.n_samples),
        allow_stale=body.allow_stale,
        endpoint="predict_many",
    )
    return JSONResponse(
        ask_many(runtime, question, asks_of(runtime, body.symbols, body.decision_ids))
    )


@api.get("/models/status")
def models_status(runtime: Running) -> dict[str, Any]:
    """Return per symbol and alias what is registered and what is loaded."""
    return status.of(runtime)


@api.get("/models/deep/status")
def deep_models_status(runtime: Running) -> dict[str, Any]:
    """Return the same for the transformer alone."""
    return status.of(runtime, families=("transformer",))


def asks_of(
    runtime: Runtime,
    symbols: Sequence[str],
    decision_ids: Mapping[str, str] | None,
    *,
    seed: int | None = None,
) -> list[Ask]:
    """Return one ask for each different symbol of a request.

    Raises
    ------
    TradewindError
        ``bad_input`` for no symbol, more than one request may ask for, or a decision id that
        cannot be logged.
    """
    limit = runtime.settings.serving.max_symbols
    different = list(dict.fromkeys(symbols))
    if not 1 <= len(symbols) <= limit:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"symbols has {len(symbols)} entries, not 1..{limit}",
            "Name at least one symbol; split a longer request",
        )
    given = decision_ids or {}
    for text in given.values():
        check_decision_id(text)
    return [Ask(symbol, given.get(symbol), seed=seed) for symbol in different]


def ask_many(runtime: Runtime, question: Question, asks: list[Ask]) -> dict[str, Any]:
    """Return ``{"predictions": […], "problems": […]}``, ready for JSON."""
    with runtime.metrics.stage(question.endpoint, "total"):
        answers = runtime.predictor.ask(question, asks)
    predictions = [item for item in answers if isinstance(item, Prediction)]
    problems = [item for item in answers if not isinstance(item, Prediction)]
    for problem in problems:
        runtime.metrics.refused(problem.error.code.value)
    return {
        "predictions": [item.model_dump(mode="json") for item in predictions],
        "problems": [item.body() for item in problems],
    }


def _one(runtime: Runtime, question: Question, ask: Ask) -> Response:
    with runtime.metrics.stage(question.endpoint, "total"):
        prediction = runtime.predictor.ask_one(question, ask)
    return Response(prediction.model_dump_json(), media_type="application/json")


def passes(runtime: Runtime, given: int | None) -> int:
    """Return the number of stochastic passes asked for, or the setting's; 1..max_samples."""
    serving = runtime.settings.serving
    return check_samples(serving.n_samples if given is None else given, serving.max_samples)
