"""What boosted-tree families share: a bag of boosters, one of the residual's size, their files.

Learnt in units of the trailing volatility (``fwd_ret / scale``), served in log returns.
The spread between the bag's members, which differ in seed only, is the epistemic part.
A library adds how one booster is grown, asked, written and read.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

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

P_MARGIN = 1e-6
"""Keeps probabilities inside (0, 1), where a log-loss exists."""
SIGMA_FLOOR = 1e-3
"""Least sigma, in units of the trailing volatility."""
NORMAL_STD_PER_ABS = float(np.sqrt(np.pi / 2))
"""Standard deviation of a centred normal variable over its mean absolute value."""

FILES = "files"
"""In a config or record: the SHA-256 of each booster's file."""

Objective = Literal["direction", "size"]
"""``direction``: labels 0 or 1, log-loss. ``size``: real labels, squared error."""
Labels = tuple[FloatArray, FloatArray]
"""Of the training and of the validation rows."""
B = TypeVar("B")


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
    min_rounds: int = 1
    fit_stride: int = 1
    refit: bool = False

    @property
    def least(self) -> int:
        """Return the rounds that are kept at least."""
        return min(self.min_rounds, self.max_rounds)

    @property
    def patience(self) -> int:
        """Return the rounds without a better one that end a fit, after the least."""
        return max(self.early_stopping_rounds, self.least)


@dataclass(frozen=True)
class Grown(Generic[B]):
    """A booster cut at its best validation round, and the loss (log-loss or l2) there."""

    booster: B
    loss: float
    rounds: int


class Target(Protocol[B]):
    """One label with its binned data, from which boosters of several seeds are grown."""

    def grow(self, seed: int, rounds: int | None = None) -> Grown[B]:
        """Return the booster of a seed: of so many rounds, or as many as validation wants."""
        ...


