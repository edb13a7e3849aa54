"""``delen trace``: write a trace of apps that send requests at random."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from delen.commands.common import TIMES, quantity, seed
from delen.commands.table import progress_bar
from delen.core.atomic_file import atomic_file
from delen.errors import ConfigError, DelenError, InvalidInput

if TYPE_CHECKING:
    from delen.simulate.apps import App
    from delen.simulate.arrivals import Arrivals

MOST_REQUESTS = 20_000_000
"""A day of 230 a second. Drawing takes some 60 bytes for each, and playing far more."""

MOST_CHANGES = 1_000_000
"""Changes of rates, in bursts and recordings."""

KEYS = """\
keys of an app:
  rate=30                  requests a second; of each stream, where there are several
  arrivals=poisson         poisson: each by itself (the default)
           bursts          Poisson between a calm and a burst rate: peak=3 times the mean rate,
                           for share=0.2 of the time, dwell=1s each
           camera          at a fixed rate, the first after phase=0s (default: at random), each
                           up to jitter=5ms late (default: 0)
           recorded        Poisson at the rates in record=FILE, a line for each step=1s, over
                           and over; scaled to the mean rate, if that is given
  from=20s, to=40s         when the app is there (default: always)
  streams=4                four sources, each with this rate
  model=NAME, priority=2   as in a request
  max-latency=20ms, min-accuracy=0.9, max-energy=50mJ
                           the bounds of all requests; or of a part of them, behind part=3: every
                           part has bounds of its own, and is drawn as often as its number says
times: us, ms, s, min, h; energies: uJ, mJ, J"""

EXAMPLE = """\
example: delen trace --output day.csv --duration 1min --seed 1 \\
           --app doorbell:rate=15,arrivals=camera,jitter=10ms,streams=4,max-latency=20ms \\
           --app search:rate=60,arrivals=bursts,part=3,min-accuracy=0.88,part=1 \\
           --app robot:rate=40,from=20s,to=40s,max-latency=10ms,priority=2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a trace for delen simulate and delen bench: which app sends which requests, and\n"
        "when. The same seed gives the same trace."
    )
    parser.epilog = f"{KEYS}\n\n{EXAMPLE}"
    parser.add_argument(
        "--app",
        type=_app,
        action="append",
        required=True,
        metavar="NAME:KEY=VALUE,...",
        help="a tenant and its requests, by the keys below; may be given several times, also for "
        "one name",
    )
    parser.add_argument(
        "--duration",
        type=quantity(TIMES),
        required=True,
        metavar="10min",
        help="length of the trace",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the trace")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.add_argument("--seed", type=seed, default=0, help="of all that is random (default: 0)")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(options: argparse.Namespace) -> int:
    from delen.simulate.apps import draw

    for app in options.app:
        _check_stay(app, options.duration)
    _check_size(options.app, options.duration)
    try:
        _check_output(options.output, options.overwrite)
        with atomic_file(options.output) as unfinished:
            requests = draw(options.app, options.duration, options.seed)
            if not len(requests):
                raise DelenError(
                    f"no requests were drawn in {options.duration:g} s, and nothing is written; "
                    "give a longer --duration, or --app higher rates"
                )
            requests.write(unfinished, progress_bar("trace", options.json))
    except OSError as error:
        raise DelenError(f"--output {options.output} cannot be written: {error}") from error
    counts = requests.by_tenant()
    if options.json:
        print(json.dumps(_summary(options.output, options.duration, counts)))
    else:
        print(_table(options.output, options.duration, counts))
    return 0


def _summary(file: Path, duration: float, counts: Mapping[str, int]) -> dict[str, object]:
    return {
        "file": str(file),
        "seconds": duration,
        "requests": sum(counts.values()),
        "tenants": {name: {"requests": count} for name, count in counts.items()},
    }


def _table(file: Path, duration: float, counts: Mapping[str, int]) -> str:
    lines = [f"{file}: {sum(counts.values())} requests in {duration:g} s"]
    width = max(len("tenant"), *map(len, counts))
    lines.append(f"{'tenant':<{width}} {'requests':>9} {'a second':>9}")
    lines += [
        f"{name:<{width}} {count:>9} {count / duration:>9.4g}" for name, count in counts.items()
    ]
    return "\n".join(lines)


def _app(text: str) -> App:
    from delen.commands.app_text import read_app

    return read_app(text)


def _stay(arrivals: Arrivals) -> tuple[Arrivals, float, float]:
    """An app's arrivals while it sends, and when it begins and ends."""
    from delen.simulate.arrivals import Window

    if isinstance(arrivals, Window):
        return arrivals.inner, arrivals.start, arrivals.end
    return arrivals, 0.0, inf


def _check_stay(app: App, duration: float) -> None:
    _, start, end = _stay(app.arrivals)
    if start >= duration:
        raise ConfigError(
            f"--app {app.name}: from is {start:g} s, after the trace's end: --duration is "
            f"{duration:g} s"
        )
    if duration < end < inf:
        raise ConfigError(
            f"--app {app.name}: to is {end:g} s, after the trace's end: --duration is "
            f"{duration:g} s; leave it out for an app that stays"
        )


def _check_size(apps: Sequence[App], duration: float) -> None:
    """ConfigError if ``apps`` would take too much memory or time to draw."""
    from delen.simulate.arrivals import Bursts, Recorded

    requests = changes = 0.0
    for app in apps:
        inner, start, end = _stay(app.arrivals)
        seconds, streams = min(end, duration) - start, app.streams or 1
        requests += app.rate * seconds
        changes += streams
        if isinstance(inner, Bursts):
            changes += streams * seconds * 2 * inner.share / inner.dwell
        elif isinstance(inner, Recorded):
            changes += streams * seconds / inner.step
    if requests > MOST_REQUESTS:
        raise ConfigError(
            f"--app: about {requests:.2g} requests in {duration:g} s are too many; up to "
            f"{MOST_REQUESTS:,} are written: lower rate or --duration"
        )
    if changes > MOST_CHANGES:
        raise ConfigError(
            f"--app: rates that change about {changes:.2g} times, counting each stream, are too "
            f"much; up to {MOST_CHANGES:,} changes are drawn: raise dwell or step, or lower "
            "streams or --duration"
        )


def _check_output(target: Path, overwrite: bool) -> None:
    """InvalidInput unless ``target`` may be written."""
    if not target.parent.is_dir():
        raise InvalidInput(f"--output {target}: there is no folder {target.parent}", "output")
    if target.exists() and not target.is_file():
        raise InvalidInput(f"--output {target} is not a file; give the name of one", "output")
    if target.exists() and not overwrite:
        raise InvalidInput(f"--output {target} exists; give another file, or --overwrite", "output")
