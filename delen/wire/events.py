"""What happened, as ``GET /v1/events`` streams it."""

from __future__ import annotations

from typing import Annotated

from delen.wire.message import Message, about


class Event(Message, frozen=True, omit_defaults=True):
    """The data of one event: what it happened to. The stream's own ``event`` says what happened."""

    time: Annotated[float, about("seconds since 1970")]
    model: str | None = None
    mode: Annotated[str | None, about("the power mode")] = None
    source: Annotated[str | None, about("the power source")] = None
    constraint: Annotated[str | None, about("what limits energy")] = None
    problem: Annotated[str | None, about("a sentence")] = None


class Lost(Message, frozen=True):
    """The data of the event ``lost``: the reader was too slow for so many events."""

    events: int
