"""Ends a child process with its group, without ever signalling a group that is not its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time

import psutil

LOOK_S = 0.05
KILLED_LIMIT_S = 5.0
"""How long the system may take to end what was killed."""


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a child has ended, without reaping it.

    Until it is reaped its number, which is its group's too, belongs to nobody else.
    """
    if process.returncode is not None:
        return True
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, flags) is not None


def end_group(
    process: subprocess.Popen[bytes],
    limit_s: float,
    hurry: threading.Event,
    *,
    alone: bool = False,
) -> bool:
    """End a child and its group, and reap it; return whether anything had to be killed.

    Parameters
    ----------
    limit_s
        How long the whole group may take to end by itself.
    hurry
        Kills at once when set.
    alone
        End only the child; the rest of its group goes on.
    """
    if process.returncode is not None:
        return False
    _signal(process.pid, signal.SIGTERM, alone)
    deadline = time.monotonic() + limit_s
    while _lives(process, alone) and time.monotonic() < deadline and not hurry.is_set():
        time.sleep(LOOK_S)
    killed = _lives(process, alone)
    kill_group(process, alone=alone)
    return killed


def kill_group(process: subprocess.Popen[bytes], *, alone: bool = False) -> None:
    """Kill a child and what is left of its group, then reap it; a reaped one is left alone."""
    if process.returncode is not None:
        return
    _signal(process.pid, signal.SIGKILL, alone)
    deadline = time.monotonic() + KILLED_LIMIT_S
    while _lives(process, alone) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    if has_ended(process):
        process.wait()


def members(group: int) -> list[int]:
    """Return the living processes of a group; one that ended and was not reaped is none."""
    return [pid for pid in psutil.pids() if _is_member(pid, group)]


def _is_member(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
        return False


def _lives(process: subprocess.Popen[bytes], alone: bool) -> bool:
    return not has_ended(process) or (not alone and bool(members(process.pid)))


def _signal(pid: int, number: signal.Signals, alone: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number) if alone else os.killpg(pid, number)
