"""Three daemons, a hub and clients, while daemons and hub are killed.

Every 20 s a daemon gets SIGKILL, one after the other, and is started again where it was; so is the
hub, twice. Four clients (`delen.Client("hub://…")`) ask for ten answers a second each. A request is
lost where a client that had sent it got no answer; a refusal says that nothing was accepted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.common import Figure, report
from benchmarks.fleet.crowd import ClientLog, Crowd
from benchmarks.fleet.kills import Kill, plan_kills, play_kills
from benchmarks.fleet.members import Address, make_daemon, make_hub, wait_ready, wait_up

NODES = ("node0", "node1", "node2")
CLIENTS = 4
FPS = 10.0
DEADLINE = 0.5
SECONDS, SHORT = 300.0, 40.0
EVERY = 20.0
"""Seconds from one kill of a daemon to the next."""


def main() -> list[Figure]:
    return _measure(SECONDS)


def main_short() -> list[Figure]:
    return _measure(SHORT)


def _measure(seconds: float) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        kills = plan_kills(NODES, seconds, EVERY)
        logs = play(Path(folder), Path(folder) / "state", seconds, kills)
    return figures(
        logs, f"{CLIENTS} clients, {len(NODES)} daemons and a hub killed over {seconds:g} s"
    )


def play(
    folder: Path, state: Path, seconds: float, kills: Sequence[Kill], deadline: float = DEADLINE
) -> list[ClientLog]:
    """What each client got."""
    with ExitStack() as stack:
        nodes = [make_daemon(name, Address.here(), state, folder) for name in NODES]
        hub = make_hub(Address.here(), nodes, folder)
        for member in (*nodes, hub):
            stack.callback(member.stop)
        nodes[0].start()
        wait_ready(nodes[0])  # it measures the profile that all have
        for member in (*nodes[1:], hub):
            member.start()
        wait_up(hub, nodes)
        crowd = Crowd(hub.address, [lambda: None] * CLIENTS, fps=FPS, deadline=deadline)
        crowd.begin()
        stack.callback(crowd.end)
        members = {member.name: member for member in (*nodes, hub)}
        play_kills(members, kills, seconds)
        crowd.end()
    return crowd.logs


def figures(logs: Sequence[ClientLog], title: str) -> list[Figure]:
    for number, log in enumerate(logs):
        taken = ", ".join(f"{place}: {count}" for place, count in sorted(log.taken.items()))
        print(f"client {number}: {log.calls} calls, {len(log.answered)} answers ({taken})")
        for at, sentence in log.lost:
            print(f"  lost at {at:.1f} s: {sentence}")
        if log.refused:
            print(f"  refused: {dict(log.refused)}")
    latencies = [1e3 * each for log in logs for each in log.latencies]
    refused = sum(sum(log.refused.values()) for log in logs)
    calls = sum(log.calls for log in logs)
    return report(
        title,
        [
            Figure("accepted requests lost", (sum(len(log.lost) for log in logs),), "", 0),
            Figure("answered twice", (sum(log.duplicates for log in logs),), "", 0),
            Figure(
                "longest time without an answer, worst client",
                (max(log.longest_gap for log in logs),),
                "s",
                2.0,
            ),
            Figure("requests refused", (100 * refused / max(1, calls),), "%"),
            Figure("from call to answer, median", (float(np.median(latencies)),), "ms"),
            Figure("from call to answer, p99", (float(np.quantile(latencies, 0.99)),), "ms"),
        ],
    )
