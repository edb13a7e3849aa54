"""Plots of fleet runs: each client's accuracy and each node's answers over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from delen.errors import MissingExtra
from delen.simulate.fleet.log import FleetLog

_POINTS = 60


def save_plots(logs: Sequence[FleetLog], folder: Path) -> list[Path]:
    """Write a plot a policy into ``folder`` and return the files.

    MissingExtra without matplotlib; OSError where they cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("matplotlib", "plot") from None
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    return [_timeline(log, folder / f"fleet-{log.policy}.png") for log in logs]


def _timeline(log: FleetLog, file: Path) -> Path:
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(8, 6), sharex=True, layout="constrained"
    )
    edges = np.linspace(0.0, log.site.seconds, _POINTS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    at, client, effective = log.at, log.client, log.effective
    for number, settings in enumerate(log.site.clients):
        rows = client == number
        counts, _ = np.histogram(at[rows], edges)
        good, _ = np.histogram(at[rows], edges, weights=effective[rows])
        share = 100 * good / np.where(counts, counts, np.nan)
        above.plot(middles, share, label=settings.name)
    for number, node in enumerate(log.site.nodes):
        answered, _ = np.histogram(at[(log.node == number) & (effective > 0)], edges)
        below.plot(middles, answered / np.diff(edges), label=node.name)
        for start, end in node.down:
            below.axvspan(start, end, color="grey", alpha=0.2)
    above.set_ylabel("effective accuracy, %")
    below.set_ylabel("frames answered a second")
    below.set_xlabel("time, s (a node is down where it is grey)")
    for axes in (above, below):
        axes.legend(ncols=5, fontsize="small")
    figure.suptitle(log.policy)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
    return file
