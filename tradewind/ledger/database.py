"""One SQL database: opening, transactions, errors, migrations. No table is known here."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tradewind.errors import ErrorCode, TradewindError
from tradewind.masking import mask_passwords

SQLITE_FULL, SQLITE_IOERR_WRITE = 13, 778
POSTGRES_DISK_FULL = "53100"
MIGRATION_LOCK = 7_201_934
WAL_RETRY_S = 0.02
ROWS_A_STATEMENT = 25
"""Rows of one INSERT where many are written."""


def ledger_error(error: Exception, url: URL) -> TradewindError:
    """Return the clear error for a database that does not answer as it should."""
    original = getattr(error, "orig", None) or error
    shown = url.render_as_string(hide_password=True)
    words = mask_passwords(" ".join(str(original).split()))
    full = (
        getattr(original, "sqlite_errorcode", None) in (SQLITE_FULL, SQLITE_IOERR_WRITE)
        or getattr(original, "sqlstate", None) == POSTGRES_DISK_FULL
    )
    if full:
        return TradewindError(
            ErrorCode.DISK_FULL,
            f"no space left for the ledger {shown} ({words})",
            "Free space on that device; nothing of the failed write was kept",
        )
    if "locked" in words:
        hint = "Another process holds the ledger; end the long transaction or try again"
    elif "readonly" in words or "read-only" in words:
        hint = "Make the file and its folder writable for this user"
    else:
        hint = "Check ledger_url (TRADEWIND_LEDGER_URL), and that the database is up"
    return TradewindError(ErrorCode.LEDGER_UNAVAILABLE, f"ledger {shown}: {words}", hint)


class Database:
    """A pool of connections to the ledger's database.

    Parameters
    ----------
    url
        SQLAlchemy URL; SQLite and PostgreSQL are supported.
    busy_timeout_s
        How long a write waits for another process's write.
    """

    def __init__(self, url: str, *, busy_timeout_s: float = 5.0) -> None:
        self.url = self._parse(url)
        self._busy_timeout_s = busy_timeout_s
        self.engine = self._create()

    def _parse(self, url: str) -> URL:
        try:
            parsed = make_url(url)
            dialect = parsed.get_dialect().name
        except (ArgumentError, NoSuchModuleError) as error:
            raise TradewindError(
                ErrorCode.BAD_SETTING,
                f"ledger_url {mask_passwords(url)!r} is not a database URL",
                "Use sqlite:///path/ledger.db or postgresql+psycopg://user@host/name",
            ) from error
        if dialect == "postgresql" and parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if dialect not in ("sqlite", "postgresql"):
            raise TradewindError(
                ErrorCode.BAD_SETTING,
                f"ledger_url names the database {dialect!r}",
                "Use SQLite or PostgreSQL",
            )
        return parsed

    @property
    def is_sqlite(self) -> bool:
        """Return whether the database is a SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    def _create(self) -> Engine:
        if not self.is_sqlite:
            wait = max(1, round(self._busy_timeout_s))
            limits = {"connect_timeout": wait, "options": f"-c lock_timeout={wait}s"}
            return create_engine(self.url, pool_pre_ping=True, connect_args=limits)
        engine = create_engine(self.url, connect_args={"timeout": self._busy_timeout_s})
        event.listen(engine, "connect", self._configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _configure_sqlite(self, connection: Any, _record: Any) -> None:
        # The driver's own BEGIN comes only before the first write: with ours, reads see one
        # state and a write waits for its turn instead of failing half-way.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()
        self._use_wal(connection)

    def _use_wal(self, connection: Any) -> None:
        """Switch to write-ahead logging; SQLite's own busy wait does not cover this switch."""
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(WAL_RETRY_S)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise TradewindError(
                ErrorCode.LEDGER_UNBALANCED,
                f"the ledger refuses a row: {' '.join(str(error.orig).split())}",
                "Nothing was written; run `tradewind ledger check`",
            ) from error
        except (ProgrammingError, self.engine.dialect.loaded_dbapi.ProgrammingError):
            raise  # our own mistake: the statement does not fit the tables
        except (DBAPIError, PoolTimeout, self.engine.dialect.loaded_dbapi.Error) as error:
            raise ledger_error(error, self.url) from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection whose changes are all kept or, on any error, none.

        Raises
        ------
        TradewindError
            ``disk_full`` or ``ledger_unavailable``.
        """
        with self._translated(), self.engine.connect() as connection:
            connection = connection.execution_options(tradewind_write=True)
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection that sees one state of the books throughout."""
        with self._translated(), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def glance(self, statement: str) -> Any:
        """Return the first row of one statement as the driver's tuple, None where there is none.

        For what is read many times a second: all that stands around a reading takes several
        times as long as the reading, in a SQLite file. One statement needs no transaction;
        where the driver begins one by itself (PostgreSQL), the pool ends it.
        """
        with self._translated():
            connection = self.engine.raw_connection()
            try:
                with closing(connection.cursor()) as cursor:
                    cursor.execute(statement)
                    return cursor.fetchone()
            finally:
                connection.close()

    def insert_ignore(
        self, connection: Connection, table: Table, rows: Sequence[dict[str, Any]]
    ) -> int:
        """Insert the rows whose unique keys are new; return how many were."""
        if not rows:
            return 0
        insert = sqlite.insert if self.is_sqlite else postgresql.insert
        # Drivers disagree about row counts of ignored rows; what was returned was inserted.
        statement = insert(table).on_conflict_do_nothing().returning(*table.primary_key)
        # Each number of rows is an SQL text of its own, which the driver keeps prepared: pages
        # of one size leave few of them.
        statement = statement.execution_options(insertmanyvalues_page_size=ROWS_A_STATEMENT)
        return len(connection.execute(statement, list(rows)).all())

    def upsert(self, connection: Connection, table: Table, row: dict[str, Any]) -> None:
        """Insert a row, or replace every other column of the one with its primary key."""
        insert = sqlite.insert if self.is_sqlite else postgresql.insert
        keys = [column.name for column in table.primary_key]
        changed = {name: value for name, value in row.items() if name not in keys}
        statement = insert(table).values(row)
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))

    def migrate(self, scripts: Path, *, version_table: str, head: str) -> None:
        """Bring the tables up to ``head``; safe when several processes open at once."""
        if self._revision(version_table) == head:
            return
        from alembic.util import CommandError

        with self.write() as connection:
            if not self.is_sqlite:
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}
                )
            try:
                self._upgrade(connection, scripts, version_table)
            except CommandError as error:
                shown = self.url.render_as_string(hide_password=True)
                raise TradewindError(
                    ErrorCode.LEDGER_UNAVAILABLE,
                    f"ledger {shown} was made by another version of the program ({error})",
                    "Run the version that made it, or a newer one",
                ) from error

    def _revision(self, version_table: str) -> str | None:
        with self.read() as connection:
            if not inspect(connection).has_table(version_table):
                return None
            found: str | None = connection.execute(
                text(f"SELECT version_num FROM {version_table}")  # noqa: S608 - our own constant
            ).scalar()
            return found

    @staticmethod
    def _upgrade(connection: Connection, scripts: Path, version_table: str) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(scripts).replace("%", "%%"))
        config.attributes["connection"] = connection
        config.attributes["version_table"] = version_table
        command.upgrade(config, "head")

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes its turn at the start: upgrading a read to a write cannot wait.
    write = connection.get_execution_options().get("tradewind_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
