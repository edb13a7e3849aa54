"""``delen-daemon install``, ``uninstall`` and ``status``: the daemon as a service of systemd."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delen.daemon.config import FILE_VARIABLE, SYSTEM_FILE
from delen.errors import ConfigError, DelenError

UNITS = Path(__file__).with_name("units")
SERVICE, SOCKET = "delen-daemon.service", "delen.socket"
_HIDDEN = ("/home", "/root", "/run/user")
"""Folders that the service does not see (ProtectHome)."""
_SHOWN = ("ActiveState", "SubState", "UnitFileState", "StatusText", "NRestarts")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files of a service go, under ``root``, which stands for /: the system's, or those
    of this user where ``is_user``."""

    is_user: bool
    root: Path = Path("/")

    @property
    def files(self) -> dict[Path, Path]:
        """What is copied, by where it goes."""
        if self.is_user:
            config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
            folder = self._under(f"{config}/systemd/user")
            return {folder / name: UNITS / "user" / name for name in (SERVICE, SOCKET)}
        folder = self._under("/etc/systemd/system")
        units = {folder / name: UNITS / "system" / name for name in (SERVICE, SOCKET)}
        users = self._under("/etc/sysusers.d/delen.conf")
        return {**units, users: UNITS / "system" / "sysusers.conf"}

    def unit_file(self, name: str) -> Path | None:
        """The file of a unit, where there is one: that of ``install``, else a package's."""
        files = [file for file in self.files if file.name == name]
        if not self.is_user:
            files.append(self._under(f"/lib/systemd/system/{name}"))
        return next((file for file in files if file.exists()), None)

    @property
    def systemctl(self) -> list[str]:
        return ["systemctl", "--user"] if self.is_user else ["systemctl"]

    @property
    def is_live(self) -> bool:
        """Whether it is this machine's, and not a folder that is to become one's."""
        return self.root == Path("/")

    def _under(self, path: str) -> Path:
        return self.root / path.lstrip("/")


def run_service(options: argparse.Namespace) -> int:
    """One of the three commands; its exit status."""
    place = Place(options.user, getattr(options, "root", None) or Path("/"))
    if options.config is not None or options.print_config:
        raise ConfigError(
            f"{options.command} takes neither --config nor --print-config: the service reads "
            f"{SYSTEM_FILE}, or the file that its unit names by Environment={FILE_VARIABLE}=FILE "
            f"({' '.join(place.systemctl)} edit delen-daemon)"
        )
    if not place.root.is_dir():
        raise ConfigError(f"--root: {place.root} is not a folder")
    if options.command == "status":
        return _show(place, options.json)
    (_install if options.command == "install" else _uninstall)(place)
    return 0


def _install(place: Place) -> None:
    program = _program()
    if not place.is_user and program.startswith(_HIDDEN):
        raise ConfigError(
            f"{program} is in a folder that the service does not see: install delen into one of "
            "its own, such as a virtual environment in /opt/delen"
        )
    _check_package(place)
    _check_systemd(place)
    for target, source in place.files.items():
        text = source.read_text("utf-8").replace("@DAEMON@", program)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
        except OSError as error:
            raise _not_written(target, error) from error
        print(f"wrote {target}")
    if not place.is_live:
        return
    commands = [
        [*place.systemctl, "daemon-reload"],
        [*place.systemctl, "enable", "--now", SOCKET, SERVICE],
    ]
    if not place.is_user:
        commands.insert(0, ["systemd-sysusers", "delen.conf"])
    _run_all(commands, "the files are written")
    print("started; delen-daemon status shows it, and journalctl -u delen-daemon its log")
    if not place.is_user:
        print("apps reach its socket once their users are in its group: usermod -aG delen USER")


