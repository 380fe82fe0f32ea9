"""Texts that make MLflow's tables readable: names of runs, times, spans."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

ABSOLUTE_PATH = re.compile(r"(?<![\w:/])/(?:[^\s,;/]+/)*([^\s,;/]+)")


def minute(ms: int) -> str:
    """Return a moment as ``2026-11-21 12:30`` (UTC)."""
    return _utc(ms).strftime("%Y-%m-%d %H:%M")


def day(ms: int) -> str:
    """Return a moment's UTC day."""
    return _utc(ms).strftime("%Y-%m-%d")


def span_text(start_ms: int, end_ms: int) -> str:
    """Return a span as ``2026-05-01 00:00 … 2026-05-15 23:45 UTC``."""
    return f"{minute(start_ms)} … {minute(end_ms)} UTC"


def retrain_name(started_ms: int, units: int) -> str:
    """Return the name of a retraining's run."""
    return f"retrain {minute(started_ms)} · {units} unit{'' if units == 1 else 's'}"


def unit_name(family: str, key: str) -> str:
    """Return the name of a unit's run."""
    return f"{family} {key}"


def fold_name(number: int, start_ms: int, end_ms: int) -> str:
    """Return the name of a walk-forward fold's run."""
    return f"fold {number} · {day(start_ms)}…{day(end_ms)}"


def evaluation_name(family: str, key: str, version: int, start_ms: int, end_ms: int) -> str:
    """Return the name of a later look at a registered version."""
    return f"evaluate {family} {key} v{version} · {day(start_ms)}…{day(end_ms)}"


def live_name(family: str, key: str, version: int, alias: str) -> str:
    """Return the name of what became of a version's answers under an alias."""
    return f"live {family} {key} v{version} · {alias}"


def drift_name(family: str, key: str, version: int) -> str:
    """Return the name of the looks at a version's drift."""
    return f"drift {family} {key} v{version}"


def recalibration_name(family: str, key: str, version: int, start_ms: int, end_ms: int) -> str:
    """Return the name of a recalibration of a registered version."""
    return f"recalibrate {family} {key} v{version} · {day(start_ms)}…{day(end_ms)}"


def review_name(family: str, key: str, version: int, champion: int, look: int) -> str:
    """Return the name of a look at a challenger beside a champion."""
    return f"review {family} {key} v{version} beside v{champion} · look {look}"


def history_name(since: str, end_ms: int, families: Sequence[str]) -> str:
    """Return the name of an evaluation over the history."""
    return f"evaluate history · {since}…{day(end_ms)} · {', '.join(families)}"


def relocatable(text: str) -> str:
    """Return ``text`` with each absolute path cut to its last part: runs travel, disks do not."""
    return ABSOLUTE_PATH.sub(r"\1", text)


def _utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC)
