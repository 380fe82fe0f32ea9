"""Alert rules, their unit tests and the dashboard, read by Prometheus's own tool."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from serving.metrics import ServingMetrics
from tests.support.programs import program
from tradewind.settings import MS_PER_DAY, load_settings

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "tradewind.rules.yml"
RULE_TESTS = PROMETHEUS / "tradewind.rules.test.yml"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "tradewind-serving.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# What Grafana puts in the place of its variables, or something like it.
VARIABLES = {
    "${namespace}": "tradewind",
    "$__rate_interval": "5m",
    "$instance": ".*",
    "$symbol": ".*",
}
SELECTOR = re.compile(r"(tradewind_ml_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
OPPOSITE = {"==": "!=", ">": "<=", "<": ">="}
MADE_BY_PROMETHEUS = {"instance", "job", "le"}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every query of the dashboard with its place, variables filled in."""
    found = [(panel["title"], t["expr"]) for panel in PANELS for t in panel["targets"]]
    found += [
        (item["name"], item["expr"]) for item in DASHBOARD["annotations"]["list"] if "expr" in item
    ]
    for place, text in found:
        for variable, value in VARIABLES.items():
            text = text.replace(variable, value)
        assert "$" not in text, (place, text)
        yield place, text


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Return the labels of every series that serving exposes, by its name."""
    metrics = ServingMetrics("tradewind", CollectorRegistry())
    labels: dict[str, set[str]] = {}
    for collector in vars(metrics).values():
        if hasattr(collector, "describe"):
            (family,) = collector.describe()
            for name in {
                "counter": [f"{family.name}_total"],
                "gauge": [family.name],
                "histogram": [f"{family.name}_{part}" for part in ("bucket", "count", "sum")],
            }[family.type]:
                labels[name] = set(collector._labelnames)
    return labels


def check_names(text: str, known: dict[str, set[str]], place: str) -> int:
    """Check that every metric of an expression exists with the labels it is asked by."""
    found = SELECTOR.findall(text)
    for name, matchers in found:
        assert name in known, f"{place}: {name} is not exposed"
        asked = set(LABEL.findall(re.sub(r'"[^"]*"', "", matchers)))
        assert asked <= known[name] | MADE_BY_PROMETHEUS, f"{place}: {name}{{{matchers}}}"
    return len(found)


def test_the_rules_and_the_configuration_are_valid() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", RULES)
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    promtool("check", "config", PROMETHEUS / "compose.yml")


def test_every_alert_fires_where_it_should_and_nowhere_else() -> None:
    assert "SUCCESS" in promtool("test", "rules", RULE_TESTS)


def test_every_alert_has_a_test_that_a_wrong_rule_fails(tmp_path: Path) -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    content = yaml.safe_load(RULE_TESTS.read_text(encoding="utf-8"))
    tried = {test["name"]: test for test in content["tests"]}
    assert set(names) <= set(tried)
    for name in names:
        assert any(case.get("exp_samples") for case in tried[name]["promql_expr_test"]), name
    # The comparison turned round: every single test must notice.
    text = RULES.read_text(encoding="utf-8")
    turned = re.sub(r" (==|>|<) (?=[\d.]+\n)", lambda m: f" {OPPOSITE[m[1]]} ", text)
    (tmp_path / RULES.name).write_text(turned, encoding="utf-8")
    path = tmp_path / RULE_TESTS.name
    command = [program("promtool"), "test", "rules", str(path)]
    for name in names:
        path.write_text(yaml.safe_dump(content | {"tests": [tried[name]]}), encoding="utf-8")
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.returncode == 1, name


def test_the_rules_name_what_serving_exposes(known: dict[str, set[str]]) -> None:
    for rule in rules():
        assert check_names(rule["expr"], known, rule["alert"]) or "up{" in rule["expr"]
        assert set(rule["annotations"]) == {"summary", "remedy"}
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_rules_numbers_are_the_settings() -> None:
    settings = load_settings()
    by_name = {rule["alert"]: rule["expr"] for rule in rules()}
    oldest_s = settings.registry.max_model_age_days * MS_PER_DAY / 1000
    assert by_name["ModelTooOld"].endswith(f"> {oldest_s:.0f}")
    assert by_name["FeaturesStale"].endswith(f"> {settings.serving.staleness_limit_s:.0f}")
    assert by_name["PredictionLogFilling"].endswith(f"> {settings.serving.log_queue // 2}")


def test_the_scraped_port_is_the_setting_s() -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    serving = load_settings().serving
    assert job["static_configs"] == [{"targets": [f"{serving.host}:{serving.port}"]}]
    assert f'job="{job["job_name"]}"' in RULES.read_text(encoding="utf-8")


def test_compose_watches_the_same() -> None:
    ours, composed = (
        yaml.safe_load((PROMETHEUS / name).read_text("utf-8"))
        for name in ("prometheus.yml", "compose.yml")
    )
    for config in (ours, composed):
        config["scrape_configs"][0].pop("static_configs")
    assert ours == composed


def test_the_dashboard_s_queries_are_promql(tmp_path: Path) -> None:
    queries = list(expressions())
    assert len(queries) > 25
    made = [{"record": f"panel:{i}", "expr": text} for i, (_, text) in enumerate(queries)]
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": made}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", path)


def test_the_dashboard_shows_what_serving_exposes(known: dict[str, set[str]]) -> None:
    for place, text in expressions():
        assert check_names(text, known, place) or text.startswith("up{")
    asked = {name for _, text in expressions() for name, _ in SELECTOR.findall(text)}
    assert asked <= set(known)
    assert len(asked) > 25


def test_every_panel_explains_itself() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        uids = {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])}
        assert uids == {"${datasource}"}, panel["title"]


def test_no_panel_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_what_grafana_provisions_is_there() -> None:
    folder = GRAFANA / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text("utf-8"))
    assert [item["type"] for item in source["datasources"]] == ["prometheus"]
    provider = yaml.safe_load((folder / "dashboards" / "tradewind.yml").read_text("utf-8"))
    assert provider["providers"][0]["type"] == "file"
    variables = {item["name"] for item in DASHBOARD["templating"]["list"]}
    assert {"datasource", "namespace", "instance", "symbol"} <= variables


def test_the_docs_list_every_alert_and_metric(known: dict[str, set[str]]) -> None:
    alerts = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    for rule in rules():
        assert f"| `{rule['alert']}` | " in alerts
    api = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("## Metrics")[2]
    for name in known:
        short = re.sub(r"_(bucket|count|sum)$", "", name.removeprefix("tradewind_ml_"))
        assert f"`{short}`" in api, short
