"""A job that a thread repeats, and that one bad round does not end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("tradewind.serving")


class Repeater:
    """Calls ``job`` again and again in a daemon thread.

    Parameters
    ----------
    name
        Of the thread, and of the failures counted.
    job
        Handles the errors it expects itself.
    every_s
        Pause between two rounds.
    on_failure
        Told the name after a round that raised; the next round comes all the same, or a
        single surprise would leave serving without swaps, or without a log, for ever.
    on_round
        Told the name after every round, so that a thread that hangs can be seen.
    """

    def __init__(
        self,
        name: str,
        job: Callable[[], None],
        *,
        every_s: float,
        on_failure: Callable[[str], None],
        on_round: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._name = name
        self._job = job
        self._every_s = every_s
        self._on_failure = on_failure
        self._on_round = on_round
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def name(self) -> str:
        """Return the name of the thread."""
        return self._name

    def start(self) -> None:
        """Start; the first round comes at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the present round, and wait for it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self._job()
            except Exception:
                log.exception("a round of %s failed; the next one comes", self._name)
                self._on_failure(self._name)
            self._on_round(self._name)
            self._stop.wait(self._every_s)
