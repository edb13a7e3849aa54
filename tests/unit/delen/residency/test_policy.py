from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.residency.load_times import LoadTimes
from delen.residency.policy import Evict, Load, Residency
from delen.residency.usage import Uses

ACCURACIES = (0.7, 0.8, 0.9)


def make(cap: int, **models: tuple[int, ...]) -> Residency:
    residency = Residency(cap)
    for name, sizes in models.items():
        residency.add(name, sizes)
        residency.weigh(name, ACCURACIES[: len(sizes)])
    return residency


def settle(residency: Residency, now: float) -> list[Load | Evict]:
    """Do what the residency says until it says no more."""
    steps: list[Load | Evict] = []
    while (step := residency.next(now)) is not None:
        steps.append(step)
        assert residency.taken <= residency.cap
        if isinstance(step, Load):
            residency.loaded(step.model, 0.1)
        else:
            assert residency.evict(step)
        assert len(steps) < 100, "it goes round in circles"
    return steps


def depths(residency: Residency, *names: str) -> list[int]:
    return [residency.depth(name) for name in names]


def test_what_a_job_needs_is_loaded_in_order() -> None:
    residency = make(30, a=(5, 5, 5))
    assert residency.hold("a", 0, 1)
    assert settle(residency, 0.0) == [Load("a", 0), Load("a", 1)]


def test_late_segments_leave_first_and_those_of_the_model_that_is_used_least() -> None:
    residency = make(20, a=(5, 5, 5), b=(5, 5, 5), c=(5,))
    for now in range(8):
        residency.use("a", float(now), 2)
    residency.use("b", 1.0, 2)
    settle(residency, 8.0)
    assert depths(residency, "a", "b") == [2, 2]
    residency.hold("c", 0, 0)
    assert settle(residency, 8.0) == [Evict("b", 1), Load("c", 0)]


def test_a_model_that_is_used_no_more_leaves() -> None:
    residency = make(10, a=(5, 5), b=(5, 5))
    for now in range(8):
        residency.use("a", now / 10, 2)
    settle(residency, 1.0)
    for now in range(8):
        residency.use("b", 1000 + now, 2)
    settle(residency, 1008.0)
    assert depths(residency, "a", "b") == [0, 2]


def test_what_nobody_waits_for_is_not_loaded_over_what_is_worth_as_much() -> None:
    residency = make(15, a=(5, 5, 5), b=(5, 5, 5))
    for now in range(8):
        residency.use("a", float(now), 3)
        residency.use("b", float(now), 3)
    settle(residency, 8.0)
    before = depths(residency, "a", "b")
    for now in range(8, 40):
        residency.use("ab"[now % 2], float(now), 3)
        assert settle(residency, float(now)) == []
    assert depths(residency, "a", "b") == before


def test_a_segment_that_jobs_need_is_closed_to_newcomers_and_leaves_after_the_last() -> None:
    residency = make(10, a=(5, 5), b=(5,))
    residency.hold("a", 0, 1)
    settle(residency, 0.0)
    residency.hold("b", 0, 0)
    assert residency.next(1.0) is None
    assert residency.states("a") == ("resident", "leaving")
    assert not residency.hold("a", 0, 1)
    assert residency.hold("a", 0, 0)
    assert not residency.evict(Evict("a", 1))
    residency.release("a", 1)
    assert settle(residency, 2.0) == [Evict("a", 1), Load("b", 0)]


def test_what_was_asked_for_first_is_loaded_first() -> None:
    residency = make(100, a=(5, 5), b=(5, 5))
    residency.hold("b", 0, 1)
    assert residency.next(0.0) == Load("b", 0)
    residency.hold("a", 0, 1)
    residency.loaded("b", 0.1)
    assert settle(residency, 1.0) == [Load("b", 1), Load("a", 0), Load("a", 1)]


def test_a_kept_segment_never_leaves() -> None:
    residency = make(10, a=(5, 5), b=(5, 5))
    residency.keep("a")
    settle(residency, 0.0)
    assert residency.reach("b") == 1
    residency.hold("b", 0, 0)
    settle(residency, 1000.0)
    assert depths(residency, "a", "b") == [1, 1]


