"""``delen capacity``: how many cameras a simulated device keeps up with."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delen.commands import simulated_device
from delen.commands.common import MOST_SEEDS, TIMES, check_once, fraction, quantity, seed, whole
from delen.commands.plot_option import check_plot
from delen.commands.sweep_table import aligned, mean_text
from delen.commands.table import progress_bar
from delen.core.numbers import read_number
from delen.daemon.settings import DEFAULT_DISPATCH
from delen.errors import ConfigError, DelenError

if TYPE_CHECKING:
    from delen.simulate.apps import App
    from delen.simulate.capacity import Capacity, Trial
    from delen.simulate.mean_interval import Mean
    from delen.simulate.model import SimulatedModel
    from delen.simulate.run import RunSettings

_MOST_REQUESTS = 1_000_000
"""In one trial."""

Setup = tuple[dict[str, "SimulatedModel"], "RunSettings"]
"""What one seed is played with."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find the greatest number of cameras that a simulated device keeps up with: with one\n"
        "more, more requests than --violations are refused or outside their bounds. Numbers\n"
        "are tried by doubling and bisection, each with several seeds."
    )
    parser.epilog = (
        'example: delen capacity --app "10 fps, 100 ms" \\\n'
        "           --profile benchmarks/profiles/nano-resnet50.json --plot capacity.png"
    )
    parser.add_argument(
        "--app",
        type=_camera,
        required=True,
        metavar='"10 fps, 100 ms"',
        help="one camera: its frames a second, the latency of each (and an energy, as in 50 mJ); "
        "also KEY=VALUE as in an app of delen trace, such as min-accuracy=0.85",
    )
    parser.add_argument(
        "--violations",
        type=_share,
        default=0.01,
        metavar="1%",
        help="the share of requests that may be refused or answered outside their bounds "
        "(default: 1%%)",
    )
    simulated_device.add_arguments(parser)
    parser.add_argument(
        "--policy",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"dispatch policies (default: {DEFAULT_DISPATCH})",
    )
    parser.add_argument(
        "--duration",
        type=quantity(TIMES),
        default=20.0,
        metavar="20s",
        help="of each trial (default: 20s)",
    )
    parser.add_argument(
        "--seeds",
        type=whole(1, MOST_SEEDS),
        default=5,
        metavar="N",
        help="of each trial (default: 5)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="the first one: of frames and noise (default: 0)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw all trials here")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line and policy")


def run(options: argparse.Namespace) -> int:
    from delen.simulate.capacity import find_capacity
    from policies.plugins import make_dispatch

    if options.plot is not None:
        check_plot(options.plot)
    names = options.policy or [DEFAULT_DISPATCH]
    check_once(names, "--policy")
    for name in names:
        make_dispatch(name)
    app: App = options.app
    most = int(_MOST_REQUESTS / (app.rate * options.duration))
    if app.rate * options.duration < 1 or most < 1:
        raise ConfigError(
            f"--duration is {options.duration:g} s, and a camera sends {app.rate:g} frames a "
            f"second; a trial needs at least one frame and at most {_MOST_REQUESTS:,}"
        )
    setups = _setups(options)
    found: dict[str, Capacity] = {}
    unfound: list[str] = []
    for name in names:
        capacity = find_capacity(_trials(options, name, setups), options.violations, most)
        if capacity.cameras == most:
            unfound.append(name)
            continue
        found[name] = capacity
        if options.json:
            print(json.dumps(_document(options, name, capacity)), flush=True)
    if found and not options.json:
        print(_table(options, found), end="")
    if found and options.plot is not None:
        from delen.simulate.plots import save_capacity

        try:
            save_capacity(found, options.violations, options.plot)
        except OSError as error:
            raise DelenError(f"--plot {options.plot} cannot be written: {error}") from error
        print(f"written: {options.plot}", file=sys.stderr)
    if unfound:
        raise DelenError(
            f"{most} cameras are not too many for {', '.join(unfound)}, and more are not tried; "
            "give --app more frames a second, or a shorter --duration"
        )
    return 0


def _setups(options: argparse.Namespace) -> list[Setup]:
    """One for each seed."""
    from delen.daemon.config import read_config
    from delen.profile.reader import load_profile
    from delen.simulate.run import RunSettings

    config, setups = read_config(options.config, os.environ), []
    read = cache(load_profile)  # once: it may be a pipe
    for number in range(options.seed, options.seed + options.seeds):
        own = argparse.Namespace(**{**vars(options), "seed": number})
        models = simulated_device.models_of(own, config, read)
        settings = RunSettings(
            audit_fraction=config["policies.audit_fraction"],
            device=simulated_device.device_of(own, config, list(models.values())),
            max_backlog=config["server.max_backlog_seconds"],
            seed=number,
        )
        setups.append((models, settings))
    return setups


