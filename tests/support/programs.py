"""Programs that are no Python packages, and that CI must have."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """Return where a program lies.

    The test is skipped without it, and fails where ``REQUIRED_PROGRAMS`` names it: `.ci/run`
    installs what it names there, so nothing is left untried for want of it.
    """
    found = shutil.which(name)
    if found is not None:
        return found
    if name in os.environ.get("REQUIRED_PROGRAMS", "").split():
        pytest.fail(f"{name} is required here and not installed")
    pytest.skip(f"{name} is not installed here")
