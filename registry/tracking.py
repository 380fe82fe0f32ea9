"""Runs in MLflow: started, tagged, resumed, and closed even after a kill.

Only `MlflowClient` is used, never the fluent API: its global active run is not safe
between the threads and steps that train side by side.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from registry import _environment as environment
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTE_TAG = "mlflow.note.content"
PARENT_TAG = "mlflow.parentRunId"
COMMIT_TAG = "git_commit"
HOST_TAG = "tradewind.host"
PID_TAG = "tradewind.pid"
PROCESS_START_TAG = "tradewind.pid_started"
CLOSED_TAG = "tradewind.closed_by"
FIRST_TAGS = {COMMIT_TAG: "git_commits", "dagster_run_id": "dagster_run_ids"}
"""Tags that keep what the first start said, and the tags that list every start's."""
GIVEN_TAGS = ("data_fingerprint", "feature_version", "dagster_run_id", "family", "model_key")
NOT_GIVEN = "none"
BATCH_ROWS = 100  # MLflow's own limit on parameters and tags in one request
REPOSITORY = Path(__file__).resolve().parent.parent


@functools.lru_cache(maxsize=1)
def git_commit() -> str:
    """Return this checkout's commit, ``-dirty`` with uncommitted changes.

    "unknown" outside a checkout of ours. Asked once per process: what runs is the code
    that was loaded, not what is checked out later.
    """
    top = _git("rev-parse", "--show-toplevel")
    head = _git("rev-parse", "HEAD")
    if not top or not head or Path(top).resolve() != REPOSITORY:
        return "unknown"
    return f"{head}-dirty" if _git("status", "--porcelain") else head


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@dataclass(frozen=True)
class RunHandle:
    """A run that is open for logging; safe to share between threads."""

    tracking: Tracking
    run_id: str

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures, at ``step`` (epoch, fold) where there is one; NaN is kept as NaN."""
        from mlflow.entities import Metric

        now = _now_ms()
        rows = [Metric(name, float(value), now, step or 0) for name, value in metrics.items()]
        self._batches(metrics=rows)

    def log_points(self, points: Iterable[tuple[str, float, int, int]]) -> None:
        """Log (name, value, epoch ms, step); a point that is there already stays one point."""
        from mlflow.entities import Metric

        self._batches(metrics=[Metric(*point) for point in points])

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log what the run was given; the same value again is accepted.

        Raises
        ------
        TradewindError
            ``bad_input`` if a parameter was logged before with another value.
        """
        from mlflow.entities import Param

        self._batches(params=[Param(name, str(value)) for name, value in params.items()])

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, replacing values that were there."""
        from mlflow.entities import RunTag

        self._batches(tags=[RunTag(name, str(value)) for name, value in tags.items()])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or a whole directory, under ``folder`` of the run's artifacts."""
        with self.tracking.translated():
            if path.is_dir():
                self.tracking.client.log_artifacts(self.run_id, str(path), folder)
            else:
                self.tracking.client.log_artifact(self.run_id, str(path), folder)

    def log_text(self, text: str, artifact_file: str) -> None:
        """Store ``text`` as the artifact ``artifact_file`` (a relative path)."""
        with self.tracking.translated():
            self.tracking.client.log_text(self.run_id, text, artifact_file)

    def _batches(self, **rows: list[Any]) -> None:
        with self.tracking.translated():
            for kind, items in rows.items():
                for start in range(0, len(items), BATCH_ROWS):
                    batch = {kind: items[start : start + BATCH_ROWS]}
                    self.tracking.client.log_batch(self.run_id, **batch)


