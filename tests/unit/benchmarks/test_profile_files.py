"""The profile files of the Jetsons: what is published, in a file that can be simulated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.jetson_profiles import delen_nano, etf_tx2
from benchmarks.profile_files import NANO, TX2_RESNET18, TX2_RESNET50, make, to_profile
from delen.commands.main import main
from delen.profile.reader import load_profile

FILES = (NANO, TX2_RESNET18, TX2_RESNET50)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_device_that_is_not_here_is_simulated(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s,max_latency_ms\n" + "".join(f"{row},70\n" for row in range(20)))
    command = ["simulate", "--profile", str(file), "--trace", str(trace), "--policy", "fifo"]
    assert main([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["answered"] == 20
    assert summary["missed"] == {"latency": 0, "accuracy": 0, "energy": 0}
    assert summary["energy_j"] > 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_files_hold_four_exits_and_no_invented_batches(file: Path) -> None:
    profile = load_profile(file)
    assert profile.accuracies == (0.4354, 0.6803, 0.7675, 0.7657)
    assert all(set(costs) == {1} for costs in profile.segments)
    for costs in profile.segments:
        assert costs[1].latency.p99 == pytest.approx(1.02 * costs[1].latency.p50)


def test_the_files_are_what_the_command_makes(data_folder: Path, tmp_path: Path) -> None:
    sources = data_folder / "profiles"
    if not sources.is_dir():
        pytest.skip(f"the published profiles are not at {sources}")
    for made in make(sources, tmp_path):
        assert load_profile(made) == load_profile(NANO.parent / made.name)
    nano = to_profile(delen_nano(sources), "nano")
    assert [costs[1].latency.p50 for costs in nano.segments] == [
        segment.latency for segment in delen_nano(sources).segments
    ]
    assert etf_tx2(sources, "resnet50").energies[-1] == pytest.approx(
        sum(costs[1].energy or 0.0 for costs in load_profile(TX2_RESNET50).segments)
    )
