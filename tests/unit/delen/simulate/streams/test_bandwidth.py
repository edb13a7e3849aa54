"""Bandwidths: both formats, interpolation, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from delen.errors import TraceError
from delen.simulate.streams.bandwidth import constant, read_bandwidth


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "link.csv"


def mbps(values: object) -> list[float]:
    return (8e-6 * np.asarray(values, float)).round(9).tolist()  # type: ignore[no-any-return]


def test_a_line_a_second(file: Path) -> None:
    file.write_text("8\n16.5\n0\n")
    bandwidth = read_bandwidth(file)
    assert bandwidth.end == 3
    assert mbps(bandwidth.at(np.array([0.0, 0.99, 1.0, 2.5, 3.0]))) == [8, 8, 16.5, 0, 8]


def test_points_are_held_or_joined(file: Path) -> None:
    file.write_text("time_s,mbps\n0,10\n30,40\n")
    times = np.array([15.0, 30.0, 45.0])
    assert mbps(read_bandwidth(file).at(times)) == [10, 40, 40]
    assert mbps(read_bandwidth(file, "linear").at(times)) == [25, 40, 40]


def test_a_part_is_a_bandwidth_of_its_own(file: Path) -> None:
    file.write_text("time_s,mbps\n0,10\n30,40\n60,20\n")
    part = read_bandwidth(file, "linear").part(15, 30)
    assert part.end == 30
    assert mbps(part.at(np.array([0.0, 15.0, 29.999]))) == pytest.approx([25, 40, 30], abs=1e-2)


def test_constant_is_the_same_at_all_times() -> None:
    assert mbps(constant(5).at(np.array([0.0, 1e3]))) == [5, 5]


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("", 1, "empty"),
        ("\n \n", 1, "empty"),
        ("8\nfast\n", 2, "'fast'"),
        ("8\n-1\n", 2, "'-1'"),
        ("8\n\n7\n", 2, "write 0"),
        ("\n8\n", 1, "write 0"),
        ("8\nnan\n", 2, "'nan'"),
        ("8\n1_0\n", 2, "'1_0'"),
        ("8\n\u0663\n", 2, "'\u0663'"),
        ("time,mbps\n0,1\n", 1, "header"),
        ("time_s,mbps\n", 1, "no value"),
        ("time_s,mbps\n0,1\n5\n", 3, "1 fields"),
        ("time_s,mbps\n0,1\n5,2\n4,2\n", 4, "ascend"),
        ("time_s,mbps\n0,1\n0,2\n", 3, "ascend"),
        ("time_s,mbps\n3,1\n", 2, "starts at 0"),
        ("time_s,mbps\n0,-2\n", 2, "'-2'"),
        ("time_s,mbps\nnow,2\n", 2, "'now'"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(
    text: str, line: int, named: str, file: Path
) -> None:
    file.write_text(text)
    with pytest.raises(TraceError) as caught:
        read_bandwidth(file)
    assert f"{file}, line {line}: " in str(caught.value)
    assert named in str(caught.value)


def test_a_missing_or_binary_file_is_named(file: Path) -> None:
    with pytest.raises(TraceError, match=r"link\.csv"):
        read_bandwidth(file)
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(TraceError, match=r"link\.csv"):
        read_bandwidth(file)
