"""The job `review_challengers` on a small market: who wins, who loses, and what a look costs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from dagster import DagsterEventType, DagsterInstance
from typer.testing import CliRunner

from assets.steps import review
from assets.steps.review import review_challenger
from assets.units import Unit
from registry import reviews
from registry.aliases import history, promote, rollback
from registry.reviews import looks_of
from registry.tracking import Tracking
from registry.versions import RegisteredVersion, find_alias, get_version
from tests.pipelines.test_jobs import NAME, VARIABLES, _failure, _run
from tests.support import serving
from tradewind.clock import Clock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import open_ledger
from tradewind.ledger.clock import open_clock, set_replay_clock
from tradewind.models.bundle import ModelBundle
from tradewind.models.calibration import Calibrator
from tradewind.models.metric_table import known
from tradewind.settings import MS_PER_DAY, Settings

UNIT = Unit("lightgbm", "POOLED")
SEEN_UNTIL = serving.NOW_MS - 8 * MS_PER_DAY
QUIET, LOUD = Calibrator("temperature", (0.05,)), Calibrator("platt", (1.0, 2.5))
"""p_up near one half, which on a random walk is right, and 0.92 on every bar."""


@dataclasses.dataclass
class House:
    """A home with bars, and one forecaster to register with several calibrators."""

    world: serving.World
    bundle: ModelBundle

    def version(self, alias: str, calibrator: Calibrator, **meta: Any) -> RegisteredVersion:
        """Register the forecaster with a calibrator, under an alias."""
        changes = {"seed": len(list(self.world.scratch.iterdir())), **meta}
        made = dataclasses.replace(
            self.bundle,
            calibrator=calibrator,
            meta=self.bundle.meta.model_copy(update=changes),
        )
        version = self.world.register(made)
        self.world.point(version, alias)
        return version

    def pair(self, champion: Calibrator, challenger: Calibrator) -> tuple[int, int]:
        """Register and point both."""
        return (
            self.version("champion", champion).version,
            self.version("challenger", challenger).version,
        )

    def at(self, now_ms: int) -> Clock:
        """Set the market's clock."""
        with open_ledger(self.world.settings) as ledger:
            set_replay_clock(ledger, now_ms)
        return open_clock(self.world.settings)

    def alias(self, name: str) -> int | None:
        """Return the version that an alias points to."""
        found = find_alias(self.world.tracking, NAME, name)
        return None if found is None else found.version


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Bars of twelve days, and a forecaster whose data ends eight days ago."""
    root = tmp_path_factory.mktemp("review")
    (root / "scratch").mkdir()
    settings = serving.world_settings(
        root / "home",
        market={
            "symbols": ("BTCUSDT", "ETHUSDT"),
            "reference_symbols": ("BTCUSDT", "ETHUSDT", "SOLUSDT"),
        },
    )
    serving.store_bars(settings)
    bundle = serving.fit_bundle(
        settings, serving.training_set(settings), "lightgbm", "POOLED", seed=1
    )
    early = bundle.meta.model_copy(update={"data_end_ms": SEEN_UNTIL})
    world = serving.World(settings, Tracking(settings), root / "scratch")
    return House(world, dataclasses.replace(bundle, meta=early))


@pytest.fixture
def house(made: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """The house at the newest bar, without aliases, and its settings in the environment."""
    monkeypatch.delenv("TRADEWIND_DATA", raising=False)
    for name, value in {**VARIABLES, "TRADEWIND_HOME": str(made.world.settings.home)}.items():
        monkeypatch.setenv(name, value)
    made.at(serving.NOW_MS)
    yield made
    for alias in ("champion", "challenger", "previous"):
        if made.alias(alias) is not None:
            made.world.tracking.client.delete_registered_model_alias(NAME, alias)


@pytest.fixture
def settings(house: House) -> Settings:
    return house.world.settings


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as held:
        yield held


def _job(instance: DagsterInstance) -> Any:
    families = {"families": ["lightgbm"]}
    return _run(instance, "review_challengers", "compare_challengers", families)


def test_a_better_challenger_becomes_champion(house: House, instance: DagsterInstance) -> None:
    old, new = house.pair(LOUD, QUIET)
    run = _job(instance)
    assert run.success
    found = run.output_for_node("compare_challengers")[NAME]
    assert (found["verdict"], found["alias"], found["look"]) == ("better", "champion", 1)
    assert found["log_loss_minus_champion_high"] < 0
    assert found["log_loss"] < found["log_loss_champion"]
    assert found["look_alpha"] == 0.025
    assert (house.alias("champion"), house.alias("previous")) == (new, old)
    assert house.alias("challenger") is None

    change = history(house.world.tracking, NAME)[0]
    assert change.who == f"dagster:{run.run_id}"
    assert found["text"] in change.why
    tags = get_version(house.world.tracking, NAME, version=new).tags
    assert tags["review"] == "better"
    assert found["text"] in tags["review_text"]

    (event,) = [
        event for event in run.all_events if event.event_type is DagsterEventType.ASSET_OBSERVATION
    ]
    seen = event.asset_observation_data.asset_observation
    assert seen.asset_key.to_user_string() == "lightgbm/evaluation"
    rows = {
        row.data["metric"]: row.data for row in seen.metadata["challenger_beside_champion"].records
    }
    assert rows["log_loss"]["challenger"] < rows["log_loss"]["champion"]
    assert {"auc", "ece"} <= set(rows)

    runs = house.world.tracking.search(f"tags.version = '{NAME}/{new}' AND tags.kind = 'review'")
    assert [r.data.tags["verdict"] for r in runs] == ["better"]
    parent = get_version(house.world.tracking, NAME, version=new).run_id
    assert runs[0].data.tags["mlflow.parentRunId"] == parent
    assert [name for name in runs[0].data.metrics if not known(name)] == []
    assert runs[0].data.metrics["log_loss_champion"] == pytest.approx(found["log_loss_champion"])


def test_a_worse_challenger_loses_its_alias(house: House, settings: Settings) -> None:
    old, new = house.pair(QUIET, LOUD)
    found = review_challenger(settings, open_clock(settings), UNIT, who="ann").figures
    assert (found["verdict"], found["alias"]) == ("worse", "none")
    assert (house.alias("champion"), house.alias("challenger")) == (old, None)
    change = history(house.world.tracking, NAME)[0]
    assert (change.operation, change.from_version, change.who) == ("withdraw", new, "ann")
    assert get_version(house.world.tracking, NAME, version=new).tags["review"] == "worse"


def test_equals_stay_and_a_look_needs_twice_the_days(house: House, settings: Settings) -> None:
    old, new = house.pair(QUIET, QUIET)
    clock = house.at(serving.NOW_MS - MS_PER_DAY)
    first = review_challenger(settings, clock, UNIT).figures
    assert (first["verdict"], first["look"]) == ("not_worse", 1)
    assert first["look_alpha"] == 0.025
    again = review_challenger(settings, house.at(serving.NOW_MS), UNIT).figures
    days = first["days"]
    assert again == first | {"days_new_to_both": days + 1, "days_for_next_look": 2 * days}
    version = get_version(house.world.tracking, NAME, version=new)
    (look,) = looks_of(version, old)
    assert look.state == "done"
    assert (house.alias("champion"), house.alias("challenger")) == (old, new)
    runs = house.world.tracking.search(f"tags.version = '{NAME}/{new}' AND tags.kind = 'review'")
    assert len(runs) == 1


def test_looks_are_counted_and_come_to_an_end(house: House, settings: Settings) -> None:
    house.pair(QUIET, QUIET)
    rules = {"promotion_min_days": 3, "promotion_growth": 1.5, "promotion_looks": 2}
    eager = settings.model_copy(update={"gates": settings.gates.model_copy(update=rules)})
    shown = [
        review_challenger(eager, house.at(serving.NOW_MS - back * MS_PER_DAY), UNIT).figures
        for back in (5, 4, 3, 0)
    ]
    assert [found["look"] for found in shown] == [1, 1, 2, 2]
    assert [found["look_alpha"] for found in shown] == [0.025] * 4
    assert shown[2]["days"] > shown[0]["days"]
    assert shown[3]["days_for_next_look"] is None


def _aged(settings: Settings) -> int:
    limits = settings.registry
    days = limits.model_expiry_days - limits.handover_days + 0.1
    return serving.NOW_MS - round(days * MS_PER_DAY)


def test_a_champion_about_to_expire_makes_way_for_a_younger_equal(
    house: House, settings: Settings
) -> None:
    old = house.version("champion", QUIET, data_end_ms=_aged(settings)).version
    # A day old: no look is due yet.
    new = house.version("challenger", QUIET, data_end_ms=serving.NOW_MS - MS_PER_DAY).version
    clock = open_clock(settings)
    planned = review_challenger(settings, clock, UNIT, dry_run=True).figures
    assert (planned["verdict"], house.alias("champion")) == ("handover", old)
    found = review_challenger(settings, clock, UNIT, who="ann").figures
    assert (found["verdict"], found["alias"]) == ("handover", "champion")
    assert (house.alias("champion"), house.alias("previous")) == (new, old)
    assert "14.1 days old and expires at 21" in history(house.world.tracking, NAME)[0].why
    version = get_version(house.world.tracking, NAME, version=new)
    assert looks_of(version, old) == []


def test_a_look_that_is_due_comes_before_a_handover(house: House, settings: Settings) -> None:
    old = house.version("champion", QUIET, data_end_ms=_aged(settings)).version
    house.version("challenger", LOUD)
    found = review_challenger(settings, open_clock(settings), UNIT).figures
    assert found["verdict"] == "worse"
    assert (house.alias("champion"), house.alias("challenger")) == (old, None)
    equal = house.version("challenger", QUIET)
    found = review_challenger(settings, open_clock(settings), UNIT).figures
    assert found["verdict"] == "handover"
    assert house.alias("champion") == equal.version
    assert "neither better nor worse" in history(house.world.tracking, NAME)[0].why
    stored = get_version(house.world.tracking, NAME, version=equal.version)
    assert len(looks_of(stored, old)) == 1


def test_what_a_person_took_back_is_not_handed_over_again(house: House, settings: Settings) -> None:
    old = house.version("champion", QUIET, data_end_ms=_aged(settings)).version
    taken = house.version("challenger", QUIET, data_end_ms=serving.NOW_MS - MS_PER_DAY)
    clock = open_clock(settings)
    review_challenger(settings, clock, UNIT)
    rollback(house.world.tracking, NAME, who="ann", why="loses money")
    house.world.point(taken, "challenger")
    assert review_challenger(settings, clock, UNIT).figures["verdict"] == "too_few"
    assert house.alias("champion") == old


def test_a_champion_that_came_in_between_is_left_standing(
    house: House, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.pair(LOUD, QUIET)
    third = house.version("candidate", QUIET)
    compared = review._look

    def meanwhile(*given: Any) -> Any:
        found = compared(*given)
        promote(house.world.tracking, NAME, third.version, who="ann", why="by hand")
        return found

    monkeypatch.setattr(review, "_look", meanwhile)
    with pytest.raises(TradewindError, match="champion_changed"):
        review_challenger(settings, open_clock(settings), UNIT)
    assert house.alias("champion") == third.version
    house.world.tracking.client.delete_registered_model_alias(NAME, "candidate")


def test_no_older_challenger_takes_over(house: House, settings: Settings) -> None:
    old = serving.NOW_MS - 30 * MS_PER_DAY
    first = house.version("champion", QUIET, data_end_ms=old).version
    house.version("challenger", QUIET, data_end_ms=old - MS_PER_DAY)
    review_challenger(settings, open_clock(settings), UNIT)
    assert house.alias("champion") == first


def test_only_bars_new_to_both_are_compared(house: House, settings: Settings) -> None:
    house.version("champion", LOUD, calibrated_end_ms=serving.NOW_MS - 3 * MS_PER_DAY)
    house.version("challenger", QUIET)
    found = review_challenger(settings, open_clock(settings), UNIT)
    assert found.figures["verdict"] == "too_few"
    assert found.figures["days"] == 4, "two of them in part"
    assert found.figures["new_from_ms"] == serving.NOW_MS - 3 * MS_PER_DAY
    assert "not judged" in found.figures["text"]
    challenger = find_alias(house.world.tracking, NAME, "challenger")
    assert challenger is not None
    assert "review" not in challenger.tags


def test_a_dry_run_says_what_it_would_do_and_does_nothing(house: House) -> None:
    old, new = house.pair(LOUD, QUIET)
    from pipelines.cli.main import app

    shown = CliRunner().invoke(app, ["review", "--dry-run", "-f", "lightgbm", "--json"])
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.stdout)[NAME]
    assert (told["verdict"], told["due"], told["next_look"]) == ("planned", True, 1)
    assert "log_loss" not in told
    assert (house.alias("champion"), house.alias("challenger")) == (old, new)
    assert "review" not in get_version(house.world.tracking, NAME, version=new).tags


def test_a_review_cut_off_before_the_alias_moved_is_carried_out(
    house: House, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = house.pair(LOUD, QUIET)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(review, "_carried_out", killed)
        with pytest.raises(KeyboardInterrupt):
            review_challenger(settings, open_clock(settings), UNIT)
    assert house.alias("champion") == old
    found = review_challenger(settings, open_clock(settings), UNIT).figures
    assert (found["verdict"], found["look"], found["alias"]) == ("better", 1, "champion")
    assert house.alias("champion") == new
    runs = house.world.tracking.search(f"tags.version = '{NAME}/{new}' AND tags.kind = 'review'")
    assert len(runs) == 1


def test_what_a_person_took_back_is_not_done_again(
    house: House, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the alias had moved: the look still says "decided" when all is set back."""
    old, new = house.pair(LOUD, QUIET)

    def killed(*arguments: Any) -> None:
        if arguments[2].state == "done":
            raise KeyboardInterrupt
        written(*arguments)

    written = reviews.record_look
    with monkeypatch.context() as patch:
        patch.setattr(reviews, "record_look", killed)
        with pytest.raises(KeyboardInterrupt):
            review_challenger(settings, open_clock(settings), UNIT)
    assert house.alias("champion") == new
    tracking = house.world.tracking
    rollback(tracking, NAME, who="ann", why="loses money")
    promote(tracking, NAME, new, who="ann", why="one more try", to="challenger")
    found = review_challenger(settings, open_clock(settings), UNIT).figures
    assert (found["verdict"], found["look"]) == ("better", 1)
    assert found["days_new_to_both"] == found["days"]
    assert found["alias"] == "challenger"
    assert (house.alias("champion"), house.alias("challenger")) == (old, new)


def test_what_is_missing_is_named(house: House, instance: DagsterInstance) -> None:
    assert "no_champion" in _failure(_job(instance))
    house.version("champion", QUIET)
    assert "no_challenger" in _failure(_job(instance))
    version = house.version("challenger", QUIET)
    house.world.tracking.client.set_model_version_tag(NAME, str(version.version), "gates", "failed")
    assert "gates_failed" in _failure(_job(instance))
    with pytest.raises(TradewindError) as caught:
        review_challenger(house.world.settings, open_clock(house.world.settings), UNIT)
    assert caught.value.code is ErrorCode.GATES_FAILED
    assert house.alias("challenger") == version.version
