"""One answer of a candidate that is not registered yet, through the code that serves."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from registry.versions import RegisteredVersion
from serving.batching import ForwardBatcher
from serving.live_view import LiveView
from serving.loaded import Forward, LoadedModel
from serving.metrics import ServingMetrics
from serving.models import CHAMPION, Snapshot
from serving.prediction_log import PredictionLog
from serving.predictor import Predictor
from serving.questions import FAMILY, Ask, Kind, Question
from tradewind.clock import ManualClock
from tradewind.contracts import Prediction, registered_name
from tradewind.ledger import open_ledger
from tradewind.models.bundle import ModelBundle
from tradewind.settings import Settings


@dataclass(frozen=True)
class _Candidate:
    """A table of models that holds one candidate as its champion."""

    snapshot: Snapshot


def answer_once(settings: Settings, bundle: ModelBundle, until_ms: int) -> Prediction:
    """Return the candidate's prediction for its first symbol as of market time ``until_ms``.

    Nothing is logged: it is nobody's prediction.

    Raises
    ------
    TradewindError
        Whatever serving would refuse the symbol with.
    """
    meta = bundle.meta
    name = registered_name(meta.family, meta.key)
    model = LoadedModel(
        RegisteredVersion(name, 0, "", "", "", 0),
        bundle,
        ForwardBatcher(
            Forward(bundle, name, settings.serving.ranges),
            max_passes=settings.serving.max_batch_passes,
            max_wait_s=settings.serving.max_wait_s,
        ),
    )
    clock = ManualClock(until_ms)
    predictor = Predictor(
        settings,
        view=LiveView(settings, clock),
        clock=clock,
        table=_Candidate(Snapshot({(name, CHAMPION): model}, read=True)),
        metrics=ServingMetrics(settings.serving.metrics_namespace, CollectorRegistry()),
        log=PredictionLog(
            lambda: open_ledger(settings),
            capacity=1,
            on_depth=lambda depth: None,
            on_drop=lambda dropped: None,
        ),
    )
    # A family without an endpoint of its own is served as a member of the ensemble.
    own = (kind for kind, family in FAMILY.items() if family == meta.family)
    kind = next(own, Kind.ENSEMBLE)
    question = Question(kind, settings.serving.n_samples, allow_stale=True, endpoint="smoke")
    return predictor.ask_one(question, Ask(meta.symbols[0]))
