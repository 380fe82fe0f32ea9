"""LightGBM: a bag of direction and return boosters, and one booster of the residual's size.

Learnt in units of the trailing volatility (``fwd_ret / scale``), served in log returns.
The spread between the bag's members, which differ in seed only, is the epistemic part.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import lightgbm
import numpy as np

from tradewind.features.definitions import NULLABLE_FEATURES
from tradewind.files import write_bytes, write_json
from tradewind.models.base import (
    CONFIG_FILE,
    EpochHook,
    FitReport,
    FloatArray,
    Forecaster,
    IntArray,
    RawForecast,
    Samples,
    check_inputs,
    check_labels,
    read_config,
    unusable,
)
from tradewind.settings import Settings

SIGMA_FILE = "sigma.txt"
P_MARGIN = 1e-6
"""Keeps probabilities inside (0, 1), where a log-loss exists."""
SIGMA_FLOOR = 1e-3
"""Least sigma, in units of the trailing volatility."""
NORMAL_STD_PER_ABS = float(np.sqrt(np.pi / 2))
"""Standard deviation of a centred normal variable over its mean absolute value."""


@dataclass(frozen=True)
class BoosterSizes:
    """Hyper-parameters of every booster; see `BoostedSettings` for their meaning."""

    bag: int = 5
    learning_rate: float = 0.02
    num_leaves: int = 15
    min_leaf_share: float = 0.02
    feature_fraction: float = 0.5
    bagging_fraction: float = 0.6
    lambda_l2: float = 10.0
    max_rounds: int = 400
    early_stopping_rounds: int = 50


class LightGBMForecaster(Forecaster):
    """Boosted trees on the wide features; NaN is allowed in ``nullable`` columns only."""

    family: ClassVar[str] = "lightgbm"
    reads_wide: ClassVar[bool] = True

    def __init__(
        self, sizes: BoosterSizes | None = None, *, nullable: tuple[str, ...] = ()
    ) -> None:
        self.sizes = sizes or BoosterSizes()
        self.nullable = nullable
        self.wide_names: tuple[str, ...] = ()
        self._direction: list[lightgbm.Booster] = []
        self._return: list[lightgbm.Booster] = []
        self._sigma: lightgbm.Booster | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return an unfitted bag of the sizes in ``settings``."""
        sizes = BoosterSizes(bag=settings.training.bag, **settings.boosted.model_dump())
        return cls(sizes, nullable=NULLABLE_FEATURES)

    def fit(
        self,
        train: Samples,
        valid: Samples,
        *,
        seed: int,
        on_epoch: EpochHook | None = None,
        checkpoint_dir: Path | None = None,
    ) -> FitReport:
        """Fit the bag; one "epoch" is one member. It takes seconds, so it keeps no checkpoint.

        A fit that is run again tells every member again, with the same figures.
        """
        for name, part in (("train", train), ("valid", valid)):
            check_labels(part, name)
            check_inputs(part, reads_wide=True, nullable=self.nullable)
        self.wide_names = train.wide_names
        self._direction, self._return = [], []
        direction = _Task("binary", "binary_logloss", train, valid, train.y_up, valid.y_up)
        targets = train.fwd_ret / train.scale, valid.fwd_ret / valid.scale
        returns = _Task("regression", "l2", train, valid, *targets)
        losses, rounds = [], []
        for member, member_seed in enumerate(_member_seeds(seed, self.sizes.bag + 1)[:-1], 1):
            booster, best = direction.run(self.sizes, member_seed)
            mu_booster, mu_best = returns.run(self.sizes, member_seed)
            self._direction.append(booster)
            self._return.append(mu_booster)
            losses.append(best)
            rounds.append(booster.current_iteration())
            if on_epoch is not None:
                on_epoch(
                    member,
                    {"valid_log_loss": best, "valid_l2": mu_best, "rounds": float(rounds[-1])},
                )
        self._fit_sigma(train, valid, targets, seed)
        return FitReport(
            epochs=self.sizes.bag,
            best_epoch=int(np.argmin(losses)) + 1,
            metrics={
                "valid_log_loss": float(np.mean(losses)),
                "rounds": float(np.mean(rounds)),
            },
        )

    def _fit_sigma(
        self, train: Samples, valid: Samples, targets: tuple[FloatArray, FloatArray], seed: int
    ) -> None:
        residuals = [
            np.abs(target - _predict_bag(self._return, part.wide).mean(axis=0))
            for target, part in zip(targets, (train, valid), strict=True)
        ]
        task = _Task("regression", "l2", train, valid, *residuals)
        self._sigma, _ = task.run(self.sizes, _member_seeds(seed, self.sizes.bag + 1)[-1])

    def sample(self, samples: Samples, *, n_samples: int, seeds: IntArray) -> RawForecast:
        """Return one pass per bag member; ``n_samples`` and ``seeds`` do not matter here."""
        sigma_booster = self._fitted_sigma()
        if samples.wide_names != self.wide_names:
            raise unusable(Path(self.family), "its wide features are not those of the samples")
        check_inputs(samples, reads_wide=True, nullable=self.nullable)
        wide = np.ascontiguousarray(samples.wide)
        p = np.clip(_predict_bag(self._direction, wide), P_MARGIN, 1 - P_MARGIN)
        mu = _predict_bag(self._return, wide) * samples.scale
        residual = _predict_bag([sigma_booster], wide) * NORMAL_STD_PER_ABS
        sigma = np.maximum(residual, SIGMA_FLOOR) * samples.scale
        return RawForecast(p=p, mu=mu, sigma=np.repeat(sigma, len(p), axis=0))

    def save(self, folder: Path) -> None:
        """Write each booster in LightGBM's own text format, and the config last."""
        sigma = self._fitted_sigma()
        named = {SIGMA_FILE: sigma}
        for member, boosters in enumerate(zip(self._direction, self._return, strict=True)):
            named.update(zip(_member_files(member), boosters, strict=True))
        for name, booster in named.items():
            write_bytes(folder / name, booster.model_to_string().encode())
        write_json(
            folder / CONFIG_FILE,
            {
                "family": self.family,
                "sizes": asdict(self.sizes),
                "nullable": list(self.nullable),
                "wide_names": list(self.wide_names),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        config = read_config(folder, cls.family)
        try:
            forecaster = cls(BoosterSizes(**config["sizes"]), nullable=tuple(config["nullable"]))
            forecaster.wide_names = tuple(config["wide_names"])
        except (KeyError, TypeError) as error:
            raise unusable(folder, f"its config is not understood ({error})") from error
        for member in range(forecaster.sizes.bag):
            direction, returns = _member_files(member)
            forecaster._direction.append(_read_booster(folder, direction))
            forecaster._return.append(_read_booster(folder, returns))
        forecaster._sigma = _read_booster(folder, SIGMA_FILE)
        return forecaster

    def importance(self) -> dict[str, float]:
        """Return each wide feature's share of the direction bag's total gain."""
        gain = sum(booster.feature_importance("gain") for booster in self._direction)
        total = float(np.sum(gain))
        shares = np.asarray(gain) / total if total > 0 else np.zeros(len(self.wide_names))
        return {name: float(share) for name, share in zip(self.wide_names, shares, strict=True)}

    def _fitted_sigma(self) -> lightgbm.Booster:
        if self._sigma is None:
            raise unusable(Path(self.family), "it is not fitted")
        return self._sigma


class _Task:
    """One target with its binned data, from which boosters of several seeds are grown."""

    def __init__(
        self,
        objective: str,
        metric: str,
        train: Samples,
        valid: Samples,
        train_label: FloatArray,
        valid_label: FloatArray,
    ) -> None:
        self.objective = objective
        self.metric = metric
        self.rows = len(train)
        self.train = train.wide, train_label
        self.valid = valid.wide, valid_label

    def run(self, sizes: BoosterSizes, seed: int) -> tuple[lightgbm.Booster, float]:
        """Return a booster cut at its best validation round, and the metric there."""
        params = self._params(sizes, seed)
        train = lightgbm.Dataset(self.train[0], self.train[1], params=params)
        valid = lightgbm.Dataset(self.valid[0], self.valid[1], reference=train, params=params)
        booster = lightgbm.train(
            params,
            train,
            num_boost_round=sizes.max_rounds,
            valid_sets=[valid],
            valid_names=["valid"],
            callbacks=[lightgbm.early_stopping(sizes.early_stopping_rounds, verbose=False)],
        )
        best = float(booster.best_score["valid"][self.metric])
        # Through text and back, so that what is evaluated is exactly what is saved.
        text = booster.model_to_string(num_iteration=booster.best_iteration)
        return lightgbm.Booster(model_str=text), best

    def _params(self, sizes: BoosterSizes, seed: int) -> dict[str, Any]:
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


def _predict_bag(boosters: list[lightgbm.Booster], wide: FloatArray) -> FloatArray:
    """Return predictions of shape (len(boosters), n)."""
    return np.stack([np.asarray(b.predict(wide, num_threads=1)) for b in boosters])


def _member_files(member: int) -> tuple[str, str]:
    return f"direction_{member}.txt", f"return_{member}.txt"


def _member_seeds(seed: int, count: int) -> list[int]:
    """Return independent 31-bit seeds, LightGBM's range."""
    state = np.random.SeedSequence(seed).generate_state(count)
    return [int(value) >> 1 for value in state]


def _read_booster(folder: Path, name: str) -> lightgbm.Booster:
    try:
        text = (folder / name).read_text(encoding="utf-8")
        return lightgbm.Booster(model_str=text)
    except (OSError, ValueError, lightgbm.basic.LightGBMError) as error:
        raise unusable(folder, f"{name} cannot be read ({error})") from error
