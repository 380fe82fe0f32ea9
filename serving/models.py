"""Which versions serve: the registry's aliases, followed by polling, swapped atomically.

A snapshot is immutable. A poll builds the next one beside it and replaces the reference in
one assignment; a request takes the reference once and keeps it, so it never mixes versions.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from registry import versions
from serving.expiry import Expiry
from serving.loaded import LoadedModel
from serving.member_table import MemberTable, told
from tradewind.contracts import CANARY, POOLED, registered_name
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.members import MemberState
from tradewind.settings import Settings

if TYPE_CHECKING:
    from registry.tracking import Tracking

log = logging.getLogger("tradewind.serving")

CHAMPION = "champion"
CHALLENGER = "challenger"
SERVED_ALIASES = (CHAMPION, CHALLENGER, CANARY)

Slot = tuple[str, str]
"""Registered name and alias."""


class SnapshotSource(Protocol):
    """What the predictor asks for the present snapshot: the model table."""

    @property
    def snapshot(self) -> Snapshot:
        """Return the present snapshot."""
        ...


class Observer(Protocol):
    """What wants to know of swaps and failures: the metrics, or a test."""

    def swapped(self, slot: Slot, model: LoadedModel) -> None:
        """Take note that ``model`` serves ``slot`` from now on."""

    def load_failed(self, slot: Slot, version: int, reason: str) -> None:
        """Take note that a version could not be loaded, and why."""

    def recovered(self, slot: Slot) -> None:
        """Take note that nothing that cannot be loaded is wanted for ``slot`` any more."""

    def withdrawn(self, slot: Slot) -> None:
        """Take note that the alias was taken away, and nothing serves the slot any more."""

    def registry_reachable(self, reachable: bool) -> None:
        """Take note of the outcome of a poll."""

    def members_read(self, members: MemberTable) -> None:
        """Take note of the members' states, as known by now."""


@dataclass(frozen=True)
class Failure:
    """A version that could not be loaded; tried again after ``retry_at`` (monotonic s)."""

    version: int
    reason: str
    retry_at: float


@dataclass(frozen=True)
class Snapshot:
    """Everything a request needs to know about models, as of one moment."""

    models: Mapping[Slot, LoadedModel] = field(default_factory=dict)
    wanted: Mapping[Slot, int] = field(default_factory=dict)
    failures: Mapping[Slot, Failure] = field(default_factory=dict)
    swapped_ms: Mapping[Slot, int] = field(default_factory=dict)
    members: MemberTable = field(default_factory=MemberTable)
    problem: TradewindError | None = None
    read: bool = False

    def resolve(self, family: str, symbol: str, alias: str = CHAMPION) -> LoadedModel | None:
        """Return the model that serves ``symbol``: its own, else the pooled one, else None."""
        slot = self.slot(family, symbol, alias)
        return self.models.get(slot) if slot else None

    def beside(self, model: LoadedModel, symbol: str, alias: str) -> LoadedModel | None:
        """Return the version under ``alias`` that as champion would take the place of ``model``.

        A pooled one would not where the symbol has a champion of its own.
        """
        family, key = model.registered.family, model.registered.key
        found = self.resolve(family, symbol, alias)
        return None if found is None or found.registered.key not in (symbol, key) else found

    def slot(self, family: str, symbol: str, alias: str = CHAMPION) -> Slot | None:
        """Return the slot that answers for ``symbol``, loaded or still wanted."""
        for key in (symbol, POOLED):
            slot = (registered_name(family, key), alias)
            if slot in self.models or slot in self.wanted:
                return slot
        return None

    def is_disabled(self, model: LoadedModel, symbol: str) -> bool:
        """Tell whether the supervisor has taken the model out, for a symbol or altogether."""
        return self.disabling(model, symbol) is not None

    def disabling(self, model: LoadedModel, symbol: str) -> MemberState | None:
        """Return the state that has taken the model out, for a symbol or altogether."""
        family = model.registered.family
        states = (self.members.states.get((family, key)) for key in (symbol, model.registered.key))
        return next((state for state in states if state and not state.enabled), None)

    def not_ready(self, settings: Settings, expiry: Expiry) -> TradewindError | None:
        """Return why this snapshot cannot serve every traded symbol, None if it can."""
        if not self.read:
            return self.problem or TradewindError(
                ErrorCode.NO_CHAMPION,
                "the registry has not been read yet",
                "Wait some seconds; models are being loaded",
            )
        missing = [
            f"{name} version {version}"
            for (name, alias), version in self.wanted.items()
            if alias == CHAMPION and (name, alias) not in self.models
        ]
        if missing:
            reasons = "; ".join(item.reason for item in self.failures.values())
            return TradewindError(
                ErrorCode.MODEL_UNUSABLE,
                f"not loaded: {', '.join(missing)}" + (f" ({reasons})" if reasons else ""),
                "Roll back with the job `rollback`, or train again",
            )
        families = settings.training.families
        expired: list[LoadedModel] = []
        for symbol in settings.market.symbols:
            resolved = (self.resolve(family, symbol) for family in families)
            models = [model for model in resolved if model is not None]
            if not models:
                return no_champion(" or ".join(families), symbol)
            if all(expiry.expired(model) for model in models):
                expired += models
        return expiry.error(expired) if expired else None


