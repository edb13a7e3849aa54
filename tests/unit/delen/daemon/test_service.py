"""The daemon as a service of systemd: its units, and the commands that install and show it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest

from delen.daemon.main import main
from delen.daemon.service import SERVICE, SOCKET, UNITS
from delen.daemon.settings import SETTINGS
from delen.sdk.address import SYSTEM_SOCKET

MOST_EXPOSURE = 2.0
PROGRAM = "/opt/delen/bin/delen-daemon"
SYSTEM = UNITS / "system"


def unit(file: Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(file)
    return parser


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delen.daemon.service._program", lambda: PROGRAM)


@pytest.fixture
def analyze(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs systemd-analyze on the units, whose program is there."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("there is no systemd-analyze here")

    def run(*arguments: str, kind: str) -> subprocess.CompletedProcess[str]:
        files = [tmp_path / name for name in (SERVICE, SOCKET)]
        for file in files:
            text = (UNITS / kind / file.name).read_text()
            file.write_text(text.replace("@DAEMON@", "/bin/true"))
        named = files if arguments[0] == "verify" else files[:1]
        command = [tool, *arguments, *map(str, named)]
        return subprocess.run(command, capture_output=True, text=True)

    return run


# --- units


def test_the_socket_unit_listens_where_clients_look_and_lets_its_group_in() -> None:
    listened = re.findall("^ListenStream=(.*)$", (SYSTEM / SOCKET).read_text(), re.MULTILINE)
    defaults = {s.name: s.default for s in SETTINGS}
    assert listened == [f"{defaults['server.host']}:{defaults['server.port']}", SYSTEM_SOCKET]
    socket = unit(SYSTEM / SOCKET)["Socket"]
    assert socket["Service"] == SERVICE
    assert (socket["SocketMode"], socket["SocketGroup"]) == ("0660", "delen")
    assert unit(SYSTEM / SERVICE)["Unit"]["Requires"] == SOCKET
    service = unit(SYSTEM / SERVICE)["Service"]
    assert "RuntimeDirectory" not in service, "systemd would remove the socket with it"


@pytest.mark.parametrize("kind", ["system", "user"])
def test_the_service_is_restarted_but_for_a_configuration_that_cannot_be_served(kind: str) -> None:
    service = unit(UNITS / kind / SERVICE)["Service"]
    assert service["Type"] == "notify"
    assert service["RestartPreventExitStatus"] == "2"
    assert service["KillSignal"] == "SIGTERM"
    assert service["ExecReload"].endswith("-HUP $MAINPID")
    (drain,) = (s.default for s in SETTINGS if s.name == "server.drain_seconds")
    assert float(service["TimeoutStopSec"]) >= drain + 15


@pytest.mark.parametrize("kind", ["system", "user"])
def test_systemd_takes_the_units(
    analyze: Callable[..., subprocess.CompletedProcess[str]], kind: str
) -> None:
    flag = ["--user"] if kind == "user" else []
    ended = analyze("verify", "--man=no", *flag, kind=kind)
    said = [line for line in ended.stderr.splitlines() if SERVICE in line or SOCKET in line]
    assert not said


def test_the_service_is_little_exposed(
    analyze: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = analyze("security", "--offline=true", "--no-pager", kind="system")
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", ended.stdout)
    if found is None:
        pytest.skip(f"this systemd-analyze rates no files: {ended.stderr}")
    assert float(found[1]) <= MOST_EXPOSURE, ended.stdout


# --- commands


def test_install_writes_units_that_start_this_daemon_and_uninstall_removes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "--root", str(tmp_path)]) == 0
    files = sorted(
        str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()
    )
    assert files == [
        "etc/systemd/system/delen-daemon.service",
        "etc/systemd/system/delen.socket",
        "etc/sysusers.d/delen.conf",
    ]
    assert [line for line in capsys.readouterr().out.splitlines() if files[0] in line]
    assert unit(tmp_path / files[0])["Service"]["ExecStart"] == PROGRAM
    users = (tmp_path / files[2]).read_text()
    assert re.search(r"^u delen ", users, re.MULTILINE)
    assert main(["uninstall", "--root", str(tmp_path)]) == 0
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_root_that_is_no_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "--root", str(tmp_path / "absent")]) == 2
    assert "--root" in capsys.readouterr().err
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("option", [["--config", "/x.toml"], ["--print-config"]])
def test_a_configuration_that_the_service_would_not_read_is_refused(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*option, "install", "--root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "/etc/delen/delen.toml" in said and "DELEN_CONFIG" in said
    assert [*tmp_path.iterdir()] == []


def test_a_program_that_the_service_would_not_see_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("delen.daemon.service._program", lambda: "/home/me/venv/bin/delen-daemon")
    assert main(["install", "--root", str(tmp_path)]) == 2
    assert "/home/me/venv" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


SYSTEMCTL = """#!/bin/sh
echo "$*" >> {calls}
{every}
case "$*" in
*show*) printf 'ActiveState=active\\nSubState=running\\nUnitFileState=enabled\\nNRestarts=2\\n' ;;
*enable*) {enable} ;;
esac
"""


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a systemctl first that notes how it is called, and a home folder for its units."""

    def make(enable: str = "true", every: str = "true") -> Path:
        calls, tool = tmp_path / "calls", tmp_path / "bin" / "systemctl"
        tool.parent.mkdir()
        tool.write_text(SYSTEMCTL.format(calls=calls, enable=enable, every=every))
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:/bin:/usr/bin")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        return calls

    return make


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_the_units_of_a_package_are_left_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "lib/systemd/system").mkdir(parents=True)
    (tmp_path / "lib/systemd/system" / SERVICE).touch()
    assert main([command, "--root", str(tmp_path)]) == 1
    assert "systemctl enable --now" in capsys.readouterr().err
    assert not (tmp_path / "etc").exists()


