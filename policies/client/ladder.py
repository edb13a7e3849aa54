"""What the controllers of Better Never than Late share (SenSys 2021; vuhpdc/vsa-proto).

They stand on one size and climb or descend by one. A larger size need not be more accurate: what is
sent is the most accurate one up to the size they stand on. Answers to frames of another size than
the present one say nothing about it and are ignored. While more than ``STALE`` frames lack an
answer, nothing is sent, since every decision would rest on old news; the source waits then, and a
live stream drops the frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.client.api import FrameChoice, FrameOption, FrameReport, StreamView

STALE = 30


class Rung:
    """Where a controller stands: the option ``_index`` of the last ``_view``."""

    def __init__(self) -> None:
        self._index = 0
        self._view: StreamView | None = None

    def choose(self, view: StreamView) -> FrameChoice | None:
        self._view = view
        self._index = min(self._index, len(view.options) - 1)
        return None if is_stale(view) else FrameChoice(self._index)


def most_accurate(options: Sequence[FrameOption], index: int) -> int:
    """The most accurate option up to ``index``; the larger of two that are equal."""
    return max(range(index + 1), key=lambda i: (options[i].accuracy, i))


def climbed(options: Sequence[FrameOption], index: int) -> int:
    """One up from ``index``."""
    return most_accurate(options, min(index + 1, len(options) - 1))


def descended(options: Sequence[FrameOption], index: int) -> int:
    """One down from ``index``."""
    return most_accurate(options, max(index - 1, 0))


def is_stale(view: StreamView) -> bool:
    return len(view.in_flight) > STALE


def spent(report: FrameReport) -> float:
    """Seconds from capture to answer; for a lost frame, to when that was known."""
    return (report.answered or report.ended) - report.captured
