"""Makes the candidates of a retraining bad on purpose, without a hook in the product.

Python runs a file of this name at the start of every process whose PYTHONPATH names its
folder, so that also the steps which Dagster starts are changed. ``BAD_CANDIDATE`` says how:

``shuffled``
    every fit and refit learns labels that were dealt out anew among its rows
``overconfident``
    every calibrator multiplies log-odds by `SHARPNESS`, whatever its slice says

What is registered holds no trace of this but its forecasts: champions answer as they did.
"""

from __future__ import annotations

import importlib.abc
import os
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

SHARPNESS = 4.0
SEED = 5


def shuffled(module: ModuleType) -> None:
    """Let boosted trees fit on labels that belong to other rows."""
    import dataclasses

    import numpy as np

    whole, again = module.BaggedTrees.fit, module.BaggedTrees.refitted

    def dealt(rows: Any) -> Any:
        order = np.random.default_rng(SEED).permutation(len(rows))
        names = [
            name for name in ("y_up", "fwd_ret", "reverted") if getattr(rows, name) is not None
        ]
        return dataclasses.replace(rows, **{name: getattr(rows, name)[order] for name in names})

    def fit(self: Any, train: Any, valid: Any, **more: Any) -> Any:
        return whole(self, dealt(train), dealt(valid), **more)

    def refitted(self: Any, samples: Any, **more: Any) -> Any:
        return again(self, dealt(samples), **more)

    module.BaggedTrees.fit = fit  # type: ignore[attr-defined]
    module.BaggedTrees.refitted = refitted  # type: ignore[attr-defined]


def overconfident(module: ModuleType) -> None:
    """Let every calibrator claim more than was measured."""
    import dataclasses

    whole = module.fit_calibrator

    def fit_calibrator(*arguments: Any, **more: Any) -> Any:
        sharp = module.Calibrator("temperature", (SHARPNESS,))
        return dataclasses.replace(whole(*arguments, **more), calibrator=sharp, kind=sharp.kind)

    module.fit_calibrator = fit_calibrator  # type: ignore[attr-defined]


KINDS: dict[str, tuple[str, Callable[[ModuleType], None]]] = {
    "shuffled": ("tradewind.models._bagged_trees", shuffled),
    "overconfident": ("tradewind.models.calibration", overconfident),
}


class Changing(importlib.abc.MetaPathFinder):
    """Changes one module right after its own code has run."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self.name, self.change = name, change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's own spec with a loader that changes it; None for any other."""
        if fullname != self.name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def changed(module: ModuleType) -> None:
            execute(module)
            self.change(module)

        spec.loader.exec_module = changed  # type: ignore[method-assign]
        return spec


if "BAD_CANDIDATE" in os.environ:
    import sys

    sys.meta_path.insert(0, Changing(*KINDS[os.environ["BAD_CANDIDATE"]]))
