"""What ``delen doctor`` tries out: each check says what it found, and what helps."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from delen.errors import DelenError, MissingExtra

if TYPE_CHECKING:
    from delen.bundle.manifest import Bundle
    from delen.daemon.config import Config
    from delen.engine.backends.base import Network
    from delen.profile.profile import Profile

State = Literal["ok", "wrong", "unknown"]

_LEAST_MEMORY = 256e6
_LEAST_DISK = 100e6
"""Bytes."""
_MEMORY = Path("/proc/meminfo")
_OLD = 365
"""Days."""


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    remedy: str | None = None


def check_configuration(config: Config) -> Check:
    """Whether the daemon starts with ``config``. What this user may not read is unknown."""
    from delen.daemon.start_check import check_start
    from policies.plugins import DamagedPolicy, make_dispatch

    try:
        tls = check_start(config).tls
    except MissingExtra as error:
        state: State = "unknown" if error.extra == "daemon" else "wrong"
        return Check("config", state, str(error))
    except DelenError as error:
        if isinstance(error.__cause__, PermissionError):
            return Check("config", "unknown", str(error), "run this as the daemon's user")
        return Check("config", "wrong", str(error))
    if tls is not None and (warning := tls.warning()) is not None:
        return Check("config", "wrong", warning)
    policy = make_dispatch(config["policies.dispatch"])
    if isinstance(policy, DamagedPolicy):
        remedy = "copy the file again, or make it with delen train-policy"
        return Check("config", "wrong", f"policies.dispatch: {policy.problem}", remedy)
    return Check("config", "ok", "the daemon's start finds nothing wrong in it")


def check_provider(network: Network, exits: int, asked: str) -> Check:
    """Whether ``network``, all of whose segments are loaded, runs where ``asked`` for."""
    placement = network.placement
    began = time.perf_counter()
    try:
        for segment in range(exits):
            network.run(segment, [network.blank(segment)])
    except DelenError as error:
        return Check("provider", "wrong", f"{placement.provider} fails: {error}", _OF_PROVIDERS)
    taken = f"{1e3 * (time.perf_counter() - began):.1f} ms"
    found = f"{placement.provider} ran all {exits} segments, the first time in {taken}"
    if placement.provider == "cpu" and (offered := _accelerators(placement.runtime)):
        found += f", though {' and '.join(offered)} is offered"
        if asked == "auto":
            return Check("provider", "wrong", found, _OF_PROVIDERS)
    return Check("provider", "ok", found)


_OF_PROVIDERS = "compare the versions of CUDA and cuDNN with the wheel's (docs/jetson.md, step 2)"


def _accelerators(runtime: str) -> list[str]:
    if runtime != "onnxruntime":
        return []
    import onnxruntime

    wanted = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
    return [name for name in wanted if name in onnxruntime.get_available_providers()]


def check_socket(path: str, group: str) -> Check:
    """Whether this user may connect to the daemon's Unix socket, or make it where it is not."""
    from delen.sdk.address import connect_problem

    if not path:
        return Check("socket", "ok", "server.socket is empty: clients use TCP")
    file = Path(path)
    try:
        status = file.stat()
    except FileNotFoundError:
        return _of_folder(file)
    except OSError as error:
        reason = error.strerror or str(error)
        return Check("socket", "wrong", f"{path}: {reason}", "let this user into its folder")
    rights = f"{path}, mode {status.st_mode & 0o777:04o}, group {_group_name(status.st_gid)}"
    if not os.access(file, os.W_OK):
        name = group or _group_name(status.st_gid)
        return Check(
            "socket",
            "wrong",
            f"{rights}: this user may not connect",
            f"sudo usermod -aG {name} USER, then log in again; or DELEN_URL with TCP",
        )
    problem = connect_problem(path)
    if problem is not None:
        return Check("socket", "unknown", f"{rights}: no daemon answers there ({problem})")
    return Check("socket", "ok", f"{rights}: this user may connect")


