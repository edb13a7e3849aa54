from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from policies.client.api import (
    ClientController,
    FrameChoice,
    FrameOption,
    FrameReport,
    SentFrame,
    StreamView,
)

OPTIONS = tuple(
    FrameOption((side, side), payload, 0.002, accuracy, 0)
    for side, payload, accuracy in (
        (128, 10_000.0, 0.5),
        (256, 30_000.0, 0.6),
        (384, 60_000.0, 0.7),
        (512, 100_000.0, 0.75),
    )
)
"""Sizes that a link of 1 MB a second carries in 10, 30, 60 and 100 ms."""


class Camera:
    """Frames of one stream that are sent one after the other, and reports about them."""

    def __init__(self, deadline: float = 0.033, options: Any = OPTIONS) -> None:
        self.deadline = deadline
        self.options = options
        self.frame = -1

    def view(self, **given: Any) -> StreamView:
        """The next frame, ``1 / 30`` s after the last one."""
        self.frame += 1
        now = self.frame / 30
        known: dict[str, Any] = {"now": now, "captured": now, "network": None}
        return StreamView(
            **{
                "frame": self.frame,
                "deadline": self.deadline,
                "period": 1 / 30,
                "options": self.options,
                **known,
                **given,
            }
        )

    def report(
        self, index: int, network: float | None, latency: float = 0.002, **given: Any
    ) -> FrameReport:
        """The present frame's, sent when it was captured; no answer came if ``network`` is None."""
        sent = self.frame / 30
        answered = None if network is None else sent + network + latency
        return FrameReport(
            **{
                "frame": self.frame,
                "index": index,
                "payload": self.options[index].payload,
                "captured": sent,
                "sent": sent,
                "ended": sent + 1.0 if answered is None else answered,
                "answered": answered,
                "latency": None if answered is None else latency,
                "network": network,
                **given,
            }
        )

    def play(
        self, controller: ClientController, frames: int, network: Callable[[float], float]
    ) -> list[int | None]:
        """The index chosen for each of ``frames``; ``network`` says what a payload takes."""
        chosen: list[int | None] = []
        for _ in range(frames):
            choice = controller.choose(self.view())
            chosen.append(None if choice is None else choice.index)
            if choice is not None:
                payload = self.options[choice.index].payload
                controller.ended(self.report(choice.index, network(payload)))
        return chosen

    def flying(self, count: int) -> tuple[SentFrame, ...]:
        """So many frames without an answer."""
        return tuple(SentFrame(frame, 0, 10_000.0, frame / 30) for frame in range(count))


@pytest.fixture
def camera() -> Camera:
    return Camera()


def index(choice: FrameChoice | None) -> int:
    assert choice is not None
    return choice.index
