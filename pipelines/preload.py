"""What the fork server of the retrain job imports before it forks its first step."""

from __future__ import annotations

import lightgbm  # noqa: TID253  # loaded on purpose: this module is imported in one process only
import mlflow.pyfunc  # noqa: TID253
import torch  # noqa: TID253

import pipelines.definitions

__all__ = ["lightgbm", "mlflow", "pipelines", "torch"]