def no_champion(family: str, symbol: str) -> TradewindError:
    """Return the error for a symbol that no champion of ``family`` serves."""
    return TradewindError(
        ErrorCode.NO_CHAMPION,
        f"no champion of {family} serves {symbol}",
        f"Run `tradewind train -s {symbol}`, or launch the Dagster job `retrain` for {symbol}",
    )


def unavailable(snapshot: Snapshot, family: str, symbol: str) -> TradewindError:
    """Return why no model answers: registry never read, version not loadable, or none."""
    if not snapshot.read:
        return snapshot.problem or TradewindError(
            ErrorCode.OVERLOADED,
            "serving has just started and is loading its models",
            "Ask again after the time in Retry-After",
        )
    slot = snapshot.slot(family, symbol)
    failure = snapshot.failures.get(slot) if slot else None
    if slot and failure:
        return TradewindError(
            ErrorCode.MODEL_UNUSABLE,
            f"champion {slot[0]} version {failure.version} cannot be loaded ({failure.reason})",
            "Roll back with the Dagster job `rollback`, or train again",
        )
    return no_champion(family, symbol)


class ModelTable:
    """Follows the registry's aliases; `refresh` is called again and again.

    Parameters
    ----------
    connect
        Opens the registry; called again after each failure, so that serving may start
        before the tracking server does.
    load
        Fetches, loads and warms a version: (tracking, name, version).
    read_members
        Returns the states of the members, as the ledger has them.
    observer
        Told of swaps, failures and polls.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connect: Callable[[], Tracking],
        load: Callable[[Tracking, str, int], LoadedModel],
        read_members: Callable[[], Sequence[MemberState]],
        observer: Observer,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._load = load
        self._read_members = read_members
        self._observer = observer
        self._tracking: Tracking | None = None
        self._snapshot = Snapshot()
        # Two threads replace it: the one that reads members must not undo a swap of models.
        self._replacing = threading.Lock()

    @property
    def snapshot(self) -> Snapshot:
        """Return the present snapshot; take it once per request."""
        return self._snapshot

    def refresh(self) -> None:
        """Poll once: read the members, load what is new, drop what has no alias any more, swap.

        An unreachable registry changes nothing but the snapshot's ``problem``.
        """
        self.refresh_members()
        try:
            if self._tracking is None:
                self._tracking = self._connect()
            table = versions.alias_table(self._tracking)
        except TradewindError as problem:
            if self._snapshot.problem is None:
                log.warning("registry unreachable, loaded versions go on serving: %s", problem)
            self._observer.registry_reachable(False)
            with self._replacing:
                self._snapshot = replace(self._snapshot, problem=problem)
            return
        self._observer.registry_reachable(True)
        self._swap_in(dict(self._wanted(table)))

    def refresh_members(self) -> None:
        """Read the members' states; a ledger that is away leaves the last known ones."""
        before = self._snapshot.members
        try:
            now = MemberTable.of(self._read_members())
        except TradewindError as problem:
            if before.problem is None:
                log.warning("member states cannot be read, the last known ones hold: %s", problem)
            now = replace(before, problem=problem)
        if before.problem is not None and now.problem is None:
            log.info("member states can be read again")
        for text in told(before, now):
            log.warning("%s", text)
        with self._replacing:
            self._snapshot = replace(self._snapshot, members=now)
        self._observer.members_read(now)

    def _wanted(self, table: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[Slot, int]]:
        """Yield the slots of our families that can answer for a traded symbol."""
        for family in self._settings.training.families:
            for key in (*self._settings.market.symbols, POOLED):
                name = registered_name(family, key)
                for alias in SERVED_ALIASES:
                    if alias in table.get(name, {}):
                        yield (name, alias), table[name][alias]

    def _swap_in(self, wanted: dict[Slot, int]) -> None:
        before = self._snapshot
        models: dict[Slot, LoadedModel] = {}
        failures: dict[Slot, Failure] = {}
        swapped: dict[Slot, LoadedModel] = {}
        loaded = {(m.registered.name, m.registered.version): m for m in before.models.values()}
        for slot, version in wanted.items():
            old = before.models.get(slot)
            if old is not None and old.registered.version == version:
                models[slot] = old
                continue
            outcome = self._model(slot, version, loaded, before.failures.get(slot))
            if isinstance(outcome, Failure):
                failures[slot] = outcome
                if old is not None:
                    models[slot] = old
            else:
                models[slot] = swapped[slot] = outcome
                loaded[slot[0], version] = outcome
        now_ms = time.time_ns() // 1_000_000
        with self._replacing:
            self._snapshot = Snapshot(
                models=models,
                wanted=wanted,
                failures=failures,
                swapped_ms={**before.swapped_ms, **dict.fromkeys(swapped, now_ms)},
                members=self._snapshot.members,
                read=True,
            )
        for slot, model in swapped.items():
            log.info("%s of %s is now version %s", slot[1], slot[0], model.registered.version)
            self._observer.swapped(slot, model)
        for slot in before.failures.keys() - failures.keys() - swapped.keys():
            log.info(
                "%s of %s is taken back from a version that cannot be loaded", slot[1], slot[0]
            )
            self._observer.recovered(slot)
        for slot in before.models.keys() - models.keys():
            self._observer.withdrawn(slot)
        if swapped:
            _freeze()

    def _model(
        self,
        slot: Slot,
        version: int,
        loaded: Mapping[tuple[str, int], LoadedModel],
        failed: Failure | None,
    ) -> LoadedModel | Failure:
        """Return the version from memory or freshly loaded, else why there is none."""
        name, _ = slot
        if (name, version) in loaded:
            return loaded[name, version]
        if failed and failed.version == version and time.monotonic() < failed.retry_at:
            return failed
        assert self._tracking is not None
        try:
            return self._load(self._tracking, name, version)
        except Exception as error:  # whatever is wrong with a version, the old one serves
            log.exception("%s version %s cannot be loaded; the old one serves", name, version)
            self._observer.load_failed(slot, version, str(error))
            retry_at = time.monotonic() + self._settings.serving.reload_retry_s
            return Failure(version, _first_line(error), retry_at)


def _first_line(error: Exception) -> str:
    detail = (
        error.detail if isinstance(error, TradewindError) else f"{type(error).__name__}: {error}"
    )
    return detail.split("\n", 1)[0]


def _freeze() -> None:
    """Take the loaded models out of the garbage collector's rounds (p99 of a request).

    What is frozen stays so: a version that is swapped out goes with its last reference, and
    collecting among everything again would stop every request for a quarter of a second.
    """
    gc.collect()
    gc.freeze()
    # The collector's last full count decides when the next full round comes: a quarter of what
    # it counted has to be new. Counted with all that is frozen, it would hardly ever come.
    gc.collect()
