from __future__ import annotations

import pytest

from delen.profile.concurrency import Measured, advise, lanes_of, splits


@pytest.mark.parametrize(
    ("instances", "threads", "cores", "is_accelerator", "lanes"),
    [
        (1, 1, 16, False, 1),
        (3, 8, 2, False, 3),
        (0, 1, 2, False, 1),
        (0, 1, 4, False, 3),
        (0, 4, 16, False, 3),
        (0, 15, 16, False, 1),
        (0, 64, 2, False, 1),
        (0, 15, 16, True, 2),
    ],
)
def test_lanes_are_what_is_said_or_what_there_are_cores_for(
    instances: int, threads: int, cores: int, is_accelerator: bool, lanes: int
) -> None:
    assert lanes_of(instances, threads, cores, is_accelerator) == lanes


def test_every_split_uses_the_cores_or_one_instance() -> None:
    assert splits(1) == [(1, 1)]
    assert splits(2) == [(1, 1), (1, 2), (2, 1)]
    assert splits(6) == [(1, 1), (1, 2), (1, 4), (1, 6), (6, 1), (3, 2)]


def row(instances: int, threads: int, batch: int, rate: float, p95: float) -> Measured:
    return Measured(instances, threads, batch, rate, p95, p95)


def test_more_instances_are_advised_where_they_do_more() -> None:
    rows = [
        row(1, 1, 1, 100.0, 0.010),
        row(1, 2, 1, 140.0, 0.007),
        row(2, 1, 1, 180.0, 0.006),
        row(1, 2, 8, 170.0, 0.050),
        row(2, 1, 8, 200.0, 0.090),
    ]
    advice = advise(rows)
    assert advice.throughput == rows[4]
    assert advice.latency == rows[1]


def test_fewer_instances_are_advised_where_they_do_about_as_much() -> None:
    rows = [row(1, 2, 1, 197.0, 0.007), row(2, 1, 1, 200.0, 0.011)]
    assert advise(rows).throughput == rows[0]
