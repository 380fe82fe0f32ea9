"""What `up` is made of: homes, modes, ports, plan, state, orphans, restarts, what status shows."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.cli.look_status import print_status
from pipelines.demo import _make_room
from pipelines.status import collect, in_words
from pipelines.up import homes, ports, state
from pipelines.up.health import Started, _late_beats, engine, http, read_engine
from pipelines.up.mode import choose_mode
from pipelines.up.parts import Part, Plan, make_plan, write_workspace
from pipelines.up.state import ProcessState, UpState, log_of, orphans
from pipelines.up.supervisor import GIVEN_UP, HEALTHY, Supervisor
from pipelines.up.trading import Told, missing
from tests.pipelines.conftest import ROOT, command, environment
from tradewind.client import ServingClient
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.lease import process_identity
from tradewind.settings import Settings, load_settings

PORTS = {"webserver": 3111, "mlflow": 5111, "serving": 8111, "code-server": 4111}
SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")
DIE = (sys.executable, "-c", "print('no such table'); raise SystemExit(3)")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TRADEWIND_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ), raising=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty home."""
    return load_settings(home=tmp_path / "home", clock="replay")


def finished_demo(folder: Path, **environment: str) -> Path:
    """Write what a finished demo leaves."""
    demo = folder / homes.DEMO_HOME
    (demo / "demo").mkdir(parents=True)
    (demo / homes.FINISHED).write_text(json.dumps({"environment": environment}))
    (demo / homes.PLAN).write_text("{}")
    return demo


def test_the_home_is_the_given_one_then_a_finished_demo_then_the_default(tmp_path: Path) -> None:
    assert homes.choose_home(tmp_path) == tmp_path / "var"
    demo = finished_demo(tmp_path)
    assert homes.choose_home(tmp_path) == demo
    os.environ["TRADEWIND_HOME"] = str(tmp_path / "mine")
    assert homes.choose_home(tmp_path) == tmp_path / "mine"


def test_a_demo_goes_on_with_its_settings_and_the_environment_wins(tmp_path: Path) -> None:
    demo = finished_demo(tmp_path, TRADEWIND_PROFILE="quick", TRADEWIND_THRESHOLDS__BASE="0.51")
    os.environ["TRADEWIND_THRESHOLDS__BASE"] = "0.6"
    assert homes.adopt(demo) == {"TRADEWIND_PROFILE": "quick"}
    found = load_settings()
    assert (found.home, found.profile, found.thresholds.base) == (demo, "quick", 0.6)


def test_no_address_is_recorded_with_a_demo() -> None:
    given = {
        "TRADEWIND_ENGINE__REQUIRE_EDGE": "false",
        "TRADEWIND_DATA": "/bars",
        "TRADEWIND_MARKET__PROXY": "http://user:secret@proxy:1",
        "TRADEWIND_LEDGER_URL": "postgresql://user:secret@host/db",
        "TRADEWIND_REGISTRY__MODEL_EXPIRY_DAYS": "38",
        "TRADEWIND_REGISTRY__TRACKING_URI": "http://127.0.0.1:1",
        "TRADEWIND_SERVING__VOTE__LEAST_SKILL": "0.000001",
        "TRADEWIND_SERVING__PORT": "8123",
        "PATH": "/bin",
    }
    assert homes.recordable(given) == {
        "TRADEWIND_ENGINE__REQUIRE_EDGE": "false",
        "TRADEWIND_DATA": "/bars",
        "TRADEWIND_REGISTRY__MODEL_EXPIRY_DAYS": "38",
        "TRADEWIND_SERVING__VOTE__LEAST_SKILL": "0.000001",
    }


def test_whatever_the_demo_loosens_goes_on_with_it() -> None:
    from pipelines.demo import LOOSENED

    assert homes.recordable(LOOSENED) == dict(sorted(LOOSENED.items()))


