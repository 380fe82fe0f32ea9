"""Challengers answer what champions were just asked, on the same rows, off the reply path.

One thread works a bounded queue: a slow challenger makes it full, a broken one is counted, and
neither reaches the caller. Each challenger answers a decision once: asked again about the same
bar it would say the same.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from serving.answering import Forecasts, Ready, answer_of, forward, key_of
from serving.expiry import Expiry
from serving.loaded import LoadedModel
from serving.metrics import ServingMetrics
from serving.models import CHALLENGER, CHAMPION, Snapshot
from serving.prediction_log import PredictionLog
from serving.questions import Question
from tradewind.errors import TradewindError
from tradewind.ledger.records import PredictionRecord
from tradewind.settings import ServingSettings

log = logging.getLogger("tradewind.serving")

STOP_S = 2.0
"""A challenger that is still answering when serving stops is not waited for longer."""


@dataclass(frozen=True)
class Job:
    """A challenger in the place of its family's champion, for one symbol of one request.

    ``forecasts`` are those that the reply was made of: the other members' are used again.
    ``offered`` is the monotonic second at which it began to wait.
    """

    question: Question
    ready: Ready
    family: str
    model: LoadedModel
    forecasts: Forecasts
    offered: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Return what is answered once: decision and symbol, kind of answer, challenger.

        A caller may give one decision id to several symbols of a request.
        """
        ready = self.ready
        version = self.model.model_version
        return ready.decision_id, ready.ask.symbol, self.question.kind.value, version


class ShadowDesk:
    """Takes jobs without ever waiting; answers, counts and logs them in a thread of its own.

    Parameters
    ----------
    settings
        ``shadow`` switches it, ``shadow_queue`` bounds jobs waiting and decisions remembered,
        ``shadow_wait_s`` how long a job may wait.
    """

    def __init__(
        self, settings: ServingSettings, *, metrics: ServingMetrics, log: PredictionLog
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._jobs: queue.Queue[Job] = queue.Queue(maxsize=settings.shadow_queue)
        self._done: OrderedDict[tuple[str, str, str, str], None] = OrderedDict()
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the present job; what still waits is not answered."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def offer(
        self,
        snapshot: Snapshot,
        expiry: Expiry,
        question: Question,
        answered: Sequence[Ready],
        forecasts: Forecasts,
    ) -> None:
        """Queue every challenger of the symbols that a champion has just answered for.

        Not for a question that differs from the engine's: the one answer that is kept of a
        decision is that to the usual question.
        """
        usual = question.n_samples == self._settings.n_samples and not question.allow_stale
        usual = usual and question.alias == CHAMPION and question.pin is None
        if not self._settings.shadow or not usual:
            return
        for ready in answered:
            champions = ready.instead or ready
            for job in self._challengers(snapshot, expiry, question, champions, forecasts):
                if self._remember(job.key):
                    self._put(job)

    def drain(self) -> None:
        """Answer everything that waits, in the calling thread."""
        while not self._jobs.empty():
            self._answer(self._jobs.get_nowait())

    def _challengers(
        self,
        snapshot: Snapshot,
        expiry: Expiry,
        question: Question,
        ready: Ready,
        forecasts: Forecasts,
    ) -> list[Job]:
        """Return one job a family that has a challenger; a caller's own window or seed has none."""
        own = ready.ask.window is not None or ready.ask.seed is not None
        if not ready.decision_id or own:
            return []
        found = []
        for family, champion in ready.members.items():
            model = snapshot.beside(champion, ready.ask.symbol, CHALLENGER)
            if model is not None and not expiry.expired(model):
                found.append(Job(question, ready, family, model, forecasts))
        return found

    def _remember(self, key: tuple[str, str, str, str]) -> bool:
        """Return whether this is new; only so many of the last decisions are remembered."""
        with self._mutex:
            if key in self._done:
                return False
            self._done[key] = None
            while len(self._done) > self._settings.shadow_queue:
                self._done.popitem(last=False)
            return True

    def _forget(self, key: tuple[str, str, str, str]) -> None:
        with self._mutex:
            self._done.pop(key, None)

    def _put(self, job: Job) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._forget(job.key)  # asked again later it may find room
            self._metrics.shadowed(job.ready.ask.symbol, "dropped")

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                job = self._jobs.get(timeout=0.2)
            except queue.Empty:
                continue
            self._answer(job)

    def _answer(self, job: Job) -> None:
        """Answer one job; whatever a challenger does, the next one's turn comes."""
        symbol, started = job.ready.ask.symbol, time.perf_counter()
        if time.monotonic() - job.offered > self._settings.shadow_wait_s:
            # Behind a slow challenger's jobs the next one's would be answered hours late.
            self._metrics.shadowed(symbol, "dropped")
            return
        try:
            record = self._record(job, started)
            self._log.put([record])
            self._metrics.answered(record.prediction, shadow=True)
        except TradewindError as error:
            log.warning(
                "%s answers nothing for %s: %s",
                job.model.model_version,
                symbol,
                error,
                extra={"fields": {"decision_ids": [job.ready.decision_id]}},
            )
            self._metrics.shadowed(symbol, "failed")
        except Exception:
            log.exception(
                "%s failed on %s",
                job.model.model_version,
                symbol,
                extra={"fields": {"decision_ids": [job.ready.decision_id]}},
            )
            self._metrics.shadowed(symbol, "failed")

    def _record(self, job: Job, started: float) -> PredictionRecord:
        """Return the answer as it would have been with the challenger in its family's place."""
        members = {**job.ready.members, job.family: job.model}
        ready = replace(job.ready, members=members, served_by=CHALLENGER)
        known, key = dict(job.forecasts), key_of(ready)
        new = {f: model for f, model in members.items() if (model.model_version, key) not in known}
        own = replace(ready, members=new, silent={})
        known |= forward([own], job.question.n_samples, self._settings.ranges)
        question = replace(job.question, alias=CHALLENGER)
        prediction = answer_of(self._settings, question, ready, known)
        latency_ms = (time.perf_counter() - started) * 1000
        # The same of each worker, and after a restart: the ledger keeps a decision's answer once.
        request_id = uuid.uuid5(uuid.NAMESPACE_OID, "|".join(job.key)).hex
        return PredictionRecord(prediction, "shadow", latency_ms, request_id)
