"""Updates of served probabilities: composed maps, what they need, and no look ahead."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import FloatArray
from tradewind.models.calibration import Calibrator
from tradewind.models.live_calibration import Answered, fit_update, rolled, updated
from tradewind.models.metrics import ece, log_loss
from tradewind.settings import MS_PER_DAY

STEP = 900_000
OLD = (
    Calibrator("identity"),
    Calibrator("temperature", (0.7,)),
    Calibrator("platt", (1.3, -0.1)),
    Calibrator("beta", (0.8, 1.2, 0.05)),
)
UPDATE = st.one_of(
    st.just(Calibrator("identity")),
    st.builds(lambda a: Calibrator("temperature", (a,)), st.floats(0.1, 3)),
    st.builds(lambda a, b: Calibrator("platt", (a, b)), st.floats(0.1, 3), st.floats(-1, 1)),
)
P = np.linspace(0.05, 0.95, 19)


def _served(days: int, *, overconfident: float, seed: int = 0, version: int = 1) -> Answered:
    """Return independent labels whose logit was stated so many times too large."""
    rng = np.random.default_rng(seed)
    ts = np.arange(days * 96, dtype=np.int64) * STEP
    logit = rng.normal(0, 0.5, len(ts))
    y = (rng.random(len(ts)) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    p: FloatArray = 1 / (1 + np.exp(-logit * overconfident))
    return Answered(ts, np.full(len(ts), version), p, y)


@pytest.mark.parametrize("old", OLD)
@given(update=UPDATE)
def test_an_updated_map_is_the_one_after_the_other(old: Calibrator, update: Calibrator) -> None:
    found = updated(old, update)
    np.testing.assert_allclose(found.apply(P), update.apply(old.apply(P)), atol=1e-9)
    assert Calibrator.from_json(found.to_json()) == found


@given(update=UPDATE)
def test_an_isotonic_map_is_updated_at_its_breakpoints(update: Calibrator) -> None:
    old = Calibrator("isotonic", (0.2, 0.5, 0.8), (0.3, 0.5, 0.6))
    found = updated(old, update)
    points = np.array(old.x)
    np.testing.assert_allclose(found.apply(points), update.apply(old.apply(points)), atol=1e-9)
    assert Calibrator.from_json(found.to_json()) == found


def test_overconfidence_is_taken_back_and_calibration_left_alone() -> None:
    choice = fit_update(_served(7, overconfident=3.0), horizon=1, needed=300)
    assert choice.kind in ("temperature", "platt")
    assert choice.calibrator.x[0] == pytest.approx(1 / 3, abs=0.12)
    assert fit_update(_served(7, overconfident=1.0), horizon=1, needed=300).kind == "identity"


@pytest.mark.parametrize("overconfident", [0.5, 2.0, 3.0])
def test_the_following_week_is_forecast_better(overconfident: float) -> None:
    last, following = (_served(7, overconfident=overconfident, seed=seed) for seed in (1, 2))
    update = fit_update(last, horizon=1, needed=300).calibrator
    p = update.apply(following.p_up)
    assert log_loss(p, following.y) < log_loss(following.p_up, following.y) - 0.001
    assert ece(p, following.y, 15) < ece(following.p_up, following.y, 15)


def test_calibrated_weeks_are_mostly_kept_and_never_hurt() -> None:
    changed, harm = 0, []
    for seed in range(25):
        last, following = (_served(7, overconfident=1.0, seed=s) for s in (seed, 100 + seed))
        choice = fit_update(last, horizon=1, needed=300)
        p = choice.calibrator.apply(following.p_up)
        changed += choice.kind != "identity"
        harm.append(log_loss(p, following.y) - log_loss(following.p_up, following.y))
    assert changed <= 8
    assert max(harm) < 0.005
    assert np.mean(harm) < 0.0005


def test_too_few_labels_or_one_class_are_refused() -> None:
    rows = _served(3, overconfident=3.0)
    with pytest.raises(TradewindError, match="288 realised labels") as caught:
        fit_update(rows, horizon=1, needed=300)
    assert caught.value.code is ErrorCode.NOT_ENOUGH_LABELS
    rose = Answered(rows.ts, rows.version, rows.p_up, np.ones(len(rows)))
    with pytest.raises(TradewindError) as caught:
        fit_update(rose, horizon=1, needed=100)
    assert caught.value.code is ErrorCode.NOT_ENOUGH_LABELS


def test_a_day_is_calibrated_by_what_was_known_before_it() -> None:
    rows = _served(10, overconfident=3.0)
    options = {"days": 7, "horizon_ms": 17 * STEP, "horizon": 1, "needed": 200}
    found = rolled(rows, **options)  # type: ignore[arg-type]
    day = rows.ts // MS_PER_DAY
    # The first days have too few labels behind them: an update says nothing of them.
    assert np.isnan(found[day <= 2]).all()
    assert np.isfinite(found[day > 2]).all()
    assert np.abs(found[day >= 4] - 0.5).mean() < 0.6 * np.abs(rows.p_up[day >= 4] - 0.5).mean()
    # Labels that were not yet known at the start of a day change nothing of it.
    late = rows.ts + 17 * STEP >= 8 * MS_PER_DAY
    turned = Answered(rows.ts, rows.version, rows.p_up, np.where(late, 1 - rows.y, rows.y))
    again = rolled(turned, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again[day <= 8], found[day <= 8])
    assert not np.array_equal(again[day == 9], found[day == 9])


def test_versions_do_not_learn_from_each_other() -> None:
    rows = _served(8, overconfident=3.0)
    version = np.where(rows.ts >= 7 * MS_PER_DAY, 2, 1)
    found = rolled(
        Answered(rows.ts, version, rows.p_up, rows.y),
        **{"days": 7, "horizon_ms": STEP, "horizon": 1, "needed": 200},  # type: ignore[arg-type]
    )
    assert np.isnan(found[version == 2]).all()
    assert np.isfinite(found[(version == 1) & (rows.ts >= 3 * MS_PER_DAY)]).all()
