"""Processor time of a request beside its segments, by stage, in the daemon's own code.

A daemon in this process answers a client in another one, a request at a time. From its processor
time are taken what it takes while nobody asks, and what the network's runs took meanwhile: those
are as slow as the machine is at that moment. The network alone runs in turn with it, and says how
much sooner a client had its answer from that. In rounds of their own the stages are timed as well:
each gets what its functions take themselves, without those of other stages that they call, and
less its part of what timing takes. What no stage gets is the event loop, its server and the
switches between threads.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import api.exchange
import api.infer
import delen.engine.jobs
from api.application import Application
from api.guard import Guard
from api.infer import InferAddress
from api.metrics.requests import Metrics
from api.server.body import RequestBody
from api.server.connection import Connection as ServerConnection
from api.server.connection import Patience
from api.server.server import HttpServer
from api.views import Service
from benchmarks.common import Connection, Figure, report
from benchmarks.stage_times import Function, timing
from delen.core.bounds import Bounds
from delen.daemon.build_runtime import Opened, open_runtime
from delen.daemon.config import config_of
from delen.daemon.settings import SWITCH_INTERVAL
from delen.engine.admission import Admission
from delen.engine.backends.onnx import OnnxNetwork
from delen.engine.executor import Executor
from delen.engine.exit_policy import ExitDecider
from delen.engine.jobs import Jobs
from delen.engine.lane_threads import LaneThreads
from delen.engine.lane_worker import LaneWorker
from delen.engine.model import Model
from delen.engine.runner import SegmentRunner
from delen.engine.runtime import Runtime
from delen.scheduler.core import Scheduler
from delen.scheduler.plan_cache import Plans
from delen.version import VERSION
from delen.wire.models import Health

ROUNDS = 31
REQUESTS = 60
_IDLE_SECONDS = 1.0
_NETWORK = "network"
BODY = np.full((32, 32, 3), 64, np.uint8)
"""An input of which no exit is sure."""
STAGES: Mapping[str, Sequence[Function]] = {
    "read": (
        (ServerConnection, "data_received"),
        (Application, "__call__"),
        (InferAddress, "answer"),
        (InferAddress, "run"),
        (RequestBody, "read"),
    ),
    "parse": ((api.infer, "_read"),),
    "plan": ((Plans, "prepare"), (Plans, "admit")),
    "submit": (
        (Runtime, "submit_batch"),
        (Admission, "admit"),
        (Executor, "submit"),
        (Scheduler, "admit"),
        (Scheduler, "add"),
    ),
    "wake": ((LaneThreads, "_wait_for_work"), (InferAddress, "_until_ended")),
    "segments": (
        (LaneThreads, "_work_on"),
        (LaneWorker, "_run"),
        (SegmentRunner, "run_alone"),
    ),
    "decide": (
        (LaneWorker, "_decide"),
        (LaneWorker, "_end_batch"),
        (Scheduler, "go_on"),
        (ExitDecider, "reason_to_stop"),
        (Scheduler, "resume"),
        (Scheduler, "end"),
    ),
    "compose": (
        (Jobs, "answer"),
        (delen.engine.jobs, "write_result"),
        (InferAddress, "_compose"),
        (InferAddress, "results"),
    ),
    "write": ((api.exchange, "_send"),),
    _NETWORK: ((OnnxNetwork, "run"),),
}
"""The functions of each stage: the object that has it, and its name there."""


@contextmanager
def serving(state: Path) -> Iterator[tuple[Opened, int]]:
    """The daemon's parts in this process, and the port on which they answer."""
    config = config_of({"state.path": str(state), "power.source": "model"})
    metrics = Metrics()
    opened = open_runtime(config, metrics)
    service = Service(
        runtime=opened.runtime,
        energy=opened.energy,
        metrics=metrics,
        guard=Guard(""),
        default_model=config["models.default"],
        max_body=int(config["server.max_body_mb"] * 1e6),
        max_bodies=int(config["server.max_bodies_mb"] * 1e6),
        describe_device=lambda model: asdict(model.costs.profile.device),
        health=lambda: Health("ok", VERSION, ()),
        version=VERSION,
    )
    application = Application(service, config["server.threads"])
    patience = Patience(idle=3600.0)  # between the rounds
    server = HttpServer(application, config["server.connections"], patience)
    url = server.listen_tcp("127.0.0.1", 0)
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        opened.load(config["models.default"])
        server.start()
        yield opened, int(url.rpartition(":")[2])
    finally:
        sys.setswitchinterval(before)
        opened.close()
        server.stop()


