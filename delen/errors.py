"""The one tree of errors. ``code`` and ``status`` are what each has over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Nearest:
    """The feasible bounds nearest to refused ones: seconds, a fraction, joules; None = no limit."""

    max_latency: float | None = None
    min_accuracy: float | None = None
    max_energy: float | None = None


class DelenError(Exception):
    """Base of everything that delen raises on purpose."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500


class InvalidInput(DelenError):
    """The request itself is wrong. ``field`` names the wrong part, where there is one."""

    code = "invalid_input"
    status = 400

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

    def renamed(self, field: str | None) -> InvalidInput:
        """This of a value that its giver knows as ``field``. The sentence begins with the name."""
        rest = str(self).removeprefix(self.field or "")
        return type(self)(f"{field}{rest}" if rest != str(self) else rest, field)


class UnknownField(InvalidInput):
    code = "unknown_field"


class NotFound(InvalidInput):
    """There is nothing at this address."""

    code = "not_found"
    status = 404


class MethodNotAllowed(InvalidInput):
    code = "method_not_allowed"
    status = 405


class RequestTimeout(InvalidInput):
    """The rest of the request did not come."""

    code = "request_timeout"
    status = 408


class TooLarge(InvalidInput):
    code = "too_large"
    status = 413


class BatchTooLarge(DelenError):
    """The batch can never be admitted under its bounds and the limits in force; one of ``largest``
    samples can."""

    code = "batch_too_large"
    status = 413

    def __init__(self, message: str, largest: int) -> None:
        super().__init__(message)
        self.largest = largest


class UnsupportedMediaType(InvalidInput):
    code = "unsupported_media_type"
    status = 415


class NotOffered(InvalidInput):
    """A part of a protocol that this server does not have."""

    code = "not_offered"
    status = 501


class Unauthorized(DelenError):
    """A request to a guarded address has no token."""

    code = "unauthorized"
    status = 401


class Forbidden(DelenError):
    """A request to a guarded address has a wrong token, comes from where it is not offered, or asks
    for what the configuration does not allow."""

    code = "forbidden"
    status = 403


class ModelNotFound(DelenError):
    code = "model_not_found"
    status = 404


class BundlesDiffer(DelenError):
    """Two nodes have different bundles under one name, so one cannot go on where the other one
    stopped."""

    code = "bundles_differ"
    status = 409


class InfeasibleBound(DelenError):
    """No plan keeps the bounds. ``nearest`` are bounds near them that can be kept."""

    code = "infeasible_bound"
    status = 422

    def __init__(self, message: str, nearest: Nearest) -> None:
        super().__init__(message)
        self.nearest = nearest


_UNKNOWN_WAIT = 60.0
"""Seconds after which a client comes again where nobody can say when it is worth a try."""


class _Retry(DelenError):
    """``retry_after`` is finite: where the wait is unknown, it is a minute. ``constraint`` names
    the limit on energy that refuses, where one does, as ``GET /v1/power`` does."""

    constraint: str | None = None

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after if isfinite(retry_after) else _UNKNOWN_WAIT


class BudgetExhausted(_Retry):
    """A tenant's energy budget is spent; ``retry_after`` seconds until it refills."""

    code = "budget_exhausted"
    status = 429


class Overloaded(_Retry):
    """The daemon cannot take this request now; ``retry_after`` is in seconds."""

    code = "overloaded"
    status = 503


class Draining(Overloaded):
    """The daemon is stopping."""

    code = "draining"


class NoRoute(Overloaded):
    """A hub knows no node that can answer in time."""

    code = "no_route"


class ModelLoading(Overloaded):
    """The model is known but not ready."""

    code = "model_loading"


class DaemonUnreachable(DelenError):
    """No daemon answered at the client's address, or not within the client's timeout."""

    code = "daemon_unreachable"
    status = 503


class NotSettled(DelenError, TimeoutError):
    """The energy of a request is not final yet."""

    code = "not_settled"
    status = 503


class BundleError(DelenError):
    """A bundle is damaged, truncated, foreign or newer than this delen."""

    code = "bundle_invalid"


class ProfileError(DelenError):
    """A profile is damaged, or a measurement was too unsteady to be accepted."""

    code = "profile_invalid"


class ConfigError(DelenError):
    """The configuration names an unknown key, or a value of the wrong type or range."""

    code = "config_invalid"


class NoRoom(ConfigError):
    """The cap on memory leaves no room for a model, now and until others are unloaded."""

    code = "no_room"
    status = 507


class TraceError(DelenError):
    """A file that is played (a trace of requests or of bandwidth, a site) cannot be read."""

    code = "trace_invalid"


class BackendError(DelenError):
    """The backend could not load or run a segment."""

    code = "backend_failed"


class NotKept(DelenError):
    """A change could not be written to the state folder, so it was not made."""

    code = "not_kept"
    status = 507


class PowerError(DelenError):
    """A power source or power mode cannot be used. ``remedy`` says what would help, where known."""

    code = "power_unavailable"
    status = 503

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class SensorAbsent(PowerError):
    """There is no such sensor on this machine."""

    code = "sensor_absent"


class SensorDenied(PowerError):
    """The sensor is there, but this user may not read it."""

    code = "sensor_denied"


class SensorFailed(PowerError):
    """A reading failed, did not advance or was invalid. The next one may succeed."""

    code = "sensor_failed"


class MissingExtra(DelenError, ImportError):
    """An optional part of delen is not installed. ``remedy`` is what to run in place of pip's
    installation of the extra."""

    code = "missing_extra"

    def __init__(self, what: str, extra: str, remedy: str | None = None) -> None:
        command = remedy or f"pip install 'delen[{extra}]'"
        super().__init__(f"{what} is not installed; install it with: {command}")
        self.extra = extra


def _tree(root: type[DelenError]) -> list[type[DelenError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


ERRORS_BY_CODE: dict[str, type[DelenError]] = {
    error.code: error for error in _tree(DelenError) if "code" in vars(error)
}
