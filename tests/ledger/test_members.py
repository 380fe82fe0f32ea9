"""The states of the ensemble's members: a person outranks the supervisor, nothing is lost."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from tradewind.errors import TradewindError
from tradewind.ledger import Ledger, MemberCode, MemberState, MemberStatus
from tradewind.ledger import ledger as ledger_module
from tradewind.ledger.database import Database
from tradewind.ledger.members import SUPERVISOR, parse_member

NOW = 1_700_000_000_000
BAD = MemberState(
    "lightgbm",
    "POOLED",
    MemberStatus.DISABLED,
    MemberCode.BIAS,
    "BUY is 100 % of the calls",
    SUPERVISOR,
    NOW,
    version="tradewind.lightgbm.POOLED/3",
    retrain=True,
    figures={"buy_share": 1.0},
)
WELL = dataclasses.replace(BAD, state=MemberStatus.ENABLED, code=MemberCode.WELL, retrain=False)


def test_a_judgement_is_kept_with_its_figures_and_told_once(ledger: Ledger) -> None:
    assert ledger.judge_member(BAD, None)
    (stored,) = ledger.members()
    assert dataclasses.replace(stored, updated_ms=0) == BAD
    newer = dataclasses.replace(BAD, figures={"buy_share": 0.9})
    assert ledger.judge_member(newer, stored)
    assert ledger.members()[0].figures == {"buy_share": 0.9}
    (change,) = ledger.member_changes()
    assert (change.before, change.after.state) == (MemberStatus.ENABLED, MemberStatus.DISABLED)
    assert change.after.figures == {"buy_share": 1.0}
    assert ledger.member_state() == {("lightgbm", "POOLED"): (False, BAD.why)}


def test_found_well_at_the_first_look_is_no_change(ledger: Ledger) -> None:
    assert ledger.judge_member(WELL, None)
    assert ledger.member_changes() == []


def test_a_judgement_of_an_older_state_is_refused(ledger: Ledger) -> None:
    assert ledger.judge_member(BAD, None)
    assert not ledger.judge_member(WELL, None)
    assert ledger.members()[0].state is MemberStatus.DISABLED


def test_a_person_s_word_stands_until_it_is_released(ledger: Ledger) -> None:
    said = ledger.set_member(
        "lightgbm", "POOLED", MemberStatus.ENABLED, who="ada", why="I watch it", market_ms=NOW
    )
    (held,) = ledger.members()
    assert said.held
    assert not ledger.judge_member(BAD, held)
    ledger.set_member(
        "lightgbm", "POOLED", said.state, who="ada", why="done", market_ms=NOW + 1, held=False
    )
    (released,) = ledger.members()
    assert ledger.judge_member(BAD, released)
    told = [(c.after.state.value, c.after.who, c.after.held) for c in ledger.member_changes()]
    assert told == [
        ("disabled", SUPERVISOR, False),
        ("enabled", "ada", False),
        ("enabled", "ada", True),
    ]


@pytest.mark.parametrize("missing", ["who", "why"])
def test_a_person_gives_a_name_and_a_reason(ledger: Ledger, missing: str) -> None:
    who, why = (" ", "noise") if missing == "who" else ("ada", " ")
    with pytest.raises(TradewindError, match=missing):
        ledger.set_member(
            "lightgbm", "POOLED", MemberStatus.DISABLED, who=who, why=why, market_ms=NOW
        )
    assert ledger.members() == []


def test_of_many_judges_at_once_one_is_heard(ledger: Ledger) -> None:
    with ThreadPoolExecutor(4) as pool:
        judges = [
            dataclasses.replace(BAD, since_ms=NOW + number, why=str(number)) for number in range(4)
        ]
        heard = list(pool.map(lambda item: ledger.judge_member(item, None), judges))
    assert sum(heard) == 1
    assert len(ledger.member_changes()) == 1
    assert ledger.members()[0].why == str(heard.index(True))


def test_states_of_the_table_before_are_taken_over_and_given_back(ledger_url: str) -> None:
    def config(connection: object) -> Config:
        made = Config()
        made.set_main_option("script_location", str(ledger_module.MIGRATIONS))
        made.attributes["connection"] = connection
        made.attributes["version_table"] = ledger_module.VERSION_TABLE
        return made

    rows = "INSERT INTO member_state VALUES ('lightgbm','A',{0},'flips',5),('gru','B',{1},'ok',6)"
    database = Database(ledger_url)
    with database.write() as connection:
        command.upgrade(config(connection), "books_0002")
        flags = ("0", "1") if database.is_sqlite else ("false", "true")
        connection.execute(text(rows.format(*flags)))
    with Ledger(ledger_url) as opened:
        found = {(m.name, m.state.value, m.held, m.why, m.since_ms) for m in opened.members()}
    assert found == {
        ("lightgbm.A", "disabled", True, "flips", 5),
        ("gru.B", "enabled", False, "ok", 6),
    }
    with database.write() as connection:
        command.downgrade(config(connection), "books_0002")
        query = "SELECT family, enabled FROM member_state ORDER BY family"
        back = [(row[0], bool(row[1])) for row in connection.execute(text(query))]
    database.close()
    assert back == [("gru", True), ("lightgbm", False)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lightgbm.BTCUSDT", ("lightgbm", "BTCUSDT")),
        ("tradewind.lightgbm.BTCUSDT", ("lightgbm", "BTCUSDT")),
        ("transformer", ("transformer", "POOLED")),
    ],
)
def test_a_member_is_named_as_people_do(name: str, expected: tuple[str, str]) -> None:
    assert parse_member(name) == expected
    with pytest.raises(TradewindError, match=r"lightgbm\.BTCUSDT"):
        parse_member("a.b.c")
