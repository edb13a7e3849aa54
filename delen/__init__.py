"""delen: serve multi-exit networks under per-request latency, accuracy and energy bounds.

The names here load when they are first used, so that importing delen costs an app next to
nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from delen.version import VERSION as __version__

if TYPE_CHECKING:
    from delen.core.bounds import Bounds as Bounds
    from delen.core.energy_status import Battery as Battery
    from delen.core.energy_status import Settled as Settled
    from delen.core.plan import Preview as Preview
    from delen.core.result import EnergyOutcome as EnergyOutcome
    from delen.core.result import Receipt as Receipt
    from delen.core.result import Result as Result
    from delen.daemon.in_process import Engine as Engine
    from delen.errors import BatchTooLarge as BatchTooLarge
    from delen.errors import BudgetExhausted as BudgetExhausted
    from delen.errors import BundleError as BundleError
    from delen.errors import BundlesDiffer as BundlesDiffer
    from delen.errors import DaemonUnreachable as DaemonUnreachable
    from delen.errors import DelenError as DelenError
    from delen.errors import InfeasibleBound as InfeasibleBound
    from delen.errors import InvalidInput as InvalidInput
    from delen.errors import MissingExtra as MissingExtra
    from delen.errors import ModelNotFound as ModelNotFound
    from delen.errors import Nearest as Nearest
    from delen.errors import NoRoom as NoRoom
    from delen.errors import NotFound as NotFound
    from delen.errors import NotKept as NotKept
    from delen.errors import NotSettled as NotSettled
    from delen.errors import Overloaded as Overloaded
    from delen.errors import PowerError as PowerError
    from delen.sdk.async_client import AsyncClient as AsyncClient
    from delen.sdk.client import Client as Client
    from delen.sdk.client import infer as infer
    from delen.sdk.inputs import Text as Text
    from delen.streams.async_fused import AsyncFused as AsyncFused
    from delen.streams.async_stream import AsyncStream as AsyncStream
    from delen.streams.frames import Frame as Frame
    from delen.streams.frames import FrameResult as FrameResult
    from delen.streams.fused import Fused as Fused
    from delen.streams.fused_core import FusedResult as FusedResult
    from delen.streams.stream import Stream as Stream

_HOMES = {
    "delen.sdk.async_client": ("AsyncClient",),
    "delen.core.bounds": ("Bounds",),
    "delen.sdk.client": ("Client", "infer"),
    "delen.sdk.inputs": ("Text",),
    "delen.errors": (
        "BatchTooLarge",
        "BudgetExhausted",
        "BundleError",
        "BundlesDiffer",
        "DaemonUnreachable",
        "DelenError",
        "InfeasibleBound",
        "InvalidInput",
        "MissingExtra",
        "ModelNotFound",
        "Nearest",
        "NoRoom",
        "NotFound",
        "NotKept",
        "NotSettled",
        "Overloaded",
        "PowerError",
    ),
    "delen.daemon.in_process": ("Engine",),
    "delen.core.plan": ("Preview",),
    "delen.core.energy_status": ("Battery", "Settled"),
    "delen.core.result": ("EnergyOutcome", "Receipt", "Result"),
    "delen.streams.async_fused": ("AsyncFused",),
    "delen.streams.async_stream": ("AsyncStream",),
    "delen.streams.frames": ("Frame", "FrameResult"),
    "delen.streams.fused": ("Fused",),
    "delen.streams.fused_core": ("FusedResult",),
    "delen.streams.stream": ("Stream",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'delen' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
