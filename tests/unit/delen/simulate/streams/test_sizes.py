"""Sizes of frames from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from delen.errors import ConfigError, ProfileError
from delen.simulate.streams.sizes import COLUMNS, models_of, read_sizes
from policies.client.api import FrameOption
from policies.exit.bounds import BoundsPolicy
from policies.plan.planner import PlannerSettings

HEADER = ",".join(COLUMNS) + "\n"
PROFILES = Path(__file__).parents[5] / "benchmarks" / "profiles"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sizes.csv"


def test_sizes_ascend_by_payload(file: Path) -> None:
    file.write_text(HEADER + "480,640,90000,3.5,12,0.8\n\n240,320,30000,1,4,0.6\n")
    small, large = read_sizes(file)
    assert small == FrameOption((240, 320), 30000.0, 0.004, 0.6, 0, 0.001)
    assert large.size == (480, 640)


@pytest.mark.parametrize("name", ["gentle", "steep"])
def test_shipped_sizes_are_more_accurate_the_larger_they_are(name: str) -> None:
    options = read_sizes(PROFILES / f"sizes-{name}.csv")
    accuracies = [option.accuracy for option in options]
    assert len(options) > 10
    assert accuracies == sorted(accuracies)
    models = models_of(options, PlannerSettings(), BoundsPolicy(), 0.99, 0)
    assert models[-1].planner.accuracies[0] == pytest.approx(accuracies[-1], abs=1e-3)
    assert models[-1].profile.segments[0][1].latency.p50 == options[-1].latency


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("", 1, "header"),
        ("height,width\n", 1, "header"),
        (HEADER, 1, "no size"),
        (HEADER + "1,1,1,1\n", 2, "4 fields"),
        (HEADER + "1,1,1,1,1,0.5\nx,1,1,1,1,0.5\n", 3, "height"),
        (HEADER + "1,1,1,1,1,0.5\n1,1,2,1,1,0.6\n", 3, "1x1 is given twice"),
        (HEADER + "1,1.5,1,1,1,0.5\n", 2, "width"),
        (HEADER + "1,1,0,1,1,0.5\n", 2, "payload_bytes"),
        (HEADER + "1,1,1,-1,1,0.5\n", 2, "encoding_ms"),
        (HEADER + "1,1,1,1,0,0.5\n", 2, "latency_ms"),
        (HEADER + "1,1,1,1,1,1\n", 2, "accuracy"),
        (HEADER + "1,1,1,1,1,nan\n", 2, "accuracy"),
        (HEADER + "1_0,1,1,1,1,0.5\n", 2, "height"),
        (HEADER + "1,\u0663,1,1,1,0.5\n", 2, "width"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(
    text: str, line: int, named: str, file: Path
) -> None:
    file.write_text(text)
    with pytest.raises(ProfileError) as caught:
        read_sizes(file)
    assert f"{file}, line {line}: " in str(caught.value)
    assert named in str(caught.value)


def test_an_accuracy_that_no_table_can_have_is_named() -> None:
    option = FrameOption((240, 320), 1.0, 0.001, 0.00001, 0)
    with pytest.raises(ConfigError, match="240x320"):
        models_of([option], PlannerSettings(), BoundsPolicy(), 0.99, 0)
