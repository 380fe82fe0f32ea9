"""What is registered and served as one thing: forecaster, calibrator, reference, meta.

A bundle is a folder. ``bundle.json`` holds the SHA-256 of every other file, so that the
artefact which was evaluated is provably the one that is served.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import sha256_file, write_json
from tradewind.models.base import Forecaster, IntArray, Samples, unusable
from tradewind.models.calibration import Calibrator
from tradewind.models.families import load_forecaster
from tradewind.models.input_ranges import names_outside, out_of_range
from tradewind.models.reference import Reference
from tradewind.models.uncertainty import Forecast, combine
from tradewind.settings import RangeSettings

BUNDLE_FILE = "bundle.json"
META_FILE = "meta.json"
CALIBRATOR_FILE = "calibrator.json"
REFERENCE_FILE = "reference.json"
FORECASTER_FOLDER = "forecaster"
FORMAT = 1


class BundleMeta(BaseModel):
    """Where a model comes from, what it reads and how good it was.

    ``skill`` is the relative log-loss gain over the base rate on the walk-forward rows (where
    these are too few, on the calibration slice), floored at 0: the weight in an ensemble.
    ``gates`` is ``passed`` or ``failed``. ``calibrated_end_ms`` is where the labels of a live
    recalibration end, None without one. ``held_out_from_ms`` is where the test slice begins,
    which no fit and no calibration saw; None in older versions. Times are UTC epoch milliseconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    family: str
    key: str
    symbols: tuple[str, ...] = Field(min_length=1)
    timeframe: str
    horizon: int = Field(ge=1)
    window: int = Field(ge=1)
    feature_version: str
    wide_names: tuple[str, ...]
    data_fingerprint: str
    train_start_ms: int
    train_end_ms: int
    data_end_ms: int
    calibrated_end_ms: int | None = None
    held_out_from_ms: int | None = None
    seed: int
    epochs: int = Field(ge=1)
    created_ms: int
    skill: float = Field(ge=0)
    base_rate: float = Field(ge=0, le=1)
    metrics: dict[str, float] = Field(default_factory=dict)
    gates: str

    @property
    def identity(self) -> str:
        """Return a string that no other training shares, for use before a version exists."""
        return (
            f"{self.family}.{self.key}.{self.feature_version}.{self.data_fingerprint}"
            f".{self.train_end_ms}.{self.seed}.{self.epochs}"
        )

    @property
    def seen_until_ms(self) -> int:
        """Return from where on bars are new to all of it, the calibrator included."""
        return max(self.data_end_ms, self.calibrated_end_ms or 0)

    @property
    def unfitted_from_ms(self) -> int:
        """Return from where on no fit and no calibration saw a bar or a label.

        Its gates may have: the test slice belongs to it. The end of the data where it is not
        known where that begins.
        """
        held_out = self.data_end_ms if self.held_out_from_ms is None else self.held_out_from_ms
        return max(held_out, self.calibrated_end_ms or 0)


