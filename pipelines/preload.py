"""What the fork server of the retrain job imports before it forks its first step."""

from __future__ import annotations

import importlib

from tradewind.settings import load_settings

for _name in (
    "lightgbm",
    "torch",
    "sklearn.isotonic",
    "scipy.stats",
    "matplotlib.backends.backend_agg",
    "mlflow.pyfunc",
    "evidently.presets",
    "pipelines.definitions",
):
    importlib.import_module(_name)
if "xgboost" in load_settings().training.families:
    importlib.import_module("xgboost")
