"""What the deep families share: windows of the deep features, Monte Carlo dropout, files.

A family is a `DeepForecaster` that names its sizes and its network; see `_deep_net`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tradewind.files import write_bytes, write_json
from tradewind.models._deep_fit import FitPlan, Trainer
from tradewind.models._deep_members import (
    counted_on,
    member_folder,
    member_seed,
    together,
    weights_file,
)
from tradewind.models._deep_net import DeepNet, DeepShape
from tradewind.models._mc_dropout import PassDropout, draw_pool, mask_starts
from tradewind.models.base import (
    CONFIG_FILE,
    DeepWindows,
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
STD_FLOOR = 1e-12
"""A constant input is divided by this at least; centred, it stays zero."""


@dataclass(frozen=True)
class MaskPool:
    """The pool of random numbers behind Monte Carlo dropout; part of the saved model.

    ``first_site``: the sites of the network before it drop nothing in a pass.
    """

    seed: int = 0
    size: int = 1 << 22
    first_site: int = 0


@dataclass(frozen=True)
class Standardiser:
    """Centre and scale of each deep feature over the training rows, clipped afterwards."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: float

    def __call__(self, windows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
        """Return standardised windows as a tensor, shape unchanged."""
        centred = torch.from_numpy(windows).sub_(torch.tensor(self.mean))
        return centred.div_(torch.tensor(self.std)).clamp_(-self.clip, self.clip)


class DeepForecaster(Forecaster):
    """A network over a window of bars; S passes with dropout on give the epistemic spread.

    Parameters
    ----------
    shape
        Sizes of the network; ``window`` and ``inputs`` are taken from the data when fitting.
    plan
        Optimiser and schedule.
    input_clip
        Standardised inputs are clipped to ± this.
    threads
        Threads of this process's torch; more than one spins when cores are contested.
    members
        Networks of different seeds (a deep ensemble): they take the passes in turn, so that
        the spread over passes is also that between the networks.
    """

    reads_wide: ClassVar[bool] = False
    shape_type: ClassVar[type[DeepShape]]
    net_type: ClassVar[type[DeepNet]]
    """Built from a shape alone."""
    passes_per_forward: ClassVar[int] = 64
    """Rows × passes in one forward: beyond it activations leave the cache and speed falls."""

    def __init__(
        self,
        shape: DeepShape | None = None,
        plan: FitPlan | None = None,
        *,
        input_clip: float = 5.0,
        threads: int = 1,
        members: int = 1,
    ) -> None:
        torch.set_num_threads(threads)
        self.members = members
        self.shape = shape or self.shape_type()
        self.plan = plan or FitPlan()
        self.input_clip = input_clip
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.standardise: Standardiser | None = None
        self.masks = MaskPool()
        self._nets: tuple[DeepNet, ...] = ()
        self._pool = torch.empty(0)

    @classmethod
    @abstractmethod
    def shape_from(cls, settings: Settings) -> DeepShape:
        """Return the sizes of the network in ``settings``."""

    @classmethod
    def learning_rate_factor(cls, settings: Settings) -> float:
        """Return what the common learning rate is multiplied by."""
        return 1.0

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return an unfitted network of the sizes in ``settings``."""
        training, deep = settings.training, settings.deep
        plan = FitPlan(
            epochs=training.epochs,
            max_epoch_samples=training.max_epoch_samples,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate * cls.learning_rate_factor(settings),
            dropout=training.dropout,
            weight_decay=deep.weight_decay,
            gradient_clip=deep.gradient_clip,
            warmup_share=deep.warmup_share,
            patience=deep.patience,
            validation_rows=deep.validation_rows,
        )
        return cls(
            cls.shape_from(settings),
            plan,
            input_clip=deep.input_clip,
            threads=deep.threads,
            members=deep.ensemble_members,
        )

    def fit(
        self,
        train: Samples,
        valid: Samples,
        *,
        seed: int,
        on_epoch: EpochHook | None = None,
        checkpoint_dir: Path | None = None,
    ) -> FitReport:
        """Train; ``on_epoch`` gets train_loss, valid_loss, valid_log_loss and seconds.

        Members are trained one after another, and their epochs counted on.
        """
        nets, reports, before = [], [], 0
        for member in range(self.members):
            trainer = self.trainer(
                train,
                valid,
                seed=member_seed(seed, member),
                checkpoint_dir=member_folder(checkpoint_dir, member),
            )
            reports.append(trainer.run(counted_on(on_epoch, before)))
            nets.append(trainer.net)
            before += reports[-1].epochs
        self._install(nets)
        return together(reports)

    def trainer(
        self, train: Samples, valid: Samples, *, seed: int, checkpoint_dir: Path | None = None
    ) -> Trainer:
        """Return a new network of the data's size with what trains it; nothing is trained yet."""
        for name, part in (("train", train), ("valid", valid)):
            check_labels(part, name)
            check_inputs(part, reads_wide=False, nullable=())
        mean, std = _moments(train.deep)
        self.standardise = Standardiser(tuple(mean), tuple(std), self.input_clip)
        self.shape = replace(self.shape, window=train.deep.width, inputs=len(mean))
        size = max(MaskPool.size, 4 * self.shape.longest_mask)
        self.masks = replace(self.masks, size=size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = self.net_type(self.shape).to(self.device)
        return Trainer(
            net, self.plan, self._encode, train, valid, seed=seed, checkpoint_dir=checkpoint_dir
        )

    def sample(self, samples: Samples, *, n_samples: int, seeds: IntArray) -> RawForecast:
        """Return ``n_samples`` dropout passes; a row's masks follow from its seed alone."""
        out = self._passes(samples, n_samples, seeds)
        return RawForecast(
            p=probability(out[0]), mu=out[1] * samples.scale, sigma=out[2] * samples.scale
        )

    def save(self, folder: Path) -> None:
        """Write the weights as safetensors, and the config last."""
        nets = self._fitted_nets()
        assert self.standardise is not None
        for member, net in enumerate(nets):
            weights = {name: value.cpu() for name, value in net.state_dict().items()}
            write_bytes(folder / weights_file(member), safetensors.torch.save(weights))
        write_json(
            folder / CONFIG_FILE,
            {
                "family": self.family,
                "members": len(nets),
                "shape": asdict(self.shape),
                "plan": asdict(self.plan),
                "masks": asdict(self.masks),
                "standardise": asdict(self.standardise),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        config = read_config(folder, cls.family)
        try:
            scaling = config["standardise"]
            standardise = Standardiser(
                tuple(scaling["mean"]), tuple(scaling["std"]), scaling["clip"]
            )
            sizes: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in config["shape"].items()
            }
            forecaster = cls(
                cls.shape_type(**sizes),
                FitPlan(**config["plan"]),
                input_clip=standardise.clip,
                members=config.get("members", 1),
            )
            forecaster.masks = MaskPool(**config["masks"])
            nets = []
            for member in range(forecaster.members):
                net = cls.net_type(forecaster.shape)
                net.load_state_dict(safetensors.torch.load_file(folder / weights_file(member)))
                nets.append(net.to(forecaster.device))
        except (
            OSError,
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
            safetensors.SafetensorError,
        ) as error:
            raise unusable(folder, f"its weights do not fit its config ({error})") from error
        forecaster.standardise = standardise
        forecaster._install(nets)
        return forecaster

    @property
    def most_passes(self) -> int:
        """Return the most rows × passes of one forward of one network."""
        return self.passes_per_forward

    def _install(self, nets: Sequence[DeepNet]) -> None:
        rng = np.random.default_rng(self.masks.seed)
        pool = draw_pool(self.masks.size, self.plan.dropout, rng)
        self._nets, self._pool = tuple(nets), pool.to(self.device)

    def _encode(self, samples: Samples, index: IntArray) -> Tensor:
        assert self.standardise is not None
        return self.standardise(samples.deep.take(index)).to(self.device)

    def _passes(self, samples: Samples, n_samples: int, seeds: IntArray) -> FloatArray:
        """Return every head of every pass, shape (heads, S, n): logits, and scaled units."""
        nets = self._fitted_nets()
        if samples.deep.width != self.shape.window:
            raise unusable(
                Path(self.family),
                f"its window is {self.shape.window} bars, the samples' {samples.deep.width}",
            )
        check_inputs(samples, reads_wide=False, nullable=())
        most, members = self.most_passes, len(nets)
        out = np.empty((4 if nets[0].learns_reversion else 3, n_samples, len(samples)))
        rows = max(1, most * members // n_samples)
        for start in range(0, len(samples), rows):
            index = np.arange(start, min(start + rows, len(samples)))
            windows = self._encode(samples, index)
            for first in range(0, n_samples, most * members):
                last = min(first + most * members, n_samples)
                for member, net in enumerate(nets):
                    passes = np.arange(first + member, last, members)
                    if len(passes):
                        out[:, passes[:, None], index] = self._forward(
                            net, windows, seeds[index], passes
                        )
        return out

    def _forward(
        self, net: DeepNet, windows: Tensor, seeds: IntArray, passes: IntArray
    ) -> FloatArray:
        """Return the heads of one batch, shape (heads, passes, rows)."""
        starts = mask_starts(
            seeds,
            passes,
            self.shape.sites,
            pool_size=len(self._pool),
            longest=self.shape.longest_mask,
        )
        with torch.inference_mode():
            dropout = PassDropout(self._pool, starts, first_site=self.masks.first_site)
            found = net(windows, dropout)
            heads = torch.stack([head for head in found if head is not None])
        by_row = heads.double().cpu().numpy().reshape(len(heads), len(windows), len(passes))
        return np.asarray(by_row.transpose(0, 2, 1))

    def _fitted_nets(self) -> tuple[DeepNet, ...]:
        if not self._nets:
            raise unusable(Path(self.family), "it is not fitted")
        return self._nets


def probability(logit: FloatArray) -> FloatArray:
    """Return the logistic function of ``logit``, kept inside (0, 1)."""
    p: FloatArray = np.clip(1 / (1 + np.exp(-logit)), P_MARGIN, 1 - P_MARGIN)
    return p


def _moments(deep: DeepWindows) -> tuple[list[float], list[float]]:
    """Return mean and std of each feature over the rows that the training windows cover."""
    covered = []
    for code in np.unique(deep.symbol):
        end = deep.end[deep.symbol == code]
        covered.append(deep.rows[code][end.min() - deep.width + 1 : end.max() + 1])
    rows = np.concatenate(covered).astype(np.float64)
    rows = rows[np.isfinite(rows).all(axis=1)]  # a gap between windows may hold NaN
    return rows.mean(axis=0).tolist(), np.maximum(rows.std(axis=0), STD_FLOOR).tolist()
