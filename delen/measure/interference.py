"""Measures what several instances of a network do at once: their interference, and their work."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import numpy as np

from delen.bundle.manifest import Bundle
from delen.engine.backends.base import Network
from delen.measure.segments import noise_inputs, run_chain
from delen.profile.concurrency import Measured

BATCHES = (1, 8)
"""At which instances are compared; the larger one as far as the bundle takes it."""

_LEAST_RUNS = 3


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often everything is measured in turn, and for how many ``seconds`` each time."""

    count: int
    seconds: float


QUICK_ROUNDS = Rounds(3, 0.1)
THOROUGH_ROUNDS = Rounds(9, 0.4)


def measure_interference(
    bundle: Bundle, network: Network, lanes: int, rounds: Rounds
) -> tuple[float, ...]:
    """How many times longer ``network`` takes while 0, 1, ... others of ``lanes`` run it, too.

    Each figure is the median over batch sizes and rounds. A round begins with one lane alone, so
    what else slows the device down for a while slows both. One figure serves all segments: they
    differ by less than rounds do.
    """
    ratios: list[list[float]] = [[] for _ in range(lanes)]
    for _ in range(rounds.count):
        for batch in _sizes(bundle):
            alone = _run(bundle, network, 1, batch, rounds.seconds)
            for busy in range(2, lanes + 1):
                beside = _run(bundle, network, busy, batch, rounds.seconds)
                ratios[busy - 1].append(median(beside.seconds) / median(alone.seconds))
    return (1.0, *(round(max(1.0, median(found)), 4) for found in ratios[1:]))


def measure_instances(
    bundle: Bundle,
    networks: Mapping[int, Network],
    tried: Sequence[tuple[int, int]],
    rounds: Rounds,
) -> list[Measured]:
    """What each of ``tried`` (instances, threads of each) does; ``networks`` by threads."""
    made: dict[tuple[int, int, int], list[_Runs]] = {}
    for _ in range(rounds.count):
        for batch in _sizes(bundle):
            for instances, threads in tried:
                runs = _run(bundle, networks[threads], instances, batch, rounds.seconds)
                made.setdefault((instances, threads, batch), []).append(runs)
    return [
        Measured(
            *which,
            rate=median(runs.rate for runs in several),
            p50=median(float(np.quantile(runs.seconds, 0.5)) for runs in several),
            p95=median(float(np.quantile(runs.seconds, 0.95)) for runs in several),
        )
        for which, several in made.items()
    ]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Seconds of each run of the whole network on any lane, and samples a second of all."""

    seconds: Sequence[float]
    rate: float


def _sizes(bundle: Bundle) -> list[int]:
    return sorted({min(batch, bundle.manifest.max_batch) for batch in BATCHES})


def _run(bundle: Bundle, network: Network, lanes: int, batch: int, seconds: float) -> _Runs:
    """Run the whole network over and over on ``lanes`` at once for so long."""
    inputs, segments = noise_inputs(bundle)[:batch], len(bundle.exits)
    ready = threading.Barrier(lanes + 1)
    took: list[list[float]] = [[] for _ in range(lanes)]
    failures: list[Exception] = []

    def run_whole(lane: int) -> float:
        return sum(seconds for seconds, _ in run_chain(network, inputs, segments, lane))

    def keep_busy(lane: int) -> None:
        try:
            run_whole(lane)
            ready.wait()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end or len(took[lane]) < _LEAST_RUNS:
                took[lane].append(run_whole(lane))
        except threading.BrokenBarrierError:
            return  # another lane failed
        except Exception as error:
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=keep_busy, args=(lane,)) for lane in range(lanes)]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - began
    if failures:
        raise failures[0]
    every = [one for of_lane in took for one in of_lane]
    return _Runs(every, batch * len(every) / elapsed)
