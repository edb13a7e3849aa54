"""Instances and threads: answers a second and p95 while all lanes are wanted, one model and two."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, report
from delen.bundle.manifest import read_manifest
from delen.core.bounds import Bounds, Options
from delen.core.result import Result
from delen.core.work import Work
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.daemon.build_runtime import open_runtime
from delen.daemon.config import config_of
from delen.daemon.settings import SWITCH_INTERVAL
from delen.engine.runtime import Runtime
from delen.profile.concurrency import lanes_of
from delen.profile.device import available_cores

MODELS = ("cifar10-resnet", "spoken-digits")
ROUNDS = 21
SECONDS = 0.25
CLIENTS = 8
DEEPEST = Bounds(max_latency=60.0)
ONE = "1 x 1"


class Silent:
    """An observer that keeps no counts."""

    def answered(self, result: Result) -> None: ...
    def ran(self, work: Work) -> None: ...
    def policy_failed(self, model: str) -> None: ...
    def dispatch_failed(self, times: int) -> None: ...
    def audited(self, model: str, agreed: bool) -> None: ...


class Served(NamedTuple):
    """Answers a second, and the p95 of their latency in seconds."""

    rate: float
    p95: float


def choices() -> dict[str, tuple[int, int]]:
    """``device.instances`` and ``device.threads`` by name; also what is taken if the number of
    instances is left to delen, unless it is one of the others."""
    cores = available_cores()
    fixed = {ONE: (1, 1), f"1 x {cores}": (1, cores), f"{cores} x 1": (cores, 1)}
    auto = lanes_of(0, 1, cores, is_accelerator=False)
    print(f"\ndevice.instances = 0 takes {auto} x 1 here")
    return fixed if (auto, 1) in fixed.values() else {**fixed, f"{auto} x 1": (auto, 1)}


@contextmanager
def serving(instances: int, threads: int, state: str) -> Iterator[Runtime]:
    """A runtime with both models, whose first profile measures how lanes slow each other."""
    config = config_of(
        {
            "device.instances": instances,
            "device.threads": threads,
            "state.path": f"{state}/{instances}x{threads}",
            "power.source": "none",
            "policies.audit_fraction": 0.0,
            "server.max_backlog_seconds": 60.0,
        }
    )
    opened = open_runtime(config, Silent())
    try:
        for name in MODELS:
            opened.runtime.load(name)
        yield opened.runtime
    finally:
        opened.close()


def noise(name: str) -> NDArray[np.generic]:
    spec = read_manifest(SHIPPED_BUNDLES / name)[0].input
    return np.random.default_rng(0).integers(0, 256, spec.shape).astype(spec.dtype)


def saturate(runtime: Runtime, samples: Sequence[tuple[str, NDArray[np.generic]]]) -> Served:
    """``CLIENTS`` that each ask for one answer after the other, to the deepest exit."""
    latencies: list[list[float]] = [[] for _ in range(CLIENTS)]
    end = time.perf_counter() + SECONDS

    def ask(client: int) -> None:
        name, sample = samples[client % len(samples)]
        while (began := time.perf_counter()) < end:
            runtime.submit(name, sample, DEEPEST, Options()).future.result()
            latencies[client].append(time.perf_counter() - began)

    began = time.perf_counter()
    clients = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    every = [one for of_client in latencies for one in of_client]
    rate = len(every) / (time.perf_counter() - began)
    return Served(rate, float(np.quantile(every, 0.95)))


def alone(runtime: Runtime, samples: Sequence[tuple[str, NDArray[np.generic]]]) -> Served:
    """One request after the other on an idle device."""
    (name, sample), latencies = samples[0], []
    end = time.perf_counter() + SECONDS / 2
    while (began := time.perf_counter()) < end:
        runtime.submit(name, sample, DEEPEST, Options()).future.result()
        latencies.append(time.perf_counter() - began)
    return Served(len(latencies) / sum(latencies), float(np.quantile(latencies, 0.95)))


Load = Callable[[Runtime, Sequence[tuple[str, NDArray[np.generic]]]], Served]


def main() -> list[Figure]:
    sys.setswitchinterval(SWITCH_INTERVAL)  # as the daemon does
    both = [(name, noise(name)) for name in MODELS]
    loads: dict[str, tuple[Load, list[tuple[str, NDArray[np.generic]]]]] = {
        "one request at a time": (alone, both[:1]),
        "one model": (saturate, both[:1]),
        "two models": (saturate, both),
    }
    seen: dict[tuple[str, str], list[Served]] = {}
    with tempfile.TemporaryDirectory() as state, ExitStack() as stack:
        runtimes = {
            name: stack.enter_context(serving(*choice, state)) for name, choice in choices().items()
        }
        for _ in range(ROUNDS):
            for load, (serve, samples) in loads.items():
                for name, runtime in runtimes.items():
                    seen.setdefault((load, name), []).append(serve(runtime, samples))
    figures = []
    for load in loads:
        base = seen[load, ONE]
        figures += [
            Figure(f"{load}, {ONE}: answers a second", tuple(one.rate for one in base), "/s"),
            Figure(f"{load}, {ONE}: p95", tuple(1e3 * one.p95 for one in base), "ms"),
        ]
        for name in runtimes:
            if name == ONE:
                continue
            pairs = list(zip(seen[load, name], base, strict=True))
            rates = tuple(one.rate / first.rate for one, first in pairs)
            p95s = tuple(one.p95 / first.p95 for one, first in pairs)
            figures += [
                Figure(f"{load}, {name}: answers a second over {ONE}", rates, "x"),
                Figure(f"{load}, {name}: p95 over {ONE}", p95s, "x"),
            ]
    return report("Instances x threads of each, in process, to the deepest exit", figures)


if __name__ == "__main__":
    main()
