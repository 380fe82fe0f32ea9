"""The OpenAPI document: complete, its examples true, and a server that keeps to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving import openapi
from serving.errors import STATUS
from serving.http import PREFIX, ManyAnswer, api
from serving.openapi_examples import ERRORS, MANY, PREDICTIONS
from tests.support.server import free_port
from tests.support.server_process import REPOSITORY, running
from tests.support.serving import World, world_settings
from tradewind.contracts import Prediction
from tradewind.errors import ErrorCode
from tradewind.models.bundle import ModelBundle
from tradewind.settings import Settings

METHODS = {"get", "post"}
CASES = 15
"""Of each operation, beside those that follow from the bounds of its parameters."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return world_settings(tmp_path, serving={"max_samples": 50, "max_symbols": 7})


@pytest.fixture
def document(settings: Settings) -> dict[str, Any]:
    return openapi.document(api, settings, PREFIX)


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_every_call_of_the_docs_is_described(document: dict[str, Any]) -> None:
    named = {name for name, _ in operations(document)}
    text = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    table = text.partition("| call |")[2].partition("\n\n")[0]
    documented = set()
    for row in table.splitlines():
        cell = row.split("|")[1] if row.startswith("|") else ""
        method = "GET"
        for word in re.findall(r"`([^`]+)`", cell):
            if word.split()[0] in ("GET", "POST"):
                method = word.split()[0]
            documented.add(f"{method} {word.split()[-1].partition('?')[0]}")
    assert documented == named


def test_operations_can_be_told_apart_and_explain_themselves(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"] for tag in document["tags"]}
    for name, operation in operations(document):
        assert operation["summary"].endswith("."), name
        assert set(operation["tags"]) <= tags, name
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (name, parameter["name"])


def test_every_refusal_has_the_one_form_and_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) < 400:
                continue
            body = answer["content"]["application/json"]
            assert body["schema"] == {"$ref": "#/components/schemas/ErrorBody"}, name
            assert body["examples"], (name, status)
            for code, example in body["examples"].items():
                openapi.ErrorBody.model_validate(example["value"])
                assert example["value"]["error"] == code
        if "predict" in name:
            answers = operation["responses"]
            assert {"404", "409", "422", "429", "500", "503"} <= set(answers)
            assert answers["429"]["headers"]["Retry-After"]["required"] is True
            assert "Retry-After" in answers["503"]["headers"]


def test_the_examples_are_what_the_contracts_say() -> None:
    for name, example in PREDICTIONS.items():
        assert set(Prediction.model_validate(example).model_dump()) == set(example), name
    ManyAnswer.model_validate(MANY)
    assert set(ERRORS) <= {*STATUS, ErrorCode.INTERNAL}


def test_bounds_are_the_settings(document: dict[str, Any], settings: Settings) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["Symbol"]["enum"] == list(settings.market.symbols)
    get = document["paths"]["/ml/predict_deep"]["get"]["parameters"]
    (samples,) = (item["schema"] for item in get if item["name"] == "n_samples")
    assert (samples["minimum"], samples["maximum"]) == (1, 50)
    window = schemas["WindowRequest"]["properties"]["window"]
    assert (window["minItems"], window["maxItems"]) == (settings.features.window,) * 2
    for name in ("ManyRequest", "BatchRequest", "SampledRequest", "DeepRequest"):
        assert schemas[name]["properties"]["symbols"]["maxItems"] == 7


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [item for value in node.values() for item in references(value)]
        return (
            [item for value in node for item in references(value)] if isinstance(node, list) else []
        )

    schemas = document["components"]["schemas"]
    found = {item.rpartition("/")[2] for item in references(document)}
    assert found <= set(schemas)
    assert set(schemas) - found == set()


@pytest.mark.slow
@pytest.mark.timeout(420)  # its start and its run have limits of their own
def test_schemathesis_finds_nothing(
    make_world: Callable[..., World], bundles: dict[str, ModelBundle], tmp_path: Path
) -> None:
    world = make_world(
        market={
            "symbols": ("BTCUSDT", "ETHUSDT"),
            "reference_symbols": ("BTCUSDT", "ETHUSDT", "SOLUSDT"),
        },
        serving={"port": free_port(), "poll_s": 0.5, "flush_s": 0.2, "max_samples": 50},
    )
    for name in ("btc", "eth", "deep"):
        world.point(world.register(bundles[name]))
    world.point(world.register(bundles["deep2"]), "challenger")
    with running(world, tmp_path / "output.txt") as server:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from schemathesis.cli import schemathesis; schemathesis()",
                "run",
                f"{server.url}{PREFIX}/openapi.json",
                "--seed",
                "7",
                "-n",
                str(CASES),
                "--phases",
                "examples,coverage,fuzzing",
                "--no-shrink",
                "--continue-on-failure",
                "--request-timeout",
                "30",
            ],
            cwd=tmp_path,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
                "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
            },
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        generated = re.search(r"(\d+) generated", done.stdout)
        assert generated is not None
        assert int(generated[1]) > 300, done.stdout
    assert '"internal"' not in server.output.read_text(encoding="utf-8")
