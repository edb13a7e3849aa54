"""A camera on the command line of ``delen capacity``: ``10 fps, 100 ms``."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from delen.commands.common import ENERGIES, TIMES

if TYPE_CHECKING:
    from delen.simulate.apps import App

NAME = "camera"
_NUMBER = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z]+)")
_OF_ALL = ("streams", "from", "to")
"""Keys of an app that say how many cameras there are, and when."""


def read_camera(text: str) -> App:
    """The app of one camera: frames a second, a latency, an energy, and KEY=VALUE as in an app of
    ``delen trace``; ArgumentTypeError names what is wrong."""
    from delen.commands.app_text import read_app

    parts = [_part(part.strip()) for part in text.split(",")]
    keys = {part.partition("=")[0].strip() for part in parts}
    for key in _OF_ALL:
        if key in keys:
            raise argparse.ArgumentTypeError(
                f"{key} is for delen trace; here all cameras are alike, and their number is found"
            )
    if "arrivals" not in keys:
        parts.insert(0, "arrivals=camera")
    app = read_app(f"{NAME}:{','.join(parts)}")
    if any(mixed.bounds.max_latency is None for mixed in app.mix):
        raise argparse.ArgumentTypeError(
            "the latency of a frame is missing; give one, as in 100 ms"
        )
    return app


def _part(text: str) -> str:
    """``text`` as KEY=VALUE."""
    match = _NUMBER.fullmatch(text)
    if "=" in text:
        return text
    if match is not None and match[2] == "fps":
        return f"rate={match[1]}"
    if match is not None and match[2] in TIMES:
        return f"max-latency={match[0]}"
    if match is not None and match[2] in ENERGIES:
        return f"max-energy={match[0]}"
    known = ", ".join(["fps", *TIMES, *ENERGIES])
    raise argparse.ArgumentTypeError(
        f"{text!r} must be a number with a unit ({known}), or KEY=VALUE, as in "
        '"10 fps, 100 ms, min-accuracy=0.85"'
    )
