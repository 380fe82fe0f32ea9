"""The settings of training, its gates, and what asks for a retraining."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from tradewind._settings_base import Fraction, Section


class TrainingSettings(Section):
    """Labels, splits and fitting."""

    horizon: int = Field(16, ge=1, description="bars ahead that a label looks")
    days_back: int = Field(180, ge=20, description="days of labelled bars up to now")
    families: tuple[
        Literal["lightgbm", "xgboost", "transformer", "nhits", "patchtst", "gru"], ...
    ] = (
        "lightgbm",
        "transformer",
    )
    pooled_families: tuple[str, ...] = Field(
        ("lightgbm", "xgboost", "transformer", "nhits", "patchtst", "gru"),
        description="families trained once over all symbols",
    )
    split: tuple[float, float, float, float] = Field(
        (0.50, 0.15, 0.15, 0.20), description="train, validation, calibration, test shares"
    )
    seed: int = 7
    bag: int = Field(5, ge=2, description="boosted-tree seeds, the source of epistemic spread")
    epochs: int = Field(30, ge=1)
    max_epoch_samples: int = Field(20_000, ge=100, description="deep samples drawn per epoch")
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(3e-4, gt=0)
    dropout: float = Field(0.1, gt=0, lt=1)
    walk_forward_folds: int = Field(26, ge=1, description="folds wanted, boosted trees")
    fold_days: int = Field(7, ge=1, description="days between two emulated retrainings")
    deep_folds: int = Field(4, ge=1, description="folds over the same span, deep families")
    bootstrap_samples: int = Field(1000, ge=100)
    judge_passes: int = Field(20, ge=2, le=1000, description="passes where deep models are judged")
    judge_stride: int = Field(2, ge=1, description="deep families are judged on every k-th bar")
    calibrate_stride: int = Field(4, ge=1, description="deep families are calibrated on these")

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> TrainingSettings:
        if abs(sum(self.split) - 1) > 1e-9 or min(self.split) <= 0:
            raise ValueError(f"split {self.split} must be four positive shares that sum to 1")
        return self


class CalibrationSettings(Section):
    """Probability calibration and its release gate."""

    ece_bins: int = Field(15, ge=5)
    ece_gate: Fraction = 0.05
    min_gate_rows: int = Field(6000, ge=100, description="out-of-sample rows the ECE gate needs")
    live_days: int = Field(7, ge=1, description="days of served predictions that recalibrate")
    live_min_labels: int = Field(
        300, ge=100, description="realised labels of a version that its recalibration needs"
    )
    live_history_days: int = Field(
        90, ge=7, description="days of served predictions that a recalibration's ECE is over"
    )
    interval_level: float = Field(
        0.9, gt=0, lt=1, description="share of future returns that mu_low … mu_high shall hold"
    )


class GateSettings(Section):
    """Release gates; identical in every profile."""

    min_accuracy: Fraction = 0.52
    confidence_level: Fraction = 0.95
    promotion_alpha: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="chance, over all reviews, that a challenger no better than the champion "
        "takes its place",
    )
    promotion_looks: int = Field(
        2, ge=1, description="looks at a challenger that share it; there are no more than these"
    )
    promotion_growth: float = Field(
        2, gt=1, description="days new to both at a look, over those at the look before"
    )
    promotion_min_rows: int = Field(
        300, ge=30, description="rows new to both that a comparison with the champion needs"
    )
    promotion_min_days: int = Field(5, ge=3, description="days of such rows that it needs")


class LiveMetricSettings(Section):
    """Figures of what was served, once its outcome is known."""

    window_days: tuple[int, ...] = Field(
        (1, 7, 30), min_length=1, description="days that live metrics are over, shortest first"
    )
    history_days: int = Field(30, ge=1, description="days back that have a point each")
    min_labels: int = Field(50, ge=2, description="outcomes below which only their number is told")

    @field_validator("window_days")
    @classmethod
    def _rising(cls, days: tuple[int, ...]) -> tuple[int, ...]:
        if min(days) < 1 or list(days) != sorted(set(days)):
            raise ValueError(f"window_days {days} must be whole days from 1, rising")
        return days


class DriftSettings(Section):
    """Population stability of the inputs, and the log-loss of what was said of the outcomes."""

    bins: int = Field(10, ge=4)
    warn: float = Field(0.1, gt=0)
    alert: float = Field(0.2, gt=0)
    recent_days: int = Field(7, ge=1, description="days of the window that is compared")
    usual: bool = Field(
        True, description="alarm only beyond what windows of the version's own history showed"
    )
    usual_factor: float = Field(
        2.0, ge=1, description="times the largest PSI of its history above which a column alarms"
    )
    dead_bars: int = Field(48, ge=2, description="bars without a change after which a feed is dead")
    concept_days: int = Field(30, ge=2, description="days of answers that concept drift is over")
    concept_min_blocks: int = Field(
        5, ge=3, description="days of answers without which concept drift is not judged"
    )
    concept_warn_z: float = Field(2.0, gt=0, description="standard errors of excess log-loss")
    concept_alert_z: float = Field(3.0, gt=0, description="and those that ask for a retraining")


class RetrainTriggerSettings(Section):
    """When the sensor `retrain_when_needed` asks for a retraining."""

    new_trades: int = Field(100, ge=1, description="closed trades since the champion's training")
    win_rate_trades: int = Field(50, ge=1, description="latest trades that the win rate is over")
    min_win_rate: Fraction = Field(0.5, description="share of winning trades below which to ask")
    pause_hours: float = Field(6, ge=0, description="least time between two requests")
    most_a_week: int = Field(3, ge=1, description="requests for one champion in any seven days")
    backoff_hours: float = Field(
        6, gt=0, description="wait after a failed retraining; doubled by each further failure"
    )
    max_backoff_hours: float = Field(96, gt=0, description="longest wait after failures")
    check_s: int = Field(300, ge=30, description="seconds between two looks")
