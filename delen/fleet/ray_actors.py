"""Actors on Ray: one for each node, and the coordinator. The only module that imports Ray."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from delen.daemon.node_caller import Heard, NodeCaller
from delen.errors import ConfigError, MissingExtra
from delen.fleet.config import HubSettings
from delen.fleet.decider import Decider, Decision
from delen.fleet.ray_folder import RayFolder
from delen.fleet.rounds import COORDINATOR, Call
from policies.fleet.api import Standing

_OBJECT_STORE = 80_000_000
_OF_A_PERIOD = 0.9
"""Of it a node has for an answer, so that it is asked again in the next."""
_START_SECONDS = 60.0
_REACH_SECONDS = 5.0
_LOOK_EVERY = 0.2


class RayActors:
    """Joins the cluster that ``RAY_ADDRESS`` names, or starts a Ray of its own on this machine,
    which nobody else can join. An actor that dies is started again by Ray."""

    def __init__(self, settings: HubSettings) -> None:
        self._settings = settings
        self._folder: RayFolder | None = None
        self._ray: Any = None
        self._actors: dict[str, Any] = {}
        self._pending: dict[Any, Call] = {}

    def open(self, stopping: threading.Event) -> None:
        """Start all actors, until ``stopping`` is set. ConfigError says why that cannot be."""
        address = os.environ.get("RAY_ADDRESS")
        if not address:
            os.environ.update(_own_ray())
        try:
            import ray

            logging.getLogger("ray").setLevel(logging.ERROR)
            self._ray = ray
            self._connect(address)
            if stopping.is_set():
                return
            timeout = _OF_A_PERIOD * self._settings.period
            for node in self._settings.nodes:
                self._start(node.name, NodeCaller, node.name, node.url, node.token, timeout)
            self._start(COORDINATOR, Decider)
            self._await_actors(stopping)
        except ModuleNotFoundError as error:
            missing = MissingExtra(f"{error.name} (for the hub)", "fleet")
            raise ConfigError(str(missing)) from error
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f"Ray cannot be used: {_first_line(error)}") from error

    def ask(self, call: Call) -> None:
        self._note(call, self._actors[call.actor].ask.remote())

    def tell(self, call: Call, directives: bytes) -> None:
        self._note(call, self._actors[call.actor].tell.remote(directives))

    def decide(
        self, call: Call, policy: bytes, standings: Sequence[Standing], demands: bytes, lease: float
    ) -> None:
        coordinator = self._actors[COORDINATOR]
        self._note(call, coordinator.decide.remote(policy, standings, demands, call.began, lease))

    def restart(self, actor: str) -> None:
        self._ray.kill(self._actors[actor], no_restart=False)

    def wait(self, seconds: float) -> list[tuple[Call, Heard | Decision | Exception]]:
        if not self._pending:
            time.sleep(seconds)
            return []
        pending = list(self._pending)
        self._ray.wait(pending, num_returns=1, timeout=seconds)
        ended, _ = self._ray.wait(pending, num_returns=len(pending), timeout=0)
        return [(self._pending.pop(each), self._result(each)) for each in ended]

    def close(self) -> None:
        """End the actors, and a Ray of its own with everything that it left in files."""
        if self._ray is not None:
            self._ray.shutdown(wait_for_processes=True)
        if self._folder is not None:
            self._folder.remove()

    def _connect(self, address: str | None) -> None:
        quiet = {"configure_logging": False, "log_to_driver": False, "namespace": "delen-hub"}
        if address:
            _check_reachable(address)
            self._ray.init(address, **quiet)
            return
        self._folder = RayFolder()
        self._ray.init(
            "local",
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE,
            _temp_dir=self._folder.path,
            **quiet,
        )

    def _start(self, name: str, kind: type, *given: object) -> None:
        make = self._ray.remote(num_cpus=0, max_restarts=-1)(kind)
        self._actors[name] = make.remote(*given)

    def _await_actors(self, stopping: threading.Event) -> None:
        ready = [actor.__ray_ready__.remote() for actor in self._actors.values()]
        ends, left = time.monotonic() + _START_SECONDS, ready
        while left and not stopping.is_set():
            ended, left = self._ray.wait(ready, num_returns=len(ready), timeout=_LOOK_EVERY)
            self._ray.get(ended)
            if left and time.monotonic() > ends:
                raise TimeoutError(f"{len(left)} actors did not start in {_START_SECONDS:g} s")

    def _note(self, call: Call, reference: Any) -> None:
        self._pending[reference] = call

    def _result(self, reference: Any) -> Heard | Decision | Exception:
        try:
            found: Heard | Decision = self._ray.get(reference)
            return found
        except self._ray.exceptions.RayTaskError as error:
            return RuntimeError(_first_line(error.cause))
        except Exception as error:
            return RuntimeError(_first_line(error))


def _check_reachable(address: str) -> None:
    """ConfigError where nobody listens at ``address``, for which Ray itself would wait minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"RAY_ADDRESS: no cluster answers at {address} ({error})") from error


def _own_ray() -> dict[str, str]:
    """The environment of a Ray that reports to nobody and that nobody without its token uses. Its
    actors do not stand back behind other programs: a late standing is a missed one. Ray reads it
    when it is imported."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
