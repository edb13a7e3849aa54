"""What daemons that are measured keep: profiles that several share, and that are not rough."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.request import urlopen

_MEASURED_SECONDS = 120.0
_POLL = 0.05


def state_sharing(state: Path, folder: Path) -> Path:
    """``folder``, made as one of a daemon's state that shares no more than the profiles of
    ``state``."""
    (state / "profiles").mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    (folder / "profiles").symlink_to(state / "profiles")
    return folder


def wait_measured(url: str) -> None:
    """Wait until the daemon at ``url``, to which nothing is sent, has measured all profiles by
    which it serves."""
    end = time.monotonic() + _MEASURED_SECONDS
    while _has_rough(url):
        if time.monotonic() > end:
            raise RuntimeError(f"the daemon has no profile after {_MEASURED_SECONDS:g} s")
        time.sleep(_POLL)


def _has_rough(url: str) -> bool:
    with urlopen(f"{url}/v1/models", timeout=30.0) as answer:
        models = json.load(answer)["models"]
    return any(model.get("profile", {}).get("rough") for model in models)
