"""Against storms of retrainings: at most so many a week, and longer waits after failures.

Plain values, without Dagster. Only what the sensor asked for counts; a person's launch and the
weekly schedule are neither counted nor held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tradewind.settings import RetrainTriggerSettings

S_PER_HOUR = 3600
WEEK_S = 7 * 24 * S_PER_HOUR


class Outcome(StrEnum):
    """What became of a request; one that is not over, or was cancelled by hand, is neither."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    OTHER = "other"


@dataclass(frozen=True)
class Request:
    """One retraining that was asked for: its run key, when, for which champions' names."""

    key: str
    at_s: float
    names: frozenset[str]
    outcome: Outcome = Outcome.OTHER


def held_back(
    name: str, requests: Sequence[Request], now_s: float, limits: RetrainTriggerSettings
) -> str | None:
    """Return why nothing may be asked for ``name`` now, with the numbers; None if it may.

    Requests that failed do not count against the week, for they brought nothing; the waits do.
    After n failed retrainings in a row the wait is ``backoff_hours`` · 2^(n − 1), at most
    ``max_backoff_hours``, since the last of these requests.
    """
    own = sorted((item for item in requests if name in item.names), key=lambda item: item.at_s)
    counted = [item for item in own if item.outcome is not Outcome.FAILED]
    recent = [item for item in counted if now_s - item.at_s < WEEK_S]
    if len(recent) >= limits.most_a_week:
        free_h = (recent[-limits.most_a_week].at_s + WEEK_S - now_s) / S_PER_HOUR
        return (
            f"{name}: {len(recent)} of {limits.most_a_week} requests in seven days, "
            f"free again in {free_h:.1f} h"
        )
    failures = failures_in_a_row(own)
    if not failures:
        return None
    wait_h = min(limits.backoff_hours * 2 ** (len(failures) - 1), limits.max_backoff_hours)
    passed_h = (now_s - failures[-1].at_s) / S_PER_HOUR
    if passed_h >= wait_h:
        return None
    return (
        f"{name}: {len(failures)} failed in a row, {passed_h:.1f} of {wait_h:g} h since the last "
        "of these requests"
    )


def failures_in_a_row(own: Sequence[Request]) -> list[Request]:
    """Return the failed requests since the last success, oldest first."""
    failures: list[Request] = []
    for item in own:
        if item.outcome is Outcome.SUCCEEDED:
            failures = []
        elif item.outcome is Outcome.FAILED:
            failures.append(item)
    return failures
