"""Walk-forward folds as runs nested in their unit's run, each logged once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from registry.names import fold_name, span_text
from registry.tracking import PARENT_TAG, Tracking

if TYPE_CHECKING:
    from tradewind.models.walk_forward import FoldResult

KIND_TAG = "kind"
FOLD_TAG = "fold"
INPUTS_TAG = "fold_inputs"
FOLD_KIND = "fold"


class FoldLog:
    """Logs the folds of one unit's run; those that an earlier attempt finished are left alone.

    What is there is asked for once, at the start: a unit's lock lets one process walk at a
    time.

    Parameters
    ----------
    tags
        What the folds share with their unit (family, data_fingerprint …).
    """

    def __init__(self, tracking: Tracking, unit_run_id: str, tags: Mapping[str, object]) -> None:
        self.tracking = tracking
        self.unit_run_id = unit_run_id
        self.tags = {**tags, KIND_TAG: FOLD_KIND}
        self._known = self._logged()

    def __call__(self, fold: FoldResult) -> None:
        """Log ``fold`` as a finished run, unless it is one already."""
        known, finished = self._known.get(fold.token, (None, False))
        if finished:
            return
        spans = {f"{name}_span": span_text(*span) for name, span in fold.spans.items()}
        rows = {f"{name}_rows": count for name, count in fold.rows.items()}
        run_id = self.tracking.log_finished(
            fold_name(fold.number, *fold.spans["test"]),
            run_id=known,
            parent_run_id=self.unit_run_id,
            tags={**self.tags, FOLD_TAG: fold.number, INPUTS_TAG: fold.token},
            params={"fold": fold.number, **spans, **rows},
            metrics=fold.metrics,
            started_ms=fold.started_ms,
            ended_ms=fold.started_ms + round(fold.seconds * 1000),
            description=f"Out-of-sample days {spans['test_span']}: "
            f"auc {fold.metrics['auc']:.4f}, log_loss {fold.metrics['log_loss']:.4f} "
            f"(base rate {fold.metrics['log_loss_base_rate']:.4f}), "
            f"{fold.rows['fit']} rows fitted.",
        )
        self._known[fold.token] = run_id, True

    def _logged(self) -> dict[str, tuple[str, bool]]:
        """Return {token: (run id, finished)} of this unit's folds."""
        runs = self.tracking.search(
            f"tags.`{PARENT_TAG}` = '{self.unit_run_id}' AND tags.`{KIND_TAG}` = '{FOLD_KIND}'"
        )
        return {
            run.data.tags[INPUTS_TAG]: (run.info.run_id, run.info.status == "FINISHED")
            for run in runs
        }
