"""The canary's share of many decisions, asked through the real server, and then asked again."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks._serving_world import ServingWorld, running
from benchmarks._soak_load import Call, Load
from tradewind.contracts import CANARY
from tradewind.ledger import open_ledger

FAMILY = "lightgbm"
CALLERS = 4
Z_99 = 2.576


@dataclass(frozen=True)
class CanaryPlan:
    """Sizes of the run."""

    decisions: int = 10_000
    again: int = 1_000


def run(world: ServingWorld, folder: Path, plan: CanaryPlan) -> dict[str, Any]:
    """Return the share, its interval, and whether it sticks and is marked and logged."""
    world.reset()
    champion, canary = world.versions[FAMILY][:2]
    world.point(canary, CANARY)
    ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"decision {i}")) for i in range(plan.decisions)]
    with running(world.settings, folder / "serving.log") as server:
        first, failed = _ask(world, server.url, ids)
        second, failed_again = _ask(world, server.url, ids[: plan.again])
        time.sleep(2 * world.settings.serving.flush_s)
    share = world.settings.serving.canary_share
    drawn = sum(item["served_by"] == CANARY for item in first.values())
    half = Z_99 * math.sqrt(share * (1 - share) / len(ids))
    marked = all(
        item["model_version"] == (canary if item["served_by"] == CANARY else champion).label
        for item in first.values()
    )
    changed = sum(first[name]["served_by"] != item["served_by"] for name, item in second.items())
    with open_ledger(world.settings) as ledger:
        rows = ledger.predictions(role="champion").filter(pl.col("decision_id").is_in(ids))
    of_canary = rows.filter(pl.col("served_by") == CANARY)
    logged = (
        set(of_canary["decision_id"]) == {n for n, it in first.items() if it["served_by"] == CANARY}
        and set(of_canary["model_version"]) == {canary.label}
        and len(rows) == len(ids) + len(second)
    )
    within = abs(drawn / len(ids) - share) <= half
    return {
        "decisions": len(ids),
        "failed": failed + failed_again,
        "wanted_share": share,
        "share": drawn / len(ids),
        "interval_99": [round(share - half, 4), round(share + half, 4)],
        "within": within,
        "asked_again": len(second),
        "changed_when_asked_again": changed,
        "marked_with_its_version": marked,
        "logged_with_its_version": logged,
        "ok": within and marked and logged and changed == 0 and failed + failed_again == 0,
    }


def _ask(world: ServingWorld, url: str, ids: list[str]) -> tuple[dict[str, Any], int]:
    """Return the prediction of every decision, asked a symbol each, and how many failed."""
    symbols = world.symbols
    parts = [ids[start : start + len(symbols)] for start in range(0, len(ids), len(symbols))]

    def call(number: int) -> Call:
        decisions = dict(zip(symbols, parts[number], strict=False))
        body = {"kind": FAMILY, "symbols": list(decisions), "decision_ids": decisions}
        return Call("/ml/predict_many", body=body)

    load = Load(url, call, threads=CALLERS, limit=len(parts))
    with load:
        load.join()
    predictions = [
        item for reply in load.replies if reply.ok for item in reply.content["predictions"]
    ]
    return {item["decision_id"]: item for item in predictions}, len(ids) - len(predictions)
