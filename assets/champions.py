"""What is known of the champions: registry, ledger and the measurements on the asset graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
        asking = {item.version: item.why for item in ledger.members() if item.retrain}
    states = []
    for version in champions:
        unit = Unit(version.family, version.key)
        known = version.key in settings.market.symbols or version.key == POOLED
        if known and version.family in settings.training.families:
            states.append(_state(settings, instance, unit, version, trades, asking))
    return states, now_ms


def _state(
    settings: Settings,
    instance: DagsterInstance,
    unit: Unit,
    version: RegisteredVersion,
    trades: pl.DataFrame,
    asking: Mapping[str, str],
) -> ChampionState:
    import polars as pl

    seen = _drift(instance, unit, version.label)
    own = trades.filter(pl.col("symbol").is_in(list(unit_symbols(settings, unit))))
    return ChampionState(
        unit=unit,
        version=version.version,
        data_end_ms=int(version.tags["data_end_ms"]),
        drift=seen.status,
        worst_psi=seen.worst_psi,
        trades=tuple(
            ClosedTrade(row["opened_ms"], row["pnl"]) for row in own.iter_rows(named=True)
        ),
        concept=seen.concept,
        concept_z=seen.concept_z,
        supervisor=asking.get(version.label),
        worst_feature=seen.worst_feature,
    )


@dataclass(frozen=True)
class _Seen:
    """The newest measurement of a version's drift; None where there is none."""

    status: str | None = None
    worst_psi: float | None = None
    concept: str | None = None
    concept_z: float | None = None
    worst_feature: str | None = None


def _drift(instance: DagsterInstance, unit: Unit, label: str) -> _Seen:
    """Return the newest drift of this version as the job `drift` observed it."""
    from dagster import AssetRecordsFilter

    wanted = AssetRecordsFilter(family_key(unit.family, "drift"), asset_partitions=[unit.key])
    found = instance.fetch_observations(wanted, limit=1).records
    observed = found[0].asset_observation if found else None
    if observed is None or observed.metadata["version"].value != label:
        return _Seen()
    shown = {name: value.value for name, value in observed.metadata.items()}
    psi = {name: float(str(value)) for name, value in shown.items() if name.startswith("psi_")}
    # Where each column has a limit of its own, the worst is not the one of the largest PSI.
    worst = psi.get(f"psi_{shown.get('worst_feature')}", max(psi.values(), default=None))
    z = shown.get("concept_z")
    return _Seen(
        status=str(shown["status"]),
        worst_psi=worst,
        worst_feature=str(shown["worst_feature"]) if "worst_feature" in shown else None,
        concept=str(shown["concept"]) if "concept" in shown else None,
        concept_z=None if z is None else float(str(z)),
    )
