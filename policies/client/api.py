"""The protocol of client controllers: what they see of a stream and what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class FrameOption:
    """One size that a frame can be sent at, as the daemon's plan describes it without a queue.

    ``size`` is (height, width) in pixels, None for a model of one size. ``payload`` is the mean of
    what is sent, in bytes, and ``encoding`` the seconds that the client takes to make it of a
    frame; ``latency`` is the daemon's, in seconds, and ``accuracy`` the expected one, both at
    ``exit``, the deepest exit worth reaching at this size.
    """

    size: tuple[int, int] | None
    payload: float
    latency: float
    accuracy: float
    exit: int
    encoding: float = 0.0


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """What to send: ``options[index]`` of the view, and the bound that goes with it.

    ``max_latency`` is in seconds at the daemon; None leaves the depth to the daemon.
    """

    index: int
    max_latency: float | None = None


@dataclass(frozen=True, slots=True)
class SentFrame:
    """A frame that was sent as ``options[index]``, with ``payload`` bytes, and has no answer yet.

    ``sent`` is when it was handed to the network.
    """

    frame: int
    index: int
    payload: float
    sent: float


@dataclass(frozen=True, slots=True)
class StreamView:
    """A stream at the moment at which a frame can be sent.

    ``now`` and ``captured`` are seconds of one monotonic clock; ``deadline`` counts from the
    capture, ``period`` is the time between two frames, both in seconds. ``options`` ascend by
    payload; a fleet's route may take away the largest of them for a while. ``network`` is the
    predicted network time of each option in seconds (its round trip less the daemon's latency),
    None where nothing is known yet. ``in_flight`` are the frames that were sent and have neither an
    answer nor an end, the oldest first. ``round_trip`` is what a message of no size takes there and
    back in seconds, 0 where that is unknown.
    """

    frame: int
    now: float
    captured: float
    deadline: float
    period: float
    options: Sequence[FrameOption]
    network: Sequence[float] | None
    in_flight: Sequence[SentFrame] = ()
    round_trip: float = 0.0

    @property
    def remaining(self) -> float:
        """Seconds until the answer is due; negative where it is late already."""
        return self.captured + self.deadline - self.now


@dataclass(frozen=True, slots=True)
class FrameReport:
    """How a frame that was sent ended.

    Times are as in StreamView, ``payload`` as in SentFrame. ``latency`` is the daemon's own from
    its receipt and ``network`` the round trip less that, in seconds; both and ``answered`` are None
    where no answer came (``ended`` says when that was known).
    """

    frame: int
    index: int
    payload: float
    captured: float
    sent: float
    ended: float
    answered: float | None
    latency: float | None
    network: float | None

    @property
    def end_to_end(self) -> float | None:
        """Seconds from capture to answer."""
        return None if self.answered is None else self.answered - self.captured


class ClientController(Protocol):
    """Chooses what of a stream is sent. Pure: times and figures are arguments.

    ``choose`` is called for each frame that can still be on time, and ``ended`` for each frame that
    was sent, in the order in which they end. Calls do not overlap.
    """

    name: str

    def choose(self, view: StreamView) -> FrameChoice | None:
        """What to send of this frame; None drops it."""

    def ended(self, report: FrameReport) -> None:
        """Learn from a frame that was answered or lost."""