def test_no_version_of_a_demo_expires_before_its_last_day(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.demo import EXPIRY, REPLAY_DAYS, UNREAD_DAYS, outliving

    monkeypatch.setenv(EXPIRY, "21")
    given = load_settings()
    assert outliving(given, 28) == given, "what the environment says holds"
    monkeypatch.delenv(EXPIRY)
    for days in REPLAY_DAYS.values():
        monkeypatch.delenv(EXPIRY, raising=False)
        found = outliving(load_settings(), days)
        assert found.registry.model_expiry_days > days + UNREAD_DAYS
        assert found == load_settings(), "serving and `up` read the same from the environment"
    monkeypatch.delenv(EXPIRY, raising=False)
    never = load_settings(registry={"model_expiry_days": 0})
    assert outliving(never, 28) == never
    assert EXPIRY not in os.environ


def test_bars_with_an_end_are_replayed(tmp_path: Path) -> None:
    live = load_settings(home=tmp_path, market={"source": "ccxt"})
    made_up = load_settings(home=tmp_path, market={"source": "simulated"})
    stored = load_settings(home=tmp_path, data=tmp_path)
    assert choose_mode(live, None, None) == "wall"
    assert choose_mode(made_up, None, None) == "replay"
    assert choose_mode(stored, None, None) == "replay"
    assert choose_mode(stored, "wall", None) == "wall"
    before = UpState(pid=1, identity=None, mode="replay", ports={}, started_ms=0)
    assert choose_mode(live, None, before) == "replay"
    assert choose_mode(load_settings(home=tmp_path, clock="wall"), None, before) == "wall"
    finished_demo(tmp_path)
    demo = load_settings(home=tmp_path / homes.DEMO_HOME, market={"source": "ccxt"})
    assert choose_mode(demo, None, None) == "replay"


def test_ports_stay_where_they_were_unless_taken(settings: Settings) -> None:
    free = [_free() for _ in range(4)]
    names = (ports.WEBSERVER, ports.MLFLOW, ports.SERVING, ports.CODE_SERVER)
    before = dict(zip(names, free, strict=True))
    assert ports.choose(settings, before) == before
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", before[ports.MLFLOW]))
        taken.listen()
        chosen = ports.choose(settings, before)
    assert chosen[ports.MLFLOW] != before[ports.MLFLOW]
    assert len(set(chosen.values())) == len(names)


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_every_process_shares_addresses_and_starts_light(settings: Settings) -> None:
    os.environ["TRADEWIND_TRAINING__EPOCHS"] = "7"
    plan = make_plan(load_settings(home=settings.home, clock="replay"), PORTS, 2.5)
    assert [part.name for part in plan.parts] == [
        *("mlflow", "code-server", "webserver", "daemon", "serving", "engine"),
    ]
    shared = plan.environment
    assert shared["OMP_NUM_THREADS"] == "1"
    assert shared["DO_NOT_TRACK"] == "1"
    assert shared["DAGSTER_HOME"] == str(settings.home / "dagster")
    os.environ.clear()
    os.environ.update(shared)
    found = load_settings()  # as a process of the plan reads them
    assert found.mlflow_tracking_uri == found.links.mlflow_url == "http://127.0.0.1:5111"
    assert found.links.dagster_url == "http://127.0.0.1:3111"
    assert (found.serving.host, found.serving.port) == ("127.0.0.1", 8111)
    assert (found.training.epochs, found.clock, found.home) == (7, "replay", settings.home)
    words = [word for part in plan.parts for word in part.argv]
    assert "0.0.0.0" not in words
    mlflow = plan.parts[0]
    assert mlflow.argv[-2:] == ("--workers", "1")
    assert mlflow.environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert mlflow.environment["MLFLOW_BACKEND_STORE_URI"] == settings.mlflow_tracking_uri
    assert plan.parts[-1].argv[-2:] == ("--pace", "2.5")


def test_a_tracking_server_that_is_there_is_not_started_again(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, registry={"tracking_uri": "http://tracker:5000"})
    plan = make_plan(settings, PORTS, 5)
    assert "mlflow" not in [part.name for part in plan.parts]
    assert plan.settings.mlflow_tracking_uri == "http://tracker:5000"


def test_the_workspace_points_at_the_code_server(settings: Settings) -> None:
    import yaml

    path = write_workspace(settings.home, 4111)
    (server,) = yaml.safe_load(path.read_text())["load_from"]
    assert server == {
        "grpc_server": {"host": "127.0.0.1", "port": 4111, "location_name": "tradewind"}
    }


def test_the_state_survives_and_a_torn_one_is_told(tmp_path: Path) -> None:
    assert state.load(tmp_path) is None
    held = UpState(
        pid=os.getpid(),
        identity=process_identity(os.getpid()),
        mode="replay",
        ports=PORTS,
        started_ms=1,
        processes=[ProcessState("mlflow", pid=1, identity="another's", restarts=2)],
    )
    held.save(tmp_path)
    found = state.load(tmp_path)
    assert found == held
    assert found.running
    assert not found.processes[0].alive()  # the number is another process's by now
    (tmp_path / "up" / "state.json").write_text('{"pid": 1}')
    with pytest.raises(TradewindError, match="corrupt_file"):
        state.load(tmp_path)


@pytest.fixture
def stray(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that an `up` of this home left behind."""
    process = subprocess.Popen(SLEEP, env={**os.environ, state.MARK: str(tmp_path)})
    yield process
    process.kill()
    process.wait()


def test_orphans_of_this_home_are_found_and_ended(
    tmp_path: Path, stray: subprocess.Popen[bytes]
) -> None:
    deadline = time.monotonic() + 10
    while not orphans(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)  # between fork and exec it has its parent's environment
    assert [process.pid for process in orphans(tmp_path)] == [stray.pid]
    assert orphans(tmp_path / "other") == []
    state.end(orphans(tmp_path))
    assert stray.poll() is not None
    assert orphans(tmp_path) == []


def limited(settings: Settings, **limits: float) -> Settings:
    """Return settings under which `up` is less patient."""
    return settings.model_copy(update={"up": settings.up.model_copy(update=limits)})


def watch(settings: Settings, *parts: Part) -> tuple[Supervisor, list[str]]:
    """Return a supervisor of these parts, and what it says."""
    said: list[str] = []
    environment = {**os.environ, state.MARK: str(settings.home)}
    held = UpState(pid=os.getpid(), identity=None, mode="replay", ports={}, started_ms=0)
    return Supervisor(Plan(settings, environment, parts), held, said.append), said


def turn_until(supervisor: Supervisor, name: str, wanted: str, limit_s: float = 30) -> ProcessState:
    """Let the supervisor work until a part is in a state."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        supervisor.turn()
        shown = supervisor.watched[name].shown
        if shown.state == wanted:
            return shown
        time.sleep(0.02)
    pytest.fail(f"{name} is {supervisor.watched[name].shown}")


def test_a_killed_process_comes_back_and_is_named(settings: Settings) -> None:
    first = Part("first", SLEEP, lambda _started: None)
    second = Part("second", SLEEP, lambda _started: None, needs=("first",))
    supervisor, said = watch(settings, first, second)
    try:
        turn_until(supervisor, "second", HEALTHY)
        assert [line.split(" after")[0] for line in said] == [
            *("first is healthy", "second is healthy"),
        ]
        old = supervisor.watched["first"].shown.pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        turn_until(supervisor, "first", "restarting")
        shown = turn_until(supervisor, "first", HEALTHY)
        assert shown.pid != old
        assert shown.restarts == 1
        assert f"first died (killed by signal 9), restarted as pid {shown.pid}, healthy" in said[-1]
        stored = state.load(settings.home)
        assert stored is not None
        assert stored.process("first") == shown
    finally:
        supervisor.stop()
    assert [line.split(" ")[0] for line in said[-2:]] == ["second", "first"]  # the last first
    assert orphans(settings.home) == []


def test_a_process_that_keeps_dying_is_given_up_with_its_last_lines(settings: Settings) -> None:
    settings = limited(settings, backoff_s=0.01)
    deaths = settings.up.quick_deaths
    broken = Part("broken", DIE, lambda _started: "nothing answers")
    other = Part("other", SLEEP, lambda _started: None)
    later = Part("later", SLEEP, lambda _started: None, needs=("broken",))
    supervisor, said = watch(settings, broken, other, later)
    try:
        turn_until(supervisor, "broken", GIVEN_UP, 60)
        assert supervisor.given_up == ["broken"]
        assert supervisor.watched["other"].shown.state == HEALTHY
        assert supervisor.watched["later"].shown.state == "waiting"
        assert supervisor.settled
        assert f"died {deaths} times" in said[-1]
        assert "ended with code 3" in said[-1]
        assert "no such table" in said[-1]
        assert log_of(settings.home, "broken").read_text().count("no such table") == deaths
    finally:
        supervisor.stop()


def test_the_engine_is_well_while_it_tells_something(tmp_path: Path) -> None:
    me = Started(os.getpid(), time.time())
    probe = engine(tmp_path)
    assert probe(me) == "has not told anything yet"
    Told(tmp_path)("waiting", "no champion yet")
    assert probe(me) is None
    assert probe(Started(1, time.time())) == "has not told anything yet"
    told = read_engine(tmp_path)
    assert told is not None
    (tmp_path / "engine.json").write_text(json.dumps({**told, "wall_ms": 0}))
    assert str(probe(me)).startswith("told nothing for")


def test_heartbeats_of_the_predecessor_do_not_count() -> None:
    def beat(at: float | None, *, healthy: bool = True, required: bool = True) -> dict[str, object]:
        return {
            "daemonType": "SENSOR",
            "required": required,
            "healthy": healthy,
            "lastHeartbeatTime": at,
        }

    assert _late_beats([beat(101.0), beat(None, required=False)], 100.0) is None
    for late in (beat(99.0), beat(None), beat(101.0, healthy=False)):
        assert _late_beats([late], 100.0) == "no heartbeat of SENSOR"


def test_status_names_what_is_down_and_folds_no_header(settings: Settings) -> None:
    held = UpState(
        pid=os.getpid(),
        identity=process_identity(os.getpid()),
        mode="replay",
        ports={**PORTS, "serving": _free()},
        started_ms=0,
        processes=[
            ProcessState(
                "code-server",
                state="not answering",
                pid=os.getpid(),
                identity=process_identity(os.getpid()),
                started_ms=round(time.time() * 1000) - 90_000,
                restarts=3,
                address="grpc://127.0.0.1:40111",
            ),
            ProcessState("serving", state="healthy", pid=1, identity="gone", restarts=1),
        ],
    )
    held.save(settings.home)
    found = collect(settings)
    assert [item["state"] for item in found["up"]["processes"]] == ["not answering", "down"]
    assert found["up"]["processes"][0]["rss_mib"] > 10
    told = "\n".join(found["problems"])
    for words in ("code-server is not answering", "serving is down", "no bars", "clock"):
        assert words in told
    screen = io.StringIO()
    print_status(found, Console(file=screen, width=80))
    shown = screen.getvalue()
    header = next(line for line in shown.splitlines() if "process" in line)
    for word in ("state", "address", "pid", "up", "MiB", "restarts"):
        assert word in header
    table = [line for line in shown.splitlines() if line[:1] in "┃│"]
    assert max(map(len, table)) <= 80


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (3.4, "3 s"), (150, "2 min"), (5400, "1.5 h"), (260_000, "3.0 days")],
)
def test_spans_are_said_as_people_say_them(seconds: float | None, words: str) -> None:
    assert in_words(seconds) == words


