"""Dagster's instance: its folder, its settings file, its storage.

``python -m pipelines.instance COMMAND …`` makes the instance ready and becomes that command: so
`dagster dev`, the web server, the daemon and the code server find what the command line finds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_bytes
from tradewind.masking import mask_passwords
from tradewind.settings import Settings, load_settings

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from sqlalchemy import URL

INSTANCE_FILE = Path(__file__).resolve().parent.parent / "dagster.yaml"
NAME = "dagster.yaml"
LOCAL_NAME = "dagster.local.yaml"
BACKUP_NAME = "dagster.yaml.bak"
DATABASE_VARIABLE = "TRADEWIND_DAGSTER_DATABASE_URL"
CONNECT_TIMEOUT_S = 10
CREATED_NAME = ".created"
CREATE_TIMEOUT_S = 120
HEADER = f"""\
# Written by Tradewind from the repository's {NAME} and the settings: what is changed here is
# lost (the previous file is {BACKUP_NAME}). Settings of your own belong in {LOCAL_NAME}.
"""

log = structlog.get_logger(__name__)


def dagster_home(settings: Settings) -> Path:
    """Return the instance's folder, made ready: `DAGSTER_HOME` for this process.

    Its `dagster.yaml` is brought up to date at every call. The database's URL stays in the
    environment: the file only names the variable.

    Raises
    ------
    TradewindError
        ``bad_setting`` for a local file that is no mapping.
    """
    home = (settings.home / "dagster").absolute()
    home.mkdir(parents=True, exist_ok=True)
    _bring_up_to_date(home, settings)
    os.environ["DAGSTER_HOME"] = str(home)
    if settings.dagster_database_url is not None:
        os.environ[DATABASE_VARIABLE] = settings.dagster_database_url
    else:
        _create_databases(home)
    return home


def _create_databases(home: Path) -> None:
    """Create the embedded databases once: two processes that do so together break them.

    Web server and daemon, started side by side in a new home, would both stamp the schema's
    revision, and every later start would find two.
    """
    from filelock import FileLock

    made = home / CREATED_NAME
    if made.exists():
        return
    with FileLock(home / f"{CREATED_NAME}.lock", timeout=CREATE_TIMEOUT_S):
        if made.exists():
            return
        from dagster import DagsterInstance

        with DagsterInstance.from_config(str(home)) as instance:
            instance.get_runs_count()
        write_bytes(made, b"")


def database_url(settings: Settings) -> URL | None:
    """Return the URL of Dagster's storage, None for SQLite under the home."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    given = settings.dagster_database_url
    if given is None:
        return None
    try:
        return make_url(given)
    except ArgumentError:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"dagster_database_url = {mask_passwords(given)!r} is not a database URL",
            "Use postgresql://user@host/dagster; the password may come from PGPASSWORD",
        ) from None  # the cause's words hold the whole URL


def open_storage(settings: Settings) -> DagsterInstance:
    """Open the instance of the settings.

    Raises
    ------
    TradewindError
        ``dagster_unreachable`` within seconds if its database does not answer.
    """
    from dagster import DagsterInstance

    dagster_home(settings)
    check_database(settings)
    return DagsterInstance.get()


def check_database(settings: Settings) -> None:
    """Fail within seconds, in one line, where Dagster would retry and print a traceback."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    url = database_url(settings)
    if url is None:
        return
    engine = create_engine(url, connect_args={"connect_timeout": CONNECT_TIMEOUT_S})
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        words = " ".join(str(getattr(error, "orig", None) or error).split())
        raise TradewindError(
            ErrorCode.DAGSTER_UNREACHABLE,
            f"Dagster's database {url.render_as_string(hide_password=True)} cannot be used "
            f"({mask_passwords(words)})",
            f"Check {DATABASE_VARIABLE}, and that the database is up and exists",
        ) from None  # the driver's own words were just shown; its traceback may hold the URL
    finally:
        engine.dispose()


def _bring_up_to_date(home: Path, settings: Settings) -> None:
    target = home / NAME
    wanted = _content(home, settings)
    current = target.read_bytes() if target.exists() else None
    if current == wanted:
        return
    if current is not None:
        write_bytes(home / BACKUP_NAME, current)
        log.info("dagster_yaml_replaced", file=str(target), previous=BACKUP_NAME)
    write_bytes(target, wanted)


def _content(home: Path, settings: Settings) -> bytes:
    import yaml

    wanted: dict[str, Any] = yaml.safe_load(INSTANCE_FILE.read_text(encoding="utf-8"))
    if settings.dagster_database_url is not None:
        wanted["storage"] = {"postgres": {"postgres_url": {"env": DATABASE_VARIABLE}}}
    local = home / LOCAL_NAME
    if local.exists():
        wanted = _merged(wanted, _own(local))
    return (HEADER + yaml.safe_dump(wanted, sort_keys=False)).encode()


def _own(path: Path) -> dict[str, Any]:
    import yaml

    remedy = "Correct or remove that file; it holds what dagster.yaml may hold"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TradewindError(
            ErrorCode.BAD_SETTING, f"{path} cannot be read ({error})", remedy
        ) from error
    if not isinstance(found, dict | None):
        raise TradewindError(ErrorCode.BAD_SETTING, f"{path} is no mapping", remedy)
    return found or {}


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with what ``over`` says, branch by branch."""
    result = dict(base)
    for name, value in over.items():
        below = result.get(name)
        if isinstance(below, dict) and isinstance(value, dict):
            value = _merged(below, value)
        result[name] = value
    return result


def main() -> None:
    """Make the instance ready and become the command of the arguments."""
    command = sys.argv[1:]
    if not command:
        sys.exit("usage: python -m pipelines.instance COMMAND [ARGUMENT …]")
    try:
        settings = load_settings()
        dagster_home(settings)
        check_database(settings)
    except TradewindError as error:
        sys.exit(f"error: {error}")
    os.execvp(command[0], command)  # noqa: S606 - the arguments are the caller's own


if __name__ == "__main__":
    main()
