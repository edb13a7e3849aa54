"""Plots of streams: what was sent and how long it took, over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from delen.errors import MissingExtra
from delen.simulate.streams.frames import Frames
from delen.simulate.streams.link import LinkSettings
from delen.simulate.streams.stream import StreamSettings


def save_plots(
    runs: Mapping[str, Sequence[Frames]],
    settings: StreamSettings,
    link: LinkSettings,
    folder: Path,
) -> list[Path]:
    """A plot of each controller's first stream in ``folder``; returns the files.

    MissingExtra without matplotlib; OSError where they cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("matplotlib", "plot") from None
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _timeline(name, frames[0], settings, link, folder / f"stream-{name}.png")
        for name, frames in runs.items()
    ]


def _timeline(
    name: str, frames: Frames, settings: StreamSettings, link: LinkSettings, file: Path
) -> Path:
    from matplotlib import pyplot

    figure, (above, middle, below) = pyplot.subplots(
        3, 1, figsize=(9, 7), sharex=True, layout="constrained"
    )
    times = frames.captured
    above.plot(times, 8e-6 * link.bandwidth.at(times), color="grey")
    above.set_ylabel("bandwidth, Mbit/s")
    sent = frames.index >= 0
    heights = np.array([(option.size or (0, 0))[0] for option in settings.options])
    middle.plot(times[sent], heights[frames.index[sent]], ".", markersize=2)
    middle.set_ylabel("height sent, pixels")
    late = ~frames.in_time(settings.deadline)
    latency = 1e3 * frames.latency
    below.plot(times[~late], latency[~late], ".", markersize=2, label="on time")
    below.plot(times[late], latency[late], ".", markersize=2, color="tab:red", label="late")
    missing = np.isnan(latency)
    top = 3e3 * settings.deadline
    below.plot(times[missing], np.full(missing.sum(), top), "|", color="black", label="no answer")
    below.axhline(1e3 * settings.deadline, linestyle="--", color="grey")
    below.set_ylim(0, 1.05 * top)
    below.set_ylabel("capture to answer, ms")
    below.set_xlabel("time, s")
    below.legend(ncols=3, fontsize="small", loc="upper right")
    figure.suptitle(name)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
    return file
