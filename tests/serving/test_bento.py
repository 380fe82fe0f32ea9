"""The bento: built from the repository, served outside of it, with nothing of it in reach."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from serving.launch import environment
from tests.support.server import free_port
from tests.support.server_process import REPOSITORY, START_S, ready, wait_until
from tests.support.serving import World
from tradewind.models.bundle import ModelBundle

BENTOML = [sys.executable, "-m", "bentoml"]
VERSION = "tried"
# Every process of the server: forget the repository, which an editable installation offers to
# all, and write down at the end where our packages came from.
CUSTOMIZE = """
import atexit, json, os, sys

repository, folder = {repository!r}, {folder!r}
sys.path[:] = [place for place in sys.path if os.path.realpath(place or ".") != repository]


def write():
    ours = {{
        name: module.__file__
        for name, module in list(sys.modules.items())
        if name.split(".")[0] in ("serving", "registry", "tradewind")
        and getattr(module, "__file__", None)
    }}
    if ours:
        with open(os.path.join(folder, f"{{os.getpid()}}.json"), "w") as stream:
            json.dump(ours, stream)


atexit.register(write)
"""


def build(folder: Path) -> Path:
    """Build the bento as `make bento` does, and return its folder."""
    given = {name: text for name, text in os.environ.items() if not name.startswith("TRADEWIND_")}
    own = {
        "BENTOML_HOME": str(folder),
        "BENTOML_DO_NOT_TRACK": "true",
        "TRADEWIND_HOME": str(folder / "home"),
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [*BENTOML, "build", "--version", VERSION, "."],
        cwd=REPOSITORY,
        env=given | own,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bentos" / "tradewind" / VERSION


@pytest.mark.slow
def test_a_bento_is_built_and_serves_outside_the_repository(
    make_world: Callable[..., World], bundles: dict[str, ModelBundle], tmp_path: Path
) -> None:
    bento = build(tmp_path / "store")
    source = bento / "src"
    assert {path.name for path in source.iterdir()} >= {"serving", "registry", "tradewind"}
    assert not {"tests", "policy", "assets", "pipelines"} & {p.name for p in source.iterdir()}

    port = free_port()
    world = make_world(serving={"port": port, "poll_s": 0.5, "flush_s": 0.2})
    world.point(world.register(bundles["btc"]))
    world.point(world.register(bundles["deep"]))
    site, modules, elsewhere = (tmp_path / name for name in ("site", "modules", "elsewhere"))
    for folder in (site, modules, elsewhere):
        folder.mkdir()
    text = CUSTOMIZE.format(repository=str(REPOSITORY), folder=str(modules))
    (site / "sitecustomize.py").write_text(text, encoding="utf-8")
    given = {name: text for name, text in os.environ.items() if not name.startswith("TRADEWIND_")}
    output = tmp_path / "output.txt"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [*BENTOML, "serve", str(bento), "--host", "127.0.0.1", "--port", str(port)],
            cwd=elsewhere,
            env={**given, **environment(world.settings), "PYTHONPATH": str(site)},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        assert wait_until(lambda: ready(url) or process.poll() is not None, START_S)
        assert process.poll() is None, output.read_text()
        for path in ("predict", "predict_deep", "predict_ensemble"):
            answer = httpx.get(f"{url}/ml/{path}?symbol=BTCUSDT", trust_env=False)
            assert answer.status_code == 200, answer.text
        assert httpx.get(f"{url}/metrics", trust_env=False).text.count("tradewind_ml_") > 50
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, output.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    found = {
        name: Path(place)
        for path in modules.iterdir()
        for name, place in json.loads(path.read_text(encoding="utf-8")).items()
    }
    assert {"serving.service", "registry.tracking", "tradewind.models.bundle"} <= set(found)
    outside = {name: place for name, place in found.items() if not place.is_relative_to(source)}
    assert outside == {}
    with_answers = world.settings.home / "ledger.db"
    assert with_answers.exists(), "state is kept in the home, not beside the bento"
    assert list(elsewhere.iterdir()) == []
