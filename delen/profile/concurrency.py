"""How many batches run at once: what the configuration says, and what measurements advise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ON_ACCELERATOR = 2
"""Lanes there if the number is left to delen: one computes while another's batch is prepared."""

_AS_GOOD = 0.95
"""More instances are worth having if fewer do less than this part of the work."""


def lanes_of(instances: int, threads: int, cores: int, is_accelerator: bool) -> int:
    """The lanes for ``device.instances`` of ``threads`` each; 0 stands for as many as there are
    cores for, with one core left to HTTP."""
    if instances:
        return instances
    return ON_ACCELERATOR if is_accelerator else max(1, (cores - 1) // threads)


class Measured(NamedTuple):
    """So many ``instances`` with ``threads`` each, all of them busy with batches of ``batch``:
    samples a second of all, and the median and p95 of the whole network's time in seconds."""

    instances: int
    threads: int
    batch: int
    rate: float
    p50: float
    p95: float


class Advice(NamedTuple):
    """What does the most work, and what answers one request soonest."""

    throughput: Measured
    latency: Measured


def advise(rows: Sequence[Measured]) -> Advice:
    """The fewest instances that do about as much as any, and the threads with the least p95 of one
    instance at batch size 1: a request alone has no use for more."""
    best = max(row.rate for row in rows)
    enough = [row for row in rows if row.rate >= _AS_GOOD * best]
    throughput = min(enough, key=lambda row: (row.instances, -row.rate))
    alone = [row for row in rows if row.instances == 1 and row.batch == 1]
    latency = min(alone, key=lambda row: (row.p95, row.threads))
    return Advice(throughput, latency)


def splits(cores: int) -> list[tuple[int, int]]:
    """Instances and threads of each that are worth trying: one with 1, 2, 4, ... threads, and as
    many instances as then have cores."""
    threads = [1 << power for power in range((cores).bit_length()) if 1 << power <= cores]
    if threads[-1] != cores:
        threads.append(cores)
    tried = [(1, count) for count in threads]
    return tried + [(cores // count, count) for count in threads if cores // count > 1]
