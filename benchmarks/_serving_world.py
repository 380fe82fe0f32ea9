"""A world to serve from, made in a folder of its own: bars, models of real size, a registry.

The bars are random walks and the models are hardly trained: what is measured on them is speed
and behaviour, never quality. The networks and trees have the sizes of the default settings.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil

from registry.tracking import Tracking
from registry.versions import RegisteredVersion, register_bundle
from serving.launch import environment
from tradewind.contracts import POOLED, registered_name
from tradewind.ledger import open_ledger, set_replay_clock
from tradewind.market.active import store_for
from tradewind.models.bundle import BundleMeta, ModelBundle
from tradewind.models.calibration import Calibrator
from tradewind.models.dataset import TrainingSet, build_training_set
from tradewind.models.families import create
from tradewind.models.reference import Reference
from tradewind.settings import Settings, load_settings

REPOSITORY = Path(__file__).resolve().parents[1]
START_MS = 1_735_689_600_000
STEP_MS = 900_000
REFERENCES = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
FAMILIES = ("lightgbm", "transformer")
FIT_DAYS = 20
REFERENCE_ROWS = 200
READY_S = 180.0
STOP_S = 20.0

FULL_SIZE: Mapping[str, Any] = {
    "training": {"epochs": 1, "max_epoch_samples": 128, "days_back": FIT_DAYS},
    "deep": {"validation_rows": 50},
}
"""Everything that makes a forward slow or fast is as in the default settings."""
TINY: Mapping[str, Any] = {
    "features": {"warmup_bars": 300, "window": 16, "ratio_window": 50},
    "training": {"bag": 2, "epochs": 1, "max_epoch_samples": 128, "days_back": FIT_DAYS},
    "boosted": {"max_rounds": 20, "min_rounds": 5, "early_stopping_rounds": 10},
    "deep": {
        **{"d_model": 16, "heads": 2, "layers": 2, "feedforward": 32},
        "validation_rows": 50,
    },
}
"""For tests: every part is there, and small."""


@dataclass(frozen=True)
class ServingWorld:
    """Settings, registry and the versions in it; ``versions`` by family, oldest first.

    The first version of every family is the champion. Requests may be made at any bar from
    ``first_ms`` (where its close is the clock) to ``last_ms``: all of them have features.
    """

    settings: Settings
    tracking: Tracking
    versions: dict[str, list[RegisteredVersion]]
    bundles: dict[str, list[ModelBundle]]
    first_ms: int
    last_ms: int
    scratch: Path

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that are served."""
        return self.settings.market.symbols

    def set_clock(self, ms: int, speed: float = 0) -> None:
        """Set the replay clock of every process; with ``speed`` it runs on from there."""
        with open_ledger(self.settings) as ledger:
            set_replay_clock(ledger, ms, speed)

    def point(self, version: RegisteredVersion, alias: str = "champion") -> None:
        """Move an alias, at once and without gates."""
        self.tracking.client.set_registered_model_alias(version.name, alias, str(version.version))

    def unpoint(self, family: str, alias: str) -> None:
        """Take an alias away."""
        name = registered_name(family, POOLED)
        self.tracking.client.delete_registered_model_alias(name, alias)

    def reset(self) -> None:
        """Make the first versions champions again, alone, at the first bar."""
        for family, versions in self.versions.items():
            self.point(versions[0])
            for alias in ("challenger", "canary"):
                self.unpoint(family, alias)
        self.set_clock(self.first_ms)

    def register(self, bundle: ModelBundle) -> RegisteredVersion:
        """Register a bundle as a new version of its family, and return it."""
        name = registered_name(bundle.meta.family, bundle.meta.key)
        folder = self.scratch / f"{name}-{time.monotonic_ns()}"
        bundle.save(folder)
        with self.tracking.start_run("train") as run:
            return register_bundle(
                self.tracking,
                folder,
                run_id=run.run_id,
                name=name,
                input_example={"scale": np.ones(2)},
                output_example={"p_up": np.full(2, 0.5)},
                tags={"gates": "passed"},
            )

    def register_broken(self, family: str) -> RegisteredVersion:
        """Register a version that is sound in the registry and that no one can load."""
        sound = self.bundles[family][0]
        return self.register(replace(sound, calibrator=Calibrator("unheard-of")))


def make_world(
    folder: Path,
    *,
    symbols: int = 3,
    serve_bars: int = 500,
    versions: int = 2,
    sizes: Mapping[str, Any] = FULL_SIZE,
    serving: Mapping[str, Any] | None = None,
) -> ServingWorld:
    """Make bars, fit and register models, point the champions, and set the clock.

    Parameters
    ----------
    folder
        Empty; everything goes under it.
    symbols
        How many are served; the first three are the references.
    serve_bars
        Bars after the models' last one, at each of which requests may be made.
    versions
        Versions a family, of different seeds.
    sizes
        `FULL_SIZE`, or `TINY` for tests.
    serving
        Settings of the section ``serving``; the port is free unless given.
    """
    settings = world_settings(folder / "home", symbols, sizes, serving or {})
    features, horizon = settings.features, settings.training.horizon
    fit_bars = FIT_DAYS * 86_400_000 // STEP_MS
    known = features.warmup_bars + features.window + horizon + fit_bars
    store = store_for(settings)
    for seed, symbol in enumerate(settings.market.all_symbols):
        store.write_bars(symbol, "15m", made_up_bars(known + serve_bars, seed))
    fitted_ms = START_MS + known * STEP_MS
    data = build_training_set(
        settings, store, fitted_ms, symbols=settings.market.symbols[: len(REFERENCES)]
    )
    (folder / "bundles").mkdir(parents=True)
    world = ServingWorld(
        settings=settings,
        tracking=Tracking(settings),
        versions={},
        bundles={},
        first_ms=fitted_ms,
        last_ms=fitted_ms + serve_bars * STEP_MS,
        scratch=folder / "bundles",
    )
    for family in settings.training.families:
        world.bundles[family] = [
            fit_bundle(settings, data, family, seed=seed) for seed in range(1, versions + 1)
        ]
        world.versions[family] = [world.register(bundle) for bundle in world.bundles[family]]
        world.point(world.versions[family][0])
    world.set_clock(world.first_ms)
    return world


