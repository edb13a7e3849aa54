"""The torch backend: what it runs on, which programs it refuses, and who needs torch at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bundle.manifest import MANIFEST, load_bundle
from delen.engine.backends.base import Placement
from delen.engine.backends.choose import BundleBackends
from delen.errors import BackendError

torch = pytest.importorskip("torch", reason="the torch backend needs torch: delen[torch]")
pytest.importorskip("onnxruntime", reason="the engine needs onnxruntime: delen[daemon]")

IMAGES = np.random.default_rng(2).integers(0, 256, (8, 4, 4, 1), dtype=np.uint8)


@pytest.fixture
def copy(tiny_torch_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return Path(shutil.copytree(tiny_torch_bundle, tmp_path / "tiny"))


def change(folder: Path, how: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    how(document)
    (folder / MANIFEST).write_text(json.dumps(document))


def put(folder: Path, file: str, contents: bytes) -> None:
    """Replace a file and vouch for it in the manifest."""
    (folder / file).write_bytes(contents)
    entry = {"sha256": hashlib.sha256(contents).hexdigest(), "size": len(contents)}
    change(folder, lambda document: document["files"].update({file: entry}))


def refusal(folder: Path) -> str:
    with pytest.raises(BackendError) as caught:
        BundleBackends("cpu", 1).load(load_bundle(folder))
    return str(caught.value)


def test_each_bundle_says_what_it_runs_on(tiny_bundle: Path, tiny_torch_bundle: Path) -> None:
    backends = BundleBackends("cpu", 1)
    placements = [
        backends.load(load_bundle(folder)).placement for folder in (tiny_bundle, tiny_torch_bundle)
    ]
    assert placements == [Placement("onnxruntime", "cpu", 1), Placement("torch", "torch-cpu", 1)]
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this torch has a GPU")
def test_a_gpu_that_torch_does_not_find_is_refused() -> None:
    from delen.engine.backends.torch import TorchBackend

    for name in ("cuda", "tensorrt"):
        with pytest.raises(BackendError, match=f"backend '{name}' needs a GPU"):
            TorchBackend(name, 1)
    assert TorchBackend("auto", 1)


def test_any_rows_of_any_batches_run_alike(tiny_torch_bundle: Path) -> None:
    network = BundleBackends("cpu", 1).load(load_bundle(tiny_torch_bundle))
    whole = network.run(0, list(IMAGES))
    expected = network.run(1, whole.features).logits
    other = network.run(0, list(IMAGES[4:]))
    for rows in ([6], [5, 2], [7, 0, 3], [4, 4]):
        run = network.run(1, [whole.features[row] for row in rows])
        np.testing.assert_allclose(run.logits, expected[rows], atol=1e-4)
    mixed = network.run(1, [whole.features[1], other.features[2], whole.features[0]])
    np.testing.assert_allclose(mixed.logits, expected[[1, 6, 0]], atol=1e-4)
    assert (mixed.logits.dtype, mixed.confidence.shape) == (np.float32, (3,))
    assert network.run(2, mixed.features).features == []


def test_a_run_that_fails_is_named(tiny_torch_bundle: Path) -> None:
    network = BundleBackends("cpu", 1).load(load_bundle(tiny_torch_bundle))
    with pytest.raises(BackendError, match="segment 0 failed on a batch of 2"):
        network.run(0, [IMAGES[0], IMAGES[0][:2]])


@pytest.mark.parametrize("damage", ["no program", "cut off"])
def test_a_damaged_program_is_refused(copy: Path, damage: str) -> None:
    whole = (copy / "segment1.pt2").read_bytes()
    put(copy, "segment1.pt2", b"no program" if damage == "no program" else whole[: len(whole) // 2])
    assert f"{copy / 'segment1.pt2'} does not load" in refusal(copy)


def test_a_graph_of_onnx_is_no_program(copy: Path, tiny_bundle: Path) -> None:
    put(copy, "segment0.pt2", (tiny_bundle / "segment0.onnx").read_bytes())
    assert "segment0.pt2 does not load" in refusal(copy)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda d: d["input"].update(dtype="int8", image=None), "takes input as uint8; it must be"),
        (lambda d: d["input"].update(shape=[4, 5, 1]), r"the manifest says \[4, 5, 1\]"),
        (lambda d: d.update(classes=5, labels=None), r"gives logits .* the manifest says \[5\]"),
        (lambda d: d["exits"][0].update(features=[15]), r"gives features_out .* says \[15\]"),
    ],
)
def test_a_program_that_is_not_what_the_manifest_says_is_refused(
    copy: Path, how: Callable[[dict[str, Any]], None], message: str
) -> None:
    change(copy, how)
    with pytest.raises(BackendError, match=message):
        BundleBackends("cpu", 1).load(load_bundle(copy))


@pytest.mark.parametrize(
    ("file", "other", "message"),
    [
        ("segment0.pt2", "segment1.pt2", "takes 2 tensors; they must be input"),
        ("segment1.pt2", "segment0.pt2", "takes 1 tensors; they must be features, rows"),
        ("segment2.pt2", "segment1.pt2", "gives 3 tensors; they must be logits, confidence"),
    ],
)
def test_a_program_in_another_place_is_refused(
    copy: Path, file: str, other: str, message: str
) -> None:
    put(copy, file, (copy / other).read_bytes())
    assert f"{copy / file} {message}" in refusal(copy)


def test_a_program_of_one_batch_size_is_refused(copy: Path) -> None:
    class Fixed(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, input: Any) -> Any:
            features = input.float().flatten(1)
            return features[:, :4], features[:, 0], features

    buffer = BytesIO()
    sample = (torch.zeros((2, 4, 4, 1), dtype=torch.uint8),)
    torch.export.save(torch.export.export(Fixed(), sample), buffer)
    put(copy, "segment0.pt2", buffer.getvalue())
    assert "takes input [2, 4, 4, 1]; its first size must be free" in refusal(copy)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import delen
from delen.daemon.build_model import ModelBuilder
from delen.bundle.manifest import load_bundle
from delen.engine.backends.choose import BundleBackends

backends = BundleBackends("cpu", 1)
print(backends.load(load_bundle(sys.argv[1])).placement.provider)
try:
    backends.load(load_bundle(sys.argv[2]))
except delen.MissingExtra as error:
    print(error)
"""


def test_only_a_bundle_of_torch_needs_torch(tiny_bundle: Path, tiny_torch_bundle: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tiny_bundle), str(tiny_torch_bundle)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    provider, error = ended.stdout.splitlines()
    assert provider == "cpu"
    assert error == "torch is not installed; install it with: pip install 'delen[torch]'"
