"""An engine's books are the same on both databases."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from policy.engine import Engine, run_replay
from tests.support.synthetic import START_MS
from tests.support.trading_day import STEP, build_engine, trading_settings, write_market
from tradewind.ledger import schema

BOOKS = ("decisions", "intents", "orders", "fills", "flows", "trades", "equity", "positions")


def replayed(folder: Path, url: str | None) -> Engine:
    settings = trading_settings(folder, ledger_url=url)
    write_market(settings, 60)
    engine, clock = build_engine(settings)
    run_replay(engine, clock, START_MS + 25 * STEP, START_MS + 40 * STEP)
    return engine


def rows(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    tables = {name: schema.metadata.tables[name] for name in BOOKS}
    with engine.ledger.db.read() as connection:
        return {
            name: sorted(tuple(row) for row in connection.execute(select(table)))
            for name, table in tables.items()
        }


def test_sqlite_and_postgresql_keep_the_same_books(tmp_path: Path, postgres_url: str) -> None:
    here, there = replayed(tmp_path / "a", None), replayed(tmp_path / "b", postgres_url)
    try:
        assert there.ledger.db.url.get_backend_name() == "postgresql"
        assert there.check().ok
        assert len(here.ledger.fills()) > 5
        assert rows(here) == rows(there)
    finally:
        here.ledger.close()
        there.ledger.close()
