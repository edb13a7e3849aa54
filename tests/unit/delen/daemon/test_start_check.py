"""With what a daemon does not start, and how that is said."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delen.commands.doctor_checks import check_configuration
from delen.daemon.config import read_config
from delen.daemon.reload import Reloader
from delen.daemon.start_check import check_start
from delen.errors import ConfigError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"server": {"tls_cert": "c.pem"}}, "server.tls_cert"),
    ({"server": {"token_file": "nope"}}, "server.token_file"),
    ({"server": {"host": "0.0.0.0"}}, "server.host"),
    ({"policies": {"exit": "nonsense"}}, "policies.exit"),
    ({"power": {"mode": "15W"}}, "power.switch_modes"),
    ({"power": {"source": "model"}, "energy": {"watt_cap_w": 5}}, "power.trust_model"),
    ({"policies": {"dispatch": "nonsense"}}, "policies.dispatch"),
    ({"energy": {"controller": "nonsense"}}, "energy.controller"),
    ({"policies": {"exit": "conditions", "conditions": "/nope.json"}}, "policies.conditions"),
    ({"policies": {"conditions": "/nope.json"}}, "policies.exit"),
    ({"policies": {"disagreement": 0.1}}, "policies.exit"),
    ({"policies": {"exit": "apparate", "audit_fraction": 0}}, "policies.exit"),
    ({"tenants": {"users": ["nobodyx=cam"]}}, "tenants.users"),
    ({"tenants": {"users": ["root=a b"]}}, "tenants.users"),
    ({"models": {"path": "/nope"}}, "models.path"),
    ({"models": {"load": ["nope"]}}, "models.load"),
    ({"models": {"default": "nope"}}, "models.default"),
    ({"models": {"default": ""}}, "models.default"),
    ({"models": {"load": [".."]}}, "models.load"),
    ({"power": {"root": "/nope"}}, "power.root"),
    ({"state": {"path": __file__}}, "state.path"),
    ({"traces": {"endpoint": "nope"}}, "traces.endpoint"),
]


def write(file: Path, given: Mapping[str, Mapping[str, Any]]) -> None:
    lines = []
    for section, table in given.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(table[key])}" for key in table)]
    file.write_text("\n".join(lines))


@pytest.mark.parametrize(("given", "key"), WRONG)
def test_what_stops_the_start_is_said_with_file_and_key(
    tmp_path: Path, given: dict[str, Any], key: str
) -> None:
    file = tmp_path / "delen.toml"
    write(file, given)
    config = read_config(file, {})
    with pytest.raises(ConfigError) as told:
        check_start(config)
    assert str(told.value).startswith(f"{file}: ")
    assert key in str(told.value)
    found = check_configuration(config)
    assert (found.state, found.found) == ("wrong", str(told.value))


def test_what_stops_the_start_is_said_with_its_variable() -> None:
    with pytest.raises(ConfigError, match=r"^DELEN_POLICIES__EXIT: policies\.exit: "):
        check_start(read_config(None, {"DELEN_POLICIES__EXIT": "nonsense"}))


def test_conditions_have_to_fit_the_models_that_are_loaded(tmp_path: Path) -> None:
    file = tmp_path / "conditions.json"
    file.write_text("[]")
    given = {"DELEN_POLICIES__EXIT": "conditions", "DELEN_POLICIES__CONDITIONS": str(file)}
    with pytest.raises(ConfigError, match=r"policies\.conditions.*5 exits"):
        check_start(read_config(None, given))


def test_the_defaults_start() -> None:
    config = read_config(None, {})
    assert check_start(config).tls is None
    assert check_configuration(config).state == "ok"


def test_doctor_names_a_learnt_policy_that_is_damaged_though_the_daemon_starts(
    tmp_path: Path,
) -> None:
    file = tmp_path / "learnt.npz"
    file.write_bytes(b"cut off")
    config = read_config(None, {"DELEN_POLICIES__DISPATCH": f"bcedge:{file}"})
    check_start(config)
    check = check_configuration(config)
    assert check.state == "wrong" and "delen train-policy" in check.remedy
    assert check.found.startswith(f"policies.dispatch: {file} is damaged: it is not an .npz file")


def test_a_passed_socket_is_as_exposed_as_a_host() -> None:
    config = read_config(None, {"DELEN_SERVER__GRPC_PORT": "-1"})
    with pytest.raises(ConfigError, match=r"server\.host 0\.0\.0\.0"):
        check_start(config, ["0.0.0.0"])
    exposed = read_config(None, {"DELEN_SERVER__GRPC_PORT": "-1", "DELEN_SERVER__HOST": "0.0.0.0"})
    assert check_start(exposed, []).warnings == ()


def test_what_this_user_may_not_read_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.touch()
    read_text = Path.read_text

    def denied(path: Path, encoding: str) -> str:
        if path == file:
            raise PermissionError(errno.EACCES, "Permission denied")
        return read_text(path, encoding)

    monkeypatch.setattr(Path, "read_text", denied)
    config = read_config(None, {"DELEN_SERVER__TOKEN_FILE": str(file)})
    assert check_configuration(config).state == "unknown"


def test_a_reload_refuses_what_the_next_start_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("delen.daemon.reload.configure_logs", lambda *given: None)
    file = tmp_path / "delen.toml"
    write(file, {})
    before = read_config(file, {})
    guard = SimpleNamespace(read=lambda: None, use=lambda token: None)
    runtime = SimpleNamespace(store=SimpleNamespace(scan=dict, use=lambda found: None))
    parts: Any = (guard, None, runtime, SimpleNamespace())
    reloader = Reloader(before, file, partial(check_start, passed=None), *parts)

    write(file, {"policies": {"exit": "nonsense"}, "log": {"level": "debug"}})
    with caplog.at_level(logging.INFO, "delen"):
        reloader.reload()
    assert reloader.config is before
    assert "nothing reloaded" in caplog.text
    assert f"{file}: policies.exit" in caplog.text and "'nonsense'" in caplog.text

    write(file, {"log": {"level": "debug"}})
    reloader.reload()
    assert reloader.config["log.level"] == "debug"
