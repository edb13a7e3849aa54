from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.daemon.config import Config, config_of, read_config
from delen.daemon.settings import SETTINGS, Setting
from delen.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WRONG: dict[type, list[Any]] = {
    str: [3, True, ["a"]],
    bool: ["true", 1, 0.0, ["a"]],
    int: ["3", 1.5, True, [1]],
    float: ["3", True, [1.5]],
    list: ["a", 3, [1]],
}
OUT_OF_RANGE = {
    "server.port": [-1, 65536],
    "server.threads": [0, 1025],
    "server.max_body_mb": [0.0, -1.0, float("nan")],
    "server.max_backlog_seconds": [0.0, float("inf"), float("nan")],
    "server.drain_seconds": [-1.0, 3601.0],
    "device.backend": ["gpu", ""],
    "device.threads": [0, -1],
    "device.instances": [-1, 65],
    "power.source": ["solar"],
    "power.watts_per_core": [0.0, 2000.0],
    "power.total_rails": [["VDD_IN", "VDD_IN"]],
    "power.interval_ms": [0.0, 20_000.0],
    "power.window_seconds": [0.5, 61.0],
    "power.receipts": [-1],
    "energy.min_accuracy": [-0.1, 1.1],
    "energy.watt_cap_w": [-1.0, float("nan")],
    "energy.battery_wh": [-1.0],
    "energy.battery_reserve_wh": [-1.0],
    "energy.battery_minutes": [-1.0],
    "energy.thermal_margin_c": [-1.0, 101.0],
    "policies.quantile": [0.4, 0.999],
    "policies.guarantee": [0.0, 1.0],
    "policies.tolerance": [-0.1, 0.6],
    "tenants.users": [["camera"], ["=camera"], ["app="]],
    "tenants.most": [0],
    "server.socket_mode": ["0777", "660"],
    "server.host": [""],
    "state.path": [" "],
    "log.level": ["trace", "INFO"],
    "log.format": ["xml"],
}


@pytest.fixture(autouse=True)
def no_system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delen.daemon.config.SYSTEM_FILE", tmp_path / "system.toml")


def write(folder: Path, text: str) -> Path:
    file = folder / "delen.toml"
    file.write_text(text)
    return file


def refusal(file: Path | None, environment: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(file, environment)
    return str(caught.value)


def toml(config: Config) -> dict[str, Any]:
    document = tomllib.loads(config.to_toml())
    return {f"{s}.{key}": value for s, table in document.items() for key, value in table.items()}


def test_without_anything_the_defaults_are_in_force() -> None:
    config = read_config(None, {"PATH": "/bin", "DELEN_URL": "unix:///x", "DELEN_TEST_DATA": "/x"})
    assert config.values == {setting.name: setting.default for setting in SETTINGS}
    assert set(config.origins.values()) == {"default"}
    assert (config["server.host"], config["server.port"]) == ("127.0.0.1", 8000)
    assert config["models.default"] == "cifar10-resnet"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_default_keeps_its_own_rules(setting: Setting) -> None:
    assert config_of({setting.name: setting.default})[setting.name] == setting.default


def test_the_environment_overrides_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, '[server]\nport = 9000\nhost = "::1"\nmax_body_mb = 8\n')
    config = read_config(
        file, {"DELEN_SERVER__PORT": "9001", "DELEN_MODELS__LOAD": "a, b,", "DELEN_X": "1"}
    )
    assert config["server.port"] == 9001
    assert config["server.host"] == "::1"
    assert config["server.max_body_mb"] == 8.0
    assert type(config["server.max_body_mb"]) is float
    assert config["models.load"] == ["a", "b"]
    assert config.origins["server.port"] == "DELEN_SERVER__PORT"
    assert config.origins["server.host"] == str(file)
    assert config.origins["server.threads"] == "default"


def test_the_file_is_the_one_given_else_the_variables_else_the_systems(tmp_path: Path) -> None:
    given, named = write(tmp_path, "[server]\nport = 1\n"), tmp_path / "named.toml"
    named.write_text("[server]\nport = 2\n")
    (tmp_path / "system.toml").write_text("[server]\nport = 3\n")
    variable = {"DELEN_CONFIG": str(named)}
    assert read_config(given, variable)["server.port"] == 1
    assert read_config(None, variable)["server.port"] == 2
    assert read_config(None, {})["server.port"] == 3


