"""Dělen's two latency conditions on its Jetson Nano, as published, and the default under the bounds
that they were meant to keep.

Liang et al. (IoTDI 2023; umassos/delen, MIT) give a ResNet-50 the condition ``response_time > 20
ms`` at every exit, and ``> 40 ms``. A condition is looked at once an exit has been reached, so a
job stops at the first exit *after* the time that was given: their README reports 25.7 to 26.6 ms
and 42.9 to 43.5 ms, exits 1 and 2.

What can be had within the bounds: exit 0 (11.7 ms, 43.5 % right) within 20 ms, exit 1 (25.3 ms,
68.0 %) within 40 ms. Dělen's answers are right more often, 68.0 and 76.8 %, and all late, so their
effective accuracy is 0: no system keeps the bounds at the accuracy of the exit after them. That the
default loses nothing else shows where its bound is the time that Dělen takes: it then answers from
the same exit, in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.common import Figure, report
from benchmarks.dispatch_cells import DEFAULT, NANO_NAME, model_of
from delen.core.bounds import Bounds
from delen.simulate.outcome import Outcomes
from delen.simulate.run import RunSettings, run
from delen.simulate.trace import Arrival, Trace
from policies.plugins import DISPATCH_POLICIES, find_plugin

DELEN = "delen"
SEEDS = 5
REQUESTS = 400
APART = 1.0
"""Seconds between two requests, so that each finds the device idle."""

NEAR = 0.05
"""Times within this share of the published range count as published: they are inferred from
energies (see ``jetson_profiles``)."""

SPARE = 0.05
"""So much more time than Dělen's slowest answer took has the default, when it is given that time:
it plans by the 99th percentile of every segment."""


@dataclass(frozen=True, slots=True)
class Published:
    """A condition on response time (s), the exit that it stopped at, and the range of times."""

    condition: float
    exit: int
    fastest: float
    slowest: float

    def off(self, seconds: float) -> float:
        """By which share ``seconds`` lies outside of the range."""
        return max(0.0, self.fastest / seconds - 1, seconds / self.slowest - 1)


PUBLISHED = (Published(0.020, 1, 0.0257, 0.0266), Published(0.040, 2, 0.0429, 0.0435))


def play(policy: str, cap: float, seed: int) -> Outcomes:
    """Requests one after another with a latency bound of ``cap`` seconds."""
    model, bounds = model_of(NANO_NAME), Bounds(max_latency=cap)
    trace = Trace(tuple(Arrival(APART * row, bounds=bounds) for row in range(REQUESTS)))
    make, fallback = (find_plugin(DISPATCH_POLICIES, name) for name in (policy, DEFAULT))
    return run(trace, {model.name: model}, make(), fallback(), RunSettings(seed=seed))


def claims(published: Published) -> list[Figure]:
    """Both systems under one condition."""
    cap = published.condition
    theirs = [play(DELEN, cap, seed) for seed in range(SEEDS)]
    ours = [play(DEFAULT, cap, seed) for seed in range(SEEDS)]
    same = [
        play(DEFAULT, (1 + SPARE) * float(run.latency.max()), seed)
        for seed, run in enumerate(theirs)
    ]
    name = f"{1e3 * cap:g} ms"
    return [
        Figure(
            f"{name}, Dělen: stopped at exit {published.exit}",
            tuple(float((run.exit == published.exit).mean()) for run in theirs),
            "",
            1.0,
            at_most=False,
        ),
        Figure(
            f"{name}, Dělen: late",
            tuple(float(run.missed_latency.mean()) for run in theirs),
            "",
            1.0,
            at_most=False,
        ),
        Figure(
            f"{name}, Dělen: response time",
            tuple(1e3 * float(np.median(run.latency)) for run in theirs),
            "ms",
        ),
        Figure(
            f"{name}, Dělen: off the published range",
            tuple(published.off(float(np.median(run.latency))) for run in theirs),
            "",
            NEAR,
        ),
        Figure(f"{name}, Dělen: right, late or not", tuple(map(_right, theirs)), ""),
        Figure(
            f"{name}, default: late or refused",
            tuple(float((run.missed | ~run.answered).mean()) for run in ours),
            "",
            0.0,
        ),
        Figure(
            f"{name}, default: response time",
            tuple(1e3 * float(np.median(run.latency)) for run in ours),
            "ms",
        ),
        Figure(f"{name}, default: right", tuple(map(_right, ours)), ""),
        Figure(
            f"{name}, effective accuracy ahead of Dělen's",
            tuple(
                float(mine.effective.mean() - other.effective.mean())
                for mine, other in zip(ours, theirs, strict=True)
            ),
            "",
            0.0,
            at_most=False,
        ),
        Figure(
            f"{name}, accuracy ahead, given the time that Dělen took",
            tuple(
                float(mine.effective.mean()) - _right(other)
                for mine, other in zip(same, theirs, strict=True)
            ),
            "",
            0.0,
            at_most=False,
        ),
    ]


def _right(outcomes: Outcomes) -> float:
    return float(outcomes.correct.mean())


def main() -> list[Figure]:
    figures = [figure for published in PUBLISHED for figure in claims(published)]
    return report("Dělen's conditions on its Jetson Nano", figures)


if __name__ == "__main__":
    main()
