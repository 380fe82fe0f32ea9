"""What the OpenAPI document cannot say: of three ways to choose a version a request takes one."""

from __future__ import annotations

import re
import zlib
from typing import Any

import schemathesis

VALID = {
    "model_version": re.compile(r"(tradewind\.[^/]+/)?[0-9]{1,9}"),
    "alias": re.compile("champion|challenger|canary"),
    "shadow": re.compile("0|1|true|false", re.IGNORECASE),
}
NO_CHOICE = ("0", "false", "False")


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Keep one of the three where a request has more: the faulty one, or one at random."""
    query = case.query
    if not isinstance(query, dict) or not case.operation.path.startswith("/ml/predict"):
        return case
    given = [name for name in VALID if name in query and str(query[name]) not in NO_CHOICE]
    if len(given) > 1:
        faulty = [name for name in given if VALID[name].fullmatch(str(query[name])) is None]
        at_random = zlib.crc32(repr(sorted(query)).encode() + repr(query).encode()) % len(given)
        kept = faulty[0] if faulty else given[at_random]
        for name in given:
            if name != kept:
                del query[name]
    return case
