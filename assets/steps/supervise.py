"""Judge every live member of the ensemble and write down what it may do from now on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from assets.units import Unit, unit_symbols
from tradewind.contracts import POOLED
from tradewind.ledger.members import MemberState
from tradewind.ledger.voices import Voices, voices
from tradewind.models.ensemble import voting_families
from tradewind.models.supervisor import Answers, Evidence, Verdict, judge
from tradewind.settings import MS_PER_DAY, Settings

if TYPE_CHECKING:
    from registry.versions import RegisteredVersion
    from tradewind.ledger import Ledger


@dataclass(frozen=True)
class Judged:
    """A verdict, and whether it stands: another process or a person may have been first."""

    name: str
    verdict: Verdict
    stands: bool


def supervise(settings: Settings, ledger: Ledger, now_ms: int) -> list[Judged]:
    """Judge the champions of the voting families and store their states.

    Raises
    ------
    TradewindError
        ``tracking_unreachable``, ``ledger_unavailable``.
    """
    champions = live_members(settings)
    heard = voices(
        ledger.db,
        horizon=settings.training.horizon,
        timeframe_ms=settings.market.timeframe_ms,
        since_ms=now_ms - settings.supervisor.window_days * MS_PER_DAY,
        now_ms=now_ms,
    )
    states = {(item.family, item.key): item for item in ledger.members()}
    return [
        _judged(
            settings, ledger, champion, heard, states.get((champion.family, champion.key)), now_ms
        )
        for champion in champions
    ]


def live_members(settings: Settings) -> list[RegisteredVersion]:
    """Return the champions that vote for a traded symbol, by name."""
    from registry.tracking import Tracking
    from registry.versions import alias_table, get_version

    tracking = Tracking(settings)
    keys = {*settings.market.symbols, POOLED}
    found = [
        get_version(tracking, name, version=aliases["champion"])
        for name, aliases in sorted(alias_table(tracking).items())
        if "champion" in aliases
    ]
    families = voting_families(settings)
    return [item for item in found if item.family in families and item.key in keys]


def evidence_of(
    heard: Voices, champion: RegisteredVersion, symbols: Sequence[str], base_rate: float
) -> Evidence:
    """Return what one champion's version said and failed, in order of the bars."""
    said = heard.said.filter(
        (pl.col("label") == champion.label) & pl.col("symbol").is_in(list(symbols))
    )
    failed = heard.failed.filter(
        (pl.col("family") == champion.family) & pl.col("symbol").is_in(list(symbols))
    )
    # Those of a version before are not its own.
    failed = failed.filter(pl.col("bar_ts") >= int(champion.tags["data_end_ms"]))
    numbers = {symbol: number for number, symbol in enumerate(sorted(symbols))}
    asked = np.concatenate([said["bar_ts"].to_numpy(), failed["bar_ts"].to_numpy()])
    lost = np.concatenate([np.zeros(len(said), dtype=bool), np.ones(len(failed), dtype=bool)])
    return Evidence(
        champion.family,
        champion.key,
        champion.label,
        Answers(
            said["bar_ts"].to_numpy(),
            np.array([numbers[symbol] for symbol in said["symbol"]], dtype=np.int64),
            said["p_up"].to_numpy(),
            said["y_up"].fill_null(float("nan")).to_numpy(),
            said["latency_ms"].fill_null(float("nan")).to_numpy(),
        ),
        asked,
        lost,
        base_rate,
    )


def _base_rate(settings: Settings, champion: RegisteredVersion) -> float:
    """Return the share of rises that the version was trained on."""
    from registry.tracking import Tracking
    from registry.versions import fetch_bundle
    from tradewind.models.bundle import read_meta

    folder = fetch_bundle(
        Tracking(settings),
        champion.name,
        version=champion.version,
        cache_dir=settings.home / "models",
    )
    return read_meta(folder).base_rate


def _judged(
    settings: Settings,
    ledger: Ledger,
    champion: RegisteredVersion,
    heard: Voices,
    before: MemberState | None,
    now_ms: int,
) -> Judged:
    unit = Unit(champion.family, champion.key)
    symbols, base_rate = unit_symbols(settings, unit), _base_rate(settings, champion)
    evidence = evidence_of(heard, champion, symbols, base_rate)
    verdict = judge(evidence, before, now_ms, settings)
    stands = ledger.judge_member(verdict.after, before)
    return Judged(f"{champion.family}.{champion.key}", verdict, stands)
