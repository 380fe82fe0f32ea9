"""Every refusal of the specification, provoked over HTTP in a real server process.

What needs the inside of the app (a failure that nobody expected) is in test_http.py.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server import free_port
from tests.support.server_process import running, wait_until
from tests.support.serving import NOW_MS, STEP_MS, World, reseeded, unloadable
from tradewind.features.definitions import DEEP
from tradewind.ledger import open_ledger, set_replay_clock
from tradewind.models.bundle import ModelBundle
from tradewind.settings import MS_PER_DAY

WINDOW = 16
ROW = [0.0] * len(DEEP)
SOUND = [ROW] * WINDOW
MAX_BODY = 4096
EXPIRED_DAYS = 40
SECRETS = ("Traceback", 'File "', "site-packages", "/serving/")


@dataclass
class Served:
    """A server's address and its world."""

    world: World
    http: httpx.Client
    output: Path


@pytest.fixture(scope="module")
def served(
    make_world: Callable[..., World],
    bundles: dict[str, ModelBundle],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """Serve BTC with all models, ETH with an expired boosted one, XRP with too few bars."""
    world = make_world(
        serving={
            "port": free_port(),
            "poll_s": 0.2,
            "flush_s": 0.2,
            "reload_retry_s": 60,
            "max_concurrency": 4,
            "max_body_bytes": MAX_BODY,
            "n_samples": 2,
        }
    )
    old = reseeded(bundles["eth"])
    end_ms = NOW_MS - EXPIRED_DAYS * MS_PER_DAY
    old = dataclasses.replace(old, meta=old.meta.model_copy(update={"data_end_ms": end_ms}))
    for bundle in (bundles["btc"], bundles["deep"], old):
        world.point(world.register(bundle))
    output = tmp_path_factory.mktemp("errors") / "output.txt"
    with (
        running(world, output) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=30) as http,
    ):
        yield Served(world, http, output)


