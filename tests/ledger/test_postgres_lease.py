"""Two engines, as two processes, on one PostgreSQL ledger."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import Lease, Ledger

REPOSITORY = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from tradewind.ledger import Lease, Ledger
Lease(Ledger(sys.argv[1]), 3600).acquire()
print("held", flush=True)
time.sleep(600)
"""
ELSEWHERE = "UPDATE leases SET host = 'elsewhere', expires_ms = {expires}"


def test_a_second_engine_is_refused_on_postgresql(postgres_url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, postgres_url],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout, Ledger(postgres_url) as ledger:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TradewindError, match=f"pid {process.pid}") as caught:
            Lease(ledger, 30).acquire()
        assert caught.value.code is ErrorCode.ALREADY_RUNNING
        process.send_signal(signal.SIGKILL)
        process.wait()
        Lease(ledger, 30).acquire()  # the dead lose it at once on their own host


def test_an_engine_of_another_host_is_respected_until_its_lease_ends(postgres_url: str) -> None:
    from sqlalchemy import text

    with Ledger(postgres_url) as ledger:
        Lease(ledger, 30).acquire()
        later = time.time_ns() // 1_000_000 + 60_000
        with ledger.db.write() as connection:
            connection.execute(text(ELSEWHERE.format(expires=later)))
        with pytest.raises(TradewindError, match="elsewhere"):
            Lease(ledger, 30).acquire()
        with ledger.db.write() as connection:
            connection.execute(text(ELSEWHERE.format(expires=1)))
        Lease(ledger, 30).acquire()
