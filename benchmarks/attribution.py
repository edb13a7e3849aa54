"""Live attribution on a grid of plants whose joules are known (``benchmarks/plants``).

Each cell is a device, a sensor, a load and a fault for 150 seconds, five seeds. Of the requests
that ended after the first half minute: the error of their joules in total and at the worst exit
among those called ``attributed``; of all requests: the share called attributed, the share called
so whose own joules are off by more than 10 %, and when the first one was. Windows close as in the
daemon, one a second.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from benchmarks.common import Figure, report
from benchmarks.plants.scenes import GRID, SECONDS, Played, Scene, play
from delen.core.work import Share, Work
from power.attribution.attribution import LONGEST_WORK, Attributor
from power.sources.series import Samples

SEEDS = 5
WINDOW = 1.0
LATE = 0.1
WIDEST_GAP = 0.25
LEARNT = 30.0
OFF = 0.1
"""Of its true joules, from which on a request's figure is off."""
MODEL = "net"
PROFILED = 0.05


@dataclass(frozen=True)
class Outcome:
    """One cell with one seed: errors and shares as parts of one, seconds to the first attributed
    request (infinite: none), and the processor time of attribution."""

    total: float
    exits: float
    attributed: float
    off: float
    first: float
    processor: float


def run(scene: Scene, seed: int) -> Outcome:
    played = play(scene, seed)
    attributor = Attributor()
    attributor.trust(MODEL, PROFILED if scene.profiled else 1.0)
    works = [
        Work(
            MODEL,
            run.segment,
            len(run.requests),
            run.began,
            run.ended,
            run.predicted,
            tuple(Share(name, "default") for name in run.requests),
        )
        for run in played.served.runs
    ]
    samples = Samples(played.times, played.watts)
    got: defaultdict[str, float] = defaultdict(float)
    known: dict[str, float] = {}
    changes, added, processor = list(played.changes), 0, 0.0
    for window in range(int(SECONDS / WINDOW)):
        began, ended = window * WINDOW, (window + 1) * WINDOW
        first = added
        while added < len(works) and works[added].ended <= ended + LATE:
            added += 1
        inside = _covering(samples, began, ended)
        while changes and changes[0] < ended:
            changes.pop(0)
            attributor.reset("the clocks changed")
        clock = time.process_time()
        for work in works[first:added]:
            attributor.add(work)
        split = attributor.close(began, ended, inside)
        processor += time.process_time() - clock
        for share, joules in split.by_share.items():
            got[share.request_id] += joules
        known.update(dict.fromkeys(split.known, ended))
    return _outcome(played, got, known, processor)


def _covering(samples: Samples, began: float, ended: float) -> Samples | None:
    """The samples of a window and of some seconds before it, as the sampler gives them: none over
    a gap."""
    for since in (began - LONGEST_WORK, began):
        inside = samples.between(since, ended)
        whole = len(inside) > 1 and inside.times[0] <= since and inside.times[-1] >= ended
        if whole and np.diff(inside.times).max() <= WIDEST_GAP:
            return inside
    return None


def _outcome(
    played: Played, got: dict[str, float], known: dict[str, float], processor: float
) -> Outcome:
    requests = played.served.requests
    total, exits, off = np.zeros(2), defaultdict(lambda: np.zeros(2)), 0
    for name, request in requests.items():
        pair = np.array([got[name], request.joules])
        if LEARNT < request.ended < SECONDS - 4:
            total += pair
            if name in known:
                exits[request.exit] += pair
        if name in known:
            off += abs(pair[0] / pair[1] - 1) > OFF
    errors = [abs(a / b - 1) for a, b in exits.values()]
    return Outcome(
        abs(total[0] / total[1] - 1),
        max(errors, default=0.0),
        len(known) / len(requests),
        off / len(requests),
        min(known.values(), default=np.inf),
        processor,
    )


def busy_seconds(works_per_second: int, windows: int = 180) -> float:
    """Processor seconds that one second of that many works costs, over three minutes of them."""
    rng = np.random.default_rng(0)
    length = 0.8 / works_per_second
    attributor, spent = Attributor(), 0.0
    samples = Samples(np.arange(1, windows * 20 + 1) / 20, rng.uniform(5, 7, windows * 20))
    for window in range(windows):
        works = [
            Work(
                MODEL,
                i % 5,
                1,
                window + i / works_per_second,
                window + i / works_per_second + length,
                0.001,
                (Share(f"r{window}-{i // 3}", "default"),),
            )
            for i in range(works_per_second)
        ]
        inside = samples.between(window - LONGEST_WORK, window + 1)
        clock = time.process_time()
        for work in works:
            attributor.add(work)
        attributor.close(float(window), float(window + 1), inside)
        spent += time.process_time() - clock
    return spent / windows


HEAD = f"{'':<36} {'total':>6} {'worst':>6} {'exit':>6} {'attr.':>6} {'off':>6} {'first':>6}"


def cell(scene: Scene, outcomes: list[Outcome]) -> str:
    """One line of the table: errors and shares in percent, medians but for ``worst``, the greatest
    error of a total, and ``off``, the mean."""
    totals = [100 * each.total for each in outcomes]
    columns = (
        np.median(totals),
        max(totals),
        100 * np.median([each.exits for each in outcomes]),
        100 * np.median([each.attributed for each in outcomes]),
        100 * np.mean([each.off for each in outcomes]),
    )
    first = float(np.median([each.first for each in outcomes]))
    figures = " ".join(f"{value:6.1f}" for value in columns)
    return f"{scene.name:<36} {figures} {first:6.0f}"


def main() -> list[Figure]:
    print(f"\n{HEAD}")
    offs, processor = [], []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for scene in GRID:
            outcomes = list(pool.map(run, repeat(scene, SEEDS), range(SEEDS)))
            print(cell(scene, outcomes), flush=True)
            offs.append(100 * float(np.mean([each.off for each in outcomes])))
            processor += [each.processor for each in outcomes]
    costs = tuple(100 * busy_seconds(2000) for _ in range(3))
    return report(
        "Live attribution on plants of known joules",
        [
            Figure("attributed and off by > 10 %, cells", tuple(offs), "%", 1.0),
            Figure("attributed and off by > 10 %, worst cell", (max(offs),), "%", 1.0),
            Figure("processor time for 150 s", tuple(processor), "s", 0.56),
            Figure("a core's time at 2,000 works a second", costs, "%", 1.0),
        ],
    )


if __name__ == "__main__":
    main()
