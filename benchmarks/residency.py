"""Three models in less memory than they take: by segments, and as whole models.

All play the same requests: a Poisson stream in which one model is requested most, another one
after every shift, each with a cap on latency. By segments the daemon's own Residency decides; a
request is answered from the deepest exit that is in memory, or is loaded, within its cap. A whole
model is in memory or it is not; either the same Residency evicts by the value of the models ("by
worth"), or the least recently used one leaves (LRU). Sizes, calibration and answers are the shipped
bundle's. A segment takes 1 ms to run; to load, 10 ms and the time of a card with 50 MB/s. One
segment, or one whole model, is loaded at a time; runs do not queue. Effective accuracy counts
requests that are refused or too late as wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any, Protocol

import numpy as np

from benchmarks.common import Figure, report
from delen.bundle.manifest import load_bundle
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.residency.sizes import segment_bytes
from delen.residency.state import Evict, Load, ResidencyState

SEEDS = range(7)
REQUESTS = 4000
RATE = 20.0
SHIFT = 500
"""Requests after which another model is asked for most."""
POPULARITY = (0.7, 0.2, 0.1)
CAPS = (0.02, 0.1, 1.0)
RUN = 1e-3
OPENING = 0.01
BYTES_A_SECOND = 50e6
SEGMENTS, WORTH, LRU = "by segments", "whole, by worth", "whole, LRU"
MEMORY = (0.5, 0.75)
"""Shares of what all three models take."""


@dataclass(frozen=True, slots=True)
class Request:
    time: float
    model: int
    cap: float
    sample: int


class Memory(Protocol):
    """Plays loads. ``ask`` gives a request a number, under which ``exits`` has its answer's exit
    at the end (-1: none in time)."""

    exits: dict[int, int]

    def ask(self, number: int, request: Request) -> None: ...
    def play(self, until: float) -> None: ...


def load_seconds(size: int) -> float:
    return OPENING + size / BYTES_A_SECOND


@dataclass(slots=True)
class _Waiting:
    number: int
    request: Request
    exit: int


@dataclass(slots=True)
class BySegments:
    """The daemon's ResidencyState."""

    sizes: Sequence[int]
    accuracies: Sequence[float]
    cap: int
    run: float
    exits: dict[int, int] = field(default_factory=dict)
    waiting: list[_Waiting] = field(default_factory=list)
    loading: tuple[Load, float] | None = None
    now: float = 0.0
    state: ResidencyState[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.state = ResidencyState(self.cap)
        for model in range(len(POPULARITY)):
            self.state.add(str(model), self.sizes).set_accuracies(self.accuracies)

    def ask(self, number: int, request: Request) -> None:
        slot = self.state.slots[str(request.model)]
        slot.uses.add(request.time, len(self.sizes))
        if slot.depth == 0:
            slot.request(request.time + 10.0)
        waits = self.state.policy.waits(slot, request.time) or (0.0,) * len(self.sizes)
        in_time = [e for e, wait in enumerate(waits) if wait + (e + 1) * self.run <= request.cap]
        exit = in_time[-1] if in_time else -1
        if exit < slot.depth or not slot.acquire(0, exit):
            self.exits[number] = min(exit, slot.depth - 1)
        else:
            self.waiting.append(_Waiting(number, request, exit))
        self._start()

    def play(self, until: float) -> None:
        while True:
            ends = [self._end(each) for each in self.waiting]
            done = inf if self.loading is None else self.loading[1]
            self.now = min([done, *ends])
            if self.now > until:
                self.now = until
                self._start()
                return
            if done == self.now and self.loading is not None:
                load, self.loading = self.loading[0], None
                slot = self.state.slots[load.model]
                self.state.loaded(slot, load_seconds(slot.sizes[load.segment]))
            for each in list(self.waiting):
                depth = self.state.slots[str(each.request.model)].depth
                if depth > each.exit or self._end(each) <= self.now:
                    self._answer(each, min(each.exit, depth - 1))
            self._start()

    def _end(self, each: _Waiting) -> float:
        return each.request.time + each.request.cap - (each.exit + 1) * self.run

    def _answer(self, each: _Waiting, exit: int) -> None:
        self.waiting.remove(each)
        self.exits[each.number] = exit
        for segment in range(each.exit + 1):
            self.state.slots[str(each.request.model)].release(segment)

    def _start(self) -> None:
        while self.loading is None:
            step = self.state.next_step(self.now)
            if step is None:
                return
            if isinstance(step, Evict):
                self.state.evict(step)
            else:
                size = self.state.slots[step.model].sizes[step.segment]
                self.loading = (step, self.now + load_seconds(size))
            if self.state.policy.taken > self.cap:
                raise RuntimeError("the cap is passed")


@dataclass(slots=True)
class WholeByLastUse:
    """Whole models; the one whose last use is longest ago leaves."""

    sizes: Sequence[int]
    cap: int
    exits: dict[int, int] = field(default_factory=dict)
    waiting: list[tuple[int, Request]] = field(default_factory=list)
    wanted: deque[int] = field(default_factory=deque)
    resident: list[int] = field(default_factory=list)
    done: float = inf

    def ask(self, number: int, request: Request) -> None:
        last = len(self.sizes) - 1
        if request.model in self.resident:
            self.resident.remove(request.model)
            self.resident.append(request.model)
            self.exits[number] = last
            return
        self.waiting.append((number, request))
        if request.model not in self.wanted:
            self.wanted.append(request.model)
        self._start(request.time)

    def play(self, until: float) -> None:
        while self.done <= until:
            now, self.done = self.done, inf
            self.resident.append(self.wanted.popleft())
            for number, request in list(self.waiting):
                if request.model == self.resident[-1]:
                    self.waiting.remove((number, request))
                    runs = len(self.sizes) * RUN
                    is_in_time = now + runs <= request.time + request.cap
                    self.exits[number] = len(self.sizes) - 1 if is_in_time else -1
            self._start(now)

    def _start(self, now: float) -> None:
        if self.wanted and self.done == inf:
            while (len(self.resident) + 1) * sum(self.sizes) > self.cap:
                self.resident.pop(0)
            self.done = now + sum(load_seconds(size) for size in self.sizes)


def requests(seed: int, samples: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / RATE, REQUESTS))
    ranks = rng.choice(len(POPULARITY), REQUESTS, p=POPULARITY)
    return [
        Request(
            float(times[k]),
            int(ranks[k] + k // SHIFT) % len(POPULARITY),
            float(rng.choice(CAPS)),
            int(rng.integers(samples)),
        )
        for k in range(REQUESTS)
    ]


def play(memory: Memory, asked: Sequence[Request]) -> list[int]:
    """The exit of each answer."""
    for number, (request, following) in enumerate(pairwise([*asked, asked[-1]])):
        memory.ask(number, request)
        memory.play(following.time)
    memory.play(asked[-1].time + 100.0)
    return [memory.exits[number] for number in range(len(asked))]


def _percent(name: str, shares: Sequence[float]) -> Figure:
    return Figure(name, tuple(100 * share for share in shares), "%")


def main() -> list[Figure]:
    bundle = load_bundle(SHIPPED_BUNDLES / "cifar10-resnet")
    table, count = bundle.calibration, len(bundle.exits)
    sizes = [segment_bytes(bundle.manifest, segment, 1) for segment in range(count)]
    accuracies = [table.accuracy(exit) for exit in range(count)]
    figures: list[Figure] = []
    for share in MEMORY:
        cap = int(share * len(POPULARITY) * sum(sizes))
        makers: dict[str, Callable[[], Memory]] = {
            SEGMENTS: partial(BySegments, sizes, accuracies, cap, RUN),
            WORTH: partial(BySegments, [sum(sizes)], accuracies[-1:], cap, count * RUN),
            LRU: partial(WholeByLastUse, sizes, cap),
        }
        hits: dict[str, list[float]] = {name: [] for name in makers}
        right: dict[str, list[float]] = {name: [] for name in makers}
        for seed in SEEDS:
            asked = requests(seed, table.samples)
            for name, make in makers.items():
                exits = play(make(), asked)
                if name != SEGMENTS:
                    exits = [count - 1 if exit >= 0 else -1 for exit in exits]
                hits[name].append(sum(exit >= 0 for exit in exits) / len(asked))
                good = [
                    exit >= 0 and bool(table.correct[request.sample, exit])
                    for request, exit in zip(asked, exits, strict=True)
                ]
                right[name].append(sum(good) / len(asked))
        for what, values in (("answered in time", hits), ("effective accuracy", right)):
            for name in values:
                figures.append(_percent(f"{share:.0%} of memory, {name}: {what}", values[name]))
        for other in (WORTH, LRU):
            ratio = [a / b for a, b in zip(right[SEGMENTS], right[other], strict=True)]
            title = f"{share:.0%}: effective accuracy over {other}"
            figures.append(Figure(title, tuple(ratio), "x", limit=1.0, at_most=False))
    return report("Residency: three models in less memory than they take", figures)


if __name__ == "__main__":
    main()
