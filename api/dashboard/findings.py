"""What is wrong with a daemon and its device, each with what helps."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from delen.core.energy_status import PowerStatus, TenantStatus
from delen.core.failures import disk_errors, failure_counts, last_failures
from delen.engine.model import Model
from delen.residency.registry import Entry
from delen.wire.figures import Finding
from delen.wire.models import Health

_SLOW = 1.5
"""Times the profiled time from which on a model is said to run slowly."""

_MOST_APPS = 10
"""Apps are named one by one up to so many."""

_RECENT_SECONDS = 3600.0
"""For so long a failure inside the daemon is a finding."""

_SOURCES = "delen doctor lists the sources, and what each one needs"
_LOG = "read the daemon's log (journalctl -u delen-daemon)"


def find_problems(
    health: Health,
    entries: Sequence[Entry[Model]],
    power: PowerStatus,
    tenants: Mapping[str, TenantStatus],
    needed: str = "",
) -> tuple[Finding, ...]:
    """What stops serving, of models, of power, of apps, and what failed in the last hour. The model
    ``needed`` must be loaded for requests to be accepted."""
    return (
        *(Finding(problem, _LOG) for problem in health.problems),
        *(finding for entry in entries for finding in _of_needed(entry, needed)),
        *(finding for entry in entries for finding in _of_model(entry)),
        *_of_power(power),
        *_of_tenants(tenants),
        *_of_failures(time.monotonic()),
    )


def _of_needed(entry: Entry[Model], needed: str) -> Iterator[Finding]:
    if entry.manifest.name != needed:
        return
    if entry.state == "unloaded":
        yield Finding(
            f"{needed}, the default model, is unloaded: its requests are refused, and /readyz is "
            "503",
            f"load it: POST /v1/models/{needed}/load, or the button on the page",
        )
    elif entry.state == "loading":
        yield Finding(
            f"{needed}, the default model, is not loaded yet, so /readyz is 503",
            "wait until it is loaded",
        )


def _of_model(entry: Entry[Model]) -> Iterator[Finding]:
    name, model = entry.manifest.name, entry.model
    if entry.problem is not None:
        yield Finding(
            f"{name} cannot be loaded: {entry.problem}", "copy or build the bundle again, load it"
        )
    if model is None:
        return
    if not model.monitor.holds:
        yield Finding(
            f"{name}: outcomes refute its calibration, so no floor is guaranteed",
            "calibrate again with data of its present use: delen build",
        )
    elif model.monitor.unguaranteed is not None:
        yield Finding(
            f"{name}: {model.monitor.unguaranteed}",
            "wait until inputs are as before, or calibrate with data like them: delen build",
        )
    profile, slowdown = model.costs.profile, model.costs.slowdown.mean
    if model.costs.stale is not None:
        yield Finding(
            f"{name}: its profile is not of now: {model.costs.stale}",
            "stop the daemon and run delen profile in this power mode",
        )
    elif profile.rough:
        yield Finding(
            f"{name}: a rough profile serves, so plans are too careful",
            "leave the daemon without requests for some seconds, or run delen profile",
        )
    elif profile.busy:
        yield Finding(
            f"{name}: its profile was measured on a busy machine, so plans may be wrong",
            "stop other programs, and the daemon measures it again once nothing is served",
        )
    if slowdown > _SLOW:
        yield Finding(
            f"{name} takes {slowdown:.1f} times as long as its profile says",
            "look for other programs, a low power mode and throttling: delen doctor",
        )


def _of_power(power: PowerStatus) -> Iterator[Finding]:
    if power.state == "none":
        yield Finding(
            "no power source: every energy is unknown",
            _SOURCES,
        )
    elif power.state == "degraded":
        problem = power.problem or "it gives no good readings"
        yield Finding(f"the power source {power.source} is degraded: {problem}", _SOURCES)
    if power.warning is not None:
        yield Finding(power.warning, "use a source that measures: delen doctor lists them")
    for sentence in power.mode.throttling:
        yield Finding(
            f"the device is held back: {sentence}",
            "cool it, check its supply, or choose a lower power mode",
        )


def _of_tenants(tenants: Mapping[str, TenantStatus]) -> Iterator[Finding]:
    spent = [name for name, one in tenants.items() if one.balance is not None and one.balance <= 0]
    for name in spent[:_MOST_APPS]:
        yield Finding(
            f"the energy budget of {name} is spent, so its requests are refused",
            f"wait, or raise it: PUT /v1/tenants/{name}",
        )
    if (more := len(spent) - _MOST_APPS) > 0:
        yield Finding(f"so are the energy budgets of {more} more", "see GET /v1/tenants")


def _of_failures(now: float) -> Iterator[Finding]:
    of_disk, counts = disk_errors(), failure_counts()
    for where, at in sorted(last_failures().items()):
        if now - at > _RECENT_SECONDS:
            continue
        problem = f"{_times(counts[where])} inside the daemon ({where}), {_ago(now - at)}"
        remedy = _LOG
        if (error := of_disk.get(where)) is not None:
            folder = Path(error.filename).parent if error.filename else "the state folder"
            problem = f"{problem}: {folder} could not be written: {error.strerror}"
            remedy = (
                f"mount the disk of {folder} for writing"
                if error.errno == errno.EROFS
                else f"make room on the disk of {folder} if it is still full; the daemon retries"
            )
        yield Finding(problem, remedy)


def _times(count: int) -> str:
    return "a failure" if count == 1 else f"{count} failures"


def _ago(seconds: float) -> str:
    return f"the last {seconds / 60:.0f} min ago" if seconds >= 60 else "the last a moment ago"
