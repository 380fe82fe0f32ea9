"""Following a log that is cut and replaced meanwhile."""

from __future__ import annotations

from pathlib import Path

from pipelines.up.logs import follow, keep_small


def test_following_a_log_survives_its_cutting_and_its_replacement(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old\nlast\nunfini")
    followed = follow(log, 2, 0)

    def read() -> str:
        return next(followed) + next(followed)

    assert next(followed) == "last\nunfini"
    with log.open("a") as stream:
        stream.write("shed é\n")
    assert read() == "shed é\n"
    keep_small(tmp_path, 4)
    assert log.with_suffix(".log.1").read_text() == "old\nlast\nunfinished é\n"
    next(followed)
    with log.open("a") as stream:
        stream.write("after\n")
    assert read() == "after\n"
    log.rename(tmp_path / "a.log.2")
    log.write_text("anew\n")
    assert read() == "anew\n"
