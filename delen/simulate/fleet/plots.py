"""Plots of fleet runs: each client's accuracy and sizes, each node's answers, over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delen.errors import MissingExtra
from delen.simulate.fleet.client import ClientFrames
from delen.simulate.fleet.log import FleetLog

_POINTS = 60
Floats = NDArray[np.float64]


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

    sizes = [_heights(client) for client in log.clients]
    has_sizes = any(len(heights) for _, heights in sizes)
    figure, panels = pyplot.subplots(
        2 + has_sizes, 1, figsize=(8, 6 + 2 * has_sizes), sharex=True, layout="constrained"
    )
    above, below = panels[0], panels[-1]
    edges = np.linspace(0.0, log.site.seconds, _POINTS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    for number, (settings, (times, heights)) in enumerate(
        zip(log.site.clients, sizes, strict=True)
    ):
        rows = log.client == number
        share = 100 * _means(log.at[rows], log.effective[rows], edges)
        above.plot(middles, share, label=settings.name)
        if has_sizes:
            panels[1].plot(middles, _means(times, heights, edges))
    for number, node in enumerate(log.site.nodes):
        answered, _ = np.histogram(log.at[(log.node == number) & (log.effective > 0)], edges)
        below.plot(middles, answered / np.diff(edges), label=node.name)
        for start, end in node.down:
            below.axvspan(start, end, color="grey", alpha=0.2)
    above.set_ylabel("effective accuracy, %")
    if has_sizes:
        panels[1].set_ylabel("height sent, pixels")
    below.set_ylabel("frames answered a second")
    below.set_xlabel("time, s (a node is down where it is grey)")
    for axes in (above, below):
        axes.legend(ncols=5, fontsize="small")
    figure.suptitle(log.policy)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
    return file


def _heights(client: ClientFrames) -> tuple[Floats, Floats]:
    """When frames of known size were captured, and their heights."""
    known = [
        (at, size[0])
        for at, size in zip(client.frames.captured, client.size, strict=True)
        if size is not None
    ]
    times, heights = np.array(known, dtype=np.float64).reshape(-1, 2).T
    return times, heights


def _means(times: Floats, values: Floats, edges: Floats) -> Floats:
    """The mean of ``values`` between each two edges, NaN where there are none."""
    counts, _ = np.histogram(times, edges)
    sums, _ = np.histogram(times, edges, weights=values)
    means: Floats = sums / np.where(counts, counts, np.nan)
    return means
