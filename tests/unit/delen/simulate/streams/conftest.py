from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from delen.simulate.streams.bandwidth import constant
from delen.simulate.streams.link import Link, LinkSettings
from delen.simulate.streams.stream import Stream, StreamSettings, draw_footage
from policies.client.api import ClientController, FrameOption
from policies.client.fixed import Fixed

OPTIONS = (
    FrameOption((128, 128), 10_000.0, 0.002, 0.6, 0, 0.001),
    FrameOption((256, 256), 40_000.0, 0.004, 0.8, 0, 0.002),
)


@pytest.fixture
def make_stream() -> Callable[..., Stream]:
    """A camera at 30 frames a second with nothing by chance, on 8 Mbit/s (1 MB/s)."""

    def make(
        controller: ClientController | None = None,
        link: LinkSettings | None = None,
        seed: int = 0,
        **given: Any,
    ) -> Stream:
        known: dict[str, Any] = {
            "name": "camera",
            "options": OPTIONS,
            "fps": 30.0,
            "deadline": 0.1,
            "frames": 30,
            "spread": 0.0,
        }
        settings = StreamSettings(**{**known, **given})
        return Stream(
            settings,
            controller or Fixed(0),
            Link(link or LinkSettings(constant(8.0), delay=0.005), settings.end, seed),
            draw_footage(settings, seed),
        )

    return make
