"""Training of the deep families: seeded, resumable after a kill, best validation epoch kept.

Everything random in an epoch (which samples, their order, the masks) comes from a generator
seeded by (seed, epoch). A checkpoint therefore needs no generator state, and a run that was
killed ends with the weights of one that was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tradewind.files import write_bytes
from tradewind.models._deep_net import DeepNet, Labels, losses
from tradewind.models._mc_dropout import NoDropout, TrainingDropout, draw_pool
from tradewind.models.base import EpochHook, FitReport, IntArray, Samples

CHECKPOINT_FILE = "checkpoint.safetensors"
SPARE_MASKS = 1 << 20
"""Pool values beyond the longest mask of a batch, from which starts are drawn."""
SCORING_ROWS = 128

Encode = Callable[[Samples, IntArray], Tensor]
"""Returns standardised windows of the given rows, shape (len(index), W, D)."""
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class FitPlan:
    """Optimiser and schedule; see `TrainingSettings` and `DeepSettings` for the meaning."""

    epochs: int = 30
    max_epoch_samples: int = 20_000
    batch_size: int = 64
    learning_rate: float = 3e-4
    dropout: float = 0.1
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    warmup_share: float = 0.05
    patience: int = 6
    validation_rows: int = 2000


@dataclass
class Progress:
    """What a checkpoint remembers beside tensors."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    best_metrics: dict[str, float] = field(default_factory=dict)
    told: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """Each epoch and what its hook is told; told again on resuming."""

    def finished(self, plan: FitPlan) -> bool:
        """Whether the epochs are used up, or patience is."""
        return self.epoch >= plan.epochs or self.epoch - self.best_epoch >= plan.patience


