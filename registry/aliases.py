"""Which version serves: promotion, rollback, and the record of both.

Every change is journalled as a tag of the registered model BEFORE an alias moves and
marked done AFTER the last one has, because MLflow moves one alias at a time. A kill -9 at
any point leaves ``champion`` on a complete version, the old or the new one: nothing ever
deletes that alias. The same call again finishes what was begun; any other change first
finishes it if ``champion`` had moved, and takes it back if not.

Order of a promotion: journal, previous := old champion, champion := new, challenger and
canary freed from the new champion, journal done. Order of a rollback: journal,
champion := previous (the urgent part first), previous := old champion, journal done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

from registry import _journal as journal
from registry._journal import AliasChange, Operation
from registry.tracking import Tracking, require_name
from registry.versions import (
    GATE_REASONS_TAG,
    GATES_FAILED,
    GATES_PASSED,
    GATES_TAG,
    RegisteredVersion,
    get_version,
)
from tradewind.errors import ErrorCode, TradewindError

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
CANARY: Final = "canary"
PREVIOUS: Final = "previous"
Promotable = Literal["champion", "challenger", "canary"]
Withdrawable = Literal["challenger", "canary"]


def promote(
    tracking: Tracking,
    name: str,
    version: int,
    *,
    who: str,
    why: str,
    to: Promotable = "champion",
    allow_failed: bool = False,
    instead_of: int | None = None,
) -> AliasChange:
    """Point ``to`` at ``version``; the champion it replaces becomes ``previous``.

    Idempotent: a version that already has the alias stays, and the change that gave it the
    alias is returned. ``instead_of`` is the champion that the decision was made beside: where
    another stands by now, nothing moves.

    Raises
    ------
    TradewindError
        ``gates_failed`` unless the version's tag says that its gates passed (or
        ``allow_failed``); ``champion_changed``; ``bad_input`` for an unknown version, a blank
        ``who`` or ``why``, or a champion asked to be its own challenger.
    """
    candidate = get_version(tracking, require_name(name), version=version)
    if candidate.gates != GATES_PASSED and not allow_failed:
        raise _gates_not_passed(candidate)
    with journal.exclusive(tracking):
        resumed = _settle(tracking, name, "promote", to, version)
        if resumed is not None:
            return resumed
        aliases = _aliases(tracking, name)
        if to != CHAMPION and aliases.get(CHAMPION) == version:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"{name} version {version} is the champion and cannot also be its {to}",
                "Choose another version",
            )
        if aliases.get(CHAMPION) != version:
            _check_champion(name, aliases, instead_of)
        change = _new_change(tracking, name, "promote", to, version, aliases, who, why)
        if aliases.get(to) == version:
            return _last_change(tracking, change)
        return _carry_out(tracking, change)


def rollback(tracking: Tracking, name: str, *, who: str, why: str) -> AliasChange:
    """Swap ``champion`` and ``previous``; after a kill, finish the swap that was begun.

    Raises
    ------
    TradewindError
        ``bad_input`` if there is no previous champion to go back to.
    """
    require_name(name)
    with journal.exclusive(tracking):
        resumed = _settle(tracking, name, "rollback", CHAMPION, None)
        if resumed is not None:
            return resumed
        aliases = _aliases(tracking, name)
        target = aliases.get(PREVIOUS)
        if target is None or target == aliases.get(CHAMPION):
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"{name} has no previous champion to roll back to",
                "Promote a version by number with `tradewind promote`",
            )
        change = _new_change(tracking, name, "rollback", CHAMPION, target, aliases, who, why)
        return _carry_out(tracking, change)


def withdraw(
    tracking: Tracking,
    name: str,
    version: int,
    *,
    who: str,
    why: str,
    alias: Withdrawable = CHALLENGER,
    beside: int | None = None,
) -> AliasChange:
    """Take ``alias`` from ``version``, which stays registered; recorded as any change is.

    Idempotent: where the version has lost the alias already, the change that took it is
    returned, and another version that has it by now keeps it. There is no withdrawing of a
    champion: roll back, or promote another. ``beside`` is the champion that the decision was
    made beside.

    Raises
    ------
    TradewindError
        ``champion_changed`` where another champion stands by now; ``bad_input`` for an unknown
        version, or a blank ``who`` or ``why``.
    """
    get_version(tracking, require_name(name), version=version)
    with journal.exclusive(tracking):
        resumed = _settle(tracking, name, "withdraw", alias, version)
        if resumed is not None:
            return resumed
        aliases = _aliases(tracking, name)
        change = replace(
            _new_change(tracking, name, "withdraw", alias, None, aliases, who, why),
            from_version=version,
        )
        if aliases.get(alias) != version:
            return _last_change(tracking, change)
        _check_champion(name, aliases, beside)
        return _carry_out(tracking, change)


def _check_champion(name: str, aliases: dict[str, int], expected: int | None) -> None:
    standing = aliases.get(CHAMPION)
    if expected is not None and standing != expected:
        raise TradewindError(
            ErrorCode.CHAMPION_CHANGED,
            f"champion of {name} is version {standing or 'none'} by now, not {expected}, which "
            "this was decided beside: nothing was moved",
            "Run `tradewind review` again: it looks at the champion that stands now",
        )


def promote_candidate(
    tracking: Tracking,
    version: RegisteredVersion,
    gate_passed: bool,
    reasons: Sequence[str] = (),
    *,
    who: str = "pipeline",
    allow_failed: bool = False,
    handover: str | None = None,
) -> AliasChange | None:
    """Record the verdict of the gates and give the version the alias that follows from it.

    Passed: champion if there is none, if the one there is had failed its gates (a
    demonstration's), or if it makes way by its age (``handover`` says why); else challenger.
    Failed: no alias, unless ``allow_failed`` and there is no champion at all, when it becomes
    champion and stays tagged gates=failed.

    Parameters
    ----------
    reasons
        What the gates found; kept as the tag ``gate_reasons`` (a JSON list).

    Returns
    -------
    AliasChange | None
        None if the version gets no alias.
    """
    _tag_verdict(tracking, version, gate_passed, reasons)
    champion = _aliases(tracking, version.name).get(CHAMPION)
    if champion == version.version:
        to: Promotable | None = CHAMPION  # asked again: it keeps what it has
    elif champion is None:
        to = CHAMPION if gate_passed or allow_failed else None
    elif not gate_passed:
        to = None
    else:
        standing = get_version(tracking, version.name, version=champion)
        to = CHAMPION if standing.gates == GATES_FAILED or handover else CHALLENGER
    if to is None:
        return None
    verdict = "gates passed" if gate_passed else "gates failed, served for want of a better one"
    aged = [handover] if handover and to == CHAMPION and champion != version.version else []
    why = "; ".join([verdict, *aged, *reasons])
    return promote(
        tracking,
        version.name,
        version.version,
        who=who,
        why=why,
        to=to,
        allow_failed=not gate_passed,
    )


def history(tracking: Tracking, name: str) -> list[AliasChange]:
    """Return the recorded changes of ``name``, newest first.

    Raises
    ------
    TradewindError
        ``bad_input`` if nothing is registered under ``name``.
    """
    return journal.read(tracking, require_name(name))[::-1]


def _settle(
    tracking: Tracking, name: str, operation: Operation, alias: str, version: int | None
) -> AliasChange | None:
    """Finish or take back a change that a kill interrupted.

    Returns the finished change if it is the very one asked for now, else None.
    """
    unfinished = [change for change in journal.read(tracking, name) if change.state == "started"]
    for change in unfinished:
        about = change.from_version if operation == "withdraw" else change.to_version
        same = (change.operation, change.alias) == (operation, alias) and version in (None, about)
        reached = _aliases(tracking, name).get(change.alias) == change.to_version
        if same or reached:
            finished = _move(tracking, change)
            if same:
                return finished
        else:
            _take_back(tracking, change)
    return None


def _carry_out(tracking: Tracking, change: AliasChange) -> AliasChange:
    journal.write(tracking, change)
    finished = _move(tracking, change)
    journal.prune(tracking, journal.read(tracking, change.name))
    return finished


def _move(tracking: Tracking, change: AliasChange) -> AliasChange:
    """Move the aliases of a journalled change and mark it done; repeating is harmless."""
    if change.operation == "withdraw":
        if _aliases(tracking, change.name).get(change.alias) == change.from_version:
            _release(tracking, change.name, change.alias)
    elif change.alias != CHAMPION:
        _point(tracking, change.name, change.alias, change.to_version)
    elif change.operation == "rollback":
        _point(tracking, change.name, CHAMPION, change.to_version)
        _point(tracking, change.name, PREVIOUS, change.from_version)
    else:
        _point(tracking, change.name, PREVIOUS, change.from_version)
        _point(tracking, change.name, CHAMPION, change.to_version)
        _free_candidates(tracking, change)
    done = replace(change, state="done")
    journal.write(tracking, done)
    return done


def _take_back(tracking: Tracking, change: AliasChange) -> None:
    """Undo the only thing an unfinished promotion can have done: moving ``previous``."""
    if change.alias == CHAMPION and change.operation == "promote":
        if change.previous_before is not None:
            _point(tracking, change.name, PREVIOUS, change.previous_before)
        elif PREVIOUS in _aliases(tracking, change.name):
            _release(tracking, change.name, PREVIOUS)
    journal.write(tracking, replace(change, state="abandoned"))


def _free_candidates(tracking: Tracking, change: AliasChange) -> None:
    """Take challenger and canary from the new champion: it cannot be compared with itself."""
    aliases = _aliases(tracking, change.name)
    for alias in (CHALLENGER, CANARY):
        if aliases.get(alias) == change.to_version:
            _release(tracking, change.name, alias)


def _new_change(
    tracking: Tracking,
    name: str,
    operation: Operation,
    alias: str,
    version: int | None,
    aliases: dict[str, int],
    who: str,
    why: str,
) -> AliasChange:
    entries = journal.read(tracking, name)
    return AliasChange(
        sequence=entries[-1].sequence + 1 if entries else 1,
        name=name,
        operation=operation,
        alias=alias,
        from_version=aliases.get(alias),
        to_version=version,
        who=journal.text(who, "who"),
        why=journal.text(why, "why"),
        when_ms=time.time_ns() // 1_000_000,
        previous_before=aliases.get(PREVIOUS),
    )


def _last_change(tracking: Tracking, asked: AliasChange) -> AliasChange:
    """Return the recorded change that led to what is asked, else ``asked`` as a non-move."""
    for change in history(tracking, asked.name):
        if (change.alias, change.to_version) != (asked.alias, asked.to_version):
            continue
        if asked.to_version is not None or change.from_version == asked.from_version:
            return change
    return replace(asked, state="done")


def _tag_verdict(
    tracking: Tracking, version: RegisteredVersion, passed: bool, reasons: Sequence[str]
) -> None:
    number = str(version.version)
    verdict = GATES_PASSED if passed else GATES_FAILED
    with tracking.translated():
        tracking.client.set_model_version_tag(
            version.name, number, GATE_REASONS_TAG, json.dumps(list(reasons))
        )
        tracking.client.set_model_version_tag(version.name, number, GATES_TAG, verdict)


def _aliases(tracking: Tracking, name: str) -> dict[str, int]:
    with tracking.translated():
        found = tracking.client.get_registered_model(name).aliases
    return {alias: int(version) for alias, version in found.items()}


def _point(tracking: Tracking, name: str, alias: str, version: int | None) -> None:
    if version is None:
        return
    with tracking.translated():
        tracking.client.set_registered_model_alias(name, alias, str(version))


def _release(tracking: Tracking, name: str, alias: str) -> None:
    with tracking.translated():
        tracking.client.delete_registered_model_alias(name, alias)


def _gates_not_passed(version: RegisteredVersion) -> TradewindError:
    reasons = version.tags.get(GATE_REASONS_TAG, "no reasons recorded")
    return TradewindError(
        ErrorCode.GATES_FAILED,
        f"{version.name} version {version.version} has gates={version.gates} ({reasons})",
        "Promote a version whose gates passed, or train again",
    )
