"""kill -9 of the worker or its supervisor under load: what of the prediction log is lost.

Lost may be what was answered within one flush interval before the kill, plus `SLACK_S` for the
flush that was under way (a commit, on a busy machine). Each row in the ledger must be whole and
say what the caller was told.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError
from sqlalchemy import select

from benchmarks._serving_world import ServingWorld, running
from benchmarks._soak_load import Call, Load, Reply, shown
from tradewind.contracts import Prediction
from tradewind.ledger import open_ledger
from tradewind.ledger.schema import predictions

SLACK_S = 0.5
END_S = 20.0
TOLD = ("symbol", "p_up", "mu", "model_version", "bar_ts", "decision_id", "served_by")


@dataclass(frozen=True)
class KillPlan:
    """Sizes of the run; rounds of the worker and of the supervisor take turns."""

    rounds: int = 10
    seconds: float = 5.0
    rate: float = 50.0


def run(world: ServingWorld, folder: Path, plan: KillPlan) -> dict[str, Any]:
    """Return what every round lost, and whether any lost more than it may."""
    world.reset()
    rounds = []
    for number in shown(range(plan.rounds), "kills"):
        victim = ("worker", "supervisor")[number % 2]
        # Not always at the same phase of the flush interval.
        seconds = plan.seconds + (number * 0.37) % world.settings.serving.flush_s
        rounds.append(_round(world, folder, plan, f"{victim}-{number}", victim, seconds))
    return {
        "flush_s": world.settings.serving.flush_s,
        "slack_s": SLACK_S,
        "rate_per_s": plan.rate,
        "rounds": rounds,
        "oldest_lost_s": max(item["oldest_lost_s"] for item in rounds),
        "torn": sum(item["torn"] for item in rounds),
        "ok": all(item["ok"] for item in rounds),
    }


def _round(
    world: ServingWorld, folder: Path, plan: KillPlan, name: str, victim: str, seconds: float
) -> dict[str, Any]:
    def call(number: int) -> Call:
        symbol = world.symbols[number % len(world.symbols)]
        return Call("/ml/predict", {"symbol": symbol, "decision_id": f"{name}-{number}"})

    with running(world.settings, folder / "serving.log") as server:
        worker = server.worker
        with Load(server.url, call, rate=plan.rate) as load:
            time.sleep(seconds)
            (worker if victim == "worker" else server.supervisor).kill()
            killed = time.monotonic()
            if victim == "worker":
                came_back_s = server.wait_until_ready()
            else:
                came_back_s = None
                with contextlib.suppress(psutil.TimeoutExpired):
                    worker.wait(END_S)
            time.sleep(world.settings.serving.flush_s + SLACK_S)
        gone = not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
        time.sleep(world.settings.serving.flush_s + SLACK_S)
    answered = {r.call.params["decision_id"]: r for r in load.replies if r.ok}
    rows = _rows(world, name)
    counts = Counter(row["decision_id"] for row in rows)
    lost = [reply for key, reply in answered.items() if key not in counts]
    ages = [killed - reply.done for reply in lost]
    torn = sum(not _whole(row, answered.get(row["decision_id"])) for row in rows)
    twice = sum(count > 1 for count in counts.values())
    oldest = max(ages, default=0.0)
    return {
        "killed": victim,
        "answered": len(answered),
        "answered_before": sum(reply.done < killed for reply in answered.values()),
        "logged": len(rows),
        "lost": len(lost),
        "oldest_lost_s": round(oldest, 3),
        "torn": torn,
        "twice": twice,
        "worker_gone": gone,
        "came_back_s": None if came_back_s is None else round(came_back_s, 1),
        "ok": oldest <= world.settings.serving.flush_s + SLACK_S and torn == twice == 0 and gone,
    }


def _rows(world: ServingWorld, name: str) -> Sequence[Mapping[str, Any]]:
    wanted = predictions.c.decision_id.startswith(f"{name}-", autoescape=True)
    with open_ledger(world.settings) as ledger, ledger.db.read() as connection:
        return [
            dict(row) for row in connection.execute(select(predictions).where(wanted)).mappings()
        ]


def _whole(row: Mapping[str, Any], reply: Reply | None) -> bool:
    """Tell whether a row can be read, agrees with itself and with what the caller was told."""
    try:
        body = Prediction.model_validate_json(row["body"])
    except ValidationError:
        return False
    if any(getattr(body, name) != row[name] for name in TOLD):
        return False
    # An answer may be logged whose caller never got it: the process died in between.
    return reply is None or body == Prediction.model_validate(reply.content)
