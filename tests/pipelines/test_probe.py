"""Health checks ask servers, not themselves."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pipelines.probe import DAGSTER_SERVICE, problem_of
from pipelines.servers import free_port
from tests.pipelines.conftest import ROOT


class _Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def pages() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_page_that_answers_is_well(pages: str) -> None:
    assert problem_of(f"{pages}/well") is None


def test_what_is_wrong_is_said(pages: str) -> None:
    assert "503" in str(problem_of(f"{pages}/ill"))
    assert "refused" in str(problem_of(f"http://127.0.0.1:{free_port()}/"))
    assert problem_of("file:///etc/passwd") == "the address must begin with http:// or grpc://"


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (health_pb2.HealthCheckResponse.SERVING, None),
        (health_pb2.HealthCheckResponse.NOT_SERVING, "not serving"),
    ],
)
def test_a_code_server_is_asked_over_grpc(status: int, problem: str | None) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    answers = health.HealthServicer()
    answers.set(DAGSTER_SERVICE, status)
    health_pb2_grpc.add_HealthServicer_to_server(answers, server)
    server.start()
    assert problem_of(f"grpc://127.0.0.1:{port}") == problem
    server.stop(None).wait()


def test_a_code_server_that_is_not_there() -> None:
    assert problem_of(f"grpc://127.0.0.1:{free_port()}") == "UNAVAILABLE"


def test_the_exit_code_tells_the_container_engine(pages: str) -> None:
    for path, expected in (("/well", 0), ("/ill", 1)):
        asked = [sys.executable, "-m", "pipelines.probe", f"{pages}{path}"]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == expected, done.stderr
