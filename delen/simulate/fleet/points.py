"""The operating points of a profile: its exits, on a device that is some times as fast."""

from __future__ import annotations

from collections.abc import Sequence

from delen.errors import ProfileError
from delen.profile.profile import MEDIAN, Profile
from delen.simulate.fleet.site import NodeModel
from policies.fleet.api import OperatingPoint, ServedModel, Size

PLANNED = 0.99
"""The quantile that daemons plan with."""


def node_model(
    name: str,
    sizes: Sequence[tuple[Size | None, float, Profile]],
    accuracies: Sequence[float] | None,
    speed: float,
    energy: float,
) -> NodeModel:
    """The model ``name``, whose ``sizes`` each have bytes of a frame and a profile. The device is
    ``speed`` times as fast as the profiles' and takes ``energy`` times their joules.

    ProfileError where nobody says how accurate the exits are.
    """
    points, typical = [], []
    for size, payload, profile in sizes:
        known = accuracies or profile.accuracies
        if known is None:
            raise ProfileError(f"the profile of {profile.model} has no accuracies")
        if len(known) != len(profile.segments):
            raise ProfileError(
                f"{name} has {len(known)} accuracies, and its profile {len(profile.segments)} exits"
            )
        joules: float | None = 0.0
        for exit, accuracy in enumerate(known):
            cost = profile.cost(exit, 1).energy
            joules = None if joules is None or cost is None else joules + energy * cost
            points.append(
                OperatingPoint(
                    exit, accuracy, _latencies(profile, exit, PLANNED, speed), payload, size, joules
                )
            )
            typical.append(_latencies(profile, exit, MEDIAN, speed))
    return NodeModel(ServedModel(name, sizes[0][2].bundle, tuple(points)), tuple(typical))


def _latencies(profile: Profile, exit: int, level: float, speed: float) -> tuple[float, ...]:
    """Seconds up to ``exit`` by batch size; a larger batch never takes less."""
    found: list[float] = []
    for batch in range(1, profile.largest_batch + 1):
        segments = (profile.seconds(segment, batch, level) for segment in range(exit + 1))
        found.append(max([sum(segments) / speed, *found[-1:]]))
    return tuple(found)
