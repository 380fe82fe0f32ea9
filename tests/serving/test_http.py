"""Every endpoint and every error over real HTTP, from one app for the whole session."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.server import run_app
from tests.support.serving import NOW_MS, STEP_MS, World
from tradewind.client import ServingClient, ServingProblem
from tradewind.contracts import Prediction
from tradewind.errors import TradewindError
from tradewind.features.definitions import DEEP
from tradewind.models.bundle import ModelBundle

Bundles = dict[str, ModelBundle]
WINDOW = 16
LIMIT, HEAVY = 8, 6
"""Places in the app of these tests, and those of them that deep requests may take."""


@dataclass
class Served:
    """The running app, its world, and a client."""

    world: World
    url: str
    http: httpx.Client
    service: Any

    @property
    def runtime(self) -> Any:
        return self.service.api.state.runtime

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.http.get(path, params=params)


@pytest.fixture(scope="module")
def served(
    make_world: Callable[..., World], bundles: Bundles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    world = make_world(
        serving={"poll_s": 0.2, "flush_s": 0.1, "gauges_s": 0.2, "max_concurrency": LIMIT}
    )
    world.point(world.register(bundles["btc"]))
    world.point(world.register(bundles["deep"]))
    with (
        run_app(world.settings) as (service, url),
        httpx.Client(base_url=url, trust_env=False) as http,
    ):
        deadline = time.monotonic() + 30
        while http.get("/readyz").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        yield Served(world, url, http, service)


def refused(answer: httpx.Response, status: int, error: str) -> dict[str, str]:
    """Check that an answer is an error of the contract, and return its body."""
    assert answer.status_code == status, answer.text
    body: dict[str, str] = answer.json()
    assert set(body) == {"error", "detail", "hint"}
    assert body["error"] == error
    assert all(body.values())
    assert "Traceback" not in answer.text
    return body


def test_readyz_and_livez(served: Served) -> None:
    assert served.get("/readyz").status_code == 200
    assert served.get("/livez").status_code == 200


@pytest.mark.parametrize(
    ("path", "model_type"),
    [
        ("/ml/predict", "lightgbm"),
        ("/ml/predict_deep", "deep_transformer"),
        ("/ml/predict_ensemble", "ensemble"),
    ],
)
def test_get_endpoints_answer_with_a_prediction(served: Served, path: str, model_type: str) -> None:
    answer = served.get(path, symbol="BTCUSDT")
    assert answer.status_code == 200
    found = Prediction.model_validate(answer.json())
    assert (found.symbol, found.model_type) == ("BTCUSDT", model_type)


def test_the_typed_client_understands_the_answers(served: Served) -> None:
    with ServingClient(served.url) as client:
        assert client.ready()
        assert client.predict("BTCUSDT").model_type == "lightgbm"
        assert client.predict_deep("ETHUSDT", n_samples=3).mc_samples == 3
        many = client.predict_ensemble_many(["BTCUSDT", "NOPE"], decision_ids={"BTCUSDT": "d-1"})
        with pytest.raises(TradewindError, match="no_challenger"):
            client.predict_deep("BTCUSDT", shadow=True)
        assert client.status()["ready"]
    assert isinstance(many["NOPE"], ServingProblem)
    assert many["NOPE"].error == "unknown_symbol"
    btc = many["BTCUSDT"]
    assert isinstance(btc, Prediction)
    assert btc.decision_id == "d-1"


def test_bentoml_s_own_forms_answer_many_symbols(served: Served) -> None:
    for path in ("/predict", "/predict_deep", "/predict_ensemble"):
        answer = served.http.post(path, json={"symbols": ["BTCUSDT", "XRPUSDT"]})
        assert answer.status_code == 200, answer.text
        content = answer.json()
        assert [item["symbol"] for item in content["predictions"]] == ["BTCUSDT"]
        assert [item["symbol"] for item in content["problems"]] == ["XRPUSDT"]


def test_a_caller_s_own_window(served: Served) -> None:
    window = [[0.01 * j for j in range(len(DEEP))] for _ in range(WINDOW)]
    body = {"symbols": ["BTCUSDT"], "window": window, "n_samples": 5}
    answer = served.http.post("/predict_deep", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()["predictions"][0]
    assert found["features_fingerprint"].startswith("window-")


def test_an_unknown_symbol(served: Served) -> None:
    body = refused(served.get("/ml/predict", symbol="btcusdt"), 404, "unknown_symbol")
    assert "BTCUSDT" in body["hint"]
    refused(served.http.post("/predict", json={"symbols": ["NOPE"]}), 404, "unknown_symbol")


@pytest.mark.parametrize("n_samples", ["0", "1001", "-5", "many", "1.5"])
def test_a_wrong_number_of_passes(served: Served, n_samples: str) -> None:
    answer = served.get("/ml/predict_deep", symbol="BTCUSDT", n_samples=n_samples)
    body = refused(answer, 422, "bad_input")
    assert "n_samples" in body["detail"]
    assert n_samples in body["detail"]


@pytest.mark.parametrize("n_samples", [0, 1001, "many"])
def test_a_wrong_number_of_passes_by_post(served: Served, n_samples: Any) -> None:
    body = {"symbols": ["BTCUSDT"], "n_samples": n_samples}
    for path in ("/predict_deep", "/ml/predict_many"):
        found = refused(served.http.post(path, json=body), 422, "bad_input")
        assert "n_samples" in found["detail"]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_window_with_nan_or_inf(served: Served, text: str) -> None:
    row = "[" + ",".join(["0"] * (len(DEEP) - 1) + [text]) + "]"
    content = f'{{"symbols": ["BTCUSDT"], "window": [{",".join([row] * WINDOW)}]}}'
    body = refused(served.http.post("/predict_deep", content=content), 422, "bad_input")
    assert "window[0][9]" in body["detail"]


@pytest.mark.parametrize(
    "window", [[], [[]], [[0.0] * 10] * 15, [[0.0] * 9] * 16, "text", [[None] * 10] * 16]
)
def test_a_window_of_the_wrong_shape(served: Served, window: Any) -> None:
    body = {"symbols": ["BTCUSDT"], "window": window}
    refused(served.http.post("/predict_deep", json=body), 422, "bad_input")


def test_a_window_for_two_symbols(served: Served) -> None:
    body = {"symbols": ["BTCUSDT", "ETHUSDT"], "window": [[0.0] * 10] * WINDOW}
    found = refused(served.http.post("/predict_deep", json=body), 422, "bad_input")
    assert "one symbol" in found["detail"]


def test_too_few_bars(served: Served) -> None:
    body = refused(served.get("/ml/predict_deep", symbol="XRPUSDT"), 409, "not_enough_bars")
    assert "more 15m bars are missing" in body["detail"]
    assert "ingest" in body["hint"]


def test_no_champion(served: Served) -> None:
    body = refused(served.get("/ml/predict", symbol="ETHUSDT"), 503, "no_champion")
    assert "retrain" in body["hint"]


def test_no_challenger(served: Served) -> None:
    answer = served.get("/ml/predict_deep", symbol="BTCUSDT", shadow=1)
    assert "shadow=1" in refused(answer, 404, "no_challenger")["hint"]


def test_late_features(served: Served) -> None:
    clock = served.runtime.clock
    clock.set(NOW_MS + 3 * STEP_MS)
    try:
        late = served.get("/ml/predict", symbol="BTCUSDT")
        allowed = served.get("/ml/predict", symbol="BTCUSDT", allow_stale=1)
    finally:
        clock.set(NOW_MS)
    body = refused(late, 503, "stale_features")
    assert "1800 s late" in body["detail"]
    assert "retry-after" not in late.headers
    assert allowed.json()["stale"] is True


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/ml/predict", None, 422),
        ("GET", "/ml/nothing", None, 404),
        ("GET", "/nothing", None, 404),
        ("DELETE", "/ml/predict", None, 405),
        ("GET", "/predict", None, 405),
        ("POST", "/predict", "{broken", 422),
        ("POST", "/predict", '{"symbols": "BTCUSDT"}', 422),
        ("POST", "/predict", '{"symbols": []}', 422),
        ("POST", "/predict", "[]", 422),
        ("POST", "/ml/predict_many", "{broken", 422),
        ("POST", "/ml/predict_many", '{"symbols": []}', 422),
        ("POST", "/ml/predict_many", '{"symbols": ["BTCUSDT"], "kind": "oracle"}', 422),
        ("POST", "/ml/predict_many", '{"symbols": ["BTCUSDT"], "surprise": 1}', 422),
    ],
)
def test_whatever_cannot_be_read_has_the_same_form(
    served: Served, method: str, path: str, content: str | None, status: int
) -> None:
    headers = {"content-type": "application/json"}
    answer = served.http.request(method, path, content=content, headers=headers)
    refused(answer, status, "bad_input")


@contextlib.contextmanager
def held(served: Served, family: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Hold every forward of a family's model until the end."""
    batcher = served.runtime.table.snapshot.resolve(family, "BTCUSDT").batcher
    forward, go = batcher._forward, threading.Event()

    def late(rows: Any, passes: int) -> Any:
        go.wait(20)
        return forward(rows, passes)

    with monkeypatch.context() as patch:
        patch.setattr(batcher, "_forward", late)
        try:
            yield batcher
        finally:
            go.set()


