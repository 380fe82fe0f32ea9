"""The OpenAPI document: every call of serving, with its errors, so that a stranger can use it.

FastAPI describes the endpoints under ``/ml`` and knows nothing of our error contract, of the
settings' bounds, or of what BentoML answers at the root; all of it is brought together here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from serving.errors import STATUS
from serving.models import SERVED_ALIASES
from serving.openapi_examples import ERRORS, MANY, PREDICTIONS
from serving.pinned import MOST_DIGITS
from serving.questions import MAX_DECISION_ID
from serving.strict import LARGEST_SEED
from tradewind.errors import ErrorCode
from tradewind.features.definitions import DEEP
from tradewind.settings import Settings

Json = dict[str, Any]
REF: Final = "#/components/schemas/"
DECISION_ID: Final[Json] = {"type": "string", "pattern": f"^[ -~]{{0,{MAX_DECISION_ID}}}$"}
VERSION: Final[Json] = {
    "type": "string",
    "pattern": rf"^(tradewind\.[^/]+/)?[0-9]{{1,{MOST_DIGITS}}}$",
}
ALIAS: Final[Json] = {"type": "string", "enum": list(SERVED_ALIASES)}
FLAG: Final[Json] = {"enum": [True, False, 0, 1], "default": False}
REQUEST_ID: Final[Json] = {
    "description": "The caller's, where sound, else made here; every line of the log has it.",
    "schema": {"type": "string"},
}
DESCRIPTION = """\
Calibrated probabilities of a rise, with their uncertainty, from the champions of the registry.

Every refusal is `{error, detail, hint}`: `error` is a code to branch on, `detail` names the field
and its value, `hint` is the remedy. What is too much is refused with 429 or 503 and `Retry-After`.
A prediction changes nothing but the log of predictions, so it may be asked for again. Of
`model_version`, `alias` and `shadow=1` one request takes one. Times are Unix milliseconds (UTC),
returns are log returns over the horizon. More: docs/api.md in the repository.
"""
TAGS = (
    ("predictions", "One symbol a request."),
    ("many symbols", "Many symbols in one batched forward, or a caller's own window."),
    ("models", "What is registered and what is loaded."),
    ("operations", "For probes and for Prometheus."),
)
PREDICTION_ERRORS = (404, 409, 422, 429, 500, 503)
MANY_ERRORS = (413, 415, *PREDICTION_ERRORS)
STATUS_ERRORS = (429, 500, 503)


class ErrorBody(BaseModel):
    """Why there is no answer, and what to do about it."""

    error: str = Field(description="code to branch on")
    detail: str = Field(description="what is wrong, with the field and its value")
    hint: str = Field(description="what to do about it")


class ProblemBody(ErrorBody):
    """Why one symbol of a request for many has no prediction."""

    symbol: str


class BatchRequest(BaseModel):
    """Symbols to be predicted at once."""

    symbols: list[str]
    decision_ids: dict[str, str] | None = Field(None, description="by symbol; else derived")
    allow_stale: bool = Field(False, description="answer on late features, marked stale")


class SampledRequest(BatchRequest):
    """Symbols to be predicted at once, with a number of stochastic passes."""

    n_samples: int | None = Field(None, description="stochastic passes; the setting's if absent")


class DeepRequest(SampledRequest):
    """Symbols to be predicted at once by the transformer."""

    window: None = None
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED, description="of the passes")


class WindowRequest(BaseModel):
    """One symbol, whose model and volatility answer on the caller's own window."""

    symbols: list[str]
    window: list[list[float]] = Field(description=f"bars, oldest first, each of {', '.join(DEEP)}")
    n_samples: int | None = Field(None, description="stochastic passes; the setting's if absent")
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED, description="of the passes")


