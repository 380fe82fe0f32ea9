"""Series of figures (one point an epoch) that a resumed run neither doubles nor loses."""

from __future__ import annotations

from collections.abc import Mapping

from registry.tracking import RunHandle


class SeriesLog:
    """Logs each point of a run's series once, over all the processes that work on the run.

    What is there is read when a name first appears: a fit's lock lets one process log at a
    time.
    """

    def __init__(self, run: RunHandle) -> None:
        self.run = run
        self._steps: dict[str, set[int]] = {}

    def __call__(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Log the points of ``step`` that are not there; return whether there were any."""
        new = {name: value for name, value in metrics.items() if step not in self._known(name)}
        if new:
            self.run.log_metrics(new, step=step)
            for name in new:
                self._steps[name].add(step)
        return bool(new)

    def _known(self, name: str) -> set[int]:
        if name not in self._steps:
            tracking = self.run.tracking
            with tracking.translated():
                points = tracking.client.get_metric_history(self.run.run_id, name)
            self._steps[name] = {point.step for point in points}
        return self._steps[name]