def world_settings(
    home: Path, symbols: int, sizes: Mapping[str, Any], serving: Mapping[str, Any]
) -> Settings:
    """Return the settings of a world; an expiry would end it as its clock moves on."""
    more = tuple(f"S{number:03d}USDT" for number in range(len(REFERENCES), symbols))
    names = (*REFERENCES, *more)[:symbols]
    return load_settings(
        home=home,
        data=None,
        clock="replay",
        market={"symbols": names, "reference_symbols": REFERENCES},
        registry={"model_expiry_days": 0},
        serving={"port": free_port(), **serving},
        **sizes,
    )


def made_up_bars(count: int, seed: int) -> pl.DataFrame:
    """Return closed bars of a driftless random walk from `START_MS` on."""
    rng = np.random.default_rng(seed)
    close = 100 * (seed + 1) * np.exp(np.cumsum(rng.normal(0, 0.002, count)))
    open_ = np.concatenate([close[:1], close[:-1]])
    spread = np.abs(rng.normal(0, 0.001, count)) * close
    return pl.DataFrame(
        {
            "ts": START_MS + np.arange(count, dtype=np.int64) * STEP_MS,
            "open": open_,
            "high": np.maximum(open_, close) + spread,
            "low": np.minimum(open_, close) - spread,
            "close": close,
            "volume": rng.lognormal(3, 1, count),
        }
    )


def fit_bundle(settings: Settings, data: TrainingSet, family: str, *, seed: int) -> ModelBundle:
    """Fit a pooled model quickly; its probabilities are served as they are."""
    rows = data.samples
    half = len(rows) // 2
    train, rest = rows.subset(np.arange(half)), rows.subset(np.arange(half, len(rows)))
    forecaster = create(family, settings)
    report = forecaster.fit(train, rest, seed=seed)
    few = rest.subset(np.linspace(0, len(rest) - 1, REFERENCE_ROWS).astype(np.int64))
    seeds = np.arange(len(few), dtype=np.int64)
    p_raw = forecaster.sample(few, n_samples=2, seeds=seeds).p.mean(axis=0)
    meta = BundleMeta(
        family=family,
        key=POOLED,
        symbols=settings.market.symbols,
        timeframe=data.timeframe,
        horizon=data.horizon,
        window=settings.features.window,
        feature_version=data.feature_version,
        wide_names=rows.wide_names,
        data_fingerprint=data.data_fingerprint,
        train_start_ms=data.start_ms,
        train_end_ms=int(train.ts[-1]),
        data_end_ms=data.end_ms,
        seed=seed,
        epochs=report.epochs,
        created_ms=data.end_ms,
        skill=0.01,
        base_rate=0.5,
        metrics={"auc": 0.5},
        gates="passed",
    )
    reference = Reference.fit(few.wide, few.wide_names, p_raw)
    return ModelBundle(meta, forecaster, Calibrator("identity"), reference)


@dataclass
class RunningServer:
    """A server process; `supervisor` started `worker`, who answers at `url`."""

    settings: Settings
    process: subprocess.Popen[bytes]
    url: str
    log: Path
    ready_s: float = field(default=0.0)

    @property
    def supervisor(self) -> psutil.Process:
        """Return the process that was started."""
        return psutil.Process(self.process.pid)

    @property
    def worker(self) -> psutil.Process:
        """Return the process that holds the models."""
        return self.supervisor.children()[0]

    def wait_until_ready(self, limit_s: float = READY_S) -> float:
        """Wait until every champion is loaded; return the seconds it took.

        Raises
        ------
        RuntimeError
            If the process ends, or the time does; the end of its log says why.
        """
        began = time.monotonic()
        while time.monotonic() - began < limit_s:
            if self.process.poll() is not None:
                raise RuntimeError(f"serving ended:\n{self._tail()}")
            if self._ready():
                return time.monotonic() - began
            time.sleep(0.05)
        raise RuntimeError(f"serving not ready after {limit_s} s:\n{self._tail()}")

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


@contextlib.contextmanager
def running(
    settings: Settings, log: Path, *, command: Sequence[str] | None = None
) -> Iterator[RunningServer]:
    """Run the real server of ``settings`` in processes of its own; yields it once it is ready.

    ``command`` replaces ``python -m serving``. At the end it is told to stop, then killed.
    """
    given = {name: v for name, v in os.environ.items() if not name.startswith("TRADEWIND_")}
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [*(command or (sys.executable, "-m", "serving"))],
            cwd=REPOSITORY,
            env={**given, **environment(settings)},
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://{settings.serving.host}:{settings.serving.port}"
    server = RunningServer(settings, process, url, log)
    try:
        server.ready_s = server.wait_until_ready()
        yield server
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