POSTS: Mapping[str, tuple[tuple[type[BaseModel], ...], str]] = {
    "/predict": ((BatchRequest,), "The boosted-tree champions' predictions for many symbols."),
    "/predict_deep": (
        (DeepRequest, WindowRequest),
        "The transformer champions' predictions for many symbols, or for a caller's own window.",
    ),
    "/predict_ensemble": ((SampledRequest,), "The ensembles' predictions for many symbols."),
}
PROBES: Mapping[str, tuple[str, str]] = {
    "/livez": ("Alive: the process answers.", ""),
    "/readyz": ("Ready: every champion that should be there is loaded.", ""),
    "/metrics": ("Metrics in Prometheus's text format.", "text/plain"),
    "/metrics/prom": ("The same as /metrics.", "text/plain"),
}


def document(api: FastAPI, settings: Settings, prefix: str) -> Json:
    """Return the document of everything that is served.

    Parameters
    ----------
    api
        The app under ``prefix``.
    settings
        Known symbols and bounds are written into the document.
    """
    made = get_openapi(
        title=api.title,
        version=api.version,
        summary="Predictions for trading symbols",
        description=DESCRIPTION,
        routes=api.routes,
        tags=[{"name": name, "description": text} for name, text in TAGS],
    )
    asked = [model for models, _ in POSTS.values() for model in models]
    models: list[type[BaseModel]] = [ErrorBody, ProblemBody, *asked]
    _, ours = models_json_schema(
        [(model, "validation") for model in models],
        ref_template=REF + "{model}",
    )
    schemas: Json = made["components"]["schemas"] | ours["$defs"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Symbol"] = {
        "type": "string",
        "title": "Symbol",
        "description": "Exchange id of a symbol that is traded here.",
        "enum": list(settings.market.symbols),
    }
    schemas[ErrorBody.__name__]["properties"]["error"]["enum"] = sorted(
        {*STATUS, ErrorCode.INTERNAL}
    )
    schemas["ManyAnswer"]["properties"]["problems"]["items"] = {"$ref": REF + ProblemBody.__name__}
    for name in ("ManyRequest", *(model.__name__ for model in asked)):
        _bound_body(schemas[name], settings)
    paths = {f"{prefix}{path}": item for path, item in made["paths"].items()}
    for path, method, operation in _operations(paths):
        _describe(operation, path, method, settings)
    paths |= {path: {"post": _post(path)} for path in POSTS}
    paths |= {path: {"get": _probe(path)} for path in PROBES}
    for _, _, operation in _operations(paths):
        for answer in operation["responses"].values():
            answer.setdefault("headers", {})["X-Request-ID"] = REQUEST_ID
    made["paths"] = dict(sorted(paths.items()))
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    made["servers"] = [{"url": "/"}]
    return made


def _operations(paths: Mapping[str, Json]) -> Iterator[tuple[str, str, Json]]:
    for path, item in paths.items():
        for method, operation in item.items():
            yield path, method, operation


def _describe(operation: Json, path: str, method: str, settings: Settings) -> None:
    """Bring what FastAPI says of an endpoint into the form of the whole."""
    name = path.rpartition("/ml/")[2]
    operation["operationId"] = name.replace("/", "_")
    operation["summary"] = operation.pop("description").partition("\n")[0]
    for parameter in operation.get("parameters", ()):
        _bound_parameter(parameter, settings)
    good = operation["responses"]["200"]
    if name.startswith("models/"):
        errors: tuple[int, ...] = STATUS_ERRORS
        operation["tags"] = ["models"]
        good["description"] = "The models, per symbol and alias."
    elif method == "post":
        errors = MANY_ERRORS
        operation["tags"] = ["many symbols"]
        good["description"] = "A prediction, or why there is none, for every symbol."
        good["content"]["application/json"]["example"] = MANY
    else:
        errors = PREDICTION_ERRORS
        operation["tags"] = ["predictions"]
        good["description"] = "The prediction for the last closed bar."
        good["content"]["application/json"]["example"] = PREDICTIONS[name]
    operation["responses"] = {"200": good, **_errors(errors)}


