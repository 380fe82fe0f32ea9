"""The store under kill -9, beside readers and writers of other processes, on a full disk."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import sha256_tree
from tradewind.market.store import BarStore

STEP = 900_000
N = 2900  # one month
END = START_MS + N * STEP
FORK = multiprocessing.get_context("spawn")
OLD, NEW = random_walk_bars(N, seed=1), random_walk_bars(N, seed=2)
REPOSITORY = Path(__file__).resolve().parents[2]


def write_in_turns(root: Path, ready: Event) -> None:
    """Rewrite one partition for ever, its whole content changing each time."""
    store = BarStore(root, "x_perp")
    ready.set()
    while True:
        store.write_bars("BTCUSDT", "15m", NEW)
        store.write_bars("BTCUSDT", "15m", OLD)


def append_every_other(root: Path, offset: int) -> None:
    """Add every second bar, a few at a time, to a partition that another writer fills too."""
    store = BarStore(root, "x_perp")
    mine = OLD.head(400).gather_every(2, offset)
    for part in mine.iter_slices(20):
        store.write_bars("BTCUSDT", "15m", part)


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    store = BarStore(tmp_path / "store", "x_perp")
    store.write_bars("BTCUSDT", "15m", OLD)
    return store


def test_a_reader_beside_a_writer_sees_old_or_new_and_a_killed_writer_leaves_one(
    store: BarStore,
) -> None:
    seen = set()
    for delay in (0.15, 0.31, 0.23):
        ready = FORK.Event()
        writer = FORK.Process(target=write_in_turns, args=(store.root, ready))
        writer.start()
        assert ready.wait(30)
        end = time.monotonic() + delay
        patience = end + 20  # for a machine so busy that the writer hardly runs
        while time.monotonic() < end or (len(seen) < 2 and time.monotonic() < patience):
            bars = store.read_bars("BTCUSDT", "15m", until_ms=END)
            assert bars.equals(OLD) or bars.equals(NEW)
            seen.add(bars.equals(OLD))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        after = store.read_bars("BTCUSDT", "15m", until_ms=END)
        assert after.equals(OLD) or after.equals(NEW)
    assert seen == {True, False}
    store.write_bars("BTCUSDT", "15m", NEW)  # the lock died with its holder
    store.write_bars("BTCUSDT", "15m", OLD)
    assert sorted(path.name for path in (store.folder / "15m" / "BTCUSDT").iterdir()) == [
        ".lock",
        "2025-01.parquet",
    ]


def test_writers_of_one_partition_lose_nothing(tmp_path: Path) -> None:
    writers = [
        FORK.Process(target=append_every_other, args=(tmp_path / "store", i)) for i in range(2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    store = BarStore(tmp_path / "store", "x_perp")
    assert store.read_bars("BTCUSDT", "15m", until_ms=END).equals(OLD.head(400))


def test_a_series_held_too_long_is_a_clear_error(store: BarStore) -> None:
    impatient = BarStore(store.root, "x_perp", lock_timeout_s=0.05)
    with (
        FileLock(store.folder / "15m" / "BTCUSDT" / ".lock"),
        pytest.raises(TradewindError) as caught,
    ):
        impatient.write_bars("BTCUSDT", "15m", NEW)
    assert caught.value.code is ErrorCode.ALREADY_RUNNING
    assert store.read_bars("BTCUSDT", "15m", until_ms=END).equals(OLD)


def test_a_write_beyond_the_size_limit_leaves_what_was_there(store: BarStore) -> None:
    before = sha256_tree(store.root)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(TradewindError) as caught:
            store.write_bars("BTCUSDT", "15m", NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code is ErrorCode.DISK_FULL
    assert "2025-01.parquet" in caught.value.detail
    assert sha256_tree(store.root) == before


FULL_DISK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.errors import TradewindError
from tradewind.files import sha256_tree
from tradewind.market.store import BarStore
store = BarStore(Path(sys.argv[1]), "x_perp")
bars = random_walk_bars(2900)
store.write_bars("BTCUSDT", "15m", bars)
before = sha256_tree(store.root)
(Path(sys.argv[1]) / "other").write_bytes(b"x" * 100_000)
outcome = "written"
try:
    store.write_bars("BTCUSDT", "15m", random_walk_bars(2900, seed=2))
except TradewindError as error:
    outcome = error.code.value
(Path(sys.argv[1]) / "other").unlink()
same = sha256_tree(store.root) == before
whole = store.read_bars("BTCUSDT", "15m", until_ms=START_MS + 2900 * 900_000).equals(bars)
print(outcome, same, whole)
"""


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """On a real file system of 300 kB, in a mount namespace of the test's own."""
    own_mounts = ["unshare", "--user", "--map-root-user", "--mount"]
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)]
    if shutil.which("unshare") is None or subprocess.run([*own_mounts, *mount]).returncode:
        pytest.skip("this system lets a test mount nothing; the size-limit test covers the rest")
    script = f"mount -t tmpfs -o size=300k none '{disk}' && exec \"$@\""
    command = [sys.executable, "-c", FULL_DISK, str(disk), str(REPOSITORY)]
    done = subprocess.run(
        [*own_mounts, "sh", "-c", script, "sh", *command],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["disk_full", "True", "True"]


def test_leftovers_of_a_killed_writer_are_no_partitions(store: BarStore) -> None:
    folder = store.folder / "15m" / "BTCUSDT"
    (folder / ".2025-01.parquet.abc.tmp").write_bytes(b"half")
    assert store.read_bars("BTCUSDT", "15m", until_ms=END).equals(OLD)
    store.write_bars("BTCUSDT", "15m", OLD.with_columns(pl.col("volume") + 1))
    assert not list(folder.glob("*.tmp"))
