from __future__ import annotations

import platform
from pathlib import Path

from delen.profile.device import available_cores, identify, processor_name


def test_a_board_is_named_by_its_device_tree(tmp_path: Path) -> None:
    tree = tmp_path / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"NVIDIA Jetson Orin NX Engineering Reference Kit\0")
    (tmp_path / "proc" / "cpuinfo").write_text("model name : not this\n")
    device = identify(tmp_path, "cuda", 3)
    assert device.processor == "NVIDIA Jetson Orin NX Engineering Reference Kit"
    assert (device.provider, device.threads, device.cores) == ("cuda", 3, available_cores())


def test_without_a_device_tree_the_processor_is_named(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nmodel name\t: other\n"
    )
    assert processor_name(tmp_path) == "Some CPU @ 2 GHz"


def test_without_any_the_architecture_is_named(tmp_path: Path) -> None:
    assert processor_name(tmp_path) == platform.machine()


def test_each_runtime_has_profiles_of_its_own(tmp_path: Path) -> None:
    onnx = identify(tmp_path, "cpu", 3)
    torch = identify(tmp_path, "torch-cpu", 3, "torch")
    assert (onnx.backend, torch.backend) == ("onnxruntime", "torch")
    assert onnx.key != torch.key


def test_each_power_mode_has_profiles_of_its_own(tmp_path: Path) -> None:
    default = identify(tmp_path, "cpu", 3)
    fifteen = identify(tmp_path, "cpu", 3, power_mode="2-15W@gpu300-625")
    assert (default.power_mode, fifteen.power_mode) == ("default", "2-15W@gpu300-625")
    assert default.key != fifteen.key
