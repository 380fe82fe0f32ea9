"""The real service, in which versions named in a file sleep or raise when they are asked.

Started as ``bentoml serve benchmarks._faulty_service:Tradewind`` by `_soak_shadow`, never by
anything that trades, and never imported by anything else. ``faults.json`` in the settings' home
maps a version (``tradewind.…/2``) to ``sleep`` or ``raise``; its warm-up, the first forward, is
sound, or it would never be loaded.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import serving.loaded
from benchmarks._faults import FAULTS_FILE, SLEEP_S
from serving.service import SETTINGS
from serving.service import Tradewind as Tradewind
from tradewind.models.bundle import ModelBundle

WARM_UPS = 1

_load_bundle = serving.loaded.load_bundle


def faulty(bundle: ModelBundle, fault: str) -> ModelBundle:
    """Return the bundle with a forecaster that has ``fault`` once it is warm."""
    sample, calls = bundle.forecaster.sample, itertools.count()

    def changed(*args: Any, **kwargs: Any) -> Any:
        if next(calls) >= WARM_UPS:
            if fault == "raise":
                raise RuntimeError("this version raises, as its benchmark asked for")
            time.sleep(SLEEP_S)
        return sample(*args, **kwargs)

    bundle.forecaster.sample = changed  # type: ignore[method-assign]
    return bundle


def load_bundle(folder: Path) -> ModelBundle:
    """Read a bundle from disk, with the fault that the file gives its version."""
    faults = json.loads((SETTINGS.home / FAULTS_FILE).read_text(encoding="utf-8"))
    fault = faults.get(f"{folder.parent.name}/{folder.name}")
    bundle = _load_bundle(folder)
    return faulty(bundle, fault) if fault else bundle


serving.loaded.load_bundle = load_bundle
