"""Opening, migrating, and failing clearly."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, text

from policy.brokers import paper, paper_schema
from tests.support.booking import answer, fill, open_position
from tests.support.synthetic import START_MS
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import Ledger, open_ledger, schema
from tradewind.ledger import ledger as ledger_module
from tradewind.ledger.database import Database
from tradewind.settings import load_settings

REPOSITORY = Path(__file__).resolve().parents[2]
OPEN = "import sys; from tradewind.ledger import Ledger; Ledger(sys.argv[1]).check()"


@pytest.mark.parametrize(
    ("module", "metadata"),
    [(ledger_module, schema.metadata), (paper, paper_schema.metadata)],
    ids=["ledger", "paper"],
)
def test_migrations_make_exactly_the_tables(
    ledger_url: str, module: object, metadata: MetaData
) -> None:
    scripts: Path = module.MIGRATIONS  # type: ignore[attr-defined]
    head: str = module.HEAD  # type: ignore[attr-defined]
    table: str = module.VERSION_TABLE  # type: ignore[attr-defined]
    config = Config()
    config.set_main_option("script_location", str(scripts))
    assert ScriptDirectory.from_config(config).get_heads() == [head]
    database = Database(ledger_url)
    database.migrate(scripts, version_table=table, head=head)
    database.migrate(scripts, version_table=table, head=head)
    with database.engine.connect() as connection:
        options = {"compare_type": True, "version_table": table}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    database.close()


def test_processes_may_open_at_once(ledger_url: str) -> None:
    commands = [[sys.executable, "-c", OPEN, ledger_url]] * 3
    running = [
        subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def test_threads_may_write_at_once(ledger: Ledger) -> None:
    ledger.open_account(Decimal(0), START_MS)

    def add(number: int) -> None:
        from tradewind.ledger import FundingPayment

        for i in range(10):
            payment = FundingPayment(f"{number}-{i}", "X", Decimal(1), Decimal(0), START_MS)
            ledger.book_funding([payment])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert ledger.cash() == 40


def test_sqlite_is_set_for_money(tmp_path: Path) -> None:
    wanted = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    url = f"sqlite:///{tmp_path / 'l.db'}"
    with Ledger(url, busy_timeout_s=3) as ledger, ledger.db.read() as connection:
        found = {n: connection.execute(text(f"PRAGMA {n}")).scalar() for n in wanted}
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "busy_timeout": 3000,
    }


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    with Ledger(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        _, stop, _ = open_position(ledger)
        before = ledger.snapshot()
        with ledger.db.engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        cramped = Database(str(ledger.db.url))
        ledger.db = cramped
        with cramped.engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        with pytest.raises(TradewindError, match="no space left for the ledger") as caught:
            fill_up(ledger)
        assert caught.value.code is ErrorCode.DISK_FULL
        assert ledger.snapshot() == before
        with cramped.engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 1000}")
        ledger.book(answer(stop), [fill(stop, "95")])
        assert ledger.check().ok


def fill_up(ledger: Ledger) -> None:
    for number in range(1000):
        ledger.record_settings({"padding": f"{number}" * 2000}, START_MS)


def test_a_locked_ledger_is_said_after_the_busy_wait(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'l.db'}"
    with Ledger(url, busy_timeout_s=0.1) as ledger, Ledger(url) as other:
        with other.db.write() as connection:
            connection.execute(text("DELETE FROM kill_switch"))
            with pytest.raises(TradewindError, match="locked") as caught:
                ledger.kill_switch.engage("test")
            assert not ledger.kill_switch.state().engaged  # reading goes on
        ledger.kill_switch.engage("test")
    assert caught.value.code is ErrorCode.LEDGER_UNAVAILABLE


def test_a_read_only_ledger_is_said(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with Ledger(f"sqlite:///{path}") as ledger:
        open_position(ledger)
    with Ledger(f"sqlite:///file:{path}?mode=ro&uri=true") as ledger:
        assert ledger.check().ok
        with pytest.raises(TradewindError, match="Make the file and its folder writable"):
            ledger.kill_switch.engage("test")


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(TradewindError, match="not a database") as caught:
        Ledger(f"sqlite:///{path}")
    assert caught.value.code is ErrorCode.LEDGER_UNAVAILABLE


@pytest.mark.parametrize(
    "url",
    ["sqlite:////no/such/folder/l.db", "postgresql://tw:secret@127.0.0.1:1/none"],
)
def test_a_ledger_that_is_not_there_is_said_without_its_password(url: str) -> None:
    with pytest.raises(TradewindError, match="Check ledger_url") as caught:
        Ledger(url, busy_timeout_s=1)
    assert caught.value.code is ErrorCode.LEDGER_UNAVAILABLE
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "what://ever"])
def test_a_url_that_is_none_is_a_bad_setting(url: str) -> None:
    with pytest.raises(TradewindError) as caught:
        Ledger(url)
    assert caught.value.code is ErrorCode.BAD_SETTING


def test_a_ledger_of_a_newer_version_is_said(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'l.db'}"
    with Ledger(url) as ledger, ledger.db.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'books_9999'"))
    with pytest.raises(TradewindError, match="another version of the program"):
        Ledger(url)


def test_the_ledger_of_the_settings_makes_its_folder(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "deep" / "home")
    with open_ledger(settings) as ledger:
        assert ledger.check().ok
    assert (tmp_path / "deep" / "home" / "ledger.db").exists()


def test_an_error_inside_a_transaction_undoes_it(ledger: Ledger) -> None:
    def write_and_fail() -> None:
        with ledger.db.write() as connection:
            connection.execute(text("INSERT INTO leases VALUES ('a','b','c',1,'d',2)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with ledger.db.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM leases")).scalar() == 0


def test_a_glance_returns_the_first_row_and_survives_a_failed_one(ledger: Ledger) -> None:
    assert ledger.db.glance("SELECT 7, 0.5") == (7, 0.5)
    assert ledger.db.glance("SELECT 7 WHERE 1 = 0") is None
    drivers = ledger.db.engine.dialect.loaded_dbapi
    with pytest.raises((TradewindError, drivers.ProgrammingError), match="no_such_table"):
        ledger.db.glance("SELECT * FROM no_such_table")
    assert ledger.db.glance("SELECT 8") == (8,)
    assert ledger.db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
