"""How fast the deep families train, beside an eager baseline, and what memory a training takes.

    OMP_NUM_THREADS=1 python benchmarks/training.py [--rounds 5] [--samples 640] [--windows 500000]

The floor is the transformer's matrix products and nothing else. The baseline is the same
transformer written plainly: torch's TransformerEncoder with its own dropout (attention included)
over every query. Every net goes through the trainer that serves, one epoch of ``--samples`` in
turn, on one thread. Memory is measured in a process of its own. Prints ONE JSON object: samples a
second (median over the rounds), their ratio to the baseline and to the floor (of the same
network), parameters, and the peak memory of trainings on few and on ``--windows`` windows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tradewind.features.definitions import DEEP, WIDE
from tradewind.models._deep import DeepForecaster
from tradewind.models._deep_fit import Trainer
from tradewind.models._deep_net import DeepNet, Heads, read_heads
from tradewind.models._mc_dropout import Dropout
from tradewind.models._transformer import TransformerForecaster
from tradewind.models._transformer_net import NetShape, TransformerNet, positions
from tradewind.models.base import DeepWindows, Samples
from tradewind.models.families import FAMILIES, create
from tradewind.settings import Settings

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
STEP = 900_000
EAGER, FLOOR = "eager_transformer", "floor"
SAME_NET = (EAGER, FLOOR, "transformer")
MIB = 1 << 20
FEW_WINDOWS = 5000


class EagerNet(DeepNet):
    """The transformer as torch's own modules have it; it draws its own dropout."""

    position: Tensor

    def __init__(self, shape: NetShape) -> None:
        super().__init__(shape)
        self.project = nn.Linear(shape.inputs, shape.d_model)
        self.register_buffer("position", positions(shape.window, shape.d_model), persistent=False)
        layer = nn.TransformerEncoderLayer(
            shape.d_model,
            shape.heads,
            shape.feedforward,
            dropout=Settings().training.dropout,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, shape.layers, norm=nn.LayerNorm(shape.d_model), enable_nested_tensor=False
        )
        self.heads = nn.Linear(shape.d_model, 3)

    def forward(self, windows: Tensor, dropout: Dropout) -> Heads:
        """Return the heads; ``dropout`` is not used."""
        x = self.encoder(self.project(windows) + self.position)
        return read_heads(self.heads(x[:, -1]))


class EagerForecaster(TransformerForecaster):
    """The baseline as a family."""

    net_type: ClassVar[type[DeepNet]] = EagerNet


class FloorNet(TransformerNet):
    """The transformer's matrix products alone: no norm, softmax, dropout or activation."""

    def forward(self, windows: Tensor, dropout: Dropout) -> Heads:
        """Return the heads; ``dropout`` is not used, and what is said means nothing."""
        x = self.project(windows)
        for number, layer in enumerate(self.layers):
            d, last = x.shape[-1], number == len(self.layers) - 1
            asking = x[:, -1:] if last else x
            query = functional.linear(asking, layer.qkv.weight[:d]) / (d * x.shape[1])
            key, value = functional.linear(x, layer.qkv.weight[d:]).chunk(2, dim=-1)
            split = [
                part.view(part.shape[0], part.shape[1], layer.heads, -1).transpose(1, 2)
                for part in (query, key, value)
            ]
            mixed = split[0] @ split[1].transpose(2, 3) @ split[2]
            x = layer.down(layer.up(layer.merge(mixed.transpose(1, 2).flatten(2))))
        return read_heads(self.heads(x[:, -1]))


class FloorForecaster(TransformerForecaster):
    """The floor as a family."""

    net_type: ClassVar[type[DeepNet]] = FloorNet


PLAIN = {EAGER: EagerForecaster, FLOOR: FloorForecaster}


