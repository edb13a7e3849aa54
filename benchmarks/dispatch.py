"""``python -m benchmarks.dispatch [--quick]``: dispatch policies beside what a clairvoyant can do.

Every policy plays the same requests: on the shipped network by this machine's profile, on Dělen's
ResNet-50 on a Jetson Nano and ETF's on a Jetson TX2 (``benchmarks/profiles``); Poisson, in bursts,
from cameras, and at a recorded rate; of 1, 3 and 10 apps with mixed bounds (``simulate.apps``); at
loads of what the device runs a second to the deepest exit, one at a time. Six seeds, whose least
and greatest values enclose the median with 97 %. The full grid takes about an hour of one core
and can be played in parts (``--minutes``); the quick one is a coarse part of it.

Claimed of the default: 0.95 of the upper bound up to load 1 and 0.90 above, 1 % violations up to
load 0.9, and no policy ahead in any cell. Each is judged in the cell where it holds least, and the
cells where another is ahead are listed. "Best other" is the best of ten policies in hindsight, in
each cell again, so that equal policies would look up to some tenths of a point better too.

**What is missed, and why.** The table divides the share of the bound into three factors.

- *knowing*: the bound knows which exits will be right about each sample, and stops at the first.
  The deepest exit that a request's own caps allow, on an idle device, has 0.95 to 0.965 of it on
  this machine and 0.915 to 0.95 on the Jetsons, whose samples are made up from the accuracies of
  the exits.
- *floors*: an accuracy floor asks for the least energy that keeps it, and requests without bounds
  may lose half a point, so they stop early by contract. The bound asks nothing for floors and gains
  from depth. 0.95 to 0.975 here, 0.92 to 0.97 on the Jetsons.
- *load*: what the default has of its own effective accuracy on an idle device. Here alone the
  scheduler can gain or lose: it has 0.994 or more of it here at every load, and 0.957 to 1 on
  the Jetsons.

So the default is below 0.95 of the bound even when no two requests meet: knowing and floors leave
it 0.91 to 0.94 here and 0.85 to 0.90 on the Jetsons. (Neither factor is a limit that is proved: the
answer of the most confident exit is right a little more often.)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from benchmarks.common import Figure, report
from benchmarks.dispatch_cells import DEVICES, RECORD, RECORDED, kinds_here, model_of
from benchmarks.dispatch_grid import FULL, QUICK, Grid, fill, jobs_of
from benchmarks.dispatch_report import behind, by_cell, cells_table, claims, policies_table
from policies.plugins import DISPATCH_POLICIES, plugin_names

RESULTS = Path("build") / "dispatch.jsonl"


def play(
    grid: Grid, policies: Sequence[str], file: Path, processes: int = 2, seconds: float = inf
) -> list[Figure]:
    """Play what is missing of ``grid``, and print tables and claims of what is there."""
    kinds = tuple(kind for kind in grid.kinds if kind in kinds_here())
    if RECORDED in grid.kinds and RECORDED not in kinds:
        print(f"without the arrivals {RECORDED!r}: {RECORD} is not in the data's folder")
    for device in grid.devices:
        model_of(device)  # measures this machine before others work on it
    jobs = jobs_of(replace(grid, kinds=kinds), policies)
    lines = fill(jobs, file, processes, seconds)
    if len(lines) < len(jobs):
        print(f"{len(lines)} of {len(jobs)} played; the same command plays on")
    if not lines:
        return []
    results = by_cell(lines)
    print(f"\n{cells_table(results)}\n\n{policies_table(results)}\n\n{behind(results)}")
    return report("The default where each claim holds least", claims(results))


def main() -> list[Figure]:
    """The quick grid, with the other benchmarks."""
    return play(QUICK, plugin_names(DISPATCH_POLICIES), RESULTS)


def _command() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dispatch",
        description="Play the full grid; what FILE has already is not played again.",
    )
    parser.add_argument("--quick", action="store_true", help="some minutes in place of an hour")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--minutes", type=float, default=inf, metavar="M", help="stop after them")
    parser.add_argument("--device", nargs="+", choices=DEVICES, default=DEVICES)
    parser.add_argument("--policy", nargs="+", default=plugin_names(DISPATCH_POLICIES))
    options = parser.parse_args()
    grid = replace(QUICK if options.quick else FULL, devices=tuple(options.device))
    figures = play(grid, options.policy, options.results, options.processes, 60 * options.minutes)
    return int(any(figure.holds is False for figure in figures))


if __name__ == "__main__":
    raise SystemExit(_command())
