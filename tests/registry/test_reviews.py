"""Looks at a challenger, and the way it loses its alias, in a real MLflow store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from registry import _journal as journal
from registry.aliases import history, promote, withdraw
from registry.reviews import Look, looks_of, record_look
from registry.tracking import Tracking
from registry.versions import RegisteredVersion, alias_table, find_alias, get_version
from tests.support.registered import NAME
from tradewind.errors import ErrorCode, TradewindError

Register = Callable[..., RegisteredVersion]
BY_HAND = {"who": "ann", "why": "looks worse"}
LOOK = Look(
    champion=1,
    number=1,
    alpha=0.025,
    verdict="not_worse",
    rows=1600,
    days=7,
    start_ms=1_735_689_600_000,
    end_ms=1_736_294_400_000,
    when_ms=1_736_380_800_000,
    text="log-loss minus the champion's -0.00010",
    figures={"log_loss_minus_champion": -0.0001},
)


@pytest.fixture
def pair(tracking: Tracking, register: Register) -> Tracking:
    """Version 1 is champion, version 2 challenger."""
    for seed in range(3):
        register(seed, gates="passed")
    promote(tracking, NAME, 1, who="ann", why="first")
    promote(tracking, NAME, 2, who="ann", why="second", to="challenger")
    return tracking


def test_a_challenger_loses_its_alias_and_stays_registered(pair: Tracking) -> None:
    change = withdraw(pair, NAME, 2, **BY_HAND)
    assert alias_table(pair)[NAME] == {"champion": 1}
    assert (change.operation, change.alias, change.state) == ("withdraw", "challenger", "done")
    assert (change.from_version, change.to_version, change.why) == (2, None, "looks worse")
    assert history(pair, NAME)[0] == change
    assert get_version(pair, NAME, version=2).gates == "passed"
    assert withdraw(pair, NAME, 2, who="bob", why="again") == change
    assert len(history(pair, NAME)) == 3


def test_another_challenger_keeps_its_alias(pair: Tracking) -> None:
    promote(pair, NAME, 3, who="ann", why="third", to="challenger")
    recorded = history(pair, NAME)
    change = withdraw(pair, NAME, 2, **BY_HAND)
    assert (change.from_version, change.state) == (2, "done")
    assert alias_table(pair)[NAME] == {"champion": 1, "challenger": 3}
    assert history(pair, NAME) == recorded, "nothing moved, nothing is recorded"


@pytest.mark.parametrize("deleted", [False, True])
def test_a_withdrawal_cut_off_is_finished_or_taken_back(pair: Tracking, deleted: bool) -> None:
    begun = journal.AliasChange(
        sequence=3,
        name=NAME,
        operation="withdraw",
        alias="challenger",
        from_version=2,
        to_version=None,
        who="ann",
        why="cut off",
        when_ms=1,
    )
    journal.write(pair, begun)
    if deleted:
        pair.client.delete_registered_model_alias(NAME, "challenger")
    promote(pair, NAME, 3, who="ann", why="third", to="canary")
    left = {"champion": 1, "canary": 3} | ({} if deleted else {"challenger": 2})
    assert alias_table(pair)[NAME] == left
    states = {change.sequence: change.state for change in history(pair, NAME)}
    assert states[3] == ("done" if deleted else "abandoned")
    assert withdraw(pair, NAME, 2, **BY_HAND).state == "done"
    assert alias_table(pair)[NAME] == {"champion": 1, "canary": 3}


def test_the_same_withdrawal_again_finishes_what_was_begun(pair: Tracking) -> None:
    begun = replace(withdraw(pair, NAME, 2, **BY_HAND), state="started")
    pair.client.set_registered_model_alias(NAME, "challenger", "2")
    journal.write(pair, begun)
    finished = withdraw(pair, NAME, 2, who="bob", why="again")
    assert (finished.sequence, finished.state, finished.who) == (begun.sequence, "done", "ann")
    assert alias_table(pair)[NAME] == {"champion": 1}


@pytest.mark.parametrize("blank", [{"who": " ", "why": "x"}, {"who": "x", "why": ""}])
def test_a_withdrawal_needs_who_why_and_a_version(pair: Tracking, blank: dict[str, str]) -> None:
    for refused in (
        lambda: withdraw(pair, NAME, 2, **blank),
        lambda: withdraw(pair, NAME, 9, **BY_HAND),
    ):
        with pytest.raises(TradewindError) as caught:
            refused()
        assert caught.value.code is ErrorCode.BAD_INPUT
    assert alias_table(pair)[NAME] == {"champion": 1, "challenger": 2}


def test_looks_are_kept_by_champion_and_in_order(pair: Tracking) -> None:
    challenger = get_version(pair, NAME, version=2)
    many = [replace(LOOK, number=number, state="done") for number in range(1, 12)]
    for look in reversed(many):
        record_look(pair, challenger, look)
    other = replace(LOOK, champion=11, verdict="better")
    record_look(pair, challenger, other)
    stored = find_alias(pair, NAME, "challenger")
    assert stored is not None
    assert looks_of(stored, 1) == many
    assert looks_of(stored, 11) == [other]
    assert looks_of(stored, 3) == []
    assert stored.tags["review"] == "better"
    assert stored.tags["review_text"].startswith("look 1 beside version 11: log-loss minus")


def test_a_look_written_again_replaces_its_state(pair: Tracking) -> None:
    challenger = get_version(pair, NAME, version=2)
    record_look(pair, challenger, LOOK)
    record_look(pair, challenger, replace(LOOK, state="done"))
    (found,) = looks_of(get_version(pair, NAME, version=2), 1)
    assert found == replace(LOOK, state="done")
