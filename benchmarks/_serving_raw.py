"""The forward by itself, for `serving.py`: floors, separate and naive passes, and the stages.

The floor is the matrix products that Monte Carlo dropout cannot avoid and nothing else, over
weights of the same shape: before the first mask and at bars that nobody asks for nothing is done
twice. With every layer dropping: the first layer's attention once, all else S times, of the last
layer one query. With the last layer alone dropping: everything up to its attention once, and S
times one bar's feed-forward.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tradewind.contracts import Prediction, Signal
from tradewind.features.samples import FeatureRow, rows_to_samples
from tradewind.features.view import FeatureView
from tradewind.models._deep import DeepForecaster
from tradewind.models._transformer_net import NetShape, positions
from tradewind.models.base import Samples
from tradewind.models.bundle import ModelBundle, row_seeds
from tradewind.models.uncertainty import Forecast, combine
from tradewind.settings import Settings

Timed = Callable[[int], object]
"""Does the work once; the argument differs from call to call."""
FLOOR_CHUNKS = (4, 20, 32)
"""Passes in one product: fewer stay in the cache, more share a weight. The fastest counts."""


def alternating(work: Mapping[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Return milliseconds by name, a round of all of them after another; one round warms up."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, call in work.items():
            started = time.perf_counter()
            call(number)
            if number:
                times[name].append((time.perf_counter() - started) * 1000)
    return times


def ratio(own: Sequence[float], other: Sequence[float]) -> float:
    """Return the median of the ratios round by round."""
    return round(statistics.median(a / b for a, b in zip(own, other, strict=True)), 3)


def middle(times: Sequence[float]) -> float:
    """Return the median, to the microsecond."""
    return round(statistics.median(times), 3)


class Floor:
    """The matrix products alone, for one window."""

    def __init__(self, shape: NetShape) -> None:
        self.shape = shape
        d, rng = shape.d_model, torch.Generator().manual_seed(0)

        def drawn(*size: int) -> Tensor:
            weights: Tensor = torch.randn(*size, generator=rng) / float(size[0]) ** 0.5
            return weights

        self.window = drawn(shape.window, shape.inputs)
        self.project = drawn(shape.inputs, d)
        self.qkv, self.kv, self.query = drawn(d, 3 * d), drawn(d, 2 * d), drawn(d, d)
        self.merge, self.up = drawn(d, d), drawn(d, shape.feedforward)
        self.down, self.heads = drawn(shape.feedforward, d), drawn(d, 3)

    def every_layer(self, passes: int, chunk: int, _: int) -> None:
        """Do the products of ``passes`` whose every layer drops, so many at a time."""
        x = self._attended(self.window @ self.project, 1)
        for start in range(0, passes, chunk):
            count = min(chunk, passes - start)
            rows = x.repeat(count, 1)
            for _ in range(self.shape.layers - 2):
                rows = self._attended(rows @ self.up @ self.down, count)
            rows = rows @ self.up @ self.down
            self._last(rows, count) @ self.up @ self.down @ self.heads

    def last_layer(self, passes: int, _: int) -> None:
        """Do the products of ``passes`` of which only the last layer drops."""
        x = self.window @ self.project
        for _ in range(self.shape.layers - 1):
            x = self._attended(x, 1) @ self.up @ self.down
        self._last(x, 1).repeat(passes, 1) @ self.up @ self.down @ self.heads

    def _attended(self, x: Tensor, count: int) -> Tensor:
        query, key, value = (x @ self.qkv).chunk(3, dim=-1)
        mixed = self._split(query, count) @ self._split(key, count).transpose(1, 2)
        joined: Tensor = self._joined(mixed @ self._split(value, count), count) @ self.merge
        return joined

    def _last(self, x: Tensor, count: int) -> Tensor:
        """Return one bar's row a pass: the last layer has one query."""
        asking = x.view(count, self.shape.window, -1)[:, -1] @ self.query
        key, value = (x @ self.kv).chunk(2, dim=-1)
        mixed = self._split(asking, count) @ self._split(key, count).transpose(1, 2)
        return self._joined(mixed @ self._split(value, count), count) @ self.merge

    def _split(self, x: Tensor, count: int) -> Tensor:
        heads, bars = self.shape.heads, x.shape[0] // count
        parts = x.reshape(count, bars, heads, -1).transpose(1, 2)
        return parts.reshape(count * heads, bars, -1)

    def _joined(self, x: Tensor, count: int) -> Tensor:
        heads, bars = self.shape.heads, x.shape[1]
        return x.view(count, heads, bars, -1).transpose(1, 2).reshape(count * bars, -1)


