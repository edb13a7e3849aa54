"""Measures a bundle on this device: latency quantiles and processor time per segment and batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import Bundle
from delen.engine.backends.base import Features, Network
from delen.errors import ProfileError
from delen.measure.disturbance import ProcessorWatch
from delen.profile.profile import LEVELS, Device, Profile, Quantiles, SegmentCost

Progress = Callable[[int, int, str], None]
"""Gets ``(done, total, what)`` as the measurement goes on."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. ``seconds`` of runs for each batch size, at least ``least_runs``.

    A batch size is accepted when the interquartile range of the whole chain's time is at most
    ``spread`` of its median, and measured again up to ``tries`` times otherwise. ``strict``
    refuses the profile when it never is; else the steadiest try is taken.
    """

    seconds: float
    least_runs: int
    spread: float
    tries: int
    strict: bool


QUICK = Effort(seconds=0.25, least_runs=8, spread=0.25, tries=2, strict=False)
THOROUGH = Effort(seconds=3.0, least_runs=30, spread=0.25, tries=4, strict=True)
_WARM_UP_RUNS = 5
_ROUGH_RUNS = 3
_ROUGH_MARGIN = 2.0
"""How many times longer than the slowest of so few runs a segment may take."""
_ANSWER_RUNS = {True: 200, False: 2000}


def batch_sizes(largest: int) -> list[int]:
    """1, 2, 4, ... up to and with ``largest``."""
    powers = [2**k for k in range(int(math.log2(largest)) + 1)]
    return powers if powers[-1] == largest else [*powers, largest]


def noise_inputs(bundle: Bundle) -> list[Features]:
    """The largest batch of ``bundle``, of noise: of the largest size, so that what scaling down to
    a smaller one takes is measured with it."""
    manifest = bundle.manifest
    generator = np.random.default_rng(0)
    samples = generator.integers(0, 256, (manifest.max_batch, *bundle.largest_shape))
    return list(samples.astype(manifest.input.dtype))


def measure_profile(
    bundle: Bundle,
    network: Network,
    device: Device,
    effort: Effort,
    on_progress: Progress = lambda done, total, what: None,
) -> Profile:
    """Run ``network`` at every batch size and return its profile.

    Raises ProfileError when ``effort`` is strict and a batch size stays too unsteady.
    """
    inputs, watch = noise_inputs(bundle), ProcessorWatch()
    sizes = batch_sizes(bundle.manifest.max_batch)
    segments = len(bundle.exits)
    costs: list[dict[int, SegmentCost]] = [{} for _ in range(segments)]
    for done, batch in enumerate(sizes):
        on_progress(done, len(sizes) + 1, f"batch {batch}")
        runs = _steady_runs(network, inputs[:batch], segments, device.threads, effort)
        for segment in range(segments):
            costs[segment][batch] = SegmentCost(
                quantiles(runs.latency[:, segment]), float(runs.processor[:, segment].mean())
            )
    measured = watch.disturbance(device.threads)
    on_progress(len(sizes), len(sizes) + 1, "answers")
    answer = _measure_answers(_ANSWER_RUNS[not effort.strict])
    on_progress(len(sizes) + 1, len(sizes) + 1, "done")
    return Profile(
        model=bundle.variant,
        bundle=bundle.digest,
        device=device,
        created=_now(),
        quick=not effort.strict,
        answer=answer,
        segments=tuple(costs),
        measured=measured,
    )


def measure_rough(bundle: Bundle, network: Network, device: Device) -> Profile:
    """A conservative profile, within moments: a segment takes twice as long as the slowest of a few
    runs, and each sample of a batch as long as one alone."""
    rows = [
        list(run_chain(network, noise_inputs(bundle)[:1], len(bundle.exits)))
        for _ in range(_ROUGH_RUNS)
    ]
    seconds, processor = np.moveaxis(np.asarray(rows), 2, 0)
    worst, used = _ROUGH_MARGIN * seconds.max(axis=0), device.threads * processor.mean(axis=0)
    return Profile(
        model=bundle.variant,
        bundle=bundle.digest,
        device=device,
        created=_now(),
        quick=True,
        answer=_measure_answers(_ANSWER_RUNS[True]),
        segments=tuple(
            {
                batch: SegmentCost(Quantiles(*[batch * longest] * len(LEVELS)), batch * own)
                for batch in {1, bundle.manifest.max_batch}
            }
            for longest, own in zip(worst.tolist(), used.tolist(), strict=True)
        ),
        rough=True,
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def quantiles(seconds: NDArray[np.float64]) -> Quantiles:
    """The quantiles of measured durations, each the next higher one that was really measured."""
    return Quantiles(*np.quantile(seconds, LEVELS, method="higher").tolist())


@dataclass(frozen=True, slots=True)
class _Runs:
    """Seconds of each run and segment, ``[runs, segments]``."""

    latency: NDArray[np.float64]
    processor: NDArray[np.float64]

    @property
    def spread(self) -> float:
        """Interquartile range of the whole chain's time over its median."""
        low, middle, high = np.quantile(self.latency.sum(axis=1), (0.25, 0.5, 0.75))
        return float((high - low) / middle)


def _steady_runs(
    network: Network, inputs: Sequence[Features], segments: int, threads: int, effort: Effort
) -> _Runs:
    tries: list[_Runs] = []
    for _ in range(effort.tries):
        tries.append(_measure_runs(network, inputs, segments, threads, effort))
        if tries[-1].spread <= effort.spread:
            return tries[-1]
    best = min(tries, key=lambda runs: runs.spread)
    if effort.strict:
        raise ProfileError(
            f"batch {len(inputs)} is too unsteady: the interquartile range is {best.spread:.0%} of "
            f"the median in the best of {effort.tries} tries; {effort.spread:.0%} is accepted. "
            "Stop what else runs here, or fix the clocks, and try again"
        )
    return best


def _measure_runs(
    network: Network, inputs: Sequence[Features], segments: int, threads: int, effort: Effort
) -> _Runs:
    for _ in range(_WARM_UP_RUNS):
        list(run_chain(network, inputs, segments))
    rows: list[list[tuple[float, float]]] = []
    end = time.perf_counter() + effort.seconds
    while len(rows) < effort.least_runs or time.perf_counter() < end:
        rows.append(list(run_chain(network, inputs, segments)))
    measured = np.asarray(rows)
    return _Runs(measured[:, :, 0], threads * measured[:, :, 1])


def run_chain(
    network: Network, inputs: Sequence[Features], segments: int, lane: int = 0
) -> Iterator[tuple[float, float]]:
    """Run ``inputs`` through the first ``segments``, one a step: its seconds, and the calling
    thread's processor seconds."""
    features = inputs
    for segment in range(segments):
        began, processor = time.perf_counter(), time.thread_time()
        run = network.run(segment, features, lane)
        ended = time.perf_counter()
        yield ended - began, time.thread_time() - processor
        features = run.features


def _measure_answers(runs: int) -> Quantiles:
    """The time from one thread's end of work to another's having it, there and back."""
    seconds = np.empty(runs)
    with ThreadPoolExecutor(1) as worker:
        for index in range(runs):
            began = time.perf_counter()
            worker.submit(time.perf_counter).result()
            seconds[index] = time.perf_counter() - began
    return quantiles(seconds)