@dataclass(frozen=True)
class ModelBundle:
    """A forecaster with the calibrator and reference that belong to it."""

    meta: BundleMeta
    forecaster: Forecaster
    calibrator: Calibrator
    reference: Reference

    def predict(
        self,
        samples: Samples,
        *,
        n_samples: int,
        seeds: IntArray | None = None,
        feature_version: str | None = None,
    ) -> Forecast:
        """Return calibrated forecasts of ``samples``.

        Parameters
        ----------
        samples
            Rows built with the feature definitions this model was trained on.
        n_samples
            Stochastic passes; families with a fixed bag ignore it.
        seeds
            One seed per row; by default a hash of the model's identity, symbol and bar.
        feature_version
            Version of the definitions that built ``samples``; checked where given.

        Raises
        ------
        TradewindError
            ``model_unusable`` for other features than those trained on, ``bad_input`` for
            NaN or Inf where none is allowed, a wrong window or no rows.
        """
        self._check_features(samples, feature_version)
        if len(samples) == 0 or n_samples < 1:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"rows = {len(samples)}, n_samples = {n_samples}: both must be at least 1",
                "Ask for at least one row and one pass",
            )
        if seeds is None:
            seeds = row_seeds(self.meta.identity, samples)
        raw = self.forecaster.sample(samples, n_samples=n_samples, seeds=seeds)
        return combine(raw, self.calibrator, self.reference)

    def out_of_range(self, samples: Samples, rules: RangeSettings) -> list[tuple[str, ...]]:
        """Return, row by row, the inputs unlike those of training; see `input_ranges`."""
        if rules.action == "off":
            return [()] * len(samples)
        wide = self.forecaster.reads_wide
        found = out_of_range(samples, self.reference, rules, reads_wide=wide)
        return names_outside(found, self.reference)

    def _check_features(self, samples: Samples, feature_version: str | None) -> None:
        wanted = self.meta
        mismatch = ""
        if feature_version is not None and feature_version != wanted.feature_version:
            mismatch = f"feature_version = {feature_version}, not {wanted.feature_version}"
        elif samples.wide_names != wanted.wide_names:
            other = sorted(set(samples.wide_names) ^ set(wanted.wide_names)) or ["their order"]
            mismatch = f"wide features differ in {', '.join(other)}"
        elif samples.deep.width != wanted.window:
            mismatch = f"window = {samples.deep.width} bars, not {wanted.window}"
        if mismatch:
            raise TradewindError(
                ErrorCode.MODEL_UNUSABLE,
                f"{wanted.family}.{wanted.key} was trained on other features: {mismatch}",
                "Retrain it on the present feature definitions",
            )

    def save(self, folder: Path, *, forecaster_of: Path | None = None) -> None:
        """Write the bundle to ``folder``, replacing what is there; complete or not at all.

        ``forecaster_of`` is a saved bundle of the same forecaster, whose files are copied as
        they are.
        """
        staging = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp"
        try:
            if forecaster_of is None:
                self.forecaster.save(staging / FORECASTER_FOLDER)
            else:
                shutil.copytree(forecaster_of / FORECASTER_FOLDER, staging / FORECASTER_FOLDER)
            write_json(staging / CALIBRATOR_FILE, self.calibrator.to_json())
            write_json(staging / REFERENCE_FILE, self.reference.to_json())
            write_json(staging / META_FILE, self.meta.model_dump(mode="json"))
            write_json(staging / BUNDLE_FILE, {"format": FORMAT, "files": _file_digests(staging)})
            replace_folder(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a bundle after verifying the digest of every file.

        Raises
        ------
        TradewindError
            ``model_unusable`` where a file is missing, changed or not understood.
        """
        meta = read_meta(folder)
        try:
            calibrator = Calibrator.from_json(_read_json(folder, CALIBRATOR_FILE))
            reference = Reference.from_json(_read_json(folder, REFERENCE_FILE))
        except (KeyError, TypeError, ValueError) as error:
            raise unusable(folder, f"its content is not understood ({error})") from error
        forecaster = load_forecaster(meta.family, folder / FORECASTER_FOLDER)
        return cls(meta, forecaster, calibrator, reference)


def read_meta(folder: Path) -> BundleMeta:
    """Return a bundle's meta after verifying every file, without loading the model."""
    verify(folder)
    try:
        return BundleMeta.model_validate(_read_json(folder, META_FILE))
    except ValidationError as error:
        raise unusable(folder, f"{META_FILE} is not understood ({error})") from error


def digest(folder: Path) -> str:
    """Return the hex SHA-256 that identifies a bundle, after verifying every file."""
    verify(folder)
    return sha256_file(folder / BUNDLE_FILE)


def verify(folder: Path) -> None:
    """Check every file against its digest; raise ``model_unusable`` for the first bad one."""
    manifest = _read_json(folder, BUNDLE_FILE)
    if manifest.get("format") != FORMAT or not isinstance(manifest.get("files"), dict):
        raise unusable(folder, f"format = {manifest.get('format')!r}, not {FORMAT}")
    missing = {META_FILE, CALIBRATOR_FILE, REFERENCE_FILE} - set(manifest["files"])
    if missing:
        raise unusable(folder, f"{BUNDLE_FILE} does not list {', '.join(sorted(missing))}")
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise unusable(folder, f"{name} is missing")
        if sha256_file(path) != wanted:
            raise unusable(folder, f"{name} was changed after the model was saved")


def row_seeds(version: str, samples: Samples) -> IntArray:
    """Return a stable non-negative seed per row from (version, symbol, bar ts), shape (n,)."""
    names = [samples.symbols[code] for code in samples.symbol]
    return np.array(
        [_seed(version, name, int(ts)) for name, ts in zip(names, samples.ts, strict=True)],
        dtype=np.int64,
    )


def replace_folder(staging: Path, folder: Path) -> None:
    """Move the complete ``staging`` to ``folder``; a kill in between leaves no torn folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        old = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.old"
        folder.rename(old)
        staging.rename(folder)
        shutil.rmtree(old)
    else:
        staging.rename(folder)


def _seed(version: str, symbol: str, ts: int) -> int:
    content = hashlib.blake2b(f"{version}|{symbol}|{ts}".encode(), digest_size=8).digest()
    return int.from_bytes(content, "big") >> 1


def _file_digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unusable(folder, f"{name} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise unusable(folder, f"{name} does not hold an object")
    return content
