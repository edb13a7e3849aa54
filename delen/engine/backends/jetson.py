"""Where a Jetson gets the ONNX Runtime that uses its GPU."""

from __future__ import annotations

import sys
from pathlib import Path

_RELEASE = "etc/nv_tegra_release"
_BOARD = "proc/device-tree/compatible"
_JETPACK_6 = "--index-url https://pypi.jetson-ai-lab.io/jp6/cu126 --no-deps "
"""The public index has no wheel for Python 3.10 on aarch64."""


def gpu_runtime_remedy(
    root: Path = Path("/"), python: tuple[int, int] = sys.version_info[:2]
) -> str | None:
    """The commands that install it for ``python`` on the Jetson whose files are under ``root``;
    None where they are not a Jetson's. A container has the board's file or the release's."""
    if not (root / _RELEASE).exists() and b"nvidia,tegra" not in _read(root / _BOARD):
        return None
    source = _JETPACK_6 if python == (3, 10) else ""
    return (
        "pip uninstall -y onnxruntime onnxruntime-gpu, then "
        f"pip install {source}onnxruntime-gpu (docs/jetson.md, step 2)"
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
