"""Starts the BentoML server for given settings: one supervisor, one worker process."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings

PREFIX = "TRADEWIND_"
MALLOC_ARENAS = 2
PORT_WAIT_S = 5.0
PORT_LOOK_S = 0.1


def serve(settings: Settings) -> None:
    """Serve until the process is told to stop (SIGINT, SIGTERM).

    The environment of this process becomes that of the settings: the worker that BentoML
    starts reads them from there.

    Raises
    ------
    TradewindError
        ``already_running`` if the port is taken.
    """
    host, port = settings.serving.host, settings.serving.port
    wait_for_port(host, port)
    wanted = environment(settings)
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update(wanted)
    import serving.service

    service: Any = serving.service.Tradewind
    service.serve_http(host=host, port=port)


def environment(settings: Settings, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that make another process load the same settings.

    Parameters
    ----------
    base
        Variables that win over our defaults for libraries (threads, homes); the process's
        own environment if None. Settings variables in it are ignored.
    """
    given = os.environ if base is None else base
    home = settings.home.absolute()
    ours = {
        # One thread a process: spinning threads cost far more than they bring on few cores.
        "OMP_NUM_THREADS": str(settings.deep.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        # Any thread may run a forward, and glibc keeps the memory it freed for each few threads.
        "MALLOC_ARENA_MAX": str(MALLOC_ARENAS),
        # BentoML keeps its metrics' files here; two servers must not share them.
        "BENTOML_HOME": str(home / "serving" / f"bentoml-{settings.serving.port}"),
        "BENTOML_DO_NOT_TRACK": "true",
    }
    ours |= {name: given[name] for name in ours if name in given}
    values = settings.model_dump(mode="json") | {"home": str(home)}
    if settings.data is not None:
        values["data"] = str(settings.data.absolute())
    for name, value in values.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            ours[PREFIX + name.upper()] = text
    Path(ours["BENTOML_HOME"]).mkdir(parents=True, exist_ok=True)
    return ours


def wait_for_port(host: str, port: int, limit_s: float = PORT_WAIT_S) -> None:
    """Wait until a port is free; see `check_port_free` for what is raised then.

    The worker of a server that was killed lives on for a moment, and holds the port meanwhile.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return check_port_free(host, port)
        except TradewindError as error:
            if error.code is not ErrorCode.ALREADY_RUNNING or time.monotonic() >= deadline:
                raise
        time.sleep(PORT_LOOK_S)


def check_port_free(host: str, port: int) -> None:
    """Refuse a port that is taken, before anything is started.

    Raises
    ------
    TradewindError
        ``already_running`` naming the address; ``bad_setting`` for a host that is not ours.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno in (98, 48)
            raise TradewindError(
                ErrorCode.ALREADY_RUNNING if taken else ErrorCode.BAD_SETTING,
                f"serving cannot listen on {host}:{port} ({error})",
                "Stop the other server, or choose another TRADEWIND_SERVING__PORT",
            ) from error
