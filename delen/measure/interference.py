"""Measures what several instances of a network do at once: their interference, and their work."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, combinations_with_replacement
from statistics import median

import numpy as np

from delen.bundle.manifest import Bundle
from delen.engine.backends.base import Network
from delen.measure.segments import noise_inputs, run_chain
from delen.profile.concurrency import Measured

BATCHES = (1, 8)
"""At which instances are compared; the larger one as far as the bundle takes it."""

PAIRED = (1, 2, 4, 8, 16)
"""Batch sizes of which pairs run beside each other."""

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
            alone = _run(bundle, network, [batch], rounds.seconds)
            for busy in range(2, lanes + 1):
                beside = _run(bundle, network, [batch] * busy, rounds.seconds)
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
                runs = _run(bundle, networks[threads], [batch] * instances, rounds.seconds)
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


def measure_pairs(bundle: Bundle, network: Network, rounds: Rounds) -> dict[tuple[int, int], float]:
    """How many times longer a batch of the first size takes while another lane runs batches of the
    second: the median over rounds, in each beside the same batch alone."""
    most = bundle.manifest.max_batch
    sizes = [size for size in PAIRED if size <= most]
    ratios: dict[tuple[int, int], list[float]] = {}
    for _ in range(rounds.count):
        alone = {
            size: median(_run(bundle, network, [size], rounds.seconds).seconds) for size in sizes
        }
        for own, other in combinations_with_replacement(sizes, 2):
            beside = _run(bundle, network, [own, other], rounds.seconds).by_lane
            ratios.setdefault((own, other), []).append(median(beside[0]) / alone[own])
            if own != other:
                ratios.setdefault((other, own), []).append(median(beside[1]) / alone[other])
    return {pair: median(found) for pair, found in sorted(ratios.items())}


@dataclass(frozen=True, slots=True)
class _Runs:
    """Seconds of each run of the whole network by lane, and samples a second of all lanes."""

    by_lane: Sequence[Sequence[float]]
    rate: float

    @property
    def seconds(self) -> Sequence[float]:
        """Of all lanes."""
        return list(chain.from_iterable(self.by_lane))


def _sizes(bundle: Bundle) -> list[int]:
    return sorted({min(batch, bundle.manifest.max_batch) for batch in BATCHES})


def _run(bundle: Bundle, network: Network, batches: Sequence[int], seconds: float) -> _Runs:
    """Run the whole network over and over for so long, on a lane for each of ``batches`` at
    once."""
    lanes, inputs, segments = len(batches), noise_inputs(bundle), len(bundle.exits)
    ready = threading.Barrier(lanes + 1)
    took: list[list[float]] = [[] for _ in range(lanes)]
    failures: list[Exception] = []

    def run_whole(lane: int) -> float:
        return sum(
            seconds for seconds, _ in run_chain(network, inputs[: batches[lane]], segments, lane)
        )

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
    samples = sum(batch * len(of_lane) for batch, of_lane in zip(batches, took, strict=True))
    return _Runs(took, samples / elapsed)
