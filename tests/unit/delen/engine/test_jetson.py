"""Where a Jetson gets the ONNX Runtime of its GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from delen.engine.backends.jetson import gpu_runtime_remedy
from delen.errors import MissingExtra


@pytest.fixture(params=["etc/nv_tegra_release", "proc/device-tree/compatible"])
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The files of a Jetson as its host shows them, and as a container does."""
    file = tmp_path / request.param
    file.parent.mkdir(parents=True)
    file.write_bytes(b"nvidia,p3768-0000+p3767-0000\0nvidia,tegra234\0")
    return tmp_path


def test_python_3_10_gets_it_from_the_index_for_jetpack_6(board: Path) -> None:
    remedy = gpu_runtime_remedy(board, (3, 10))
    assert remedy is not None and "/jp6/" in remedy and "--no-deps onnxruntime-gpu" in remedy
    assert remedy in str(MissingExtra("onnxruntime", "daemon", remedy))


def test_later_pythons_get_it_from_the_public_index(board: Path) -> None:
    remedy = gpu_runtime_remedy(board, (3, 12))
    assert remedy is not None and "--index-url" not in remedy


def test_other_machines_get_none(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/compatible").write_bytes(b"raspberrypi,5-model-b\0")
    assert gpu_runtime_remedy(tmp_path) is None
