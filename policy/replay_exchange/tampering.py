"""What a fault does to an answer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from policy.replay_exchange.faults import Fault, FaultKind

Rows = list[Any]


def _duplicated(rows: Rows) -> Rows:
    return [row for row in rows for _ in range(2)][: len(rows)]


def _out_of_order(rows: Rows) -> Rows:
    return [*rows[1::2], *rows[::2]]


def _missing_rows(rows: Rows) -> Rows:
    third = len(rows) // 3
    return [*rows[:third], *rows[third + 3 :]]


def _missing_page(rows: Rows) -> Rows:
    return []


ROW_FAULTS: dict[FaultKind, Callable[[Rows], Rows]] = {
    FaultKind.DUPLICATED: _duplicated,
    FaultKind.OUT_OF_ORDER: _out_of_order,
    FaultKind.MISSING_ROWS: _missing_rows,
    FaultKind.MISSING_PAGE: _missing_page,
}


def tampered_body(body: Any, find: Callable[[Any], Rows | None], kind: FaultKind) -> Any:
    """Return ``body`` with its rows spoilt; one without rows stays as it is."""
    spoilt = copy.deepcopy(body)
    rows = find(spoilt)
    if rows is not None:
        rows[:] = ROW_FAULTS[kind](rows)
    return spoilt


def tampered_text(text: str, fault: Fault) -> str:
    """Return what is sent in place of ``text``."""
    if fault.kind is FaultKind.EMPTY:
        return ""
    if fault.kind is FaultKind.NULL:
        return "null"
    if fault.kind is FaultKind.HTML:
        return "<html><head><title>Busy</title></head><body>Try again.</body></html>"
    return text[: len(text) // 2] if fault.kind is FaultKind.TRUNCATED else fault.body
