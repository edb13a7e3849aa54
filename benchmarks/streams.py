"""``python -m benchmarks.streams``: client controllers on links of recorded bandwidth.

Frames at 30 a second, due after 33 and 100 ms, over Jellyfish's Wi-Fi and LTE traces (a value a
second, held) and 12 mobile ones (a value about every 30 s, interpolated). Two sets of sizes: one as
steep as Jellyfish's published accuracies, one as flat as YOLOv4's (``benchmarks/profiles``). Each
seed plays a minute from another part of the trace. A late or missing answer has accuracy 0.

No controller's assumptions hold: bandwidth varies by 15 % about the trace, correlated over 0.2 s,
and fades to a tenth for 0.1 s every 50 s; packets are lost in bursts and sent again; every way has
exponential jitter; payloads differ from frame to frame by 10 %, the daemon's times by 10 %; the
camera's clock is late by 1 ms on average.

"Bound" is the most that a clairvoyant could reach (``delen.simulate.streams.clairvoyant``). A frame
that the smallest size would have made is *keepable*; one that is keepable and was not on time is an
*avoidable miss*. The claims on the default, each judged in the cell where it holds least: no
controller ahead of it in effective accuracy by more than TIE (the median of the differences, seed
by seed), at most 1 % avoidable misses wherever the smallest size misses at most 1 %, and no more
switches than MPC. The cells where one does not hold are listed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks.common import Figure, data_folder, report
from benchmarks.dispatch_report import interval
from delen.simulate.streams.bandwidth import HOLD, LINEAR, Bandwidth, read_bandwidth
from delen.simulate.streams.clairvoyant import keepable, upper_bound
from delen.simulate.streams.light import play_light
from delen.simulate.streams.link import Link, LinkSettings
from delen.simulate.streams.sizes import read_sizes
from delen.simulate.streams.stream import Stream, StreamSettings, draw_footage
from policies.client.api import ClientController
from policies.client.fixed import Fixed
from policies.plugins import CLIENT_CONTROLLERS, make_controller, plugin_names

FPS = 30.0
SECONDS = 60.0
DEADLINES = (0.033, 0.1)
ROUND_TRIPS = (0.005, 0.02)
"""Seconds of an empty message there and back, at each deadline."""

DEFAULT = "expected"
SIZES = ("gentle", "steep")
NAMES = ("wifi", "lte", *(f"mobile{number:02}" for number in range(1, 13)))
KEPT = 0.01
TIE = 0.1
"""Points of effective accuracy: about three frames of a minute, which it takes to know a link."""

_LEAST = 0.7
"""The clairvoyant's daemon takes this share of the option's time: less than any drawn."""

_PROFILES = Path(__file__).parent / "profiles"


class Cell(NamedTuple):
    """One link, deadline and set of sizes."""

    link: str
    deadline: float
    sizes: str


class Result(NamedTuple):
    """The figures of one controller in one run."""

    effective: float
    avoidable: float
    missed: float
    switches: int
    decision: float


@dataclass(frozen=True, slots=True)
class Played:
    """One cell with one seed: all controllers, the bound, and what the smallest size misses."""

    cell: Cell
    seed: int
    bound: float
    smallest: float
    results: dict[str, Result]


def trace_file(name: str) -> Path:
    """The file of the trace ``name``."""
    folder = data_folder() / "traces"
    if name.startswith("mobile"):
        return folder / "bandwidth" / f"{name[-2:]}.csv"
    return folder / f"jellyfish_{name}{'_upload' if name == 'lte' else ''}_trace.txt"


def bandwidth_of(name: str, seed: int, seeds: int) -> Bandwidth:
    """The minute of the trace ``name`` that ``seed`` of ``seeds`` plays."""
    whole = read_bandwidth(trace_file(name), LINEAR if name.startswith("mobile") else HOLD)
    start = (whole.end - SECONDS) * (seed % seeds) / max(1, seeds - 1)
    return whole.part(start, SECONDS)


def controllers() -> dict[str, Callable[[], ClientController]]:
    """All controllers, the fixed one at the smallest, the middle and the largest size."""
    made: dict[str, Callable[[], ClientController]] = {
        name: lambda name=name: make_controller(name)  # type: ignore[misc]
        for name in plugin_names(CLIENT_CONTROLLERS)
        if name != Fixed.name
    }
    made["smallest"] = lambda: Fixed(0)
    made["middle"] = Fixed
    made["largest"] = lambda: Fixed(-1)
    return made


def play(cell: Cell, seed: int, seeds: int, seconds: float = SECONDS) -> Played:
    """Every controller on the same link, with the same frames."""
    options = read_sizes(_PROFILES / f"sizes-{cell.sizes}.csv")
    round_trip = dict(zip(DEADLINES, ROUND_TRIPS, strict=True))[cell.deadline]
    link = LinkSettings(
        bandwidth_of(cell.link, seed, seeds),
        delay=round_trip / 2,
        jitter=0.001,
        loss=0.0005,
        variation=0.15,
        fades=0.02,
    )
    settings = StreamSettings(
        "camera", options, FPS, cell.deadline, round(FPS * seconds), jitter=0.001
    )
    footage = draw_footage(settings, seed)
    kept = keepable(settings, Link(link, settings.end, seed), footage)
    results = {}
    for name, make in controllers().items():
        stream = Stream(settings, make(), Link(link, settings.end, seed), footage)
        (frames,) = play_light([stream], seed)
        on_time = frames.in_time(cell.deadline)
        results[name] = Result(
            frames.effective(cell.deadline),
            float((kept & ~on_time).mean()),
            float(1 - on_time.mean()),
            frames.switches,
            1e6 * float(np.median(frames.decision_seconds)),
        )
    bound = upper_bound(settings, Link(link, settings.end, seed), footage, _LEAST)
    return Played(cell, seed, bound, float(1 - kept.mean()), results)


def play_all(cells: Sequence[Cell], seeds: int, processes: int = 2, first: int = 0) -> list[Played]:
    """``cells`` with each of ``seeds`` seeds, from ``first`` on."""
    jobs = list(product(cells, range(first, first + seeds)))
    with ProcessPoolExecutor(processes) as pool:
        return list(
            pool.map(play, [cell for cell, _ in jobs], [s for _, s in jobs], [seeds] * len(jobs))
        )


def by_cell(played: Sequence[Played]) -> dict[Cell, list[Played]]:
    """The runs of each cell."""
    cells: dict[Cell, list[Played]] = {}
    for each in played:
        cells.setdefault(each.cell, []).append(each)
    return cells


def table(cells: dict[Cell, list[Played]]) -> Iterator[str]:
    """A line a cell: bound, and effective accuracy and avoidable misses of each controller."""
    names = list(next(iter(cells.values()))[0].results)
    names.sort(key=lambda name: name != DEFAULT)
    yield f"{'effective accuracy, medians':<26}{'bound':>7}" + "".join(f"{n:>11}" for n in names)
    for cell, runs in cells.items():
        values = [median(run.results[name].effective for run in runs) for name in names]
        bound = median(run.bound for run in runs)
        yield f"{_label(cell):<26}{bound:>7.3f}" + "".join(f"{value:>11.3f}" for value in values)
    yield ""
    yield f"{'avoidable misses, %':<26}{'least':>7}" + "".join(f"{n:>11}" for n in names)
    for cell, runs in cells.items():
        values = [100 * median(run.results[name].avoidable for run in runs) for name in names]
        least = 100 * median(run.smallest for run in runs)
        yield f"{_label(cell):<26}{least:>7.2f}" + "".join(f"{value:>11.2f}" for value in values)
    yield ""
    yield f"{'of all cells':<26}{'':>7}" + "".join(f"{n:>11}" for n in names)
    every = [run for runs in cells.values() for run in runs]
    for what in ("switches", "decision"):
        values = [median(getattr(run.results[name], what) for run in every) for name in names]
        title = "switches a minute" if what == "switches" else "decision, µs"
        yield f"{title:<33}" + "".join(f"{value:>11.0f}" for value in values)


def _label(cell: Cell) -> str:
    return f"{cell.link} {1e3 * cell.deadline:.0f} ms {cell.sizes}"


def claims(cells: dict[Cell, list[Played]]) -> list[Figure]:
    """The claims on the default, each in the cell where it holds least."""
    leads: dict[str, list[float]] = {}
    kept, switches = [], []
    for cell, runs in cells.items():
        for other in runs[0].results:
            if other != DEFAULT:
                lead = [r.results[DEFAULT].effective - r.results[other].effective for r in runs]
                leads[f"{_label(cell)}, {other}"] = [100 * value for value in lead]
        if median(run.smallest for run in runs) <= KEPT:
            kept.append((cell, [100 * run.results[DEFAULT].avoidable for run in runs]))
        more = [run.results[DEFAULT].switches - run.results["mpc"].switches for run in runs]
        switches.append((cell, [float(value) for value in more]))
    least = min(leads, key=lambda name: median(leads[name]))
    lead = tuple(leads[least])
    figures = [Figure(f"lead over {least}", lead, "points", -TIE, at_most=False)]
    if kept:
        cell, values = max(kept, key=lambda pair: median(pair[1]))
        figures.append(Figure(f"avoidable misses, {_label(cell)}", tuple(values), "%", 1.0))
    cell, values = max(switches, key=lambda pair: median(pair[1]))
    figures.append(Figure(f"switches beyond MPC's, {_label(cell)}", tuple(values), "", 0.0))
    shares = tuple(
        float(np.mean([run.results[DEFAULT].effective / run.bound for run in played]))
        for played in zip(*cells.values(), strict=True)
        if all(run.bound for run in played)
    )
    figures.append(Figure("share of the bound, mean of all cells", shares, ""))
    return figures


def behind(cells: dict[Cell, list[Played]]) -> Iterator[str]:
    """The cells where a controller's median lead over the default is above 0, where it misses too
    many frames, and where it switches more often than MPC."""
    for cell, runs in cells.items():
        missed = median(run.results[DEFAULT].avoidable for run in runs)
        if median(run.smallest for run in runs) <= KEPT < missed:
            yield f"avoidable misses: {_label(cell)}, {100 * missed:.2f} %"
        more = median(run.results[DEFAULT].switches - run.results["mpc"].switches for run in runs)
        if more > 0:
            yield f"switches beyond MPC's: {_label(cell)}, {more:.0f} a minute"
        for other in runs[0].results:
            leads = [r.results[other].effective - r.results[DEFAULT].effective for r in runs]
            if median(leads) > 0:
                low, high = interval(leads)
                yield (
                    f"ahead of the default: {_label(cell)}, {other} by {100 * median(leads):.2f} "
                    f"points [{100 * low:.2f} .. {100 * high:.2f}]"
                )


def judge(
    seeds: int, names: Sequence[str] = NAMES, processes: int = 2, first: int = 0
) -> list[Figure]:
    """Play all cells, and print their tables and claims."""
    there = [name for name in names if trace_file(name).exists()]
    if absent := sorted(set(names) - set(there)):
        print(f"skipped: {', '.join(absent)}: not under {data_folder() / 'traces'}")
    if not there:
        return []
    grid = [Cell(*values) for values in product(there, DEADLINES, SIZES)]
    cells = by_cell(play_all(grid, seeds, processes, first))
    print("\n".join(table(cells)))
    print("\n".join(behind(cells)) or "each claim holds in every cell")
    return report("The default where each claim holds least", claims(cells))


def main() -> list[Figure]:
    return judge(seeds=5)


def _command() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--link", nargs="+", choices=NAMES, default=NAMES)
    options = parser.parse_args()
    figures = judge(options.seeds, options.link, options.processes, options.first)
    return int(any(figure.holds is False for figure in figures))


if __name__ == "__main__":
    raise SystemExit(_command())
