"""Links lead to the pages that MLflow and Dagster really have."""

from __future__ import annotations

from collections.abc import Callable

from registry.links import dagster_run_url, run_url, version_url
from tradewind.settings import Settings


def test_without_addresses_there_are_no_links(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    assert run_url(settings, "1", "abc") is None
    assert version_url(settings, "tradewind.lightgbm.POOLED", 3) is None
    assert dagster_run_url(settings, "r-1") is None


def test_a_tracking_server_is_its_own_address(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(
        registry={"tracking_uri": "http://127.0.0.1:5000/"},
        links={"dagster_url": "http://127.0.0.1:3000/"},
    )
    assert run_url(settings, "1", "abc") == "http://127.0.0.1:5000/#/experiments/1/runs/abc"
    assert version_url(settings, "m", 3) == "http://127.0.0.1:5000/#/models/m/versions/3"
    assert dagster_run_url(settings, "r-1") == "http://127.0.0.1:3000/runs/r-1"


def test_a_named_address_goes_before_the_tracking_uri(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(
        registry={"tracking_uri": "http://mlflow:5000"},
        links={"mlflow_url": "http://127.0.0.1:5001"},
    )
    assert run_url(settings, "1", "abc") == "http://127.0.0.1:5001/#/experiments/1/runs/abc"
