"""LightGBM: a bag of direction and return boosters, and one booster of the residual's size."""

from __future__ import annotations

from typing import Any, ClassVar

import lightgbm
import numpy as np

from tradewind.models._bagged_trees import (
    BaggedTrees,
    BoosterSizes,
    Grown,
    Labels,
    Objective,
    Target,
)
from tradewind.models.base import FloatArray, Samples

LOSSES = {"direction": ("binary", "binary_logloss"), "size": ("regression", "l2")}
"""LightGBM's names of the objective and of the metric that stops it."""


class LightGBMForecaster(BaggedTrees[lightgbm.Booster]):
    """LightGBM's leaf-wise histogram trees."""

    family: ClassVar[str] = "lightgbm"
    suffix: ClassVar[str] = ".txt"

    def _target(
        self, objective: Objective, train: Samples, valid: Samples, labels: Labels
    ) -> Target[lightgbm.Booster]:
        return _Target(objective, self.sizes, train, valid, labels)

    def _values(self, booster: lightgbm.Booster, wide: FloatArray) -> FloatArray:
        return np.asarray(booster.predict(wide, num_threads=1))

    def _written(self, booster: lightgbm.Booster) -> bytes:
        text: str = booster.model_to_string()
        return text.encode()

    def _read(self, content: bytes) -> lightgbm.Booster:
        try:
            return lightgbm.Booster(model_str=content.decode())
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(str(error)) from error

    def _rounds(self, booster: lightgbm.Booster) -> int:
        return int(booster.num_trees())

    def _gain(self, booster: lightgbm.Booster) -> FloatArray:
        return np.asarray(booster.feature_importance("gain"), dtype=np.float64)


class _Target:
    """One label, from which LightGBM grows boosters of several seeds."""

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
        self.rows = len(train)
        self.train = train.wide, labels[0]
        self.valid = valid.wide, labels[1]

    def grow(self, seed: int, rounds: int | None = None) -> Grown[lightgbm.Booster]:
        """Return a booster of so many rounds, or cut at its best validation round."""
        params = self._params(seed)
        # Binned anew for each seed, which also draws the rows that bins are made of.
        train = lightgbm.Dataset(self.train[0], self.train[1], params=params)
        if rounds is not None:
            return _kept(lightgbm.train(params, train, num_boost_round=rounds), rounds, np.nan)
        valid = lightgbm.Dataset(self.valid[0], self.valid[1], reference=train, params=params)
        booster = lightgbm.train(
            params,
            train,
            num_boost_round=self.sizes.max_rounds,
            valid_sets=[valid],
            valid_names=["valid"],
            keep_training_booster=True,  # otherwise cut at the best round, short of the least
            callbacks=[lightgbm.early_stopping(self.sizes.patience, verbose=False)],
        )
        best = float(booster.best_score["valid"][self.metric])
        return _kept(booster, max(booster.best_iteration, self.sizes.least), best)

    def _params(self, seed: int) -> dict[str, Any]:
        sizes = self.sizes
        return {
            "objective": self.objective,
            "metric": self.metric,
            "learning_rate": sizes.learning_rate,
            "num_leaves": sizes.num_leaves,
            "min_data_in_leaf": max(1, int(sizes.min_leaf_share * self.rows)),
            "feature_fraction": sizes.feature_fraction,
            "bagging_fraction": sizes.bagging_fraction,
            "bagging_freq": 1,
            "lambda_l2": sizes.lambda_l2,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }


def _kept(booster: lightgbm.Booster, rounds: int, loss: float) -> Grown[lightgbm.Booster]:
    # Through text and back, so that what is evaluated is exactly what is saved.
    kept = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=rounds))
    return Grown(kept, loss, kept.current_iteration())