def _bound_parameter(parameter: Json, settings: Settings) -> None:
    """Write a query parameter's bounds, which are settings, into its schema."""
    schema, name = parameter["schema"], parameter["name"]
    if name == "symbol":
        parameter["schema"] = {"$ref": REF + "Symbol"}
        parameter["example"] = settings.market.symbols[0]
        return
    if name == "decision_id":
        parameter["schema"] = DECISION_ID
        return
    if schema.get("type") == "boolean":
        parameter["schema"] = FLAG
        return
    # Absent is not the word null: of "integer or null" a query knows the integer only.
    kept = next((item for item in schema.get("anyOf", ()) if item != {"type": "null"}), schema)
    kept = {"model_version": VERSION, "alias": ALIAS}.get(name, kept)
    if name == "n_samples":
        kept = kept | _samples(settings)
    parameter["schema"] = kept


def _bound_body(schema: Json, settings: Settings) -> None:
    fields = schema["properties"]
    fields["symbols"] |= {
        "minItems": 1,
        "maxItems": settings.serving.max_symbols,
        "items": {
            "description": "One that is not traded here is answered with a problem.",
            "anyOf": [{"$ref": REF + "Symbol"}, {"type": "string"}],
        },
        "examples": [list(settings.market.symbols[:2])],
    }
    if "decision_ids" in fields:
        fields["decision_ids"]["anyOf"][0]["additionalProperties"] = DECISION_ID
    if "n_samples" in fields:
        fields["n_samples"]["anyOf"][0] |= _samples(settings)
    if "items" in fields.get("window", ()):
        bars = settings.features.window
        fields["symbols"]["maxItems"] = 1
        fields["window"] |= {
            "minItems": bars,
            "maxItems": bars,
            "items": {
                "type": "array",
                "minItems": len(DEEP),
                "maxItems": len(DEEP),
                "items": {"type": "number", "minimum": -3.0e38, "maximum": 3.0e38},
            },
        }


def _samples(settings: Settings) -> Json:
    serving = settings.serving
    return {"minimum": 1, "maximum": serving.max_samples, "default": serving.n_samples}


def _post(path: str) -> Json:
    """Return the description of one of BentoML's own endpoints."""
    models, text = POSTS[path]
    forms = [{"$ref": REF + model.__name__} for model in models]
    schema: Json = forms[0] if len(forms) == 1 else {"anyOf": forms}
    content = {"application/json": {"schema": {"$ref": REF + "ManyAnswer"}, "example": MANY}}
    good = {"description": "A prediction, or why there is none, for every symbol."}
    return {
        "operationId": f"post{path.replace('/', '_')}",
        "summary": text,
        "tags": ["many symbols"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": good | {"content": content}, **_errors(MANY_ERRORS)},
    }


def _probe(path: str) -> Json:
    text, kind = PROBES[path]
    good: Json = {"description": text}
    if kind:
        good["content"] = {kind: {"schema": {"type": "string"}}}
    return {
        "operationId": path.strip("/").replace("/", "_"),
        "summary": text,
        "tags": ["operations"],
        "responses": {"200": good, **(_errors((503,)) if path == "/readyz" else {})},
    }


def _errors(statuses: tuple[int, ...]) -> Json:
    """Return the error answers of an endpoint, each with an example for every code."""
    found: Json = {}
    for status in sorted(statuses):
        examples = {
            code.value: {"value": {"error": code.value, **copy.copy(ERRORS[code])}}
            for code in ERRORS
            if status in _statuses(code)
        }
        found[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {
                "application/json": {
                    "schema": {"$ref": REF + ErrorBody.__name__},
                    "examples": examples,
                }
            },
        }
        if status in (429, 503):
            found[str(status)]["headers"] = {
                "Retry-After": {
                    "description": "Seconds to wait; sent with `overloaded` alone.",
                    "schema": {"type": "integer", "minimum": 1},
                    "required": status == HTTPStatus.TOO_MANY_REQUESTS,
                }
            }
    return found


def _statuses(code: ErrorCode) -> tuple[int, ...]:
    if code is ErrorCode.OVERLOADED:
        return (429, 503)
    if code is ErrorCode.BAD_INPUT:
        return (413, 415, 422)
    return (int(STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)),)