def test_a_second_up_is_refused_with_the_pid_of_the_first(settings: Settings) -> None:
    from pipelines.up.run import _alone

    UpState(os.getpid(), process_identity(os.getpid()), "replay", {}, 0).save(settings.home)
    with (
        _alone(settings.home),
        pytest.raises(TradewindError, match=f"pid {os.getpid()}") as refused,
        _alone(settings.home),
    ):
        pytest.fail("two at once")
    assert refused.value.code is ErrorCode.ALREADY_RUNNING
    with _alone(settings.home):
        pass  # the first has ended


def test_an_answer_of_another_process_is_not_health() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        probe = http(f"http://127.0.0.1:{server.server_port}/")
        assert probe(Started(os.getpid(), time.time())) is None
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            said = probe(Started(other.pid, time.time()))
        assert (
            said == f"port {server.server_port} is held by process {os.getpid()}, which is not ours"
        )
    finally:
        server.shutdown()
        server.server_close()


def test_every_command_means_the_home_that_up_runs(tmp_path: Path) -> None:
    state = tmp_path / "var" / "demo" / "demo"
    state.mkdir(parents=True)
    (state / "plan.json").write_text("{}")
    kept = {"TRADEWIND_ENGINE__CYCLE_S": "17"}
    (state / "finished.json").write_text(json.dumps({"environment": kept}))
    variables = environment(tmp_path, PYTHONPATH=str(ROOT))
    del variables["TRADEWIND_HOME"]

    def shown(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command("config", "show", "--json"),
            cwd=tmp_path,
            env={**variables, **more},
            capture_output=True,
            text=True,
            check=True,
        )

    found = shown()
    settings = json.loads(found.stdout)
    assert settings["home"] == str(tmp_path / "var" / "demo")
    assert settings["clock"] == "replay"
    assert settings["engine"]["cycle_s"] == 17
    assert "home: " in found.stderr
    other = shown(TRADEWIND_HOME=str(tmp_path / "mine"))
    assert json.loads(other.stdout)["home"] == str(tmp_path / "mine")
    assert json.loads(other.stdout)["clock"] == "wall"
    # Named or found, the demo's home means the demo's settings.
    named = json.loads(shown(TRADEWIND_HOME=settings["home"]).stdout)
    assert (named["clock"], named["engine"]["cycle_s"]) == ("replay", 17)


