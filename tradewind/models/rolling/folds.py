"""When models would have been refitted over the whole history, and on what.

Trees are refitted every ``evaluation.refit_days``, deep families every
``evaluation.deep_refit_months`` calendar months; all are judged on the same days.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import IntArray
from tradewind.models.families import forecaster_class
from tradewind.models.splits import Fold, fold_between
from tradewind.settings import MS_PER_DAY, EvaluationSettings, Settings

LEAST_TAIL_MS = MS_PER_DAY
"""A shorter rest at the end is judged by the fold before it."""


def fold_settings(settings: Settings) -> Settings:
    """Return the settings that folds of the past are fitted with: the smaller sizes."""
    chosen = settings.evaluation
    training = {
        "bag": chosen.bag,
        "epochs": chosen.epochs,
        "max_epoch_samples": chosen.max_epoch_samples,
        "judge_passes": chosen.passes,
        "judge_stride": chosen.stride,
        "calibrate_stride": chosen.stride,
    }
    boosted = {"max_rounds": chosen.max_rounds, "fit_stride": chosen.fit_stride}
    return settings.model_copy(
        update={
            "training": settings.training.model_copy(update=training),
            "boosted": settings.boosted.model_copy(update=boosted),
        }
    )


def plan_rolling(settings: Settings, ts: IntArray, family: str) -> list[Fold]:
    """Return the folds of ``family`` over the rows ``ts`` (n,), the oldest first.

    A fold at moment t: fit on what lies before t − calib_days − valid_days (at most
    ``days_back_max`` before t), stop early on the ``valid_days``, calibrate on the
    ``calib_days``, judge from t to the next fold. The label's horizon and the embargo are
    left out between them.

    Raises
    ------
    TradewindError
        ``not_enough_bars`` when the history does not reach far enough before or after
        ``evaluation.since``.
    """
    chosen, step = settings.evaluation, settings.market.timeframe_ms
    since, end = since_ms(settings), int(ts.max()) + step if len(ts) else 0
    first = int(ts.min()) if len(ts) else 0
    own_past = (chosen.valid_days + chosen.calib_days) * MS_PER_DAY
    if since - own_past <= first or since >= end:
        raise TradewindError(
            ErrorCode.NOT_ENOUGH_BARS,
            f"evaluation.since = {chosen.since}, but the labelled rows reach from {_day(first)} "
            f"to {_day(end)} and {chosen.valid_days + chosen.calib_days} days before it only "
            "stop and calibrate a fit",
            "Choose a day well inside the history, or ingest more of it",
        )
    purge = (settings.training.horizon + chosen.embargo_bars) * step
    starts = refits(settings, family, end)
    folds = []
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        calib = start - chosen.calib_days * MS_PER_DAY
        valid = calib - chosen.valid_days * MS_PER_DAY
        oldest = first
        if chosen.days_back_max is not None:
            oldest = max(first, start - chosen.days_back_max * MS_PER_DAY)
        folds.append(_fold(chosen, ts, [oldest, valid, calib, start, stop], purge))
    return folds


def plan_record(settings: Settings, ts: IntArray, family: str) -> list[Fold]:
    """Return the folds before those of `plan_rolling`: their forecasts only weigh the members.

    They reach ``evaluation.skill_days`` back, as far as there is as much to fit on as there is
    to stop and to calibrate on; on a shorter history there are none.
    """
    chosen, since = settings.evaluation, since_ms(settings)
    before = np.flatnonzero(ts < since)
    if not len(before):
        return []
    own_past = (chosen.valid_days + chosen.calib_days) * MS_PER_DAY
    oldest = max(since - chosen.skill_days * MS_PER_DAY, int(ts[before].min()) + 2 * own_past)
    refits_before = (since - oldest) // (chosen.refit_days * MS_PER_DAY)
    if refits_before < 1:
        return []
    start = chosen.since - timedelta(days=refits_before * chosen.refit_days)
    earlier = settings.model_copy(update={"evaluation": chosen.model_copy(update={"since": start})})
    return [
        Fold(*(before[rows] for rows in (fold.fit, fold.valid, fold.calib, fold.test)))
        for fold in plan_rolling(earlier, ts[before], family)
    ]


def _fold(chosen: EvaluationSettings, ts: IntArray, bounds: list[int], purge_ms: int) -> Fold:
    """Return the fold between ``bounds``; a slice that is too small is told in our own terms."""
    try:
        return fold_between(ts, bounds, purge_ms=purge_ms)
    except TradewindError as error:
        raise TradewindError(
            error.code,
            f"the fold that is judged from {_day(bounds[3])}: {error.detail}",
            f"Begin later (evaluation.since = {chosen.since}, --since), look further back "
            f"(evaluation.days_back_max = {chosen.days_back_max}, --days-back) than the "
            f"{chosen.valid_days + chosen.calib_days} days that only stop and calibrate a fit, "
            "or ingest more history",
        ) from error


def refits(settings: Settings, family: str, end: int) -> list[int]:
    """Return the moments (epoch ms) at which ``family`` is refitted, up to ``end``."""
    since, chosen = since_ms(settings), settings.evaluation
    if forecaster_class(family).reads_wide:
        starts = list(range(since, end, chosen.refit_days * MS_PER_DAY))
    else:
        months = chosen.deep_refit_months
        starts = [since, *(m for m in _month_starts(chosen.since, end, months) if m > since)]
    return [since, *(start for start in starts[1:] if end - start >= LEAST_TAIL_MS)]


def since_ms(settings: Settings) -> int:
    """Return the first moment that is judged."""
    return _ms(settings.evaluation.since)


def bar_on_stride(settings: Settings, ts: IntArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which rows stand on the bars that all families are compared on, shape (n,)."""
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
        ts // settings.market.timeframe_ms % settings.evaluation.stride == 0
    )
    return found


def _month_starts(since: date, end: int, months: int) -> list[int]:
    """Return firsts of the months 1, 1 + months, … of every year from ``since``'s on."""
    starts, year, month = [], since.year, 1
    while (moment := _ms(date(year, month, 1))) < end:
        starts.append(moment)
        year, month = (year, month + months) if month + months <= 12 else (year + 1, 1)
    return starts


def _ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _day(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d}"
