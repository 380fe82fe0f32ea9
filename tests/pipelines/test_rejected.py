"""Candidates that are bad by construction, through the real job: turned away, and told why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.aliases import history
from registry.tracking import Tracking
from registry.versions import RegisteredVersion, alias_table, get_version
from tests.support.rejections import NAME, VARIABLES, Rejections
from tradewind.settings import Settings, load_settings

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(900)]
ECE = re.compile(r"ECE (0\.\d+) on (\d+) walk-forward rows \(gate ≤ 0\.05")


@pytest.fixture
def settings(rejections: Rejections, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    return load_settings(home=rejections.home)


def _version(settings: Settings, outcome: dict[str, Any]) -> RegisteredVersion:
    (candidate,) = outcome["candidates"]
    return get_version(Tracking(settings), NAME, version=candidate["version"])


def _checks(settings: Settings, run_id: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    from dagster import DagsterEventType, DagsterInstance

    monkeypatch.setenv("DAGSTER_HOME", str(settings.home / "dagster"))
    with DagsterInstance.get() as instance:
        events = [entry.dagster_event for entry in instance.all_logs(run_id)]
    return {
        event.asset_check_evaluation_data.check_name: event.asset_check_evaluation_data
        for event in events
        if event and event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION
    }


@pytest.mark.parametrize(("kind", "gate"), [("shuffled", "skill"), ("overconfident", "ece")])
def test_a_bad_candidate_is_turned_away_with_its_reasons(
    rejections: Rejections,
    settings: Settings,
    kind: str,
    gate: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dagster import AssetCheckSeverity

    outcome = rejections.bad[kind]
    (candidate,) = outcome["candidates"]
    assert outcome["success"], "a rejection is an answer, not a failure"
    assert (candidate["gates"], candidate["alias"]) == ("failed", None)
    version = _version(settings, outcome)
    assert version.aliases == ()
    assert version.gates == "failed"
    reasons = json.loads(version.tags["gate_reasons"])
    checks = _checks(settings, outcome["run_id"], monkeypatch)
    missed = {name for name, check in checks.items() if not check.passed and check.blocking}
    assert gate in missed
    check = checks[gate]
    assert check.severity is AssetCheckSeverity.ERROR
    assert check.description in reasons, "the tag says what the check says"
    assert check.metadata["value"].value == pytest.approx(
        _figure(gate, check.description), abs=1e-4
    )
    print(f"{kind}: {reasons}")


def _figure(gate: str, text: str) -> float:
    found = ECE.search(text) if gate == "ece" else re.search(r"accuracy (0\.\d+) on", text)
    assert found is not None, text
    return float(found[1])


def test_only_what_was_made_worse_is_found_worse(
    rejections: Rejections, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = _checks(settings, rejections.champion["run_id"], monkeypatch)
    sharp = _checks(settings, rejections.bad["overconfident"]["run_id"], monkeypatch)
    blind = _checks(settings, rejections.bad["shuffled"]["run_id"], monkeypatch)
    figures = {
        name: _figure("ece", checks["ece"].description)
        for name, checks in {"honest": honest, "sharp": sharp, "blind": blind}.items()
    }
    print(figures)
    assert rejections.champion["candidates"][0]["gates"] == "passed"
    assert all(check.passed for check in honest.values() if check.blocking)
    assert figures["sharp"] > 0.05 >= figures["honest"]
    for checks in (honest, sharp, blind):
        assert all(checks[name].passed for name in ("finite", "artefact", "smoke"))


def test_no_alias_moved_and_the_champion_still_serves(
    rejections: Rejections, settings: Settings, served_champion: str
) -> None:
    tracking = Tracking(settings)
    champion = _version(settings, rejections.champion)
    assert alias_table(tracking)[NAME] == {"champion": champion.version}
    (only,) = history(tracking, NAME)
    assert only.to_version == champion.version
    answer = httpx.get(
        f"{served_champion}/ml/predict?symbol=BTCUSDT&allow_stale=1", trust_env=False, timeout=30
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["model_version"] == champion.label


@pytest.fixture
def served_champion(settings: Settings, tmp_path: Path) -> Iterator[str]:
    from pipelines.servers import serving

    with serving(settings, tmp_path / "serving.log", {}) as url:
        yield url
