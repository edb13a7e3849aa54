"""Models to simulate: from a bundle with a profile of it, or from a profile alone."""

from __future__ import annotations

from pathlib import Path

from delen.bundle.manifest import PROFILES, Bundle
from delen.core.variant import size_of
from delen.errors import ConfigError, ProfileError
from delen.profile.profile import Profile
from delen.profile.reader import load_profile
from delen.simulate.model import SimulatedModel
from delen.simulate.profiled_energy import ProfiledEnergy
from delen.simulate.synthetic import synthetic
from policies.exit.bounds import ExitPolicy
from policies.plan.planner import Planner, PlannerSettings

SAMPLES = 5000
"""How many samples the synthetic calibration table of a profile alone has."""


def of_bundle(
    bundle: Bundle,
    profile: Profile,
    planner: PlannerSettings,
    policy: ExitPolicy,
    level: float,
    watts_per_core: float | None,
) -> SimulatedModel:
    """``bundle`` on the device of ``profile``, at all its input sizes; requests are about samples
    of its calibration tables. ProfileError if the profile is of another bundle, or lacks a size."""
    if profile.bundle != bundle.digest:
        raise ProfileError(
            f"the profile is of another bundle ({profile.model}), not of {bundle.name}"
        )
    known = {each.model: each for each in profile.sizes} if bundle.smaller else {}
    smaller: tuple[SimulatedModel, ...] = ()
    for each in reversed(bundle.sizes):
        measured = known.get(each.variant) if known else profile
        if measured is None:
            raise ProfileError(
                f"the profile does not have {each.variant}: measure it with `delen profile`"
            )
        model = SimulatedModel(
            name=each.variant,
            profile=measured,
            energy=ProfiledEnergy(watts_per_core, profile.device.is_gpu),
            level=level,
            calibration=each.calibration,
            planner=Planner(
                each.calibration,
                planner,
                policy.by_threshold,
                size=each.size,
                sizes=len(bundle.sizes),
            ),
            policy=policy,
            macs=tuple(exit.macs for exit in each.exits),
            max_batch=bundle.manifest.max_batch,
            smaller=smaller,
        )
        smaller = (model, *smaller)
    return smaller[0]


def of_profile(
    profile: Profile,
    planner: PlannerSettings,
    policy: ExitPolicy,
    level: float,
    seed: int,
) -> SimulatedModel:
    """A network for which only ``profile`` is known, at all input sizes that are in it; its samples
    are synthetic, from ``seed``.

    ProfileError if the profile does not say how accurate the exits are, or of which size it is.
    """
    smaller: tuple[SimulatedModel, ...] = ()
    for each in reversed(profile.sizes):
        if each.accuracies is None:
            raise ProfileError(
                f"the profile of {each.model} has no accuracies: give its bundle with --bundle too"
            )
        calibration = synthetic(each.accuracies, SAMPLES, seed)
        size = size_of(each.model) if profile.smaller else None
        if profile.smaller and size is None:
            raise ProfileError(
                f"the profile of {each.model} has several sizes: name each as in {each.model}@24x24"
            )
        model = SimulatedModel(
            name=each.model,
            profile=each,
            energy=ProfiledEnergy(None),
            level=level,
            calibration=calibration,
            planner=Planner(
                calibration, planner, policy.by_threshold, size=size, sizes=len(profile.sizes)
            ),
            policy=policy,
            macs=(0,) * calibration.exits,
            max_batch=each.largest_batch,
            smaller=smaller,
        )
        smaller = (model, *smaller)
    return smaller[0]


def profile_of(bundle: Bundle, state: Path) -> Profile:
    """The only profile of ``bundle`` in the ``state`` folder or in the bundle.

    ConfigError if there are none or several.
    """
    folder = f"{bundle.name}-{bundle.digest[:12]}"
    files = [
        *sorted((state / PROFILES / folder).glob("*.json")),
        *sorted((bundle.path / PROFILES).glob("*.json")),
    ]
    by_device = {file.name: file for file in reversed(files)}
    if not by_device:
        raise ConfigError(
            f"there is no profile of {bundle.name}: make one with `delen profile`, or give one "
            "with --profile"
        )
    if len(by_device) > 1:
        listed = ", ".join(map(str, by_device.values()))
        raise ConfigError(
            f"there are profiles of {bundle.name} for several devices; give one with --profile: "
            f"{listed}"
        )
    return load_profile(next(iter(by_device.values())))