class Naive(nn.Module):
    """The transformer as torch's own modules have it, dropping as in training."""

    position: Tensor

    def __init__(self, shape: NetShape, dropout: float) -> None:
        super().__init__()
        d = shape.d_model
        self.project = nn.Linear(shape.inputs, d)
        self.register_buffer("position", positions(shape.window, d))
        layer = nn.TransformerEncoderLayer(
            d, shape.heads, shape.feedforward, dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, shape.layers, norm=nn.LayerNorm(d), enable_nested_tensor=False
        )
        self.heads = nn.Linear(d, 3)

    def forward(self, window: Tensor) -> Tensor:
        """Return the heads at the last bar."""
        x: Tensor = self.encoder(self.project(window) + self.position)
        heads: Tensor = self.heads(x[:, -1])
        return heads

    def looped(self, window: Tensor, passes: int, _: int) -> None:
        """Run so many passes, one after another."""
        with torch.no_grad():
            for _ in range(passes):
                self(window)


def raw_figures(
    settings: Settings, deep: ModelBundle, rows: Sequence[FeatureRow], *, rounds: int, slow: int
) -> dict[str, Any]:
    """Return the forward of one symbol against its floor, separate and naive passes.

    ``slow`` rounds where the naive loop of 100 passes is among them.
    """
    forecaster = deep.forecaster
    assert isinstance(forecaster, DeepForecaster)
    assert isinstance(forecaster.shape, NetShape)
    floor = Floor(forecaster.shape)
    naive = Naive(forecaster.shape, settings.training.dropout).train()
    samples = [rows_to_samples([row]) for row in rows]
    window = torch.from_numpy(samples[0].deep.take(np.zeros(1, dtype=np.int64)))

    def sampled(model: DeepForecaster, passes: int, number: int, seed: int = 0) -> None:
        at = samples[number % len(samples)]
        seeds = row_seeds("benchmark", at) + seed
        model.sample(at, n_samples=passes, seeds=seeds)

    def separate(passes: int, number: int) -> None:
        for seed in range(passes):
            sampled(forecaster, 1, number, seed)

    found: dict[str, Any] = {}
    for passes, often in ((20, rounds), (100, slow)):
        work: dict[str, Timed] = {
            "batched": partial(sampled, forecaster, passes),
            "separate": partial(separate, passes),
            "naive": partial(naive.looped, window, passes),
        }
        for chunk in FLOOR_CHUNKS:
            work[f"floor_{chunk}"] = partial(floor.every_layer, passes, chunk)
        with torch.inference_mode():
            times = alternating(work, often)
        best = min(FLOOR_CHUNKS, key=lambda chunk: statistics.median(times[f"floor_{chunk}"]))
        found[f"exact_{passes}"] = _against(times, f"floor_{best}") | {"floor_chunk": best}
    found["last_layer"] = _last_layer(settings, forecaster, floor, sampled, 4 * rounds)
    return found


def _against(times: dict[str, list[float]], floor: str) -> dict[str, float]:
    batched = times["batched"]
    return {
        "batched_ms": middle(batched),
        "floor_ms": middle(times[floor]),
        "separate_ms": middle(times["separate"]),
        "naive_ms": middle(times["naive"]),
        "batched_to_floor": ratio(batched, times[floor]),
        "batched_to_separate": ratio(batched, times["separate"]),
        "batched_to_naive": ratio(batched, times["naive"]),
    }


