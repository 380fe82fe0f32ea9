"""A server that was killed just now may hold the port for a moment."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from serving.launch import wait_for_port
from tradewind.errors import ErrorCode, TradewindError


def test_a_port_that_is_freed_meanwhile_is_waited_for() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(TradewindError) as refused:
            wait_for_port("127.0.0.1", port, limit_s=0)
        assert refused.value.code is ErrorCode.ALREADY_RUNNING
        threading.Timer(0.3, held.close).start()
        began = time.monotonic()
        wait_for_port("127.0.0.1", port, limit_s=20)
        assert time.monotonic() - began >= 0.2
