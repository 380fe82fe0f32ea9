"""The settings of the model families."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tradewind._settings_base import Section


class BoostedSettings(Section):
    """Boosted trees, regularised for a target that is mostly noise."""

    learning_rate: float = Field(0.02, gt=0, le=1)
    num_leaves: int = Field(15, ge=2)
    min_leaf_share: float = Field(0.02, gt=0, lt=0.5, description="least share of rows in a leaf")
    feature_fraction: float = Field(0.5, gt=0, le=1)
    bagging_fraction: float = Field(0.6, gt=0, lt=1, description="rows drawn for each tree")
    lambda_l2: float = Field(10.0, ge=0)
    max_rounds: int = Field(400, ge=1)
    early_stopping_rounds: int = Field(50, ge=1)
    min_rounds: int = Field(
        100, ge=1, description="trees kept at least: weeks of validation are too noisy for fewer"
    )
    fit_stride: int = Field(
        1, ge=1, description="fitted on every k-th bar: neighbours share all but one bar of a label"
    )
    refit: bool = Field(
        True,
        description="fit again, with the rounds found, on the validation and calibration rows too",
    )


class DeepSettings(Section):
    """The transformer's shape and its optimiser's details."""

    d_model: int = Field(128, ge=4)
    heads: int = Field(4, ge=1)
    layers: int = Field(3, ge=2)
    feedforward: int = Field(512, ge=4)
    learning_rate_factor: float = Field(
        0.3, gt=0, description="of training.learning_rate, for the transformer"
    )
    input_clip: float = Field(5.0, gt=0, description="standardised inputs are clipped to ± this")
    weight_decay: float = Field(0.01, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    warmup_share: float = Field(0.05, ge=0, lt=1, description="share of steps with rising rate")
    patience: int = Field(6, ge=1, description="epochs without a better validation loss")
    validation_rows: int = Field(2000, ge=50, description="evenly spaced rows scored per epoch")
    threads: int = Field(1, ge=1, description="threads of one torch process")
    mc_dropout: Literal["all", "last"] = Field(
        "all",
        description="layers of the transformer that drop units in its passes; last: faster, "
        "with another, narrower posterior; decided when a version is trained",
    )
    ensemble_members: int = Field(
        1, ge=1, le=20, description="networks of different seeds that share the passes"
    )

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> DeepSettings:
        if self.d_model % (2 * self.heads):
            raise ValueError(f"d_model {self.d_model} must be a multiple of 2 × heads {self.heads}")
        return self


class NHitsSettings(Section):
    """Sizes of N-HiTS; its optimiser's details are those of ``deep``."""

    pooling: tuple[int, ...] = Field((16, 4, 1), description="max-pooling kernel of each stack")
    downsampling: tuple[int, ...] = Field(
        (16, 4, 1), description="bars per knot of each stack's backcast and forecast"
    )
    blocks: int = Field(1, ge=1, description="blocks in a stack")
    hidden: int = Field(128, ge=4, description="units of a block's hidden layers")
    layers: int = Field(2, ge=1, description="hidden layers of a block")
    learning_rate_factor: float = Field(0.3, gt=0, description="of training.learning_rate")

    @model_validator(mode="after")
    def _one_kernel_per_stack(self) -> NHitsSettings:
        both = (*self.pooling, *self.downsampling)
        if len(self.pooling) != len(self.downsampling) or not both or min(both) < 1:
            raise ValueError(
                f"pooling {self.pooling} and downsampling {self.downsampling} must have one "
                "positive number for each stack"
            )
        return self


class PatchTSTSettings(Section):
    """Sizes of PatchTST; its optimiser's details are those of ``deep``."""

    patch: int = Field(16, ge=1, description="bars in a patch")
    stride: int = Field(8, ge=1, description="bars from one patch to the next")
    d_model: int = Field(64, ge=4)
    heads: int = Field(4, ge=1)
    layers: int = Field(3, ge=1)
    feedforward: int = Field(128, ge=4)
    learning_rate_factor: float = Field(0.03, gt=0, description="of training.learning_rate")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> PatchTSTSettings:
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} must be a multiple of heads {self.heads}")
        return self


class GRUSettings(Section):
    """Sizes of the GRU and its reversion label; its optimiser's details are those of ``deep``."""

    hidden: int = Field(64, ge=2, description="units of each recurrent layer")
    layers: int = Field(2, ge=1)
    learning_rate_factor: float = Field(5.0, gt=0, description="of training.learning_rate")
    stop_atr: float = Field(
        2.0, gt=0, description="reversion label: ATR away from the close that ends the wait"
    )
    min_distance: float = Field(
        1.0, ge=0, description="reversion label: least |z_20|; nearer there is nothing to revert"
    )


class RangeSettings(Section):
    """When inputs are unlike those of training, and what an answer on them is worth."""

    margin: float = Field(
        1.0, ge=0, description="widths of a feature's training range that it may lie outside it"
    )
    window_share: float = Field(
        0.02, ge=0, lt=1, description="share of a deep window's bars that may lie further out"
    )
    action: Literal["flag", "refuse", "off"] = Field(
        "flag",
        description="flag: answer and name the inputs, the policy holds; refuse: no answer; "
        "off: not looked at",
    )
