"""Real bundles: registered, loaded by MLflow in a clean process, and answering the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import registry
from registry.aliases import promote_candidate
from registry.pyfunc_io import FIELDS, example_of, from_input, to_input
from registry.tracking import Tracking
from registry.versions import fetch_bundle, register_bundle
from tests.support.samples import SYMBOLS, WIDE_NAMES, WINDOW, in_time_order, planted_samples
from tests.support.tiny import tiny_forecaster
from tradewind.contracts import registered_name
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import Samples
from tradewind.models.bundle import BundleMeta, ModelBundle
from tradewind.models.calibration import Calibrator
from tradewind.models.reference import Reference
from tradewind.settings import Settings

REPOSITORY = Path(registry.__file__).resolve().parent.parent
CLEAN = """
import json, sys
import mlflow, numpy as np
uri, model, inputs, answer = sys.argv[1:]
unpickled = []
mlflow.set_tracking_uri(uri)
loading = [False]
sys.addaudithook(lambda event, _: unpickled.append(event) if loading[0] and event ==
                 "pickle.find_class" else None)
loading[0] = True
loaded = mlflow.pyfunc.load_model(model)
loading[0] = False
arrays = dict(np.load(inputs))
given = loaded.predict(arrays, params={"n_samples": 5})
np.savez(answer, **given)
print(json.dumps({"unpickled": len(unpickled), "run_id": loaded.metadata.run_id}))
"""


def make(family: str) -> tuple[ModelBundle, Samples]:
    train, valid, test = in_time_order(planted_samples(300), 0.6, 0.2, 0.2)
    forecaster = tiny_forecaster(family)
    if family == "transformer":
        forecaster.plan = type(forecaster.plan)(epochs=1, max_epoch_samples=200)  # type: ignore[attr-defined]
    forecaster.fit(train, valid, seed=1)
    meta = BundleMeta(
        family=family,
        key="POOLED",
        symbols=SYMBOLS,
        timeframe="15m",
        horizon=16,
        window=WINDOW,
        feature_version="f1",
        wide_names=WIDE_NAMES,
        data_fingerprint="abc",
        train_start_ms=int(train.ts[0]),
        train_end_ms=int(train.ts[-1]),
        data_end_ms=int(test.ts[-1]),
        seed=1,
        epochs=1,
        created_ms=1_735_689_600_000,
        skill=0.0,
        base_rate=0.5,
        gates="unknown",
    )
    reference = Reference.fit(train.wide, WIDE_NAMES, np.linspace(0.3, 0.7, len(train)))
    return ModelBundle(meta, forecaster, Calibrator("identity"), reference), test


@pytest.mark.parametrize(
    "family",
    [
        "lightgbm",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("xgboost", "transformer")),
    ],
)
def test_mlflow_loads_a_registered_bundle_in_a_clean_process(
    family: str, tracking: Tracking, settings: Settings, tmp_path: Path
) -> None:
    bundle, test = make(family)
    bundle.save(tmp_path / "bundle")
    inputs, outputs = example_of(bundle, test, n_samples=5)
    name = registered_name(family, "POOLED")
    with tracking.start_run("train") as run:
        version = register_bundle(
            tracking,
            tmp_path / "bundle",
            run_id=run.run_id,
            name=name,
            input_example=inputs,
            output_example=outputs,
        )
    promote_candidate(tracking, version, True)

    rows = test.subset(np.arange(7, dtype=np.int64))
    np.savez(tmp_path / "inputs.npz", **to_input(rows, bundle.meta))
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", CLEAN, tracking.uri),
            *(f"models:/{name}@champion", str(tmp_path / "inputs.npz"), str(tmp_path / "out.npz")),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == {"unpickled": 0, "run_id": run.run_id}
    expected = bundle.predict(rows, n_samples=5)
    with np.load(tmp_path / "out.npz") as given:
        assert set(given.files) == set(outputs)
        for field in ("p_up", "mu", "epistemic", "aleatoric", "uncertainty", "epistemic_p"):
            np.testing.assert_allclose(given[field], getattr(expected, field), atol=1e-6)

    folder = fetch_bundle(tracking, name, alias="champion", cache_dir=settings.home / "models")
    again = ModelBundle.load(folder).predict(rows, n_samples=5)
    np.testing.assert_allclose(again.p_up, expected.p_up, atol=1e-6)


def described() -> BundleMeta:
    bundle, _ = make("lightgbm")
    return bundle.meta


def test_samples_survive_the_way_through_arrays() -> None:
    samples = planted_samples(20, symbols=("ETHUSDT", "BTCUSDT"))
    meta = described()
    back = from_input(to_input(samples, meta), meta)
    names = [samples.symbols[code] for code in samples.symbol]
    assert [back.symbols[code] for code in back.symbol] == names
    index = np.arange(len(samples), dtype=np.int64)
    np.testing.assert_array_equal(back.deep.take(index), samples.deep.take(index))
    for field in ("ts", "wide", "scale"):
        np.testing.assert_array_equal(getattr(back, field), getattr(samples, field))
    assert np.isnan(back.y_up).all()


def drop(name: str) -> Any:
    return lambda arrays: arrays.pop(name)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        *((drop(name), f"{name!r} is missing") for name in FIELDS),
        (lambda a: a.update(wide=a["wide"][0]), "'wide' has shape"),
        (lambda a: a.update(scale=a["scale"][:-1]), "'scale' has shape"),
        (lambda a: a.update(symbol=a["symbol"] + 2), "not positions among 2 symbols"),
        (lambda a: a.update(symbol=a["symbol"] - 1), "not positions among 2 symbols"),
    ],
)
def test_wrong_arrays_are_refused(damage: Any, words: str) -> None:
    meta = described()
    arrays = to_input(planted_samples(3), meta)
    damage(arrays)
    with pytest.raises(TradewindError) as caught:
        from_input(arrays, meta)
    assert caught.value.code is ErrorCode.BAD_INPUT
    assert words in caught.value.detail
