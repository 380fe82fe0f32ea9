"""Settings: defaults, the file, the environment, and one clear line for a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings, load_settings


def test_environment_beats_profile_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(profile="full").training.epochs == 30
    assert load_settings(profile="quick").training.epochs == 2
    monkeypatch.setenv("TRADEWIND_PROFILE", "quick")
    monkeypatch.setenv("TRADEWIND_TRAINING__EPOCHS", "9")
    assert load_settings().training.epochs == 9
    assert load_settings().training.max_epoch_samples == 3000


def test_profiles_change_no_gate(make_settings: Callable[..., Settings]) -> None:
    quick, full = make_settings(profile="quick"), make_settings(profile="full")
    for section in ("gates", "calibration", "drift", "thresholds", "risk", "costs", "sizing"):
        assert getattr(quick, section) == getattr(full, section)


@pytest.mark.parametrize(
    ("variable", "value", "path"),
    [
        ("TRADEWIND_TRAINING__EPOCHS", "0", "training.epochs"),
        ("TRADEWIND_MARKET__SYMBOLS", '["BTC/USDT"]', "market.symbols"),
        ("TRADEWIND_PROFILE", "huge", "profile"),
        ("TRADEWIND_MARKET__TIMEFRAME", "7m", "market.timeframe"),
        ("TRADEWIND_TRAINING__SPLIT", "[0.5, 0.5, 0.5, 0.5]", "training"),
    ],
)
def test_a_wrong_setting_is_named(
    variable: str, value: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(TradewindError) as caught:
        load_settings()
    assert caught.value.code is ErrorCode.BAD_SETTING
    assert f"setting {path} " in str(caught.value)
    assert variable.startswith(caught.value.hint.split()[-1])


def test_an_unknown_name_in_the_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tradewind.toml").write_text("[training]\nepoch = 3\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TradewindError, match=r"training\.epoch"):
        load_settings()


def test_an_unreadable_data_folder_is_an_error_never_a_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEWIND_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(TradewindError) as caught:
        load_settings()
    assert caught.value.code is ErrorCode.DATA_UNREADABLE