class Client:
    """A process that posts one request after the other, and reads of each how deep it went."""

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.overhead", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def post(self, path: str, requests: int, exits: int) -> float:
        """The median seconds of an answer. RuntimeError if one passed another number of exits."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{path} {requests}\n")
        self._process.stdin.flush()
        median, passed = self._process.stdout.readline().split()
        if passed != str(exits):
            raise RuntimeError(f"{path} passed {passed} exits, and not {exits}")
        return float(median)

    def close(self) -> None:
        self._process.communicate()


def serve_client(port: int) -> None:
    """The client's side: each line of the standard input is a path and a number of requests."""
    connection = Connection("127.0.0.1", port)
    body = BODY.tobytes()
    for line in sys.stdin:
        path, requests = line.split()
        seconds, passed = [], set()
        for _ in range(int(requests)):
            began = time.perf_counter()
            answer = connection.post_raw(path, body)
            seconds.append(time.perf_counter() - began)
            passed.add(1 + json.loads(answer)["exit"])
        print(float(np.median(seconds)), ",".join(map(str, passed)), flush=True)
    connection.close()


@dataclass(frozen=True)
class Cost:
    """Seconds of one request: of the processor, and the median on the clock."""

    processor: float
    median: float


def _cost(run: Callable[[], float], requests: int, idle: float = 0.0) -> Cost:
    """What each of ``requests`` costs that ``run`` makes, less ``idle`` of each second."""
    began, processor = time.perf_counter(), time.process_time()
    median = run()
    spent = time.process_time() - processor - idle * (time.perf_counter() - began)
    return Cost(spent / requests, median)


@contextmanager
def _network_time() -> Iterator[list[float]]:
    """The processor seconds of each run of the network, as long as this lasts."""
    seconds: list[float] = []
    run, clock = OnnxNetwork.run, time.thread_time

    def timed(*arguments: Any) -> Any:
        began = clock()
        ran = run(*arguments)
        seconds.append(clock() - began)
        return ran

    with patch.object(OnnxNetwork, "run", timed):
        yield seconds


def _alone(model: Model, exits: int) -> float:
    """Runs the network alone ``REQUESTS`` times up to its first ``exits`` exits."""
    seconds = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        features: Any = [BODY]
        for segment in range(exits):
            features = model.network.run(segment, features).features
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def _paths(opened: Opened, model: Model) -> dict[int, str]:
    """By the number of exits that a request passes, the address that brings that about."""
    points = opened.runtime.preview(model.name, Bounds()).points
    assert points[0].energy is not None and points[1].energy is not None
    cap = 1e3 * (points[0].energy + points[1].energy) / 2
    return {
        model.exits: "/v1/infer?max_latency_ms=60000",
        1: f"/v1/infer?max_latency_ms=60000&max_energy_mj={cap:g}",
    }


def _measure(
    name: str, client: Client, model: Model, path: str, exits: int, idle: float
) -> list[Figure]:
    added, medians, stages = [], [], defaultdict(list)
    for _ in range(ROUNDS):
        with _network_time() as network:
            served = _cost(lambda: client.post(path, REQUESTS, exits), REQUESTS, idle)
        alone = _cost(lambda: _alone(model, exits), REQUESTS)
        added.append(1e6 * (served.processor - sum(network) / REQUESTS))
        medians.append(1e6 * (served.median - alone.median))
        with timing(STAGES) as times:
            seen = _cost(lambda: client.post(path, REQUESTS, exits), REQUESTS, idle)
        timed = (seen.processor - served.processor) / times.switches.total()
        for stage in STAGES:
            seconds = times.seconds[stage] / REQUESTS - timed * times.switches[stage]
            stages[stage].append(1e6 * seconds)
        stages["rest"].append(1e6 * served.processor - sum(stages[each][-1] for each in STAGES))
        stages[_NETWORK][-1] -= 1e6 * alone.processor
    limit = 700.0 if exits > 1 else 400.0
    return [
        Figure(f"{name}: processor time beside the network", tuple(added), "us", limit),
        Figure(f"{name}: p50 beside the network", tuple(medians), "us"),
        *(
            Figure(f"  {_named(stage, exits)}", tuple(values), "us")
            for stage, values in stages.items()
        ),
    ]


def _named(stage: str, exits: int) -> str:
    if stage == _NETWORK:
        return "the network, beyond what it takes alone"
    return f"{stage} ({exits})" if stage == "segments" else stage


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as state, serving(Path(state)) as (opened, port):
        model = opened.load("cifar10-resnet")
        client = Client(port)
        try:
            paths = _paths(opened, model)
            for exits, path in paths.items():
                client.post(path, REQUESTS, exits)
            processor = time.process_time()
            time.sleep(_IDLE_SECONDS)
            idle = (time.process_time() - processor) / _IDLE_SECONDS
            figures = []
            for exits, path in paths.items():
                name = f"{exits} exits" if exits > 1 else "exit 0"
                figures += _measure(name, client, model, path, exits, idle)
        finally:
            client.close()
    return report("A request beside its network, processor time by stage", figures)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve_client(int(sys.argv[1]))
    else:
        main()
