"""The members' states as serving last read them: immutable, part of a snapshot."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tradewind.errors import TradewindError
from tradewind.ledger.members import MemberState


@dataclass(frozen=True)
class MemberTable:
    """States by (family, key); with a ``problem`` they are the last known ones.

    ``read_ms`` is the wall time at which they were read, None before the first time.
    """

    states: Mapping[tuple[str, str], MemberState] = field(default_factory=dict)
    read_ms: int | None = None
    problem: TradewindError | None = None

    @classmethod
    def of(cls, states: Sequence[MemberState]) -> MemberTable:
        """Return the table of states read just now."""
        by_member = {(item.family, item.key): item for item in states}
        return cls(by_member, time.time_ns() // 1_000_000)


def told(before: MemberTable, now: MemberTable) -> Iterator[str]:
    """Yield one line for every member that lost its vote or has it back."""
    for member, state in now.states.items():
        old = before.states.get(member)
        was = old is None or old.enabled
        if was and not state.enabled:
            yield f"{state.name} is disabled by {state.who} ({state.code}): {state.why}"
        elif not was and state.enabled:
            yield f"{state.name} votes again ({state.who}: {state.why})"
