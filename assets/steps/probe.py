"""A clean process that loads a candidate's files and answers, as serving would.

``python -m assets.steps.probe BUNDLE TRAINING_SET UNTIL_MS`` prints one JSON object. What
the gates learn here does not depend on anything that the training process had in memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tradewind.settings import Settings

if TYPE_CHECKING:
    from tradewind.contracts import Prediction
    from tradewind.models.bundle import ModelBundle

TIME_LIMIT_S = 300


@dataclass(frozen=True)
class Probe:
    """What the clean process found; ``p_up`` is of the training set's last row."""

    loaded: bool
    load_text: str
    p_up: float | None
    served: bool
    served_text: str


def probe_bundle(settings: Settings, bundle: Path, training_set: Path, until_ms: int) -> Probe:
    """Run the probe in a process of its own and return what it found."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "assets.steps.probe",
            *(str(path.absolute()) for path in (bundle, training_set)),
            str(until_ms),
        ],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "TRADEWIND_HOME": str(settings.home.absolute())},
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Probe(False, f"the process ended with {done.returncode}: {last}", None, False, last)
    return Probe(**json.loads(done.stdout.splitlines()[-1]))


def main(arguments: Sequence[str]) -> None:
    """Load, predict the last training row, then one row through serving's own code."""
    import numpy as np

    from tradewind.errors import TradewindError
    from tradewind.models.bundle import ModelBundle
    from tradewind.models.dataset import TrainingSet
    from tradewind.settings import load_settings

    settings = load_settings()
    folder, rows, until_ms = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    try:
        bundle = ModelBundle.load(folder)
        samples = TrainingSet.load(rows).samples
        last = samples.subset(np.array([len(samples) - 1], dtype=np.int64))
        p_up = float(bundle.predict(last, n_samples=settings.serving.n_samples).p_up[0])
    except TradewindError as error:
        found = Probe(False, str(error), None, False, "not tried: the artefact does not load")
    else:
        served, text = _serve_once(settings, bundle, until_ms)
        found = Probe(True, f"loads; p_up of the last row {p_up:.6f}", p_up, served, text)
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


def _serve_once(settings: Settings, bundle: ModelBundle, until_ms: int) -> tuple[bool, str]:
    from tradewind.errors import TradewindError

    try:
        answer = _answer(settings, bundle, until_ms)
    except TradewindError as error:
        return False, str(error)
    return True, (
        f"{answer.symbol} at bar {answer.bar_ts}: p_up {answer.p_up:.4f}, "
        f"uncertainty {answer.uncertainty:.5f}, {answer.signal.value}"
    )


def _answer(settings: Settings, bundle: ModelBundle, until_ms: int) -> Prediction:
    """Return a prediction of the candidate from the predictor that the server uses."""
    from serving.smoke import answer_once

    return answer_once(settings, bundle, until_ms)


if __name__ == "__main__":
    main(sys.argv[1:])
