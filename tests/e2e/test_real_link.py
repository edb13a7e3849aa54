"""A stream over a link of ``tc`` between two network namespaces, whose rate follows a trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.namespace_link import namespace_problem
from benchmarks.stream_reality import Summary, simulate
from benchmarks.stream_session import Session, run_in_namespace
from tests.builders.sized_bundle import write_sized_bundle

SIZES = ((64, 64), (48, 48), (32, 32), (16, 16))
TRACE = "time_s,mbps\n0,8\n2,0.8\n4,0\n5.5,8\n9,8\n"


def test_a_stream_adapts_to_a_link_that_changes_and_survives_one_that_stands_still(
    tmp_path: Path, state: Path
) -> None:
    if (problem := namespace_problem()) is not None:
        pytest.skip(problem)
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    write_sized_bundle(tmp_path / "models" / "sized", sizes=SIZES)
    session = Session(
        trace=str(trace),
        scale=1.0,
        seconds=9.0,
        state=str(state),
        model="sized",
        models=str(tmp_path / "models"),
    )
    real = run_in_namespace(session)
    assert [option.size for option in real.options] == list(reversed(SIZES))
    assert len(real.index) == 270
    answered = ~np.isnan(real.latency)
    assert len(set(real.index[answered])) > 1, "one size was sent whatever the link did"
    assert sum(real.dropped.values()) > 0, "frames were answered over a link that stood still"
    assert answered[-60:].any(), "the stream did not go on after the link did"
    played = simulate(session, real, seed=0, in_bursts=True)
    assert len(played) == 270
    assert Summary.of(played.index.astype(int), played.latency, len(SIZES)).missed < 1
