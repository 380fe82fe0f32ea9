"""Serving over time: swaps, challengers, canaries, kills, restarts and memory, on the real server.

    python -m benchmarks.serving_soak swaps|shadow|canary|memory|kill|restart [--quick]

From the repository's root. Each makes a world of its own in a temporary folder (random-walk bars,
models of the default sizes that are hardly trained, a local MLflow), starts ``python -m serving``,
and prints ONE JSON object last; ``ok`` in it is the verdict, and the exit status. How each is
measured, and the rule it is judged by, stands at the top of its ``_soak_*`` module.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    _soak_canary,
    _soak_kill,
    _soak_memory,
    _soak_restart,
    _soak_shadow,
    _soak_swaps,
)
from benchmarks._serving_world import make_world
from benchmarks._soak_canary import CanaryPlan
from benchmarks._soak_kill import KillPlan
from benchmarks._soak_memory import MemoryPlan
from benchmarks._soak_restart import RestartPlan
from benchmarks._soak_shadow import ShadowPlan
from benchmarks._soak_swaps import SwapPlan

Part = Callable[[Path, bool], dict[str, Any]]


def _swaps(folder: Path, quick: bool) -> dict[str, Any]:
    plan = SwapPlan(swaps=10, quiet_s=10, capacity_s=5) if quick else SwapPlan()
    return _soak_swaps.run(_soak_swaps.world_for(folder, plan), folder, plan)


def _shadow(folder: Path, quick: bool) -> dict[str, Any]:
    plan = ShadowPlan(rounds=3, seconds=5) if quick else ShadowPlan()
    return _soak_shadow.run(_soak_shadow.world_for(folder, plan), folder, plan)


def _canary(folder: Path, quick: bool) -> dict[str, Any]:
    plan = CanaryPlan(decisions=1500, again=300) if quick else CanaryPlan()
    return _soak_canary.run(make_world(folder), folder, plan)


def _memory(folder: Path, quick: bool) -> dict[str, Any]:
    plan = MemoryPlan(predict=5000, deep=500) if quick else MemoryPlan()
    return _soak_memory.run(_soak_memory.world_for(folder, plan), folder, plan)


def _kill(folder: Path, quick: bool) -> dict[str, Any]:
    plan = KillPlan(rounds=2, seconds=3) if quick else KillPlan()
    return _soak_kill.run(make_world(folder), folder, plan)


def _restart(folder: Path, quick: bool) -> dict[str, Any]:
    plan = RestartPlan(restarts=2, bars=2) if quick else RestartPlan()
    return _soak_restart.run(_soak_restart.world_for(folder, plan), folder, plan)


PARTS: dict[str, Part] = {
    "swaps": _swaps,
    "shadow": _shadow,
    "canary": _canary,
    "memory": _memory,
    "kill": _kill,
    "restart": _restart,
}


def main() -> int:
    """Run one part; return 0 where it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tradewind-soak-") as folder:
        try:
            found = PARTS[given.part](Path(folder), given.quick)
        except Exception:
            log = Path(folder) / "serving.log"
            if log.exists():
                sys.stderr.write(log.read_text(errors="replace")[-4000:])
            raise
    print(json.dumps({"part": given.part, "quick": given.quick, **found}, indent=2))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
