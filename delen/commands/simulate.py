"""``delen simulate``: play a trace on a simulated device."""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delen.commands import simulate_fleet, simulate_streams, simulated_device, stream_options
from delen.commands.common import MOST_SEEDS, check_once, positive, read_requests, seed, whole
from delen.commands.sweep_table import sweep_table
from delen.commands.table import progress_bar, table
from delen.core.bounds import DEFAULT_PRIORITY, HIGHEST_PRIORITY, LOWEST_PRIORITY, check_integer
from delen.core.numbers import read_number, read_whole
from delen.daemon.settings import DEFAULT_DISPATCH
from delen.errors import ConfigError, DelenError, InvalidInput

if TYPE_CHECKING:
    from delen.simulate.outcome import Outcomes
    from delen.simulate.trace import Trace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Play a trace (a CSV file with the column time_s, and tenant, model, stream, priority,\n"
        "max_latency_ms, min_accuracy, max_energy_mj if set) with the scheduler, planner and\n"
        "policies of the daemon on a simulated device, and compare dispatch policies."
    )
    parser.epilog = (
        "example: delen simulate --model cifar10-resnet --trace day.csv --policy value fifo \\\n"
        "           --slowdown 60:120:2.0 --plots plots"
    )
    simulated_device.add_arguments(parser)
    played = parser.add_mutually_exclusive_group(required=True)
    played.add_argument(
        "--trace", type=Path, metavar="FILE", help="the requests (delen trace writes one)"
    )
    played.add_argument(
        "--fleet",
        type=Path,
        metavar="FILE",
        help="a site of several nodes, in TOML; --policy names fleet policies then",
    )
    played.add_argument(
        "--link",
        type=stream_options.link,
        metavar="FILE[,linear][,delay=5ms]...",
        help="the link's bandwidth over time: a value in Mbit/s a line and second, or CSV with "
        "time_s,mbps; held, or linear between its values; with delay and jitter each way, loss (a "
        "share of packets, in bursts of burst seconds), variation and fades",
    )
    parser.add_argument(
        "--policy",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="dispatch policies (default: all there are)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of samples and noise (default: 0)")
    parser.add_argument(
        "--seeds",
        type=whole(1, MOST_SEEDS),
        metavar="N",
        help="play N times, with seeds from --seed on; the table has means with 95 %% intervals",
    )
    parser.add_argument(
        "--speed",
        type=_speeds,
        metavar="0.3,0.6,1.2",
        help="play the trace so many times faster, once for each",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="play once with each file: profiles (.json) in place of --profile, or configurations "
        "(.toml) in place of --config",
    )
    parser.add_argument(
        "--weight",
        type=_weight,
        action="append",
        default=[],
        metavar="TENANT=2",
        help="a tenant's weight (default: 1); may be given several times",
    )
    parser.add_argument(
        "--priority",
        type=_priority,
        action="append",
        default=[],
        metavar="TENANT=1",
        help="the most urgent priority that a tenant's requests may have beside others' "
        f"(default: {DEFAULT_PRIORITY}); may be given several times",
    )
    parser.add_argument(
        "--no-upper-bound",
        action="store_true",
        help="do not compute what could be reached: by a clairvoyant, and without seeing labels",
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write plots here")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line and policy")
    stream_options.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    from delen.daemon.config import read_config
    from delen.simulate.plots import save_plots, save_sweep, use_files
    from delen.simulate.sweep import lines_of
    from policies.plugins import DISPATCH_POLICIES, make_dispatch, plugin_names

    if options.fleet is not None:
        _check_alone(options)
        return simulate_fleet.run(options)
    stream_options.check(options)
    if options.link is not None:
        return simulate_streams.run(options, read_config(options.config, os.environ))
    trace = read_requests(options.trace)
    names = options.policy or _ours_first(plugin_names(DISPATCH_POLICIES))
    check_once(names, "--policy")
    for name in names:
        make_dispatch(name)
    if options.plots is not None:
        use_files()  # what it lacks is said before the work
    _check_tenants(options, trace)
    gc.freeze()  # a long trace is no garbage, and would be searched for it again and again
    runs, summaries = [], []
    is_sweep = bool(options.compare) or (options.seeds or 1) > 1 or len(options.speed or ()) > 1
    for outcomes, summary in _play_all(options, trace, names):
        summaries.append(summary)
        if options.json:
            print(json.dumps(summary), flush=True)
        if options.plots is not None and not is_sweep:
            runs.append(outcomes)
    if not options.json:
        print((sweep_table if is_sweep else table)(summaries), end="")
    if options.plots is not None:
        try:
            if is_sweep:
                files = [save_sweep(lines_of(summaries), options.plots)]
            else:
                files = save_plots(runs, summaries, options.plots)
        except OSError as error:
            raise DelenError(f"the plots cannot be written: {error}") from error
        print(f"written: {', '.join(map(str, files))}", file=sys.stderr)
    return 0


