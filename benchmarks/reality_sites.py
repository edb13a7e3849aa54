"""Where ``benchmarks.reality`` plays a trace: an engine in this process, a daemon over HTTP, and
the simulator with what was measured of them."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

import numpy as np

from benchmarks.common import Connection, Daemon, daemon
from delen.config import config_of
from delen.plugins import DISPATCH_POLICIES, find_plugin
from delen.profile import HostCosts, Profile, Quantiles
from delen.replay.http import HttpTarget
from delen.replay.in_process import EngineTarget, FailureCount
from delen.replay.open_loop import Target
from delen.replay.play import Manner, Plan, play
from delen.serving import open_runtime
from delen.settings import DEFAULT_DISPATCH, SWITCH_INTERVAL
from delen.simulate.device import DeviceSettings
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings, run
from delen.simulate.summary import summarise
from delen.simulate.trace import Trace
from delen.simulate.upper_bound import Slow

_LOOK = 0.5
"""Seconds between two looks at the slowdown."""

_ALONE = 150
"""Requests one after the other, by which the front end's part before admission is measured."""

_TRIES = 3
_AS_PROFILED = Quantiles(1.0, 1.0, 1.0, 1.0)
_FAR = 1e6


@dataclass(frozen=True, slots=True)
class Setting:
    """What all sites have in common: the device takes one thread, so that the client has a core,
    and energy is unknown.

    ``state`` has the profile behind ``model``.
    """

    bundle: Path
    state: Path
    model: SimulatedModel

    @property
    def host(self) -> HostCosts:
        return self.model.host


@dataclass(frozen=True, slots=True)
class Seen:
    """``summary`` as ``delen bench`` has it. ``slowdown``: how many times its profile the device
    took, by time. ``front``: seconds of the host that a request took before it was admitted and
    after it was answered, beside what the profile says, done by so many ``readers``."""

    summary: dict[str, Any]
    slowdown: tuple[tuple[float, float], ...]
    front: tuple[float, float]
    readers: int


class Site(Protocol):
    def play(self, plan: Plan) -> Seen: ...


class InProcess:
    """An engine and its client on two threads of this process."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        own = {"state.path": str(setting.state), "device.threads": 1, "power.source": "none"}
        config = config_of(own)
        self._opened = open_runtime(config, FailureCount(), lambda: [setting.bundle])
        self._model = self._opened.runtime.load(setting.model.name)

    def play(self, plan: Plan) -> Seen:
        spec = self._model.bundle.manifest.input
        name = self._model.name
        target = EngineTarget(self._opened.runtime, {name: spec}, plan.inputs, name)
        began = time.thread_time()
        with _watch(lambda: self._model.costs.slowdown.mean) as slowdown:
            summary = _replay(plan, target)
        # Receipts begin where a request is submitted: what the client does is all after it.
        client = (time.thread_time() - began) / len(plan.trace) - self._setting.host.request
        return Seen(summary, tuple(slowdown), (0.0, max(0.0, client)), readers=1)

    def close(self) -> None:
        self._opened.close()


@contextmanager
def in_process(setting: Setting) -> Iterator[InProcess]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    site = InProcess(setting)
    try:
        yield site
    finally:
        site.close()
        sys.setswitchinterval(interval)


class OverHttp:
    """A daemon, and its client in this process."""

    def __init__(self, setting: Setting, server: Daemon, tensor: bytes) -> None:
        self._setting = setting
        self._server = server
        self._idle = self._idle_processor()
        self._before = self._before_admission(tensor)

    @property
    def resident(self) -> int:
        """Bytes of memory that the daemon holds."""
        status = Path(f"/proc/{self._server.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return 1024 * int(found[1])

    def play(self, plan: Plan) -> Seen:
        url = f"http://{self._server.host}:{self._server.port}"
        target = HttpTarget(url, plan.inputs, self._setting.model.name)
        before, used, began = self._counters(), self._processor(), time.monotonic()
        with _watch(lambda: self._counters()["delen_slowdown"]) as slowdown:
            summary = _replay(plan, target)
        elapsed = time.monotonic() - began
        used, after = self._processor() - used, self._counters()
        known = self._engine_seconds({name: after[name] - before[name] for name in after})
        front = max(0.0, used - known - self._idle * elapsed) / len(plan.trace)
        first = min(front, self._before)
        return Seen(
            summary, tuple(slowdown), (first, front - first), config_of({})["server.threads"]
        )

    def _engine_seconds(self, counted: dict[str, float]) -> float:
        """What the engine took of the processor, by its counters and the profile."""
        host = self._setting.host
        return (
            counted["delen_segment_seconds_total"]
            + counted["delen_batch_size_count"] * host.batch
            + counted["delen_batch_size_sum"] * host.task
            + counted["delen_answers_total"] * (host.request + host.answer)
        )

    def _counters(self) -> dict[str, float]:
        """The metrics by name, summed over their labels."""
        url = f"http://{self._server.host}:{self._server.port}/metrics"
        with urlopen(url) as answer:
            lines = answer.read().decode().splitlines()
        counted: dict[str, float] = dict.fromkeys(
            (
                "delen_segment_seconds_total",
                "delen_batch_size_count",
                "delen_batch_size_sum",
                "delen_answers_total",
                "delen_slowdown",
            ),
            0.0,
        )
        for line in lines:
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            if name in counted:
                counted[name] += float(value)
        return counted

    def _processor(self) -> float:
        """Seconds that all threads of the daemon have run."""
        tasks = Path(f"/proc/{self._server.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def _idle_processor(self) -> float:
        """Seconds a second that the daemon runs without requests."""
        began, used = time.monotonic(), self._processor()
        time.sleep(1.0)
        return (self._processor() - used) / (time.monotonic() - began)

    def _before_admission(self, tensor: bytes) -> float:
        """Seconds from a request's arrival until the engine has it, with nothing else to do."""
        connection = Connection(self._server.host, self._server.port)
        queued = []
        for _ in range(_ALONE):
            answer = connection.post("/v1/infer?max_latency_ms=60000", tensor)
            queued.append(answer["receipt"]["latency_ms"]["queue"] / 1e3)
            time.sleep(0.002)
        connection.close()
        host = self._setting.host
        return max(0.0, float(np.median(queued)) - host.request - host.batch)


