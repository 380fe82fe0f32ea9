"""A version chosen by the caller, for looking into it: by number, by name, or by alias.

What the aliases serve is in memory; any other version is fetched, loaded and warmed in the
thread of the request that asks for it, and the last few of them are kept.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from registry import versions
from serving.loaded import LoadedModel
from serving.models import CHALLENGER, CHAMPION, SERVED_ALIASES, Snapshot, unavailable
from tradewind.contracts import POOLED, registered_name
from tradewind.errors import ErrorCode, TradewindError

if TYPE_CHECKING:
    from registry.tracking import Tracking

PINNED: Final = "pinned"
"""``served_by`` of an answer of a version that was asked for by its number."""
MOST_DIGITS = 9
FORM = re.compile(rf"(?:(?P<name>tradewind\.[^/]+)/)?(?P<number>[0-9]{{1,{MOST_DIGITS}}})")


@dataclass(frozen=True)
class Pin:
    """A version asked for: ``alias``, or ``number`` of ``name`` (of whatever serves, if None)."""

    alias: str | None = None
    name: str | None = None
    number: int = 0

    @property
    def served_by(self) -> str:
        """Return what the answer is marked with."""
        return self.alias or PINNED


def parse_pin(model_version: str | None, alias: str | None, *, shadow: bool = False) -> Pin | None:
    """Return what a request asks for, None where it leaves the choice to serving.

    Raises
    ------
    TradewindError
        ``bad_input`` for more than one way to choose, a version of another form, or an alias
        that serving does not follow.
    """
    if (model_version is not None) + (alias is not None) + shadow > 1:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"model_version = {model_version!r}, alias = {alias!r}, shadow = {int(shadow)}: "
            "each of them chooses a version",
            "Give one of model_version, alias and shadow=1",
        )
    if alias is not None:
        if alias not in SERVED_ALIASES:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"alias = {alias!r} is not one that serving follows",
                f"Known aliases: {', '.join(SERVED_ALIASES)}",
            )
        return Pin(alias=alias)
    if model_version is None:
        return None
    found = FORM.fullmatch(model_version)
    if found is None:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"model_version = {model_version!r} is neither a number nor tradewind.FAMILY.KEY/N",
            "Give it as answers name it, or a number alone; /ml/models/status lists what serves",
        )
    return Pin(name=found["name"], number=int(found["number"]))


class PinnedVersions:
    """Finds pinned versions, and keeps the last ``capacity`` of those it had to load itself.

    Parameters
    ----------
    connect
        Opens the registry; called by the first look, and again after one that failed.
    load
        Fetches, loads and warms a version: (tracking, name, version).
    """

    def __init__(
        self,
        connect: Callable[[], Tracking],
        load: Callable[[Tracking, str, int], LoadedModel],
        *,
        capacity: int,
    ) -> None:
        self._connect = connect
        self._load = load
        self._capacity = capacity
        self._tracking: Tracking | None = None
        self._kept: OrderedDict[tuple[str, int], LoadedModel] = OrderedDict()
        self._mutex = threading.Lock()
        self._loading = threading.Lock()

    def find(self, snapshot: Snapshot, family: str, symbol: str, pin: Pin) -> LoadedModel:
        """Return the version that ``pin`` names, for a symbol.

        Raises
        ------
        TradewindError
            ``unknown_version`` naming those that exist; ``bad_input`` for one of another
            family or symbol; ``overloaded`` while another one is being loaded; or why it
            cannot be loaded.
        """
        if pin.alias is not None:
            return _of_alias(snapshot, family, symbol, pin.alias)
        name = pin.name or _serving_name(snapshot, family, symbol)
        allowed = [registered_name(family, key) for key in (symbol, POOLED)]
        if name not in allowed:
            raise TradewindError(
                ErrorCode.UNKNOWN_VERSION,
                f"model_version = '{name}/{pin.number}' does not answer here for {symbol}",
                f"Ask for a version of {' or '.join(allowed)}",
            )
        for model in snapshot.models.values():
            if (model.registered.name, model.registered.version) == (name, pin.number):
                return model
        return self._own(name, pin.number)

    def _own(self, name: str, number: int) -> LoadedModel:
        """Return a version that no alias serves, from what is kept or freshly loaded."""
        with self._mutex:
            if (name, number) in self._kept:
                self._kept.move_to_end((name, number))
                return self._kept[name, number]
        # One at a time, and no waiting: loads must not use up the threads that answer others.
        if not self._loading.acquire(blocking=False):
            raise TradewindError(
                ErrorCode.OVERLOADED,
                f"{name}/{number} has to be loaded, and another pinned version is being loaded",
                "Ask again after the time in Retry-After",
            )
        try:
            if self._tracking is None:
                self._tracking = self._connect()
            self._check_exists(self._tracking, name, number)
            model = self._load(self._tracking, name, number)
        finally:
            self._loading.release()
        with self._mutex:
            self._kept[name, number] = model
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return model

    def _check_exists(self, tracking: Tracking, name: str, number: int) -> None:
        try:
            versions.get_version(tracking, name, version=number)
        except TradewindError as error:
            if error.code is not ErrorCode.BAD_INPUT:
                raise
            raise TradewindError(ErrorCode.UNKNOWN_VERSION, error.detail, error.hint) from error


def _of_alias(snapshot: Snapshot, family: str, symbol: str, alias: str) -> LoadedModel:
    model = snapshot.resolve(family, symbol, alias)
    if model is not None:
        return model
    if alias == CHAMPION:
        raise unavailable(snapshot, family, symbol)
    there = [name for name in SERVED_ALIASES if snapshot.resolve(family, symbol, name)]
    raise TradewindError(
        ErrorCode.NO_CHALLENGER if alias == CHALLENGER else ErrorCode.UNKNOWN_VERSION,
        f"no version of {family} has the alias {alias} for {symbol}",
        f"Aliases that there are: {', '.join(there) or 'none'}",
    )


def _serving_name(snapshot: Snapshot, family: str, symbol: str) -> str:
    """Return the registered name that a bare number is of: the champion's, else the pooled."""
    slot = snapshot.slot(family, symbol)
    return slot[0] if slot else registered_name(family, POOLED)