def _play_all(
    options: argparse.Namespace, trace: Trace, names: Sequence[str]
) -> Iterator[tuple[Outcomes, dict[str, Any]]]:
    """The run of each file that is compared, seed, speed and policy."""
    from delen.daemon.config import read_config
    from delen.profile.reader import load_profile
    from delen.simulate.bounds.upper_bound import label_blind_bound, upper_bound
    from delen.simulate.run import RunSettings, run
    from delen.simulate.summary import summarise
    from policies.plugins import make_dispatch

    weights = dict(options.weight)
    read = cache(load_profile)  # once, as the configuration: either may be a pipe
    configured = cache(lambda file: read_config(file, os.environ))
    for setup in _setups(options):
        config = configured(setup.config)
        models = simulated_device.models_of(setup, config, read)
        device = simulated_device.device_of(setup, config, list(models.values()))
        settings = RunSettings(
            audit_fraction=config["policies.audit_fraction"],
            device=device,
            weights=weights,
            priorities=dict(options.priority),
            max_backlog=config["server.max_backlog_seconds"],
            seed=setup.seed,
        )
        for speed in options.speed or (1.0,):
            fast, bound, label_blind = trace.faster(speed), None, None
            if not options.no_upper_bound:
                bound = upper_bound(fast, models, device, setup.seed)
                label_blind = label_blind_bound(fast, models, device, setup.seed)
            for name in names:
                policy = make_dispatch(name)
                default = policy if name == DEFAULT_DISPATCH else make_dispatch(DEFAULT_DISPATCH)
                bar = progress_bar(name, options.json)
                outcomes = run(fast, models, policy, default, settings, bar)
                for failure in outcomes.failures:
                    print(f"delen: {failure}; the default decided instead", file=sys.stderr)
                played = {"speed": speed, "seed": setup.seed, **setup.played}
                yield outcomes, {**summarise(outcomes, bound, weights, label_blind), **played}


def _setups(options: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """``options`` for each file to compare and seed, with what says so in the results as
    ``played``."""
    for named in _compared(options):
        played = {"compared": str(*named.values())} if options.compare else {}
        for number in range(options.seed, options.seed + (options.seeds or 1)):
            own = {**vars(options), **named, "seed": number, "played": played}
            yield argparse.Namespace(**own)


def _compared(options: argparse.Namespace) -> list[dict[str, Path]]:
    """The option that each file of --compare stands for; ConfigError where that is given, too."""
    if not options.compare:
        return [{}]
    if len(options.compare) < 2:
        raise ConfigError("--compare: give at least two files")
    check_once([str(file) for file in options.compare], "--compare")
    found = []
    for file in options.compare:
        option = {".json": "profile", ".toml": "config"}.get(file.suffix)
        if option is None:
            raise ConfigError(
                f"--compare {file}: it must be a profile (.json) or a configuration (.toml)"
            )
        if not file.is_file():
            raise ConfigError(f"--compare {file}: there is no such file")
        if getattr(options, option) is not None:
            raise ConfigError(f"--compare {file} is in place of --{option}: leave that out")
        found.append({option: file})
    return found


def _check_tenants(options: argparse.Namespace, trace: Trace) -> None:
    for option, given in (("--weight", options.weight), ("--priority", options.priority)):
        if unknown := sorted(set(dict(given)) - set(trace.tenants)):
            known = ", ".join(trace.tenants)
            raise ConfigError(f"{option} names {', '.join(unknown)}; tenants of the trace: {known}")


def _check_alone(options: argparse.Namespace) -> None:
    """ConfigError for an option that a site is not played with: its file says everything else."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    unset = vars(parser.parse_args(["--fleet", str(options.fleet)]))
    for name in sorted(unset.keys() - {"fleet", "policy", "seed", "plots", "json"}):
        if getattr(options, name) != unset[name]:
            raise ConfigError(f"--{name.replace('_', '-')} does not go with --fleet")


def _ours_first(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: (name != DEFAULT_DISPATCH, name))


def _speeds(text: str) -> tuple[float, ...]:
    speeds = tuple(map(positive, text.split(",")))
    if len(set(speeds)) < len(speeds):
        raise argparse.ArgumentTypeError(f"{text!r} has a speed twice")
    return speeds


def _weight(text: str) -> tuple[str, float]:
    tenant, _, number = text.rpartition("=")
    try:
        weight = read_number(number)
        if not tenant or not 0 < weight < math.inf:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be TENANT=WEIGHT with a weight above 0, such as camera=2"
        ) from None
    return tenant, weight


def _priority(text: str) -> tuple[str, int]:
    tenant, _, number = text.rpartition("=")
    try:
        if not tenant:
            raise ValueError
        priority = read_whole(number)
        return tenant, check_integer(priority, "priority", HIGHEST_PRIORITY, LOWEST_PRIORITY)
    except (ValueError, InvalidInput):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be TENANT=PRIORITY from {HIGHEST_PRIORITY} to {LOWEST_PRIORITY}, such "
            "as camera=1"
        ) from None
