"""``delen simulate``: play a trace on a simulated device."""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from delen.commands import simulate_fleet, simulate_streams, stream_options
from delen.commands.common import LATENCIES, check_once, quantity, read_requests, seed, whole
from delen.commands.table import progress_bar, table
from delen.core.bounds import DEFAULT_PRIORITY, HIGHEST_PRIORITY, LOWEST_PRIORITY, check_integer
from delen.core.variant import model_of
from delen.daemon.settings import DEFAULT_DISPATCH
from delen.errors import ConfigError, DelenError, InvalidInput

if TYPE_CHECKING:
    from delen.daemon.config import Config
    from delen.simulate.device import DeviceSettings, SlowSpan
    from delen.simulate.model import SimulatedModel


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
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        help="a shipped or configured model; may be given several times, the first is for requests "
        "that name none",
    )
    parser.add_argument(
        "--bundle", action="append", default=[], type=Path, help="folder of a bundle, likewise"
    )
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="the device: its profile of the bundle; or, alone, a profile with accuracies of a "
        "network whose bundle is not here",
    )
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
        "--slowdown",
        type=_span,
        action="append",
        default=[],
        metavar="60:120:2.0",
        help="from 60 to 120 s everything takes twice as long; may be given several times",
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
    parser.add_argument("--lanes", type=whole(1), default=1, help="batches at once (default: 1)")
    parser.add_argument(
        "--corun",
        type=_factors,
        metavar="1.0,1.4",
        help="how many times slower a batch is while no, one, ... others run (default: as the "
        "profiles have it)",
    )
    parser.add_argument(
        "--network",
        type=quantity(LATENCIES, zero=True),
        default=0.0,
        metavar="5ms",
        help="delay each way",
    )
    parser.add_argument(
        "--front",
        type=_front,
        default=(0.0, 0.0),
        metavar="0.4ms,0.6ms",
        help="what the host takes to read a request, and to send its answer (HTTP), beside what "
        "the profile says; two more times are those of a busy host",
    )
    parser.add_argument(
        "--actual",
        type=Path,
        metavar="FILE",
        help="drift: the device behaves by this profile, and everything is planned by the other",
    )
    parser.add_argument("--no-noise", action="store_true", help="everything takes its median time")
    parser.add_argument(
        "--no-upper-bound",
        action="store_true",
        help="do not compute what could be reached: by a clairvoyant, and without seeing labels",
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write plots here")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line and policy")
    stream_options.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    from delen.daemon.config import read_config
    from delen.simulate.bounds.upper_bound import label_blind_bound, upper_bound
    from delen.simulate.plots import save_plots
    from delen.simulate.run import RunSettings
    from delen.simulate.run import run as play
    from delen.simulate.summary import summarise
    from policies.plugins import DISPATCH_POLICIES, make_dispatch, plugin_names

    if options.fleet is not None:
        _check_alone(options)
        return simulate_fleet.run(options)
    stream_options.check(options)
    config = read_config(options.config, os.environ)
    if options.link is not None:
        return simulate_streams.run(options, config, _device)
    trace = read_requests(options.trace)
    names = options.policy or _ours_first(plugin_names(DISPATCH_POLICIES))
    check_once(names, "--policy")
    policies = {name: make_dispatch(name) for name in names}
    played = _drifted(_models(options, config), options.actual)
    check_once([model_of(model.name) for model in played], "--model or --bundle")
    models = {model_of(model.name): model for model in played}
    weights, priorities = dict(options.weight), dict(options.priority)
    for option, given in (("--weight", weights), ("--priority", priorities)):
        if unknown := sorted(set(given) - set(trace.tenants)):
            known = ", ".join(trace.tenants)
            raise ConfigError(f"{option} names {', '.join(unknown)}; tenants of the trace: {known}")
    device = _device(options, config, list(models.values()))
    settings = RunSettings(
        audit_fraction=config["policies.audit_fraction"],
        device=device,
        weights=weights,
        priorities=priorities,
        max_backlog=config["server.max_backlog_seconds"],
        seed=options.seed,
    )
    gc.freeze()  # a long trace is no garbage, and would be searched for it again and again
    bound = label_blind = None
    if not options.no_upper_bound:
        bound = upper_bound(trace, models, device, options.seed)
        label_blind = label_blind_bound(trace, models, device, options.seed)
    runs, summaries = [], []
    for name, policy in policies.items():
        default = policy if name == DEFAULT_DISPATCH else make_dispatch(DEFAULT_DISPATCH)
        outcomes = play(trace, models, policy, default, settings, progress_bar(name, options.json))
        for failure in outcomes.failures:
            print(f"delen: {failure}; the default decided instead", file=sys.stderr)
        runs.append(outcomes)
        summaries.append(summarise(outcomes, bound, weights, label_blind))
        if options.json:
            print(json.dumps(summaries[-1]), flush=True)
    if not options.json:
        print(table(summaries), end="")
    if options.plots is not None:
        try:
            files = save_plots(runs, summaries, options.plots)
        except OSError as error:
            raise DelenError(f"the plots cannot be written: {error}") from error
        print(f"written: {', '.join(map(str, files))}", file=sys.stderr)
    return 0


