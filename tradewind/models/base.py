"""What every forecaster is: fit on time-ordered samples, then sample predictions.

Shapes: ``n`` rows, ``F`` wide features, ``W`` bars in a deep window, ``D`` deep features,
``S`` stochastic passes (transformer) or bag members (boosted trees).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.definitions import DEEP
from tradewind.features.samples import BoolArray as BoolArray
from tradewind.features.samples import DeepWindows as DeepWindows
from tradewind.features.samples import Float32Array as Float32Array
from tradewind.features.samples import FloatArray as FloatArray
from tradewind.features.samples import IntArray as IntArray
from tradewind.features.samples import Samples as Samples
from tradewind.settings import Settings

CONFIG_FILE = "config.json"

EpochHook = Callable[[int, Mapping[str, float]], None]
"""Called after each epoch (or member of a bag) with its number and metrics.

A resumed fit tells the epochs before the kill again, first and with the same metrics: a kill may
have come between an epoch's checkpoint and this call.
"""


@dataclass(frozen=True)
class RawForecast:
    """Uncalibrated passes: ``p`` in (0, 1), ``mu`` and ``sigma`` in log-return units; (S, n)."""

    p: FloatArray
    mu: FloatArray
    sigma: FloatArray


@dataclass(frozen=True)
class FitReport:
    """How a fit went: epochs (or rounds) run, the best one, and final metrics."""

    epochs: int
    best_epoch: int
    metrics: dict[str, float]


class Forecaster(ABC):
    """One model family. Same data, settings and seed on one machine give the same weights."""

    family: ClassVar[str]
    reads_wide: ClassVar[bool]
    """Whether the family reads the wide features, or else the deep windows."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return an unfitted forecaster of the sizes in ``settings``."""

    @abstractmethod
    def fit(
        self,
        train: Samples,
        valid: Samples,
        *,
        seed: int,
        on_epoch: EpochHook | None = None,
        checkpoint_dir: Path | None = None,
    ) -> FitReport:
        """Fit on ``train``, stop early on ``valid`` (later in time).

        ``checkpoint_dir`` makes the fit resumable: a re-run after a kill continues there
        and ends with the same weights. NaN labels are refused.
        """

    def refitted(self, samples: Samples, *, seed: int) -> Self:
        """Return this fit done again on ``samples`` with the sizes that it settled on.

        The calibrator stays that of the first fit, whose forecasts of the calibration rows are
        out of sample. A family that is not fitted twice returns itself.
        """
        return self

    @abstractmethod
    def sample(self, samples: Samples, *, n_samples: int, seeds: IntArray) -> RawForecast:
        """Return stochastic passes in one batched forward.

        ``seeds`` has one seed per row, so a row's answer does not depend on its batch.
        Families whose spread is a fixed bag ignore ``n_samples`` and ``seeds``.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write weights and config to ``folder`` without pickle."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; raise ``model_unusable`` on a bad or foreign folder."""

    def importance(self) -> dict[str, float]:
        """Return feature importance by name, empty where the family has none."""
        return {}


def read_config(folder: Path, family: str) -> dict[str, Any]:
    """Return the ``config.json`` of a saved forecaster, refusing another family's folder."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unusable(folder, f"{CONFIG_FILE} cannot be read ({error})") from error
    if config.get("family") != family:
        raise unusable(folder, f"its family is {config.get('family')!r}, not {family!r}")
    return config


def unusable(folder: Path, why: str) -> TradewindError:
    """Return the error for a saved model that cannot serve."""
    return TradewindError(
        ErrorCode.MODEL_UNUSABLE,
        f"model in {folder}: {why}",
        "Train it again, or roll back to the previous version",
    )


def check_labels(samples: Samples, name: str) -> None:
    """Refuse rows that cannot be learnt from: no rows, unknown labels, no positive scale."""
    if len(samples) == 0:
        raise TradewindError(
            ErrorCode.NOT_ENOUGH_BARS,
            f"the {name} slice has 0 labelled rows",
            "Ingest more history or raise training.days_back",
        )
    for field in ("y_up", "fwd_ret"):
        bad = int((~np.isfinite(getattr(samples, field))).sum())
        if bad:
            raise _bad_rows(f"{name}.{field}", bad, len(samples), "has no finite label")
    _check_scale(samples, name)


def check_inputs(samples: Samples, *, reads_wide: bool, nullable: Collection[str]) -> None:
    """Refuse what a prediction cannot rest on.

    Parameters
    ----------
    samples
        Rows to predict; their labels are not looked at.
    reads_wide
        Check the wide matrix, or else the deep windows.
    nullable
        Wide columns in which NaN means "not collected" and is allowed; Inf never is.

    Raises
    ------
    TradewindError
        ``bad_input``, naming the column and how many rows are bad.
    """
    _check_scale(samples, "samples")
    if not reads_wide:
        _check_windows(samples.deep)
        return
    tolerant = np.array([column in nullable for column in samples.wide_names], dtype=np.bool_)
    broken = np.isinf(samples.wide) | (np.isnan(samples.wide) & ~tolerant)
    if broken.any():
        column = int(broken.any(axis=0).argmax())
        count = int(broken[:, column].sum())
        raise _bad_rows(samples.wide_names[column], count, len(samples), "holds NaN or Inf")


def _check_scale(samples: Samples, name: str) -> None:
    bad = int((~(np.isfinite(samples.scale) & (samples.scale > 0))).sum())
    if bad:
        raise _bad_rows(f"{name}.scale", bad, len(samples), "is not a positive volatility")


def _check_windows(deep: DeepWindows) -> None:
    """Refuse windows that are short or hold a NaN or Inf, without building them all."""
    short = int((deep.end < deep.width - 1).sum())
    if short:
        raise _bad_rows("deep window", short, len(deep), f"has fewer than {deep.width} bars")
    count, column = 0, ""
    for code, bars in enumerate(deep.rows):
        total = np.concatenate([[0], np.cumsum(~np.isfinite(bars).all(axis=1))])
        end = deep.end[deep.symbol == code] + 1
        broken = end[total[end] > total[end - deep.width]]
        count += len(broken)
        if len(broken) and not column:
            first = ~np.isfinite(bars[broken[0] - deep.width : broken[0]])
            column = _deep_name(int(first.any(axis=0).argmax()), bars.shape[1])
    if count:
        raise _bad_rows(f"deep window's {column}", count, len(deep), "holds NaN or Inf")


def _deep_name(column: int, depth: int) -> str:
    """Return the name of a deep feature, its number where the set is not the usual one."""
    return DEEP[column] if depth == len(DEEP) else f"feature {column}"


def _bad_rows(what: str, bad: int, rows: int, why: str) -> TradewindError:
    return TradewindError(
        ErrorCode.BAD_INPUT,
        f"{what} {why} in {bad} of {rows} rows",
        "Materialise the features again, or leave those rows out",
    )
