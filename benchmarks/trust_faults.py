"""The faults that ``trust`` causes, each for real, and what it waits for until they are over."""

from __future__ import annotations

import http.client
import json
import random
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.broken_backend import BrokenBackend
from benchmarks.supervised import Supervised, descriptors
from benchmarks.trust_load import Load
from tests.sensors import SensorTree

FIRST, SECOND = "cifar10-resnet", "second"
MODELS = (FIRST, SECOND)


@dataclass
class Trial:
    """The daemon, what it stands on, and its load."""

    server: Supervised
    backend: BrokenBackend
    load: Load
    state: Path
    config: Path
    sensors: SensorTree
    chance: random.Random

    def call(self, method: str, path: str, document: Any = None) -> tuple[int, dict[str, Any]]:
        client = http.client.HTTPConnection(*self.server.address, timeout=60)
        with suppress(OSError):
            body = None if document is None else json.dumps(document)
            client.request(method, path, body, {"Content-Type": "application/json"})
            response = client.getresponse()
            return response.status, json.loads(response.read())
        return 0, {}

    def until(self, holds: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
        """Seconds until it ``holds``."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > seconds:
                raise RuntimeError(f"after {seconds:g} s there is not yet: {what}")
            time.sleep(0.01)
        return time.monotonic() - began

    @contextmanager
    def limited(self, what: int, soft: int) -> Iterator[None]:
        """The daemon has no more than ``soft`` of a resource meanwhile."""
        before = resource.prlimit(self.server.pid, what)
        resource.prlimit(self.server.pid, what, (soft, before[1]))
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                resource.prlimit(self.server.pid, what, before)


Cause = Callable[[Trial], float]
"""Causes a fault, and returns the seconds until all was well after it had ended."""


def _raises(how: str, seconds: float) -> Cause:
    def cause(trial: Trial) -> float:
        trial.load.fails = True
        trial.backend.start(how, segment=trial.chance.randrange(3))
        time.sleep(seconds)
        trial.backend.mend()
        recovered = trial.load.recovers(MODELS)
        trial.load.fails = False
        return recovered

    return cause


def _hangs(trial: Trial) -> float:
    """One model; the other one has to answer meanwhile."""
    trial.backend.start("hang", SECOND)
    trial.until(lambda: _is_hung(trial), "the model that hangs is named")
    trial.load.recovers([FIRST])
    trial.backend.mend()
    return trial.load.recovers(MODELS)


def _is_hung(trial: Trial) -> bool:
    _, ready = trial.call("GET", "/readyz")
    return any(SECOND in problem for problem in ready.get("problems", ()))


def _crashes(trial: Trial) -> float:
    before = trial.server.starts
    trial.backend.start("crash", SECOND)
    trial.until(lambda: trial.server.starts > before, "the daemon has crashed")
    trial.backend.mend()
    return trial.load.recovers([FIRST])


def _quarantine_ends(trial: Trial) -> float:
    """After three crashes in a row."""
    trial.until(lambda: trial.call("GET", f"/v1/models/{SECOND}")[0] == 200, "the model is known")
    if "quarantine" not in str(trial.call("GET", f"/v1/models/{SECOND}")[1]["problem"]):
        raise RuntimeError("a model that crashed the daemon three times in a row is loaded")
    began = time.monotonic()
    trial.call("POST", f"/v1/models/{SECOND}/load")
    trial.load.recovers(MODELS)
    return time.monotonic() - began


def killed(trial: Trial) -> float:
    time.sleep(trial.chance.uniform(0.0, 1.0))
    began = time.monotonic()
    trial.server.kill()
    trial.load.recovers(MODELS)
    return time.monotonic() - began


def _stopped(trial: Trial) -> float:
    trial.server.signal(signal.SIGSTOP)
    time.sleep(5.0)
    trial.server.signal(signal.SIGCONT)
    return trial.load.recovers(MODELS)


def _disk_full(trial: Trial) -> float:
    name = f"full{trial.chance.randrange(10**9)}"
    path = f"/v1/tenants/{name}"
    with trial.limited(resource.RLIMIT_FSIZE, 0):
        status, answer = trial.call("PUT", path, {"weight": 2})
        kept = trial.call("GET", "/v1/tenants")[1].get("tenants", {})
        if (status, answer.get("code")) != (507, "not_kept") or name in kept:
            raise RuntimeError(f"a change that was not kept is answered {status} {answer}")
    recovered = trial.until(
        lambda: trial.call("PUT", path, {"weight": 2})[0] == 200, "changes are kept again"
    )
    trial.call("PUT", path, {"weight": None})
    return recovered


def _no_files(trial: Trial) -> float:
    used = descriptors(trial.server.pid)
    with trial.limited(resource.RLIMIT_NOFILE, used + 2):
        more = [socket.create_connection(trial.server.address) for _ in range(20)]
        time.sleep(0.5)
        for each in more:
            each.close()
    return trial.load.recovers(MODELS)


def _memory_short(trial: Trial) -> float:
    """A body of 30 MB comes while the daemon can have 4 MB more."""
    status = Path(f"/proc/{trial.server.pid}/status").read_text()
    size = int(status.partition("VmSize:")[2].split()[0]) * 1024
    with trial.limited(resource.RLIMIT_AS, size + 4_000_000):
        client = http.client.HTTPConnection(*trial.server.address, timeout=30)
        kind = {"Content-Type": "application/octet-stream"}
        with suppress(OSError, http.client.HTTPException):
            client.request("POST", "/v1/infer", bytes(30_000_000), kind)
            client.getresponse().read()
        client.close()
    return trial.load.recovers(MODELS)


def _sensor_lost(trial: Trial) -> float:
    trial.sensors.fail(trial.sensors.path("VDD_IN", "current"))
    trial.until(lambda: _source(trial) == "degraded", "the lost sensor is named")
    trial.sensors.heal()
    return trial.until(lambda: _source(trial) == "ok", "the sensor reads again")


def _source(trial: Trial) -> str:
    return str(trial.call("GET", "/v1/power")[1].get("state"))


def _clock_steps(trial: Trial) -> float:
    for days in (-3650, 3650, 0):
        trial.backend.step_clock(days * 86_400)
        time.sleep(1.0)
    trial.backend.mend()
    return trial.load.recovers(MODELS)


def _slow(trial: Trial) -> float:
    trial.backend.start("slow")
    time.sleep(3.0)
    trial.backend.mend()
    return trial.load.recovers(MODELS)


def _state_damaged(trial: Trial) -> float:
    names = ["tenants.json", "energy.json", "crashes.json"]
    before = trial.server.starts
    trial.server.signal(signal.SIGKILL)
    for name in names:
        (trial.state / name).write_text('{"format": ')
    trial.server.wait_for_start(before)
    recovered = trial.load.recovers(MODELS)
    trial.call("PUT", "/v1/tenants/damaged", {"weight": 2})  # which writes it anew
    for name in names:
        if not list(trial.state.glob(f"{name}.damaged-*")):
            raise RuntimeError(f"{name} was damaged and is not kept")
        for kept in trial.state.glob(f"{name}.damaged-*"):
            kept.unlink()
    return recovered


def _bad_reload(trial: Trial) -> float:
    """A file that nobody can read as a configuration, and then the right one again."""
    right = trial.config.read_bytes()
    trial.config.write_bytes(b"[server\n\xff = ]" * 100)
    trial.server.signal(signal.SIGHUP)
    time.sleep(0.2)
    trial.config.write_bytes(right)
    trial.server.signal(signal.SIGHUP)
    return trial.load.recovers(MODELS)


def _clients_leave(trial: Trial) -> float:
    head = b"POST /v1/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    for _ in range(20):
        with socket.create_connection(trial.server.address) as client:
            client.sendall(
                head + b"Content-Length: 3072\r\n\r\n" + bytes(trial.chance.randrange(3073))
            )
    return trial.load.recovers(MODELS)


@dataclass(frozen=True)
class Fault:
    """``kills``: the daemon ends, so that connections break."""

    name: str
    times: int
    cause: Cause
    kills: bool = False


FAULTS = (
    Fault("the backend raises once", 20, _raises("once", 0.05)),
    Fault("the backend raises always, 1 s", 3, _raises("raise", 1.0)),
    Fault("one model hangs", 3, _hangs),
    Fault("native code crashes", 3, _crashes, kills=True),
    Fault("a quarantine is lifted", 1, _quarantine_ends),
    Fault("kill -9", 10, killed, kills=True),
    Fault("SIGSTOP for 5 s", 2, _stopped),
    Fault("three times as slow, 3 s", 2, _slow),
    Fault("disk full", 5, _disk_full),
    Fault("no descriptors left", 3, _no_files),
    Fault("4 MB of memory left", 3, _memory_short),
    Fault("sensor lost", 2, _sensor_lost),
    Fault("clock off by ten years", 2, _clock_steps),
    Fault("state files damaged", 1, _state_damaged, kills=True),
    Fault("a reload of nonsense", 5, _bad_reload),
    Fault("20 clients leave half-way", 5, _clients_leave),
)
HARMLESS = [fault for fault in FAULTS if not fault.kills and "quarantine" not in fault.name]
