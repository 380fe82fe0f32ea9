"""Everything serving is made of, put together from the settings. No web framework here."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from serving.background import Repeater
from serving.errors import STATUS
from serving.expiry import Expiry
from serving.live_view import LiveView
from serving.loaded import LoadedModel, load
from serving.market_state import MarketState
from serving.metrics import ServingMetrics
from serving.models import ModelTable
from serving.pinned import PinnedVersions
from serving.prediction_log import PredictionLog
from serving.predictor import Predictor
from serving.shadow import ShadowDesk
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import Ledger, open_clock, open_ledger
from tradewind.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from registry.tracking import Tracking

FIRST_MODELS_S = 60.0
"""One of several workers takes requests after that time, whether it has its models or not."""


class Runtime:
    """The parts of serving and their threads; `start` and `stop` them together.

    Parameters
    ----------
    settings
        The whole tree.
    registry
        Where the metrics are registered; the process's default one if None.

    Raises
    ------
    TradewindError
        If the ledger cannot be opened; the registry and the bars may come later.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry | None = None) -> None:
        self.settings = settings
        serving = settings.serving
        self.metrics = ServingMetrics(serving.metrics_namespace, registry)
        self.ledger: Ledger = open_ledger(settings)
        self.clock = open_clock(settings, self.ledger)
        self.view = LiveView(settings, self.clock)
        self.table = ModelTable(
            settings,
            connect=self._connect,
            load=self._load,
            read_members=self.ledger.members,
            observer=self.metrics,
        )
        self.log = PredictionLog(
            lambda: self.ledger,
            capacity=serving.log_queue,
            on_depth=self.metrics.log_depth.set,
            on_drop=self.metrics.log_dropped.inc,
        )
        self.shadow = ShadowDesk(serving, metrics=self.metrics, log=self.log)
        self.predictor = Predictor(
            settings,
            view=self.view,
            clock=self.clock,
            table=self.table,
            metrics=self.metrics,
            log=self.log,
            shadow=self.shadow,
            pinned=PinnedVersions(self._connect, self._load, capacity=serving.pinned_versions),
        )
        self.market = MarketState(settings, self.view, self.clock, self.table, self.metrics)
        self._threads = [
            Repeater(
                name,
                job,
                every_s=every_s,
                on_failure=self.metrics.round_failed,
                on_round=self.metrics.round_done,
            )
            for name, job, every_s in (
                ("model-table", self._follow_registry, serving.poll_s),
                ("member-state", self.table.refresh_members, serving.members_poll_s),
                ("warm-rows", self.view.warm, serving.warm_s),
                ("market-state", self.market.refresh, serving.gauges_s),
                ("prediction-log", self.log.flush, serving.flush_s),
            )
        ]
        self._followed = threading.Event()
        self.metrics.expect(
            settings.market.symbols,
            threads=[thread.name for thread in self._threads],
            kinds=[*STATUS, ErrorCode.INTERNAL],
        )

    def start(self) -> None:
        """Start following the registry, writing the log and showing the market's state.

        One of several workers waits for its models, so that it takes no request before: the
        others are there meanwhile.
        """
        for thread in self._threads:
            thread.start()
        self.shadow.start()
        if self.settings.serving.workers > 1:
            self._followed.wait(FIRST_MODELS_S)

    def stop(self) -> None:
        """Stop the threads, flush what is logged, and close the ledger."""
        self.shadow.stop()
        for thread in self._threads:
            thread.stop()
        self.log.flush()
        self.ledger.close()

    def _follow_registry(self) -> None:
        """Poll the registry, and show the other workers whether this one is ready."""
        self.table.refresh()
        self.metrics.ready.set(int(self.not_ready() is None))
        if self.table.snapshot.read:  # an unreachable registry is no reason to begin without models
            self._followed.set()

    def not_ready(self) -> TradewindError | None:
        """Return why not every traded symbol can be served, None if all can."""
        return self.table.snapshot.not_ready(self.settings, self.expiry())

    def expiry(self) -> Expiry:
        """Return which versions have expired by now."""
        return Expiry.now(self.settings, self.clock)

    def _connect(self) -> Tracking:
        from registry.tracking import Tracking

        return Tracking(self.settings)

    def _load(self, tracking: Tracking, name: str, version: int) -> LoadedModel:
        return load(self.settings, tracking, self.view, name, version)
