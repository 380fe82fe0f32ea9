"""XGBoost: the same bag as LightGBM's, on XGBoost's own histogram trees."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import xgboost

from tradewind.models._bagged_trees import (
    BaggedTrees,
    BoosterSizes,
    Grown,
    Labels,
    Objective,
    Target,
)
from tradewind.models.base import FloatArray, Samples

LOSSES = {"direction": ("binary:logistic", "logloss"), "size": ("reg:squarederror", "rmse")}
"""XGBoost's names of the objective and of the metric that stops it."""
MAX_BINS = 255
"""Histogram bins of a feature, as many as LightGBM takes."""
FORMAT = "ubj"


class XGBoostForecaster(BaggedTrees[xgboost.Booster]):
    """XGBoost's histogram trees, grown leaf by leaf."""

    family: ClassVar[str] = "xgboost"
    suffix: ClassVar[str] = f".{FORMAT}"

    def _target(
        self, objective: Objective, train: Samples, valid: Samples, labels: Labels
    ) -> Target[xgboost.Booster]:
        return _Target(objective, self.sizes, train, valid, labels)

    def _values(self, booster: xgboost.Booster, wide: FloatArray) -> FloatArray:
        return np.asarray(booster.inplace_predict(wide), dtype=np.float64)

    def _written(self, booster: xgboost.Booster) -> bytes:
        return bytes(booster.save_raw(FORMAT))

    def _read(self, content: bytes) -> xgboost.Booster:
        return _booster(content)

    def _rounds(self, booster: xgboost.Booster) -> int:
        return int(booster.num_boosted_rounds())

    def _gain(self, booster: xgboost.Booster) -> FloatArray:
        gain = np.zeros(len(self.wide_names))
        for name, value in booster.get_score(importance_type="total_gain").items():
            gain[int(name.removeprefix("f"))] = value
        return gain


class _Target:
    """One label with its binned rows, from which XGBoost grows boosters of several seeds."""

    def __init__(
        self,
        objective: Objective,
        sizes: BoosterSizes,
        train: Samples,
        valid: Samples,
        labels: Labels,
    ) -> None:
        self.objective, self.metric = LOSSES[objective]
        self.sizes = sizes
        common = {"nthread": 1, "max_bin": MAX_BINS}
        self.train = xgboost.QuantileDMatrix(train.wide, labels[0], **common)
        self.valid = xgboost.QuantileDMatrix(valid.wide, labels[1], ref=self.train, **common)
        self.leaf_weight = sizes.min_leaf_share * len(train) * _row_weight(objective, labels[0])

    def grow(self, seed: int, rounds: int | None = None) -> Grown[xgboost.Booster]:
        """Return a booster of so many rounds, or cut at its best validation round."""
        if rounds is not None:
            grown = xgboost.train(self._params(seed), self.train, num_boost_round=rounds)
            return _kept(grown, rounds, np.nan)
        booster = xgboost.train(
            self._params(seed),
            self.train,
            num_boost_round=self.sizes.max_rounds,
            evals=[(self.valid, "valid")],
            early_stopping_rounds=self.sizes.patience,
            verbose_eval=False,
        )
        best = float(booster.best_score)
        loss = best**2 if self.metric == "rmse" else best
        return _kept(booster, max(booster.best_iteration + 1, self.sizes.least), loss)

    def _params(self, seed: int) -> dict[str, Any]:
        sizes = self.sizes
        return {
            "objective": self.objective,
            "eval_metric": self.metric,
            "tree_method": "hist",
            "grow_policy": "lossguide",
            "max_leaves": sizes.num_leaves,
            "max_depth": 0,
            "max_bin": MAX_BINS,
            "learning_rate": sizes.learning_rate,
            "min_child_weight": self.leaf_weight,
            "colsample_bytree": sizes.feature_fraction,
            "subsample": sizes.bagging_fraction,
            "reg_lambda": sizes.lambda_l2,
            "seed": seed,
            "device": "cpu",
            "nthread": 1,
            "verbosity": 1,
        }


def _row_weight(objective: Objective, labels: FloatArray) -> float:
    """Return the second derivative of one row's loss, in which XGBoost counts a leaf's rows."""
    if objective == "size":
        return 1.0
    rate = float(labels.mean())
    return rate * (1 - rate)


def _booster(content: bytes) -> xgboost.Booster:
    """Return the booster of its bytes, with one thread; XGBoost's errors are ValueErrors."""
    booster = xgboost.Booster(model_file=bytearray(content))
    booster.set_param({"nthread": 1})
    return booster


def _kept(booster: xgboost.Booster, rounds: int, loss: float) -> Grown[xgboost.Booster]:
    # Through bytes and back, so that what is evaluated is exactly what is saved.
    kept = _booster(bytes(booster[:rounds].save_raw(FORMAT)))
    return Grown(kept, loss, kept.num_boosted_rounds())
