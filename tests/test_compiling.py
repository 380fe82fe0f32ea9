"""Compiled code is kept where that is possible, and made for the process where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba import float64
from numba.core import caching
from structlog.testing import capture_logs

from tradewind.compiling import compiled, inlined


@inlined
def twice(x: float) -> float:
    return 2 * x


def plus_one(x: float) -> float:
    return twice(x) + 1


SIGNATURE = float64(float64)


def test_compiled_code_is_kept_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert compiled(SIGNATURE)(plus_one)(3.0) == 7.0
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".nbi", ".nbc"}
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", _refuse)  # nothing is made anew
    with capture_logs() as said:
        assert compiled(SIGNATURE)(plus_one)(3.0) == 7.0
    assert said == []


def _refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_named_and_the_function_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", _refuse)
    with capture_logs() as said:
        assert compiled(SIGNATURE)(plus_one)(3.0) == 7.0
    assert [line["event"] for line in said] == ["compiled_code_not_kept"]
    assert "No space left" in said[0]["reason"]


def test_an_index_cut_short_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    compiled(SIGNATURE)(plus_one)
    for path in tmp_path.rglob("*.nbi"):
        path.write_bytes(b"")
    assert compiled(SIGNATURE)(plus_one)(3.0) == 7.0


def test_without_any_folder_that_can_be_written_features_are_computed() -> None:
    """No cache beside the source, none in the home folder: as on a read-only system."""
    done = subprocess.run(
        [sys.executable, "-c", "import tests.test_compiling as t; print(t.compiled(t.SIGNATURE)"
         "(t.plus_one)(3.0))"],
        env={
            **os.environ,
            "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator,UserWideCacheLocator",
            "NUMBA_CACHE_DIR": "/dev/null/none",
            "HOME": "/dev/null",
            "XDG_CACHE_HOME": "/dev/null/none",
        },
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "7.0"
    assert "compiled_code_not_kept" in done.stdout + done.stderr