def _running(home: Path, mode: str = "replay") -> UpState:
    me = UpState(os.getpid(), process_identity(os.getpid()), mode, {}, 0)
    me.save(home)
    return me


def test_the_home_is_the_one_whose_up_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    demo, usual = tmp_path / "var" / "demo", tmp_path / "var"
    (demo / "demo").mkdir(parents=True)
    (demo / "demo" / "finished.json").write_text("{}")
    assert homes.choose_home() == demo
    _running(usual)
    assert homes.choose_home() == usual
    assert homes.clock_of(usual) == "replay"
    _running(demo)
    with pytest.raises(TradewindError, match=r"runs in .* and in .*") as refused:
        homes.choose_home()
    assert refused.value.code is ErrorCode.BAD_INPUT
    (tmp_path / "tradewind.toml").write_text(f'home = "{tmp_path / "mine"}"')
    assert homes.choose_home() == tmp_path / "mine"


def test_other_databases_than_those_of_up_are_refused(tmp_path: Path) -> None:
    theirs = load_settings(home=tmp_path, ledger_url="postgresql://tw:s3cret@127.0.0.1/books")
    homes.record_databases(tmp_path, theirs)
    mine = load_settings(home=tmp_path)
    homes.check_databases(tmp_path, mine)  # nothing runs there now
    _running(tmp_path)
    homes.check_databases(tmp_path, theirs)
    with pytest.raises(TradewindError, match=r"127\.0\.0\.1/books") as refused:
        homes.check_databases(tmp_path, mine)
    assert "TRADEWIND_LEDGER_URL" in refused.value.hint
    written = (tmp_path / "up" / "databases.json").read_text()
    assert "s3cret" not in written + str(refused.value)


