"""The feature table is the specification's, and its version follows it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.features import market, small_settings
from tradewind.errors import TradewindError
from tradewind.features import definitions
from tradewind.features.compute import compute_features
from tradewind.features.definitions import (
    DEEP,
    NULLABLE_FEATURES,
    REQUIRED_FEATURES,
    TABLE,
    WIDE,
    feature_version,
)
from tradewind.settings import load_settings


def test_sets_are_those_of_the_specification_in_its_order() -> None:
    assert (
        *("ret_1", "ema_20", "ema_50", "ema_200", "z_20", "range", "vol_20"),
        *("ratio_BTC_ETH", "ratio_ETH_SOL", "lead_ret_BTC"),
    ) == DEEP
    assert (
        *DEEP,
        *("rsi_14", "atr_14", "adx_14", "di_diff_14", "macd_hist", "bb_pctb_20", "bb_width_20"),
        *("stoch_k_14", "volume_ratio_20", "ret_4", "ret_16", "ret_96", "vol_ratio_20_96"),
        *("hour_sin", "hour_cos", "funding_rate", "open_interest_change", "long_short_ratio"),
    ) == WIDE
    assert NULLABLE_FEATURES == ("funding_rate", "open_interest_change", "long_short_ratio")
    assert (*REQUIRED_FEATURES, *NULLABLE_FEATURES) == WIDE
    assert len(set(WIDE)) == len(WIDE)
    assert all(feature.formula for feature in TABLE)


def test_version_follows_parameters_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    base = small_settings()
    versions = {
        feature_version(base),
        feature_version(small_settings(ratio_window=51)),
        feature_version(small_settings(warmup_bars=301)),
        feature_version(small_settings(window=17)),
        feature_version(
            load_settings(**base.model_dump(exclude={"market"}), market={"timeframe": "1h"})
        ),
    }
    assert len(versions) == 5
    assert feature_version(small_settings(risk_atr_bars=50)) == feature_version(base)
    changed = (*TABLE[:-1], TABLE[-1]._replace(formula="something else"))
    monkeypatch.setattr(definitions, "TABLE", changed)
    assert feature_version(base) not in versions


def test_version_is_the_same_in_another_process() -> None:
    code = (
        "from tests.support.features import small_settings;"
        "from tradewind.features.definitions import feature_version;"
        "print(feature_version(small_settings()))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == feature_version(small_settings())


def test_fewer_than_three_references_are_refused() -> None:
    settings = load_settings(market={"reference_symbols": ["BTCUSDT", "ETHUSDT"]})
    with pytest.raises(TradewindError, match="reference_symbols"):
        compute_features(market(10), "BTCUSDT", settings)


def test_importing_features_loads_nothing_heavy() -> None:
    code = (
        "import json, sys, tradewind.features.view, tradewind.features.lookahead;"
        "heavy = ('torch', 'pandas', 'lightgbm', 'mlflow', 'numba', 'talib');"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_warm_up_of_a_window_is_where_its_numbers_begin() -> None:
    settings = small_settings()
    frame = compute_features(market(400), "SOLUSDT", settings)
    for feature in TABLE:
        if feature.nullable or feature.warmup == definitions.RECURSIVE:
            continue
        known = frame[feature.name].is_finite().to_list()
        assert known.index(True) == definitions.warmup_of(feature, settings), feature.name
        assert all(known[known.index(True) :])
