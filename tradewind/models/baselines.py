"""What every model has to beat: base rate, last-sign momentum, logistic regression."""

from __future__ import annotations

import numpy as np

from tradewind.models.base import FloatArray, Samples

MOMENTUM_FEATURE = "ret_1"
BASELINES = ("base_rate", "momentum", "logistic")


def baseline_predictions(train: Samples, test: Samples) -> dict[str, FloatArray]:
    """Return p_up of each baseline on ``test``, learnt on ``train`` alone; shapes (n,)."""
    return {
        "base_rate": np.full(len(test), float(train.y_up.mean())),
        "momentum": _momentum(train, test),
        "logistic": _logistic(train, test),
    }


def _momentum(train: Samples, test: Samples) -> FloatArray:
    """The rate of rises after a rising bar, and after another, both from the training slice."""
    column = train.wide_names.index(MOMENTUM_FEATURE)
    rose = train.wide[:, column] > 0
    after_rise, after_fall = train.y_up[rose], train.y_up[~rose]
    up = float(after_rise.mean()) if len(after_rise) else 0.5
    down = float(after_fall.mean()) if len(after_fall) else 0.5
    return np.where(test.wide[:, column] > 0, up, down)


def _logistic(train: Samples, test: Samples) -> FloatArray:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        SimpleImputer(keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=0.01, max_iter=500),
    )
    model.fit(train.wide, train.y_up)
    p: FloatArray = model.predict_proba(test.wide)[:, 1]
    return p
