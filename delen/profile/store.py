"""Where profiles are kept, and which one serves a bundle on a device."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from delen.bundle.manifest import PROFILES, Bundle
from delen.core.atomic_file import put_aside, write_atomically
from delen.errors import ProfileError
from delen.profile.profile import Device, Profile
from delen.profile.reader import load_profile

log = logging.getLogger("delen.profiles")


def state_file(state: Path, bundle: Bundle, device: Device) -> Path:
    """The file under the state folder for this bundle, at all its sizes, on this device."""
    return state / PROFILES / f"{bundle.name}-{bundle.digest[:12]}" / f"{device.key}.json"


def beside_file(bundle: Bundle, device: Device) -> Path:
    """The file inside the bundle's own folder for this device."""
    return bundle.path / PROFILES / f"{device.key}.json"


def find_profile(state: Path, bundle: Bundle, device: Device) -> Profile | None:
    """The profile of ``bundle``, at its size, on ``device``: from the state folder, else from the
    bundle.

    A file that is damaged or of another device is logged and passed over.
    """
    for file in (state_file(state, bundle, device), beside_file(bundle, device)):
        if not file.is_file():
            continue
        try:
            known = {profile.model: profile for profile in load_profile(file).sizes}
            profile = known.get(bundle.variant)
            if profile is None and bundle.size is not None:
                continue
            profile = profile or next(iter(known.values()))
            check_profile(profile, bundle, device)
        except ProfileError as error:
            log.warning("passed over: %s: %s", file, error)
            continue
        return replace(profile, smaller=())
    return None


def keep_profile(profile: Profile, bundle: Bundle, file: Path) -> None:
    """Put ``profile``, of ``bundle`` at its size, into ``file``, which may have those of the other
    sizes. A file that is damaged is put aside. ProfileError names the file where it cannot be
    written."""
    known = _read_known(file) if file.is_file() else None
    if known is None or bundle.size is None:
        save_profile(profile, file)
        return
    try:
        check_profile(known, bundle, profile.device)
    except ProfileError as error:
        log.warning("replaced: %s: %s", file, error)
        save_profile(profile, file)
        return
    save_profile(known.having(profile), file)


def _read_known(file: Path) -> Profile | None:
    """The profile in ``file``; one that is damaged is put aside."""
    try:
        return load_profile(file)
    except ProfileError as error:
        log.warning("%s", error)
    with suppress(OSError):
        log.warning("%s was damaged and is now %s", file, put_aside(file))
    return None


def check_profile(profile: Profile, bundle: Bundle, device: Device | None) -> None:
    """ProfileError unless ``profile`` is of this bundle, this device (if given) and all batches."""
    if profile.bundle != bundle.digest:
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
