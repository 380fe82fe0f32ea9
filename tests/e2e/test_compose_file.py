"""What docker-compose.yml and the Dockerfile promise, without a container engine."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.workspace import ROOMS

ROOT = Path(__file__).resolve().parents[2]
STACK: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
PLATFORM = {name: service for name, service in SERVICES.items() if "profiles" not in service}


def test_the_services_are_the_platform() -> None:
    assert set(PLATFORM) == {
        "postgres",
        "mlflow",
        "dagster-code",
        "dagster-webserver",
        "dagster-daemon",
        "serving",
        "engine",
    }


def test_what_only_watches_starts_when_asked_for() -> None:
    assert set(SERVICES) - set(PLATFORM) == {"prometheus", "grafana"}
    for name in ("prometheus", "grafana"):
        assert SERVICES[name]["profiles"] == ["observability"]
        for mount in SERVICES[name]["volumes"]:
            source, _, rest = mount.partition(":")
            if source.startswith("./"):
                assert (ROOT / source).exists()
                assert rest.endswith(":ro")
            else:
                assert source in STACK["volumes"]
    # Nobody can log in, so no password has to be kept.
    assert SERVICES["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert SERVICES["grafana"]["environment"]["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_has_a_health_check_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    for needed, how in service.get("depends_on", {}).items():
        assert needed in SERVICES
        assert how == {"condition": "service_healthy"}


def test_images_are_pinned_and_the_bars_read_only() -> None:
    for name in ("postgres", "prometheus", "grafana"):
        assert re.search(rf"{name}:v?\d+\.\d+", SERVICES[name]["image"])
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    bars = [mount for mount in mounts if "TRADEWIND_DATA" in mount]
    assert bars
    assert all(mount.endswith(":/bars:ro") for mount in bars)


def test_the_password_comes_from_outside_and_must_be_set() -> None:
    passwords = [
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if "PASSWORD" in name
    ]
    assert len(passwords) == len(PLATFORM)
    assert set(passwords) == {"${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD in .env}"}
    # No URL carries one either.
    assert not re.search(r"://[^/\s:]+:[^/\s]+@", (ROOT / "docker-compose.yml").read_text())
    assert re.search(r"^POSTGRES_PASSWORD=$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_what_the_image_copies_is_sent_to_its_builder() -> None:
    sent = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    lines = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    copied = [source for line in lines for source in line.split()]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert source in sent or source.split("/")[0] in sent


def test_the_image_holds_what_the_code_reads_of_its_own() -> None:
    text = (ROOT / "Dockerfile").read_text().partition("WORKDIR /app")[2]
    copied = set(" ".join(re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)).split())
    read = {"requirements.lock", "pyproject.toml", "dagster.yaml", "workspace.yaml", *ROOMS}
    assert read <= copied


def test_the_image_runs_unprivileged_and_without_a_compiler() -> None:
    text = (ROOT / "Dockerfile").read_text()
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert users == ["tradewind"]
    assert "--only-binary :all:" in text
    assert not re.search(r"\b(gcc|build-essential|g\+\+)\b", text)


def test_no_address_of_an_index_is_a_build_argument() -> None:
    arguments = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert arguments == {"BASE_IMAGE", "PIP_FIND_LINKS"}
    assert set(SERVICES["mlflow"]["build"]["args"]) == arguments


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, KeyError])
def test_a_rehearsal_that_breaks_is_taken_down(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("rehearse", ROOT / "deploy" / "rehearse.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    asked: list[tuple[str, ...]] = []

    class Broken(script.Stack):  # type: ignore[name-defined, misc]
        def compose(self, *arguments: str) -> str:
            asked.append(arguments)
            if arguments[0] == "up":
                raise error
            return ""

    with pytest.raises(error):
        script.rehearse_and_clean(Broken({}), "secret", logs=None, keep=False)
    assert asked[-1] == ("down", "-v")
