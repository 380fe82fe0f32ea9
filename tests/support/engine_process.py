"""An engine in a process of its own, which kills itself with SIGKILL where it is told to.

Arguments: HOME END_MS LOG STAGE NTH. Named steps, and commits of transactions (just before
them), are counted; at the NTH whose name begins with STAGE the process writes the name to LOG
and dies. NTH 0 lets it live.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from sqlalchemy import Connection, event

from policy.engine import Engine, run_replay
from tests.support.synthetic import START_MS
from tests.support.trading_day import STEP, build_engine, trading_settings

COMMIT = "transaction:commit"
FIRST_CYCLE = START_MS + 25 * STEP


class Countdown:
    """Counts steps, remembers their names, and dies at the chosen one."""

    def __init__(self, stage: str, nth: int, log: Path) -> None:
        self.passed: list[str] = []
        self._stage = stage
        self._left = nth
        self._log = log

    def __call__(self, name: str) -> None:
        """Count one step; the name is on disk before the process dies."""
        self.passed.append(name)
        if not name.startswith(self._stage):
            return
        self._left -= 1
        if self._left == 0:
            with self._log.open("a") as stream:
                stream.write(f"{name}\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.kill(os.getpid(), signal.SIGKILL)


def start(
    home: Path, end_ms: int, log: Path, stage: str = "", nth: int = 0
) -> tuple[Engine, Countdown]:
    """Run the replay from where the ledger's clock stands to ``end_ms``."""
    settings = trading_settings(home)
    countdown = Countdown(stage, nth, log)
    engine, clock = build_engine(settings, at=countdown)

    def before_commit(connection: Connection) -> None:
        if connection.get_execution_options().get("tradewind_write", False):
            countdown(COMMIT)

    event.listen(engine.ledger.db.engine, "commit", before_commit)
    print("started", flush=True)
    run_replay(engine, clock, FIRST_CYCLE, end_ms)
    return engine, countdown


if __name__ == "__main__":
    home, end_ms, log, stage, nth = sys.argv[1:]
    start(Path(home), int(end_ms), Path(log), stage, int(nth))
