"""``python -m benchmarks trust``: faults of every kind under load, and what becomes of requests.

Clients load a daemon with two models, over connections that they make again once they break. It
runs as under systemd: its supervisor holds the listening socket and starts it again half a second
after it ended. Each fault is caused for real, some times. A request is lost where its connection
holds and no answer comes. An answer that came whole is wrong where its class is not that of the
exit that answered, its receipt does not fit it, or its code is not documented. A request whose
connection broke, because the daemon was killed, is known to its client as such: ``broken`` counts
those. The time to recover is from the end of the fault, of a kill from the kill itself, until each
model answers a new connection; half a second of a kill's is the supervisor's.

``trust_kills`` is the same with 200 kills. ``trust_soak`` loads one daemon for an hour in which
tenants come and go, the configuration is reloaded every minute, and faults that kill nothing come
at random. Its memory, descriptors and shared memory at the end are compared with those after ten
minutes.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.broken_backend import BrokenBackend
from benchmarks.common import Figure, daemon, report
from benchmarks.footprint import resident_mb
from benchmarks.soak import lend_profiles
from benchmarks.supervised import RESTARTS_AFTER, Supervised, descriptors, shared_memory
from benchmarks.trust_load import Judge, Load
from delen.bundle.manifest import MANIFEST, PROFILES, read_manifest
from delen.daemon.build_model import SHIPPED_BUNDLES
from tests.sensors import SensorTree, make_tree, play

FIRST, SECOND = "cifar10-resnet", "second"
MODELS = (FIRST, SECOND)
HANG_SECONDS = 0.5
MOST_TO_RECOVER = 2.0
MOST_GROWTH = 2.0
"""Percent of the memory after ten minutes."""
_KILLS = 200
_SOAK_MINUTES = 60.0
_WARM_SHARE = 1 / 6
_RELOADS_EVERY = 60.0
_TENANTS_EVERY = 0.5
_FAULTS_EVERY = (5.0, 20.0)


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


def _killed(trial: Trial) -> float:
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
    Fault("kill -9", 10, _killed, kills=True),
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


@dataclass
class Row:
    name: str
    times: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    recovered: list[float] = field(default_factory=list)

    def line(self) -> str:
        of = [self.counts[what] for what in _COUNTED]
        numbers = "".join(f"{each:>9}" for each in (self.times, *of))
        times = ""
        if self.recovered:
            times = f"{np.median(self.recovered):>9.2f} s{max(self.recovered):>9.2f} s"
        return f"{self.name:<31}{numbers}{times}"


_COUNTED = ("answered", "refused", "broken", "lost", "wrong")
_HEADS = "fault".ljust(31) + "".join(f"{head:>9}" for head in ("times", *_COUNTED))
_HEADS += f"{'median':>11}{'worst':>11}"


def _cause(trial: Trial, fault: Fault, times: int, row: Row) -> None:
    for _ in range(times):
        row.recovered.append(fault.cause(trial))
        row.times += 1
    _count(trial, row)


def _count(trial: Trial, row: Row) -> None:
    taken = trial.load.take()
    row.counts.update(taken.counts)
    for example in taken.examples[:3]:
        print(example, file=sys.stderr)


@contextmanager
def trial(seed: int) -> Iterator[Trial]:
    """A daemon under load, whose two models have been measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for made in ("state", "backend", "bundles"):
            (folder / made).mkdir()
        state, second = folder / "state", folder / "bundles" / SECOND
        sensors = make_tree(folder / "root", "orin-nx")
        with daemon(state, DELEN_POWER__ROOT=str(sensors.root)):
            """It measures the profile of the shipped bundle."""
        shutil.copytree(SHIPPED_BUNDLES / FIRST, second, ignore=shutil.ignore_patterns(PROFILES))
        manifest = json.loads((second / MANIFEST).read_text())
        (second / MANIFEST).write_text(json.dumps(manifest | {"name": SECOND}))
        lend_profiles(state, SECOND, read_manifest(second)[1])
        config = folder / "delen.toml"
        config.write_text(
            f'[models]\npath = "{folder / "bundles"}"\nload = ["{FIRST}", "{SECOND}"]\n'
            f'[device]\nhang_seconds = {HANG_SECONDS}\n[state]\npath = "{state}"\n'
            f'[power]\nroot = "{sensors.root}"\n'
        )
        backend = BrokenBackend(folder / "backend")
        environment = {**os.environ, **backend.environment, "DELEN_CONFIG": str(config)}
        chance = random.Random(seed)
        with (
            play(sensors, lambda passed: {"VDD_IN": chance.uniform(7.0, 9.0)}, 0.05),
            Supervised(environment, folder / "log") as server,
        ):
            load = Load(server.address, Judge(), MODELS)
            load.recovers(MODELS, 120.0)
            load.start()
            try:
                yield Trial(server, backend, load, state, config, sensors, chance)
            except BaseException:
                print(server.log.read_text()[-4000:], file=sys.stderr)
                raise
            finally:
                backend.mend()
                load.stop()


