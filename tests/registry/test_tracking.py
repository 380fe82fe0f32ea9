"""Runs in a real MLflow store: tags, outcomes, resuming, orphans, unreachable stores."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import tracking as module
from registry.tracking import NOTE_TAG, PARENT_TAG, Tracking, git_commit, require_name
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings

TAGS = {
    "data_fingerprint": "d1",
    "feature_version": "f1",
    "dagster_run_id": "dag-1",
    "family": "lightgbm",
    "model_key": "BTCUSDT",
}


def status(tracking: Tracking, run_id: str) -> str:
    return str(tracking.client.get_run(run_id).info.status)


def test_a_run_carries_tags_params_metrics_and_files(tracking: Tracking, tmp_path: Path) -> None:
    picture = tmp_path / "roc.png"
    picture.write_bytes(b"png")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.txt").write_text("a")
    with tracking.start_run("train", tags=TAGS, params={"epochs": 3}, description="why") as run:
        run.log_metrics({"loss": 0.7}, step=0)
        run.log_metrics({"loss": 0.6, "auc": float("nan")}, step=1)
        run.log_artifact(picture, "pictures")
        run.log_artifact(tmp_path / "plots", "plots")
        run.log_text("# report", "report.md")
    stored = tracking.client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "train"
    assert stored.data.params == {"epochs": "3"}
    assert stored.data.metrics["loss"] == 0.6
    history = tracking.client.get_metric_history(run.run_id, "loss")
    assert [(row.step, row.value) for row in history] == [(0, 0.7), (1, 0.6)]
    assert TAGS.items() <= stored.data.tags.items()
    assert stored.data.tags[NOTE_TAG] == "why"
    assert stored.data.tags["git_commit"] == git_commit()
    listed = {item.path for item in tracking.client.list_artifacts(run.run_id)}
    assert listed == {"pictures", "plots", "report.md"}


def test_missing_tags_are_recorded_as_none(tracking: Tracking) -> None:
    with tracking.start_run("probe") as run:
        pass
    tags = tracking.client.get_run(run.run_id).data.tags
    assert {tags[name] for name in TAGS} == {"none"}
    assert tags[NOTE_TAG]


def test_more_parameters_than_one_request_takes(tracking: Tracking) -> None:
    params = {f"p{i}": i for i in range(250)}
    with tracking.start_run("wide", params=params) as run:
        pass
    assert len(tracking.client.get_run(run.run_id).data.params) == 250


def test_nested_runs_point_to_their_parent(tracking: Tracking) -> None:
    with (
        tracking.start_run("parent") as parent,
        tracking.start_run("child", parent_run_id=parent.run_id) as child,
    ):
        pass
    assert tracking.client.get_run(child.run_id).data.tags[PARENT_TAG] == parent.run_id


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_run_whose_body_raises_is_failed(
    tracking: Tracking, failure: type[BaseException]
) -> None:
    with pytest.raises(failure), tracking.start_run("train") as run:
        raise failure
    assert status(tracking, run.run_id) == "FAILED"


def test_resuming_continues_the_same_run_and_keeps_what_it_knew(tracking: Tracking) -> None:
    with tracking.start_run("train", tags=TAGS, params={"epochs": 3}, description="first") as run:
        run.log_metrics({"loss": 0.7}, step=0)
    with tracking.start_run("train", run_id=run.run_id, params={"epochs": 3}) as again:
        assert status(tracking, run.run_id) == "RUNNING"
        again.log_metrics({"loss": 0.6}, step=1)
    stored = tracking.client.get_run(run.run_id)
    assert again.run_id == run.run_id
    assert stored.info.status == "FINISHED"
    assert TAGS.items() <= stored.data.tags.items()
    assert stored.data.tags[NOTE_TAG] == "first"
    assert len(tracking.client.get_metric_history(run.run_id, "loss")) == 2


def test_a_changed_parameter_is_refused(tracking: Tracking) -> None:
    with tracking.start_run("train", params={"epochs": 3}) as run:
        pass
    with pytest.raises(TradewindError) as caught:  # noqa: SIM117
        with tracking.start_run("train", run_id=run.run_id, params={"epochs": 5}):
            pytest.fail("the body must not run")
    assert caught.value.code is ErrorCode.BAD_INPUT
    assert "epochs" in caught.value.detail
    assert status(tracking, run.run_id) == "FAILED"


def test_an_unknown_run_cannot_be_resumed(tracking: Tracking) -> None:
    with pytest.raises(TradewindError) as caught, tracking.start_run("x", run_id="0" * 32):
        pytest.fail("the body must not run")
    assert caught.value.code is ErrorCode.BAD_INPUT


def test_find_run_returns_the_newest_with_the_tags(tracking: Tracking) -> None:
    with tracking.start_run("one", tags=TAGS):
        pass
    time.sleep(0.002)  # start times are whole milliseconds
    with tracking.start_run("two", tags=TAGS) as second:
        pass
    assert tracking.find_run({"dagster_run_id": "dag-1"}) == second.run_id
    assert tracking.find_run({"dagster_run_id": "dag-2"}) is None


def test_threads_log_to_their_own_runs(tracking: Tracking) -> None:
    ids: dict[int, str] = {}

    def work(number: int) -> None:
        with tracking.start_run(f"run-{number}") as run:
            ids[number] = run.run_id
            for step in range(3):
                run.log_metrics({"value": number}, step=step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids.values())) == 4
    for number, run_id in ids.items():
        history = tracking.client.get_metric_history(run_id, "value")
        assert [row.value for row in history] == [number] * 3


def test_a_run_killed_hard_is_closed_later_and_a_living_one_is_not(
    tracking: Tracking, settings: Settings
) -> None:
    script = textwrap.dedent(
        f"""
        import time
        from registry.tracking import Tracking
        from tradewind.settings import load_settings
        with Tracking(load_settings(home={str(settings.home)!r})).start_run("victim") as run:
            print(run.run_id, flush=True)
            time.sleep(60)
        """
    )
    victim = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(module.__file__).parent.parent,
    )
    assert victim.stdout is not None
    with victim.stdout, tracking.start_run("alive") as alive:
        run_id = victim.stdout.readline().strip()
        assert tracking.close_orphans() == []
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        assert status(tracking, run_id) == "RUNNING"
        assert tracking.close_orphans() == [run_id]
        assert status(tracking, run_id) == "KILLED"
        assert status(tracking, alive.run_id) == "RUNNING"
    assert tracking.close_orphans() == []


def test_runs_of_other_hosts_are_closed_by_age_only(tracking: Tracking) -> None:
    with tracking.start_run("elsewhere") as run:
        run.set_tags({module.HOST_TAG: "another-host"})
        time.sleep(0.01)
        assert tracking.close_orphans() == []
        assert tracking.close_orphans(older_than_s=3600) == []
        assert tracking.close_orphans(older_than_s=0) == [run.run_id]


def test_the_embedded_store_keeps_everything_under_home(
    tracking: Tracking, settings: Settings
) -> None:
    with tracking.start_run("x") as run:
        run.log_text("a", "a.txt")
    artifacts = tracking.client.get_run(run.run_id).info.artifact_uri
    assert artifacts.startswith(settings.mlflow_artifacts.as_uri())
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert Tracking(settings).experiment_id == tracking.experiment_id


def test_a_deleted_experiment_comes_back(tracking: Tracking, settings: Settings) -> None:
    tracking.client.delete_experiment(tracking.experiment_id)
    with Tracking(settings).start_run("x") as run:
        pass
    assert status(tracking, run.run_id) == "FINISHED"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def with_uri(make_settings: Callable[..., Settings], uri: str) -> Settings:
    return make_settings(registry={"tracking_uri": uri, "request_timeout_s": 2})


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg"])
def test_an_unreachable_store_is_told_in_seconds(
    make_settings: Callable[..., Settings], scheme: str
) -> None:
    uri = f"{scheme}://user:secret@127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(TradewindError) as caught:
        Tracking(with_uri(make_settings, uri))
    assert time.monotonic() - started < 10
    assert caught.value.code is ErrorCode.TRACKING_UNREACHABLE
    assert uri.replace("secret", "***") in caught.value.detail
    assert "secret" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up(make_settings: Callable[..., Settings]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(TradewindError) as caught:
            Tracking(with_uri(make_settings, f"http://127.0.0.1:{silent.getsockname()[1]}"))
        assert time.monotonic() - started < 10
    assert caught.value.code is ErrorCode.TRACKING_UNREACHABLE


def test_a_broken_database_is_told_at_once(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    started = time.monotonic()
    with pytest.raises(TradewindError) as caught:
        Tracking(with_uri(make_settings, f"sqlite:///{path}"))
    assert time.monotonic() - started < 10
    assert caught.value.code is ErrorCode.TRACKING_UNREACHABLE
    assert str(path) in caught.value.detail


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "databricks"])
def test_stores_without_aliases_are_refused(
    make_settings: Callable[..., Settings], uri: str
) -> None:
    with pytest.raises(TradewindError) as caught:
        Tracking(with_uri(make_settings, uri))
    assert caught.value.code is ErrorCode.BAD_SETTING
    assert uri in caught.value.detail


def test_git_commit_is_told_with_dirt_and_unknown_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def fresh() -> str:
        git_commit.cache_clear()
        return git_commit()

    monkeypatch.setattr(module, "REPOSITORY", tmp_path)
    try:
        assert fresh() == "unknown"
        git("init")
        assert fresh() == "unknown"
        (tmp_path / "a").write_text("a")
        git("add", "a")
        git("commit", "-m", "a")
        head = git("rev-parse", "HEAD")
        assert fresh() == head
        (tmp_path / "a").write_text("b")
        assert fresh() == f"{head}-dirty"
        (tmp_path / "sub").mkdir()
        monkeypatch.setattr(module, "REPOSITORY", tmp_path / "sub")
        assert fresh() == "unknown"
    finally:
        git_commit.cache_clear()


@pytest.mark.parametrize("name", ["tradewind.lightgbm.BTCUSDT", "tradewind.gru.POOLED"])
def test_our_names_are_accepted(name: str) -> None:
    assert require_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "other.lightgbm.X", "tradewind.x", "tradewind..X", "tradewind.a.../../etc", "a/b"]
)
def test_foreign_names_are_refused(name: str) -> None:
    with pytest.raises(TradewindError) as caught:
        require_name(name)
    assert caught.value.code is ErrorCode.BAD_INPUT


def test_importing_the_room_is_light() -> None:
    code = (
        "import sys, registry.tracking, registry.versions, registry.aliases, registry.pyfunc_io;"
        "print([m for m in ('mlflow', 'torch', 'pandas', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(module.__file__).parent.parent,
    )
    assert done.stdout.strip() == "[]"
