"""Registering, listing and fetching bundles in a real MLflow store."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from registry import _model_files
from registry.aliases import promote_candidate
from registry.tracking import Tracking
from registry.versions import (
    RegisteredVersion,
    alias_table,
    fetch_bundle,
    find_alias,
    get_version,
    list_versions,
    register_bundle,
    resolve,
)
from tests.support.registered import EXAMPLE, NAME, OUTPUT
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.bundle import digest

POOLED_NAME = "tradewind.lightgbm.POOLED"
Register = Callable[..., RegisteredVersion]
MakeBundle = Callable[..., Path]


def call(tracking: Tracking, folder: Path, run_id: str, name: str = NAME) -> RegisteredVersion:
    return register_bundle(
        tracking,
        folder,
        run_id=run_id,
        name=name,
        input_example=EXAMPLE,
        output_example=OUTPUT,
        description="described",
        tags={"gates": "passed", "note": {"b": 1, "a": 2}},
    )


def test_a_version_says_where_it_comes_from(tracking: Tracking, make_bundle: MakeBundle) -> None:
    folder = make_bundle(3)
    with tracking.start_run("train") as run:
        version = call(tracking, folder, run.run_id)
    assert (version.name, version.version, version.run_id) == (NAME, 1, run.run_id)
    assert (version.family, version.key, version.label) == ("lightgbm", "BTCUSDT", f"{NAME}/1")
    assert version.digest == digest(folder)
    assert version.gates == "passed"
    assert version.metrics == {"auc": 0.54, "ece": 0.03}
    assert version.description == "described"
    assert version.tags["data_end_ms"] == "1735689600000"
    assert version.tags["seed"] == "3"
    assert json.loads(version.tags["symbols"]) == ["BTCUSDT", "ETHUSDT"]
    assert version.tags["note"] == '{"a": 2, "b": 1}'
    assert version.tags["trained_at"] == "2025-01-01T00:00:00+00:00"
    models = tracking.client.get_run(run.run_id).outputs.model_outputs
    assert len(models) == 1


def test_the_mlflow_model_is_complete_and_free_of_pickles(
    tracking: Tracking, register: Register
) -> None:
    from mlflow.models import Model

    folder = local_path(register().source)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "requirements.txt", "input_example.json", "bundle.json"} <= names
    assert not {name for name in names if name.endswith((".pkl", ".pickle"))}
    model = Model.load(str(folder))
    assert {column["name"] for column in model.signature.inputs.to_dict()} == set(EXAMPLE)
    assert {column["name"] for column in model.signature.outputs.to_dict()} == set(OUTPUT)
    assert model.signature.params is not None
    assert "lightgbm==" in (folder / "requirements.txt").read_text()


def test_the_same_bundle_of_the_same_run_is_one_version(
    tracking: Tracking, make_bundle: MakeBundle
) -> None:
    with tracking.start_run("train") as run:
        first = call(tracking, make_bundle(0), run.run_id)
        again = call(tracking, make_bundle(0), run.run_id)
        other = call(tracking, make_bundle(1), run.run_id)
    with tracking.start_run("another") as run:
        moved = call(tracking, make_bundle(0), run.run_id)
    assert again == first
    assert [other.version, moved.version] == [2, 3]


def test_registering_ends_what_a_kill_left_half_done(
    tracking: Tracking, make_bundle: MakeBundle
) -> None:
    """Files are logged, but the process died before the version was created."""
    with tracking.start_run("train") as run:
        first = call(tracking, make_bundle(0), run.run_id)
        tracking.client.delete_model_version(NAME, "1")
        again = call(tracking, make_bundle(0), run.run_id)
    assert again.source == first.source
    assert len(tracking.client.search_logged_models([tracking.experiment_id])) == 1


def test_bad_requests_are_refused_before_anything_is_written(
    tracking: Tracking, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    with tracking.start_run("train") as run:
        pass
    for folder, run_id, name, code in [
        (make_bundle(0), run.run_id, "foreign.name", ErrorCode.BAD_INPUT),
        (make_bundle(0), run.run_id, POOLED_NAME, ErrorCode.BAD_INPUT),
        (make_bundle(0), "0" * 32, NAME, ErrorCode.BAD_INPUT),
        (tmp_path / "nothing", run.run_id, NAME, ErrorCode.MODEL_UNUSABLE),
    ]:
        with pytest.raises(TradewindError) as caught:
            call(tracking, folder, run_id, name)
        assert caught.value.code is code
    assert alias_table(tracking) == {}
    assert not tracking.client.search_logged_models([tracking.experiment_id])


def test_listing_shows_every_version_newest_first_with_its_aliases(
    tracking: Tracking, register: Register
) -> None:
    first, second = register(0), register(1)
    pooled = register(2, name=POOLED_NAME)
    promote_candidate(tracking, first, True)
    promote_candidate(tracking, second, True)
    listed = list_versions(tracking)
    assert [version.label for version in listed] == [second.label, first.label, pooled.label]
    assert [version.aliases for version in listed] == [("challenger",), ("champion",), ()]
    assert [version.gates for version in listed] == ["passed", "passed", "unknown"]
    assert list_versions(tracking, POOLED_NAME) == [listed[2]]
    assert alias_table(tracking) == {NAME: {"champion": 1, "challenger": 2}, POOLED_NAME: {}}


def test_a_symbol_resolves_to_its_own_model_else_the_pooled(
    tracking: Tracking, register: Register
) -> None:
    assert resolve(tracking, "lightgbm", "BTCUSDT") is None
    pooled = register(0, name=POOLED_NAME)
    promote_candidate(tracking, pooled, True)
    found = resolve(tracking, "lightgbm", "BTCUSDT")
    assert found is not None
    assert found.name == POOLED_NAME
    own = register(1)
    assert resolve(tracking, "lightgbm", "BTCUSDT") == found  # registered is not yet promoted
    promote_candidate(tracking, own, True)
    found = resolve(tracking, "lightgbm", "BTCUSDT")
    assert found is not None
    assert found.name == NAME
    other = resolve(tracking, "lightgbm", "ETHUSDT")
    assert other is not None
    assert other.name == POOLED_NAME
    assert resolve(tracking, "lightgbm", "BTCUSDT", "challenger") is None
    assert find_alias(tracking, "tradewind.nhits.BTCUSDT", "champion") is None


def test_a_version_that_does_not_exist_is_answered_with_those_that_do(
    tracking: Tracking, register: Register
) -> None:
    with pytest.raises(TradewindError, match="none yet: run `tradewind train`"):
        get_version(tracking, NAME, version=1)
    register(0)
    register(1)
    with pytest.raises(TradewindError, match=f"{NAME} has no version 7. Its versions: 2, 1"):
        get_version(tracking, NAME, version=7)
    unknown = f"no model is registered as {POOLED_NAME}. Registered models: {NAME}"
    with pytest.raises(TradewindError, match=unknown):
        get_version(tracking, POOLED_NAME, version=1)


def test_alias_table_is_one_request(tracking: Tracking, register: Register) -> None:
    for seed, key in enumerate(("BTCUSDT", "ETHUSDT", "SOLUSDT")):
        register(seed, name=f"tradewind.lightgbm.{key}")
    calls = []
    search = tracking.client.search_registered_models

    def counted(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        return search(*arguments, **options)

    tracking.client.search_registered_models = counted  # type: ignore[method-assign]
    assert len(alias_table(tracking)) == 3
    assert len(calls) == 1


def test_fetching_gives_the_registered_files_and_uses_the_cache(
    tracking: Tracking, register: Register, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    version = register(0)
    promote_candidate(tracking, version, True)
    cache = tmp_path / "cache"
    folder = fetch_bundle(tracking, NAME, alias="champion", cache_dir=cache)
    assert digest(folder) == digest(make_bundle(0))
    shutil.rmtree(local_path(version.source))
    assert fetch_bundle(tracking, NAME, version=1, cache_dir=cache) == folder
    assert [path.name for path in folder.parent.glob("[!.]*")] == ["1"]
    assert not list(folder.parent.glob(".fetch-*"))


def test_a_damaged_cached_copy_is_fetched_again(
    tracking: Tracking, register: Register, tmp_path: Path
) -> None:
    register(0)
    folder = fetch_bundle(tracking, NAME, version=1, cache_dir=tmp_path)
    weights = folder / "forecaster" / "model.txt"
    weights.write_text("tampered")
    assert fetch_bundle(tracking, NAME, version=1, cache_dir=tmp_path) == folder
    assert weights.read_text() == "weights of seed 0"


@pytest.mark.parametrize("damage", ["changed", "swapped", "missing"])
def test_what_is_not_what_was_registered_is_unusable(
    tracking: Tracking, register: Register, make_bundle: MakeBundle, tmp_path: Path, damage: str
) -> None:
    stored = local_path(register(0).source) / "artifacts" / "bundle"
    if damage == "changed":
        (stored / "forecaster" / "model.txt").write_text("tampered")
    else:
        shutil.rmtree(stored)
    if damage == "swapped":
        shutil.copytree(make_bundle(1), stored)  # sound in itself, but another one
    with pytest.raises(TradewindError) as caught:
        fetch_bundle(tracking, NAME, version=1, cache_dir=tmp_path / "cache")
    assert caught.value.code is ErrorCode.MODEL_UNUSABLE
    assert not (tmp_path / "cache" / NAME / "1").exists()


def test_many_fetch_the_same_version_at_once(
    tracking: Tracking,
    register: Register,
    make_bundle: MakeBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(0)
    downloads, download = [], _model_files._download

    def counted(*args: Any) -> Path:
        downloads.append(args)
        time.sleep(0.2)  # all others arrive meanwhile
        return download(*args)

    monkeypatch.setattr(_model_files, "_download", counted)

    def fetch(_: int) -> str:
        folder = fetch_bundle(tracking, NAME, version=1, cache_dir=tmp_path / "cache")
        return digest(folder)  # read at once: nobody may take it away meanwhile

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(fetch, range(8))) == {digest(make_bundle(0))}
    assert len(downloads) == 1


def test_fetching_needs_one_existing_version(
    tracking: Tracking, register: Register, tmp_path: Path
) -> None:
    register(0)
    for version, alias in [(None, None), (1, "champion"), (9, None), (None, "champion")]:
        with pytest.raises(TradewindError) as caught:
            fetch_bundle(tracking, NAME, version=version, alias=alias, cache_dir=tmp_path)
        assert caught.value.code is ErrorCode.BAD_INPUT


def test_reading_by_number_and_from_a_list_agree(tracking: Tracking, register: Register) -> None:
    registered = register(0)
    assert get_version(tracking, NAME, version=1) == registered
    assert list_versions(tracking) == [replace(registered, aliases=())]


def local_path(source: str) -> Path:
    return Path(unquote(urlsplit(source).path))
