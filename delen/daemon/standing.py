"""From what a daemon says of itself to the standing that policies see."""

from __future__ import annotations

from math import inf

import msgspec

from delen.errors import InvalidInput
from delen.wire import fleet as wire
from delen.wire.message import read_answer
from policies.fleet.api import LinkState, OperatingPoint, ServedModel, Standing

MOST_POINTS = 2000
"""Operating points of one node: policies look at each for every client."""


def read_standing(node: str, raw: bytes, said: float = 0.0) -> Standing:
    """The standing in ``raw`` of the node that the hub calls ``node``, said at ``said`` by the
    reader's clock. InvalidInput names what is wrong."""
    try:
        message = read_answer(wire.Standing, raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(str(error)) from None
    points = sum(len(model.points) for model in message.models)
    if points > MOST_POINTS:
        raise InvalidInput(f"models have {points} points; at most {MOST_POINTS} are read", "models")
    names = [model.name for model in message.models]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidInput(f"models names {min(twice)!r} twice", "models")
    joule = message.price_per_joule
    return Standing(
        node,
        said,
        tuple(_model(model) for model in message.models),
        message.backlog,
        message.slowdown,
        message.utilisation,
        message.price,
        inf if joule is None else joule,
        {name: link_state(link) for name, link in message.links.items()},
    )


def link_state(link: wire.Link) -> LinkState:
    """A link as policies see it; one whose bandwidth is unknown has no limit."""
    return LinkState(inf if link.bandwidth is None else link.bandwidth, link.delay)


def _model(model: wire.StandingModel) -> ServedModel:
    try:
        points = tuple(point.to(OperatingPoint) for point in model.points)
        return ServedModel(model.name, model.bundle, points, model.resident, model.load)
    except InvalidInput as error:
        raise InvalidInput(f"model {model.name!r}: {error}", error.field) from None
