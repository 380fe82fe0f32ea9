"""Which members of the ensemble may speak: who said so, when, why, and what was before."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, desc, insert, select

from tradewind.contracts import POOLED
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.database import Database
from tradewind.ledger.schema import member_changes, member_state

SUPERVISOR = "supervisor"


class MemberStatus(StrEnum):
    """What a member may do: a warned one still votes, a disabled one has no weight."""

    ENABLED = "enabled"
    WARNED = "warned"
    DISABLED = "disabled"


class MemberCode(StrEnum):
    """Why a member is in its state."""

    WELL = "well"
    BIAS = "bias"
    ACCURACY = "accuracy"
    CALIBRATION = "calibration"
    CONSISTENCY = "consistency"
    LATENCY = "latency"
    ERRORS = "errors"
    NEW_VERSION = "new_version"
    PAROLE = "parole"
    BY_HAND = "by_hand"


@dataclass(frozen=True)
class MemberState:
    """The state of one member: a family, and the key of its model or a symbol.

    ``held`` is a person's word: the supervisor changes nothing until it is released.
    ``version`` is the champion that was judged, empty where a person spoke of none;
    ``since_ms`` the market time at which the state began, ``updated_ms`` the wall time of the
    last judgement. ``retrain`` asks for a retraining of that version.
    """

    family: str
    key: str
    state: MemberStatus
    code: MemberCode
    why: str
    who: str
    since_ms: int
    held: bool = False
    version: str = ""
    retrain: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    updated_ms: int = 0

    @property
    def name(self) -> str:
        """Return ``family.key``, as commands and answers name it."""
        return f"{self.family}.{self.key}"

    @property
    def enabled(self) -> bool:
        """Return whether it has a vote."""
        return self.state is not MemberStatus.DISABLED


@dataclass(frozen=True)
class MemberChange:
    """One entry of the history: the state before, and the one since."""

    before: MemberStatus
    after: MemberState


class MemberBook:
    """The states of the members and their history."""

    db: Database

    def members(self) -> list[MemberState]:
        """Return every known state by family and key; a member that is absent is enabled."""
        query = select(member_state).order_by(member_state.c.family, member_state.c.key)
        with self.db.read() as connection:
            return [_state(row) for row in connection.execute(query)]

    def member_state(self) -> dict[tuple[str, str], tuple[bool, str]]:
        """Return (family, key) → (enabled, why); a member that is absent is enabled."""
        return {(item.family, item.key): (item.enabled, item.why) for item in self.members()}

    def member_changes(self, *, limit: int | None = None) -> list[MemberChange]:
        """Return the history, the newest change first."""
        query = select(member_changes).order_by(desc(member_changes.c.id)).limit(limit)
        with self.db.read() as connection:
            return [_change(row) for row in connection.execute(query)]

    def judge_member(self, found: MemberState, before: MemberState | None) -> bool:
        """Store a judgement of the supervisor, made from ``before``; return whether it stands.

        It does not where a person holds the member, or where another process has changed its
        state since ``before`` was read. Only a change goes into the history; judging again
        brings the figures up to date.
        """
        with self.db.write() as connection:
            now = self._locked(connection, found.family, found.key)
            if (now is not None and now.held) or not _same(now, before):
                return False
            self._store(connection, found, now)
        return True

    def set_member(
        self,
        family: str,
        key: str,
        state: MemberStatus,
        *,
        who: str,
        why: str,
        market_ms: int,
        held: bool = True,
    ) -> MemberState:
        """Store a person's word, which outranks the supervisor as long as it is ``held``.

        Raises
        ------
        TradewindError
            ``bad_input`` without a name or a reason.
        """
        for name, value in (("who", who), ("why", why)):
            if not value.strip():
                raise TradewindError(
                    ErrorCode.BAD_INPUT,
                    f"{name} = {value!r} says nothing",
                    "Say who does this and why; both are recorded",
                )
        with self.db.write() as connection:
            now = self._locked(connection, family, key)
            found = MemberState(
                family,
                key,
                state,
                MemberCode.BY_HAND,
                why,
                who,
                market_ms if now is None or now.state is not state else now.since_ms,
                held=held,
                version=now.version if now else "",
                figures=now.figures if now else {},
            )
            self._store(connection, found, now, market_ms=market_ms)
        return found

    def set_member_state(self, family: str, key: str, *, enabled: bool, why: str) -> None:
        """Enable or disable one member for good, saying why, as of the wall clock."""
        state = MemberStatus.ENABLED if enabled else MemberStatus.DISABLED
        self.set_member(family, key, state, who="operator", why=why, market_ms=_wall_ms())

    def _locked(self, connection: Connection, family: str, key: str) -> MemberState | None:
        """Return the state as it is, which nobody else changes before this transaction ends."""
        if not self.db.is_sqlite:
            # There may be no row to lock yet; SQLite's writer is alone anyway.
            connection.exec_driver_sql("LOCK TABLE member_state IN SHARE ROW EXCLUSIVE MODE")
        query = select(member_state).where(
            member_state.c.family == family, member_state.c.key == key
        )
        row = connection.execute(query).first()
        return None if row is None else _state(row)

    def _store(
        self,
        connection: Connection,
        found: MemberState,
        now: MemberState | None,
        *,
        market_ms: int | None = None,
    ) -> None:
        wall = _wall_ms()
        row = {**_row(found), "since_ms": found.since_ms, "updated_ms": wall}
        self.db.upsert(connection, member_state, row)
        if now is None and found.state is MemberStatus.ENABLED and not found.held:
            return  # found well at the first look: nothing has changed
        if now is not None and _marks(now) == _marks(found):
            return
        before = now.state if now else MemberStatus.ENABLED
        at_ms = found.since_ms if market_ms is None else market_ms
        entry = {**_row(found), "before": before.value, "market_ms": at_ms, "wall_ms": wall}
        connection.execute(insert(member_changes).values(entry))


def parse_member(name: str) -> tuple[str, str]:
    """Return (family, key) of ``lightgbm.BTCUSDT``; a family alone means its pooled model.

    The registered name (``tradewind.lightgbm.BTCUSDT``) is understood too.

    Raises
    ------
    TradewindError
        ``bad_input`` for anything else.
    """
    parts = name.removeprefix("tradewind.").split(".")
    if len(parts) > 2 or not all(parts):
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"member {name!r} is no FAMILY.KEY",
            "Name it as `tradewind members` does, e.g. lightgbm.BTCUSDT or transformer.POOLED",
        )
    return parts[0], parts[1] if len(parts) == 2 else POOLED


def _marks(state: MemberState) -> tuple[object, ...]:
    """Return what makes a state another one; by hand, each word is one."""
    said = state.why if state.code is MemberCode.BY_HAND else ""
    return state.state, state.code, state.held, state.version, state.retrain, said


def _same(now: MemberState | None, before: MemberState | None) -> bool:
    if now is None or before is None:
        return now is before
    return _marks(now) == _marks(before) and now.since_ms == before.since_ms


def _row(item: MemberState) -> dict[str, Any]:
    return {
        "family": item.family,
        "key": item.key,
        "state": item.state.value,
        "code": item.code.value,
        "why": item.why,
        "who": item.who,
        "held": item.held,
        "version": item.version,
        "retrain": item.retrain,
        "figures": json.dumps(dict(item.figures), sort_keys=True, allow_nan=False),
    }


def _state(row: Any, *, since: str = "since_ms", updated: str = "updated_ms") -> MemberState:
    return MemberState(
        family=row.family,
        key=row.key,
        state=MemberStatus(row.state),
        code=MemberCode(row.code),
        why=row.why,
        who=row.who,
        since_ms=getattr(row, since),
        held=row.held,
        version=row.version,
        retrain=row.retrain,
        figures=json.loads(row.figures),
        updated_ms=getattr(row, updated),
    )


def _change(row: Any) -> MemberChange:
    after = _state(row, since="market_ms", updated="wall_ms")
    return MemberChange(MemberStatus(row.before), after)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
