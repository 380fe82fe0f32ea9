"""Prometheus metrics of serving. Made once per process, after BentoML has set its own up.

prometheus_client chooses between one and many processes when it is first imported, by an
environment variable that BentoML sets for its workers; hence the import inside.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import psutil

from serving.member_table import MemberTable
from serving.models import Slot
from tradewind.contracts import Prediction
from tradewind.ledger.members import MemberStatus

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from serving.loaded import LoadedModel

# What several workers show as one: a gauge of the market or of an answer is the same in all of
# them, a queue is the sum of theirs, and an alarm of one is an alarm. Those called live leave a
# worker out that has ended.
LATEST: Final = "mostrecent"
SUM: Final = "livesum"
LEAST: Final = "livemin"
MOST: Final = "livemax"
REGIME_STATE = {"trend": 1, "neutral": 0, "meanrev": -1}
UNCERTAIN_TYPES = ("deep_transformer", "ensemble")
MEMBER_STATE = {MemberStatus.ENABLED: 0, MemberStatus.WARNED: 1, MemberStatus.DISABLED: 2}
LEAST_MEMBERS = 2
"""Fewer than these are no ensemble."""
# fmt: off
BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 10.0, 30.0,
)
# fmt: on
"""From a boosted tree's answer to ``serving.timeout_s``, closest where a deep one's p99 lies."""


WorkerMode = Literal["mostrecent", "livesum", "livemin", "livemax"]


class ServingMetrics:
    """Everything serving counts and measures, under ``{namespace}_ml_``.

    Parameters
    ----------
    namespace
        Setting ``serving.metrics_namespace``; set it to match existing dashboards.
    registry
        Where the metrics are registered; the process's default one if None.
    """

    def __init__(self, namespace: str, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        self.namespace = namespace
        where = self.registry = registry or REGISTRY

        def gauge(name: str, text: str, *labels: str, workers: WorkerMode = LATEST) -> Gauge:
            full = f"{namespace}_ml_{name}"
            return Gauge(full, text, labels, registry=where, multiprocess_mode=workers)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{namespace}_ml_{name}", text, labels, registry=where)

        self.uncertainty = gauge(
            "uncertainty", "Total uncertainty of the last deep or ensemble answer", "symbol"
        )
        self.cross_asset_ratio = gauge("cross_asset_ratio", "Raw ratio of closes", "pair")
        self.regime_state = gauge(
            "regime_state", "Regime: trend 1, neutral 0, meanrev -1", "symbol"
        )
        self.p_up = gauge("p_up", "Calibrated probability of a rise", "symbol", "model_type")
        self.confidence = gauge("confidence", "2 |p_up - 0.5|", "symbol", "model_type")
        self.staleness = gauge(
            "feature_staleness_seconds", "How late the first missing bar is", "symbol"
        )
        self.model_age = gauge(
            "model_age_seconds", "Market time since a model's last bar closed", "name", "alias"
        )
        self.model_expired = gauge(
            "model_expired", "1 while a version is too old to answer", "name", "alias"
        )
        self.model_info = gauge(
            "model_version_info",
            "1 for the version that serves",
            "name",
            "alias",
            "version",
            workers=MOST,
        )
        self.model_alarm = gauge(
            "model_load_failed",
            "1 while the wanted version cannot be loaded",
            "name",
            "alias",
            workers=MOST,
        )
        self.registry_up = gauge(
            "registry_up", "1 if the last poll of the registry succeeded", workers=LEAST
        )
        self.member_state = gauge(
            "member_state", "Ensemble member: 0 enabled, 1 warned, 2 disabled", "family", "key"
        )
        self.member_states_up = gauge(
            "member_states_up",
            "1 if the last read of the members' states succeeded",
            workers=LEAST,
        )
        self.members_voting = gauge(
            "members_voting", "Members with a vote in the last ensemble answer", "symbol"
        )
        self.few_members = counter(
            "few_members", "Ensemble answers of fewer than two members", "symbol"
        )
        self.ready = gauge("workers_ready", "Workers that have loaded every champion", workers=SUM)
        self.log_depth = gauge("log_queue_depth", "Predictions waiting to be written", workers=SUM)
        self.log_dropped = counter("log_dropped", "Predictions lost because the queue was full")
        self.predictions = counter(
            "predictions", "Predictions answered", "symbol", "model_type", "signal"
        )
        self.out_of_range = counter(
            "out_of_range", "Answers on an input outside the training range", "symbol"
        )
        self.shadow = counter("shadow", "Challenger answers asked for", "symbol", "outcome")
        self.canary = counter("canary", "Decisions that fell to a canary", "symbol", "outcome")
        self.pinned = counter("pinned", "Answers of a version that the caller chose", "symbol")
        self.swaps = counter("model_swaps", "Versions swapped in", "name", "alias")
        self.load_failures = counter(
            "model_load_failures", "Versions that could not be loaded", "name", "alias"
        )
        self.errors = counter("errors", "Refusals and failures by kind", "kind")
        self.rounds_failed = counter(
            "background_failures", "Rounds of a background thread that failed", "thread"
        )
        self.round_ended = gauge(
            "background_round_timestamp_seconds",
            "When a background thread last ended a round, Unix time",
            "thread",
            workers=LEAST,
        )
        self.request = Histogram(
            f"{namespace}_ml_request_seconds",
            "Time of a request by endpoint and stage",
            ("endpoint", "stage"),
            registry=where,
            buckets=BUCKETS_S,
        )
        self._shown: dict[Slot, int] = {}

    @contextlib.contextmanager
    def stage(self, endpoint: str, stage: str) -> Iterator[None]:
        """Time a stage (features, forward, total) of an endpoint, also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.request.labels(endpoint, stage).observe(time.perf_counter() - start)

    def expect(
        self, symbols: Sequence[str], threads: Sequence[str] = (), kinds: Sequence[str] = ()
    ) -> None:
        """Show counters of failures at zero: Prometheus sees no rise where one begins at 1."""
        for kind in kinds:
            self.errors.labels(kind)
        for thread in threads:
            self.rounds_failed.labels(thread)
        for symbol in symbols:
            for outcome in ("answered", "failed", "dropped"):
                self.shadow.labels(symbol, outcome)
            for outcome in ("answered", "failed"):
                self.canary.labels(symbol, outcome)

    def answered(self, prediction: Prediction, *, shadow: bool) -> None:
        """Count an answer; a challenger's does not move the gauges of what is served."""
        if shadow:
            self.shadow.labels(prediction.symbol, "answered").inc()
            return
        symbol, kind = prediction.symbol, prediction.model_type
        self.predictions.labels(symbol, kind, prediction.signal.value).inc()
        self.p_up.labels(symbol, kind).set(prediction.p_up)
        self.confidence.labels(symbol, kind).set(prediction.confidence)
        if prediction.out_of_range:
            self.out_of_range.labels(symbol).inc()
        if kind in UNCERTAIN_TYPES:
            self.uncertainty.labels(symbol).set(prediction.uncertainty)

    def shadowed(self, symbol: str, outcome: str) -> None:
        """Count a challenger that gave no answer: failed, or dropped for want of room."""
        self.shadow.labels(symbol, outcome).inc()

    def canaried(self, symbol: str, outcome: str) -> None:
        """Count a decision that fell to a canary: answered by it, or, as it failed, not."""
        self.canary.labels(symbol, outcome).inc()

    def voted(self, prediction: Prediction) -> None:
        """Show how many members an ensemble's answer rests on, and count those of one."""
        voting = sum(vote.weight > 0 for vote in prediction.votes)
        self.members_voting.labels(prediction.symbol).set(voting)
        if voting < LEAST_MEMBERS:
            self.few_members.labels(prediction.symbol).inc()

    def members_read(self, members: MemberTable) -> None:
        """Show the members' states, and whether they are of now."""
        self.member_states_up.set(int(members.problem is None))
        for (family, key), state in members.states.items():
            self.member_state.labels(family, key).set(MEMBER_STATE[state.state])

    def refused(self, kind: str) -> None:
        """Count an error by kind, the code of the error contract."""
        self.errors.labels(kind).inc()

    def market(
        self,
        staleness_s: Mapping[str, float],
        regimes: Mapping[str, str],
        ratios: Mapping[str, float],
    ) -> None:
        """Show the state of the features: seconds late, regime, ratios of closes."""
        for symbol, seconds in staleness_s.items():
            self.staleness.labels(symbol).set(seconds)
        for symbol, regime in regimes.items():
            self.regime_state.labels(symbol).set(REGIME_STATE.get(regime, 0))
        for pair, ratio in ratios.items():
            self.cross_asset_ratio.labels(pair).set(ratio)

    def swapped(self, slot: Slot, model: LoadedModel) -> None:
        """Count a swap, and show the version that serves from now on."""
        name, alias = slot
        version = model.registered.version
        if slot in self._shown:
            # Labels cannot be removed over several processes: the old version shows 0.
            self.model_info.labels(name, alias, str(self._shown[slot])).set(0)
        self._shown[slot] = version
        self.model_info.labels(name, alias, str(version)).set(1)
        self.model_alarm.labels(name, alias).set(0)
        self.swaps.labels(name, alias).inc()

    def load_failed(self, slot: Slot, version: int, reason: str) -> None:
        """Raise the alarm for a version that cannot be loaded."""
        name, alias = slot
        self.model_alarm.labels(name, alias).set(1)
        self.load_failures.labels(name, alias).inc()

    def recovered(self, slot: Slot) -> None:
        """End the alarm: the alias was moved back, or away."""
        self.model_alarm.labels(*slot).set(0)

    def withdrawn(self, slot: Slot) -> None:
        """Show that no version serves a slot whose alias was taken away."""
        version = self._shown.pop(slot, None)
        if version is not None:
            self.model_info.labels(*slot, str(version)).set(0)

    def round_failed(self, thread: str) -> None:
        """Count an unexpected failure of a background thread's round."""
        self.rounds_failed.labels(thread).inc()

    def round_done(self, thread: str) -> None:
        """Show that a background thread has just ended a round, a good one or not."""
        self.round_ended.labels(thread).set_to_current_time()

    def workers_ready(self) -> int:
        """Return how many workers of this server have loaded every champion."""
        from prometheus_client import CollectorRegistry, multiprocess

        forget_dead_workers()
        every = CollectorRegistry()
        multiprocess.MultiProcessCollector(every)  # type: ignore[no-untyped-call]
        return round(every.get_sample_value(f"{self.namespace}_ml_workers_ready") or 0)

    def registry_reachable(self, reachable: bool) -> None:
        """Show whether the registry answered the last poll."""
        self.registry_up.set(int(reachable))


def forget_dead_workers() -> list[int]:
    """Leave the gauges of workers that were killed out of the sum; return their process ids.

    One that ends by itself does so for itself.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return []
    from prometheus_client import multiprocess

    found = {path.stem.rpartition("_")[2] for path in Path(folder).glob("gauge_live*_*.db")}
    dead = sorted(int(pid) for pid in found if pid.isdecimal() and not _alive(int(pid)))
    for pid in dead:
        with contextlib.suppress(FileNotFoundError):  # another worker was at it, too
            multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    return dead


def _alive(pid: int) -> bool:
    """Tell whether a process runs: one that ended and was not asked after yet does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
