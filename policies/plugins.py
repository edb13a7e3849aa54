"""Plug-ins by name, found by entry point, so that an app can ship its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np

from delen.core.dispatch import DispatchPolicy, Group, Key, ModelView, NoFeedback, Turn
from delen.errors import ConfigError, DelenError
from policies.client.api import ClientController
from policies.fleet.api import FleetPolicy
from policies.learnt import Damaged

EXIT_POLICIES = "delen.exit_policies"
DISPATCH_POLICIES = "delen.dispatch_policies"
ENERGY_CONTROLLERS = "delen.energy_controllers"
CLIENT_CONTROLLERS = "delen.client_controllers"
FLEET_POLICIES = "delen.fleet_policies"


def plugin_names(group: str) -> list[str]:
    """The names of all entry points of ``group``, in alphabetical order."""
    return sorted({point.name for point in entry_points(group=group)})


def find_plugin(group: str, name: str) -> Callable[..., Any]:
    """A maker of what the entry point ``name`` of ``group`` names.

    ConfigError lists those that there are, or says why it cannot be loaded; the maker raises one
    that says why it cannot be made, unless the plug-in itself raised a DelenError.
    """
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"{group} has no {name!r}; installed: {known}")
    point = found[name]
    try:
        plugin = point.load()
    except Exception as error:
        raise ConfigError(f"{_described(point)} cannot be loaded: {_why(error)}") from error

    def make(*given: Any, **options: Any) -> Any:
        try:
            return plugin(*given, **options)
        except DelenError:
            raise
        except Exception as error:
            raise ConfigError(f"{_described(point)} cannot be made: {_why(error)}") from error

    return make


def make_dispatch(name: str) -> DispatchPolicy:
    """A new dispatch policy; ConfigError says why there is none by this ``name``.

    ``NAME:FILE`` is one that was learnt, and FILE what `delen train-policy` wrote. Where that is
    damaged, the policy is one that fails in each call, so that the default decides.
    """
    name, colon, file = name.partition(":")
    make = find_plugin(DISPATCH_POLICIES, name)
    if colon and not file:
        raise ConfigError(f"{name}: has no file: name the file behind the colon, or leave it out")
    policy: DispatchPolicy = make() if not file else _learnt(name, make, file)
    _check_calls(policy, f"the dispatch policy {name!r}", ("choose", "ran", "ended"))
    return policy


def _learnt(name: str, make: Callable[..., Any], file: str) -> DispatchPolicy:
    path = Path(file)
    called = f"{name}:{path.stem}"
    if path.exists() and not path.is_file():
        raise ConfigError(f"{name}:{file}: it must be a file, and is a folder or a device")
    try:
        read = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}:{file}: the file cannot be read: {error}") from error
    try:
        if not is_zipfile(BytesIO(read)):  # numpy would offer to unpickle it
            return DamagedPolicy(
                called, f"{file} is damaged: it is not an .npz file, or is cut off"
            )
        with np.load(BytesIO(read)) as arrays:
            learnt = dict(arrays)
    except Exception as error:
        return DamagedPolicy(called, f"{file} is damaged: {_why(error)}")
    try:
        policy: DispatchPolicy = make(learnt=learnt)
    except ConfigError as error:
        if isinstance(error.__cause__, Damaged):
            return DamagedPolicy(called, f"{file} is damaged: {error.__cause__}")
        if isinstance(error.__cause__, TypeError):
            raise ConfigError(f"{name}:{file}: {name} reads no file; leave it out") from error
        raise
    policy.name = called
    return policy


class DamagedPolicy(NoFeedback):
    """Fails in each choice, so that the default decides. ``problem`` says why."""

    def __init__(self, name: str, problem: str) -> None:
        self.name, self.problem = name, problem

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        raise Damaged(self.problem)


def make_controller(name: str) -> ClientController:
    """A new client controller; ConfigError says why there is none by this ``name``."""
    controller: ClientController = find_plugin(CLIENT_CONTROLLERS, name)()
    _check_calls(controller, f"the client controller {name!r}", ("choose", "ended"))
    return controller


def make_fleet(name: str) -> FleetPolicy:
    """A new fleet policy; ConfigError says why there is none by this ``name``."""
    policy: FleetPolicy = find_plugin(FLEET_POLICIES, name)()
    _check_calls(policy, f"the fleet policy {name!r}", ("coordinate", "route"))
    return policy


def _check_calls(plugin: object, described: str, calls: Sequence[str]) -> None:
    for call in calls:
        if not callable(getattr(plugin, call, None)):
            raise ConfigError(f"{described} has no {call}()")


def _described(point: EntryPoint) -> str:
    package = "" if point.dist is None else f" of {point.dist.name}"
    return f"{point.group} {point.name!r} ({point.value}{package})"


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
