"""What a batch of a segment costs in joules, as far as a profile or a model knows it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from delen.core.result import EnergyKind
from delen.profile.profile import SegmentCost


class Spent(NamedTuple):
    """What a batch took: ``seconds``, and ``processor`` seconds of all its threads."""

    seconds: float
    processor: float


def busy_seconds(cost: SegmentCost, spent: Spent | None, is_gpu: bool) -> float:
    """Seconds that a batch is busy for (``spent`` None: by its profile): those of the processor.
    Where segments run on the GPU the processor only waits for them, so all of the batch's."""
    if is_gpu:
        return cost.latency.p50 if spent is None else spent.seconds
    return cost.processor if spent is None else spent.processor


class EnergyAccount(Protocol):
    """Joules of dynamic energy of one model's segments, known at once and so never measured.

    ``predict`` is the figure of a profile or a model, ``factor`` what measurements have taught
    about it since; their product is what is planned and what a receipt says first. ``kind`` is
    ``estimated`` or ``unknown``; ``source`` and ``scope`` name where the figures come from and
    what they cover, both None where they are unknown. ``revision`` grows with every change of a
    factor.
    """

    @property
    def kind(self) -> EnergyKind: ...
    @property
    def source(self) -> str | None: ...
    @property
    def scope(self) -> str | None: ...
    @property
    def revision(self) -> int: ...

    def predict(self, cost: SegmentCost, spent: Spent | None = None) -> float | None:
        """Joules of a batch with this profiled ``cost``, for which so much time was ``spent``
        (None: it has not run yet); None if unknown."""

    def factor(self, segment: int) -> float:
        """What ``predict`` is to be multiplied with for ``segment``."""
