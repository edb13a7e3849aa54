"""Where profiles are kept, and which one serves a bundle on a device."""

from __future__ import annotations

import logging
from pathlib import Path

from delen.bundle.manifest import PROFILES, Bundle
from delen.core.atomic_file import write_atomically
from delen.core.variant import variant_name
from delen.errors import ProfileError
from delen.profile.profile import Device, Profile
from delen.profile.reader import load_profile

log = logging.getLogger("delen.profiles")


def state_file(state: Path, bundle: Bundle, device: Device) -> Path:
    """The file under the state folder for this bundle, at its size, on this device."""
    folder = f"{bundle.name}-{bundle.digest[:12]}"
    return state / PROFILES / folder / f"{variant_name(device.key, bundle.size)}.json"


def beside_file(bundle: Bundle, device: Device) -> Path:
    """The file inside the bundle's own folder for this device."""
    return bundle.path / PROFILES / f"{variant_name(device.key, bundle.size)}.json"


def find_profile(state: Path, bundle: Bundle, device: Device) -> Profile | None:
    """The profile of ``bundle`` on ``device``: from the state folder, else from the bundle.

    A file that is damaged or of another device is logged and passed over.
    """
    for file in (state_file(state, bundle, device), beside_file(bundle, device)):
        if not file.is_file():
            continue
        try:
            profile = load_profile(file)
            check_profile(profile, bundle, device)
        except ProfileError as error:
            log.warning("passed over: %s: %s", file, error)
            continue
        return profile
    return None


def check_profile(profile: Profile, bundle: Bundle, device: Device | None) -> None:
    """ProfileError unless ``profile`` is of this bundle, this device (if given) and all batches."""
    if (profile.model, profile.bundle) != (bundle.variant, bundle.digest):
        raise ProfileError(f"the profile is of another bundle ({profile.model})")
    if device is not None and profile.device != device:
        raise ProfileError(f"the profile is of another device ({profile.device.key})")
    if len(profile.segments) != len(bundle.exits):
        raise ProfileError(f"the profile has {len(profile.segments)} segments")
    if any(max(costs) < bundle.manifest.max_batch for costs in profile.segments):
        raise ProfileError(f"the profile does not reach batch {bundle.manifest.max_batch}")


def save_profile(profile: Profile, file: Path) -> None:
    """Write ``file`` whole or not at all. Raises ProfileError naming the file."""
    try:
        write_atomically(file, profile.to_json())
    except OSError as error:
        raise ProfileError(f"{file} cannot be written: {error.strerror or error}") from error