def cause_all(kills: int | None = None) -> list[Row]:
    """Each fault, as often as it says, or ``kills`` times ``kill -9``; the table is printed."""
    print(f"\n{_HEADS}")
    rows = []
    with trial(seed=1) as on:
        for fault in FAULTS:
            times = kills if kills is not None and fault.cause is _killed else fault.times
            rows.append(row := Row(fault.name))
            _cause(on, fault, times, row)
            print(row.line(), flush=True)
    return rows


@dataclass
class Soaked:
    """What a daemon took: MB of memory, open files and mapped files of memory, after a sixth of the
    time and at its end."""

    row: Row
    early: tuple[float, int, int]
    late: tuple[float, int, int]

    @property
    def growth(self) -> float:
        return 100 * (self.late[0] / self.early[0] - 1)


def soak(minutes: float) -> Soaked:
    """One daemon under load, faults that do not kill it, reloads, and tenants that come and go."""
    row, end = Row(f"soak, {minutes:g} minutes"), 60 * minutes
    with trial(seed=2) as on:
        began, early, faults_at, reload_at = (
            time.monotonic(),
            None,
            _FAULTS_EVERY[0],
            _RELOADS_EVERY,
        )
        over = threading.Event()
        tenants = threading.Thread(target=_tenants, args=(on, over), daemon=True)
        tenants.start()
        starts = on.server.starts
        for fault in HARMLESS:  # what each needs once is not growth
            _cause(on, fault, 1, row)
        while (passed := time.monotonic() - began) < end:
            if passed > faults_at:
                _cause(on, on.chance.choice(HARMLESS), 1, row)
                faults_at = time.monotonic() - began + on.chance.uniform(*_FAULTS_EVERY)
            if passed > reload_at:
                on.server.signal(signal.SIGHUP)
                reload_at = passed + _RELOADS_EVERY
            if early is None and passed > _WARM_SHARE * end:
                early = _taken(on)
            time.sleep(0.1)
        late = _taken(on)
        over.set()
        tenants.join()
        _count(on, row)
        if on.server.starts != starts:
            raise RuntimeError("the daemon was started again during the soak")
    assert early is not None
    print(f"\n{_HEADS}\n{row.line()}")
    return Soaked(row, early, late)


def _tenants(on: Trial, over: threading.Event) -> None:
    chance = random.Random(3)
    while not over.wait(_TENANTS_EVERY):
        name = f"guest{chance.randrange(30)}"
        budget = {"budget": {"energy_j": 1000.0, "period_s": 60.0}, "weight": 2.0}
        on.call(
            "PUT", f"/v1/tenants/{name}", chance.choice([budget, {"budget": None, "weight": None}])
        )


def _taken(on: Trial) -> tuple[float, int, int]:
    """The least of some readings: requests come and go meanwhile."""
    read = []
    for _ in range(20):
        time.sleep(0.1)
        pid = on.server.pid
        read.append((resident_mb(pid), descriptors(pid), shared_memory(pid)))
    memory, files, shared = (min(column) for column in zip(*read, strict=True))
    return float(memory), int(files), int(shared)


def figures_of(rows: Sequence[Row]) -> list[Figure]:
    figures = [
        Figure(f"{row.name}: {what}", (row.counts[what],), "", 0)
        for row in rows
        for what in ("lost", "wrong")
        if row.counts[what]
    ]
    total = sum((row.counts for row in rows), Counter[str]())
    figures += [
        Figure("requests lost", (total["lost"],), "", 0),
        Figure("answers or receipts wrong", (total["wrong"],), "", 0),
        Figure("requests", (total.total(),), ""),
        Figure("times that a fault was caused", (sum(row.times for row in rows),), ""),
    ]
    killed = [
        each
        for row in rows
        if row.name in ("kill -9", "native code crashes")
        for each in row.recovered
    ]
    if killed:
        name = f"recovery from a killed daemon, worst of {len(killed)}"
        figures.append(Figure(name, (max(killed),), "s", MOST_TO_RECOVER))
        figures.append(Figure("recovery from a killed daemon", tuple(killed), "s"))
    return figures


def main() -> list[Figure]:
    return report(
        f"Faults under load (a supervisor restarts after {RESTARTS_AFTER:g} s)",
        figures_of(cause_all()),
    )


def main_kills() -> list[Figure]:
    return report(f"{_KILLS} kills, and all other faults", figures_of(cause_all(_KILLS)))


def main_soak() -> list[Figure]:
    soaked = soak(_SOAK_MINUTES)
    figures = [
        *figures_of([soaked.row]),
        Figure("memory after ten minutes", (soaked.early[0],), "MB"),
        Figure("memory that grew since", (soaked.growth,), "%", MOST_GROWTH),
        Figure("files that stay open", (soaked.late[1] - soaked.early[1],), "", 0),
        Figure("shared memory that stays", (soaked.late[2] - soaked.early[2],), "", 0),
    ]
    return report(f"{_SOAK_MINUTES:g} minutes of soak", figures)
