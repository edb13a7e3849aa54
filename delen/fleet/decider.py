"""What the coordinator's actor does: one slow decision of the fleet policy, from values alone."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import msgspec

from delen.errors import ConfigError, DelenError
from delen.wire import fleet as wire
from delen.wire.message import read_answer, write
from policies.fleet.api import Ceiling, Demand, Directive, FleetPolicy, Price, Standing

T = TypeVar("T")
_DEMANDS = msgspec.msgpack.Decoder(list[Demand])


@dataclass(frozen=True, slots=True)
class Decision:
    """``directives`` by node, as JSON for its daemon; a node without any decides alone. ``policy``
    is the state in which the policy routes from now on, None where it is as before. It took
    ``seconds`` of ``process``."""

    process: int
    directives: Mapping[str, bytes]
    policy: bytes | None
    seconds: float


def pack_policy(policy: FleetPolicy) -> bytes:
    """``policy`` on its way to another process. ConfigError where it cannot go there."""
    try:
        return pickle.dumps(policy)
    except Exception as error:
        raise ConfigError(
            f"the fleet policy {policy.name!r} cannot be copied to the coordinator: {error}"
        ) from error


def pack_demands(demands: Sequence[Demand]) -> bytes:
    return msgspec.msgpack.encode(demands)


class Decider:
    """Has no state of its own, so that one that is started again goes on where another ended."""

    def decide(
        self,
        policy: bytes,
        standings: Sequence[Standing],
        demands: bytes,
        now: float,
        lease: float,
    ) -> Decision:
        """The decision of ``policy`` at ``now``. What it raises is raised as a DelenError."""
        began = time.perf_counter()
        decided: FleetPolicy = pickle.loads(policy)
        before = pickle.dumps(decided)
        try:
            found = decided.coordinate(standings, _DEMANDS.decode(demands), now)
            nodes = {standing.node for standing in standings}
            directives = _read(found, nodes, lease)
        except Exception as error:
            raise DelenError(f"{type(error).__name__}: {error}") from None
        after = pickle.dumps(decided)
        seconds = time.perf_counter() - began
        return Decision(os.getpid(), directives, None if after == before else after, seconds)


def _read(found: Any, nodes: set[str], lease: float) -> dict[str, bytes]:
    """The directives that say something, checked."""
    read = {}
    for directive in found:
        if not isinstance(directive, Directive):
            raise TypeError(f"coordinate gave {directive!r}, which is not a Directive")
        if directive.node not in nodes:
            raise ValueError(f"coordinate gave a directive to {directive.node!r}: no such node")
        if directive.ceilings or directive.prices or directive.resident:
            kept = replace(
                directive,
                lease=lease,
                ceilings=_first(directive.ceilings, Ceiling),
                prices=_first(directive.prices, Price),
            )
            written = write(wire.Directives.of(kept))
            read_answer(wire.Directives, written)
            read[directive.node] = written
    return read


def _first(by_tenant: Mapping[str, T], kind: type[T]) -> dict[str, T]:
    """As many as a daemon takes: others would have it refuse all."""
    found = dict(islice(by_tenant.items(), wire.MOST_NAMES))
    for tenant, value in found.items():
        if not isinstance(value, kind):
            raise TypeError(
                f"coordinate gave {tenant!r} {value!r}: not of the type {kind.__name__}"
            )
    return found
