"""Measures the joules of each exit by blocks: idle, one exit over and over, idle.

A sensor cannot see a single request. It can see ten seconds of the same one: the power above idle
times the seconds of a run is what a run takes. Every round has one block of each exit and batch
size, in an order drawn anew, with idle between any two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, Protocol

import numpy as np

from delen.errors import ConfigError, ProfileError
from power.sources.sampler import SourceState
from power.sources.series import Floats, Samples

LEAST_BLOCKS = 5
LEAST_SECONDS = 2.0
MOST_SPREAD = 0.5
_TRIES = 3

Progress = Callable[[int, int, str], None]
"""Told ``(done, total, what)`` as the measurement goes on."""


class Chain(NamedTuple):
    """What a block repeats: a ``batch`` of samples through all segments up to ``exit``."""

    batch: int
    exit: int

    def __str__(self) -> str:
        return f"exit {self.exit} at batch {self.batch}"


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """How to measure: ``rounds`` blocks of ``seconds`` for each chain, in an order by ``seed``.

    A profile is accepted when the 95 % interval of every chain's joules lies within ``spread`` of
    them on either side. Blocks of 10 s on a Jetson's sensors scatter by 0.3 to 0.5 %, which makes
    0.6 % of five; 5 % is what attribution promises later of the whole device, so a wider profile
    would break that promise from the start. Raises ConfigError below LEAST_BLOCKS rounds (fewer
    give no honest interval) and LEAST_SECONDS, and above MOST_SPREAD.
    """

    rounds: int = LEAST_BLOCKS
    seconds: float = 10.0
    spread: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < LEAST_BLOCKS:
            raise ConfigError(
                f"{self.rounds} blocks of each are too few; {LEAST_BLOCKS} are needed"
            )
        if not LEAST_SECONDS <= self.seconds <= 3600:
            raise ConfigError(
                f"blocks of {self.seconds:g} s cannot be measured; they must last from "
                f"{LEAST_SECONDS:g} s to an hour"
            )
        if not 0 < self.spread <= MOST_SPREAD:
            raise ConfigError(
                f"a spread of {self.spread:g} cannot be accepted; it must be above 0 and at most "
                f"{MOST_SPREAD:g}, a share of the joules"
            )

    @property
    def idle(self) -> float:
        """Seconds of idle before and after each block."""
        return max(LEAST_SECONDS, self.seconds / 2)


@dataclass(frozen=True, slots=True)
class Block:
    """One block that ran from ``began`` to ``ended``, idle since ``idle_from`` and until
    ``idle_to`` (seconds, monotonic). ``ends`` ``[runs]`` are the moments at which its runs ended.
    ``samples`` reach from the first idle to the second but for the margins that nothing uses."""

    round: int
    chain: Chain
    idle_from: float
    began: float
    ended: float
    idle_to: float
    ends: Floats
    samples: Samples

    def runs(self, began: float, ended: float) -> float:
        """How many runs, and parts of runs, lie between two moments of the block."""
        ends = np.concatenate([[self.began], self.ends])
        counts = np.interp([began, ended], ends, np.arange(len(ends)))
        return float(counts[1] - counts[0])


class Meter(Protocol):
    """What the measurement needs of a Sampler."""

    @property
    def interval(self) -> float: ...
    def state(self) -> SourceState: ...
    def window(self, began: float, ended: float) -> Samples | None: ...


def margin(interval: float) -> float:
    """Seconds at the ends of each stretch that are never used: readings ``interval`` seconds apart
    are stamped a little early or late, and a clock steps up in the first moments of work."""
    return max(0.5, 2 * interval)


class BlockRunner:
    """Runs blocks on a device.

    ``work`` runs a chain once. ``steady`` gives a key of all that must not change meanwhile: power
    mode, clocks, throttling. ``clock`` is that of the ``meter``, ``wait`` lets it go on.
    """

    def __init__(
        self,
        work: Callable[[Chain], None],
        meter: Meter,
        steady: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._work = work
        self._meter = meter
        self._steady = steady
        self._clock = clock
        self._wait = wait

    def run(
        self,
        chains: Sequence[Chain],
        plan: BlockPlan,
        on_progress: Progress = lambda done, total, what: None,
    ) -> list[Block]:
        """All blocks of ``plan``. ProfileError at the first that cannot be used, saying why."""
        for chain in chains:
            self._work(chain)
        self._await_readings()
        order = Random(plan.seed)
        steady = self._steady()
        total = plan.rounds * len(chains)
        blocks: list[Block] = []
        idle_from = self._idle(plan)
        for number in range(plan.rounds):
            for chain in order.sample(chains, len(chains)):
                left = (total - len(blocks)) * (plan.seconds + plan.idle)
                on_progress(len(blocks), total, f"{chain}, {_minutes(left)} left")
                blocks.append(self._block(number, chain, plan, idle_from, steady))
                idle_from = blocks[-1].ended
        on_progress(total, total, "done")
        return blocks

    def _await_readings(self) -> None:
        deadline = self._clock() + max(5.0, 10 * self._meter.interval)
        while (state := self._meter.state()).status != "ok":
            if self._clock() >= deadline:
                raise ProfileError(f"the power source gives no readings: {state.problem}")
            self._wait(self._meter.interval)

    def _idle(self, plan: BlockPlan) -> float:
        since = self._clock()
        self._wait(plan.idle)
        return since

    def _block(
        self, number: int, chain: Chain, plan: BlockPlan, idle_from: float, steady: str
    ) -> Block:
        """The next block, which is run again where readings of it are missing."""
        unused = margin(self._meter.interval)
        for _ in range(_TRIES):
            self._check(steady, chain)
            began = self._clock()
            ends = [began]
            while ends[-1] < began + plan.seconds:
                self._work(chain)
                ends.append(self._clock())
            self._check(steady, chain)
            ended = self._idle(plan)
            idle_to = self._clock()
            samples = self._meter.window(idle_from + unused, idle_to - unused)
            if samples is not None:
                runs = np.asarray(ends[1:])
                return Block(number, chain, idle_from, began, ended, idle_to, runs, samples)
            idle_from = ended
        problem = self._meter.state().problem or "there were gaps between its readings"
        raise ProfileError(
            f"the sensor failed {_TRIES} times while {chain} was measured: {problem}"
        )

    def _check(self, steady: str, chain: Chain) -> None:
        if (now := self._steady()) != steady:
            raise ProfileError(
                f"the device changed while {chain} was measured: {steady} became {now}. Keep the "
                "power mode and the clocks as they are, keep the device cool, and try again"
            )


def _minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f} min"
