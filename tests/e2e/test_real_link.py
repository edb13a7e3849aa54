"""A stream over a link of ``tc`` between two network namespaces, whose rate follows a trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.namespace_link import namespace_problem
from benchmarks.stream_reality import Summary, simulate
from benchmarks.stream_session import Session, run_in_namespace

TRACE = "time_s,mbps\n0,4\n2,0.5\n4,0\n5.5,4\n9,4\n"


def test_a_stream_adapts_to_a_link_that_changes_and_survives_one_that_stands_still(
    tmp_path: Path, state: Path
) -> None:
    if (problem := namespace_problem()) is not None:
        pytest.skip(problem)
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    session = Session(trace=str(trace), scale=1.0, seconds=9.0, state=str(state))
    real = run_in_namespace(session)
    assert len(real.options) > 1
    assert len(real.index) == 270
    answered = ~np.isnan(real.latency)
    assert len(set(real.index[answered])) > 1, "one size was sent whatever the link did"
    assert sum(real.dropped.values()) > 0, "frames were answered over a link that stood still"
    assert answered[-60:].any(), "the stream did not go on after the link did"
    played = simulate(session, real, seed=0, in_bursts=True)
    assert len(played) == 270
    assert Summary.of(played.index.astype(int), played.latency, len(real.options)).missed < 1
