"""When a champion should be retrained, on plain values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assets.retrain_triggers import (
    ChampionState,
    ClosedTrade,
    Finding,
    asks,
    remembered,
    still_asked,
)
from assets.retrain_triggers import look as look_with
from assets.units import Unit
from tradewind.settings import MS_PER_DAY, RetrainTriggerSettings

LIMITS = RetrainTriggerSettings()
END = 1_735_689_600_000
NOW = END + 3 * MS_PER_DAY


def look(champion: ChampionState, now_ms: int, limits: RetrainTriggerSettings) -> Finding:
    return look_with(champion, now_ms, limits, max_age_days=8)


def _trades(won: int, lost: int, opened_ms: int = END) -> tuple[ClosedTrade, ...]:
    return (*[ClosedTrade(opened_ms, -1.0)] * lost, *[ClosedTrade(opened_ms, 1.0)] * won)


def _champion(
    *,
    family: str = "lightgbm",
    key: str = "POOLED",
    version: int = 3,
    drift: str | None = "fine",
    worst_psi: float | None = 0.05,
    trades: tuple[ClosedTrade, ...] = (),
) -> ChampionState:
    return ChampionState(Unit(family, key), version, END, drift, worst_psi, trades)


def test_a_sound_champion_gives_no_reason_but_every_figure() -> None:
    found = look(_champion(trades=_trades(30, 20)), NOW, LIMITS)
    assert found.reasons == {}
    for words in (
        "tradewind.lightgbm.POOLED/3",
        "PSI 0.050",
        "3.0 of 8 days",
        "50 of 100",
        "60.0%",
    ):
        assert words in found.looked_at


@pytest.mark.parametrize(
    ("champion", "now_ms", "name", "words"),
    [
        (_champion(drift="alert", worst_psi=0.31), NOW, "drift", "worst PSI 0.310"),
        (_champion(), END + 9 * MS_PER_DAY, "age", "9.0 days old, limit 8"),
        (_champion(trades=_trades(60, 40)), NOW, "trades", "100 new closed trades"),
        (_champion(trades=_trades(24, 26)), NOW, "win_rate", "48.0% of the last 50"),
    ],
)
def test_each_reason_alone(champion: ChampionState, now_ms: int, name: str, words: str) -> None:
    reasons = look(champion, now_ms, LIMITS).reasons
    assert list(reasons) == [name]
    assert words in reasons[name]


@pytest.mark.parametrize(
    ("champion", "now_ms"),
    [
        (_champion(drift="warn", worst_psi=0.15), NOW),
        (_champion(), END + 8 * MS_PER_DAY),
        (_champion(trades=_trades(50, 49)), NOW),
        (_champion(trades=_trades(25, 25)), NOW),
        (_champion(trades=_trades(0, 49)), NOW),  # too few to judge
        (_champion(trades=_trades(0, 200, opened_ms=END - 1)), NOW),  # an older champion's
        (_champion(drift=None, worst_psi=None), NOW),
    ],
)
def test_at_a_limit_there_is_no_reason(champion: ChampionState, now_ms: int) -> None:
    assert look(champion, now_ms, LIMITS).reasons == {}


def test_the_win_rate_is_over_the_latest_trades() -> None:
    better_lately = _trades(50, 49)
    worse_lately = better_lately[::-1]
    assert look(_champion(trades=better_lately), NOW, LIMITS).reasons == {}
    assert "win_rate" in look(_champion(trades=worse_lately), NOW, LIMITS).reasons


def test_pooled_champions_share_a_request_and_symbols_have_their_own() -> None:
    champions = [
        _champion(drift="alert"),
        _champion(family="transformer", drift="alert"),
        _champion(key="BTCUSDT", drift="alert"),
        _champion(key="ETHUSDT"),
    ]
    pooled, btc = asks([look(item, NOW, LIMITS) for item in champions], {})
    assert (pooled.symbols, pooled.families) == ((), ("lightgbm", "transformer"))
    assert (btc.symbols, btc.families) == (("BTCUSDT",), ("lightgbm",))
    assert "tradewind.transformer.POOLED/3 drift alarm" in pooled.reason
    assert pooled.key != btc.key


def test_the_same_reason_of_the_same_version_is_asked_once() -> None:
    drifted = _champion(drift="alert")
    first = asks([look(drifted, NOW, LIMITS)], {})
    asked = remembered({}, first, [drifted.label])
    assert asked == {"tradewind.lightgbm.POOLED/3": {"drift": first[0].key}}
    assert asks([look(drifted, NOW, LIMITS)], asked) == []

    later = look(drifted, END + 9 * MS_PER_DAY, LIMITS)
    (second,) = asks([later], asked)
    assert list(second.why["tradewind.lightgbm.POOLED/3"]) == ["age"]
    assert second.key != first[0].key
    both = {"age": second.key, "drift": first[0].key}
    assert remembered(asked, [second], [drifted.label]) == {drifted.label: both}


def test_a_new_version_is_asked_for_anew_and_the_old_one_forgotten() -> None:
    new = _champion(version=4, drift="alert")
    (ask,) = asks([look(new, NOW, LIMITS)], {"tradewind.lightgbm.POOLED/3": ["drift"]})
    before = {"tradewind.lightgbm.POOLED/3": {"drift": "its key"}}
    assert remembered(before, [ask], [new.label]) == {
        "tradewind.lightgbm.POOLED/4": {"drift": ask.key}
    }


def test_outcomes_that_left_the_forecasts_are_a_reason_of_their_own() -> None:
    champion = replace(_champion(drift="alert", worst_psi=0.3), concept="alert", concept_z=4.2)
    found = look(champion, NOW, LIMITS)
    assert list(found.reasons) == ["drift", "concept"]
    assert "by z 4.2" in found.reasons["concept"]
    for state in ("warn", "none", None):
        assert look(replace(_champion(), concept=state), NOW, LIMITS).reasons == {}
    assert "outcomes warn (z 2.5)" in (
        look(replace(_champion(), concept="warn", concept_z=2.5), NOW, LIMITS).looked_at
    )


def test_an_alarm_asks_again_only_after_it_was_over() -> None:
    alarmed = replace(_champion(drift="alert"), concept="alert", concept_z=4.0)
    asked: dict[str, dict[str, str]] = {}
    times = []
    states = ["alert", "alert", "warn", "alert", "none", None, "alert", "alert"]
    for state in states:
        champion = replace(alarmed, concept=state)
        asked = still_asked(asked, [champion])
        new = asks([look(champion, NOW, LIMITS)], asked)
        times.append(any("concept" in why for ask in new for why in ask.why.values()))
        asked = remembered(asked, new, [champion.label])
    assert times == [True, False, False, False, False, False, True, False]
    assert set(asked[alarmed.label]) == {"drift", "concept"}


def test_other_reasons_are_not_forgotten_with_an_alarm() -> None:
    champion = _champion(drift="fine")
    kept = still_asked(
        {champion.label: {"age": "k", "drift": "l"}, "x/1": {"drift": "m"}}, [champion]
    )
    assert kept == {champion.label: {"age": "k"}, "x/1": {"drift": "m"}}
