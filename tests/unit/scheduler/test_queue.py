from __future__ import annotations

from collections.abc import Callable
from itertools import count
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.costs import Costs
from delen.scheduler.queue import Scheduler, WaitingJob

MakeCosts = Callable[..., Costs]
LIMITS = {"a": 8, "b": 8}


@pytest.fixture(scope="module")
def costs(make_costs: MakeCosts) -> dict[str, Costs]:
    """Three segments of 10 ms each; a batch of n takes (1 + n) / 2 times as long."""
    return {name: make_costs(0.01, 0.01, 0.01, growth=0.5) for name in ("a", "b")}


def job(
    id: int,
    *,
    model: str = "a",
    segment: int = 0,
    last: int = 2,
    priority: int = 5,
    deadline: float = inf,
    arrived: float = 0.0,
) -> WaitingJob:
    return WaitingJob(id, model, segment, last, priority, deadline, arrived)


def filled(*jobs: WaitingJob) -> Scheduler:
    scheduler = Scheduler()
    for one in jobs:
        scheduler.add(one)
    return scheduler


def batches(
    scheduler: Scheduler,
    costs: dict[str, Costs],
    now: float = 0.0,
    limits: dict[str, int] | None = None,
) -> list[tuple[int, ...]]:
    """All batches until the queue is empty, time standing still."""
    found = []
    while (batch := scheduler.next(now, costs, limits or LIMITS)) is not None:
        found.append(batch.jobs)
    return found


ALONE = {"a": 1, "b": 1}


def test_nothing_waits_in_an_empty_queue(costs: dict[str, Costs]) -> None:
    scheduler = Scheduler()
    assert scheduler.next(0.0, costs, LIMITS) is None
    assert len(scheduler) == 0
    assert scheduler.backlog(costs, 9) == 0


def test_priority_then_deadline_then_arrival(costs: dict[str, Costs]) -> None:
    scheduler = filled(
        job(1, arrived=1.0),
        job(2, arrived=0.5),
        job(3, deadline=9.0, arrived=2.0),
        job(4, deadline=8.0, arrived=3.0),
        job(5, priority=1, arrived=4.0),
        job(6, priority=9, deadline=0.1),
    )
    assert batches(scheduler, costs, limits=ALONE) == [(5,), (4,), (3,), (2,), (1,), (6,)]


def test_a_batch_is_of_one_segment_of_one_model(costs: dict[str, Costs]) -> None:
    scheduler = filled(
        job(1), job(2, model="b"), job(3), job(4, segment=1), job(5, model="b"), job(6, segment=1)
    )
    first = scheduler.next(0.0, costs, LIMITS)
    assert first is not None
    assert (first.model, first.segment, first.jobs) == ("a", 0, (1, 3))
    assert batches(scheduler, costs) == [(2, 5), (4, 6)]


def test_jobs_join_in_rank_order_up_to_the_largest_batch(costs: dict[str, Costs]) -> None:
    jobs = [job(id, arrived=-id) for id in range(1, 6)]
    assert batches(filled(*jobs), costs, limits={"a": 2}) == [(5, 4), (3, 2), (1,)]


def test_jobs_of_any_priority_fill_a_batch(costs: dict[str, Costs]) -> None:
    assert batches(filled(job(1, priority=9), job(2, priority=1)), costs) == [(2, 1)]


def test_a_batch_stops_growing_where_its_lead_would_be_late(costs: dict[str, Costs]) -> None:
    # Alone 30 ms, two together 45 ms, three 60 ms.
    jobs = [job(1, deadline=0.050), job(2), job(3)]
    assert batches(filled(*jobs), costs) == [(1, 2), (3,)]
    assert batches(filled(job(1, deadline=0.044), job(2)), costs) == [(1,), (2,)]


def test_a_batch_stops_growing_where_one_who_joins_would_be_late(costs: dict[str, Costs]) -> None:
    jobs = [job(1, priority=1), job(2, deadline=0.050), job(3)]
    assert batches(filled(*jobs), costs) == [(1, 2), (3,)]


def test_a_job_that_is_late_anyway_holds_no_batch_back(costs: dict[str, Costs]) -> None:
    jobs = [job(1, deadline=0.010), job(2), job(3)]
    assert batches(filled(*jobs), costs) == [(1, 2, 3)]


def test_only_the_segments_still_to_run_count(costs: dict[str, Costs]) -> None:
    jobs = [job(1, last=0, deadline=0.016), job(2, last=0)]  # 15 ms for two
    assert batches(filled(*jobs), costs) == [(1, 2)]


jobs_of_two_models = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(0, 2),
        st.integers(1, 9),
        st.sampled_from([inf, 0.005, 0.02, 0.04, 0.08, 0.5]),
        st.floats(0, 1),
    ),
    max_size=25,
)


@given(jobs_of_two_models, st.integers(1, 8), st.floats(0, 0.1))
def test_every_job_runs_once_and_no_batch_puts_a_deadline_at_risk(
    make_costs: MakeCosts,
    drawn: list[tuple[str, int, int, float, float]],
    limit: int,
    now: float,
) -> None:
    costs = {name: make_costs(0.01, 0.01, 0.01, growth=0.5) for name in ("a", "b")}
    ids = count(1)
    jobs = {
        id: job(
            id, model=model, segment=segment, priority=priority, deadline=deadline, arrived=arrived
        )
        for id, (model, segment, priority, deadline, arrived) in zip(ids, drawn, strict=False)
    }
    scheduler = filled(*jobs.values())
    waiting = dict(jobs)
    while (batch := scheduler.next(now, costs, {"a": limit, "b": limit})) is not None:
        members = [waiting.pop(id) for id in batch.jobs]
        assert len(members) <= limit
        assert {(m.model, m.segment) for m in members} == {(batch.model, batch.segment)}
        assert all(members[0].rank <= other.rank for other in (*members, *waiting.values()))
        for member in members:
            alone = now + costs["a"].latency(member.segment, member.last, 1)
            together = now + costs["a"].latency(member.segment, member.last, len(members))
            assert together <= member.deadline or alone > member.deadline
    assert not waiting


def test_a_cancelled_job_is_forgotten(costs: dict[str, Costs]) -> None:
    scheduler = filled(job(1), job(2))
    assert 1 in scheduler
    scheduler.remove(1)
    assert 1 not in scheduler
    assert len(scheduler) == 1
    assert batches(scheduler, costs) == [(2,)]


def test_the_backlog_is_what_goes_before(costs: dict[str, Costs]) -> None:
    scheduler = filled(job(1, priority=1), job(2, segment=2), job(3, priority=9, last=1))
    assert scheduler.backlog(costs, 1) == pytest.approx(0.03)
    assert scheduler.backlog(costs, 5) == pytest.approx(0.04)
    assert scheduler.backlog(costs, 9) == pytest.approx(0.06)
