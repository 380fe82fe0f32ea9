"""What is known of the champions: registry, ledger and the measurements on the asset graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.keys import family_key
from assets.retrain_triggers import ChampionState, ClosedTrade
from assets.units import Unit, unit_symbols
from tradewind.contracts import POOLED
from tradewind.settings import Settings

if TYPE_CHECKING:
    import polars as pl
    from dagster import DagsterInstance

    from registry.versions import RegisteredVersion


def champion_states(
    settings: Settings, instance: DagsterInstance
) -> tuple[list[ChampionState], int]:
    """Return the champions of the configured families and symbols, and the market time.

    Raises
    ------
    TradewindError
        ``tracking_unreachable``, ``ledger_unavailable``.
    """
    from registry.tracking import Tracking
    from registry.versions import alias_table, get_version
    from tradewind.ledger import open_clock, open_ledger

    tracking = Tracking(settings)
    champions = [
        get_version(tracking, name, version=aliases["champion"])
        for name, aliases in sorted(alias_table(tracking).items())
        if "champion" in aliases
    ]
    with open_ledger(settings) as ledger:
        now_ms = open_clock(settings, ledger).now_ms()
        trades = ledger.trades()
    states = []
    for version in champions:
        unit = Unit(version.family, version.key)
        known = version.key in settings.market.symbols or version.key == POOLED
        if known and version.family in settings.training.families:
            states.append(_state(settings, instance, unit, version, trades))
    return states, now_ms


def _state(
    settings: Settings,
    instance: DagsterInstance,
    unit: Unit,
    version: RegisteredVersion,
    trades: pl.DataFrame,
) -> ChampionState:
    import polars as pl

    drift, worst_psi = _drift(instance, unit, version.label)
    own = trades.filter(pl.col("symbol").is_in(list(unit_symbols(settings, unit))))
    return ChampionState(
        unit=unit,
        version=version.version,
        data_end_ms=int(version.tags["data_end_ms"]),
        drift=drift,
        worst_psi=worst_psi,
        trades=tuple(
            ClosedTrade(row["opened_ms"], row["pnl"]) for row in own.iter_rows(named=True)
        ),
    )


def _drift(instance: DagsterInstance, unit: Unit, label: str) -> tuple[str | None, float | None]:
    """Return the newest drift of this version as the job `drift` observed it."""
    from dagster import AssetRecordsFilter

    wanted = AssetRecordsFilter(family_key(unit.family, "drift"), asset_partitions=[unit.key])
    found = instance.fetch_observations(wanted, limit=1).records
    observed = found[0].asset_observation if found else None
    if observed is None or observed.metadata["version"].value != label:
        return None, None
    figures = observed.metadata
    psi = [float(str(value.value)) for name, value in figures.items() if name.startswith("psi_")]
    return str(figures["status"].value), max(psi, default=None)
