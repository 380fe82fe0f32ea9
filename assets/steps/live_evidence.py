"""What a registered model said in live use, what came of it, and the rows it was about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.units import Unit, unit_symbols
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import MS_PER_DAY, Settings

if TYPE_CHECKING:
    import polars as pl

    from registry.tracking import Tracking
    from tradewind.models.base import FloatArray, Samples
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.live_calibration import Answered

MIN_DAYS = 20
"""Days of bars that a training set is built from at least."""
SERVED, ROLLED = "p_up", "rolled"


@dataclass(frozen=True)
class FoundRows:
    """Answers whose features are in the store: rows (n,), and what was said of each, (n,).

    ``served`` is the probability as it was served, ``rolled`` what it would have been, had
    every day begun with a recalibration by what was known before it; days for which too little
    was known are not among them.
    """

    training_set: TrainingSet
    rows: Samples
    served: FloatArray
    rolled: FloatArray


def live_answers(settings: Settings, tracking: Tracking, unit: Unit, now_ms: int) -> pl.DataFrame:
    """Return the answers of ``calibration.live_history_days`` whose outcome is known by now.

    Outcomes that the bars tell are filled in first. An answer about bars that its version was
    made from (a replay set back) is no evidence and left out; where several versions spoke of
    a bar, the last to speak counts. Columns as `realised_answers` has them.
    """
    import polars as pl

    from tradewind.ledger import fill_outcomes, open_ledger
    from tradewind.ledger.answers import realised_answers
    from tradewind.market.ingest import store_for

    with open_ledger(settings) as ledger:
        fill_outcomes(settings, ledger, store_for(settings), now_ms)
        said = realised_answers(
            ledger,
            unit.name,
            horizon=settings.training.horizon,
            timeframe_ms=settings.market.timeframe_ms,
            since_ms=now_ms - settings.calibration.live_history_days * MS_PER_DAY,
            now_ms=now_ms,
        )
    seen = pl.col("version").replace_strict(
        _seen_until(tracking, unit), default=None, return_dtype=pl.Int64
    )
    fresh = said.filter(pl.col("bar_ts") >= seen)
    return fresh.unique(["symbol", "bar_ts"], keep="last", maintain_order=True)


def answered(said: pl.DataFrame) -> Answered:
    """Return the columns of ``said`` as arrays."""
    from tradewind.models.live_calibration import Answered

    names = ("bar_ts", "version", SERVED, "y_up")
    return Answered(*(said[name].to_numpy() for name in names))


def with_rolled(settings: Settings, said: pl.DataFrame) -> pl.DataFrame:
    """Return ``said`` with the column ``rolled``: each day recalibrated by what was known.

    Answers of days before which too little was known are left out.
    """
    import polars as pl

    from tradewind.models.live_calibration import rolled

    calibration, horizon = settings.calibration, settings.training.horizon
    values = rolled(
        answered(said),
        days=calibration.live_days,
        horizon_ms=(horizon + 1) * settings.market.timeframe_ms,
        horizon=horizon,
        needed=calibration.live_min_labels,
    )
    return said.with_columns(pl.Series(ROLLED, values)).filter(pl.col(ROLLED).is_not_nan())


def find_rows(settings: Settings, unit: Unit, said: pl.DataFrame, now_ms: int) -> FoundRows:
    """Return the labelled rows that ``said`` (with its column ``rolled``) is about.

    Every answer of boosted trees; of a deep family those that it is judged on elsewhere too
    (``training.judge_stride``).

    Raises
    ------
    TradewindError
        ``not_enough_labels`` where they are fewer than ``calibration.live_min_labels``: too
        few days to judge by, or bars that are no longer in the store.
    """
    import numpy as np
    import polars as pl

    from tradewind.market.ingest import store_for
    from tradewind.models.dataset import build_training_set
    from tradewind.models.thinning import judged_rows
    from tradewind.models.training import rows_of

    built = build_training_set(
        settings,
        store_for(settings),
        now_ms,
        symbols=unit_symbols(settings, unit),
        days_back=max(MIN_DAYS, settings.calibration.live_days + 1),
    )
    samples = rows_of(built.samples, unit.key)
    known = pl.DataFrame(
        {"symbol": np.array(samples.symbols)[samples.symbol], "bar_ts": samples.ts}
    )
    found = known.with_row_index("row").join(said, on=["symbol", "bar_ts"]).sort("row")
    _check_found(settings, len(found), len(said))
    rows = samples.subset(found["row"].to_numpy().astype(np.int64))
    judged = np.isin(rows.ts, judged_rows(settings, unit.family, rows).ts)
    return FoundRows(
        training_set=built,
        rows=rows.subset(judged),
        served=found[SERVED].to_numpy()[judged],
        rolled=found[ROLLED].to_numpy()[judged],
    )


def _check_found(settings: Settings, found: int, said: int) -> None:
    needed = settings.calibration.live_min_labels
    if found < needed:
        raise TradewindError(
            ErrorCode.NOT_ENOUGH_LABELS,
            f"{said} answers with an outcome are of days that could be recalibrated by the days "
            f"before, and {found} of these have features in the store; {needed} are needed",
            "Let serving answer for another day; if features are missing, run `tradewind ingest`",
        )


def _seen_until(tracking: Tracking, unit: Unit) -> Mapping[int, int]:
    """Return, by version, where the bars end that it was made from."""
    from registry.versions import list_versions

    return {
        version.version: max(
            int(version.tags["data_end_ms"]), int(version.tags.get("calibrated_end_ms", 0))
        )
        for version in list_versions(tracking, unit.name)
    }