def test_a_file_that_is_asked_for_has_to_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert f"{missing} cannot be read" in refusal(missing, {})
    assert f"{missing} cannot be read" in refusal(None, {"DELEN_CONFIG": str(missing)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server\n", "is not TOML"),
        ("[server]\nport = 1\nport = 2\n", "line 3"),
        ("port = 1\n", "unknown section [port]"),
        ("server = 3\n", "server must be a section"),
        (
            "[sever]\nport = 1\n",
            "unknown section [sever]; known: device, energy, fleet, log",
        ),
        ("[server]\nprot = 1\n", "unknown key server.prot; known: host, port"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_key(
    tmp_path: Path, text: str, message: str
) -> None:
    file = write(tmp_path, text)
    refused = refusal(file, {})
    assert refused.startswith(str(file))
    assert message in refused


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "delen.toml"
    file.write_bytes(b"\xff\xfe")
    assert refusal(file, {}).startswith(f"{file} is not TOML")


WRONG_VALUES = [(s, value) for s in SETTINGS for value in WRONG[type(s.default)]] + [
    (s, value) for s in SETTINGS for value in OUT_OF_RANGE.get(s.name, [])
]


def _name(value: Any) -> str:
    return value.name if isinstance(value, Setting) else str(value)


@pytest.mark.parametrize(("setting", "value"), WRONG_VALUES, ids=_name)
def test_a_wrong_value_in_a_file_is_refused_with_file_key_and_value(
    tmp_path: Path, setting: Setting, value: Any
) -> None:
    text = {True: "true"}.get(value, repr(value)) if isinstance(value, bool) else repr(value)
    file = write(tmp_path, f"[{setting.section}]\n{setting.key} = {text}\n")
    refused = refusal(file, {})
    assert refused.startswith(f"{file}: {setting.name} ")
    assert repr(value) in refused


@pytest.mark.parametrize(
    ("setting", "value"),
    [(s, value) for s in SETTINGS for value in OUT_OF_RANGE.get(s.name, [])],
    ids=_name,
)
def test_a_wrong_value_in_the_environment_is_refused_with_the_variable(
    setting: Setting, value: Any
) -> None:
    text = ",".join(value) if isinstance(value, list) else str(value)
    assert refusal(None, {setting.variable: text}).startswith(f"{setting.variable} is")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_text_in_the_environment_is_read_as_the_settings_type(setting: Setting) -> None:
    if isinstance(setting.default, (int, float)):
        message = refusal(None, {setting.variable: "many"})
        assert message.startswith(f"{setting.variable} must be ")
    default = setting.default
    text = ",".join(default) if isinstance(default, list) else str(default)
    config = read_config(None, {setting.variable: text})
    assert config[setting.name] == default
    assert type(config[setting.name]) is type(default)
    assert config.origins[setting.name] == setting.variable


def test_an_unknown_variable_is_refused_with_those_that_are_known() -> None:
    known = refusal(None, {"DELEN_SERVER__PROT": "1"})
    assert "unknown variable DELEN_SERVER__PROT" in known
    assert "DELEN_SERVER__PORT" in known
    assert "DELEN_SERVER__..." in refusal(None, {"DELEN_SEVER__PORT": "1"})


def test_a_variable_that_lacks_an_underscore_is_refused_with_the_one_that_is_meant() -> None:
    assert "write DELEN_SERVER__PORT" in refusal(None, {"DELEN_SERVER_PORT": "1"})
    assert "write DELEN_MODELS__MEMORY_MB" in refusal(None, {"DELEN_MODELS_MEMORY_MB": "1"})


def test_what_is_in_force_is_printed_as_toml_with_its_origins(tmp_path: Path) -> None:
    file = write(tmp_path, '[models]\nload = ["a", "b"]\n[policies]\nquantile = 0.9\n')
    config = read_config(file, {"DELEN_SERVER__PORT": "81"})
    assert toml(config) == config.values
    lines = config.to_toml().splitlines()
    assert "port = 81  # DELEN_SERVER__PORT" in lines
    assert f'load = ["a", "b"]  # {file}' in lines
    assert 'host = "127.0.0.1"  # default' in lines


@given(st.text(st.characters(codec="utf-8")), st.lists(st.text(st.characters(codec="utf-8"))))
def test_any_text_survives_printing(path: str, names: list[str]) -> None:
    config = config_of({"models.path": path, "models.load": names})
    assert toml(config) == config.values


def test_arguments_are_checked_like_a_file() -> None:
    config = config_of({"device.threads": 3})
    assert (config["device.threads"], config.origins["device.threads"]) == (3, "argument")
    with pytest.raises(ConfigError, match=r"device\.threads must be a whole number"):
        config_of({"device.threads": "3"})
    with pytest.raises(ConfigError, match=r"device\.backend is 'gpu'; it must be one of auto"):
        config_of({"device.backend": "gpu"})
