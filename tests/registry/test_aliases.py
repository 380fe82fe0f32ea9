"""Promotion, rollback and their record in a real MLflow store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from registry.aliases import history, promote, promote_candidate, rollback
from registry.tracking import Tracking
from registry.versions import RegisteredVersion, alias_table, get_version
from tests.support.registered import NAME
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings

Register = Callable[..., RegisteredVersion]
BY_HAND = {"who": "ann", "why": "looks good"}


def aliases(tracking: Tracking) -> dict[str, int]:
    return alias_table(tracking)[NAME]


def passed(register: Register, count: int) -> None:
    for seed in range(count):
        register(seed, gates="passed")


def test_the_replaced_champion_becomes_previous(tracking: Tracking, register: Register) -> None:
    passed(register, 2)
    first = promote(tracking, NAME, 1, **BY_HAND)
    assert (first.from_version, first.to_version, first.state) == (None, 1, "done")
    assert aliases(tracking) == {"champion": 1}
    second = promote(tracking, NAME, 2, **BY_HAND)
    assert (second.from_version, second.to_version) == (1, 2)
    assert aliases(tracking) == {"champion": 2, "previous": 1}
    recorded = history(tracking, NAME)
    assert recorded == [second, first]
    assert (recorded[0].who, recorded[0].why, recorded[0].alias) == (
        "ann",
        "looks good",
        "champion",
    )
    assert recorded[0].when_ms >= recorded[1].when_ms > 1_600_000_000_000


def test_promoting_twice_changes_nothing(tracking: Tracking, register: Register) -> None:
    passed(register, 2)
    promote(tracking, NAME, 1, **BY_HAND)
    change = promote(tracking, NAME, 2, **BY_HAND)
    again = promote(tracking, NAME, 2, who="bob", why="again")
    assert again == change
    assert aliases(tracking) == {"champion": 2, "previous": 1}
    assert len(history(tracking, NAME)) == 2


def test_a_promoted_challenger_is_no_longer_challenger_or_canary(
    tracking: Tracking, register: Register
) -> None:
    passed(register, 2)
    promote(tracking, NAME, 1, **BY_HAND)
    promote(tracking, NAME, 2, to="challenger", **BY_HAND)
    promote(tracking, NAME, 2, to="canary", **BY_HAND)
    assert aliases(tracking) == {"champion": 1, "challenger": 2, "canary": 2}
    promote(tracking, NAME, 2, **BY_HAND)
    assert aliases(tracking) == {"champion": 2, "previous": 1}


def test_the_champion_cannot_challenge_itself(tracking: Tracking, register: Register) -> None:
    passed(register, 1)
    promote(tracking, NAME, 1, **BY_HAND)
    with pytest.raises(TradewindError) as caught:
        promote(tracking, NAME, 1, to="challenger", **BY_HAND)
    assert caught.value.code is ErrorCode.BAD_INPUT
    assert aliases(tracking) == {"champion": 1}


@pytest.mark.parametrize("gates", ["failed", "unknown"])
def test_a_version_without_passed_gates_is_refused(
    tracking: Tracking, register: Register, gates: str
) -> None:
    register(0, gates=gates)
    with pytest.raises(TradewindError) as caught:
        promote(tracking, NAME, 1, **BY_HAND)
    assert caught.value.code is ErrorCode.GATES_FAILED
    assert gates in caught.value.detail
    assert aliases(tracking) == {}


def test_rollback_swaps_champion_and_previous(tracking: Tracking, register: Register) -> None:
    passed(register, 2)
    promote(tracking, NAME, 1, **BY_HAND)
    promote(tracking, NAME, 2, **BY_HAND)
    change = rollback(tracking, NAME, who="bob", why="loses money")
    assert (change.operation, change.from_version, change.to_version) == ("rollback", 2, 1)
    assert aliases(tracking) == {"champion": 1, "previous": 2}
    rollback(tracking, NAME, who="bob", why="it was not the model")
    assert aliases(tracking) == {"champion": 2, "previous": 1}
    assert [item.operation for item in history(tracking, NAME)] == [
        "rollback",
        "rollback",
        "promote",
        "promote",
    ]


def test_rollback_needs_a_previous_champion(tracking: Tracking, register: Register) -> None:
    passed(register, 1)
    promote(tracking, NAME, 1, **BY_HAND)
    with pytest.raises(TradewindError) as caught:
        rollback(tracking, NAME, **BY_HAND)
    assert caught.value.code is ErrorCode.BAD_INPUT
    assert "no previous" in caught.value.detail
    assert aliases(tracking) == {"champion": 1}


@pytest.mark.parametrize("blank", [{"who": " ", "why": "x"}, {"who": "x", "why": ""}])
def test_who_and_why_are_asked_for(
    tracking: Tracking, register: Register, blank: dict[str, str]
) -> None:
    passed(register, 1)
    with pytest.raises(TradewindError) as caught:
        promote(tracking, NAME, 1, **blank)
    assert caught.value.code is ErrorCode.BAD_INPUT
    assert aliases(tracking) == {}


def test_unknown_names_and_versions_are_refused(tracking: Tracking, register: Register) -> None:
    passed(register, 1)
    for refused in (
        lambda: promote(tracking, NAME, 9, **BY_HAND),
        lambda: promote(tracking, "tradewind.gru.BTCUSDT", 1, **BY_HAND),
        lambda: promote(tracking, "someone.elses.model", 1, **BY_HAND),
        lambda: rollback(tracking, "tradewind.gru.BTCUSDT", **BY_HAND),
        lambda: history(tracking, "tradewind.gru.BTCUSDT"),
    ):
        with pytest.raises(TradewindError) as caught:
            refused()
        assert caught.value.code is ErrorCode.BAD_INPUT


def test_the_record_is_bounded_and_long_reasons_are_cut(
    settings: Settings, register: Register
) -> None:
    bounded = settings.model_copy(
        update={"registry": settings.registry.model_copy(update={"history_limit": 3})}
    )
    tracking = Tracking(bounded)
    passed(register, 2)
    for turn in range(5):
        promote(tracking, NAME, turn % 2 + 1, who="ann", why="w" * 9000)
    recorded = history(tracking, NAME)
    assert [change.sequence for change in recorded] == [5, 4, 3]
    tags = tracking.client.get_registered_model(NAME).tags
    assert max(len(value) for value in tags.values()) < 5000  # what PostgreSQL's column holds


def test_the_first_that_passes_is_champion_the_next_is_challenger(
    tracking: Tracking, register: Register
) -> None:
    first, second = register(0), register(1)
    change = promote_candidate(tracking, first, True, ["ECE 0.03 ≤ 0.05"])
    assert change is not None
    assert change.alias == "champion"
    assert "ECE 0.03" in change.why
    change = promote_candidate(tracking, second, True)
    assert change is not None
    assert change.alias == "challenger"
    assert aliases(tracking) == {"champion": 1, "challenger": 2}
    stored = get_version(tracking, NAME, version=1)
    assert (stored.gates, stored.tags["gate_reasons"]) == ("passed", '["ECE 0.03 \\u2264 0.05"]')


def test_an_aged_champion_makes_way_and_the_record_says_why(
    tracking: Tracking, register: Register
) -> None:
    first, second, third = register(0), register(1), register(2)
    promote_candidate(tracking, first, True, handover="there is nobody to make way")
    change = promote_candidate(tracking, second, True, handover="14 days old")
    assert change is not None
    assert (change.alias, change.why) == ("champion", "gates passed; 14 days old")
    assert aliases(tracking) == {"champion": 2, "previous": 1}
    assert promote_candidate(tracking, third, False, ["bad"], handover="14 days old") is None
    assert aliases(tracking)["champion"] == 2


def test_asking_again_keeps_what_the_version_has(tracking: Tracking, register: Register) -> None:
    first, second = register(0), register(1)
    made = [promote_candidate(tracking, version, True) for version in (first, second)]
    again = [promote_candidate(tracking, version, True) for version in (first, second)]
    assert again == made
    assert aliases(tracking) == {"champion": 1, "challenger": 2}


def test_a_version_that_fails_stays_without_alias(tracking: Tracking, register: Register) -> None:
    failed = register(0)
    assert promote_candidate(tracking, failed, False, ["ECE 0.09 > 0.05"]) is None
    assert aliases(tracking) == {}
    stored = get_version(tracking, NAME, version=1)
    assert (stored.gates, stored.tags["gate_reasons"]) == ("failed", '["ECE 0.09 > 0.05"]')


def test_the_demonstration_serves_a_failed_one_only_for_want_of_any(
    tracking: Tracking, register: Register
) -> None:
    first, second, third = register(0), register(1), register(2)
    change = promote_candidate(tracking, first, False, ["bad"], allow_failed=True)
    assert change is not None
    assert change.alias == "champion"
    assert get_version(tracking, NAME, alias="champion").gates == "failed"
    assert promote_candidate(tracking, second, False, ["bad"], allow_failed=True) is None
    assert aliases(tracking) == {"champion": 1}
    change = promote_candidate(tracking, third, True)
    assert change is not None
    assert change.alias == "champion", "a champion that failed its gates gives way at once"
    assert aliases(tracking) == {"champion": 3, "previous": 1}


def test_one_process_changes_aliases_at_a_time(settings: Settings, register: Register) -> None:
    impatient = settings.model_copy(
        update={"registry": settings.registry.model_copy(update={"lock_timeout_s": 0.1})}
    )
    passed(register, 1)
    with FileLock(str(Path(settings.home) / "aliases.lock")):
        with pytest.raises(TradewindError) as caught:
            promote(Tracking(impatient), NAME, 1, **BY_HAND)
        assert caught.value.code is ErrorCode.ALREADY_RUNNING
    promote(Tracking(impatient), NAME, 1, **BY_HAND)
