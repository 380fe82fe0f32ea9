"""A unit is what one retraining fans out over: a family for a symbol, or for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tradewind.contracts import POOLED, registered_name
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings


@dataclass(frozen=True)
class Unit:
    """One registered model to be: ``family`` for ``key`` (a symbol or POOLED)."""

    family: str
    key: str

    @property
    def name(self) -> str:
        """Return the registered model's name."""
        return registered_name(self.family, self.key)

    @property
    def mapping_key(self) -> str:
        """Return the key of this unit's branch of the fan-out."""
        return f"{self.family}_{self.key}"


def plan_units(
    settings: Settings, symbols: Sequence[str] | None = None, families: Sequence[str] | None = None
) -> list[Unit]:
    """Return the units of a retraining, the slow pooled ones first.

    Named symbols get models of their own, which serve them before the pooled one; without
    names, families of ``training.pooled_families`` are trained once over all symbols.

    Raises
    ------
    TradewindError
        ``unknown_symbol`` or ``bad_input`` for a symbol or family the settings do not name.
    """
    chosen = tuple(symbols or settings.market.symbols)
    unknown = [symbol for symbol in chosen if symbol not in settings.market.symbols]
    if unknown:
        raise TradewindError(
            ErrorCode.UNKNOWN_SYMBOL,
            f"symbols {unknown} are not in market.symbols {list(settings.market.symbols)}",
            "Choose from the list, or add them to TRADEWIND_MARKET__SYMBOLS and ingest first",
        )
    wanted = tuple(families or settings.training.families)
    strange = [family for family in wanted if family not in settings.training.families]
    if strange:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"families {strange} are not in training.families {list(settings.training.families)}",
            "Choose from the list, or add them to TRADEWIND_TRAINING__FAMILIES",
        )
    pooled = () if symbols else settings.training.pooled_families
    return [Unit(family, POOLED) for family in wanted if family in pooled] + [
        Unit(family, symbol) for family in wanted if family not in pooled for symbol in chosen
    ]


def unit_symbols(settings: Settings, unit: Unit) -> tuple[str, ...]:
    """Return the symbols whose rows a unit learns from."""
    return settings.market.symbols if unit.key == POOLED else (unit.key,)
