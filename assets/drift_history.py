"""Past measurements of drift, as the asset graph remembers them, and their picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assets.found import found
from assets.keys import family_key
from assets.units import Unit
from tradewind.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from assets.steps.live_plots import DriftLook

MOST_LOOKS = 120
"""Newest measurements that a picture shows: four months of daily looks."""
LOOKED = "looked"


def drift_looks(
    instance: DagsterInstance, unit: Unit, version: str, figures: Mapping[str, Any]
) -> list[DriftLook]:
    """Return the unit's measurements on the graph and the present one, oldest first.

    Of several at one market time the last counts; those from before there was a market time
    in them are left out.
    """
    from dagster import AssetRecordsFilter

    wanted = AssetRecordsFilter(family_key(unit.family, "drift"), asset_partitions=[unit.key])
    records = instance.fetch_observations(wanted, limit=MOST_LOOKS).records
    looks = []
    for record in reversed(records):
        observed = record.asset_observation
        if observed is not None and LOOKED in observed.metadata:
            shown = {name: value.value for name, value in observed.metadata.items()}
            at_ms = round(float(str(shown[LOOKED])) * 1000)
            looks.append(_look(at_ms, str(shown["version"]), shown))
    looks.append(_look(figures["looked_ms"], version, figures))
    newest = {look.at_ms: look for look in looks}
    return [newest[at_ms] for at_ms in sorted(newest)]


def drift_picture(settings: Settings, unit: Unit, looks: Sequence[DriftLook]) -> dict[str, Any]:
    """Return the picture of drift over time as metadata."""
    from assets.steps.live_plots import drift_plot

    picture = drift_plot(looks, settings.drift, f"{unit.name}: drift, {len(looks)} looks")
    return found(None, {"drift_over_time": picture})


def _look(at_ms: int, version: str, shown: Mapping[str, Any]) -> DriftLook:
    from assets.steps.live_plots import DriftLook

    psi = {name: float(value) for name, value in shown.items() if name.startswith("psi_")}
    over = shown.get("over_limit")
    loss, expected = (shown.get(f"concept_{name}") for name in ("log_loss", "expected_log_loss"))
    return DriftLook(
        at_ms=at_ms,
        version=version,
        worst_psi=psi.get(f"psi_{shown.get('worst_feature')}", max(psi.values())),
        over_limit=None if over is None else float(over),
        log_loss=None if loss is None else float(loss),
        expected_log_loss=None if expected is None else float(expected),
    )