def _last_layer(
    settings: Settings,
    forecaster: DeepForecaster,
    floor: Floor,
    sampled: Callable[..., None],
    rounds: int,
) -> dict[str, float]:
    """Return the same weights' passes with only the last layer dropping."""
    last = settings.model_copy(
        update={"deep": settings.deep.model_copy(update={"mc_dropout": "last"})}
    )
    model = type(forecaster).from_settings(last)
    model.shape, model.standardise = forecaster.shape, forecaster.standardise
    model._install(forecaster._fitted_nets())
    work: dict[str, Timed] = {}
    for passes in (20, 100):
        work[f"batched_{passes}"] = partial(sampled, model, passes)
        work[f"floor_{passes}"] = partial(floor.last_layer, passes)
    with torch.inference_mode():
        times = alternating(work, rounds)
    return {
        **{f"{name}_ms": middle(own) for name, own in times.items()},
        **{
            f"{passes}_to_floor": ratio(times[f"batched_{passes}"], times[f"floor_{passes}"])
            for passes in (20, 100)
        },
    }


class Stages:
    """What one request does between the framework and its answer, stage by stage.

    Parameters
    ----------
    view, bars
        Features are fetched of the symbols in turn, as of bars that come one after another.
    """

    def __init__(
        self, settings: Settings, view: FeatureView, bundle: ModelBundle, bars: Sequence[int]
    ) -> None:
        self.settings, self.view, self.bundle, self.bars = settings, view, bundle, bars

    def figures(self, rounds: int) -> dict[str, float]:
        """Return the median milliseconds of each stage, and of the whole in one piece."""
        times: dict[str, list[float]] = {}
        for number in range(rounds + 1):
            for name, took in self._once(number).items():
                if number:
                    times.setdefault(name, []).append(took)
        return {f"{name}_ms": middle(own) for name, own in times.items()}

    def _once(self, number: int) -> dict[str, float]:
        market, serving = self.settings.market, self.settings.serving
        clock: Any = self.view.clock
        clock.set(self.bars[number % len(self.bars)] + market.timeframe_ms)
        symbol = market.symbols[number % len(market.symbols)]
        laps = {"start": time.perf_counter()}
        row = self.view.latest(symbol)
        laps["features"] = time.perf_counter()
        samples = rows_to_samples([row])
        seeds = row_seeds("benchmark", samples)
        if isinstance(self.bundle.forecaster, DeepForecaster):
            self._windowed(samples)
        laps["windowing"] = time.perf_counter()
        raw = self.bundle.forecaster.sample(samples, n_samples=serving.n_samples, seeds=seeds)
        laps["forward"] = time.perf_counter()
        found = combine(raw, self.bundle.calibrator, self.bundle.reference)
        laps["calibration"] = time.perf_counter()
        _answer(row, found).model_dump_json()
        laps["serialisation"] = time.perf_counter()
        return {
            stage: 1000 * (end - start)
            for (_, start), (stage, end) in itertools.pairwise(laps.items())
        }

    def _windowed(self, samples: Samples) -> None:
        """Window and standardise, which `sample` then does once more itself."""
        forecaster = self.bundle.forecaster
        assert isinstance(forecaster, DeepForecaster)
        forecaster._encode(samples, np.zeros(1, dtype=np.int64))


def _answer(row: FeatureRow, found: Forecast) -> Prediction:
    names = ("p_up", "mu", "uncertainty", "epistemic", "aleatoric", "epistemic_p")
    numbers = {name: float(getattr(found, name)[0]) for name in names}
    return Prediction(
        symbol=row.symbol,
        model_type="benchmark",
        confidence=float(found.confidence[0]),
        conviction=float(found.conviction[0]),
        signal=Signal.HOLD,
        model_version="benchmark",
        bar_ts=row.bar_ts,
        staleness_s=row.staleness_s,
        **numbers,
    )