class Tracking:
    """A connection to MLflow, with our experiment in it.

    Parameters
    ----------
    settings
        ``mlflow_tracking_uri`` names a database (SQLite by default, its artifacts under
        ``mlflow_artifacts``) or a server, which then keeps the artifacts itself.

    Raises
    ------
    TradewindError
        ``tracking_unreachable``, within seconds, naming the address.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.uri = settings.mlflow_tracking_uri
        environment.prepare(settings.registry)
        environment.check_reachable(self.uri, settings.registry)
        from mlflow import MlflowClient

        with environment.opening(settings), self.translated():
            self.client: MlflowClient = MlflowClient(self.uri, registry_uri=self.uri)
            self.experiment_id = self._ensure_experiment()

    def translated(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which MLflow's failures become our errors."""
        return environment.translated(self.uri)

    @contextlib.contextmanager
    def start_run(
        self,
        name: str,
        *,
        parent_run_id: str | None = None,
        run_id: str | None = None,
        tags: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
        description: str = "",
    ) -> Iterator[RunHandle]:
        """Open a run; it ends FINISHED, or FAILED if the body raises.

        Parameters
        ----------
        name
            What a person reads in MLflow's list.
        parent_run_id
            Run that this one is nested in.
        run_id
            Continue this run (after a kill or a retry) instead of starting one.
        tags
            Expected: data_fingerprint, feature_version, dagster_run_id, family, model_key;
            a missing one is recorded as "none". ``git_commit`` and the owning process are
            added here.
        params
            Logged at the start.
        description
            The run's note in MLflow, markdown.

        Raises
        ------
        TradewindError
            ``bad_input`` for an unknown ``run_id`` or a parameter that changed since.
        """
        all_tags = self._run_tags(parent_run_id, tags or {}, description)
        handle = RunHandle(self, run_id or self._create_run(name, all_tags))
        if run_id:
            self._reopen(handle, all_tags)
        try:
            handle.log_params(params or {})
            yield handle
        except BaseException:  # also an interrupt: whatever ends the body early is a failure
            self._terminate(handle.run_id, "FAILED")
            raise
        self._terminate(handle.run_id, "FINISHED")

    def log_finished(
        self,
        name: str,
        *,
        run_id: str | None,
        parent_run_id: str,
        tags: Mapping[str, object],
        params: Mapping[str, object],
        metrics: Mapping[str, float],
        started_ms: int,
        ended_ms: int,
        description: str,
        done: Mapping[str, str] | None = None,
    ) -> str:
        """Log work that is already over as a run, in three requests; return the run's id.

        ``run_id`` continues a run that an interrupted call had begun: figures that it has are
        not logged again. ``done`` are tags that appear with the figures, by which a whole one
        is told.
        """
        from mlflow.entities import Metric, Param, RunTag

        all_tags = self._run_tags(parent_run_id, tags, description) | _owner_tags()
        with self.translated():
            shown = set(self.run_metrics(run_id)) if run_id else set()
            run_id = (
                run_id
                or self.client.create_run(
                    self.experiment_id, start_time=started_ms, tags=all_tags, run_name=name
                ).info.run_id
            )
            new = {key: value for key, value in metrics.items() if key not in shown}
            self.client.log_batch(
                run_id,
                metrics=[Metric(key, float(v), ended_ms, 0) for key, v in new.items()],
                params=[Param(key, str(v)) for key, v in params.items()],
                tags=[RunTag(key, v) for key, v in (done or {}).items()],
            )
            self.client.set_terminated(run_id, "FINISHED", end_time=ended_ms)
        return run_id

    def find_run(self, tags: Mapping[str, object]) -> str | None:
        """Return the id of the newest run that carries all ``tags``, for resuming it."""
        clauses = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
        with self.translated():
            runs = self.client.search_runs(
                [self.experiment_id],
                filter_string=" AND ".join(clauses),
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
        return runs[0].info.run_id if runs else None

    def search(self, clause: str) -> list[Any]:
        """Return every run of our experiment that ``clause`` (MLflow's filter) holds for."""
        runs: list[Any] = []
        token = None
        with self.translated():
            while True:
                page = self.client.search_runs([self.experiment_id], clause, page_token=token)
                runs.extend(page)
                token = page.token
                if not token:
                    return runs

    def run_tags(self, run_id: str) -> dict[str, str]:
        """Return a run's tags."""
        with self.translated():
            return dict(self.client.get_run(run_id).data.tags)

    def run_metrics(self, run_id: str) -> dict[str, float]:
        """Return the last value of each of a run's metrics."""
        with self.translated():
            return dict(self.client.get_run(run_id).data.metrics)

    def end_again(self, run_id: str) -> None:
        """Move the end of a finished run to now: work of another process belongs to it."""
        self._terminate(run_id, "FINISHED")

    def close_orphans(self, *, older_than_s: float | None = None) -> list[str]:
        """Mark runs KILLED whose process is gone although they still say RUNNING.

        A process on this host is looked up; one on another host cannot be, so its runs are
        closed only when they started more than ``older_than_s`` ago (None: never).

        Returns
        -------
        list[str]
            The ids of the runs that were closed.
        """
        closed = []
        for run in self.search("attributes.status = 'RUNNING'"):
            if _is_orphan(run.data.tags, run.info.start_time, older_than_s):
                RunHandle(self, run.info.run_id).set_tags({CLOSED_TAG: "close_orphans"})
                self._terminate(run.info.run_id, "KILLED")
                closed.append(run.info.run_id)
        return closed

    def _ensure_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self.settings.registry.experiment
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._create_experiment(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                # another process was quicker between the two calls
                found = self.client.get_experiment_by_name(name)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _create_experiment(self, name: str) -> str:
        if self.uri.startswith("http"):
            return str(self.client.create_experiment(name))
        folder = self.settings.mlflow_artifacts
        folder.mkdir(parents=True, exist_ok=True)
        return str(self.client.create_experiment(name, artifact_location=folder.as_uri()))

    def _run_tags(
        self, parent: str | None, given: Mapping[str, object], description: str
    ) -> dict[str, str]:
        tags = {**dict.fromkeys(GIVEN_TAGS, NOT_GIVEN), COMMIT_TAG: git_commit()}
        tags |= {key: str(value) for key, value in given.items()}
        if parent:
            tags[PARENT_TAG] = parent
        if description:
            tags[NOTE_TAG] = description
        return tags

    def _create_run(self, name: str, tags: Mapping[str, str]) -> str:
        note = f"{name}: {tags['family']} {tags['model_key']}"
        tags = {NOTE_TAG: note, **tags, **_owner_tags()}
        tags |= {listing: tags[first] for first, listing in FIRST_TAGS.items()}
        with self.translated():
            run = self.client.create_run(self.experiment_id, run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def _reopen(self, handle: RunHandle, tags: Mapping[str, str]) -> None:
        with self.translated():
            before = self.client.get_run(handle.run_id).data.tags
            self.client.update_run(handle.run_id, status="RUNNING")
        # What this call does not know must not erase what the first one did.
        known = {name: value for name, value in tags.items() if value != NOT_GIVEN}
        handle.set_tags(_kept(before, known) | _owner_tags())

    def _terminate(self, run_id: str, status: str) -> None:
        with self.translated():
            self.client.set_terminated(run_id, status=status)


def require_name(name: str) -> str:
    """Return ``name`` if it is one of ours, ``tradewind.{family}.{key}``, safe as a folder.

    Raises
    ------
    TradewindError
        ``bad_input`` otherwise.
    """
    parts = name.split(".")
    legal = all(part and part.replace("_", "").replace("-", "").isalnum() for part in parts)
    if len(parts) != 3 or parts[0] != "tradewind" or not legal:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"registered model name {name!r} is not tradewind.FAMILY.SYMBOL",
            "Use for example tradewind.lightgbm.BTCUSDT or tradewind.transformer.POOLED",
        )
    return name


def _kept(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a later start: who began the work stays, who went on is listed."""
    tags = dict(now)
    for name, listing in FIRST_TAGS.items():
        first = before.get(name, NOT_GIVEN)
        if first == NOT_GIVEN or name not in now:
            continue
        tags[name] = first
        tags[listing] = listed(before.get(listing, first), now[name])
    return tags


def listed(text: str, item: str) -> str:
    """Return a list of words in a tag with ``item`` in it, once."""
    return " ".join(dict.fromkeys([*text.split(), item]))


def _owner_tags() -> dict[str, str]:
    return {
        HOST_TAG: socket.gethostname(),
        PID_TAG: str(os.getpid()),
        PROCESS_START_TAG: f"{psutil.Process().create_time():.0f}",
    }


def _is_orphan(tags: Mapping[str, str], start_ms: int, other_hosts_s: float | None) -> bool:
    if tags.get(HOST_TAG) == socket.gethostname():
        return not _lives(int(tags[PID_TAG]), tags[PROCESS_START_TAG])
    return other_hosts_s is not None and (_now_ms() - start_ms) / 1000 > other_hosts_s


def _lives(pid: int, started: str) -> bool:
    """Tell whether the process that opened the run is alive (a reused pid is another one)."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - float(started)) < 2
        return same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