def test_a_kill_switch_without_books_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        command("kill", "on", "--why", "test"),
        cwd=tmp_path,
        env=environment(tmp_path / "empty", PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no ledger" in done.stderr
    assert not (tmp_path / "empty" / "ledger.db").exists()


def test_a_demo_does_not_remove_what_up_went_on_with(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "finished.json").write_text("{}")
    known = _running(tmp_path)
    with pytest.raises(TradewindError) as refused:
        _make_room(tmp_path, "asked", fresh=True)
    assert refused.value.code is ErrorCode.ALREADY_RUNNING
    known.identity = "gone"
    known.save(tmp_path)
    with pytest.raises(TradewindError, match="would remove its account"):
        _make_room(tmp_path, "asked", fresh=False)
    _make_room(tmp_path, "asked", fresh=True)
    assert not tmp_path.exists()


def test_an_expired_champion_is_named_with_what_brings_a_younger_one(settings: Settings) -> None:
    detail = "tradewind.lightgbm.POOLED/1 is 22.0 days old, registry.model_expiry_days = 21"
    error = TradewindError(ErrorCode.MODEL_EXPIRED, detail, "Launch the Dagster job `retrain`")

    class Refusing(ServingClient):
        def ready(self) -> bool:
            return False

        def status(self) -> dict[str, Any]:
            return {"not_ready": error.body()}

    with Refusing("http://127.0.0.1:9") as asked:
        said = missing(settings, asked)
    assert said is not None
    assert said.startswith(f"the champion has expired ({detail}): launch `retrain`")
    assert "tradewind train" in said