def refusal(answer: httpx.Response, status: int, error: str) -> dict[str, str]:
    """Check that an answer is ``{error, detail, hint}`` and betrays nothing of the inside."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, str] = answer.json()
    assert set(body) == {"error", "detail", "hint"}
    assert all(isinstance(text, str) and text for text in body.values())
    assert body["error"] == error
    assert not any(secret in answer.text for secret in SECRETS)
    assert ("retry-after" in answer.headers) == (error == "overloaded")
    return body


def get(path: str, **params: Any) -> dict[str, Any]:
    return {"method": "GET", "url": path, "params": params}


def post(path: str, content: Any) -> dict[str, Any]:
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    return {
        "method": "POST",
        "url": path,
        "content": text,
        "headers": {"content-type": "application/json"},
    }


def window(value: Any) -> dict[str, Any]:
    return post("/predict_deep", {"symbols": ["BTCUSDT"], "window": value})


def window_text(number: str) -> dict[str, Any]:
    """Send a number as it stands: JSON of this language writes no NaN that others would read."""
    row = ",".join(["0"] * (len(DEEP) - 1) + [number])
    rows = ",".join([f"[{row}]"] * WINDOW)
    return post("/predict_deep", f'{{"symbols": ["BTCUSDT"], "window": [{rows}]}}')


MANY, DEEP_URL = "/ml/predict_many", "/ml/predict_deep"
BTC: dict[str, Any] = {"symbol": "BTCUSDT"}
CASES: dict[str, tuple[dict[str, Any], int, str, str]] = {
    # what is asked, status, error, a word that the answer must have
    "unknown symbol": (get("/ml/predict", symbol="NOPE"), 404, "unknown_symbol", "XRPUSDT"),
    "unknown symbol, deep": (get(DEEP_URL, symbol="btcusdt"), 404, "unknown_symbol", "BTCUSDT"),
    "unknown symbol, ensemble": (
        get("/ml/predict_ensemble", symbol=""), 404, "unknown_symbol", "''",
    ),
    "unknown symbol, post": (
        post("/predict", {"symbols": ["NOPE"]}), 404, "unknown_symbol", "NOPE",
    ),
    "no symbol": (get("/ml/predict"), 422, "bad_input", "symbol"),
    "no symbols": (post("/predict", {"symbols": []}), 422, "bad_input", "0 entries"),
    "too many symbols": (
        post("/predict", {"symbols": ["A"] * 501}), 422, "bad_input", "501 entries",
    ),
    "symbols are text": (post("/predict", {"symbols": "BTCUSDT"}), 422, "bad_input", "symbols"),
    "symbols are numbers": (post(MANY, {"symbols": [1]}), 422, "bad_input", "symbols.0"),
    "n_samples 0": (get(DEEP_URL, **BTC, n_samples=0), 422, "bad_input", "n_samples = 0 "),
    "n_samples 1001": (get(DEEP_URL, **BTC, n_samples=1001), 422, "bad_input", "1..1000"),
    "n_samples -1": (get(DEEP_URL, **BTC, n_samples=-1), 422, "bad_input", "n_samples = -1"),
    "n_samples text": (get(DEEP_URL, **BTC, n_samples="x"), 422, "bad_input", "'x'"),
    "n_samples huge": (get(DEEP_URL, **BTC, n_samples="1e99"), 422, "bad_input", "'1e99'"),
    "n_samples huge digits": (get(DEEP_URL, **BTC, n_samples="9" * 99), 422, "bad_input", "999"),
    "n_samples half": (get(DEEP_URL, **BTC, n_samples="1.5"), 422, "bad_input", "1.5"),
    "n_samples true, post": (
        post(MANY, {"symbols": ["BTCUSDT"], "n_samples": True}), 422, "bad_input", "n_samples",
    ),
    "n_samples 1e99, post": (
        post("/predict_deep", '{"symbols": ["BTCUSDT"], "n_samples": 1e99}'),
        422, "bad_input", "n_samples",
    ),
    "n_samples, ensemble": (
        get("/ml/predict_ensemble", **BTC, n_samples=0), 422, "bad_input", "n_samples",
    ),
    "seed below": (get(DEEP_URL, **BTC, seed=-1), 422, "bad_input", "seed"),
    "seed above": (get(DEEP_URL, **BTC, seed=2**63), 422, "bad_input", "seed"),
    "seed, post": (
        post("/predict_deep", {"symbols": ["BTCUSDT"], "seed": -1}), 422, "bad_input", "seed",
    ),
    "flag": (get("/ml/predict", **BTC, allow_stale="perhaps"), 422, "bad_input", "allow_stale"),
    "flag, post": (
        post("/predict", {"symbols": ["BTCUSDT"], "allow_stale": "yes"}),
        422, "bad_input", "allow_stale",
    ),
    "decision id too long": (
        get("/ml/predict", **BTC, decision_id="x" * 37), 422, "bad_input", "decision_id",
    ),
    "decision id of no letters": (
        get("/ml/predict", **BTC, decision_id="a\x00b"), 422, "bad_input", "decision_id",
    ),
    "n_samples NaN, post": (
        post(MANY, '{"symbols": ["BTCUSDT"], "n_samples": NaN}'),
        422, "bad_input", "n_samples = nan",
    ),
    "symbol Infinity, post": (
        post(MANY, '{"symbols": [Infinity]}'), 422, "bad_input", "symbols.0 = inf",
    ),
    "half a surrogate pair": (
        post(MANY, r'{"symbols": ["\ud800"]}'), 422, "bad_input", "surrogate pair",
    ),
    "half a surrogate pair as a name": (
        post("/predict", r'{"symbols": ["BTCUSDT"], "\udc00": 1}'), 422, "bad_input", "surrogate",
    ),
    "parameter of another endpoint": (
        get("/ml/predict", **BTC, shadow=1), 422, "bad_input", "'shadow' is not taken here",
    ),
    "parameter unknown": (get(DEEP_URL, **BTC, samples=5), 422, "bad_input", "n_samples"),
    "parameter twice": (
        get("/ml/predict", symbol=["BTCUSDT", "ETHUSDT"]), 422, "bad_input", "more than once",
    ),
    "slash at the end": (get("/ml/predict/"), 404, "bad_input", "/ml/predict/"),
    "kind": (post(MANY, {"symbols": ["BTCUSDT"], "kind": "oracle"}), 422, "bad_input", "kind"),
    "field unknown": (post(MANY, {"symbols": ["BTCUSDT"], "x": 1}), 422, "bad_input", "x"),
    "window of no bar": (window([]), 422, "bad_input", "0 × 0"),
    "window of no feature": (window([[]]), 422, "bad_input", "1 × 0"),
    "window too short": (window(SOUND[1:]), 422, "bad_input", "15 × 10, not 16 × 10"),
    "window too long": (window([*SOUND, ROW]), 422, "bad_input", "17 × 10"),
    "window too narrow": (window([ROW[1:]] * WINDOW), 422, "bad_input", "16 × 9"),
    "window ragged": (window([*SOUND[1:], ROW[1:]]), 422, "bad_input", "ragged"),
    "window of words": (window([["a"] * 10] * WINDOW), 422, "bad_input", "window"),
    "window of nulls": (window([[None] * 10] * WINDOW), 422, "bad_input", "window"),
    "window flat": (window(ROW), 422, "bad_input", "window"),
    "window a word": (window("all of it"), 422, "bad_input", "window"),
    "window of NaN": (window_text("NaN"), 422, "bad_input", "window[0][9] = nan"),
    "window of Inf": (window_text("Infinity"), 422, "bad_input", "window[0][9] = inf"),
    "window of -Inf": (window_text("-Infinity"), 422, "bad_input", "window[0][9] = -inf"),
    "window beyond double": (window_text("1e999"), 422, "bad_input", "window[0][9] = inf"),
    "window beyond float32": (window_text("1e300"), 422, "bad_input", "1e+300"),
    "window for two": (
        post("/predict_deep", {"symbols": ["BTCUSDT", "ETHUSDT"], "window": SOUND}),
        422, "bad_input", "one symbol",
    ),
    "not enough bars": (get(DEEP_URL, symbol="XRPUSDT"), 409, "not_enough_bars", "ingest"),
    "no champion": (get("/ml/predict", symbol="XRPUSDT"), 503, "no_champion", "retrain"),
    "expired": (get("/ml/predict", symbol="ETHUSDT"), 503, "model_expired", "40"),
    "no challenger": (get(DEEP_URL, **BTC, shadow=1), 404, "no_challenger", "shadow=1"),
    "unknown version": (
        get("/ml/predict", **BTC, model_version=77), 404, "unknown_version", "Its versions: 1",
    ),
    "two choices": (
        get("/ml/predict", **BTC, model_version=1, alias="champion"), 422, "bad_input", "alias",
    ),
    "unknown path": (get("/ml/nothing"), 404, "bad_input", "/ml/nothing"),
    "unknown path at the root": (get("/nothing"), 404, "bad_input", "/nothing"),
    "path upwards": (get("/ml/../../etc/passwd"), 404, "bad_input", "not found"),
    "wrong method": (
        {"method": "DELETE", "url": "/ml/predict"}, 405, "bad_input", "method not allowed",
    ),
    "wrong method at the root": (get("/predict"), 405, "bad_input", "method not allowed"),
    "broken JSON": (post("/predict", "{broken"), 422, "bad_input", ""),
    "broken JSON, many": (post(MANY, '{"symbols": ["BTC'), 422, "bad_input", ""),
    "no JSON at all": (post(MANY, b"\xff\xfe\x00"), 422, "bad_input", ""),
    "JSON of another kind": (post("/predict", "[]"), 422, "bad_input", ""),
    "JSON of depth": (post("/predict", "[" * 2000), 422, "bad_input", ""),
    "empty body": (post("/predict", ""), 422, "bad_input", ""),
    "huge body": (
        post("/predict", b" " * (MAX_BODY + 1)), 413, "bad_input", f"max_body_bytes = {MAX_BODY}",
    ),
    "huge body, many": (post(MANY, b" " * (MAX_BODY + 1)), 413, "bad_input", "max_body_bytes"),
    "a form": (
        {"method": "POST", "url": "/predict", "data": {"symbols": "BTCUSDT"}},
        415, "bad_input", "application/x-www-form-urlencoded",
    ),
    "a file": (
        {"method": "POST", "url": "/predict_deep", "files": {"window": b"x"}},
        415, "bad_input", "multipart/form-data",
    ),
    "a pickle": (
        post("/predict", b"cposix\nsystem\n")
        | {"headers": {"content-type": "application/vnd.bentoml+pickle"}},
        415, "bad_input", "pickle",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_refusal(served: Served, name: str) -> None:
    asked, status, error, word = CASES[name]
    body = refusal(served.http.request(**asked), status, error)
    assert word in body["detail"] + body["hint"], body


def test_what_callers_get_wrong_leaves_nothing_behind(served: Served) -> None:
    """No series for each unknown path, no traceback for each body, and short answers."""
    for number in range(5):
        refusal(served.http.get(f"/made-up-{number}"), 404, "bad_input")
        refusal(served.http.get(f"/ml/made-up-{number}"), 404, "bad_input")
    assert "made-up" not in served.http.get("/metrics").text
    answer = served.http.request(**window([["a"] * 10] * WINDOW))
    assert "and 155 more" in refusal(answer, 422, "bad_input")["detail"]
    served.http.get("/ml/predict", params=BTC | {"decision_id": "the-end"})
    assert wait_until(lambda: "the-end" in served.output.read_text(), 10)
    assert "Traceback" not in served.output.read_text()


def test_the_root_leads_to_the_page_to_try_it_on(served: Served) -> None:
    page = served.http.get("/", follow_redirects=True)
    assert (page.status_code, page.url.path) == (200, "/ml/docs")
    scripts = [name for name in page.text.split('"') if name.startswith("/static_content")]
    assert len(scripts) == 3, page.text
    assert all(served.http.get(name).status_code == 200 for name in scripts)


def test_a_body_that_grows_beyond_the_limit_is_cut(served: Served) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            yield b" " * (MAX_BODY // 2)

    headers = {"content-type": "application/json"}
    for path in ("/predict", MANY):
        answer = served.http.post(path, content=pieces(), headers=headers)
        assert "content-length" not in answer.request.headers
        refusal(answer, 413, "bad_input")


def test_late_features_are_refused_unless_allowed(served: Served) -> None:
    def clock(now_ms: int) -> None:
        with open_ledger(served.world.settings) as ledger:
            set_replay_clock(ledger, now_ms)

    clock(NOW_MS + 3 * STEP_MS)
    try:
        for path in ("/ml/predict", DEEP_URL, "/ml/predict_ensemble"):
            assert wait_until(lambda p=path: served.http.get(p, params=BTC).is_error, 10)
            body = refusal(served.http.get(path, params=BTC), 503, "stale_features")
            assert "1800 s late" in body["detail"]
            allowed = served.http.get(path, params=BTC | {"allow_stale": 1})
            assert allowed.status_code == 200
            assert allowed.json()["stale"] is True
        body = refusal(
            served.http.post("/predict", json={"symbols": ["BTCUSDT"]}), 503, "stale_features"
        )
    finally:
        clock(NOW_MS)
    assert wait_until(lambda: served.http.get("/ml/predict", params=BTC).is_success, 10)


def test_an_overload_is_refused_with_a_time_to_come_back(served: Served) -> None:
    def ask(seed: int) -> httpx.Response:
        params = BTC | {"n_samples": 1000, "seed": seed}
        url = served.http.base_url.join(DEEP_URL)
        return httpx.get(url, params=params, trust_env=False, timeout=60)

    def refused() -> list[httpx.Response]:
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(ask, range(40)))
        assert {answer.status_code for answer in answers} <= {200, 429, 503}
        return [answer for answer in answers if answer.is_error]

    found: list[httpx.Response] = []
    assert wait_until(lambda: bool(found.extend(refused()) or found), 30)
    for answer in found:
        refusal(answer, answer.status_code, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1


def test_a_first_champion_that_cannot_be_loaded(
    served: Served, bundles: dict[str, ModelBundle]
) -> None:
    broken = unloadable(bundles["btc"])
    meta = broken.meta.model_copy(update={"key": "XRPUSDT", "symbols": ("XRPUSDT",)})
    served.world.point(served.world.register(dataclasses.replace(broken, meta=meta)))
    xrp = {"symbol": "XRPUSDT"}

    def error() -> str:
        return str(served.http.get("/ml/predict", params=xrp).json()["error"])

    assert wait_until(lambda: error() == "model_unusable", 15), error()
    body = refusal(served.http.get("/ml/predict", params=xrp), 503, "model_unusable")
    assert "rollback" in body["hint"]
    # And the probe says that not everything is there.
    assert refusal(served.http.get("/readyz"), 503, "no_champion")["detail"].count("XRPUSDT")
    # The others are served as before.
    assert served.http.get("/ml/predict", params=BTC).status_code == 200
