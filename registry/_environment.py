"""The process environment MLflow runs in, and its failures put into our words.

Everything here happens before or around `import mlflow`, which reads part of its
configuration from environment variables when it is imported.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import RegistrySettings, Settings

CALLER_FAULTS = frozenset(
    {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST"}
)
START_SERVER = "Start the tracking server there, or correct TRADEWIND_REGISTRY__TRACKING_URI"


def prepare(settings: RegistrySettings) -> None:
    """Set the environment that MLflow reads: no pickle, no usage reports, short retries.

    What a user has set already wins, except for the pickle switch, which is a matter of
    safety and not of taste.
    """
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # Its links would stand in the middle of `--json` output.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # MLflow's own default waits about four minutes for a server that is not there.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(settings.request_retries),
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(settings.request_timeout_s),
    }.items():
        os.environ.setdefault(name, value)


def without_password(uri: str) -> str:
    """Return ``uri`` with the password of its user, if any, masked."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def check_reachable(uri: str, settings: RegistrySettings) -> None:
    """Fail within seconds where MLflow itself would retry for minutes.

    Raises
    ------
    TradewindError
        ``bad_setting`` for a scheme that is neither a database nor HTTP,
        ``tracking_unreachable`` if nothing usable answers at ``uri``.
    """
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        _check_server(uri, settings)
    elif scheme.split("+")[0] in ("sqlite", "postgresql", "mysql", "mssql"):
        _check_database(uri, settings)
    else:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"registry.tracking_uri = {without_password(uri)!r} is neither a database URL "
            "nor an http(s) address (plain folders lose aliases and are not supported)",
            "Unset TRADEWIND_REGISTRY__TRACKING_URI for SQLite, or give sqlite:///…, "
            "postgresql://… or http://…",
        )


@contextlib.contextmanager
def opening(settings: Settings) -> Iterator[None]:
    """Let one process at a time open an embedded database: the first one makes its tables.

    MLflow itself does not guard that: of two that start at once, one fails.

    Raises
    ------
    TradewindError
        ``already_running`` if another process does not end opening it in time.
    """
    from filelock import FileLock, Timeout

    if urlsplit(settings.mlflow_tracking_uri).scheme in ("http", "https"):
        yield
        return
    path = settings.home / "mlflow" / ".open.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(path), timeout=settings.registry.lock_timeout_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise TradewindError(
            ErrorCode.ALREADY_RUNNING,
            f"another process is opening MLflow's database (lock {path})",
            "Wait for it to end, then run the same command again",
        ) from error
    try:
        yield
    finally:
        lock.release()


def unreachable(uri: str, why: object) -> TradewindError:
    """Return the error for a tracking store at ``uri`` that cannot be used because of ``why``."""
    shown = without_password(uri)
    first_line = str(why).strip().split("\n", 1)[0]
    return TradewindError(
        ErrorCode.TRACKING_UNREACHABLE,
        f"MLflow tracking at {shown} cannot be used ({first_line.replace(uri, shown)})",
        START_SERVER,
    )


def _check_server(uri: str, settings: RegistrySettings) -> None:
    import httpx

    try:
        answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=settings.request_timeout_s)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise unreachable(uri, error or type(error).__name__) from error
    if answer.status_code != httpx.codes.OK:
        raise unreachable(uri, f"/health answers HTTP {answer.status_code}")


def _check_database(uri: str, settings: RegistrySettings) -> None:
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        url = make_url(uri)
        if url.get_backend_name() == "sqlite" and url.database:
            os.makedirs(os.path.dirname(url.database) or ".", exist_ok=True)  # noqa: PTH103, PTH120
        waits = url.get_backend_name() in ("postgresql", "mysql")
        limits = {"connect_timeout": settings.request_timeout_s} if waits else {}
        engine = create_engine(url, connect_args=limits)
        try:
            inspect(engine).has_table("experiments")
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError, OSError) as error:
        raise unreachable(uri, error) from error


@contextlib.contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn MLflow's failures into errors that a person can act on.

    Raises
    ------
    TradewindError
        ``bad_input`` for what MLflow refuses, ``disk_full``, or ``tracking_unreachable``.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except MlflowException as error:
        if "disk is full" in str(error):
            raise _disk_full(uri) from error
        if error.error_code in CALLER_FAULTS:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"MLflow refuses the request: {error.message}",
                "Correct the name, version or value; `tradewind status` lists what is registered",
            ) from error
        raise unreachable(uri, error) from error
    except RequestException as error:  # an OSError too, hence before it
        raise unreachable(uri, error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(uri) from error
        raise


def _disk_full(uri: str) -> TradewindError:
    return TradewindError(
        ErrorCode.DISK_FULL,
        f"no space left while writing to MLflow at {without_password(uri)}",
        "Free space on that device, then run the same command again",
    )
