"""The paired review: who wins, who must not, and that exchanging the two exchanges the verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import FloatArray, IntArray
from tradewind.models.paired_review import (
    PairedReview,
    ReviewVerdict,
    alpha_of_look,
    days_for_look,
    paired_review,
    whole_days,
)
from tradewind.settings import MS_PER_DAY, GateSettings

STEP, HORIZON = 900_000, 16
HORIZON_MS = (HORIZON + 1) * STEP
SETTINGS = GateSettings()
ALPHA = 0.05


def _rows(days: int, symbols: int = 2) -> IntArray:
    bars = np.arange(days * MS_PER_DAY // STEP, dtype=np.int64) * STEP
    return np.repeat(bars, symbols)


def _review(
    ts: IntArray,
    champion: FloatArray,
    challenger: FloatArray,
    y: FloatArray,
    alpha: float = ALPHA,
) -> PairedReview:
    return paired_review(
        ts, champion, challenger, y, horizon_ms=HORIZON_MS, alpha=alpha, settings=SETTINGS
    )


def _outcomes(rng: np.random.Generator, p: FloatArray) -> FloatArray:
    return (rng.random(len(p)) < p).astype(np.float64)


@st.composite
def _forecasts(draw: st.DrawFn) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Draw rows of some days, two forecasts that differ by more or less, and outcomes."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    ts = _rows(draw(st.integers(1, 12)))
    true = rng.uniform(0.2, 0.8, len(ts))
    weight = draw(st.sampled_from([0.0, 0.01, 0.3, 1.0]))
    other = (1 - weight) * true + weight * rng.uniform(0.05, 0.95, len(ts))
    return ts, true, other, _outcomes(rng, true)


@settings(deadline=None, max_examples=50)
@given(_forecasts())
def test_exchanging_the_two_exchanges_the_verdicts(
    given: tuple[IntArray, FloatArray, FloatArray, FloatArray],
) -> None:
    ts, one, other, y = given
    here, there = _review(ts, one, other, y), _review(ts, other, one, y)
    mirrored = {ReviewVerdict.BETTER: ReviewVerdict.WORSE, ReviewVerdict.WORSE: "better"}
    assert there.verdict == mirrored.get(here.verdict, here.verdict)
    if here.difference is not None:
        assert here.low is not None
        assert there.difference == pytest.approx(-here.difference, abs=1e-12)
        assert there.high == pytest.approx(-here.low, abs=1e-12)
        assert (here.p_better, here.p_worse) == pytest.approx((there.p_worse, there.p_better))


@settings(deadline=None, max_examples=50)
@given(_forecasts(), st.floats(0.0001, 0.4999))
def test_equal_forecasts_are_never_better_or_worse(
    given: tuple[IntArray, FloatArray, FloatArray, FloatArray], alpha: float
) -> None:
    ts, one, _, y = given
    found = _review(ts, one, one.copy(), y, alpha)
    assert found.verdict in (ReviewVerdict.NOT_WORSE, ReviewVerdict.TOO_FEW)


@settings(deadline=None, max_examples=50)
@given(_forecasts(), st.integers(0, 10**6))
def test_the_order_of_rows_does_not_matter(
    given: tuple[IntArray, FloatArray, FloatArray, FloatArray], seed: int
) -> None:
    ts, one, other, y = given
    order = np.random.default_rng(seed).permutation(len(ts))
    here, there = _review(ts, one, other, y), _review(ts[order], one[order], other[order], y[order])
    assert (here.verdict, here.rows, here.days) == (there.verdict, there.rows, there.days)
    assert here.figures() == pytest.approx(there.figures(), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(_forecasts())
def test_a_verdict_and_its_interval_agree(
    given: tuple[IntArray, FloatArray, FloatArray, FloatArray],
) -> None:
    ts, one, other, y = given
    found = _review(ts, one, other, y)
    if found.low is not None and found.high is not None and found.low < found.high:
        assert (found.verdict is ReviewVerdict.BETTER) == (found.high < 0)
        assert (found.verdict is ReviewVerdict.WORSE) == (found.low > 0)


def test_who_knows_more_is_better_and_who_knows_less_is_worse() -> None:
    rng = np.random.default_rng(3)
    ts = _rows(14)
    true = rng.uniform(0.3, 0.7, len(ts))
    y = _outcomes(rng, true)
    flat = np.full(len(ts), 0.5)
    better = _review(ts, flat, true, y)
    assert better.verdict is ReviewVerdict.BETTER
    assert better.p_better is not None
    assert better.p_better < 0.001
    assert "better" in better.text
    assert "14 days" in better.text
    assert _review(ts, true, flat, y).verdict is ReviewVerdict.WORSE


def test_the_level_decides() -> None:
    rng = np.random.default_rng(5)
    ts = _rows(10)
    true = rng.uniform(0.45, 0.55, len(ts))
    y = _outcomes(rng, true)
    found = _review(ts, np.full(len(ts), 0.5), true, y, 0.4)
    assert found.p_better is not None
    assert 0 < found.p_better < 0.4
    assert found.verdict is ReviewVerdict.BETTER
    strict = _review(ts, np.full(len(ts), 0.5), true, y, found.p_better / 2)
    assert strict.verdict is ReviewVerdict.NOT_WORSE


def test_labels_that_end_on_another_day_are_left_out() -> None:
    ts = _rows(3, symbols=1)
    whole, day = whole_days(ts, HORIZON_MS)
    assert whole.sum() == 3 * (96 - HORIZON)
    assert set(day) == {0, 1, 2}
    # The label of the last whole row ends as the day does.
    assert ts[whole].max() + HORIZON_MS == 3 * MS_PER_DAY


def test_too_few_rows_or_days_are_not_judged() -> None:
    ts = _rows(SETTINGS.promotion_min_days - 1, symbols=5)
    y = np.zeros(len(ts))
    found = _review(ts, np.full(len(ts), 0.9), np.full(len(ts), 0.1), y)
    assert found.verdict is ReviewVerdict.TOO_FEW
    assert found.figures() == {}
    assert f"{SETTINGS.promotion_min_days} days are needed" in found.text
    thin = _rows(30, symbols=1)[::16]
    found = _review(thin, np.full(len(thin), 0.9), np.full(len(thin), 0.1), np.zeros(len(thin)))
    assert found.verdict is ReviewVerdict.TOO_FEW
    none = np.empty(0)
    empty = _review(none.astype(np.int64), none, none, none)
    assert (empty.verdict, empty.rows, empty.days) == (ReviewVerdict.TOO_FEW, 0, 0)


def test_looks_share_one_level_and_come_to_an_end() -> None:
    rules = GateSettings(promotion_alpha=0.1, promotion_looks=4, promotion_growth=1.5)
    assert alpha_of_look(rules) * rules.promotion_looks == pytest.approx(0.1)
    needed = [days_for_look(rules, 1, 0), days_for_look(rules, 2, 7), days_for_look(rules, 4, 40)]
    assert needed == [rules.promotion_min_days, 11, 60]
    assert days_for_look(rules, 5, 60) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"champion": np.full(960, np.nan)}, "champion_p"),
        ({"challenger": np.full(960, 1.5)}, "challenger_p"),
        ({"challenger": np.full(3, 0.5)}, "shape"),
        ({"y": np.full(960, 0.5)}, "y has values other"),
        ({"alpha": 0.0}, "alpha = 0.0"),
        ({"alpha": float("nan")}, "alpha = nan"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], words: str) -> None:
    ts = _rows(5)
    sound: dict[str, object] = {
        "champion": np.full(len(ts), 0.5),
        "challenger": np.full(len(ts), 0.5),
        "y": np.ones(len(ts)),
        "alpha": ALPHA,
    }
    with pytest.raises(TradewindError, match=words) as caught:
        _review(ts, **{**sound, **change})  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.code is ErrorCode.BAD_INPUT
