"""Where ``benchmarks.reality`` plays a trace: an engine in this process, a daemon over HTTP, and
the simulator with what was measured of them."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.request import urlopen

import numpy as np

from benchmarks.common import Connection, Daemon, daemon
from delen.daemon.build_runtime import open_runtime
from delen.daemon.config import config_of
from delen.daemon.settings import DEFAULT_DISPATCH, SWITCH_INTERVAL
from delen.profile.profile import HostCosts, Profile, Quantiles
from delen.replay.http import HttpTarget
from delen.replay.in_process import EngineTarget, FailureCount
from delen.replay.open_loop import Target
from delen.replay.play import Plan, ReplayMode, play
from delen.simulate.device import DeviceSettings, SlowSpan
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings, run
from delen.simulate.summary import summarise
from delen.simulate.trace import Trace
from policies.plugins import DISPATCH_POLICIES, find_plugin

T = TypeVar("T")

_LOOK = 0.5
"""Seconds between two looks at the slowdown."""

_ALONE, _PAUSE, _CROWD = 200, 0.004, 16
"""What HTTP takes is measured by so many requests one after the other, with pauses of so many
seconds, and by a crowd of so many connections."""

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
    took, by time. ``front``: seconds of the host that a request takes before it is admitted and
    after it is answered, beside what the profile says, and ``crowded`` those where others come at
    the same time; so many ``readers`` do that."""

    summary: dict[str, Any]
    slowdown: tuple[tuple[float, float], ...]
    front: tuple[float, float]
    crowded: tuple[float, float]
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
        self._model = self._opened.load(setting.model.name)

    def play(self, plan: Plan) -> Seen:
        spec = self._model.bundle.manifest.input
        name = self._model.name
        target = EngineTarget(self._opened.runtime, {name: spec}, plan.inputs, name)
        began = time.thread_time()
        with _watch(lambda: self._model.costs.slowdown.mean) as slowdown:
            summary = _replay(plan, target)
        # Receipts begin where a request is submitted: what the client does is all after it.
        client = (time.thread_time() - began) / len(plan.trace) - self._setting.host.request
        front = 0.0, max(0.0, client)
        return Seen(summary, tuple(slowdown), front, front, readers=1)

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
    """A daemon, and its client in this process.

    What HTTP takes in a crowd is measured before the run, by clients that ask again at once, and in
    the run; the less of the two counts, since a run has both crowds and lonely requests.
    """

    def __init__(self, setting: Setting, server: Daemon, tensor: bytes) -> None:
        self._setting = setting
        self._server = server
        self._idle = self._idle_processor()
        before, self._alone = self._measure(partial(self._one_by_one, tensor))
        crowded = min(self._alone, self._measure(partial(self._at_once, tensor))[1])
        share = min(1.0, before / self._alone) if self._alone else 1.0
        self._front = share * self._alone, (1 - share) * self._alone
        self._crowded = share * crowded, (1 - share) * crowded

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

        def replay() -> dict[str, Any]:
            with _watch(lambda: self._counters()["delen_slowdown"]) as slowdown:
                summary = _replay(plan, target)
            return summary | {"slowdown": tuple(slowdown)}

        summary, seconds = self._processor_of_http(replay)
        meanwhile = seconds / summary["requests"]
        less = min(1.0, meanwhile / sum(self._crowded)) if sum(self._crowded) else 1.0
        crowded = self._crowded[0] * less, self._crowded[1] * less
        threads = config_of({})["server.threads"]
        return Seen(summary, summary.pop("slowdown"), self._front, crowded, threads)

    def _measure(self, ask: Callable[[], list[float]]) -> tuple[float, float]:
        """Seconds from a request's arrival until the engine has it, and of the processor, of HTTP
        alone, for each of the requests that ``ask`` sends and gives the queueing times of."""
        queued, seconds = self._processor_of_http(ask)
        host = self._setting.host
        waiting = max(0.0, float(np.median(queued)) - host.request - host.batch)
        return waiting, seconds / len(queued)

    def _processor_of_http(self, do: Callable[[], T]) -> tuple[T, float]:
        """What ``do`` gives, and the seconds of the processor that HTTP took meanwhile."""
        before, used, began = self._counters(), self._processor(), time.monotonic()
        done = do()
        elapsed = time.monotonic() - began
        used, after = self._processor() - used, self._counters()
        known = self._engine_seconds({name: after[name] - before[name] for name in after})
        return done, max(0.0, used - known - self._idle * elapsed)

    def _one_by_one(self, tensor: bytes) -> list[float]:
        connection = Connection(self._server.host, self._server.port)
        queued = [self._ask(connection, tensor, _PAUSE) for _ in range(_ALONE)]
        connection.close()
        return queued

    def _at_once(self, tensor: bytes) -> list[float]:
        """By many connections, each of which asks again when it is answered."""

        def ask(count: int) -> list[float]:
            connection = Connection(self._server.host, self._server.port)
            queued = [self._ask(connection, tensor) for _ in range(count)]
            connection.close()
            return queued

        with ThreadPoolExecutor(_CROWD) as pool:
            parts = list(pool.map(ask, [_ALONE // 4] * _CROWD))
        return [seconds for part in parts for seconds in part]

    def _ask(self, connection: Connection, tensor: bytes, pause: float = 0.0) -> float:
        """Seconds that a request was queued."""
        time.sleep(pause)
        answer = connection.post("/v1/infer?max_latency_ms=60000", tensor)
        return float(answer["receipt"]["latency_ms"]["queue"]) / 1e3

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
    factors = [factor for _, factor in seen.slowdown]
    believed = float(np.mean(factors))
    speed, summary, fastest = 1.0, {}, min(factors) / believed
    # What the front end took was measured beside, and the simulator slows it again.
    front, crowded = ((fastest * a, fastest * b) for a, b in (seen.front, seen.crowded))
    for _ in range(_TRIES):
        become, slow = as_it_was(setting.model.profile, seen.slowdown, speed)
        device = DeviceSettings(slow=slow, front=front, crowded=crowded, readers=seen.readers)
        summary = _simulate(trace, replace(setting.model, become=become), device, seed)
        speed *= believed / summary["slowdown"]
    return summary


def simulate_as_profiled(trace: Trace, setting: Setting, seen: Seen, seed: int) -> dict[str, Any]:
    """The same trace on the device as its profile says, whatever it was since."""
    device = DeviceSettings(front=seen.front, crowded=seen.crowded, readers=seen.readers)
    return _simulate(trace, setting.model, device, seed)


def as_it_was(
    profile: Profile, slowdown: tuple[tuple[float, float], ...], speed: float
) -> tuple[Profile, tuple[SlowSpan, ...]]:
    """What the device was at its fastest, and spans in which it was slower than that. On average
    it took ``speed`` times as long as ``profile`` says."""
    host = profile.host_costs
    stretch = host.stretch or _AS_PROFILED
    least = min(factor for _, factor in slowdown)
    fastest = speed * least / float(np.mean([factor for _, factor in slowdown]))
    become = HostCosts(
        fastest * host.request,
        fastest * host.batch,
        fastest * host.task,
        fastest * host.answer,
        stretch.times(fastest),
    )
    starts = [0.0, *(when for when, _ in slowdown[:-1])]
    ends = [*starts[1:], _FAR]
    spans = zip(starts, ends, slowdown, strict=True)
    slow = tuple(SlowSpan(start, end, factor / least) for start, end, (_, factor) in spans)
    return replace(profile, host=become), slow


def _simulate(
    trace: Trace, model: SimulatedModel, device: DeviceSettings, seed: int
) -> dict[str, Any]:
    policy = find_plugin(DISPATCH_POLICIES, DEFAULT_DISPATCH)()
    backlog = config_of({})["server.max_backlog_seconds"]
    settings = RunSettings(device, max_backlog=backlog, seed=seed)
    return summarise(run(trace, {model.name: model}, policy, policy, settings), None)


def _replay(plan: Plan, target: Target) -> dict[str, Any]:
    played = play(plan, target, "real", ReplayMode())
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