@contextmanager
def over_http(setting: Setting, tensor: bytes) -> Iterator[OverHttp]:
    own = {"DELEN_DEVICE__THREADS": "1", "DELEN_POWER__SOURCE": "none"}
    with daemon(setting.state, **own) as server:
        yield OverHttp(setting, server, tensor)


def simulate(trace: Trace, setting: Setting, seen: Seen, seed: int) -> dict[str, Any]:
    """The same trace on a device that was as slow by and by as the one that was ``seen``: so that
    the simulated engine believes what the real one did, which takes waiting for the host for a
    slow device."""
    if not seen.slowdown:
        return simulate_as_profiled(trace, setting, seen, seed)
    believed = float(np.mean([factor for _, factor in seen.slowdown]))
    speed, summary = 1.0, {}
    for _ in range(_TRIES):
        become, slow = as_it_was(setting.model.profile, seen.slowdown, speed)
        device = DeviceSettings(slow=slow, front=seen.front, readers=seen.readers)
        summary = _simulate(trace, replace(setting.model, become=become), device, seed)
        speed *= believed / summary["slowdown"]
    return summary


def simulate_as_profiled(trace: Trace, setting: Setting, seen: Seen, seed: int) -> dict[str, Any]:
    """The same trace on the device as its profile says, whatever it was since."""
    device = DeviceSettings(front=seen.front, readers=seen.readers)
    return _simulate(trace, setting.model, device, seed)


def as_it_was(
    profile: Profile, slowdown: tuple[tuple[float, float], ...], speed: float
) -> tuple[Profile, tuple[Slow, ...]]:
    """What the device was at its fastest, and spans in which it was slower than that. On average
    it took ``speed`` times as long as ``profile`` says."""
    host = profile.host or HostCosts()
    stretch = host.stretch or _AS_PROFILED
    least = min(factor for _, factor in slowdown)
    fastest = speed * least / float(np.mean([factor for _, factor in slowdown]))
    become = replace(profile, host=replace(host, stretch=stretch.times(fastest)))
    starts = [0.0, *(when for when, _ in slowdown[:-1])]
    ends = [*starts[1:], _FAR]
    spans = zip(starts, ends, slowdown, strict=True)
    slow = tuple(Slow(start, end, factor / least) for start, end, (_, factor) in spans)
    return become, slow


def _simulate(
    trace: Trace, model: SimulatedModel, device: DeviceSettings, seed: int
) -> dict[str, Any]:
    policy, fallback = (find_plugin(DISPATCH_POLICIES, DEFAULT_DISPATCH)() for _ in range(2))
    backlog = config_of({})["server.max_backlog_seconds"]
    settings = RunSettings(device, max_backlog=backlog, seed=seed)
    return summarise(run(trace, {model.name: model}, policy, fallback, settings), None)


def _replay(plan: Plan, target: Target) -> dict[str, Any]:
    played = play(plan, target, "real", Manner())
    if played.problem is not None or played.interrupted:
        raise RuntimeError(f"the replay ended early: {played.problem or 'interrupted'}")
    return played.summary


@contextmanager
def _watch(slowdown: Any) -> Iterator[list[tuple[float, float]]]:
    """Looks at ``slowdown`` again and again, in seconds since the beginning."""
    seen: list[tuple[float, float]] = []
    ended = threading.Event()
    began = time.monotonic()

    def look() -> None:
        while not ended.wait(_LOOK):
            seen.append((time.monotonic() - began, float(slowdown())))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()
