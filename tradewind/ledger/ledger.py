"""The ledger: one durable record of predictions, decisions, orders and money."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from tradewind.ledger.books import MoneyBook
from tradewind.ledger.check import check_books
from tradewind.ledger.database import Database
from tradewind.ledger.decisions import DecisionBook
from tradewind.ledger.explain import Story, explain_decision
from tradewind.ledger.interventions import InterventionBook
from tradewind.ledger.lease import engine_alive
from tradewind.ledger.members import MemberBook
from tradewind.ledger.predictions import PredictionBook
from tradewind.ledger.queries import QueryBook
from tradewind.ledger.records import BrokerBook, LedgerCheck
from tradewind.ledger.switch import KillSwitch
from tradewind.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "alembic_version"
HEAD = "books_0003"


class Ledger(PredictionBook, DecisionBook, MoneyBook, QueryBook, InterventionBook, MemberBook):
    """Every table behind one object; safe to use from several threads and processes.

    Parameters
    ----------
    url
        SQLAlchemy URL of a SQLite file or of PostgreSQL; migrated when it is opened.
    busy_timeout_s
        How long a write waits for another process's write.

    Raises
    ------
    TradewindError
        ``ledger_unavailable`` or ``disk_full``, here and by every method.
    """

    def __init__(self, url: str, *, busy_timeout_s: float = 5.0) -> None:
        self.db = Database(url, busy_timeout_s=busy_timeout_s)
        self.kill_switch = KillSwitch(self.db)
        self.db.migrate(MIGRATIONS, version_table=VERSION_TABLE, head=HEAD)

    def check(self, broker: BrokerBook | None = None) -> LedgerCheck:
        """Return whether the books balance, and agree with the broker's where given."""
        return check_books(self.db, broker=broker, engine_alive=engine_alive(self))

    def explain(self, decision_id: str) -> Story:
        """Return a decision's story; the first characters are enough, or ``latest``.

        Raises
        ------
        TradewindError
            ``bad_input`` when no decision, or more than one, begins so.
        """
        return explain_decision(self.db, decision_id)

    def close(self) -> None:
        """Close every connection."""
        self.db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_ledger(settings: Settings) -> Ledger:
    """Open the ledger the settings name; its folder is made where it is under ``home``."""
    if settings.ledger_url is None:
        settings.home.mkdir(parents=True, exist_ok=True)
    return Ledger(settings.ledger_database_url, busy_timeout_s=settings.ledger.busy_timeout_s)
