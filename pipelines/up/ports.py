"""Ports on loopback: the ones of the last start if they are free, else the usual ones."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from pipelines.servers import free_port
from tradewind.settings import Settings

LOOPBACK = "127.0.0.1"
WEBSERVER, MLFLOW, SERVING, CODE_SERVER = "webserver", "mlflow", "serving", "code-server"
USUAL = {WEBSERVER: 3000, MLFLOW: 5000}


def choose(settings: Settings, before: Mapping[str, int]) -> dict[str, int]:
    """Return a free port for each server, no two the same.

    Parameters
    ----------
    before
        The ports of the last start: links that people kept stay good.
    """
    chosen: dict[str, int] = {}
    for name in (WEBSERVER, MLFLOW, SERVING, CODE_SERVER):
        usual = settings.serving.port if name == SERVING else USUAL.get(name, 0)
        wanted = [port for port in (before.get(name), usual) if port]
        free = (port for port in wanted if port not in chosen.values() and is_free(port))
        chosen[name] = next(free, None) or _another(chosen)
    return chosen


def is_free(port: int) -> bool:
    """Return whether nothing listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _another(taken: Mapping[str, int]) -> int:
    port = free_port()
    while port in taken.values():
        port = free_port()
    return port
