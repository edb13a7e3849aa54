"""Wrong inputs to every parser: each is read, or refused with an error of delen's own."""

from __future__ import annotations

import resource

import pytest

from benchmarks.fuzz import MOST_MEMORY_MB, cases, parsers, problem

INPUTS = 20_000


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def test_what_the_inputs_are_made_of_is_read() -> None:
    for name, parser in parsers().items():
        for seed in parser.seeds:
            assert problem(parser, seed) is None, name


@pytest.mark.filterwarnings("ignore")
def test_wrong_inputs_are_refused_and_take_no_memory() -> None:
    before = peak_mb()
    for name, parser, body in cases(INPUTS, seed=1):
        found = problem(parser, body)
        assert found is None, f"{name}: {found}: {body[:300]!r}"
    assert peak_mb() - before < MOST_MEMORY_MB
