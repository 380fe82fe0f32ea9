"""Addresses of MLflow's and Dagster's pages, for people who follow a run from one to the other."""

from __future__ import annotations

from tradewind.settings import Settings


def mlflow_base(settings: Settings) -> str | None:
    """Return where MLflow's pages are, None when it is a bare database."""
    tracking = settings.mlflow_tracking_uri
    found = settings.links.mlflow_url or (tracking if tracking.startswith("http") else None)
    return found and found.rstrip("/")


def run_url(settings: Settings, experiment_id: str, run_id: str) -> str | None:
    """Return the page of an MLflow run."""
    base = mlflow_base(settings)
    return base and f"{base}/#/experiments/{experiment_id}/runs/{run_id}"


def artifact_url(settings: Settings, experiment_id: str, run_id: str, artifact: str) -> str | None:
    """Return the page that shows one artifact of an MLflow run."""
    page = run_url(settings, experiment_id, run_id)
    return page and f"{page}/artifacts/{artifact}"


def version_url(settings: Settings, name: str, version: int) -> str | None:
    """Return the page of a registered version."""
    base = mlflow_base(settings)
    return base and f"{base}/#/models/{name}/versions/{version}"


def dagster_run_url(settings: Settings, dagster_run_id: str) -> str | None:
    """Return the page of a Dagster run."""
    base = settings.links.dagster_url
    return base and f"{base.rstrip('/')}/runs/{dagster_run_id}"
