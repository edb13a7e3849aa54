"""A job that runs its first segments on one node and the others on another one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite

from delen.core.bounds import (
    Encoding,
    check_fraction,
    check_integer,
    check_name,
    check_not_negative,
)
from delen.core.variant import Size
from delen.errors import InvalidInput

LINK = "link"
"""What receipts call the way from one node to the next."""

MOST_PARTS = 16
"""Nodes and links that one job may have behind it."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a job took on one node, or on a link between two: seconds, and joules where they are
    known. ``exits`` are those that it reached there, none on a link. ``is_here`` is true of the
    part of the node that writes the receipt."""

    node: str
    exits: tuple[int, ...]
    latency: float
    energy: float | None
    is_here: bool = False

    def __post_init__(self) -> None:
        check_name(self.node, "node")
        check_not_negative(self.latency, "latency")
        if self.energy is not None:
            check_not_negative(self.energy, "energy")
        for exit in self.exits:
            check_integer(exit, "exits", 0, None)


@dataclass(frozen=True, slots=True)
class Suspended:
    """All that another node needs to go on after ``exit``: the ``features`` there, in their
    ``encoding``, of the bundle with this digest at ``size``, and how sure the exit was.
    ``threshold`` is the confidence at which the job would have stopped, None where it would not."""

    exit: int
    bundle: str
    size: Size | None
    encoding: Encoding
    threshold: float | None
    confidence: float
    features: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Way:
    """How another node is to finish a job: ``peer`` goes on after ``exit``. It is predicted to take
    so many ``seconds`` with the link, and ``joules`` (None: unknown)."""

    peer: str
    exit: int
    seconds: float
    joules: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a job has behind it that begins here after ``exit``. ``bundle`` is the digest of the
    bundle that ran until there, at ``size``. ``threshold`` and ``confidence`` are those of
    ``Suspended``; the one that sent it keeps the answer of ``exit``."""

    exit: int
    bundle: str
    size: Size | None = None
    threshold: float | None = None
    confidence: float = 0.0
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        check_integer(self.exit, "exit", 0, None)
        check_fraction(self.confidence, "confidence")
        if self.threshold is not None:
            check_fraction(self.threshold, "threshold")
        if len(self.parts) > MOST_PARTS:
            raise InvalidInput(
                f"parts has {len(self.parts)} entries; at most {MOST_PARTS} are taken", "parts"
            )
        if not isfinite(self.seconds):
            raise InvalidInput("parts add up to no finite latency", "parts")

    def carried(self, seconds: float) -> Past:
        """The same after so many more seconds on the link."""
        parts = self.parts
        if parts and parts[-1].node == LINK:
            seconds, parts = seconds + parts[-1].latency, parts[:-1]
        return replace(self, parts=(*parts, Part(LINK, (), seconds, None)))

    @property
    def seconds(self) -> float:
        """What it took until now."""
        return sum(part.latency for part in self.parts)

    @property
    def joules(self) -> float | None:
        """What it took until now; None where some of it is unknown."""
        return total_energy(self.parts)


def total_energy(parts: tuple[Part, ...]) -> float | None:
    """The joules of all ``parts``; None where those of a node are unknown. A link has none."""
    joules = 0.0
    for part in parts:
        if part.exits and part.energy is None:
            return None
        joules += part.energy or 0.0
    return joules