def _device(
    options: argparse.Namespace, config: Config, models: Sequence[SimulatedModel]
) -> DeviceSettings:
    from delen.simulate.device import DeviceSettings

    try:
        return DeviceSettings(
            lanes=options.lanes,
            interference=options.corun or _measured_interference(options.lanes, models),
            slow=_spans(options.slowdown),
            network=options.network,
            front=options.front[:2],
            crowded=options.front[-2:],
            readers=config["server.threads"],
            noise=not options.no_noise,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_alone(options: argparse.Namespace) -> None:
    """ConfigError for an option that a site is not played with: its file says everything else."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    unset = vars(parser.parse_args(["--fleet", str(options.fleet)]))
    for name in sorted(unset.keys() - {"fleet", "policy", "seed", "plots", "json"}):
        if getattr(options, name) != unset[name]:
            raise ConfigError(f"--{name.replace('_', '-')} does not go with --fleet")


def _measured_interference(lanes: int, models: Sequence[SimulatedModel]) -> tuple[float, ...]:
    """The factors of the model that slows most; ConfigError if one for ``lanes`` is unknown."""
    sizes = [size for model in models for size in model.sizes]
    known = [model.profile.interference or (1.0,) for model in sizes]
    for model, factors in zip(sizes, known, strict=True):
        if len(factors) < lanes:
            raise ConfigError(
                f"--lanes is {lanes}, and the profile of {model.name} does not say how much "
                f"{lanes} instances slow each other down: give --corun, or measure it with "
                "`delen profile --instances`"
            )
    return tuple(max(factors) for factors in zip(*known, strict=False))


def _ours_first(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: (name != DEFAULT_DISPATCH, name))


def _models(options: argparse.Namespace, config: Config) -> list[SimulatedModel]:
    from delen.bundle.manifest import load_bundle
    from delen.daemon.build_runtime import bundle_by_name, policy_settings
    from delen.profile.reader import load_profile
    from delen.simulate.load import of_bundle, of_profile, profile_of
    from policies.plugins import EXIT_POLICIES, find_plugin

    settings = policy_settings(config)
    make_policy = find_plugin(EXIT_POLICIES, settings.exit)
    profile = None if options.profile is None else load_profile(options.profile)
    folders = [*(bundle_by_name(config, name) for name in options.model), *options.bundle]
    if profile is not None and not folders:
        policy = make_policy(len(profile.segments), **dict(settings.options))
        return [of_profile(profile, settings.planner, policy, settings.quantile, options.seed)]
    if profile is not None and len(folders) > 1:
        raise ConfigError("--profile goes with one bundle; give each of several its own folder")
    models = []
    for folder in folders or [bundle_by_name(config, config["models.default"])]:
        bundle = load_bundle(folder)
        models.append(
            of_bundle(
                bundle,
                profile or profile_of(bundle, Path(config["state.path"])),
                settings.planner,
                make_policy(len(bundle.exits), **dict(settings.options)),
                settings.quantile,
                config["power.watts_per_core"],
            )
        )
    return models


def _span(text: str) -> SlowSpan:
    from delen.simulate.device import SlowSpan

    try:
        start, end, factor = map(float, text.split(":"))
        return SlowSpan(start, end, factor)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be START:END:FACTOR in seconds, such as 60:120:2.0 ({error})"
        ) from None


def _spans(spans: Sequence[SlowSpan]) -> tuple[SlowSpan, ...]:
    """In the order of their starts; ConfigError where they overlap."""
    ordered = sorted(spans, key=lambda span: span.start)
    for one, next_one in pairwise(ordered):
        if next_one.start < one.end:
            raise ConfigError(f"slowdowns overlap at {next_one.start:g} s")
    return tuple(ordered)


def _drifted(models: list[SimulatedModel], file: Path | None) -> list[SimulatedModel]:
    """``models`` on a device that has drifted to the profile in ``file``."""
    from delen.profile.reader import load_profile

    if file is None:
        return models
    if len(models) > 1:
        raise ConfigError("--actual is the profile of one model; simulate only that")
    model, become = models[0], load_profile(file)
    if model.smaller:
        raise ConfigError("--actual is the profile of one input size; simulate a model of one")
    if become.bundle != model.profile.bundle or len(become.segments) != len(model.profile.segments):
        raise ConfigError(f"--actual {file} is a profile of {become.model}, not of {model.name}")
    if become.largest_batch < min(model.max_batch, model.profile.largest_batch):
        raise ConfigError(f"--actual {file} has no batches larger than {become.largest_batch}")
    return [replace(model, become=become)]


def _front(text: str) -> tuple[float, ...]:
    parts = text.split(",")
    if len(parts) not in (2, 4):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be two or four times with commas between, such as 0.4ms,0.6ms"
        )
    return tuple(map(quantity(LATENCIES, zero=True), parts))


def _weight(text: str) -> tuple[str, float]:
    tenant, _, number = text.rpartition("=")
    try:
        weight = float(number)
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
        return tenant, check_integer(int(number), "priority", HIGHEST_PRIORITY, LOWEST_PRIORITY)
    except (ValueError, InvalidInput):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be TENANT=PRIORITY from {HIGHEST_PRIORITY} to {LOWEST_PRIORITY}, such "
            "as camera=1"
        ) from None


def _factors(text: str) -> tuple[float, ...]:
    try:
        factors = tuple(float(part) for part in text.split(","))
        if not all(1 <= factor < math.inf for factor in factors):
            raise ValueError
        return factors
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be factors of at least 1 with commas between, such as 1.0,1.4"
        ) from None
