"""The profiles of bundles on this device: found, and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from delen.bundle.manifest import Bundle
from delen.engine.backends.base import Network
from delen.errors import ProfileError
from delen.profile.device import identify
from delen.profile.profile import Device, Profile
from delen.profile.store import find_profile, keep_profile, state_file

log = logging.getLogger("delen")


class DeviceProfiles:
    """The profiles of bundles on the device under ``root`` in its present power ``mode``, which is
    asked for, and with ``lanes``. Those that were measured here are kept under ``state``."""

    def __init__(self, state: Path, root: Path, mode: Callable[[], str], lanes: int) -> None:
        self._state = state
        self._root = root
        self._mode = mode
        self._lanes = lanes

    def device(self, network: Network) -> Device:
        where = network.placement
        return identify(self._root, where.provider, where.threads, where.runtime, self._mode())

    def find(self, bundle: Bundle, network: Network) -> Profile | None:
        """The profile of ``bundle``, None where there is none; what it lacks is logged."""
        profile = find_profile(self._state, bundle, self.device(network))
        if profile is None:
            return None
        if profile.lacks_host:
            log.info(
                "the profile of %s does not say what serving takes beside its segments: "
                "`delen profile` measures it, and bounds that leave little room are kept better",
                bundle.name,
            )
        if len(profile.interference or (1.0,)) < self._lanes:
            log.info(
                "the profile of %s does not say how much %d instances slow each other down: "
                "that is learnt while they serve; `delen profile` measures it",
                bundle.name,
                self._lanes,
            )
        report_busy(profile)
        return profile

    def keep(self, bundle: Bundle, profile: Profile) -> None:
        """Keep what was measured for the next start, if that can be."""
        file = state_file(self._state, bundle, profile.device)
        try:
            keep_profile(profile, bundle, file)
            log.info("kept it as %s; `delen profile` measures a thorough one", file)
        except ProfileError as error:
            log.warning("it will be measured again at the next start: %s", error)


def report_busy(profile: Profile) -> None:
    """Log that ``profile`` was measured on a busy machine, if it was."""
    if profile.measured is not None and profile.busy:
        log.warning(
            "the profile of %s was measured while other work had %.0f %% of the processor, so "
            "plans may be wrong: %s",
            profile.model,
            100 * profile.measured.others,
            "it is measured again once the machine is calm and nothing is served"
            if profile.quick
            else "run `delen profile` on a calm machine",
        )
