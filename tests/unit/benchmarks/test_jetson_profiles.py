"""The published figures, as their own sources sum them up."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

STAGES = {
    1_300_500_000: ((8.5, 20.0, 38.0, 57.0), (26.7, 75.7, 156.6, 242.9)),
    726_750_000: ((12.0, 29.7, 58.3, 87.0), (16.3, 47.2, 98.1, 149.4)),
}
"""Cumulative ms and mJ after each stage of ETF's ResNet-50, at the last one with the head."""


@pytest.fixture(scope="module")
def jetson() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[3])
        return importlib.import_module("benchmarks.jetson_profiles")


@pytest.fixture(scope="module")
def profiles(data_folder: Path) -> Path:
    folder = data_folder / "profiles"
    if not folder.is_dir():
        pytest.skip(f"the published profiles are not at {folder}")
    return folder


def test_the_nano_is_as_published(jetson: Any, profiles: Path) -> None:
    nano = jetson.delen_nano(profiles)
    assert nano.accuracies == (0.4354, 0.6803, 0.7675, 0.7657)
    assert nano.energies == pytest.approx((0.04599, 0.09931, 0.17675, 0.24355))
    assert nano.latencies == pytest.approx((0.0117, 0.0253, 0.045, 0.062), abs=5e-5)


@pytest.mark.parametrize("clock", STAGES)
def test_the_tx2_has_its_stages_and_a_head_at_each(jetson: Any, profiles: Path, clock: int) -> None:
    tx2 = jetson.etf_tx2(profiles, "resnet50", clock)
    kernels = jetson._read(profiles / "etf_jetson_tx2_resnet50.json")["kernel_profile"]
    head = [
        kernels[name]
        for name in (
            "tvmgen_default_fused_nn_global_avg_pool2d",
            "reshape_nop",
            "tvmgen_default_fused_nn_dense_add",
        )
    ]
    for values, published, key in zip(
        (tx2.latencies, tx2.energies), STAGES[clock], ("exec_time", "energy"), strict=True
    ):
        extra = sum(kernel[key][str(clock)] for kernel in head) / 1e3
        heads = (1, 2, 3, 3)
        stages = [1e3 * value - n * extra for value, n in zip(values, heads, strict=True)]
        assert stages == pytest.approx(published, abs=0.06)


@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_no_kernel_is_lost(jetson: Any, profiles: Path, network: str) -> None:
    """The segments sum to the run that ETF measured as a whole, and three more heads."""
    document = jetson._read(profiles / f"etf_jetson_tx2_{network}.json")
    clock = str(jetson.TX2_CLOCKS_HZ[0])
    heads = [
        kernel["exec_time"][clock]
        for name, kernel in document["kernel_profile"].items()
        if any(part in name for part in ("avg_pool", "reshape", "dense"))
    ]
    whole = (document["exec_time"][clock] + 3 * sum(heads)) / 1e6
    tx2 = jetson.etf_tx2(profiles, network)
    assert tx2.latencies[-1] == pytest.approx(whole, rel=2e-3)
    assert tx2.accuracies == jetson.delen_nano(profiles).accuracies
    assert "assumed" in tx2.note


def test_the_clock_of_least_energy_is_that(jetson: Any, profiles: Path) -> None:
    fast, frugal = (jetson.etf_tx2(profiles, "resnet50", c) for c in jetson.TX2_CLOCKS_HZ)
    assert frugal.energies[-1] < 0.7 * fast.energies[-1]
    assert frugal.latencies[-1] > 1.4 * fast.latencies[-1]


def test_what_is_not_there_is_named(jetson: Any, profiles: Path) -> None:
    with pytest.raises(ValueError, match="resnet18, resnet50"):
        jetson.etf_tx2(profiles, "resnet34")
    with pytest.raises(ValueError, match="114750000"):
        jetson.etf_tx2(profiles, "resnet18", 5)
    kernels = {"conv_bias_add_add_nn_relu": jetson.SegmentFigures(1.0, 1.0)}
    with pytest.raises(ValueError, match="1 blocks and 0 kernels of a head"):
        jetson._stages(kernels, (2, 2))