def test_what_cannot_be_loaded_is_tried_again_only_when_it_is_told_to() -> None:
    residency = make(10, a=(5, 5))
    residency.hold("a", 0, 1)
    assert residency.next(0.0) == Load("a", 0)
    residency.failed("a")
    assert residency.next(0.0) is None
    assert residency.waits("a", 0.0) == (inf, inf)
    residency.keep("a")
    assert settle(residency, 0.0) == [Load("a", 0), Load("a", 1)]


def test_waits_count_what_is_loaded_before_and_what_has_no_room() -> None:
    residency = make(20, a=(5, 5, 50), b=(5,))
    for name, seconds in (("a", 1.0), ("b", 4.0)):
        residency.times.add(name, 0, 5, seconds)
        residency.times.add(name, 1, 5, 2.0)
    assert residency.waits("a", 0.0) == (1.0, 3.0, inf)
    residency.hold("b", 0, 0)
    assert residency.next(10.0) == Load("b", 0)
    assert residency.waits("a", 11.0) == (4.0, 6.0, inf)
    assert residency.waits("b", 13.0) == (1.0,)
    residency.loaded("b", 4.0)
    assert residency.waits("b", 14.0) is None


def test_load_times_are_those_of_the_segment_or_of_its_bytes() -> None:
    times = LoadTimes()
    assert times.predict("a", 0, 10**6) == pytest.approx(0.02)
    times.add("a", 0, 10**6, 0.1)
    times.add("a", 0, 10**6, 0.2)
    assert times.predict("a", 0, 10**6) == 0.2
    assert times.predict("b", 0, 2 * 10**6) == pytest.approx(0.4)


def test_the_next_use_is_as_far_as_the_last_ones_lie_apart() -> None:
    uses = Uses()
    unknown = uses.gap(0.0)
    for now in range(100):
        uses.add(float(now), 2)
    assert 0.8 < uses.gap(99.5) < 1.2
    assert uses.gap(99.5) < uses.gap(110.0) < uses.gap(1000.0)
    assert unknown > uses.gap(100.0)
    assert uses.depth == 2


events = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("use"), st.integers(0, 2), st.integers(1, 3)),
        st.tuples(st.just("call"), st.integers(0, 2), st.integers(0, 20)),
        st.tuples(st.just("release"), st.integers(0, 99), st.just(0)),
        st.tuples(st.just("keep"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("fail"), st.just(0), st.just(0)),
        st.tuples(st.just("step"), st.just(0), st.just(0)),
        st.tuples(st.just("pass"), st.integers(1, 100), st.just(0)),
    ),
    max_size=60,
)


@given(
    st.integers(4, 30),
    st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=3, max_size=3),
    events,
)
def test_the_cap_is_never_passed_and_nothing_that_is_needed_leaves(
    cap: int, sizes: list[tuple[int, int, int]], events: list[tuple[str, int, int]]
) -> None:
    names = ("a", "b", "c")
    residency = make(cap, **dict(zip(names, sizes, strict=True)))
    held: list[tuple[str, int]] = []
    loading: Load | None = None
    now = 0.0

    def step() -> Load | None:
        order = residency.next(now)
        if isinstance(order, Evict):
            assert (order.model, order.segment) not in held
            assert residency.evict(order)
            return None
        return order

    for kind, which, number in events:
        name = names[which % 3]
        if kind == "hold" and number < residency.reach(name):
            if residency.hold(name, 0, number):
                held += [(name, segment) for segment in range(number + 1)]
        elif kind == "use":
            residency.use(name, now, number)
        elif kind == "call":
            residency.call(name, now + number)
        elif kind == "keep" and sizes[which % 3][0] + residency.kept_beside(name) <= cap:
            residency.keep(name)
        elif kind == "release" and held:
            residency.release(*held.pop(which % len(held)))
        elif kind == "pass":
            now += which
        elif loading is not None:
            if kind == "fail":
                residency.failed(loading.model)
            elif kind == "step":
                residency.loaded(loading.model, 0.1)
            loading = loading if kind not in ("fail", "step") else None
        else:
            loading = step()
        taken = sum(
            size
            for known, each in zip(names, sizes, strict=True)
            for size in each[: residency.depth(known)]
        )
        reserved = 0 if loading is None else residency.size(loading.model, loading.segment)
        assert taken + reserved == residency.taken <= cap
    if loading is not None:
        residency.loaded(loading.model, 0.1)
    for known, segment in held:
        residency.release(known, segment)
    settle(residency, now)
