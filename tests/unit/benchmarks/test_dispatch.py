"""The grid of dispatch policies: its cells and its claims."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.dispatch import Grid, play_grid
from benchmarks.dispatch_cells import DEFAULT, NANO_NAME, Cell, Size, model_of, spread_out, trace_of
from benchmarks.dispatch_report import behind, by_cell, cells_table, claims, interval
from delen.simulate.trace import Trace

CELL = Cell(NANO_NAME, "poisson", 3, 0.9)
SIZE = Size(40, 1.0)


def _line(cell: Cell, seed: int, ours: float, theirs: float, broken: float = 0.0) -> dict:
    figures = {DEFAULT: ours, "fifo": theirs}
    return {
        **cell._asdict(),
        "seed": seed,
        "bound": 1.0,
        "deep": 0.98,
        "alone": 0.97,
        "policies": {
            name: {"effective": value, "violations": broken} for name, value in figures.items()
        },
    }


def test_the_interval_leaves_out_what_order_statistics_allow() -> None:
    assert interval([3.0, 1.0, 2.0]) == (1, 3)
    assert interval(list(range(6))) == (0, 5)
    assert interval(list(range(8))) == (0, 7)
    assert interval(list(range(9))) == (1, 7)
    assert interval(list(range(20))) == (5, 14)


def test_a_trace_has_the_load_and_is_the_same_for_a_seed() -> None:
    model = model_of(NANO_NAME)
    size = Size(4000, 1.0)
    trace = trace_of(CELL, model, size, 1)
    assert trace == trace_of(CELL, model, size, 1)
    assert trace != trace_of(CELL, model, size, 2)
    full = sum(costs[1].latency.p50 for costs in model.profile.segments)
    assert len(trace) * full / trace.arrivals[-1].time == pytest.approx(0.9, rel=0.05)
    assert trace.tenants == ("app0", "app1", "app2")


def test_a_recording_gives_the_rate_its_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "jellyfish_lte_upload_trace.txt").write_text("1\n3\n")
    monkeypatch.setenv("DELEN_TEST_DATA", str(tmp_path))
    trace = trace_of(CELL._replace(kind="recorded"), model_of(NANO_NAME), Size(4000, 1.0), 0)
    late = sum(arrival.time > trace.arrivals[-1].time / 2 for arrival in trace)
    assert late / len(trace) == pytest.approx(0.75, abs=0.03)


def test_spread_out_changes_the_times_alone() -> None:
    trace = trace_of(CELL, model_of(NANO_NAME), SIZE, 0)
    idle = spread_out(trace, 5.0)
    assert [arrival.time for arrival in idle] == [5.0 * row for row in range(len(trace))]
    assert [arrival.bounds for arrival in idle] == [arrival.bounds for arrival in trace]
    assert isinstance(idle, Trace)


def test_a_grid_plays_each_cell_with_each_seed_and_the_report_can_read_it() -> None:
    grid = Grid(SIZE, (NANO_NAME,), ("cameras",), (10,), (0.5, 1.5), seeds=2)
    results = by_cell(play_grid(grid, (DEFAULT, "delen"), processes=1))
    assert [result.cell.load for result in results] == [0.5, 1.5]
    for result in results:
        assert len(result.share()) == 2
        assert result.share()[0] <= 1.05
        assert result.deep[0] <= 1
        assert result.rival == "delen"
        assert "cameras" in cells_table([result])


def test_a_claim_is_that_of_the_worst_cell() -> None:
    calm, full, beyond = (Cell("d", "poisson", 1, load) for load in (0.5, 1.0, 1.5))
    lines = [
        line
        for seed in range(2)
        for line in (
            _line(calm, seed, 0.97, 0.96, broken=0.02),
            _line(full, seed, 0.94, 0.95),
            _line(beyond, seed, 0.92, 0.5, broken=0.2),
        )
    ]
    low, high, broken, ahead = claims(by_cell(lines))
    assert (low.median, low.holds) == (0.94, False)
    assert (high.median, high.holds) == (0.92, True)
    assert (broken.median, broken.holds) == (0.02, False)
    assert (round(ahead.median, 6), ahead.holds) == (-0.01, False)
    assert "1 of 3 cells" in behind(by_cell(lines))
    assert "d, poisson, 1 apps, load 1: fifo by 1.00 points" in behind(by_cell(lines))
