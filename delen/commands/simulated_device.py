"""Which models are simulated on which device: the options for it, and what they make."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from delen.commands.common import LATENCIES, check_once, quantity, whole
from delen.core.numbers import read_number
from delen.core.variant import model_of
from delen.errors import ConfigError

if TYPE_CHECKING:
    from delen.daemon.config import Config
    from delen.profile.profile import Profile
    from delen.simulate.device import DeviceSettings, SlowSpan
    from delen.simulate.model import SimulatedModel

ReadProfile: TypeAlias = "Callable[[Path], Profile]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument(
        "--slowdown",
        type=_span,
        action="append",
        default=[],
        metavar="60:120:2.0",
        help="from 60 to 120 s everything takes twice as long; may be given several times",
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
    parser.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration")


def models_of(
    options: argparse.Namespace, config: Config, read: ReadProfile
) -> dict[str, SimulatedModel]:
    """The models by name, those of a profile alone with samples from ``options.seed``. ``read``
    reads the profiles that are given."""
    models = _drifted(_models(options, config, read), options.actual, read)
    check_once([model_of(model.name) for model in models], "--model or --bundle")
    return {model_of(model.name): model for model in models}


def device_of(
    options: argparse.Namespace, config: Config, models: Sequence[SimulatedModel]
) -> DeviceSettings:
    """The device on which ``models`` run; ConfigError says what it needs to be told."""
    from delen.simulate.device import DeviceSettings

    try:
        return DeviceSettings(
            lanes=options.lanes,
            interference=_interference(options.corun, options.lanes, models),
            slow=_spans(options.slowdown),
            network=options.network,
            front=options.front[:2],
            crowded=options.front[-2:],
            readers=config["server.threads"],
            noise=not options.no_noise,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _models(options: argparse.Namespace, config: Config, read: ReadProfile) -> list[SimulatedModel]:
    from delen.bundle.manifest import load_bundle
    from delen.daemon.build_runtime import bundle_by_name, policy_settings
    from delen.simulate.load import of_bundle, of_profile, profile_of
    from policies.plugins import EXIT_POLICIES, find_plugin

    settings = policy_settings(config)
    make_policy = find_plugin(EXIT_POLICIES, settings.exit)
    profile = None if options.profile is None else read(options.profile)
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


def _drifted(
    models: list[SimulatedModel], file: Path | None, read: ReadProfile
) -> list[SimulatedModel]:
    """``models`` on a device that has drifted to the profile in ``file``."""
    if file is None:
        return models
    if len(models) > 1:
        raise ConfigError("--actual is the profile of one model; simulate only that")
    model, become = models[0], read(file)
    if model.smaller:
        raise ConfigError("--actual is the profile of one input size; simulate a model of one")
    if become.bundle != model.profile.bundle or len(become.segments) != len(model.profile.segments):
        raise ConfigError(f"--actual {file} is a profile of {become.model}, not of {model.name}")
    if become.largest_batch < min(model.max_batch, model.profile.largest_batch):
        raise ConfigError(f"--actual {file} has no batches larger than {become.largest_batch}")
    return [replace(model, become=become)]


def _interference(
    given: tuple[float, ...] | None, lanes: int, models: Sequence[SimulatedModel]
) -> tuple[float, ...]:
    """The factors of ``--corun``, else those of the model that slows most; ConfigError if one for
    ``lanes`` is unknown, or there are none that they could be of."""
    if given is not None and lanes < 2:
        raise ConfigError("--corun says how lanes slow each other down: give --lanes 2 or more")
    if given is not None:
        return given
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


def _spans(spans: Sequence[SlowSpan]) -> tuple[SlowSpan, ...]:
    """In the order of their starts; ConfigError where they overlap."""
    ordered = sorted(spans, key=lambda span: span.start)
    for one, next_one in pairwise(ordered):
        if next_one.start < one.end:
            raise ConfigError(f"slowdowns overlap at {next_one.start:g} s")
    return tuple(ordered)


def _span(text: str) -> SlowSpan:
    from delen.simulate.device import SlowSpan

    wanted = "START:END:FACTOR in seconds, such as 60:120:2.0"
    try:
        start, end, factor = map(read_number, text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be {wanted}") from None
    try:
        return SlowSpan(start, end, factor)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be {wanted}: {error}") from None


def _front(text: str) -> tuple[float, ...]:
    parts = text.split(",")
    if len(parts) not in (2, 4):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be two or four times with commas between, such as 0.4ms,0.6ms"
        )
    return tuple(map(quantity(LATENCIES, zero=True), parts))


def _factors(text: str) -> tuple[float, ...]:
    try:
        factors = tuple(read_number(part) for part in text.split(","))
        if not all(1 <= factor < math.inf for factor in factors):
            raise ValueError
        return factors
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be factors of at least 1 with commas between, such as 1.0,1.4"
        ) from None
