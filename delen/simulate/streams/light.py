"""Streams with a plain daemon: one frame after the other, each for as long as its option says."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from delen.simulate.streams.frames import Frames
from delen.simulate.streams.stream import Stream
from delen.simulate.streams.streams import Streams

NOISE = 0.1
"""Standard deviation of the logarithm of the daemon's times about those of the options."""


def play_light(streams: Sequence[Stream], seed: int, noise: float = NOISE) -> list[Frames]:
    """What becomes of the frames of ``streams``, which share the daemon, first come, first served.

    An answer is right with the probability that its option says.
    """
    rng = np.random.default_rng((seed, 5))
    drawn = [np.exp(noise * rng.normal(size=stream.settings.frames)).tolist() for stream in streams]
    events, free = Streams(streams), 0.0
    while events.next_at < inf:
        arrived = events.take()
        if arrived is None:
            continue
        option = streams[arrived.stream].settings.options[arrived.index]
        takes = option.latency * drawn[arrived.stream][arrived.frame]
        free = max(free, arrived.at) + takes
        events.answer(arrived, free, option.accuracy, option.exit)
    return [stream.frames() for stream in streams]
