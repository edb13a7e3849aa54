from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from benchmarks.blocks import Bench
from benchmarks.plant import Sensor
from delen.errors import ConfigError, ProfileError
from power.metering.blocks import Block, BlockPlan, BlockRunner, Chain, margin
from power.sources.sampler import SourceState
from power.sources.series import Samples

CHAINS = [Chain(1, 0), Chain(1, 1), Chain(4, 1)]
SHORT = BlockPlan(seconds=2.0)


def runner(bench: Bench, steady: Callable[[], str] = lambda: "15W") -> BlockRunner:
    return BlockRunner(bench.work, bench, steady, bench.clock, bench.wait)


@pytest.fixture
def bench() -> Bench:
    return Bench(Sensor(), seed=0)


def test_each_round_has_every_chain_once_in_an_order_of_its_own(bench: Bench) -> None:
    blocks = runner(bench).run(CHAINS, SHORT)
    rounds = [[b.chain for b in blocks if b.round == number] for number in range(5)]
    assert all(Counter(chains) == Counter(CHAINS) for chains in rounds)
    assert len({tuple(chains) for chains in rounds}) > 1


def test_the_order_is_that_of_the_seed() -> None:
    def order(seed: int) -> list[Chain]:
        blocks = runner(Bench(Sensor(), 0)).run(CHAINS, replace(SHORT, seed=seed))
        return [block.chain for block in blocks]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_blocks_last_as_asked_with_idle_between(bench: Bench) -> None:
    plan = BlockPlan(seconds=6.0)
    blocks = runner(bench).run(CHAINS[:1], plan)
    for block in blocks:
        assert block.began - block.idle_from == pytest.approx(plan.idle)
        assert 6.0 <= block.ended - block.began < 6.1
        assert block.idle_to - block.ended == pytest.approx(plan.idle)
    for one, next_one in pairwise(blocks):
        assert next_one.idle_from == one.ended


def test_samples_reach_over_both_idles(bench: Bench) -> None:
    unused = margin(bench.interval)
    for block in runner(bench).run(CHAINS[:1], SHORT):
        assert block.samples.times[0] <= block.idle_from + unused
        assert block.samples.times[-1] >= block.idle_to - unused


def test_runs_are_counted_in_parts() -> None:
    nothing = Samples(np.empty(0), np.empty(0))
    block = Block(0, Chain(1, 0), 0.0, 10.0, 14.0, 20.0, np.array([11.0, 12.0, 14.0]), nothing)
    assert block.runs(10.0, 14.0) == 3
    assert block.runs(10.5, 13.0) == pytest.approx(2.0)


def test_a_slow_run_ends_its_block(bench: Bench) -> None:
    def work(chain: Chain) -> None:
        bench.work(chain)
        bench.now += 7.0

    slow = BlockRunner(work, bench, lambda: "15W", bench.clock, bench.wait)
    assert all(len(block.ends) == 1 for block in slow.run(CHAINS[:1], SHORT))


def test_progress_tells_the_time_left(bench: Bench) -> None:
    told: list[tuple[int, int, str]] = []
    runner(bench).run(CHAINS, BlockPlan(), lambda *step: told.append(step))
    assert [done for done, _, _ in told] == list(range(16))
    assert {total for _, total, _ in told} == {15}
    assert told[0][2].endswith(", 3:45 min left")
    assert told[14][2].endswith(", 0:15 min left")
    assert told[0][2].startswith(str(runner(Bench(Sensor(), 0)).run(CHAINS, SHORT)[0].chain))


@pytest.mark.parametrize("changes_at", [1, 2, 7])
def test_a_change_of_mode_refuses_the_profile(bench: Bench, changes_at: int) -> None:
    seen: list[int] = []

    def steady() -> str:
        seen.append(0)
        return "2-15W" if len(seen) <= changes_at else "0-MAXN"

    with pytest.raises(ProfileError, match="2-15W became 0-MAXN") as caught:
        runner(bench, steady).run(CHAINS, SHORT)
    assert "was measured" in str(caught.value)


class Gappy(Bench):
    """The sensor misses readings in the windows that are numbered in ``gaps``."""

    def __init__(self, *gaps: int) -> None:
        super().__init__(Sensor(), seed=0)
        self.gaps = gaps
        self.asked = 0

    def window(self, began: float, ended: float) -> Samples | None:
        self.asked += 1
        return None if self.asked in self.gaps else super().window(began, ended)


def test_a_block_with_missing_readings_is_run_again() -> None:
    bench = Gappy(2, 3, 7)
    blocks = runner(bench).run(CHAINS, SHORT)
    assert bench.asked == 15 + 3
    assert len(blocks) == 15
    assert all(block.began - block.idle_from == pytest.approx(SHORT.idle) for block in blocks)
    assert all(len(block.samples) for block in blocks)


def test_readings_that_stay_missing_refuse_the_profile() -> None:
    bench = Gappy(4, 5, 6)
    with pytest.raises(
        ProfileError,
        match=r"failed 3 times while exit \d at batch \d was measured: there were gaps",
    ):
        runner(bench).run(CHAINS, SHORT)
    bench = Gappy(4, 5, 6)
    bench.state_now = SourceState("ok", 0.0, "the rail VDD_IN vanished", None, 3)
    with pytest.raises(ProfileError, match="the rail VDD_IN vanished"):
        runner(bench).run(CHAINS, SHORT)


def test_a_source_without_readings_is_not_waited_for_long(bench: Bench) -> None:
    bench.state_now = SourceState("degraded", 0.0, "no reading yet", None, 0)
    with pytest.raises(ProfileError, match="gives no readings: no reading yet"):
        runner(bench).run(CHAINS, SHORT)
    assert bench.now < 6.0


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"rounds": 4}, "4 blocks of each are too few; 5 are needed"),
        ({"seconds": 1.9}, "blocks of 1.9 s"),
        ({"seconds": float("nan")}, "blocks of nan s"),
        ({"seconds": 4000.0}, "an hour"),
        ({"spread": 0.0}, "a spread of 0 cannot"),
        ({"spread": 0.6}, "at most 0.5"),
    ],
)
def test_plans_that_show_nothing_are_refused(how: dict[str, float], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        BlockPlan(**how)  # type: ignore[arg-type]
