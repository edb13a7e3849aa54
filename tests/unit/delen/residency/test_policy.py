from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.errors import BackendError
from delen.residency.load_times import LoadTimes
from delen.residency.state import Evict, Load, ResidencyState
from delen.residency.use_history import UseHistory

State = ResidencyState[Any]

ACCURACIES = (0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Served:
    """Stands for a model that can answer."""

    accuracies: tuple[float, ...]


def make(cap: int, **models: tuple[int, ...]) -> State:
    state = ResidencyState(cap)
    for name, sizes in models.items():
        state.add(name, sizes).complete(Served(ACCURACIES[: len(sizes)]))
    return state


def settle(state: State, now: float) -> list[Load | Evict]:
    """Do what the state says until it says no more."""
    steps: list[Load | Evict] = []
    while (step := state.next_step(now)) is not None:
        steps.append(step)
        assert state.policy.taken <= state.policy.cap
        if isinstance(step, Load):
            state.loaded(state.slots[step.model], 0.1)
        else:
            assert state.evict(step)
        assert len(steps) < 100, "it goes round in circles"
    return steps


def depths(state: State, *names: str) -> list[int]:
    return [state.slots[name].depth for name in names]


def states(state: State, name: str) -> tuple[str, ...]:
    return tuple(status.state for status in state.segments(state.slots[name]))


def test_what_a_job_needs_is_loaded_in_order() -> None:
    state = make(30, a=(5, 5, 5))
    assert state.slots["a"].acquire(0, 1)
    assert settle(state, 0.0) == [Load("a", 0), Load("a", 1)]


def test_late_segments_leave_first_and_those_of_the_model_that_is_used_least() -> None:
    state = make(20, a=(5, 5, 5), b=(5, 5, 5), c=(5,))
    for now in range(8):
        state.slots["a"].uses.add(float(now), 2)
    state.slots["b"].uses.add(1.0, 2)
    settle(state, 8.0)
    assert depths(state, "a", "b") == [2, 2]
    state.slots["c"].acquire(0, 0)
    assert settle(state, 8.0) == [Evict("b", 1), Load("c", 0)]


def test_a_model_that_is_used_no_more_leaves() -> None:
    state = make(10, a=(5, 5), b=(5, 5))
    for now in range(8):
        state.slots["a"].uses.add(now / 10, 2)
    settle(state, 1.0)
    for now in range(8):
        state.slots["b"].uses.add(1000 + now, 2)
    settle(state, 1008.0)
    assert depths(state, "a", "b") == [0, 2]


def test_what_nobody_waits_for_is_not_loaded_over_what_is_worth_as_much() -> None:
    state = make(15, a=(5, 5, 5), b=(5, 5, 5))
    for now in range(8):
        state.slots["a"].uses.add(float(now), 3)
        state.slots["b"].uses.add(float(now), 3)
    settle(state, 8.0)
    before = depths(state, "a", "b")
    for now in range(8, 40):
        state.slots["ab"[now % 2]].uses.add(float(now), 3)
        assert settle(state, float(now)) == []
    assert depths(state, "a", "b") == before


def test_a_segment_that_jobs_need_is_closed_to_newcomers_and_leaves_after_the_last() -> None:
    state = make(10, a=(5, 5), b=(5,))
    state.slots["a"].acquire(0, 1)
    settle(state, 0.0)
    state.slots["b"].acquire(0, 0)
    assert state.next_step(1.0) is None
    assert states(state, "a") == ("resident", "leaving")
    assert not state.slots["a"].acquire(0, 1)
    assert state.slots["a"].acquire(0, 0)
    assert not state.evict(Evict("a", 1))
    state.slots["a"].release(1)
    assert settle(state, 2.0) == [Evict("a", 1), Load("b", 0)]


def test_what_was_asked_for_first_is_loaded_first() -> None:
    state = make(100, a=(5, 5), b=(5, 5))
    state.slots["b"].acquire(0, 1)
    assert state.next_step(0.0) == Load("b", 0)
    state.slots["a"].acquire(0, 1)
    state.loaded(state.slots["b"], 0.1)
    assert settle(state, 1.0) == [Load("b", 1), Load("a", 0), Load("a", 1)]


def test_what_has_no_room_any_more_takes_none_from_others() -> None:
    state = make(15, a=(5, 5, 5), b=(5, 5))
    a, b = state.slots["a"], state.slots["b"]
    a.acquire(0, 2)
    while a.depth < 2:
        assert state.next_step(0.0) == Load("a", a.depth)
        state.loaded(a, 0.1)
    for segment in range(2):
        a.release(segment)
    b.pin()
    b.acquire(0, 1)
    assert settle(state, 1.0) == [Load("b", 0), Evict("a", 1), Load("b", 1)]


def test_a_kept_segment_never_leaves() -> None:
    state = make(10, a=(5, 5), b=(5, 5))
    state.slots["a"].pin()
    settle(state, 0.0)
    assert state.policy.reach(state.slots["b"]) == 1
    state.slots["b"].acquire(0, 0)
    settle(state, 1000.0)
    assert depths(state, "a", "b") == [1, 1]


def test_what_cannot_be_loaded_is_tried_again_only_when_it_is_told_to() -> None:
    state = make(10, a=(5, 5))
    state.slots["a"].acquire(0, 1)
    assert state.next_step(0.0) == Load("a", 0)
    state.slots["a"].fail(BackendError("no"))
    assert state.next_step(0.0) is None
    assert state.policy.waits(state.slots["a"], 0.0) == (inf, inf)
    state.slots["a"].pin()
    assert settle(state, 0.0) == [Load("a", 0), Load("a", 1)]


def test_nothing_is_left_of_a_model_that_fails_before_it_can_answer() -> None:
    state = State(20)
    slot = state.add("a", (5, 5))
    slot.pin()
    slot.load_all()
    assert state.next_step(0.0) == Load("a", 0)
    assert slot.state == "loading"
    state.loaded(slot, 0.1)
    assert state.next_step(0.0) == Load("a", 1)
    slot.fail(BackendError("no"))
    assert (slot.state, states(state, "a"), state.policy.taken) == ("failed", ("failed",) * 2, 0)
    assert slot.is_idle and state.next_step(0.0) is None


def test_a_model_is_ready_while_its_first_segment_is_in_memory() -> None:
    state = make(10, a=(5, 5), b=(5, 5))
    a, b = state.slots["a"], state.slots["b"]
    assert a.state == "unloaded"
    a.request(0.0)
    assert state.next_step(0.0) == Load("a", 0)
    assert a.state == "loading"
    state.loaded(a, 0.1)
    assert a.state == "ready"
    b.acquire(0, 1)
    settle(state, 1.0)
    assert (a.state, b.state) == ("unloaded", "ready")


def test_waits_count_what_is_loaded_before_and_what_has_no_room() -> None:
    state = make(20, a=(5, 5, 50), b=(5,))
    for name, seconds in (("a", 1.0), ("b", 4.0)):
        state.times.add(name, 0, 5, seconds)
        state.times.add(name, 1, 5, 2.0)
    assert state.policy.waits(state.slots["a"], 0.0) == (1.0, 3.0, inf)
    state.slots["b"].acquire(0, 0)
    assert state.next_step(10.0) == Load("b", 0)
    assert state.policy.waits(state.slots["a"], 11.0) == (4.0, 6.0, inf)
    assert state.policy.waits(state.slots["b"], 13.0) == (1.0,)
    state.loaded(state.slots["b"], 4.0)
    assert state.policy.waits(state.slots["b"], 14.0) is None


def test_load_times_are_those_of_the_segment_or_of_its_bytes() -> None:
    times = LoadTimes()
    assert times.predict("a", 0, 10**6) == pytest.approx(0.02)
    times.add("a", 0, 10**6, 0.1)
    times.add("a", 0, 10**6, 0.2)
    assert times.predict("a", 0, 10**6) == 0.2
    assert times.predict("b", 0, 2 * 10**6) == pytest.approx(0.4)


def test_the_next_use_is_as_far_as_the_last_ones_lie_apart() -> None:
    uses = UseHistory()
    unknown = uses.gap(0.0)
    for now in range(100):
        uses.add(float(now), 2)
    assert 0.8 < uses.gap(99.5) < 1.2
    assert uses.gap(99.5) < uses.gap(110.0) < uses.gap(1000.0)
    assert unknown > uses.gap(100.0)
    assert uses.depth == 2


events = st.lists(
    st.one_of(
        st.tuples(st.just("lease"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("use"), st.integers(0, 2), st.integers(1, 3)),
        st.tuples(st.just("request"), st.integers(0, 2), st.integers(0, 20)),
        st.tuples(st.just("release"), st.integers(0, 99), st.just(0)),
        st.tuples(st.just("pin"), st.integers(0, 2), st.just(0)),
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
    state = make(cap, **dict(zip(names, sizes, strict=True)))
    leases: list[tuple[str, int]] = []
    loading: Load | None = None
    now = 0.0

    def step() -> Load | None:
        order = state.next_step(now)
        if isinstance(order, Evict):
            assert (order.model, order.segment) not in leases
            assert state.evict(order)
            return None
        return order

    for kind, which, number in events:
        name = names[which % 3]
        slot = state.slots[name]
        if kind == "lease" and number < state.policy.reach(slot):
            if slot.acquire(0, number):
                leases += [(name, segment) for segment in range(number + 1)]
        elif kind == "use":
            slot.uses.add(now, number)
        elif kind == "request":
            slot.request(now + number)
        elif kind == "pin" and slot.sizes[0] + state.policy.pinned_beside(slot) <= cap:
            slot.pin()
        elif kind == "release" and leases:
            model, segment = leases.pop(which % len(leases))
            state.slots[model].release(segment)
        elif kind == "pass":
            now += which
        elif loading is not None:
            if kind == "fail":
                state.slots[loading.model].fail(BackendError("no"))
            elif kind == "step":
                state.loaded(state.slots[loading.model], 0.1)
            loading = loading if kind not in ("fail", "step") else None
        else:
            loading = step()
        taken = sum(
            size
            for known, each in zip(names, sizes, strict=True)
            for size in each[: state.slots[known].depth]
        )
        reserved = 0 if loading is None else state.slots[loading.model].sizes[loading.segment]
        assert taken + reserved == state.policy.taken <= cap
    if loading is not None:
        state.loaded(state.slots[loading.model], 0.1)
    for known, segment in leases:
        state.slots[known].release(segment)
    settle(state, now)


def test_kept_models_are_loaded_before_what_is_useful_and_all_begin_before_one_is_whole() -> None:
    state = make(30, a=(5, 5, 5), b=(5, 5), c=(5, 5))
    for now in range(8):
        state.slots["c"].uses.add(float(now), 2)
    state.policy.kept.keep(("b", "a"), 20.0)
    assert [(step.model, step.segment) for step in settle(state, 8.0)] == [
        ("b", 0),
        ("a", 0),
        ("b", 1),
        ("a", 1),
        ("a", 2),
        ("c", 0),
    ]


def test_kept_models_have_others_leave_but_neither_each_other_nor_a_pinned_one() -> None:
    state = make(20, a=(5, 5), b=(5, 5), c=(5, 5), d=(5, 5))
    state.slots["d"].pin()
    state.slots["c"].acquire(0, 1)
    settle(state, 0.0)
    state.slots["c"].release(0)
    state.slots["c"].release(1)
    state.policy.kept.keep(("a", "b"), 20.0)
    settle(state, 1.0)
    assert depths(state, "a", "b", "c", "d") == [2, 1, 0, 1]
    assert not state.policy.has_room_to_grow(state.slots["b"], 1.0)


def test_a_kept_model_leaves_for_a_job_after_all_others_and_comes_back() -> None:
    state = make(20, a=(5, 5), b=(5, 5), c=(5, 5))
    state.slots["c"].pin()
    state.policy.kept.keep(("a",), 20.0)
    for now in range(8):
        state.slots["c"].uses.add(float(now), 2)
    settle(state, 8.0)
    assert depths(state, "a", "b", "c") == [2, 0, 2]
    state.slots["b"].acquire(0, 0)
    settle(state, 8.0)
    assert depths(state, "a", "b", "c") == [2, 1, 1]
    state.slots["b"].acquire(0, 1)
    settle(state, 8.5)
    assert depths(state, "a", "b", "c") == [1, 2, 1]
    state.slots["b"].release(0)
    state.slots["b"].release(0)
    state.slots["b"].release(1)
    settle(state, 9.0)
    assert depths(state, "a", "b", "c") == [2, 0, 2]


def test_models_are_kept_no_longer_than_was_said() -> None:
    state = make(10, a=(5, 5), b=(5, 5))
    state.policy.kept.keep(("a",), 20.0)
    settle(state, 0.0)
    for now in range(8):
        state.slots["b"].uses.add(12.0 + now, 2)
    settle(state, 19.9)
    assert depths(state, "a", "b") == [2, 0]
    settle(state, 20.0)
    assert depths(state, "a", "b") == [0, 2]
