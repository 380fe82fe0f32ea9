"""The instance's settings file: brought up to date, and free of passwords."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipelines.instance import DATABASE_VARIABLE, INSTANCE_FILE, dagster_home, open_storage
from pipelines.status import masked_settings
from tests.pipelines.conftest import ROOT, environment
from tradewind.errors import ErrorCode, TradewindError
from tradewind.masking import mask_passwords
from tradewind.settings import Settings, load_settings

PLANTED = "pl4nted-s3cret"
NOWHERE = f"postgresql://tw:{PLANTED}@127.0.0.1:1/dagster"
Make = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what opening an instance sets for the whole process."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv(DATABASE_VARIABLE, "")
    monkeypatch.delenv(DATABASE_VARIABLE)


def _written(home: Path) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((home / "dagster.yaml").read_text())
    return found


def test_without_a_database_it_is_the_repositorys_file(make_settings: Make) -> None:
    home = dagster_home(make_settings())
    assert _written(home) == yaml.safe_load(INSTANCE_FILE.read_text())
    assert DATABASE_VARIABLE not in os.environ
    assert not (home / "dagster.yaml.bak").exists()


def test_processes_that_start_side_by_side_in_a_new_home_share_its_databases(
    tmp_path: Path,
) -> None:
    code = "from pipelines.instance import open_storage as o; from tradewind.settings import *; "
    code += "i = o(load_settings()); print(i.get_runs_count(), len("
    code += "i.all_instigator_state()))"
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code],
            cwd=ROOT,
            env=environment(tmp_path / "home"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in started:
        out, errors = process.communicate(timeout=120)
        assert (out, process.returncode) == ("0 0\n", 0), errors


def test_the_file_names_the_variable_and_never_the_url(make_settings: Make) -> None:
    home = dagster_home(make_settings(dagster_database_url=NOWHERE))
    assert _written(home)["storage"] == {"postgres": {"postgres_url": {"env": DATABASE_VARIABLE}}}
    assert PLANTED not in (home / "dagster.yaml").read_text()
    assert os.environ[DATABASE_VARIABLE] == NOWHERE.replace("postgresql", "postgresql+psycopg2")


def test_an_older_file_is_replaced_and_kept_beside(make_settings: Make) -> None:
    settings = make_settings()
    home = settings.home / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: true}\n")
    dagster_home(settings)
    assert (home / "dagster.yaml.bak").read_text() == "telemetry: {enabled: true}\n"
    first = (home / "dagster.yaml").stat().st_mtime_ns
    dagster_home(settings)
    assert (home / "dagster.yaml").stat().st_mtime_ns == first
    assert _written(home)["telemetry"] == {"enabled": False}


def test_settings_of_ones_own_are_merged_over(make_settings: Make) -> None:
    settings = make_settings()
    home = settings.home / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.local.yaml").write_text("run_monitoring: {max_runtime_seconds: 60}\n")
    dagster_home(settings)
    found = _written(home)["run_monitoring"]
    assert isinstance(found, dict)
    assert found["max_runtime_seconds"] == 60
    assert found["enabled"] is True


@pytest.mark.parametrize("content", ["- a list\n", "a: [unclosed\n"])
def test_a_local_file_that_is_no_mapping_is_said(make_settings: Make, content: str) -> None:
    settings = make_settings()
    local = settings.home / "dagster" / "dagster.local.yaml"
    local.parent.mkdir(parents=True)
    local.write_text(content)
    with pytest.raises(TradewindError, match=r"dagster\.local\.yaml") as caught:
        dagster_home(settings)
    assert caught.value.code is ErrorCode.BAD_SETTING


def test_a_database_that_is_not_there_is_said_in_one_line(make_settings: Make) -> None:
    with pytest.raises(TradewindError) as caught:
        open_storage(make_settings(dagster_database_url=NOWHERE))
    assert caught.value.code is ErrorCode.DAGSTER_UNREACHABLE
    assert "127.0.0.1:1" in str(caught.value)
    assert PLANTED not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("dagster_database_url", f"mysql://tw:{PLANTED}@db/dagster"),
        ("dagster_database_url", f"tw:{PLANTED}@db"),
        ("ledger", f"postgresql://tw:{PLANTED}@db/ledger"),  # a branch of the tree, not the URL
    ],
)
def test_a_refused_setting_keeps_its_password(name: str, url: str, tmp_path: Path) -> None:
    with pytest.raises(TradewindError, match=name) as caught:
        load_settings(home=tmp_path, **{name: url})
    assert caught.value.code is ErrorCode.BAD_SETTING
    assert PLANTED not in str(caught.value)
    assert PLANTED not in str(caught.value.__cause__)


def test_a_command_becomes_itself_on_a_ready_instance(tmp_path: Path) -> None:
    show = "import os, pathlib; print((pathlib.Path(os.environ['DAGSTER_HOME'])).name)"
    done = _become(tmp_path, [sys.executable, "-c", show])
    assert (done.returncode, done.stdout) == (0, "dagster\n")
    assert (tmp_path / "home" / "dagster" / "dagster.yaml").exists()


def test_a_command_is_not_started_without_its_database(tmp_path: Path) -> None:
    done = _become(tmp_path, [sys.executable, "-c", "print('up')"], **{DATABASE_VARIABLE: NOWHERE})
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: dagster_unreachable: ")
    assert PLANTED not in done.stderr


def _become(folder: Path, command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.instance", *command],
        cwd=ROOT,
        env=environment(folder / "home", **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://tw:pw@h/db", "postgresql://tw:***@h/db"),
        ("x postgresql+psycopg://tw:p@s/s@h:1/db is down", None),
        ("'tw:pw@db' is no URL", "'tw:***@db' is no URL"),
        ("sqlite:////tmp/a:b.db", "sqlite:////tmp/a:b.db"),
        ("http://127.0.0.1:5000/health", "http://127.0.0.1:5000/health"),
        ("host=h user=u password=pw dbname=d", "host=h user=u password=*** dbname=d"),
        ("postgresql://h/db?user=u&password=pw", "postgresql://h/db?user=u&password=***"),
    ],
)
def test_passwords_are_masked(text: str, shown: str | None) -> None:
    assert mask_passwords(text) == (shown or "x postgresql+psycopg://tw:***@h:1/db is down")


def test_the_settings_are_shown_without_passwords(make_settings: Make) -> None:
    settings = make_settings(
        ledger_url=NOWHERE, dagster_database_url=NOWHERE, registry={"tracking_uri": NOWHERE}
    )
    shown = masked_settings(settings)
    assert PLANTED not in str(shown)
    assert shown["ledger_url"] == NOWHERE.replace(PLANTED, "***")
