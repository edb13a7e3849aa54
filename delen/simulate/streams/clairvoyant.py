"""What a client could reach that knows its link: an upper bound, and which frames can be kept.

The bound is the best sum of accuracies over all sequences of sizes and drops. The only state is
until when the link is busy with earlier frames; dynamic programming over it, from frame to frame,
finds the best sequence. Times at which the link gets free are rounded down to STEP, the daemon
takes its least time for each frame, and frames do not wait for each other there or at the encoder:
all of that can only help.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from delen.simulate.streams.link import FrameDraws, Link
from delen.simulate.streams.stream import Footage, StreamSettings

STEP = 0.001
"""Seconds."""


def upper_bound(
    settings: StreamSettings,
    link: Link,
    footage: Footage,
    least: float = 1.0,
) -> float:
    """The most effective accuracy of a frame of the stream. ``least`` is the daemon's least time as
    a share of what the options say."""
    options, captured = settings.options, footage.captured
    accuracy = np.array([option.accuracy for option in options])
    levels = ceil(settings.deadline / STEP) + 1
    busy = STEP * np.arange(levels, dtype=np.float64)
    value = np.full(levels, -np.inf)
    value[0] = 0.0
    for frame, now in enumerate(captured):
        later = captured[frame + 1] if frame + 1 < len(captured) else now + 1 / settings.fps
        known = np.flatnonzero(value > -np.inf)
        after = np.full(levels, -np.inf)
        _best(after, busy[known] + now - later, value[known])
        ends, done = _ways(settings, link, footage.draws[frame], now, now + busy[known], least)
        kept = done <= now + settings.deadline
        gain = (value[known][:, None] + accuracy)[kept]
        _best(after, ends[kept] - later, gain)
        value = after
    return float(value.max()) / max(1, len(captured))


def _best(after: NDArray[np.float64], busy: NDArray[np.float64], gain: NDArray[np.float64]) -> None:
    level = np.clip((busy / STEP).astype(int), 0, len(after) - 1)
    np.maximum.at(after, level, gain)


def _ways(
    settings: StreamSettings,
    link: Link,
    draws: FrameDraws,
    now: float,
    free: NDArray[np.float64],
    least: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When each option of a frame captured ``now`` would be through, and answered, by when the link
    is ``free``: float64 ``[times, options]``."""
    options = settings.options
    payload = np.array([option.payload for option in options]) * draws.payload
    sent = now + np.array([option.encoding for option in options])
    latency = least * np.array([option.latency for option in options])
    begins = np.maximum(free[:, None], sent)
    ends, arrived = link.pass_through_all(begins, payload, draws)
    return ends, arrived + latency + link.back(draws)


def keepable(
    settings: StreamSettings,
    link: Link,
    footage: Footage,
) -> NDArray[np.bool_]:
    """Which frames would be on time if each was the smallest, and none was late that could be
    dropped."""
    option, free = settings.options[0], 0.0
    kept = np.zeros(settings.frames, bool)
    for frame, (now, draws) in enumerate(zip(footage.captured, footage.draws, strict=True)):
        begins = max(now + option.encoding, free)
        end, arrived = link.pass_through(begins, option.payload * draws.payload, draws)
        done = arrived + option.latency + link.back(draws)
        if done <= now + settings.deadline:
            kept[frame] = True
            free = end
    return kept
