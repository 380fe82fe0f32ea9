"""What answers look like, for the OpenAPI document: real ones, figures shortened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tradewind.errors import ErrorCode

_SAME: Final[dict[str, Any]] = {
    "symbol": "BTCUSDT",
    "bar_ts": 1776836700000,
    "staleness_s": 0.0,
    "stale": False,
    "regime": "trend",
    "regime_computed": True,
    "regime_state": "TREND_UP",
    "regime_confidence": 0.952779,
    "feature_version": "3b68a4c0185b",
    "features_fingerprint": "fd5aeed1486eab703f301b20fc90cd9a",
    "decision_id": "dda0c0a9-3dcc-571d-9e2e-48ef32e558ba",
    "served_by": "champion",
    "missing_members": [],
    "disabled_members": [],
    "failed_members": [],
    "out_of_range": [],
}
"""What the three answers to one question have in common."""
PREDICTIONS: Final[Mapping[str, dict[str, Any]]] = {
    "predict": {
        **_SAME,
        "model_type": "lightgbm",
        "p_up": 0.448789,
        "mu": -0.00197981,
        "uncertainty": 0.00848824,
        "epistemic": 0.000164714,
        "aleatoric": 0.00848664,
        "epistemic_p": 0.00370906,
        "confidence": 0.102422,
        "conviction": 0.776119,
        "signal": "ENTRY_SHORT",
        "model_version": "tradewind.lightgbm.POOLED/1",
        "mc_samples": None,
        "gates": "passed",
        "consensus": None,
        "votes": [],
        "mu_low": -0.018997,
        "mu_high": 0.0150373,
    },
    "predict_deep": {
        **_SAME,
        "model_type": "deep_transformer",
        "p_up": 0.51172,
        "mu": -0.000130283,
        "uncertainty": 0.0140109,
        "epistemic": 0.00011909,
        "aleatoric": 0.0140104,
        "epistemic_p": 0.00314112,
        "confidence": 0.0234398,
        "conviction": 0.288557,
        "signal": "HOLD",
        "model_version": "tradewind.transformer.POOLED/1",
        "mc_samples": 20,
        "gates": "failed",
        "consensus": None,
        "votes": [],
        "mu_low": -0.0277251,
        "mu_high": 0.0274645,
    },
    "predict_ensemble": {
        **_SAME,
        "model_type": "ensemble",
        "p_up": 0.480254,
        "mu": -0.00105505,
        "uncertainty": 0.0116204,
        "epistemic": 0.000935868,
        "aleatoric": 0.0115826,
        "epistemic_p": 0.0314655,
        "confidence": 0.0394912,
        "conviction": 0.532338,
        "signal": "HOLD",
        "model_version": "ensemble-ec6b82ea66a1",
        "mc_samples": 20,
        "gates": "failed",
        "consensus": "none",
        "votes": [
            {
                "family": "lightgbm",
                "model_version": "tradewind.lightgbm.POOLED/1",
                "action": "SELL",
                "p_up": 0.448789,
                "mu": -0.00197981,
                "confidence": 0.102422,
                "weight": 0.0,
                "latency_ms": 1.30536,
            },
            {
                "family": "transformer",
                "model_version": "tradewind.transformer.POOLED/1",
                "action": "HOLD",
                "p_up": 0.51172,
                "mu": -0.000130283,
                "confidence": 0.97656,
                "weight": 0.0,
                "latency_ms": 66.4461,
            },
        ],
        "mu_low": -0.023361,
        "mu_high": 0.0212509,
    },
}

ERRORS: Final[Mapping[ErrorCode, dict[str, str]]] = {
    ErrorCode.BAD_INPUT: {
        "detail": "n_samples = 0 is outside 1..1000",
        "hint": "Ask for 1 to 1000 stochastic passes",
    },
    ErrorCode.UNKNOWN_SYMBOL: {
        "detail": "symbol = 'NOPE' is not traded here",
        "hint": "Known symbols: BTCUSDT, ETHUSDT, SOLUSDT",
    },
    ErrorCode.NO_CHALLENGER: {
        "detail": "no challenger of transformer shadows BTCUSDT",
        "hint": "Ask without shadow=1, or launch the Dagster job `retrain`: a version that passes "
        "the gates becomes challenger",
    },
    ErrorCode.UNKNOWN_VERSION: {
        "detail": "tradewind.lightgbm.BTCUSDT has no version 77",
        "hint": "Its versions: 1, 2",
    },
    ErrorCode.NOT_ENOUGH_BARS: {
        "detail": "XRPUSDT has 50 of 316 bars: 266 more 15m bars are missing",
        "hint": "Run `tradewind ingest` (Dagster job `ingest`) for it and its reference symbols",
    },
    ErrorCode.OVERLOADED: {
        "detail": "/ml/predict_deep refused: serving.max_concurrency requests are already being "
        "answered",
        "hint": "Ask again after the time in Retry-After, or raise serving.max_concurrency",
    },
    ErrorCode.STALE_FEATURES: {
        "detail": "the features of BTCUSDT are 1800 s late, more than 300 s "
        "(last bar 1776836700000)",
        "hint": "Launch the Dagster job `ingest`, or ask with allow_stale=1",
    },
    ErrorCode.NO_CHAMPION: {
        "detail": "no champion of lightgbm serves ETHUSDT",
        "hint": "Run `tradewind train -s ETHUSDT`, or launch the Dagster job `retrain` for ETHUSDT",
    },
    ErrorCode.MODEL_UNUSABLE: {
        "detail": "tradewind.transformer.POOLED/7 answers with NaN or Inf",
        "hint": "Roll back with the job `rollback`, or train again",
    },
    ErrorCode.INTERNAL: {
        "detail": "/ml/predict failed (HTTP 500)",
        "hint": "Look into serving's log for the request at this time",
    },
}
MANY: Final[dict[str, Any]] = {
    "predictions": [PREDICTIONS["predict_deep"]],
    "problems": [
        {
            "symbol": "NOPE",
            "error": ErrorCode.UNKNOWN_SYMBOL.value,
            **ERRORS[ErrorCode.UNKNOWN_SYMBOL],
        }
    ],
}
