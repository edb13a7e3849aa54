"""What goes into a stream and what comes out: frames with their time of capture, and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from delen.core.bounds import check_finite
from delen.core.result import Result


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame of a source that knows when it was captured: seconds of ``time.monotonic``.

    ``content`` must not change afterwards.
    """

    content: Any
    captured: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "captured", check_finite(self.captured, "captured"))


@dataclass(frozen=True, slots=True)
class FrameResult:
    """The answer to one frame of a stream.

    ``frame`` counts from 0 in order of capture, dropped ones too. ``captured`` is in seconds of
    ``time.monotonic``, ``latency`` the seconds from capture to answer, and ``late`` whether they
    are more than the deadline. ``size`` is (height, width) of what was sent, None where the input
    is not an image.
    """

    frame: int
    captured: float
    latency: float
    size: tuple[int, int] | None
    late: bool
    result: Result

    @property
    def index(self) -> int:
        return self.result.index

    @property
    def label(self) -> str | None:
        return self.result.label

    @property
    def probability(self) -> float:
        return self.result.probability
