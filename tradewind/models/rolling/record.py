"""An evaluation as JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from tradewind.models.rolling.evaluate import Evaluation


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """Return every figure as bare JSON values; what is not a finite number is None."""
    found: dict[str, Any] = clean(
        {
            "figures": evaluation.figures,
            "against": evaluation.against,
            "luck": evaluation.luck,
            "vote": evaluation.vote,
            "folds": {
                family: {
                    key: [asdict(result) for result in results]
                    for key, results in walk.results.items()
                }
                for family, walk in evaluation.walks.items()
            },
            "judging_seconds": evaluation.seconds,
        }
    )
    return found


def clean(value: Any) -> Any:
    """Return ``value`` made of what JSON knows."""
    if isinstance(value, dict):
        return {str(name): clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
