"""Background jobs come round again, also after a surprise, and stop when told."""

from __future__ import annotations

import threading

from serving.background import Repeater


def test_a_job_is_repeated_until_it_is_stopped() -> None:
    rounds: list[int] = []
    thrice = threading.Event()

    def job() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 3:
            thrice.set()

    repeater = Repeater("counting", job, every_s=0.01, on_failure=lambda _: None)
    repeater.start()
    assert thrice.wait(5)
    repeater.stop()
    seen = len(rounds)
    threading.Event().wait(0.05)
    assert len(rounds) == seen


def test_one_bad_round_is_counted_and_the_next_one_comes() -> None:
    failures: list[str] = []
    rounds: list[int] = []
    well = threading.Event()

    def job() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise RuntimeError("a surprise")
        well.set()

    repeater = Repeater("fragile", job, every_s=0.01, on_failure=failures.append)
    repeater.start()
    assert well.wait(5)
    repeater.stop()
    assert failures == ["fragile"]


def test_stopping_one_that_never_started_returns() -> None:
    Repeater("idle", lambda: None, every_s=1, on_failure=lambda _: None).stop()


def test_a_thread_shows_its_rounds_also_failed_ones() -> None:
    rounds: list[str] = []
    twice = threading.Event()

    def note(name: str) -> None:
        rounds.append(name)
        if len(rounds) == 2:
            twice.set()

    def job() -> None:
        raise RuntimeError("always")

    repeater = Repeater("fragile", job, every_s=0.01, on_failure=lambda _: None, on_round=note)
    repeater.start()
    assert twice.wait(5)
    repeater.stop()
    assert set(rounds) == {"fragile"}