def _of_folder(file: Path) -> Check:
    folder = file.parent
    if not folder.is_dir():
        return Check(
            "socket",
            "wrong",
            f"{file}: there is no folder {folder}",
            "make it, or name another file as server.socket",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check(
            "socket",
            "unknown",
            f"{file} is not there, and this user may not make it",
            "start the daemon as a service: sudo delen-daemon install",
        )
    return Check("socket", "ok", f"{file} is not there yet; this user may make it")


def _group_name(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def check_clocks(root: Path) -> Check:
    """Whether the clocks and cores are those of the mode that nvpmodel's status names."""
    from power.modes.nvpmodel import mode_in_force, not_in_force, read_conf

    conf = read_conf(root)
    if conf is None:
        return Check(
            "clocks", "unknown", "there is no nvpmodel, so nobody says what they should be"
        )
    number = mode_in_force(root, conf)
    model = conf.model(number)
    if model is None:
        return Check(
            "clocks",
            "wrong",
            f"nvpmodel's status names {'no mode' if number is None else f'mode {number}'}, "
            "which its configuration has not",
            "set a mode: sudo nvpmodel -m NUMBER",
        )
    if (differs := not_in_force(root, conf, model)) is not None:
        return Check(
            "clocks",
            "wrong",
            f"nvpmodel says {model.name}, and {differs}",
            f"set it again on the host: sudo nvpmodel -m {model.id}; profiles are filed by both",
        )
    return Check("clocks", "ok", f"as nvpmodel's mode {model.name} sets them")


def check_memory(needed: float, file: Path = _MEMORY) -> Check:
    """Whether there is memory for a model that takes ``needed`` bytes."""
    available = _available_memory(file)
    if available is None:
        return Check("memory", "unknown", f"{file} does not say what is free")
    found = f"{available / 1e6:.0f} MB free; the default model takes {needed / 1e6:.0f} MB"
    if available < needed + _LEAST_MEMORY:
        remedy = "end other programs, or serve in less with models.memory_mb (docs/memory.md)"
        return Check("memory", "wrong", found, remedy)
    return Check("memory", "ok", found)


def _available_memory(file: Path) -> float | None:
    """Bytes."""
    try:
        lines = file.read_text("utf-8").splitlines()
        return next(1024 * float(line.split()[1]) for line in lines if line.startswith("MemAvai"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def check_disk(state: Path) -> Check:
    """Whether what is kept in ``state`` can be written."""
    folder = next(each for each in (state, *state.absolute().parents) if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        found = f"{state}: this user may not write {folder}"
        remedy = "set state.path to a folder of the daemon's user, or run this as that user"
        return Check("disk", "wrong", found, remedy)
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e6:.0f} MB free for {state}"
    if free < _LEAST_DISK:
        return Check(
            "disk", "wrong", found, "make room: profiles, budgets and energies are kept there"
        )
    return Check("disk", "ok", found)


def check_profile(profile: Profile | None, bundle: Bundle) -> Check:
    """Whether the profile of ``bundle`` is of a calm machine, and not very old."""
    again = "stop the daemon and run delen profile"
    if profile is None:
        return Check("profile", "unknown", f"none of {bundle.name} in this power mode yet", again)
    days = _age(profile.created)
    found = f"of {profile.created}" if days is None else f"{days} days old"
    if profile.busy:
        return Check("profile", "wrong", f"{found}, of a busy machine", again)
    if days is not None and days > _OLD:
        return Check("profile", "wrong", f"{found}; the device may have changed since", again)
    how = (
        "nobody noted how busy the machine was" if profile.measured is None else "of a calm machine"
    )
    return Check("profile", "ok", f"{found}, {how}")


def _age(created: str) -> int | None:
    """Days since then; None where that is no time."""
    try:
        moment = datetime.fromisoformat(created.replace("Z", "+00:00"))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0, (datetime.now(timezone.utc) - moment).days)


def check_calm() -> Check:
    """Whether other programs leave the processor alone now, as measuring needs it."""
    from delen.measure.disturbance import is_calm

    if is_calm():
        return Check("calm", "ok", "other programs leave the processor alone now")
    return Check(
        "calm", "wrong", "other programs have the processor now", "end them before delen profile"
    )


def lines_of(checks: Iterable[Mapping[str, Any]]) -> list[str]:
    """``checks`` for people."""
    marks = {"ok": "ok", "wrong": "!!", "unknown": "??"}
    lines = []
    for check in checks:
        lines.append(f"{marks[check['state']]} {check['name']:<9} {check['found']}")
        if check["remedy"]:
            lines.append(f"{'':13}remedy: {check['remedy']}")
    return lines


def check_device(config: Config, root: Path) -> list[Check]:
    """What does not need a model."""
    return [
        check_socket(config["server.socket"], config["server.socket_group"]),
        check_clocks(root),
        check_disk(Path(config["state.path"])),
        check_calm(),
    ]
