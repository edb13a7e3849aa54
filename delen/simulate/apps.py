"""Apps: who sends the requests of a trace, and with which bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from delen.core.bounds import Bounds
from delen.simulate.arrivals import Arrivals
from delen.simulate.requests import Requests
from delen.simulate.trace import Arrival


@dataclass(frozen=True, slots=True)
class Mixed:
    """The bounds of a part of an app's requests; ``share`` is relative to those of other parts."""

    share: float
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class App:
    """A tenant ``name`` whose requests arrive by ``arrivals`` with bounds of ``mix``.

    With ``streams``, that many sources of the app each send by ``arrivals``, each as a stream of
    its own; the streams of two apps of one name are numbered on. ValueError for a mix without a
    share above 0.
    """

    name: str
    arrivals: Arrivals
    mix: tuple[Mixed, ...] = (Mixed(1.0, Bounds()),)
    model: str | None = None
    priority: int | None = None
    streams: int | None = None

    def __post_init__(self) -> None:
        shares = [mixed.share for mixed in self.mix]
        if not all(share >= 0 for share in shares) or not sum(shares) > 0:
            raise ValueError(f"{self.name}: shares are {shares}; none below 0, and one above 0")
        if self.streams is not None and self.streams < 1:
            raise ValueError(f"{self.name}: streams is {self.streams}; it must be at least 1")

    @property
    def rate(self) -> float:
        """Mean requests a second of all streams."""
        return self.arrivals.rate * (self.streams or 1)


def draw(apps: Sequence[App], duration: float, seed: int) -> Requests:
    """The requests of all ``apps`` in ``duration`` seconds.

    Each app draws from a generator of its own, so that an app's requests stay the same when
    another is added or removed behind it. InvalidInput names the field of an app that is wrong.
    """
    kinds: list[Arrival] = []
    times, asked = [np.empty(0)], [np.empty(0, np.int64)]
    streams: Counter[str] = Counter()
    for app, sequence in zip(apps, np.random.SeedSequence(seed).spawn(len(apps)), strict=True):
        rng = np.random.default_rng(sequence)
        shares = np.array([mixed.share for mixed in app.mix])
        for _ in range(app.streams or 1):
            stream = None
            if app.streams is not None:
                stream = f"{app.name}-{streams[app.name]}"
                streams[app.name] += 1
            times.append(app.arrivals.times(duration, rng))
            chosen = rng.choice(len(shares), len(times[-1]), p=shares / shares.sum())
            asked.append(len(kinds) + chosen)
            kinds += [
                Arrival(0.0, app.name, app.model, stream, app.priority, mixed.bounds)
                for mixed in app.mix
            ]
    unsorted = np.concatenate(times)
    order = np.argsort(unsorted, kind="stable")
    return Requests(unsorted[order], np.concatenate(asked)[order], tuple(kinds))