def ask_at_once(pool: ThreadPoolExecutor, url: str, count: int) -> list[Future[httpx.Response]]:
    start = threading.Barrier(count)

    def ask(_: int) -> httpx.Response:
        start.wait()
        return httpx.get(url, trust_env=False, timeout=30)

    return [pool.submit(ask, number) for number in range(count)]


def first_done(pending: list[Future[httpx.Response]], count: int) -> list[httpx.Response]:
    deadline = time.monotonic() + 20
    while sum(item.done() for item in pending) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return [item.result() for item in pending if item.done()]


@pytest.mark.parametrize(
    ("path", "family", "places"),
    [("predict", "lightgbm", LIMIT), ("predict_deep", "transformer", HEAVY)],
)
def test_an_overload_is_refused_at_once_and_says_when_to_come_back(
    served: Served, monkeypatch: pytest.MonkeyPatch, path: str, family: str, places: int
) -> None:
    url = f"{served.url}/ml/{path}?symbol=BTCUSDT"
    with ThreadPoolExecutor(places + 12) as pool:
        with held(served, family, monkeypatch):
            pending = ask_at_once(pool, url, places + 12)
            early = first_done(pending, 12)
            assert len(early) == 12, "the others wait for the model"
            for answer in early:
                refused(answer, 429, "overloaded")
                assert int(answer.headers["retry-after"]) >= 1
        late = [item.result() for item in pending]
    assert sorted(answer.status_code for answer in late) == [200] * places + [429] * 12