def _uninstall(place: Place) -> None:
    """Take away what ``_install`` wrote, also where systemd does not answer. The user, its state
    and its configuration stay."""
    _check_package(place)
    written = [target for target in place.files if target.exists()]
    if not written:
        print(f"nothing is installed: there is no {next(iter(place.files))}")
        return
    has_systemd = place.is_live and shutil.which("systemctl") is not None
    commands = [[*place.systemctl, "daemon-reload"]]
    try:
        if has_systemd:
            _run([*place.systemctl, "disable", "--now", SOCKET, SERVICE])
    except DelenError:
        commands.insert(0, [*place.systemctl, "stop", SOCKET, SERVICE])
    enabled = [link for file in written for link in file.parent.glob(f"*.wants/{file.name}")]
    for file in (*enabled, *written):
        try:
            file.unlink()
        except OSError as error:
            raise _not_written(file, error) from error
        print(f"removed {file}")
    if has_systemd:
        _run_all(commands, "the files are removed")


def _show(place: Place, as_json: bool) -> int:
    """Print what systemd and the daemon itself say; 0 where requests are answered, else 1."""
    units = {name: _unit(place, name) for name in (SERVICE, SOCKET)}
    files = {name: place.unit_file(name) for name in units}
    daemon = _ask_daemon()
    if as_json:
        shown = {name: file and str(file) for name, file in files.items()}
        print(json.dumps({"units": units, "files": shown, "daemon": daemon}, indent=1))
    else:
        for name, unit in units.items():
            print(f"{name:<22}{_line(unit, files[name])}")
        print(f"{'daemon':<22}{daemon['problem'] or 'ready at ' + daemon['url']}")
    return 0 if daemon["ready"] else 1


def _unit(place: Place, name: str) -> dict[str, str] | None:
    """What systemd shows of a unit; None where systemd does not answer."""
    command = [*place.systemctl, "show", name, f"--property={','.join(_SHOWN)}"]
    if shutil.which(command[0]) is None:
        return None
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0:
        return None
    pairs = (line.partition("=") for line in ended.stdout.splitlines())
    return {key: value for key, _, value in pairs if value}


def _line(unit: dict[str, str] | None, file: Path | None) -> str:
    if unit is None:
        return f"systemd does not answer; {f'its file is {file}' if file else 'not installed'}"
    state = f"{unit.get('ActiveState', 'unknown')} ({unit.get('SubState', 'unknown')})"
    installed = unit.get("UnitFileState", "not installed")
    restarts = int(unit.get("NRestarts", "0"))
    parts = [state, installed, f"{restarts} restarts" if restarts else "", unit.get("StatusText")]
    return ", ".join(filter(None, parts))


def _ask_daemon() -> dict[str, Any]:
    """Where clients of this user find the daemon, and whether it answers."""
    import delen
    from delen.sdk.address import find_url

    url = find_url()
    try:
        with delen.Client(url, timeout=5.0) as client:
            client.plan()
    except DelenError as error:
        return {"url": url, "ready": False, "problem": str(error)}
    return {"url": url, "ready": True, "problem": None}


def _program() -> str:
    """What starts the daemon that this is."""
    script = Path(sys.executable).with_name("delen-daemon")
    return str(script) if script.is_file() else f"{sys.executable} -m delen.daemon.main"


def _check_systemd(place: Place) -> None:
    if place.is_live and shutil.which("systemctl") is None:
        raise DelenError("there is no systemctl here: this machine does not run systemd")


def _check_package(place: Place) -> None:
    if not place.is_user and (place.root / "lib/systemd/system" / SERVICE).exists():
        raise DelenError(
            f"a package has installed {SERVICE}: start it with systemctl enable --now {SOCKET} "
            f"{SERVICE}, and remove it with the package"
        )


def _run(command: Sequence[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0:
        said = " ".join(ended.stderr.split()) or f"status {ended.returncode}"
        raise DelenError(f"{' '.join(command)} failed: {said}")


def _run_all(commands: Sequence[Sequence[str]], done: str) -> None:
    """Run them in turn. Where one fails, DelenError says what is ``done``, and what to run yet."""
    for place, command in enumerate(commands):
        try:
            _run(command)
        except DelenError as error:
            left = " && ".join(" ".join(left) for left in commands[place:])
            raise DelenError(f"{error}; {done}: mend that, and run {left}") from error


def _not_written(file: Path, error: OSError) -> DelenError:
    remedy = "; run it as root, or with --user" if isinstance(error, PermissionError) else ""
    return DelenError(f"{file} cannot be changed: {error.strerror or error}{remedy}")
