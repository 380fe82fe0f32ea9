"""The processes of `up`: commands, environments, addresses, what each needs and how it is asked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.servers import REPOSITORY
from pipelines.up import health
from pipelines.up.ports import CODE_SERVER, LOOPBACK, MLFLOW, SERVING, WEBSERVER
from pipelines.up.state import MARK, folder_of
from serving.launch import PREFIX
from serving.launch import environment as variables_of
from tradewind.files import write_bytes
from tradewind.settings import Settings

DAEMON, ENGINE = "daemon", "engine"
LOCATION = "tradewind"
READY = (sys.executable, "-m", "pipelines.instance", sys.executable, "-m")
"""A Dagster module, started when the instance's settings file was brought up to date."""
LIGHT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
    "NO_COLOR": "1",
}


@dataclass(frozen=True)
class Part:
    """One process.

    Parameters
    ----------
    address
        Where people or other processes reach it, None where it listens nowhere.
    needs
        Parts that must be well before it is started the first time.
    keeps_children
        Children outlive its death: a Dagster run goes on when its code server restarts.
    after_death
        Command that is run, beside everything else, whenever the process has died.
    """

    name: str
    argv: tuple[str, ...]
    probe: health.Probe
    address: str | None = None
    needs: tuple[str, ...] = ()
    keeps_children: bool = False
    after_death: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All processes and the settings they share."""

    settings: Settings
    environment: dict[str, str]
    parts: tuple[Part, ...]


def address(port: int) -> str:
    """Return an HTTP address on loopback."""
    return f"http://{LOOPBACK}:{port}"


def make_plan(settings: Settings, ports: Mapping[str, int], pace_s: float) -> Plan:
    """Return what is to run for these settings; MLflow only where it is no server already."""
    tracking = settings.mlflow_tracking_uri
    own_server = not tracking.startswith("http")
    mlflow_url = address(ports[MLFLOW]) if own_server else tracking
    shared = with_addresses(settings, ports, mlflow_url)
    environment = _environment(shared)
    parts = [
        *([_mlflow(settings, ports[MLFLOW])] if own_server else []),
        *_dagster(settings, ports),
        _serving(settings, ports[SERVING], (MLFLOW,) if own_server else ()),
        _engine(shared, pace_s),
    ]
    return Plan(shared, environment, tuple(parts))


def with_addresses(settings: Settings, ports: Mapping[str, int], mlflow_url: str) -> Settings:
    """Return the settings that every process shares: tracker, links and serving's port."""
    registry = settings.registry.model_copy(update={"tracking_uri": mlflow_url})
    links = settings.links.model_copy(
        update={"dagster_url": address(ports[WEBSERVER]), "mlflow_url": mlflow_url}
    )
    serving = settings.serving.model_copy(update={"host": LOOPBACK, "port": ports[SERVING]})
    return settings.model_copy(update={"registry": registry, "links": links, "serving": serving})


def write_workspace(home: Path, port: int) -> Path:
    """Write the workspace that points at the code server; JSON is YAML."""
    server = {"host": LOOPBACK, "port": port, "location_name": LOCATION}
    path = _workspace(home)
    text = json.dumps({"load_from": [{"grpc_server": server}]}, indent=2)
    write_bytes(path, (text + "\n").encode())
    return path


def _workspace(home: Path) -> Path:
    return folder_of(home) / "workspace.yaml"


def _environment(settings: Settings) -> dict[str, str]:
    """Return the whole environment of a process: ours without settings, then the settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    home = settings.home.absolute()
    return {
        **kept,
        **variables_of(settings, {}),
        **LIGHT,
        "DAGSTER_HOME": str(home / "dagster"),
        MARK: str(home),
    }


def _mlflow(settings: Settings, port: int) -> Part:
    command = ("server", "--host", LOOPBACK, "--port", str(port), "--workers", "1")
    return Part(
        MLFLOW,
        (sys.executable, "-m", "mlflow", *command),
        health.http(f"{address(port)}/health", settings.up),
        address(port),
        environment={
            # By environment, not argument: a database's password must not stand in `ps`.
            "MLFLOW_BACKEND_STORE_URI": settings.mlflow_tracking_uri,
            "MLFLOW_ARTIFACTS_DESTINATION": settings.mlflow_artifacts.as_uri(),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )


def _dagster(settings: Settings, ports: Mapping[str, int]) -> list[Part]:
    workspace = ("-w", str(_workspace(settings.home)))
    web = address(ports[WEBSERVER])
    listen = ("-h", LOOPBACK, "-p", str(ports[CODE_SERVER]))
    code = ("-m", "pipelines.definitions", "--working-directory", str(REPOSITORY))
    pages = ("-h", LOOPBACK, "-p", str(ports[WEBSERVER]))
    return [
        Part(
            CODE_SERVER,
            (
                *(*READY, "dagster", "api", "grpc", *listen, *code),
                *("--location-name", LOCATION, "--use-python-environment-entry-point"),
            ),
            health.code_server(ports[CODE_SERVER], settings.up),
            f"grpc://{LOOPBACK}:{ports[CODE_SERVER]}",
            keeps_children=True,
            after_death=(
                *(sys.executable, "-m", "pipelines.up.runs"),
                *("--code-server", str(ports[CODE_SERVER])),
            ),
        ),
        Part(
            WEBSERVER,
            (*READY, "dagster_webserver", *pages, *workspace),
            health.http(f"{web}/server_info", settings.up),
            web,
            (CODE_SERVER,),
        ),
        Part(
            DAEMON,
            (*READY, "dagster._daemon", "run", *workspace),
            health.daemon(web, settings.up),
            None,
            (WEBSERVER,),
        ),
    ]


def _serving(settings: Settings, port: int, needs: tuple[str, ...]) -> Part:
    return Part(
        SERVING,
        (sys.executable, "-m", "serving"),
        health.http(f"{address(port)}/livez", settings.up),
        address(port),
        needs,
    )


def _engine(settings: Settings, pace_s: float) -> Part:
    return Part(
        ENGINE,
        (sys.executable, "-m", "pipelines.cli", "trade", "--attend", "--pace", f"{pace_s:g}"),
        health.engine(settings.home.absolute(), settings.up),
        None,
        (SERVING,),
    )
