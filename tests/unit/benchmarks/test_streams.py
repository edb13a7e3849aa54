"""The benchmark of client controllers: its cells, its table and its claims."""

from __future__ import annotations

import pytest

from benchmarks import streams
from benchmarks.streams import DEFAULT, Cell, Played, Result, behind, by_cell, claims, table

CELL = Cell("wifi", 0.033, "gentle")
OTHER = Cell("lte", 0.1, "steep")


def played(cell: Cell, seed: int, ours: float, theirs: float, avoidable: float = 0.0) -> Played:
    results = {
        DEFAULT: Result(ours, avoidable, 0.1, 50, 100.0),
        "mpc": Result(theirs, 0.2, 0.3, 60, 50.0),
    }
    return Played(cell, seed, 0.8, 0.0 if cell == CELL else 0.2, results)


@pytest.fixture
def cells() -> dict[Cell, list[Played]]:
    runs = [played(CELL, seed, 0.6 + 0.01 * seed, 0.5, 0.004) for seed in range(5)]
    runs += [played(OTHER, seed, 0.5, 0.4, 0.05) for seed in range(5)]
    return by_cell(runs)


def test_claims_are_judged_where_they_hold_least(cells: dict[Cell, list[Played]]) -> None:
    lead, misses, switches, share = claims(cells)
    assert lead.name == "lead over lte 100 ms steep, mpc"
    assert lead.median == pytest.approx(10)
    # the link of the other cell cannot be kept by anybody
    assert misses.name == "avoidable misses, wifi 33 ms gentle"
    assert misses.median == pytest.approx(0.4)
    assert (switches.median, switches.holds) == (-10, True)
    assert share.median == pytest.approx((0.62 / 0.8 + 0.5 / 0.8) / 2)


def test_who_is_ahead_is_named() -> None:
    cells = by_cell([played(CELL, seed, 0.5, 0.6) for seed in range(5)])
    (line,) = behind(cells)
    assert "wifi 33 ms gentle, mpc by 10.00 points" in line
    assert claims(cells)[0].holds is False


def test_the_table_has_a_line_a_cell(cells: dict[Cell, list[Played]]) -> None:
    lines = list(table(cells))
    assert sum(line.startswith("wifi 33 ms gentle") for line in lines) == 2
    assert any(line.startswith("switches a minute") for line in lines)


def test_every_controller_plays_every_cell() -> None:
    if not streams.trace_file("lte").exists():
        pytest.skip("the traces are not in the data's folder (DELEN_TEST_DATA)")
    one = streams.play(Cell("lte", 0.1, "gentle"), 1, 5, seconds=3.0)
    assert {DEFAULT, "jellyfish", "mpc", "pid", "threshold", "smallest", "middle", "largest"} == (
        set(one.results)
    )
    assert all(result.effective <= one.bound for result in one.results.values())


def test_without_traces_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DELEN_TEST_DATA", str(tmp_path))
    assert streams.judge(1) == []
    assert "skipped: lte, mobile01" in capsys.readouterr().out
