"""Serving's real app in a thread of this process, on a free port."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

from serving.launch import environment
from tradewind.settings import Settings


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def run_app(settings: Settings) -> Iterator[tuple[Any, str]]:
    """Yield the module of the service and its address.

    Once a process: BentoML's metrics cannot be registered twice.
    """
    import uvicorn

    with tempfile.TemporaryDirectory() as folder:
        given = {"PROMETHEUS_MULTIPROC_DIR": folder, **environment(settings)}
        # A module imported before by another test has read other settings.
        sys.modules.pop("serving.service", None)
        with mock.patch.dict(os.environ, given):
            service = importlib.import_module("serving.service")
            config = uvicorn.Config(
                service.Tradewind.to_asgi(), port=free_port(), log_config=None, lifespan="on"
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            deadline = time.monotonic() + 60
            while not server.started and thread.is_alive() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert server.started, "the app did not start"
            try:
                yield service, f"http://127.0.0.1:{config.port}"
            finally:
                server.should_exit = True
                thread.join(timeout=30)