def made_up(windows: int, *, width: int) -> Samples:
    """Return noise in the shape of a training set: strided windows over three symbols' rows."""
    rng = np.random.default_rng(0)
    each = windows // len(SYMBOLS)
    rows = tuple(rng.normal(size=(each + width - 1, len(DEEP))).astype(np.float32) for _ in SYMBOLS)
    count = each * len(SYMBOLS)
    bar, code = np.divmod(np.arange(count, dtype=np.int64), len(SYMBOLS))
    scaled = rng.normal(size=count)
    return Samples(
        ts=bar * STEP,
        symbol=code,
        symbols=SYMBOLS,
        wide=np.empty((count, 0)),
        wide_names=WIDE[:0],
        deep=DeepWindows(rows, code, bar + width - 1, width),
        y_up=(scaled > 0).astype(np.float64),
        fwd_ret=0.01 * scaled,
        scale=np.full(count, 0.01),
        reverted=(scaled > 1).astype(np.float64),
    )


def speed(rounds: int, samples: int) -> dict[str, dict[str, float]]:
    """Return samples a second of every deep family and of the baseline, taken in turn."""
    settings = Settings(training={"epochs": 1, "max_epoch_samples": samples})  # type: ignore[arg-type]
    train = made_up(4 * samples, width=settings.features.window)
    trainers: dict[str, Trainer] = {}
    for name in (*PLAIN, *FAMILIES):
        plain = PLAIN.get(name)
        made = create(name, settings) if plain is None else plain.from_settings(settings)
        if isinstance(made, DeepForecaster):
            trainers[name] = made.trainer(train, train, seed=0)
    rates: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(rounds + 1):
        for name, trainer in trainers.items():
            started = _seconds()
            trainer.train_epoch(1)
            if number:  # the first round warms up
                rates[name].append(samples / (_seconds() - started))
    return {
        name: {
            "samples_per_s": round(statistics.median(own), 1),
            "ratio_to_eager": _ratio(own, rates[EAGER]),
            **({"ratio_to_floor": _ratio(own, rates[FLOOR])} if name in SAME_NET else {}),
            "parameters": sum(p.numel() for p in trainers[name].net.parameters()),
        }
        for name, own in rates.items()
    }


def _ratio(own: list[float], other: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(own, other, strict=True)), 2)


def memory(family: str, windows: int) -> dict[str, float]:
    """Return the peak memory of this process before and after a training, and of its windows."""
    sizes = {"epochs": 1, "max_epoch_samples": 512}
    settings = Settings(training=sizes, deep={"validation_rows": 128})  # type: ignore[arg-type]
    samples = made_up(windows, width=settings.features.window)
    cut = int(0.8 * len(samples))
    train, valid = (samples.subset(np.arange(*part)) for part in ((0, cut), (cut, len(samples))))
    before = _peak_mib()
    with tempfile.TemporaryDirectory() as folder:
        create(family, settings).fit(train, valid, seed=0, checkpoint_dir=Path(folder))
    rows = sum(part.nbytes for part in samples.deep.rows)
    return {
        "windows": len(samples),
        "rows_mib": round(rows / MIB, 1),
        "windows_if_copied_mib": round(len(samples) * samples.deep.width * len(DEEP) * 4 / MIB),
        "peak_before_mib": round(before),
        "peak_mib": round(_peak_mib()),
    }


def _alone(windows: int) -> dict[str, float]:
    """Return `memory` of the transformer, measured in a process of its own."""
    command = [sys.executable, __file__, "--memory", "transformer", "--windows", str(windows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _seconds() -> float:
    """Return a clock: this process's own time on a CPU, which a busy machine does not stretch."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def _peak_mib() -> float:
    """Return this program's peak; getrusage would count the process that started it too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure, and print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=640)
    parser.add_argument("--windows", type=int, default=500_000)
    parser.add_argument("--memory", metavar="FAMILY", help="only that family's memory")
    given = parser.parse_args()
    if given.memory:
        print(json.dumps(memory(given.memory, given.windows)))
        return
    result = {
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "training": speed(given.rounds, given.samples),
        "threads": torch.get_num_threads(),
        "memory_of_a_training": [_alone(windows) for windows in (FEW_WINDOWS, given.windows)],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
