"""The labelled rows that a model is fitted on, and how they travel between steps."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.definitions import DEEP, REQUIRED_FEATURES, WIDE, feature_version
from tradewind.features.labels import add_labels
from tradewind.features.reading import read_features
from tradewind.features.reversion import add_reversion
from tradewind.features.samples import DeepWindows, Samples, warm_streak
from tradewind.files import write_bytes, write_json
from tradewind.market.store import BarStore
from tradewind.settings import MS_PER_DAY, TIMEFRAME_MS, Settings

ARRAYS_FILE = "samples.npz"
META_FILE = "training_set.json"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Labelled samples and what they were made of.

    ``start_ms`` is the open of the first sample's bar; ``end_ms`` the close of the last bar
    that went in, which is the last label's. ``data_fingerprint`` covers every bar that the
    symbols and the references had when it was built.
    """

    samples: Samples
    feature_version: str
    data_fingerprint: str
    start_ms: int
    end_ms: int
    timeframe: str
    horizon: int

    def save(self, folder: Path) -> None:
        """Write to ``folder`` atomically and without pickle; the description comes last."""
        samples = self.samples
        arrays = {
            name: getattr(samples, name)
            for name in ("ts", "symbol", "wide", "y_up", "fwd_ret", "scale")
        }
        if samples.reverted is not None:
            arrays["reverted"] = samples.reverted
        arrays |= {"deep_symbol": samples.deep.symbol, "deep_end": samples.deep.end}
        arrays |= {f"deep_{code}": rows for code, rows in enumerate(samples.deep.rows)}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_bytes(folder / ARRAYS_FILE, buffer.getvalue())
        write_json(
            folder / META_FILE,
            {
                "format": FORMAT,
                "feature_version": self.feature_version,
                "data_fingerprint": self.data_fingerprint,
                "start_ms": self.start_ms,
                "end_ms": self.end_ms,
                "timeframe": self.timeframe,
                "horizon": self.horizon,
                "symbols": list(samples.symbols),
                "wide_names": list(samples.wide_names),
                "deep_rows": len(samples.deep.rows),
                "width": samples.deep.width,
                "rows": len(samples),
                "arrays_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> TrainingSet:
        """Read what `save` wrote.

        Raises
        ------
        TradewindError
            ``corrupt_file`` when it is missing, torn or of another format.
        """
        try:
            meta = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
            content = (folder / ARRAYS_FILE).read_bytes()
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']} instead of {FORMAT}")
            if meta["arrays_sha256"] != hashlib.sha256(content).hexdigest():
                raise ValueError(f"{ARRAYS_FILE} is not the file that {META_FILE} describes")
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                samples = _samples_from(meta, {name: stored[name] for name in stored.files})
            return cls(
                samples=samples,
                feature_version=str(meta["feature_version"]),
                data_fingerprint=str(meta["data_fingerprint"]),
                start_ms=int(meta["start_ms"]),
                end_ms=int(meta["end_ms"]),
                timeframe=str(meta["timeframe"]),
                horizon=int(meta["horizon"]),
            )
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise TradewindError(
                ErrorCode.CORRUPT_FILE,
                f"the training set in {folder} cannot be read ({error})",
                "Delete that folder and run the retraining again: it is built from the store",
            ) from error


def build_training_set(
    settings: Settings,
    store: BarStore,
    until_ms: int,
    *,
    symbols: Sequence[str],
    days_back: int | None = None,
) -> TrainingSet:
    """Build the labelled, warm rows of the last ``days_back`` days before ``until_ms``.

    Only bars closed at ``until_ms`` are read, labels included; earlier bars are read for the
    warm-up, so that the first row is as good as the last.

    Raises
    ------
    TradewindError
        ``not_enough_bars`` naming the symbol and how many it has; ``no_bars``.
    """
    days = settings.training.days_back if days_back is None else days_back
    timeframe, step = settings.market.timeframe, settings.market.timeframe_ms
    start_ms = until_ms - days * MS_PER_DAY
    lead_ms = (settings.features.window - 1) * step
    frames = {
        symbol: read_features(
            settings, store, symbol, start_ms=start_ms - lead_ms, until_ms=until_ms
        )
        for symbol in symbols
    }
    samples = samples_from_frames(settings, frames, start_ms=start_ms)
    used = dict.fromkeys((*symbols, *settings.market.reference_symbols))
    stored = [name for name in used if name in store.symbols(timeframe)]
    return TrainingSet(
        samples=samples,
        feature_version=feature_version(settings),
        data_fingerprint=store.fingerprint(stored, timeframe, until_ms=until_ms),
        start_ms=int(samples.ts[0]),
        end_ms=int(samples.ts[-1]) + (settings.training.horizon + 1) * step,
        timeframe=timeframe,
        horizon=settings.training.horizon,
    )


def samples_from_frames(
    settings: Settings, frames: Mapping[str, pl.DataFrame], *, start_ms: int = 0
) -> Samples:
    """Label feature frames (`compute_features`, one a symbol) and join their usable rows.

    Usable is a row whose whole deep window is warm and whose label exists; NaN stays in
    nullable features only. Sorted by (ts, symbol).

    Raises
    ------
    TradewindError
        ``not_enough_bars`` when a symbol has none.
    """
    width, horizon = settings.features.window, settings.training.horizon
    timeframe = settings.market.timeframe
    parts = []
    for symbol, frame in frames.items():
        labelled = add_reversion(
            add_labels(frame, horizon, timeframe),
            horizon,
            timeframe,
            stop_atr=settings.gru.stop_atr,
            min_distance=settings.gru.min_distance,
        )
        usable = (
            (warm_streak(labelled, TIMEFRAME_MS[timeframe]) >= width)
            & np.isfinite(labelled["fwd_ret"].to_numpy())
            & (labelled["ts"].to_numpy() >= start_ms)
        )
        end = np.flatnonzero(usable).astype(np.int64)
        if not end.size:
            raise _too_few(settings, symbol, frame)
        parts.append((labelled, end))
    rows = [labelled[end] for labelled, end in parts]
    symbol_code = np.repeat(np.arange(len(parts), dtype=np.int64), [len(end) for _, end in parts])
    joined = pl.concat(rows)
    order = np.lexsort((symbol_code, joined["ts"].to_numpy()))
    joined, symbol_code = joined[order], symbol_code[order]
    return Samples(
        ts=joined["ts"].to_numpy(writable=True),
        symbol=symbol_code,
        symbols=tuple(frames),
        wide=np.ascontiguousarray(joined.select(WIDE).to_numpy()),
        wide_names=WIDE,
        deep=DeepWindows(
            rows=tuple(
                np.ascontiguousarray(labelled.select(DEEP).to_numpy().astype(np.float32))
                for labelled, _ in parts
            ),
            symbol=symbol_code,
            end=np.concatenate([end for _, end in parts])[order],
            width=width,
        ),
        y_up=joined["y_up"].to_numpy(writable=True),
        fwd_ret=joined["fwd_ret"].to_numpy(writable=True),
        scale=joined["scale"].to_numpy(writable=True),
        reverted=joined["reverted"].to_numpy(writable=True),
    )


def _too_few(settings: Settings, symbol: str, frame: pl.DataFrame) -> TradewindError:
    features = settings.features
    needed = features.warmup_bars + features.window + settings.training.horizon
    longest = 0 if frame.is_empty() else int(np.max(frame["history"].to_numpy())) + 1
    detail = f"{symbol} has {longest} bars without a hole; one sample needs {needed}"
    if longest >= needed:
        values = frame.select(REQUIRED_FEATURES).to_numpy()
        never = np.array(REQUIRED_FEATURES)[~np.isfinite(values).any(axis=0)]
        unknown = ", ".join(never) or "a whole window"
        detail = f"{symbol} has {longest} bars but never {unknown} together with a label"
    return TradewindError(
        ErrorCode.NOT_ENOUGH_BARS,
        detail,
        "Run `tradewind ingest` for it and the reference symbols, or raise market.history_days",
    )


def _samples_from(meta: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> Samples:
    deep = DeepWindows(
        rows=tuple(arrays[f"deep_{code}"] for code in range(int(str(meta["deep_rows"])))),
        symbol=arrays["deep_symbol"],
        end=arrays["deep_end"],
        width=int(str(meta["width"])),
    )
    return Samples(
        ts=arrays["ts"],
        symbol=arrays["symbol"],
        symbols=_names(meta["symbols"]),
        wide=arrays["wide"],
        wide_names=_names(meta["wide_names"]),
        deep=deep,
        y_up=arrays["y_up"],
        fwd_ret=arrays["fwd_ret"],
        scale=arrays["scale"],
        reverted=arrays.get("reverted"),
    )


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list of names")
    return tuple(str(item) for item in value)
