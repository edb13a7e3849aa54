"""Always the same size: the baseline of Better Never than Late (SenSys 2021).

``index`` counts from the end if it is negative, as in a list. The entry point has the middle one.
"""

from __future__ import annotations

from policies.client.api import FrameChoice, FrameReport, StreamView


class Fixed:
    """Sends each frame at ``options[index]``; None is the middle one."""

    name = "fixed"

    def __init__(self, index: int | None = None) -> None:
        self._index = index

    def choose(self, view: StreamView) -> FrameChoice:
        count = len(view.options)
        index = (count - 1) // 2 if self._index is None else self._index
        return FrameChoice(range(count)[index])

    def ended(self, report: FrameReport) -> None:
        pass
