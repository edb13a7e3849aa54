from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from delen.scheduler.lazy_heap import LazyHeap

Steps = list[tuple[int, float | None]]


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.none() | st.floats(allow_nan=False)),
        max_size=200,
    )
)
def test_it_finds_the_least_value_of_those_that_are_there(steps: Steps) -> None:
    heap, known = LazyHeap(), dict[int, float]()
    for id, value in steps:
        if value is None:
            heap.discard(id)
            known.pop(id, None)
        else:
            heap.add(id, value)
            known[id] = value
        expected = min(((value, id) for id, value in known.items()), default=(inf, -1))
        assert heap.first() == expected
        assert len(heap) == len(known)


def test_what_left_takes_no_memory_for_long() -> None:
    heap = LazyHeap()
    heap.add(-1, 0.0)
    for id in range(10_000):
        heap.add(id, 1.0)
        heap.discard(id)
    assert len(heap._heap) < 200
