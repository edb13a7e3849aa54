"""When members of a site are killed, and when they are started again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.fleet.members import HUB, Member

HUB_KILLS = 2


@dataclass(frozen=True, slots=True)
class Kill:
    """``member`` gets SIGKILL at ``at`` seconds, and is started again after ``away``."""

    member: str
    at: float
    away: float = 3.0


def plan_kills(nodes: Sequence[str], seconds: float, every: float) -> list[Kill]:
    """Each node in turn, in the middle of each stretch of ``every`` seconds; the hub at a third and
    at two thirds."""
    turns = range(int(seconds // every))
    kills = [Kill(nodes[turn % len(nodes)], (turn + 0.5) * every) for turn in turns]
    return kills + [Kill(HUB, seconds * (n + 1) / (HUB_KILLS + 1)) for n in range(HUB_KILLS)]


def play_kills(members: Mapping[str, Member], kills: Sequence[Kill], seconds: float) -> None:
    """Play ``kills`` for ``seconds``."""
    events: list[tuple[float, Callable[[], None]]] = []
    for kill in kills:
        member = members[kill.member]
        events += [(kill.at, member.kill), (kill.at + kill.away, member.start)]
    began, pause = time.monotonic(), threading.Event()
    for at, do in sorted(events, key=lambda event: event[0]):
        pause.wait(max(0.0, began + at - time.monotonic()))
        do()
    pause.wait(max(0.0, began + seconds - time.monotonic()))
