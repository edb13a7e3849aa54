from __future__ import annotations

from dataclasses import replace

import pytest

from policies.fleet.api import LinkState
from policies.fleet.paths import (
    AllAt,
    DelayRule,
    ExitTable,
    PathNetwork,
    PathNode,
    PathPolicy,
    Paths,
    QueueRule,
)

# Half of all samples are confident at exit 0 of 0.5, and right to 0.95; nobody ever is of 2.
TABLES = (
    ExitTable(0.5, (1.0, 0.5, 0.5), (0.6, 0.7, 0.78)),
    ExitTable(2.0, (1.0, 1.0, 1.0), (0.6, 0.72, 0.8)),
)
NETWORK = PathNetwork(20e3, (100e3, 5e3), TABLES)
BOARD = PathNode("board", (0.01, 0.01, 0.02), (0.05, 0.05, 0.1), per_byte=1e-6)
MACHINE = PathNode("machine", (0.001, 0.001, 0.002), (0.0, 0.0, 0.0))
FAST, SLOW, CUT = LinkState(2e6, 1e-3), LinkState(0.2e6, 1e-3), LinkState(0.0)


def _choose(
    policy: PathPolicy, link: LinkState, fps: float = 10, deadline: float = 0.05, **more: float
):  # type: ignore[no-untyped-def]
    board = replace(BOARD, **more)
    return policy.choose(NETWORK, (board, MACHINE), ((link, link), (link, link)), fps, deadline)


def test_a_fast_link_leads_to_the_machine_and_a_cut_one_stays_on_the_board() -> None:
    away = _choose(Paths(), FAST)
    assert away.path == (1, 1, 1)
    home = _choose(Paths(), CUT)
    assert home.path == (0, 0, 0)


def test_what_goes_on_elsewhere_is_the_smaller_of_features_and_input() -> None:
    # 5 kB of features after exit 1 take 26 ms on the slow link; the input would take 101
    choice = _choose(Paths(), SLOW, deadline=0.055, seconds=(0.01, 0.01, 0.06))
    assert choice.path == (0, 0, 1)


def test_a_deadline_cuts_the_path_where_nothing_deeper_is_in_time() -> None:
    assert _choose(Paths(), CUT, deadline=0.025).path == (0, 0)
    assert _choose(Paths(), CUT, deadline=0.005).path == ()


def test_thresholds_make_room_where_every_frame_at_full_depth_is_too_much() -> None:
    calm, busy = _choose(Paths(), CUT, fps=10), _choose(Paths(), CUT, fps=35)
    assert calm.threshold == 2.0
    assert busy.threshold == 0.5
    assert busy.reward > calm.reward * 25 / 35


def test_equal_rewards_are_decided_by_joules() -> None:
    free = replace(BOARD, joules=(0.0, 0.0, 0.0))
    choice = Paths().choose(NETWORK, (free, MACHINE), ((FAST, FAST), (FAST, FAST)), 10, 0.1)
    assert choice.path == (0, 0, 0)  # sending costs 20 mJ
    assert _choose(Paths(), FAST, deadline=0.1).path == (1, 1, 1)


def test_more_than_can_be_enumerated_is_refused() -> None:
    with pytest.raises(ValueError, match="3 nodes"):
        Paths().choose(NETWORK, (BOARD,) * 4, ((FAST,) * 4,) * 4, 10, 0.1)


def test_the_baselines_follow_their_rules() -> None:
    assert _choose(AllAt(0, 2.0), FAST).path == (0, 0, 0)
    assert _choose(AllAt(1, 2.0), FAST).path == (1, 1, 1)
    assert _choose(QueueRule(), FAST).path == (1, 1, 1)
    assert _choose(QueueRule(), CUT).path == (0, 0, 0)
    assert _choose(QueueRule(), CUT, backlog=0.0).threshold == 2.0
    assert _choose(QueueRule(), CUT, backlog=0.05).threshold == 0.5
    delays = DelayRule()
    paths = [_choose(delays, FAST, fps=20, deadline=0.1).path for _ in range(20)]
    assert (0, 1, 1) in paths
    assert all(_choose(DelayRule(), CUT).path[0] == 0 for _ in range(3))
