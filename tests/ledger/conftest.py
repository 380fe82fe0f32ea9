"""Every test of the books that asks for `ledger` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from tests.support.postgres import available, running_postgres
from tradewind.ledger import Ledger


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    if not available():
        pytest.skip("PostgreSQL is not installed here: initdb and pg_ctl are not on the path")
    with running_postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """URL of an empty database."""
    name = f"t{uuid.uuid4().hex}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(postgres_server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger(ledger_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite ledger to copy."""
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    with Ledger(f"sqlite:///{path}") as opened:
        opened.check()
    return path


@pytest.fixture
def fresh_ledger(template: Path, tmp_path: Path) -> Callable[[], Ledger]:
    """Open a new empty SQLite ledger at each call (for property tests)."""

    def build() -> Ledger:
        path = tmp_path / f"{uuid.uuid4().hex}.db"
        shutil.copyfile(template, path)
        return Ledger(f"sqlite:///{path}")

    return build
