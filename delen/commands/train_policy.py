"""``delen train-policy``: train the policies that learn, in the simulator."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from delen.commands.common import seed, whole
from delen.commands.plot_option import check_plot
from delen.commands.table import progress_bar
from delen.errors import ConfigError, DelenError

if TYPE_CHECKING:
    from delen.daemon.config import Config
    from delen.simulate.learning.training import Training
    from delen.simulate.model import SimulatedModel

_EPISODES = {"aset": 270, "bcedge": 1000}
SAVE_EVERY = 5.0
"""Seconds of training that may be lost."""

_LINES = 15
"""Of the learning curve that is printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a policy that learns, in the simulator: with --fleet the fleet policy aset, which\n"
        "picks the static policy that routes; with --profile the dispatch policy bcedge, which\n"
        "picks batch size and number of concurrent batches. Episodes go through the files in\n"
        "turn. A training that was cut off goes on from there when the command is given again."
    )
    parser.epilog = (
        "examples: delen train-policy --fleet hall.toml yard.toml --output weights.py\n"
        "          delen train-policy --profile nano.json --output bcedge.npz\n"
        "          DELEN_POLICIES__DISPATCH=bcedge:bcedge.npz delen-daemon"
    )
    trained_on = parser.add_mutually_exclusive_group(required=True)
    trained_on.add_argument(
        "--fleet",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="aset: sites, as `delen simulate --fleet` plays them",
    )
    trained_on.add_argument(
        "--profile",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="bcedge: profiles of several batch sizes, with what instances do to each other "
        "(`delen profile --instances`), of bundles that are here or with accuracies",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="FILE.py, a Python module with the weights, or for bcedge FILE.npz, which "
        "policies.dispatch and --policy read as bcedge:FILE.npz; beside it is FILE.training.npz "
        "until the training has ended",
    )
    parser.add_argument(
        "--episodes",
        type=whole(1),
        help="(default: " + ", ".join(f"{n} of {name}" for name, n in _EPISODES.items()) + ")",
    )
    parser.add_argument("--seed", type=seed, default=0, help="(default: 0)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the learning curve here")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(options: argparse.Namespace) -> int:
    _check_output(options)
    if options.plot is not None:
        check_plot(options.plot)
    training = _of_sites(options) if options.fleet else _of_profiles(options)
    kept = options.output.with_suffix(".training.npz")
    if kept.exists():
        training.restore(kept)
        print(f"goes on after episode {len(training.curve)}", file=sys.stderr)
    show = progress_bar("episodes", options.json)
    saved = time.monotonic()
    try:
        while not training.is_done:
            training.step()
            if time.monotonic() - saved >= SAVE_EVERY:
                training.save(kept)
                saved = time.monotonic()
            if show is not None:
                show(len(training.curve), training.episodes)
        training.write(options.output)
        kept.unlink(missing_ok=True)
        if options.plot is not None:
            _plot(training.curve, training.merit, options.plot)
    except OSError as error:
        raise DelenError(f"the training cannot be written: {error}") from error
    if options.json:
        document = {
            "policy": training.policy,
            "episodes": training.episodes,
            "seed": training.seed,
            "output": str(options.output),
            training.merit: training.curve,
        }
        print(json.dumps(document))
    else:
        explored = [training.explored(n) for n in range(training.episodes)]
        print(_table(training.curve, training.merit, explored))
        print(f"written: {options.output}")
    return 0


def _check_output(options: argparse.Namespace) -> None:
    known = (".py",) if options.fleet else (".npz", ".py")
    if options.output.suffix not in known:
        raise ConfigError(f"--output is {options.output}; it must end with {' or '.join(known)}")
    if not options.output.parent.is_dir():
        raise ConfigError(f"--output is {options.output}; there is no folder for it")


def _of_sites(options: argparse.Namespace) -> Training:
    from delen.simulate.fleet.site_file import read_site
    from delen.simulate.fleet.train import AsetTraining

    sites = [read_site(file) for file in options.fleet]
    return AsetTraining(sites, options.episodes or _EPISODES["aset"], options.seed)


def _of_profiles(options: argparse.Namespace) -> Training:
    from delen.daemon.config import read_config
    from delen.simulate.learning.bcedge import BCEdgeTraining

    config = read_config(options.config, os.environ)
    models = [_model(file, config) for file in options.profile]
    return BCEdgeTraining(models, options.episodes or _EPISODES["bcedge"], options.seed)


def _model(file: Path, config: Config) -> SimulatedModel:
    """The network of a profile, at its largest input size."""
    from delen.bundle.manifest import load_bundle
    from delen.core.variant import model_of
    from delen.daemon.build_runtime import bundle_by_name, policy_settings
    from delen.profile.reader import load_profile
    from delen.simulate.load import of_bundle, of_profile
    from policies.plugins import EXIT_POLICIES, find_plugin

    profile = load_profile(file)
    if profile.largest_batch == 1 and len(profile.interference or ()) < 2:
        raise ConfigError(
            f"{file}: it knows neither batches nor lanes, so there is nothing to choose: measure "
            "it with `delen profile --instances`"
        )
    settings = policy_settings(config)
    policy = find_plugin(EXIT_POLICIES, settings.exit)(
        len(profile.segments), **dict(settings.options)
    )
    if profile.accuracies is not None:
        model = of_profile(profile, settings.planner, policy, settings.quantile, seed=0)
    else:
        bundle = load_bundle(bundle_by_name(config, model_of(profile.model)))
        watts = config["power.watts_per_core"]
        model = of_bundle(bundle, profile, settings.planner, policy, settings.quantile, watts)
    return replace(model, smaller=())


def _table(curve: Sequence[float], merit: str, explored: Sequence[float]) -> str:
    """The mean of each stretch of episodes."""
    lines = [f"{'episodes':>11} {merit.split('_')[0]:>9} {'at random':>9}"]
    step = -(-len(curve) // _LINES)
    for start in range(0, len(curve), step):
        part, shares = curve[start : start + step], explored[start : start + step]
        lines.append(
            f"{f'{start + 1} - {start + len(part)}':>11} {sum(part) / len(part):>9.4f} "
            f"{sum(shares) / len(shares):>9.2f}"
        )
    return "\n".join(lines)


def _plot(curve: Sequence[float], merit: str, file: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    window = max(1, len(curve) // _LINES)
    means = [
        sum(curve[max(0, end - window) : end]) / min(window, end)
        for end in range(1, len(curve) + 1)
    ]
    numbers = range(1, len(curve) + 1)
    axes.plot(numbers, curve, ".", markersize=3, label="episode")
    axes.plot(numbers, means, label=f"mean of {window}")
    axes.set_xlabel("episode")
    axes.set_ylabel(merit.replace("_", " "))
    axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