class BaggedTrees(Forecaster, Generic[B]):
    """Boosted trees on the wide features; NaN is allowed in ``nullable`` columns only."""

    reads_wide: ClassVar[bool] = True
    suffix: ClassVar[str]
    """Of the library's own file format."""

    def __init__(
        self, sizes: BoosterSizes | None = None, *, nullable: tuple[str, ...] = ()
    ) -> None:
        self.sizes = sizes or BoosterSizes()
        self.nullable = nullable
        self.wide_names: tuple[str, ...] = ()
        self._direction: list[B] = []
        self._return: list[B] = []
        self._sigma: B | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return an unfitted bag of the sizes in ``settings``."""
        sizes = BoosterSizes(bag=settings.training.bag, **settings.boosted.model_dump())
        return cls(sizes, nullable=NULLABLE_FEATURES)

    @abstractmethod
    def _target(
        self, objective: Objective, train: Samples, valid: Samples, labels: Labels
    ) -> Target[B]:
        """Return what grows boosters of one label."""

    @abstractmethod
    def _rounds(self, booster: B) -> int:
        """Return how many trees a booster has."""

    @abstractmethod
    def _values(self, booster: B, wide: FloatArray) -> FloatArray:
        """Return a booster's answers, shape (n,): probabilities, or values."""

    @abstractmethod
    def _written(self, booster: B) -> bytes:
        """Return a booster in the library's own format."""

    @abstractmethod
    def _read(self, content: bytes) -> B:
        """Return the booster of what `_written` gave; raise ValueError on what it did not."""

    @abstractmethod
    def _gain(self, booster: B) -> FloatArray:
        """Return the total gain of each wide feature's splits, shape (F,)."""

    def fit(
        self,
        train: Samples,
        valid: Samples,
        *,
        seed: int,
        on_epoch: EpochHook | None = None,
        checkpoint_dir: Path | None = None,
    ) -> FitReport:
        """Fit the bag; one "epoch" is one member, and a checkpoint holds the finished ones."""
        for name, part in (("train", train), ("valid", valid)):
            check_labels(part, name)
            check_inputs(part, reads_wide=True, nullable=self.nullable)
        train = _thinned(train, self.sizes.fit_stride)
        self.wide_names = train.wide_names
        self._direction, self._return = [], []
        targets = train.fwd_ret / train.scale, valid.fwd_ret / valid.scale
        direction = self._target("direction", train, valid, (train.y_up, valid.y_up))
        returns = self._target("size", train, valid, targets)
        *member_seeds, sigma_seed = _seeds(seed, self.sizes.bag + 1)
        identity = self._identity(train, valid, seed) if checkpoint_dir else ""
        told: list[Mapping[str, float]] = []
        for member, member_seed in enumerate(member_seeds):
            metrics = self._resume(checkpoint_dir, member, identity)
            if metrics is None:
                metrics = self._grow(direction, returns, member_seed)
                self._checkpoint(checkpoint_dir, member, identity, metrics)
            told.append(metrics)
            if on_epoch is not None:
                on_epoch(member + 1, metrics)
        self._fit_sigma(train, valid, targets, sigma_seed)
        losses = [metrics["valid_log_loss"] for metrics in told]
        return FitReport(
            epochs=self.sizes.bag,
            best_epoch=int(np.argmin(losses)) + 1,
            metrics={
                "valid_log_loss": float(np.mean(losses)),
                "rounds": float(np.mean([metrics["rounds"] for metrics in told])),
            },
        )

    def _grow(self, direction: Target[B], returns: Target[B], seed: int) -> Mapping[str, float]:
        """Add a member to the bag; return what is told of it."""
        up, size = direction.grow(seed), returns.grow(seed)
        self._direction.append(up.booster)
        self._return.append(size.booster)
        return {"valid_log_loss": up.loss, "valid_l2": size.loss, "rounds": float(up.rounds)}

    def _fit_sigma(self, train: Samples, valid: Samples, targets: Labels, seed: int) -> None:
        past, later = (
            np.abs(target - self._bag(self._return, part.wide).mean(axis=0))
            for target, part in zip(targets, (train, valid), strict=True)
        )
        self._sigma = self._target("size", train, valid, (past, later)).grow(seed).booster

    def refitted(self, samples: Samples, *, seed: int) -> Self:
        """Return the same bag grown on ``samples``, each booster to the rounds that it has here.

        Validation and calibration rows are the newest: without them a forecaster is weeks older
        than it need be. ``self`` where the sizes do not ask for it.
        """
        if not self.sizes.refit:
            return self
        sigma = self._fitted_sigma()
        check_labels(samples, "refit")
        check_inputs(samples, reads_wide=True, nullable=self.nullable)
        samples = _thinned(samples, self.sizes.fit_stride)
        again = type(self)(self.sizes, nullable=self.nullable)
        again.wide_names = samples.wide_names
        scaled = samples.fwd_ret / samples.scale
        direction = again._target("direction", samples, samples, (samples.y_up, samples.y_up))
        returns = again._target("size", samples, samples, (scaled, scaled))
        *member_seeds, sigma_seed = _seeds(seed, self.sizes.bag + 1)
        for place, member_seed in enumerate(member_seeds):
            up, size = self._rounds(self._direction[place]), self._rounds(self._return[place])
            again._direction.append(direction.grow(member_seed, up).booster)
            again._return.append(returns.grow(member_seed, size).booster)
        left = np.abs(scaled - again._bag(again._return, samples.wide).mean(axis=0))
        residual = again._target("size", samples, samples, (left, left))
        again._sigma = residual.grow(sigma_seed, self._rounds(sigma)).booster
        return again

    def sample(self, samples: Samples, *, n_samples: int, seeds: IntArray) -> RawForecast:
        """Return one pass per bag member; ``n_samples`` and ``seeds`` do not matter here."""
        sigma_booster = self._fitted_sigma()
        if samples.wide_names != self.wide_names:
            raise unusable(Path(self.family), "its wide features are not those of the samples")
        check_inputs(samples, reads_wide=True, nullable=self.nullable)
        wide = np.ascontiguousarray(samples.wide)
        p = np.clip(self._bag(self._direction, wide), P_MARGIN, 1 - P_MARGIN)
        mu = self._bag(self._return, wide) * samples.scale
        residual = self._bag([sigma_booster], wide) * NORMAL_STD_PER_ABS
        sigma = np.maximum(residual, SIGMA_FLOOR) * samples.scale
        return RawForecast(p=p, mu=mu, sigma=np.repeat(sigma, len(p), axis=0))

    def save(self, folder: Path) -> None:
        """Write each booster in its library's own format, and the config last."""
        named = {self._sigma_file(): self._fitted_sigma()}
        for member, boosters in enumerate(zip(self._direction, self._return, strict=True)):
            named.update(zip(self._member_files(member), boosters, strict=True))
        written = {name: self._written(booster) for name, booster in named.items()}
        for name, content in written.items():
            write_bytes(folder / name, content)
        write_json(
            folder / CONFIG_FILE,
            {
                "family": self.family,
                "sizes": asdict(self.sizes),
                "nullable": list(self.nullable),
                "wide_names": list(self.wide_names),
                FILES: {name: _digest(content) for name, content in written.items()},
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
        digests = config.get(FILES, {})
        for member in range(forecaster.sizes.bag):
            forecaster._read_member(folder, member, digests)
        forecaster._sigma = forecaster._read_file(folder, forecaster._sigma_file(), digests)
        return forecaster

    def importance(self) -> dict[str, float]:
        """Return each wide feature's share of the direction bag's total gain."""
        gain = np.sum([self._gain(booster) for booster in self._direction], axis=0)
        total = float(gain.sum())
        shares = gain / total if total > 0 else np.zeros(len(self.wide_names))
        return {name: float(share) for name, share in zip(self.wide_names, shares, strict=True)}

    def _bag(self, boosters: list[B], wide: FloatArray) -> FloatArray:
        """Return answers of shape (len(boosters), n)."""
        return np.stack([self._values(booster, wide) for booster in boosters])

    def _fitted_sigma(self) -> B:
        if self._sigma is None:
            raise unusable(Path(self.family), "it is not fitted")
        return self._sigma

    def _member_files(self, member: int) -> tuple[str, str]:
        return f"direction_{member}{self.suffix}", f"return_{member}{self.suffix}"

    def _sigma_file(self) -> str:
        return f"sigma{self.suffix}"

    def _read_member(self, folder: Path, member: int, digests: Mapping[str, str]) -> None:
        names = self._member_files(member)
        up, size = (self._read_file(folder, name, digests) for name in names)
        self._direction.append(up)
        self._return.append(size)

    def _read_file(self, folder: Path, name: str, digests: Mapping[str, str]) -> B:
        """Read a booster, after its digest where one was kept (older folders have none).

        Both libraries may end the whole process on a damaged file.
        """
        try:
            content = (folder / name).read_bytes()
            if digests.get(name) not in (None, _digest(content)):
                raise ValueError("it was changed after it was saved")
            return self._read(content)
        except (OSError, ValueError) as error:
            raise unusable(folder, f"{name} cannot be read ({error})") from error

    def _checkpoint(
        self, folder: Path | None, member: int, identity: str, metrics: Mapping[str, float]
    ) -> None:
        """Keep the newest member; its record comes last, so that a torn one has none."""
        if folder is None:
            return
        digests = {}
        boosters = self._direction[-1], self._return[-1]
        for name, booster in zip(self._member_files(member), boosters, strict=True):
            content = self._written(booster)
            write_bytes(folder / name, content)
            digests[name] = _digest(content)
        record = {"identity": identity, "metrics": dict(metrics), FILES: digests}
        write_json(folder / _record_file(member), record)

    def _resume(
        self, folder: Path | None, member: int, identity: str
    ) -> Mapping[str, float] | None:
        """Take up a member of this very fit; one of another fit is not ours to use."""
        if folder is None or not (folder / _record_file(member)).is_file():
            return None
        record: dict[str, Any] = json.loads((folder / _record_file(member)).read_bytes())
        if record["identity"] != identity:
            return None
        self._read_member(folder, member, record[FILES])
        metrics: dict[str, float] = record["metrics"]
        return metrics

    def _identity(self, train: Samples, valid: Samples, seed: int) -> str:
        """Return a hash of all that decides the boosters."""
        described = {"family": self.family, "sizes": asdict(self.sizes), "seed": seed}
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for samples in (train, valid):
            for array in (samples.wide, samples.y_up, samples.fwd_ret, samples.scale):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _thinned(samples: Samples, stride: int) -> Samples:
    """Return the rows of every ``stride``-th moment, the same ones for all symbols."""
    if stride == 1:
        return samples
    return samples.subset(np.unique(samples.ts, return_inverse=True)[1] % stride == 0)


def _seeds(seed: int, count: int) -> list[int]:
    """Return independent 31-bit seeds, the range of both libraries."""
    state = np.random.SeedSequence(seed).generate_state(count)
    return [int(value) >> 1 for value in state]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _record_file(member: int) -> str:
    return f"member_{member}.json"
