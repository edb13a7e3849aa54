"""``delen train-policy``: train ASET's learner on simulated sites."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from delen.commands.common import seed, whole
from delen.commands.plot_option import check_plot
from delen.commands.table import progress_bar
from delen.errors import ConfigError, DelenError

_EPISODES = 270
_LINES = 15
"""Of the learning curve that is printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train the learner of the fleet policy aset in the simulator: once an interval it picks\n"
        "the static policy that routes. Each episode plays the next of the sites. A training\n"
        "that was cut off goes on after its last episode when the command is given again."
    )
    parser.epilog = "example: delen train-policy --fleet hall.toml yard.toml --output weights.py"
    parser.add_argument(
        "--fleet",
        nargs="+",
        type=Path,
        required=True,
        metavar="FILE",
        help="sites, as `delen simulate --fleet` plays them",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE.py",
        help="a Python module with the weights; beside it is FILE.npz until the training has ended",
    )
    parser.add_argument(
        "--episodes", type=whole(1), default=_EPISODES, help=f"(default: {_EPISODES})"
    )
    parser.add_argument("--seed", type=seed, default=0, help="(default: 0)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the learning curve here")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(options: argparse.Namespace) -> int:
    from delen.simulate.fleet.site_file import read_site
    from delen.simulate.fleet.train import Training, write_weights

    if options.output.suffix != ".py":
        raise ConfigError(f"--output is {options.output}; it must end with .py")
    if options.plot is not None:
        check_plot(options.plot)
    training = Training([read_site(file) for file in options.fleet], options.episodes, options.seed)
    kept = options.output.with_suffix(".npz")
    if kept.exists():
        training.restore(kept)
        print(f"goes on after episode {len(training.curve)}", file=sys.stderr)
    show = progress_bar("episodes", options.json)
    try:
        while not training.is_done:
            training.step()
            training.save(kept)
            if show is not None:
                show(len(training.curve), training.episodes)
        about = f"The weights of ASET's learner: {options.episodes} episodes, seed {options.seed}."
        write_weights(training.network, options.output, about)
        kept.unlink()
        if options.plot is not None:
            _plot(training.curve, options.plot)
    except OSError as error:
        raise DelenError(f"the training cannot be written: {error}") from error
    if options.json:
        document = {
            "policy": "aset",
            "episodes": options.episodes,
            "seed": options.seed,
            "output": str(options.output),
            "effective_accuracy": training.curve,
        }
        print(json.dumps(document))
    else:
        print(_table(training.curve, [training.explored(n) for n in range(options.episodes)]))
        print(f"written: {options.output}")
    return 0


def _table(curve: Sequence[float], explored: Sequence[float]) -> str:
    """The mean of each stretch of episodes."""
    lines = [f"{'episodes':>11} {'effective':>9} {'at random':>9}"]
    step = -(-len(curve) // _LINES)
    for start in range(0, len(curve), step):
        part, shares = curve[start : start + step], explored[start : start + step]
        lines.append(
            f"{f'{start + 1} - {start + len(part)}':>11} {sum(part) / len(part):>9.4f} "
            f"{sum(shares) / len(shares):>9.2f}"
        )
    return "\n".join(lines)


def _plot(curve: Sequence[float], file: Path) -> None:
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
    axes.set_ylabel("effective accuracy")
    axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