def test_waiting_deep_requests_leave_the_others_a_place(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{served.url}/ml/predict_deep?symbol=BTCUSDT"
    with ThreadPoolExecutor(HEAVY + 3) as pool:
        with held(served, "transformer", monkeypatch):
            pending = ask_at_once(pool, url, HEAVY + 3)
            assert len(first_done(pending, 3)) == 3
            for path in ("/livez", "/readyz", "/metrics", "/metrics/prom", "/ml/models/status"):
                assert served.get(path).status_code == 200, path
            assert served.get("/ml/predict", symbol="BTCUSDT").status_code == 200
            refused(served.http.post("/predict_deep", json={"symbols": ["X"]}), 429, "overloaded")
        late = [item.result() for item in pending]
    assert sorted(answer.status_code for answer in late) == [200] * HEAVY + [429] * 3


def test_a_turn_that_does_not_come_is_a_refusal(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{served.url}/ml/predict_deep?symbol=BTCUSDT"
    with ThreadPoolExecutor(3) as pool:
        with held(served, "transformer", monkeypatch) as batcher:
            monkeypatch.setattr(batcher, "_max_wait_s", 0.1)
            pending = ask_at_once(pool, url, 3)
            early = first_done(pending, 2)
            assert len(early) == 2
            for answer in early:
                assert "max_wait_s" in refused(answer, 503, "overloaded")["detail"]
                assert int(answer.headers["retry-after"]) >= 1
        late = [item.result() for item in pending]
    assert sorted(answer.status_code for answer in late) == [200, 503, 503]


def test_status_shows_what_is_loaded(served: Served) -> None:
    content = served.get("/ml/models/status").json()
    assert content["ready"] is True
    entries = {(item["symbol"], item["family"]): item for item in content["models"]}
    btc = entries["BTCUSDT", "lightgbm"]
    assert btc["model_version"] == "tradewind.lightgbm.BTCUSDT/1"
    assert (btc["loaded"], btc["gates"], btc["calibration"]) == (True, "passed", "identity")
    assert btc["age_days"] == pytest.approx(2)
    assert btc["too_old"] is False
    assert btc["run_id"]
    assert btc["last_swap_ms"] > 0
    deep = served.get("/ml/models/deep/status").json()
    assert {item["family"] for item in deep["models"]} == {"transformer"}
    assert {item["symbol"] for item in deep["models"]} == {"BTCUSDT", "ETHUSDT", "XRPUSDT"}


def test_answers_reach_the_ledger(served: Served) -> None:
    decision = "a-decision-of-its-own"
    served.get("/ml/predict", symbol="BTCUSDT", decision_id=decision)
    deadline = time.monotonic() + 5
    rows = served.runtime.ledger.predictions(decision_id=decision)
    while rows.is_empty() and time.monotonic() < deadline:
        time.sleep(0.05)
        rows = served.runtime.ledger.predictions(decision_id=decision)
    assert rows["role"].to_list() == ["champion"]


def test_an_unexpected_failure_shows_no_trace(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(served.runtime.predictor, "ask", fail)
    for answer in (
        served.get("/ml/predict", symbol="BTCUSDT"),
        served.http.post("/predict", json={"symbols": ["BTCUSDT"]}),
    ):
        refused(answer, 500, "internal")
        assert "secret" not in answer.text


def test_json_of_the_openapi_document(served: Served) -> None:
    document = json.loads(served.get("/ml/openapi.json").text)
    assert "/ml/predict_many" in document["paths"]
    assert served.get("/docs.json").json() == document


def test_a_version_chosen_by_the_caller(served: Served) -> None:
    usual = served.get("/ml/predict", symbol="BTCUSDT").json()
    name = usual["model_version"]
    for params in ({"model_version": name}, {"model_version": "1"}, {"alias": "champion"}):
        found = served.get("/ml/predict", symbol="BTCUSDT", **params).json()
        assert found["served_by"] == params.get("alias", "pinned")
        assert (found["p_up"], found["model_version"]) == (usual["p_up"], name)
    deep = served.get("/ml/predict_deep", symbol="BTCUSDT", model_version="1", n_samples=3)
    assert deep.json()["served_by"] == "pinned"


@pytest.mark.parametrize("path", ["/ml/predict", "/ml/predict_deep"])
def test_a_version_that_cannot_be_chosen(served: Served, path: str) -> None:
    body = refused(served.get(path, symbol="BTCUSDT", model_version="77"), 404, "unknown_version")
    assert body["hint"].startswith("Its versions: ")
    refused(served.get(path, symbol="BTCUSDT", alias="canary"), 404, "unknown_version")
    refused(served.get(path, symbol="BTCUSDT", alias="best"), 422, "bad_input")
    refused(served.get(path, symbol="BTCUSDT", alias="champion", model_version=1), 422, "bad_input")


@pytest.mark.parametrize("given", ["x" * 37, "a\x00b", "a\nb"])
def test_a_decision_id_that_the_ledger_cannot_hold(served: Served, given: str) -> None:
    answer = served.get("/ml/predict", symbol="BTCUSDT", decision_id=given)
    assert "decision_id" in refused(answer, 422, "bad_input")["detail"]
    body = {"kind": "lightgbm", "symbols": ["BTCUSDT"], "decision_ids": {"BTCUSDT": given}}
    refused(served.http.post("/ml/predict_many", json=body), 422, "bad_input")
    del body["kind"]
    refused(served.http.post("/predict", json=body), 422, "bad_input")


def test_the_choice_of_a_version_is_documented(served: Served) -> None:
    paths = served.get("/ml/openapi.json").json()["paths"]
    for path in ("/ml/predict", "/ml/predict_deep"):
        names = {item["name"] for item in paths[path]["get"]["parameters"]}
        assert {"model_version", "alias"} <= names
