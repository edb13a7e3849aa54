"""``delen-daemon`` as a process: configuration, signals, sockets, state, bundles."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from delen.daemon.settings import SETTINGS
from tests.builders.daemon import DEADLINE

if TYPE_CHECKING:
    from tests.builders.daemon import Answer, Daemon, Launcher
    from tests.e2e.conftest import Gate

Image8 = NDArray[np.uint8]
DAEMON = str(Path(sys.executable).parent / "delen-daemon")
TINY_IMAGE = np.zeros((4, 4, 1), np.uint8)


@pytest.fixture
def run(
    tmp_path: Path, environment: Callable[..., dict[str, str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs delen-daemon to its end, with variables of the environment."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DAEMON, *arguments],
            env=environment(**variables),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


# --- configuration


def test_print_config_is_toml_that_says_where_each_value_is_from(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "delen.toml"
    file.write_text('[server]\nport = 0\nhost = "::1"\n[models]\nload = ["a", "b"]\n')
    printed = run("--config", str(file), "--print-config", DELEN_SERVER__PORT="8123")
    assert printed.returncode == 0
    config = tomllib.loads(printed.stdout)
    assert config["server"]["port"] == 8123
    assert config["server"]["host"] == "::1"
    assert config["models"]["load"] == ["a", "b"]
    lines = {line.split(" = ")[0]: line for line in printed.stdout.splitlines() if " = " in line}
    assert "DELEN_SERVER__PORT" in lines["port"]
    assert str(file) in lines["host"]
    assert "default" in lines["quantile"]
    assert config["policies"]["dispatch"] == "value"
    assert "default" in lines["dispatch"]
    assert set(config) == {
        "server",
        "models",
        "device",
        "power",
        "energy",
        "policies",
        "tenants",
        "fleet",
        "traces",
        "state",
        "log",
    }


def test_what_print_config_prints_is_a_configuration(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    given = tmp_path / "given.toml"
    given.write_text('[models]\npath = "a \\"b\\" \\\\ \\u007f \\t ř 😀"\n', encoding="utf-8")
    first = run("--config", str(given), "--print-config")
    again = tmp_path / "again.toml"
    again.write_text(first.stdout, encoding="utf-8")
    second = run("--config", str(again), "--print-config")
    assert second.returncode == 0, second.stderr
    assert tomllib.loads(second.stdout) == tomllib.loads(first.stdout)
    assert tomllib.loads(first.stdout)["models"]["path"] == 'a "b" \\ \x7f \t ř 😀'


def test_systemds_folders_are_the_daemons(run: Callable[..., Any]) -> None:
    folders = {"RUNTIME_DIRECTORY": "/run/delen:/run/b", "STATE_DIRECTORY": "/var/lib/delen:/b"}
    config = tomllib.loads(run("--print-config", **folders).stdout)
    assert config["server"]["socket"] == "/run/delen/delen.sock"
    assert config["state"]["path"] == "/var/lib/delen"


def test_delen_config_names_the_file(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[server]\nport = 4567\n")
    printed = run("--print-config", DELEN_CONFIG=str(tmp_path / "c.toml"))
    assert tomllib.loads(printed.stdout)["server"]["port"] == 4567


def test_variables_have_the_type_of_their_key(run: Callable[..., Any]) -> None:
    printed = run(
        "--print-config",
        DELEN_MODELS__LOAD="a, b",
        DELEN_SERVER__DRAIN_SECONDS="2",
        DELEN_STATE__PATH="7",
        DELEN_URL="http://not-a-setting",
    )
    config = tomllib.loads(printed.stdout)
    assert config["models"]["load"] == ["a", "b"]
    assert config["server"]["drain_seconds"] == 2.0
    assert config["state"]["path"] == "7"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[sever]\nport = 1\n", "sever"),
        ("[server]\nprot = 1\n", "server.prot"),
        ("[server]\nport = '8000'\n", "server.port"),
        ("[server]\nport = true\n", "server.port"),
        ("[server]\nport = 8000.0\n", "server.port"),
        ("[server]\nport = 70000\n", "server.port"),
        ("[server]\ndrain_seconds = nan\n", "server.drain_seconds"),
        ("[server]\nmax_backlog_seconds = inf\n", "server.max_backlog_seconds"),
        ("[models]\nload = 'cifar10-resnet'\n", "models.load"),
        ("[models]\nload = [1]\n", "models.load"),
        ("[log]\nlevel = 'loud'\n", "log.level"),
        ("server = 3\n", "server"),
        ("port = 8000\n", "port"),
        ("[server\n", "line 1"),
        ("[device]\nbackend = 'abacus'\n", "device.backend"),
        ("[power]\nsource = 'sun'\n", "power.source"),
    ],
)
def test_a_wrong_file_is_refused_by_name(
    run: Callable[..., Any], tmp_path: Path, text: str, named: str
) -> None:
    file = tmp_path / "delen.toml"
    file.write_text(text)
    ended = run("--config", str(file))
    assert ended.returncode == 2
    assert str(file) in ended.stderr
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DELEN_SERVER__PROT", "1"),
        ("DELEN_SEVER__PORT", "1"),
        ("DELEN_SERVER__PORT", "many"),
        ("DELEN_SERVER__PORT", "-1"),
        ("DELEN_LOG__LEVEL", "loud"),
        ("DELEN_SERVER__DRAIN_SECONDS", "nan"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(
    run: Callable[..., Any], variable: str, value: str
) -> None:
    ended = run(**{variable: value})
    assert ended.returncode == 2
    assert variable in ended.stderr


def test_a_missing_file_and_wrong_usage_are_refused(run: Callable[..., Any]) -> None:
    missing = run("--config", "/no/such/file.toml")
    assert missing.returncode == 2
    assert "/no/such/file.toml" in missing.stderr
    assert run("--bogus").returncode == 2
    assert run("--help").returncode == 0
    assert "example" in run("--help").stdout
    assert run("--version").stdout.startswith("delen ")


def test_logs_may_be_json(launcher: Launcher) -> None:
    daemon = launcher.start({"log": {"format": "json"}})
    lines = [json.loads(line) for line in daemon.log().splitlines()]
    assert any("ready on" in line["message"] for line in lines)
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    launcher.stop(daemon)


# --- the process


def test_nothing_of_training_is_in_the_daemon(daemon: Daemon) -> None:
    mapped = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "onnxruntime" in mapped
    for library in ("torch", "matplotlib", "/onnx/"):
        assert library not in mapped


def test_the_daemons_modules_import_nothing_of_training() -> None:
    listed = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-c",
            "import delen.daemon.main, delen.daemon.build_runtime, api.views",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in listed.splitlines()}
    assert {"delen", "api", "flask"} <= imported
    assert not {"torch", "torchvision", "onnx", "multiexit_models", "matplotlib"} & imported


def _ask_in_parallel(
    daemon: Daemon, body: bytes, count: int, pool: ThreadPoolExecutor
) -> list[Any]:
    def ask() -> Answer:
        return daemon.api.post("/v1/infer", body=body, content_type="application/octet-stream")

    return [pool.submit(ask) for _ in range(count)]


def _check_answered_or_draining(answers: list[Answer]) -> tuple[int, int]:
    """How many were answered, and how many refused because the daemon stops."""
    for answer in answers:
        if answer.status != 200:
            answer.error(503, "draining")
            assert int(answer.headers["Retry-After"]) >= 1
    answered = sum(answer.status == 200 for answer in answers)
    return answered, len(answers) - answered


def _wait_until_all_are_admitted(daemon: Daemon, inputs: int, metric: Any, until: Any) -> None:
    """Every one of ``inputs`` waits, runs, or is answered."""

    def admitted() -> bool:
        answered = metric(daemon.api, "delen_answers_total")
        return bool(metric(daemon.api, "delen_jobs") + answered >= inputs)

    until(admitted, f"{inputs} inputs admitted")


def test_sigterm_answers_all_that_was_admitted_and_leaves_no_socket(
    launcher: Launcher, images: Image8, metric: Any, until: Any
) -> None:
    daemon = launcher.start({"server": {"max_backlog_seconds": 1000.0, "drain_seconds": 60.0}})
    with ThreadPoolExecutor(8) as pool:
        asked = _ask_in_parallel(daemon, np.concatenate([images] * 4).tobytes(), 8, pool)
        _wait_until_all_are_admitted(daemon, 8 * 4 * len(images), metric, until)
        assert daemon.terminate() == 0
        answers = [request.result() for request in asked]
    assert [answer.status for answer in answers] == [200] * 8
    assert all(len(answer.json()["results"]) == 4 * len(images) for answer in answers)
    assert daemon.unix_url is not None
    assert not Path(daemon.unix_url.removeprefix("unix://")).exists()
    assert "Traceback" not in daemon.log()


def test_a_request_while_draining_is_told_so(
    launcher: Launcher, images: Image8, metric: Any, until: Any, gate: Gate
) -> None:
    server = {"max_backlog_seconds": 1000.0, "drain_seconds": 60.0}
    daemon = launcher.start({"server": server, "policies": gate.policies})
    gate.close()
    idle = [daemon.api.connect() for _ in range(2)]
    for connection in idle:
        connection.connect()
    with ThreadPoolExecutor(4) as pool:
        asked = _ask_in_parallel(daemon, images.tobytes(), 4, pool)
        _wait_until_all_are_admitted(daemon, 4 * len(images), metric, until)
        daemon.process.terminate()
        daemon.wait_for_log("draining")
        headers = {"Content-Type": "application/octet-stream"}
        idle[0].request("GET", "/readyz")
        idle[1].request("POST", "/v1/infer", images[0].tobytes(), headers)
        for connection in idle:
            response = connection.getresponse()
            told = json.loads(response.read())
            assert (response.status, told["code"]) == (503, "draining")
            assert int(response.headers["Retry-After"]) >= 1
        gate.open()
        assert [request.result().status for request in asked] == [200] * 4
    assert daemon.process.wait(30) == 0


def test_what_waits_when_the_drain_time_is_over_is_refused(
    launcher: Launcher, images: Image8, metric: Any, until: Any, gate: Gate
) -> None:
    """``drain_seconds`` of 0, which a SIGHUP has brought."""
    server = {"max_backlog_seconds": 1000.0}
    daemon = launcher.start({"server": server, "policies": gate.policies})
    daemon.configure({"server": {"drain_seconds": 0.0}})
    assert "server.drain_seconds is now 0.0" in daemon.reload()
    gate.close()
    with ThreadPoolExecutor(4) as pool:
        asked = _ask_in_parallel(daemon, images.tobytes(), 4, pool)
        _wait_until_all_are_admitted(daemon, 4 * len(images), metric, until)
        daemon.process.terminate()
        daemon.wait_for_log("drain time is over")
        gate.open()
        assert daemon.process.wait(DEADLINE) == 0
        _, refused = _check_answered_or_draining([request.result() for request in asked])
    assert refused >= 1


def test_draining_ends_with_its_time(
    launcher: Launcher, images: Image8, metric: Any, until: Any, gate: Gate
) -> None:
    """What runs is answered, though its segment ends later; what waits is refused."""
    server = {"max_backlog_seconds": 1000.0, "drain_seconds": 0.4}
    config = {"server": server, "policies": gate.policies, "log": {"format": "json"}}
    daemon = launcher.start(config)
    gate.close()
    with ThreadPoolExecutor(4) as pool:
        asked = _ask_in_parallel(daemon, images[0].tobytes(), 1, pool)
        _wait_until_all_are_admitted(daemon, 1, metric, until)
        asked += _ask_in_parallel(daemon, images.tobytes(), 3, pool)
        _wait_until_all_are_admitted(daemon, 1 + 3 * len(images), metric, until)
        daemon.process.terminate()
        log = daemon.wait_for_log("the drain time is over")
        gate.open()
        answers = [request.result() for request in asked]
    assert daemon.process.wait(DEADLINE) == 0
    assert _check_answered_or_draining(answers) == (1, 3)
    assert answers[0].json()["reason"] == "cancelled"
    lines = [json.loads(line) for line in log.splitlines()]
    began, over = (
        datetime.fromisoformat(line["time"])
        for line in lines
        if line["message"].endswith("draining") or "drain time is over" in line["message"]
    )
    (usual,) = (setting.default for setting in SETTINGS if setting.name == "server.drain_seconds")
    assert 0.4 <= (over - began).total_seconds() < usual


def test_sigint_stops_it_too(launcher: Launcher) -> None:
    daemon = launcher.start()
    daemon.process.send_signal(2)
    assert daemon.process.wait(30) == 0


# --- SIGHUP


def test_sighup_reloads_what_can_change_and_names_what_cannot(
    launcher: Launcher, image: Image8
) -> None:
    daemon = launcher.start()
    daemon.configure({"log": {"level": "debug"}, "server": {"port": 1, "threads": 3}})
    said = daemon.reload()
    assert 'log.level is now "debug"' in said
    assert "certificate" not in said
    for name in ("server.port", "server.threads"):
        assert f"{name} changes at a restart only" in said
    assert daemon.api.raw(image).status == 200

    daemon.configure({"server": {"prot": 1}})
    said = daemon.reload()
    assert "nothing reloaded" in said
    assert "server.prot" in said
    assert daemon.api.raw(image).status == 200
    del daemon.config["server"]["prot"]

    daemon.configure({"log": {"level": "error"}})
    daemon.process.send_signal(1)
    daemon.wait_for_log('log.level is now "error"')
    before = daemon.log().count("restart only")
    daemon.configure({"log": {"level": "info"}})
    daemon.process.send_signal(1)
    daemon.wait_for_log("reloaded the configuration", times=2)
    assert daemon.log().count("restart only") == before, "a warning at the level of errors"
    assert daemon.api.raw(image).status == 200
    launcher.stop(daemon)


def test_sighup_finds_new_bundles(
    launcher: Launcher, make_bundle: Callable[..., Path], tmp_path: Path, image: Image8
) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    daemon = launcher.start({"models": {"path": str(folder)}})
    daemon.api.raw(image, "/v1/models/second/infer").error(404, "model_not_found")
    make_bundle(folder / "second", name="second")
    daemon.reload()
    daemon.api.raw(image, "/v1/models/second/infer").error(503, "model_loading")
    assert daemon.api.post("/v1/models/second/load").status == 200
    assert daemon.api.raw(image, "/v1/models/second/infer").json()["model"] == "second"
    assert daemon.api.get("/v1/models/cifar10-resnet").json()["state"] == "ready"
    launcher.stop(daemon)


def _deep_toml(daemon: Daemon) -> None:
    daemon.config_file.write_text("a = " + "[" * 5000 + "]" * 5000)


def _binary_toml(daemon: Daemon) -> None:
    daemon.config_file.write_bytes(b"\xff\xfe\x00")


def _no_file(daemon: Daemon) -> None:
    daemon.config_file.unlink()
    daemon.config_file.mkdir()


def _unkeepable_limit(daemon: Daemon) -> None:
    daemon.configure({"energy": {"watt_cap_w": 5.0}})


def _half_a_battery(daemon: Daemon) -> None:
    daemon.configure({"energy": {"battery_wh": 5.0}})


def _binary_token(daemon: Daemon) -> None:
    Path(daemon.config["server"]["token_file"]).write_bytes(b"\xff\xfe")


def _no_bundles(daemon: Daemon) -> None:
    Path(daemon.config["models"]["path"]).rmdir()


def test_a_bad_reload_keeps_all_old_settings(
    launcher: Launcher, tmp_path: Path, image: Image8
) -> None:
    token, folder = tmp_path / "token", tmp_path / "bundles"
    token.write_text("secret")
    folder.mkdir()
    daemon = launcher.start(
        {
            "server": {"token_file": str(token)},
            "models": {"path": str(folder)},
            "power": {"source": "none"},
        }
    )
    good = deepcopy(daemon.config)
    for spoil, named in (
        (_deep_toml, "nested"),
        (_binary_toml, "not TOML"),
        (_no_file, "cannot be read"),
        (_unkeepable_limit, "energy.watt_cap_w"),
        (_half_a_battery, "energy.battery_wh"),
        (_binary_token, "server.token_file"),
        (_no_bundles, "models.path"),
    ):
        token.write_text("another")
        daemon.config = deepcopy(good)
        daemon.configure({"log": {"level": "error"}})
        spoil(daemon)
        said = daemon.reload()
        assert "nothing reloaded" in said
        assert named in said
        assert "Traceback" not in said
        secret = {"Authorization": "Bearer secret"}
        assert daemon.api.post("/v1/models/cifar10-resnet/load", headers=secret).status == 200
        assert daemon.api.raw(image).status == 200
        folder.mkdir(exist_ok=True)
        if daemon.config_file.is_dir():
            daemon.config_file.rmdir()
    launcher.stop(daemon)


def test_many_sighups_and_one_while_it_drains_end_nothing(launcher: Launcher) -> None:
    daemon = launcher.start()
    for _ in range(20):
        daemon.process.send_signal(signal.SIGHUP)
    daemon.process.send_signal(signal.SIGTERM)
    with suppress(ProcessLookupError):
        daemon.process.send_signal(signal.SIGHUP)
    assert daemon.process.wait(30) == 0


# --- sockets


def test_a_stale_socket_file_is_replaced(launcher: Launcher, tmp_path: Path) -> None:
    file = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(file))
    daemon = launcher.start({"server": {"socket": str(file)}})
    assert daemon.unix_url == f"unix://{file}"
    assert type(daemon.api)(daemon.unix_url).get("/healthz").status == 200
    launcher.stop(daemon)
    assert not file.exists()


def test_a_second_daemon_on_the_same_socket_is_refused(launcher: Launcher, daemon: Daemon) -> None:
    assert daemon.unix_url is not None
    path = daemon.unix_url.removeprefix("unix://")
    ended = launcher.refused({"server": {"socket": path}})
    assert ended.returncode == 2
    assert "another daemon" in ended.stderr
    assert path in ended.stderr
    assert type(daemon.api)(daemon.unix_url).get("/healthz").status == 200


def test_a_port_that_is_taken_is_refused(launcher: Launcher, daemon: Daemon) -> None:
    port = int(daemon.url.rpartition(":")[2])
    ended = launcher.refused({"server": {"port": port}})
    assert ended.returncode == 2
    assert str(port) in ended.stderr


def test_a_file_that_is_no_socket_is_not_touched(launcher: Launcher, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    ended = launcher.refused({"server": {"socket": str(file)}})
    assert ended.returncode == 2
    assert str(file) in ended.stderr
    assert file.read_text() == "mine"
    absent = launcher.refused({"server": {"socket": str(tmp_path / "no" / "d.sock")}})
    assert absent.returncode == 2


def test_no_socket_where_none_is_wanted(launcher: Launcher) -> None:
    daemon = launcher.start({"server": {"socket": ""}})
    assert daemon.unix_url is None
    assert daemon.api.get("/healthz").status == 200
    launcher.stop(daemon)


def _threads(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.process.pid}/task").iterdir()))


def test_host_and_threads_and_backend_are_obeyed(launcher: Launcher, image: Image8) -> None:
    daemon = launcher.start(
        {
            "server": {"host": "127.0.0.2", "threads": 2},
            "device": {"backend": "cpu", "threads": 1},
        }
    )
    assert daemon.url.startswith("http://127.0.0.2:")
    assert daemon.api.get("/readyz").json()["device"]["threads"] == 1
    assert daemon.api.raw(image).status == 200
    before = _threads(daemon)
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(daemon.api.get, ["/v1/models"] * 64))
    assert {answer.status for answer in answers} == {200}
    assert _threads(daemon) - before in (1, 2)
    launcher.stop(daemon)


def test_a_backend_that_is_not_there_is_refused(launcher: Launcher) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    ended = launcher.refused({"device": {"backend": "cuda"}})
    assert ended.returncode == 2
    assert "pip install onnxruntime-gpu" in ended.stderr


def test_power_root_is_where_the_device_is_looked_up(
    launcher: Launcher, tmp_path: Path, tiny_bundle: Path
) -> None:
    tree = tmp_path / "root" / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"A Board That Is Not\0")
    models = {**_only(tiny_bundle), "load": []}
    daemon = launcher.start({"power": {"root": str(tmp_path / "root")}, "models": models})
    assert daemon.api.post("/v1/models/tiny/load").status == 200
    ready = daemon.api.get("/readyz").json()
    assert ready["device"]["processor"] == "A Board That Is Not"
    launcher.stop(daemon)


# --- state and bundles


def _only(bundle: Path) -> dict[str, Any]:
    """The section ``models`` of a daemon that has this one."""
    return {"path": str(bundle.parent), "default": bundle.name, "load": [bundle.name]}


def _measured(daemon: Daemon, until: Any) -> dict[str, Any]:
    """The profile of the model ``tiny``, once it is not a rough one."""

    def find() -> dict[str, Any] | None:
        profile: dict[str, Any] = daemon.api.get("/v1/models/tiny").json()["profile"]
        return None if profile["rough"] else profile

    found: dict[str, Any] = until(find, "a profile is measured")
    return found


def test_a_first_start_is_ready_before_it_measures_a_profile_and_keeps_it(
    launcher: Launcher, tmp_path: Path, tiny_bundle: Path, until: Any
) -> None:
    config = {"state": {"path": str(tmp_path / "state")}, "models": _only(tiny_bundle)}
    first = launcher.start(config)
    assert "a rough one serves" in first.log()
    assert first.api.raw(TINY_IMAGE, max_latency_ms=5000).json()["receipt"]["met"] is True
    profile = _measured(first, until)
    assert profile["quick"] is True
    (file,) = (tmp_path / "state" / "profiles").rglob("*.json")
    assert str(file) in first.log()
    launcher.stop(first)
    kept = json.loads(file.read_bytes())
    assert profile["busy"] is kept["measured"]["busy"]
    kept["measured"]["busy"] = False  # however busy this machine was
    file.write_text(json.dumps(kept))

    second = launcher.start(config)
    assert "rough" not in second.log()
    again = second.api.get("/v1/models/tiny").json()["profile"]
    assert (again["created"], again["busy"]) == (profile["created"], False)
    assert json.loads(file.read_bytes()) == kept
    assert second.api.raw(TINY_IMAGE).status == 200
    launcher.stop(second)

    file.write_text("{}")
    third = launcher.start(config)
    assert "passed over" in third.log()
    assert "a rough one serves" in third.log()
    assert third.api.raw(TINY_IMAGE).status == 200
    launcher.stop(third)


def test_a_state_folder_that_cannot_be_written_is_a_warning(
    launcher: Launcher, tmp_path: Path, tiny_bundle: Path, until: Any
) -> None:
    (tmp_path / "file").touch()
    state = {"path": str(tmp_path / "file" / "state")}
    daemon = launcher.start({"state": state, "models": _only(tiny_bundle)})
    _measured(daemon, until)
    assert "cannot be written" in daemon.log()
    assert "measured again" in daemon.log()
    assert daemon.api.raw(TINY_IMAGE).status == 200
    launcher.stop(daemon)


def test_a_damaged_bundle_is_left_out_and_the_others_are_served(
    launcher: Launcher,
    make_bundle: Callable[..., Path],
    write_bundle: Callable[..., Path],
    tmp_path: Path,
    image: Image8,
) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    make_bundle(folder / "newer", name="newer", schema=99)
    make_bundle(folder / "torn", name="torn")
    (folder / "torn" / "manifest.json").write_text('{"format": ')
    (folder / "no-bundle").mkdir()
    make_bundle(folder / "rotten", name="rotten")
    graph = folder / "rotten" / "segment1.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    write_bundle(folder / "sound", name="sound")
    daemon = launcher.start({"models": {"path": str(folder)}})
    log, api = daemon.log(), daemon.api
    for name in ("newer", "torn", "no-bundle"):
        assert any(f"/{name}" in line and "left out" in line for line in log.splitlines())
    assert "newer than" in log
    for name, why in (("newer", "newer than"), ("torn", "manifest.json")):
        error = api.post(f"/v1/models/{name}/load").error(404, "model_not_found")["error"]
        assert "its bundle was left out" in error and why in error
    for _ in range(2):
        error = api.post("/v1/models/rotten/load").error(500, "bundle_invalid")
        assert "segment1.onnx" in error["error"]
    model = api.get("/v1/models/rotten").json()
    assert model["state"] == "failed"
    assert "segment1.onnx" in model["problem"]
    assert api.raw(image, "/v1/models/rotten/infer").status == 503
    assert api.post("/v1/models/sound/load").status == 200
    assert api.raw(TINY_IMAGE, "/v1/models/sound/infer").status == 200
    assert api.raw(image).status == 200
    launcher.stop(daemon)


def test_a_bundle_built_while_the_daemon_runs_is_found_when_it_is_loaded(
    launcher: Launcher, write_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    daemon = launcher.start({"models": {"path": str(folder)}})
    api = daemon.api
    write_bundle(folder / "late", name="late")
    for _ in range(2):
        api.raw(TINY_IMAGE, "/v1/models/late/infer").error(404, "model_not_found")
    api.post("/v1/models/late/unload").error(404, "model_not_found")
    api.post("/v1/models/absent/load").error(404, "model_not_found")
    assert "late" not in {model["name"] for model in api.get("/v1/models").json()["models"]}
    assert api.post("/v1/models/late/load").json()["state"] == "ready"
    assert api.raw(TINY_IMAGE, "/v1/models/late/infer").status == 200
    api.post("/v1/models/absent/load").error(404, "model_not_found")
    launcher.stop(daemon)


@pytest.mark.parametrize(
    ("models", "said"),
    [({"load": ["nothing"]}, "nothing"), ({"path": "/no/such/folder"}, "/no/such/folder")],
)
def test_models_that_are_not_there_stop_the_start(
    launcher: Launcher, models: dict[str, Any], said: str
) -> None:
    ended = launcher.refused({"models": models})
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_many_connections_are_kept_open(daemon: Daemon, image: Image8) -> None:
    address = daemon.url.removeprefix("http://")
    connections = [http.client.HTTPConnection(address, timeout=30) for _ in range(60)]
    for _ in range(3):
        for connection in connections:
            connection.request(
                "POST", "/v1/infer", image.tobytes(), {"Content-Type": "application/octet-stream"}
            )
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.getheader("Connection") != "close"
            assert json.loads(answer.read())["exits"] == 5
    for connection in connections:
        connection.close()


def test_the_ready_line_is_there_at_any_level(launcher: Launcher) -> None:
    daemon = launcher.start({"log": {"level": "error"}})
    assert [line for line in daemon.log().splitlines() if line.strip()][-1].endswith(
        f"ready on {daemon.url} and {daemon.unix_url}"
    )
    launcher.stop(daemon)