def test_a_users_service_is_installed_and_started(
    systemctl: Callable[..., Path], tmp_path: Path
) -> None:
    calls = systemctl()
    assert main(["install", "--user"]) == 0
    folder = tmp_path / "config" / "systemd" / "user"
    assert unit(folder / SERVICE)["Service"]["ExecStart"] == PROGRAM
    started = f"--user enable --now {SOCKET} {SERVICE}"
    assert calls.read_text().splitlines() == ["--user daemon-reload", started]
    assert main(["uninstall", "--user"]) == 0
    assert [*folder.iterdir()] == []
    assert f"--user disable --now {SOCKET} {SERVICE}" in calls.read_text()


def test_what_systemd_refuses_is_said(
    systemctl: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    systemctl(enable="echo no bus here >&2; exit 1")
    assert main(["install", "--user"]) == 1
    assert "no bus here" in capsys.readouterr().err


def test_where_no_systemd_answers_files_come_and_go_and_what_is_left_is_said(
    systemctl: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    systemctl(every="echo no bus here >&2; exit 1")
    monkeypatch.setenv("DELEN_URL", "http://127.0.0.1:1")
    folder = tmp_path / "config" / "systemd" / "user"
    assert main(["status", "--user"]) == 1
    assert capsys.readouterr().out.count("not installed") == 2
    assert main(["install", "--user"]) == 1
    assert f"systemctl --user enable --now {SOCKET} {SERVICE}" in capsys.readouterr().err
    assert main(["status", "--user"]) == 1
    assert str(folder / SERVICE) in capsys.readouterr().out
    enabled = folder / "default.target.wants" / SERVICE
    enabled.parent.mkdir()
    enabled.symlink_to(folder / SERVICE)
    assert main(["uninstall", "--user"]) == 1
    said = capsys.readouterr().err
    assert "no bus here" in said and f"systemctl --user stop {SOCKET} {SERVICE}" in said
    assert [*folder.glob("**/delen*")] == [] and not enabled.is_symlink()
    assert main(["uninstall", "--user"]) == 0
    assert "nothing is installed" in capsys.readouterr().out


def test_status_shows_units_and_whether_the_daemon_answers(
    systemctl: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    systemctl()
    monkeypatch.setenv("DELEN_URL", "http://127.0.0.1:1")
    assert main(["status", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["units"][SERVICE]["ActiveState"] == "active"
    assert shown["daemon"]["ready"] is False
    assert main(["status"]) == 1
    text = capsys.readouterr().out
    assert "active (running), enabled, 2 restarts" in text
    assert "http://127.0.0.1:1" in text
