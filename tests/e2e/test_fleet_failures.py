"""Clients of a real hub and three daemons, some of which fail: eight behind links of ``tc``, or
four over loopback where namespaces are not allowed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.fleet import daemons
from benchmarks.fleet.crowd import ClientLog
from benchmarks.fleet.kills import Kill
from benchmarks.fleet.namespaces import Played, run_in_namespaces
from benchmarks.namespace_link import namespace_problem

TRACE = "time_s,mbps\n0,8\n4,0.8\n8,4\n39,0\n42,4\n60,4\n"
APART = 5.5
"""So that the link of the last client alone stands still, from 0.5 s on for 3 s."""
KILLS = (Kill("node0", 2.0), Kill("hub", 4.0), Kill("node1", 7.0))
SECONDS = 12.0
PATIENT = 5.0
"""No node is given up only because this machine is busy."""


pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")


def test_clients_are_answered_while_daemons_links_and_the_hub_fail(
    tmp_path: Path, state: Path
) -> None:
    if (problem := namespace_problem()) is not None:
        pytest.skip(problem)
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    site = Played(SECONDS, str(state), str(trace), apart=APART, deadline=PATIENT, kills=KILLS)
    logs = run_in_namespaces(site)
    assert len(logs) == 8
    *others, cut_off = logs
    check(others)
    assert cut_off.answered[-1] > KILLS[-1].at, "its link carries again, and it does not go on"


def test_clients_are_answered_while_daemons_and_the_hub_fail(tmp_path: Path, state: Path) -> None:
    if namespace_problem() is None:
        pytest.skip("the same is played in namespaces")
    check(daemons.play(tmp_path, state, SECONDS, KILLS, PATIENT))


def check(logs: Sequence[ClientLog]) -> None:
    """Each got one answer to every call, also without the hub's word."""
    for log in logs:
        assert not log.lost
        assert not log.duplicates
        assert log.answered[-1] > KILLS[-1].at
        assert {place.split()[0] for place in log.taken} >= {"hub", "kept"}, log.taken
    assert len({place.split()[1] for log in logs for place in log.taken}) > 1, "of one node alone"