class Trainer:
    """One fit of one network."""

    def __init__(
        self,
        net: DeepNet,
        plan: FitPlan,
        encode: Encode,
        train: Samples,
        valid: Samples,
        *,
        seed: int,
        checkpoint_dir: Path | None,
    ) -> None:
        self.net = net
        self.plan = plan
        self.encode = encode
        self.train = train
        self.valid = valid
        self.seed = seed
        self.device = next(net.parameters()).device
        self.optimizer = _optimizer(net, plan)
        self.progress = Progress()
        self.best: Weights = _copy(net.state_dict())
        self.file = checkpoint_dir / CHECKPOINT_FILE if checkpoint_dir else None
        self.identity = _identity(net, plan, train, valid, seed) if self.file else ""

    def run(self, on_epoch: EpochHook | None) -> FitReport:
        """Train to the end, continuing from a checkpoint; leave the best weights in the net."""
        self._resume()
        if on_epoch is not None:
            for epoch, metrics in self.progress.told:
                on_epoch(epoch, metrics)
        with _repeatable(self.device):
            while not self.progress.finished(self.plan):
                metrics = self._epoch(self.progress.epoch + 1)
                self._checkpoint()
                if on_epoch is not None:
                    on_epoch(self.progress.epoch, metrics)
        self.net.load_state_dict(self.best)
        return FitReport(
            self.progress.epoch, self.progress.best_epoch, dict(self.progress.best_metrics)
        )

    def _epoch(self, epoch: int) -> dict[str, float]:
        started = time.monotonic()
        train_loss = self.train_epoch(epoch)
        parts = self._score_valid()
        metrics = {
            "train_loss": train_loss,
            "valid_loss": sum(parts),
            "valid_log_loss": parts[0],
            **dict(zip(("valid_reversion_loss",), parts[2:], strict=False)),
        }
        self.progress.epoch = epoch
        if metrics["valid_loss"] < self.progress.best_loss:
            self.progress.best_epoch = epoch
            self.progress.best_loss = metrics["valid_loss"]
            self.progress.best_metrics = metrics
            self.best = _copy(self.net.state_dict())
        told = {**metrics, "seconds": time.monotonic() - started}
        self.progress.told.append((epoch, told))
        return told

    def train_epoch(self, epoch: int) -> float:
        """Take one epoch's optimiser steps and return the mean loss."""
        rng = np.random.default_rng([self.seed, epoch])
        batches = _batches(len(self.train), self.plan, rng)
        size = len(batches[0]) * self.net.shape.longest_mask + SPARE_MASKS
        dropout = TrainingDropout(draw_pool(size, self.plan.dropout, rng).to(self.device), rng)
        total = torch.zeros((), device=self.device)
        for number, index in enumerate(batches):
            self._set_rate((epoch - 1 + number / len(batches)) / self.plan.epochs)
            self.optimizer.zero_grad()
            labels = self._labels(self.train, index)
            first, *more = losses(self.net(self.encode(self.train, index), dropout), labels)
            loss = sum(more, first)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.net.parameters(), self.plan.gradient_clip)
            self.optimizer.step()
            total += loss.detach() * len(index)
        return float(total) / sum(len(index) for index in batches)

    def _score_valid(self) -> list[float]:
        """Return the mean losses over evenly spaced validation rows, nothing dropped."""
        rows = min(len(self.valid), self.plan.validation_rows)
        index = np.linspace(0, len(self.valid) - 1, rows).round().astype(np.int64)
        total: Any = 0.0
        with torch.inference_mode():
            for start in range(0, rows, SCORING_ROWS):
                part = index[start : start + SCORING_ROWS]
                labels = self._labels(self.valid, part)
                heads = self.net(self.encode(self.valid, part), NoDropout())
                total += len(part) * np.array([float(x) for x in losses(heads, labels)])
        return [float(value) for value in total / rows]

    def _labels(self, samples: Samples, index: IntArray) -> Labels:
        columns = [samples.y_up[index], samples.fwd_ret[index] / samples.scale[index]]
        if self.net.learns_reversion and samples.reverted is not None:
            columns.append(samples.reverted[index])
        return Labels(*torch.from_numpy(np.stack(columns).astype(np.float32)).to(self.device))

    def _set_rate(self, done: float) -> None:
        """Rise linearly over the warm-up share, then fall along a half cosine."""
        warmup = self.plan.warmup_share
        if done < warmup:
            factor = (done + 1e-3) / (warmup + 1e-3)
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.learning_rate * factor

    def _checkpoint(self) -> None:
        if self.file is None:
            return
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        metadata = {"identity": self.identity, "progress": json.dumps(asdict(self.progress))}
        write_bytes(self.file, safetensors.torch.save(tensors, metadata))

    def _resume(self) -> None:
        """Take up a checkpoint of this very fit; one of another fit is not ours to use."""
        if self.file is None or not self.file.is_file():
            return
        with safetensors.safe_open(self.file, framework="pt", device=str(self.device)) as stored:
            metadata = stored.metadata() or {}
            if metadata.get("identity") != self.identity:
                return
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        self.progress = Progress(**json.loads(metadata["progress"]))
        self.net.load_state_dict(_part(tensors, "net."))
        self.best = _part(tensors, "best.")
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimizer.").items():
            number, key = name.split(".")
            state.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def _batches(rows: int, plan: FitPlan, rng: np.random.Generator) -> list[IntArray]:
    """Return this epoch's samples, drawn without replacement, in batches."""
    drawn = rng.permutation(rows)[: plan.max_epoch_samples].astype(np.int64)
    return [drawn[i : i + plan.batch_size] for i in range(0, len(drawn), plan.batch_size)]


def _optimizer(net: nn.Module, plan: FitPlan) -> torch.optim.AdamW:
    """Return AdamW that decays matrices, and leaves biases and norms alone."""
    matrices = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)


@contextlib.contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Use the attention kernel whose gradient is summed in a fixed order; the CPU's is."""
    if device.type == "cpu":
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _identity(net: DeepNet, plan: FitPlan, train: Samples, valid: Samples, seed: int) -> str:
    """Return a hash of all that decides the final weights."""
    settings: dict[str, Any] = {**asdict(net.shape), **asdict(plan), "seed": seed}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for samples in (train, valid):
        deep = samples.deep
        arrays = [samples.y_up, samples.fwd_ret, samples.scale, deep.symbol, deep.end]
        if net.learns_reversion and samples.reverted is not None:
            arrays.append(samples.reverted)
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        for rows in deep.rows:
            digest.update(np.ascontiguousarray(rows).tobytes())
    return digest.hexdigest()


def _copy(weights: Weights) -> Weights:
    return {name: value.detach().clone() for name, value in weights.items()}


def _part(tensors: Weights, prefix: str) -> Weights:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