def _trials(
    options: argparse.Namespace, policy: str, setups: Sequence[Setup]
) -> Callable[[int], Trial]:
    """What plays a number of cameras under ``policy``, and reports on stderr what came of it."""
    from delen.simulate.apps import draw
    from delen.simulate.capacity import Trial
    from delen.simulate.mean_interval import Mean
    from delen.simulate.run import run
    from delen.simulate.summary import quantile
    from delen.simulate.trace import Trace
    from policies.plugins import make_dispatch

    def play(cameras: int) -> Trial:
        violations, effective, p99 = [], [], []
        app = replace(options.app, streams=cameras)
        bar = progress_bar(f"{policy} {cameras}", options.json)
        for models, settings in setups:
            trace = Trace(tuple(draw([app], options.duration, settings.seed)))
            default = make_dispatch(DEFAULT_DISPATCH)
            outcomes = run(trace, models, make_dispatch(policy), default, settings, bar)
            for failure in outcomes.failures:
                print(f"delen: {failure}; the default decided instead", file=sys.stderr)
            violations.append(1 - float((outcomes.answered & ~outcomes.missed).mean()))
            effective.append(float(outcomes.effective.mean()))
            p99.append(quantile(outcomes.latency[outcomes.answered], 0.99))
        known = [seconds for seconds in p99 if seconds is not None]
        trial = Trial(
            cameras,
            Mean.of(violations),
            Mean.of(effective),
            Mean.of(known) if len(known) == len(p99) else None,
        )
        if not options.json:
            print(
                f"{policy}, {cameras} {'camera' if cameras == 1 else 'cameras'}: "
                f"{_percent(trial.violations)} % violated",
                file=sys.stderr,
                flush=True,
            )
        gc.collect()
        return trial

    return play


def _table(options: argparse.Namespace, found: dict[str, Capacity]) -> str:
    rows = [
        ["policy", "cameras", "95 %", "violations %", "with one more %", "effective", "p99 ms"],
    ]
    for name, capacity in found.items():
        at, beyond = capacity.at(capacity.cameras), capacity.at(capacity.cameras + 1)
        rows.append(
            [
                name,
                str(capacity.cameras),
                f"{capacity.low} .. {capacity.high}" if options.seeds > 1 else "-",
                "-" if at is None else _percent(at.violations),
                "-" if beyond is None else _percent(beyond.violations),
                mean_text(None if at is None else at.effective, ".4f"),
                mean_text(None if at is None else _milli(at.p99), ".1f"),
            ]
        )
    times = f"{options.seeds} times {options.duration:g} s"
    title = (
        f"cameras of {options.app.rate:g} frames a second, of whose frames at most "
        f"{100 * options.violations:g} % are refused or outside a bound; {times}"
    )
    return f"{title}\n{aligned(rows, labels=1)}"


def _document(options: argparse.Namespace, policy: str, capacity: Capacity) -> dict[str, Any]:
    return {
        "policy": policy,
        "cameras": capacity.cameras,
        "interval": [capacity.low, capacity.high],
        "fps": options.app.rate,
        "violations": options.violations,
        "seconds": options.duration,
        "seeds": list(range(options.seed, options.seed + options.seeds)),
        "trials": [
            {
                "cameras": trial.cameras,
                "violations": _figure(trial.violations),
                "effective_accuracy": _figure(trial.effective),
                "p99_ms": _figure(_milli(trial.p99)),
            }
            for trial in capacity.trials
        ],
    }


def _figure(mean: Mean | None) -> dict[str, float] | None:
    return None if mean is None else {"mean": mean.mean, "low": mean.low, "high": mean.high}


def _milli(mean: Mean | None) -> Mean | None:
    return None if mean is None else mean.times(1e3)


def _percent(mean: Mean) -> str:
    return mean_text(mean.times(100), ".2f")


def _camera(text: str) -> App:
    from delen.commands.camera_text import read_camera

    return read_camera(text)


def _share(text: str) -> float:
    """A share below 1, as 1% or as 0.01."""
    text = text.strip()
    try:
        share = fraction(str(read_number(text[:-1]) / 100) if text.endswith("%") else text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be a share, such as 1%") from None
    if share == 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be below 100 %: any number keeps that")
    return share
